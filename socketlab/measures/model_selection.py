"""Choosing an epoch, a weight or a run without a label: rules that look at the unlabelled target alone.

Each rule is a function of what there is to see, `Evidence`; the higher its value, the better it thinks of the
network. A number chosen by a rule is to be named with the rule; one chosen by target labels is an oracle's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from socketlab.images.paired_images import PairedImages
from socketlab.method import losses
from socketlab.method.bnstats import (
    Moments,
    batch_statistics,
    frozen_running_statistics,
    pooled,
    running_moments,
)
from socketlab.method.evaluate import encoded_batches, evaluating, predict
from socketlab.method.steps import matching
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Network, device_of, networks_of, norm_layers


@dataclass(frozen=True)
class Evidence:
    """What a network says of all target images, without their labels.

    Parameters
    ----------
    logits : (N, K).
    before : (N, K) logits of the epoch before, or None.
    distance : L_BN of the target to the sources' statistics, the mean over the sources; ≥ 0.
    """

    logits: Tensor
    before: Tensor | None
    distance: float


Rule = Callable[[Evidence], float]


def information(evidence: Evidence) -> float:
    """−L_IM over all images: certain of each, and spread over the classes; nats, in [0, log K]."""
    return -float(losses.information_maximisation(evidence.logits))


def neighbourhood_density(evidence: Evidence, temperature: float = 0.05) -> float:
    r"""Soft neighbourhood density: how many close neighbours a prediction has, by an entropy.

    .. math:: SND = \tfrac1N \sum_i H(q_i), \quad
        q_{ij} \propto \exp(\cos(p_i, p_j) / \tau),\ j \ne i

    Clusters of like predictions give a high value; so does a network that says the same of all.

    Returns
    -------
    Nats, in [0, log (N - 1)].

    Source: Saito et al., ICCV 2021, eq. 1 to 3; τ = 0.05 as there.
    """
    p = F.normalize(evidence.logits.softmax(dim=1), dim=1)
    likeness = (p @ p.T / temperature).fill_diagonal_(-torch.inf)
    return float(losses.entropy(likeness.log_softmax(dim=1)).mean())


def agreement(evidence: Evidence) -> float:
    """Share of images whose class is the one of the epoch before, in [0, 1]; 0 where there is none."""
    if evidence.before is None:
        return 0.0
    return float((evidence.logits.argmax(dim=1) == evidence.before.argmax(dim=1)).float().mean())


def bn_closeness(evidence: Evidence) -> float:
    """−L_BN: how close the target's statistics are to those that the sources remember; ≤ 0."""
    return -evidence.distance


RULES: tuple[Rule, ...] = (information, neighbourhood_density, agreement, bn_closeness)


def gather(
    adapted: Source, target: PairedImages, sources: Sequence[Source], before: Tensor | None = None
) -> Evidence:
    """Let a network look at all target images, without moving anything in it.

    Parameters
    ----------
    adapted : as an `Epoch` has it.
    target : of one modality; labels, where there are some, are not looked at.
    sources : the networks that the adaptation began from.
    before : logits of the `Evidence` of the epoch before.
    """
    logits, _ = predict(adapted, target)
    networks = networks_of(adapted.network)
    distances = []
    for network, source in zip(networks, sources, strict=True):
        seen = _seen_statistics(network, adapted, target)
        distances.append(float(matching(seen, running_moments(networks_of(source.network)[0].trunk))))
    return Evidence(logits, before, sum(distances) / len(distances))


@torch.no_grad()
def _seen_statistics(network: Network, adapted: Source, target: PairedImages) -> list[Moments]:
    """Mean and variance of every layer's input over the target: of all images, from those of batches."""
    found: list[list[Moments]] = []
    with evaluating(network), frozen_running_statistics(network):
        network.train()
        for images in encoded_batches(target, adapted.normalisation, device=device_of(network)):
            with batch_statistics(network.trunk) as seen:
                network.features(images)
            found.append([seen[layer] for layer in norm_layers(network.trunk)])
    return [pooled(parts) for parts in zip(*found, strict=True)]


def choose(evidence: Sequence[Evidence], rule: Rule) -> int:
    """Index of what the rule thinks best; the last of equals, as training went on from the others."""
    scores = [rule(one) for one in evidence]
    return max(range(len(scores)), key=lambda i: (scores[i], i))
