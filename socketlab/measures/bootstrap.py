"""Intervals of any measure, a function of two sets (n, D) and (m, D) to a float; p of MMD² by any kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from socketlab.errors import LabError
from socketlab.measures.distances import EXACT, Features, Kernel, centred, checked, squared_distances

Distance = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Measured:
    """A number, its interval, and the p of a permutation test; NaN and None where there is none.

    ``how`` has rows, resampling and seed in words, or the reason for NaN.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    how: str = ""
    p: float | None = None


def bootstrap_interval(
    measure: Distance, a: Features, b: Features, rounds: int = 200, seed: int = 0, *, paired: bool = False,
    most: int = EXACT,
) -> Measured:  # fmt: skip
    r"""An interval of 95 % from random halves of the rows.

    .. math:: \left[ \hat\theta + q_{0.025},\ \hat\theta + q_{0.975} \right], \qquad
        q = \text{quantiles of } \sqrt{\tfrac{h}{1 - h}}\, (\theta_r - \bar\theta)

    Each round takes a share h of the rows of either set, without replacement: one half, or ``most`` rows.
    About their mean, halves deviate as the whole sample does from its expectation. The plain bootstrap's
    copies of rows, at distance 0, would make neighbour purity and all that is made of pairs too large. For
    MMD² or energy of equal distributions, whose error shrinks with n and not √n, the interval is cautious,
    √(1 + 1/h) times too wide. A measure's bias it does not take away.

    Parameters
    ----------
    a, b : (n, D) and (m, D), 4 rows or more.
    rounds : how many halves; 200 settle the ends to about a tenth of the width.
    paired : rows i are one scene, and are drawn together.
    most : rows a set in a half at most, to bound the time.

    Source: Praestgaard and Wellner, Annals of Probability 1993 (weights 0 and 2 for multinomial ones); Shao
    and Wu, Annals of Statistics 1989 (the factor); Politis and Romano, Annals of Statistics 1994.
    """
    if rounds < 2:
        raise LabError(f"rounds is {rounds}; an interval needs at least 2, better 200.")
    a, b = checked(a, b, paired=paired, same_width=False, least=4)
    n, m = len(a), len(b)
    share = min(0.5, max(most / max(n, m), 20 / min(n, m)))  # no side below 20 rows for the other's sake
    generator, values = torch.Generator().manual_seed(seed), []
    for _ in range(rounds):
        i = torch.randperm(n, generator=generator)[: int(share * n)]
        j = i if paired else torch.randperm(m, generator=generator)[: int(share * m)]
        values.append(measure(a[i], b[j]))
    taken = np.mean([int(share * n) / n, int(share * m) / m])
    deviations = np.sqrt(taken / (1 - taken)) * (np.asarray(values) - np.mean(values))
    value = measure(a, b)
    low, high = value + np.quantile(deviations, [0.025, 0.975])
    unit = "pairs" if paired else "rows"
    how = f"{n:,} and {m:,} rows; {rounds} draws of at most half of the {unit}, seed {seed}"
    return Measured(getattr(measure, "__name__", ""), value, float(low), float(high), how)


def permutation_test(
    kernel: Kernel, a: Features, b: Features, rounds: int = 199, seed: int = 0, *, paired: bool = False
) -> float:
    r"""How often chance gives as large an MMD²: :math:`p = (1 + \#\{\theta_r \ge \theta\}) / (1 + R)`.

    In [1 / (1 + R), 1]. Under the null p ≤ α in at most a share α of all tests. The null: all rows come from
    one distribution, and chance deals them out anew; of pairs, whose rows i are one scene, a coin decides
    which of the two is in which set. One kernel matrix serves all rounds, O((n + m)² (D + R)), of 2 `EXACT`
    rows at most.

    Parameters
    ----------
    kernel : `distances.rbf` for MMD², `distances.minus_distance` for the energy distance.
    rounds : R; 199 tells p = 0.05 from 0.08.

    Source: Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 2010 (the 1 +);
    Gretton et al., JMLR 2012, for MMD.
    """
    if rounds < 1:
        raise LabError(f"rounds is {rounds}; a test needs at least 1, better 199.")
    a, b = checked(a, b, paired=paired)
    values = np.asarray(_dealt_out(kernel, a, b, rounds, torch.Generator().manual_seed(seed), paired))
    least = values[0] - 1e-9 * np.abs(values).max()  # the same value, summed in another order
    return float((values >= least).sum() / (1 + rounds))


def _dealt_out(
    kernel: Kernel, a: Tensor, b: Tensor, rounds: int, generator: torch.Generator, paired: bool
) -> list[float]:
    """MMD² of the sets as they are, then of each dealing out: one product K U serves all."""
    n, m = len(a), len(b)
    if n + m > 2 * EXACT:
        raise LabError(f"{n + m:,} rows are more than {2 * EXACT:,}, too many to test at once: draw some.")
    x = torch.cat(centred(a, b))
    k = torch.cat([kernel(squared_distances(rows, x)) for rows in x.split(1024)])
    k.fill_diagonal_(0)
    if paired:
        k[:n, n:].fill_diagonal_(0)
        k[n:, :n].fill_diagonal_(0)
        first = torch.rand(n, rounds, generator=generator) < 0.5
        dealt = torch.cat([first, ~first])
    else:
        dealt = torch.rand(n + m, rounds, generator=generator).argsort(dim=0) < n
    u = torch.cat([(torch.arange(n + m) < n)[:, None], dealt], dim=1).to(k)
    rows = k.sum(dim=1)
    within = (u * (k @ u)).sum(dim=0)
    across = rows @ u - within
    others = rows.sum() - within - 2 * across
    return (within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * (m - paired))).tolist()
