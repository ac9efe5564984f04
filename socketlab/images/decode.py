"""One picture file → the array that a pack stores, without torch: every importing process loads this module.

Depth keeps its 16 bits and is resized by taking the nearest pixel: the mean of a near and a far surface, or
of a surface and a hole, is a distance that nobody measured. Colours are resized with antialiasing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from socketlab.errors import LabError
from socketlab.files import reason

FITS = ("centre", "letterbox", "stretch")
"""Ways to make a picture square: cut its middle out, pad it with black (missing), or squeeze it."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
UNITS = {"millimetres": 1.0, "metres": 1000.0}
"""Names of units of depth → millimetres; other units are counts per metre ("5000"), or ``rotated``."""
MISSING = 65535
"""Beside 0, what some sets and cameras write where they measured nothing."""
CHUNK = 64
"""Scenes that one job decodes."""
SAMPLE = 12
"""Pictures of each modality and domain whose values are looked at, evenly spaced."""
UNITS_TO_TRY = ("rotated", "5000", "10000", "4000", "512", "256", "metres")
bar = partial(tqdm, disable=None, leave=False)
"""A bar of progress, on a terminal alone."""

_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
_EIGHT_BITS = ("L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
_MODES = {"1": "1 bit", "L": "8 bits", "I": "32 bits", "F": "floating point", "I;16": "16 bits"}


class BadPicture(Exception):
    """A file that cannot be used: the category, the reason, the file."""

    def __init__(self, what: str, why: str, path: Path | None = None) -> None:
        super().__init__(what, why, path)
        self.what, self.why, self.path = what, why, path


@dataclass(frozen=True)
class Picture:
    """A file and how it is read.

    The form is ``colour`` (8 bits, three channels), ``grey`` (8 or 16 bits, one channel of 8 stored) or
    ``depth`` (16 bits in the file, uint16 millimetres stored, 0 where missing).
    """

    path: Path
    form: str
    unit: str = "millimetres"  # of depth: a name in UNITS, counts per metre, or rotated left by three bits
    levels: tuple[float, float] | None = None  # numbers of a 16-bit file that are stored as 0 and 255


def millimetres(raw: NDArray[Any], unit: str) -> NDArray[np.uint16]:
    """Depth in millimetres of a file's numbers; 0 where they are 0, 65535 or no number, or beyond 65 m.

    Source: Song et al., CVPR 2015, the data set's own reader, for the three bits that are rotated.
    """
    values: NDArray[Any] = raw
    if unit == "rotated":
        values = np.bitwise_or(raw >> np.uint16(3), raw << np.uint16(13), dtype=np.uint16)
    elif unit != "millimetres":
        factor = UNITS[unit] if unit in UNITS else 1000 / float(unit)
        scaled = np.where(raw == MISSING, 0.0, raw * factor)
        values = np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0).clip(0, MISSING) + 0.5
    return np.where(values < MISSING, values, 0).astype(np.uint16)


def placed(
    width: int, height: int, size: int, fit: str
) -> tuple[tuple[float, float, float, float], int, int]:
    """The part of a picture that is used (left, top, right, bottom), its width and height when stored."""
    side, longer = min(width, height), max(width, height)
    left, top = ((width - side) / 2, (height - side) / 2) if fit == "centre" else (0.0, 0.0)
    across, down = size, size
    if fit == "letterbox":
        across, down = (max(1, round(size * one / longer)) for one in (width, height))
    return (left, top, width - left, height - top), across, down


def placed_focal(
    focal: tuple[float, float], width: int, height: int, size: int, fit: str
) -> tuple[float, float]:
    """Focal lengths (f_x, f_y) in pixels of the file → in pixels of the stored image."""
    (left, top, right, bottom), across, down = placed(width, height, size, fit)
    return focal[0] * across / (right - left), focal[1] * down / (bottom - top)


def squared(image: Image.Image, size: int, fit: str) -> NDArray[Any]:
    """A picture made square: (size, size) or (size, size, 3); what is padded is 0, that is missing depth."""
    if image.size == (size, size):
        return np.asarray(image)
    box, across, down = placed(*image.size, size, fit)
    how = Image.Resampling.NEAREST if image.mode == "I;16" else Image.Resampling.BILINEAR
    small = np.asarray(image.resize((across, down), how, box=box))
    y, x = (size - down) // 2, (size - across) // 2
    around = [(y, size - down - y), (x, size - across - x)]
    return np.pad(small, [*around, (0, 0)][: small.ndim])


@contextlib.contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    """A picture of the right bit depth; what damage makes a decoder raise becomes a BadPicture."""
    path = picture.path
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            raise BadPicture("folder in place of a file", "it is not a file")
        if found.st_size == 0:
            raise BadPicture("truncated file", "it is empty")
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_FORMATS) as image:
            _require_bits(image, picture)
            yield image
    except BadPicture as bad:
        raise BadPicture(bad.what, bad.why, path) from None
    except Exception as error:
        # Decoders raise OSError, SyntaxError, struct.error, IndexError and more for damaged files.
        what, why = "unreadable file", reason(error).replace(str(path), path.name)  # no private folder
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if file.read(40).startswith(b"version https://git-lfs"):
                what, why = "Git LFS pointer", "its content was not fetched: run `git lfs pull`"
        raise BadPicture(what, why, path) from None


def size_of(picture: Picture) -> tuple[int, int]:
    """Width and height, upright, of a whole file of the right kind and bit depth, else a BadPicture."""
    with _opened(picture) as image:
        end = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}.get(image.format or "", b"")
        with open(picture.path, "rb") as file:
            file.seek(max(0, os.stat(picture.path).st_size - 65536))
            if end not in file.read():
                raise BadPicture("truncated file", "the file ends before the picture does")
        turned = False
        with contextlib.suppress(Exception):  # a damaged EXIF block is no reason to refuse the pixels
            turned = image.format != "TIFF" and image.getexif().get(0x112, 1) >= 5  # Pillow turns a TIFF
        return (image.height, image.width) if turned else image.size


def read_pixels(picture: Picture) -> Image.Image | NDArray[Any]:
    """What a file holds, upright: an 8-bit picture, or the numbers (H, W); else a BadPicture."""
    with _opened(picture) as image:
        image.load()
        upright: Image.Image = image
        with contextlib.suppress(Exception):
            upright = ImageOps.exif_transpose(image)
        if picture.form == "depth" or (picture.form == "grey" and image.mode not in _EIGHT_BITS):
            return np.asarray(upright).astype(np.float64 if image.mode == "F" else np.uint16)
        return upright.convert("RGB" if picture.form == "colour" else "L")


def decode_picture(picture: Picture, size: int, fit: str) -> NDArray[Any]:
    """The picture as it is stored: (C, size, size) uint8, or uint16 for depth; see `read_pixels`."""
    found = read_pixels(picture)
    if isinstance(found, Image.Image):
        pixels = squared(found, size, fit)
        return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    if picture.form == "depth":
        return squared(Image.fromarray(millimetres(found, picture.unit)), size, fit)[None]
    low, high = picture.levels or (0.0, 65535.0)
    eight = ((found - low) * (255.0 / (high - low)) + 0.5).clip(0, 255).astype(np.uint8)
    return squared(Image.fromarray(eight), size, fit)[None]


def decode_all(
    scenes: Sequence[dict[str, Picture]], size: int, fit: str, processes: int | None = None
) -> Iterator[dict[str, NDArray[Any]] | BadPicture]:
    """The images of each scene by modality, or what is wrong with one of them, in the order of the scenes.

    ``processes`` is one per core by default.
    """
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    jobs = (joblib.delayed(_decode_scene)(scene, size, fit) for scene in scenes)
    worth = max(1, len(scenes) // (2 * CHUNK))  # a start takes a second
    wanted = min(processes or joblib.cpu_count(), worth)
    run = joblib.Parallel(n_jobs=wanted, batch_size=CHUNK, return_as="generator", idle_worker_timeout=60)
    try:
        yield from bar(run(jobs), desc="packing", unit="scene", total=len(scenes))
    except BrokenProcessPool:
        raise LabError("A process died, probably out of memory: import with fewer --processes.") from None


def _decode_scene(pictures: dict[str, Picture], size: int, fit: str) -> dict[str, NDArray[Any]] | BadPicture:
    try:
        return {modality: decode_picture(picture, size, fit) for modality, picture in pictures.items()}
    except BadPicture as bad:
        return bad


def value_range(pictures: Sequence[Picture], unit_is_known: bool) -> tuple[str, list[str]]:
    """The range of the numbers in pictures of one modality, in a line, and notes where it is doubtful."""
    found, white, count = [np.zeros(0)], 255, min(SAMPLE, len(pictures))
    for i in range(count):
        try:
            numbers = read_pixels(pictures[i * len(pictures) // count])
        except BadPicture:
            continue  # counted when the pack is written
        flat = np.asarray(numbers).ravel()
        white = white if isinstance(numbers, Image.Image) else MISSING
        found.append(flat[:: max(1, len(flat) // 8192)].astype(np.float64))
    values = np.concatenate(found)
    if not len(values):
        return "nothing could be decoded", []
    if pictures[0].form == "depth":
        return _depth_range(values, pictures[0].unit, unit_is_known)
    return _grey_range(values, white, pictures[0].levels is not None)


def _depth_range(raw: NDArray[np.float64], unit: str, unit_is_known: bool) -> tuple[str, list[str]]:
    """A note where the unit can hardly be right, with the units that would give a room."""

    def measured_in(unit: str) -> NDArray[np.uint16]:
        whole_numbers = unit in ("rotated", "millimetres")
        found = millimetres(raw.clip(0, MISSING).astype(np.uint16) if whole_numbers else raw, unit)
        return found[found > 0]

    measured = measured_in(unit)
    if not len(measured):
        return "nothing", [f"all is missing: every number is 0 or {MISSING}"]
    low, middle, high = np.quantile(measured, (0.01, 0.5, 0.99)) / 1000
    line = f"{low:.2f} to {high:.2f} m (1 % to 99 %), median {middle:.2f} m"
    line += f"; {1 - len(measured) / len(raw):.0%} missing"
    share = float((raw == MISSING).mean())
    notes = [f"{share:.2%} of the numbers are {MISSING}, which is stored as missing"] if share else []
    numbers = raw[(raw > 0) & (raw < MISSING)]
    multiples = {n: float((numbers % n == 0).mean()) > 0.9 for n in (5, 8, 10, 16)}
    several = len(np.unique(numbers)) >= 16
    divisor = next((n for n in (5, 8) if multiples[n] and not multiples[2 * n] and several), 1)
    doubts = {  # the median of a room's depth lies between 0.1 and 8 m, 99 % of it within 20 m
        f"half of it is nearer than {middle:.3f} m": middle < 0.1,
        f"half of it is beyond {middle:.1f} m, 1 % beyond {high:.1f} m": middle > 8 or high > 20,
        f"most numbers are multiples of {divisor}": unit == "millimetres" and divisor > 1,
    }
    if any(doubts.values()) and not unit_is_known:
        likely = []
        for other in UNITS_TO_TRY:
            there = measured_in(other)
            fits = len(there) and 300 <= np.median(there) <= 6000 and np.quantile(there, 0.99) <= 12_000
            if fits and other != unit and (other != "rotated" or divisor == 8):
                likely.append(f"{other} (median {np.median(there) / 1000:.2f} m)")
        way = f"; likely are {', '.join(likely)}" if likely else ""
        why = f"read as {unit}, {' and '.join(doubt for doubt, holds in doubts.items() if holds)}"
        notes.append(f"{why}: another unit is --option depth_unit=UNIT{way}")
    return line, notes


def _grey_range(values: NDArray[np.float64], white: int, levels_are_chosen: bool) -> tuple[str, list[str]]:
    """A note where the numbers use a small part of their range."""
    low, high = np.quantile(values, (0.01, 0.99))
    line = f"{low:.0f} to {high:.0f} of {white} (1 % to 99 %)"
    least, most = float(values.min()), float(values.max())
    between = f"all numbers lie between {least:.0f} and {most:.0f} of {white}"
    if white == 255 and most - least < 8:
        return line, [f"{between}: are these the pictures?"]
    if white == 255 or levels_are_chosen or high - low >= 4096:
        return line, []
    top = next((one for one in (1023, 4095, 16383) if most <= one), MISSING)
    levels = f"0:{top}" if least < 0.5 * top else f"{least:.0f}:{most:.0f}"
    return line, [f"{between}, few of the 8 bits stored: choose black and white, --option levels={levels}"]


def _require_bits(image: Image.Image, picture: Picture) -> None:
    """Raise when the numbers of a file have another type than the form needs, or Pillow would cut them."""
    mode, form = image.mode, picture.form
    sixteen = mode.startswith("I;16") or (mode == "I" and image.format == "PNG")
    bits = getattr(image, "tag_v2", {}).get(258, (8,))  # of a TIFF
    tiles = [str(one[3]) for one in getattr(image, "tile", ())] if image.format == "PNG" else []
    cut = mode in _EIGHT_BITS and (max(bits) > 8 or any("16" in one for one in tiles))
    given = f"{mode} of 16 bits" if cut else _MODES.get(mode, f"{mode} of 8 bits")
    floats = mode == "F" and picture.unit not in ("millimetres", "rotated")
    if form == "depth" and not (sixteen or floats):
        way = ": is it in metres (--option depth_unit=metres)?" if mode == "F" else ""
        raise BadPicture("wrong bit depth", f"depth must have one channel of 16 bits, not {given}{way}")
    if form == "colour" and (mode not in _EIGHT_BITS or cut):
        raise BadPicture("wrong bit depth", f"colour must have 8 bits per channel, not {given}: convert it")
    if form == "grey" and not sixteen and (mode not in _EIGHT_BITS or cut):
        raise BadPicture("wrong bit depth", f"8 bits, or one channel of 16, were expected, not {given}")
