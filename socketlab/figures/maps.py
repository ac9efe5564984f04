"""Maps of feature space: PCA at once, UMAP when it is ready.

A map puts (N, D) features on a sheet of paper. It is for looking, not for measuring. A UMAP of two modalities
together (`joint_map`) exaggerates the gap between them: only neighbours count, and a shift no larger than the
noise is enough for most neighbours to be of the same modality, so that every class falls into two islands. A
UMAP of the source, on which the target is placed afterwards (`projected_map`), hides the gap: every target
point is put among its nearest source points, however far off they are, and far from the source even classes
that are well apart may fall together. In both, distances between clusters mean little. PCA (`pca_map`) does
not bend anything, but a gap that does not lie in its two directions cannot be seen. So look at more than one
map, beside the number that belongs to all of them (`neighbour_purity`, in feature space) and how far each is
to be believed (`map_quality.stability`). Maps made one by one turn and tear between two epochs even where
nothing has moved; `moving_map` lays all epochs out together.

UMAP is imported late (2 to 30 s) and compiles itself at its first fit (7 to 17 s): call `warm_up()` early,
show `pca_map` meanwhile. Two fits at once would abort the process, so all of them wait for one lock.

Sources: McInnes, Healy, Melville, UMAP, 2018 (arXiv:1802.03426); for `moving_map` the idea of AlignedUMAP
(umap-learn 0.5), as one graph instead of one layout per step.
"""

import atexit
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from socketlab.errors import LabError
from socketlab.measures.distances import neighbour_purity as neighbour_purity

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

    Neighbours are exact (Euclidean). The layout starts from the first two principal components, or from
    `start`, an earlier map of as many points: then clusters move instead of jumping.

    Parameters
    ----------
    feature_sets : name -> (n, D) array or tensor of finite numbers; one D for all.
    seed : seeds the layout.
    neighbours : number of neighbours of each point, itself counted, at least 2. Small sets use fewer.
    min_dist : how close points may lie on the map, in [0, 1].
    epochs : rounds of the layout.
    start : name -> (n, 2) positions to begin from.

    Returns
    -------
    name -> (n, 2) float32, in the order given. Same input and seed, same map on one machine.

    Raises
    ------
    LabError : no sets, unequal widths, numbers that are not finite, fewer than 5 points.
    """
    names, features, cuts = _stack(feature_sets)
    k = _usable_neighbours(neighbours, len(features))
    init: Any = "pca"
    if start is not None:
        init = np.concatenate([np.asarray(start[name], np.float32) for name in names])
        if init.shape != (len(features), 2):
            raise LabError(f"start has shape {init.shape}; the features need {(len(features), 2)}.")
    with _one_fit_at_a_time():
        umap = _umap()(
            n_neighbors=k, min_dist=min_dist, n_epochs=epochs, init=init, random_state=seed, n_jobs=1,
            precomputed_knn=nearest_neighbours(features, k),
        )  # fmt: skip
        points = np.asarray(umap.fit_transform(features), np.float32)
    return dict(zip(names, np.split(points, cuts), strict=True))


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


def projected_map(
    feature_sets: Mapping[str, ArrayLike],
    fit_on: str,
    seed: int = 0,
    neighbours: int = 15,
    min_dist: float = 0.1,
    epochs: int = 200,
) -> dict[str, Points]:
    """A UMAP of one set, on which the others are placed afterwards, point by point.

    Each point of another set starts in the middle of its nearest neighbours *in the set fitted on* and is
    moved for a third of the rounds, while the map stands still. How one set looks does not depend on the
    other ones, nor does the map of the set fitted on: so it hides a gap (see the module).

    Parameters
    ----------
    fit_on : the set that the map is made of, at least 5 points.
    feature_sets, seed, neighbours, min_dist, epochs : as for `joint_map`, also what is returned and raised.
    """
    names, features, cuts = _stack(feature_sets, fit_on)
    parts = dict(zip(names, np.split(features, cuts), strict=True))
    basis = parts[fit_on]
    k = _usable_neighbours(neighbours, len(basis))
    start = pca_map({fit_on: basis})[fit_on]
    with _one_fit_at_a_time():
        umap = _fit_on_neighbours(nearest_neighbours(basis, k), start, seed, min_dist, epochs)
        return {
            name: np.asarray(
                umap.embedding_ if name == fit_on else umap.transform(_distances_to(basis, part, k)),
                np.float32,
            )
            for name, part in parts.items()
        }


def pca_map(feature_sets: Mapping[str, ArrayLike], fit_on: str | None = None) -> dict[str, Points]:
    """Project all sets on the two directions of largest variance.

    Parameters
    ----------
    feature_sets : name -> (n, D) array or tensor of finite numbers; one D for all.
    fit_on : find the directions in this set only (and project the others); None uses all sets.

    Returns
    -------
    name -> (n, 2) float32. Each axis points so that its largest loading is positive: no mirror images.
    """
    names, features, cuts = _stack(feature_sets, fit_on)
    basis = features if fit_on is None else np.asarray(feature_sets[fit_on], np.float32)
    centre = basis.mean(axis=0)
    directions = np.linalg.svd(basis - centre, full_matrices=False)[2][:2]
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
    points = ((features - centre) @ directions.T).astype(np.float32)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    return dict(zip(names, np.split(points, cuts), strict=True))


def moving_map(
    snapshots: Sequence[ArrayLike], seed: int = 0, neighbours: int = 15, epochs: int = 200
) -> list[Points]:
    """One coherent UMAP for snapshots of the same samples.

    Every point is tied to itself one step before and after, as closely as to its nearest neighbour.

    Parameters
    ----------
    snapshots : T arrays (n, D) of finite numbers, the same samples in the same order. For two modalities give
        their features one below the other in every snapshot.
    seed, neighbours, epochs : as for `joint_map`; neighbours are those within a snapshot.

    Returns
    -------
    T arrays (n, 2) float32. Same input and seed, same map on one machine.

    Raises
    ------
    LabError : as for `joint_map`, or snapshots of unequal length.
    """
    names, features, _ = _stack({f"snapshot {t}": one for t, one in enumerate(snapshots)})
    if len({len(np.asarray(one)) for one in snapshots}) > 1:
        raise LabError("Snapshots hold the same samples in the same order: all need one length.")
    steps = np.split(features, len(names))
    k = _usable_neighbours(neighbours, len(steps[0]))
    start = np.concatenate(list(pca_map(dict(zip(names, steps, strict=True))).values()))
    start = (10 * start / max(float(np.abs(start).max()), 1e-12)).astype(np.float32)
    with _one_fit_at_a_time():
        umap = _fit_on_neighbours(temporal_neighbours(steps, k), start, seed, 0.1, epochs)
    return np.split(np.asarray(umap.embedding_, np.float32), len(steps))


# ------------------------------------------------------------------------ neighbours and beginnings


def nearest_neighbours(features: ArrayLike, k: int) -> tuple[NDArray[np.int32], Points]:
    """The k nearest points to each point, itself first, k at most N.

    Returns
    -------
    indices (N, k) int32 and Euclidean distances (N, k) float32, nearest first.
    """
    x = torch.as_tensor(np.asarray(features, np.float32))
    return _nearest(x, x, k, to_itself=True)


def _nearest(
    points: torch.Tensor, among: torch.Tensor, k: int, to_itself: bool = False
) -> tuple[NDArray[np.int32], Points]:
    indices, distances = [], []
    for first in range(0, len(points), 2048):
        rows = points[first : first + 2048]
        distance = torch.cdist(rows, among, compute_mode="donot_use_mm_for_euclid_dist")
        if to_itself:
            here = torch.arange(len(rows))
            distance[here, first + here] = -1.0  # a point is its own nearest, also among duplicates
        near, index = distance.topk(k, largest=False)
        indices.append(index)
        distances.append(near.clamp_min(0.0))
    return torch.cat(indices).numpy().astype(np.int32), torch.cat(distances).numpy()


def _distances_to(basis: Points, others: Points, k: int) -> csr_matrix:
    """(m, n) sparse: the distances of other points to their k nearest in the basis."""
    indices, distances = _nearest(torch.as_tensor(others), torch.as_tensor(basis), k)
    ends = np.arange(0, len(others) * k + 1, k)
    return csr_matrix((distances.ravel(), indices.ravel(), ends), shape=(len(others), len(basis)))


def temporal_neighbours(steps: Sequence[Points], k: int) -> tuple[NDArray[np.int32], Points]:
    """Neighbours of each point in its own snapshot, and the point itself one step before and after.

    Returns
    -------
    indices (T n, k + 2) int32, row t n + i for sample i of snapshot t, and distances (T n, k + 2) float32; a
    point itself first, nearest first. The first and the last snapshot have one more neighbour of their own.
    """
    n, rows = len(steps[0]), np.arange(len(steps[0]), dtype=np.int32)
    indices, distances = [], []
    for t, step in enumerate(steps):
        beside = [s for s in (t - 1, t + 1) if 0 <= s < len(steps)]
        near, far = nearest_neighbours(step, min(k, n - 2) + 2 - len(beside))
        near = np.column_stack([near + np.int32(t * n), *(rows + np.int32(s * n) for s in beside)])
        far = np.column_stack([far, *(far[:, 1] for _ in beside)])
        order = np.argsort(far, axis=1, kind="stable")
        indices.append(np.take_along_axis(near, order, axis=1))
        distances.append(np.take_along_axis(far, order, axis=1))
    return np.concatenate(indices), np.concatenate(distances)


# ------------------------------------------------------------------------ UMAP


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
    joint_map_or_pca({"noise": np.random.default_rng(0).normal(size=(60, 8))})
    _warm.set()


@contextmanager
def _one_fit_at_a_time() -> Iterator[None]:
    """UMAP is imported and fitted in here: alone in this process, and PyTorch keeps its number of threads.

    UMAP's compiler would set it to all cores, whatever ``OMP_NUM_THREADS`` says; where several processes
    share them, training then takes many times as long.
    """
    with _FIT:
        threads = torch.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _umap() -> Callable[..., Any]:
    """UMAP's class. Its warnings about what we do on purpose are silenced, no others."""
    try:
        from umap import UMAP
    except RuntimeError:  # numba finds no folder where it may write what it compiled
        import numba

        folder = tempfile.mkdtemp(prefix="socketlab-numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        vars(numba.config)["CACHE_DIR"] = folder
        from umap import UMAP

    for message in (
        r"precomputed_knn\[2\]",
        "n_jobs value .* overridden",
        "using precomputed metric; inverse_transform",
        "Transforming new data with precomputed metric",
    ):
        warnings.filterwarnings("ignore", message=message)
    return UMAP


def _fit_on_neighbours(
    known: tuple[NDArray[np.int32], Points], start: Points, seed: int, min_dist: float, epochs: int
) -> Any:
    """A UMAP fitted to each point's neighbours and nothing else; call it under the lock.

    umap-learn takes them for a matrix of distances, of which it needs no more than these entries: an empty
    one does. That keeps `transform` possible, with neighbours that are as exact.
    """
    umap = _umap()(
        n_neighbors=known[0].shape[1], metric="precomputed", precomputed_knn=known, min_dist=min_dist,
        n_epochs=epochs, init=start, random_state=seed, transform_seed=seed, n_jobs=1,
    )  # fmt: skip
    return umap.fit(csr_matrix((len(start), len(start)), dtype=np.float32))


def _usable_neighbours(wanted: int, points: int) -> int:
    """How many neighbours a map of so many points uses, itself counted; a LabError where there is none."""
    if points < 5:
        raise LabError(f"A map needs at least 5 points, and {points} were given.")
    if wanted < 2:
        raise LabError(f"neighbours is {wanted}; a map needs at least 2.")
    return min(wanted, points - 1)


def _stack(
    feature_sets: Mapping[str, ArrayLike], fit_on: str | None = None
) -> tuple[list[str], Points, NDArray[np.int64]]:
    """Check the sets and join them: names, (N, D) float32, where to cut."""
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
            raise LabError(
                f"The features {name!r} hold NaN or infinite numbers; they cannot be put on a map."
            )
    cuts = np.cumsum([len(array) for array in arrays.values()])[:-1]
    return list(arrays), np.concatenate(list(arrays.values())), cuts
