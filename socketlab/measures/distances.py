r"""How far apart two sets of features lie.

Every measure takes (n, D) and (m, D) features, arrays or tensors of any real type, computes in float64 on the
CPU and returns a float; a LabError where `checked` raises one. "Bias" is that of the estimate from n and m
rows; an interval does not take it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from socketlab.errors import LabError
from socketlab.method.losses import gaussian_divergence

EXACT = 5000
"""Of more rows a set, `metrics` draws so many for what costs the square of their number."""

Features = ArrayLike | Tensor
Kernel = Callable[[Tensor], Tensor]
"""Squared distances → similarity, element by element."""


# ---- features, checked


def checked(
    a: Features, b: Features, *, paired: bool = False, same_width: bool = True, least: int = 2
) -> tuple[Tensor, Tensor]:
    """Both sets as (n, D) float64 tensors on the CPU, without gradient.

    A LabError for a set that is no (n, D) array of finite real numbers or has fewer than ``least`` rows, two
    widths where ``same_width``, two counts where ``paired``.
    """
    first, second = _features(a, "first"), _features(b, "second")
    (n, width), (m, other_width) = first.shape, second.shape
    if same_width and width != other_width:
        raise LabError(f"Rows have {width} and {other_width} features; the measure needs one width.")
    if paired and n != m:
        raise LabError(f"{n} and {m} rows are no pairs: row i of both sets must be one scene.")
    if min(n, m) < least:
        raise LabError(f"A set has {min(n, m)} of the {least} rows that the measure needs: give more images.")
    return first, second


def _features(values: Features, which: str) -> Tensor:
    try:
        given = values.detach().cpu() if isinstance(values, Tensor) else np.array(values)
    except ValueError as error:
        raise LabError(f"The {which} set is no array of equal rows: {error}") from error
    real = not given.is_complex() if isinstance(given, Tensor) else given.dtype.kind in "biuf"
    if not real:
        raise LabError(f"The {which} set holds {given.dtype} values; features are real numbers.")
    x = torch.as_tensor(given).double()
    if x.ndim != 2 or x.shape[1] == 0:
        raise LabError(f"The {which} set has shape {tuple(x.shape)}; features are (n, D), a row per image.")
    if not x.isfinite().all():
        raise LabError(f"The {which} set holds NaN or infinite numbers: look for the images that give them.")
    return x


def centred(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets less the mean row of all their rows together."""
    mean = torch.cat([a, b]).mean(dim=0)
    return a - mean, b - mean


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(n, m), by one matrix product; both sets should lie around the origin."""
    squared = torch.addmm(y.square().sum(dim=1), x, y.T, alpha=-2)
    return squared.add_(x.square().sum(dim=1, keepdim=True)).clamp_min_(0)


# ---- kernels: MMD and energy


def rbf(bandwidth: float, scales: tuple[float, ...] = (1.0,)) -> Kernel:
    r"""Mean over the scales c of :math:`\exp(-d^2 / (2 c^2 s^2))`, with s the bandwidth."""
    if not (bandwidth > 0 and scales and min(scales) > 0):
        raise LabError(f"bandwidth {bandwidth} and scales {scales} must be positive.")
    rates = [-0.5 / (scale * bandwidth) ** 2 for scale in scales]
    return lambda squared: torch.stack([(squared * rate).exp() for rate in rates]).mean(dim=0)


def minus_distance(squared: Tensor) -> Tensor:
    """−d: the kernel whose MMD² is the energy distance."""
    return -squared.sqrt()


def median_distance(a: Features, b: Features, most: int = 1000) -> float:
    """The median heuristic: median distance between the rows of both sets together, in feature units.

    Pairs of equal rows (dead networks, repeated images) are left out; where all rows are equal it is 1. Of
    more than ``most`` rows as many are drawn, always the same. To compare measurements take it once for all.

    Source: Gretton et al., JMLR 2012, section 8.
    """
    pooled = torch.cat(checked(a, b, least=1))
    pooled = pooled[torch.randperm(len(pooled), generator=torch.Generator().manual_seed(0))[:most]]
    pooled = pooled - pooled.mean(dim=0)
    squared = squared_distances(pooled, pooled).numpy()[np.triu_indices(len(pooled), k=1)]
    # equal rows come out of the product at the rounding of their length
    squared = squared[squared > 8 * np.finfo(np.float64).eps * float(pooled.square().sum(dim=1).max())]
    return float(np.median(np.sqrt(squared))) if len(squared) else 1.0


def mmd(
    a: Features, b: Features, bandwidth: float | None = None, scales: tuple[float, ...] = (1.0,), *,
    paired: bool = False,
) -> float:  # fmt: skip
    r"""Maximum mean discrepancy, squared: how unlike the sets are by a kernel, against each within itself.

    .. math::
        MMD^2 = \tfrac{1}{n(n-1)} \sum_{i \ne j} k(a_i, a_j) + \tfrac{1}{m(m-1)} \sum_{i \ne j} k(b_i, b_j)
        - \tfrac{2}{nm} \sum_{i,j} k(a_i, b_j)

    with the kernel `rbf`. In about [0, 2]; without bias, so that equal distributions give values around 0 of
    either sign. O((n + m)² D).

    Parameters
    ----------
    bandwidth, scales : s, default `median_distance`, and its multiples whose kernels are averaged.
    paired : rows i are one scene; k(a_i, b_i), not independent, is left out of the last mean.

    Source: Gretton et al., JMLR 2012, eq. 3; several kernels: Li et al., ICML 2015.
    """
    kernel = rbf(median_distance(a, b) if bandwidth is None else bandwidth, scales)
    return kernel_distance(a, b, kernel, paired=paired)


def energy(a: Features, b: Features, *, paired: bool = False) -> float:
    r"""Energy distance, :math:`2 E\|a - b\| - E\|a - a'\| - E\|b - b'\|`, in feature units.

    An MMD² whose kernel is −‖·‖, with nothing to choose: parameters and cost as for `mmd`. ≥ 0 for
    distributions, 0 only for equal ones; the estimate is unbiased and can fall below. (SciPy's is the root of
    the biased form, in one dimension.)

    Source: Székely and Rizzo, J. Statistical Planning and Inference 2013; Sejdinovic et al., 2013.
    """
    return kernel_distance(a, b, minus_distance, paired=paired)


def kernel_distance(a: Features, b: Features, kernel: Kernel, *, paired: bool = False) -> float:
    """The equation of `mmd` with any kernel."""
    x, y = centred(*checked(a, b, paired=paired))
    within = _mean(x, x, kernel, leave_partners=True) + _mean(y, y, kernel, leave_partners=True)
    return within - 2 * _mean(x, y, kernel, leave_partners=paired)


def _mean(x: Tensor, y: Tensor, kernel: Kernel, leave_partners: bool) -> float:
    """Mean of k over pairs of rows, a thousand rows of the matrix at a time."""
    total = 0.0
    for i in range(0, len(x), 1024):
        similarity = kernel(squared_distances(x[i : i + 1024], y))
        total += float(similarity.sum())
        if leave_partners:
            total -= float(similarity[:, i:].diagonal().sum())
    return total / (len(x) * (len(y) - leave_partners))


# ---- Gaussians, slices, channels


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
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    f, g = (torch.linalg.qr(z - z.mean(dim=0), mode="r").R / math.sqrt(len(z) - 1) for z in (a, b))
    shared = torch.linalg.svdvals(f @ g.T).sum()
    return float(shift + (f.square().sum() + g.square().sum() - 2 * shared).clamp_min(0))


def coral(a: Features, b: Features) -> float:
    r"""How unlike the covariances are: :math:`\| S_a - S_b \|_F^2 / (4 D^2)`.

    ≥ 0, in feature units to the fourth power: compare only features of one layer. Blind to the means. Biased
    upward by O(1/n + 1/m). O((n + m) D²).

    Source: Sun and Saenko, ECCV workshops 2016 (Deep CORAL), eq. 1.
    """
    a, b = checked(a, b)
    return float((a.T.cov() - b.T.cov()).square().sum()) / (4 * a.shape[1] ** 2)


def sliced_wasserstein(a: Features, b: Features, directions: int = 256, seed: int = 0) -> float:
    r"""Sliced Wasserstein distance, squared: the mean of W₂² over directions θ of the unit sphere.

    .. math:: SW_2^2 = E_\theta \int_0^1 \left( F^{-1}_{a\theta}(u) - F^{-1}_{b\theta}(u) \right)^2 du

    ≥ 0, in squared feature units; a mere shift δ gives ‖δ‖²/D. Quantile functions are steps, compared
    exactly for any two counts. Directions are orthogonal in groups of up to D; D of them measure a shift
    without error. Biased upward by O(1/n + 1/m). O((n + m)(D + log(n + m)) directions).

    Source: Bonneel et al., J. Mathematical Imaging and Vision 2015; orthogonal directions: Rowland et al.,
    AISTATS 2019.
    """
    x, y = centred(*checked(a, b))
    theta = _directions(x.shape[1], directions, seed)
    x, y = ((theta @ z.T).sort(dim=1).values for z in (x, y))
    which_x, which_y, width = _common_steps(x.shape[1], y.shape[1])
    return float(((x[:, which_x] - y[:, which_y]).square() @ width).mean())


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


def symmetric_divergence(
    mean: Features, variance: Features, source_mean: Features, source_variance: Features, floor: float = 1e-5
) -> Tensor:
    r"""Batch-norm divergence of one layer, of N(μ, v) and the source's N(m, r): (C,) float64, nats, ≥ 0.

    .. math:: KL(N(\mu, v) \,\|\, N(m, r)) + KL(N(m, r) \,\|\, N(\mu, v))

    For example of a layer's input on depth, and its running mean and variance, (C,) each. ``floor`` is added
    to both variances, as the layer's own eps: a channel that died has variance 0.

    Source: Jeffreys, Proc. Royal Society A 1946; as a measure between modalities, this kit.
    """
    given = (mean, variance, source_mean, source_variance)
    mu, v, m, r = (torch.as_tensor(x).detach().cpu().double() for x in given)
    return gaussian_divergence(mu, v, m, r, floor) + gaussian_divergence(m, r, mu, v, floor)


def channel_divergence(a: Features, b: Features) -> float:
    """Mean of `symmetric_divergence`, from the sets' own means and variances.

    Nats, ≥ 0, without units; blind to correlations. Biased upward by O(1/n + 1/m). O((n + m) D).
    """
    a, b = checked(a, b)
    of_b, of_a = ((z.mean(dim=0), z.var(dim=0, correction=0)) for z in (b, a))
    return float(symmetric_divergence(*of_b, *of_a).mean())


# ---- neighbours and classifiers


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
    own = torch.arange(len(x)) < len(a)
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
    x = torch.cat([a, b]).numpy()
    y = np.arange(len(x)) >= len(a)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    split = PredefinedSplit(np.concatenate([fold_a, fold_b]))
    wrong = cross_val_predict(model, x, y, cv=split) != y
    mistakes = wrong[: len(a)], wrong[len(a) :]
    rates = [((each.sum() + 2) / (len(each) + 4), len(each) + 4) for each in mistakes]
    variance = sum(rate * (1 - rate) / count for rate, count in rates) / 4
    return 2 * (1 - 2 * float(np.mean([each.mean() for each in mistakes]))), 4 * math.sqrt(variance)
