"""PocketRooms: the data that ship with the kit, rendered rooms seen by four cameras.

Every scene was rendered once, in colour, in near-infrared and as exact depth, by a wide ideal camera. A
*sensor* (`socketlab.images.sensors`) is applied when the images are loaded, from a seed.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from socketlab.errors import LabError, checked, require_choice
from socketlab.files import verified
from socketlab.images import sensors
from socketlab.images.paired_images import PairedImages, bits

CLASSES = (
    "bathroom", "bedroom", "conference_room", "dining_room", "kitchen", "living_room", "nursery", "office",
)  # fmt: skip
"""The task: eight kinds of room."""
SPLITS = ("source_train", "source_test", "target_adapt", "target_test", "ti_near", "ti_far")
"""Sets of scenes; none shares a scene with another."""
TILE, TILES_PER_ROW = 80, 24


@checked
def load(
    split: str, sensor: str = "kinect_v1", modalities: Sequence[str] = ("rgb", "depth"),
    strength: float = 1.0, seed: int = 0,
) -> PairedImages:  # fmt: skip
    """One split as one sensor sees it, 64 × 64 pixels; an adaptation to depth opens no colour picture.

    Parameters
    ----------
    split : one of ``SPLITS``. The ``ti_…`` splits are unlabelled pairs of other kinds of room.
    sensor : one of ``sensors.SENSORS``.
    modalities : among "rgb", "nir", "depth".
    strength : of the sensor's errors; 0 is an ideal camera with the sensor's field of view, 1 as published.
    seed : of the sensor's noise; a scene's noise does not depend on what else is loaded.

    Raises
    ------
    LabError : unknown split, sensor or modality; a missing or altered data file.
    """
    rows = _index(split)
    camera = sensors.sensor_named(sensor)
    images: dict[str, Tensor] = {}
    for modality in modalities:
        require_choice("modality", modality, ("rgb", "nir", "depth"))
        views = _tiles(split, modality, len(rows))
        place = f"{seed}/{split}/{sensor}/{modality}"
        number = int.from_bytes(hashlib.sha256(place.encode()).digest()[:7], "big")
        generator = torch.Generator().manual_seed(number)
        if modality == "depth":
            light = _tiles(split, "nir", len(rows))
            images[modality] = sensors.see_depth(views, light, camera, strength, generator)
        else:
            images[modality] = sensors.see_light(views, camera, strength, generator)
    return PairedImages(
        images,
        names=tuple(row["name"] for row in rows),
        kinds=tuple(row["kind"] for row in rows),
        classes=() if split.startswith("ti_") else CLASSES,
    )


@checked
def ti_pairs(
    sensor: str = "kinect_v1", mix: str | float = "near", count: int | None = None,
    modalities: Sequence[str] = ("rgb", "depth"), seed: int = 0, strength: float = 1.0,
) -> PairedImages:  # fmt: skip
    """Task-irrelevant pairs: rooms of other kinds, in the source's and the target's modality.

    Parameters
    ----------
    mix : "near" rooms share furniture with the task, "far" ones share little, "both" takes all; a number is
        the share of near rooms.
    count : how many, drawn with ``seed``; None for as many as the mix allows.
    """
    share: Any = {"near": 1, "far": 0, "both": None}.get(mix, mix)  # type: ignore[call-overload, arg-type]
    if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
        raise LabError(f"unknown mix {mix!r}: choose near, far, both, or a share of near rooms from 0 to 1")
    splits = ["ti_near"] * (share != 0) + ["ti_far"] * (share != 1)
    parts = [load(split, sensor, modalities, strength, seed) for split in splits]
    everything = parts[0] if len(parts) == 1 else join(*parts)
    if count is None and share in (None, 0, 1):
        return everything
    return everything.take(_draw([len(part) for part in parts], share, count, seed))


def join(first: PairedImages, second: PairedImages) -> PairedImages:
    """The scenes of two sets of the same modalities, one after the other."""
    joined = {}
    for modality, images in first.images.items():
        parts = [bits(images), bits(second.images[modality])]
        joined[modality] = torch.cat(parts).view(images.dtype)
    blocks = first.blocks + second.blocks if first.blocks and second.blocks else ()
    return PairedImages(joined, first.names + second.names, first.kinds + second.kinds, first.classes, blocks)


def _draw(sizes: list[int], share: float | None, count: int | None, seed: int) -> Tensor:
    """Rows of a random choice of ``count`` scenes, of which ``share`` from the first part."""
    generator = torch.Generator().manual_seed(seed)
    if len(sizes) == 1 or share is None:
        sizes = [sum(sizes)]
        wanted = sizes if count is None else [count]
    else:
        count = int(min(sizes[0] / share, sizes[1] / (1 - share))) if count is None else count
        wanted = [round(share * count), count - round(share * count)]
    rows, start = [], 0
    for size, number in zip(sizes, wanted, strict=True):
        if not 0 <= number <= size:
            raise LabError(f"{number} task-irrelevant pairs were asked for, but there are {size}")
        rows.append(start + torch.randperm(size, generator=generator)[:number])
        start += size
    return torch.cat(rows)


def _index(split: str) -> list[dict[str, str]]:
    """The rows of one split, in the order of the tiles."""
    require_choice("split", split, SPLITS)
    with open(verified("pocketrooms/index.csv"), newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return sorted(rows, key=lambda row: int(row["tile"]))


def _tiles(split: str, modality: str, count: int) -> Tensor:
    """The first ``count`` tiles of a contact sheet: (count, C, 80, 80), uint8 or, for depth, uint16."""
    suffix = "png" if modality == "depth" else "jpg"
    with Image.open(verified(f"pocketrooms/{split}.{modality}.{suffix}")) as picture:
        sheet = np.asarray(picture)
    tiles = sheet.reshape(-1, TILE, TILES_PER_ROW, TILE, sheet.size // sheet.shape[0] // sheet.shape[1])
    flat = tiles.transpose(0, 2, 4, 1, 3).reshape(-1, tiles.shape[-1], TILE, TILE)[:count]
    return torch.from_numpy(np.ascontiguousarray(flat, np.uint16 if modality == "depth" else np.uint8))
