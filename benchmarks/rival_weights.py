"""The weight of each rival's loss, chosen without a label: ``python benchmarks/rival_weights.py``.

Each weight trains on four fifths of the pairs of two cameras, near and far, by a seed that no table has. The
last fifth judges it by the mean rank of the partner (`model_selection.partner_rank`), the library's own rule:
losses of several kinds scale features differently, and a rank has no scale. The lowest mean over four cases
is chosen; a test compares. No accuracy is computed. Writes ``data/results/rival_weights.csv``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import other_methods
from experiments import LENGTHS, Job
from results import read, write_rows
from tqdm import tqdm

SEED, HELD_OUT = 100, 0.2
CASES = [(camera, mix) for camera in ("kinect_v1", "realsense") for mix in ("near", "far")]
WEIGHTS = {
    "features alone": (1.0, 3.0, 10.0, 30.0),
    "pairs and AaD": (0.1, 0.3, 1.0, 3.0),
    "distillation": (0.3, 1.0, 3.0, 10.0),
    "contrast": (0.1, 0.3, 1.0, 3.0, 10.0),
    "unpaired CORAL": (1.0, 3.0, 10.0, 30.0),
    "unpaired MMD": (0.1, 0.3, 1.0, 3.0),
    "translator": (0.1, 0.3, 1.0, 3.0, 10.0),
}
"""Of the term on the pairs; of AaD beside SOCKET's L_TI; of the features in the translator's loss."""


def main() -> None:
    """Try every weight, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="folder of the table (default: data/results)")
    chosen = parser.parse_args()
    from socketlab.files import data_folder

    plan = [(method, w, *case) for method, some in WEIGHTS.items() for w in some for case in CASES]
    with ProcessPoolExecutor(chosen.processes, get_context("spawn")) as pool:  # a GPU cannot be forked
        pending = [pool.submit(judged, *one, chosen.device) for one in plan]
        found = [one.result() for one in tqdm(as_completed(pending), total=len(pending), unit="run")]
    lines = summary(found)
    write_rows((chosen.out or data_folder() / "results") / "rival_weights.csv", lines, list(lines[0]))


def judged(method: str, weight: float, camera: str, mix: str, device: str) -> dict[str, Any]:
    """The partner's mean rank among held-out pairs, after one weight has trained on the others."""
    import torch

    from socketlab.measures.model_selection import partner_rank

    torch.set_num_threads(1)
    job = job_of(method, weight, camera, mix)
    sources, target, pairs = read(job, device)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(SEED))
    held_out, learned = order.tensor_split([round(HELD_OUT * len(pairs))])
    adapted = other_methods.adapted_by(job, sources, target, pairs.take(learned))
    rank = partner_rank(sources[0], adapted, pairs.take(held_out))
    return {"method": method, "weight": weight, "camera": camera, "pairs": mix, "rank": rank}


def job_of(method: str, weight: float, camera: str, mix: str) -> Job:
    """The job of the table of rivals, with another weight."""
    socket = LENGTHS["3 + 11 epochs"]
    changes = {
        "features alone": {"ti_map": 0.0, "lambda_ti": weight},
        "pairs and AaD": {"lambda_pl": 0.0, "lambda_im": 0.0, "lambda_aad": weight},
    }
    recipe = socket.replace(**changes[method]) if method in changes else socket
    baseline = "" if method in changes else f"{method}:{weight:g}"
    return Job((f"rgb_{camera}",), "depth", camera, mix=mix, recipe=recipe, seed=SEED, baseline=baseline)


def summary(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line per method and weight: the rank in each case, and the mean, of which the lowest is chosen."""
    ranks = {(x["method"], x["weight"], x["camera"], x["pairs"]): x["rank"] for x in found}
    lines = []
    for method, weights in WEIGHTS.items():
        level = {weight: mean(ranks[method, weight, *case] for case in CASES) for weight in weights}
        best = min(level, key=level.__getitem__)
        for weight in weights:
            each = {" ".join(case): f"{ranks[method, weight, *case]:.4f}" for case in CASES}
            line = {"method": method, "weight": f"{weight:g}"} | each | {"mean_rank": f"{level[weight]:.4f}"}
            lines.append(line | {"chosen": "yes" if weight == best else ""})
    return lines


if __name__ == "__main__":
    main()
