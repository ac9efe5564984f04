"""Batch-norm statistics: measured, frozen, pooled and re-estimated, against NumPy and torch's layers."""

import copy

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from torch import nn

from socketlab.method import bnstats
from socketlab.method.evaluate import even_parts


def small_trunk() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
    )


def images(count: int = 6, seed: int = 1) -> torch.Tensor:
    return 1 + 2 * torch.randn(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 6)] * 4).filter(lambda s: s[0] * s[2] * s[3] > 1),
    mean=st.floats(-5, 5),
    deviation=st.floats(0.01, 5),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_moments_are_those_of_numpy_in_double_precision(shape, mean, deviation, channels_last, seed):
    x = mean + deviation * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    found, exact = bnstats.moments(x), x.double().numpy()
    tolerance = 1e-6 * max(1.0, abs(mean), deviation) ** 2
    np.testing.assert_allclose(found.mean, exact.mean((0, 2, 3)), rtol=1e-6, atol=tolerance)
    np.testing.assert_allclose(found.variance, exact.var((0, 2, 3)), rtol=1e-5, atol=tolerance)
    assert found.size == x.numel() // shape[1]


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4), (6, 5, 4, 3)])
def test_moments_have_the_right_gradient(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: bnstats.moments(x)[:2], (x,))
    half = bnstats.moments(x.detach().bfloat16())
    assert half.mean.dtype == half.variance.dtype == torch.float32


@hypothesis.given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_pooled_parts_of_any_sizes_are_the_whole(sizes, seed):
    """Every value weighs the same."""
    x = 3 + torch.randn(sum(sizes), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parts = [bnstats.moments(part) for part in x.split(sizes) if len(part)]
    found, whole = bnstats.pooled(parts), bnstats.moments(x)
    torch.testing.assert_close(found.mean, whole.mean)
    torch.testing.assert_close(found.variance, whole.variance)
    assert found.size == len(x)


def test_every_layer_is_recorded_with_its_gradient():
    """Of a ResNet-18 of torchvision, unchanged; afterwards no hook is left."""
    import torchvision

    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(num_classes=4)
    expected = copy.deepcopy(resnet)(x := torch.randn(4, 3, 64, 64))
    with bnstats.batch_statistics(resnet) as seen:
        torch.testing.assert_close(resnet(x), expected)
    layers = [layer for layer in resnet.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert set(seen) == set(layers) and len(layers) == 20
    inner = resnet.conv1(x)
    torch.testing.assert_close(seen[resnet.bn1].mean, inner.mean((0, 2, 3)))
    torch.testing.assert_close(seen[resnet.bn1].variance, inner.var((0, 2, 3), correction=0))
    sum(layer.variance.sqrt().mean() for layer in seen.values()).backward()
    assert float(resnet.conv1.weight.grad.norm()) > 0
    assert not any(layer._forward_pre_hooks for layer in layers)
    with pytest.raises(RuntimeError), bnstats.batch_statistics(resnet):
        resnet(torch.randn(4, 2, 64, 64))
    assert not any(layer._forward_pre_hooks for layer in layers)


class NormAct(nn.BatchNorm2d):
    """A subclass with more in its forward pass, as timm's BatchNormAct2d."""

    def forward(self, x):
        return torch.relu(super().forward(x))


@pytest.mark.parametrize("convert", [nn.SyncBatchNorm.convert_sync_batchnorm, lambda network: network])
def test_subclasses_count_beside_plain_layers(convert):
    """In a network of both kinds each layer is recorded, kept still and re-estimated."""
    network = convert(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), NormAct(4)))
    before = copy.deepcopy(network.state_dict())
    with bnstats.frozen_running_statistics(network), bnstats.batch_statistics(network) as seen:
        network(images())
    assert [len(one.mean) for one in seen.values()] == [3, 4]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    bnstats.reestimate_statistics(network, [images()])
    torch.testing.assert_close(network[0].running_mean, images().mean((0, 2, 3)))
    assert not torch.equal(network[2].running_mean, before["2.running_mean"])


def test_fault_9_pairs_leave_the_running_statistics_alone():
    """A pass over task-irrelevant pairs must not move what the network is tested with."""
    trunk = small_trunk().train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    with bnstats.frozen_running_statistics(trunk):
        first = trunk(images())
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
    assert abs(float(first.detach().mean())) < 1e-5  # normalised by its own batch
    trunk(images())
    assert trunk[1].num_batches_tracked == before["1.num_batches_tracked"] + 1  # later passes do move them


def test_running_statistics_normalise_within_the_block_alone():
    trunk = small_trunk().train()
    with bnstats.normalise_by(trunk, "running"):
        by_running = trunk(images())
        assert trunk.training and not trunk[1].training
    torch.testing.assert_close(by_running, copy.deepcopy(trunk).eval()(images()))
    assert trunk[1].training


@pytest.mark.parametrize("sizes", [(4, 4, 4), (8, 2, 2), (11, 1)])
def test_reestimated_statistics_weigh_every_image_the_same(sizes):
    """The first layer's mean is exact whatever the batches are, and no weight changes."""
    trunk = small_trunk().eval()
    weights = {name: p.detach().clone() for name, p in trunk.named_parameters()}
    x = images(12)
    with torch.no_grad():
        inner = trunk[0](x)
    bnstats.reestimate_statistics(trunk, x.split(list(sizes)))
    torch.testing.assert_close(trunk[1].running_mean, inner.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    parts = inner.split(list(sizes))
    expected = sum(len(part) * part.var((0, 2, 3)) for part in parts) / 12
    torch.testing.assert_close(trunk[1].running_var, expected, rtol=1e-5, atol=1e-5)
    assert not trunk.training and trunk[1].momentum == 0.1
    assert all(torch.equal(p, weights[name]) for name, p in trunk.named_parameters())


@pytest.mark.parametrize("count", [2, 3, 128, 129, 130, 257, 385, 513])
def test_no_part_of_a_set_is_one_image(count):
    sizes = [part.stop - part.start for part in even_parts(count, 128)]
    assert sum(sizes) == count and max(sizes) <= 128 and min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
