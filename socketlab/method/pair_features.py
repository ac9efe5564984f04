"""Features of the pairs from the frozen source networks: what paired alignment compares with, cached.

A task-irrelevant pair shows one scene in the source's and in the target's modality. Both halves are cut and
flipped alike; the source half goes through its frozen network, and the target network learns to give the
other half the same features.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from socketlab.images.paired_images import PairedImages, Views, cut_views, draw_views, on_device
from socketlab.method.recipe import Recipe
from socketlab.method.steps import PLAIN, Execution, Features, autocast
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import device_of

CACHE_BYTES = 2**29
"""The most that cached maps and features may take; beyond it they are computed at every step."""
BATCH = 128

Crops = dict[str, Tensor]
"""Modality → images of some pairs, (B, C, h, w) as stored, cut and flipped."""


class Teacher:
    """Batches of task-irrelevant pairs, with the frozen source networks' maps and features of them.

    Every pass over the pairs shows them in other views: each pair's crop and flip are drawn from the seed and
    the number of the view. With ``pair_views`` = V the views repeat after V passes, and the features of each
    are computed once; 0 draws new views for every pass.

    Parameters
    ----------
    sources : frozen, in eval mode.
    pairs : with the sources' modality and the target's.
    recipe : of it, ``pair_views``, ``ti_map``, ``precision`` and ``batch_size`` count.
    seed : of the run.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        pairs: PairedImages,
        recipe: Recipe,
        seed: int,
        execution: Execution = PLAIN,
    ) -> None:
        self.sources, self.pairs, self.recipe, self.seed = sources, pairs, recipe, seed
        self.execution, self.device = execution, device_of(sources[0].network)
        self.batch = min(recipe.batch_size, len(pairs))
        self._read = tuple(dict.fromkeys(source.modality for source in sources))
        self._views: dict[int, Views] = {}
        self._cache: dict[int, list[Features]] = {}
        self._cached = recipe.pair_views > 0 and self._size() <= CACHE_BYTES

    def crops(self, number: int, modality: str) -> list[Crops]:
        """The images of batch ``number`` that a step needs; of several processes, the share of this one.

        They are the target halves, and the source halves where features are not cached. A batch in which one
        pass over the pairs ends and the next begins has two parts.
        """
        wanted = (modality,) if self._cached else tuple(dict.fromkeys((modality, *self._read)))
        own = self.execution.rows(self.batch)
        return [self._cut(rows, view, wanted) for rows, view in self._parts(number, own)]

    def features_of(self, number: int, crops: Sequence[Crops]) -> list[Features]:
        """Each source's maps and features of batch ``number``, of which ``crops`` are the images."""
        if self._cached:
            parts = [self._cached_features(*part) for part in self._parts(number, slice(None))]
            return [_joined(of_source) for of_source in zip(*parts, strict=True)]
        return self._gathered([self._forward(images) for images in crops], self.batch)

    def _parts(self, number: int, rows: slice) -> list[tuple[Tensor, int]]:
        """Rows and view of the pairs in a slice of a batch, pass by pass."""
        drawn = endless_rows(len(self.pairs), self.batch, number, self.seed)[rows]
        passes = (number * self.batch + torch.arange(self.batch)[rows]) // len(self.pairs)
        return [(drawn[passes == p], self._view(p)) for p in passes.unique().tolist()]

    def _view(self, number: int) -> int:
        return number % self.recipe.pair_views if self.recipe.pair_views else number

    def _views_of(self, view: int) -> Views:
        """Crop and flip of every pair in one view."""
        if view not in self._views:
            if not self.recipe.pair_views:
                self._views.clear()  # no view comes back
            generator = torch.Generator().manual_seed(derive_seed(self.seed, view, 11))
            self._views[view] = draw_views(self.pairs, len(self.pairs), generator)
        return self._views[view]

    def _cut(self, rows: Tensor, view: int, modalities: Sequence[str]) -> Crops:
        views, pairs = self._views_of(view).take(rows), self.pairs
        return {m: cut_views(pairs.only(m), rows, views, device=self.device)[m] for m in modalities}

    def _cached_features(self, rows: Tensor, view: int) -> list[Features]:
        if view not in self._cache:
            own = torch.arange(len(self.pairs))[self.execution.rows(len(self.pairs))].split(BATCH)
            cut = (self._cut(part, view, self._read) for part in own)
            crops = self.execution.prefetch(cut, self.device, self.pairs.device)
            self._cache[view] = self._gathered([self._forward(images) for images in crops], len(self.pairs))
        at = on_device(rows, self.device)
        return [(None if maps is None else maps[at], features[at]) for maps, features in self._cache[view]]

    @torch.no_grad()
    def _forward(self, crops: Crops) -> list[Features]:
        """One pass of each frozen network."""
        found: list[Features] = []
        for source in self.sources:
            images = source.normalisation.encode(crops[source.modality])
            with autocast(self.recipe, images.device):
                maps, features = source.network.map_and_features(images)  # type: ignore[operator]
            found.append((maps if self.recipe.ti_map > 0 else None, features))
        return found

    def _gathered(self, parts: Sequence[list[Features]], count: int) -> list[Features]:
        """The parts of each source joined, and those of all processes, ``count`` rows."""
        gather = self.execution.gather
        joined = [_joined(of_source) for of_source in zip(*parts, strict=True)]
        return [(None if maps is None else gather(maps, count), gather(f, count)) for maps, f in joined]

    def _size(self) -> int:
        """Bytes that all views of all pairs would take."""
        one = self._forward(self._cut(torch.zeros(1, dtype=torch.int64), 0, self._read))
        each = sum(x.numel() * x.element_size() for features in one for x in features if x is not None)
        return each * len(self.pairs) * self.recipe.pair_views


def endless_rows(count: int, batch: int, draw: int, seed: int) -> Tensor:
    """Draw number ``draw`` from an endless row of shuffled passes over ``count`` pairs: (batch,) int64.

    It depends on nothing but its arguments, so a resumed run meets the same pairs, and every pass covers the
    whole set before the next begins.
    """
    first = draw * batch
    passes = range(first // count, (first + batch - 1) // count + 1)
    start = first - passes[0] * count
    return torch.cat([_shuffled(count, seed, number) for number in passes])[start : start + batch]


@functools.lru_cache(maxsize=4)  # the same for every batch of a pass
def _shuffled(count: int, seed: int, number: int) -> Tensor:
    """The order of pass ``number``: (count,) int64."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(seed, number, 7)))


def derive_seed(seed: int, *numbers: int) -> int:
    """A generator's seed from the seed of a run and a place in it."""
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**62
    return seed


def _joined(parts: Sequence[Features]) -> Features:
    maps = [maps for maps, _ in parts if maps is not None]
    return (torch.cat(maps) if maps else None), torch.cat([features for _, features in parts])
