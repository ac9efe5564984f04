"""Two speeds of the course, and the recordings (``data/traces``) that the quicker one shows.

``SOCKETLAB_TIER`` is ``laptop`` (the default), where a cell that trains takes a minute at most on two cores,
or ``replay``, where nothing is trained: `replayed` and the panels show what ``python -m tools.record``
stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from socketlab import files
from socketlab.errors import LabError, require_choice
from socketlab.measures.model_selection import Evidence
from socketlab.method.adaptation import Epoch, State, Step
from socketlab.networks.checkpoints import Source, load_source, read_tensors, save_source, write_tensors
from socketlab.networks.networks import networks_of

Result = TypeVar("Result")
SETTING = "SOCKETLAB_TIER"
RECORDING = "SOCKETLAB_RECORD"  # 1 while what `replayed` and `played` compute is stored
TIERS = {
    "replay": "nothing is trained; recorded runs are shown",
    "laptop": "everything is computed; two cores are enough",
}
FOLDER = "traces"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def tier(chosen: str | None = None) -> str:
    """The current tier, "replay" or "laptop"; `LabError` when the setting names another."""
    named = os.environ.get(SETTING, "") if chosen is None else chosen
    found = named.strip().lower() or "laptop"
    require_choice(SETTING, found, tuple(TIERS))
    return found


def use(name: str) -> str:
    """Choose a tier for this process, as in the first cell of a notebook; return what it means."""
    os.environ[SETTING] = found = tier(name)
    return f"{found}: {TIERS[found]}"


def recording() -> bool:
    """True while results are to be stored."""
    return os.environ.get(RECORDING) == "1" and tier() != "replay"


def replayed(name: str, compute: Callable[[], Result]) -> Result:
    """Result of ``compute``; at ``replay`` the recorded one, or a `LabError` where none was.

    Results are numbers, text, tensors, arrays, networks (`Source`, which come back as they were in 16 bits),
    `Evidence`, or lists, tuples and dictionaries of them. A name has small letters, digits and hyphens, and
    begins with the notebook's number.
    """
    if tier() == "replay":
        return cast(Result, read(name))
    result = compute()
    if recording():
        write(name, result)
    return result


def is_recorded(name: str) -> bool:
    """Whether the manifest lists a recording of this name."""
    return f"{FOLDER}/{name}.safetensors" in files.read_manifest(files.data_folder())


def read(name: str) -> Any:
    """A recorded result; `LabError` when there is none, its file was altered, or it is no recording."""
    if not is_recorded(name):
        way_out = "set SOCKETLAB_TIER=laptop, or record with `python -m tools.record`"
        raise LabError(f"There is no recording {name!r} for the tier replay: {way_out}.")
    path = files.verified(f"{FOLDER}/{name}.safetensors")
    tensors, header = read_tensors(path)
    try:
        return _unpacked(header["value"], tensors, name)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise LabError(f"{path} is not a recording of this kit: {type(error).__name__}, {error}.") from error


def write(name: str, value: Any) -> None:
    """Store a result: ``<name>.safetensors``, and one more file for every network in it."""
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


def _packed(value: Any, tensors: dict[str, Tensor], networks: list[Source]) -> Any:
    """The value as JSON; tensors and networks are appended to the lists and stand in it by number."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        name = f"t{len(tensors)}"
        tensors[name] = torch.as_tensor(value).detach().clone()
        return {"tensor" if isinstance(value, Tensor) else "array": name}
    if isinstance(value, Source):
        if not all(network.trunk.name for network in networks_of(value.network)):
            raise LabError("A module from outside cannot be recorded: return its state_dict() and load that.")
        networks.append(value)
        return {"network": len(networks) - 1}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_packed(one, tensors, networks) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[_packed(x, tensors, networks) for x in pair] for pair in value.items()]}
    if isinstance(value, Evidence):
        return {"record": ["Evidence", _packed(vars(value), tensors, networks)]}
    raise LabError(f"A {type(value).__name__} cannot be recorded: return numbers, text, tensors or networks.")


def _unpacked(tree: Any, tensors: Mapping[str, Tensor], name: str) -> Any:
    """The value that `_packed` made JSON of."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "array":
            return tensors[content].numpy()
        case "record":
            return Evidence(**_unpacked(content[1], tensors, name))  # whatever kind the file names
        case "network":
            return load_source(files.verified(f"{FOLDER}/{name}.{int(content)}.safetensors"))
        case "dict":
            return {_unpacked(k, tensors, name): _unpacked(v, tensors, name) for k, v in content}
        case "list" | "tuple":
            found = [_unpacked(one, tensors, name) for one in content]
            return tuple(found) if kind == "tuple" else found
    raise ValueError(f"unknown entry {kind!r}")


@dataclass(frozen=True)
class Observation:
    """What a panel has ``seen`` after an epoch; the live state is None where the run is a recorded one."""

    epoch: int
    epochs: int
    seen: Any
    state: State | None = None


def run_name(choice: Any) -> str:
    """Name of the recording of a panel's run: the same for the same settings, to six digits."""
    about = dataclasses.asdict(choice)
    recipe = about.get("recipe", {})
    if recipe.get("pair_statistics") == "own":  # recordings are older than this field
        del recipe["pair_statistics"]
    values = json.dumps(about)
    rounded = json.loads(values, parse_float=lambda text: float(f"{float(text):.6g}"))
    text = json.dumps([type(choice).__qualname__, rounded], sort_keys=True)
    return f"panel-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def played(
    choice: Any, events: Callable[[], Iterator[Step | Epoch]], measure: Callable[[Epoch], Any]
) -> Iterator[Step | Observation]:
    """The steps of a panel's run, and an observation after each epoch; at ``replay`` the recorded ones.

    Type and values of ``choice``, a dataclass, name the recording. ``events`` begins the run, ``measure``
    observes an epoch; its values can be stored (see `replayed`).
    """
    name = run_name(choice)
    if tier() == "replay":
        for kind, *row in read(name):
            if kind == "look":
                yield Observation(*row)
            else:
                epoch, step, steps, losses = row
                yield Step(epoch, step, steps, {name: torch.tensor(loss) for name, loss in losses.items()})
        return
    rows: list[list[Any]] = []
    for event in events():
        if isinstance(event, Step):
            rows += [["step", event.epoch, event.step, event.steps, event.losses]] if recording() else []
            yield event
        else:
            seen = measure(event)
            rows += [["look", event.epoch, event.epochs, seen]] if recording() else []
            yield Observation(event.epoch, event.epochs, seen, event.state)
    if recording():
        write(name, rows)
