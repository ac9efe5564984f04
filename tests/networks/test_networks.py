"""The small network: shapes, seeds, and that its map and its features are of one piece."""

import copy

import torch
from torch import nn

from socketlab.networks.networks import SeededDropout, fast_bfloat16, seed_dropout, small_network


def test_shapes_and_size():
    network = small_network(8).eval()
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    assert network.features(images).shape == (2, 128)
    assert network(images).shape == (2, 8)
    assert 1.1e6 < sum(p.numel() for p in network.parameters()) < 1.4e6


def test_the_map_averages_to_the_features():
    network = small_network(3, width=8).eval()
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    spatial, found = network.map_and_features(images)
    assert spatial.shape == (2, 64, 4, 4)
    torch.testing.assert_close(found, network.features(images))


def test_same_seed_same_weights_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (small_network(3, 8, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["trunk.0.weight"], other["trunk.0.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_draws_by_its_own_seed_and_leaves_the_global_state_alone():
    network = nn.Sequential(nn.Dropout(0.25), nn.Dropout(0.25), nn.Dropout(1.0))
    seed_dropout(network, 5)
    first, second, nothing = network
    x, before = torch.randn(200, 300), torch.get_rng_state()
    y = first(x)
    assert torch.equal(before, torch.get_rng_state())
    dropped = y == 0
    assert 0.24 < float(dropped.float().mean()) < 0.26
    torch.testing.assert_close(y[~dropped], x[~dropped] / 0.75)
    assert not torch.equal(first(x), y) and not torch.equal(second(x), y)
    assert not nothing(x).any()
    seed_dropout(network, 5)
    assert torch.equal(copy.deepcopy(first)(x), y) and torch.equal(first(x), y)
    assert network.eval()(x) is x and isinstance(first, SeededDropout)


def test_automatic_precision_is_the_faster_one(monkeypatch):
    """In 16 bits where the processor multiplies them; grouped convolutions on a CPU stay in 32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    cpu, grouped = torch.device("cpu"), nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    assert fast_bfloat16(cpu) and fast_bfloat16(cpu, nn.Conv2d(4, 4, 3))
    assert not fast_bfloat16(cpu, grouped)
    with monkeypatch.context() as limited:
        limited.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        assert not fast_bfloat16(cpu)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert not fast_bfloat16(cpu)
