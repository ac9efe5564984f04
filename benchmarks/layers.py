"""What reading the features of many images takes in memory: ``python benchmarks/layers.py``, a minute.

A hundred thousand small images through a layer of 2,048 features, 819 MB of them: into memory, into a cache,
then out of it. Each in a process of its own;
``grown`` is the most memory that the process held, beyond what it held before its first image. ``--images``
makes it small.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from socketlab.measures.layer_features import extract_features

WIDTH, BATCH = 2048, 250


class Images:
    """Batches of noise, made as they are read; every reading gives the same."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.count // BATCH):
            yield torch.randn(BATCH, 3, 8, 8, generator=generator)


def measure(count: int, folder: str | None) -> dict[str, float]:
    """Seconds and megabytes of one reading."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, WIDTH, 8), nn.ReLU())
    extract_features(network, Images(BATCH), "1")
    process = psutil.Process()
    before = most = process.memory_info().rss

    def watch(done: int, total: int | None) -> None:
        nonlocal most
        most = max(most, process.memory_info().rss)

    start = time.perf_counter()
    found = extract_features(network, Images(count), "1", cache=folder, budget=2**26, progress=watch)["1"]
    seconds = time.perf_counter() - start
    watch(count, None)
    assert found.shape == (count // BATCH * BATCH, WIDTH)
    return {"seconds": seconds, "features": found.nbytes / 1e6, "grown": (most - before) / 1e6}


def main() -> None:
    """Measure each case in a process of its own, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        print(json.dumps(measure(asked.images, asked.child or None)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for case, child in (("in memory", ""), ("into the cache", folder), ("from the cache", folder)):
            command = [sys.executable, str(Path(__file__)), "--images", str(asked.images), "--child", child]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout)
            print(f"{case}: {row['features']:.0f} MB of features, {row['grown']:.0f} MB grown, "
                  f"{row['seconds']:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
