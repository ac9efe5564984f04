"""Record what the notebooks train, for the tier ``replay``: ``python -m tools.record [names]``.

The command runs the notebooks at the tier ``laptop`` and stores, under ``data/traces``, the results of every
`replay.replayed` and of every run of a panel in them; so a recording is what the notebook's own code
computes. After the last cell it lets a panel run what a class is likely to try (`ALSO`). It then lists the
files in the manifest.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from socketlab import files
from socketlab.errors import LabError
from socketlab.runs import replay
from tools import run_notebooks
from tools.manifest import write_manifest

EXPERIMENTS = """
panel.reset()
for title, choice in panel.experiments.items():
    if not title.startswith("method "):
        panel.set(choice)
        panel.run(wait=True)
"""
ALSO = dict.fromkeys(("AdaptationPanel", "PairsPanel"), EXPERIMENTS)
"""Kind of panel → cell that is run, while recording, behind a notebook that has one, named `panel`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the notebooks named, or all, store their results, and list them in the manifest."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.record", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("names", nargs="*", help="notebooks, for example 04_full_adaptation")
    chosen = parser.parse_args(arguments)
    settings = {replay.SETTING: "laptop", replay.RECORDING: "1"}
    try:
        folder = files.data_folder()
        for path in run_notebooks.find(chosen.names):
            run_notebooks.execute(with_more_runs(run_notebooks.read(path)), path.parent, settings=settings)
            print(f"{path.name}: run")
        print(_listing(folder / replay.FOLDER))
        write_manifest(folder)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def with_more_runs(notebook: Any) -> Any:
    """Put `ALSO` behind a notebook's last cell, for the panels that it has; in place."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for kind, source in ALSO.items():
        if any(f"{kind}(" in cell for cell in code):
            notebook.cells.append(nbformat.v4.new_code_cell(source.strip()))
    return notebook


def _listing(folder: Path) -> str:
    kept = sorted(folder.glob("*.safetensors"))
    lines = [f"{path.stat().st_size / 1e6:8.2f} MB  {path.name}" for path in kept]
    return "\n".join([*lines, f"{sum(p.stat().st_size for p in kept) / 1e6:8.2f} MB in {len(kept)} files"])


if __name__ == "__main__":
    sys.exit(main())
