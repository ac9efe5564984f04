"""Every format goes through import; whatever is wrong is told in one report, and the originals stay."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import formats
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from socketlab.cli import app
from socketlab.errors import LabError
from socketlab.images import finders, importers, scan
from socketlab.images.encodings import measure
from socketlab.images.importers import KINDS, import_folder, survey, write_pack
from socketlab.images.packs import open_pack
from socketlab.images.scan import Frame, divided


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Kind → folder of a clean set of it."""
    root = tmp_path_factory.mktemp("sets")
    return {kind: write(root / kind) for kind, write in formats.WRITERS.items()}


def imported(found, out, **more):
    return write_pack(found, out, processes=1, **more)


def snapshot(root: Path) -> dict[str, object]:
    """Every entry below a folder: bytes of files, targets of links, kinds of the rest."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink():
                found[os.fsencode(path)] = os.readlink(path)
            else:
                found[os.fsencode(path)] = path.read_bytes() if path.is_file() else path.stat().st_mode
    return found


# formats


def test_sun_rgbd(sets, tmp_path):
    """Bit-rotated depth is exact, sensors are domains, the task is what all four have seen."""
    pack = imported(survey("sunrgbd", sets["sunrgbd"]), tmp_path / "pack", size=48)
    assert pack.domains == ("kinect_v1", "kinect_v2", "realsense", "xtion")
    assert pack.classes == formats.TASK
    assert set(pack.load("pairs").kinds) == set(formats.OTHERS)
    farthest = 0
    for split in pack.splits:
        for domain in pack.domains:
            images = pack.load(split, domain)
            for name, kind, depth in zip(images.names, images.kinds, images.images["depth"], strict=True):
                (file,) = (sets["sunrgbd"] / name / "image").iterdir()
                expected = formats.picture(kind, int(file.stem), "depth")[:, 8:56]
                expected = np.where(expected == 65535, 0, expected)
                np.testing.assert_array_equal(depth[0].numpy(), expected)
                farthest = max(farthest, int(expected.max()))
            assert len(pack.intrinsics(split, domain)) == len(images)
            assert pack.intrinsics(split, domain)[0] == (518.8, 519.4)
    assert farthest > 8191
    assert sum(pack.manifest["splits"][split]["scenes"] for split in pack.splits) == 64


@pytest.mark.parametrize(
    "numbers", ["nan 0 32 0 nan 24 0 0 1", "0 0 32 0 518.8 24 0 0 1", "518.8 0 32", "x" * 9]
)
def test_intrinsics_that_are_none_are_left_out(tmp_path, numbers):
    root = formats.write_sunrgbd(tmp_path / "set", each=2)
    for file in root.rglob("intrinsics.txt"):
        if "kv1" in file.parts:
            file.write_text(numbers)
    pack = imported(survey("sunrgbd", root), tmp_path / "pack", size=12)
    assert set(pack.intrinsics("train", "kinect_v1")) == {None}
    assert None not in pack.intrinsics("train", "xtion")


def test_sun_rgbd_by_its_parent_and_with_filled_depth(sets, tmp_path):
    found = survey("sunrgbd", sets["sunrgbd"].parent, depth="depth_bfx")
    assert {frame.pictures["depth"].path.parent.name for frame in found.frames} == {"depth_bfx"}


def test_sun_classes_are_those_that_all_sensors_saw(tmp_path):
    for s, (domain, places) in enumerate(formats.SUN_FOLDERS.items()):
        kinds = ("office", "bedroom", "idk", *(("kitchen",) if s else ()))
        for number, kind in enumerate(kinds, 1):
            folder = tmp_path / places[0].format(number, number)
            formats.write_sun_frame(folder, domain, "office", number)
            (folder / "scene.txt").write_text(kind)
    found = survey("sunrgbd", tmp_path)
    assert found.classes == ("bedroom", "office"), "kitchen is not in kinect_v1, and idk is no kind of room"
    assert Counter(frame.kind for frame in found.frames if frame.split == "pairs") == {"idk": 4, "kitchen": 3}
    assert survey("sunrgbd", tmp_path, task=["kitchen"]).classes == ("kitchen",)
    with pytest.raises(LabError, match="no class 'kitchn' in this set: did you mean kitchen"):
        survey("sunrgbd", tmp_path, task=["kitchn"])
    shutil.rmtree(tmp_path / "xtion")
    assert "xtion not found" in survey("sunrgbd", tmp_path).report()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("xtion/sun3ddata/mit_1/scan_2/0001", "xtion/sun3ddata/mit_1"),
        ("kv2/kinect2data/000002_2014-05-26_14-23-37_2605_rgbf000103-resize", None),
        ("kv1/NYUdata/NYU0013", "kv1/NYUdata/NYU-1x"),
        ("realsense/lg/2014_10_21-18", "realsense/lg/2014_10_21-18"),
    ],
)
def test_sun_places(name, place):
    assert finders._sun_place(name) == (place or "kv2/kinect2data/2014-05-26_14-23-37_2605")


def test_diml(sets, tmp_path):
    pack = imported(survey("diml", sets["diml"]), tmp_path / "pack", size=36)
    assert pack.classes == finders.TASKS["diml"]
    for split in ("train", "test"):
        images = pack.load(split)
        assert len(images) == 18 and {name.split("/")[0] for name in images.names} == {split}
    assert set(pack.load("pairs").kinds) == {"billiard_hall", "computer_room"}
    place = sets["diml"] / "train" / "HR" / "11. Bedroom"
    stored = pack.load("train")
    row = stored.names.index("train/11. Bedroom/in_k_r_160224_000001")
    expected = np.asarray(Image.open(place / "depth_filled" / "in_k_r_160224_000001_depth_filled.png"))
    expected = np.where(expected == 65535, 0, expected)[:, 14:50]
    np.testing.assert_array_equal(stored.images["depth"][row, 0].numpy(), expected)
    colours = np.asarray(Image.open(place / "color" / "in_k_r_160224_000001_c.png"))[:, 14:50]
    np.testing.assert_array_equal(stored.images["rgb"][row].numpy(), colours.transpose(2, 0, 1))


def test_rgb_nir(sets, tmp_path):
    pack = imported(survey("rgbnir", sets["rgbnir"]), tmp_path / "pack", size=48)
    assert pack.classes == finders.TASKS["rgbnir"] and pack.modalities == ("rgb", "nir")
    stored = pack.load("train", modalities=("nir",))
    for name, image in zip(stored.names, stored.images["nir"], strict=True):
        written = Image.open(sets["rgbnir"] / "nirscene1" / f"{name}_nir.tiff").convert("L")
        np.testing.assert_array_equal(image[0].numpy(), np.asarray(written)[:, 8:56])


def test_folders(sets, tmp_path):
    found = survey("folders", sets["folders"], task=formats.TASK)
    assert found.problems == [] and len(found.frames) == 20
    pack = imported(found, tmp_path / "pack", size=48)
    assert "bathroom/küche nr 0" in (*pack.load("train").names, *pack.load("test").names)
    every = survey("folders", sets["folders"])
    assert every.classes == tuple(sorted((*formats.TASK, *formats.OTHERS)))
    assert "pairs" not in formats.counts(every)


def test_lists(sets, tmp_path):
    found = survey("lists", sets["lists"])
    assert found.problems == [] and found.classes == formats.TASK
    assert formats.counts(found) == {
        "train": {"kv1": dict.fromkeys(formats.TASK, 3)},
        "pairs": {"kv1": dict.fromkeys(formats.OTHERS, 3)},
    }
    pack = imported(found, tmp_path / "pack", size=48)
    assert pack.load("train").names[0] == "kv1/train/bathroom/küche nr 0"


def test_unlabelled_folders_are_what_is_adapted_to(tmp_path):
    """Depth alone, in a folder without a class: it trains, it never tests, and it is no pair."""
    root = formats.write_folders(tmp_path / "set")
    for kind in formats.TASK:
        shutil.rmtree(root / "rgb" / kind)
    os.rename(root / "depth" / formats.TASK[0], root / "depth" / "unlabelled")
    with pytest.raises(LabError, match="class missing in a modality"):
        imported(survey("folders", root, task=formats.TASK[1:]), tmp_path / "pack")
    found = survey("folders", root, task=formats.TASK[1:], unpaired=True)
    pack = imported(found, tmp_path / "pack", size=24)
    kinds = {split: Counter(pack.load(split).kinds) for split in pack.splits}
    assert kinds["train"] == {"unknown": 4} | dict.fromkeys(formats.TASK[1:], 3)
    assert kinds["test"] == dict.fromkeys(formats.TASK[1:], 1)
    assert kinds["pairs"] == dict.fromkeys(formats.OTHERS, 4)
    assert pack.classes == formats.TASK[1:]


def test_lists_in_folders_of_modalities_without_labels(sets, tmp_path):
    """``<modality>/<domain>_list.txt``; −1 is unknown; names of classes from classes.txt."""
    base = sets["lists"]
    for modality in ("rgb", "depth"):
        (tmp_path / modality).mkdir()
        lines = (base / f"kv1_{modality}_list.txt").read_text("utf-8").splitlines()
        unknown = [line.rpartition(" ")[0] + "\t-1" for line in lines]
        chosen = lines if modality == "rgb" else unknown
        bom = "\ufeff" if modality == "rgb" else ""
        (tmp_path / modality / "kv1_list.txt").write_text(bom + "\r\n".join(chosen), encoding="utf-8")
    (tmp_path / "classes.txt").write_text("bath\nbed\ndesk\n")
    found = survey("lists", tmp_path, base=base)
    assert found.problems == [] and found.classes == ("bath", "bed", "desk")
    (tmp_path / "rgb" / "kv1_list.txt").unlink()
    found = survey("lists", tmp_path, base=base)
    assert {frame.kind for frame in found.frames} == {"unknown"} and found.problems == []
    pack = imported(found, tmp_path.with_name("unlabelled pack"), size=16)
    assert pack.load("train").modalities == ("depth",) and pack.load("train").classes == ()


def test_partners_of_a_list_must_have_one_name(sets, tmp_path):
    root = shutil.copytree(sets["lists"], tmp_path / "lists")
    lines = (root / "kv1_depth_ti_list.txt").read_text("utf-8").splitlines()
    (root / "kv1_depth_ti_list.txt").write_text("\n".join(lines[1:] + lines[:1]), encoding="utf-8")
    found = survey("lists", root)
    assert Counter(problem.what for problem in found.problems) == {"mismatched pair": 6}
    assert survey("lists", root, by_line=True).problems == []


def test_split_keeps_places_together():
    frames = [
        Frame(f"{place}/{i}", "kv1", "office", {}, group=f"place {place}")
        for place in range(20)
        for i in range(place % 4 + 1)
    ]
    split, how = divided(frames, {"office"}, numbered=True)
    assert how == "a fifth for testing, by whole places or recordings, by the digests of names"
    sides = {}
    for frame in split:
        sides.setdefault(frame.group, set()).add(frame.split)
    assert all(len(side) == 1 for side in sides.values())
    share = sum(frame.split == "test" for frame in split) / len(split)
    assert 0.1 < share < 0.3
    assert divided(list(reversed(frames)), {"office"}, numbered=True)[0] == list(reversed(split))


# what is wrong


def spoil(root: Path) -> None:
    """Everything that can be wrong with a set of folders, each once."""
    rgb, depth = root / "rgb", root / "depth"
    (depth / "bathroom" / "küche nr 0.png").unlink()
    shutil.copy(rgb / "bathroom" / "küche nr 2.png", rgb / "bathroom" / "küche nr 2.jpeg")
    shutil.copy(depth / "bedroom" / "küche nr 0.png", depth / "bedroom" / "ku\u0308che NR 0.png")
    file = rgb / "bedroom" / "küche nr 1.jpg"
    file.write_bytes(file.read_bytes()[:-300])
    (depth / "bedroom" / "küche nr 2.png").write_bytes(b"")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(depth / "office" / "küche nr 0.png")
    Image.fromarray(np.zeros((64, 48), np.uint16)).save(depth / "office" / "küche nr 1.png")
    (depth / "office" / "küche nr 2.png").write_text("not a picture")
    (depth / "office" / "küche nr 3.png").unlink()
    (depth / "office" / "küche nr 3.png").mkdir()
    shutil.rmtree(rgb / "hotel_suite")
    (depth / "hospital_ward" / "loop").symlink_to(depth / "hospital_ward")
    (depth / "hospital_ward" / "nowhere.png").symlink_to("gone.png")
    (root / "notes").mkdir()
    shutil.copy(rgb / "office" / "küche nr 0.png", root / "notes" / "plan.png")


def test_all_that_is_wrong_is_in_one_report(tmp_path, monkeypatch):
    root = formats.write_folders(tmp_path / "set", kinds=(*formats.TASK, *formats.OTHERS, "laundry"))
    spoil(root)
    real = os.scandir

    def forbidden(folder):
        if not isinstance(folder, int) and Path(folder).parts[-2:] == ("rgb", "laundry"):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(scan.os, "scandir", forbidden)
    before = snapshot(root)
    found = survey("folders", root, task=formats.TASK)
    expected = {
        ("orphan", "rgb/bathroom/küche nr 0.png"),
        ("orphan", "depth/bathroom/küche nr 2.png"),
        ("duplicate", "rgb/bathroom/küche nr 2.png"),
        ("duplicate", "depth/bedroom/küche nr 0.png"),
        ("orphan", "rgb/bedroom/küche nr 0.png"),
        ("truncated file", "rgb/bedroom/küche nr 1.jpg"),
        ("truncated file", "depth/bedroom/küche nr 2.png"),
        ("wrong bit depth", "depth/office/küche nr 0.png"),
        ("size mismatch", "depth/office/küche nr 1.png"),
        ("unreadable file", "depth/office/küche nr 2.png"),
        ("folder in place of a file", "depth/office/küche nr 3.png"),
        ("orphan", "rgb/office/küche nr 3.jpg"),
        ("class missing in a modality", "hotel_suite"),
        ("orphan", "depth/hospital_ward/nowhere.png"),
        ("symlink loop", "depth/hospital_ward/loop"),
        ("unreadable folder", "rgb/laundry"),
        ("class missing in a modality", "laundry"),
    }
    told = {(problem.what, problem.where) for problem in found.problems}
    assert told == expected
    report = found.report()
    for what, where in expected:
        assert what in report and where in report
    assert "not read: 1 × picture of no modality (notes/plan.png)" in report
    assert str(tmp_path) not in report
    for on_bad, told in (
        ("stop", r"scenes cannot be used \(.*5 × orphan.*--on-bad skip"),
        ("hope", "unknown"),
    ):
        with pytest.raises(LabError, match=told):
            imported(found, tmp_path / "pack", on_bad=on_bad)
    pack = imported(found, tmp_path / "pack", size=16, on_bad="skip")
    stored = sum(pack.manifest["splits"][split]["scenes"] for split in pack.splits)
    assert stored == len(found.frames) and pack.manifest["left_out"] == found.left_out
    assert {(one["what"], one["where"]) for one in pack.manifest["skipped"]} == expected
    assert snapshot(root) == before


def test_links_in_a_circle_are_told(sets, tmp_path):
    root = shutil.copytree(sets["rgbnir"], tmp_path / "set")
    (root / "nirscene1" / "forest" / "again").symlink_to(root)
    (root / "nirscene1" / "self").symlink_to(root / "nirscene1" / "self")
    found = survey("rgbnir", root)
    assert ("symlink loop", "nirscene1/forest/again") in {(one.what, one.where) for one in found.problems}
    assert len(found.frames) == 27


def test_a_pipe_is_not_opened(sets, tmp_path):
    root = shutil.copytree(sets["folders"], tmp_path / "set")
    os.mkfifo(root / "rgb" / "office" / "pipe.png")
    os.mkfifo(root / "depth" / "office" / "pipe.png")
    found = survey("folders", root)
    assert {one.why for one in found.problems} == {"it is not a file"}


def test_a_name_that_is_no_text_is_told(sets, tmp_path):
    root = shutil.copytree(sets["folders"], tmp_path / "set")
    try:
        os.rename(
            root / "rgb" / "office" / "küche nr 1.jpg", os.fsencode(root / "rgb" / "office") + b"/\xff.jpg"
        )
    except OSError:
        pytest.skip("this file system has names in Unicode only")
    found = survey("folders", root)
    assert {problem.what for problem in found.problems} == {"unreadable file", "orphan"}
    found.report().encode()
    imported(found, tmp_path / "pack", size=16, on_bad="skip").verify()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("sun", "."), "data set 'sun' is unknown"),
        (("folders", "nowhere"), "nowhere is not a folder"),
        (("sunrgbd", "."), "holds no scene of SUN RGB-D: kv1, kv2"),
        (("diml", "."), "holds no scene of DIML"),
        (("rgbnir", "."), "holds no scene of RGB-NIR"),
        (("lists", "."), "holds no scene of text lists"),
        (("folders", "."), "holds no scene of plain folders"),
    ],
)
def test_a_wrong_folder_is_one_sentence(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match=told):
        survey(*arguments)


def test_options_are_checked(sets):
    with pytest.raises(LabError, match="sunrgbd option 'quality' is unknown: choose one of depth"):
        survey("sunrgbd", sets["sunrgbd"], quality="LR")
    with pytest.raises(LabError, match="depth 'deep' is unknown: choose one of depth, depth_bfx"):
        survey("sunrgbd", sets["sunrgbd"], depth="deep")


def test_import_folder_says_what_it_does(sets, tmp_path, capsys):
    said = []
    pack = import_folder("rgbnir", sets["rgbnir"], tmp_path / "pack", size=24, say=said.append)
    assert "27 usable scenes" in said[0] and "no scene is left out" in said[0]
    assert "rgb: " in said[0] and "of 255 (1 % to 99 %)" in said[0]
    assert "fit centre cuts 25% of a picture away on average" in said[0]
    assert said[-1] == pack.summary() and "24 × 24 pixels" in said[-1]
    assert said[-2] == f"written to {tmp_path / 'pack'}" and str(tmp_path) not in said[-1]
    assert "scene" not in capsys.readouterr().err  # bars of progress are for terminals


def test_settings_that_cannot_be_are_told_before_a_file_is_looked_at(sets, tmp_path, monkeypatch):
    """A survey of ten thousand frames takes a minute: no time to learn that the folder is taken."""
    monkeypatch.setattr(importers, "survey", None)
    (tmp_path / "taken").mkdir()
    inside = sets["rgbnir"] / "pack"
    for out, wrong, told in (
        (tmp_path / "taken", {}, "exists already"),
        (inside, {}, "lies in the data set itself"),
        (tmp_path / "pack", {"size": 0}, "size 0 is out of range"),
        (tmp_path / "pack", {"fit": "round"}, "fit 'round'"),
        (tmp_path / "pack", {"on_bad": "hope"}, "on_bad 'hope'"),
    ):
        with pytest.raises(LabError, match=told):
            import_folder("rgbnir", sets["rgbnir"], out, say=lambda text: None, **wrong)


def test_an_imported_depth_can_be_measured(sets, tmp_path):
    pack = imported(survey("sunrgbd", sets["sunrgbd"]), tmp_path / "pack", size=48)
    depth = pack.load("train", "xtion", ("depth",))
    normalisation = measure(depth.images["depth"], "depth")
    assert torch.isfinite(normalisation.encode(depth.images["depth"])).all()


# corruptions

DAMAGES = (
    "truncate",
    "flip",
    "swap",
    "rename",
    "delete",
    "empty",
    "mode",
    "folder",
    "double",
    "link",
    "pipe",
    "text",
    "bits",
    "class",
    "forbid",
    "full",
)


class Clean(dict):
    def __repr__(self):
        return "the clean sets"


@pytest.fixture(scope="module")
def quick_folder():
    """A folder in memory where there is one: hundreds of small files are made and taken away."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def clean(quick_folder):
    """Kind → a very small set, and its scenes as they should be stored."""
    root = quick_folder
    found = Clean()
    for kind, write in formats.WRITERS.items():
        folder = write(root / kind, each=2)
        folder = folder if kind != "sunrgbd" else folder.parent
        pack = imported(survey(kind, folder), root / f"{kind}.pack", size=12)
        found[kind] = (folder, scenes_of(pack))
    return found


def scenes_of(pack) -> dict[str, dict[str, bytes]]:
    """Name → modality → bytes of the image."""
    scenes = {}
    for split in pack.splits:
        for modality in pack.manifest["splits"][split]["arrays"]:
            part = pack.load(split, modalities=(modality,))
            for name, image in zip(part.names, part.images[modality], strict=True):
                scenes.setdefault(name, {})[modality] = image.numpy().tobytes()
    return scenes


@dataclass
class System:
    """What the system refuses: to list folders, and to write once it has written so many times."""

    forbidden: set[Path] = field(default_factory=set)
    room: int | None = None

    @contextlib.contextmanager
    def in_force(self):
        scandir, fsync = os.scandir, os.fsync

        def list_folder(folder="."):
            if not isinstance(folder, int) and Path(folder) in self.forbidden:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
            return scandir(folder)

        def write(file):
            if self.room is not None:
                self.room -= 1
                if self.room < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(file)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "scandir", list_folder)
            patch.setattr(os, "fsync", write)
            yield


def damage(root: Path, files: list[Path], system: System, what: str, which: int, where: int) -> set[Path]:
    """Do one thing to a file (two for a swap), to a folder or to the system; returns the files touched."""
    path, other = files[which % len(files)], files[(which + where) % len(files)]
    match what:
        case "full":
            system.room = where % 4
            return set()
        case "forbid":
            system.forbidden.add(path.parent)
            return {one for one in files if path.parent in one.parents}
        case "class":
            mine = {one for one in files if one.parent == path.parent and one.is_file()}
            for one in mine:
                one.unlink()
            return mine
    return damage_one(root, path, other, what, where)


def damage_one(root: Path, path: Path, other: Path, what: str, where: int) -> set[Path]:
    """Do one thing to one file, or to two for a swap."""
    if not path.is_file() or path.is_symlink() or not other.is_file() or other.is_symlink():
        return set()
    data = path.read_bytes()
    match what:
        case "truncate":
            path.write_bytes(data[: where % (len(data) + 1)])
        case "flip":
            changed = bytearray(data)
            for i in range(where % 7 + 1):
                if changed:
                    changed[(where * (i + 1)) % len(changed)] ^= 1 + where % 255
            path.write_bytes(changed)
        case "swap":
            path.write_bytes(other.read_bytes())
            other.write_bytes(data)
        case "rename":
            path.rename(path.with_name(f"renamed {where}{path.suffix if where % 2 else '.bak'}"))
        case "delete":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "mode":
            path.chmod(where % 0o1000)
        case "folder":
            path.unlink()
            path.mkdir()
        case "double":
            path.with_name(path.stem.upper() + (".PNG" if where % 2 else path.suffix)).write_bytes(data)
        case "link":
            path.unlink()
            path.symlink_to((path, path.parent, root, Path("nowhere"))[where % 4])
        case "pipe":
            path.unlink()
            os.mkfifo(path)
        case "bits":
            mode = ("1", "L", "RGB", "I;16", "F")[where % 5]
            Image.new(mode, (64, 48)).save(path, format="TIFF" if mode == "F" else "PNG")
        case "text":
            path.write_text("\x00\ud7ff kitchen\n\n-1 \u2028 99999999999" * (where % 50), encoding="utf-8")
    return {path, other} if what == "swap" else {path}


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking would take minutes
)
@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(
        st.tuples(st.sampled_from(DAMAGES), st.integers(0, 10_000), st.integers(0, 100_000)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(importers.ON_BAD),
)
def test_no_damage_is_more_than_a_sentence(clean, quick_folder, monkeypatch, kind, damages, on_bad):
    """A pack with all that was left alone, or a LabError; never another exception, never a change.

    After a full disk nothing is left behind, and the same call works once there is room.
    """
    root, expected = clean[kind]
    whole, out, system = snapshot(root), quick_folder / "out" / "pack", System()
    shutil.rmtree(out.parent, ignore_errors=True)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # 200 times would take minutes on a slow disk
    try:
        files = sorted(path for path in root.rglob("*") if path.is_file() and "annotation" not in str(path))
        touched = set().union(*(damage(root, files, system, *one) for one in damages))
        before = snapshot(root)
        said, pack = attempt(system, kind, root, out, on_bad)
        if system.room is not None and system.room < 0:
            assert pack is None and said.startswith("The disk is full") and not any(out.parent.iterdir())
            system.room = None
            said, pack = attempt(system, kind, root, out, on_bad)
        assert snapshot(root) == before
    finally:
        restore(root, whole)
    if pack is None:
        assert "\n" not in said and said.endswith((".", "?"))
        assert not out.exists()
    else:
        assert on_bad != "stop" or not pack.manifest["skipped"]
        pack.verify()
        if kind in ("folders", "rgbnir", "diml"):  # which list every folder that holds a picture
            told = {one["where"] for one in pack.manifest["skipped"] if one["what"] == "unreadable folder"}
            assert {scan.place(folder, root) for folder in system.forbidden} <= told
        stored = scenes_of(open_pack(out))
        counted = sum(pack.manifest["splits"][split]["scenes"] for split in pack.splits)
        assert counted == len(stored)
        assert counted + pack.manifest["left_out"] >= len(expected) - 2 * len(touched)
        assert_untouched_scenes_are_stored(kind, root, touched, expected, stored)


def attempt(system: System, kind, root: Path, out: Path, on_bad: str):
    """Survey and import: the sentence of a refusal, or "", and the pack, or None."""
    try:
        with system.in_force():
            found = survey(kind, root)
            found.report().encode()
            return "", imported(found, out, size=12, on_bad=on_bad)
    except LabError as error:
        return str(error), None


def restore(root: Path, whole: dict) -> None:
    """Make a folder what it was when the snapshot was taken."""
    for name, was in snapshot(root).items():
        if whole.get(name) != was:
            shutil.rmtree(name) if os.path.isdir(name) and not os.path.islink(name) else os.unlink(name)
    for name, was in whole.items():
        if not os.path.lexists(name):
            Path(os.fsdecode(name)).write_bytes(was)
        elif not os.path.isdir(name):
            os.chmod(name, 0o644)
    assert snapshot(root) == whole


def assert_untouched_scenes_are_stored(kind, root, touched, expected, stored):
    """Every scene none of whose files was touched is there, pixel for pixel."""
    if kind == "lists":  # one damaged list changes many lines
        return
    spoilt = {path.relative_to(root) for path in touched}
    for frame in survey(kind, root).frames:
        mine = {one.path.relative_to(root) for one in frame.pictures.values()}
        beside = {path.parent.parent if kind == "sunrgbd" else path for path in mine}
        if kind == "sunrgbd":
            hurt = any(place in (*path.parents,) for place in beside for path in spoilt)
        else:
            hurt = bool(mine & spoilt)
        if not hurt:
            assert stored.get(frame.name) == expected[frame.name]


def test_the_command_line_imports_and_compares(tmp_path):
    """A user's folder becomes a pack, and a pack is read where the shipped rooms are."""
    folder, pack = formats.write_folders(tmp_path / "my pictures", each=8), tmp_path / "pack"
    words = ["import", "folders", str(folder), "--out", str(pack), "--size", "64", "--task", "bedroom,office"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert open_pack(pack).classes == ("bedroom", "office")
    assert done.stdout.count("pack ") == 1
    options = ["--layers", "bottleneck", "--rounds", "4", "--no-umap", "--out", str(tmp_path / "report")]
    done = CliRunner().invoke(
        app, ["compare", "rgb_kinect_v1", "--pack", str(pack), "--split", "train", *options]
    )
    assert done.exit_code == 0, done.output
    assert "rgb by rgb_kinect_v1" in (tmp_path / "report" / "report.html").read_text()


def test_the_command_line_passes_options_on(tmp_path):
    """Colour pictures of the task are what a user of the method does not have."""
    folder, pack = formats.write_folders(tmp_path / "my pictures"), tmp_path / "pack"
    for kind in formats.TASK:
        shutil.rmtree(folder / "rgb" / kind)
    words = ["import", "folders", str(folder), "--out", str(pack), "--size", "24"]
    words += ["--task", ",".join(formats.TASK), "--option", "unpaired=true"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert open_pack(pack).load("train").modalities == ("depth",)
    assert set(open_pack(pack).load("pairs").kinds) == set(formats.OTHERS)


def test_the_command_line_says_what_it_needs(tmp_path):
    for words, said in (
        (["diml"], "Missing argument"),
        (["folders", str(tmp_path / "nowhere")], "nowhere"),
        (["cifar", str(tmp_path)], "data set 'cifar' is unknown"),
        (["folders", str(tmp_path), "--option", "unpaired"], "as in --option unpaired=true"),
        (["folders", str(tmp_path), "--option", "size=3"], "folders option 'size' is unknown"),
    ):
        done = CliRunner().invoke(app, ["import", *words])
        assert done.exit_code == 2
        assert said in " ".join(done.stderr.split())
