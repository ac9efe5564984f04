"""Pseudo-labels: the network's own clusters, named by its own predictions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def unit_vectors(features: Tensor) -> Tensor:
    """u(x) = [f(x); 1] / ‖·‖: (N, D) → (N, D + 1), as SHOT appends a one before scaling to length 1."""
    return F.normalize(torch.cat([features, features.new_ones(len(features), 1)], dim=1), dim=1)


def centroids(vectors: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean per class, Σ_x q_c(x) u(x) / Σ_x q_c(x): (N, E), (N, K) → (K, E).

    A class without weight gives 0, not NaN; `shot_pseudo_labels` never assigns to it.
    """
    total = weights.sum(dim=0)[:, None]
    return (weights.T @ vectors) / total.clamp_min(1e-8)


def shot_pseudo_labels(features: Tensor, logits: Tensor, rounds: int = 2) -> Tensor:
    """Label each image by the nearest centroid (cosine), twice: soft centroids first, then hard ones.

    Classes that no image is predicted as are dropped and cannot be assigned.

    Parameters
    ----------
    features : (N, D) of the network in eval mode.
    logits : (N, K) of the same images.
    rounds : 1 stops after the soft round, 2 is SHOT's.

    Returns
    -------
    (N,) int64 in [0, K).

    Source: Liang et al., ICML 2020 (SHOT), eq. 4 to 6.
    """
    u = unit_vectors(features)
    weights = logits.softmax(dim=1)
    alive = torch.bincount(logits.argmax(dim=1), minlength=logits.shape[1]) > 0
    for _ in range(rounds):
        similarity = u @ F.normalize(centroids(u, weights), dim=1).T
        labels = similarity.masked_fill(~alive, -torch.inf).argmax(dim=1)
        weights = F.one_hot(labels, logits.shape[1]).to(u.dtype)
    return labels


def paper_pseudo_labels(features: Tensor, logits: Tensor) -> Tensor:
    """The published SOCKET code's form: one soft round, Euclidean distance, centroids not scaled again.

    Parameters and result as `shot_pseudo_labels`.

    Source: Ahmed et al., ECCV 2022 (SOCKET).
    """
    u = unit_vectors(features)
    return torch.cdist(u, centroids(u, logits.softmax(dim=1))).argmin(dim=1)
