"""Maps of feature space: PCA at once, UMAP when it is ready. For looking, not for measuring.

A UMAP of two modalities together (`joint_map`) exaggerates the gap between them: only neighbours count, and
a shift no larger than the noise is enough for most neighbours to be of the same modality, so that every
class falls into two islands. A UMAP of the source, on which the target is placed afterwards
(`projected_map`), hides the gap: every target point is put among its nearest source points, however far off
they are. In both, distances between clusters mean little. PCA (`pca_map`) does not bend anything, but a gap
that does not lie in its two directions cannot be seen. So look at more than one map, beside the number that
belongs to all of them (`neighbour_purity`, in feature space) and how far each is to be believed
(`map_quality.stability`). UMAPs made one by one turn and tear between two epochs even where nothing has
moved: a film is of principal components.

All maps take sets as name -> (n, D) array or tensor of finite numbers, one D for all, and return name ->
(n, 2) float32; a `LabError` refuses others, and a UMAP of fewer than 5 points. Neighbours are exact
(Euclidean). Same input and seed, same map on one machine. UMAP is imported late (2 to 30 s) and compiles
itself at its first fit (7 to 17 s): show `pca_map` meanwhile. Two fits at once would abort the process, so
all of them wait for one lock.

Source: McInnes, Healy, Melville, UMAP, 2018 (arXiv:1802.03426).
"""

import atexit
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from socketlab.errors import LabError
from socketlab.measures.distances import neighbour_purity as neighbour_purity

Points = NDArray[np.float32]
Neighbours = tuple[NDArray[np.int32], Points]
NEIGHBOURS = 15
"""Neighbours of each point, itself counted; fewer in small sets."""
_FIT = threading.Lock()  # one UMAP fit per process at a time


def joint_map(feature_sets: Mapping[str, ArrayLike], seed: int = 0) -> dict[str, Points]:
    """One UMAP of several sets of features, fitted on all of them together."""
    features, apart = _stack(feature_sets)
    near = nearest_neighbours(features, _usable_neighbours(features))
    with _one_fit_at_a_time():
        points = _umap(near, "pca", seed).fit_transform(features)
    return apart(np.asarray(points, np.float32))


def joint_map_or_pca(feature_sets: Mapping[str, ArrayLike], seed: int = 0) -> tuple[dict[str, Points], str]:
    """A `joint_map`, or the principal components where UMAP cannot be had: a report needs a map, not UMAP.

    Returns
    -------
    The map, and a sentence that gives the reason for principal components; empty for a UMAP.
    """
    components = pca_map(feature_sets)
    try:
        return joint_map(feature_sets, seed), ""
    except Exception as error:  # too few points, or whatever numba and UMAP may raise on a strange machine
        words = " ".join(str(error).split()) or type(error).__name__
        return components, f"Principal components in place of UMAP: {words[:200]}"


def projected_map(feature_sets: Mapping[str, ArrayLike], fit_on: str, seed: int = 0) -> dict[str, Points]:
    """A UMAP of the set `fit_on`, on which the others are placed afterwards, point by point.

    Each point of another set starts in the middle of its nearest neighbours *in the set fitted on* and is
    moved for a third of the rounds, while the map stands still. How one set looks does not depend on the
    other ones, nor does the map of the set fitted on: so it hides a gap (see the module).
    """
    features, apart = _stack(feature_sets, fit_on)
    parts = apart(features)
    basis = parts[fit_on]
    k, start = _usable_neighbours(basis), pca_map({fit_on: basis})[fit_on]
    with _one_fit_at_a_time():
        umap = _fit_on_neighbours(nearest_neighbours(basis, k), start, seed)
        for name in [name for name in parts if name != fit_on]:
            indices, distances = nearest_neighbours(parts[name], k, among=basis)
            entries = (distances.ravel(), indices.ravel(), np.arange(0, distances.size + 1, k))
            parts[name] = umap.transform(csr_matrix(entries, shape=(len(indices), len(basis))))
    return parts | {fit_on: umap.embedding_}


def pca_map(feature_sets: Mapping[str, ArrayLike], fit_on: str | None = None) -> dict[str, Points]:
    """Project all sets on the two directions of largest variance, of all sets or of `fit_on` alone.

    Each axis points so that its largest loading is positive: no mirror images.
    """
    features, apart = _stack(feature_sets, fit_on)
    basis = features if fit_on is None else apart(features)[fit_on]
    centre = basis.mean(axis=0)
    directions = np.linalg.svd(basis - centre, full_matrices=False)[2][:2]
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
    points = ((features - centre) @ directions.T).astype(np.float32)
    return apart(np.pad(points, ((0, 0), (0, 2 - points.shape[1]))))


def nearest_neighbours(features: ArrayLike, k: int, among: ArrayLike | None = None) -> Neighbours:
    """Indices (N, k) int32 and distances (N, k) float32 of the k nearest points, nearest first.

    They are of `among`, or of the features' own, each point itself first.
    """
    x = torch.as_tensor(np.asarray(features, np.float32))
    others = x if among is None else torch.as_tensor(np.asarray(among, np.float32))
    found = []
    for rows in torch.arange(len(x)).split(2048):
        distance = torch.cdist(x[rows], others, compute_mode="donot_use_mm_for_euclid_dist")
        if among is None:
            distance[torch.arange(len(rows)), rows] = -1.0  # its own nearest, also among duplicates
        found.append(distance.topk(k, largest=False))
    distances, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return indices.numpy().astype(np.int32), distances.clamp_min(0.0).numpy()


@contextmanager
def _one_fit_at_a_time() -> Iterator[None]:
    """UMAP is imported and fitted in here: alone in this process, and PyTorch keeps its number of threads.

    UMAP's compiler would set it to all cores, which slows down training beside other processes.
    """
    with _FIT:
        threads = torch.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _umap(near: Neighbours, init: Any, seed: int, **options: Any) -> Any:
    """A UMAP to be fitted. Its warnings, all about what we do on purpose, are silenced, no others."""
    try:
        from umap import UMAP
    except RuntimeError:  # numba finds no folder where it may write what it compiled
        import numba

        folder = tempfile.mkdtemp(prefix="socketlab-numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        vars(numba.config)["CACHE_DIR"] = folder
        from umap import UMAP

    warnings.filterwarnings("ignore", module=r"umap\.")
    known = {"n_neighbors": near[0].shape[1], "precomputed_knn": near}
    return UMAP(**known, n_epochs=200, init=init, random_state=seed, n_jobs=1, **options)


def _fit_on_neighbours(near: Neighbours, start: Points, seed: int) -> Any:
    """A UMAP fitted to each point's neighbours and nothing else; call it under the lock.

    umap-learn takes them for a matrix of distances, of which it needs no more than these entries: an empty
    one does. That keeps `transform` possible, with neighbours that are as exact.
    """
    umap = _umap(near, start, seed, metric="precomputed", transform_seed=seed)
    return umap.fit(csr_matrix((len(start), len(start)), dtype=np.float32))


def _usable_neighbours(points: Points) -> int:
    if len(points) < 5:
        raise LabError(f"A map needs at least 5 points, and {len(points)} were given.")
    return min(NEIGHBOURS, len(points) - 1)


def _stack(
    feature_sets: Mapping[str, ArrayLike], fit_on: str | None = None
) -> tuple[Points, Callable[[Points], dict[str, Points]]]:
    """Check the sets and join them: (N, D) float32, and what takes (N, ...) apart again."""
    if not feature_sets:
        raise LabError("A map needs at least one set of features.")
    if fit_on is not None and fit_on not in feature_sets:
        raise LabError(f"There is no set {fit_on!r} to fit on; the sets are {', '.join(feature_sets)}.")
    arrays = {name: np.asarray(values, np.float32) for name, values in feature_sets.items()}
    if any(array.ndim != 2 for array in arrays.values()) or len({a.shape[1] for a in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise LabError(f"All sets need one width, (n, D); they have {shapes}.")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise LabError(f"The features {name!r} hold NaN or infinite numbers: no map can show them.")
    cuts = np.cumsum([len(array) for array in arrays.values()])[:-1]
    return np.concatenate(list(arrays.values())), lambda x: dict(zip(arrays, np.split(x, cuts), strict=True))
