"""Results kept on disk by what they were made from: features of layers, maps. It may be deleted at any time.

An entry is a folder named by a digest of all that its arrays depend on (`fingerprint`), so nothing can be
out of date. It is written whole or not at all, and made again when it cannot be read; the one unused for
longest goes first when the room is used up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from socketlab.errors import LabError
from socketlab.files import FULL

LIMIT = 10 * 2**30  # bytes that a cache may take by default
ROOM = 2**29  # bytes of arrays that are held in memory by default; larger ones stay in their files
A_DAY = 24 * 3600
NAMES = "names.json"
_KEY = re.compile(r"[0-9a-f]{64}")


def cache_folder() -> Path:
    """Where results are kept: ``$SOCKETLAB_CACHE``, else ``socketlab`` in the user's folder for caches."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("SOCKETLAB_CACHE")
    try:
        return Path(chosen).expanduser() if chosen else user_cache_path("socketlab", appauthor=False)
    except RuntimeError as error:  # ~nobody
        raise LabError(f"SOCKETLAB_CACHE={chosen} is no folder ({error}): set it to another.") from error


@dataclass
class Entry:
    """An entry that is being written: a .npy file for each array, and a list of their names."""

    folder: Path
    files: dict[str, BinaryIO] = field(default_factory=dict)

    def save(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Write whole arrays."""
        for name, array in arrays.items():
            self.append(name, array, array.shape)

    def append(self, name: str, rows: NDArray[Any], shape: tuple[int, ...]) -> None:
        """Write the next rows of an array that has this shape in the end."""
        if rows.dtype.hasobject:
            raise ValueError("an array of objects would need pickle")
        if name not in self.files:
            path = self.folder / f"{len(self.files)}.npy"  # names may hold what file names may not
            self.files[name] = open(path, "xb")  # noqa: SIM115 (closed by `close`)
            about = {"descr": rows.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self.files[name], about)
        self.files[name].write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)


class Cache:
    """A folder of results, of bounded size.

    Other files in the ``folder`` are left alone (default: `cache_folder`). ``limit`` are bytes that all
    entries may take together; the newest stays, however large it is.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: int = LIMIT) -> None:
        self.folder = cache_folder() if folder is None else Path(os.path.expanduser(folder))
        self.limit = limit

    def get(self, key: str, make: Callable[[Entry], None], room: int = ROOM) -> dict[str, NDArray[Any]]:
        """The arrays of an entry, name → array in the order written; made when it is missing or damaged.

        ``make`` writes them into the entry, and leaves nothing behind if it raises. More than ``room`` bytes
        are mapped from the files, read-only. A `LabError` when the disk is full or the folder cannot be
        written.
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
        """The arrays of an entry, or None; an entry that cannot be read is removed."""
        folder = self.folder / key
        try:
            names = json.loads((folder / NAMES).read_text(encoding="utf-8"))
            files = {str(name): folder / f"{i}.npy" for i, name in enumerate(names)}
            mapped = "r" if sum(path.stat().st_size for path in files.values()) > room else None
            arrays = {name: np.load(path, mmap_mode=mapped) for name, path in files.items()}  # type: ignore
            os.utime(folder / NAMES)
        except (OSError, ValueError, TypeError, RecursionError):
            arrays = {}
        if not arrays:
            _remove(folder)
        return arrays or None

    def _write(self, key: str, make: Callable[[Entry], None]) -> None:
        entry = Entry(self.folder / f".{key}.{uuid.uuid4().hex}.unfinished")
        try:
            entry.folder.mkdir(parents=True)
            make(entry)
            for file in entry.files.values():
                file.close()
            names = json.dumps(list(entry.files))  # last: an entry without this list does not count
            (entry.folder / NAMES).write_text(names, encoding="utf-8")
            if not (self.folder / key).is_dir():  # another process may have been first with the same one
                os.rename(entry.folder, self.folder / key)
        except OSError as error:
            if entry.folder.is_dir() and error.errno not in FULL:
                raise  # the maker's own: an image that is not there
            cause = "the disk is full" if error.errno in FULL else error.strerror
            raise LabError(
                f"The cache {self.folder} cannot be written ({cause}): free space, set SOCKETLAB_CACHE to "
                "another folder, or do without a cache."
            ) from error
        finally:
            for file in entry.files.values():
                file.close()
            shutil.rmtree(entry.folder, ignore_errors=True)

    def _trim(self, newest: str) -> None:
        """Remove what was unused for longest until the rest fits, and what a crash left unfinished."""
        entries = []
        for folder in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process may be trimming too
                if _KEY.fullmatch(folder.name):
                    used = folder.name == newest, (folder / NAMES).stat().st_mtime_ns
                    entries.append((used, sum(path.stat().st_size for path in folder.iterdir()), folder))
                elif folder.name.endswith(".unfinished") and folder.stat().st_mtime < time.time() - A_DAY:
                    shutil.rmtree(folder, ignore_errors=True)
        taken = sum(size for _, size, _ in entries)
        for _, size, folder in sorted(entries)[:-1]:
            if taken > self.limit:
                _remove(folder)
                taken -= size


def opened(cache: Cache | str | os.PathLike[str] | None) -> Cache | None:
    """A cache as functions take it: a `Cache`, a folder, or None for none."""
    return cache if cache is None or isinstance(cache, Cache) else Cache(cache)


def _remove(folder: Path) -> None:
    """Take an entry away in one step, so that no process reads half of it; one in use (on Windows) stays."""
    doomed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.unfinished")
    with contextlib.suppress(OSError):
        os.rename(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def fingerprint(*parts: Any) -> str:
    """SHA-256 over the content of tensors, arrays, networks, numbers, texts, and lists and dicts of them.

    Type, shape and order count; where a tensor lies and how it is laid out in memory do not. Of a network:
    weights and buffers, structure, plain attributes, and the code of classes outside torch; not functions
    that a forward pass calls beside its own methods, and not hooks.
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
    elif isinstance(part, nn.Module):
        _feed(state, ["network", *_network_parts(part)])
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


def _network_parts(network: nn.Module) -> list[Any]:
    """Type, structure, tensors, plain attributes and code."""
    plain: dict[str, Any] = {}
    code: dict[str, Any] = {}
    for name, module in network.named_modules():
        kept = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        plain[name] = [[k, v] for k, v in kept.items() if isinstance(v, bool | int | float | str)]
        own = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.")]
        methods = kept | {f"{kind.__qualname__}.{k}": v for kind in own for k, v in vars(kind).items()}
        code |= {k: _code(v.__code__) for k, v in methods.items() if hasattr(v, "__code__")}
    tensors: dict[str, Tensor] = {**dict(network.named_parameters(remove_duplicate=False))}
    tensors |= dict(network.named_buffers(remove_duplicate=False))
    return [type(network).__qualname__, repr(network), tensors, plain, code]


def _code(code: CodeType) -> list[Any]:
    """What a function does, without where it is written."""
    plain = [sorted(map(repr, one)) if isinstance(one, frozenset) else one for one in code.co_consts]
    constants = [_code(one) if isinstance(one, CodeType) else repr(one) for one in plain]
    return [code.co_code, list(code.co_names), constants]
