"""Pseudo-labels: the network's own clusters of the target's images, named by its own predictions.

Computed at each epoch from all target images in eval mode; the labels of L_PL in SHOT and SOCKET. Of N
images and K classes, features are (N, D), logits (N, K) and labels (N,) int64 in [0, K).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from socketlab.errors import LabError
from socketlab.networks.networks import weighted_sum


def unit_vectors(features: Tensor) -> Tensor:
    """u(x) = [f(x); 1] / ‖·‖: (N, D) → (N, D + 1), as SHOT appends a one before scaling to length 1."""
    return F.normalize(torch.cat([features, features.new_ones(len(features), 1)], dim=1), dim=1)


def centroids(vectors: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean per class, Σ_x q_c(x) u(x) / Σ_x q_c(x): (N, E), (N, K) → (K, E); no weight gives 0."""
    total = weights.sum(dim=0)[:, None]
    return (weights.T @ vectors) / total.clamp_min(1e-8)


def shot_pseudo_labels(features: Tensor, logits: Tensor, rounds: int = 2) -> Tensor:
    """Label each image by the nearest centroid (cosine), twice: soft centroids first, then hard ones.

    A class without images has no centroid and cannot be assigned: one that is never predicted, or that the
    first round emptied. ``rounds`` = 1 stops after the soft round; 2 is SHOT's.

    A feature or logit that is not finite raises a LabError.

    Source: Liang et al., ICML 2020 (SHOT), eq. 4 to 6.
    """
    return mixed_shot_pseudo_labels([features], [logits], logits.new_ones(1), rounds)


def mixed_shot_pseudo_labels(
    features: Sequence[Tensor], logits: Sequence[Tensor], weights: Tensor, rounds: int = 2
) -> Tensor:
    r"""As `shot_pseudo_labels`, for several sources: each compares in its own feature space, then they vote.

    .. math:: \hat y = \arg\max_c \sum_k a_k \cos(u_k(x), c_{k,c})

    Mixing the vectors themselves, as the published code does, adds coordinates of different networks that
    have no meaning in common. There are one (N, D) and one (N, K) per source, and (n,) mixing weights a.

    Source: Ahmed et al., CVPR 2021 (DECISION), section 3.2, with the distances mixed in place of the vectors.
    """
    _check_finite(features, logits)
    if rounds < 1:
        raise LabError(f"{rounds} rounds give no labels: choose 1 or more")
    vectors = [unit_vectors(f) for f in features]
    shares = [z.softmax(dim=1) for z in logits]
    classes = logits[0].shape[1]
    labels = weighted_sum(logits, weights).argmax(dim=1)
    for _ in range(rounds):
        alive = torch.bincount(labels, minlength=classes) > 0
        votes = [u @ F.normalize(centroids(u, q), dim=1).T for u, q in zip(vectors, shares, strict=True)]
        labels = weighted_sum(votes, weights).masked_fill(~alive, -torch.inf).argmax(dim=1)
        shares = [F.one_hot(labels, classes).to(votes[0].dtype)] * len(vectors)
    return labels


def paper_pseudo_labels(features: Sequence[Tensor], logits: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The published SOCKET code's form: one soft round, Euclidean distance, centroids not scaled again.

    Vectors and centroids are mixed over the sources before they are compared.

    Source: Ahmed et al., ECCV 2022 (SOCKET).
    """
    _check_finite(features, logits)
    vectors = [unit_vectors(f) for f in features]
    centres = [centroids(u, z.softmax(dim=1)) for u, z in zip(vectors, logits, strict=True)]
    return torch.cdist(weighted_sum(vectors, weights), weighted_sum(centres, weights)).argmin(dim=1)


def _check_finite(features: Sequence[Tensor], logits: Sequence[Tensor]) -> None:
    if not all(bool(x.isfinite().all()) for x in (*features, *logits)):
        raise LabError("pseudo-labels need finite features and logits: the network computes NaN or infinity")
