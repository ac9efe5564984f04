"""Source networks on disk: safetensors files whose header says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from socketlab.errors import LabError
from socketlab.files import verified, write_whole
from socketlab.images.encodings import Normalisation
from socketlab.networks.backbones import torchvision_network
from socketlab.networks.networks import Mixture, Network, SmallResNet, networks_of, small_network

HEADER = "socketlab"


@dataclass
class Source:
    """A network with all that is needed to use it: its classes and how its input is normalised.

    Parameters
    ----------
    network : trunk, bottleneck and head.
    classes : names of its K outputs, in order.
    normalisation : of the modality that it reads.
    card : where it comes from: sensor, training recipe, held-out accuracy, digest of its data.
    test_statistics : what batch norm normalises by in a test: its "running" statistics, or the "batch"'s own.
    """

    network: Network | Mixture
    classes: tuple[str, ...]
    normalisation: Normalisation
    card: dict[str, Any] = field(default_factory=dict)
    test_statistics: str = "running"

    @property
    def modality(self) -> str:
        """What the network reads: "rgb", "nir", "swir" or "depth"."""
        return self.normalisation.modality

    @property
    def width(self) -> int:
        """Channels of the trunk's first layer."""
        return next(networks_of(self.network)[0].trunk.parameters()).shape[0]


def save_source(source: Source, path: Path | str, half: bool = False) -> None:
    """Write ``source`` as one safetensors file, whole or not at all.

    ``half`` stores numbers in 16 bits, half the size; `load_source` always returns float32.
    """
    header = {
        "classes": list(source.classes),
        "normalisation": source.normalisation.as_dict(),
        "width": source.width,
        "networks": len(networks_of(source.network)),
        "test_statistics": source.test_statistics,
        "card": source.card,
    }
    backbones = [network.trunk.name for network in networks_of(source.network)]
    if set(backbones) != {SmallResNet.name}:
        header |= {"backbones": backbones, "bottleneck": bottleneck_width(source)}
    tensors = source.network.state_dict()
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    write_tensors(path, tensors, header)


def bottleneck_width(source: Source) -> int | None:
    """D, where there is a bottleneck: a module of one's own may do without."""
    layers = networks_of(source.network)[0].bottleneck
    return next((layer.out_features for layer in layers if isinstance(layer, nn.Linear)), None)


def load_source(
    name: str | Path, device: torch.device | str = "cpu", *, network: Network | Mixture | None = None
) -> Source:
    """A shipped network by name ("rgb_kinect_v1"), or any written by `save_source` by its path.

    Parameters
    ----------
    network : takes the weights, and is returned in the source; needed for a module of one's own alone
        (`backbones.adapted`), which no file can build again.

    Raises
    ------
    LabError
        When there is no such file, it was altered, is not one of ours, or does not fit its own header.
    """
    path = _find(name)
    tensors, header = read_tensors(path)
    try:
        classes = tuple(header["classes"])
        normalisation = Normalisation.from_dict(header["normalisation"])
        network = _built(header, len(classes), path) if network is None else network
        network.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise LabError(
            f"{path.name} is no socketlab network, or its header lies about it: {error}"
        ) from error
    network = network.to(device).eval()
    return Source(
        network, classes, normalisation, header.get("card", {}), header.get("test_statistics", "running")
    )


def _built(header: dict[str, Any], classes: int, path: Path) -> Network | Mixture:
    """The network, or mixture, that a header describes; its numbers do not matter yet."""
    backbones = header.get("backbones", [SmallResNet.name] * header.get("networks", 1))
    if "" in backbones:
        raise LabError(
            f"{path.name} holds the weights of a module of your own: make that network again with "
            "backbones.adapted, and give it as network"
        )
    networks = [
        small_network(classes, header["width"])
        if name == SmallResNet.name
        else torchvision_network(name, classes, width=header["bottleneck"])
        for name in backbones
    ]
    return Mixture(networks) if len(networks) > 1 else networks[0]


def require_classes(source: Source, classes: tuple[str, ...]) -> None:
    """A LabError when ``source`` was trained for other classes than these."""
    if source.classes != tuple(classes):
        raise LabError(
            f"the network knows the classes {', '.join(source.classes)}, the data have {', '.join(classes)}: "
            "choose a network trained on the same classes"
        )


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Tensors and a JSON header as one safetensors file, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(Path(path), save(plain, {HEADER: json.dumps(header, sort_keys=True)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote; a LabError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except FileNotFoundError as error:
        raise LabError(f"there is no file {path}") from error
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise LabError(f"{path.name} cannot be read as a socketlab network: {error}") from error


def _find(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix == ".safetensors" or path.exists():
        return path
    if path.name != str(name):
        raise LabError(f"there is no file {path}")
    return verified(f"models/{name}.safetensors")
