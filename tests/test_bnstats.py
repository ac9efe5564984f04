"""The watched layer against torch's own layer and against a plain computation of the statistics."""

import pytest
import torch
from torch import nn

from socketlab import bnstats


def twins(
    channels: int = 5, dtype=torch.float64, **options
) -> tuple[nn.BatchNorm2d, bnstats.WatchedBatchNorm2d]:
    """A plain layer and a watched one with the same, non-trivial values."""
    generator = torch.Generator().manual_seed(0)
    plain = nn.BatchNorm2d(channels, **options).to(dtype)
    with torch.no_grad():
        plain.weight.uniform_(0.5, 2, generator=generator)
        plain.bias.normal_(generator=generator)
        plain.running_mean.normal_(generator=generator)
        plain.running_var.uniform_(0.5, 2, generator=generator)
    watched = nn.Sequential(nn.BatchNorm2d(channels, **options).to(dtype))
    watched[0].load_state_dict(plain.state_dict())
    bnstats.watch(watched)
    return plain, watched[0]


def images(seed: int = 1, shape=(6, 5, 4, 3), dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_output_and_running_statistics_are_those_of_torch(training, momentum):
    plain, watched = twins(momentum=momentum)
    plain.train(training)
    watched.train(training)
    watched.watching = True
    for seed in range(3):
        x = images(seed)
        torch.testing.assert_close(watched(x), plain(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(watched.running_mean, plain.running_mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(watched.running_var, plain.running_var, rtol=1e-12, atol=1e-12)
        assert watched.num_batches_tracked == plain.num_batches_tracked


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_the_biased_moments_of_the_input(training):
    _, watched = twins()
    watched.train(training)
    watched.watching = True
    x = images()
    watched(x)
    torch.testing.assert_close(watched.batch_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(watched.batch_var, x.var((0, 2, 3), correction=0))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradients_equal_the_plain_computation(dtype, tolerance):
    """The statistics' gradient is added to the layer's own, for input, weight and bias."""
    plain, watched = twins(dtype=dtype)
    watched.watching = True
    x = images(dtype=dtype).requires_grad_()
    y = x.detach().clone().requires_grad_()
    weights = images(2, dtype=dtype)
    out = plain(x)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    ((out * weights).sum() + (mean**3).sum() + (variance.sqrt() * mean).sum()).backward()
    out = watched(y)
    mean, variance = watched.batch_mean, watched.batch_var
    ((out * weights).sum() + (mean**3).sum() + (variance.sqrt() * mean).sum()).backward()
    torch.testing.assert_close(y.grad, x.grad, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(watched.weight.grad, plain.weight.grad, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(watched.bias.grad, plain.bias.grad, rtol=tolerance, atol=tolerance)


def test_gradcheck():
    def with_statistics(x, weight, bias):
        return bnstats._BatchNormWithStatistics.apply(x, weight, bias, 1e-5)

    plain, _ = twins()
    inputs = (images(shape=(3, 5, 2, 2)).requires_grad_(), plain.weight, plain.bias)
    assert torch.autograd.gradcheck(with_statistics, inputs)


def test_channels_last_gives_the_same_numbers():
    _, watched = twins()
    watched.watching = True
    x = images()
    out, mean = watched(x), watched.batch_mean
    other = watched(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(other, out)
    torch.testing.assert_close(watched.batch_mean, mean)


def small_trunk() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
    )


def test_watch_keeps_every_parameter_and_buffer():
    trunk = small_trunk()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    assert bnstats.watch(trunk) is trunk
    assert list(bnstats.watched_layers(trunk)) == ["1", "4"]
    after = trunk.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_statistics_are_let_go_after_the_block_and_after_an_error():
    trunk = bnstats.watch(small_trunk())
    with bnstats.batch_statistics(trunk) as layers:
        trunk(torch.randn(4, 3, 9, 9))
        assert all(layer.batch_mean is not None for layer in layers)
    assert all(layer.batch_mean is None and not layer.watching for layer in layers)
    with pytest.raises(RuntimeError), bnstats.batch_statistics(trunk):
        trunk(torch.randn(4, 2, 9, 9))
    assert not any(layer.watching for layer in layers)


def test_fault_9_pairs_leave_the_running_statistics_alone():
    """A pass over task-irrelevant pairs must not move what the network is tested with."""
    trunk = bnstats.watch(small_trunk()).train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    with bnstats.untouched_statistics(trunk):
        first = trunk(torch.randn(4, 3, 9, 9))
        with bnstats.batch_statistics(trunk):
            trunk(torch.randn(4, 3, 9, 9))
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
    assert abs(float(first.mean())) < 1e-5  # normalised by its own batch, not by the running statistics
    trunk(torch.randn(4, 3, 9, 9))
    assert trunk[1].num_batches_tracked == before["1.num_batches_tracked"] + 1  # and later passes do move it


def test_reestimation_is_exact_for_the_first_layer_and_changes_no_weight():
    trunk = bnstats.watch(small_trunk()).eval()
    weights = {name: p.detach().clone() for name, p in trunk.named_parameters()}
    x = images(shape=(12, 3, 9, 9), dtype=torch.float32)
    with torch.no_grad():
        inner = trunk[0](x)
    bnstats.reestimate_statistics(trunk, iter(x.split(4)))
    torch.testing.assert_close(trunk[1].running_mean, inner.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    per_batch = torch.stack([part.var((0, 2, 3)) for part in inner.split(4)]).mean(0)
    torch.testing.assert_close(trunk[1].running_var, per_batch, rtol=1e-5, atol=1e-5)
    assert not trunk.training
    assert trunk[1].momentum == 0.1
    assert all(torch.equal(p, weights[name]) for name, p in trunk.named_parameters())
