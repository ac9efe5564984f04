"""Execute the notebooks and store them executed: ``python -m tools.run_notebooks [names]``.

A notebook is committed with its pictures, so that it can be read where nothing runs. This command runs every
cell in a fresh kernel, searches the widgets for errors that no cell shows, takes out what only a live kernel
can use, and writes the file whole or not at all. How long each notebook and its slowest cell took goes to
``notebooks/timings.csv``, which all other texts quote. With ``--check`` it writes nothing. With ``--tier
replay`` or ``full`` only the times are stored: the pictures in a notebook are those of the tier ``laptop``.
"""

import argparse
import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from socketlab.errors import LabError
from socketlab.files import write_whole
from socketlab.runs import replay

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
TIMINGS = "timings.csv"
CELL_SECONDS = 600  # a cell that hangs is ended, whatever the machine
STARTS = 3  # of a kernel that dies before it answers
Notebook = Any


@dataclass(frozen=True)
class Timing:
    """How long a notebook took, kernel and imports included: a line of ``timings.csv``.

    Parameters
    ----------
    notebook, tier : what was run, and how.
    seconds : from the start of the kernel to the end.
    slowest_cell, slowest_seconds : the code cell that took longest, counted from 1.
    cores : of the computer.
    """

    notebook: str
    tier: str
    seconds: float
    slowest_cell: int
    slowest_seconds: float
    cores: int


def timings(folder: Path = FOLDER) -> dict[tuple[str, str], Timing]:
    """What was measured last: (notebook, tier) → timing; empty before the first measurement."""
    path = folder / TIMINGS
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        lines = [
            Timing(
                row["notebook"], row["tier"], float(row["seconds"]),
                int(row["slowest_cell"]), float(row["slowest_seconds"]), int(row["cores"]),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip
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
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    environment = os.environ | {"SOCKETLAB_STRICT": "1"} | dict(settings or {})
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")])
    )
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
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError

    for left in reversed(range(STARTS)):
        try:
            NotebookClient(notebook, **about).execute(env=environment)
            return
        except RuntimeError as error:
            died_at_start = not isinstance(error, DeadKernelError) and "before replying" in str(error)
            if not died_at_start or not left:
                raise


def hidden_errors(notebook: Notebook) -> list[str]:
    """Errors in the widgets' state: `Output` widgets with a traceback, and error boxes of the panels."""
    found = []
    for state in _widget_states(notebook):
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


def cell_seconds(notebook: Notebook) -> list[tuple[int, float]]:
    """How long each cell took, as the kernel reported it: (number of the code cell, seconds)."""
    from datetime import datetime

    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        times = cell.metadata.get("execution", {})
        if {"iopub.execute_input", "shell.execute_reply"} <= set(times):
            begun, ended = (times[name] for name in ("iopub.execute_input", "shell.execute_reply"))
            span = datetime.fromisoformat(ended) - datetime.fromisoformat(begun)
            found.append((number, span.total_seconds()))
    return found


def read(path: Path) -> Notebook:
    """A notebook from disk, in the present format; `LabError` when it is none."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise LabError(f"There is no notebook {path}.") from None
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise LabError(f"{path} cannot be read as a notebook: {error}") from error


def write(notebook: Notebook, path: Path) -> None:
    """Write a notebook whole, with sorted keys, so that a diff shows what changed."""
    import nbformat

    nbformat.validate(notebook)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_whole(path, text.encode())


def find(names: Sequence[str], folder: Path = FOLDER) -> list[Path]:
    """Paths of the notebooks named (with or without folder and ending), or of all of them."""
    if not names:
        return sorted(folder.glob("*.ipynb"))
    found = []
    for name in names:
        path = Path(name)
        if not path.is_file():
            path = folder / f"{path.stem}.ipynb"
        if not path.is_file():
            known = ", ".join(p.stem for p in sorted(folder.glob("*.ipynb")))
            raise LabError(f"There is no notebook {name!r}: choose among {known or 'none'}.")
        found.append(path)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute, check and store the notebooks named; all of them without a name."""
    parser = argparse.ArgumentParser(
        prog="python -m socketlab.notebooks", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("names", nargs="*", help="notebooks, for example 04_full_adaptation")
    parser.add_argument("--check", action="store_true", help="run them, but write nothing")
    parser.add_argument("--tier", choices=list(replay.TIERS), default="laptop", help="laptop unless told")
    chosen = parser.parse_args(arguments)
    settings = {replay.SETTING: chosen.tier}
    try:
        for path in find(chosen.names):
            begun = time.perf_counter()
            notebook = execute(read(path), path.parent, settings=settings)
            took = _timing(path.stem, chosen.tier, time.perf_counter() - begun, notebook)
            if not chosen.check:
                store_timings([took], path.parent)
            if not chosen.check and chosen.tier == "laptop":
                write(without_widgets(notebook), path)
            print(
                f"{path.name}: {took.seconds:.0f} s, slowest cell {took.slowest_cell} "
                f"({took.slowest_seconds:.0f} s){'' if chosen.check else ', written'}"
            )
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _timing(name: str, tier: str, seconds: float, notebook: Notebook) -> Timing:
    number, slowest = max(cell_seconds(notebook), key=lambda pair: pair[1], default=(0, 0.0))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Timing(name, tier, round(seconds, 1), number, round(slowest, 1), cores)


def _widget_states(notebook: Notebook) -> Iterator[Mapping[str, Any]]:
    stored = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for model in stored.values():
        yield model.get("state", {})


def _plain(text: str) -> str:
    """Text without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


if __name__ == "__main__":
    sys.exit(main())
