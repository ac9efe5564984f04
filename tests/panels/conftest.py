"""Fixtures of the panels' tests in a browser."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from socketlab.panels import session


@pytest.fixture
def open_cells(open_notebook: Callable[[str], Any], lab_folder: Path) -> Callable[[str, Sequence[str]], Any]:
    """`open_cells(name, cells)` writes cells as a notebook, opens it in JupyterLab and runs them."""

    def open_and_run(name: str, cells: Sequence[str]) -> Any:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, lab_folder / f"{name}.ipynb")
        return open_notebook(f"{name}.ipynb")

    return open_and_run


@pytest.fixture(autouse=True)
def coarse(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live pictures with a quarter of the pixels: they are drawn hundreds of times."""
    if "page" not in request.fixturenames:
        monkeypatch.setattr(session, "SHARPNESS", 1.0)
