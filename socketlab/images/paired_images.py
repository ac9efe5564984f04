"""Scenes seen in one or more modalities: a small image store that lives on the device.

Everything is kept as the sensor gave it, and is cut, flipped and encoded a batch at a time, on the device.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from socketlab.errors import LabError, check_fields

Names = tuple[str, ...]
CROP = 7 / 8
"""Share of a stored picture's shorter side that a network sees: 56 of 64 pixels, 224 of 256."""


@dataclass(frozen=True)
class PairedImages:
    """N scenes, each seen in one or more modalities: scene i is row i of every one.

    ``rgb`` is (N, 3, H, W) uint8, ``nir`` (N, 1, H, W) uint8, ``depth`` (N, 1, H, W) uint16 in millimetres, 0
    where the sensor saw nothing. Scenes of one block (neighbours in a video, pictures of one place) are not
    independent, so an interval resamples blocks; without any, all are independent.

    Raises
    ------
    LabError : the modalities, names, kinds and blocks do not have one entry per scene, or a name comes twice.
    """

    images: dict[str, Tensor]  # by modality
    names: Names  # unique
    kinds: Names  # the kind of room of each scene
    classes: Names = ()  # the kinds that count as classes, in the order of the labels; empty when unlabelled
    blocks: Names = ()  # the recording that each scene is a part of

    def __post_init__(self) -> None:
        check_fields(self)
        counts = {modality: len(images) for modality, images in self.images.items()}
        counts |= {"names": len(self.names), "kinds": len(self.kinds)}
        counts |= {"blocks": len(self.blocks)} if self.blocks else {}
        if len(set(counts.values())) != 1:
            raise LabError(f"images are not paired: {counts}; every scene needs one image per modality")
        if len(set(self.names)) < len(self.names):
            repeated = ", ".join([name for name, count in Counter(self.names).items() if count > 1][:3])
            raise LabError(f"names must be unique, but {repeated} come more than once")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.images)

    @property
    def modality(self) -> str:
        """The one modality; a LabError when there are several."""
        if len(self.images) != 1:
            raise LabError(f"one modality was expected, not {list(self.images)}: choose one with .only(name)")
        return next(iter(self.images))

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return next(iter(self.images.values())).device

    @property
    def labels(self) -> Tensor:
        """(N,) int64, an index into ``classes``; a LabError where a scene has none."""
        if not self.classes:
            raise LabError("these images carry no labels")
        others = set(self.kinds) - set(self.classes)
        if others:
            raise LabError(f"kinds {sorted(others)} are not among the classes {list(self.classes)}")
        return torch.tensor([self.classes.index(kind) for kind in self.kinds], device=self.device)

    def take(self, indices: Sequence[int] | Sequence[bool] | Tensor) -> PairedImages:
        """The scenes at ``indices``, in that order, or those where a mask of N truth values is true."""
        try:
            given = torch.as_tensor(indices).cpu()
            if given.ndim != 1 or (given.numel() and given.dtype.is_floating_point):
                raise TypeError
            rows = torch.arange(len(self))[given if given.dtype is torch.bool else given.long()]
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            needed = f"whole numbers from 0 to {len(self) - 1}, or a mask of {len(self)} truth values"
            raise LabError(f"take needs {needed}, not {indices!r:.60}") from error
        images = {m: index_images(x, rows.to(x.device)) for m, x in self.images.items()}
        chosen = rows.tolist()
        names, kinds = (tuple(entries[i] for i in chosen) for entries in (self.names, self.kinds))
        blocks = tuple(self.blocks[i] for i in chosen) if self.blocks else ()
        return replace(self, images=images, names=names, kinds=kinds, blocks=blocks)

    def only(self, *modalities: str) -> PairedImages:
        """The same scenes in these modalities alone."""
        missing = [m for m in modalities if m not in self.images]
        if missing:
            raise LabError(f"no {' or '.join(missing)} images here, only {', '.join(self.images)}")
        return replace(self, images={m: self.images[m] for m in modalities})

    def unlabelled(self) -> PairedImages:
        """The same images without names, kinds, classes and blocks, any of which could give a label away."""
        names = tuple(map(str, range(len(self))))
        return replace(self, names=names, kinds=("unknown",) * len(self), classes=(), blocks=())

    def to(self, device: torch.device | str) -> PairedImages:
        """The same scenes on another device."""
        return replace(self, images={m: x.to(device) for m, x in self.images.items()})


def bits(images: Tensor) -> Tensor:
    """The same images as int16 where they are uint16, for which torch has few operators."""
    return images.view(torch.int16) if images.dtype is torch.uint16 else images


def index_images(images: Tensor, rows: Tensor) -> Tensor:
    """``images[rows]`` for every dtype."""
    return bits(images)[rows].view(images.dtype)


def on_device(images: Tensor, device: torch.device) -> Tensor:
    """Images or indices on the device; to a GPU through pinned memory, so that nothing waits for the copy."""
    if images.device == device:
        return images
    plain = bits(images)
    if device.type == "cuda" and plain.device.type == "cpu":
        plain = plain.pin_memory()
    return plain.to(device, non_blocking=True).view(images.dtype)


def crop_side(images: Tensor, size: int | None = None) -> int:
    """Side of the crop of (N, C, H, W) images in pixels (default: `CROP` of the shorter side)."""
    height, width = images.shape[-2:]
    size = round(CROP * min(height, width)) if size is None else size
    if min(height, width) < size:
        raise LabError(f"images of {height} × {width} pixels are smaller than the crop of {size}")
    return size


def centre_view(images: Tensor, size: int | None = None) -> Tensor:
    """The middle (size × size) of (N, C, H, W) images: the view for testing; see `crop_side`."""
    size = crop_side(images, size)
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


@dataclass(frozen=True)
class Views:
    """Where each picture of a batch is cut, and whether it is flipped: (B, 1) int64, int64 and bool."""

    top: Tensor
    left: Tensor
    flip: Tensor

    def take(self, rows: Tensor | slice) -> Views:
        """The views of some of the pictures, in the order of ``rows``."""
        return Views(self.top[rows], self.left[rows], self.flip[rows])


def draw_views(
    images: PairedImages, count: int, generator: torch.Generator, size: int | None = None
) -> Views:
    """Random places for ``count`` crops of these images, half of them flipped; drawn on the CPU."""
    stored = next(iter(images.images.values()))
    size, (height, width) = crop_side(stored, size), stored.shape[-2:]
    return Views(
        torch.randint(height - size + 1, (count, 1), generator=generator),
        torch.randint(width - size + 1, (count, 1), generator=generator),
        torch.rand(count, 1, generator=generator) < 0.5,
    )


def cut_views(
    pairs: PairedImages,
    rows: Tensor,
    views: Views,
    size: int | None = None,
    device: torch.device | None = None,
) -> dict[str, Tensor]:
    """Crop and flip of the scenes at ``rows``, *the same for every modality of a scene*.

    To draw the crop for each half of a pair by itself, as the published code does, would align a place with
    its neighbour. (B,) int64 rows → by modality (B, C, size, size) of the stored dtype, on ``device``
    (default: where the images lie).
    """
    size = crop_side(next(iter(pairs.images.values())), size)
    across = torch.arange(size)
    y = views.top + across  # (B, size)
    x = views.left + torch.where(views.flip, size - 1 - across, across)  # (B, size)
    found = {}
    for modality, images in pairs.images.items():
        here = rows
        if device is not None and images.device != device:
            images, here = on_device(index_images(images, rows), device), torch.arange(len(rows))
        here, down, along = (on_device(index, images.device) for index in (here, y, x))
        lines = bits(images)[here[:, None], :, down].transpose(1, 2)  # (B, C, size, W), each in one piece
        cut = lines.gather(3, along[:, None, None, :].expand(*lines.shape[:3], -1))
        found[modality] = cut.view(images.dtype)
    return found


def random_views(
    pairs: PairedImages, rows: Tensor, generator: torch.Generator, size: int | None = None
) -> dict[str, Tensor]:
    """A random crop and flip of the scenes at ``rows``: `draw_views`, then `cut_views`."""
    return cut_views(pairs, rows, draw_views(pairs, len(rows), generator, size), size)


def recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, C, H, W) uint8 under other colours and light: training on these makes a network look at shapes.

    Per picture: channels in another order, saturation by 0 to 1.4, a gamma per channel, light by 0.7 to 1.3.
    """
    batch, channels = images.shape[:2]

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(images.device)

    order = draw(batch, channels).argsort(dim=1)[:, :, None, None].expand_as(images)
    values = images.gather(1, order).to(torch.float32) / 255
    grey = values.mean(dim=1, keepdim=True)
    values = grey + (values - grey) * 1.4 * draw(batch, 1, 1, 1)
    gamma = torch.exp(0.6 * (2 * draw(batch, channels, 1, 1) - 1))
    values = values.clamp(1e-3, 1) ** gamma * (0.7 + 0.6 * draw(batch, 1, 1, 1))
    return (values.clamp(0, 1) * 255).to(torch.uint8)


def endless_rows(count: int, batch: int, draw: int, seed: int) -> Tensor:
    """Draw number ``draw`` from an endless row of shuffled passes over ``count`` pairs: (batch,) int64.

    It depends on its arguments alone, so a resumed run draws the same pairs. Every pass covers the whole set
    before the next begins.
    """
    first = draw * batch
    start, passes = first % count, range(first // count, (first + batch - 1) // count + 1)
    return torch.cat([shuffled(count, seed, number) for number in passes])[start : start + batch]


@functools.lru_cache(maxsize=4)  # the same for every batch of a pass
def shuffled(count: int, seed: int, number: int) -> Tensor:
    """The order of pass ``number``: (count,) int64."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(seed, number, 7)))


def derive_seed(seed: int, *numbers: int) -> int:
    """A generator's seed from the seed of a run and a place in it."""
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**62
    return seed
