"""Source networks on disk: safetensors files whose header says what they are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from socketlab.errors import LabError, checked
from socketlab.files import data_folder, read_manifest, verified, write_whole
from socketlab.images.encodings import MODALITIES, Normalisation, measure
from socketlab.images.paired_images import PairedImages
from socketlab.networks.backbones import backbone_network
from socketlab.networks.networks import Mixture, Network, SmallResNet, networks_of, small_network
from socketlab.networks.weights import require_finite, require_same

HEADER = "socketlab"


@dataclass
class Source:
    """A network with all that is needed to use it: its classes and how its input is normalised."""

    network: Network | Mixture
    classes: tuple[str, ...]  # names of its K outputs, in order
    normalisation: Normalisation  # of the modality that it reads
    card: dict[str, Any] = field(default_factory=dict)  # sensor, recipe, accuracy, digest of its data
    test_statistics: str = "running"  # batch norm in a test takes its "running" ones, or the "batch"'s own

    @property
    def modality(self) -> str:
        """What the network reads: one of ``encodings.MODALITIES``."""
        return self.normalisation.modality

    @property
    def width(self) -> int:
        """Channels of the trunk's first layer."""
        return next(networks_of(self.network)[0].trunk.parameters()).shape[0]


@checked
def save_source(source: Source, path: Path | str, half: bool = False) -> None:
    """Write ``source`` as one safetensors file, whole or not at all; ``half`` stores numbers in 16 bits."""
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
    """D, where there is a bottleneck: a custom module may do without."""
    layers = networks_of(source.network)[0].bottleneck
    return next((layer.out_features for layer in layers if isinstance(layer, nn.Linear)), None)


@checked
def load_source(
    name: str | Path, device: torch.device | str = "cpu", *, network: Network | Mixture | None = None
) -> Source:
    """A shipped network by name ("rgb_kinect_v1"), or any written by `save_source` by its path.

    Parameters
    ----------
    network : takes the weights, and is returned in the source; needed for a custom module alone
        (`custom_networks.adapted`), which no file can build again.

    Raises
    ------
    LabError : no such file, an altered one, no socketlab checkpoint, a header that does not match its
        weights, or weights that are not finite.
    """
    path = _find(name)
    tensors, header = read_tensors(path)
    count = header.get("networks", 1)
    backbones = header.get(
        "backbones", [SmallResNet.name] * min(count, 1000) if isinstance(count, int) else []
    )
    if network is None and isinstance(backbones, list) and "" in backbones:
        raise LabError(
            f"{path.name} holds the weights of a custom module: make that network again with "
            "custom_networks.adapted, and give it as network"
        )
    try:
        normalisation = _checked(header, tensors, backbones)
        classes = tuple(header["classes"])
        if network is None:
            with torch.device("meta"):  # shapes alone: a header can ask for networks of any size
                plan = _built(backbones, header, len(classes))
            require_same(plan.state_dict(), tensors, "its weights")
            network = _built(backbones, header, len(classes))
        network.load_state_dict(tensors)
    except (LabError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise LabError(
            f"{path.name} is not a socketlab checkpoint, or its header does not match its weights: {reason}"
        ) from error
    require_finite(tensors, path.name)
    card, statistics = header.get("card", {}), header.get("test_statistics", "running")
    return Source(network.to(device).eval(), classes, normalisation, card, statistics)


def _checked(header: Mapping[str, Any], tensors: Mapping[str, Tensor], backbones: Any) -> Normalisation:
    """The normalisation in a header, after a check of all its fields; a LabError where one makes no sense."""
    classes, count = header["classes"], header.get("networks", 1)
    found = Normalisation.from_dict(header["normalisation"])
    numbered = {name.split(".")[1] for name in tensors if name.startswith("networks.")} or {"0"}
    right = {
        "classes": isinstance(classes, list)
        and all(isinstance(one, str) for one in classes)
        and 0 < len(classes) == len(set(classes)),
        "normalisation": found.modality in MODALITIES
        and all(len(x) == 3 and all(map(math.isfinite, x)) for x in (found.mean, found.std))
        and min(found.std) > 0,
        "card": isinstance(header.get("card", {}), dict),
        "test_statistics": header.get("test_statistics", "running") in ("running", "batch"),
        "networks": count == len(numbered),
        "backbones": isinstance(backbones, list) and len(backbones) == count,
    }
    for name, holds in right.items():
        if not holds:
            raise LabError(f"{name} cannot be {json.dumps(header.get(name))[:100]}")
    return found


def _built(backbones: list[str], header: Mapping[str, Any], classes: int) -> Network | Mixture:
    """The network, or mixture, that a header describes; its numbers do not matter yet."""
    networks = [
        small_network(classes, header["width"])
        if name == SmallResNet.name
        else backbone_network(name, classes, width=header["bottleneck"])
        for name in backbones
    ]
    return Mixture(networks) if len(networks) > 1 else networks[0]


def is_pretrained(name: str | Path) -> bool:
    """Whether a network's trunk began with published weights, by its header; SHOT's files did."""
    try:
        path = _find(name)
        if path.is_dir():
            return True
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
        return header["card"]["recipe"]["weights"] is not None
    except (LabError, SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False  # or no checkpoint at all, as `load_source` will find


def source_for_modality(source: Source, images: PairedImages) -> Source:
    """The source for images of one modality: of another than its own, normalised by their statistics."""
    if source.modality == images.modality:
        return source
    return replace(source, normalisation=measure(images.images[images.modality], images.modality))


def require_classes(source: Source, classes: tuple[str, ...]) -> None:
    """A LabError when ``source`` was trained for other classes than these."""
    if source.classes != tuple(classes):
        known, given = ", ".join(source.classes), ", ".join(classes)
        raise LabError(
            f"the network knows the classes {known}, the data have {given}: choose a network trained on the "
            "same classes"
        )


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Tensors and a JSON header as one safetensors file, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(Path(path), save(plain, {HEADER: json.dumps(header, sort_keys=True)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote; a LabError for any other file."""
    if not path.is_file():
        raise LabError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LabError(f"{path.name} cannot be read as a socketlab network: {reason}") from error
    if not isinstance(header, dict):
        raise LabError(f"{path.name} cannot be read as a socketlab network: its header is no table of names")
    return tensors, header


def _find(name: str | Path) -> Path:
    """The path of a network by name or by path."""
    try:
        path = Path(name)
        if path.suffix == ".safetensors" or path.exists():
            return path
    except (OSError, ValueError, TypeError) as error:
        given = str(name)[:100]
        raise LabError(f"{given!r} is no name of a network, and no path of a file: {error}") from error
    if path.name != str(name):
        raise LabError(f"there is no file {path}")
    shipped = sorted(Path(one).stem for one in read_manifest(data_folder()) if one.startswith("models/"))
    if str(name) not in shipped:
        known = ", ".join(shipped)
        raise LabError(f"there is no network {str(name)!r}: choose {known}, or give the path of a file")
    return verified(f"models/{name}.safetensors")
