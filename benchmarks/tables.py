"""From runs to tables: means, deviations, and differences run by run with intervals."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from experiments import Job, Row, Words
from scipy import stats

Runs = dict[tuple[str, str], dict[str, Any]]
"""Origin of a job and kind of device, "cpu" or "cuda" → line of ``runs.csv``."""


def write(folder: Path, plan: Iterable[Row], done: Runs, oracles: dict[str, dict[str, Any]]) -> list[Path]:
    """Of each table whose runs are all there: its lines, and beside them a line per run; the paths.

    All runs of a table are of one kind of device where one made them all; the pages say which did.
    """
    from results import write_rows

    by_table: dict[str, list[Row]] = defaultdict(list)
    for row in plan:
        by_table[row.table].append(row)
    written = []
    for table, rows in by_table.items():
        wanted = {row.job.origin for row in rows if row.job}
        runs = of_devices(wanted, done)
        if runs is not None:
            lines = summary(rows, runs, oracles)
            write_rows(folder / f"{table}.csv", lines, list(lines[0]))
            each = [_one_run(row, runs[row.job.origin] if row.job else oracles[row.oracle]) for row in rows]
            write_rows(folder / f"{table}_runs.csv", each, list(each[0]))
            written += [folder / f"{table}.csv", folder / f"{table}_runs.csv"]
    return written


def finished(path: Path) -> Runs:
    """Origin and device → line of an earlier call."""
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        lines = [dict(found) for found in csv.DictReader(file)]
    return {(line["origin"], "cpu" if ", CPU, " in line["environment"] else "cuda"): line for line in lines}


def of_devices(wanted: set[str], done: Runs) -> dict[str, dict[str, Any]] | None:
    """Origin → line of all runs of a table: of one kind of device if it made them all, else of both."""
    made = {
        origin: line for (origin, device), line in sorted(done.items(), key=lambda item: item[0][1] == "cpu")
    }
    return of_one_device(wanted, done) or ({o: made[o] for o in wanted} if wanted <= made.keys() else None)


def of_one_device(wanted: set[str], done: Runs) -> dict[str, dict[str, Any]] | None:
    """Origin → line of all runs of a table, by a CPU if it made them all, else by a GPU, else None."""
    for device in ("cpu", "cuda"):
        found = {origin: line for (origin, where), line in done.items() if where == device}
        if wanted <= found.keys():
            return {origin: found[origin] for origin in wanted}
    return None


def _one_run(row: Row, found: dict[str, Any]) -> dict[str, Any]:
    about = dict(row.about) | {"seed": row.job.seed if row.job else ""}
    figures = {name: found[name] for name in ("held_out", "transductive", "class_mean", "chosen_by")}
    return about | figures | {"origin": row.job.origin if row.job else row.oracle}


def summary(
    rows: list[Row], done: dict[str, dict[str, Any]], oracles: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """A line per row of a table; where it has sensors, one over all of them too, under the sensor "all"."""
    groups: dict[Words, dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
    against: dict[Words, Words] = {}
    for row in rows:
        seed = row.job.seed if row.job else 0
        found = done[row.job.origin] if row.job else oracles[row.oracle]
        about = dict(row.about)
        groups[row.about][about.get("sensor", ""), seed] = found
        if "sensor" in about:
            everywhere = tuple((about | {"sensor": "all"}).items())
            groups[everywhere][about["sensor"], seed] = found
            if row.against:
                against[everywhere] = tuple((dict(row.against) | {"sensor": "all"}).items())
        if row.against:
            against[row.about] = row.against
    return [
        dict(about) | _figures(runs) | _compared(runs, groups.get(against.get(about, ()), {}))
        for about, runs in groups.items()
    ]


def _figures(runs: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation, in per cent, over the runs of a line."""
    figures: dict[str, Any] = {"runs": len(runs)}
    for name in ("held_out", "transductive", "class_mean"):
        figures |= _mean_and_deviation(name, [100 * float(found[name]) for found in runs.values()])
    ways = Counter(found["chosen_by"] for found in runs.values())
    told = [
        f"{count} diverged" if way == "diverged" else way for way, count in sorted(ways.items(), reverse=True)
    ]
    return figures | {"chosen_by": ", ".join(told)}


def _mean_and_deviation(name: str, values: list[float]) -> dict[str, str]:
    return {name: f"{mean(values):.2f}", f"{name}_std": f"{stdev(values):.2f}" if len(values) > 1 else ""}


def _compared(
    runs: dict[tuple[str, int], dict[str, Any]], others: dict[tuple[str, int], dict[str, Any]]
) -> dict[str, Any]:
    """Mean difference to the same runs of another line, in points, with Student's 95 % interval."""
    empty = {"difference": "", "low": "", "high": ""}
    common = [key for key in runs if key in others]
    differences = [100 * (float(runs[key]["held_out"]) - float(others[key]["held_out"])) for key in common]
    if not others or runs is others or len(differences) < 2:
        return empty
    centre, error = mean(differences), stats.sem(differences)
    reach = float(error * stats.t.ppf(0.975, len(differences) - 1))
    return {"difference": f"{centre:.2f}", "low": f"{centre - reach:.2f}", "high": f"{centre + reach:.2f}"}


def write_selection(folder: Path, jobs: list[tuple[str, Job]]) -> list[Path]:
    """Which epoch each rule takes, and what it is worth; nothing where runs are missing."""
    from results import write_rows

    if not (folder / "epochs.csv").exists():
        return []
    runs: dict[str, list[dict[str, str]]] = defaultdict(list)
    for line in read(folder / "epochs.csv"):
        runs[line["origin"]].append(line)
    if not all(job.origin in runs for _, job in jobs):
        return []
    rules = [name for name in next(iter(runs.values()))[0] if name not in ("origin", "epoch", "held_out")]
    chosen: dict[tuple[str, str], dict[tuple[str, int], dict[str, str]]] = defaultdict(dict)
    for method, job in jobs:
        epochs, run = runs[job.origin], ("", job.seed)
        chosen[method, "last epoch"][run] = epochs[-1]
        for rule in rules:
            best = max(epochs, key=lambda line, by=rule: (float(line[by]), int(line["epoch"])))
            chosen[method, rule][run] = best
        by_labels = max(epochs, key=lambda line: float(line["held_out"]))
        chosen[method, "oracle, by target labels"][run] = by_labels
    lines = [
        {"method": method, "chosen_by": rule, "runs": len(picked)}
        | {"epoch": f"{mean(int(line['epoch']) for line in picked.values()):.1f}"}
        | _mean_and_deviation("held_out", [100 * float(line["held_out"]) for line in picked.values()])
        | _compared(picked, chosen[method, "last epoch"])
        for (method, rule), picked in chosen.items()
    ]
    write_rows(folder / "selection.csv", lines, list(lines[0]))
    return [folder / "selection.csv"]


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a table."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
