"""Arrays that grow a batch at a time: in memory as long as they are small, then in files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from socketlab.errors import LabError


class GrowingArrays:
    """Named arrays of one dtype that get more rows. Use as a context; `finish` closes the files.

    Parameters
    ----------
    dtype : of the numbers that are kept.
    file : name → where its .npy file goes, once it needs one; a temporary file when None.
    budget : bytes that all arrays may hold in memory together. One more, and all continue in files.
    """

    def __init__(self, dtype: DTypeLike, file: Callable[[str], Path] | None, budget: int) -> None:
        self.dtype = np.dtype(dtype)
        self.budget = budget
        self._file = file
        self._widths: dict[str, tuple[int, ...]] = {}
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._counts: dict[str, int] = {}
        self._open: dict[str, BinaryIO] = {}
        self._paths: dict[str, Path] = {}
        self._held = 0
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> GrowingArrays:
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self._open.values():
            stream.close()
        self._parts.clear()

    def append(self, name: str, rows: NDArray[Any]) -> None:
        """Add rows (n, ...) to an array.

        Raises
        ------
        LabError : rows of another width than before, or numbers too large for float16.
        """
        width = self._widths.setdefault(name, rows.shape[1:])
        if rows.shape[1:] != width:
            raise LabError(
                f"{name!r} is {width} wide for some images and {rows.shape[1:]} for others: give images of "
                'one size, or average over places with pool="mean".'
            )
        kept = self._converted(name, rows)
        self._counts[name] = self._counts.get(name, 0) + len(kept)
        self._held += kept.nbytes
        if self._open or self._held > self.budget:
            self._to_files()
            self._stream(name).write(kept.data)
        else:
            self._parts.setdefault(name, []).append(kept)

    def finish(self) -> dict[str, NDArray[Any]]:
        """The arrays by name: in memory, or read-only memory maps of the files."""
        if not self._open:
            return {name: np.concatenate(self._parts.pop(name)) for name in list(self._parts)}
        for name, stream in self._open.items():
            stream.seek(0)
            self._write_header(stream, name, self._counts[name])
            stream.close()
        found = {name: np.load(path, mmap_mode="r") for name, path in self._paths.items()}
        if self._temporary is not None:
            _give_back_with_the_last_view(self._temporary)
        return found

    def _converted(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(rows, dtype=self.dtype)
        if kept.dtype.itemsize < rows.dtype.itemsize and (np.isinf(kept) & np.isfinite(rows)).any():
            largest = np.abs(rows[np.isfinite(rows)]).max()
            raise LabError(f"{name!r} reaches {largest:.3g}, too much for {self.dtype}: keep it as float32.")
        return kept

    def _to_files(self) -> None:
        for name in list(self._parts):
            for part in self._parts.pop(name):
                self._stream(name).write(part.data)

    def _stream(self, name: str) -> BinaryIO:
        if name not in self._open:
            self._paths[name] = self._file(name) if self._file else self._temporary_file(name)
            self._open[name] = open(self._paths[name], "xb")  # noqa: SIM115 (closed by this context)
            self._write_header(self._open[name], name, 0)
        return self._open[name]

    def _write_header(self, stream: BinaryIO, name: str, count: int) -> None:
        """The .npy header; numpy leaves room in it for the count to grow, so that it can be written over."""
        about = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (count, *self._widths[name]),
        }
        np.lib.format.write_array_header_1_0(stream, about)

    def _temporary_file(self, name: str) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="socketlab-", ignore_cleanup_errors=True)
        return Path(self._temporary.name) / f"{len(self._paths)}.npy"


_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when Python ends


def _give_back_with_the_last_view(folder: tempfile.TemporaryDirectory[str]) -> None:
    """Take the names of mapped files away: the disk is freed when nothing looks at them any more.

    Where open files keep their names (Windows), they go when Python ends.
    """
    for path in Path(folder.name).iterdir():
        with contextlib.suppress(OSError):
            path.unlink()
    _kept.append(folder)
