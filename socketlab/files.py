"""Files of the lab: where the data are, whether they are unchanged, and writing whole or not at all."""

import contextlib
import csv
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import types
import typing
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from socketlab.errors import LabError

MANIFEST = "manifest.json"
LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT)
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.unfinished")


def data_folder() -> Path:
    """Return the folder of the shipped data: ``$SOCKETLAB_DATA``, else ``data`` beside the package."""
    chosen = os.environ.get("SOCKETLAB_DATA")
    folder = Path(os.path.expanduser(chosen)) if chosen else Path(__file__).resolve().parent.parent / "data"
    if not os.path.isdir(folder):
        raise LabError(f"The data folder {folder} does not exist: set SOCKETLAB_DATA to that of a clone.")
    return folder


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file completely or not at all; an older file of that name stays until the new one is whole.

    The bytes go to a hidden file in the same folder (made if missing), are flushed to the disk, and take the
    final name in one step. A `LabError` when the disk is full or the file cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError, ValueError):  # out of reach, so nothing is there
            unfinished.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> LabError:
    """Return the error of a file or folder that cannot be written."""
    if getattr(error, "errno", None) in FULL:
        return LabError(f"The disk is full: {path} was not written; free space, then retry.")
    return LabError(f"{path} cannot be written ({reason(error)}): choose a folder that you may write to.")


def reason(error: BaseException) -> str:
    """Return an exception's cause in a few words: the system's, or the first line of its text."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what `write_whole` left when it was killed: of one file name, or of all."""
    for path in list(folder.iterdir()) if os.path.isdir(folder) else []:
        if (found := _UNFINISHED.fullmatch(path.name)) and name in (None, found["name"]):
            with contextlib.suppress(OSError):
                path.unlink()


def is_free(folder: Path) -> bool:
    """Whether a folder is absent or empty but for the lock and the leftovers of a kill."""
    if os.path.isdir(folder):
        return all(path.name == LOCK or _UNFINISHED.fullmatch(path.name) for path in folder.iterdir())
    return not os.path.lexists(folder)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder's lock (``.lock``, there as long as it is held) within the block; sweep the folder first.

    The lock ends with the process, however that ends. Where the file system has no locks, none is held.
    """
    lock = filelock.FileLock(folder / LOCK)
    fresh = not os.path.isdir(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(NotImplementedError):
            lock.acquire(timeout=0)
    except filelock.Timeout:
        raise LabError(f"Another process is working in {folder}: wait until it ends.") from None
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error
    try:
        sweep(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
            if fresh and is_free(folder):  # nothing came of it
                folder.rmdir()
        lock.release()


def read_json(path: Path, way_out: str) -> Any:
    """Return the content of a JSON file; a `LabError` that ends in ``way_out`` when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"{path} is missing: {way_out}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise LabError(f"{path} cannot be read ({reason(error)}): {way_out}.") from error


def as_json(value: Any) -> bytes:
    """Return the bytes of a JSON file."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n"


def from_json(kind: Any, value: Any, where: str = "it") -> Any:
    """Return parsed JSON (or TOML) as a value of a type, or raise a ValueError that names the field at fault.

    Types are dataclasses, lists, tuples, sequences, dicts and mappings of types, ``X | None`` and plain ones.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else from_json(inner[0], value, where)
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    record = dataclasses.is_dataclass(kind)
    table = record or origin in (dict, Mapping)
    plain: Any = dict if table else list if origin in (list, tuple, Sequence) else kind
    if not isinstance(value, plain) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} must be {_NAMES.get(plain, f'a {plain.__name__}')}, not {value!r:.40}")
    if record:
        hints, fields = typing.get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
        if unknown := [name for name, one in value.items() if name not in fields and one is not None]:
            raise ValueError(f"{where} has no {', '.join(unknown)}: choose among {', '.join(fields)}")
        required = {n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
        if missing := sorted(required - value.keys()):
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        known = {name: one for name, one in value.items() if name in fields}  # options of 0.1 may be null
        return kind(**{name: from_json(hints[name], one, name) for name, one in known.items()})
    if table:
        return {name: from_json(inner[1], one, f"{where}.{name}") for name, one in value.items()}
    if plain is list:
        return (tuple if origin is tuple else list)(from_json(inner[0], one, where) for one in value)
    return value


_NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", dict: "a table"}


def csv_text(rows: Iterable[Mapping[str, Any]], fields: Sequence[str] | None = None) -> str:
    """Return rows (column → value) as CSV; a missing value is an empty cell.

    A text that a spreadsheet would run as a formula (it begins with ``=``, ``+``, ``-`` or ``@`` and is no
    number) gets an apostrophe in front; `read_csv` removes it. By default the columns are those of the rows,
    in the order in which they first come.
    """
    rows = list(rows)
    names = fields or list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_inert, names))
    writer.writerows([_inert(row.get(name, "")) for name in names] for row in rows)
    return text.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows that `csv_text` wrote, as text; a `LabError` for a file that is no such table."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            names, *rows = csv.reader(file)
        plain = [[_FORMULA.sub(r"\1", cell) for cell in row] for row in rows]
        return [dict(zip(names, row, strict=True)) for row in plain]
    except (OSError, ValueError, csv.Error) as error:
        raise LabError(f"{path} cannot be read ({reason(error)}): restore or delete it.") from error


_FORMULA = re.compile(r"^'([=+\-@\t\r])")


def _inert(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    return f"'{value}"


def digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file, 64 hexadecimal digits; ``LabError`` when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LabError(f"{path} cannot be read ({reason(error)}): check its permissions.") from error


def verified(relative_name: str) -> Path:
    """Return the path of a data file, ``"pocketrooms/index.csv"``, after comparing it with the manifest.

    It is read afresh at every call, so that a change is never missed.
    """
    folder = data_folder()
    path = folder / relative_name
    expected = read_manifest(folder).get(relative_name)
    if expected is None:
        raise LabError(f"data/{relative_name} is not listed: `python -m tools.manifest` lists new files.")
    if not path.is_file():
        raise LabError(f"data/{relative_name} is missing: {_remedy(relative_name)}.")
    if digest(path) != expected:
        raise LabError(f"data/{relative_name} was altered: {_remedy(relative_name)}.")
    return path


def read_manifest(folder: Path) -> dict[str, str]:
    """Return the manifest of a data folder, relative name → SHA-256; ``LabError`` when there is none."""
    listed = read_json(folder / MANIFEST, _remedy(MANIFEST))
    if not isinstance(listed, dict):
        raise LabError(f"{folder / MANIFEST} is not a list of digests: {_remedy(MANIFEST)}.")
    return listed


def _remedy(relative_name: str) -> str:
    return f"restore it with `git checkout -- data/{relative_name}`"
