"""How depth is best read: ``python benchmarks/depth_encodings.py`` compares the encodings of depth.

PocketRooms, Kinect v1, near pairs, the recommended recipe: all that changes is how the target's depth becomes
three channels. Writes ``data/results/encodings_runs.csv``, a line per run (kept: an interrupted call goes
on), and ``encodings.csv``, means, deviations and differences to metric depth, seed by seed, with Student's
95 % interval; ``milliseconds`` is what encoding 32 views takes. The last epoch counts; nothing is chosen by a
target label.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from experiments import data_digest
from results import write_rows
from scipy import stats
from tables import read
from tqdm import tqdm

from socketlab.encodings import DEPTH_ENCODINGS
from socketlab.recipe import Recipe

SENSOR, PAIRS = "kinect_v1", "near"
METHODS = ("adabn", "socket")
STILL = "adabn"
"""Has no chance in it: one run says all."""
RUNS, TABLE = "encodings_runs.csv", "encodings.csv"
MEASURED = ("held_out", "transductive", "class_mean")
FIELDS = ["origin", "method", "encoding", "seed", *MEASURED, "milliseconds", "chosen_by"]


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="folder of the tables (default: data/results)")
    parser.add_argument("--only", nargs="*", default=DEPTH_ENCODINGS, choices=DEPTH_ENCODINGS)
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch of everything, for tests")
    chosen = parser.parse_args()
    from socketlab.files import data_folder

    folder = chosen.out or data_folder() / "results"
    plan = planned(chosen.only, 1 if chosen.quick else chosen.seeds, chosen.quick)
    done = {line["origin"]: line for line in read(folder / RUNS)} if (folder / RUNS).exists() else {}
    missing = {origin: job for origin, job in plan.items() if origin not in done}
    with ProcessPoolExecutor(chosen.processes) as pool:
        pending = [pool.submit(carried_out, origin, *job) for origin, job in missing.items()]
        for found in tqdm(as_completed(pending), total=len(pending), unit="run"):
            line = found.result()
            done[line["origin"]] = line
            write_rows(folder / RUNS, [done[o] for o in plan if o in done], FIELDS)
    lines = summary([done[origin] for origin in plan])
    write_rows(folder / TABLE, lines, list(lines[0]))
    print(folder / TABLE)


def planned(names: Iterable[str], seeds: int, quick: bool) -> dict[str, tuple[str, str, int, Recipe]]:
    """Origin → method, encoding, seed and recipe; metric first."""
    jobs = {}
    for method in METHODS:
        for seed in range(1 if method == STILL else seeds):
            for name in names:
                recipe = Recipe.for_method(method)
                if quick and recipe.total_epochs:
                    recipe = recipe.replace(align_epochs=1, epochs=1)
                about = {"method": method, "encoding": name, "seed": seed, "recipe": asdict(recipe)}
                about |= {"sensor": SENSOR, "pairs": PAIRS, "data": data_digest()}
                text = json.dumps(about, sort_keys=True)
                origin = hashlib.sha256(text.encode()).hexdigest()[:16]
                jobs[origin] = method, name, seed, recipe
    return jobs


def carried_out(origin: str, method: str, name: str, seed: int, recipe: Recipe) -> dict[str, Any]:
    """A line of ``encodings_runs.csv``: one adaptation, measured after its last epoch."""
    import torch

    from socketlab import LabError, runs
    from socketlab.adapt import Epoch, adapt

    torch.set_num_threads(1)
    settings = runs.Settings(SENSOR, method, PAIRS, seed=seed, recipe=recipe, depth_encoding=name)
    material = runs.gather(settings)
    assert material.normalisation is not None
    state, how = None, "last epoch"
    events = adapt(
        material.sources, material.target, material.pairs, recipe, seed=seed, every=10**6,
        normalisation=material.normalisation,
    )  # fmt: skip
    try:
        for event in events:
            if isinstance(event, Epoch):
                state = event.state
    except LabError as error:
        if "stopped being a number" not in str(error):
            raise
        how = "diverged"
    assert state is not None
    found = runs.score(name, state.adapted, material, adapts=True)
    batch = material.target.images["depth"][:32]
    begun = time.perf_counter()
    for _ in range(10):
        material.normalisation.encode(batch)
    each = (time.perf_counter() - begun) / 10
    shares = dict(zip(MEASURED, (found.held_out, found.adapted_to, found.class_mean), strict=True))
    return {
        "origin": origin, "method": method, "encoding": name, "seed": seed,
        **{measure: f"{share:.4f}" for measure, share in shares.items()},
        "milliseconds": f"{1000 * each:.1f}", "chosen_by": how,
    }  # fmt: skip


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line per method and encoding, in per cent; differences to metric depth with the same seed."""
    found = []
    for method, name in dict.fromkeys((line["method"], line["encoding"]) for line in lines):
        mine = {
            int(line["seed"]): line for line in lines if (line["method"], line["encoding"]) == (method, name)
        }
        plain = {int(x["seed"]): x for x in lines if (x["method"], x["encoding"]) == (method, "metric")}
        about: dict[str, Any] = {"method": method, "encoding": name, "runs": len(mine)}
        for measure in MEASURED:
            values = [100 * float(line[measure]) for line in mine.values()]
            about[measure] = f"{mean(values):.2f}"
            about[f"{measure}_std"] = f"{stdev(values):.2f}" if len(values) > 1 else ""
        found.append(about | _difference(mine, plain, name) | {"chosen_by": _how(mine.values())})
    return found


def _difference(
    mine: dict[int, dict[str, Any]], plain: dict[int, dict[str, Any]], name: str
) -> dict[str, str]:
    common = [seed for seed in mine if seed in plain]
    if name == "metric" or len(common) < 2:
        return {"difference": "", "low": "", "high": ""}
    differences = [100 * (float(mine[s]["held_out"]) - float(plain[s]["held_out"])) for s in common]
    centre = mean(differences)
    reach = float(stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1))
    return {"difference": f"{centre:.2f}", "low": f"{centre - reach:.2f}", "high": f"{centre + reach:.2f}"}


def _how(lines: Iterable[dict[str, Any]]) -> str:
    lost = sum(line["chosen_by"] == "diverged" for line in lines)
    return f"last epoch, {lost} diverged" if lost else "last epoch"


if __name__ == "__main__":
    main()
