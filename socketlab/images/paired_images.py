"""Scenes seen in one or more modalities: a small image store that lives on the device.

Everything is kept as the sensor gave it (``uint8`` colours, ``uint16`` millimetres) and is cut, flipped and
encoded a batch at a time, on the device, so that no worker process is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from socketlab.errors import LabError, check_fields

CROP = 7 / 8
"""Share of a stored picture's shorter side that a network sees: 56 of 64 pixels, 224 of 256."""


@dataclass(frozen=True)
class PairedImages:
    """N scenes, each seen in one or more modalities.

    Parameters
    ----------
    images : modality → images; ``rgb`` (N, 3, H, W) uint8, ``nir`` (N, 1, H, W) uint8, ``depth`` (N, 1, H, W)
        uint16 in millimetres, 0 where the sensor saw nothing. Scene i is row i of every modality.
    names : one name per scene, unique.
    kinds : the kind of room of each scene.
    classes : the kinds that count as classes, in the order of the labels; empty when unlabelled.
    blocks : the recording that each scene is a part of. Scenes of one block (neighbours in a video, pictures
        of one place) are not independent, so an interval resamples blocks. Empty: all are independent.

    Raises
    ------
    LabError : the modalities, names, kinds and blocks do not have one entry per scene, or a name comes twice.
    """

    images: dict[str, Tensor]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    classes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        counts = {modality: len(images) for modality, images in self.images.items()}
        counts |= {"names": len(self.names), "kinds": len(self.kinds)}
        counts |= {"blocks": len(self.blocks)} if self.blocks else {}
        if len(set(counts.values())) != 1:
            raise LabError(f"images are not paired: {counts}; every scene needs one image per modality")
        if len(set(self.names)) < len(self.names):
            raise LabError(f"names must be unique, but {_repeated(self.names)} come more than once")

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
        """The scenes at ``indices``, in that order, or those where a mask of N truth values is true.

        Raises
        ------
        LabError : indices that are neither whole numbers nor a mask, or beyond the last scene.
        """
        try:
            rows = torch.as_tensor(indices).cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            given = type(indices).__name__
            raise LabError(f"take needs whole numbers, or a mask, not {given}") from error
        if rows.dtype is torch.bool and rows.shape == (len(self),):
            rows = rows.nonzero()[:, 0]
        elif rows.numel() and (rows.dtype is torch.bool or rows.dtype.is_floating_point or rows.ndim != 1):
            given = f"{rows.dtype} of shape {tuple(rows.shape)}"
            raise LabError(f"take needs whole numbers, or a mask of {len(self)} truth values, not {given}")
        rows = rows.long()
        if rows.numel() and not -len(self) <= int(rows.min()) <= int(rows.max()) < len(self):
            raise LabError(f"there are {len(self)} scenes: choose indices from 0 to {len(self) - 1}")
        images = {m: index_images(x, rows.to(x.device)) for m, x in self.images.items()}
        return self._with(images, lambda entries: tuple(entries[i] for i in rows.tolist()))

    def part(self, rows: slice) -> PairedImages:
        """Scenes that follow each other; their images are not copied."""
        return self._with({m: x[rows] for m, x in self.images.items()}, lambda entries: entries[rows])

    def _with(
        self, images: dict[str, Tensor], chosen: Callable[[tuple[str, ...]], tuple[str, ...]]
    ) -> PairedImages:
        blocks = chosen(self.blocks) if self.blocks else ()
        return replace(self, images=images, names=chosen(self.names), kinds=chosen(self.kinds), blocks=blocks)

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


def paired_by_name(
    modalities: Mapping[str, tuple[Sequence[str], Tensor]], kinds: Mapping[str, str] | None = None
) -> PairedImages:
    """Images of several modalities, brought together by the names of their scenes, in the order of these.

    Two listings of two folders come in whatever order the disk likes: to take the i-th of one for the partner
    of the i-th of the other, as the published code does, makes pairs of unrelated scenes.

    Parameters
    ----------
    modalities : modality → the names of its scenes and their images (N, C, H, W), in the same order.
    kinds : name → kind of room, where it is known.

    Raises
    ------
    LabError : a name comes twice, or a scene is missing in a modality.
    """
    places = {m: {name: i for i, name in enumerate(names)} for m, (names, _) in modalities.items()}
    scenes = tuple(sorted(set().union(*places.values())))
    stored = {}
    for modality, (names, images) in modalities.items():
        if not len(places[modality]) == len(names) == len(images):
            twice = _repeated(names)
            wrong = f"{twice} come twice" if twice else f"{len(names)} names, {len(images)} images"
            raise LabError(f"{modality} images need one name each: {wrong}")
        orphans = [name for name in scenes if name not in places[modality]]
        if orphans:
            listed = ", ".join(orphans[:5]) + (", …" if len(orphans) > 5 else "")
            raise LabError(
                f"{len(orphans)} scenes have no {modality} image: {listed}; add it, or take their others away"
            )
        rows = torch.tensor([places[modality][name] for name in scenes])
        stored[modality] = index_images(images, rows.to(images.device))
    return PairedImages(stored, scenes, tuple((kinds or {}).get(name, "unknown") for name in scenes))


def _repeated(names: Sequence[str]) -> str:
    """The first three names that come more than once."""
    return ", ".join([name for name, count in Counter(names).items() if count > 1][:3])


def index_images(images: Tensor, rows: Tensor) -> Tensor:
    """``images[rows]`` for every dtype; torch has few operators for uint16, so its bits travel as int16."""
    if images.dtype is torch.uint16:
        return images.view(torch.int16)[rows].view(torch.uint16)
    return images[rows]


def on_device(images: Tensor, device: torch.device) -> Tensor:
    """Images or indices on the device; to a GPU through pinned memory, so that nothing waits for the copy."""
    if images.device == device:
        return images
    bits = images.view(torch.int16) if images.dtype is torch.uint16 else images
    if device.type == "cuda" and bits.device.type == "cpu":
        bits = bits.pin_memory()
    return bits.to(device, non_blocking=True).view(images.dtype)


# ------------------------------------------------------------------------ views


def crop_side(images: Tensor, size: int | None = None) -> int:
    """Side of the crop of (N, C, H, W) images in pixels (default: `CROP` of the shorter side).

    Raises
    ------
    LabError : the images are smaller.
    """
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
    """Random places for ``count`` crops of these images, half of them flipped; see `crop_side`.

    Drawn on the CPU, so that the views do not depend on the device.
    """
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
    its neighbour. Per modality two gathers, of lines and of places in them, do the whole batch.

    Parameters
    ----------
    rows : (B,) int64.
    views : of the B scenes.
    size : as for `draw_views`.
    device : where the views are wanted (default: where the images lie). Pictures are then copied whole and
        cut there: rows lie together in memory, places in them do not.

    Returns
    -------
    modality → (B, C, size, size), same dtype as stored.
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
        bits = images.view(torch.int16) if images.dtype is torch.uint16 else images
        here, down, along = (on_device(index, images.device) for index in (here, y, x))
        lines = bits[here[:, None], :, down].transpose(
            1, 2
        )  # (B, C, size, W): whole lines, which lie together
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

    Per picture, drawn from a CPU generator: channels in another order, saturation by 0 to 1.4, a gamma per
    channel, light by 0.7 to 1.3. torchvision draws one such change per call.
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
