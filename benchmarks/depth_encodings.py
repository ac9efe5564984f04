"""How depth is best read: ``python benchmarks/depth_encodings.py`` compares the encodings of depth.

PocketRooms, Kinect v1, near pairs, the recommended recipe: all that changes is how the target's depth becomes
three channels. Writes ``data/results/encodings_runs.csv``, a line per run, and, when all runs are there,
``encodings.csv``: means, deviations and differences to metric depth, seed by seed, with Student's 95 %
interval, and the least time that encoding 32 views took. Finished runs are kept: an interrupted call goes on.
With ``--device cuda`` the processes share a GPU; its runs are kept beside those of a CPU, and the table is
made of one kind alone. The last epoch counts; nothing is chosen by a target label.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pages
from experiments import Job, data_digest
from results import environment, write_rows
from scipy import stats
from tables import Runs, finished, of_one_device
from tqdm import tqdm

from socketlab.images.encodings import DEPTH_ENCODINGS
from socketlab.method.recipe import Recipe

SENSOR, PAIRS = "kinect_v1", "near"
METHODS = ("adabn", "socket")
STILL = "adabn"
"""Has no chance in it: one run says all."""
RUNS, TABLE = "encodings_runs.csv", "encodings.csv"
MEASURED = ("held_out", "transductive", "class_mean")
FIELDS = ["origin", "method", "encoding", "seed", *MEASURED, "milliseconds", "chosen_by", "environment"]
Plan = dict[str, tuple[str, str, int, Recipe]]
"""Origin → method, encoding, seed and recipe."""


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="folder of the tables (default: data/results)")
    parser.add_argument("--only", nargs="*", default=DEPTH_ENCODINGS, choices=DEPTH_ENCODINGS)
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch of everything, for tests")
    chosen = parser.parse_args()
    from socketlab.files import data_folder

    usual = data_folder() / "results"
    folder = chosen.out or (Path(tempfile.mkdtemp(prefix="encodings-")) if chosen.quick else usual)
    seeds = 1 if chosen.quick else chosen.seeds
    done = finished(folder / RUNS)
    measure(planned(chosen.only, seeds, chosen.quick), done, folder, chosen.processes, chosen.device)
    print(write_table(planned(DEPTH_ENCODINGS, seeds, chosen.quick), done, folder))
    if folder == usual:
        pages.fill(folder)


def planned(names: Iterable[str], seeds: int, quick: bool) -> Plan:
    """All runs; metric first."""
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


def measure(plan: Plan, done: Runs, folder: Path, processes: int, device: str) -> None:
    """Carry out what this device has not, and add it to ``done``; every finished run is written down."""
    missing = {origin: job for origin, job in plan.items() if (origin, device) not in done}
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:  # a GPU cannot be forked
        pending = [pool.submit(carried_out, origin, device, *job) for origin, job in missing.items()]
        try:
            for found in tqdm(as_completed(pending), total=len(pending), unit="run"):
                line = found.result()
                done[line["origin"], device] = line
                write_rows(folder / RUNS, list(done.values()), FIELDS)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_table(plan: Plan, done: Runs, folder: Path) -> str:
    """The table, where all runs are there; says where it is, or how many runs are missing."""
    runs = of_one_device(set(plan), done)
    if runs is None:
        return f"{folder / RUNS}: {len({one for one, _ in done} & set(plan))} of {len(plan)} runs are done"
    lines = summary([runs[origin] for origin in plan])
    write_rows(folder / TABLE, lines, list(lines[0]))
    return str(folder / TABLE)


def carried_out(
    origin: str, device: str, method: str, name: str, seed: int, recipe: Recipe
) -> dict[str, Any]:
    """A line of ``encodings_runs.csv``: one adaptation, measured after its last epoch."""
    import torch

    from socketlab import LabError
    from socketlab.method.adaptation import Epoch, adapt
    from socketlab.runs.results import score
    from socketlab.runs.settings import Settings, gather

    torch.set_num_threads(1)
    settings = Settings(SENSOR, method, PAIRS, seed=seed, device=device, recipe=recipe, depth_encoding=name)
    material = gather(settings)
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
    found = score(name, state.adapted, material, adapts=True)
    seconds = encoding_seconds(material.normalisation, material.target.images["depth"][:32])
    shares = dict(zip(MEASURED, (found.held_out, found.adapted_to, found.class_mean), strict=True))
    return {
        "origin": origin, "method": method, "encoding": name, "seed": seed,
        **{measure: f"{share:.4f}" for measure, share in shares.items()},
        "milliseconds": f"{1000 * seconds:.2f}", "chosen_by": how,
        "environment": environment(Job(recipe=recipe), torch.device(device)),
    }  # fmt: skip


def encoding_seconds(normalisation: Any, batch: Any, rounds: int = 10) -> float:
    """The least time that encoding a batch takes: what else the machine does only adds to it."""
    import torch

    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        normalisation.encode(batch)
        if batch.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


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
        least = min(float(line["milliseconds"]) for line in mine.values())
        about |= _difference(mine, plain, name) | {"milliseconds": f"{least:.2f}"}
        found.append(about | {"chosen_by": _how(mine.values())})
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
