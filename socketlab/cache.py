"""Results kept on disk by what they were made from: features of layers, maps.

An entry is a folder named by a digest of all that its arrays depend on (`fingerprint`): whatever changes
there asks for another entry, so nothing can be out of date. Entries are written whole or not at all, checked
each time they are read, made again when they are damaged, and the one unused for longest goes first when the
room is used up. The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from socketlab.errors import LabError
from socketlab.files import digest

LIMIT = 10 * 2**30
"""Bytes that a cache may take, unless told: 10 GB."""
ROOM = 2**29
"""Bytes of arrays that are held in memory, unless told: 512 MB. Larger ones stay in their files."""
A_DAY = 24 * 3600
FULL = (errno.ENOSPC, errno.EDQUOT)
_KEY = re.compile(r"[0-9a-f]{64}")


def cache_folder() -> Path:
    """Where results are kept: ``$SOCKETLAB_CACHE``, else ``socketlab`` in the user's folder for caches."""
    chosen = os.environ.get("SOCKETLAB_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("socketlab", appauthor=False)


class Entry:
    """An entry that is being written: give each array a file by its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}

    def file(self, name: str) -> Path:
        """Where to write the .npy file of this array; names may hold what file names may not."""
        return self.files.setdefault(name, self.folder / f"{len(self.files)}.npy")

    def save(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Write arrays that are in memory."""
        for name, array in arrays.items():
            np.save(self.file(name), array, allow_pickle=False)

    def seal(self) -> None:
        """List the files with their digests: an entry without this list does not count."""
        listed = [
            {"name": name, "file": path.name, "bytes": path.stat().st_size, "sha256": digest(path)}
            for name, path in self.files.items()
        ]
        (self.folder / "about.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")


class Cache:
    """A folder of results, of bounded size.

    Parameters
    ----------
    folder : made when missing; `cache_folder` unless told. Other files in it are left alone.
    limit : bytes that all entries may take together. The newest stays, however large it is.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: int = LIMIT) -> None:
        self.folder = cache_folder() if folder is None else Path(folder).expanduser()
        self.limit = limit

    def get(self, key: str, make: Callable[[Entry], None], room: int = ROOM) -> dict[str, NDArray[Any]]:
        """The arrays of an entry; made, kept and read back when it is missing or damaged.

        Parameters
        ----------
        key : from `fingerprint`.
        make : writes the arrays into the entry; whatever it raises leaves nothing behind.
        room : bytes that may be in memory; more is mapped from the files, read-only.

        Returns
        -------
        name → array, in the order written.

        Raises
        ------
        LabError : the disk is full, or the folder cannot be written.
        """
        found = self.load(key, room)
        if found is None:
            self._write(key, make)
            found = self.load(key, room)
            self._trim(newest=key)
        if found is None:
            raise LabError(f"An entry of the cache {self.folder} went away while it was in use: try again.")
        return found

    def load(self, key: str, room: int = ROOM) -> dict[str, NDArray[Any]] | None:
        """The arrays of an entry, or None; an entry that differs from what was written is removed."""
        folder = self.folder / key
        try:
            listed = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            mode = "r" if sum(one["bytes"] for one in listed) > room else None
            if any(digest(folder / one["file"]) != one["sha256"] for one in listed):
                raise ValueError("a file has changed")
            arrays = {
                one["name"]: np.load(folder / one["file"], mmap_mode=mode, allow_pickle=False)  # type: ignore
                for one in listed
            }
            os.utime(folder / "about.json")
        except (OSError, LabError, ValueError, KeyError, TypeError, AttributeError):
            _remove(folder)
            return None
        return arrays

    def _write(self, key: str, make: Callable[[Entry], None]) -> None:
        unfinished = self.folder / f".{key}.{uuid.uuid4().hex}.unfinished"
        try:
            with self._writable():
                unfinished.mkdir(parents=True)
            entry = Entry(unfinished)
            try:
                make(entry)
            except OSError as error:
                if error.errno not in FULL:
                    raise  # the maker's own: an image that is not there
                raise self._refusal(error) from error
            with self._writable():
                entry.seal()
                _publish(unfinished, self.folder / key)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> LabError:
        reason = "the disk is full" if error.errno in FULL else error.strerror or error
        return LabError(
            f"The cache {self.folder} cannot be written ({reason}): free space, set SOCKETLAB_CACHE to "
            "another folder, or do without a cache."
        )

    def _trim(self, newest: str) -> None:
        """Remove what was unused for longest until the rest fits, and what a crash left unfinished."""
        entries = []
        for folder in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process may be trimming too
                if _KEY.fullmatch(folder.name) and folder.name != newest:
                    used = (folder / "about.json").stat().st_mtime_ns
                    entries.append((used, _size(folder), folder))
                elif folder.name.endswith(".unfinished") and folder.stat().st_mtime < time.time() - A_DAY:
                    shutil.rmtree(folder, ignore_errors=True)
        taken = _size(self.folder / newest) + sum(size for _, size, _ in entries)
        for _, size, folder in sorted(entries):
            if taken <= self.limit:
                break
            _remove(folder)
            taken -= size


def opened(cache: Cache | str | os.PathLike[str] | None) -> Cache | None:
    """A cache as functions take it: a `Cache`, a folder, or None for none."""
    return cache if cache is None or isinstance(cache, Cache) else Cache(cache)


def fingerprint(*parts: Any) -> str:
    """SHA-256 over the content of tensors, arrays, numbers, texts, None, and lists, tuples and dicts of them.

    Type, shape and order count; where a tensor lies and how it is laid out in memory do not.
    """
    state = hashlib.sha256()
    for part in parts:
        _feed(state, part)
    return state.hexdigest()


def feed_bytes(state: Any, values: Tensor | NDArray[Any]) -> None:
    """Feed the bare content of a tensor or an array to a hash, a thousand rows at a time."""
    whole = values.detach() if isinstance(values, Tensor) else np.asarray(values)
    for first in range(0, len(whole), 1024) if whole.ndim else [...]:
        rows = whole if first is ... else whole[first : first + 1024]
        if isinstance(rows, Tensor):
            rows = rows.contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
        state.update(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)


def _feed(state: Any, part: Any) -> None:
    if isinstance(part, Tensor | np.ndarray):
        kind = f"{type(part).__module__.split('.')[0]} {part.dtype} {tuple(part.shape)}"
        state.update(f"<{kind}>".encode())
        feed_bytes(state, part)
    elif isinstance(part, dict):
        state.update(b"<dict>")
        _feed(state, list(part.items()))
    elif isinstance(part, list | tuple):
        state.update(f"<{len(part)} parts>".encode())
        for one in part:
            _feed(state, one)
    elif part is None or isinstance(part, bool | int | float | str | bytes):
        text = repr(part).encode()
        state.update(f"<{type(part).__name__} {len(text)}>".encode() + text)
    else:
        raise TypeError(f"no fingerprint of a {type(part).__name__}")


def _publish(unfinished: Path, folder: Path) -> None:
    """Give a finished entry its name in one step; another process may have been first with the same one."""
    try:
        os.rename(unfinished, folder)
    except OSError:
        if not folder.is_dir():
            raise


def _remove(folder: Path) -> None:
    """Take an entry away in one step, so that nobody reads half of it; one in use (on Windows) stays."""
    doomed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.unfinished")
    with contextlib.suppress(OSError):
        os.rename(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0
