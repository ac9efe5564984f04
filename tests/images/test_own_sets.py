"""What people met with sets of their own: turned pictures, units, files passed over, names, lists, videos."""

import os
import struct
import subprocess
import sys
import unicodedata
import zlib
from pathlib import Path

import formats
import numpy as np
import pytest
import tifffile
from PIL import Image

from socketlab.errors import LabError
from socketlab.images.importers import import_folder, survey
from socketlab.images.scan import near_duplicates, thumbnail

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
real = pytest.mark.skipif(not REAL.is_dir(), reason="needs the real images in ../shared/real")


def colour(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Two patches on a ground; a red mark in the upper left corner."""
    draw = np.random.default_rng(i)
    image = np.full((height, width, 3), draw.integers(0, 255, 3), np.uint8)
    image[height // 2 :, : width // 2] = draw.integers(0, 255, 3)
    image[:6, :6] = (255, 0, 0)
    return image


def depth(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A slanted wall, 1 to 2.7 m."""
    y, x = np.mgrid[:height, :width]
    return (1000 + 20 * x + 10 * y + i).astype(np.uint16)


def write(root, modality, save=None, kinds=("kitchen", "office"), each=5, ending="png") -> Path:
    """``<modality>/<class>/sNNN.<ending>``, each file saved by ``save(path, number)``."""
    make = colour if modality == "rgb" else depth
    save = save or (lambda path, i: Image.fromarray(make(i)).save(path))
    for k, kind in enumerate(kinds):
        (root / modality / kind).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            save(root / modality / kind / f"s{i:03}.{ending}", 100 * k + i)
    return root


def imported(root, kind="folders", **options):
    """A pack of 48 × 48 pixels, or None, and everything that was printed."""
    said = []
    out = root.with_name(f"{root.name}.pack")
    try:
        pack = import_folder(kind, root, out, size=48, say=said.append, processes=1, **options)
    except LabError as error:
        return None, "\n".join([*said, f"refused: {error}"])
    return pack, "\n".join(said)


def deep(pack, split="train") -> np.ndarray:
    return pack.load(split, modalities=("depth",)).images["depth"].numpy()


# turned pictures


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_picture_is_stored_upright(tmp_path, orientation, ending):
    """As every viewer shows it, so that it fits its depth."""
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}[orientation]  # fmt: skip

    def save(path, i):
        exif = Image.Exif()
        exif[0x112] = orientation
        Image.fromarray(colour(i)).transpose(undo).save(path, exif=exif)

    root = write(write(tmp_path / "set", "depth", each=2), "rgb", save, each=2, ending=ending)
    pack, said = imported(root, fit="stretch")
    assert pack is not None, said
    mark = pack.load("train").images["rgb"].numpy()[:, :, :3, :3]
    assert (abs(mark - np.array([255, 0, 0])[:, None, None]) < 60).all()


# numbers


def test_65535_is_missing_and_named(tmp_path):
    def save(path, i):
        holes = depth(i)
        holes[::7] = 65535
        Image.fromarray(holes).save(path)

    pack, said = imported(write(write(tmp_path / "set", "rgb"), "depth", save))
    stored = deep(pack)
    assert stored.max() < 3000 and (stored == 0).any()
    assert "% of the numbers are 65535, which is stored as missing" in said


@pytest.mark.parametrize(
    ("unit", "factor", "told"),
    [
        ("5000", 5, "most numbers are multiples of 5"),
        ("10000", 10, "half of it is beyond"),
        ("256", 0.256, ""),
        ("metres", 0.001, "half of it is nearer than 0.00"),
        ("rotated", 8, "most numbers are multiples of 8"),
    ],
)
def test_a_doubtful_unit_is_a_note_and_an_option(tmp_path, unit, factor, told):
    def save(path, i):
        Image.fromarray((depth(i) * factor).astype(np.uint16)).save(path)

    root = write(write(tmp_path / "set", "rgb"), "depth", save)
    _, said = imported(root)
    assert (told in said and f"{unit} (median 1." in said) if told else "depth_unit" not in said
    pack, said = imported(root.rename(tmp_path / "again"), depth_unit=unit)
    assert "depth_unit" not in said
    assert abs(deep(pack).astype(int).mean() - 1932) < (600 if unit == "metres" else 30)


def test_depth_in_metres_in_a_float_tiff(tmp_path):
    """TIFF of 32 bits: refused with the way out, read with it; NaN and infinity are missing."""

    def save(path, i):
        metres = (depth(i) / 1000).astype(np.float32)
        metres[0, :3] = (np.nan, np.inf, -1)
        tifffile.imwrite(path, metres)

    root = write(write(tmp_path / "set", "rgb"), "depth", save, ending="tif")
    pack, said = imported(root)
    assert pack is None and "depth_unit=metres" in said and "depth/kitchen/s000.tif" in said
    pack, said = imported(root, depth_unit="metres", fit="stretch")
    stored = deep(pack)
    assert stored[stored > 0].min() >= 1000 and stored.max() < 3000
    assert (stored[:, 0, 0, :2] == 0).all()


def test_depth_that_is_missing_everywhere_is_a_note(tmp_path):
    save = lambda path, i: Image.fromarray(np.zeros((48, 64), np.uint16)).save(path)  # noqa: E731
    assert "depth is missing" in imported(write(write(tmp_path / "set", "rgb"), "depth", save))[1].replace(
        ": all is", " is"
    )


@pytest.mark.parametrize(("top", "levels"), [(1000, "0:1023"), (4000, "0:4095")])
def test_infrared_of_few_bits_in_sixteen(tmp_path, top, levels):
    def save(path, i):
        Image.fromarray((depth(i).astype(float) / 2800 * top).astype(np.uint16)).save(path)

    root = write(write(tmp_path / "set", "rgb"), "ir", save)
    pack, said = imported(root)
    assert pack.modalities == ("rgb", "nir") and f"--option levels={levels}" in said
    assert pack.load("train").images["nir"].max() < 20
    pack, said = imported(root.rename(tmp_path / "again"), levels=levels)
    assert "levels" not in said
    assert pack.load("train").images["nir"].max() > 200


def sixteen_bit_png(path: Path, image: np.ndarray) -> None:
    height, width, channels = image.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in image)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end)


@pytest.mark.parametrize("form", ["png", "png with alpha", "tiff", "tiff in planes"])
def test_colour_of_sixteen_bits_is_not_cut_in_silence(tmp_path, form):
    def save(path, i):
        image = colour(i).astype(np.uint16) * 4
        if form.startswith("png"):
            alpha = np.full((*image.shape[:2], 1), 65535, np.uint16)
            sixteen_bit_png(path, np.concatenate([image, alpha], 2) if "alpha" in form else image)
        elif form == "tiff":
            tifffile.imwrite(path, image, photometric="rgb")
        else:
            tifffile.imwrite(path, image.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")

    root = write(write(tmp_path / "set", "depth"), "rgb", save, ending=form.split()[0])
    pack, said = imported(root)
    assert pack is None and "colour must have 8 bits per channel, not RGB" in said and "of 16 bits" in said


# what is passed over


@pytest.mark.parametrize(
    ("ending", "save"),
    [
        ("npy", lambda path, i: np.save(path, depth(i))),
        ("pgm", lambda path, i: path.write_bytes(b"P5\n64 48\n65535\n" + depth(i).astype(">u2").tobytes())),
        ("exr", lambda path, i: path.write_bytes(b"v/1\x01" + bytes(99))),
        ("mat", lambda path, i: path.write_bytes(b"MATLAB 5.0")),
    ],
)
def test_other_endings_are_counted(tmp_path, ending, save):
    pack, said = imported(write(write(tmp_path / "set", "rgb"), "depth", save, ending=ending))
    assert pack.modalities == ("rgb",)
    assert f"not read: 10 × file ending in .{ending} (depth/kitchen/s000.{ending})" in said


def test_files_beside_the_usual_places_are_counted(tmp_path):
    root = write(write(tmp_path / "set", "rgb"), "depth")
    for modality, make in (("rgb", colour), ("depth", depth)):
        for below in ("kitchen/building_b", "."):
            (root / modality / below).mkdir(exist_ok=True)
            for i in range(3):
                Image.fromarray(make(i)).save(root / modality / below / f"t{i}.png")
    (root / "plans").mkdir()
    Image.fromarray(colour(0)).save(root / "plans" / "house.png")
    (root / "rgb" / "office" / "readme.txt").write_text("not a picture, and not missed")
    pack, said = imported(root)
    assert sum(len(pack.load(split)) for split in pack.splits) == 10
    assert "not read: 6 × picture in a folder deeper than its class (depth/kitchen/building_b/t0.png)" in said
    assert "not read: 6 × picture beside the class folders (depth/t0.png)" in said
    assert "not read: 1 × picture of no modality (plans/house.png)" in said and "readme" not in said


@pytest.mark.parametrize(
    ("save", "why"),
    [
        (
            lambda path, i: Image.fromarray((depth(i) >> 4).astype(np.uint8)).save(path),
            "10 × wrong bit depth (depth/kitchen/s000.png: depth must have one channel of 16 bits, not 8",
        ),
        (
            lambda path, i: Image.fromarray(depth(i)[:42, :51]).save(path),
            "10 × size mismatch (depth/kitchen/s000.png: depth 51 × 42, rgb 64 × 48)",
        ),
        (
            lambda path, i: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "10 × Git LFS pointer (depth/kitchen/s000.png: its content was not fetched: run `git lfs pull`)",
        ),
        (lambda path, i: path.write_bytes(b""), "10 × truncated file (depth/kitchen/s000.png: it is empty)"),
        (lambda path, i: None, "no scene"),
    ],
)
def test_when_all_fail_the_first_file_and_its_reason_are_named(tmp_path, save, why):
    pack, said = imported(write(write(tmp_path / "set", "rgb"), "depth", save))
    assert (pack is None and why in said) or (why == "no scene" and pack.modalities == ("rgb",))


def test_one_orphan_does_not_stop_an_import(tmp_path):
    root = write(write(tmp_path / "set", "rgb"), "depth")
    (root / "depth" / "office" / "s003.png").unlink()
    pack, said = imported(root)
    assert pack.manifest["left_out"] == 1 and "office/s003 has no depth image" in said
    pack, said = imported(root.rename(tmp_path / "again"), on_bad="stop")
    assert pack is None and "1 of 10 scenes cannot be used (1 × orphan; rgb/office/s003.png" in said


# names


def test_one_name_in_two_forms_of_unicode_is_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Küche") for form in ("NFC", "NFD"))
    root = write(
        write(tmp_path / "set", "rgb", kinds=(composed, "Büro")), "depth", kinds=(decomposed, "büro")
    )
    for task in (composed, decomposed):
        pack, said = imported(root, task=[task])
        assert pack is not None, said
        assert pack.classes == (composed,) and {kind.casefold() for kind in pack.load("pairs").kinds} == {
            "büro"
        }
        os.rename(pack.folder, tmp_path / f"pack {len(task)}")


def test_names_that_differ_in_capitals_and_in_the_word_for_the_modality_are_partners(tmp_path):
    root = write(
        tmp_path / "set", "rgb", lambda p, i: Image.fromarray(colour(i)).save(p.with_stem(f"IMG_{i}"))
    )
    write(root, "depth", lambda p, i: Image.fromarray(depth(i)).save(p.with_stem(f"img_{i}")))
    assert len(survey("folders", root).frames) == 10
    root = write(
        tmp_path / "other", "rgb", lambda p, i: Image.fromarray(colour(i)).save(p.with_stem(p.stem + "_rgb"))
    )
    write(root, "depth", lambda p, i: Image.fromarray(depth(i)).save(p.with_stem(p.stem + "_depth")))
    assert len(survey("folders", root).frames) == 10


# layouts


def pairs_in(root: Path, place) -> Path:
    """Ten scenes of each split and class, each picture at ``place(split, modality, class, number)``."""
    for split in ("train", "test"):
        for k, kind in enumerate(("kitchen", "office")):
            for modality, make in (("color", colour), ("depth", depth)):
                for i in range(3):
                    file = root / place(split, modality, kind, f"{i:04}")
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(make(10 * k + i + 100 * (split == "test"))).save(file)
    return root


@pytest.mark.parametrize(
    "place",
    [
        lambda split, modality, kind, number: f"{split}/{modality}/{kind}/{number}.png",
        lambda split, modality, kind, number: f"{modality}/{split}/{kind}/{number}.png",
        lambda split, modality, kind, number: f"{split}/{kind}/{modality}_{number}.png",
        lambda split, modality, kind, number: f"{split}/{kind}/{modality}/{number}.png",
        lambda split, modality, kind, number: f"{split}ing/{kind}/{number}_{modality}.png",
    ],
)
def test_usual_layouts_are_read_with_their_own_split(tmp_path, place):
    found = survey("folders", pairs_in(tmp_path / "set", place))
    assert formats.counts(found) == {
        split: {"set": {"kitchen": 3, "office": 3}} for split in ("train", "test")
    }
    assert found.protocol["split"] == "the set's own" and found.problems == []


def test_a_class_may_be_called_train_and_a_validation_set_is_no_third_half(tmp_path):
    root = write(write(tmp_path / "set", "rgb", kinds=("car", "train")), "depth", kinds=("car", "train"))
    assert survey("folders", root).classes == ("car", "train")
    root = pairs_in(tmp_path / "halves", lambda s, m, k, n: f"{'val' if s == 'test' else s}/{m}/{k}/{n}.png")
    assert set(formats.counts(survey("folders", root))) == {"train", "test"}
    pairs_in(root, lambda split, modality, kind, number: f"{split}/{modality}/{kind}/{number}.png")
    found = survey("folders", root)
    assert len(found.frames) == 12 and "12 × picture of a validation set" in found.report()


@pytest.mark.parametrize(("folder", "modality"), [("thermal", "thermal"), ("ir", "nir"), ("LWIR", "thermal")])
def test_infrared_and_thermal_are_modalities(tmp_path, folder, modality):
    grey = lambda path, i: Image.fromarray(colour(i)[..., 1]).save(path)  # noqa: E731
    pack, _ = imported(write(write(tmp_path / "set", "rgb"), folder, grey))
    assert pack.modalities == ("rgb", modality)


# train and test


def video(root: Path, length: int = 40, modalities=("rgb", "depth"), kinds=("kitchen", "office")) -> Path:
    """A recording of each class: every frame is the last one, moved by a pixel, under a little noise."""
    for k, kind in enumerate(kinds):
        draw = np.random.default_rng(k)
        scene = draw.integers(0, 255, (4, 8, 3), dtype=np.uint8)
        wide = np.asarray(Image.fromarray(scene).resize((48 + length, 48), Image.Resampling.BICUBIC))
        for i in range(length):
            seen = wide[:, i : i + 48].astype(int) + draw.integers(-2, 3, (48, 48, 3))
            for modality in modalities:
                file = root / modality / kind / f"take1_{i:04}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                image = seen.clip(0, 255).astype(np.uint8)
                deep = (1000 + 8 * seen[..., 0].clip(0, 255) + i).astype(np.uint16)
                Image.fromarray(image if modality == "rgb" else deep).save(file)
    return root


def test_the_end_of_a_recording_is_held_out_in_one_piece(tmp_path):
    pack, said = imported(video(tmp_path / "set"))
    numbers = {split: {int(name[-4:]) for name in pack.load(split).names} for split in pack.splits}
    assert numbers == {"train": set(range(32)), "test": set(range(32, 40))}
    assert "split: the last fifth of each numbered recording for testing" in said
    blocks = pack.load("train").blocks
    assert len(blocks) == 64 and len(set(blocks)) == 8  # four of eight frames a class
    assert pack.load("train").take([0, 5, 63]).blocks == (blocks[0], blocks[5], blocks[63])
    assert pack.load("train").unlabelled().blocks == ()


def test_near_duplicates_across_the_split_are_a_note(tmp_path):
    """Every other frame for testing, by a pattern that takes each frame for a place of its own."""
    pack, said = imported(video(tmp_path / "set"), place=".*")
    told = [note for note in pack.manifest["notes"] if "look nearly like a training scene" in note]
    assert told and told[0] in said and "by the digests of names" in said
    images = np.random.default_rng(0).integers(0, 255, (40, 3, 48, 48), dtype=np.uint8)
    alone = [(str(i), thumbnail(image)) for i, image in enumerate(images)]
    assert near_duplicates({"rgb": alone[:30]}, {"rgb": alone[30:]}) == []
    assert "100%" in near_duplicates({"rgb": alone[:30]}, {"rgb": alone[5:9]})[0]
    assert near_duplicates({"rgb": alone}, {"depth": alone}) == []


def test_several_recordings_of_a_class_are_held_out_whole(tmp_path):
    root = tmp_path / "set"
    for take in range(10):
        for modality, make in (("rgb", colour), ("depth", depth)):
            (root / modality / "office").mkdir(parents=True, exist_ok=True)
            for i in range(6):
                Image.fromarray(make(take)).save(root / modality / "office" / f"take{take}_{i}.png")
    found = survey("folders", root)
    assert "by whole places or recordings" in found.protocol["split"]
    sides = {}
    for frame in found.frames:
        sides.setdefault(frame.name[:-1], set()).add((frame.split, frame.block))
    assert len(sides) == 10 and all(len(side) == 1 for side in sides.values())
    assert sum("test" in {split for split, _ in side} for side in sides.values()) == 2


def test_a_pattern_names_the_places(tmp_path):
    root = write(write(tmp_path / "set", "rgb", each=20), "depth", each=20)
    pack, _ = imported(root, place=r"s0(\d)")
    sides = {}
    for split in pack.splits:
        for name, block in zip(pack.load(split).names, pack.load(split).blocks, strict=True):
            sides.setdefault(name.split("/s0")[1][0], set()).add((split, block))
    assert all(len(side) == 1 for side in sides.values())
    assert "the pattern of places is not in 20 names" in survey("folders", root, place="kitchen").report()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"place": "("}, "place=( cannot be: give a regular expression"),
        (
            {"depth_unit": "inches"},
            "depth_unit=inches cannot be: give millimetres, metres, rotated or counts",
        ),
        ({"depth_unit": 0}, "depth_unit=0 cannot be"),
        ({"depth_unit": "nan"}, "depth_unit=nan cannot be"),
        ({"levels": "9:3"}, "levels=9:3 cannot be: give LOW:HIGH"),
        ({"levels": "dark"}, "levels=dark cannot be"),
        ({"unpaired": "maybe"}, "unpaired=maybe cannot be: give true or false"),
        ({"quality": "LR"}, "folders option 'quality' is unknown"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, told):
    with pytest.raises(LabError) as error:
        survey("folders", write(tmp_path / "set", "rgb"), **options)
    assert told in str(error.value)


# lists


def lists(root: Path, line, shift: int = 0, encoding: str = "utf-8", pictures: bool = True) -> Path:
    """Text lists of five office scenes and five pairs; the pairs of one list are shifted by some lines."""
    for modality in ("rgb", "depth"):
        if pictures:
            write(root / "img", modality, kinds=("office", "hall"))
        (root / modality).mkdir(parents=True)
        hall = [line(f"img/{modality}/hall/s{i:03}.png", 1) for i in range(5)]
        k = shift if modality == "depth" else 0
        office = [line(f"img/{modality}/office/s{i:03}.png", 0) for i in range(5)]
        (root / modality / "cam_list.txt").write_bytes("\r\n".join(office).encode(encoding))
        (root / modality / "cam_ti_list.txt").write_bytes("\r\n".join(hall[k:] + hall[:k]).encode(encoding))
    return root


@pytest.mark.parametrize(
    ("line", "encoding"),
    [
        (lambda path, label: f"{path} {label}", "utf-8"),
        (lambda path, label: path.replace("/", "\\") + f" {label}", "utf-8-sig"),
        (lambda path, label: f".\\{path}\t{label}", "utf-8"),
        (lambda path, label: f"{path} {label}", "utf-16"),
    ],
)
def test_lists_from_windows_are_read(tmp_path, line, encoding):
    found = survey("lists", lists(tmp_path / "set", line, encoding=encoding))
    assert len(found.frames) == 10 and found.problems == [] and found.classes == ("office",)


def test_mismatched_pairs_are_counted(tmp_path):
    root = lists(tmp_path / "set", lambda path, label: f"{path} {label}", shift=1)
    pack, said = imported(root, "lists")
    assert "problems: 5 × mismatched pair; they keep 5 scenes out" in said and pack.splits == ("train",)
    assert survey("lists", root).left_out == 5
    assert survey("lists", root, by_line="true").left_out == 0


def test_lists_with_paths_of_another_computer_name_the_line_and_the_option(tmp_path):
    root = lists(tmp_path / "set", lambda path, label: f"/home/author/{path} {label}", pictures=False)
    _, said = imported(root, "lists")
    assert "cam_list.txt:1: there is no /home/author/img/depth/office/s000.png: --option base=FOLDER" in said


# places


def test_a_pack_may_lie_beside_the_set_by_a_relative_path(tmp_path, monkeypatch):
    root = write(write(tmp_path / "set", "rgb"), "depth")
    monkeypatch.chdir(root)
    import_folder("folders", ".", "../packs/mine", size=16, say=lambda text: None, processes=1)
    assert (tmp_path / "packs" / "mine" / "manifest.json").is_file()
    for out in ("packs", "../set/packs", str(root / "deeper" / "packs")):
        with pytest.raises(LabError, match="lies in the data set itself"):
            import_folder("folders", ".", out, say=lambda text: None)


# real images, which are not part of the repository


@real
def test_real_frames_of_sun_rgbd_decode_right(tmp_path):
    """Kinect v1 and v2: the numbers of the files turned back, median distances of an office."""
    pack = import_folder(
        "sunrgbd", REAL / "sunrgbd_frames", tmp_path / "pack", size=128, task=["office"],
        say=lambda text: None,
    )  # fmt: skip
    stored = pack.load("train")
    assert len(stored) == 2
    for name, image in zip(stored.names, stored.images["depth"].numpy(), strict=True):
        (file,) = (REAL / "sunrgbd_frames" / "SUNRGBD" / name / "depth").iterdir()
        raw = np.asarray(Image.open(file)).astype(np.uint32)
        expected = (raw >> 3) | ((raw << 13) & 0xFFFF)
        assert set(np.unique(image)) <= set(np.unique(expected)) | {0}
        assert 1000 < np.median(image[image > 0]) < 4000
    assert all(one is not None and 50 < one[0] < 300 for one in pack.intrinsics("train"))


@real
def test_real_samples_in_other_units_are_noted(tmp_path):
    """TUM (5000 per metre), SUN (rotated), Redwood (millimetres); NYU's .ppm and .pgm are not read."""
    found = survey("folders", REAL / "open3d_samples")
    report = found.report()
    assert "file ending in .pgm (depth/nyu/1.pgm)" in report and "file ending in .ppm" in report
    assert "--option depth_unit=UNIT" in report
    for kind, unit in (("tum", "5000"), ("sun", "rotated"), ("redwood", "")):
        root = tmp_path / kind
        for modality in ("rgb", "depth"):
            (root / modality).mkdir(parents=True)
            (root / modality / kind).symlink_to(REAL / "open3d_samples" / modality / kind)
        report = survey("folders", root).report()
        assert (f"{unit} (median" in report) if unit else ("depth_unit" not in report)


@real
def test_real_hands_are_imported_by_lists(tmp_path):
    """Split in time; the frames of a letter make several blocks; depth is millimetres without a doubt."""
    subprocess.run(
        [sys.executable, REAL / "make_lists.py", tmp_path / "lists"], check=True, capture_output=True
    )
    said = []
    pack = import_folder(
        "lists", tmp_path / "lists", tmp_path / "pack", size=32, base=REAL / "hands", say=said.append,
    )  # fmt: skip
    assert pack.classes == ("a", "c", "e", "i", "l") and pack.manifest["left_out"] == 0
    assert pack.domains == ("early", "late") and "depth_unit" not in "\n".join(said)
    held_out = pack.load("test", "late", ("depth",))
    assert 10 <= len(set(held_out.blocks)) <= len(held_out) // 5
