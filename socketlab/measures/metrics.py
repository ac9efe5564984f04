"""All measures by name, and one loop over them; `distances` and `similarity` have equation, bias and cost."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from socketlab.errors import LabError
from socketlab.measures import distances
from socketlab.measures.bootstrap import Measured, bootstrap_interval, permutation_test
from socketlab.measures.distances import EXACT, Features, checked, kernel_distance, median_distance, rbf
from socketlab.measures.similarity import kernel_cka, linear_cka, pair_alignment


@dataclass(frozen=True)
class Measure:
    """One entry of `MEASURES`.

    Parameters
    ----------
    title, larger : its name in tables, and what a larger value means.
    function : of two sets; it may take ``paired`` and ``seed``.
    low, high : ends of its range.
    pairs, one_space : it needs pairs of scenes; it needs both sets to have the same features.
    most : rows a set that it takes at most; more would cost their square.
    options : further arguments of ``function``, from both whole sets for all parts. A ``kernel`` makes it an
        MMD², which comes with p.
    """

    title: str
    larger: str
    function: Callable[..., float]
    low: float = 0.0
    high: float = math.inf
    pairs: bool = False
    one_space: bool = True
    most: int | None = None
    options: Callable[[Tensor, Tensor], dict[str, Any]] = lambda a, b: {}

    def fix(self, a: Tensor, b: Tensor, paired: bool, seed: int) -> partial[float]:
        """The function to evaluate on both sets and on parts of them."""
        taken = inspect.signature(self.function).parameters
        given = {name: value for name, value in (("paired", paired), ("seed", seed)) if name in taken}
        return partial(self.function, **given, **self.options(a, b))


_APART, _ALIKE = "further apart", "more alike"
_CKA: dict[str, Any] = {"high": 1.0, "pairs": True, "one_space": False, "most": EXACT}
_PAIRS: dict[str, Any] = {"pairs": True, "most": EXACT}
_MMD: dict[str, Any] = {"low": -math.inf, "most": EXACT}
_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
MEASURES: dict[str, Measure] = {
    "mmd": Measure(
        "MMD²", _APART, kernel_distance, high=2.0, **_MMD,
        options=lambda a, b: {"kernel": rbf(median_distance(a, b))},
    ),
    "mmd_scales": Measure(
        "MMD², five bandwidths", _APART, kernel_distance, high=2.0, **_MMD,
        options=lambda a, b: {"kernel": rbf(median_distance(a, b), _SCALES)},
    ),
    "energy": Measure(
        "energy distance", _APART, kernel_distance, **_MMD,
        options=lambda a, b: {"kernel": distances.minus_distance},
    ),
    "frechet": Measure("Fréchet distance²", _APART, distances.frechet),
    "sliced_wasserstein": Measure("sliced Wasserstein distance²", _APART, distances.sliced_wasserstein),
    "coral": Measure("CORAL", "covariances further apart", distances.coral),
    "channel_divergence": Measure("symmetric KL per channel", _APART, distances.channel_divergence),
    "proxy_a_distance": Measure(
        "proxy A-distance", "easier to tell apart", distances.proxy_a_distance, -2.0, 2.0, most=2000
    ),
    "neighbour_purity": Measure(
        "neighbours of the same set", _APART, distances.neighbour_purity, 0.0, 1.0, most=EXACT
    ),
    "linear_cka": Measure("linear CKA", _ALIKE, linear_cka, **_CKA),
    "linear_cka_debiased": Measure(
        "linear CKA, debiased", _ALIKE, partial(linear_cka, debiased=True), -math.inf, **_CKA
    ),
    "kernel_cka": Measure(
        "RBF CKA, debiased", _ALIKE, partial(kernel_cka, debiased=True), -math.inf, **_CKA,
        options=lambda a, b: {"bandwidths": (median_distance(a, a), median_distance(b, b))},
    ),
    "pair_cosine": Measure(
        "cosine of partners, less that of others", "partners nearer",
        lambda a, b: pair_alignment(a, b).cosine_gain, -2.0, 2.0, **_PAIRS,
    ),
    "pair_rank": Measure(
        "median rank of the partner", "partners harder to find",
        lambda a, b: float(np.mean(pair_alignment(a, b).median_rank)), 0.0, 1.0, **_PAIRS,
    ),
    "pair_recall": Measure(
        "partner found first", "partners easier to find",
        lambda a, b: float(np.mean(pair_alignment(a, b, ks=(1,)).recall[1])), 0.0, 1.0, **_PAIRS,
    ),
}  # fmt: skip
"""Name → measure."""


def possible_measures(a: Features, b: Features, paired: bool) -> list[str]:
    """Names of the measures that two sets (n, D) and (m, E) allow."""
    one_space = np.shape(a)[1] == np.shape(b)[1]
    allowed = {n: (paired or not m.pairs) and (one_space or not m.one_space) for n, m in MEASURES.items()}
    return [name for name in MEASURES if allowed[name]]


def measure_all(
    a: Features, b: Features, *, paired: bool = False, seed: int = 0, names: Sequence[str] | None = None,
    rounds: int = 100, most: int = 500,
) -> list[Measured]:  # fmt: skip
    """Every measure that these sets allow, with an interval of 95 %, in the order of `MEASURES`.

    Values are from all rows, or from as many as a measure's ``most``, drawn at random. Intervals come from
    `bootstrap_interval` with at most ``most`` rows a set in each round, or from a standard error. MMD² and
    energy come with the p of `permutation_test`, from at most 2,000 rows a set. A measure that is not defined
    here (CKA of constant features, say) is NaN, with the reason in ``how``.

    Parameters
    ----------
    paired : row i of both is one scene; without it CKA and retrieval are left out.
    names : of the measures wanted; default: all that these sets allow.
    """
    a, b = checked(a, b, paired=paired, same_width=False)
    possible = possible_measures(a, b, paired)
    for name in names or ():
        if name not in possible:
            lacks = "needs pairs or one width, which these sets lack" if name in MEASURES else "is no measure"
            raise LabError(f"{name!r} {lacks}; there are {', '.join(possible)}.")
    found = []
    for name in possible if names is None else names:
        try:
            one = _measured(MEASURES[name], a, b, paired, seed, rounds, most)
        except LabError as error:
            one = Measured(name, math.nan, how=str(error))
        found.append(replace(one, name=name))
    return found


def _measured(
    measure: Measure, a: Tensor, b: Tensor, paired: bool, seed: int, rounds: int, most: int
) -> Measured:
    a, b = _sample(a, b, measure.most, paired, seed)
    function, p = measure.fix(a, b, paired, seed), None
    rows = f"{len(a):,} and {len(b):,} rows"
    if kernel := function.keywords.get("kernel"):
        p = permutation_test(kernel, *_sample(a, b, 2000, paired, seed), seed=seed, paired=paired)
    if measure.function is distances.proxy_a_distance:
        value, error = distances.proxy_estimate(a, b, paired=paired, seed=seed)
        ends = value - 1.96 * error, value + 1.96 * error
        found = Measured("", value, *ends, f"{rows}; 1.96 standard errors either way, seed {seed}")
    else:
        try:
            found = bootstrap_interval(function, a, b, rounds, seed, paired=paired, most=most)
        except LabError as error:  # halves are too small for the measure
            found = Measured("", function(a, b), how=f"{rows}; no interval: {error}")
    low, high = (min(max(end, measure.low), measure.high) for end in (found.low, found.high))
    return replace(found, low=low, high=high, p=p)


def _sample(a: Tensor, b: Tensor, most: int | None, paired: bool, seed: int) -> tuple[Tensor, Tensor]:
    """At most so many rows of either set, drawn at random; partners together."""
    if most is None or max(len(a), len(b)) <= most:
        return a, b
    generator = torch.Generator().manual_seed(seed)
    i = torch.randperm(len(a), generator=generator)[:most]
    j = i if paired else torch.randperm(len(b), generator=generator)[:most]
    return a[i], b[j]
