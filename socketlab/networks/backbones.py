"""Backbones by name: torchvision's ResNets and their kin, and EfficientNet-Lite0."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from socketlab.errors import LabError, require_choice
from socketlab.images.encodings import Normalisation
from socketlab.networks import efficientnet_lite
from socketlab.networks.networks import Network, Trunk
from socketlab.networks.weights import Weights, fill, read_weights, without_classifier

BACKBONES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
    efficientnet_lite.NAME,
)  # fmt: skip
"""The networks that are known by name; all have batch norm. All but the last are torchvision's."""


class ResNetTrunk(Trunk):
    """A torchvision ResNet, ResNeXt or Wide ResNet without ``fc``; C is 512 or 2048."""

    def __init__(self, model: Any, name: str) -> None:
        super().__init__()
        self.name, self.features = name, model.fc.in_features
        for child, layer in model.named_children():
            if child not in ("avgpool", "fc"):
                self.add_module(child, layer)


def backbone_network(
    name: str, classes: int, weights: str | Path | None = None, width: int = 256, seed: int = 0
) -> Network:
    """A backbone as trunk, with a new bottleneck and head: ready for training on a source.

    Parameters
    ----------
    weights : of the trunk. None for random ones. "DEFAULT", or another name in torchvision's list for this
        network ("IMAGENET1K_V1"), is downloaded into torch's own cache at the first call; of
        EfficientNet-Lite0 it comes from an installed package. A path (``.pt``, ``.pth``, ``.safetensors``) is
        read and needs no connection.
    width : of the bottleneck, D.
    seed : of all that is random; torch's global generator is put back as it was.

    Raises
    ------
    LabError : an unknown name or weights, no connection, or a file that is none of this network's.

    Source: Liang et al., ICML 2020 (SHOT), section 4.1 and its published code, for what is cut.
    """
    state = None if weights is None else _trunk_weights(name, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = backbone_trunk(name)
        network = Network(trunk, trunk.features, classes, width)
    if state is not None:
        fill(trunk, state, f"the weights {weights} for {name}")
    return network.to(memory_format=torch.channels_last)


def backbone_trunk(name: str) -> Trunk:
    """The trunk alone, with random weights from torch's global generator; see `backbone_network`."""
    require_choice("backbone", name, BACKBONES)
    if name == efficientnet_lite.NAME:
        return efficientnet_lite.EfficientNetLite0()
    from torchvision import models

    return ResNetTrunk(models.get_model(name, weights=None), name)


def weights_normalisation(name: str, weights: str = "DEFAULT") -> Normalisation:
    """How RGB images are normalised for these weights; known without a download."""
    if name == efficientnet_lite.NAME:
        return efficientnet_lite.NORMALISATION
    transform = _listed(name, weights).transforms()
    return Normalisation("rgb", tuple(transform.mean), tuple(transform.std))


def _listed(name: str, weights: str) -> Any:
    """The entry in torchvision's list of weights: their address, and the transforms that go with them."""
    require_choice("backbone", name, BACKBONES)
    from torchvision import models

    known = models.get_model_weights(name).__members__
    require_choice(f"weights of {name}", weights, tuple(known))
    return known[weights]


def _trunk_weights(name: str, weights: str | Path) -> Weights:
    """The weights of a trunk: from a file, an installed package, or torchvision's list."""
    require_choice("backbone", name, BACKBONES)
    if isinstance(weights, Path) or not re.fullmatch(r"DEFAULT|[A-Z0-9]+(_[A-Z0-9]+)+", weights):
        return without_classifier(read_weights(Path(weights)))
    if name == efficientnet_lite.NAME:
        require_choice(f"weights of {name}", weights, ("DEFAULT",))
        return without_classifier(read_weights(efficientnet_lite.weights_file()))
    listed = _listed(name, weights)
    try:
        found = listed.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        why = getattr(error, "reason", error)
        raise LabError(f"{listed.url} cannot be fetched ({why}): get it yourself, give its path") from error
    return without_classifier(found)
