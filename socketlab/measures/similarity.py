"""How much two sets of features of the same scenes agree: CKA, and how near true partners lie.

Row i of both sets is one scene. Input, precision and errors are as in `socketlab.measures.distances`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from socketlab.errors import LabError
from socketlab.measures.distances import Features, checked, median_distance, rbf, squared_distances

# ---- centred kernel alignment


def linear_cka(a: Features, b: Features, *, debiased: bool = False) -> float:
    r"""Linear CKA: how alike two sets of features place the same scenes, up to rotation and scale.

    .. math:: CKA = \frac{\| X_a^\top X_b \|_F^2}{\| X_a^\top X_a \|_F \, \| X_b^\top X_b \|_F}

    with centred columns. In [0, 1]; 1 = equal up to rotation, reflection and one scale (no other linear map).
    The sets may differ in width. Biased upward where n is not much more than D: two unrelated sets of n < D
    rows approach 1. ``debiased`` (from 4 rows) replaces the three norms by unbiased HSIC: unrelated sets give
    about 0, of either sign, at most 1. O(n² D).

    Raises
    ------
    LabError : also where a set is constant.

    Source: Kornblith et al., ICML 2019, eq. 4; debiased: Song et al., JMLR 2012, eq. 5, in Nguyen, Raghu,
    Kornblith, ICLR 2021, eq. 3.
    """
    x, y = _varying(a, b, debiased)
    return _cka(x @ x.T, y @ y.T, debiased)  # ‖Xᵀ Y‖² is the inner product of the kernels


def kernel_cka(
    a: Features, b: Features, bandwidths: tuple[float, float] | None = None, *, debiased: bool = False
) -> float:
    r"""CKA with RBF kernels: also sees agreement that no linear map shows, of near neighbours above all.

    .. math:: CKA = \frac{HSIC(K, L)}{\sqrt{HSIC(K, K)\, HSIC(L, L)}}, \qquad
        HSIC(K, L) \propto \operatorname{tr} (K H L H), \quad H = I - \tfrac1n 1 1^\top

    Range, bias, errors and ``debiased`` as for `linear_cka`; ``bandwidths`` of either set, default: the
    median distance within it. O(n² D).

    Source: Kornblith et al., ICML 2019, section 3.
    """
    sets = _varying(a, b, debiased)
    widths = bandwidths or [median_distance(z, z) for z in sets]
    k, l = (rbf(width)(squared_distances(z, z)) for z, width in zip(sets, widths, strict=True))
    return _cka(k, l, debiased)


def _varying(a: Features, b: Features, debiased: bool) -> tuple[Tensor, Tensor]:
    """Both sets, centred."""
    x, y = checked(a, b, paired=True, same_width=False, least=4 if debiased else 2)
    for z, which in ((x, "first"), (y, "second")):
        if (z == z[0]).all():
            raise LabError(f"The {which} set is constant; CKA needs features that vary.")
    return x - x.mean(dim=0), y - y.mean(dim=0)


def _cka(k: Tensor, l: Tensor, debiased: bool) -> float:
    """From two kernel matrices (n, n), which are altered."""
    if debiased:
        k.fill_diagonal_(0)
        l.fill_diagonal_(0)
    shared, own, other = (_hsic(p, q, debiased) for p, q in ((k, l), (k, k), (l, l)))
    if min(own, other) <= 0:
        which = "first" if own <= 0 else "second"
        raise LabError(f"The {which} set varies in too few of its rows for CKA: give it more images.")
    return min(shared / math.sqrt(own) / math.sqrt(other), 1.0)


def _hsic(k: Tensor, l: Tensor, debiased: bool) -> float:
    r"""HSIC up to a factor of n alone, with k and l the sums of the rows; debiased: without the diagonals.

    .. math::
        \operatorname{tr} KHLH = \langle K, L \rangle - \tfrac2n k^\top l
        + \tfrac{1}{n^2} \Sigma k \, \Sigma l

        n (n-3) HSIC_1 = \langle K, L \rangle - \tfrac{2}{n-2} k^\top l
        + \tfrac{1}{(n-1)(n-2)} \Sigma k \, \Sigma l
    """
    n, rows, others = len(k), k.sum(dim=1), l.sum(dim=1)
    once, twice = (n - 2, (n - 1) * (n - 2)) if debiased else (n, n**2)
    return float((k * l).sum() - 2 / once * (rows @ others) + rows.sum() * others.sum() / twice)


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
    x, y = (F.normalize(z - z.mean(dim=0) * centred, dim=1) for z in checked(a, b, paired=True))
    cosines, n = x @ y.T, len(x)
    total = cosines.trace()
    there, back = ranks = _partner_ranks(cosines), _partner_ranks(cosines.T)
    first, second = (float((rank.quantile(0.5) - 1) / (n - 1)) for rank in ranks)
    return PairAlignment(
        true_cosine=float(total / n),
        random_cosine=float((cosines.sum() - total) / (n * (n - 1))),
        median_rank=(first, second),
        recall={k: (float((there <= k).double().mean()), float((back <= k).double().mean())) for k in ks},
    )


def _partner_ranks(cosines: Tensor) -> Tensor:
    """Rank of the partner, on the diagonal, within its row, from 1, ties in the middle; (n,) float64."""
    near = 16 * torch.finfo(cosines.dtype).eps  # two roundings of one cosine
    difference = cosines - cosines.diagonal()[:, None]
    ties = (difference.abs() <= near).sum(dim=1) - 1
    return 1 + (difference > near).sum(dim=1) + ties.double() / 2
