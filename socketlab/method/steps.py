r"""One step: the passes over target images and pairs, apart or together, and the named terms of the loss.

Every network of several sources passes every batch. Their logits are mixed with the weights a_k, and so are
their distances to their own sources: :math:`z = \sum_k a_k z_k`, :math:`L_{BN} = \sum_k a_k L_{BN,k}`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from socketlab.method import losses
from socketlab.method.bnstats import Moments, Seen, batch_statistics, frozen_running_statistics
from socketlab.method.recipe import Recipe
from socketlab.networks.networks import Network, fast_bfloat16, networks_of, norm_layers, weighted_sum

Batch = TypeVar("Batch")
Features = tuple[Tensor | None, Tensor]
"""A network's last map (B, C, h, w), where the recipe uses it, and its features (B, D)."""
PairLoss = Callable[[Network, Features, Features], Tensor]
"""From the network that learns, the source's and the target's features of a batch of pairs, to a scalar."""
Bank = tuple[Tensor, Tensor]
"""AaD's bank of all target images: features (N, n · D) and predictions (N, K)."""


class TrunkPass(NamedTuple):
    """Last map (B, C, h, w), features (B, E) and, where wanted, the moments of each layer's input."""

    map: Tensor
    features: Tensor
    statistics: list[Moments] | None

    def rows(self, some: slice) -> TrunkPass:
        """Map and features of some of the images; the moments stay those of all."""
        return TrunkPass(self.map[some], self.features[some], self.statistics)


class Execution:
    """How a step is computed: here in the plain form, by one process; `socketlab.speed` has others."""

    def trunk_pass(
        self, network: Network, images: Tensor, statistics: bool = False, frozen: bool = False
    ) -> TrunkPass:
        """One pass of a trunk; ``frozen`` leaves the running statistics alone."""
        trunk = network.trunk
        with frozen_running_statistics(trunk) if frozen else nullcontext():
            if not statistics:
                return TrunkPass(*trunk.with_map(images), None)
            with self.batch_statistics(trunk) as seen:
                spatial, features = trunk.with_map(images)
        return TrunkPass(spatial, features, [seen[layer] for layer in norm_layers(trunk)])

    def batch_statistics(self, network: nn.Module) -> AbstractContextManager[Seen]:
        """`bnstats.batch_statistics`."""
        return batch_statistics(network)

    def features(self, network: nn.Module, images: Tensor) -> Tensor:
        """f(x) of a network, (B, D), or of those of a mixture side by side, (B, n · D)."""
        networks = networks_of(network)
        return torch.cat([one.bottleneck(self.trunk_pass(one, images).features) for one in networks], dim=1)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""

    def prefetch(
        self, batches: Iterator[Batch], device: torch.device, *stored_on: torch.device
    ) -> Iterator[Batch]:
        """The same batches of tensors on ``device``, made from images that are ``stored_on`` others."""
        return batches


PLAIN = Execution()


def autocast(recipe: Recipe, device: torch.device, network: nn.Module | None = None) -> torch.autocast:
    """Convolutions in bfloat16 by the recipe, or by "auto" where that is the faster (`fast_bfloat16`)."""
    wanted = recipe.precision == "bfloat16" or (recipe.precision == "auto" and fast_bfloat16(device, network))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


@dataclass
class TargetBatch:
    """A batch of target images: all that the recipe's terms need beside the networks' passes."""

    rows: Tensor  # (B,) int64, which images of the target they are
    source_statistics: Sequence[Sequence[Moments]]  # of each source, every layer's running moments
    pseudo_labels: Tensor | None = None  # (B,) int64
    averages: list[list[Moments]] = field(default_factory=list)  # of each source; renewed in place
    bank: Bank | None = None  # renewed in place
    progress: float = 0.0  # share of the training that is done, in [0, 1]


def pass_images(
    network: Network, images: Tensor, execution: Execution, statistics: bool = False, frozen: bool = False
) -> TrunkPass:
    """One pass of a trunk and its bottleneck: the features are f(x), (B, D)."""
    passed = execution.trunk_pass(network, images, statistics, frozen)
    with frozen_running_statistics(network.bottleneck) if frozen else nullcontext():
        return passed._replace(features=network.bottleneck(passed.features))


def target_terms(
    networks: Sequence[Network], passed: Sequence[TrunkPass], weights: Tensor, bn_shares: Tensor,
    batch: TargetBatch, recipe: Recipe,
) -> dict[str, Tensor]:  # fmt: skip
    """Statistics matching and the terms of the predictions, of each network's pass over a target batch.

    ``weights`` (n,) mix the networks' predictions, ``bn_shares`` (n,) their distances of statistics. Returns
    name → unweighted scalar; a term of weight 0 is left out.
    """
    logits = [one.head(own.features).float() for one, own in zip(networks, passed, strict=True)]
    distances = []
    for k, own in enumerate(passed):
        if own.statistics is not None:
            seen = _averaged(own.statistics, k, batch.averages, recipe.bn_average)
            distances.append(bn_loss(seen, batch.source_statistics[k], recipe.bn_form, recipe.bn_layers))
    whole = recipe.source_gradient == "whole"
    mixed = weighted_sum(logits, weights, whole)
    terms = {"BN": weighted_sum(distances, bn_shares, whole)} if distances else {}
    if recipe.lambda_im > 0:
        terms["IM"] = losses.information_maximisation(mixed)
    if recipe.lambda_pl > 0 and batch.pseudo_labels is not None:
        terms["PL"] = losses.pseudo_label_loss(mixed, batch.pseudo_labels)
    if recipe.lambda_entropy > 0:
        terms["H"] = losses.mean_entropy(mixed)
    if recipe.lambda_aad > 0 and batch.bank is not None:
        side_by_side = torch.cat([own.features for own in passed], dim=1).detach().float()
        terms["AaD"] = _attract_and_disperse(mixed, side_by_side, batch.bank, batch)
    return terms


def bn_loss(
    seen: Sequence[Moments], source: Sequence[Moments], form: str = "kl", layers: str = "all"
) -> Tensor:
    """L_BN of one source: `losses.statistics_distance` over the chosen layers."""
    chosen = chosen_layers(len(source), layers)
    mu, v, m, r = zip(*(seen[i][:2] + source[i][:2] for i in chosen), strict=True)
    return losses.statistics_distance(mu, v, m, r, form)


def chosen_layers(count: int, which: str) -> range:
    """Indices of the layers that are matched: all, the first, the earlier or the later half."""
    half = (count + 1) // 2
    return {"all": range(count), "first": range(1), "early": range(half), "late": range(half, count)}[which]


def _averaged(
    seen: Sequence[Moments], k: int, averages: list[list[Moments]], rho: float
) -> Sequence[Moments]:
    """(1 − ρ) of this batch, with gradient, and ρ of the moving average, without gradient."""
    if rho > 0 and k < len(averages):  # not the first batch of the epoch
        both = zip(seen, averages[k], strict=True)
        seen = [Moments(a.mean.lerp(b.mean, rho), a.variance.lerp(b.variance, rho)) for a, b in both]
    averages[k : k + 1] = [[Moments(one.mean.detach(), one.variance.detach()) for one in seen]]
    return seen


def _attract_and_disperse(logits: Tensor, features: Tensor, bank: Bank, batch: TargetBatch) -> Tensor:
    """The batch is stored in the bank first, then its neighbours are looked up."""
    vectors, scores = bank
    vectors[batch.rows], scores[batch.rows] = features, logits.detach().float().softmax(dim=1)
    near = losses.nearest_neighbours(features, vectors, batch.rows)
    return losses.attract_and_disperse(logits, scores[near], losses.dispersion_weight(batch.progress))


def pair_terms(
    networks: Sequence[Network], passed: Sequence[TrunkPass], weights: Tensor, wanted: Sequence[Features],
    recipe: Recipe, pair_loss: PairLoss | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """L_TI of each network's pass over the target halves of a batch of pairs.

    ``wanted`` are the sources' maps and features of the others, ``pair_loss`` replaces `alignment_loss`.
    """
    distance = pair_loss or functools.partial(alignment_loss, recipe=recipe)
    distances = []
    for network, own, (source_map, source_features) in zip(networks, passed, wanted, strict=True):
        source = None if source_map is None else source_map.float(), source_features.float()
        distances.append(distance(network, source, (own.map.float(), own.features.float())))
    return {"TI": weighted_sum(distances, weights, recipe.source_gradient == "whole")}


def alignment_loss(network: Network, source: Features, target: Features, recipe: Recipe) -> Tensor:
    """L_TI of one network: the distance of features and, with its weight, of last maps."""
    (source_map, source_features), (target_map, target_features) = source, target
    distance = losses.paired_alignment(source_features, target_features, recipe.ti_form)
    if source_map is None or target_map is None:
        return distance
    return distance + recipe.ti_map * losses.map_alignment(source_map, target_map)


def total_loss(terms: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """L = λ_TI L_TI + λ_d L_BN + λ_PL L_PL + λ_IM L_IM + …, over the terms that are there."""
    weights = {
        "TI": recipe.lambda_ti, "BN": recipe.lambda_bn, "PL": recipe.lambda_pl, "IM": recipe.lambda_im,
        "H": recipe.lambda_entropy, "AaD": recipe.lambda_aad,
    }  # fmt: skip
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
