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

from socketlab.errors import LabError, check_fields, require_choice
from socketlab.files import data_folder
from socketlab.images import encodings, packs, pocketrooms
from socketlab.images.encodings import DEPTH_ENCODINGS, Normalisation
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS, STRONGEST, sensor_named
from socketlab.measures.model_selection import RULES, choose_encoding
from socketlab.method.recipe import METHODS, Recipe, knobs
from socketlab.networks import checkpoints
from socketlab.networks.checkpoints import Source
from socketlab.runs import splits

MIXES = ("near", "far", "both")
AUTO = "auto"
"""The depth encoding that held-out pairs choose: `model_selection.choose_encoding`."""
LAST = "last"  # the epoch that counts, unless a rule of `model_selection` chooses one
STEPS_AN_EPOCH = 15
"""Of the shipped rooms, for which the recipes' epochs are meant."""


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do; a `LabError` for a value that is unknown or out of range.

    The fields are the options of ``socketlab adapt``, whose help describes each, and the recipe that
    ``method`` and ``--set`` make. None is a default that depends on the others: all pairs; the sensor's RGB
    network, or what ``train-source`` writes for the pack; `splits.target_domain`, `splits.target_modality`;
    the camera's field of view; the oracle that ships.
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
    oracle: str | None = None
    choose: str = LAST

    def __post_init__(self) -> None:
        check_fields(self)
        sensor_named(self.sensor)
        require_choice("method", self.method, METHODS)
        require_choice("pairs", self.pairs, MIXES)
        require_choice("device", self.device, ("cpu", "cuda"))
        require_choice("rule", self.choose, (LAST, *RULES))
        require_choice("depth encoding", self.depth_encoding, (*DEPTH_ENCODINGS, AUTO))
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                limit = f"from {low} to {high:g}" if high < math.inf else f"of {low} or more"
                raise LabError(f"{name.replace('_', ' ')} {value} is out of range: choose a number {limit}.")
        if self.pack is None and self.domain is not None:
            raise LabError("--domain is for imported sets: name the set's folder with --pack.")

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names or paths of the source networks; "all" is the RGB network of every sensor."""
        names = self.source or f"rgb_{self.sensor}"
        if self.pack is not None:
            names = self.source or splits.default_network(packs.open_pack(self.pack))
        elif names == "all":
            names = ",".join(f"rgb_{sensor}" for sensor in SENSORS)
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

    def stated(self) -> dict[str, Any]:
        """The fields that matter for this run, without the recipe."""
        default, of_rooms = Settings(), self.pack is None
        always = {"sensor": True, "method": True, "pairs": self.uses_pairs, "seed": True, "device": True}
        left_out = ("recipe",) if of_rooms else ("recipe", "sensor", "pairs", "strength")
        return {
            name: value
            for name, value in vars(self).items()
            if name not in left_out and always.get(name, value != getattr(default, name))
        }

    def command(self) -> str:
        """The command line that repeats this run."""
        words, plain = ["socketlab", "adapt"], Recipe.for_method(self.method)
        for name, value in self.stated().items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        for name in knobs():
            value = getattr(self.recipe, name)
            if value != getattr(plain, name):
                words += ["--set", f"{name}={value}"]
        return shlex.join(words)


_RANGES = {
    "strength": (0, STRONGEST),
    "pair_count": (2, math.inf),
    "seed": (0, 2**31 - 1),
    "field_of_view": (1, 179),
}


def device_named(name: str) -> str:
    """Return the device to use, ``auto`` being CUDA where it works; a `LabError` when it is not there."""
    require_choice("device", name, ("auto", "cpu", "cuda"))
    works = torch.cuda.is_available()
    if name == "cuda" and not works:
        raise LabError("There is no CUDA device here: leave --device out, or use --device cpu.")
    return name if name != "auto" else "cuda" if works else "cpu"


def default_recipe(method: str, sources: Sequence[str] = (), thorough: bool = False) -> Recipe:
    """The recipe of a method, or SOCKET's thorough one; a pretrained trunk's rates are the published ones.

    The kit's own are for its small network, trained from scratch; pretrained weights would be lost.

    Source: Liang et al., ICML 2020 (SHOT), section 4.1, for the rates.
    """
    if thorough and method != "socket":
        raise LabError(f"--thorough is a recipe of socket: leave it out for {method}.")
    recipe, kept = Recipe.thorough() if thorough else Recipe.for_method(method), Recipe()
    kits_own = (recipe.trunk_lr, recipe.bottleneck_lr) == (kept.trunk_lr, kept.bottleneck_lr)
    if kits_own and any(map(checkpoints.is_pretrained, sources)):
        return recipe.replace(trunk_lr=1e-3, bottleneck_lr=1e-2)
    return recipe


def lengthened(recipe: Recipe, images: int) -> Recipe:
    """More epochs for a target of so few images that an epoch has fewer steps than the rooms have."""
    times = math.ceil(STEPS_AN_EPOCH / max(1, images // recipe.batch_size))
    changes = {name: min(100, times * getattr(recipe, name)) for name in ("align_epochs", "epochs")}
    return recipe.replace(**changes)


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

    Some of the images adapted to may lack a label. ``normalisation`` is that of the target; None measures it,
    depth as metric. ``data_digest`` is "" for the shipped rooms; ``about`` has more about the data for the
    report.
    """

    sources: list[Source]
    target: PairedImages
    held_out: PairedImages
    pairs: PairedImages | None
    oracle: Source | None
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
    def source(self) -> Source:
        """The first source network, the one on the maps."""
        return self.sources[0]


def gather(settings: Settings) -> Material:
    """Load the networks and images of a run; no RGB image of the task's classes is opened."""
    device, sensor, strength = device_named(settings.device), settings.sensor, settings.strength
    pairs: PairedImages | None = None
    classes: tuple[str, ...] = pocketrooms.CLASSES
    about, digest = {}, ""
    if settings.pack is None:
        modality = settings.target or "depth"
        sources = _sources(settings, classes, modality)
        target, held_out = (
            pocketrooms.load(split, sensor, (modality,), strength).to(device)
            for split in ("target_adapt", "target_test")
        )
        if settings.uses_pairs:
            read = tuple(dict.fromkeys([*(one.modality for one in sources), modality]))
            mix, count, seed = settings.pairs, settings.pair_count, settings.seed
            pairs = pocketrooms.ti_pairs(sensor, mix, count, read, seed, strength).to(device)
        focal = encodings.focal_of(settings.field_of_view or sensor_named(sensor).fov_deg)
    else:
        pack = packs.open_pack(settings.pack)
        modality, classes = splits.target_modality(pack, settings.target), pack.classes
        domain, digest = splits.target_domain(pack, modality, settings.domain), splits.digest(pack)
        sources = _sources(settings, classes, modality)
        sets = [*splits.scenes(pack, modality, domain)]
        if settings.uses_pairs:
            read = (*(one.modality for one in sources), modality)
            sets.append(splits.pairs(pack, read, settings.pair_count, settings.seed))
        target, held_out, *rest = splits.placed(device, *sets)
        pairs = rest[0] if rest else None
        focal, origin = splits.focal(pack, domain, settings.field_of_view)
        about["set"] = f"{pack.folder.resolve().name}, {modality} of {domain}"
        if modality == "depth" and settings.depth_encoding in ("normals", "hha"):
            about["camera"] = origin
    depth_encoding = settings.depth_encoding
    if depth_encoding == AUTO:
        if pairs is None:
            raise LabError("--depth-encoding auto is chosen by pairs: without them, name an encoding.")
        choice = choose_encoding(sources[0], target, pairs, settings.recipe, focal=focal, seed=settings.seed)
        depth_encoding, about["depth encoding"] = choice.encoding, choice.reason
    normalisation = splits.encoding(target, depth_encoding, focal)
    oracle = _oracle(settings, classes, modality)
    return Material(sources, target, held_out, pairs, oracle, normalisation, digest, about)


def _sources(settings: Settings, classes: tuple[str, ...], target: str) -> list[Source]:
    """The source networks; a LabError when one does not fit."""
    found = []
    for name in settings.source_names:
        if settings.pack is not None and settings.source is None and not Path(name).exists():
            raise LabError(f"There is no network {name}: `socketlab train-source --pack {settings.pack}`.")
        source = checkpoints.load_source(name, settings.device)
        checkpoints.require_classes(source, classes)
        if source.modality == target:
            raise LabError(f"The network {name} reads {target} already, the target: choose another --source.")
        found.append(source)
    if not found:
        raise LabError("--source names no network: give a name or a path, several with commas.")
    widths = dict.fromkeys(str(checkpoints.bottleneck_width(one)) for one in found)
    if len(widths) > 1:
        raise LabError(f"The sources have bottlenecks of {' and '.join(widths)} numbers: choose one kind.")
    return found


def _oracle(settings: Settings, classes: Sequence[str], modality: str) -> Source | None:
    """Load the network that was trained with target labels; None when there is none."""
    name = settings.oracle
    if name is None:
        name = f"oracle_{modality}_{settings.sensor}"
        if settings.pack is not None or not (data_folder() / "models" / f"{name}.safetensors").is_file():
            return None
    oracle = checkpoints.load_source(name, settings.device)
    checkpoints.require_classes(oracle, tuple(classes))
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
    digest = material.data_digest or splits.rooms_digest()
    return {"data_digest": digest, "source_digest": weights.hexdigest()}
