"""Test-time adaptation: images come as a stream, each is answered when it comes, and nothing is kept.

============  ========================================================================================
``source``    the source's running statistics: no adaptation
``batch``     the batch's own statistics
``follow``    running statistics that move towards each batch's, by a tenth of the way
``tent``      batch statistics, and one step of entropy minimisation on batch norm's scale and shift (TENT)
``reset``     the same, but the weights return to the source's after each batch (TENT, episodic)
``match``     running statistics that follow, and one step of L_BN towards the source's statistics
============  ========================================================================================
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from socketlab.errors import LabError
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages, centre_view
from socketlab.method import bnstats, losses
from socketlab.method.steps import bn_loss
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Network, device_of, networks_of, norm_layers

METHODS = ("source", "batch", "follow", "tent", "reset", "match")
RATE, MOMENTUM = 1e-3, 0.1
"""Of Adam, as published for TENT; and by how much running statistics move towards a batch's."""


def answer_stream(
    source: Source, batches: Iterable[PairedImages], method: str, normalisation: Normalisation
) -> Iterator[Tensor]:
    """The network's logits for each batch of a stream, as it comes: (B, K) at a time.

    Parameters
    ----------
    source : one network with batch norm; not changed.
    batches : target images in the order in which they come; a batch may be one image.
    method : one of ``METHODS``.
    normalisation : how the target's images are encoded; a stream cannot be measured beforehand.

    Source: Wang et al., ICLR 2021 (TENT), for ``tent`` and ``reset``; Schneider et al., NeurIPS 2020, for
    statistics that follow.
    """
    if method not in METHODS:
        raise LabError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    network = copy.deepcopy(networks_of(source.network)[0]).requires_grad_(False)
    layers = norm_layers(network.trunk)
    if not layers:
        raise LabError("a network without batch norm has no statistics to follow: choose another network")
    _prepare(network, method)
    optimiser = torch.optim.Adam([p for layer in layers for p in layer.parameters()], lr=RATE)
    begun = copy.deepcopy((network.state_dict(), optimiser.state_dict()))
    remembered = bnstats.running_moments(network.trunk)
    for batch in batches:
        if method == "reset":
            network.load_state_dict(begun[0])
            optimiser.load_state_dict(copy.deepcopy(begun[1]))
        stored = batch.images[batch.modality]
        images = normalisation.encode(centre_view(stored).to(device_of(network)))
        if method in ("follow", "match"):
            _follow(network, images)
        if method in ("source", "batch", "follow"):
            with torch.no_grad():
                yield network(images)
            continue
        with bnstats.batch_statistics(network.trunk) as seen:
            logits = network(images)
        loss = bn_loss(list(seen.values()), remembered) if method == "match" else losses.mean_entropy(logits)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        yield logits.detach()


def _prepare(network: Network, method: str) -> None:
    """Put every layer of the trunk into the mode of the method.

    The bottleneck keeps its running statistics: of a single image it has one value per feature.
    """
    network.eval()
    for layer in norm_layers(network.trunk):
        layer.requires_grad_(method in ("tent", "reset", "match"))
        if method in ("batch", "tent", "reset"):
            layer.train()
            layer.track_running_stats = False


@torch.no_grad()
def _follow(network: Network, images: Tensor) -> None:
    """Move running statistics towards the batch's; those of one image count as those of many do."""
    with bnstats.batch_statistics(network.trunk) as seen:
        network(images)
    for layer, now in seen.items():
        layer.running_mean.lerp_(now.mean, MOMENTUM)  # type: ignore
        layer.running_var.lerp_(now.variance, MOMENTUM)  # type: ignore
