"""What the distances cost: ``python benchmarks/distances.py``, some minutes on two cores.

Each line is measured in a process of its own, so that its memory is its own: seconds, most memory, and the
matrix products that it cannot avoid, in the same process. Against the naive forms, at sizes where they can be
waited for, both take turns. Writes ``docs/distances.md``.

``--rows``, ``--width`` and ``--exact`` make it small; then nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from socketlab.files import write_whole
from socketlab.measures import distances
from socketlab.measures.distances import (
    block_estimate,
    coral,
    energy,
    frechet,
    median_distance,
    mmd,
    neighbour_purity,
    rbf,
    sliced_wasserstein,
)
from socketlab.measures.similarity import linear_cka, pair_alignment

DOCS = Path(__file__).resolve().parent.parent / "docs"
DIRECTIONS, RANK = 256, 64

Form = Callable[[], Any]


# ------------------------------------------------------------------------ features


def features(rows: int, width: int, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Two sets of float32 features of the same scenes: rank 64 and noise, the second moved a little."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(2, RANK, width, generator=generator) / RANK**0.5
    mix[1] = mix[0] + 0.3 * mix[1]
    sets = torch.empty(rows, width), torch.empty(rows, width)
    for start in range(0, rows, chunk):
        scenes = torch.randn(min(chunk, rows - start), RANK, generator=generator)
        for which, x in enumerate(sets):
            part = x[start : start + chunk]
            torch.randn(part.shape, generator=generator, out=part)
            part.mul_(0.5).add_(scenes @ mix[which]).add_(0.05 * which)
    return sets


# ------------------------------------------------------------------------ forms

MEASURED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "linear CKA": linear_cka,
    "linear CKA, debiased": lambda a, b: linear_cka(a, b, debiased=True),
    "Fréchet distance": frechet,
    "sliced Wasserstein": lambda a, b: sliced_wasserstein(a, b, DIRECTIONS),
    "CORAL": coral,
    "MMD² by blocks": lambda a, b: block_estimate(a, b, rbf(median_distance(a, b))),
    "MMD², exact": mmd,
    "energy distance, exact": energy,
    "neighbour purity": neighbour_purity,
    "retrieval of partners": pair_alignment,
}
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "linear CKA": lambda a, b: [x.T @ y for x, y in ((a, a), (a, b), (b, b))],
    "linear CKA, debiased": lambda a, b: [x.T @ y for x, y in ((a, a), (a, b), (b, b))],
    "Fréchet distance": lambda a, b: [x.T @ x for x in (a, b)],
    "sliced Wasserstein": lambda a, b: [x @ torch.ones(a.shape[1], DIRECTIONS) for x in (a, b)],
    "CORAL": lambda a, b: [x.T @ x for x in (a, b)],
    "MMD² by blocks": lambda a, b: [
        [x @ y.T for x, y in ((p, p), (p, q), (q, q))]
        for p, q in zip(a.split(distances.BLOCK), b.split(distances.BLOCK), strict=True)
    ],
    "MMD², exact": lambda a, b: [x @ y.T for x, y in ((a, a), (a, b), (b, b))],
    "energy distance, exact": lambda a, b: [x @ y.T for x, y in ((a, a), (a, b), (b, b))],
    "neighbour purity": lambda a, b: [x @ y.T for x, y in ((a, a), (a, b), (b, b), (b, a))],
    "retrieval of partners": lambda a, b: [a @ b.T, b @ a.T],
}
"""The products of matrices that a measure cannot avoid, in float32, and each in full."""
BOUNDS = {"linear CKA": 20, "Fréchet distance": 20, "sliced Wasserstein": 20, "MMD², exact": 10}
SMALL = {"MMD², exact", "energy distance, exact", "neighbour purity", "retrieval of partners"}
"""What costs the square of the rows."""


def naive_cka(a: Tensor, b: Tensor) -> float:
    """As written in the definition: two (n, n) matrices, centred by a third."""
    n = len(a)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    k, l = (h @ (x.double() @ x.double().T) @ h for x in (a, b))
    return float((k * l).sum() / (k.norm() * l.norm()))


def naive_frechet(a: Tensor, b: Tensor) -> float:
    """With scipy's root of the product of the covariances, as most implementations have it."""
    from scipy.linalg import sqrtm

    x, y = a.double().numpy(), b.double().numpy()
    s, t = np.cov(x.T), np.cov(y.T)
    shift = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    return float(shift + np.trace(s) + np.trace(t) - 2 * np.trace(sqrtm(s @ t)).real)


def naive_sliced(a: Tensor, b: Tensor) -> float:
    """One direction after the other; the same directions."""
    x, y, total = a.double().numpy(), b.double().numpy(), 0.0
    for theta in distances._directions(a.shape[1], DIRECTIONS, 0).numpy():
        total += float(((np.sort(x @ theta) - np.sort(y @ theta)) ** 2).mean())
    return total / DIRECTIONS


def naive_mmd(a: Tensor, b: Tensor) -> float:
    """Three whole kernel matrices of scikit-learn."""
    from sklearn.metrics.pairwise import rbf_kernel

    x, y = a.double().numpy(), b.double().numpy()
    gamma = 0.5 / distances.median_distance(a, b) ** 2
    aa, bb, ab = rbf_kernel(x, x, gamma), rbf_kernel(y, y, gamma), rbf_kernel(x, y, gamma)
    outside = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (aa, bb)]
    return float(sum(outside) - 2 * ab.mean())


NAIVE: dict[str, tuple[Callable[[Tensor, Tensor], float], int, int]] = {
    "linear CKA": (naive_cka, 3000, 512),
    "Fréchet distance": (naive_frechet, 10_000, 512),
    "sliced Wasserstein": (naive_sliced, 10_000, 512),
    "MMD², exact": (naive_mmd, 3000, 512),
}
"""The form, and the rows and features at which it is waited for."""


# ------------------------------------------------------------------------ measuring


def timed(form: Form) -> tuple[float, float, Any]:
    """Seconds on the wall's clock, of the processor (of all threads), and what came out."""
    begin, cpu = time.perf_counter(), time.process_time()
    value = form()
    return time.perf_counter() - begin, time.process_time() - cpu, value


def peak() -> float:
    """Most memory that this process ever held, GB."""
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    )


def one(name: str, rows: int, width: int) -> dict[str, Any]:
    """One measure at one size; its memory is taken before the products, which are not chunked."""
    a, b = features(rows, width)
    MEASURED[name](a[:256], b[:256])  # libraries loaded, threads started
    seconds, cpu, value = timed(lambda: MEASURED[name](a, b))
    gigabytes = peak()
    _, products, _ = timed(lambda: PRODUCTS[name](a, b))
    return {
        "seconds": seconds, "cpu": cpu, "gigabytes": gigabytes, "products": products, "value": _told(value)
    }  # fmt: skip


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.3g} ± {value[1]:.1g}"
    return f"{value:.3g}" if isinstance(value, float) else f"{value.recall[1][0]:.3g}"


def against_naive(name: str, rows: int, width: int, rounds: int = 3) -> dict[str, Any]:
    """Ours and the naive form in turns; the medians and the largest difference."""
    naive, most_rows, most_width = NAIVE[name]
    a, b = features(min(rows, most_rows), min(width, most_width))
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        _, took, value = timed(lambda: MEASURED[name](a, b))
        ours.append(took)
        _, took, reference = timed(lambda: naive(a, b))
        theirs.append(took)
    shape = f"{len(a):,} × {a.shape[1]:,}"
    seconds = {"ours": statistics.median(ours), "naive": statistics.median(theirs)}
    return {"shape": shape, **seconds, "difference": abs(value / reference - 1)}


def fresh(*arguments: object, threads: int) -> dict[str, Any]:
    """The same script in a new process, which prints JSON last."""
    command = [sys.executable, __file__, "--threads", str(threads), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])


# ------------------------------------------------------------------------ the page

PAGE = """# What the distances cost

Made by `python benchmarks/distances.py` in one run: {width:,} float32 features a row (rank {rank}, and
noise), {threads} threads, each line in a process of its own. **Seconds** are a wall clock's, and so are the
bounds; **processor** counts the seconds of all threads, whatever else ran beside. **Memory** is the most that
the process ever held, with Python, torch and the features themselves ({data:.2f} GB at {rows:,} rows a set).
**Products** are the matrix products that the measure cannot avoid, whole, in float32, by `torch` in the same
process, in seconds of the processor; of a product of a set with itself the measures compute little more than
half, so that the **ratio** of the two may lie below 1.

**Measured on** {machine}.

| measure | rows a set | seconds | bound | processor | products | ratio | memory, GB | value |
|---|---|---|---|---|---|---|---|---|
{lines}

## Against the naive forms

Both forms in turns in one process, three times; medians of the processor's seconds. The naive forms are the
definitions written down in float64 (`benchmarks/distances.py`): CKA through centred n × n matrices, the
Fréchet distance through `scipy.linalg.sqrtm`, one slice after the other, and whole kernel matrices of
scikit-learn.

| measure | size | ours, seconds | naive, seconds | times faster | relative difference |
|---|---|---|---|---|---|
{naive}
"""


def full(rows: int, width: int, exact: int, threads: int) -> str:
    """Measure everything; the page."""
    from speed import machine

    torch.set_num_threads(threads)
    told, lines, naive = machine(), [], []
    for name in MEASURED:
        n = min(rows, exact) if name in SMALL else rows
        found = fresh("--one", name, "--rows", n, "--width", width, threads=threads)
        bound = f"≤ {BOUNDS[name]}" if name in BOUNDS else ""
        ratio = found["cpu"] / found["products"]
        lines.append(
            f"| {name} | {n:,} | {found['seconds']:.1f} | {bound} | {found['cpu']:.1f} "
            f"| {found['products']:.1f} | {ratio:.2f} | {found['gigabytes']:.2f} | {found['value']} |"
        )
        print(lines[-1], flush=True)
    for name in NAIVE:
        found = fresh("--naive", name, "--rows", rows, "--width", width, threads=threads)
        naive.append(
            f"| {name} | {found['shape']} | {found['ours']:.2f} | {found['naive']:.2f} "
            f"| {found['naive'] / found['ours']:.1f} | {found['difference']:.0e} |"
        )
        print(naive[-1], flush=True)
    return PAGE.format(
        width=width, rows=rows, rank=RANK, threads=threads, data=2 * rows * width * 4 / 1e9, machine=told,
        lines="\n".join(lines), naive="\n".join(naive),
    )  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--exact", type=int, default=5000, help="rows for what costs their square")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=MEASURED, help=argparse.SUPPRESS)
    parser.add_argument("--naive", choices=NAIVE, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.one:
        print(json.dumps(one(chosen.one, chosen.rows, chosen.width)))
    elif chosen.naive:
        print(json.dumps(against_naive(chosen.naive, chosen.rows, chosen.width)))
    else:
        page = full(chosen.rows, chosen.width, chosen.exact, chosen.threads)
        if (chosen.rows, chosen.width, chosen.exact) == (50_000, 2048, 5000):
            write_whole(DOCS / "distances.md", page.encode())


if __name__ == "__main__":
    main()
