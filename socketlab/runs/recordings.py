"""Recordings of what the notebooks train, for the tier ``replay``.

``python -m socketlab.runs.recordings [names]`` makes them.

The command runs the notebooks at the tier ``laptop`` and keeps, under ``data/traces``, what every
`tiers.replayed` and every run of a panel in them came to; so a recording is what the notebook's own code
computes. After the last cell it lets a panel run what a class is likely to try (`ALSO`). It then lists the
files in the manifest. Numbers and texts are stored as they are, networks in 16 bits.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from socketlab import files
from socketlab.errors import LabError
from socketlab.method.adaptation import Epoch, State, Step
from socketlab.networks.checkpoints import Source, load_source, read_tensors, save_source, write_tensors
from socketlab.networks.networks import networks_of
from socketlab.runs import tiers

FOLDER = "traces"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ALSO = {
    "AdaptationPanel": "panel.reset()\npanel.still(extremes=True)",
    "PairsPanel": """
from dataclasses import replace

panel.reset()
panel.still(extremes=True)
first = panel.choice
for choice in (replace(first, broken=0.5), replace(first, pairs=first.pairs // 2)):
    panel.set(choice)
    panel.run(wait=True)
""",
}
"""Kind of panel → cell that is run, while recording, behind a notebook that has one, named `panel`."""


@dataclass(frozen=True)
class Look:
    """What a panel looked at after an epoch, in place of an `adapt.Epoch`.

    Parameters
    ----------
    epoch, epochs : as of `adapt.Epoch`.
    seen : what the panel's own look returned: numbers, tensors, lists, dictionaries.
    state : of the adaptation, live; None where the run is a recorded one.
    """

    epoch: int
    epochs: int
    seen: Any
    state: State | None = None


# ------------------------------------------------------------------------ values


def write(name: str, value: Any) -> None:
    """Keep a result: ``<name>.safetensors``, and one file more for every network in it."""
    if not NAME.fullmatch(name):
        raise LabError(f"{name!r} is no name for a recording: use small letters, digits and hyphens.")
    folder = files.data_folder() / FOLDER
    tensors: dict[str, Tensor] = {}
    networks: list[Source] = []
    tree = _packed(value, tensors, networks)
    for old in folder.glob(f"{name}.*safetensors"):
        old.unlink()
    for number, network in enumerate(networks):
        save_source(network, folder / f"{name}.{number}.safetensors", half=True)
    write_tensors(folder / f"{name}.safetensors", tensors or {"none": torch.zeros(1)}, {"value": tree})


def read(name: str) -> Any:
    """A recorded result; a `LabError` when there is none or its file was altered."""
    listed = files.read_manifest(files.data_folder())
    if f"{FOLDER}/{name}.safetensors" not in listed:
        raise LabError(
            f"There is no recording {name!r}, and at the tier replay nothing is trained: "
            "set SOCKETLAB_TIER=laptop, or record with `python -m socketlab.runs.recordings`."
        )
    tensors, header = read_tensors(files.verified(f"{FOLDER}/{name}.safetensors"))
    return _unpacked(header["value"], tensors, name)


def _packed(value: Any, tensors: dict[str, Tensor], networks: list[Source]) -> Any:
    """The value as JSON, with tensors and networks by number."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        name = f"t{len(tensors)}"
        tensors[name] = torch.as_tensor(value).detach().clone()
        return {kind: name}
    if isinstance(value, Source):
        if not all(network.trunk.name for network in networks_of(value.network)):
            raise LabError(
                "A module of one's own cannot be recorded, for no file can build it again: "
                "return its state_dict() and load that."
            )
        networks.append(value)
        return {"network": len(networks) - 1}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_packed(one, tensors, networks) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[_packed(x, tensors, networks) for x in pair] for pair in value.items()]}
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("socketlab."):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        made = [type(value).__module__, type(value).__qualname__]
        return {"record": [made, _packed(fields, tensors, networks)]}
    raise LabError(
        f"A {type(value).__name__} cannot be recorded: return numbers, text, tensors, arrays, networks, "
        "records of the kit, or lists, tuples and dictionaries of them."
    )


def _unpacked(tree: Any, tensors: Mapping[str, Tensor], name: str) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "array":
            return tensors[content].numpy()
        case "record":
            (_, made), fields = content
            return _record_class(made)(**_unpacked(fields, tensors, name))
        case "network":
            return load_source(files.verified(f"{FOLDER}/{name}.{content}.safetensors"))
        case "dict":
            return {_unpacked(k, tensors, name): _unpacked(v, tensors, name) for k, v in content}
        case _:
            found = [_unpacked(one, tensors, name) for one in content]
            return tuple(found) if kind == "tuple" else found


def _record_class(name: str) -> type:
    """The dataclass of this name, of the few that a recording may hold: a file names no code to run."""
    from socketlab.figures.map_quality import Stability
    from socketlab.measures.model_selection import Evidence

    known = {"Stability": Stability, "Evidence": Evidence}
    if name not in known:
        raise LabError(f"A recording may not hold a {name!r}: only {', '.join(known)}.")
    return known[name]


# ------------------------------------------------------------------------ runs of a panel


def run_name(choice: Any) -> str:
    """Name of a panel's run: the same for the same settings, be a slider's value rounded or not."""
    text = json.dumps([type(choice).__qualname__, _rounded(dataclasses.asdict(choice))], sort_keys=True)
    return f"panel-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers to six digits."""
    found = {}
    for name, value in values.items():
        value = _rounded(value) if isinstance(value, dict) else value
        found[name] = float(f"{value:.6g}") if isinstance(value, float) else value
    return found


def played(
    choice: Any, events: Callable[[], Iterator[Step | Epoch]], look: Callable[[Epoch], Any]
) -> Iterator[Step | Look]:
    """The steps of a panel's run, and a look after each epoch; at ``replay`` those that were recorded.

    Parameters
    ----------
    choice : the run's settings, a dataclass; its type and values name the recording.
    events : begins the run; not called at ``replay``.
    look : what the panel wants to know of an epoch, as far as it can be stored (see `tiers.replayed`).

    Raises
    ------
    LabError : at ``replay``, when no run with these settings was recorded.
    """
    if tiers.tier() == "replay":
        yield from _recorded(choice)
        return
    kept: list[list[Any]] = []
    for event in events():
        found = event if isinstance(event, Step) else _looked(event, look)
        if tiers.recording():
            kept.append(_row(found))
        yield found
    if tiers.recording():
        write(run_name(choice), kept)


def _looked(event: Epoch, look: Callable[[Epoch], Any]) -> Look:
    return Look(event.epoch, event.epochs, look(event), event.state)


def _row(event: Step | Look) -> list[Any]:
    if isinstance(event, Step):
        return ["step", event.epoch, event.step, event.steps, event.losses]
    return ["look", event.epoch, event.epochs, event.seen]


def _recorded(choice: Any) -> Iterator[Step | Look]:
    try:
        rows = read(run_name(choice))
    except LabError as error:
        if "no recording" not in str(error):
            raise
        raise LabError(
            "At the tier replay nothing is trained, and no run with these settings was recorded: "
            "press Reset for settings that were, or set SOCKETLAB_TIER=laptop and start the notebook again."
        ) from None
    for kind, *row in rows:
        if kind == "look":
            yield Look(*row)
        else:
            epoch, step, steps, losses = row
            yield Step(epoch, step, steps, {name: torch.tensor(value) for name, value in losses.items()})


# ------------------------------------------------------------------------ the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the notebooks named, or all, keep their results, and list them in the manifest."""
    from tools import run_notebooks

    parser = argparse.ArgumentParser(
        prog="python -m socketlab.traces", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("names", nargs="*", help="notebooks, for example 04_full_adaptation")
    chosen = parser.parse_args(arguments)
    settings = {tiers.SETTING: "laptop", tiers.RECORDING: "1"}
    try:
        folder = files.data_folder()
        for path in run_notebooks.find(chosen.names):
            run_notebooks.execute(with_more_runs(run_notebooks.read(path)), path.parent, settings=settings)
            print(f"{path.name}: run")
        print(_listing(folder / FOLDER))
        files.write_manifest(folder)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def with_more_runs(notebook: Any) -> Any:
    """Put `ALSO` behind a notebook's last cell, for the panels that it has; in place."""
    import nbformat

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
