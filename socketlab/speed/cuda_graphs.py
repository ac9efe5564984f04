"""Passes of a trunk as CUDA graphs: hundreds of small operations launched at once, on the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from socketlab.method.bnstats import Moments
from socketlab.method.steps import Batch, TrunkPass
from socketlab.networks.networks import Network, Trunk, device_of
from socketlab.speed.fast_statistics import FastStatistics
from socketlab.speed.prefetch import prefetched

WARM = 3
"""Passes before a capture, in which cuDNN chooses its algorithms."""


class CudaGraphs(FastStatistics):
    """Trunk passes as CUDA graphs on a GPU that holds the images too; elsewhere prefetched batches.

    A graph belongs to a batch size and to where a network's numbers lie: weights that an optimiser changes in
    place are seen. It is captured at the first pass of its kind; what a pass returns is overwritten by the
    next of the same kind. Trunks with dropout, and a user's own modules, pass without.
    """

    def __init__(self) -> None:
        self._graphs: dict[tuple[int, tuple[int, ...], bool, bool], Callable[..., TrunkPass] | None] = {}
        self._prefetching = False

    def trunk_pass(
        self, network: Network, images: Tensor, statistics: bool = False, frozen: bool = False
    ) -> TrunkPass:
        """The pass, by its graph where there is one."""
        # no other CUDA work may run during a capture, and a graph has a backward pass
        if self._prefetching or not torch.is_grad_enabled() or not capturable(network.trunk):
            return super().trunk_pass(network, images, statistics, frozen)
        kind = id(network), tuple(images.shape), statistics, frozen
        if kind not in self._graphs:
            self._graphs[kind] = self._captured(network, images, statistics, frozen)
        graph = self._graphs[kind]
        return graph(images) if graph else super().trunk_pass(network, images, statistics, frozen)

    def prefetch(
        self, batches: Iterator[Batch], device: torch.device, *stored_on: torch.device
    ) -> Iterator[Batch]:
        """`prefetch.prefetched`."""
        self._prefetching = any(place != device for place in stored_on)
        return prefetched(batches, device, *stored_on)

    def _captured(
        self, network: Network, images: Tensor, statistics: bool, frozen: bool
    ) -> Callable[..., TrunkPass] | None:
        one = _OnePass(network, partial(super().trunk_pass, statistics=statistics, frozen=frozen))
        try:
            with _buffers_kept(network.trunk):
                run = graphed(one, torch.zeros_like(images))
        except torch.cuda.OutOfMemoryError:  # a graph holds its memory; without it the pass may still fit
            return None

        def graph(images: Tensor) -> TrunkPass:
            spatial, features, *rows = run(images)
            if not rows:
                return TrunkPass(spatial, features, None)
            layers = zip(*(row.split(one.widths) for row in rows), strict=True)
            return TrunkPass(spatial, features, [Moments(*layer) for layer in layers])

        return graph


def capturable(trunk: Trunk) -> bool:
    """Whether a pass of this trunk may become a graph; see `CudaGraphs`."""
    random = any(isinstance(m, nn.Dropout) and m.p > 0 for m in trunk.modules())
    learns = any(p.requires_grad for p in trunk.parameters())
    return device_of(trunk).type == "cuda" and bool(trunk.name) and learns and not random


def graphed(one: nn.Module, images: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """The module with its forward and backward pass captured, for batches like ``images``."""
    # torch does not capture the cache of weights of the step's autocast; the pass has its own
    with torch.autocast("cuda", enabled=False):
        return cast(
            Callable[..., tuple[Tensor, ...]],
            torch.cuda.make_graphed_callables(one, (images,), num_warmup_iters=WARM, allow_unused_input=True),
        )


class _OnePass(nn.Module):
    """A trunk pass as a module from one tensor to several: map, features, and statistics in two rows."""

    def __init__(self, network: Network, run: Callable[[Network, Tensor], TrunkPass]) -> None:
        super().__init__()
        self.trunk = network.trunk  # so that its weights are found
        self.run, self._network = run, [network]  # in a list: a network is no part of its own pass
        self.sixteen_bits = torch.is_autocast_enabled("cuda")
        self.widths: list[int] = []  # channels of each layer in the statistics, after a pass

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        # a graph cannot keep a weight in 16 bits from one pass to the next
        with torch.autocast("cuda", torch.bfloat16, enabled=self.sixteen_bits, cache_enabled=False):
            passed = self.run(self._network[0], images)
        if passed.statistics is None:
            return passed.map, passed.features
        self.widths = [len(layer.mean) for layer in passed.statistics]
        means, variances, _ = zip(*passed.statistics, strict=True)
        return passed.map, passed.features, torch.cat(means), torch.cat(variances)


@contextmanager
def _buffers_kept(trunk: nn.Module) -> Iterator[None]:
    """Within the block running statistics may move; afterwards they are, where they lie, what they were."""
    kept = [(buffer, buffer.clone()) for buffer in trunk.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.data.copy_(value)  # an earlier pass of the step may still need them for its gradient
