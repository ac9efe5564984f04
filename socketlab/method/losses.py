r"""The terms of SOCKET's loss, and those of its relatives: each a short pure function of tensors.

.. math:: L = \lambda_{PL} L_{PL} + \lambda_{IM} L_{IM} + \lambda_d L_{BN} + \lambda_{TI} L_{TI}

Pseudo-labels and information maximisation use the target's images alone, paired alignment the task-irrelevant
pairs, statistics matching the running statistics of the source's batch norm. AaD and TENT have one term each.
Of B images and K classes, logits are (B, K) floats, and every loss is a scalar tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from socketlab.errors import require_choice


def entropy(log_p: Tensor) -> Tensor:
    """H(p) over the last dimension, in nats, from log-probabilities; p = 0 counts as 0."""
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(dim=-1)


def information_maximisation(logits: Tensor) -> Tensor:
    r"""Sharp predictions, spread over the classes: nats in [-log K, 0].

    .. math:: L_{IM} = \tfrac1B \sum_i H(p_i) - H(\tfrac1B \sum_i p_i)

    The minimum, :math:`-\log K`, is reached when every prediction is certain and the batch is even over
    the K classes. The same certain class for all gives 0, and so does total uncertainty.

    Source: Liang et al., ICML 2020 (SHOT), eq. 3 and 4.
    """
    log_p = logits.log_softmax(dim=1)
    mean_log_p = log_p.logsumexp(dim=0) - math.log(len(logits))
    return entropy(log_p).mean() - entropy(mean_log_p)


def mean_entropy(logits: Tensor) -> Tensor:
    r"""TENT's loss, :math:`\tfrac1B \sum_i H(p_i)`: each prediction sharp by itself; nats in [0, log K].

    Source: Wang et al., ICLR 2021 (TENT), section 3.1.
    """
    return entropy(logits.log_softmax(dim=1)).mean()


def pseudo_label_loss(logits: Tensor, pseudo_labels: Tensor) -> Tensor:
    r"""Cross-entropy with (B,) int64 labels, :math:`L_{PL} = \tfrac1B \sum_i CE(z_i, \hat y_i)`; nats ≥ 0.

    Source: Liang et al., ICML 2020 (SHOT), eq. 7.
    """
    return F.cross_entropy(logits, pseudo_labels)


def paired_alignment(source_features: Tensor, target_features: Tensor, form: str = "mean") -> Tensor:
    r"""How far the target's features are from those of their partners in the source modality.

    .. math::
        \text{mean: } L_{TI} = \tfrac1{BD} \sum_i \| f^s_i - f^t_i \|_2^2
        \qquad \text{paper: } L_{TI} = \| f^s - f^t \|_F

    Row i of both, (B, D), is one scene; the source's carry no gradient. The result is in squared or in plain
    feature units, ≥ 0. The published form is one norm over the whole batch, so it grows with the root of the
    batch; the mean does not depend on batch or width, and λ keeps its meaning.

    Source: Ahmed et al., ECCV 2022 (SOCKET), task-irrelevant feature matching.
    """
    require_choice("form", form, ("mean", "paper"))
    wanted = source_features.detach()
    if form == "paper":
        return torch.linalg.vector_norm(target_features - wanted)
    return F.mse_loss(target_features, wanted)


def map_alignment(source_map: Tensor, target_map: Tensor) -> Tensor:
    r"""How far the target's last map (B, C, h, w) is from its partner's, place by place; ≥ 0, no units.

    .. math:: L_{map} = \frac{\operatorname{mean}\,(m^s - m^t)^2}{\operatorname{var}\,(m^s)}

    The halves of a pair show the same place at the same pixel, so the maps are compared at all h · w places;
    `paired_alignment` compares only their average. The best constant map has the value 1.

    Source: this kit; SOCKET aligns the averaged features alone.
    """
    wanted = source_map.detach()
    return F.mse_loss(target_map, wanted) / wanted.var()


def statistics_distance(
    means: Sequence[Tensor], variances: Sequence[Tensor], source_means: Sequence[Tensor],
    source_variances: Sequence[Tensor], form: str = "kl", first_layer_weight: float = 10.0,
) -> Tensor:  # fmt: skip
    r"""How far the target batch is from the running statistics of the source's batch-norm layers.

    .. math::
        \text{paper: } L_{BN} = \sum_l \gamma_l \left( \| \mu_l - m_l \|_2 + \| v_l - r_l \|_2 \right),
        \quad \gamma_1 = 10,\ \gamma_{l>1} = 1

        \text{kl: } L_{BN} = \tfrac1L \sum_l \tfrac1{C_l} \sum_c
        \operatorname{KL}\left( N(\mu_{lc}, v_{lc}) \,\|\, N(m_{lc}, r_{lc}) \right)

    The published form sums norms in each layer's own units, so that wide layers and many layers weigh more.
    The second, `gaussian_divergence` averaged over channels and layers, has no units, and λ keeps its meaning
    from network to network. Both are ≥ 0, and 0 when every mean and variance agrees.

    Parameters
    ----------
    means, variances : one (C_l,) tensor per layer, of the layer's input on the target; biased variances.
    source_means, source_variances : one (C_l,) per layer, ``running_mean`` and ``running_var`` of the source.
    form, first_layer_weight : "kl", or "paper" with this γ_1.

    Source: Ahmed et al., ECCV 2022 (SOCKET); Yin et al., CVPR 2020, for the statistics as a prior.
    """
    require_choice("form", form, ("kl", "paper"))
    layers, norm = (means, variances, source_means, source_variances), torch.linalg.vector_norm
    if form == "kl":  # of the channels of all layers at once
        each = gaussian_divergence(*map(torch.cat, layers))  # type: ignore[arg-type]
        return torch.stack([layer.mean() for layer in each.split([len(mu) for mu in means])]).mean()
    terms = [norm(mu - m) + norm(v - r) for mu, v, m, r in zip(*layers, strict=True)]
    return first_layer_weight * terms[0] + sum(terms[1:], torch.zeros_like(terms[0]))


def gaussian_divergence(
    mean: Tensor, variance: Tensor, source_mean: Tensor, source_variance: Tensor, floor: float = 1e-5
) -> Tensor:
    r"""Divergence of the target's Gaussian from the source's, channel by channel; nats ≥ 0.

    .. math:: \operatorname{KL}\left( N(\mu, v) \,\|\, N(m, r) \right) =
        \tfrac12 \left( \tfrac{v}{r} + \tfrac{(\mu - m)^2}{r} - 1 - \log \tfrac{v}{r} \right)

    ``floor`` is added to both variances, as a layer does by its ``eps``: a dead channel has variance 0.
    """
    variance, source_variance = variance + floor, source_variance + floor
    ratio = variance / source_variance
    return 0.5 * (ratio + (mean - source_mean).square() / source_variance - 1 - ratio.log())


def attract_and_disperse(
    logits: Tensor, neighbour_scores: Tensor, dispersion: float | Tensor = 1.0
) -> Tensor:
    r"""AaD: agree with the N nearest in feature space, disagree with the batch; in [-N, λ (B - 1)].

    .. math::
        L_{AaD} = \tfrac1B \sum_i \Big( - \sum_{j \in C_i} p_i^\top p_j
        + \lambda \sum_{m \in B,\, m \ne i} p_i^\top p_m \Big)

    ``neighbour_scores`` (B, N, K) are the stored predictions p_j of each image's N nearest neighbours,
    ``dispersion`` is λ ≥ 0, which decays over training (`dispersion_weight`).

    Source: Yang et al., NeurIPS 2022 (AaD), eq. 5.
    """
    p = logits.softmax(dim=1)
    attraction = torch.einsum("bk,bnk->b", p, neighbour_scores)
    similarity = p @ p.T
    others = similarity.sum(dim=1) - similarity.diagonal()
    return (dispersion * others - attraction).mean()


def dispersion_weight(progress: float, decay: float = 1.0) -> float:
    """λ of `attract_and_disperse` at ``progress`` in [0, 1] of training: (1 + 10 t)^-β with β = ``decay``.

    Source: Yang et al., NeurIPS 2022, section 3.3; β is chosen for each data set there, 1 is this kit's.
    """
    return (1 + 10 * progress) ** -decay


def nearest_neighbours(features: Tensor, bank: Tensor, own: Tensor, count: int = 5) -> Tensor:
    """The ``count`` rows of the bank most similar by cosine, other than an image's own: (B, count) int64.

    ``features`` are (B, D) of the batch, ``bank`` (N, D) stored ones of all images, ``own`` (B,) rows in it.
    """
    similarity = F.normalize(features, dim=1) @ F.normalize(bank, dim=1).T
    similarity.scatter_(1, own[:, None], -torch.inf)
    return similarity.topk(min(count, len(bank) - 1), dim=1).indices
