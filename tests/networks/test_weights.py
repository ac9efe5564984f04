"""Weights in files of others: under whatever names they were stored, or refused with the reason."""

import pytest
import torch
from torch import nn

from socketlab.errors import LabError
from socketlab.networks.weights import fill, read_weights


def net():
    """With a batch norm, so that names, buffers and counts all occur."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


WEIGHTS = net().state_dict()


def under(prefix):
    return {prefix + name: x for name, x in WEIGHTS.items()}


STORED = {
    "plain": WEIGHTS,
    "DataParallel": under("module."),
    "torch.compile": under("_orig_mod."),
    "compiled in DataParallel": under("module._orig_mod."),
    "DataParallel twice": under("module.module."),
    "Lightning": {"state_dict": under("model."), "epoch": 3, "hyper_parameters": {"lr": 0.1}},
    "backbone": under("backbone."),
    "encoder": under("encoder."),
    "moving average": {"n_averaged": torch.tensor(5), **under("module.")},
    "training script": {"model": WEIGHTS, "optimizer": {"state": {0: {"step": 1}}}, "epoch": 1},
    "model_state_dict": {"model_state_dict": WEIGHTS, "loss": 0.5},
    "wrapped twice": {"state_dict": {"net": under("module.")}},
    "half": {name: x.half() if x.is_floating_point() else x for name, x in WEIGHTS.items()},
}


@pytest.mark.parametrize("case", STORED)
def test_prefixes_and_wrappers_are_taken_off(case, tmp_path):
    torch.save(STORED[case], tmp_path / "weights.pth")
    module = net()
    for x in module.parameters():
        x.data.zero_()
    fill(module, read_weights(tmp_path / "weights.pth"), "the weights")
    torch.testing.assert_close(module.state_dict(), WEIGHTS, rtol=1e-3, atol=1e-3)


REFUSED = {
    "NaN": (WEIGHTS | {"0.bias": torch.tensor([0, torch.nan, 0, 0])}, "0.bias in weights.pth holds NaN"),
    "infinite": (WEIGHTS | {"1.running_var": torch.full((4,), torch.inf)}, "running_var .* holds NaN"),
    "other keys": ({"generator": WEIGHTS, "critic": WEIGHTS}, r"\(its keys are 'generator', 'critic'\)"),
    "numbers": ({"loss": 0.5, "epoch": 3}, r"\(its keys are 'loss', 'epoch'\)"),
    "a tensor": (torch.zeros(3), "by name but a Tensor"),
    "nothing": ({}, "does not hold tensors by name: write"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_holds_no_weights_is_refused(case, tmp_path):
    stored, message = REFUSED[case]
    torch.save(stored, tmp_path / "weights.pth")
    with pytest.raises(LabError, match=message):
        read_weights(tmp_path / "weights.pth")


def test_an_unknown_prefix_is_named(tmp_path):
    torch.save(under("teacher.") | {"queue": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(
        LabError, match=r"missing, but there is teacher\.0\.weight: take 'teacher\.' off the names"
    ):
        fill(net(), read_weights(tmp_path / "weights.pth"), "the weights")
