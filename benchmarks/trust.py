"""Which measures of the gap tell how well a network will read depth: ``make trust``.

For every sensor, strength of its errors and method, the adapted network's depth features of *pairs that no
method was trained on* are compared with the source network's RGB features of their partners, in every
measure; no label is needed for that. Rank correlations with held-out accuracy then say which measures go with
it. Writes ``data/results/trust_points.csv`` (a line per network, kept: an interrupted call goes on) and
``trust.csv``.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pages
from experiments import SENSORS, Job
from results import carry_out_one, drawn_pairs, write_rows
from tables import read

from socketlab.method.recipe import Recipe

METHODS = {"source-only": "", "adabn": "", "shot": "", "socket far": "far", "socket near": "near"}
STRENGTHS = (1.0, 3.0)
HALF = 250
"""Far pairs that train "socket far"; the other half of them, which none trains on, measures all."""
POINTS, TABLE = "trust_points.csv", "trust.csv"


def main() -> None:
    """Train what is missing, measure it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="folder of the tables (default: data/results)")
    chosen = parser.parse_args()
    from socketlab.files import data_folder

    folder = chosen.out or data_folder() / "results"
    done = {line["origin"]: line for line in read(folder / POINTS)} if (folder / POINTS).exists() else {}
    jobs = planned()
    done = {origin: line for origin, line in done.items() if origin in jobs}
    missing = [origin for origin in jobs if origin not in done]
    with ProcessPoolExecutor(chosen.processes) as pool:
        pending = [pool.submit(point, origin, *jobs[origin]) for origin in missing]
        for found in tqdm(as_completed(pending), total=len(pending), unit="network"):
            line = found.result()
            done[line["origin"]] = line
            kept = [done[origin] for origin in jobs if origin in done]
            write_rows(folder / POINTS, kept, list(line))
    write_rows(folder / TABLE, summary(done[origin] for origin in jobs), FIELDS)
    if chosen.out is None:
        pages.fill(folder)


def planned() -> dict[str, tuple[str, Job]]:
    """Origin → method and job."""
    jobs: dict[str, tuple[str, Job]] = {}
    for sensor in SENSORS:
        for strength in STRENGTHS:
            for method, mix in METHODS.items():
                recipe = Recipe.for_method(method.split()[0])
                count = HALF if mix == "far" else None
                job = Job((f"rgb_{sensor}",), "depth", sensor, strength, mix, count, recipe=recipe)
                jobs[job.origin] = method, job
    return jobs


def point(origin: str, method: str, job: Job) -> dict[str, Any]:
    """One network: its held-out accuracy, and every measure on pairs that it was not trained on."""
    import torch

    from socketlab import features, load_source, rooms

    torch.set_num_threads(1)
    adapted = carry_out_one(job).adapted
    source = load_source(job.sources[0])
    held_out = rooms.load("target_test", job.sensor, ("depth",), job.strength)
    line: dict[str, Any] = {
        "origin": origin,
        "sensor": job.sensor,
        "strength": job.strength,
        "method": method,
    }
    line["held_out"] = f"{features.accuracy(adapted, held_out):.4f}"
    unseen = unseen_pairs(job)
    ours = features.predict(source, unseen.only("rgb"))[1]
    theirs = features.predict(adapted, unseen.only("depth"))[1]
    return line | {
        name: f"{value:.6g}" for name, value in measured(source, adapted, unseen, ours, theirs).items()
    }


def unseen_pairs(job: Job) -> Any:
    """The far pairs that ``socket far`` leaves alone."""
    everything = drawn_pairs(replace(job, mix="far", count=None), ("rgb", "depth"))
    used = set(drawn_pairs(replace(job, mix="far", count=HALF), ("rgb", "depth")).names)
    return everything.take([i for i, name in enumerate(everything.names) if name not in used])


def measured(source: Any, adapted: Any, unseen: Any, ours: Any, theirs: Any) -> dict[str, float]:
    """Every measure of two sets of features, and how far the layers are from what the source remembers."""
    from socketlab.measures.bn_moments import norm_statistics
    from socketlab.measures.distances import symmetric_divergence
    from socketlab.measures.metrics import MEASURES
    from socketlab.networks.networks import norm_layers

    found = {name: float(one.fix(ours, theirs, True, 0)(ours, theirs)) for name, one in MEASURES.items()}
    seen = norm_statistics(adapted.network, unseen.only("depth"), adapted.normalisation)
    gaps = [
        symmetric_divergence(one.mean, one.var, layer.running_mean, layer.running_var).mean()
        for one, layer in zip(seen, norm_layers(source.network), strict=True)
    ]
    return found | {"norm_gap": float(mean(float(gap) for gap in gaps))}


FIELDS = ["measure", "title", "networks", "all", "low", "high", "within_method", "within_sensor"]


def summary(points: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's ρ of each measure with accuracy: over all, with its interval; in methods; in sensors.

    A measure that grows with likeness is turned round, so that −1 is always the best: the smaller the gap,
    the higher the accuracy.
    """
    from socketlab.measures.metrics import MEASURES

    lines, points = [], list(points)
    accuracy = np.array([float(line["held_out"]) for line in points])
    for name in [*MEASURES, "norm_gap"]:
        known = MEASURES.get(name)
        alike = known is not None and any(
            word in known.larger for word in ("alike", "nearer", "easier to find")
        )
        values = np.array([float(line[name]) for line in points]) * (-1 if alike else 1)
        low, high = interval(values, accuracy)
        lines.append(
            {"measure": name, "title": known.title if known else "batch-norm layers from the source's memory"}
            | {"networks": len(points), "all": f"{rho(values, accuracy):.2f}"}
            | {"low": f"{low:.2f}", "high": f"{high:.2f}"}
            | {
                f"within_{key}": f"{inside([line[key] for line in points], values, accuracy):.2f}"
                for key in ("method", "sensor")
            }
        )
    return sorted(lines, key=lambda line: float(line["all"]))


def rho(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(stats.spearmanr(x, y).statistic)


def interval(x: np.ndarray, y: np.ndarray, rounds: int = 2000) -> tuple[float, float]:
    """95 % from drawing networks anew, with a fixed seed."""
    draw = np.random.default_rng(0)
    found = [rho(x[i], y[i]) for i in draw.integers(len(x), size=(rounds, len(x)))]
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def inside(groups: list[str], x: np.ndarray, y: np.ndarray) -> float:
    """Mean of the correlations within each group: what is left without the differences between groups."""
    rows: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        rows[group].append(i)
    return float(np.nanmean([rho(x[i], y[i]) for i in rows.values()]))


if __name__ == "__main__":
    main()
