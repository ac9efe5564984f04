"""Batch-norm statistics: what a layer remembers, and what it measures on the batch at hand.

In train mode a batch-norm layer computes the mean and variance of its input anyway. A watched layer hands out
these very numbers, with their gradient, instead of computing them a second time. `plain_statistics` is that
second computation: what every number here must equal, and what is done where torch's kernels cannot be asked
(`torch.nn.SyncBatchNorm`, torch.compile, devices other than CPU and CUDA).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling
from torch.nn.modules.batchnorm import _BatchNorm

from socketlab.errors import LabError
from socketlab.networks.networks import norm_layers
from socketlab.speed import distributed

HALF = (torch.bfloat16, torch.float16)
_kernel_backward = torch.ops.aten.native_batch_norm_backward.default


def plain_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over all but the channels, in one more pass: (N, C, ...) → (C,), (C,).

    They are float32 where ``x`` has half precision.
    """
    x = x.float() if x.dtype in HALF else x
    variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
    return mean, variance


class _BatchNormWithStatistics(torch.autograd.Function):
    r"""Batch normalisation that also returns what the statistics of its input are made of.

    They are mean and inverse deviation where it normalised by them; mean and biased variance, which take one
    more pass, where it normalised by the running statistics. `_FromKernel` is told the gradients of the
    statistics, and this backward pass in their place what to add: the line level + slope (x − μ) per channel,
    or, on a GPU, what its kernel has to take off two sums to draw that line.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running: tuple[Tensor | None, Tensor | None],
        by_batch: bool,
        rate: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        running_mean, running_var = running
        # What torch.nn.functional.batch_norm calls: the same kernel, so the same numbers to the bit.
        out, mean, inverse_deviation, _, _ = torch._batch_norm_impl_index(
            x, weight, bias, running_mean, running_var, by_batch, rate, eps, torch.backends.cudnn.enabled
        )
        spread = inverse_deviation
        if not by_batch:  # the kernel answers in the precision of the two tensors that it could update
            still = torch.zeros_like(running_mean), torch.zeros_like(running_var)  # type: ignore[arg-type]
            mean, spread = torch.batch_norm_update_stats(x, *still, 0.0)
        ctx.save_for_backward(x, weight, mean, inverse_deviation, *(() if by_batch else running))
        ctx.by_batch, ctx.eps = by_batch, eps
        ctx.set_materialize_grads(False)
        return out, mean, spread

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_out: Tensor | None, level: Tensor | None, slope: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation, *running = ctx.saved_tensors
        wanted = [bool(needed) for needed in ctx.needs_input_grad[:3]]
        if ctx.by_batch:
            known = None, None, mean, inverse_deviation
        else:  # a GPU's kernel asks for the statistics that it normalised by in both forms
            known = *running, running[0], (running[1] + ctx.eps).rsqrt()
        grads: Any
        if level is None or slope is None or not wanted[0]:
            grads = None, None, None
            if grad_out is not None:
                grads = _kernel_backward(grad_out, x, weight, *known, ctx.by_batch, ctx.eps, wanted)
        elif ctx.by_batch and _in_sums(x):
            below = torch.zeros_like(x) if grad_out is None else _like(grad_out, x)
            grads = _backward_on_a_gpu(below, x, weight, mean, inverse_deviation, level, slope)
        elif grad_out is None:
            grads = _line(x, mean, slope, level), None, None
        else:
            below = _like(grad_out, x)
            grads = _backward_plus_line(below, x, weight, known, ctx.by_batch, ctx.eps, mean, slope, level)
        kept = [grad if needed else None for grad, needed in zip(grads, wanted, strict=True)]
        return *kept, None, None, None, None


class _FromKernel(torch.autograd.Function):
    r"""Mean and biased variance from what `_BatchNormWithStatistics` returns, of any layers in a row.

    With N values per channel, the statistics' own gradient with respect to a layer's input is the line

    .. math:: \frac{\partial L}{\partial x} \mathrel{+}= \frac{g_\mu}{N} + \frac{2\,g_v}{N}\,(x - \mu)

    of which this backward pass makes level and slope, for all layers in a few operations: a deep network has
    a hundred, and on a row of channels an operation takes as long to begin as to do.
    """

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        spreads: Tensor,
        counts: tuple[Tensor, Tensor],
        eps: Tensor | None,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """(ΣC,) each; ``counts`` 1 / N and 2 / N; without ``eps`` spreads are variances already."""
        ctx.save_for_backward(spreads, *counts, weights)
        variances = spreads.view_as(spreads) if eps is None else _lowered(spreads.pow(-2), eps)
        return means.view_as(means), variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_variance: Tensor) -> tuple[Tensor | None, ...]:
        spreads, once, twice, weights = ctx.saved_tensors
        if weights is None:
            return grad_mean * once, grad_variance * twice, None, None, None
        divisor = weights * spreads  # a GPU's kernel multiplies by it last
        of_mean, of_variance = grad_mean / divisor, (grad_variance + grad_variance) / divisor
        return of_mean, of_variance / spreads.square(), None, None, None


def _lowered(raised: Tensor, eps: Tensor) -> Tensor:
    """A variance from what the layer divides by the root of, variance + eps; rounding can go below 0."""
    return (raised - eps).clamp_min_(0)


def _from_kernels(layers: Sequence[Watched]) -> tuple[Tensor, Tensor]:
    """Means and biased variances of layers that normalised by the batch, in a row: (ΣC,), (ΣC,)."""
    means, spreads = zip(*(layer.kept for layer in layers), strict=True)
    many = len(layers) > 1
    mean, spread = (torch.cat(means), torch.cat(spreads)) if many else (means[0], spreads[0])
    widths, like = tuple(map(len, means)), (mean.dtype, mean.device)
    eps = _row(tuple(layer.eps for layer in layers), widths, *like)
    weights = None
    if _in_sums(mean):
        one = [_row((1,), (width,), *like) for width in widths]
        parts = [one[k] if layer.weight is None else layer.weight for k, layer in enumerate(layers)]
        weights = torch.cat([part.detach() for part in parts]) + NOT_ZERO
    return _FromKernel.apply(mean, spread, _shares(layers, widths, *like), eps, weights)


def _shares(layers: Sequence[Watched], widths: tuple[int, ...], *like: Any) -> tuple[Tensor, Tensor]:
    """1 / N and 2 / N of every channel of the layers: (ΣC,) each."""
    once, twice = (tuple(k / layer.batch_count for layer in layers) for k in (1, 2))
    return _row(once, widths, *like), _row(twice, widths, *like)


def _in_sums(x: Tensor) -> bool:
    """Whether the kernel of this device draws the statistics' line with its own; see `_backward_on_a_gpu`."""
    return x.is_cuda


def _line(x: Tensor, mean: Tensor, slope: Tensor, level: Tensor) -> Tensor:
    """Slope (x - mean) + level, per channel: one pass of the kernel that normalises in eval mode.

    In half precision too it reads these in float32 and rounds once, where a product and a sum would be slow
    and lose the difference of two large numbers.
    """
    one = _row((1,), (len(mean),), mean.dtype, mean.device)
    return torch.native_batch_norm(x, slope, level, mean, one, False, 0.0, 0.0)[0]


def _backward_plus_line(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor | None,
    known: Any,
    by_batch: bool,
    eps: float,
    mean: Tensor,
    slope: Tensor,
    level: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The layer's backward pass and the statistics' line in x, in no more time than the first alone.

    With g the output's gradient and i the inverse deviation, a layer in train mode passes on

    .. math:: k \left( g - \tfrac1N \Sigma g - \tfrac1N i^2 (x - \mu) \Sigma g (x - \mu) \right),
        \quad k = i\,w:

    a multiple of g and a line in x, to which ours is added before it is drawn. The two sums are the gradients
    of bias and weight; one half of torch's kernel gives them.
    """
    _, grad_weight, grad_bias = _kernel_backward(
        grad_out, x, weight, *known, by_batch, eps, [False, True, True]
    )
    inverse_deviation = known[3]
    scale = inverse_deviation if weight is None else inverse_deviation * weight
    if by_batch:
        share = -x.shape[1] / x.numel()  # -1 / N
        level = torch.addcmul(level, scale, grad_bias, value=share)
        slope = torch.addcmul(slope, scale * inverse_deviation, grad_weight, value=share)
    return _multiple_plus_line(grad_out, x, scale, mean, slope, level), grad_weight, grad_bias


def _multiple_plus_line(
    grad_out: Tensor, x: Tensor, scale: Tensor, mean: Tensor, slope: Tensor, level: Tensor
) -> Tensor:
    """Scale g + slope (x - mean) + level, per channel, in two passes.

    In half precision the slope is rounded, which the second pass asks for, and the level after it, so that
    the line still goes through the mean: along x an error below two thousandths of the gradient, which is
    what rounding the result costs too (tests/test_bnstats.py). The scale of g stays in float32.
    """
    places = [1] * (x.ndim - 2)
    if x.dtype in HALF:
        slope = slope.to(x.dtype)
        zero = _row((0,), (len(mean),), mean.dtype, mean.device)
        grad = _line(grad_out, zero, scale, torch.addcmul(level, slope, mean, value=-1))
        return grad.addcmul_(x, slope.view(-1, *places))
    return _line(x, mean, slope, level).addcmul_(grad_out, scale.view(-1, *places))


NOT_ZERO = 1e-15
"""Added to weights on a GPU, where a weight of 0 would swallow the line; to others it is next to nothing."""


def _backward_on_a_gpu(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse_deviation: Tensor,
    off_g: Tensor,
    off_gx: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_backward_plus_line` in train mode, with the line drawn by the layer's own kernel.

    torch splits the pass in two for the sake of `torch.nn.SyncBatchNorm`, which adds up the sums of all
    processes in between; other sums, and the second half draws another line. What the statistics take off
    them, (C,) each, comes from `_FromKernel`.
    """
    sum_g, sum_gx, grad_weight, grad_bias = torch.batch_norm_backward_reduce(
        grad_out, x, mean, inverse_deviation, weight, True, True, True
    )
    scale = _row((1,), (len(mean),), mean.dtype, x.device) if weight is None else weight + NOT_ZERO
    counts = _row((x.numel() // x.shape[1],), (1,), torch.int32, x.device)
    sums = sum_g - off_g, sum_gx - off_gx
    grad = torch.batch_norm_backward_elemt(grad_out, x, mean, inverse_deviation, scale, *sums, counts)
    return grad, grad_weight, grad_bias


@functools.cache  # for good: a CUDA graph knows only where they lie
def _row(
    values: tuple[float, ...], widths: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Each number as often as its width says, (Σ widths,): kept, for it is the same at every step."""
    with torch.inference_mode(False):
        parts = zip(values, widths, strict=True)
        return torch.cat([torch.full((width,), x, dtype=dtype, device=device) for x, width in parts])


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient in the memory format of ``x``, which the kernels are fast on."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return grad.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class _BatchNormTogether(torch.autograd.Function):
    r"""Batch normalisation by the images of all processes, with mean, biased variance and count of them.

    Each process normalises its own images. The backward pass is that of one process with all the images: a
    multiple of g and a line in x (see `_backward_plus_line`), whose sums are over all processes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance, count = _pooled(distributed.stacked(_own_moments(x)))
        inverse_deviation = (variance + eps).rsqrt()
        out = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, mean, inverse_deviation, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(count)
        ctx.set_materialize_grads(False)
        return out, mean, variance, count  # type: ignore[return-value]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_out: Tensor | None, grad_mean: Tensor | None, grad_variance: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation, count = ctx.saved_tensors
        grad_out = torch.zeros_like(x) if grad_out is None else _like(grad_out, x)
        _, grad_weight, grad_bias = _kernel_backward(
            grad_out, x, weight, None, None, mean, inverse_deviation, True, ctx.eps, [False, True, True]
        )
        zero = torch.zeros_like(mean)
        of_statistics = [zero if grad is None else grad for grad in (grad_mean, grad_variance)]
        sum_gx, sum_g, to_mean, to_variance = distributed.summed(
            torch.stack([grad_weight, grad_bias, *of_statistics])
        )
        scale = inverse_deviation if weight is None else inverse_deviation * weight
        level = (to_mean - scale * sum_g) / count
        slope = (2 * to_variance - scale * inverse_deviation * sum_gx) / count
        grad = _multiple_plus_line(grad_out, x, scale, mean, slope, level)
        affine = weight is not None
        return grad, grad_weight if affine else None, grad_bias if affine else None, None


def _own_moments(x: Tensor) -> Tensor:
    """Mean, biased variance and count of the values of each channel: (N, C, ...) → (3, C); 0 of no image."""
    values = x.numel() // x.shape[1]
    mean, variance = plain_statistics(x)
    found = torch.stack([mean, variance, torch.full_like(mean, values)])
    return found if values else torch.zeros_like(found)


def _pooled(moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of all processes together, with gradient: (processes, 3, C) → (C,), (C,), (C,)."""
    means, variances, counts = moments.unbind(1)
    count = counts.sum(dim=0)
    share = counts / count
    mean = (share * means).sum(dim=0)
    return mean, (share * (variances + (means - mean).square())).sum(dim=0), count


class Watched(_BatchNorm):
    """A batch-norm layer, to the bit torch's own, that keeps the statistics of its last input.

    ``watching`` turns it on; each forward pass then sets ``batch_mean`` and ``batch_var`` (C,), the variance
    biased, both with gradient, and ``batch_count``, the number of values per channel in this process.

    Where torch's kernels cannot be asked for them (`torch.nn.SyncBatchNorm`, torch.compile, other devices)
    they are made beside the layer by `plain_statistics`; a compiler sees the same sums twice and keeps one.
    All are those of the images in this process, but within `normalised_together`, where the layer normalises
    by the images of all processes, and keeps their statistics.

    ``late`` lets a layer that normalises by the batch set ``kept`` instead, what its kernel knows of both:
    `statistics_of` makes them of all layers at once, where a deep network would need hundreds of operations.
    """

    watching: bool = False
    late: bool = False
    kept: tuple[Tensor, Tensor] | None = None
    together: bool = False
    batch_mean: Tensor = None  # type: ignore[assignment]
    batch_var: Tensor = None  # type: ignore[assignment]
    batch_count: int = 0

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) → the same shape, normalised; see the class for what is kept."""
        if self.together:
            return self._forward_together(x)
        if not self.watching:
            return super().forward(x)
        self._check_input_dim(x)
        self.batch_count, self.kept = x.numel() // x.shape[1], None
        if not self._kernel_knows(x):
            self.batch_mean, self.batch_var = plain_statistics(x)
            return super().forward(x)
        training = self.training
        moving = training and self.track_running_stats
        running = (self.running_mean, self.running_var) if moving or not training else (None, None)
        by_batch = training or running[0] is None
        rate = self._count_batch() if moving else 0.0
        out, mean, spread = _BatchNormWithStatistics.apply(
            x, self.weight, self.bias, running, by_batch, rate, self.eps
        )
        if not by_batch:
            shares = _shares([self], (len(mean),), mean.dtype, mean.device)
            self.batch_mean, self.batch_var = _FromKernel.apply(mean, spread, shares, None, None)
            return out
        vars(self)["kept"] = mean, spread
        if not self.late:
            self.batch_mean, self.batch_var = _from_kernels([self])
            self.kept = None
        return out

    def _forward_together(self, x: Tensor) -> Tensor:
        """By the images of all processes in train mode, by the running statistics in eval mode."""
        self._check_input_dim(x)
        self.batch_count = x.numel() // x.shape[1]
        if not self.training and self.running_mean is not None:
            if self.watching:
                self.batch_mean, self.batch_var, _ = _pooled(distributed.stacked(_own_moments(x)))
            running = self.running_mean, self.running_var
            return nn.functional.batch_norm(x, *running, self.weight, self.bias, eps=self.eps)
        out, mean, variance, count = _BatchNormTogether.apply(x, self.weight, self.bias, self.eps)
        rate = self._count_batch() if self.training and self.track_running_stats else 0.0
        if rate > 0:
            with torch.no_grad():
                self.running_mean.lerp_(mean, rate)  # type: ignore[union-attr]
                self.running_var.lerp_(variance * (count / (count - 1)), rate)  # type: ignore[union-attr]
        if self.watching:
            self.batch_mean, self.batch_var = mean, variance
        return out

    def _kernel_knows(self, x: Tensor) -> bool:
        """Whether torch's kernels give the batch's statistics for this input, in full precision."""
        if is_compiling() or not (x.is_cpu or x.is_cuda) or self.batch_count < 2:
            return False
        return x.dtype not in HALF or (self.weight is not None and self.weight.dtype not in HALF)

    def _count_batch(self) -> float:
        """Count one more batch, as torch does; how far the running statistics move toward it."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                return 1 / float(self.num_batches_tracked)
        return 0.0 if self.momentum is None else self.momentum


class WatchedBatchNorm1d(Watched, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`, watched: (N, C) or (N, C, L)."""


class WatchedBatchNorm2d(Watched, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, watched: (N, C, H, W)."""


class WatchedSyncBatchNorm(Watched, nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm`, watched: it normalises by all processes, and keeps what this one saw."""

    def _kernel_knows(self, x: Tensor) -> bool:
        return False


WATCHED: dict[type, type[Watched]] = {
    nn.BatchNorm1d: WatchedBatchNorm1d,
    nn.BatchNorm2d: WatchedBatchNorm2d,
    nn.SyncBatchNorm: WatchedSyncBatchNorm,
}


def watch(network: nn.Module) -> nn.Module:
    """Turn every BatchNorm1d, BatchNorm2d and SyncBatchNorm of any network into its watched form, in place.

    Only the class changes: parameters, buffers, names and values stay. Returns the network.
    `SyncBatchNorm.convert_sync_batchnorm` makes new layers: call it before, not after.
    """
    for layer in network.modules():
        if type(layer) in WATCHED:
            layer.__class__ = WATCHED[type(layer)]
    return network


def watched_layers(network: nn.Module) -> dict[str, Watched]:
    """Name → watched layer, in the order of the modules."""
    return {n: m for n, m in network.named_modules() if isinstance(m, Watched)}


@contextmanager
def batch_statistics(network: nn.Module, late: bool = False) -> Iterator[list[Watched]]:
    """Within the block every watched layer keeps ``batch_mean`` and ``batch_var``, afterwards no more.

    With ``late`` they are to be read by `statistics_of`.

    >>> with batch_statistics(network.trunk) as layers:      # doctest: +SKIP
    ...     network.features(images)
    ...     means = [layer.batch_mean for layer in layers]
    """
    layers = [layer for layer in network.modules() if isinstance(layer, Watched)]
    for layer in layers:
        vars(layer).update(watching=True, late=late)  # quicker than a module's own way to set them
    try:
        yield layers
    finally:
        for layer in layers:
            vars(layer).update(watching=False, late=False, batch_mean=None, batch_var=None, kept=None)


@dataclass(frozen=True)
class Statistics:
    """Means and biased variances of several layers, side by side, so that one operation does for all.

    Parameters
    ----------
    means, variances : (Σ C_l,).
    widths : C_l of each layer.
    """

    means: Tensor
    variances: Tensor
    widths: tuple[int, ...]

    @classmethod
    def beside(cls, means: Sequence[Tensor], variances: Sequence[Tensor]) -> Statistics:
        """From one (C_l,) of each layer; there may be none."""
        if not means:
            return cls(torch.zeros(0), torch.zeros(0), ())
        return cls(torch.cat(list(means)), torch.cat(list(variances)), tuple(map(len, means)))

    def of(self, layers: range) -> Statistics:
        """Those of layers that follow each other."""
        if len(layers) == len(self.widths):
            return self
        before, widths = sum(self.widths[: layers.start]), self.widths[layers.start : layers.stop]
        part = slice(before, before + sum(widths))
        return Statistics(self.means[part], self.variances[part], widths)

    def detach(self) -> Statistics:
        """The same numbers without gradient."""
        return Statistics(self.means.detach(), self.variances.detach(), self.widths)


def statistics_of(layers: Sequence[Watched]) -> Statistics:
    """Those of watched layers after a pass within `batch_statistics`, with their gradient."""
    if layers and all(layer.kept is not None for layer in layers):
        return Statistics(*_from_kernels(layers), tuple(layer.num_features for layer in layers))
    means, variances = [], []
    for layer in layers:
        mean, variance = _from_kernels([layer]) if layer.kept else (layer.batch_mean, layer.batch_var)
        means.append(mean)
        variances.append(variance)
    return Statistics.beside(means, variances)


@contextmanager
def normalised_together(network: nn.Module) -> Iterator[None]:
    """Within the block batch norm sees the images of all processes; alone, nothing is changed.

    Raises
    ------
    LabError
        When a batch-norm layer cannot: `watch` turns those that can into ones that do.
    """
    found = norm_layers(network) if distributed.world() > 1 else []
    layers = [layer for layer in found if isinstance(layer, Watched)]
    if len(layers) < len(found):
        odd = next(type(layer).__name__ for layer in found if not isinstance(layer, Watched))
        raise LabError(f"{odd} cannot normalise by the images of several processes: start one alone")
    for layer in layers:
        layer.together = True
    try:
        yield
    finally:
        for layer in layers:
            layer.together = False


@contextmanager
def frozen_running_statistics(network: nn.Module) -> Iterator[None]:
    """Within the block forward passes leave all running statistics as they are (fault 9).

    A pass over task-irrelevant pairs normalises by its own batch, but the statistics that the network is
    tested with must come from the task's images.
    """
    layers = [layer for layer in norm_layers(network) if layer.track_running_stats]
    for layer in layers:
        vars(layer)["track_running_stats"] = False
    try:
        yield
    finally:
        for layer in layers:
            vars(layer)["track_running_stats"] = True


@torch.no_grad()
def reestimate_statistics(network: nn.Module, batches: Iterator[Tensor]) -> None:
    """AdaBN: forget the running statistics and average those of these batches, in place.

    Only buffers change, no weight. The mean over equal batches is exact for the first layer; deeper layers
    see inputs normalised by the batch, as in training.

    Source: Li et al., Revisiting batch normalization for practical domain adaptation, 2017 (AdaBN).
    """
    layers = norm_layers(network)
    kept = [(layer.momentum, layer.training) for layer in layers]
    mode = network.training
    network.train()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average of all batches
        layer.train()
    try:
        for batch in batches:
            network(batch)
    finally:
        network.train(mode)
        for layer, (momentum, training) in zip(layers, kept, strict=True):
            layer.momentum = momentum
            layer.train(training)
