"""What a panel shows, as files: its pictures as PNG and SVG, its numbers as CSV.

Every file is written whole or not at all, into a new folder each time: nothing is ever overwritten.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from socketlab.errors import LabError
from socketlab.files import write_whole
from socketlab.panels import live_pictures, session

Table = Sequence[Mapping[str, Any]]
PRINT_DPI = 200
FOLDER = "exports"


def write(
    pictures: Mapping[str, live_pictures.LivePicture],
    tables: Mapping[str, Table],
    name: str,
    parent: str = FOLDER,
) -> Path:
    """Write pictures and tables into the next free folder ``parent/name-1``, ``name-2``, ...

    Parameters
    ----------
    pictures : file name without ending -> picture; each becomes a PNG for print and an SVG. What they show is
        told in words in ``pictures.txt``.
    tables : file name without ending -> rows, one mapping of column to value each; a table without rows is
        left out.

    Returns
    -------
    The folder.

    Raises
    ------
    LabError : the folder cannot be written, or the disk is full.
    """
    folder = free_folder(Path(parent).expanduser(), name)
    for title, picture in pictures.items():
        for ending in ("png", "svg"):
            write_whole(folder / f"{title}.{ending}", picture_bytes(picture, ending))
    for title, rows in tables.items():
        if rows:
            write_whole(folder / f"{title}.csv", csv_text(rows).encode())
    words = "".join(f"{title}: {picture.alt}\n" for title, picture in pictures.items())
    write_whole(folder / "pictures.txt", words.encode())
    return folder


def free_folder(parent: Path, name: str) -> Path:
    """The first folder of that name and a number that is not there yet; it is not made."""
    for number in range(1, 10_000):
        if not (folder := parent / f"{name}-{number}").exists():
            return folder
    raise LabError(f"{parent} holds ten thousand exports of {name}: tidy up, or name another folder.")


def picture_bytes(picture: live_pictures.LivePicture, ending: str) -> bytes:
    """A live picture as it stands, moving parts included: "png" at 200 dpi or "svg" with text as text."""
    file = io.BytesIO()
    kept: Any = {"svg.fonttype": "none", "svg.hashsalt": "socketlab"}  # the same picture, the same bytes
    about: dict[str, Any] = {"Date": None} if ending == "svg" else {"Software": None}
    with session.DRAW, matplotlib.rc_context(kept):
        picture.figure.savefig(file, format=ending, dpi=PRINT_DPI, facecolor="white", metadata=about)
    return file.getvalue()


def csv_text(rows: Table) -> str:
    """Rows as CSV: a column for every name that any row has, in order of appearance; what is absent is empty.

    Numbers are written in full, so that reading them gives the same ones; NaN is empty too.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if _absent(value) else value for name, value in row.items()})
    return text.getvalue()


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
