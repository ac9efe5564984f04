"""One picture file → the array that a pack stores. Loads no torch: every importing process loads this.

Depth keeps its 16 bits and is resized by taking the nearest pixel: the mean of a near and a far surface, or
of a surface and a hole, is a distance that nobody measured. Colours are resized with antialiasing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

FITS = ("centre", "letterbox", "stretch")
"""Ways to make a picture square: cut its middle out, pad it with black (missing), or squeeze it."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""Files with other endings are not looked at."""

FORMS = {"colour": 3, "grey": 1, "depth": 1, "rotated": 1, "bands": 0}
"""How a file is read → channels stored; of ``bands`` as many as were chosen."""

_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
_EIGHT_BITS = ("L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_BANDS = 13


class BadPicture(Exception):
    """A file that cannot be used; ``what`` is its category, the message the reason."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what, self.why = what, why


@dataclass(frozen=True)
class Picture:
    """A file and how it is read.

    Parameters
    ----------
    path : of the file.
    form : ``colour`` (8 bits, three channels), ``grey`` (8 or 16 bits, one channel of 8 stored), ``depth``
        (16 bits, millimetres, 0 where missing), ``rotated`` (depth, rotated left by three bits as in
        SUN RGB-D), ``bands`` (a TIFF of 13 bands, 16 bits).
    bands : numbers of the bands, from 1, where the form is ``bands``.
    white : value of a band that is stored as 255; more is cut.
    """

    path: Path
    form: str
    bands: tuple[int, ...] = ()
    white: float = 255.0

    @property
    def channels(self) -> int:
        """Channels stored."""
        return len(self.bands) if self.form == "bands" else FORMS[self.form]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type stored: uint16 for depth, uint8 for the rest."""
        return np.dtype(np.uint16 if self.form in ("depth", "rotated") else np.uint8)


def unrotated(raw: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Depth in millimetres of SUN RGB-D's pixels, which are rotated left by three bits; all 16 bits kept.

    Source: Song et al., CVPR 2015, the data set's own reader.
    """
    return np.bitwise_or(raw >> np.uint16(3), raw << np.uint16(13), dtype=np.uint16)


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


def size_of(picture: Picture) -> tuple[int, int]:
    """Width and height of a file that looks whole: right kind, bit depth and length; not decoded.

    Raises
    ------
    BadPicture : it cannot be used.
    """
    return _explained(picture, _size_of)


def decoded(
    picture: Picture, size: int | None, fit: str, seen: dict[Path, Any] | None = None
) -> NDArray[Any]:
    """The picture as it is stored.

    Parameters
    ----------
    picture : what to read.
    size : side in pixels; None leaves the picture as it is.
    fit : one of ``FITS``.
    seen : files of several bands that were read already, so that each is read once.

    Returns
    -------
    (C, size, size) uint8, or uint16 for depth.

    Raises
    ------
    BadPicture : it cannot be used.
    """
    return _explained(picture, lambda one: _decoded(one, size, fit, {} if seen is None else seen))


def _explained(picture: Picture, read: Callable[[Picture], Any]) -> Any:
    """Whatever a damaged file makes a decoder raise, as a BadPicture that does not name private folders."""
    try:
        _require_file(picture.path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(picture)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture("unreadable file", "it is no picture of a known kind") from None
    except MemoryError:
        raise BadPicture("unreadable file", "it does not fit into memory") from None
    except Exception as error:
        # Decoders raise OSError, SyntaxError, struct.error, IndexError and more for damaged files.
        why = getattr(error, "strerror", None) or str(error).replace(str(picture.path), picture.path.name)
        raise BadPicture("unreadable file", " ".join(why.split()) or type(error).__name__) from None


def _require_file(path: Path) -> None:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
        raise BadPicture("folder in place of a file", "it is not a file")
    if found.st_size == 0:
        raise BadPicture("truncated file", "it is empty")


def _size_of(picture: Picture) -> tuple[int, int]:
    if picture.form == "bands":
        with _bands_of(picture.path) as page:
            return page.imagewidth, page.imagelength
    with Image.open(picture.path, formats=_FORMATS) as image:
        _require_bits(image, picture.form)
        _require_end(image, picture.path)
        return image.size


def _require_bits(image: Image.Image, form: str) -> None:
    mode = image.mode
    sixteen = mode in _SIXTEEN_BITS or (mode == "I" and image.format == "PNG")
    if form in ("depth", "rotated") and not sixteen:
        why = f"depth must have one channel of 16 bits, not {_told(mode)}"
        raise BadPicture("wrong bit depth", why)
    if form == "colour" and mode not in _EIGHT_BITS:
        raise BadPicture("wrong bit depth", f"colour must have 8 bits per channel, not {_told(mode)}")
    if form == "grey" and mode not in _EIGHT_BITS and not sixteen:
        raise BadPicture("wrong bit depth", f"8 or 16 bits were expected, not {_told(mode)}")


def _told(mode: str) -> str:
    known = {
        "1": "1 bit",
        "L": "8 bits",
        "I": "32 bits",
        "F": "floating point",
        "I;16": "16 bits in one channel",
    }
    return known.get(mode, f"{mode} of 8 bits" if mode in _EIGHT_BITS else mode)


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


def _decoded(picture: Picture, size: int | None, fit: str, seen: dict[Path, Any]) -> NDArray[Any]:
    if picture.form == "bands":
        if picture.path not in seen:
            with _bands_of(picture.path) as page:
                values = page.asarray(maxworkers=1)
            seen[picture.path] = values if values.shape[-1] == _BANDS else np.moveaxis(values, 0, -1)
        chosen = seen[picture.path][..., [band - 1 for band in picture.bands]]
        eight = np.clip(chosen * (255.0 / picture.white) + 0.5, 0, 255).astype(np.uint8)
        return np.stack([_resized(Image.fromarray(eight[..., i]), size, fit) for i in range(eight.shape[2])])
    with Image.open(picture.path, formats=_FORMATS) as image:
        _require_bits(image, picture.form)
        if picture.form in ("depth", "rotated"):
            raw = np.asarray(image).astype(np.uint16)
            return nearest(unrotated(raw) if picture.form == "rotated" else raw, size, fit)[None]
        if picture.form == "grey" and image.mode not in _EIGHT_BITS:
            values = np.asarray(image).astype(np.uint32)
            eight_bits = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        else:
            eight_bits = image
        pixels = _resized(eight_bits.convert("RGB" if picture.form == "colour" else "L"), size, fit)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def _resized(image: Image.Image, size: int | None, fit: str) -> NDArray[np.uint8]:
    """An 8-bit picture made square, with antialiasing: (size, size) or (size, size, 3)."""
    if size is None or (image.size == (size, size)):
        return np.asarray(image)
    across, down = inner(*image.size, size, fit)
    small = image.resize((across, down), Image.Resampling.BILINEAR, box=square(*image.size, fit))
    if (across, down) == (size, size):
        return np.asarray(small)
    padded = Image.new(image.mode, (size, size))
    padded.paste(small, ((size - across) // 2, (size - down) // 2))
    return np.asarray(padded)


def nearest(values: NDArray[Any], size: int | None, fit: str) -> NDArray[Any]:
    """(H, W) → (size, size), each pixel the one under its centre; padding is 0, that is missing depth."""
    height, width = values.shape
    if size is None:
        return values
    left, top, right, bottom = square(width, height, fit)
    across, down = inner(width, height, size, fit)
    rows = (top + (np.arange(down) + 0.5) * (bottom - top) / down).astype(np.int64)
    columns = (left + (np.arange(across) + 0.5) * (right - left) / across).astype(np.int64)
    small = values[rows[:, None], columns]
    if small.shape == (size, size):
        return small
    padded = np.zeros((size, size), values.dtype)
    y, x = (size - down) // 2, (size - across) // 2
    padded[y : y + down, x : x + across] = small
    return padded


@contextlib.contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """Keep a library from printing what is told in our own words."""
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


@contextlib.contextmanager
def _bands_of(path: Path) -> Iterator[Any]:
    """The page of a TIFF of 13 bands of 16 bits; a BadPicture when it is another one."""
    import tifffile

    with _silent(logging.getLogger("tifffile")), tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        if page.samplesperpixel != _BANDS:
            why = f"{_BANDS} bands were expected, not {page.samplesperpixel}"
            raise BadPicture("wrong bit depth", why)
        if page.dtype != np.uint16:
            raise BadPicture("wrong bit depth", f"bands of 16 bits were expected, not {page.dtype}")
        ends = (o + c for o, c in zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > path.stat().st_size:
            raise BadPicture("truncated file", "the file ends before the picture does")
        if page.imagewidth * page.imagelength > (Image.MAX_IMAGE_PIXELS or 2**27):
            raise BadPicture("unreadable file", "it says that it is larger than any picture of the set")
        yield page


@dataclass(frozen=True)
class Chunk:
    """Consecutive scenes of a pack, and where their rows go.

    Parameters
    ----------
    index : number of the chunk.
    scenes : number of the scene → its pictures by modality.
    places : modality → file and byte where its first row goes; rows follow each other.
    size, fit : as in `decoded`.
    """

    index: int
    scenes: dict[int, dict[str, Picture]]
    places: dict[str, tuple[Path, int]]
    size: int
    fit: str


@dataclass(frozen=True)
class Done:
    """What became of a chunk: scenes that failed, and digests of the rows and of what they came from."""

    index: int
    failed: list[tuple[int, str, str, str]]
    digests: dict[str, str]
    inputs: str


def pack_chunk(chunk: Chunk) -> Done:
    """Decode the scenes of a chunk and write them to their places; rows of unreadable scenes are 0."""
    rows: dict[str, list[NDArray[Any]]] = {modality: [] for modality in chunk.places}
    failed = []
    inputs = inputs_of(chunk)
    for scene, pictures in chunk.scenes.items():
        seen: dict[Path, Any] = {}
        for modality, picture in pictures.items():
            try:
                rows[modality].append(decoded(picture, chunk.size, chunk.fit, seen))
            except BadPicture as bad:
                failed.append((scene, modality, bad.what, bad.why))
                rows[modality].append(np.zeros((picture.channels, chunk.size, chunk.size), picture.dtype))
    digests = {}
    for modality, (file, offset) in chunk.places.items():
        data = np.stack(rows[modality]).tobytes()
        write_at(file, offset, data)
        digests[modality] = hashlib.sha256(data).hexdigest()
    return Done(chunk.index, failed, digests, inputs)


def inputs_of(chunk: Chunk) -> str:
    """A digest of the sizes and times of a chunk's files: another one when a file was changed."""
    seen = hashlib.sha256()
    for pictures in chunk.scenes.values():
        for modality, picture in pictures.items():
            try:
                found = os.stat(picture.path)
                told = f"{modality} {picture.path} {found.st_size} {found.st_mtime_ns}"
            except OSError:
                told = f"{modality} {picture.path} gone"
            seen.update(told.encode("utf-8", "backslashreplace"))
    return seen.hexdigest()


def write_at(file: Path, offset: int, data: bytes) -> None:
    """Write bytes into an existing file."""
    with open(file, "r+b") as opened:
        opened.seek(offset)
        opened.write(data)


def look(pictures: list[Picture], thorough: bool = False) -> list[tuple[int, int] | tuple[str, str]]:
    """Of every picture its width and height, or what is wrong with it and why."""
    found: list[tuple[int, int] | tuple[str, str]] = []
    for picture in pictures:
        try:
            size = size_of(picture)
            if thorough:
                decoded(picture, None, "stretch")
            found.append(size)
        except BadPicture as bad:
            found.append((bad.what, bad.why))
    return found
