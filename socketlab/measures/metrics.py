"""All measures by name, and one loop over them; `distances` and `similarity` have equation, bias and cost."""

from __future__ import annotations

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
from socketlab.measures.distances import EXACT, Kernel, block_estimate, kernel_distance, median_distance, rbf
from socketlab.measures.feature_sets import Features, checked
from socketlab.measures.similarity import kernel_cka, linear_cka, pair_alignment

Fix = Callable[[Tensor, Tensor, bool, int], "partial[float]"]


@dataclass(frozen=True)
class Measure:
    """One entry of `MEASURES`.

    Parameters
    ----------
    title, larger : its name in tables, and what a larger value means.
    fix : from both whole sets, whether they are pairs, and a seed: the function to evaluate on them and on
        parts of them, with one bandwidth for all. A ``kernel`` among its keywords makes it an MMD², which
        comes with p, and with a standard error above `EXACT` rows.
    low, high : ends of its range.
    pairs, one_space : it needs pairs of scenes; it needs both sets to have the same features.
    most : rows a set that it takes at most; more would cost their square.
    """

    title: str
    fix: Fix
    larger: str
    low: float = 0.0
    high: float = math.inf
    pairs: bool = False
    one_space: bool = True
    most: int | None = None


def _by_kernel(kernel: Callable[[Tensor, Tensor], Kernel]) -> Fix:
    return lambda a, b, paired, seed: partial(kernel_distance, kernel=kernel(a, b), paired=paired, seed=seed)


def _with(measure: Callable[..., float], *names: str) -> Fix:
    """A measure that is given ``paired``, ``seed`` or both."""
    return lambda a, b, paired, seed: partial(
        measure, **{name: {"paired": paired, "seed": seed}[name] for name in names}
    )


def _cka_with_fixed_kernels(a: Tensor, b: Tensor, paired: bool, seed: int) -> partial[float]:
    widths = median_distance(a, a), median_distance(b, b)
    return partial(kernel_cka, bandwidths=widths, debiased=True, seed=seed)


def _class_gap(a: Tensor, b: Tensor, paired: bool, seed: int) -> partial[float]:
    """Of sets whose last column is the class."""
    width = median_distance(a[:, :-1], b[:, :-1])
    distance = partial(distances.mmd, bandwidth=width, seed=seed)
    return partial(lambda x, y: distances.class_gap(x[:, :-1], y[:, :-1], x[:, -1], y[:, -1], distance))


_APART: dict[str, Any] = {"larger": "further apart"}
_MMD: dict[str, Any] = {"larger": "further apart", "low": -math.inf, "high": 2.0}
_CKA: dict[str, Any] = {"larger": "more alike", "high": 1.0, "pairs": True, "one_space": False}
_DEBIASED: dict[str, Any] = _CKA | {"low": -math.inf}
_PAIRS: dict[str, Any] = {"pairs": True, "most": EXACT, "high": 1.0}
_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
MEASURES: dict[str, Measure] = {
    "mmd": Measure("MMD²", _by_kernel(lambda a, b: rbf(median_distance(a, b))), **_MMD),
    "mmd_scales": Measure(
        "MMD², five bandwidths", _by_kernel(lambda a, b: rbf(median_distance(a, b), _SCALES)), **_MMD
    ),
    "energy": Measure(
        "energy distance", _by_kernel(lambda a, b: distances.minus_distance), low=-math.inf, **_APART
    ),
    "frechet": Measure("Fréchet distance²", _with(distances.frechet), **_APART),
    "sliced_wasserstein": Measure(
        "sliced Wasserstein distance²", _with(distances.sliced_wasserstein, "seed"), **_APART
    ),
    "coral": Measure("CORAL", _with(distances.coral), "covariances further apart"),
    "channel_divergence": Measure("symmetric KL per channel", _with(distances.channel_divergence), **_APART),
    "proxy_a_distance": Measure(
        "proxy A-distance", _with(distances.proxy_a_distance, "paired", "seed"), "easier to tell apart",
        -2.0, 2.0, most=2000,
    ),
    "neighbour_purity": Measure(
        "neighbours of the same set", _with(distances.neighbour_purity), high=1.0, most=EXACT, **_APART
    ),
    "linear_cka": Measure("linear CKA", _with(linear_cka), **_CKA),
    "linear_cka_debiased": Measure(
        "linear CKA, debiased", _with(partial(linear_cka, debiased=True)), **_DEBIASED
    ),
    "kernel_cka": Measure("RBF CKA, debiased", _cka_with_fixed_kernels, **_DEBIASED),
    "pair_cosine": Measure(
        "cosine of partners, less that of others", _with(lambda a, b: pair_alignment(a, b).cosine_gain),
        "partners nearer", -2.0, 2.0, pairs=True, most=EXACT,
    ),
    "pair_rank": Measure(
        "median rank of the partner", _with(lambda a, b: float(np.mean(pair_alignment(a, b).median_rank))),
        "partners harder to find", **_PAIRS,
    ),
    "pair_recall": Measure(
        "partner found first", _with(lambda a, b: float(np.mean(pair_alignment(a, b, ks=(1,)).recall[1]))),
        "partners easier to find", **_PAIRS,
    ),
}  # fmt: skip
"""Name → measure; `measure_all` adds `class_gap`, which needs labels."""
CLASS_GAP = Measure("gap within classes", _class_gap, "further apart", -math.inf)


def possible_measures(a: Features, b: Features, paired: bool) -> list[str]:
    """Names of the measures that two sets (n, D) and (m, E) allow."""
    one_space = np.shape(a)[1] == np.shape(b)[1]
    allowed = ((paired or not one.pairs) and (one_space or not one.one_space) for one in MEASURES.values())
    return [name for name, is_allowed in zip(MEASURES, allowed, strict=True) if is_allowed]


def measure_all(
    a: Features, b: Features, *, paired: bool = False, labels_a: Features | None = None,
    labels_b: Features | None = None, seed: int = 0, names: Sequence[str] | None = None, rounds: int = 100,
    most: int = 500,
) -> list[Measured]:  # fmt: skip
    """Every measure that these sets allow, with an interval of 95 %, in the order of `MEASURES`.

    Values are from all rows, or from as many as a measure's ``most``, drawn at random. Intervals come from
    `bootstrap_interval` with at most ``most`` rows a set in each round, which bounds the time; from the
    standard error where a measure has one. MMD² and energy come with the p of `permutation_test`, from at
    most 2,000 rows a set. A measure that is not defined here (CKA of constant features, say) is NaN, with the
    reason in ``how``.

    Parameters
    ----------
    paired : row i of both is one scene; without it CKA and retrieval are left out.
    labels_a, labels_b : (n,) and (m,); with both there is also "class_gap", the ratio of `class_gap`.
    names : of the measures wanted; default: all that these sets allow.

    Raises
    ------
    LabError : as `checked`, an unknown name, or one of a measure that needs pairs, labels or one width that
        are not there.
    """
    a, b = checked(a, b, paired=paired, same_width=False)
    possible = {name: (MEASURES[name], a, b) for name in possible_measures(a, b, paired)}
    if labels_a is not None and labels_b is not None and a.shape[1] == b.shape[1]:
        possible["class_gap"] = (CLASS_GAP, _labelled(a, labels_a), _labelled(b, labels_b))
    for name in names or ():
        if name not in possible:
            known = name in MEASURES or name == "class_gap"
            lacks = "needs pairs, labels or one width, which these sets lack" if known else "is no measure"
            raise LabError(f"{name!r} {lacks}; there are {', '.join(possible)}.")
    found = []
    for name in possible if names is None else names:
        try:
            one = _measured(*possible[name], paired, seed, rounds, most)
        except LabError as error:
            one = Measured(name, math.nan, how=str(error))
        found.append(replace(one, name=name))
    return found


def _labelled(x: Tensor, labels: Features) -> Tensor:
    column = torch.as_tensor(labels).to(x)
    if column.shape != (len(x),):
        raise LabError(f"{len(x)} rows need one label each, not {tuple(column.shape)}.")
    return torch.cat([x, column[:, None]], dim=1)


def _measured(
    measure: Measure, a: Tensor, b: Tensor, paired: bool, seed: int, rounds: int, most: int
) -> Measured:
    a, b = _sample(a, b, measure.most, paired, seed)
    function, p = measure.fix(a, b, paired, seed), None
    kernel = function.keywords.get("kernel")
    if kernel is not None and max(len(a), len(b)) > EXACT:
        found = _by_error(a, b, *block_estimate(a, b, kernel, paired=paired, seed=seed), seed)
    elif function.func is distances.proxy_a_distance:
        found = _by_error(a, b, *_proxy_and_error(a, b, paired, seed), seed)
    else:
        try:
            found = bootstrap_interval(function, a, b, rounds, seed, paired=paired, most=most)
        except LabError as error:  # halves are too small for the measure
            how = f"{len(a):,} and {len(b):,} rows; no interval: {error}"
            found = Measured("", function(a, b), how=how)
    if kernel is not None:
        p = permutation_test(kernel, *_sample(a, b, 2000, paired, seed), seed=seed, paired=paired)
    low, high = (min(max(end, measure.low), measure.high) for end in (found.low, found.high))
    return replace(found, low=low, high=high, p=p)


def _by_error(a: Tensor, b: Tensor, value: float, error: float, seed: int) -> Measured:
    how = f"{len(a):,} and {len(b):,} rows; 1.96 standard errors either way, seed {seed}"
    return Measured("", value, value - 1.96 * error, value + 1.96 * error, how)


def _proxy_and_error(a: Tensor, b: Tensor, paired: bool, seed: int) -> tuple[float, float]:
    """Value, and the error that as many tosses of two coins have (two held-out rows more on either side)."""
    mistakes = distances.domain_mistakes(a, b, paired=paired, seed=seed)
    rates = [((wrong.sum() + 2) / (len(wrong) + 4), len(wrong) + 4) for wrong in mistakes]
    variance = sum(rate * (1 - rate) / count for rate, count in rates) / 4
    return 2 * (1 - 2 * float(np.mean([wrong.mean() for wrong in mistakes]))), 4 * math.sqrt(variance)


def _sample(a: Tensor, b: Tensor, most: int | None, paired: bool, seed: int) -> tuple[Tensor, Tensor]:
    """At most so many rows of either set, drawn at random; partners together."""
    if most is None or max(len(a), len(b)) <= most:
        return a, b
    generator = torch.Generator().manual_seed(seed)
    i = torch.randperm(len(a), generator=generator)[:most]
    j = i if paired else torch.randperm(len(b), generator=generator)[:most]
    return a[i], b[j]
