"""Networks on disk: what is written comes back, and anything else is refused in a sentence."""

import pytest
import torch
from safetensors.torch import save_file
from worlds import CLASSES, patterned, trained_source

from socketlab import features
from socketlab.errors import LabError
from socketlab.networks.checkpoints import load_source, require_classes, save_source


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
