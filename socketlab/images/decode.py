"""One picture file → the array that a pack stores. Loads no torch: every importing process loads this module.

Depth keeps its 16 bits and is resized by taking the nearest pixel: the mean of a near and a far surface, or
of a surface and a hole, is a distance that nobody measured. Colours are resized with antialiasing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from socketlab.errors import LabError

FITS = ("centre", "letterbox", "stretch")
"""Ways to make a picture square: cut its middle out, pad it with black (missing), or squeeze it."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""Endings of the files that are read."""

CHANNELS = {"colour": 3, "grey": 1, "depth": 1}
"""Form of a picture → channels stored; of the form ``bands`` as many as were chosen."""

UNITS = {"millimetres": 1.0, "metres": 1000.0}
"""Names of units of depth → millimetres; other units are numbers, counts per metre, or ``rotated``."""

MISSING = 65535
"""Beside 0, what some sets and cameras write where they measured nothing."""

_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
_EIGHT_BITS = ("L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_MODES = {"1": "1 bit", "L": "8 bits", "I": "32 bits", "F": "floating point", "I;16": "16 bits"}
_BANDS = 13
CHUNK = 64
"""Scenes that one job decodes."""
_SWAPPED = range(5, 9)
"""EXIF orientations of pictures that lie on their side."""


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
    unit : of the numbers of a depth file: a name in ``UNITS``, counts per metre ("5000"), or ``rotated``:
        millimetres rotated left by three bits, as in SUN RGB-D.
    levels : numbers of a 16-bit file that are stored as 0 and 255; None for 0 and 65535.
    bands : numbers of the bands, from 1.
    """

    path: Path
    form: str
    unit: str = "millimetres"
    levels: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        """Channels stored."""
        return len(self.bands) or CHANNELS[self.form]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type stored: uint16 for depth, uint8 for the rest."""
        return np.dtype(np.uint16 if self.form == "depth" else np.uint8)


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
    if fit != "centre":
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def inner(width: int, height: int, size: int, fit: str) -> tuple[int, int]:
    """Width and height, within the stored (size × size), of what is picture and not padding."""
    if fit != "letterbox":
        return size, size
    longer = max(width, height)
    return max(1, round(size * width / longer)), max(1, round(size * height / longer))


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


def squared(image: Image.Image, size: int | None, fit: str, resample: int) -> NDArray[Any]:
    """A picture made square: (size, size) or (size, size, 3); what is padded is 0, that is missing depth."""
    if size is None or image.size == (size, size):
        return np.asarray(image)
    across, down = inner(*image.size, size, fit)
    small = image.resize((across, down), resample, box=square(*image.size, fit))
    padded = np.zeros((size, size, *np.asarray(small).shape[2:]), np.asarray(small).dtype)
    y, x = (size - down) // 2, (size - across) // 2
    padded[y : y + down, x : x + across] = np.asarray(small)
    return padded


# ------------------------------------------------------------------------ files


def size_of(picture: Picture) -> tuple[int, int]:
    """Width and height, upright, of a file that looks whole: right kind, bit depth and length; not decoded.

    Raises
    ------
    BadPicture : it cannot be used.
    """

    def look() -> tuple[int, int]:
        if picture.form == "bands":
            with _silent_tifffile(picture.path) as file:
                page = _checked_page(file, picture.path)
                return page.imagewidth, page.imagelength
        with Image.open(picture.path, formats=_FORMATS) as image:
            _require_bits(image, picture)
            _require_end(image, picture.path)
            on_its_side = image.format != "TIFF" and _orientation(image) in _SWAPPED  # Pillow turns a TIFF
            return (image.height, image.width) if on_its_side else image.size

    return _explained(picture.path, look)


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

    def read() -> Image.Image | NDArray[Any]:
        if picture.form == "bands":
            if picture.path not in seen:
                with _silent_tifffile(picture.path) as file:
                    values = _checked_page(file, picture.path).asarray(maxworkers=1)
                seen[picture.path] = values if values.shape[-1] == _BANDS else np.moveaxis(values, 0, -1)
            return seen[picture.path][..., [band - 1 for band in picture.bands]]
        with Image.open(picture.path, formats=_FORMATS) as image:
            _require_bits(image, picture)
            image.load()
            upright = _upright(image)
            if picture.form == "depth" or (picture.form == "grey" and image.mode not in _EIGHT_BITS):
                values = np.asarray(upright)
                return values if image.mode == "F" else values.astype(np.uint16)
            return upright.convert("RGB" if picture.form == "colour" else "L")

    return _explained(picture.path, read)


def decoded(
    picture: Picture, size: int | None, fit: str, seen: dict[Path, Any] | None = None
) -> NDArray[Any]:
    """The picture as it is stored.

    Parameters
    ----------
    picture, seen : as in `numbers_of`.
    size : side in pixels; None leaves the picture as it is.
    fit : one of ``FITS``.

    Returns
    -------
    (C, size, size) uint8, or uint16 for depth.

    Raises
    ------
    BadPicture : it cannot be used.
    """
    found = numbers_of(picture, seen)
    if isinstance(found, Image.Image):
        pixels = squared(found, size, fit, Image.Resampling.BILINEAR)
        return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    if picture.form == "depth":
        depth = Image.fromarray(millimetres(found, picture.unit))
        return squared(depth, size, fit, Image.Resampling.NEAREST)[None]
    eight = eight_bits(found.reshape(*found.shape[:2], -1), picture.levels)
    bands = [Image.fromarray(eight[..., i]) for i in range(eight.shape[2])]
    return np.stack([squared(band, size, fit, Image.Resampling.BILINEAR) for band in bands])


def decode_all(
    scenes: Sequence[dict[str, Picture]],
    size: int,
    fit: str,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict[str, NDArray[Any]] | BadPicture]:
    """The images of each scene by modality, or what is wrong with one of them, in the order of the scenes.

    Parameters
    ----------
    scenes : the pictures of each by modality.
    size, fit : as in `decoded`.
    processes : default: one per core.
    progress : called with (scenes done, scenes).

    Raises
    ------
    LabError : a process died.
    """
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    chunks = [scenes[i : i + CHUNK] for i in range(0, len(scenes), CHUNK)]
    jobs = (joblib.delayed(_decode_chunk)(chunk, size, fit) for chunk in chunks)
    wanted = min(processes or joblib.cpu_count(), max(1, len(chunks) // 2))  # to start one takes a second
    done = 0
    try:
        for found in joblib.Parallel(n_jobs=wanted, return_as="generator", idle_worker_timeout=5)(jobs):
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


def _explained(path: Path, read: Callable[[], Any]) -> Any:
    """``read()``; what a damaged file makes a decoder raise, as a BadPicture that names no private folder."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            raise BadPicture("folder in place of a file", "it is not a file")
        if found.st_size == 0:
            raise BadPicture("truncated file", "it is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except BadPicture as bad:
        raise BadPicture(bad.what, bad.why, path) from None
    except Exception as error:
        # Decoders raise OSError, SyntaxError, struct.error, IndexError and more for damaged files.
        what, why = "unreadable file", getattr(error, "strerror", None) or str(error)
        if _is_lfs_pointer(path):
            what, why = "Git LFS pointer", "its content was not fetched: run `git lfs pull`"
        elif isinstance(error, UnidentifiedImageError):
            why = "it is no picture of a known kind"
        elif isinstance(error, MemoryError):
            why = "it does not fit into memory"
        why = " ".join(why.replace(str(path), path.name).split())
        raise BadPicture(what, why or type(error).__name__, path) from None


def _is_lfs_pointer(path: Path) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(40).startswith(b"version https://git-lfs")
    return False


def _require_bits(image: Image.Image, picture: Picture) -> None:
    """Raise when the numbers of a file have another type than the form needs."""
    mode, form = image.mode, picture.form
    sixteen = mode in _SIXTEEN_BITS or (mode == "I" and image.format == "PNG")
    given = _MODES.get(mode, f"{mode} of 8 bits" if mode in _EIGHT_BITS else mode)
    if mode in _EIGHT_BITS and _is_cut(image):
        given = f"{mode} of 16 bits"
    if form == "depth" and mode == "F" and picture.unit not in ("millimetres", "rotated"):
        return
    if form == "depth" and not sixteen:
        way = ": is it in metres (--option depth_unit=metres)?" if mode == "F" else ""
        raise BadPicture("wrong bit depth", f"depth must have one channel of 16 bits, not {given}{way}")
    if form == "colour" and (mode not in _EIGHT_BITS or _is_cut(image)):
        raise BadPicture("wrong bit depth", f"colour must have 8 bits per channel, not {given}: convert it")
    if form == "grey" and not sixteen and (mode not in _EIGHT_BITS or _is_cut(image)):
        raise BadPicture("wrong bit depth", f"8 bits, or one channel of 16, were expected, not {given}")


def _is_cut(image: Image.Image) -> bool:
    """Whether Pillow would cut the channels of a picture to 8 bits."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,))) > 8  # type: ignore[attr-defined]
    tiles = getattr(image, "tile", ()) if image.format == "PNG" else ()
    return any("16" in str(one[3]) for one in tiles)


def _require_end(image: Image.Image, path: Path) -> None:
    """Raise when the file stops before its picture does, as far as that shows without decoding."""
    length = path.stat().st_size
    cut = BadPicture("truncated file", "the file ends before the picture does")
    if image.format == "TIFF":
        offsets, counts = image.tag_v2.get(273, (0,)), image.tag_v2.get(279, (0,))  # type: ignore[attr-defined]
        if max(o + c for o, c in zip(offsets, counts, strict=False)) > length:
            raise cut
    mark = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}.get(image.format or "")
    if mark is not None:
        with open(path, "rb") as file:
            file.seek(max(0, length - 65536))
            if mark not in file.read():
                raise cut


def _orientation(image: Image.Image) -> int:
    with contextlib.suppress(Exception):  # a damaged EXIF block is no reason to refuse the pixels
        return int(image.getexif().get(0x112, 1))
    return 1


def _upright(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it, by the orientation in its EXIF block."""
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


@contextlib.contextmanager
def _silent_tifffile(path: Path) -> Any:
    """A TIFF opened by tifffile, whose log messages are left out: the errors come as a BadPicture."""
    import tifffile

    logger = logging.getLogger("tifffile")
    was, logger.disabled = logger.disabled, True
    try:
        with tifffile.TiffFile(path) as file:
            yield file
    finally:
        logger.disabled = was


def _checked_page(file: Any, path: Path) -> Any:
    """The page of a TIFF of 13 bands of 16 bits; a BadPicture when it is another one."""
    page = file.pages[0]
    if page.samplesperpixel != _BANDS:
        raise BadPicture("wrong bands", f"{_BANDS} bands were expected, not {page.samplesperpixel}")
    if page.dtype != np.uint16:
        raise BadPicture("wrong bit depth", f"bands of 16 bits were expected, not {page.dtype}")
    ends = (o + c for o, c in zip(page.dataoffsets, page.databytecounts, strict=False))
    if max(ends, default=0) > path.stat().st_size:
        raise BadPicture("truncated file", "the file ends before the picture does")
    if page.imagewidth * page.imagelength > (Image.MAX_IMAGE_PIXELS or 2**27):
        raise BadPicture("unreadable file", "its header gives a size larger than any picture of the set")
    return page
