"""How far a map is to be believed: UMAP draws clusters into noise as well.

A neighbourhood that other seeds draw too, and that the features have, is more than an accident.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    k = _usable(before, after, k)
    near = [maps.nearest_neighbours(x, k + 1)[0][:, 1:] for x in (before, after)]
    return np.array([len(np.intersect1d(a, b)) for a, b in zip(*near, strict=True)]) / k


def trustworthiness(features: ArrayLike, points: ArrayLike, k: int = 15, most: int = 2000) -> float:
    r"""How little a map invents: 1 when all neighbours on the map are neighbours in the features.

    .. math:: 1 - \frac{2}{n k (2 n - 3 k - 1)} \sum_i \sum_{j \in N_k^{map}(i)} \max(0, r(i, j) - k)

    with r(i, j) the rank of j among the neighbours of i in the features (n, D), and points (n, 2) the map.
    About 0.5 for a random map; in small sets fewer than k neighbours are used, of more points than `most` as
    many drawn with a fixed seed (scikit-learn needs memory for n²).

    Source: Venna and Kaski, Neural Networks 2006, by way of scikit-learn.
    """
    from sklearn.manifold import trustworthiness as of_scikit_learn

    _usable(features, points, k)
    x, y = np.asarray(features, np.float32), np.asarray(points, np.float32)
    if len(x) > most:
        drawn = np.sort(np.random.default_rng(0).choice(len(x), most, replace=False))
        x, y = x[drawn], y[drawn]
    return float(of_scikit_learn(x, y, n_neighbors=min(k, (len(x) - 1) // 2)))


@dataclass(frozen=True)
class Stability:
    """What maps of several seeds have in common, with each other and with the features.

    Parameters
    ----------
    between_seeds : (n,) share of each point's neighbours on one map that are so on another, mean of pairs.
    to_features : (n,) share of its neighbours in the features that are so on the map, mean of seeds.
    trust : (seeds,) trustworthiness of each map; chance: what unrelated pictures would share, k / (n - 1).
    """

    between_seeds: NDArray[np.float64]
    to_features: NDArray[np.float64]
    trust: NDArray[np.float64]
    chance: float
    maps: tuple[Mapping[str, maps.Points], ...]

    @property
    def shares(self) -> dict[str, NDArray[np.float64]]:
        """Name of a comparison → (n,), ready to be drawn."""
        return {"between seeds": self.between_seeds, "map and features": self.to_features}


def stability(
    feature_sets: Mapping[str, ArrayLike], seeds: Sequence[int] = (0, 1, 2), k: int = 15
) -> Stability:
    """Make a `maps.joint_map` with at least two seeds, and measure what they keep of k neighbours."""
    if len(set(seeds)) < 2:
        raise LabError(f"Stability compares maps of at least two seeds, and {list(seeds)} were given.")
    drawn = tuple(maps.joint_map(feature_sets, seed) for seed in seeds)
    features = np.concatenate([np.asarray(x, np.float32) for x in feature_sets.values()])
    points = [np.concatenate(list(one.values())) for one in drawn]
    k = _usable(features, points[0], k)
    return Stability(
        between_seeds=np.mean([kept_neighbours(a, b, k) for a, b in combinations(points, 2)], axis=0),
        to_features=np.mean([kept_neighbours(features, x, k) for x in points], axis=0),
        trust=np.array([trustworthiness(features, x, k) for x in points]),
        chance=k / (len(features) - 1),
        maps=drawn,
    )


def _usable(before: ArrayLike, after: ArrayLike, k: int) -> int:
    n, m = len(np.asarray(before)), len(np.asarray(after))
    if n != m or n < 3:
        raise LabError(f"The same points are compared in two pictures, at least 3; {n} and {m} were given.")
    if k < 1:
        raise LabError(f"k is {k}; at least 1 neighbour counts.")
    return min(k, n - 2)
