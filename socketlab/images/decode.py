"""One picture file → the array that a pack stores. Loads no torch: every importing process loads this module.

Depth keeps its 16 bits and is resized by taking the nearest pixel: the mean of a near and a far surface, or
of a surface and a hole, is a distance that nobody measured. Colours are resized with antialiasing.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from socketlab.errors import LabError

FITS = ("centre", "letterbox", "stretch")
"""Ways to make a picture square: cut its middle out, pad it with black (missing), or squeeze it."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""Endings of the files that are read."""
UNITS = {"millimetres": 1.0, "metres": 1000.0}
"""Names of units of depth → millimetres; other units are counts per metre ("5000"), or ``rotated``."""
MISSING = 65535
"""Beside 0, what some sets and cameras write where they measured nothing."""
CHUNK = 64
"""Scenes that one job decodes."""

SAMPLE = 12
"""Pictures of each modality and domain whose values are looked at, evenly spaced."""
NEAREST_MEDIAN, FARTHEST_MEDIAN, FARTHEST = 100, 8000, 20_000
"""Millimetres: where the median of a room's depth lies, and what 99 % of it lie below."""
UNITS_TO_TRY = ("rotated", "5000", "10000", "4000", "512", "256", "metres")

_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
_EIGHT_BITS = ("L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
_MODES = {"1": "1 bit", "L": "8 bits", "I": "32 bits", "F": "floating point", "I;16": "16 bits"}
_BANDS = 13

Result = TypeVar("Result")


class BadPicture(Exception):
    """A file that cannot be used: the category, the reason, the file."""

    def __init__(self, what: str, why: str, path: Path | None = None) -> None:
        super().__init__(what, why, path)
        self.what, self.why, self.path = what, why, path


@dataclass(frozen=True)
class Picture:
    """A file and how it is read.

    Parameters
    ----------
    path : of the file.
    form : ``colour`` (8 bits, three channels), ``grey`` (8 or 16 bits, one channel of 8 stored), ``depth``
        (16 bits in the file, uint16 millimetres stored, 0 where missing), ``bands`` (a TIFF of 13 bands of
        16 bits; of each chosen one 8 bits are stored).
    unit : of the numbers of a depth file: a name in ``UNITS``, counts per metre, or ``rotated``: millimetres
        rotated left by three bits, as in SUN RGB-D.
    levels : numbers of a 16-bit file that are stored as 0 and 255; None for 0 and 65535.
    bands : numbers of the bands, from 1.
    """

    path: Path
    form: str
    unit: str = "millimetres"
    levels: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()

    @property
    def bytes_per_pixel(self) -> int:
        """Of the stored image."""
        return len(self.bands) or {"colour": 3, "grey": 1, "depth": 2}[self.form]


# ------------------------------------------------------------------------ numbers


def unrotated(raw: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Depth in millimetres of SUN RGB-D's pixels, which are rotated left by three bits; all 16 bits kept.

    Source: Song et al., CVPR 2015, the data set's own reader.
    """
    return np.bitwise_or(raw >> np.uint16(3), raw << np.uint16(13), dtype=np.uint16)


def millimetres(raw: NDArray[Any], unit: str) -> NDArray[np.uint16]:
    """Depth in millimetres of a file's numbers; 0 where they are 0, 65535 or no number, or beyond 65 m."""
    values: NDArray[Any] = raw
    if unit == "rotated":
        values = unrotated(raw)
    elif unit != "millimetres":
        factor = UNITS[unit] if unit in UNITS else 1000 / float(unit)
        scaled = np.where(raw == MISSING, 0.0, raw * factor)
        values = np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0).clip(0, MISSING) + 0.5
    return np.where(values < MISSING, values, 0).astype(np.uint16)


def eight_bits(raw: NDArray[Any], levels: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Numbers of 16 bits → 8 bits, ``levels`` at 0 and 255, rounded; what is beyond them is cut."""
    low, high = levels or (0.0, 65535.0)
    return ((raw - low) * (255.0 / (high - low)) + 0.5).clip(0, 255).astype(np.uint8)


# ------------------------------------------------------------------------ geometry


def square(width: int, height: int, fit: str) -> tuple[float, float, float, float]:
    """The part of a picture that is used: left, top, right, bottom, in pixels."""
    side = min(width, height) if fit == "centre" else 0
    left, top = ((width - side) / 2, (height - side) / 2) if side else (0, 0)
    return left, top, width - left, height - top


def inner(width: int, height: int, size: int, fit: str) -> tuple[int, int]:
    """Width and height, within the stored (size × size), of what is picture and not padding."""
    longer = max(width, height) if fit == "letterbox" else 0
    return (
        (size, size)
        if not longer
        else (max(1, round(size * width / longer)), max(1, round(size * height / longer)))
    )


def placed_intrinsics(
    intrinsics: tuple[float, ...], width: int, height: int, size: int, fit: str
) -> tuple[float, ...]:
    """Focal lengths and centre (f_x, f_y, c_x, c_y) in pixels of the file → in pixels of the stored image."""
    left, top, right, bottom = square(width, height, fit)
    across, down = inner(width, height, size, fit)
    scale_x, scale_y = across / (right - left), down / (bottom - top)
    f_x, f_y, c_x, c_y = intrinsics
    pad_x, pad_y = (size - across) // 2, (size - down) // 2
    return f_x * scale_x, f_y * scale_y, (c_x - left) * scale_x + pad_x, (c_y - top) * scale_y + pad_y


def squared(image: Image.Image, size: int | None, fit: str) -> NDArray[Any]:
    """A picture made square: (size, size) or (size, size, 3); what is padded is 0, that is missing depth."""
    if size is None or image.size == (size, size):
        return np.asarray(image)
    across, down = inner(*image.size, size, fit)
    how = Image.Resampling.NEAREST if image.mode == "I;16" else Image.Resampling.BILINEAR
    small = np.asarray(image.resize((across, down), how, box=square(*image.size, fit)))
    padded = np.zeros((size, size, *small.shape[2:]), small.dtype)
    y, x = (size - down) // 2, (size - across) // 2
    padded[y : y + down, x : x + across] = small
    return padded


# ------------------------------------------------------------------------ files


def _explained(read: Callable[..., Result]) -> Callable[..., Result]:
    """What a damaged file makes a decoder raise, as a BadPicture that names no private folder."""

    @functools.wraps(read)
    def explained(picture: Picture, *more: Any) -> Result:
        path = picture.path
        try:
            found = os.stat(path)
            if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
                raise BadPicture("folder in place of a file", "it is not a file")
            if found.st_size == 0:
                raise BadPicture("truncated file", "it is empty")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return read(picture, *more)
        except BadPicture as bad:
            raise BadPicture(bad.what, bad.why, path) from None
        except Exception as error:
            # Decoders raise OSError, SyntaxError, struct.error, IndexError and more for damaged files.
            what, why = "unreadable file", getattr(error, "strerror", None) or str(error)
            if isinstance(error, MemoryError):
                why = "it does not fit into memory"
            elif isinstance(error, UnidentifiedImageError):
                why = "it is no picture of a known kind"
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if file.read(40).startswith(b"version https://git-lfs"):
                    what, why = "Git LFS pointer", "its content was not fetched: run `git lfs pull`"
            why = " ".join(why.replace(str(path), path.name).split())
            raise BadPicture(what, why or type(error).__name__, path) from None

    return explained


@_explained
def size_of(picture: Picture) -> tuple[int, int]:
    """Width and height, upright, of a file that looks whole: right kind, bit depth and length; not decoded.

    Raises
    ------
    BadPicture : it cannot be used.
    """
    if picture.form == "bands":
        with _bands_of(picture.path) as page:
            return page.imagewidth, page.imagelength
    with Image.open(picture.path, formats=_FORMATS) as image:
        _require_bits(image, picture)
        _require_end(image, picture.path)
        turned = False
        with contextlib.suppress(Exception):  # a damaged EXIF block is no reason to refuse the pixels
            turned = image.format != "TIFF" and image.getexif().get(0x112, 1) >= 5  # Pillow turns a TIFF
        return (image.height, image.width) if turned else image.size


@_explained
def numbers_of(picture: Picture, seen: dict[Path, Any] | None = None) -> Image.Image | NDArray[Any]:
    """What a file holds, upright: an 8-bit picture, or the numbers (H, W) or (H, W, bands) of 16 bits.

    Parameters
    ----------
    seen : files of several bands that were read already, so that each is read once.

    Raises
    ------
    BadPicture : it cannot be used.
    """
    seen = {} if seen is None else seen
    if picture.form == "bands":
        if picture.path not in seen:
            with _bands_of(picture.path) as page:
                values = page.asarray(maxworkers=1)
            seen[picture.path] = values if values.shape[-1] == _BANDS else np.moveaxis(values, 0, -1)
        return seen[picture.path][..., [band - 1 for band in picture.bands]]
    with Image.open(picture.path, formats=_FORMATS) as image:
        _require_bits(image, picture)
        image.load()
        upright: Image.Image = image
        with contextlib.suppress(Exception):
            upright = ImageOps.exif_transpose(image)
        if picture.form == "depth" or (picture.form == "grey" and image.mode not in _EIGHT_BITS):
            return np.asarray(upright).astype(np.float64 if image.mode == "F" else np.uint16)
        return upright.convert("RGB" if picture.form == "colour" else "L")


def decoded(
    picture: Picture, size: int | None, fit: str, seen: dict[Path, Any] | None = None
) -> NDArray[Any]:
    """The picture as it is stored: (C, size, size) uint8, or uint16 for depth.

    Parameters
    ----------
    picture, seen : as in `numbers_of`.
    size : side in pixels; None leaves the picture as it is.
    fit : one of ``FITS``.

    Raises
    ------
    BadPicture : it cannot be used.
    """
    found = numbers_of(picture, seen)
    if isinstance(found, Image.Image):
        pixels = squared(found, size, fit)
        return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    if picture.form == "depth":
        return squared(Image.fromarray(millimetres(found, picture.unit)), size, fit)[None]
    eight = eight_bits(found.reshape(*found.shape[:2], -1), picture.levels)
    return np.stack([squared(Image.fromarray(eight[..., i]), size, fit) for i in range(eight.shape[2])])


def decode_all(
    scenes: Sequence[dict[str, Picture]],
    size: int,
    fit: str,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict[str, NDArray[Any]] | BadPicture]:
    """The images of each scene by modality, or what is wrong with one of them, in the order of the scenes.

    ``processes`` is one per core by default; ``progress`` is called with (scenes done, scenes).
    """
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    chunks = [scenes[i : i + CHUNK] for i in range(0, len(scenes), CHUNK)]
    jobs = (joblib.delayed(_decode_chunk)(chunk, size, fit) for chunk in chunks)
    wanted = min(processes or joblib.cpu_count(), max(1, len(chunks) // 2))  # to start one takes a second
    done = 0
    try:
        for found in joblib.Parallel(n_jobs=wanted, return_as="generator", idle_worker_timeout=60)(jobs):
            done += len(found)
            if progress is not None:
                progress(done, len(scenes))
            yield from found
    except BrokenProcessPool:
        raise LabError(
            "A process of the import died, probably out of memory: run it again with fewer --processes."
        ) from None


def _decode_chunk(
    scenes: Sequence[dict[str, Picture]], size: int, fit: str
) -> list[dict[str, NDArray[Any]] | BadPicture]:
    found: list[dict[str, NDArray[Any]] | BadPicture] = []
    for pictures in scenes:
        seen: dict[Path, Any] = {}
        try:
            found.append({m: decoded(picture, size, fit, seen) for m, picture in pictures.items()})
        except BadPicture as bad:
            found.append(bad)
    return found


# ------------------------------------------------------------------------ ranges of values


def value_range(pictures: Sequence[Picture], unit_is_known: bool) -> tuple[str, list[str]]:
    """The range of the numbers in pictures of one modality, in a line, and notes on what can hardly be right.

    A wrong unit or bit depth decodes without an error and gives wrong numbers. A sample makes it visible.
    """
    values, white = _sampled(pictures)
    if not len(values):
        return "nothing could be decoded", []
    if pictures[0].form == "depth":
        return _depth_range(values, pictures[0].unit, unit_is_known)
    return _grey_range(values, white, pictures[0].levels is not None)


def _sampled(pictures: Sequence[Picture]) -> tuple[NDArray[np.float64], int]:
    """Some thousand numbers of each of some pictures, and the largest number that their type can hold."""
    found, white = [np.zeros(0)], 255
    for i in range(min(SAMPLE, len(pictures))):
        try:
            numbers = numbers_of(pictures[i * len(pictures) // min(SAMPLE, len(pictures))])
        except BadPicture:
            continue  # counted when the pack is written
        values = np.asarray(numbers).ravel()
        white = white if isinstance(numbers, Image.Image) else MISSING
        found.append(values[:: max(1, len(values) // 8192)].astype(np.float64))
    return np.concatenate(found), white


def _measured(raw: NDArray[np.float64], unit: str) -> NDArray[np.uint16]:
    """The millimetres of the numbers that are a measurement."""
    whole_numbers = unit in ("rotated", "millimetres")
    found = millimetres(raw.clip(0, MISSING).astype(np.uint16) if whole_numbers else raw, unit)
    return found[found > 0]


def _depth_range(raw: NDArray[np.float64], unit: str, unit_is_known: bool) -> tuple[str, list[str]]:
    """A note where the unit can hardly be right, with the units that would give a room."""
    measured = _measured(raw, unit)
    if not len(measured):
        return "nothing", [f"all is missing: every number is 0 or {MISSING}"]
    low, middle, high = np.quantile(measured, (0.01, 0.5, 0.99))
    line = f"{low / 1000:.2f} to {high / 1000:.2f} m (1 % to 99 %), median {middle / 1000:.2f} m"
    line += f"; {1 - len(measured) / len(raw):.0%} missing"
    share, reasons = float((raw == MISSING).mean()), []
    notes = [f"{share:.2%} of the numbers are {MISSING}, which is stored as missing"] if share else []
    if middle < NEAREST_MEDIAN:
        reasons.append(f"half of it is nearer than {middle / 1000:.3f} m")
    if middle > FARTHEST_MEDIAN or high > FARTHEST:
        reasons.append(f"half of it is beyond {middle / 1000:.1f} m, 1 % beyond {high / 1000:.1f} m")
    numbers = raw[(raw > 0) & (raw < MISSING)]
    multiples = {n: float((numbers % n == 0).mean()) > 0.9 for n in (5, 8, 10, 16)}
    few = len(np.unique(numbers)) < 16
    divisor = next((n for n in (5, 8) if multiples[n] and not multiples[2 * n] and not few), 1)
    if unit == "millimetres" and divisor > 1:
        reasons.append(f"most numbers are multiples of {divisor}")
    if reasons and not unit_is_known:
        likely = []
        for other in UNITS_TO_TRY:
            there = _measured(raw, other)
            fits = len(there) and 300 <= np.median(there) <= 6000 and np.quantile(there, 0.99) <= 12_000
            if fits and other != unit and (other != "rotated" or divisor == 8):
                likely.append(f"{other} (median {np.median(there) / 1000:.2f} m)")
        way = f"; likely are {', '.join(likely)}" if likely else ""
        why = f"read as {unit}, {' and '.join(reasons)}"
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


# ------------------------------------------------------------------------ what a file must be


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


def _require_end(image: Image.Image, path: Path) -> None:
    """Raise when the file stops before its picture does, as far as that shows without decoding."""
    length = path.stat().st_size
    mark = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}.get(image.format or "", b"")
    with open(path, "rb") as file:
        file.seek(max(0, length - 65536))
        cut = mark not in file.read()
    if image.format == "TIFF":
        offsets, counts = (image.tag_v2.get(tag, (0,)) for tag in (273, 279))  # type: ignore[attr-defined]
        cut = max(map(sum, zip(offsets, counts, strict=False))) > length
    if cut:
        raise BadPicture("truncated file", "the file ends before the picture does")


@contextlib.contextmanager
def _bands_of(path: Path) -> Iterator[Any]:
    """The page of a TIFF of 13 bands of 16 bits; a BadPicture when it is another one."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # its errors come as a BadPicture
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        if page.samplesperpixel != _BANDS:
            raise BadPicture("wrong bands", f"{_BANDS} bands were expected, not {page.samplesperpixel}")
        if page.dtype != np.uint16:
            raise BadPicture("wrong bit depth", f"bands of 16 bits were expected, not {page.dtype}")
        if max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))) > path.stat().st_size:
            raise BadPicture("truncated file", "the file ends before the picture does")
        if page.imagewidth * page.imagelength > (Image.MAX_IMAGE_PIXELS or 2**27):
            raise BadPicture("unreadable file", "its header gives a size larger than any picture of the set")
        yield page
