"""How much of the task can be had without seeing rooms: linear probes on histograms (chance is 12.5 %).

    python data/pocketrooms/probe.py [FOLDER]

Logistic regression on z-histograms of depth (whole picture, and on a 4 x 4 grid), on colour histograms, and
on the pictures themselves at 16 x 16 pixels. Trained on source_train and target_adapt together, tested on
source_test and target_test.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SIZE = 80
Array = NDArray[np.float64]


def tiles(folder: Path, splits: tuple[str, ...], picture: str) -> tuple[Array, list[str]]:
    """All pictures of some splits (N, 80, 80[, 3]) and their kinds."""
    with (folder / "index.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] in splits]
    pages = {split: np.asarray(Image.open(folder / f"{split}.{picture}"), dtype=float) for split in splits}
    return np.stack([_tile(pages[row["split"]], int(row["tile"])) for row in rows]), [
        row["kind"] for row in rows
    ]


def _tile(page: Array, number: int) -> Array:
    across = page.shape[1] // SIZE
    y, x = number // across * SIZE, number % across * SIZE
    return page[y : y + SIZE, x : x + SIZE]


def histograms(values: Array, bins: int, top: float, grid: int = 1) -> Array:
    """Share of pixels in each bin, for each cell of a grid x grid division: (N, grid * grid * bins)."""
    cell = values.shape[1] // grid
    found = np.clip(values / top * bins, 0, bins - 1).astype(int)
    parts = [
        found[:, a * cell : (a + 1) * cell, b * cell : (b + 1) * cell]
        for a in range(grid)
        for b in range(grid)
    ]
    return np.concatenate(
        [np.stack([(p == k).mean(axis=(1, 2)) for k in range(bins)], 1) for p in parts], axis=1
    )


def colour_histograms(pictures: Array) -> Array:
    return np.concatenate([histograms(pictures[..., c], 16, 256.0) for c in range(3)], axis=1)


def small(pictures: Array) -> Array:
    """Means over 5 x 5 pixels, as one row a picture."""
    grid = SIZE // 5
    return pictures.reshape(len(pictures), grid, 5, grid, 5, -1).mean(axis=(2, 4)).reshape(len(pictures), -1)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    train, test = ("source_train", "target_adapt"), ("source_test", "target_test")
    probes = (
        ("depth, 32 bins of z", "depth.png", lambda x: histograms(x, 32, 7000.0)),
        ("depth, 4 x 4 grid of 8 bins", "depth.png", lambda x: histograms(x, 8, 7000.0, 4)),
        ("depth, 16 x 16 pixels", "depth.png", small),
        ("RGB, 3 x 16 bins", "rgb.jpg", colour_histograms),
        ("RGB, 16 x 16 pixels", "rgb.jpg", small),
        ("NIR, 16 bins", "nir.jpg", lambda x: histograms(x, 16, 256.0)),
    )
    for name, picture, feature in probes:
        seen, kinds = tiles(folder, train, picture)
        unseen, truth = tiles(folder, test, picture)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=500))
        score = probe.fit(feature(seen), kinds).score(feature(unseen), truth)
        print(f"{name:30s} {100 * score:5.1f} %   ({len(kinds)} rooms seen, {len(truth)} unseen)")


if __name__ == "__main__":
    main()
