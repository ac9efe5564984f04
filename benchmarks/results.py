"""Every number that README and notebooks quote: ``make results`` (or ``python benchmarks/results.py``).

Runs the jobs of `experiments` and writes ``data/results/runs.csv``, a line per run, and one table per
question beside it (`tables`). Finished runs are kept: an interrupted call goes on where it stopped, and a run
is made again when its recipe, its images or its network changed. One process per core, one thread each. With
``--device cuda`` the processes share a GPU, and do what is missing; the pages say what was made where. The
last epoch counts; no epoch, weight or seed is chosen by a target label.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import io
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

os.environ.setdefault("OMP_NUM_THREADS", "1")

import experiments
import other_methods
import pages
import tables
from experiments import Job, Row
from tables import Runs, finished

FIELDS = [
    "origin", "sources", "modality", "sensor", "strength", "mix", "count", "kinds", "recipe", "seed",
    "held_out", "transductive", "class_mean", "shares", "chosen_by", "environment",
    *other_methods.SIGNS,
]  # fmt: skip


def main() -> None:
    """Do what is not yet done, then write the tables and put them into the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="*", help="these tables alone, for example methods bn")
    parser.add_argument("--out", type=Path, help="folder of the tables (default: data/results)")
    parser.add_argument("--quick", action="store_true", help="a small run of everything, for tests")
    parser.add_argument("--tables", action="store_true", help="write the tables of the runs that are there")
    chosen = parser.parse_args()
    from socketlab.files import data_folder

    folder = chosen.out or data_folder() / "results"
    plan = quick_rows() if chosen.quick else experiments.rows(range(chosen.seeds))
    if chosen.only:
        plan = [row for row in plan if row.table in chosen.only]
    done = finished(folder / "runs.csv")
    if not chosen.quick:  # what no table asks for any more is let go
        wanted = {row.job.origin: row.job for row in experiments.rows(range(max(5, chosen.seeds))) if row.job}
        done = {
            key: line | {"recipe": in_words(wanted[key[0]])} for key, line in done.items() if key[0] in wanted
        }
    if not chosen.tables:
        measure(plan, done, folder, chosen.processes, chosen.device, timed=not chosen.quick)
    written = tables.write(folder, plan, done, oracles(plan))
    if not chosen.only or "selection" in chosen.only:
        jobs = experiments.watched(range(1 if chosen.quick else chosen.seeds))
        jobs = [(name, shortened(job)) for name, job in jobs[:2]] if chosen.quick else jobs
        if not chosen.tables:
            measure_epochs(jobs, folder / "epochs.csv", chosen.processes)
        written += tables.write_selection(folder, jobs)
    if not (chosen.tables or chosen.quick or chosen.only):
        written.append(read_colours(folder / "cameras.csv"))
    if not chosen.tables:
        keep_environment(folder / "environment.json")
    print("\n".join(str(path) for path in written))
    if not (chosen.out or chosen.quick):
        pages.fill(folder)


def quick_rows(per_table: int = 2) -> list[Row]:
    """A few lines of each table, on one sensor, with two epochs and one seed: what CI can run in a minute."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in experiments.rows(range(1)):
        if dict(row.about).get("sensor", experiments.ONE) == experiments.ONE and row.job:
            rows[row.table].append(dataclasses.replace(row, job=shortened(row.job)))
    return [row for of_table in rows.values() for row in of_table[:: -(-len(of_table) // per_table)]]


def shortened(job: Job) -> Job:
    """The job with an epoch of alignment, where it has one, and an epoch of all terms."""
    recipe = job.recipe
    if recipe.total_epochs:
        recipe = recipe.replace(align_epochs=min(1, recipe.align_epochs), epochs=1)
    return dataclasses.replace(job, recipe=recipe)


def measure(
    plan: list[Row], done: Runs, folder: Path, processes: int, device: str = "cpu", timed: bool = True
) -> None:
    """Run what is missing, a group of jobs with a common alignment at a time; every finished run is kept."""
    made = {origin for origin, _ in done}
    jobs = {row.job.origin: row.job for row in plan if row.job and row.job.origin not in made}
    groups: dict[str, list[Job]] = defaultdict(list)
    for origin, job in jobs.items():
        groups[shared_beginning(job) or origin].append(job)
    order = {origin: i for i, origin in enumerate(row.job.origin for row in plan if row.job)}
    seconds: list[dict[str, Any]] = []
    bar = tqdm(total=len(jobs), unit="run", smoothing=0.05)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool, bar:  # a GPU cannot be forked
        pending = [pool.submit(carry_out, group, device) for group in groups.values()]
        try:
            for group in as_completed(pending):
                for found in group.result():
                    seconds.append(
                        {"origin": found["origin"], "device": device, "seconds": found.pop("seconds")}
                    )
                    done[found["origin"], device] = found
                    bar.update()
                kept = sorted(done, key=lambda key: (order.get(key[0], len(order)), key[1]))
                write_rows(folder / "runs.csv", [done[key] for key in kept], FIELDS)
                if timed:
                    keep_seconds(folder / "seconds.csv", seconds)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def shared_beginning(job: Job) -> str:
    """Names what the job shares with others, so that one process does it once; "" where nothing."""
    if job.baseline.startswith("socket, then labels"):
        return dataclasses.replace(job, baseline="").origin
    return "" if job.baseline else job.alignment


def measure_epochs(jobs: list[tuple[str, Job]], path: Path, processes: int) -> None:
    """Run the jobs that are not yet there by every rule once more, and judge every epoch."""
    from socketlab.measures import model_selection

    known = []
    if path.exists():
        with open(path, newline="") as file:
            known = [line for line in csv.DictReader(file) if line.keys() >= model_selection.RULES.keys()]
    there = {line["origin"] for line in known}
    missing = [job for _, job in jobs if job.origin not in there]
    with ProcessPoolExecutor(processes) as pool:
        for lines in tqdm(pool.map(judge, missing), total=len(missing), unit="run", desc="selection"):
            known += lines
            write_rows(path, known, list(known[0]))


def judge(job: Job) -> list[dict[str, Any]]:
    """A line per epoch: held-out accuracy, for the reader, and what each rule thinks without labels."""
    import torch

    from socketlab import adapt, features, rooms
    from socketlab.measures import model_selection
    from socketlab.method.adaptation import Epoch

    torch.set_num_threads(1)
    sources, target, pairs = read(job)
    held_out = rooms.load("target_test", job.sensor, (job.modality,), job.strength)
    lines, before = [], None
    for event in adapt(sources, target, pairs, job.recipe, seed=job.seed):
        if isinstance(event, Epoch):
            evidence = model_selection.gather(event.state.adapted, target, sources, before)
            before = evidence.logits
            scores = {name: f"{rule(evidence):.5f}" for name, rule in model_selection.RULES.items()}
            share = f"{features.accuracy(event.state.adapted, held_out):.4f}"
            lines.append({"origin": job.origin, "epoch": event.epoch, "held_out": share} | scores)
    return lines


def read_colours(path: Path) -> Path:
    """How each RGB network reads each camera's colours: accuracy, and what can be known without labels.

    That is L_IM of its predictions of the near pairs' colour pictures: the lower, the surer and more varied.
    """
    from socketlab import features, load_source, losses, rooms

    lines = []
    for camera in experiments.SENSORS:
        rooms_of_the_task = rooms.load("target_test", camera, ("rgb",))
        pairs = rooms.ti_pairs(camera, "near").only("rgb")
        for name in experiments.SENSORS:
            source = load_source(f"rgb_{name}")
            information = float(losses.information_maximisation(features.predict(source, pairs)[0]))
            accuracy = 100 * features.accuracy(source, rooms_of_the_task)
            lines.append({"sensor": camera, "source": name, "held_out": f"{accuracy:.2f}"})
            lines[-1]["information_of_pairs"] = f"{information:.3f}"
    write_rows(path, lines, list(lines[0]))
    return path


def carry_out(jobs: list[Job], device: str = "cpu") -> list[dict[str, Any]]:
    """Jobs with a common alignment: align once, then finish each by itself, and measure the last epoch."""
    import torch

    torch.set_num_threads(1)
    begun = time.perf_counter()
    data = read(jobs[0], device)
    shares = len(jobs) > 1 and not jobs[0].baseline and jobs[0].alignment
    aligned = align(jobs[0], *data) if shares else None
    shared = time.perf_counter() - begun
    found = []
    for job in jobs:
        begun = time.perf_counter()
        state = None
        if aligned is not None:
            state = dataclasses.replace(copy.deepcopy(aligned), recipe=job.recipe)
        if job.baseline:
            adapted, mixing, how = other_methods.adapted_by(job, *data), None, "last epoch"
        else:
            last, how = finish(job, *data, state)
            adapted, mixing = last.adapted, last.mixing
        line = result(job, adapted, mixing, how) | {"seconds": f"{shared + time.perf_counter() - begun:.1f}"}
        found.append(line | (other_methods.signs(adapted, data[1]) if job.untidy else {}))
    return found


def carry_out_one(job: Job) -> Any:
    """The state after the last epoch of one job by itself."""
    return finish(job, *read(job))[0]


def read(job: Job, device: str = "cpu") -> tuple[list[Any], Any, Any]:
    """The source networks, the target's images and the pairs of a job, on the device."""
    from socketlab import load_source, rooms

    sources = [load_source(name) for name in job.sources]
    for source in sources:
        source.network.to(device)
    target = rooms.load("target_adapt", job.sensor, (job.modality,), job.strength)
    if job.untidy:
        target = other_methods.untidy(target, job.untidy, job.sensor, job.modality, job.seed)
    pairs = drawn_pairs(job, (sources[0].modality, job.modality)) if job.mix else None
    return sources, target.to(device), pairs.to(device) if pairs else None


def drawn_pairs(job: Job, modalities: tuple[str, ...]) -> Any:
    """As many pairs as the job says, of as many kinds, drawn by its seed."""
    import torch

    from socketlab import rooms

    about = {"sensor": job.sensor, "modalities": modalities, "strength": job.strength}
    if job.mix not in ("near", "far"):
        return rooms.ti_pairs(mix=float(job.mix), count=job.count, seed=job.seed, **about)
    pairs = rooms.ti_pairs(mix=job.mix, **about)
    generator = torch.Generator().manual_seed(job.seed)
    names = sorted(set(pairs.kinds))
    chosen = {names[i] for i in torch.randperm(len(names), generator=generator)[: job.kinds].tolist()}
    rows = torch.tensor([i for i, kind in enumerate(pairs.kinds) if kind in chosen])
    if job.count is None:
        return pairs
    return pairs.take(rows[torch.randperm(len(rows), generator=generator)[: job.count]])


def align(job: Job, sources: list[Any], target: Any, pairs: Any) -> Any:
    """The state after the epochs of alignment, which do not depend on the terms that follow."""
    from socketlab import adapt
    from socketlab.method.adaptation import Epoch

    length, how = job.recipe.align_epochs, options(job, target)
    for event in adapt(sources, target, pairs, job.recipe, every=length, **how):
        if isinstance(event, Epoch) and event.epoch == length:
            return event.state
    raise AssertionError("an alignment ends with an epoch")


def options(job: Job, target: Any) -> dict[str, Any]:
    """Seed and execution of `adapt`, and how it reads the target's images where the job says it."""
    from socketlab.images import encodings
    from socketlab.speed import best_execution

    read = encodings.measure(target.images["depth"], "depth", job.encoding) if job.encoding else None
    return {"seed": job.seed, "execution": best_execution(), "normalisation": read}


def finish(job: Job, sources: list[Any], target: Any, pairs: Any, state: Any = None) -> tuple[Any, str]:
    """The state after the last epoch, or, of a run that diverged, as it was when it did."""
    from socketlab import LabError, adapt
    from socketlab.method.adaptation import Epoch

    used = pairs if job.recipe.lambda_ti > 0 else None
    how = options(job, target)
    events = adapt(sources, target, used, job.recipe, state=state, every=10**6, **how)
    try:
        for event in events:
            if isinstance(event, Epoch):
                state = event.state
    except LabError as error:
        if state is None or "stopped being a number" not in str(error):
            raise
        return state, "diverged"
    return state, "last epoch"


def result(job: Job, adapted: Any, mixing: Any, how: str) -> dict[str, Any]:
    """A line of ``runs.csv``: the job in words, and what the adapted network makes of the target."""
    from socketlab import features, rooms
    from socketlab.networks.networks import device_of, mixing_weights

    held_out = rooms.load("target_test", job.sensor, (job.modality,), job.strength)
    target = rooms.load("target_adapt", job.sensor, (job.modality,), job.strength)
    counts = features.confusion(adapted, held_out)
    return {
        "origin": job.origin,
        "sources": " ".join(job.sources),
        "modality": job.modality,
        "sensor": job.sensor,
        "strength": job.strength,
        "mix": job.mix,
        "count": job.count or "",
        "kinds": job.kinds or "",
        "recipe": in_words(job),
        "seed": job.seed,
        "held_out": f"{float(counts.trace() / counts.sum()):.4f}",
        "transductive": f"{features.accuracy(adapted, target):.4f}",
        "class_mean": f"{features.class_mean_accuracy(counts):.4f}",
        "shares": ""
        if mixing is None
        else " ".join(f"{a:.3f}" for a in mixing_weights(mixing.detach()).tolist()),
        "chosen_by": how,
        "environment": environment(job, device_of(adapted.network)),
    }


def in_words(job: Job) -> str:
    """What a recipe changes of the library's plain `Recipe()`."""
    from socketlab import Recipe

    plain, own = dataclasses.asdict(Recipe()), dataclasses.asdict(job.recipe)
    changed = [f"{name}={own[name]}" for name in own if own[name] != plain[name]]
    more = [
        f"{name}={getattr(job, name)}" for name in ("baseline", "untidy", "encoding") if getattr(job, name)
    ]
    return " ".join([*changed, *more])


def environment(job: Job, device: Any) -> str:
    """The torch release, the device and the adaptation's precision: what a number may depend on."""
    import torch

    from socketlab.method.steps import autocast

    with autocast(job.recipe, device):
        on = torch.is_autocast_enabled(device.type)
    if job.baseline.startswith(("fine-tuned", "from scratch")):  # trained on labels alone, in float32
        on = False
    place = "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return f"torch {torch.__version__.split('+')[0]}, {place}, {'bfloat16' if on else 'float32'}"


def keep_environment(path: Path) -> None:
    """Where the runs were made last, and from which data."""
    import json
    import platform

    import torch

    from socketlab.files import write_whole

    about = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "data": experiments.data_digest(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(about, indent=1) + "\n").encode())


def oracles(plan: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Accuracies of the networks that were trained with the target's labels."""
    from socketlab import features, load_source, rooms

    found = {}
    for name in sorted({row.oracle for row in plan if row.oracle}):
        source = load_source(name)
        sensor = next((s for s in experiments.SENSORS if name.endswith(s)), experiments.ONE)
        counts = features.confusion(source, rooms.load("target_test", sensor, (source.modality,)))
        adapted_to = rooms.load("target_adapt", sensor, (source.modality,))
        found[name] = {
            "held_out": f"{float(counts.trace() / counts.sum()):.4f}",
            "transductive": f"{features.accuracy(source, adapted_to):.4f}",
            "class_mean": f"{features.class_mean_accuracy(counts):.4f}",
            "chosen_by": "last epoch, target labels",
        }
    return found


def keep_seconds(path: Path, new: list[dict[str, Any]]) -> None:
    """Wall times apart from the numbers, which are the same on every call."""
    known = tables.read(path) if path.exists() else []
    latest = {(found["origin"], found["device"]): found for found in (*known, *new)}
    if latest:
        write_rows(path, list(latest.values()), ["origin", "device", "seconds"])


def write_rows(path: Path, rows: Iterable[dict[str, Any]], fields: list[str]) -> None:
    """Lines as CSV, whole or not at all."""
    from socketlab.files import write_whole

    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue().encode())


if __name__ == "__main__":
    sys.exit(main())
