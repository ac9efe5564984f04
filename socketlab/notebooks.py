"""Execute the notebooks and store them executed: ``python -m socketlab.notebooks [names] [--check]``.

A notebook is committed with its pictures, so that it can be read where nothing runs. This command runs every
cell in a fresh kernel, searches the widgets for errors that no cell shows, takes out what only a live kernel
can use, and writes the file whole or not at all. With ``--check`` it writes nothing.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from socketlab.errors import LabError
from socketlab.files import write_whole

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
CELL_SECONDS = 600  # a cell that hangs is ended, whatever the machine
Notebook = Any


def execute(notebook: Notebook, folder: Path = FOLDER, seconds: int = CELL_SECONDS) -> Notebook:
    """Run all cells in a fresh kernel, errors in callbacks raised; the notebook given is filled and returned.

    Parameters
    ----------
    notebook : as read by `nbformat`, version 4.
    folder : where the kernel works.
    seconds : the longest that one cell may take.

    Raises
    ------
    LabError : a cell failed or took too long, or a widget hides an error.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    environment = os.environ | {"SOCKETLAB_STRICT": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")])
    )
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=True,
        coalesce_streams=True,
    )
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        raise LabError(f"A cell failed:\n{_plain(str(error))}") from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise LabError(f"The kernel was ended: {_plain(str(error))}") from error
    hidden = hidden_errors(notebook)
    if hidden:
        raise LabError("A widget hides an error that no cell shows:\n" + "\n".join(hidden))
    return notebook


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
            if output.get("data", {}).pop(WIDGET_VIEW, None) is not None:
                output["data"]["text/plain"] = (
                    "Run this cell to see the live panel. A still picture follows below."
                )
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
    chosen = parser.parse_args(arguments)
    try:
        for path in find(chosen.names):
            begun = time.perf_counter()
            notebook = execute(read(path), path.parent)
            times = cell_seconds(notebook)
            slowest = max(times, key=lambda pair: pair[1], default=(0, 0.0))
            if not chosen.check:
                write(without_widgets(notebook), path)
            print(
                f"{path.name}: {time.perf_counter() - begun:.0f} s, "
                f"slowest cell {slowest[0]} ({slowest[1]:.0f} s){'' if chosen.check else ', written'}"
            )
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _widget_states(notebook: Notebook) -> Iterator[Mapping[str, Any]]:
    stored = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for model in stored.values():
        yield model.get("state", {})


def _plain(text: str) -> str:
    """Text without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


if __name__ == "__main__":
    sys.exit(main())
