"""Choosing without a label: an epoch, weight or run by the target's images, a depth encoding by pairs.

Each rule is a function of `Evidence`: the higher its value, the better the network should be. A number chosen
by a rule is reported with the rule's name; one chosen by target labels is an oracle's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from socketlab.errors import LabError, require_choice
from socketlab.images import encodings
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages
from socketlab.method import bnstats, losses
from socketlab.method.adaptation import Epoch, adapt
from socketlab.method.evaluate import encoded_batches, evaluating, predict
from socketlab.method.recipe import Recipe
from socketlab.method.steps import bn_loss
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Network, device_of, networks_of, norm_layers


@dataclass(frozen=True)
class Evidence:
    """What a network computes of all target images, without their labels.

    Logits (N, K), now and ``before``, at the last epoch; features (N, D); ``distance`` is L_BN of the target
    to the sources' statistics, the mean over the sources, ≥ 0.
    """

    logits: Tensor
    before: Tensor | None
    distance: float
    features: Tensor | None = None


Rule = Callable[[Evidence], float]


def information(evidence: Evidence) -> float:
    """−L_IM over all images: certain of each, and spread over the classes; nats, in [0, log K]."""
    return -float(losses.information_maximisation(evidence.logits))


def class_clusters(evidence: Evidence) -> float:
    """Agreement of the predicted classes with K-means clusters of the features (adjusted mutual information).

    In about [0, 1]: 0 by chance, and where one class is predicted for all. Without features the logits count.

    Source: Robbiano et al., WACV 2022; as a rule: Musgrave, Belongie, Lim, 2022 (class AMI).
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score

    points = evidence.logits if evidence.features is None else evidence.features
    count = min(evidence.logits.shape)
    clusters = KMeans(count, n_init=3, random_state=0).fit_predict(points.float().cpu().numpy())
    return float(adjusted_mutual_info_score(evidence.logits.argmax(dim=1).cpu().numpy(), clusters))


def neighbourhood_density(evidence: Evidence) -> float:
    r"""Soft neighbourhood density: the close neighbours of a prediction, as an entropy in [0, log (N − 1)].

    .. math:: SND = \tfrac1N \sum_i H(q_i), \quad
        q_{ij} \propto \exp(\cos(p_i, p_j) / \tau),\ j \ne i

    Clusters of similar predictions give a high value; so does one prediction for all.

    Source: Saito et al., ICCV 2021, eq. 1 to 3; τ = 0.05 as there.
    """
    p = F.normalize(evidence.logits.softmax(dim=1), dim=1)
    similarity = (p @ p.T / 0.05).fill_diagonal_(-torch.inf)
    return float(losses.entropy(similarity.log_softmax(dim=1)).mean())


def agreement(evidence: Evidence) -> float:
    """Share of images whose class is the one of the epoch before, in [0, 1]; 0 where there is none."""
    if evidence.before is None:
        return 0.0
    return float((evidence.logits.argmax(dim=1) == evidence.before.argmax(dim=1)).float().mean())


def certainty(evidence: Evidence) -> float:
    """−(mean entropy of the predictions), nats, in [−log K, 0]: best, too, where all are of one class."""
    return -float(losses.mean_entropy(evidence.logits))


def nuclear_norm(evidence: Evidence) -> float:
    r"""Certain and spread over the classes: :math:`\|P\|_* / \sqrt{N \min(N, K)}` of P (N, K), in [0, 1].

    Source: Deng et al., ICML 2023 (Confidence and Dispersity Speak).
    """
    p = evidence.logits.softmax(dim=1)
    return float(torch.linalg.matrix_norm(p, "nuc") / (len(p) * min(p.shape)) ** 0.5)


def matrix_norm(evidence: Evidence) -> float:
    r"""MaNo: :math:`( \tfrac{1}{NK} \sum_{ik} \sigma(z_i)_k^4 )^{1/4}`, in [1 / K, K^(-1/4)].

    σ is softmax where φ, the mean of −log softmax(z), is above 5; else 1 + z + z²/2 stands for exp z.

    Source: Xie et al., NeurIPS 2024 (MaNo, arXiv 2405.18979); 4 and 5 as there.
    """
    z = evidence.logits
    p, phi = z.softmax(dim=1), -float(z.log_softmax(dim=1).mean())
    if phi <= 5:
        p = F.normalize(1 + z + z**2 / 2, p=1, dim=1)
    return float((p**4).mean() ** 0.25)


def bn_closeness(evidence: Evidence) -> float:
    """−L_BN: how close the target's statistics are to the sources' running ones; ≤ 0."""
    return -evidence.distance


_OF_CERTAINTY = (certainty, nuclear_norm, matrix_norm)
RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (information, neighbourhood_density, agreement, bn_closeness, class_clusters, *_OF_CERTAINTY)
}
"""Name → rule."""


def gather(
    adapted: Source, target: PairedImages, sources: Sequence[Source], before: Tensor | None = None
) -> Evidence:
    """The evidence of a network on all target images; nothing in it is changed.

    Parameters
    ----------
    adapted : of an `Epoch`: ``event.state.adapted``.
    target : of one modality, two images or more; labels are not read.
    sources : the networks that the adaptation began from.
    before : logits of the `Evidence` of the epoch before.
    """
    if len(target) < 2:
        raise LabError(f"{len(target)} target image is too few for statistics: give two or more.")
    logits, features = predict(adapted, target)
    distances = []
    for network, source in zip(networks_of(adapted.network), sources, strict=True):
        running = bnstats.running_moments(networks_of(source.network)[0].trunk)
        distances.append(float(bn_loss(_seen_statistics(network, adapted, target), running)))
    return Evidence(logits, before, sum(distances) / len(distances), features)


@torch.no_grad()
def _seen_statistics(network: Network, adapted: Source, target: PairedImages) -> list[bnstats.Moments]:
    """Moments of every layer's input over all target images, normalised by batches."""
    found: list[list[bnstats.Moments]] = []
    with evaluating(network), bnstats.frozen_running_statistics(network):
        network.train()
        for images in encoded_batches(target, adapted.normalisation, device=device_of(network)):
            with bnstats.batch_statistics(network.trunk) as seen:
                network.features(images)
            found.append([seen[layer] for layer in norm_layers(network.trunk)])
    return [bnstats.pooled(parts) for parts in zip(*found, strict=True)]


def choose(evidence: Sequence[Evidence], rule: Rule | str) -> int:
    """Index of the best by a rule or its name in `RULES`; of equals the last, the longest trained."""
    if isinstance(rule, str):
        require_choice("rule", rule, RULES)
        rule = RULES[rule]
    scores = list(map(rule, evidence))
    return max(range(len(scores)), key=lambda i: (scores[i], i))


# ---- the reading of depth


CANDIDATES = ("metric", "inverse", "relative", "normals")
HELD_OUT_SHARE, LEAST_HELD_OUT = 1 / 3, 20
STEPS = 150
"""Of alignment: as many as the default recipe's on PocketRooms; after 45 the ranks misled more often."""


@dataclass(frozen=True)
class EncodingChoice:
    """The encoding that was taken, and the `partner_rank` of every candidate on so many held-out pairs."""

    encoding: str
    ranks: dict[str, float]
    held_out: int

    @property
    def reason(self) -> str:
        """One sentence for the report."""
        ranked = sorted(self.ranks.items(), key=lambda pair: pair[1])
        listed = ", ".join(f"{name} {rank:.3f}" for name, rank in ranked)
        return (
            f"Depth is read as {self.encoding}: after alignment alone it has the lowest partner rank on "
            f"{self.held_out} held-out pairs ({listed}; 0.5 is chance). No label was used."
        )


def choose_encoding(
    source: Source, target: PairedImages, pairs: PairedImages, recipe: Recipe, *,
    candidates: Sequence[str] = CANDIDATES, focal: tuple[float, float] = encodings.FOCAL, seed: int = 0,
) -> EncodingChoice:  # fmt: skip
    """Align with each encoding for 150 steps, compare on held-out pairs; costs three or four adaptations.

    Parameters
    ----------
    source, target : the network that will be adapted, and unlabelled depth images; neither is changed.
    pairs : colour and depth; a third, 20 at least, is held out for the choice. The adaptation uses all.
    candidates : names in ``encodings.DEPTH_ENCODINGS``.
    """
    if target.modality != "depth":
        raise LabError(f"{target.modality} images have no depth encoding: leave --depth-encoding out.")
    if len(pairs) < 2 * LEAST_HELD_OUT:
        raise LabError(
            f"{len(pairs)} pairs are too few to choose an encoding: bring {2 * LEAST_HELD_OUT}, or name one."
        )
    depth = target.images["depth"]
    ways = {name: (recipe, encodings.measure(depth, "depth", name, focal)) for name in candidates}
    ranks, count = held_out_ranks(source, target, pairs, ways, seed)
    return EncodingChoice(min(ranks, key=lambda name: ranks[name]), ranks, count)


def held_out_ranks(
    source: Source, target: PairedImages, pairs: PairedImages,
    ways: Mapping[str, tuple[Recipe, Normalisation]], seed: int = 0,
) -> tuple[dict[str, float], int]:  # fmt: skip
    """`partner_rank` after 150 steps of alignment in each of several ways, on so many held-out pairs."""
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    count = max(LEAST_HELD_OUT, round(HELD_OUT_SHARE * len(pairs)))
    held_out, learned = pairs.take(order[:count]), pairs.take(order[count:])
    ranks = {}
    for name, (recipe, read) in ways.items():
        every = min(100, -(-STEPS // max(1, len(target) // recipe.batch_size)))  # epochs
        short = recipe.replace(align_epochs=every, epochs=0)
        events = adapt(source, target, learned, short, seed=seed, every=every, normalisation=read)
        last = [event for event in events if isinstance(event, Epoch)][-1]
        ranks[name] = partner_rank(source, last.state.adapted, held_out)
    return ranks, count


def partner_rank(source: Source, adapted: Source, pairs: PairedImages) -> float:
    """Mean share of the other scenes whose source feature lies nearer than the partner's, in [0, 1].

    0: every partner comes first; 0.5: chance. Unlike the alignment's own error it has no scale, so networks
    with large features are not at a disadvantage.
    """
    wanted = predict(source, pairs.only(source.modality))[1].float()
    own = predict(adapted, pairs.only(adapted.modality))[1].float()
    distance = torch.cdist(own, wanted)  # (N, N)
    nearer = (distance < distance.diagonal()[:, None]).sum(dim=1)
    return float(nearer.float().mean() / (len(pairs) - 1))
