"""Intervals and permutation tests of any measure: a function of two sets (n, D) and (m, D) to a float."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from socketlab.errors import LabError
from socketlab.measures.distances import EXACT, Kernel, energy, median_distance, minus_distance, mmd, rbf
from socketlab.measures.feature_sets import (
    Features,
    checked,
    mean_row,
    no_grad_no_autocast,
    precision,
    squared_distances,
)

Distance = Callable[[Tensor, Tensor], float]
Null = Literal["pooled", "swapped", "shuffled"]


@dataclass(frozen=True)
class Measured:
    """A number and how far to trust it.

    Parameters
    ----------
    name : of the measure.
    value : from the rows that ``how`` names; NaN where there is none, with the reason in ``how``.
    low, high : ends of the interval; NaN where there is none.
    how : rows, resampling and seed, in words.
    p : of the permutation test, where one was made.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    how: str = ""
    p: float | None = None


# ---- intervals


def bootstrap_interval(
    measure: Distance, a: Features, b: Features, rounds: int = 200, seed: int = 0, *, paired: bool = False,
    most: int = EXACT, level: float = 0.95,
) -> Measured:  # fmt: skip
    r"""An interval from random halves of the rows.

    .. math:: \left[ \hat\theta + q_{\alpha/2},\ \hat\theta + q_{1 - \alpha/2} \right], \qquad
        q = \text{quantiles of } \sqrt{\tfrac{h}{1 - h}}\, (\theta_r - \bar\theta)

    Each round takes a share h of the rows of either set, without replacement: one half, or ``most`` rows.
    About their mean, halves deviate as the whole sample does from its expectation.

    The plain bootstrap draws rows more than once. A row and its copy have distance 0 and are each other's
    nearest neighbour, so that MMD², neighbour purity and all that is made of pairs of rows comes out too
    large; halves hold no copies. For smooth measures both agree. For MMD² or energy of equal distributions,
    whose error shrinks with n and not √n, the interval is cautious, √(1 + 1/h) times too wide. It is about
    the expectation of the estimate: a measure's bias it does not take away.

    Parameters
    ----------
    a, b : (n, D) and (m, D), large enough that the measure takes their halves.
    rounds : how many halves; 200 settle the ends to about a tenth of the width.
    paired : rows i are one scene, and are drawn together.
    most : rows a set in a half at most, to bound the time.
    level : share of samples whose interval should cover, in (0, 1).

    Raises
    ------
    LabError : as `checked`, fewer than 4 rows a set, or what the measure raises.

    Source: Praestgaard and Wellner, Annals of Probability 1993 (weights 0 and 2 for multinomial ones); Shao
    and Wu, Annals of Statistics 1989 (the factor); Politis and Romano, Annals of Statistics 1994.
    """
    a, b = checked(a, b, paired=paired, same_width=False, least=4)
    plain = measure.func if isinstance(measure, functools.partial) else measure
    found = row_interval(lambda i, j: measure(a[i], b[j]), len(a), len(b), rounds, seed, paired, most, level)
    return replace(found, name=getattr(plain, "__name__", type(plain).__name__))


def row_interval(
    evaluate: Callable[[Tensor, Tensor], float], n: int, m: int, rounds: int, seed: int, paired: bool,
    most: int, level: float = 0.95,
) -> Measured:  # fmt: skip
    """`bootstrap_interval` of a function of the rows' indices; NaN ends where one of the values is NaN."""
    if rounds < 2:
        raise LabError(f"rounds is {rounds}; an interval needs at least 2, better 200.")
    if not 0 < level < 1:
        raise LabError(f"level is {level}; it must lie between 0 and 1.")
    value = evaluate(torch.arange(n), torch.arange(m))
    share = min(0.5, max(most / max(n, m), 20 / min(n, m)))  # no side below 20 rows for the other's sake
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(rounds):
        i = torch.randperm(n, generator=generator)[: int(share * n)]
        j = i if paired else torch.randperm(m, generator=generator)[: int(share * m)]
        values.append(evaluate(i, j))
    taken = np.mean([int(share * n) / n, int(share * m) / m])
    deviations = np.sqrt(taken / (1 - taken)) * (np.asarray(values) - np.mean(values))
    low, high = np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2])
    unit = "pairs" if paired else "rows"
    how = f"{n:,} and {m:,} rows; {rounds} draws of at most half of the {unit}, seed {seed}"
    return Measured("", value, value + float(low), value + float(high), how)


# ---- permutation


@no_grad_no_autocast
def permutation_test(
    measure: Distance, a: Features, b: Features, rounds: int = 199, seed: int = 0, *, null: Null = "pooled"
) -> float:
    r"""How often chance alone gives as large a value: :math:`p = (1 + \#\{\theta_r \ge \theta\}) / (1 + R)`.

    In [1 / (1 + R), 1]. Under the null p ≤ α in at most a share α of all tests, for any n, m and measure.
    For `mmd` and `energy`, or a `functools.partial` of them, one kernel matrix serves all rounds,
    O((n + m)² (D + R)); any other measure is computed R times.

    Parameters
    ----------
    rounds : R; 199 tells p = 0.05 from 0.08.
    null : what chance does. ``"pooled"``: all rows come from one distribution, and it deals them out anew.
        ``"swapped"``: rows i are one scene, and which of the two is in which set is a coin's choice.
        ``"shuffled"``: the sets may differ, but partners are no more alike than others; for CKA, retrieval.

    Raises
    ------
    LabError : as `checked`, an unknown null, or more rows than one kernel matrix can have (2 `EXACT`).

    Source: Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 2010 (the 1 +);
    Gretton et al., JMLR 2012, for MMD.
    """
    if null not in ("pooled", "swapped", "shuffled"):
        raise LabError(f"The null {null!r} is none of 'pooled', 'swapped' and 'shuffled'.")
    if rounds < 1:
        raise LabError(f"rounds is {rounds}; a test needs at least 1, better 199.")
    a, b = checked(a, b, paired=null != "pooled", same_width=null != "shuffled")
    generator = torch.Generator().manual_seed(seed)
    kernel = _kernel_of(measure, a, b, null)
    if kernel is not None:
        values = _kernel_values(kernel, a, b, rounds, generator, null == "swapped")
    else:
        values = [measure(a, b)]
        values += [measure(*_by_chance(a, b, null, generator)) for _ in range(rounds)]
    found = np.asarray(values)
    least = found[0] - 1e-9 * np.abs(found).max()  # the same value, summed in another order
    return float((found >= least).sum() / (1 + rounds))


def _by_chance(a: Tensor, b: Tensor, null: Null, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The two sets as the null would have dealt them out."""
    if null == "shuffled":
        return a, b[torch.randperm(len(b), generator=generator).to(b.device)]
    if null == "swapped":
        swap = (torch.rand(len(a), 1, generator=generator) < 0.5).to(a.device)
        return torch.where(swap, b, a), torch.where(swap, a, b)
    order = torch.randperm(len(a) + len(b), generator=generator).to(a.device)
    pooled = torch.cat([a, b])[order]
    return pooled[: len(a)], pooled[len(a) :]


def _kernel_of(measure: Distance, a: Tensor, b: Tensor, null: Null) -> Kernel | None:
    """The kernel of `mmd` or `energy` under a null that deals rows out; None for any other measure."""
    partial = measure if isinstance(measure, functools.partial) else functools.partial(measure)
    options = dict(partial.keywords)
    paired = options.pop("paired", False)
    options.pop("seed", None)
    if null == "shuffled" or partial.args or paired is not (null == "swapped"):
        return None
    if partial.func is energy and not options:
        return minus_distance
    if partial.func is mmd and options.keys() <= {"bandwidth", "scales"}:
        bandwidth = options.get("bandwidth") or median_distance(a, b)
        return rbf(bandwidth, options.get("scales", (1.0,)))
    return None


def _kernel_values(
    kernel: Kernel, a: Tensor, b: Tensor, rounds: int, generator: torch.Generator, paired: bool
) -> list[float]:
    """The estimate for the sets as they are, then for each dealing out: one product K U serves all."""
    n, m = len(a), len(b)
    if n + m > 2 * EXACT:
        raise LabError(f"{n + m:,} rows are more than {2 * EXACT:,}, too many to test at once: draw some.")
    x = torch.cat([z - mean_row(a, b) for z in (a.double(), b.double())]).to(precision(a, b))
    k = torch.cat([kernel(squared_distances(rows, x)) for rows in x.split(1024)])
    k.fill_diagonal_(0)
    if paired:
        k[:n, n:].fill_diagonal_(0)
        k[n:, :n].fill_diagonal_(0)
    if paired:
        first = torch.rand(n, rounds, generator=generator) < 0.5
        dealt = torch.cat([first, ~first])
    else:
        dealt = torch.rand(n + m, rounds, generator=generator).argsort(dim=0) < n
    seen = (torch.arange(n + m) < n)[:, None]
    u = torch.cat([seen, dealt], dim=1).to(k)
    rows = k.sum(dim=1, dtype=torch.float64)
    within = (u * (k @ u)).sum(dim=0, dtype=torch.float64)
    across = rows @ u.double() - within
    others = rows.sum() - within - 2 * across
    values = within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * (m - paired))
    return values.tolist()
