"""How far a map is to be believed: UMAP draws clusters into noise as well.

A neighbourhood that other seeds draw too, and that the features have, is more than an accident.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError
from socketlab.figures import maps


def kept_neighbours(before: ArrayLike, after: ArrayLike, k: int = 15) -> NDArray[np.float64]:
    r"""Share of each point's k nearest neighbours that are still among them in another picture.

    .. math:: s_i = \tfrac1k | N_k^{before}(i) \cap N_k^{after}(i) |

    Before (n, D) and after (n, D') are the same points in the same order: features and a map, or two maps. A
    point itself does not count; at most n - 2 neighbours are used. Returns (n,) in [0, 1], on average
    k / (n - 1) where the pictures have nothing to do with each other.

    Source: neighbourhood preservation, as in Lee and Verleysen, Neurocomputing 2009 (Q_NX).
    """
    n, m = len(np.asarray(before)), len(np.asarray(after))
    if n != m or n < 3:
        raise LabError(f"The same points are compared in two pictures, at least 3; {n} and {m} were given.")
    if k < 1:
        raise LabError(f"k is {k}; at least 1 neighbour counts.")
    k = min(k, n - 2)
    near = [maps.nearest_neighbours(x, k + 1)[0][:, 1:] for x in (before, after)]
    return np.array([len(np.intersect1d(a, b)) for a, b in zip(*near, strict=True)]) / k


def stability(
    feature_sets: Mapping[str, ArrayLike], seeds: Sequence[int] = (0, 1, 2), k: int = 15
) -> dict[str, NDArray[np.float64]]:
    """What a `maps.joint_map` with each seed keeps of every point's k neighbours, shares (n,).

    "between seeds": in the map of another seed, mean of the pairs of seeds; "map and features": of the
    neighbours in the features, mean of the seeds. How little a map invents, scikit-learn's
    ``manifold.trustworthiness`` measures.
    """
    if len(set(seeds)) < 2:
        raise LabError(f"Stability compares maps of at least two seeds, and {list(seeds)} were given.")
    drawn = [np.concatenate(list(maps.joint_map(feature_sets, seed).values())) for seed in seeds]
    features = np.concatenate([np.asarray(x, np.float32) for x in feature_sets.values()])
    return {
        "between seeds": np.mean([kept_neighbours(a, b, k) for a, b in combinations(drawn, 2)], axis=0),
        "map and features": np.mean([kept_neighbours(features, x, k) for x in drawn], axis=0),
    }
