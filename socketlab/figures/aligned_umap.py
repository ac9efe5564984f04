"""One map of features that move: over the epochs of a training, or from layer to layer.

Maps made one by one turn and tear between two steps even where nothing has moved. Here all steps are laid
out together: every point holds on to its nearest neighbours within its own step, and to itself one step
before and after. What moves on the map has changed its neighbours; how far it moves means little.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socketlab.cache import Cache
from socketlab.errors import LabError
from socketlab.figures import maps
from socketlab.figures.maps import Points


def moving_map(
    snapshots: Sequence[ArrayLike],
    seed: int = 0,
    neighbours: int = 15,
    tie: float = 1.0,
    min_dist: float = 0.1,
    epochs: int = 200,
    cache: Cache | str | None = None,
) -> list[Points]:
    """One coherent UMAP for snapshots of the same samples.

    Only neighbours within a snapshot are compared, so that snapshots may have different widths: layers of one
    network, or networks. For two modalities give their features one below the other in every snapshot.

    Parameters
    ----------
    snapshots : T arrays (n, D_t) of finite numbers, the same samples in the same order.
    seed, min_dist, epochs, cache : as for `embed.joint_map`.
    neighbours : how many neighbours each point holds on to within its snapshot, itself counted; at least 2.
    tie : distance of a sample to itself one step on, in units of the distance to its nearest neighbour. Up to
        1 nothing is nearer; above 1 it counts less than neighbours do, and the steps may drift apart.

    Returns
    -------
    T arrays (n, 2) float32. Same input and seed, same map on one machine.

    Raises
    ------
    LabError : no snapshots, unequal counts, fewer than 5 samples, numbers that are not finite, or no tie.

    Source: the idea of AlignedUMAP (McInnes, umap-learn 0.5), as one graph instead of one layout per step.
    """
    arrays = _checked(snapshots)
    if not 0 < tie < np.inf:
        raise LabError(f"tie is {tie}; it must be a number above 0.")

    k = maps.usable_neighbours(neighbours, len(arrays[0]))

    def make() -> Points:
        with maps.one_fit_at_a_time():
            known = temporal_neighbours(arrays, k, tie)
            umap = maps.fit_on_neighbours(known, aligned_starts(arrays), seed, min_dist, epochs)
        return np.asarray(umap.embedding_, np.float32)

    about = ["moving map", version("umap-learn"), arrays, seed, k, float(tie), min_dist, epochs]
    return np.split(maps.kept(cache, about, make), len(arrays))


def temporal_neighbours(
    snapshots: Sequence[ArrayLike], k: int = 15, tie: float = 1.0
) -> tuple[NDArray[np.int32], Points]:
    """Neighbours in one's own snapshot, and oneself one step before and after.

    Parameters
    ----------
    snapshots : T arrays (n, D_t), same samples in the same order.
    k : neighbours within the snapshot, itself counted. The first and the last have one more, instead of the
        step that is missing; so has a small set fewer.
    tie : distance to oneself, in units of the distance to the nearest neighbour.

    Returns
    -------
    indices (T n, k + 2) int32, row t n + i for sample i of snapshot t, and distances (T n, k + 2) float32; a
    point itself first, nearest first.
    """
    steps, n = len(snapshots), len(np.asarray(snapshots[0]))
    k = min(k, n - 2)
    rows = np.arange(n, dtype=np.int32)
    indices, distances = [], []
    for t, snapshot in enumerate(snapshots):
        beside = [s for s in (t - 1, t + 1) if 0 <= s < steps]
        near, far = maps.nearest_neighbours(snapshot, k + 2 - len(beside))
        ties = np.repeat(far[:, 1:2] * np.float32(tie), len(beside), axis=1)
        near = np.column_stack([near + np.int32(t * n), *(rows + np.int32(s * n) for s in beside)])
        far = np.column_stack([far, ties])
        order = np.argsort(far, axis=1, kind="stable")
        indices.append(np.take_along_axis(near, order, axis=1))
        distances.append(np.take_along_axis(far, order, axis=1))
    return np.concatenate(indices), np.concatenate(distances)


def aligned_starts(snapshots: Sequence[ArrayLike]) -> Points:
    """Where the layout begins: each snapshot's first two principal components, of unit spread, (T n, 2).

    Each is turned (and mirrored, if need be) onto the one before, by orthogonal Procrustes: with the singular
    value decomposition of XᵀY = U S Vᵀ, X U Vᵀ is nearest to Y.
    """
    starts: list[Points] = []
    for snapshot in snapshots:
        points = maps.pca_map({"": snapshot})[""]
        points = points / (float(np.sqrt(np.square(points).mean())) or 1.0)
        if starts:
            u, _, v = np.linalg.svd(points.T @ starts[-1])
            points = points @ (u @ v)
        starts.append(points)
    return np.concatenate(starts).astype(np.float32)


def _checked(snapshots: Sequence[ArrayLike]) -> list[Points]:
    arrays = [np.asarray(snapshot, np.float32) for snapshot in snapshots]
    if not arrays:
        raise LabError("A moving map needs at least one snapshot.")
    if any(array.ndim != 2 for array in arrays) or len({len(array) for array in arrays}) > 1:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise LabError(f"Snapshots hold the same samples in the same order, (n, D) each; these are {shapes}.")
    for t, array in enumerate(arrays):
        if not np.isfinite(array).all():
            raise LabError(f"Snapshot {t} holds NaN or infinite numbers; it cannot be put on a map.")
    return arrays
