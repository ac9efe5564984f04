"""The small network: shapes, seeds, and that its map and its features are of one piece."""

import torch

from socketlab.nets import small_network


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
