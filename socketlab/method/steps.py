"""The terms of one training step, from networks and a batch to named losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from socketlab.method import losses
from socketlab.method.bnstats import Statistics, frozen_running_statistics, watched_layers
from socketlab.method.recipe import Recipe
from socketlab.networks.networks import Network, weighted_sum
from socketlab.speed import distributed
from socketlab.speed.cuda_graphs import Runner, trunk_pass


@dataclass
class Bank:
    """What AaD remembers of every target image: features (N, n · D) and predictions (N, K)."""

    features: Tensor
    scores: Tensor


@dataclass
class TargetBatch:
    """A batch of target images, encoded, with all that the recipe's terms want to know of it.

    Parameters
    ----------
    images : (B, 3, H, W); of several processes, the share of this one.
    rows : (B,) int64, which images of the target they are; of all processes, as everything below.
    pseudo_labels : (B,) int64, or None where the recipe has no such term.
    remembered : the statistics of each source.
    averages : of each source, the statistics of the batches before; filled and renewed in place.
    bank : for AaD.
    progress : share of the training that is done, in [0, 1].
    """

    images: Tensor
    rows: Tensor
    remembered: list[Statistics]
    pseudo_labels: Tensor | None = None
    averages: list[Statistics] = field(default_factory=list)
    bank: Bank | None = None
    progress: float = 0.0


def autocast(recipe: Recipe, device: torch.device, cached: bool = True) -> torch.autocast:
    """Convolutions in bfloat16 where the recipe says so, and by "auto" where the processor is made for it.

    ``cached`` keeps a weight in 16 bits for the next use within the block, which a CUDA graph cannot.
    """
    wanted = recipe.precision == "bfloat16" or (recipe.precision == "auto" and fast_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted, cache_enabled=cached)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself: most GPUs since 2020, CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in asked)


def remembered_statistics(network: Network) -> Statistics:
    """Running mean and variance of every watched layer of the trunk: what is left of the source's images."""
    layers = watched_layers(network.trunk).values()
    known = "running_mean", "running_var"
    means, variances = ([getattr(layer, name) for layer in layers] for name in known)
    return Statistics.beside(means, variances)


def source_terms(network: Network, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Training a source network: cross-entropy with labels smoothed by 0.1."""
    logits = network(images)
    return {"cross-entropy": torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)}


def target_terms(
    networks: Sequence[Network],
    weights: Tensor,
    bn_shares: Tensor,
    batch: TargetBatch,
    recipe: Recipe,
    run: Runner = trunk_pass,
) -> dict[str, Tensor]:
    """One pass over a target batch: statistics matching and the terms of the target's own predictions.

    Parameters
    ----------
    networks : one per source.
    weights : (n,) mixing weights a of the predictions.
    bn_shares : (n,) weight of each source's distance of statistics; the same a, but for the paper's fault.
    run : how a trunk passes a batch: `graphs.trunk_pass`, or a `graphs.Graphs`.

    Returns
    -------
    Name → unweighted scalar; a term is left out where its weight is 0.
    """
    found: dict[str, Tensor] = {}
    whole = recipe.source_gradient == "whole"
    features, logits, distances = [], [], []
    for k, network in enumerate(networks):
        seen = run(network, batch.images, recipe.lambda_bn > 0, False)
        features.append(network.bottleneck(seen.features))
        if seen.statistics is not None:
            distances.append(_matching(seen.statistics, k, batch, recipe))
        logits.append(network.head(features[-1]).float())
    if distances:
        found["BN"] = weighted_sum(distances, bn_shares, whole)
    count = len(batch.rows)
    if recipe.lambda_aad > 0:
        features = [distributed.gathered(of_source, count) for of_source in features]
    together = distributed.gathered(weighted_sum(logits, weights, whole), count)
    return found | prediction_terms(together, features, batch, recipe)


def prediction_terms(
    logits: Tensor, features: Sequence[Tensor], batch: TargetBatch, recipe: Recipe
) -> dict[str, Tensor]:
    """What the mixed predictions (B, K) of a target batch are asked for."""
    found: dict[str, Tensor] = {}
    if recipe.lambda_im > 0:
        found["IM"] = losses.information_maximisation(logits)
    if batch.pseudo_labels is not None and recipe.lambda_pl > 0:
        found["PL"] = losses.pseudo_label_loss(logits, batch.pseudo_labels)
    if recipe.lambda_entropy > 0:
        found["H"] = losses.mean_entropy(logits)
    if recipe.lambda_aad > 0 and batch.bank is not None:
        together = torch.cat(list(features), dim=1).detach().float()
        found["AaD"] = _attract_and_disperse(logits, together, batch.bank, batch)
    return found


def _attract_and_disperse(logits: Tensor, features: Tensor, bank: Bank, batch: TargetBatch) -> Tensor:
    """The bank learns of the batch first, then its neighbours are looked up."""
    bank.features[batch.rows] = features
    bank.scores[batch.rows] = logits.detach().float().softmax(dim=1)
    near = losses.nearest_neighbours(features, bank.features, batch.rows)
    return losses.attract_and_disperse(logits, bank.scores[near], losses.dispersion_weight(batch.progress))


def _matching(seen: Statistics, k: int, batch: TargetBatch, recipe: Recipe) -> Tensor:
    """L_BN of source k: on the layers that the recipe names, of this batch or of a moving average."""
    if recipe.bn_average > 0:
        seen = _averaged(seen, k, batch.averages, recipe.bn_average)
    chosen = chosen_layers(len(seen.widths), recipe.bn_layers)
    one, other = seen.of(chosen), batch.remembered[k].of(chosen)
    rows = one.means, one.variances, other.means, other.variances
    if recipe.bn_form == "kl":
        return losses.distance_in_rows(*rows, one.widths)
    mu, v, m, r = (row.split(one.widths) for row in rows)
    return losses.statistics_distance(mu, v, m, r, recipe.bn_form)


def chosen_layers(count: int, which: str) -> range:
    """Indices of the layers that are matched: all, the first, the earlier or the later half."""
    half = (count + 1) // 2
    return {"all": range(count), "first": range(1), "early": range(half), "late": range(half, count)}[which]


def _averaged(seen: Statistics, k: int, averages: list[Statistics], memory: float) -> Statistics:
    """(1 − ρ) of this batch, with gradient, and ρ of the average so far, without."""
    if k == len(averages):  # the first batch of an epoch: nothing to remember yet
        averages.append(seen.detach())
        return seen
    old = averages[k]
    means = seen.means.lerp(old.means, memory)
    now = Statistics(means, seen.variances.lerp(old.variances, memory), seen.widths)
    averages[k] = now.detach()
    return now


def pair_terms(
    networks: Sequence[Network],
    weights: Tensor,
    target_images: Tensor,
    wanted: Sequence[tuple[Tensor | None, Tensor]],
    recipe: Recipe,
    run: Runner = trunk_pass,
) -> dict[str, Tensor]:
    """One pass over a batch of task-irrelevant pairs.

    The target networks normalise by the batch and keep their running statistics to themselves (fault 9).

    Parameters
    ----------
    networks : one per source.
    weights : (n,) mixing weights a.
    target_images : (B, 3, H, W), encoded; of several processes, the share of this one.
    wanted : what each frozen source says of the partners: map (B, C, h, w), or None, and features (B, D);
        of all processes.
    run : as for `target_terms`.
    """
    found = []
    for network, (wanted_map, wanted_features) in zip(networks, wanted, strict=True):
        seen = run(network, target_images, False, True)
        with frozen_running_statistics(network.bottleneck):
            own_map, own_features = seen.map, network.bottleneck(seen.features)
        own_features = distributed.gathered(own_features.float(), count := len(wanted_features))
        loss = losses.paired_alignment(wanted_features.float(), own_features, recipe.ti_form)
        if recipe.ti_map > 0 and wanted_map is not None:
            own_map = distributed.gathered(own_map.float(), count)
            loss = loss + recipe.ti_map * losses.map_alignment(wanted_map.float(), own_map)
        found.append(loss)
    return {"TI": weighted_sum(found, weights, recipe.source_gradient == "whole")}


def total_loss(terms: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """L = λ_TI L_TI + λ_d L_BN + λ_PL L_PL + λ_IM L_IM + …, over the terms that are there."""
    weights = {
        "TI": recipe.lambda_ti,
        "BN": recipe.lambda_bn,
        "PL": recipe.lambda_pl,
        "IM": recipe.lambda_im,
        "H": recipe.lambda_entropy,
        "AaD": recipe.lambda_aad,
    }
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
