"""One pass of a trunk, and on a GPU the same pass as a CUDA graph.

A pass of a deep network is some hundreds of small operations, and a GPU is often done with one before the
computer has asked for the next. A graph asks for all of them at once: the same kernels on the same numbers,
in the time that the GPU needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from socketlab.method.bnstats import Statistics, batch_statistics, frozen_running_statistics, statistics_of
from socketlab.networks.networks import Network, Trunk, device_of
from socketlab.speed import distributed

WARM = 3
"""Passes before a capture, in which cuDNN chooses its algorithms."""


class Pass(NamedTuple):
    """What a trunk says of a batch: its last map, its features and, watched, the batch's statistics."""

    map: Tensor
    features: Tensor
    statistics: Statistics | None


Runner = Callable[[Network, Tensor, bool, bool], Pass]
"""`trunk_pass`, or a `Graphs` in its place."""


def trunk_pass(network: Network, images: Tensor, watched: bool = False, untouched: bool = False) -> Pass:
    """One pass of a network's trunk.

    Parameters
    ----------
    images : (B, 3, H, W), encoded.
    watched : whether the batch's statistics are wanted, with their gradient.
    untouched : whether running statistics stay as they are (fault 9).
    """
    trunk = network.trunk
    with frozen_running_statistics(trunk) if untouched else nullcontext():
        if not watched:
            return Pass(*trunk.with_map(images), None)
        with batch_statistics(trunk, late=True) as layers:
            spatial, features = trunk.with_map(images)
            return Pass(spatial, features, statistics_of(layers))


class Graphs:
    """Passes of some trunks as CUDA graphs, where that can be; elsewhere each pass is a `trunk_pass`.

    A graph belongs to a batch size and to where a network's numbers lie: weights that are changed in place,
    as an optimiser does it, are seen. What a pass returns is overwritten by the next pass of the same kind.

    It can be on a GPU that holds the images too, by one process, for trunks of this kit and of torchvision
    without dropout. A module of one's own may look at its numbers in Python, which a graph would never do
    again: it is left as it is.

    Parameters
    ----------
    networks : in train mode when `prepare` is called, with batch norm in the mode it will have.
    autocast : makes the context of a pass, without its cache of weights.
    """

    def __init__(self, networks: Sequence[Network], autocast: Callable[[], torch.autocast]) -> None:
        self.networks, self.autocast = networks, autocast
        self._graphs: dict[tuple[int, tuple[int, ...], bool, bool], _Captured | None] = {}

    def prepare(self, batch: int, side: int, *, watched: bool = False, untouched: bool = False) -> None:
        """Capture this kind of pass of every network, unless it is known; nothing else may use the GPU."""
        shape = (batch, 3, side, side)
        for network in self.networks:
            key = (id(network), shape, watched, untouched)
            if key not in self._graphs:
                self._graphs[key] = self._captured(network, shape, watched, untouched)

    def __call__(
        self, network: Network, images: Tensor, watched: bool = False, untouched: bool = False
    ) -> Pass:
        """The pass, by its graph where there is one."""
        graph = self._graphs.get((id(network), tuple(images.shape), watched, untouched))
        return trunk_pass(network, images, watched, untouched) if graph is None else graph(images)

    def _captured(
        self, network: Network, shape: tuple[int, ...], watched: bool, untouched: bool
    ) -> _Captured | None:
        if not capturable(network.trunk):
            return None
        one = _OnePass(network, watched, untouched, self.autocast)
        images = torch.zeros(shape, device=device_of(network))
        try:
            with _buffers_kept(network.trunk):
                return _Captured(graphed(one, images), one.widths)
        except torch.cuda.OutOfMemoryError:  # a graph holds its memory; without it the pass may still fit
            return None


def capturable(trunk: Trunk) -> bool:
    """Whether a pass of this trunk may become a graph; see `Graphs`."""
    random = any(isinstance(m, nn.Dropout) and m.p > 0 for m in trunk.modules())
    learns = any(p.requires_grad for p in trunk.parameters())
    return (
        device_of(trunk).type == "cuda"
        and distributed.world() == 1
        and bool(trunk.name)
        and learns
        and not random
    )


def graphed(one: nn.Module, images: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """The module with its forward and backward pass captured, for batches like ``images``."""
    found: Any = torch.cuda.make_graphed_callables(
        one, (images,), num_warmup_iters=WARM, allow_unused_input=True
    )
    return cast(Callable[..., tuple[Tensor, ...]], found)


class _OnePass(nn.Module):
    """A `trunk_pass` as a module that takes one tensor and returns several: map, features, statistics.

    ``widths`` are those of the layers in the statistics, after a pass.
    """

    widths: tuple[int, ...] = ()

    def __init__(
        self, network: Network, watched: bool, untouched: bool, autocast: Callable[[], torch.autocast]
    ) -> None:
        super().__init__()
        self.trunk = network.trunk  # so that its weights are found
        self.watched, self.untouched, self.autocast = watched, untouched, autocast
        self._network = [network]  # in a list, for a network is no part of its own pass

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with self.autocast():
            seen = trunk_pass(self._network[0], images, self.watched, self.untouched)
        if seen.statistics is None:
            return seen.map, seen.features
        self.widths = seen.statistics.widths
        return seen.map, seen.features, seen.statistics.means, seen.statistics.variances


class _Captured:
    """A captured pass, with its tensors put back in order."""

    def __init__(self, run: Callable[..., tuple[Tensor, ...]], widths: tuple[int, ...]) -> None:
        self.run, self.widths = run, widths

    def __call__(self, images: Tensor) -> Pass:
        spatial, features, *rows = self.run(images)
        if not rows:
            return Pass(spatial, features, None)
        means, variances = rows
        return Pass(spatial, features, Statistics(means, variances, self.widths))


@contextmanager
def _buffers_kept(trunk: nn.Module) -> Iterator[None]:
    """Within the block running statistics may move; afterwards they are, where they lie, what they were."""
    kept = [(buffer, buffer.clone()) for buffer in trunk.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
