"""The fast form of the statistics against the plain one: outputs, moments, gradients, running statistics."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from worlds import patterned, trained_source

from socketlab import adapt
from socketlab.method import bnstats
from socketlab.method.adaptation import Step
from socketlab.method.recipe import Recipe
from socketlab.speed import best_execution
from socketlab.speed.fast_statistics import FastStatistics

PLACES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
    ),
]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2}


class NormAct(nn.BatchNorm2d):
    def forward(self, x):
        return torch.relu(super().forward(x))


def network_of(training: bool) -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, eps=1e-3, momentum=None),
        NormAct(6), nn.BatchNorm2d(6, track_running_stats=False), nn.BatchNorm2d(6, affine=False),
        nn.Flatten(), nn.Linear(150, 5), nn.BatchNorm1d(5),
    )  # fmt: skip
    network.train()
    network[3].train(training)
    return network.to(memory_format=torch.channels_last)


def everything(network, statistics, x, frozen: bool):
    """Output, moments of every layer, gradients of all of it and buffers, after two passes."""
    for _ in range(2):
        network.zero_grad()
        x = x.detach().requires_grad_()
        still = bnstats.frozen_running_statistics(network) if frozen else nullcontext()
        with still, statistics(network) as seen:
            out = network(x)
        found = [seen[layer] for layer in network if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
        weights = torch.linspace(-1, 1, out.numel(), device=x.device).view(out.shape).to(out.dtype)
        loss = (out * weights).sum() + sum((m.mean.sin() + m.variance.log1p()).sum() for m in found)
        loss.backward()
    gradients = [p.grad for p in (x, *network.parameters())]
    return (
        out.detach(),
        [(m.mean.detach(), m.variance.detach()) for m in found],
        gradients,
        list(network.buffers()),
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("training", "frozen"), [(True, False), (True, True), (False, False)])
def test_the_fast_form_has_the_numbers_of_the_plain_one(training, frozen, dtype, place):
    half = dtype is torch.bfloat16
    plain = network_of(training).to(place, torch.float32 if half else dtype)
    fast = copy.deepcopy(plain)
    x = 1 + torch.randn(8, 3, 9, 9, device=place, dtype=torch.float32 if half else dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast(place, torch.bfloat16, enabled=half):
        expected = everything(plain, bnstats.batch_statistics, x, frozen)
        found = everything(fast, FastStatistics().batch_statistics, x, frozen)
    same = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **same)
    assert not any("forward" in vars(layer) for layer in fast.modules())


@pytest.mark.parametrize("bn_mode", ["batch", "running"])
def test_an_adaptation_has_the_same_losses(bn_mode):
    target, pairs = patterned(24, 1).only("depth"), patterned(20, 2).unlabelled()
    recipe = Recipe(
        batch_size=8, align_epochs=0, epochs=2, lambda_bn=0.5, precision="float32", bn_mode=bn_mode,
        trunk_lr=0.005, test_statistics="running",
    )  # fmt: skip
    losses = [
        [
            event.losses
            for event in adapt(trained_source(), target, pairs, recipe, execution=execution)
            if isinstance(event, Step)
        ]
        for execution in (None, FastStatistics(), best_execution())
    ]
    for plain, *others in zip(*losses, strict=True):
        for other in others:
            assert other == pytest.approx(plain, rel=1e-3)
