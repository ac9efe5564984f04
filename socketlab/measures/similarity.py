"""How much two sets of features of the same scenes agree: CKA, and how near true partners lie.

Row i of both sets is one scene. Input, precision and errors are as in `socketlab.measures.distances`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from socketlab.errors import LabError
from socketlab.measures import distances
from socketlab.measures.distances import Features, centred, checked, mean_row, no_grad_no_autocast

# ---- centred kernel alignment


@no_grad_no_autocast()
def linear_cka(a: Features, b: Features, *, debiased: bool = False) -> float:
    r"""Linear CKA: how alike two sets of features place the same scenes, up to rotation and scale.

    .. math:: CKA = \frac{\| X_a^\top X_b \|_F^2}{\| X_a^\top X_a \|_F \, \| X_b^\top X_b \|_F}

    with centred columns. In [0, 1]; 1 = equal up to rotation, reflection and one scale (no other linear map).
    The sets may differ in width. Biased upward where n is not much more than D: two unrelated sets of n < D
    rows approach 1. ``debiased`` (from 4 rows) replaces the three norms by unbiased HSIC: unrelated sets give
    about 0, of either sign, at most 1. O(n D²), or O(n² D) where n < D.

    Raises
    ------
    LabError : also where a set is constant.

    Source: Kornblith et al., ICML 2019, eq. 4; debiased: Song et al., JMLR 2012, eq. 5, in Nguyen, Raghu,
    Kornblith, ICLR 2021, eq. 3.
    """
    a, b = _varying(a, b, debiased)
    if len(a) < max(a.shape[1], b.shape[1]):
        k, l = (x @ x.T for z in (a, b) for x in centred(z))
        inner = [(p * q).sum(dim=1).double().sum() for p, q in ((k, l), (k, k), (l, l))]
    else:
        inner = [distances.product(x, y).square().sum() for x, y in ((a, b), (a, a), (b, b))]
    if debiased:  # rows of a centred linear kernel sum to 0, so to −k(i, i) without the diagonal
        k, l = (
            torch.cat([rows.double().square().sum(dim=1) for rows in distances.centred_rows(z, mean_row(z))])
            for z in (a, b)
        )
        pairs = zip(inner, ((k, l), (k, k), (l, l)), strict=True)
        inner = [_hsic(value - (x * y).sum(), -x, -y, debiased) for value, (x, y) in pairs]
    return _cka(torch.stack(inner))


@no_grad_no_autocast()
def kernel_cka(
    a: Features, b: Features, bandwidths: tuple[float, float] | None = None, *, debiased: bool = False,
    seed: int = 0,
) -> float:  # fmt: skip
    r"""CKA with RBF kernels: also sees agreement that no linear map shows, of near neighbours above all.

    .. math:: CKA = \frac{HSIC(K, L)}{\sqrt{HSIC(K, K)\, HSIC(L, L)}}, \qquad
        HSIC(K, L) \propto \operatorname{tr} (K H L H), \quad H = I - \tfrac1n 1 1^\top

    Range, bias, errors and ``debiased`` as for `linear_cka`. O(n² D) up to `EXACT` rows; above, each HSIC is
    the mean over random blocks of up to so many rows, O(n EXACT D).

    Parameters
    ----------
    bandwidths : of either set; default: the median distance within it.
    seed : of the blocks.

    Source: Kornblith et al., ICML 2019, section 3; blocks: Nguyen, Raghu, Kornblith, ICLR 2021, eq. 2.
    """
    a, b = _varying(a, b, debiased)
    widths = bandwidths or (distances.median_distance(a, a), distances.median_distance(b, b))
    kernels = [distances.rbf(width) for width in widths]
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed)).to(a.device)
    means, terms = [mean_row(z).to(a) for z in (a, b)], []
    for rows in order.tensor_split(math.ceil(len(a) / distances.EXACT)):
        x, y = (z[rows] - mean for z, mean in zip((a, b), means, strict=True))
        terms.append(_kernel_hsic(x, y, kernels, debiased) / len(rows) ** 2)
    return _cka(torch.stack(terms).mean(dim=0))


def _kernel_hsic(x: Tensor, y: Tensor, kernels: Sequence[distances.Kernel], debiased: bool) -> Tensor:
    """HSIC of (K, L), (K, K) and (L, L), (3,) float64, some rows of the (n, n) matrices at a time."""
    inner = torch.zeros(3, dtype=torch.float64, device=x.device)
    sums: list[Tensor] = []
    for i in range(0, len(x), 1024):
        k, l = (
            one(distances.squared_distances(z[i : i + 1024], z))
            for one, z in zip(kernels, (x, y), strict=True)
        )
        if debiased:
            k[:, i:].diagonal().zero_()
            l[:, i:].diagonal().zero_()
        inner += torch.stack([(p * q).sum(dim=1).double().sum() for p, q in ((k, l), (k, k), (l, l))])
        sums.append(torch.stack([k.sum(dim=1).double(), l.sum(dim=1).double()]))
    k, l = torch.cat(sums, dim=1)
    pairs = zip(inner, ((k, l), (k, k), (l, l)), strict=True)
    return torch.stack([_hsic(value, p, q, debiased) for value, (p, q) in pairs])


def _hsic(inner: Tensor, k: Tensor, l: Tensor, debiased: bool) -> Tensor:
    r"""HSIC from ⟨K, L⟩ and the rows' sums, up to a factor of n alone; debiased: those without the diagonal.

    .. math::
        \operatorname{tr} KHLH = \langle K, L \rangle - \tfrac2n k^\top l
        + \tfrac{1}{n^2} \Sigma k \, \Sigma l

        n (n-3) HSIC_1 = \langle K, L \rangle - \tfrac{2}{n-2} k^\top l
        + \tfrac{1}{(n-1)(n-2)} \Sigma k \, \Sigma l
    """
    n = len(k)
    once, twice = (n - 2, (n - 1) * (n - 2)) if debiased else (n, n**2)
    return inner - 2 / once * (k * l).sum() + k.sum() * l.sum() / twice


def _varying(a: Features, b: Features, debiased: bool) -> tuple[Tensor, Tensor]:
    x, y = checked(a, b, paired=True, same_width=False, least=4 if debiased else 2)
    for z, which in ((x, "first"), (y, "second")):
        if all(bool((rows == z[0]).all()) for rows in z.split(distances.ROWS)):
            raise LabError(f"The {which} set is constant; CKA needs features that vary.")
    return x, y


def _cka(hsic: Tensor) -> float:
    """From HSIC of (a, b), (a, a) and (b, b)."""
    shared, own, other = hsic.tolist()
    if own <= 0 or other <= 0:
        which = "first" if own <= 0 else "second"
        raise LabError(f"The {which} set varies in too few of its rows for CKA: give it more images.")
    return min(shared / math.sqrt(own) / math.sqrt(other), 1.0)


# ---- true partners against others


@dataclass(frozen=True)
class PairAlignment:
    """How near partners lie, against rows that are none, and how well one finds the other.

    Parameters
    ----------
    true_cosine, random_cosine : mean cosine of partners, and of all rows that are not, in [-1, 1].
    median_rank : of the partner among the other set, in [0, 1], 0.5 by chance; from a to b, and back.
    recall : k → share of rows whose partner is among the k nearest; from a to b, and back.
    """

    true_cosine: float
    random_cosine: float
    median_rank: tuple[float, float]
    recall: dict[int, tuple[float, float]]

    @property
    def cosine_gain(self) -> float:
        """True less random cosine: 0 where partners are no more alike than others."""
        return self.true_cosine - self.random_cosine


@no_grad_no_autocast()
def pair_alignment(
    a: Features, b: Features, *, centred: bool = True, ks: tuple[int, ...] = (1, 5, 10)
) -> PairAlignment:
    r"""Cosine of true partners against all others, and retrieval of the partner in both directions.

    .. math:: \tfrac1n \sum_i \cos(a_i, b_i), \qquad \tfrac{1}{n(n-1)} \sum_{i \ne j} \cos(a_i, b_j)

    Of equal cosines half count as nearer: a constant network finds partners by chance. Ranks and recall
    depend on n, the size of the gallery: compare only equal ones. Unbiased but for that. O(n² D).

    Parameters
    ----------
    centred : subtract each set's mean first, without which features after a ReLU all look alike, and what a
        whole modality has in common hides its scenes.
    ks : of the recalls; those above n count as n.
    """
    a, b = checked(a, b, paired=True)
    n = len(a)
    x, y = (F.normalize(z - mean_row(z).to(z) * centred, dim=1) for z in (a, b))
    true = torch.cat(
        [(p * q).sum(dim=1) for p, q in zip(x.split(distances.ROWS), y.split(distances.ROWS), strict=True)]
    )
    everything = mean_row(x) * n @ (mean_row(y) * n)
    total = true.double().sum()
    there, back = _partner_ranks(x, y, true), _partner_ranks(y, x, true)
    return PairAlignment(
        true_cosine=float(total / n),
        random_cosine=float((everything - total) / (n * (n - 1))),
        median_rank=(_median_rank(there), _median_rank(back)),
        recall={k: (float((there <= k).double().mean()), float((back <= k).double().mean())) for k in ks},
    )


def _partner_ranks(x: Tensor, y: Tensor, true: Tensor) -> Tensor:
    """Rank of y_i among all of y by cosine to x_i, from 1, ties in the middle; (n,) float64."""
    near = 16 * torch.finfo(x.dtype).eps  # two roundings of one cosine
    ranks = []
    for rows, own in zip(x.split(1024), true.split(1024), strict=True):
        difference = rows @ y.T - own[:, None]
        ties = (difference.abs() <= near).sum(dim=1) - 1
        ranks.append(1 + (difference > near).sum(dim=1) + ties.double() / 2)
    return torch.cat(ranks)


def _median_rank(ranks: Tensor) -> float:
    return float((np.median(ranks.cpu()) - 1) / (len(ranks) - 1))
