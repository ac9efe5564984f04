"""Execute the notebooks and store them executed: ``python -m tools.run_notebooks [names]``.

A notebook is committed with its pictures, so that it can be read where nothing runs. This command runs every
cell in a fresh kernel, searches the widgets for errors that no cell shows, takes out what only a live kernel
can use, and writes the file whole or not at all. The times go to ``notebooks/timings.csv`` and into the table
of ``docs/teaching.md``. With ``--tier replay`` only the times are stored: the pictures in a
notebook are those of the tier ``laptop``.
"""

import argparse
import copy
import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.output_widget import OutputWidget

from socketlab.course.sections import FOLDER, needed, sections_of
from socketlab.errors import LabError
from socketlab.files import write_whole
from socketlab.runs import replay

TIMINGS = "timings.csv"
PAGE = FOLDER.parent / "docs" / "teaching.md"
COURSE = re.compile(r"^\| `(\d\d_\w+)` \| [^|]+\?", re.MULTILINE)
"""A notebook's line in the first table of `PAGE`: its name and its question."""
TABLE = re.compile(r"(<!-- computing -->\n).*?(<!-- /computing -->)", re.DOTALL)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
CELL_SECONDS = 600  # a cell that hangs is ended, whatever the machine
STARTS = 3  # of a kernel that dies before it answers
FORGET = "%reset -f"
Notebook = Any


# files


def read(path: Path) -> Notebook:
    """A notebook from disk, in the present format; `LabError` when it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise LabError(f"There is no notebook {path}.") from None
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise LabError(f"{path} cannot be read as a notebook: {error}") from error


def write(notebook: Notebook, path: Path) -> None:
    """Write a notebook whole, with sorted keys, so that a diff shows what changed."""
    nbformat.validate(notebook)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_whole(path, text.encode())


def find(names: Sequence[str], folder: Path = FOLDER) -> list[Path]:
    """Paths of the notebooks named (with or without folder and ending), or of the whole course in order."""
    course = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return course
    found = []
    for name in names:
        path = Path(name)
        if not path.is_file():
            path = folder / f"{path.stem}.ipynb"
        if not path.is_file():
            known = ", ".join(p.stem for p in course)
            raise LabError(f"There is no notebook {name!r}: choose among {known or 'none'}.")
        found.append(path)
    return found


# execution


def execute(
    notebook: Notebook,
    folder: Path = FOLDER,
    seconds: int = CELL_SECONDS,
    settings: Mapping[str, str] | None = None,
) -> Notebook:
    """Run all cells in a fresh kernel, errors in callbacks raised; the notebook given is filled and returned.

    Parameters
    ----------
    notebook : as read by `nbformat`, version 4.
    folder : where the kernel works.
    seconds : the longest that one cell may take.
    settings : of the kernel's environment, such as the tier.

    Raises
    ------
    LabError : a cell failed or took too long, or a widget hides an error.
    """
    environment = os.environ | {"SOCKETLAB_STRICT": "1"} | dict(settings or {})
    paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    about: dict[str, Any] = {
        "timeout": seconds,
        "kernel_name": "python3",
        "resources": {"metadata": {"path": str(folder)}},
        "store_widget_state": True,
        "coalesce_streams": True,
    }
    try:
        _run(notebook, about, environment)
    except CellExecutionError as error:
        raise LabError(f"A cell failed:\n{_plain(str(error))}") from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise LabError(f"The kernel was ended: {_plain(str(error))}") from error
    hidden = hidden_errors(notebook)
    if hidden:
        raise LabError("A widget hides an error that no cell shows:\n" + "\n".join(hidden))
    return notebook


def _run(notebook: Notebook, about: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Execute in a kernel; one that died before it answered is started again.

    Its ports are chosen before it starts, and by then another kernel of this machine may have taken them.
    """
    for left in reversed(range(STARTS)):
        try:
            client = NotebookClient(notebook, **about)
            client.widget_registry = {"@jupyter-widgets/output": {"OutputModel": _KeptOutput}}
            client.execute(env=environment)
            return
        except RuntimeError as error:
            died_at_start = not isinstance(error, DeadKernelError) and "before replying" in str(error)
            if not died_at_start or not left:
                raise


class _KeptOutput(OutputWidget):
    """What a cell puts into an `Output` widget, kept here and not sent back to the kernel.

    nbclient sends on the socket on which it waits for the cell's reply, and a reply that comes meanwhile is
    not noticed: after `interact` a notebook could wait until its cell was out of time.
    """

    def sync_state(self) -> None:
        """Send nothing."""


def hidden_errors(notebook: Notebook) -> list[str]:
    """Errors in the widgets' state: `Output` widgets with a traceback, and error boxes of the panels."""
    stored = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    found = []
    for state in (model.get("state", {}) for model in stored.values()):
        for output in state.get("outputs", ()):
            if output.get("output_type") == "error":
                found.append(f"{output.get('ename')}: {output.get('evalue')}")
        if "socketlab-error" in str(state.get("value", "")):
            found.append(re.sub("<[^>]+>", " ", state["value"]).strip())
    return found


def without_widgets(notebook: Notebook) -> Notebook:
    """Take out the state and views of widgets, which mean nothing without their kernel; in place."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)  # times of day: other ones at every run
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if data.pop(WIDGET_VIEW, None) is None or "text/html" in data:
                continue
            if "question" not in cell.get("metadata", {}).get("socketlab", {}):  # a question can be read
                data["text/plain"] = "Run this cell to see the live panel. A still picture follows below."
    return notebook


# several in one kernel: no second start of Python and PyTorch


def joined(notebooks: Mapping[str, Notebook]) -> Notebook:
    """Notebooks one after the other, each behind a cell that empties the kernel and has its name as id."""
    made = nbformat.v4.new_notebook()
    for name, notebook in notebooks.items():
        made.cells.append(nbformat.v4.new_code_cell(FORGET, id=name))
        for cell in copy.deepcopy(notebook.cells):
            cell.id = f"{name}-{cell.id}"
            made.cells.append(cell)
    return made


def execute_all(notebooks: Mapping[str, Notebook], folder: Path = FOLDER, **more: Any) -> dict[str, float]:
    """Run notebooks in one kernel, which forgets all names in between; seconds of each by its name.

    Raises
    ------
    LabError : as `execute`, with the name of the notebook that failed.
    """
    whole = joined(notebooks)
    try:
        execute(whole, folder, **more)
    except LabError as error:
        begun = [cell.id for cell in whole.cells if cell.source == FORGET and cell.execution_count]
        raise LabError(f"{begun[-1] if begun else 'The first notebook'}: {error}") from error
    found = dict.fromkeys(notebooks, 0.0)
    seconds, name = dict(cell_seconds(whole)), ""
    for number, cell in enumerate((c for c in whole.cells if c.cell_type == "code"), start=1):
        name = cell.id if cell.source == FORGET else name
        found[name] += seconds.get(number, 0.0)
    return found


def run_sections(paths: Iterable[Path], last_alone: bool = False) -> dict[str, float]:
    """Run every section alone, with the cells that it needs; seconds by "01_modality_gap-section-3".

    With ``last_alone``, of each notebook the last one, behind which most lies that it may lean on.
    """
    small = {}
    for path in paths:
        notebook = read(path)
        for section in sections_of(notebook)[-1 if last_alone else 0 :]:
            kept = [*needed(notebook, section), *range(section.first, section.last)]
            small[f"{path.stem}-section-{section.number}"] = alone = copy.copy(notebook)
            alone.cells = [notebook.cells[place] for place in kept]
    return execute_all(small)


# times


@dataclass(frozen=True)
class Timing:
    """How long a notebook took, kernel and imports included: a line of ``timings.csv``.

    Parameters
    ----------
    notebook, tier : what was run, and how.
    seconds : from the start of the kernel to the end.
    slowest_cell, slowest_seconds : the code cell that took longest, counted from 1.
    cores : of the computer.
    processor : its name, and the instructions that torch was held to where that is set.
    """

    notebook: str
    tier: str
    seconds: float
    slowest_cell: int
    slowest_seconds: float
    cores: int
    processor: str


def cell_seconds(notebook: Notebook) -> list[tuple[int, float]]:
    """How long each cell took, as the kernel reported it: (number of the code cell, seconds)."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        times = cell.metadata.get("execution", {})
        if {"iopub.execute_input", "shell.execute_reply"} <= set(times):
            begun, ended = (times[name] for name in ("iopub.execute_input", "shell.execute_reply"))
            span = datetime.fromisoformat(ended) - datetime.fromisoformat(begun)
            found.append((number, span.total_seconds()))
    return found


def timings(folder: Path = FOLDER) -> dict[tuple[str, str], Timing]:
    """The newest measurements: (notebook, tier) → timing; empty before the first one."""
    path = folder / TIMINGS
    if not path.is_file():
        return {}
    kinds = Timing.__annotations__
    with open(path, newline="", encoding="utf-8") as file:
        lines = [Timing(**{k: kinds[k](row[k]) for k in kinds}) for row in csv.DictReader(file)]
    return {(line.notebook, line.tier): line for line in lines}


def store_timings(measured: Iterable[Timing], folder: Path = FOLDER) -> Path:
    """Write timings beside the notebooks; lines of notebooks and tiers that were not run stay."""
    lines = timings(folder) | {(line.notebook, line.tier): line for line in measured}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Timing.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(lines[key]) for key in sorted(lines))
    write_whole(folder / TIMINGS, text.getvalue().encode())
    return folder / TIMINGS


def with_table(text: str, measured: Mapping[tuple[str, str], Timing]) -> str:
    """The text of `PAGE` with the measured seconds of its notebooks; `LabError` without a place for them."""
    if not TABLE.search(text):
        raise LabError(f"{PAGE.name} has no place for the table: put <!-- computing --> and its end there.")
    lines = ["| notebook | laptop, s | its slowest cell, s | replay, s |", "|---|---|---|---|"]
    for name in COURSE.findall(text):
        laptop, quick = measured.get((name, "laptop")), measured.get((name, "replay"))
        whole, slowest = (f"{laptop.seconds:.0f}", f"{laptop.slowest_seconds:.0f}") if laptop else ("", "")
        lines.append(f"| `{name}` | {whole} | {slowest} | {f'{quick.seconds:.0f}' if quick else ''} |")
    machines = sorted({f"{one.cores} cores of {one.processor}" for one in measured.values()})
    footnote = f"\nOn {'; '.join(machines)}; without a GPU.\n" if machines else ""
    return TABLE.sub(lambda mark: mark[1] + "\n".join(lines) + "\n" + footnote + mark[2], text)


def _timing(name: str, tier: str, seconds: float, notebook: Notebook) -> Timing:
    number, slowest = max(cell_seconds(notebook), key=lambda pair: pair[1], default=(0, 0.0))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Timing(name, tier, round(seconds, 1), number, round(slowest, 1), cores, processor())


def processor() -> str:
    """Name of the processor; with "as AVX2" where torch is held to that by ``ATEN_CPU_CAPABILITY``."""
    import platform

    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE)
        name = found[1] if found else name
    held = os.environ.get("ATEN_CPU_CAPABILITY", "")
    return f"{name} as {held.upper()}" if held else name


# the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute, check and store the notebooks named; all of them without a name."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.run_notebooks", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("names", nargs="*", help="notebooks, for example 04_full_adaptation")
    parser.add_argument("--check", action="store_true", help="run them, but write nothing")
    parser.add_argument("--sections", action="store_true", help="only run every section alone")
    parser.add_argument("--tier", choices=list(replay.TIERS), default="laptop", help="default: laptop")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.sections:
            for name, seconds in run_sections(find(chosen.names)).items():
                print(f"{name}: {seconds:.0f} s")
            return 0
        paths = find(chosen.names)
        for path in paths:
            print(_run_and_store(path, chosen.tier, chosen.check))
        if not chosen.check and any(path.parent.resolve() == FOLDER for path in paths):
            write_whole(PAGE, with_table(PAGE.read_text(encoding="utf-8"), timings()).encode())
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run_and_store(path: Path, tier: str, check: bool) -> str:
    """Run one notebook at a tier, and store it and its times unless it is only checked; a line about it."""
    begun = time.perf_counter()
    notebook = execute(read(path), path.parent, settings={replay.SETTING: tier})
    took = _timing(path.stem, tier, time.perf_counter() - begun, notebook)
    if not check:
        store_timings([took], path.parent)
        if tier == "laptop":
            write(without_widgets(notebook), path)
    slowest = f"slowest cell {took.slowest_cell} ({took.slowest_seconds:.0f} s)"
    return f"{path.name}: {took.seconds:.0f} s, {slowest}{'' if check else ', written'}"


def _plain(text: str) -> str:
    """Text without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


if __name__ == "__main__":
    sys.exit(main())
