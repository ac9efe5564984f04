"""What an adaptation is asked to do, and the networks and images that it then reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from socketlab.errors import LabError, check_fields
from socketlab.files import data_folder, from_json
from socketlab.images import encodings, packs, pocketrooms
from socketlab.images.encodings import DEPTH_ENCODINGS, Normalisation
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS, STRONGEST, sensor_named
from socketlab.method.recipe import METHODS, Recipe, knobs
from socketlab.networks.checkpoints import (
    Source,
    bottleneck_width,
    is_pretrained,
    load_source,
    require_classes,
)
from socketlab.runs import splits

MIXES = ("near", "far", "both")


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do.

    Parameters
    ----------
    sensor : a name in ``sensors.SENSORS``; of the shipped rooms only, as ``pairs`` and ``strength``.
    method : a name in ``recipe.METHODS``; it chose the recipe before any override.
    pairs : which rooms the pairs show, ``near``, ``far`` or ``both``.
    pair_count : number of pairs; None for all.
    strength : of the sensor's errors, 1 as published.
    source : name or path of the source network, or a folder with SHOT's three files; several with commas.
        None for the RGB network of the sensor, or of a pack the one that ``train-source`` writes.
    seed : random seed.
    device : ``cpu`` or ``cuda``.
    recipe : every hyperparameter of the adaptation.
    pack : folder of an imported set, in place of the shipped rooms.
    domain : of the pack; default: `splits.target_domain`.
    target : the modality that is adapted to; default: depth, or what the pack has besides colour.
    depth_encoding : a name in ``encodings.DEPTH_ENCODINGS``.
    field_of_view : of the target's stored images, in degrees, for ``normals`` and ``hha``; default: the
        camera's.
    size : side in pixels that a pack's images are resized to; default: as stored.
    oracle : path of a network trained with the target's labels, to compare with; the shipped rooms have one.

    Raises
    ------
    LabError : a value that is unknown or out of range.
    """

    sensor: str = "kinect_v1"
    method: str = "socket"
    pairs: str = "near"
    pair_count: int | None = None
    strength: float = 1.0
    source: str | None = None
    seed: int = 0
    device: str = "cpu"
    recipe: Recipe = field(default_factory=Recipe)
    pack: str | None = None
    domain: str | None = None
    target: str | None = None
    depth_encoding: str = "metric"
    field_of_view: float | None = None
    size: int | None = None
    oracle: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        sensor_named(self.sensor)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                words = name.replace("_", " ")
                raise LabError(f"{words} {value!r} is unknown: choose one of {', '.join(choices)}.")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                limit = f"from {low} to {high:g}" if high < math.inf else f"of {low} or more"
                raise LabError(f"{name.replace('_', ' ')} {value} is out of range: choose a number {limit}.")
        if self.pack is None:
            for name in ("domain", "size"):
                if getattr(self, name) is not None:
                    raise LabError(f"--{name} is for imported sets: name the set's folder with --pack.")

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names or paths of the source networks; "all" is the RGB network of every sensor."""
        if self.pack is not None:
            names = self.source or splits.default_network(packs.open_pack(self.pack))
        elif self.source == "all":
            names = ",".join(f"rgb_{sensor}" for sensor in SENSORS)
        else:
            names = self.source or f"rgb_{self.sensor}"
        return tuple(name for name in names.split(",") if name)

    @property
    def uses_pairs(self) -> bool:
        """Whether the method reads pairs."""
        return self.recipe.lambda_ti > 0

    @property
    def place(self) -> str:
        """Whose images these are: the sensor, or the pack and its domain."""
        if self.pack is None:
            return self.sensor
        name = Path(self.pack).resolve().name
        return name if self.domain in (None, name) else f"{name}-{self.domain}"

    @classmethod
    def from_dict(cls, values: Any) -> Settings:
        """The inverse of ``dataclasses.asdict``; ValueError for what is none."""
        return from_json(cls, values, "settings")

    def command(self) -> str:
        """The command line that repeats this run."""
        default, plain = Settings(), Recipe.for_method(self.method)
        words = ["socketlab", "adapt"]
        words += ["--sensor", self.sensor] if self.pack is None else ["--pack", self.pack]
        words += ["--method", self.method]
        if self.uses_pairs and self.pack is None:
            words += ["--pairs", self.pairs]
        for name in _OPTIONS:
            value = getattr(self, name)
            if value != getattr(default, name):
                words += [f"--{name.replace('_', '-')}", str(value)]
        for name in knobs():
            value = getattr(self.recipe, name)
            if value != getattr(plain, name):
                words += ["--set", f"{name}={value}"]
        return shlex.join([*words, "--seed", str(self.seed), "--device", self.device])


_CHOICES = {
    "method": METHODS, "pairs": MIXES, "device": ("cpu", "cuda"), "depth_encoding": DEPTH_ENCODINGS,
}  # fmt: skip
_RANGES = {
    "strength": (0, STRONGEST), "pair_count": (2, math.inf), "seed": (0, 2**31 - 1),
    "field_of_view": (1, 179), "size": (8, math.inf),
}  # fmt: skip
_OPTIONS = (
    "pair_count", "strength", "source", "domain", "target", "depth_encoding", "field_of_view", "size",
    "oracle",
)  # fmt: skip


def default_recipe(method: str, sources: Sequence[str] = ()) -> Recipe:
    """The recipe of a method: for a trunk with pretrained weights at the published rates.

    The kit's own rates are for its small network, trained from scratch; pretrained weights would be lost.

    Parameters
    ----------
    sources : names, paths or folders of the source networks; those of SHOT's three files are pretrained.

    Source: Liang et al., ICML 2020 (SHOT), section 4.1, for the rates.
    """
    recipe, kept = Recipe.for_method(method), Recipe()
    kits_own = (recipe.trunk_lr, recipe.bottleneck_lr) == (kept.trunk_lr, kept.bottleneck_lr)
    if kits_own and any(map(is_pretrained, sources)):
        return recipe.replace(trunk_lr=1e-3, bottleneck_lr=1e-2)
    return recipe


def resolved(settings: Settings) -> Settings:
    """The settings with a pack's modality and domain in place of None, as far as there is a choice."""
    if settings.pack is None:
        return settings
    pack = packs.open_pack(settings.pack)
    target = splits.target_modality(pack, settings.target)
    domain = splits.target_domain(pack, target, settings.domain)
    several = settings.domain is not None or len(pack.domains) > 1
    return dataclasses.replace(settings, target=target, domain=domain if several else None)


@dataclass(frozen=True)
class Material:
    """Networks and images of a run. Only the evaluation reads the labels of the target.

    Parameters
    ----------
    target, held_out : images adapted to, of which some may lack a label, and labelled ones.
    pairs : None for methods without.
    oracle : a network trained with the target's labels, or None.
    others : further source networks.
    normalisation : of the target; None measures it, depth as metric.
    data_digest : of an imported set; "" for the shipped rooms.
    about : more about the data for the report, name → text.
    """

    source: Source
    target: PairedImages
    held_out: PairedImages
    pairs: PairedImages | None
    oracle: Source | None
    others: tuple[Source, ...] = ()
    normalisation: Normalisation | None = None
    data_digest: str = ""
    about: dict[str, str] = field(default_factory=dict)

    @property
    def modality(self) -> str:
        """The target modality."""
        return self.target.modality

    @property
    def headline(self) -> str:
        """What is adapted to, and with how many images, in one line."""
        pairs = "no pairs" if self.pairs is None else f"{len(self.pairs)} pairs"
        images = f"{len(self.target)} images to adapt to, {len(self.held_out)} held out, {pairs}"
        return f"{self.about.get('set', self.modality)}: {images}"

    @cached_property
    def labelled_target(self) -> PairedImages | None:
        """The images adapted to whose label is known, for measuring; None when there are none."""
        found = splits.labelled(self.target)
        return found if len(found) else None

    @property
    def sources(self) -> list[Source]:
        """All source networks; the maps show the first."""
        return [self.source, *self.others]


def gather(settings: Settings) -> Material:
    """Load the networks and images of a run; no RGB image of the task's classes is opened.

    Raises
    ------
    LabError : unknown sensor, missing or altered file, a checkpoint for other classes, no GPU.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise LabError("There is no CUDA device here: leave --device out, or use --device cpu.")
    if settings.pack is not None:
        return _gather_pack(settings, packs.open_pack(settings.pack))
    modality = settings.target or "depth"
    source, *others = _sources(settings, pocketrooms.CLASSES, modality)
    sensor, strength, device = settings.sensor, settings.strength, settings.device
    target, held_out = (
        pocketrooms.load(split, sensor, (modality,), strength, device=device)
        for split in ("target_adapt", "target_test")
    )
    pairs = None
    if settings.uses_pairs:
        modalities = tuple(dict.fromkeys([*(one.modality for one in (source, *others)), modality]))
        pairs = pocketrooms.ti_pairs(
            sensor, settings.pairs, settings.pair_count, modalities, settings.seed, strength, device
        )
    focal = encodings.focal_of(settings.field_of_view or sensor_named(sensor).fov_deg)
    normalisation = _normalisation(settings, target, focal)
    oracle = _oracle(settings, pocketrooms.CLASSES, modality)
    return Material(source, target, held_out, pairs, oracle, tuple(others), normalisation)


def _gather_pack(settings: Settings, pack: packs.Pack) -> Material:
    """The networks and images of a run on an imported set."""
    device, size = settings.device, settings.size
    modality = splits.target_modality(pack, settings.target)
    domain = splits.target_domain(pack, modality, settings.domain)
    source, *others = _sources(settings, pack.classes, modality)
    target, held_out = splits.scenes(pack, modality, domain, size)
    pairs = []
    if settings.uses_pairs:
        modalities = [*(one.modality for one in (source, *others)), modality]
        pairs = [splits.pairs(pack, modalities, settings.pair_count, settings.seed, size)]
    target, held_out, *pairs = splits.placed(device, target, held_out, *pairs)
    focal, origin = splits.focal(pack, domain, settings.field_of_view)
    about = {"set": f"{pack.folder.resolve().name}, {modality} of {domain}"}
    if modality == "depth" and settings.depth_encoding in ("normals", "hha"):
        about["camera"] = origin
    normalisation = _normalisation(settings, target, focal)
    oracle = _oracle(settings, pack.classes, modality)
    return Material(
        source, target, held_out, pairs[0] if pairs else None, oracle, tuple(others), normalisation,
        splits.digest(pack), about,
    )  # fmt: skip


def _normalisation(settings: Settings, target: PairedImages, focal: tuple[float, float]) -> Normalisation:
    """How the target's images are encoded, measured on them."""
    images = target.images[target.modality]
    if settings.depth_encoding == "metric":
        return encodings.measure(images, target.modality)
    if target.modality != "depth":
        raise LabError(f"{target.modality} images have no depth encoding: leave --depth-encoding out.")
    return encodings.measure(images, target.modality, settings.depth_encoding, focal)


def _sources(settings: Settings, classes: tuple[str, ...], target: str) -> list[Source]:
    """The source networks; a LabError when one does not fit."""
    found = []
    for name in settings.source_names:
        if settings.pack is not None and settings.source is None and not Path(name).exists():
            raise LabError(
                f"There is no source network {name}: train it with `socketlab train-source --pack "
                f"{settings.pack}`, or name one with --source."
            )
        source = splits.load_network(name, classes, settings.device)
        if source.modality == target:
            raise LabError(
                f"The network {name} reads {target} already, which is the target modality: "
                "choose a network for another modality with --source."
            )
        found.append(source)
    if not found:
        raise LabError("--source names no network: give a name or a path, several with commas.")
    widths = {bottleneck_width(source): None for source in found}
    if len(widths) > 1:
        raise LabError(
            f"The source networks have bottlenecks of {' and '.join(map(str, widths))} numbers, which cannot "
            "be mixed: choose networks of one kind."
        )
    return found


def _oracle(settings: Settings, classes: Sequence[str], modality: str) -> Source | None:
    """Load the network that was trained with target labels; None when there is none."""
    name = settings.oracle
    if name is None:
        name = f"oracle_{modality}_{settings.sensor}"
        if settings.pack is not None or not (data_folder() / "models" / f"{name}.safetensors").is_file():
            return None
    oracle = load_source(name, settings.device)
    require_classes(oracle, tuple(classes))
    if oracle.modality != modality:
        raise LabError(f"The oracle {name} reads {oracle.modality}, but the target is {modality}.")
    return oracle


def fingerprints(material: Material) -> dict[str, str]:
    """Return digests of what a run reads: the images, and the source network with its normalisation."""
    weights = hashlib.sha256()
    for source in material.sources:
        weights.update(json.dumps(source.normalisation.as_dict()).encode())
        for name, tensor in source.network.state_dict().items():
            weights.update(name.encode() + tensor.cpu().numpy().tobytes())
    return {
        "data_digest": material.data_digest or splits.rooms_digest(),
        "source_digest": weights.hexdigest(),
    }
