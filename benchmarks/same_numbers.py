"""Whether this version's numbers are those of version 0.1: ``python benchmarks/same_numbers.py``.

Full runs on one camera (Kinect v1, float32, one thread, seed 0): the losses of every step and the accuracy at
the end, beside the stored values of version 0.1. Rounding grows during training: a difference of 1e-7 in one
step's sum is one of 1e-4 or more after two hundred steps. So the first epoch is compared by itself.

One thing was changed on purpose: statistics were re-estimated in batches of 128, 128, 128 and 96 images that
weighed the same, and are in four of 120, so that every image does, and no rest of one image fails. So losses
are compared with the old batches put back; the last column is the accuracy without that.

``--store FILE`` writes the numbers of the version at work, as it was done with version 0.1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from socketlab import Recipe, adapt, features, load_source, rooms

STORED = Path(__file__).with_name("same_numbers_0_1.json")
PAGE = Path(__file__).parent.parent / "docs" / "same_numbers.md"
CAMERA = "kinect_v1"


def recipes() -> dict[str, tuple[Recipe, int]]:
    """Name of a run → its recipe and the number of source networks."""
    plain = {name: Recipe.for_method(name) for name in ("socket", "shot", "tent", "aad", "paper")}
    plain["socket, λ_d = 0.1"] = Recipe.socket().replace(lambda_bn=0.1)
    found = {name: (recipe.replace(precision="float32"), 1) for name, recipe in plain.items()}
    two = Recipe.socket().replace(precision="float32", lambda_bn=0.1)
    return found | {"socket, λ_d = 0.1, two sources": (two, 2)}


@contextlib.contextmanager
def earlier_batches() -> Iterator[None]:
    """Within it, statistics are re-estimated as in version 0.1: full batches and a rest, of equal weight."""
    from socketlab.method import adaptation, evaluate
    from socketlab.networks.networks import norm_layers

    def parts(count: int, most: int) -> list[slice]:
        return [slice(first, min(first + most, count)) for first in range(0, count, most)]

    @torch.no_grad()
    def reestimate(network: Any, batches: Any, forward: Any) -> None:
        layers = norm_layers(network)
        for layer in layers:
            layer.reset_running_stats()
        with (
            evaluate.attribute_set(layers, "momentum", None),
            evaluate.attribute_set(network.modules(), "training", True),
        ):
            for images in batches:
                forward(images)

    with (
        mock.patch.object(evaluate, "even_parts", parts),
        mock.patch.object(adaptation, "reestimate_statistics", reestimate),
    ):
        yield


def run(recipe: Recipe, networks: int) -> dict[str, Any]:
    """Losses of every step and the held-out accuracy at the end."""
    sources = [load_source(f"rgb_{name}") for name in ("kinect_v1", "xtion")[:networks]]
    target = rooms.load("target_adapt", CAMERA, ("depth",))
    pairs = rooms.ti_pairs(CAMERA, "near") if recipe.lambda_ti > 0 else None
    losses, state = [], None
    for event in adapt(sources if networks > 1 else sources[0], target, pairs, recipe, seed=0):
        if hasattr(event, "losses"):
            losses.append(event.losses)
        else:
            state = event.state
    held_out = features.accuracy(state.adapted, rooms.load("target_test", CAMERA, ("depth",)))
    return {"steps": losses, "accuracy": float(held_out)}


def difference(one: list[dict[str, float]], other: list[dict[str, float]], steps: int) -> float:
    """The largest relative difference of any loss term within the first steps."""
    rows = [(a[name], b[name]) for a, b in zip(one[:steps], other[:steps], strict=True) for name in a]
    return max((abs(a - b) / max(abs(a), abs(b), 1e-3) for a, b in rows), default=0.0)


def line(name: str, now: dict[str, Any], then: dict[str, Any], epochs: int, accuracy: float) -> str:
    """A row of the table."""
    a, b = now["steps"], then["steps"]
    if [sorted(x) for x in a] != [sorted(x) for x in b]:
        raise SystemExit(f"{name}: other loss terms than in version 0.1")
    first = difference(a, b, len(a) // epochs)
    return (
        f"| {name} | {len(a)} | {first:.0e} | {difference(a, b, len(a)):.0e} "
        f"| {then['accuracy']:.2%} | {now['accuracy']:.2%} | {accuracy:.2%} |"
    )


def main() -> None:
    """Run everything, compare, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--only", nargs="*")
    chosen = parser.parse_args()
    found, table = {}, []
    then = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    for name, (recipe, networks) in recipes().items():
        if chosen.only and name not in chosen.only:
            continue
        if chosen.store:
            found[name] = run(recipe, networks)
            print(name, found[name]["accuracy"], flush=True)
            chosen.store.write_text(json.dumps(found), encoding="utf-8")
            continue
        with earlier_batches():
            found[name] = run(recipe, networks)
        now = run(recipe, networks)["accuracy"]
        table.append(line(name, found[name], then[name], recipe.total_epochs, now))
        print(table[-1], flush=True)
    if table and not chosen.only:
        head = [
            "# The same numbers as version 0.1",
            "",
            *(text.replace("\n", " ") + "\n" for text in (__doc__ or "").split("\n\n")[1:3]),
            f"Measured on {platform.machine()} by `python benchmarks/same_numbers.py`.",
            "",
            "| run | steps | largest relative difference of a loss, first epoch | whole run "
            "| accuracy 0.1 | now, old batches | now |",
            "|---|---|---|---|---|---|---|",
        ]
        PAGE.write_text("\n".join([*head, *table]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
