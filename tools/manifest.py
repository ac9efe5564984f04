"""``python -m tools.manifest`` writes ``data/manifest.json``: the SHA-256 digest of every data file."""

import os
from pathlib import Path

from socketlab.errors import LabError
from socketlab.files import MANIFEST, as_json, data_folder, digest, write_whole


def write_manifest(folder: str | os.PathLike[str]) -> Path:
    """Write ``manifest.json`` of a data folder, relative name → SHA-256 of every file; return its path.

    Hidden files, Python's caches and the manifest itself are left out. The same files give the same bytes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LabError(f"{folder} is not a folder: give the data folder whose files should be listed.")
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    listed = {
        name.as_posix(): digest(folder / name)
        for name in names
        if name != Path(MANIFEST) and not any(p.startswith(".") or p == "__pycache__" for p in name.parts)
    }
    write_whole(folder / MANIFEST, as_json(dict(sorted(listed.items()))))
    return folder / MANIFEST


if __name__ == "__main__":
    print(write_manifest(data_folder()))
