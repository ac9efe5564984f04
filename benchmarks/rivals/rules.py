"""More rules that choose an epoch without labels; they are judged beside those of the library."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from socketlab import losses
from socketlab.measures.model_selection import Evidence


def certainty(evidence: Evidence) -> float:
    """−(mean entropy of the predictions), nats, in [−log K, 0]: best, too, where all are of one class."""
    return -float(losses.mean_entropy(evidence.logits))


def nuclear_norm(evidence: Evidence) -> float:
    r"""Certain and spread over the classes: the nuclear norm of the probabilities (N, K), in [0, 1].

    .. math:: \|P\|_* / \sqrt{N \min(N, K)}

    Source: Deng et al., ICML 2023 (Confidence and Dispersity Speak).
    """
    p = evidence.logits.softmax(dim=1)
    return float(torch.linalg.matrix_norm(p, "nuc") / (len(p) * min(p.shape)) ** 0.5)


def matrix_norm(evidence: Evidence) -> float:
    r"""MaNo: the fourth power mean of all probabilities, in [1 / K, K^(-1/4)].

    .. math:: \Big( \tfrac{1}{NK} \sum_{ik} \sigma(z_i)_k^4 \Big)^{1/4}, \quad
        \Phi = -\tfrac{1}{NK} \sum_{ik} \log \mathrm{softmax}(z_i)_k

    σ is softmax where Φ > 5, else :math:`1 + z + z^2/2` in the place of exp z: less sure of itself.

    Source: Xie et al., NeurIPS 2024 (MaNo, arXiv 2405.18979); 4 and 5 as there.
    """
    z = evidence.logits
    p, doubt = z.softmax(dim=1), -float(z.log_softmax(dim=1).mean())
    if doubt <= 5:
        p = F.normalize(1 + z + z**2 / 2, p=1, dim=1)
    return float((p**4).mean() ** 0.25)


RULES = {rule.__name__: rule for rule in (certainty, nuclear_norm, matrix_norm)}
"""Name → rule."""
