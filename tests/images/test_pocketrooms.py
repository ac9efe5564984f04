"""The shipped data: splits, pairs, seeds, and that an adaptation never needs the task's colour pictures."""

import csv
import shutil
import time

import pytest
import torch

from socketlab import Recipe, adapt, load_source, rooms
from socketlab.errors import LabError
from socketlab.files import data_folder, read_manifest
from socketlab.images.sensors import SENSORS
from socketlab.method.adaptation import Epoch
from tools.manifest import write_manifest

SHORT = Recipe(align_epochs=1, epochs=1, lambda_bn=0.5)


def adapted_weights(sensor: str = "kinect_v1") -> dict[str, torch.Tensor]:
    target = rooms.load("target_adapt", sensor, ("depth",)).take(range(0, 400, 8))
    pairs = rooms.ti_pairs(sensor, "near", count=40)
    *_, last = adapt(load_source(f"rgb_{sensor}"), target, pairs, SHORT)
    assert isinstance(last, Epoch)
    return dict(last.state.adapted.network.state_dict())


def test_source_free(tmp_path, monkeypatch):
    """Without any colour picture of the task's classes an adaptation ends with the same weights."""
    expected = adapted_weights()
    shutil.copytree(
        data_folder(), tmp_path / "data", ignore=shutil.ignore_patterns("*.py", "results", "figures")
    )
    removed = [
        path
        for split in rooms.SPLITS
        if not split.startswith("ti_")
        for path in (tmp_path / "data/pocketrooms").glob(f"{split}.rgb.*")
    ]
    assert len(removed) == 4
    for path in removed:
        path.unlink()
    monkeypatch.setenv("SOCKETLAB_DATA", str(tmp_path / "data"))
    found = adapted_weights()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(LabError, match=r"source_train\.rgb\.jpg is missing"):
        rooms.load("source_train", "kinect_v1", ("rgb",))


def test_no_scene_is_in_two_splits_and_every_kind_is_labelled():
    with open(data_folder() / "pocketrooms/index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == len(rows)
    assert len({row["seed"] for row in rows}) == len(rows)
    for role, splits in {"task": rooms.SPLITS[:4], "near": ("ti_near",), "far": ("ti_far",)}.items():
        assert {row["split"] for row in rows if row["role"] == role} == set(splits)
    kinds = {split: {row["kind"] for row in rows if row["split"] == split} for split in rooms.SPLITS}
    assert all(kinds[split] == set(rooms.CLASSES) for split in rooms.SPLITS[:4])
    assert len(kinds["ti_near"]) >= 8
    assert len(kinds["ti_far"]) >= 8
    assert not (kinds["ti_near"] | kinds["ti_far"]) & set(rooms.CLASSES)


@pytest.mark.parametrize("sensor", SENSORS)
def test_every_split_loads_in_every_modality(sensor):
    for split in ("source_test", "ti_far"):
        images = rooms.load(split, sensor, ("rgb", "nir", "depth"))
        count = len(images)
        assert images.images["rgb"].shape == (count, 3, 64, 64)
        assert images.images["nir"].shape == (count, 1, 64, 64)
        depth = images.images["depth"]
        assert depth.dtype is torch.uint16
        millimetres = depth.to(torch.float32)
        assert 300 < float(millimetres[millimetres > 0].median()) < 8000


def test_colour_and_depth_show_the_same_room():
    """Edges of the ideal depth lie on edges of the same scene's picture, more than on another scene's."""
    images = rooms.load("source_test", "kinect_v2", strength=0.0)
    grey = images.images["rgb"].to(torch.float32).mean(1)
    depth = images.images["depth"].to(torch.float32)[:, 0]
    step = (depth[:, :, 1:] - depth[:, :, :-1]).abs() > 250
    change = (grey[:, :, 1:] - grey[:, :, :-1]).abs()
    own = (change * step).sum() / step.sum()
    other = (change * step.roll(1, 0)).sum() / step.sum()
    assert own > 1.5 * other


def test_loading_is_seeded_and_quick():
    start = time.process_time()  # not the clock on the wall: the machine may be busy
    first = rooms.load("target_adapt", "realsense", ("depth",))
    assert time.process_time() - start < 4
    again = rooms.load("target_adapt", "realsense", ("depth",))
    other = rooms.load("target_adapt", "realsense", ("depth",), seed=1)
    assert torch.equal(first.images["depth"].view(torch.int16), again.images["depth"].view(torch.int16))
    assert not torch.equal(first.images["depth"].view(torch.int16), other.images["depth"].view(torch.int16))


def test_pairs_by_mix_and_count():
    near, far, both = (rooms.ti_pairs("xtion", mix, modalities=("nir",)) for mix in ("near", "far", "both"))
    assert len(both) == len(near) + len(far)
    assert len(rooms.ti_pairs("xtion", "near", count=25, modalities=("nir",))) == 25
    mixed = rooms.ti_pairs("xtion", 0.25, count=40, modalities=("nir",))
    assert sum(kind in set(near.kinds) for kind in mixed.kinds) == 10
    assert rooms.ti_pairs("xtion", 0.5, modalities=("nir",)).classes == ()
    with pytest.raises(LabError, match="asked for, but there are"):
        rooms.ti_pairs("xtion", "near", count=100_000, modalities=("nir",))
    with pytest.raises(LabError, match="unknown mix"):
        rooms.ti_pairs("xtion", "middling", modalities=("nir",))


def test_bad_names_and_altered_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(LabError, match="split 'train' is unknown"):
        rooms.load("train")
    with pytest.raises(LabError, match="kinect_v1"):
        rooms.load("source_test", "kinect_v3")
    with pytest.raises(LabError, match="modality 'thermal' is unknown"):
        rooms.load("source_test", modalities=("thermal",))
    folder = tmp_path / "data"
    shutil.copytree(data_folder() / "pocketrooms", folder / "pocketrooms")
    write_manifest(folder)
    monkeypatch.setenv("SOCKETLAB_DATA", str(folder))
    with open(folder / "pocketrooms/source_test.depth.png", "ab") as file:
        file.write(b"x")
    with pytest.raises(LabError, match=r"source_test\.depth\.png was altered"):
        rooms.load("source_test", modalities=("depth",))


def test_the_data_are_small_and_listed():
    folder = data_folder()
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    sizes = {path: path.stat().st_size for path in files}
    assert sum(size for path, size in sizes.items() if path.parent.name == "pocketrooms") < 40e6
    traces = [size for path, size in sizes.items() if path.parent.name == "traces"]
    assert sum(traces) < 12e6 and len(traces) < 50
    assert sum(sizes.values()) - sum(traces) < 60e6
    assert len(files) - len(traces) < 100
    listed = read_manifest(folder)
    unlisted = {path.relative_to(folder).as_posix() for path in files} - set(listed) - {"manifest.json"}
    assert not {name for name in unlisted if not name.startswith(".")}


@pytest.mark.parametrize("name", [*(f"rgb_{sensor}" for sensor in SENSORS), "nir"])
def test_shipped_networks_are_as_good_as_their_card_says(name):
    from socketlab import features

    source = load_source(name)
    sensor = source.card["sensor"]
    images = rooms.load("source_test", sensor, (source.modality,))
    assert features.accuracy(source, images) == pytest.approx(source.card["held_out_accuracy"], abs=0.011)
    assert source.classes == rooms.CLASSES
