"""Features of the pairs from the frozen source networks: what paired alignment compares with, cached.

Both halves of a pair are cut and flipped alike; the source half goes through its frozen network, and the
target network learns to give the other half the same features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from socketlab.images.paired_images import (
    PairedImages,
    Views,
    cut_views,
    derive_seed,
    draw_views,
    endless_rows,
    on_device,
    shuffled,
)  # fmt: skip
from socketlab.method.evaluate import even_parts
from socketlab.method.recipe import Recipe
from socketlab.method.steps import PLAIN, Execution, Features, autocast
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import device_of, networks_of

CACHE_BYTES = 2**29
"""The most that cached maps and features may take; beyond it they are computed at every step."""
BATCH = 128
Crops = dict[str, Tensor]  # modality → images of some pairs, (B, C, h, w) as stored, cut and flipped


class PairFeatures:
    """Batches of task-irrelevant pairs, with the frozen source networks' maps and features of them.

    Every pass over the pairs uses another view: crops and flips drawn from the seed and the view's number.
    With ``pair_views`` = V the views repeat after V passes, and the features of each are computed once; 0
    draws new views for every pass. The sources are frozen and in eval mode.
    """

    def __init__(
        self, sources: Sequence[Source], pairs: PairedImages, recipe: Recipe, seed: int,
        execution: Execution = PLAIN,
    ) -> None:  # fmt: skip
        self.sources, self.pairs, self.recipe, self.seed = sources, pairs, recipe, seed
        self.execution, self.device = execution, device_of(sources[0].network)
        self.batch = min(recipe.batch_size, len(pairs))
        self._read = tuple(dict.fromkeys(source.modality for source in sources))
        self._views: dict[int, Views] = {}
        self._cache: dict[int, list[Features]] = {}
        one = self._forward(self._cut([(torch.tensor([0]), 0)], self._read), PLAIN)
        bytes_each = sum(x.numel() * x.element_size() for found in one for x in found if x is not None)
        self._cached = 0 < recipe.pair_views * len(pairs) * bytes_each <= CACHE_BYTES

    def batch_of(self, number: int, modality: str) -> tuple[Tensor, list[Features]]:
        """Batch ``number``: the target halves, (B, C, h, w) as stored, and each source's features."""
        parts = self._parts(number)
        if not self._cached:
            crops = self._cut(parts, tuple(dict.fromkeys((modality, *self._read))))
            return crops[modality], self._forward(crops, self.execution)
        found = [self._cached_features(rows, view) for rows, view in parts]
        return self._cut(parts, (modality,))[modality], _joined(found)

    def draw(self, number: int, modality: str) -> PairedImages:
        """A batch of different pairs, whole, in one modality; the same ``number`` draws the same."""
        return self.pairs.only(modality).take(shuffled(len(self.pairs), self.seed, number)[: self.batch])

    def _parts(self, number: int) -> list[tuple[Tensor, int]]:
        """Rows and views of the pairs in a batch: two parts, where a pass ends within it."""
        rows, views = endless_rows(len(self.pairs), self.batch, number, self.seed), self.recipe.pair_views
        passes = (number * self.batch + torch.arange(self.batch)) // len(self.pairs)
        return [(rows[passes == p], p % views if views else p) for p in passes.unique().tolist()]

    def _views_of(self, view: int) -> Views:
        """Crop and flip of every pair in one view."""
        if view not in self._views:
            if not self.recipe.pair_views:
                self._views.clear()  # no view comes back
            generator = torch.Generator().manual_seed(derive_seed(self.seed, view, 11))
            self._views[view] = draw_views(self.pairs, len(self.pairs), generator)
        return self._views[view]

    def _cut(self, parts: Sequence[tuple[Tensor, int]], modalities: Sequence[str]) -> Crops:
        pairs = self.pairs.only(*modalities)
        cut = [cut_views(pairs, r, self._views_of(v).take(r), device=self.device) for r, v in parts]
        return {m: torch.cat([crops[m] for crops in cut]) for m in modalities}

    def _cached_features(self, rows: Tensor, view: int) -> list[Features]:
        if view not in self._cache:
            every = torch.arange(len(self.pairs))
            parts = (every[part] for part in even_parts(len(self.pairs), BATCH))
            cut = (self._cut([(part, view)], self._read) for part in parts)
            crops = self.execution.prefetch(cut, self.device, self.pairs.device)
            self._cache[view] = _joined([self._forward(images, self.execution) for images in crops])
        at = on_device(rows, self.device)
        return [(None if maps is None else maps[at], features[at]) for maps, features in self._cache[view]]

    @torch.no_grad()
    def _forward(self, crops: Crops, execution: Execution) -> list[Features]:
        """One pass of each frozen network."""
        found: list[Features] = []
        for source in self.sources:
            network = networks_of(source.network)[0]
            images = source.normalisation.encode(crops[source.modality])
            with autocast(self.recipe, images.device):
                passed = execution.trunk_pass(network, images)
                features = network.bottleneck(passed.features)
            found.append((passed.map if self.recipe.ti_map > 0 else None, features))
        return found


def _joined(parts: Sequence[Sequence[Features]]) -> list[Features]:
    """Of each source, maps and features of all parts."""
    found: list[Features] = []
    for maps, features in (zip(*of_source, strict=True) for of_source in zip(*parts, strict=True)):
        found.append((None if maps[0] is None else torch.cat(maps), torch.cat(features)))
    return found
