"""Source networks on disk: safetensors files whose header says what they are."""

from __future__ import annotations

import contextlib
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
from socketlab.files import data_folder, from_json, read_manifest, reason, verified, write_whole
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


@checked
def save_source(source: Source, path: Path | str, half: bool = False) -> None:
    """Write ``source`` as one safetensors file, whole or not at all; ``half`` stores numbers in 16 bits."""
    header = {
        "classes": list(source.classes),
        "normalisation": source.normalisation.as_dict(),
        "width": next(networks_of(source.network)[0].trunk.parameters()).shape[0],
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
    tensors, stored = read_tensors(path)
    names = stored.get("backbones")
    if network is None and isinstance(names, list) and "" in names:
        way_out = "make it again with custom_networks.adapted, and give it as network"
        raise LabError(f"{path.name} holds the weights of a custom module: {way_out}")
    try:
        header = from_json(_Header, stored)
        _require_sense(header, tensors)
        if network is None:
            with torch.device("meta"):  # shapes alone: a header can ask for networks of any size
                plan = _built(header)
            require_same(plan.state_dict(), tensors, "its weights")
            network = _built(header)
        network.load_state_dict(tensors)
    except (LabError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        what = "is not a socketlab checkpoint, or its header does not match its weights"
        raise LabError(f"{path.name} {what}: {reason(error)}") from error
    require_finite(tensors, path.name)
    network, classes = network.to(device).eval(), tuple(header.classes)
    return Source(network, classes, header.normalisation, header.card, header.test_statistics)


@dataclass(frozen=True)
class _Header:
    """What is stored beside the weights; version 0.1 wrote the first three for a small network."""

    classes: list[str]
    normalisation: Normalisation
    width: int
    networks: int = 1
    backbones: list[str] = field(default_factory=list)  # empty: small networks
    bottleneck: int | None = None
    test_statistics: str = "running"
    card: dict[str, Any] = field(default_factory=dict)


def _require_sense(header: _Header, tensors: Mapping[str, Tensor]) -> None:
    """A LabError that names a field of a header that cannot be so."""
    found = header.normalisation
    numbered = {name.split(".")[1] for name in tensors if name.startswith("networks.")} or {"0"}
    right = {
        "classes": 0 < len(header.classes) == len(set(header.classes)),
        "normalisation": found.modality in MODALITIES
        and len(found.mean) == len(found.std) == 3
        and all(map(math.isfinite, (*found.mean, *found.std)))
        and min(found.std) > 0,
        "test_statistics": header.test_statistics in ("running", "batch"),
        "networks": header.networks == len(numbered),
        "backbones": len(header.backbones) in (0, header.networks),
    }
    for name, holds in right.items():
        if not holds:
            raise LabError(f"{name} cannot be {str(getattr(header, name))[:100]}")


def _built(header: _Header) -> Network | Mixture:
    """The network, or mixture, that a header describes; its numbers do not matter yet."""
    classes = len(header.classes)
    networks = [
        small_network(classes, header.width)
        if name == SmallResNet.name
        else backbone_network(name, classes, width=header.bottleneck)  # type: ignore[arg-type]
        for name in header.backbones or [SmallResNet.name] * header.networks
    ]
    return Mixture(networks) if len(networks) > 1 else networks[0]


def is_pretrained(name: str | Path) -> bool:
    """Whether a network's trunk began with published weights, by its header."""
    try:
        return read_tensors(_find(name))[1]["card"]["recipe"]["weights"] is not None
    except (LabError, KeyError, TypeError):
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
        raise LabError(f"the network knows the classes {known}, the data have {given}: choose another one")


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
            header = from_json(dict[str, Any], json.loads((file.metadata() or {})[HEADER]), "its header")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError, RecursionError) as error:
        raise LabError(f"{path.name} cannot be read as a socketlab network: {reason(error)}") from error
    return tensors, header


def _find(name: str | Path) -> Path:
    """The path of a network by name or by path."""
    with contextlib.suppress(OSError, ValueError):  # what no file can be called
        if Path(name).suffix == ".safetensors" or Path(name).exists():
            return Path(name)
    if Path(name).name != str(name):
        raise LabError(f"there is no file {name}")
    shipped = sorted(Path(one).stem for one in read_manifest(data_folder()) if one.startswith("models/"))
    if str(name) not in shipped:
        known = ", ".join(shipped)
        raise LabError(f"there is no network {str(name)[:100]!r}: choose {known}, or give the path of a file")
    return verified(f"models/{name}.safetensors")
