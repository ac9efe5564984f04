"""Every number that README and notebooks quote: ``python benchmarks/results.py`` (or ``make results``).

Runs each method on each depth sensor over several seeds and writes ``data/results/slice.csv`` (a row per run)
and ``data/results/slice_summary.csv`` (mean and standard deviation). Finished rows are kept: an interrupted
call goes on where it stopped. One process per core, one thread each. The last epoch counts; no epoch, weight
or seed is chosen by a target label.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from tqdm import tqdm

os.environ.setdefault("OMP_NUM_THREADS", "1")

FIELDS = [
    "sensor", "method", "pairs", "seed", "accuracy_heldout", "accuracy_transductive", "class_mean_heldout",
    "seconds", "chosen_by", "origin",
]  # fmt: skip


TITLES = {
    ("source-only", ""): "source only",
    ("adabn", ""): "AdaBN",
    ("shot", ""): "SHOT",
    ("socket", "far"): "SOCKET, far pairs",
    ("socket", "near"): "SOCKET, near pairs",
    ("oracle", ""): "oracle (trained with target labels)",
}
"""(method, pairs) → its name in README."""


@dataclass(frozen=True)
class Run:
    """One line of the table."""

    sensor: str
    method: str
    pairs: str
    seed: int


def planned(seeds: int) -> list[Run]:
    """All runs; the oracle is the shipped network, trained once per sensor."""
    from socketlab.sensors import SENSORS

    kinds = [
        ("source-only", ""),
        ("adabn", ""),
        ("shot", ""),
        ("socket", "near"),
        ("socket", "far"),
    ]
    runs = [Run(sensor, *kind, seed) for seed in range(seeds) for sensor in SENSORS for kind in kinds]
    return [Run(sensor, "oracle", "", 0) for sensor in SENSORS] + runs


def carry_out(run: Run) -> dict[str, object]:
    """Adapt, or load the oracle, and measure on the images adapted to and on held-out ones."""
    import torch

    from socketlab import features, load_source, rooms

    torch.set_num_threads(1)
    start = time.perf_counter()
    adapted = load_source(f"oracle_depth_{run.sensor}") if run.method == "oracle" else adapted_source(run)
    seconds = time.perf_counter() - start
    held_out = rooms.load("target_test", run.sensor, ("depth",))
    counts = features.confusion(adapted, held_out)
    return asdict(run) | {
        "accuracy_heldout": f"{float(counts.trace() / counts.sum()):.4f}",
        "accuracy_transductive": f"{features.accuracy(adapted, _target(run)):.4f}",
        "class_mean_heldout": f"{features.class_mean_accuracy(counts):.4f}",
        "seconds": f"{seconds:.1f}",
        "chosen_by": "last epoch",
        "origin": origin(run.method),
    }


def adapted_source(run: Run):
    """The last epoch of one method, from the sensor's own RGB network."""
    from socketlab import Recipe, adapt, load_source, rooms
    from socketlab.adapt import Epoch

    recipe = Recipe.for_method(run.method)
    pairs = rooms.ti_pairs(run.sensor, run.pairs) if run.pairs else None
    found = None
    for event in adapt(load_source(f"rgb_{run.sensor}"), _target(run), pairs, recipe, seed=run.seed):
        if isinstance(event, Epoch):
            found = event.state.adapted
    return found


def _target(run: Run):
    from socketlab import rooms

    return rooms.load("target_adapt", run.sensor, ("depth",))


def origin(method: str) -> str:
    """Twelve digits that name what a row was made from: images, networks and recipe."""
    from socketlab import Recipe
    from socketlab.files import data_folder, read_manifest

    parts = (
        "pocketrooms/target_",
        "pocketrooms/ti_",
        "pocketrooms/index.csv",
        "models/rgb_",
        "models/oracle_",
    )
    listed = sorted(item for item in read_manifest(data_folder()).items() if item[0].startswith(parts))
    recipe = "" if method == "oracle" else repr(Recipe.for_method(method))
    return hashlib.sha256(f"{listed}{recipe}".encode()).hexdigest()[:12]


def finished(path: Path) -> dict[Run, dict[str, object]]:
    """Rows of an earlier call that the same call would make again."""
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["origin"] == origin(row["method"])]
    return {Run(row["sensor"], row["method"], row["pairs"], int(row["seed"])): row for row in rows}


def write_rows(path: Path, rows: list[dict[str, object]], fields: list[str]) -> None:
    """Rows as CSV, whole or not at all."""
    from socketlab.files import write_whole

    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def summary(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Mean and deviation over seeds, per sensor and over all, and the share of the gap closed."""
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        value = float(str(row["accuracy_heldout"]))
        for sensor in (str(row["sensor"]), "all"):
            groups[sensor, str(row["method"]), str(row["pairs"])].append(value)
    out = []
    for (sensor, method, pairs), values in sorted(groups.items()):
        low, high = mean(groups[sensor, "source-only", ""]), mean(groups[sensor, "oracle", ""])
        out.append(
            {
                "sensor": sensor,
                "method": method,
                "pairs": pairs,
                "runs": len(values),
                "mean": f"{mean(values):.5f}",
                "std": f"{stdev(values):.5f}" if len(values) > 1 else "",
                "gap_closed": f"{(mean(values) - low) / (high - low):.4f}",
            }
        )
    return out


def markdown(averages: list[dict[str, object]]) -> str:
    """The table over all sensors, as README shows it."""
    rows = {(row["method"], row["pairs"]): row for row in averages if row["sensor"] == "all"}
    lines = ["| method | held-out accuracy, % | way from source only to the oracle |", "|---|---|---|"]
    for key, title in TITLES.items():
        row = rows[key]
        values = (
            100 * float(str(row["mean"])),
            100 * float(str(row["std"])),
            100 * float(str(row["gap_closed"])),
        )
        lines.append("| {} | {:.1f} ± {:.1f} | {:.0f} % |".format(title, *values))
    return "\n".join(lines)


def fill_readme(table: str) -> None:
    """Put the table between its two marks in README.md."""
    from socketlab.files import write_whole

    path = Path(__file__).resolve().parent.parent / "README.md"
    before, _, rest = path.read_text(encoding="utf-8").partition("<!-- results -->")
    _, _, after = rest.partition("<!-- /results -->")
    write_whole(path, f"{before}<!-- results -->\n{table}\n<!-- /results -->{after}".encode())


def main() -> None:
    """Do what is not yet done, then write both tables and the one in README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="folder of the tables (default: data/results)")
    chosen = parser.parse_args()
    from socketlab.files import data_folder

    folder = chosen.out or data_folder() / "results"
    plan, table = planned(chosen.seeds), folder / "slice.csv"
    done = finished(table)
    missing = [run for run in plan if run not in done]
    with ProcessPoolExecutor(chosen.processes) as pool:
        jobs = {pool.submit(carry_out, run): run for run in missing}
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="runs", unit="run"):
            done[jobs[job]] = job.result()
            write_rows(table, [done[run] for run in plan if run in done], FIELDS)
    rows = [done[run] for run in plan]
    averages = summary(rows)
    write_rows(folder / "slice_summary.csv", averages, list(averages[0]))
    print(markdown(averages))
    if not chosen.out:
        fill_readme(markdown(averages))


if __name__ == "__main__":
    main()
