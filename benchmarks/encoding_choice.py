"""How good is ``--depth-encoding auto``? ``python benchmarks/encoding_choice.py`` asks the four cameras.

For each camera of PocketRooms: the encoding that held-out pairs choose without a label, and what SOCKET
reaches with every candidate (near pairs, the recommended recipe). Writes ``data/results/choices.csv``, a
line per run, and ``choice.csv``, a line per camera and choice: what it loses against the best fixed encoding.
With far pairs and the longest recipe, by a seed of its own: the same choice, after 150 steps (which
`experiments.READ_AS` takes over), and, in the column ``ranks``, the partner's rank after whole adaptations.
Finished runs are kept. On real images `real` does the same.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pages
from experiments import LONGEST, SENSORS, data_digest
from results import write_rows
from tables import read
from tqdm import tqdm

from socketlab.measures.model_selection import CANDIDATES, choose_encoding

FIELDS = ["sensor", "pairs", "encoding", "seed", "held_out", "chosen", "ranks", "seconds", "data"]
OWN_SEED = 5
"""Of the choices with far pairs: no run of a table has it."""


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="folder of the tables (default: data/results)")
    chosen = parser.parse_args()
    from socketlab.files import data_folder

    folder = chosen.out or data_folder() / "results"
    runs = folder / "choices.csv"
    done = [line for line in read(runs) if line["data"] == data_digest()] if runs.exists() else []
    known = {(line["sensor"], line["pairs"], line["encoding"], int(line["seed"])) for line in done}
    plan = [(sensor, "near", "", seed) for seed in range(chosen.seeds) for sensor in SENSORS]
    plan += [(sensor, "near", name, seed) for sensor, _, _, seed in plan for name in CANDIDATES]
    plan += [(sensor, "far", name, OWN_SEED) for sensor in SENSORS for name in ("", *CANDIDATES)]
    with ProcessPoolExecutor(chosen.processes, get_context("spawn")) as pool:
        pending = [pool.submit(carried_out, *job, chosen.device) for job in plan if job not in known]
        for found in tqdm(as_completed(pending), total=len(pending), unit="run"):
            done.append(found.result())
            write_rows(runs, sorted(done, key=lambda line: tuple(str(line[n]) for n in FIELDS[:4])), FIELDS)
    lines = judged([line for line in done if line["pairs"] == "near"])
    write_rows(folder / "choice.csv", lines, list(lines[0]))
    if not chosen.out:
        pages.fill(folder)


def carried_out(sensor: str, mix: str, name: str, seed: int, device: str) -> dict[str, Any]:
    """One adaptation with an encoding, of far pairs judged by a fifth; or, without a name, the choice."""
    import torch

    from socketlab import Epoch, Recipe, adapt, features, load_source, rooms
    from socketlab.images import encodings
    from socketlab.measures.model_selection import partner_rank
    from socketlab.speed import best_execution

    torch.set_num_threads(1)
    begun, recipe = time.perf_counter(), Recipe.socket() if mix == "near" else LONGEST
    source = load_source(f"rgb_{sensor}")
    source.network.to(device)
    pairs = rooms.ti_pairs(sensor, mix).to(device)
    target = rooms.load("target_adapt", sensor, ("depth",)).to(device)
    line: dict[str, Any] = {"sensor": sensor, "pairs": mix, "encoding": name, "seed": seed}
    line["data"] = data_digest()
    if name:
        judging = None
        if mix == "far":
            order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
            judging, pairs = pairs.take(order[: len(pairs) // 5]), pairs.take(order[len(pairs) // 5 :])
        how = {"seed": seed, "every": 10**6, "execution": best_execution()}
        how["normalisation"] = encodings.measure(target.images["depth"], "depth", name)
        for event in adapt(source, target, pairs, recipe, **how):
            if isinstance(event, Epoch):
                state = event.state
        held_out = rooms.load("target_test", sensor, ("depth",))
        line["held_out"] = f"{features.accuracy(state.adapted, held_out):.4f}"
        line["ranks"] = f"{partner_rank(source, state.adapted, judging):.3f}" if judging else ""
    else:
        choice = choose_encoding(source, target, pairs, recipe, seed=seed)
        line["chosen"] = choice.encoding
        line["ranks"] = " ".join(f"{one} {rank:.3f}" for one, rank in choice.ranks.items())
    return line | {"seconds": f"{time.perf_counter() - begun:.0f}"}


def judged(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line per camera and seed of the choice: what was chosen, and what that costs against the best."""
    lines = []
    for sensor in SENSORS:
        mine = [line for line in done if line["sensor"] == sensor]
        level = {
            name: 100 * mean(float(line["held_out"]) for line in mine if line["encoding"] == name)
            for name in CANDIDATES
        }
        best = max(level, key=lambda name: level[name])
        for line in sorted((line for line in mine if not line["encoding"]), key=lambda line: line["seed"]):
            about = {"sensor": sensor, "seed": line["seed"], "chosen": line["chosen"], "best": best}
            about |= {name: f"{level[name]:.2f}" for name in CANDIDATES}
            lines.append(about | {"loss": f"{level[best] - level[line['chosen']]:.2f}"})
    return lines


if __name__ == "__main__":
    main()
