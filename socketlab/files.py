"""Files of the lab: where the data lie, whether they are unchanged, and writing whole or not at all.

``python -m socketlab.files`` rewrites ``data/manifest.json``, the list of SHA-256 digests of all data files.
"""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from pathlib import Path

from socketlab.errors import LabError

MANIFEST = "manifest.json"


def data_folder() -> Path:
    """Return the folder of the shipped data: ``$SOCKETLAB_DATA``, else ``data`` beside the package.

    Raises
    ------
    LabError : there is no such folder.
    """
    chosen = os.environ.get("SOCKETLAB_DATA")
    folder = Path(chosen).expanduser() if chosen else Path(__file__).resolve().parent.parent / "data"
    if not folder.is_dir():
        raise LabError(
            f"The data folder {folder} does not exist: work in a clone of the repository (`make lab`), "
            "or set SOCKETLAB_DATA to the clone's data folder."
        )
    return folder


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file completely or not at all; an older file of that name stays until the new one is whole.

    The bytes go to a hidden file in the same folder (made if missing), are flushed to the disk, and take the
    final name in one step.

    Parameters
    ----------
    path : the file to write.
    data : its content.

    Raises
    ------
    LabError : the disk is full, or the file cannot be written; nothing half-written is left.
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
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LabError(
                f"The disk is full: {path} ({len(data):,} bytes) was not written; free space, then retry."
            ) from error
        raise LabError(
            f"{path} cannot be written ({error.strerror or error}): choose a folder that you may write to."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # a folder that cannot be reached holds nothing of ours
            unfinished.unlink(missing_ok=True)


def digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file, 64 hexadecimal digits; ``LabError`` when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LabError(
            f"{path} cannot be read ({error.strerror or error}): check the name and its permissions."
        ) from error


def verified(relative_name: str) -> Path:
    """Return the path of a data file after comparing it with the manifest.

    The file is read afresh at every call, so that a change is never missed.

    Parameters
    ----------
    relative_name : name below the data folder, with forward slashes: ``"pocketrooms/index.csv"``.

    Raises
    ------
    LabError : the file is missing, altered, or not listed; or the manifest is missing or unreadable.
    """
    folder = data_folder()
    path = folder / relative_name
    expected = read_manifest(folder).get(relative_name)
    if expected is None:
        raise LabError(
            f"data/{relative_name} is not listed in data/{MANIFEST}: check the name, "
            "or list a new file with `python -m socketlab.files`."
        )
    if not path.is_file():
        raise LabError(f"data/{relative_name} is missing: {_remedy(relative_name)}.")
    if digest(path) != expected:
        raise LabError(f"data/{relative_name} was altered: {_remedy(relative_name)}.")
    return path


def read_manifest(folder: Path) -> dict[str, str]:
    """Return the manifest of a data folder, relative name → SHA-256; ``LabError`` when there is none."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"{folder / MANIFEST} is missing: {_remedy(MANIFEST)}.") from None
    except (OSError, ValueError) as error:
        raise LabError(f"{folder / MANIFEST} cannot be read ({error}): {_remedy(MANIFEST)}.") from error
    if not isinstance(listed, dict):
        raise LabError(f"{folder / MANIFEST} is not a list of digests: {_remedy(MANIFEST)}.")
    return listed


def write_manifest(folder: str | os.PathLike[str]) -> Path:
    """Write ``manifest.json`` of a data folder: sorted JSON, relative name → SHA-256 of every file below it.

    Hidden files, Python's caches and the manifest itself are left out. The same files give the same bytes.

    Returns
    -------
    Path of the manifest.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LabError(f"{folder} is not a folder: give the data folder whose files should be listed.")
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    listed = {name.as_posix(): digest(folder / name) for name in names if _belongs(name)}
    text = json.dumps(listed, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_whole(folder / MANIFEST, text.encode())
    return folder / MANIFEST


def _belongs(name: Path) -> bool:
    """Say whether a file, named from the data folder, is listed in the manifest."""
    unlisted = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    return not unlisted and name != Path(MANIFEST)


def _remedy(relative_name: str) -> str:
    return f"restore it with `git checkout -- data/{relative_name}`"


if __name__ == "__main__":
    print(write_manifest(data_folder()))
