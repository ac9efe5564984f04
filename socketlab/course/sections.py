"""Sections of a notebook, and how to enter at one: ``from socketlab.course import begin; begin("01", 4)``.

A section needs the earlier cells that define its names, and what those need in turn. The names are read off
the cells' bytecode, so nothing is run to find them.
"""

from __future__ import annotations

import dis
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from socketlab.errors import LabError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
MARK = "socketlab"
"""Key in a cell's metadata; its value names an exercise, a question, or a section's minutes in class."""
HEADING = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
Notebook = Any


@dataclass(frozen=True)
class Section:
    """A part of a notebook, "## 3. Cut both halves alike": ``cells[first:last]``, its minutes, a break."""

    number: int
    title: str
    first: int
    last: int
    minutes: int = 0
    pause: bool = False


def sections_of(notebook: Notebook) -> list[Section]:
    """The numbered sections, each from the cell with its heading up to the next one."""
    found: list[Section] = []
    for place, cell in reversed(list(enumerate(notebook.cells))):
        if cell.cell_type == "markdown" and (heading := HEADING.search(cell.source)):
            about, end = cell.metadata.get(MARK, {}), found[-1].first if found else len(notebook.cells)
            minutes, pause = about.get("minutes", 0), about.get("break", False)
            found.append(Section(int(heading[1]), heading[2], place, end, minutes, pause))
    return found[::-1]


def needed(notebook: Notebook, section: Section) -> list[int]:
    """Indices of the earlier code cells that a section needs: those that define a name used later."""
    wanted: set[str] = set()
    chosen = []
    for place in reversed(range(section.last)):
        cell = notebook.cells[place]
        if cell.cell_type == "code":
            defined, used = names(compile(cell.source, "cell", "exec"))
            if place >= section.first or defined & wanted:
                wanted = (wanted - defined) | used
                if place < section.first:
                    chosen.append(place)
    return chosen[::-1]


def names(code: CodeType) -> tuple[set[str], set[str]]:
    """(names that a cell defines, names that it uses and has not defined before)."""
    defined: set[str] = set()
    used: set[str] = set()
    for step in dis.get_instructions(code):
        if step.opname == "STORE_NAME":
            defined.add(step.argval)
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            used |= {step.argval} - defined
        elif inspect.iscode(step.argval):
            used |= names(step.argval)[1] - defined
    return defined, used


def begin(name: str, section: int) -> None:
    """Run what a section of a notebook ("03") needs, so that it can be entered there."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise LabError("begin() runs cells of a notebook: call it in Jupyter.")
    notebook, chosen = find(name, section)
    places = needed(notebook, chosen)
    for count, place in enumerate(places, start=1):
        print(f"cell {count} of {len(places)}", end="\r", flush=True)
        quiet = notebook.cells[place].source.rstrip(";") + "\nNone"  # earlier pictures are not shown again
        ran = shell.run_cell(quiet, store_history=False, silent=True)
        if ran.error_in_exec or ran.error_before_exec:
            raise LabError(f"A cell that section {section} needs failed: {ran.error_in_exec}.")
    print(f"Ready for section {section}, {chosen.title}: {len(places)} earlier cells were run.")


def find(name: str, number: int) -> tuple[Notebook, Section]:
    """A notebook and one of its sections; `LabError` lists what there is."""
    import nbformat

    found = sorted(FOLDER.glob(f"{Path(name).stem}*.ipynb"))
    if len(found) != 1:
        known = ", ".join(path.stem for path in sorted(FOLDER.glob("*.ipynb")))
        raise LabError(f"{name!r} names {len(found)} notebooks: choose one of {known}.")
    notebook = nbformat.read(found[0], as_version=4)
    sections = {section.number: section for section in sections_of(notebook)}
    if number not in sections:
        raise LabError(f"Notebook {name} has sections 1 to {len(sections)}, no {number}.")
    return notebook, sections[number]
