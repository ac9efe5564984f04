"""The tables of ``docs/teaching.md`` that are measured: ``python -m tools.lessons`` fills them.

How long the computer works in each notebook comes from ``notebooks/timings.csv``, which ``make notebooks``
writes; nothing of it is typed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from socketlab.errors import LabError
from socketlab.files import write_whole
from tools.run_notebooks import FOLDER, Timing, timings

PAGE = FOLDER.parent / "docs" / "teaching.md"
COURSE = re.compile(r"^\| `(\d\d_\w+)` \| [^|]+\?", re.MULTILINE)
"""A notebook's line in the first table: its name and its question."""
MARK = re.compile(r"(<!-- computing -->\n).*?(<!-- /computing -->)", re.DOTALL)


def computing_table(measured: Mapping[tuple[str, str], Timing], names: list[str]) -> str:
    """Markdown: seconds of each notebook on a laptop and at replay, and of its slowest cell."""
    lines = ["| notebook | laptop, s | its slowest cell, s | replay, s |", "|---|---|---|---|"]
    for name in names:
        laptop, replay = measured.get((name, "laptop")), measured.get((name, "replay"))
        cells = [
            f"{laptop.seconds:.0f}" if laptop else "not measured",
            f"{laptop.slowest_seconds:.0f}" if laptop else "",
            f"{replay.seconds:.0f}" if replay else "not measured",
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    cores = sorted({timing.cores for timing in measured.values()})
    told = f"\nOn {' and '.join(map(str, cores))} processor cores, without a GPU.\n" if cores else ""
    return "\n".join(lines) + "\n" + told


def filled(text: str, measured: Mapping[tuple[str, str], Timing]) -> str:
    """The page with the measured table of its notebooks; `LabError` when it has no place for it."""
    if not MARK.search(text):
        raise LabError(f"{PAGE.name} has no place for the table: put <!-- computing --> and its end there.")
    table = computing_table(measured, COURSE.findall(text))
    return MARK.sub(lambda mark: mark[1] + table + mark[2], text)


def fill(page: Path = PAGE) -> Path:
    """Fill the page, whole or not at all; return its path."""
    write_whole(page, filled(page.read_text(encoding="utf-8"), timings()).encode())
    return page


if __name__ == "__main__":
    print(fill())
