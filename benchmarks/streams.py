"""Images that come one batch at a time: ``python benchmarks/streams.py`` writes ``data/results/streams.csv``.

Two networks are in use: an RGB network that meets near-infrared, and a depth network that SOCKET adapted.
What comes is steady, or the camera's errors grow from none to three times the published ones, or the camera
is exchanged for another in the middle. Every method of `rivals.test_time` answers each batch as
it comes; accuracy is over the whole stream. Five orders of the images each; nothing is tuned.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tqdm import tqdm

OUT = Path(__file__).resolve().parent.parent / "data" / "results" / "streams.csv"
NETWORKS = {"RGB network, near-infrared": "nir", "SOCKET's network, depth": "depth"}
STREAMS = ("steady", "errors grow", "camera exchanged")
BATCHES = (32, 1)
SEEDS = (0, 1, 2, 3, 4)
STEPS = 7
"""Parts of a stream: the strength of the errors rises from one to the next."""


def main() -> None:
    """Adapt the depth network once for each seed, then answer every stream."""
    jobs = [(network, seed) for network in NETWORKS for seed in SEEDS]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = [line for lines in tqdm(pool.map(answer, jobs), total=len(jobs)) for line in lines]
    rows = summary(found)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    from socketlab.files import write_whole

    write_whole(OUT, text.getvalue().encode())
    print(OUT)


def answer(job: tuple[str, int]) -> list[dict[str, Any]]:
    """Accuracy of every method on every stream of one network and seed."""
    import torch
    from rivals.test_time import METHODS, answer_stream

    from socketlab.images import encodings

    torch.set_num_threads(1)
    name, seed = job
    modality = NETWORKS[name]
    source, known = network(modality, seed)
    normalisation = source.normalisation
    if source.modality != modality:
        normalisation = encodings.measure(known.images[modality], modality)
    lines = []
    for stream in STREAMS:
        images, labels = in_order(stream, modality, seed)
        for size in BATCHES:
            batches = [images.take(range(i, min(i + size, len(images)))) for i in range(0, len(images), size)]
            for method in METHODS:
                logits = torch.cat(list(answer_stream(source, batches, method, normalisation)))
                right = 100 * (logits.argmax(dim=1).cpu() == labels).float()
                line = {"network": name, "stream": stream, "batch": size, "method": method, "seed": seed}
                line |= {"held_out": float(right.mean()), "last_third": float(right[-107:].mean())}
                lines.append(line)
    return lines


def network(modality: str, seed: int) -> tuple[Any, Any]:
    """The network in use, and the images on which its input's normalisation was measured."""
    from socketlab import Recipe, adapt, load_source, rooms

    source = load_source("rgb_kinect_v1")
    target = rooms.load("target_adapt", "kinect_v1", (modality,))
    if modality == "nir":
        return source, target
    for event in adapt(source, target, rooms.ti_pairs("kinect_v1"), Recipe.socket(), seed=seed, every=10**6):
        if hasattr(event, "state"):
            state = event.state
    return state.adapted, target


def in_order(stream: str, modality: str, seed: int) -> tuple[Any, Any]:
    """The test rooms in the order in which they come, and their labels."""
    import torch

    from socketlab import rooms

    order = torch.randperm(320, generator=torch.Generator().manual_seed(seed))
    parts = []
    for step, rows in enumerate(order.tensor_split(STEPS)):
        sensor = "realsense" if stream == "camera exchanged" and step > STEPS // 2 else "kinect_v1"
        strength = 3 * step / (STEPS - 1) if stream == "errors grow" else 1.0
        parts.append(rooms.load("target_test", sensor, (modality,), strength).take(rows))
    whole = parts[0]
    for part in parts[1:]:
        whole = rooms.join(whole, part)
    return whole, whole.labels.cpu()


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and deviation over the seeds, and the difference to the source's statistics, seed by seed."""
    groups: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        groups[line["network"], line["stream"], line["batch"], line["method"]][line["seed"]] = line
    rows = []
    for (name, stream, size, method), runs in groups.items():
        plain = groups[name, stream, size, "source"]
        values = [run["held_out"] for run in runs.values()]
        gains = [run["held_out"] - plain[seed]["held_out"] for seed, run in runs.items()]
        rows.append(
            {"network": name, "stream": stream, "batch": size, "method": method, "runs": len(values)}
            | {"held_out": f"{mean(values):.1f}", "held_out_std": f"{stdev(values):.1f}"}
            | {"last_third": f"{mean(run['last_third'] for run in runs.values()):.1f}"}
            | {"gain": f"{mean(gains):.1f}", "gain_std": f"{stdev(gains):.1f}"}
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
