"""The terms of one training step, from network and batch to named losses."""

from __future__ import annotations

import torch
from torch import Tensor

from . import losses
from .bnstats import batch_statistics, untouched_statistics, watched_layers
from .checkpoints import Source
from .nets import Network
from .recipe import Recipe

Statistics = tuple[list[Tensor], list[Tensor]]
"""Means and variances, one (C_l,) tensor per batch-norm layer of a trunk."""


def remembered_statistics(network: Network) -> Statistics:
    """Running mean and variance of every watched layer of the trunk: what is left of the source's images."""
    means, variances = [], []
    for layer in watched_layers(network.trunk).values():
        assert layer.running_mean is not None
        assert layer.running_var is not None
        means.append(layer.running_mean.clone())
        variances.append(layer.running_var.clone())
    return means, variances


def source_terms(network: Network, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Training a source network: cross-entropy with labels smoothed by 0.1."""
    logits = network(images)
    return {"cross-entropy": torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)}


def target_terms(
    network: Network,
    images: Tensor,
    pseudo_labels: Tensor | None,
    remembered: Statistics,
    recipe: Recipe,
) -> dict[str, Tensor]:
    """One pass over a target batch: statistics matching and the terms of the target's own predictions.

    Parameters
    ----------
    images : (B, 3, H, W) encoded target images.
    pseudo_labels : (B,) int64, or None where the recipe has no such term.
    remembered : the source's running statistics.

    Returns
    -------
    Name → unweighted scalar; a term is left out where its weight is 0.
    """
    found: dict[str, Tensor] = {}
    if recipe.lambda_bn > 0:
        with batch_statistics(network.trunk) as layers:
            logits = network(images)
            means = [layer.batch_mean for layer in layers]
            variances = [layer.batch_var for layer in layers]
        found["BN"] = losses.statistics_distance(means, variances, *remembered, form=recipe.bn_form)
    else:
        logits = network(images)
    if recipe.lambda_im > 0:
        found["IM"] = losses.information_maximisation(logits)
    if pseudo_labels is not None and recipe.lambda_pl > 0:
        found["PL"] = losses.pseudo_label_loss(logits, pseudo_labels)
    return found


def pair_terms(
    network: Network, source: Source, target_images: Tensor, source_images: Tensor, recipe: Recipe
) -> dict[str, Tensor]:
    """One pass over a batch of task-irrelevant pairs, both halves encoded, (B, 3, H, W).

    The source network is frozen and in eval mode; the target network normalises by the batch and keeps its
    running statistics to itself.
    """
    with torch.no_grad():
        wanted_map, wanted = source.network.map_and_features(source_images)
    with untouched_statistics(network):
        found_map, found = network.map_and_features(target_images)
    loss = losses.paired_alignment(wanted, found, recipe.ti_form)
    if recipe.ti_map > 0:
        loss = loss + recipe.ti_map * losses.map_alignment(wanted_map, found_map)
    return {"TI": loss}


def weighted_sum(terms: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """L = λ_TI L_TI + λ_d L_BN + λ_PL L_PL + λ_IM L_IM, over the terms that are there."""
    weights = {"TI": recipe.lambda_ti, "BN": recipe.lambda_bn, "PL": recipe.lambda_pl, "IM": recipe.lambda_im}
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
