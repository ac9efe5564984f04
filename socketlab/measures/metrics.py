"""All measures by name, and one loop over them.

Equation, range, bias and cost of each stand with its function in `distances` and `similarity`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from socketlab.errors import LabError
from socketlab.measures import distances
from socketlab.measures.bootstrap import Distance, Measured, permutation_test, row_interval
from socketlab.measures.distances import EXACT, Kernel, block_estimate, median_distance, mmd, rbf
from socketlab.measures.feature_sets import Features, checked
from socketlab.measures.similarity import kernel_cka, linear_cka, pair_alignment

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the median distance whose kernels "mmd_scales" averages."""
Fix = Callable[[Tensor, Tensor, bool, int], Distance]
Error = Callable[[Tensor, Tensor, bool, int], tuple[float, float] | None]


@dataclass(frozen=True)
class Measure:
    """One entry of `MEASURES`.

    Parameters
    ----------
    title : its name in tables.
    fix : from both whole sets, whether they are pairs, and a seed: the function to evaluate on them and on
        parts of them, with one bandwidth for all.
    larger : what a larger value means.
    low, high : ends of its range.
    pairs : it needs pairs of scenes.
    one_space : it needs both sets to have the same features.
    most : rows a set that it takes at most; more would cost their square.
    error : value and standard error, where they are known without resampling, else None.
    tested : the loop adds the p of its permutation test.
    """

    title: str
    fix: Fix
    larger: str
    low: float = 0.0
    high: float = math.inf
    pairs: bool = False
    one_space: bool = True
    most: int | None = None
    error: Error = lambda a, b, paired, seed: None
    tested: bool = False


def _mmd(title: str, scales: tuple[float, ...]) -> Measure:
    def fix(a: Tensor, b: Tensor, paired: bool, seed: int) -> Distance:
        width = median_distance(a, b)
        return functools.partial(mmd, bandwidth=width, scales=scales, paired=paired, seed=seed)

    error = _block_error(lambda a, b: rbf(median_distance(a, b), scales))
    return Measure(title, fix, "further apart", -math.inf, 2.0, error=error, tested=True)


def _block_error(kernel: Callable[[Tensor, Tensor], Kernel]) -> Error:
    """Of MMD² and energy where there are more than `EXACT` rows."""
    return lambda a, b, paired, seed: (
        block_estimate(a, b, kernel(a, b), paired=paired, seed=seed) if max(len(a), len(b)) > EXACT else None
    )


def _proxy_error(a: Tensor, b: Tensor, paired: bool, seed: int) -> tuple[float, float]:
    """Value, and the error that as many tosses of two coins have (two held-out rows more on either side)."""
    mistakes = distances.domain_mistakes(a, b, paired=paired, seed=seed)
    rates = [((wrong.sum() + 2) / (len(wrong) + 4), len(wrong) + 4) for wrong in mistakes]
    variance = sum(rate * (1 - rate) / count for rate, count in rates) / 4
    return 2 * (1 - 2 * float(np.mean([wrong.mean() for wrong in mistakes]))), 4 * math.sqrt(variance)


def _with(measure: Callable[..., float], *names: str) -> Fix:
    """A measure that is given ``paired``, ``seed`` or both."""
    return lambda a, b, paired, seed: functools.partial(
        measure, **{name: {"paired": paired, "seed": seed}[name] for name in names}
    )


def _fixed_kernel_cka(a: Tensor, b: Tensor, paired: bool, seed: int) -> Distance:
    widths = median_distance(a, a), median_distance(b, b)
    return functools.partial(kernel_cka, bandwidths=widths, debiased=True, seed=seed)


def _partner_rank(a: Tensor, b: Tensor) -> float:
    return float(np.mean(pair_alignment(a, b).median_rank))


def _partner_recall(a: Tensor, b: Tensor) -> float:
    return float(np.mean(pair_alignment(a, b, ks=(1,)).recall[1]))


_CKA: dict[str, Any] = {"high": 1.0, "pairs": True, "one_space": False}
_PAIRS: dict[str, Any] = {"pairs": True, "most": EXACT}
MEASURES: dict[str, Measure] = {
    "mmd": _mmd("MMD²", (1.0,)),
    "mmd_scales": _mmd("MMD², five bandwidths", SCALES),
    "energy": Measure(
        "energy distance", _with(distances.energy, "paired", "seed"), "further apart", -math.inf,
        error=_block_error(lambda a, b: distances.minus_distance), tested=True,
    ),
    "frechet": Measure("Fréchet distance²", _with(distances.frechet), "further apart"),
    "sliced_wasserstein": Measure(
        "sliced Wasserstein distance²", _with(distances.sliced_wasserstein, "seed"), "further apart"
    ),
    "coral": Measure("CORAL", _with(distances.coral), "covariances further apart"),
    "channel_divergence": Measure(
        "symmetric KL per channel", _with(distances.channel_divergence), "further apart"
    ),
    "proxy_a_distance": Measure(
        "proxy A-distance", _with(distances.proxy_a_distance, "paired", "seed"), "easier to tell apart",
        -2.0, 2.0, most=2000, error=_proxy_error,
    ),
    "neighbour_purity": Measure(
        "neighbours of the same set", _with(distances.neighbour_purity), "further apart", 0.0, 1.0, most=EXACT
    ),
    "linear_cka": Measure("linear CKA", _with(linear_cka), "more alike", **_CKA),
    "linear_cka_debiased": Measure(
        "linear CKA, debiased", _with(functools.partial(linear_cka, debiased=True)), "more alike", -math.inf,
        **_CKA,
    ),
    "kernel_cka": Measure("RBF CKA, debiased", _fixed_kernel_cka, "more alike", -math.inf, **_CKA),
    "pair_cosine": Measure(
        "cosine of partners, less that of others", _with(lambda a, b: pair_alignment(a, b).cosine_gain),
        "partners nearer", -2.0, 2.0, **_PAIRS,
    ),
    "pair_rank": Measure(
        "median rank of the partner", _with(_partner_rank), "partners harder to find", 0.0, 1.0, **_PAIRS
    ),
    "pair_recall": Measure(
        "partner found first", _with(_partner_recall), "partners easier to find", 0.0, 1.0, **_PAIRS
    ),
}  # fmt: skip
"""Name → measure; `measure_all` adds `class_gap`, which needs labels."""


def possible_measures(a: Features, b: Features, paired: bool) -> list[str]:
    """Names of the measures that two sets (n, D) and (m, E) allow."""
    one_space = np.shape(a)[1] == np.shape(b)[1]
    return [
        name
        for name, measure in MEASURES.items()
        if (paired or not measure.pairs) and (one_space or not measure.one_space)
    ]


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
    possible = possible_measures(a, b, paired)
    labels = [torch.as_tensor(one) for one in (labels_a, labels_b) if one is not None]
    if len(labels) == 2 and a.shape[1] == b.shape[1]:
        possible.append("class_gap")
    for name in names or ():
        if name not in possible:
            known = name in MEASURES or name == "class_gap"
            lacks = "needs pairs, labels or one width, which these sets lack" if known else "is no measure"
            raise LabError(f"{name!r} {lacks}; there are {', '.join(possible)}.")
    found = []
    for name in possible if names is None else names:
        try:
            if name == "class_gap":
                found.append(_class_gap(a, b, labels, paired, seed, rounds, most))
            else:
                found.append(_measured(name, a, b, paired, seed, rounds, most))
        except LabError as error:
            found.append(Measured(name, math.nan, how=str(error)))
    return found


def _measured(name: str, a: Tensor, b: Tensor, paired: bool, seed: int, rounds: int, most: int) -> Measured:
    measure = MEASURES[name]
    a, b = _sample(a, b, measure.most, paired, seed)
    function = measure.fix(a, b, paired, seed)
    known = measure.error(a, b, paired, seed)
    if known is not None:
        value, error = known
        how = f"{len(a):,} and {len(b):,} rows; 1.96 standard errors either way, seed {seed}"
        result = Measured(name, value, value - 1.96 * error, value + 1.96 * error, how)
    else:
        result = _interval(
            name, lambda i, j: function(a[i], b[j]), len(a), len(b), rounds, seed, paired, most
        )
    low, high = (min(max(end, measure.low), measure.high) for end in (result.low, result.high))
    p = None
    if measure.tested:
        rows = _sample(a, b, 2000, paired, seed)
        p = permutation_test(function, *rows, seed=seed, null="swapped" if paired else "pooled")
    return replace(result, low=low, high=high, p=p)


def _interval(
    name: str, evaluate: Callable[[Tensor, Tensor], float], n: int, m: int, *how: Any, least: int = 4
) -> Measured:
    """`row_interval`, or the value alone where halves are too small for the measure."""
    try:
        if min(n, m) < least:
            raise LabError(f"A set has {min(n, m)} of the {least} rows that an interval needs.")
        return replace(row_interval(evaluate, n, m, *how), name=name)
    except LabError as error:
        value = evaluate(torch.arange(n), torch.arange(m))
        return Measured(name, value, how=f"{n:,} and {m:,} rows; no interval: {error}")


def _sample(a: Tensor, b: Tensor, most: int | None, paired: bool, seed: int) -> tuple[Tensor, Tensor]:
    """At most so many rows of either set, drawn at random; partners together."""
    if most is None or max(len(a), len(b)) <= most:
        return a, b
    generator = torch.Generator().manual_seed(seed)
    i = torch.randperm(len(a), generator=generator)[:most]
    j = i if paired else torch.randperm(len(b), generator=generator)[:most]
    return a[i], b[j]


def _class_gap(
    a: Tensor, b: Tensor, labels: Sequence[Tensor], paired: bool, seed: int, rounds: int, most: int
) -> Measured:
    distance = functools.partial(mmd, bandwidth=median_distance(a, b), paired=False, seed=seed)

    def ratio(i: Tensor, j: Tensor) -> float:
        return distances.class_gap(a[i], b[j], labels[0][i], labels[1][j], distance).ratio

    return _interval("class_gap", ratio, len(a), len(b), rounds, seed, paired, most)
