r"""Batch-norm statistics: what a layer keeps of the source's images, and what it measures on a target batch.

Every batch-norm layer keeps the running mean m and variance r of each channel of its input. SOCKET pulls the
mean μ and variance v of that input on a batch of target images towards them (`losses.statistics_distance`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from socketlab.networks.networks import attribute_set, norm_layers


class Moments(NamedTuple):
    """Mean and biased variance of each channel, (C,) both, and the number of values behind them."""

    mean: Tensor
    variance: Tensor
    size: int | Tensor = 0


Seen = dict[nn.Module, Moments]
Measure = Callable[[Tensor], Moments]


def moments(x: Tensor) -> Moments:
    """Mean and biased variance over all but the channels: (N, C, ...) → (C,), (C,); at least float32."""
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
    return Moments(mean, variance, x.numel() // x.shape[1])


def pooled(parts: Sequence[Moments]) -> Moments:
    r"""Moments of all values together, from those of parts: batches of a set, or shares of a batch.

    .. math:: \mu = \sum_p \tfrac{n_p}{n} \mu_p, \qquad
        v = \sum_p \tfrac{n_p}{n} \left( v_p + (\mu_p - \mu)^2 \right)
    """
    means, variances = (torch.stack([part[i] for part in parts]) for i in (0, 1))  # type: ignore[misc]
    sizes = torch.stack([torch.as_tensor(part.size).to(means) for part in parts])
    share = (sizes / sizes.sum())[:, None]
    mean = (share * means).sum(dim=0)
    return Moments(mean, (share * (variances + (means - mean).square())).sum(dim=0), sizes.sum())


def running_moments(network: nn.Module) -> list[Moments]:
    """A copy of each batch-norm layer's running mean and variance, in the order of the modules."""
    known = [(layer.running_mean, layer.running_var) for layer in norm_layers(network)]
    return [Moments(mean.clone(), variance.clone()) for mean, variance in known]  # type: ignore[union-attr]


@contextmanager
def batch_statistics(network: nn.Module, measure: Measure = moments) -> Iterator[Seen]:
    """Within the block, the moments of each batch-norm layer's last input are recorded, with gradient.

    >>> with batch_statistics(network.trunk) as seen:      # doctest: +SKIP
    ...     network.features(images)
    >>> seen[network.trunk.bn1].mean
    """
    seen: Seen = {}

    def record(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        seen[layer] = measure(inputs[0])

    hooks = [layer.register_forward_pre_hook(record) for layer in norm_layers(network)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def frozen_running_statistics(network: nn.Module) -> AbstractContextManager[None]:
    """Within it, passes in train mode normalise by the batch and leave the running statistics alone."""
    return attribute_set(norm_layers(network), "track_running_stats", False)


def normalise_by(network: nn.Module, mode: str) -> AbstractContextManager[None]:
    """Within it, a network in train mode normalises by the "batch" or by the "running" statistics."""
    return attribute_set(norm_layers(network) if mode == "running" else (), "training", False)


@torch.no_grad()
def reestimate_statistics(
    network: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object] | None = None
) -> None:
    """AdaBN: replace the running statistics by those of these encoded batches, in place; no weight changes.

    They are averages over the batches, each weighing as many images as it has; variances are unbiased.

    Source: Li et al., Revisiting batch normalization for practical domain adaptation, 2017 (AdaBN).
    """
    layers, done = norm_layers(network), 0
    for layer in layers:
        layer.reset_running_stats()
    with attribute_set(layers, "momentum", None), attribute_set(network.modules(), "training", True):
        for images in batches:
            done += len(images)
            for layer in layers:
                layer.momentum = len(images) / done  # the average so far: 1, then a half, a third, …
            (forward or network)(images)
