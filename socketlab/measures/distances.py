r"""How far apart two sets of features lie.

Every measure takes (n, D) and (m, D) features, arrays or tensors of any real type, and returns a float; a
LabError where `checked` raises one. "Bias" is that of the estimate from n and m rows; an interval does not
take it away. Up to `MODERATE` numbers a set all is float64; above, matrix products are float32 and their sums
float64, `ROWS` rows at a time, without a centred copy of the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from socketlab.errors import LabError
from socketlab.method.bnstats import moments
from socketlab.method.losses import gaussian_divergence

MODERATE = 1 << 22
"""Up to so many numbers a set, everything is computed in float64."""
ROWS = 2048
EXACT = 5000
"""Up to so many rows a set, a mean over all pairs of rows is taken in full; above, over random blocks."""
BLOCK = 1000
"""Rows a set in such a block."""

Features = ArrayLike | Tensor
Kernel = Callable[[Tensor], Tensor]
"""Squared distances → similarity, element by element."""


# ---- features, checked, and sums over their rows


def checked(
    a: Features, b: Features, *, paired: bool = False, same_width: bool = True, least: int = 2
) -> tuple[Tensor, Tensor]:
    """Both sets as (n, D) tensors on one device, in float64, or in float32 where one is large.

    A LabError for a set that is no (n, D) array of finite real numbers or has fewer than ``least`` rows, two
    widths where ``same_width``, two counts where ``paired``.
    """
    first, second = _features(a, "first"), _features(b, "second")
    (n, width), (m, other_width) = first.shape, second.shape
    if same_width and width != other_width:
        raise LabError(
            f"The sets have {width} and {other_width} features a row; the measure needs one width."
        )
    if paired and n != m:
        raise LabError(f"{n} and {m} rows are no pairs: row i of both sets must be one scene.")
    if min(n, m) < least:
        raise LabError(f"A set has {min(n, m)} of the {least} rows that the measure needs: give more images.")
    dtype = torch.float64 if first.dtype == second.dtype == torch.float64 else torch.float32
    return first.to(dtype), second.to(first.device, dtype)


def _features(values: Features, which: str) -> Tensor:
    try:
        given = values.detach() if isinstance(values, Tensor) else np.require(values, requirements=["C", "W"])
    except ValueError as error:
        raise LabError(f"The {which} set is no array of equal rows: {error}") from error
    real = not given.is_complex() if isinstance(given, Tensor) else given.dtype.kind in "biuf"
    if not real:
        raise LabError(f"The {which} set holds {given.dtype} values; features are real numbers.")
    x = torch.as_tensor(given)
    if x.ndim != 2 or x.shape[1] == 0:
        raise LabError(f"The {which} set has shape {tuple(x.shape)}; features are (n, D), a row per image.")
    x = x.cpu() if x.is_mps else x  # which has no float64
    if not x.is_floating_point() or x.numel() <= MODERATE:
        x = x.double()
    if not all(bool(rows.isfinite().all()) for rows in x.split(ROWS)):
        raise LabError(f"The {which} set holds NaN or infinite numbers: look for the images that give them.")
    return x


@contextmanager
def no_grad_no_autocast() -> Iterator[None]:
    """Decorates measures: no gradient, and no autocast, which would make their products half precision."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def mean_row(*sets: Tensor) -> Tensor:
    """Mean row of all sets together, (D,) float64."""
    total = sum(rows.sum(dim=0).double() for x in sets for rows in x.split(ROWS))
    return torch.as_tensor(total) / sum(len(x) for x in sets)


def centred(*sets: Tensor) -> list[Tensor]:
    """Copies of the sets less the mean row of all of them together."""
    mean = mean_row(*sets).to(sets[0])
    return [x - mean for x in sets]


def centred_rows(x: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """Rows less the mean, `ROWS` at a time."""
    return (rows - mean.to(x) for rows in x.split(ROWS))


def product(x: Tensor, y: Tensor) -> Tensor:
    """Xᵀ Y of the centred sets, (D, E) float64; of x with itself, only the half on and above the diagonal."""
    total = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
    for rows, others in zip(*(centred_rows(z, mean_row(z)) for z in (x, y)), strict=True):
        for i in range(0, x.shape[1], 512):
            begin = i if x is y else 0
            total[i : i + 512, begin:] += rows[:, i : i + 512].T @ others[:, begin:]
    return total.triu() + total.triu(1).T if x is y else total


def covariance(x: Tensor) -> Tensor:
    """(D, D) float64, with n - 1 below."""
    return product(x, x) / (len(x) - 1)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(n, m), by one matrix product; both sets should lie around the origin."""
    squared = torch.addmm(y.square().sum(dim=1), x, y.T, alpha=-2)
    return squared.add_(x.square().sum(dim=1, keepdim=True)).clamp_min_(0)


# ---- kernels: MMD and energy


def rbf(bandwidth: float, scales: tuple[float, ...] = (1.0,)) -> Kernel:
    r"""Mean over the scales c of :math:`\exp(-d^2 / (2 c^2 s^2))`, with s the bandwidth."""
    if not (bandwidth > 0 and scales and min(scales) > 0):
        raise LabError(f"bandwidth {bandwidth} and scales {scales} must be positive.")
    first, *others = [-0.5 / (scale * bandwidth) ** 2 for scale in scales]

    def kernel(squared: Tensor) -> Tensor:
        total = (squared * first).exp_()
        for rate in others:
            total += (squared * rate).exp_()
        return total.div_(len(scales))

    return kernel


def minus_distance(squared: Tensor) -> Tensor:
    """−d: the kernel whose MMD² is the energy distance."""
    return -squared.sqrt()


@no_grad_no_autocast()
def median_distance(a: Features, b: Features, most: int = 1000) -> float:
    """The median heuristic: median distance between the rows of both sets together, in feature units.

    Pairs of equal rows (dead networks, repeated images) are left out; where all rows are equal it is 1. Of
    more than ``most`` rows as many are drawn, always the same. To compare measurements take it once for all.

    Source: Gretton et al., JMLR 2012, section 8.
    """
    a, b = checked(a, b, least=1)
    n, generator = len(a), torch.Generator().manual_seed(0)
    rows = torch.randperm(n + len(b), generator=generator)[:most].to(a.device)
    (pooled,) = centred(torch.cat([a[rows[rows < n]], b[rows[rows >= n] - n]]))
    squared = squared_distances(pooled, pooled).cpu().numpy()[np.triu_indices(len(pooled), k=1)]
    # equal rows come out of the product at the rounding of their length
    squared = squared[squared > 8 * np.finfo(squared.dtype).eps * float(pooled.square().sum(dim=1).max())]
    return float(np.median(np.sqrt(squared))) if len(squared) else 1.0


def mmd(
    a: Features, b: Features, bandwidth: float | None = None, scales: tuple[float, ...] = (1.0,), *,
    paired: bool = False, seed: int = 0,
) -> float:  # fmt: skip
    r"""Maximum mean discrepancy, squared: how unlike the sets are by a kernel, against each within itself.

    .. math::
        MMD^2 = \tfrac{1}{n(n-1)} \sum_{i \ne j} k(a_i, a_j) + \tfrac{1}{m(m-1)} \sum_{i \ne j} k(b_i, b_j)
        - \tfrac{2}{nm} \sum_{i,j} k(a_i, b_j)

    with the kernel `rbf`. In about [0, 2]; without bias, so that equal distributions give values around 0 of
    either sign. O((n + m)² D) up to `EXACT` rows a set, above by `block_estimate`.

    Parameters
    ----------
    bandwidth, scales : s, default `median_distance`, and its multiples whose kernels are averaged.
    paired : rows i are one scene; k(a_i, b_i), not independent, is left out of the last mean.
    seed : of the blocks.

    Source: Gretton et al., JMLR 2012, eq. 3; several kernels: Li et al., ICML 2015.
    """
    kernel = rbf(median_distance(a, b) if bandwidth is None else bandwidth, scales)
    return kernel_distance(a, b, kernel, paired=paired, seed=seed)


def energy(a: Features, b: Features, *, paired: bool = False, seed: int = 0) -> float:
    r"""Energy distance, :math:`2 E\|a - b\| - E\|a - a'\| - E\|b - b'\|`, in feature units.

    An MMD² whose kernel is −‖·‖, with nothing to choose: parameters and cost as for `mmd`. ≥ 0 for
    distributions, 0 only for equal ones; the estimate is unbiased and can fall below. (SciPy's is the root of
    the biased form.)

    Source: Székely and Rizzo, J. Statistical Planning and Inference 2013; Sejdinovic et al., 2013.
    """
    return kernel_distance(a, b, minus_distance, paired=paired, seed=seed)


@no_grad_no_autocast()
def kernel_distance(
    a: Features, b: Features, kernel: Kernel, *, paired: bool = False, seed: int = 0
) -> float:
    """The equation of `mmd` with any kernel."""
    a, b = checked(a, b, paired=paired)
    if max(len(a), len(b)) > EXACT:
        return block_estimate(a, b, kernel, paired=paired, seed=seed)[0]
    return _discrepancy(a, b, kernel, paired)


@no_grad_no_autocast()
def block_estimate(
    a: Features, b: Features, kernel: Kernel, *, paired: bool = False, seed: int = 0
) -> tuple[float, float]:
    r"""MMD² of many rows by any kernel from random blocks, and its standard error.

    The mean over S random blocks of at most `BLOCK` rows, and their deviation by √S (NaN for one block).
    O((n + m) `BLOCK` D).

    Source: Zaremba, Gretton, Blaschko, NeurIPS 2013 (B-test), eq. 5.
    """
    a, b = checked(a, b, paired=paired)
    generator = torch.Generator().manual_seed(seed)
    n, m = len(a), len(b)
    count = max(1, min(math.ceil(max(n, m) / BLOCK), min(n, m) // 2))
    order_a = torch.randperm(n, generator=generator).to(a.device)
    order_b = order_a if paired else torch.randperm(m, generator=generator).to(a.device)
    blocks = zip(order_a.tensor_split(count), order_b.tensor_split(count), strict=True)
    found = [_discrepancy(a[i[:BLOCK]], b[j[:BLOCK]], kernel, paired) for i, j in blocks]
    error = float(np.std(found, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return float(np.mean(found)), error


def _discrepancy(a: Tensor, b: Tensor, kernel: Kernel, paired: bool) -> float:
    x, y = centred(a, b)
    within = _mean(x, x, kernel, True) + _mean(y, y, kernel, True)
    return within - 2 * _mean(x, y, kernel, paired)


def _mean(x: Tensor, y: Tensor, kernel: Kernel, leave_partners: bool, rows: int = 1024) -> float:
    """Mean of k over pairs of rows; within one set only the half above the diagonal is computed."""
    total = 0.0
    for i in range(0, len(x), rows):
        begin = i if x is y else 0
        similarity = kernel(squared_distances(x[i : i + rows], y[begin:]))
        total += float(similarity.sum(dim=1).double().sum())
        if x is y:
            total += float(similarity[:, rows:].sum(dim=1).double().sum())
        if leave_partners:
            total -= float(similarity[:, i - begin :].diagonal().double().sum())
    return total / (len(x) * (len(y) - leave_partners))


# ---- Gaussians, slices, channels


@no_grad_no_autocast()
def frechet(a: Features, b: Features) -> float:
    r"""Fréchet distance of the Gaussians with the sets' means and covariances, squared.

    .. math:: \| \mu_a - \mu_b \|^2 + \operatorname{tr} S_a + \operatorname{tr} S_b
        - 2 \operatorname{tr} (S_a S_b)^{1/2}

    ≥ 0, in squared feature units. Biased upward, by about the ratio of D to n: compare only sets of one size.
    With factors :math:`S = F^\top F` of any rank the last trace is the sum of the singular values of
    :math:`F_a F_b^\top`. O((n + m) D² + min(n, m, D)³).

    Source: Dowson and Landau, J. Multivariate Analysis 1982; Heusel et al., NeurIPS 2017 (FID); its bias:
    Chong and Forsyth, CVPR 2020.
    """
    a, b = checked(a, b)
    shift = (mean_row(a) - mean_row(b)).square().sum()
    factor, other = _factor(a), _factor(b)
    shared = torch.linalg.svdvals(factor @ other.T).sum()
    return float(shift + (factor.square().sum() + other.square().sum() - 2 * shared).clamp_min(0))


def _factor(x: Tensor) -> Tensor:
    """F with Fᵀ F the covariance, (at most D, D) float64."""
    if len(x) <= x.shape[1]:
        return centred(x)[0].double() / math.sqrt(len(x) - 1)
    spread = covariance(x)
    lower, failed = torch.linalg.cholesky_ex(spread)
    if not failed:
        return lower.T
    values, vectors = torch.linalg.eigh(spread)
    kept = values > values[-1].abs() * len(values) * torch.finfo(torch.float64).eps
    return (vectors[:, kept] * values[kept].sqrt()).T


@no_grad_no_autocast()
def coral(a: Features, b: Features) -> float:
    r"""How unlike the covariances are: :math:`\| S_a - S_b \|_F^2 / (4 D^2)`.

    ≥ 0, in feature units to the fourth power: compare only features of one layer. Blind to the means. Biased
    upward by O(1/n + 1/m). O((n + m) D²).

    Source: Sun and Saenko, ECCV workshops 2016 (Deep CORAL), eq. 1.
    """
    a, b = checked(a, b)
    return float((covariance(a) - covariance(b)).square().sum()) / (4 * a.shape[1] ** 2)


@no_grad_no_autocast()
def sliced_wasserstein(a: Features, b: Features, directions: int = 256, seed: int = 0) -> float:
    r"""Sliced Wasserstein distance, squared: the mean of W₂² over directions θ of the unit sphere.

    .. math:: SW_2^2 = E_\theta \int_0^1 \left( F^{-1}_{a\theta}(u) - F^{-1}_{b\theta}(u) \right)^2 du

    ≥ 0, in squared feature units; a mere shift δ gives ‖δ‖²/D. Quantile functions are steps, compared
    exactly for any two counts. Directions are orthogonal in groups of up to D; D of them measure a shift
    without error. Biased upward by O(1/n + 1/m). O((n + m)(D + log(n + m)) directions).

    Source: Bonneel et al., J. Mathematical Imaging and Vision 2015; orthogonal directions: Rowland et al.,
    AISTATS 2019.
    """
    a, b = checked(a, b)
    if directions < 1:
        raise LabError(f"directions is {directions}; a slice needs at least 1.")
    which_a, which_b, width = (part.numpy() for part in _common_steps(len(a), len(b)))
    centre, total = mean_row(a, b), 0.0
    for theta in _directions(a.shape[1], directions, seed).to(a).split(256):
        slices = (torch.cat([theta @ rows.T for rows in centred_rows(z, centre)], dim=1) for z in (a, b))
        x, y = (np.sort(each.cpu().numpy(), axis=1) for each in slices)
        total += float((np.square(x[:, which_a] - y[:, which_b], dtype=np.float64) @ width).sum())
    return total / directions


def _directions(dimension: int, count: int, seed: int) -> Tensor:
    """(count, dimension), of length 1; orthogonal within each group of up to ``dimension``."""
    generator, groups = torch.Generator().manual_seed(seed), []
    for start in range(0, count, dimension):
        size = min(dimension, count - start)
        noise = torch.randn(dimension, size, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(noise)
        groups.append((q * r.diagonal().sign()).T)  # the sign makes each direction uniform
    return torch.cat(groups)


def _common_steps(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where either of two quantile functions of n and m steps jumps: which step of each, and how wide."""
    jumps = torch.cat([torch.arange(0, n + 1) * m, torch.arange(0, m + 1) * n]).unique()  # in 1 / (n m)
    begin, width = jumps[:-1], jumps.diff()
    return begin // m, begin // n, width.double() / (n * m)


@no_grad_no_autocast()
def symmetric_divergence(
    mean: Features, variance: Features, source_mean: Features, source_variance: Features, floor: float = 1e-5
) -> Tensor:
    r"""Batch-norm divergence of one layer, of N(μ, v) and the source's N(m, r): (C,) float64, nats, ≥ 0.

    .. math:: KL(N(\mu, v) \,\|\, N(m, r)) + KL(N(m, r) \,\|\, N(\mu, v))

    For example of a layer's input on depth, and its running mean and variance, (C,) each. ``floor`` is added
    to both variances, as the layer's own eps: a channel that died has variance 0. A LabError for unequal
    lengths, a number that is not finite, or a variance below 0.

    Source: Jeffreys, Proc. Royal Society A 1946; as a measure between modalities, this kit.
    """
    given = (mean, variance, source_mean, source_variance)
    parts = mu, v, m, r = [torch.as_tensor(x).detach().cpu().double() for x in given]
    if len({x.shape for x in parts}) > 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in parts)
        raise LabError(f"Means and variances have shapes {shapes}; they need one number per channel each.")
    if not all(bool(x.isfinite().all()) for x in parts) or bool((v < 0).any() or (r < 0).any()):
        raise LabError("Means and variances must be finite, and no variance below 0.")
    return gaussian_divergence(mu, v, m, r, floor) + gaussian_divergence(m, r, mu, v, floor)


@no_grad_no_autocast()
def channel_divergence(a: Features, b: Features) -> float:
    """Mean of `symmetric_divergence`, from the sets' own means and variances.

    Nats, ≥ 0, without units; blind to correlations. Biased upward by O(1/n + 1/m). O((n + m) D).
    """
    a, b = checked(a, b)
    return float(symmetric_divergence(*moments(b)[:2], *moments(a)[:2]).mean())


# ---- neighbours and classifiers


@no_grad_no_autocast()
def neighbour_purity(a: Features, b: Features, k: int = 15) -> float:
    """How separate two sets lie: the share of a row's k nearest neighbours that come from its own set.

    In [0, 1], each set counting the same: 1 = two islands, about 0.5 = fully mixed when n = m (a little less,
    as a row is not its own neighbour). Euclidean. Fewer than k others: all of them. O((n + m)² D).

    Source: the k-nearest-neighbour test of Schilling, J. American Statistical Association 1986.
    """
    a, b = checked(a, b)
    if k < 1:
        raise LabError(f"k is {k}; neighbour purity needs at least 1 neighbour.")
    x = torch.cat(centred(a, b))
    own = torch.arange(len(x), device=x.device) < len(a)
    same = []
    for i in range(0, len(x), 1024):
        squared = squared_distances(x[i : i + 1024], x)
        squared[:, i:].diagonal().fill_(torch.inf)  # not a neighbour of itself
        near = squared.topk(min(k, len(x) - 1), dim=1, largest=False).indices
        same.append((own[near] == own[i : i + 1024, None]).double().mean(dim=1))
    share = torch.cat(same)
    return float((share[own].mean() + share[~own].mean()) / 2)


def proxy_a_distance(a: Features, b: Features, *, paired: bool = False, seed: int = 0) -> float:
    r"""Proxy A-distance, :math:`2 (1 - 2 \varepsilon)`: how well a linear classifier tells the sets apart.

    ε is the held-out error, the mean of both sets' own, of a logistic regression on standardised features, in
    five folds. In [-2, 2]: 2 = always told apart, around 0 of either sign = by chance. Biased downward: a
    classifier that has seen more rows errs less. Both sets weigh the same. ``paired`` keeps partners in one
    fold: in two, each would be taken for its twin's set.

    Source: Ben-David et al., Machine Learning 2010; its proxy: Glorot, Bordes, Bengio, ICML 2011.
    """
    return proxy_estimate(a, b, paired=paired, seed=seed)[0]


def proxy_estimate(a: Features, b: Features, *, paired: bool = False, seed: int = 0) -> tuple[float, float]:
    """`proxy_a_distance` and the error of so many tosses of two coins (two more rows on either side)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    a, b = checked(a, b, paired=paired)
    rng, folds = np.random.default_rng(seed), min(5, len(a), len(b))
    fold_a = rng.permutation(len(a)) % folds
    fold_b = fold_a if paired else rng.permutation(len(b)) % folds
    x = torch.cat([a, b]).cpu().numpy()
    y = np.arange(len(x)) >= len(a)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    split = PredefinedSplit(np.concatenate([fold_a, fold_b]))
    wrong = cross_val_predict(model, x, y, cv=split) != y
    mistakes = wrong[: len(a)], wrong[len(a) :]
    rates = [((each.sum() + 2) / (len(each) + 4), len(each) + 4) for each in mistakes]
    variance = sum(rate * (1 - rate) / count for rate, count in rates) / 4
    return 2 * (1 - 2 * float(np.mean([each.mean() for each in mistakes]))), 4 * math.sqrt(variance)
