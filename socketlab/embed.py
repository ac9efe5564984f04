"""Maps of feature space: PCA at once, UMAP when it is ready.

A map puts (N, D) features on a sheet of paper. It is for looking, not for measuring: a joint UMAP exaggerates
the gap between two modalities, and distances between clusters mean little. `mixing` gives the number that
belongs beside every map.

UMAP is imported late (2 to 30 s) and compiles itself at its first fit (7 to 17 s): call `warm_up()` early,
show `pca_map` meanwhile. Two fits at once would abort the process, so all of them wait for one lock.
"""

import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from socketlab.distances import mixing as mixing
from socketlab.errors import LabError

Points = NDArray[np.float32]
_FIT = threading.Lock()  # one UMAP fit per process at a time
_WARMING = threading.Lock()
_warm_thread: threading.Thread | None = None
_warm = threading.Event()


def joint_map(
    feature_sets: Mapping[str, ArrayLike],
    seed: int = 0,
    neighbours: int = 15,
    min_dist: float = 0.1,
    epochs: int = 200,
    start: Mapping[str, ArrayLike] | None = None,
) -> dict[str, Points]:
    """One UMAP of several sets of features, fitted on all of them together.

    Neighbours are exact (Euclidean, from torch). The layout starts from the first two principal components,
    or from `start`, an earlier map of as many points: then clusters move instead of jumping. Same input and
    seed, same map on one machine.

    Parameters
    ----------
    feature_sets : name -> (n, D) array or tensor of finite numbers; one D for all.
    seed : seeds the layout.
    neighbours : how many neighbours each point holds on to, at least 2. Small sets use fewer.
    min_dist : how close points may lie on the map, in [0, 1].
    epochs : rounds of the layout.
    start : name -> (n, 2) positions to begin from.

    Returns
    -------
    name -> (n, 2) float32, in the order given.

    Raises
    ------
    LabError : no sets, unequal widths, numbers that are not finite, or fewer than 5 points.

    Source: McInnes, Healy, Melville, UMAP, 2018 (arXiv:1802.03426).
    """
    names, features, cuts = _stack(feature_sets)
    if len(features) < 5:
        raise LabError(f"A map needs at least 5 points, and {len(features)} were given.")
    if neighbours < 2:
        raise LabError(f"neighbours is {neighbours}; a map needs at least 2.")
    k = min(neighbours, len(features) - 1)
    init: Any = "pca"
    if start is not None:
        init = np.concatenate([np.asarray(start[name], np.float32) for name in names])
        if init.shape != (len(features), 2):
            raise LabError(f"start has shape {init.shape}; the features need {(len(features), 2)}.")
    with _FIT:
        fit = _umap()(
            n_neighbors=k,
            min_dist=min_dist,
            n_epochs=epochs,
            init=init,
            random_state=seed,
            n_jobs=1,
            precomputed_knn=nearest_neighbours(features, k),
        )
        points = np.asarray(fit.fit_transform(features), np.float32)
    return dict(zip(names, np.split(points, cuts), strict=True))


def pca_map(feature_sets: Mapping[str, ArrayLike], fit_on: str | None = None) -> dict[str, Points]:
    """Project all sets on the two directions of largest variance.

    Parameters
    ----------
    feature_sets : name -> (n, D) array or tensor of finite numbers; one D >= 2 for all.
    fit_on : find the directions in this set only (and project the others); None uses all sets.

    Returns
    -------
    name -> (n, 2) float32. Each axis points so that its largest loading is positive: no mirror images.

    Raises
    ------
    LabError : as for `joint_map`, or `fit_on` is not a set.
    """
    names, features, cuts = _stack(feature_sets)
    if fit_on is not None and fit_on not in names:
        raise LabError(f"There is no set {fit_on!r} to fit on; the sets are {', '.join(names)}.")
    basis = features if fit_on is None else np.asarray(feature_sets[fit_on], np.float32)
    centre = basis.mean(axis=0)
    _, _, directions = np.linalg.svd(basis - centre, full_matrices=False)
    directions = directions[:2]
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
    points = ((features - centre) @ directions.T).astype(np.float32)
    if points.shape[1] < 2:
        points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    return dict(zip(names, np.split(points, cuts), strict=True))


def nearest_neighbours(features: ArrayLike, k: int) -> tuple[NDArray[np.int32], Points]:
    """The k nearest points to each point, itself first.

    Parameters
    ----------
    features : (N, D) array or tensor.
    k : how many, itself included, at most N.

    Returns
    -------
    indices (N, k) int32 and Euclidean distances (N, k) float32, nearest first.
    """
    x = torch.as_tensor(np.asarray(features, np.float32))
    indices, distances = [], []
    for first in range(0, len(x), 2048):
        rows = x[first : first + 2048]
        distance = torch.cdist(rows, x, compute_mode="donot_use_mm_for_euclid_dist")
        here = torch.arange(len(rows))
        distance[here, first + here] = -1.0  # a point is its own nearest, also among duplicates
        near, index = distance.topk(k, largest=False)
        indices.append(index)
        distances.append(near.clamp_min(0.0))
    return torch.cat(indices).numpy().astype(np.int32), torch.cat(distances).numpy()


def warm_up() -> threading.Thread:
    """Import and compile UMAP in a background thread; the first call starts it, later calls return it."""
    global _warm_thread
    with _WARMING:
        if _warm_thread is None:
            _warm_thread = threading.Thread(target=_first_fit, name="socketlab-umap", daemon=True)
            _warm_thread.start()
        return _warm_thread


def is_warm() -> bool:
    """True once a fit takes seconds rather than half a minute."""
    return _warm.is_set()


def _first_fit() -> None:
    noise = np.random.default_rng(0).normal(size=(60, 8))
    joint_map({"noise": noise}, epochs=20)
    _warm.set()


def _umap() -> Callable[..., Any]:
    """UMAP's class. Its two remarks about what we do on purpose are silenced, nothing else."""
    from umap import UMAP

    warnings.filterwarnings("ignore", message=r"precomputed_knn\[2\]")
    warnings.filterwarnings("ignore", message="n_jobs value .* overridden")
    return UMAP


def _stack(feature_sets: Mapping[str, ArrayLike]) -> tuple[list[str], Points, NDArray[np.int64]]:
    """Check the sets and join them: names, (N, D) float32, where to cut."""
    if not feature_sets:
        raise LabError("A map needs at least one set of features.")
    arrays = {name: np.asarray(values, np.float32) for name, values in feature_sets.items()}
    widths = {name: array.shape[1:] for name, array in arrays.items()}
    if any(array.ndim != 2 for array in arrays.values()) or len(set(widths.values())) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise LabError(f"All sets need one width, (n, D); they have {shapes}.")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise LabError(
                f"The features {name!r} hold NaN or infinite numbers; they cannot be put on a map."
            )
    cuts = np.cumsum([len(array) for array in arrays.values()])[:-1]
    return list(arrays), np.concatenate(list(arrays.values())), cuts
