"""Batch-norm statistics: what a layer remembers, and what it measures on the batch at hand.

In train mode a batch-norm layer computes the mean and variance of its input anyway. `WatchedBatchNorm2d`
hands out these very numbers, with their gradient, instead of computing them a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _BatchNormWithStatistics(torch.autograd.Function):
    r"""Batch normalisation that also returns the biased mean and variance it normalised by.

    With N values per channel, the statistics' own gradient with respect to the input is

    .. math:: \frac{\partial L}{\partial x} \mathrel{+}= \frac{g_\mu}{N} + \frac{2\,g_v}{N}\,(x - \mu)
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, mean, inverse_deviation = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, inverse_deviation)
        ctx.eps = eps
        return out, mean, inverse_deviation.pow(-2) - eps

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grad_out, grad_mean, grad_variance = grads
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad_out, x, weight, None, None, mean, inverse_deviation, True, ctx.eps, [True, True, True]
        )
        count = x.numel() // x.shape[1]
        slope = (2 / count) * grad_variance
        offset = grad_mean / count - slope * mean
        shape = (1, -1, *[1] * (x.ndim - 2))
        grad_x = torch.addcmul(grad_x + offset.view(shape), x, slope.view(shape))
        return grad_x, grad_weight, grad_bias, None


class WatchedBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, to the bit the same function, that keeps the statistics of its last input.

    ``watching`` turns it on; ``batch_mean`` and ``batch_var`` (C,) are then set by each forward pass, the
    variance biased, both with gradient. In eval mode the output is made with the running statistics, so the
    batch's are computed beside it, as for a layer in train mode.
    """

    watching: bool = False
    batch_mean: Tensor = None  # type: ignore[assignment]
    batch_var: Tensor = None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape, normalised; see the class for what is kept."""
        if not self.watching:
            return super().forward(x)
        if not self.training:
            self.batch_var, self.batch_mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
            return super().forward(x)
        out, self.batch_mean, self.batch_var = _BatchNormWithStatistics.apply(
            x, self.weight, self.bias, self.eps
        )
        self._remember(x.numel() // x.shape[1])
        return out

    @torch.no_grad()
    def _remember(self, count: int) -> None:
        """Move the running statistics as torch does: by ``momentum``, toward the *unbiased* variance."""
        if self.momentum == 0 or not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(self.batch_mean, rate)  # type: ignore[union-attr, arg-type]
        self.running_var.lerp_(self.batch_var * (count / (count - 1)), rate)  # type: ignore[union-attr]


def watch(network: nn.Module) -> nn.Module:
    """Turn every plain BatchNorm2d of ``network`` into a `WatchedBatchNorm2d`, in place, and return it.

    Only the class changes: parameters, buffers, names and values stay.
    """
    for layer in network.modules():
        if type(layer) is nn.BatchNorm2d and layer.affine and layer.track_running_stats:
            layer.__class__ = WatchedBatchNorm2d
    return network


def watched_layers(network: nn.Module) -> dict[str, WatchedBatchNorm2d]:
    """Name → watched layer, in the order of the modules."""
    return {n: m for n, m in network.named_modules() if isinstance(m, WatchedBatchNorm2d)}


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[list[WatchedBatchNorm2d]]:
    """Within the block every watched layer keeps ``batch_mean`` and ``batch_var``, afterwards no more.

    >>> with batch_statistics(network.trunk) as layers:      # doctest: +SKIP
    ...     network.features(images)
    ...     means = [layer.batch_mean for layer in layers]
    """
    layers = list(watched_layers(network).values())
    for layer in layers:
        layer.watching = True
    try:
        yield layers
    finally:
        for layer in layers:
            layer.watching = False
            layer.batch_mean = layer.batch_var = None  # type: ignore[assignment]


def norm_layers(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch-norm layer, one- and two-dimensional."""
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def untouched_statistics(network: nn.Module) -> Iterator[None]:
    """Within the block forward passes leave all running statistics as they are (fault 9).

    A pass over task-irrelevant pairs normalises by its own batch, but the statistics that the network is
    tested with must come from the task's images.
    """
    layers = norm_layers(network)
    kept = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
        layer.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, (momentum, batches) in zip(layers, kept, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, batches


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
