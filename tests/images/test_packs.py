"""Packs: exact pixels, the same bytes however the work went, and nothing half-written."""

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import timeit
from pathlib import Path

import formats
import numpy as np
import psutil
import pytest
import torch

from socketlab import files
from socketlab.errors import LabError
from socketlab.images import decode, finders, packs
from socketlab.images.decode import Picture, decode_picture
from socketlab.images.encodings import measure
from socketlab.images.importers import survey, write_pack
from socketlab.images.packs import open_pack
from socketlab.images.paired_images import centre_view, random_views
from socketlab.method.adaptation import adapt
from socketlab.method.evaluate import accuracy
from socketlab.method.recipe import Recipe
from socketlab.networks.networks import small_network
from socketlab.runs.train_source import SourceRecipe, train


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return formats.write_folders(tmp_path_factory.mktemp("set") / "my rooms", each=4)


@pytest.fixture
def found(pictures, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 3)
    return survey("folders", pictures, task=formats.TASK)


@pytest.fixture
def whole(found, tmp_path):
    return write_pack(found, tmp_path / "whole", size=32, processes=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# reading


def test_a_pack_is_a_paired_store(whole, pictures):
    train = whole.load("train")
    assert train.classes == whole.classes == formats.TASK
    assert train.modalities == ("rgb", "depth")
    assert train.images["rgb"].shape == (len(train), 3, 32, 32)
    assert train.images["depth"].dtype is torch.uint16
    for i in range(len(train)):
        kind, stem = train.names[i].split("/")
        assert train.kinds[i] == kind and int(train.labels[i]) == formats.TASK.index(kind)
        expected = decode_picture(Picture(pictures / "depth" / kind / f"{stem}.png", "depth"), 32, "centre")
        np.testing.assert_array_equal(train.images["depth"][i].numpy(), expected)
    pairs = whole.load("pairs")
    assert set(pairs.kinds) == set(formats.OTHERS) and pairs.classes == ()
    assert set(train.names).isdisjoint(whole.load("test").names)


def test_views_of_any_size_are_cut(whole):
    train = whole.load("train")
    views = random_views(train, torch.arange(5), torch.Generator().manual_seed(0), size=28)
    assert views["depth"].shape == (5, 1, 28, 28)
    assert centre_view(train.images["rgb"], 28).shape[-2:] == (28, 28)


def test_writing_into_a_loaded_image_leaves_the_pack_alone(whole):
    before = contents(whole.folder)
    whole.load("train").images["rgb"][:] = 0
    assert contents(whole.folder) == before
    assert open_pack(whole.folder).load("train").images["rgb"].any()


@pytest.mark.skipif(sys.platform == "win32", reason="files with holes")
def test_a_pack_may_be_larger_than_the_memory(tmp_path):
    """A pack of 256 GiB, nearly all of it a hole: a batch of it takes the memory of a batch."""
    side, scenes = 256, 1 << 20
    np.save(tmp_path / "train.rgb.npy", np.zeros((0, 4, side, side), np.uint8))
    header = (tmp_path / "train.rgb.npy").stat().st_size
    with open(tmp_path / "train.rgb.npy", "r+b") as written:
        about = {"descr": "|u1", "fortran_order": False, "shape": (scenes, 4, side, side)}
        np.lib.format.write_array_header_1_0(written, about)
    described = {"file": "train.rgb.npy", "bytes": header + scenes * 4 * side * side, "sha256": ""}
    file = tmp_path / "train.rgb.npy"
    try:
        os.truncate(file, described["bytes"])
    except OSError:
        pytest.skip("this file system has no such large files")
    part = {"scenes": scenes, "file": "", "sha256": "", "domains": {"d": [0, scenes]}, "counts": {}}
    manifest = {"format": "socketlab pack", "version": 1, "classes": [], "domains": ["d"], "size": side}
    manifest |= {"splits": {"train": part | {"arrays": {"rgb": described}}}, "left_out": 0}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    pack = open_pack(tmp_path)
    images = pack._array(described)
    before = psutil.Process().memory_info().rss
    batch = images[torch.randint(scenes, (32,), generator=torch.Generator().manual_seed(0))]
    assert batch.shape == (32, 4, side, side) and not batch.any()
    assert psutil.Process().memory_info().rss - before < 200e6


def test_domains_are_slices_and_not_copies(tmp_path):
    found = survey("sunrgbd", formats.write_sunrgbd(tmp_path / "set", each=2))
    pack = write_pack(found, tmp_path / "pack", size=16, processes=1)
    every = pack.load("train")
    start = 0
    for domain in pack.domains:
        one = pack.load("train", domain)
        assert {name.split("/")[0] for name in one.names} <= set(finders.SUN_SENSORS)
        assert one.names == every.names[start : start + len(one)]
        for modality, images in one.images.items():
            assert torch.equal(images.int(), every.images[modality][start : start + len(one)].int())
            assert images.untyped_storage().nbytes() >= every.images[modality].nbytes
        start += len(one)
    assert start == len(every)


def test_a_pack_goes_through_adaptation(pictures, tmp_path):
    """From a folder of pictures to a network that reads depth, the labels of the target unseen."""
    found = survey("folders", pictures, task=formats.TASK)
    pack = write_pack(found, tmp_path / "pack", size=64, processes=1)
    settings = SourceRecipe(epochs=1, batch_size=4, width=8)
    *_, trained = train(pack.load("train", modalities=("rgb",)), settings)
    target = pack.load("train", modalities=("depth",)).unlabelled()
    recipe = Recipe.socket().replace(batch_size=4, epochs=1, align_epochs=1)
    *_, last = adapt(trained.source, target, pack.load("pairs").unlabelled(), recipe)
    assert 0 <= accuracy(last.state.adapted, pack.load("test", modalities=("depth",))) <= 1


def test_a_pack_opens_at_once(whole):
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        open_pack(whole.folder)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1


def test_a_pack_feeds_a_step_faster_than_the_step_computes(pictures, tmp_path):
    """Cutting and encoding a batch, against the smallest network of the kit, forward and backward."""
    found = survey("folders", pictures, task=formats.TASK)
    images = write_pack(found, tmp_path / "pack", size=64, processes=1).load("train", modalities=("depth",))
    normalisation, network = measure(images.images["depth"], "depth"), small_network(3)
    generator, still = torch.Generator().manual_seed(0), torch.zeros(8, 3, 56, 56)

    def batch():
        rows = torch.randint(len(images), (8,), generator=generator)
        return normalisation.encode(random_views(images, rows, generator)["depth"])

    def step():
        network(still).square().mean().backward()

    assert batch().shape == still.shape
    least = {form: min(timeit.repeat(form, number=1, repeat=4)) for form in (batch, step)}
    assert least[batch] < least[step]


def test_manifest_tells_all_but_private_folders(whole, pictures):
    manifest = json.loads((whole.folder / "manifest.json").read_text())
    assert manifest["source"] == {"kind": "folders", "folder": "my rooms"}
    assert manifest["splits"]["pairs"]["counts"] == {"my rooms": dict.fromkeys(formats.OTHERS, 4)}
    told = b"".join(data for name, data in contents(whole.folder).items() if name.endswith("json"))
    assert str(pictures.parent).encode() not in told and str(whole.folder).encode() not in told
    whole.verify()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("later",), "split of whole 'later' is unknown: choose one of train"),
        (("train", "kinect_v1"), "domain of whole 'kinect_v1' is unknown: choose one of"),
        (("train", None, ("nir",)), "modality of whole 'nir' is unknown: choose one of rgb, depth"),
    ],
)
def test_what_a_pack_does_not_have_is_named(whole, wrong, told):
    with pytest.raises(LabError, match=told):
        whole.load(*wrong)


def test_a_damaged_pack_is_told(whole, tmp_path):
    file = whole.folder / "train.rgb.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(LabError, match="altered"):
        open_pack(whole.folder).verify()
    file.write_bytes(data[:-5])
    with pytest.raises(LabError, match="damaged or missing"):
        open_pack(whole.folder)
    for text, told in (("{", "damaged"), ("{}", "no pack"), (None, "no pack")):
        (tmp_path / "other").mkdir(exist_ok=True)
        if text is not None:
            (tmp_path / "other" / "manifest.json").write_text(text)
        else:
            (tmp_path / "other" / "manifest.json").unlink()
        with pytest.raises(LabError, match=told):
            open_pack(tmp_path / "other")
    manifest = json.loads((whole.folder / "manifest.json").read_text())
    (whole.folder / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(LabError, match="version 99"):
        open_pack(whole.folder)


def test_a_pixel_altered_after_the_import_is_noticed_when_it_is_read(whole, pictures):
    """Also where its size and time are what they were; each file is read through once in a process."""
    file = whole.folder / "train.rgb.npy"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    digests = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packs, "digest", lambda path: digests.append(path.name) or files.digest(path))
        for _ in range(3):
            open_pack(whole.folder).load("train")
        assert sorted(digests) == ["train.depth.npy", "train.rgb.npy", "train.scenes.json"]
        open_pack(whole.folder).verify()
        assert digests.count("train.rgb.npy") == 2
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=times)
    with pytest.raises(LabError, match=r"train\.rgb\.npy was altered: import the data set again"):
        open_pack(whole.folder).load("train", modalities=("rgb",))
    open_pack(whole.folder).load("train", modalities=("depth",))
    with pytest.raises(LabError, match="was altered"):
        open_pack(whole.folder).verify()


def edited(value, path, new):
    """A copy of nested JSON with one place changed, or taken away where ``new`` is ``...``."""
    copy = json.loads(json.dumps(value))
    *above, last = path
    place = copy
    for key in above:
        place = place[key]
    if new is ...:
        del place[last]
    else:
        place[last] = new
    return copy


ENTRY = ("splits", "train", "arrays", "rgb")
MANIFEST = ("splits", "size", "left_out", "classes", "domains")
ARRAY = ("file", "bytes", "sha256")
SPLIT = ("scenes", "file", "sha256", "domains", "counts", "arrays")


@pytest.mark.parametrize(
    ("path", "new"),
    [
        *(((key,), new) for key in MANIFEST for new in (..., None, "x", [[]])),
        *(((*ENTRY, key), new) for key in ARRAY for new in (..., None, [])),
        *((("splits", "train", key), new) for key in SPLIT for new in (..., 7.5)),
        (("splits", "train"), []),
        (("splits", "holiday"), {}),
        (("splits", "train", "domains"), {"my rooms": [0]}),
        (("splits", "train", "domains"), {"my rooms": [0, 99]}),
        (("splits", "train", "domains"), {"my rooms": [3, 1]}),
        (("splits", "train", "counts"), {"my rooms": ["office"]}),
        ((*ENTRY, "file"), "../train.rgb.npy"),
        ((*ENTRY, "file"), "/etc/hostname"),
        ((*ENTRY, "file"), "..\\train.rgb.npy"),
        (("splits", "train", "file"), "deeper/train.scenes.json"),
    ],
)  # fmt: skip
def test_a_manifest_of_another_shape_is_one_sentence(whole, path, new):
    """Somebody's hand in the files: never a traceback, never a file of another folder."""
    manifest = json.loads((whole.folder / "manifest.json").read_text())
    (whole.folder / "manifest.json").write_text(json.dumps(edited(manifest, path, new)))
    with pytest.raises(LabError, match="damaged or missing"):
        open_pack(whole.folder)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "null", "[]", "7", '{"format": "socketlab pack"'])
def test_a_manifest_that_is_none_is_one_sentence(whole, text):
    (whole.folder / "manifest.json").write_text(text)
    with pytest.raises(LabError, match=r"damaged or missing|no pack"):
        open_pack(whole.folder)


@pytest.mark.parametrize(
    ("path", "new"),
    [
        (("names",), ["one"]),
        (("names", 0), None),
        (("names", 1), ["nested"]),
        (("kinds",), "office"),
        (("rows",), {}),
        (("rows", "rgb"), [0, 0]),
        (("rows", "rgb"), [1, 99]),
        (("rows", "rgb"), "all"),
        (("intrinsics",), None),
        (("intrinsics", 0), "wide"),
        (("blocks",), [1]),
    ],
)
def test_a_list_of_scenes_of_another_shape_is_one_sentence(whole, path, new):
    """Rows under other names are noticed by the digest."""
    file = whole.folder / "train.scenes.json"
    file.write_text(json.dumps(edited(json.loads(file.read_text()), path, new)))
    with pytest.raises(LabError, match=r"train\.scenes\.json was altered"):
        open_pack(whole.folder).load("train")


def test_a_pack_of_version_0_1_is_read(whole):
    """It has no blocks, and its manifest has no digest of itself."""
    file, manifest = whole.folder / "train.scenes.json", whole.folder / "manifest.json"
    file.write_text(json.dumps(edited(json.loads(file.read_text()), ("blocks",), ...)))
    about = edited(json.loads(manifest.read_text()), ("ranges",), ...)
    about["splits"]["train"]["sha256"] = files.digest(file)
    del about["sha256"]
    manifest.write_text(json.dumps(about))
    assert open_pack(whole.folder).load("train").blocks == ()
    for key in ("splits", "classes", "size"):
        manifest.write_text(json.dumps(edited(about, (key,), ...)))
        with pytest.raises(LabError, match="damaged or missing"):
            open_pack(whole.folder)


def test_scenes_of_the_task_may_lack_a_modality(tmp_path):
    """Whoever has no colour pictures of the task can still adapt to it: that is what source-free means."""
    root = formats.write_folders(tmp_path / "set")
    for i, file in enumerate(sorted((root / "rgb" / "bedroom").iterdir())):
        if i != 1:
            file.unlink()
    found = survey("folders", root, task=formats.TASK, unpaired=True)
    assert found.problems == []
    pack = write_pack(found, tmp_path / "pack", size=24, processes=1)
    names = {modality: set() for modality in ("rgb", "depth", "both")}
    for split in ("train", "test"):
        for modality in ("rgb", "depth"):
            part = pack.load(split, modalities=(modality,))
            names[modality] |= set(part.names)
        both = pack.load(split)
        names["both"] |= set(both.names)
        for i, name in enumerate(both.names):
            for modality, images in both.images.items():
                alone = pack.load(split, modalities=(modality,))
                assert torch.equal(
                    images[i].to(torch.int32),
                    alone.images[modality][alone.names.index(name)].to(torch.int32),
                )
    assert len(names["depth"]) == 12 and len(names["rgb"]) == 9
    assert names["both"] == names["rgb"] & names["depth"]


# writing


def test_the_number_of_processes_does_not_show(found, whole, tmp_path):
    assert contents(write_pack(found, tmp_path / "three", size=32, processes=3).folder) == contents(
        whole.folder
    )


SCRIPT = """
import sys, time
from socketlab.images import decode
from socketlab.images.importers import survey
from socketlab.images.importers import write_pack

decode.CHUNK = 1

def stop(scenes, **more):
    for done, scene in enumerate(scenes, 1):
        print(done, flush=True)
        if done >= 3:
            time.sleep(60)
        yield scene

decode.bar = stop
found = survey("folders", sys.argv[1], task=("bathroom", "bedroom", "office"))
write_pack(found, sys.argv[2], size=32, processes=int(sys.argv[3]))
"""


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_and_called_again_the_pack_is_the_same(found, whole, pictures, tmp_path, processes):
    """Nothing of a killed import is in the way, and no process of it goes on; the script has no guard."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(pictures), str(tmp_path / "killed"), str(processes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as importing:
        try:
            for line in importing.stdout:
                if int(line) >= 3:
                    break
            children = psutil.Process(importing.pid).children(recursive=True)
        finally:
            importing.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed").exists()
    assert psutil.wait_procs(children, timeout=120)[1] == [], "a process outlived its parent"
    again = write_pack(found, tmp_path / "killed", size=32, processes=1)
    assert contents(again.folder) == contents(whole.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "script.py", "whole"]


def _fail_for(*endings):
    real = decode.decode_picture

    def fail(picture, *more):
        if picture.path.with_suffix("").as_posix().endswith(endings):
            raise decode.BadPicture("unreadable file", "broken data stream", picture.path)
        return real(picture, *more)

    return fail


def test_scenes_that_cannot_be_decoded_are_left_out_and_counted(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(
        decode, "decode_picture", _fail_for("rgb/bedroom/küche nr 1", "hotel_suite/küche nr 0")
    )
    found = survey("folders", pictures, task=formats.TASK)
    pack = write_pack(found, tmp_path / "pack", size=16, processes=1)
    assert pack.manifest["left_out"] == 2
    assert [one["where"] for one in pack.manifest["skipped"]] == [
        "rgb/bedroom/küche nr 1.jpg", "depth/hotel_suite/küche nr 0.png"
    ]  # fmt: skip
    assert sum(pack.manifest["splits"][split]["scenes"] for split in pack.splits) == 18
    whole = write_pack(found, tmp_path / "again", size=16, processes=1, on_bad="skip")
    assert contents(whole.folder) == contents(pack.folder)
    with pytest.raises(LabError, match=r"2 of 20 scenes cannot be used \(2 × unreadable file; rgb/bedroom"):
        write_pack(found, tmp_path / "stop", size=16, processes=1, on_bad="stop")
    assert not (tmp_path / "stop").exists()


def test_where_most_scenes_fail_the_import_stops(pictures, tmp_path, monkeypatch):
    found = survey("folders", pictures, task=formats.TASK)
    monkeypatch.setattr(decode, "decode_picture", _fail_for("nr 0", "nr 1", "nr 2"))
    with pytest.raises(LabError, match="15 of 20 scenes cannot be used"):
        write_pack(found, tmp_path / "pack", size=16, processes=1)
    assert (
        write_pack(found, tmp_path / "pack", size=16, processes=1, on_bad="skip").manifest["left_out"] == 15
    )
    monkeypatch.setattr(decode, "decode_picture", _fail_for("nr 0", "nr 1", "nr 2", "nr 3"))
    with pytest.raises(LabError, match="No scene of my rooms could be decoded: depth/bathroom/küche nr 0"):
        write_pack(found, tmp_path / "none", size=16, processes=1, on_bad="skip")


@pytest.mark.parametrize("name", ["replace", "fsync", "rename"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(found, whole, tmp_path, monkeypatch, name):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, name, full)
        with pytest.raises(LabError, match="disk is full"):
            write_pack(found, tmp_path / "full", size=32, processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert contents(write_pack(found, tmp_path / "full", size=32, processes=1).folder) == contents(
        whole.folder
    )


def test_two_imports_of_one_name_do_not_meet(found, tmp_path):
    with files.exclusive(tmp_path / ".pack.unfinished"), pytest.raises(LabError, match="Another process"):
        write_pack(found, tmp_path / "pack", processes=1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"on_bad": "hope"}, "on_bad 'hope'"),
        ({"fit": "round"}, "fit 'round'"),
        ({"size": 0}, "size 0"),
        ({"processes": 0}, "0 processes"),
    ],
)
def test_settings_are_checked(found, tmp_path, settings, told):
    with pytest.raises(LabError, match=told):
        write_pack(found, tmp_path / "pack", **settings)


def test_nothing_is_overwritten(found, whole, pictures):
    with pytest.raises(LabError, match="exists already"):
        write_pack(found, whole.folder)
    with pytest.raises(LabError, match="lies in the data set"):
        write_pack(found, pictures / "pack")


# the benchmark


def test_benchmark_compares_the_same_work(tmp_path, monkeypatch):
    """Its plain loop and a pack give the same pixels."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    importing = importlib.import_module("importing")

    monkeypatch.setattr(importing, "DIFFERENT", 2)
    root = importing.make_set(tmp_path, 9)
    plain = importing.plain_loop(root)
    pack = write_pack(survey("sunrgbd", root), tmp_path / "pack", size=256, fit="stretch", processes=1)
    stored = {name: (split, i) for split in pack.splits for i, name in enumerate(pack.load(split).names)}
    assert set(stored) == set(plain) and len(plain) == 9
    for name, (colours, depth) in plain.items():
        split, row = stored[name]
        np.testing.assert_array_equal(pack.load(split).images["rgb"][row], colours.transpose(2, 0, 1))
        np.testing.assert_array_equal(pack.load(split).images["depth"][row, 0], depth)
    assert importing.quotient({"a": [2.0, 4.0, 9.0], "b": [1.0, 2.0, 3.0]}, "a", "b") == "2.00 (2.00–3.00)"


# processes


def test_processes_load_no_torch():
    """Each would need a second and hundreds of megabytes for it."""
    code = "import sys, socketlab.images.decode, socketlab.images.importers; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_process_that_dies_is_told(found, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "_decode_scene", lambda *arguments: os._exit(1))
    with pytest.raises(LabError, match="died"):
        list(decode.decode_all([frame.pictures for frame in found.frames], 32, "centre", 2))
