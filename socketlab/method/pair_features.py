"""What the frozen source networks say of the pairs: computed once per view, then remembered."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from socketlab.images.paired_images import PairedImages, Views, cut_views, draw_views, on_device
from socketlab.method.recipe import Recipe
from socketlab.method.steps import autocast
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import device_of
from socketlab.speed import distributed
from socketlab.speed.prefetch import ahead

CACHE_BYTES = 2**29
"""The most that remembered maps and features may take; beyond it they are computed at every step."""
BATCH = 128

Said = tuple[Tensor | None, Tensor]
"""The last map (B, C, h, w), where the recipe wants it, and the features (B, D) of a source network."""

Cut = dict[str, Tensor]
"""Modality → pictures of some pairs, (B, C, h, w) as stored, cut and flipped."""


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
        self.device = device_of(sources[0].network)
        self._read = tuple(dict.fromkeys(source.modality for source in sources))
        self._views: dict[int, Views] = {}
        self._said: dict[int, list[Said]] = {}
        self._cached = recipe.pair_views > 0 and self._size() <= CACHE_BYTES

    def draw(self, number: int, modality: str) -> tuple[Tensor, list[Said]]:
        """Batch ``number`` of the run: the target halves, (B, C, h, w) as stored, and what the sources say.

        A pass covers all pairs before the next begins, and goes on across epochs (fault 5); draw ``number``
        depends on nothing but the seed, so a resumed run meets the same pairs.
        """
        cut = self.cut(number, modality)
        return torch.cat([images[modality] for images in cut]), self.say(number, cut)

    def cut(self, number: int, modality: str) -> list[Cut]:
        """The pictures of batch ``number`` that a step wants; of several processes, the share of this one.

        They are the target halves, and the sources' where what is said of them is not remembered. A batch in
        which one pass ends and the next begins has two parts.
        """
        wanted = (modality,) if self._cached else tuple(dict.fromkeys((modality, *self._read)))
        parts = self._parts(number, distributed.share(self.batch))
        return [self._cut(rows, view, wanted) for rows, view in parts]

    def say(self, number: int, cut: list[Cut]) -> list[Said]:
        """What each source says of batch ``number``, of which ``cut`` are the pictures; of all processes."""
        if self._cached:
            said = [self._recall(rows, view) for rows, view in self._parts(number, slice(None))]
            return [_joined(of_one) for of_one in zip(*said, strict=True)]
        said = [self._ask(images) for images in cut]
        return [_gathered(_joined(of_one), self.batch) for of_one in zip(*said, strict=True)]

    def _parts(self, number: int, of_batch: slice) -> list[tuple[Tensor, int]]:
        """Rows and view of the pairs in a slice of a batch, pass by pass."""
        rows, begin = endless_rows(len(self.pairs), self.batch, number, self.seed), number * self.batch
        first, last, _ = of_batch.indices(self.batch)
        found = []
        for p in range(begin // len(self.pairs), (begin + self.batch - 1) // len(self.pairs) + 1):
            start = max(first, p * len(self.pairs) - begin)
            stop = min(last, (p + 1) * len(self.pairs) - begin)
            found += [(rows[start:stop], self._view(p))] if start < stop else []
        return found

    def _view(self, number: int) -> int:
        return number % self.recipe.pair_views if self.recipe.pair_views else number

    def _views_of(self, view: int) -> Views:
        """Crop and flip of every pair in one view."""
        if view not in self._views:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, view, 11))
            drawn = draw_views(self.pairs, len(self.pairs), generator)
            if not self.recipe.pair_views:
                self._views.clear()  # it will not come back
            self._views[view] = drawn
        return self._views[view]

    def _cut(self, rows: Tensor, view: int, modalities: Sequence[str]) -> Cut:
        views = self._views_of(view).take(rows)
        images = {m: self.pairs.only(m) for m in modalities}
        return {m: cut_views(one, rows, views, device=self.device)[m] for m, one in images.items()}

    def _recall(self, rows: Tensor, view: int) -> list[Said]:
        if view not in self._said:
            self._said[view] = self._ask_all(view)
        at = on_device(rows, self.device)
        return [(None if maps is None else maps[at], features[at]) for maps, features in self._said[view]]

    def _ask_all(self, view: int) -> list[Said]:
        """What the sources say of every pair in one view; several processes ask for their shares."""
        count = len(self.pairs)
        rows = torch.arange(count)[distributed.share(count)].split(BATCH)
        cut = (self._cut(part, view, self._read) for part in rows)
        parts = [self._ask(images) for images in ahead(cut, self.device, self.pairs.device)]
        return [_gathered(_joined(of_one), count) for of_one in zip(*parts, strict=True)]

    @torch.no_grad()
    def _ask(self, cut: Cut) -> list[Said]:
        """One pass of the frozen networks over some pairs in one view."""
        said: list[Said] = []
        for source in self.sources:
            images = source.normalisation.encode(cut[source.modality])
            with autocast(self.recipe, images.device):
                maps, features = source.network.map_and_features(images)  # type: ignore[operator]
            said.append((maps if self.recipe.ti_map > 0 else None, features))
        return said

    def _size(self) -> int:
        """Bytes that all views of all pairs would take."""
        one = self._ask(self._cut(torch.zeros(1, dtype=torch.int64), 0, self._read))
        each = sum(x.numel() * x.element_size() for said in one for x in said if x is not None)
        return each * len(self.pairs) * self.recipe.pair_views


def endless_rows(count: int, batch: int, draw: int, seed: int) -> Tensor:
    """Draw number ``draw`` from an endless row of shuffled passes over ``count`` pairs: (batch,) int64.

    It depends on nothing but its arguments, so a resumed run meets the same pairs, and every pass covers the
    whole set before the next begins.
    """
    first = draw * batch
    passes = range(first // count, (first + batch - 1) // count + 1)
    shuffled = [_shuffled(count, seed, number) for number in passes]
    start = first - passes[0] * count
    return torch.cat(shuffled)[start : start + batch]


@functools.lru_cache(maxsize=4)  # every batch of a pass asks for the same
def _shuffled(count: int, seed: int, number: int) -> Tensor:
    """The order of pass ``number``: (count,) int64."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(seed, number, 7)))


def derive_seed(seed: int, *numbers: int) -> int:
    """One generator seed from a run's seed and the place in the run."""
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**62
    return seed


def _joined(parts: Sequence[Said]) -> Said:
    if len(parts) == 1:
        return parts[0]
    maps = [maps for maps, _ in parts if maps is not None]
    return (torch.cat(maps) if maps else None), torch.cat([features for _, features in parts])


def _gathered(own: Said, count: int) -> Said:
    maps, features = own
    return (None if maps is None else distributed.gathered(maps, count)), distributed.gathered(
        features, count
    )
