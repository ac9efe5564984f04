"""The watched layers against torch's own layers and against a plain computation of the statistics."""

import copy
import shutil

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from socketlab.method import bnstats

KINDS = {
    "1d": (nn.BatchNorm1d, (5,), torch.contiguous_format),
    "1d of sequences": (nn.BatchNorm1d, (5, 4), torch.contiguous_format),
    "2d": (nn.BatchNorm2d, (5, 4, 3), torch.contiguous_format),
    "2d channels_last": (nn.BatchNorm2d, (5, 4, 3), torch.channels_last),
}
"""Name → layer, shape of one of its inputs, memory format."""
THROUGH = ("out", "mean", "var", "all")
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-6}


def twins(kind: str = "2d", dtype=torch.float64, **options) -> tuple[nn.Module, bnstats.Watched]:
    """A plain layer and a watched one with the same, non-trivial values."""
    generator = torch.Generator().manual_seed(0)
    plain = KINDS[kind][0](5, **options).to(dtype)
    for values in (*plain.parameters(), plain.running_mean, plain.running_var):
        if values is not None:
            values.data.uniform_(0.5, 2, generator=generator)
    watched = bnstats.watch(copy.deepcopy(plain))
    watched.watching = True
    return plain, watched


def images(count: int = 6, kind: str = "2d", dtype=torch.float64, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    _, shape, layout = KINDS[kind]
    values = 1 + 2 * torch.randn(count, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return values.contiguous(memory_format=layout)


def objective(out, mean, variance, through: str) -> torch.Tensor:
    """Something curved, of the output, the mean, the variance, or all of them."""
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape).to(out.dtype)
    terms = {
        "out": (out * weights).mean(),
        "mean": (mean**2).mean(),
        "var": (variance.sqrt() * variance).mean(),
    }
    return sum(terms.values()) if through == "all" else terms[through]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("tracking", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_gradients_equal_the_plain_form(kind, training, affine, tracking, through, dtype):
    """Output, statistics, running statistics and all gradients, over batches of unequal sizes."""
    plain, watched = twins(kind, dtype, affine=affine, track_running_stats=tracking)
    plain.train(training)
    watched.train(training)
    same = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    for seed, count in enumerate((6, 2, 5)):
        x = images(count, kind, dtype, seed).requires_grad_()
        y = x.detach().clone().requires_grad_()
        out, (mean, variance) = plain(x), bnstats.plain_statistics(x)
        objective(out, mean, variance, through).backward()
        found = watched(y)
        objective(found, watched.batch_mean, watched.batch_var, through).backward()
        assert torch.equal(found, out)
        assert watched.batch_count == x.numel() // 5
        torch.testing.assert_close(watched.batch_mean, mean, **same)
        torch.testing.assert_close(watched.batch_var, variance, **same)
        torch.testing.assert_close(y.grad, x.grad, **same)
        for name, values in plain.named_parameters():
            torch.testing.assert_close(watched.get_parameter(name).grad, values.grad, **same)
        for name, values in plain.named_buffers():
            torch.testing.assert_close(watched.get_buffer(name), values, **same)


@pytest.mark.parametrize("momentum", [0.3, 0.0, None])
def test_running_statistics_move_as_those_of_torch(momentum):
    plain, watched = twins(momentum=momentum)
    for seed in range(3):
        x = images(seed=seed)
        assert torch.equal(watched(x), plain(x))
    assert torch.equal(watched.running_mean, plain.running_mean)
    assert torch.equal(watched.running_var, plain.running_var)
    assert watched.num_batches_tracked == 3


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, training, affine):
    _, layer = twins(kind, affine=affine, momentum=0.0)
    layer.train(training)

    def with_statistics(x, *parameters):
        if parameters:
            layer.weight, layer.bias = parameters
        return layer(x), layer.batch_mean, layer.batch_var

    parameters = [values.detach().clone().requires_grad_() for values in layer.parameters()]
    for name in [name for name, _ in layer.named_parameters()]:
        delattr(layer, name)  # plain tensors take their places
    assert torch.autograd.gradcheck(with_statistics, (images(3, kind).requires_grad_(), *parameters))


@pytest.mark.parametrize("frozen", ["input", "parameters"])
def test_what_is_frozen_gets_no_gradient(frozen):
    plain, watched = twins()
    x = images().requires_grad_(frozen != "input")
    y = x.detach().clone().requires_grad_(x.requires_grad)
    plain.requires_grad_(frozen != "parameters")
    watched.requires_grad_(frozen != "parameters")
    objective(plain(x), *bnstats.plain_statistics(x), "all").backward()
    objective(watched(y), watched.batch_mean, watched.batch_var, "all").backward()
    for mine, theirs in ((y, x), (watched.weight, plain.weight), (watched.bias, plain.bias)):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad)


@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 6)] * 4).filter(lambda s: s[0] * s[2] * s[3] > 1),
    mean=st.floats(-5, 5),
    deviation=st.floats(0.01, 5),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_batch_any_moments(shape, mean, deviation, channels_last, seed):
    """In float32 the statistics are those of a plain computation in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = mean + deviation * torch.randn(shape, generator=generator)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    layer = bnstats.watch(nn.BatchNorm2d(shape[1]))
    layer.watching = True
    layer(x)
    exact = x.double()
    tolerance = 1e-6 * max(1.0, abs(mean), deviation) ** 2
    torch.testing.assert_close(layer.batch_mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=tolerance)
    torch.testing.assert_close(
        layer.batch_var.double(), exact.var((0, 2, 3), correction=0), rtol=1e-5, atol=tolerance
    )


def test_variance_of_a_dead_channel_is_not_below_zero():
    layer = bnstats.watch(nn.BatchNorm1d(64))
    layer.watching = True
    layer(torch.linspace(-3, 3, 64).expand(8, 64))
    assert bool((layer.batch_var >= 0).all()) and float(layer.batch_var.detach().max()) < 1e-9


def test_one_value_per_channel_is_refused_as_torch_refuses_it():
    plain, watched = twins("1d")
    for layer in (plain, watched):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            layer(images(1, "1d"))
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        watched(images())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_autocast_keeps_statistics_in_float32(training, affine):
    """bfloat16 goes in and out, the statistics of its values are float32, as in the plain form."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, 3)
    plain, watched = twins(dtype=torch.float32, affine=affine)
    x = 3 + torch.randn(6, 3, 9, 9)
    grads = []
    for layer in (plain.train(training), watched.train(training)):
        convolution.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            inner = convolution(x)
            out = layer(inner)
            mean, variance = bnstats.plain_statistics(inner)
            if layer is watched:
                assert inner.dtype == out.dtype == torch.bfloat16
                assert layer.batch_mean.dtype == layer.batch_var.dtype == torch.float32
                torch.testing.assert_close(layer.batch_mean, mean, rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(layer.batch_var, variance, rtol=1e-5, atol=1e-5)
                mean, variance = layer.batch_mean, layer.batch_var
            loss = objective(out.float(), mean, variance, "all")
        loss.backward()
        grads.append(convolution.weight.grad.clone())
    torch.testing.assert_close(grads[1], grads[0], rtol=0.02, atol=0.02 * float(grads[0].abs().max()))


@pytest.mark.parametrize("centre", [0.0, 3.0])
@pytest.mark.parametrize("strength", [0.0, 0.01, 0.1])
def test_the_line_in_half_precision_costs_little_more_than_rounding(strength, centre):
    """Against double precision: hardly more error than torch's own kernel, and next to none along x."""
    generator = torch.Generator().manual_seed(0)
    x, g = ((at + torch.randn(32, 16, 7, 7, generator=generator)).bfloat16() for at in (centre, 0.0))
    weight = torch.rand(16, generator=generator) + 0.5
    count, shape = x.numel() // 16, (1, -1, 1, 1)
    mean = x.double().mean((0, 2, 3))
    inverse = (x.double().var((0, 2, 3), correction=0) + 1e-5).rsqrt()
    off = x.double() - mean.view(shape)
    of_mean, of_variance = torch.randn(2, 16, generator=generator, dtype=torch.float64) * strength * count
    seen, share = g.double(), (inverse * weight).view(shape)
    along = (seen * off).mean((0, 2, 3), keepdim=True) * inverse.square().view(shape)
    plain = share * (seen - seen.mean((0, 2, 3), keepdim=True) - off * along)
    expected = plain + (2 * of_variance / count).view(shape) * off + (of_mean / count).view(shape)

    known = None, None, mean.float(), inverse.float()
    line = mean.float(), (2 * of_variance / count).float(), (of_mean / count).float()
    found, *_ = bnstats._backward_plus_line(g, x, weight, known, True, 1e-5, *line)
    kernel, *_ = torch.ops.aten.native_batch_norm_backward(g, x, weight, *known, True, 1e-5, [True] * 3)

    def size(values):
        return float(values.square().mean().sqrt())

    error = found.double() - expected
    assert found.dtype == torch.bfloat16
    assert size(error) / size(expected) < 1.7 * size(kernel.double() - plain) / size(plain)
    along = (error * off).mean((0, 2, 3)) * inverse
    assert float(along.abs().max()) < 0.002 * size(expected)


@pytest.mark.parametrize("quiet", [False, True])
def test_statistics_of_all_layers_are_made_at_once(quiet):
    """`statistics_of` after a late pass: with their gradient, those of each layer by itself.

    Also where one layer normalises by what it remembers.
    """
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, eps=1e-3)
    )
    network = bnstats.watch(nn.Sequential(*plain, nn.BatchNorm2d(6))).double()
    network[3].train(not quiet)
    x, found = torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(5)).double(), []
    for late in (False, True):
        network.zero_grad()
        with bnstats.batch_statistics(network, late) as layers:
            network(x)
            assert [layer.kept is not None for layer in layers] == [late, late and not quiet, late]
            seen = bnstats.statistics_of(layers)
        assert not any(layer.late or layer.watching or layer.kept for layer in layers)
        (seen.means.sin() + seen.variances.log()).sum().backward()
        found.append([seen.means, seen.variances, *(network[i].weight.grad.clone() for i in (0, 2))])
    assert seen.widths == (4, 6, 6)
    assert torch.equal(seen.of(range(1, 2)).means, seen.means[4:10]) and seen.of(range(3)) is seen
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


class Counted(TorchDispatchMode):
    """How many operations torch is asked for within the block; another view of a tensor is none."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += function not in (torch.ops.aten.detach.default, torch.ops.aten.view.default)
        return function(*args, **(kwargs or {}))


def test_reading_the_statistics_takes_as_many_operations_for_few_layers_as_for_many():
    """What a forward pass asks for beyond the layers themselves: on a GPU each costs as much as a layer."""

    def asked(count: int, watched: bool) -> int:
        network = bnstats.watch(nn.Sequential(*(nn.BatchNorm2d(5) for _ in range(count)))).double()
        with Counted() as counted, bnstats.batch_statistics(network, late=True) as layers:
            for layer in layers:
                layer.watching = watched
            network(images())
            if watched:
                bnstats.statistics_of(layers)
        return counted.operations

    asked(2, True), asked(9, True)  # what is kept from the first time on
    beyond = [asked(count, True) - asked(count, False) for count in (2, 9)]
    assert beyond[0] == beyond[1] < 8


# A layer on a GPU


def reduce_plainly(grad_out, x, mean, inverse_deviation, weight, *wanted):
    """What `torch.batch_norm_backward_reduce` computes, for a machine without a GPU."""
    dims = [0, *range(2, x.ndim)]
    shape = (1, -1, *[1] * (x.ndim - 2))
    sum_g, sum_gx = grad_out.sum(dims), (grad_out * (x - mean.view(shape))).sum(dims)
    return sum_g, sum_gx, sum_gx * inverse_deviation, sum_g.clone()


def elements_plainly(grad_out, x, mean, inverse_deviation, weight, sum_g, sum_gx, counts):
    """What `torch.batch_norm_backward_elemt` computes, for a machine without a GPU."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    slope = inverse_deviation.square() * sum_gx / counts.sum()
    inner = grad_out - (sum_g / counts.sum()).view(shape) - (x - mean.view(shape)) * slope.view(shape)
    return inner * (inverse_deviation * weight).view(shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_of_a_gpu_carry_the_line_along(kind, affine, dtype, tolerance, monkeypatch):
    """The algebra of the GPU's backward pass, with stand-ins for its two kernels; weights of 0 too."""
    monkeypatch.setattr(torch, "batch_norm_backward_reduce", reduce_plainly)
    monkeypatch.setattr(torch, "batch_norm_backward_elemt", elements_plainly)
    generator = torch.Generator().manual_seed(3)
    x, grad_out = images(6, kind, dtype), images(6, kind, dtype, seed=2)
    weight = torch.tensor([1.0, 0.0, -0.5, 1e-37, 1e-4], dtype=dtype) if affine else None
    mean, variance = bnstats.plain_statistics(x)
    deviation = (variance + 1e-5).rsqrt()
    slope, level = (torch.randn(2, 5, generator=generator, dtype=torch.float64) / 10).to(dtype)
    count = x.numel() // x.shape[1]
    of_statistics = count * level, count * slope / 2
    monkeypatch.setattr(bnstats, "_in_sums", lambda x: True)
    layer = bnstats.watch(nn.BatchNorm1d(5, affine=affine))
    layer.kept, layer.batch_count = tuple(one.clone().requires_grad_() for one in (mean, deviation)), count
    if affine:
        layer.weight = nn.Parameter(weight)
    torch.autograd.backward(bnstats._from_kernels([layer]), of_statistics)
    off = [one.grad for one in layer.kept]
    found = bnstats._backward_on_a_gpu(grad_out, x, weight, mean, deviation, *off)
    expected = torch.ops.aten.native_batch_norm_backward(
        grad_out, x, weight, None, None, mean, deviation, True, 1e-5, [True] * 3
    )
    shape = (1, -1, *[1] * (x.ndim - 2))
    line = slope.view(shape) * (x - mean.view(shape)) + level.view(shape)
    torch.testing.assert_close(found[0], expected[0] + line, rtol=tolerance, atol=tolerance)
    if affine:
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[2], expected[2], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_gradients_on_a_gpu(kind, training, dtype):
    plain, watched = twins(kind, torch.float32 if dtype is torch.bfloat16 else dtype)
    plain.cuda().train(training)
    watched.cuda().train(training)
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    same = {"rtol": tolerance, "atol": tolerance}
    x = images(6, kind).to("cuda", dtype).requires_grad_()
    y = x.detach().clone().requires_grad_()
    out, (mean, variance) = plain(x), bnstats.plain_statistics(x)
    objective(out.to(mean.dtype).cpu(), mean.cpu(), variance.cpu(), "all").backward()
    found = watched(y)
    objective(found.to(mean.dtype).cpu(), watched.batch_mean.cpu(), watched.batch_var.cpu(), "all").backward()
    assert watched.batch_mean.dtype == mean.dtype
    torch.testing.assert_close(found, out, **same)
    torch.testing.assert_close(watched.batch_mean, mean, **same)
    torch.testing.assert_close(watched.batch_var, variance, **same)
    torch.testing.assert_close(y.grad, x.grad, **same)
    torch.testing.assert_close(watched.weight.grad, plain.weight.grad, **same)


# torch.compile


def compiled_agrees(backend: str, modes: tuple[bool, ...], inner: nn.Module) -> None:
    """A compiled network against the same one as it is: loss with statistics, gradients, buffers."""
    torch.manual_seed(0)
    network = bnstats.watch(nn.Sequential(inner, nn.BatchNorm2d(4), nn.ReLU()))
    twin = copy.deepcopy(network)
    compiled = torch.compile(twin, backend=backend)
    x = torch.randn(6, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    for training in modes:
        for net, call in ((network.train(training), network), (twin.train(training), compiled)):
            net.zero_grad()
            with bnstats.batch_statistics(net) as layers:
                out = call(x)
                (layer,) = layers
                objective(out, layer.batch_mean, layer.batch_var, "all").backward()
        for mine, theirs in zip(twin.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6)
        for mine, theirs in zip(twin.buffers(), network.buffers(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    compiled(x)
    assert twin[1].batch_mean is None  # a graph with statistics is not taken for one without


def test_compiled_network_agrees():
    torch._dynamo.reset()
    compiled_agrees("aot_eager", (True, False, True), nn.Conv2d(3, 4, 3))


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "clang"))), reason="no C++ compiler on this machine"
)
def test_network_compiled_to_machine_code_agrees():
    torch._dynamo.reset()
    compiled_agrees("inductor", (True,), nn.Conv2d(3, 4, 1))


# Whole networks


def test_resnet_of_torchvision_is_converted_in_place():
    """Every statistic of a ResNet-18, and the gradient of all of them together."""
    import torchvision

    torch.manual_seed(0)
    plain = torchvision.models.resnet18(num_classes=4)
    resnet = copy.deepcopy(plain)
    parameters = list(resnet.parameters())
    assert bnstats.watch(resnet) is resnet
    assert all(mine is before for mine, before in zip(resnet.parameters(), parameters, strict=True))
    assert list(resnet.state_dict()) == list(plain.state_dict())
    names = [name for name, layer in plain.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert list(bnstats.watched_layers(resnet)) == names and len(names) == 20
    seen = {}
    for name, layer in plain.named_modules():
        if name in names:
            layer.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.update({name: bnstats.plain_statistics(*inputs)})
            )
    x = torch.randn(4, 3, 64, 64)
    expected = plain(x)
    with bnstats.batch_statistics(resnet) as layers:
        torch.testing.assert_close(resnet(x), expected, rtol=1e-5, atol=1e-5)
        sum((layer.batch_mean**2).mean() + layer.batch_var.sqrt().mean() for layer in layers).backward()
        for name, layer in zip(names, layers, strict=True):
            torch.testing.assert_close(layer.batch_mean, seen[name][0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(layer.batch_var, seen[name][1], rtol=1e-5, atol=1e-5)
    sum((m**2).mean() + v.sqrt().mean() for m, v in seen.values()).backward()
    for mine, theirs in zip(resnet.parameters(), plain.parameters(), strict=True):
        if theirs.grad is None:
            continue  # the head and the last normalisation stand behind all statistics
        difference = float((mine.grad - theirs.grad).norm() / theirs.grad.norm().clamp_min(1e-3))
        assert difference < 1e-4


def test_layers_that_torch_does_not_watch_alike_take_the_plain_form():
    """SyncBatchNorm runs as it is, and half precision without weights; pairs leave both as they were."""
    network = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(5)))
    bnstats.watch(network)
    x = images(dtype=torch.float32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with bnstats.frozen_running_statistics(network), bnstats.batch_statistics(network) as (layer,):
        network(x)
        torch.testing.assert_close(layer.batch_mean, x.mean((0, 2, 3)))
        torch.testing.assert_close(layer.batch_var, x.var((0, 2, 3), correction=0))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network(x)
    assert int(network[0].num_batches_tracked) == 1
    _, bare = twins(dtype=torch.bfloat16, affine=False, track_running_stats=False)
    bare(x.bfloat16())
    torch.testing.assert_close(bare.batch_mean, x.bfloat16().float().mean((0, 2, 3)))


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
    with bnstats.frozen_running_statistics(trunk):
        first = trunk(torch.randn(4, 3, 9, 9))
        with bnstats.batch_statistics(trunk):
            trunk(torch.randn(4, 3, 9, 9))
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
    assert (
        abs(float(first.detach().mean())) < 1e-5
    )  # normalised by its own batch, not by the running statistics
    trunk(torch.randn(4, 3, 9, 9))
    assert trunk[1].num_batches_tracked == before["1.num_batches_tracked"] + 1  # and later passes do move it


def test_reestimation_is_exact_for_the_first_layer_and_changes_no_weight():
    trunk = bnstats.watch(small_trunk()).eval()
    weights = {name: p.detach().clone() for name, p in trunk.named_parameters()}
    x = 3 + 2 * torch.randn(12, 3, 9, 9)
    with torch.no_grad():
        inner = trunk[0](x)
    bnstats.reestimate_statistics(trunk, iter(x.split(4)))
    torch.testing.assert_close(trunk[1].running_mean, inner.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    per_batch = torch.stack([part.var((0, 2, 3)) for part in inner.split(4)]).mean(0)
    torch.testing.assert_close(trunk[1].running_var, per_batch, rtol=1e-5, atol=1e-5)
    assert not trunk.training
    assert trunk[1].momentum == 0.1
    assert all(torch.equal(p, weights[name]) for name, p in trunk.named_parameters())
