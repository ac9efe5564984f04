"""Moments of batches from those of their images, against torch's own layer and plain sums."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from worlds import patterned, trained_source

from socketlab import losses
from socketlab.errors import LabError
from socketlab.measures import bn_moments
from socketlab.measures.bn_moments import ImageMoments, image_moments
from socketlab.method.losses import gaussian_divergence


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return 3 + 2 * torch.randn(12, 5, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def moments(x: torch.Tensor) -> ImageMoments:
    return moments_of(x)


def moments_of(x: torch.Tensor) -> ImageMoments:
    """By one layer alone, in double precision all the way."""
    network = nn.Sequential(nn.BatchNorm2d(5)).double()
    network[0].running_mean.fill_(0.5)
    network[0].running_var.fill_(4.0)
    return image_moments(network, x)["0"]


@given(st.lists(st.integers(0, 11), min_size=2, max_size=12, unique=True))
def test_a_batch_is_what_its_pixels_say(rows: list[int]) -> None:
    x = 3 + 2 * torch.randn(12, 5, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, var = moments_of(x).batch(torch.tensor(rows))
    part = x[rows]
    torch.testing.assert_close(mean, part.mean((0, 2, 3)))
    torch.testing.assert_close(var, part.var((0, 2, 3), correction=0))


def test_a_layer_without_places_has_as_many_values_as_images() -> None:
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = image_moments(nn.Sequential(nn.BatchNorm1d(4)).double(), x)["0"]
    assert found.places == 1
    torch.testing.assert_close(found.batch()[1], x.var(0, correction=0))


def test_all_layers_of_a_network_agree_with_norm_statistics() -> None:
    source, images = trained_source(), patterned(10, 1).only("rgb")
    before = copy.deepcopy(source.network.state_dict())
    found = image_moments(source.network, images, source.normalisation)
    for one in bn_moments.norm_statistics(source.network, images, source.normalisation):
        mean, var = found[one.name].batch()
        torch.testing.assert_close(mean, one.mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(var, one.var, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[one.name].remembered[1], one.running_var)
    assert all(torch.equal(before[name], value) for name, value in source.network.state_dict().items())


def test_the_mean_divergence_is_the_loss(moments: ImageMoments) -> None:
    seen, memory = moments.batch(), moments.remembered
    loss = losses.statistics_distance([seen[0]], [seen[1]], [memory[0]], [memory[1]])
    torch.testing.assert_close(gaussian_divergence(*seen, *memory).mean(), loss)
    assert (gaussian_divergence(*memory, *memory).abs() < 1e-12).all()
    assert (gaussian_divergence(*seen, *memory) > 0).all()


def test_a_network_without_batch_norm() -> None:
    with pytest.raises(LabError, match="no batch-norm"):
        image_moments(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(4, 3, 8, 8))
