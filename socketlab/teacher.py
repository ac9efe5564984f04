"""What the frozen source networks say of the pairs: computed once per view, then remembered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checkpoints import Source
from .pairs import PairedImages, Views, cut_views, draw_views
from .recipe import Recipe
from .steps import autocast

CACHE_BYTES = 2**29
"""The most that remembered maps and features may take; beyond it they are computed at every step."""
BATCH = 128

Said = tuple[Tensor | None, Tensor]
"""The last map (B, C, h, w), where the recipe wants it, and the features (B, D) of a source network."""


class Teacher:
    """The sources' maps and features of task-irrelevant pairs, with the partners' views to compare them to.

    Every pass over the pairs shows them in other views: each pair's crop and flip are drawn from the seed and
    the number of the view. With ``pair_views`` = V the views come round after V passes, and what the frozen
    networks say of one is computed when it first comes up; the numbers are those of computing it every time.

    Parameters
    ----------
    sources : frozen, in eval mode.
    pairs : with the sources' modality and the target's.
    recipe : ``pair_views``, ``ti_map``, ``precision`` and ``batch_size`` count.
    seed : of a run.
    """

    def __init__(self, sources: Sequence[Source], pairs: PairedImages, recipe: Recipe, seed: int) -> None:
        self.sources, self.pairs, self.recipe, self.seed = sources, pairs, recipe, seed
        self.batch = min(recipe.batch_size, len(pairs))
        self._views: dict[int, Views] = {}
        self._said: dict[int, list[Said]] = {}
        self._cached = recipe.pair_views > 0 and self._size() <= CACHE_BYTES

    def draw(self, number: int, modality: str) -> tuple[Tensor, list[Said]]:
        """Batch ``number`` of the run: the target halves, (B, C, h, w) as stored, and what the sources say.

        A pass covers all pairs before the next begins, and goes on across epochs (fault 5); draw ``number``
        depends on nothing but the seed, so a resumed run meets the same pairs.
        """
        rows = endless_rows(len(self.pairs), self.batch, number, self.seed)
        first = number * self.batch
        passes = (first + torch.arange(self.batch)) // len(self.pairs)
        parts = [(rows[passes == p], self._view(int(p))) for p in passes.unique()]
        images = [self._cut(rows, view, modality) for rows, view in parts]
        said = [self._say(rows, view) for rows, view in parts]
        return torch.cat(images), [_joined(of_one) for of_one in zip(*said, strict=True)]

    def _view(self, number: int) -> int:
        return number % self.recipe.pair_views if self.recipe.pair_views else number

    def _views_of(self, view: int) -> Views:
        """Crop and flip of every pair in one view."""
        if view not in self._views:
            generator = torch.Generator().manual_seed(mix(self.seed, view, 11))
            drawn = draw_views(self.pairs, len(self.pairs), generator)
            if not self.recipe.pair_views:
                self._views.clear()  # it will not come back
            self._views[view] = drawn
        return self._views[view]

    def _cut(self, rows: Tensor, view: int, modality: str) -> Tensor:
        return cut_views(self.pairs.only(modality), rows, self._views_of(view).take(rows))[modality]

    def _say(self, rows: Tensor, view: int) -> list[Said]:
        if not self._cached:
            return self._ask(rows, view)
        if view not in self._said:
            parts = [self._ask(part, view) for part in torch.arange(len(self.pairs)).split(BATCH)]
            self._said[view] = [_joined(of_one) for of_one in zip(*parts, strict=True)]
        at = rows.to(self.pairs.device)
        return [(None if maps is None else maps[at], features[at]) for maps, features in self._said[view]]

    @torch.no_grad()
    def _ask(self, rows: Tensor, view: int) -> list[Said]:
        """One pass of the frozen networks over some pairs in one view."""
        said: list[Said] = []
        for source in self.sources:
            images = source.normalisation.encode(self._cut(rows, view, source.modality))
            with autocast(self.recipe, images.device):
                maps, features = source.network.map_and_features(images)  # type: ignore[operator]
            said.append((maps if self.recipe.ti_map > 0 else None, features))
        return said

    def _size(self) -> int:
        """Bytes that all views of all pairs would take."""
        one = self._ask(torch.zeros(1, dtype=torch.int64), 0)
        each = sum(x.numel() * x.element_size() for said in one for x in said if x is not None)
        return each * len(self.pairs) * self.recipe.pair_views


def endless_rows(count: int, batch: int, draw: int, seed: int) -> Tensor:
    """Draw number ``draw`` from an endless row of shuffled passes over ``count`` pairs: (batch,) int64.

    It depends on nothing but its arguments, so a resumed run meets the same pairs, and every pass covers the
    whole set before the next begins.
    """
    first = draw * batch
    passes = range(first // count, (first + batch - 1) // count + 1)
    shuffled = [
        torch.randperm(count, generator=torch.Generator().manual_seed(mix(seed, number, 7)))
        for number in passes
    ]
    start = first - passes[0] * count
    return torch.cat(shuffled)[start : start + batch]


def mix(seed: int, *numbers: int) -> int:
    """One generator seed from a run's seed and the place in the run."""
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**62
    return seed


def _joined(parts: Sequence[Said]) -> Said:
    if len(parts) == 1:
        return parts[0]
    maps = [maps for maps, _ in parts if maps is not None]
    return (torch.cat(maps) if maps else None), torch.cat([features for _, features in parts])
