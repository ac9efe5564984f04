"""Three speeds of the course, from one setting: ``SOCKETLAB_TIER=replay``, ``laptop`` or ``full``.

At ``laptop``, the default, a cell that trains takes a minute at most on two cores. At ``replay`` nothing is
trained: `replayed` and the panels show what was recorded when the same cell ran at ``laptop``
(`socketlab.runs.recordings`). At ``full`` a GPU is used where there is one, runs are longer, and seeds are
several.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from socketlab.errors import LabError

if TYPE_CHECKING:
    from socketlab.method.recipe import Recipe

Result = TypeVar("Result")
SETTING = "SOCKETLAB_TIER"
RECORDING = "SOCKETLAB_RECORD"
"""Set to 1 by ``python -m socketlab.runs.recordings``: what `replayed` computes is kept."""

TIERS = {
    "replay": "nothing is trained; recorded runs are shown",
    "laptop": "everything is computed; two cores are enough",
    "full": "longer runs, larger batches, five seeds; on a GPU where there is one",
}


def tier() -> str:
    """The tier at work: "replay", "laptop" or "full"; `LabError` when the setting names another."""
    chosen = os.environ.get(SETTING, "").strip().lower() or "laptop"
    if chosen not in TIERS:
        raise LabError(f"{SETTING}={chosen} is no tier: choose among {', '.join(TIERS)}.")
    return chosen


def use(name: str) -> str:
    """Choose a tier for this process, as in the first cell of a notebook; return what it means."""
    before = os.environ.get(SETTING)
    os.environ[SETTING] = name
    try:
        return f"{tier()}: {TIERS[tier()]}"
    except LabError:
        os.environ.pop(SETTING) if before is None else os.environ.__setitem__(SETTING, before)
        raise


def replayed(name: str, compute: Callable[[], Result]) -> Result:
    """What ``compute`` returns; at ``replay`` what it returned when it was recorded.

    Parameters
    ----------
    name : of the recording: small letters, digits and hyphens, beginning with the notebook's number.
    compute : trains, and returns numbers, text, tensors, arrays, networks (`Source`), frozen records of the
        kit, or lists, tuples and dictionaries of them. Networks come back from a recording as they were in
        16 bits.

    Raises
    ------
    LabError : at ``replay``, when there is no such recording or it was altered; when recording, for a result
        of another kind.
    """
    from socketlab.runs import recordings

    if tier() == "replay":
        found: Result = recordings.read(name)
        return found
    result = compute()
    if recording():
        recordings.write(name, result)
    return result


def recording() -> bool:
    """True while results are to be kept."""
    return os.environ.get(RECORDING) == "1" and tier() != "replay"


def device() -> str:
    """Where to compute: "cuda" at ``full`` where there is a GPU, else "cpu"."""
    if tier() != "full":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def seeds() -> tuple[int, ...]:
    """Seeds of a repeated run: five at ``full``, else one."""
    return (0, 1, 2, 3, 4) if tier() == "full" else (0,)


def lengthened(recipe: Recipe) -> Recipe:
    """The recipe, at ``full`` with twice the epochs and twice the batch, which is as many steps."""
    if tier() != "full":
        return recipe
    return recipe.replace(
        align_epochs=2 * recipe.align_epochs, epochs=2 * recipe.epochs, batch_size=2 * recipe.batch_size
    )
