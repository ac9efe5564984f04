"""Networks on disk: what is written comes back, and anything else is refused in a sentence."""

import time

import pytest
import torch
from safetensors.torch import save_file
from worlds import CLASSES, patterned, trained_source

from socketlab import features
from socketlab.errors import LabError
from socketlab.networks.checkpoints import (
    load_source,
    read_tensors,
    require_classes,
    save_source,
    write_tensors,
)


def test_round_trip(tmp_path):
    source = trained_source()
    save_source(source, tmp_path / "net.safetensors")
    again = load_source(tmp_path / "net.safetensors")
    images = patterned(9, 5).only("rgb")
    assert again.classes == CLASSES
    assert again.normalisation == source.normalisation
    assert again.card == source.card
    torch.testing.assert_close(features.predict(again, images)[0], features.predict(source, images)[0])


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(LabError, match="no file"):
        load_source(tmp_path / "nothing.safetensors")
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(LabError, match=r"text\.safetensors cannot be read"):
        load_source(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(LabError, match=r"foreign\.safetensors cannot be read"):
        load_source(tmp_path / "foreign.safetensors")


def test_a_truncated_file_is_refused(tmp_path):
    save_source(trained_source(), tmp_path / "net.safetensors")
    whole = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabError, match="cannot be read"):
        load_source(tmp_path / "net.safetensors")


def test_other_classes_are_named():
    with pytest.raises(LabError, match=r"knows the classes bars, columns, blank, the data have cats, dogs"):
        require_classes(trained_source(), ("cats", "dogs"))
    images = patterned(6, 0, classes=("columns", "bars", "blank")).only("rgb")
    with pytest.raises(LabError, match="knows the classes"):
        features.accuracy(trained_source(), images)


def test_predicting_leaves_no_trace():
    source = trained_source()
    source.network.train()
    source.network.trunk[1].eval()
    before = {name: value.clone() for name, value in source.network.state_dict().items()}
    features.predict(source, patterned(9, 5).only("rgb"))
    assert source.network.training
    assert not source.network.trunk[1].training
    assert all(torch.equal(value, before[name]) for name, value in source.network.state_dict().items())
    source.network.eval()


def test_confusion_counts():
    images = patterned(30, 6).only("rgb")
    counts = features.confusion(trained_source(), images)
    assert counts.sum(1).tolist() == [10, 10, 10]
    assert features.accuracy(trained_source(), images) == float(counts.trace()) / 30
    assert features.class_mean_accuracy(torch.tensor([[3, 1], [0, 0]])) == 0.75


# headers that do not match


def stored(tmp_path, **changes):
    """A written network whose header says something else."""
    path = tmp_path / "net.safetensors"
    save_source(trained_source(), path)
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, header | changes)
    return path


NORMALISATION = {"modality": "rgb", "mean": [0.5] * 3, "std": [0.25] * 3}
HEADERS = {
    "card": ["a", None, [1]],
    "networks": [0, -1, 2, 10**4, 1.5, "one", None],
    "classes": [[], [["a"], ["b"], ["c"]], ["a", "a", "b"], "abc", None, [1, 2, 3], ["a", "b"], {"a": 1}],
    "width": [float("nan"), 0, -1, 10**30, "wide", None, [32], 64],
    "backbones": [None, "resnet50", ["resnet50"] * 10**4, ["resnet50"], [["small"]], ["small", "small"]],
    "test_statistics": ["evil", None, []],
    "normalisation": [
        None, [], {}, NORMALISATION | {"modality": "evil"}, NORMALISATION | {"mean": [float("nan"), 0, 0]},
        NORMALISATION | {"std": [0.0, 1.0, 1.0]}, NORMALISATION | {"std": [-1.0, 1.0, 1.0]},
        NORMALISATION | {"mean": [0.5]}, NORMALISATION | {"mean": "abc"}, NORMALISATION | {"mean": 3},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), [(f, v) for f, values in HEADERS.items() for v in values], ids=str
)
def test_a_header_that_does_not_match_is_refused_before_anything_large_is_built(tmp_path, field, value):
    path = stored(tmp_path, **{field: value})
    begun = time.perf_counter()
    with pytest.raises(
        LabError, match=r"^net\.safetensors is not a socketlab checkpoint, or its header does"
    ) as error:
        load_source(path)
    assert "\n" not in str(error.value)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("text", ["[" * 5000 + "]" * 5000, "[]", "3", "null", "{"])
def test_a_header_that_is_no_table(tmp_path, text):
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"socketlab": text})
    with pytest.raises(LabError, match=r"net\.safetensors cannot be read as a socketlab network"):
        load_source(path)


def test_weights_that_are_nan_are_named(tmp_path):
    path = stored(tmp_path)
    tensors, header = read_tensors(path)
    tensors["trunk.1.running_var"][2] = torch.nan
    write_tensors(path, tensors, header)
    with pytest.raises(LabError, match=r"trunk\.1\.running_var in net\.safetensors holds NaN"):
        load_source(path)


def test_networks_that_ship_are_listed():
    with pytest.raises(
        LabError, match=r"no network 'rgb_kinect_v9': choose .*rgb_kinect_v1.*or give the path"
    ):
        load_source("rgb_kinect_v9")
    for name in ("x" * 300, "a\0b", None, 5):
        with pytest.raises(LabError, match=r"no name of a network, and no path|no network|name must be str"):
            load_source(name)
    with pytest.raises(LabError, match="no file"):
        load_source("some/where")
