"""Source networks of other people's code: the three files that SHOT writes, and SOCKET after it.

The names in them are checked on files that the tests write in plain torch; none by the authors was at hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from socketlab.errors import LabError
from socketlab.images.encodings import Normalisation
from socketlab.networks.backbones import BACKBONES, backbone_network, backbone_trunk
from socketlab.networks.checkpoints import Source
from socketlab.networks.weights import Weights, fill, read_weights, without_classifier

FILES = ("source_F.pt", "source_B.pt", "source_C.pt")
IMAGENET = Normalisation("rgb", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""How RGB images are normalised for torchvision's ImageNet weights, from which SHOT's networks begin."""


def read_triple(folder: Path | str, classes: Sequence[str], device: torch.device | str = "cpu") -> Source:
    """A source network from three state_dicts: trunk, bottleneck (with batch norm) and classifier.

    The backbone is found by the shapes of the trunk's weights. The classifier may be weight-normalised, by
    torch's older names (``fc.weight_g``, ``fc.weight_v``) or its new ones, or plain: g is then the length of
    each row. The files do not hold how images are normalised: as `IMAGENET` is taken.

    Parameters
    ----------
    classes : names of the K outputs, in the order of the labels that the network was trained with.

    Raises
    ------
    LabError : a file is missing, broken, holds more than tensors, or is of another network or other classes.

    Source: Liang et al., ICML 2020 (SHOT), section 3.1 and its published code, for the parts and their names.
    """
    folder, (trunk_file, bottleneck_file, head_file) = Path(folder), FILES
    trunk = without_classifier(read_weights(folder / trunk_file))
    bottleneck = _bottleneck_weights(read_weights(folder / bottleneck_file), bottleneck_file)
    head = _head_weights(read_weights(folder / head_file), len(classes), head_file)
    backbone = recognised(trunk)
    linear = bottleneck.get("0.weight")
    width = 256 if linear is None or linear.ndim != 2 else len(linear)
    network = backbone_network(backbone, len(classes), width=width)
    fill(network.trunk, trunk, f"the weights in {trunk_file} for {backbone}")
    fill(network.bottleneck, bottleneck, f"the weights in {bottleneck_file} (0. linear layer, 1. batch norm)")
    fill(network.head, head, f"the weights in {head_file}")
    card = {"read from": list(FILES), "backbone": backbone}
    return Source(network.to(device).eval(), tuple(classes), IMAGENET, card)


def recognised(trunk: Weights) -> str:
    """The backbone whose trunk has these names and shapes; a `LabError` when there is none."""

    def shapes(weights: Weights) -> dict[str, torch.Size]:
        return {name: x.shape for name, x in weights.items() if not name.endswith("num_batches_tracked")}

    for name in BACKBONES:
        with torch.device("meta"):  # shapes alone, no numbers
            own = backbone_trunk(name).state_dict()
        if shapes(own) == shapes(trunk):
            return name
    raise LabError(
        f"{FILES[0]} is of no known backbone (it begins with {', '.join(list(trunk)[:3])}): known are "
        f"{', '.join(BACKBONES)}"
    )


def _bottleneck_weights(found: Weights, file: str) -> Weights:
    """With this kit's names: 0 is the linear layer, 1 the batch norm after it."""
    ours = {"bottleneck": "0", "bn": "1"}
    named = {re.sub(r"^(bottleneck|bn)\b", lambda part: ours[part[0]], name): x for name, x in found.items()}
    count = named.get("1.num_batches_tracked")
    if count is not None and not count.any():  # SHOT writes it even where the bottleneck does without
        raise LabError(
            f"the batch norm in {file} never saw an image: that network was trained without it, and is "
            "another than ours"
        )
    return named


def _head_weights(found: Weights, classes: int, file: str) -> Weights:
    """With the names of torch's parametrization: row k of the weight is g_k v_k / |v_k|."""
    named = {name.removeprefix("fc."): x for name, x in found.items()}
    bias = named.get("bias")
    if bias is not None and bias.shape != (classes,):
        raise LabError(f"{file} has {bias.numel()} classes, but {classes} are named: name them all, in order")
    if "weight" in named and named["weight"].ndim == 2:
        rows = named.pop("weight")
        lengths = rows.norm(dim=1, keepdim=True)
        # a row of zeros has no direction: any will do, at length 0
        named |= {"weight_g": lengths, "weight_v": torch.where((rows == 0).all(1, keepdim=True), 1.0, rows)}
    ours = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return {ours.get(name, name): x for name, x in named.items()}
