"""Test-time adaptation: images come as a stream, each is answered when it comes, and nothing is kept.

Source-free adaptation has all target images at hand and as much time as it wants; here a batch is seen once.
So a method may use what the network measures on this batch, and update a few weights by one step at most.

============  ========================================================================================
``source``    the source's running statistics: no adaptation
``batch``     the batch's own statistics (nothing is remembered)
``follow``    running statistics that move towards each batch's, by a tenth of the way
``tent``      batch statistics, and one step of entropy minimisation on batch norm's scale and shift (TENT)
``reset``     the same, but the weights return to the source's after each batch (TENT, episodic)
``match``     running statistics that follow, and one step of L_BN towards the source's memory
============  ========================================================================================
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from socketlab.errors import LabError
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages, centre_view
from socketlab.method import bnstats, losses
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Network, device_of, networks_of, norm_layers

METHODS = ("source", "batch", "follow", "tent", "reset", "match")


def answer_stream(
    source: Source,
    batches: Iterable[PairedImages],
    method: str,
    normalisation: Normalisation,
    *,
    rate: float = 1e-3,
    momentum: float = 0.1,
) -> Iterator[Tensor]:
    """The network's logits for each batch of a stream, as it comes: (B, K) at a time.

    Parameters
    ----------
    source : one network; not changed.
    batches : target images in the order in which they come; a batch may be one image.
    method : one of ``METHODS``.
    normalisation : how the target's images are encoded; a stream cannot be measured beforehand.
    rate : of Adam, for the methods that update weights (the published 1e-3).
    momentum : by how much running statistics move towards a batch's, for ``follow`` and ``match``.

    Raises
    ------
    LabError : an unknown method, or a network without batch norm.

    Source: Wang et al., ICLR 2021 (TENT), for ``tent`` and ``reset``; Schneider et al., NeurIPS 2020, for
    statistics that follow.
    """
    if method not in METHODS:
        raise LabError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    network = copy.deepcopy(networks_of(source.network)[0]).requires_grad_(False)
    layers = norm_layers(network.trunk)
    if not layers:
        raise LabError("a network without batch norm has no statistics to follow: choose another network")
    _prepare(network, method, momentum)
    optimiser = torch.optim.Adam([p for layer in layers for p in layer.parameters()], lr=rate)
    begun = copy.deepcopy((network.state_dict(), optimiser.state_dict()))
    remembered = bnstats.running_moments(networks_of(source.network)[0].trunk)
    for batch in batches:
        if method == "reset":
            network.load_state_dict(begun[0])
            optimiser.load_state_dict(copy.deepcopy(begun[1]))
        stored = batch.images[batch.modality]
        images = normalisation.encode(centre_view(stored).to(device_of(network)))
        yield _answer(network, images, method, remembered, optimiser)


def _prepare(network: Network, method: str, momentum: float) -> None:
    """Put every layer of the trunk into the mode of the method.

    The bottleneck keeps its running statistics: of a single image it has one value per feature.
    """
    network.eval()
    for layer in norm_layers(network.trunk):
        layer.requires_grad_(method in ("tent", "reset", "match"))
        if method in ("batch", "tent", "reset"):
            layer.train()
            layer.track_running_stats = False
        layer.momentum = momentum


def _answer(
    network: Network,
    images: Tensor,
    method: str,
    remembered: list[bnstats.Moments],
    optimiser: torch.optim.Adam,
) -> Tensor:
    """Logits (B, K) of one batch, and what the method learns from it."""
    if method in ("source", "batch"):
        with torch.no_grad():
            return network(images)
    if method in ("tent", "reset"):
        logits = network(images)
        _step(losses.mean_entropy(logits), optimiser)
        return logits.detach()
    with torch.no_grad(), bnstats.batch_statistics(network.trunk) as seen:
        network(images)
    _follow(seen)
    if method == "follow":
        with torch.no_grad():
            return network(images)
    with bnstats.batch_statistics(network.trunk) as seen:
        logits = network(images)
    means, variances, _ = zip(*seen.values(), strict=True)
    source_means, source_variances, _ = zip(*remembered, strict=True)
    loss = losses.statistics_distance(means, variances, source_means, source_variances)
    _step(loss, optimiser)
    return logits.detach()


def _follow(seen: dict[nn.Module, bnstats.Moments]) -> None:
    """Move running statistics towards the batch's; those of one image count as those of many do."""
    for layer, now in seen.items():
        layer.running_mean.lerp_(now.mean.detach(), layer.momentum)  # type: ignore
        layer.running_var.lerp_(now.variance.detach(), layer.momentum)  # type: ignore


def _step(loss: Tensor, optimiser: torch.optim.Adam) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
