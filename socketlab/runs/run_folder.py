"""Run folders: an adaptation written down so that it can be read, resumed and made again.

=====================  =====================================================================================
``config.json``        all that is needed to make the run again: settings, recipe, versions, digests
``epochs.csv``         a row per epoch: mean losses, target accuracies (unseen by the method), seconds
``state.safetensors``  where training stands, for ``--resume``; replaced whole after every epoch
``adapted.safetensors``  the network of the last epoch, a checkpoint like any other
``results.json``       accuracies, recalls and the confusion matrix of the last epoch
``*.png``              confusion matrix, feature map, curves
``report.html``        one page with all of it
=====================  =====================================================================================
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import pickle
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from socketlab.errors import LabError
from socketlab.figures import figures as plots
from socketlab.figures import maps
from socketlab.figures.report import Figure, Report, Score, page
from socketlab.files import data_folder, read_manifest, write_whole
from socketlab.images import encodings, packs, pocketrooms
from socketlab.images.encodings import DEPTH_ENCODINGS, Normalisation
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS, STRONGEST, sensor_named
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, State, Step, adapt
from socketlab.method.recipe import METHODS, Recipe, knobs
from socketlab.networks.checkpoints import Source, bottleneck_width, load_source, require_classes, save_source
from socketlab.networks.networks import networks_of
from socketlab.runs import splits
from socketlab.speed import distributed

CONFIG, EPOCHS, STATE, RESULTS = "config.json", "epochs.csv", "state.safetensors", "results.json"
CHECKPOINT, REPORT = "adapted.safetensors", "report.html"
MIXES = ("near", "far", "both")
TRANSDUCTIVE = "unseen_by_method_accuracy_adapted_to"
HELD_OUT = "unseen_by_method_accuracy_held_out"
TITLES = {
    "source-only": "no adaptation",
    "batch": "batch statistics",
    "adabn": "AdaBN",
    "tent": "TENT",
    "shot-im": "SHOT-IM",
    "shot": "SHOT",
    "aad": "AaD",
    "socket": "SOCKET",
    "paper": "SOCKET as published",
}


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do.

    Parameters
    ----------
    sensor : a name in ``sensors.SENSORS``; counts for the shipped rooms, as ``pairs`` and ``strength`` do.
    method : a name in ``recipe.METHODS``; it chose the recipe before any override.
    pairs : which rooms the pairs show, ``near``, ``far`` or ``both``.
    pair_count : how many pairs; None for all.
    strength : of the sensor's errors, 1 as published.
    source : name or path of the source network, or a folder with SHOT's three files; several with commas.
        None for the RGB network of the sensor, or of a pack the one that ``train-source`` writes.
    seed : of everything that is drawn.
    device : ``cpu`` or ``cuda``.
    recipe : every number of the adaptation.
    pack : folder of an imported set, in place of the shipped rooms.
    domain : of the pack; None as in `protocol.target_domain`.
    target : the modality that is adapted to; None for depth, or what the pack has besides colour.
    depth_encoding : a name in ``encodings.DEPTH_ENCODINGS``.
    field_of_view : of the target's stored pictures, in degrees, for ``normals`` and ``hha``; None for what is
        known of the camera.
    size : side in pixels that a pack's images are brought to; None as they are stored.
    oracle : path of a network that was trained with the target's labels, to compare with; of the shipped
        rooms it is known.
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
        sensor_named(self.sensor)
        known = {
            "method": METHODS,
            "pairs": MIXES,
            "device": ("cpu", "cuda"),
            "depth_encoding": DEPTH_ENCODINGS,
        }
        for name, choices in known.items():
            value = getattr(self, name)
            if value not in choices:
                said = name.replace("_", " ")
                raise LabError(f"{said} {value!r} is unknown: choose one of {', '.join(choices)}.")
        for name, low, high in (("strength", 0, STRONGEST), ("pair_count", 2, None), ("seed", 0, 2**31 - 1)):
            value = getattr(self, name)
            if value is not None and not low <= value <= (math.inf if high is None else high):
                limit = f"from {low} to {high:g}" if high is not None else f"of {low} or more"
                raise LabError(f"{name.replace('_', ' ')} {value} is out of range: choose a number {limit}.")
        if self.pack is None:
            for name in ("domain", "size"):
                if getattr(self, name) is not None:
                    raise LabError(f"A {name} is chosen of an imported set: name its folder with --pack.")

    @property
    def source_names(self) -> tuple[str, ...]:
        """The source networks as ``load_source`` knows them; "all" is the RGB network of every sensor."""
        if self.pack is not None:
            return tuple((self.source or splits.default_network(packs.open_pack(self.pack))).split(","))
        if self.source == "all":
            return tuple(f"rgb_{sensor}" for sensor in SENSORS)
        return tuple((self.source or f"rgb_{self.sensor}").split(","))

    @property
    def uses_pairs(self) -> bool:
        """Whether any pair is looked at."""
        return self.recipe.lambda_ti > 0

    @property
    def place(self) -> str:
        """Whose images these are: the sensor, or the pack and its domain."""
        if self.pack is None:
            return self.sensor
        name = Path(self.pack).resolve().name
        return name if self.domain in (None, name) else f"{name}-{self.domain}"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**values, "recipe": Recipe(**values["recipe"])})

    def command(self) -> str:
        """The command line that makes this run again."""
        plain = Recipe.for_method(self.method)
        words = ["socketlab", "adapt"]
        words += ["--sensor", self.sensor] if self.pack is None else ["--pack", self.pack]
        words += ["--method", self.method]
        if self.uses_pairs and self.pack is None:
            words += ["--pairs", self.pairs]
        plainly = Settings()
        for name in _TOLD:
            value = getattr(self, name)
            if value != getattr(plainly, name):
                words += [f"--{name.replace('_', '-')}", str(value)]
        for name in knobs():
            value = getattr(self.recipe, name)
            if value != getattr(plain, name):
                words += ["--set", f"{name}={value}"]
        return shlex.join([*words, "--seed", str(self.seed), "--device", self.device])


_TOLD = (
    "pair_count", "strength", "source", "domain", "target", "depth_encoding", "field_of_view", "size",
    "oracle",
)  # fmt: skip


@dataclass(frozen=True)
class Material:
    """What a run works on: networks and images. The labels of the target are read by the evaluation alone.

    Parameters
    ----------
    target, held_out : images adapted to, of which some may lack a label, and labelled ones.
    pairs : None for methods without.
    oracle : a network that was trained with the target's labels, or None.
    others : further source networks.
    normalisation : of the target; None measures it, depth as metric.
    data_digest : of an imported set; "" for the shipped rooms.
    about : more to be said of the data, name → words.
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
        """What is adapted to."""
        return self.target.modality

    @property
    def headline(self) -> str:
        """What is adapted to, and with how much, in one line."""
        pairs = "no pairs" if self.pairs is None else f"{len(self.pairs)} pairs"
        images = f"{len(self.target)} images to adapt to, {len(self.held_out)} held out, {pairs}"
        return f"{self.about.get('set', self.modality)}: {images}"

    @cached_property
    def told(self) -> PairedImages | None:
        """The images adapted to of which a label is known, to measure by; None when there is none."""
        found = splits.labelled(self.target)
        return found if len(found) else None

    @property
    def sources(self) -> list[Source]:
        """All source networks; the maps show the first."""
        return [self.source, *self.others]


def resolved(settings: Settings) -> Settings:
    """The settings with the pack's modality and domain in place of None, as far as there is a choice."""
    if settings.pack is None:
        return settings
    pack = packs.open_pack(settings.pack)
    target = splits.target_modality(pack, settings.target)
    domain = splits.target_domain(pack, target, settings.domain)
    several = settings.domain is not None or len(pack.domains) > 1
    return dataclasses.replace(settings, target=target, domain=domain if several else None)


def gather(settings: Settings) -> Material:
    """Load the networks and images of a run.

    No RGB image of the task's classes is opened.

    Raises
    ------
    LabError : unknown sensor, missing or altered file, a checkpoint for other classes, no GPU.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise LabError("There is no CUDA device here: leave --device out, or say --device cpu.")
    if settings.pack is not None:
        return _gather_pack(settings, packs.open_pack(settings.pack))
    modality = settings.target or "depth"
    source, *others = _sources(settings, pocketrooms.CLASSES, modality)
    sensor, strength, device = settings.sensor, settings.strength, settings.device
    target = pocketrooms.load("target_adapt", sensor, (modality,), strength, device=device)
    held_out = pocketrooms.load("target_test", sensor, (modality,), strength, device=device)
    pairs = None
    if settings.uses_pairs:
        modalities = tuple(dict.fromkeys([source.modality, *(one.modality for one in others), modality]))
        pairs = pocketrooms.ti_pairs(
            sensor, settings.pairs, settings.pair_count, modalities, settings.seed, strength, device
        )
    degrees = settings.field_of_view or sensor_named(sensor).fov_deg
    normalisation = _measured(settings, target, encodings.focal_of(degrees))
    oracle = _oracle(settings, pocketrooms.CLASSES, modality)
    return Material(source, target, held_out, pairs, oracle, tuple(others), normalisation)


def _gather_pack(settings: Settings, pack: packs.Pack) -> Material:
    """The networks and images of a run on an imported set."""
    device, size = settings.device, settings.size
    modality = splits.target_modality(pack, settings.target)
    domain = splits.target_domain(pack, modality, settings.domain)
    source, *others = _sources(settings, pack.classes, modality)
    target, held_out = splits.scenes(pack, modality, domain, size)
    pairs = None
    if settings.uses_pairs:
        modalities = [source.modality, *(one.modality for one in others), modality]
        pairs = splits.pairs(pack, modalities, settings.pair_count, settings.seed, size)
    target, held_out, *more = splits.placed(device, target, held_out, *([] if pairs is None else [pairs]))
    pairs = more[0] if more else None
    focal, known = splits.focal(pack, domain, settings.field_of_view)
    about = {"set": f"{pack.folder.resolve().name}, {modality} of {domain}"}
    if modality == "depth" and settings.depth_encoding in ("normals", "hha"):
        about["camera"] = known
    normalisation = _measured(settings, target, focal)
    oracle = _oracle(settings, pack.classes, modality)
    return Material(
        source, target, held_out, pairs, oracle, tuple(others), normalisation, splits.digest(pack), about
    )


def _measured(settings: Settings, target: PairedImages, focal: tuple[float, float]) -> Normalisation:
    """How the target's images are encoded, measured on them."""
    images = target.images[target.modality]
    if settings.depth_encoding == "metric":
        return encodings.measure(images, target.modality)
    if target.modality != "depth":
        raise LabError(f"{target.modality} images have no depth encoding: leave --depth-encoding out.")
    return encodings.measure(images, target.modality, settings.depth_encoding, focal)


def _sources(settings: Settings, classes: tuple[str, ...], target: str) -> list[Source]:
    """The source networks; a LabError when one is no network for another modality."""
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
    widths = {bottleneck_width(source): None for source in found}
    if len(widths) > 1:
        told = " and ".join(str(width) for width in widths)
        raise LabError(
            f"The source networks have bottlenecks of {told} numbers, which cannot be mixed: choose networks "
            "of one kind."
        )
    return found


def _oracle(settings: Settings, classes: tuple[str, ...], modality: str) -> Source | None:
    """Load the network that was trained with target labels; None when there is none."""
    name = settings.oracle
    if name is None:
        name = f"oracle_{modality}_{settings.sensor}"
        if settings.pack is not None or not (data_folder() / "models" / f"{name}.safetensors").is_file():
            return None
    oracle = load_source(name, settings.device)
    require_classes(oracle, classes)
    if oracle.modality != modality:
        raise LabError(f"The oracle {name} reads {oracle.modality}, but the target is {modality}.")
    return oracle


@dataclass
class Run:
    """A run folder: its configuration, and the epochs written so far, as the text of their cells."""

    folder: Path
    config: dict[str, Any]
    rows: list[dict[str, str]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """What the run was asked to do."""
        return Settings.from_dict(self.config["settings"])

    @property
    def last_epoch(self) -> int:
        """The last epoch that was written down; -1 for none."""
        return int(self.rows[-1]["epoch"]) if self.rows else -1

    def add(self, row: dict[str, str]) -> None:
        """Write a row to ``epochs.csv``; a loss that an epoch did not have is left blank."""
        self.rows.append(row)
        columns = list(dict.fromkeys(name for row in self.rows for name in row if name not in _LAST))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*columns, *_LAST], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.folder / EPOCHS, text.getvalue().encode())


_LAST = (TRANSDUCTIVE, HELD_OUT, "seconds")


def default_folder(settings: Settings, name: str | None = None) -> Path:
    """Return ``runs/<name, or the time>-<place>-<method>-s<seed>`` below the present folder."""
    label = name or datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{label}-{settings.place}-{settings.method}-s{settings.seed}"


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LabError(
            f"{folder} exists already: choose another folder with --out, or go on with --resume {folder}."
        )


def create(folder: Path, settings: Settings, material: Material) -> Run:
    """Make a run folder and write its configuration; nothing is left behind when that fails."""
    check_free(folder)
    config = {
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "settings": asdict(settings),
        "rerun": settings.command(),
        "selection": "last",
        "target": material.modality,
        "sources": list(settings.source_names),
        "about": material.about,
        **fingerprints(material),
        "environment": environment(),
    }
    fresh = not folder.exists()
    try:
        write_whole(folder / CONFIG, _json(config))
    except LabError:
        if fresh and folder.is_dir():
            folder.rmdir()
        raise
    return Run(folder, config)


def read(folder: Path) -> Run:
    """Read a run folder; ``LabError`` when it is none."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        run = Run(folder, config)
        _ = run.settings
        if (folder / EPOCHS).is_file():
            with open(folder / EPOCHS, newline="", encoding="utf-8") as file:
                run.rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        _ = run.last_epoch
    except FileNotFoundError:
        raise LabError(f"{folder} is not a run folder: it has no {CONFIG}.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"{folder} cannot be read as a run ({error}): start a new run instead.") from error
    return run


def resume(run: Run, material: Material) -> State | None:
    """Load where a run stands and drop what was written after that; None before its first epoch.

    Raises
    ------
    LabError : data, source network or configuration have changed since, or files of the run are missing.
    """
    for name, now in fingerprints(material).items():
        if run.config.get(name) != now:
            raise LabError(
                f"{run.folder} cannot be resumed, because {_WHAT[name]} changed since it began: "
                "restore the files, or start a new run."
            )
    if not (run.folder / STATE).is_file():
        run.rows = []
        return None
    state = State.load(run.folder / STATE, material.sources)
    if (state.recipe, state.seed) != (run.settings.recipe, run.settings.seed):
        raise LabError(
            f"{run.folder / CONFIG} was changed since the run began: undo that, or start a new run."
        )
    if [int(row["epoch"]) for row in run.rows[: state.epoch + 1]] != list(range(state.epoch + 1)):
        raise LabError(f"{run.folder / EPOCHS} lacks epochs before {state.epoch}: start a new run instead.")
    run.rows = run.rows[: state.epoch + 1]
    return state


def record(run: Run, material: Material, state: State | None = None) -> Iterator[Step | Epoch]:
    """Adapt, and pass on every event after it has been written down; of several processes the first writes.

    After an epoch, ``epochs.csv`` and the state are on the disk. The accuracies are measured with target
    labels, which the method never sees, and nothing is chosen by them.

    Raises
    ------
    LabError : a loss is not a number, or the disk is full; the folder then stands at the last whole epoch.
    """
    settings = run.settings
    losses: dict[str, list[float]] = {}
    begun = time.perf_counter()
    for event in adapt(
        material.sources, material.target, material.pairs, settings.recipe, seed=settings.seed, state=state,
        normalisation=material.normalisation,
    ):  # fmt: skip
        if distributed.rank() > 0:
            pass
        elif isinstance(event, Step):
            for name, value in event.losses.items():
                losses.setdefault(name, []).append(value)
        elif event.epoch > run.last_epoch:
            row = {"epoch": str(event.epoch)}
            row |= {name: f"{math.fsum(values) / len(values):.6g}" for name, values in losses.items()}
            if material.told is not None:
                row[TRANSDUCTIVE] = f"{evaluate.accuracy(event.state.adapted, material.told):.6f}"
            row[HELD_OUT] = f"{evaluate.accuracy(event.state.adapted, material.held_out):.6f}"
            row["seconds"] = f"{time.perf_counter() - begun:.3f}"
            run.add(row)
            event.state.save(run.folder / STATE)
            losses, begun = {}, time.perf_counter()
        yield event


def source_only(material: Material, settings: Settings) -> Source:
    """Return the source network as it meets the target before any adaptation."""
    events = adapt(
        material.sources, material.target, None, Recipe.for_method("source-only"), seed=settings.seed,
        normalisation=material.normalisation,
    )  # fmt: skip
    first = next(iter(events))
    assert isinstance(first, Epoch)
    return first.state.adapted


def rooms_digest() -> str:
    """Return one SHA-256 digest for all images of PocketRooms, taken from their manifest."""
    listed = sorted(read_manifest(data_folder()).items())
    read = [[name, sha] for name, sha in listed if name.startswith("pocketrooms/") and name.endswith(_READ)]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()


_READ = (".jpg", ".png", ".csv")


def fingerprints(material: Material) -> dict[str, str]:
    """Return digests of what a run reads: the images, and the source network with its normalisation."""
    weights = hashlib.sha256()
    for source in material.sources:
        weights.update(json.dumps(source.normalisation.as_dict()).encode())
        for name, tensor in source.network.state_dict().items():
            weights.update(name.encode() + tensor.cpu().numpy().tobytes())
    return {"data_digest": material.data_digest or rooms_digest(), "source_digest": weights.hexdigest()}


_WHAT = {"data_digest": "the images", "source_digest": "the source network"}


def environment() -> dict[str, str]:
    """Return what else the numbers may depend on, in their last digits: versions, platform, threads."""
    found = {"python": platform.python_version()}
    for name in ("socketlab", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a folder, not installed
            found[name] = "not installed"
    return found | {"platform": platform.platform(), "threads": str(torch.get_num_threads())}


@dataclass(frozen=True)
class Results:
    """What came out of a finished run.

    Parameters
    ----------
    scores : of the source network, the method, and the oracle when there is one.
    confusion : (K, K) counts on the held-out images, row = true class.
    figures : the pictures in the folder: file name, title, alt text, caption, and whether it is wide.
    """

    scores: list[Score]
    has_oracle: bool
    classes: list[str]
    confusion: list[list[int]]
    held_out_images: int
    adapted_images: int
    notes: list[str]
    figures: list[dict[str, Any]] = field(default_factory=list)


def finish(run: Run, material: Material, state: State, make_map: MapFunction | None = None) -> Results:
    """Measure the network of the last epoch; write checkpoint, results, pictures and report.

    ``make_map`` is `embed.joint_map` unless told, or a `MapMaker`.
    """
    if not state.finished:
        raise LabError(f"{run.folder} stands at epoch {state.epoch}: finish it with --resume {run.folder}.")
    settings, adapted = run.settings, state.adapted
    networks = {"source only": source_only(material, settings), TITLES[settings.method]: adapted}
    scores = [score(name, network, material, adapts=True) for name, network in networks.items()]
    if material.oracle is not None:
        scores.append(score("oracle", material.oracle, material, adapts=False))
    counts = evaluate.confusion(adapted, material.held_out)
    adapted.card = adapted_card(run, material, scores[1])
    save_source(adapted, run.folder / CHECKPOINT)
    figures = _draw(run, material, adapted, counts, scores, make_map or maps.joint_map)
    results = Results(
        scores, material.oracle is not None, list(adapted.classes), counts.tolist(), len(material.held_out),
        len(material.target), notes(run, material), figures,
    )  # fmt: skip
    write_whole(run.folder / RESULTS, _json(asdict(results)))
    write_report(run)
    return results


def score(name: str, network: Source, material: Material, *, adapts: bool) -> Score:
    """Measure a network on the held-out images and, when it ``adapts``, on those adapted to."""
    counts = evaluate.confusion(network, material.held_out)
    recalls = [int(row[i]) / int(row.sum()) if row.sum() else None for i, row in enumerate(counts)]
    measured = adapts and material.told is not None
    transductive = evaluate.accuracy(network, material.told) if measured else None  # type: ignore[arg-type]
    return Score(name, float(counts.trace() / counts.sum()), transductive, recalls)


def adapted_card(run: Run, material: Material, measured: Score) -> dict[str, Any]:
    """Return what the adapted network's checkpoint says of itself."""
    settings = run.settings
    return {
        "modality": material.modality,
        "sensor" if settings.pack is None else "set": settings.place,
        "made_by": run.config["rerun"],
        "adapted_from": ", ".join(run.config.get("sources") or settings.source_names),
        "held_out_accuracy": round(measured.held_out, 4),
        "selection": run.config["selection"],
        "recipe": asdict(settings.recipe),
        "seed": settings.seed,
        "data_digest": run.config["data_digest"],
    }


def notes(run: Run, material: Material) -> list[str]:
    """Return what a reader of the numbers should know besides."""
    settings, found = run.settings, []
    if material.oracle is None:
        file = f" (data/models/oracle_{material.modality}_{settings.sensor}.safetensors)"
        where = "" if settings.pack else file
        found.append(
            f"The oracle, a network trained with target labels, is missing{where}, so the share of the gap "
            "that was closed cannot be given."
        )
    elif settings.pack is None and settings.strength != 1:
        found.append(
            f"The oracle was trained on images of strength 1, but these have strength {settings.strength:g}: "
            "it may fall short of what labels could give here."
        )
    unseen = set(material.held_out.classes) - set(material.held_out.kinds)
    if unseen:
        found.append(
            f"No held-out image shows {', '.join(sorted(unseen))}: nothing is known of these classes."
        )
    unknown = len(material.target) - (len(material.told) if material.told else 0)
    if unknown:
        found.append(
            f"{unknown} of the images adapted to have no label: accuracies on these images leave them out."
        )
    if run.config["environment"] != environment():
        found.append(
            "This run was resumed under other versions, or with another number of threads, than it began "
            "with: its last digits may differ from those of an uninterrupted run."
        )
    return found


def _draw(
    run: Run,
    material: Material,
    adapted: Source,
    counts: torch.Tensor,
    scores: list[Score],
    make_map: MapFunction,
) -> list[dict[str, Any]]:
    """Draw the pictures into the folder; return what is said of each."""
    matrix = plots.confusion_matrix(counts, adapted.classes)
    caption = f"Held-out target images, {scores[1].name}; each row sums to 100 %."
    pictures: list[tuple[str, str, Axes | Drawing, str, bool]]
    pictures = [("confusion.png", "What is taken for what", matrix, caption, False)]
    pictures.append(
        ("map.png", "Map of the features", *_map(run.settings, material, adapted, make_map), True)
    )
    caption = (
        "Left: mean of each loss over an epoch, unweighted, divided by its largest value so that all fit. "
        "Right: target accuracy after each epoch (0: before any training, with the statistics that the "
        "recipe tests with); the method does not see it, and no epoch is chosen by it."
    )
    pictures.append(("losses.png", "Epoch by epoch", _curves(run.rows, scores), caption, True))
    for file, _, picture, _, _ in pictures:
        write_whole(run.folder / file, plots.png(picture, dpi=130))
    return [
        {"file": file, "title": title, "alt": plots.alt_text(picture), "caption": caption, "wide": wide}
        for file, title, picture, caption, wide in pictures
    ]


MapFunction = Callable[[Mapping[str, np.ndarray], int], dict[str, np.ndarray]]


class MapMaker:
    """`embed.joint_map` in a process of its own, which compiles UMAP while training goes on elsewhere.

    In the same process the compiler would hold up training, and an interrupt in its midst would be met by
    anything but a clean stop. Leaving the ``with`` block ends the process at once.
    """

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from socketlab.runs import run_folder as runs; runs._make_maps()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *about: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent need not be
                pipe.close()  # type: ignore[union-attr]

    def __call__(self, sets: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        """Return one UMAP of all sets; made here, should the other process have died."""
        assert self._process.stdin and self._process.stdout
        try:
            pickle.dump((dict(sets), seed), self._process.stdin)
            self._process.stdin.flush()
            points: dict[str, np.ndarray] = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            return maps.joint_map(sets, seed)
        return points


def _make_maps() -> None:
    """Answer what comes through stdin with maps, until it closes; interrupts are the other side's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but answers may go where they go
    maps.warm_up().join()
    with contextlib.suppress(EOFError):
        while True:
            pickle.dump(maps.joint_map(*pickle.load(sys.stdin.buffer)), answers)
            answers.flush()


MOST_PAIRS_ON_MAP = 300


def _map(settings: Settings, material: Material, adapted: Source, make_map: MapFunction) -> tuple[Axes, str]:
    """One UMAP of held-out target features and, when there are pairs, of both of their halves.

    Of several sources, the features of the first and of the target network that began from it.
    """
    adapted = dataclasses.replace(adapted, network=networks_of(adapted.network)[0])
    found = {"target": evaluate.predict(adapted, material.held_out)[1]}
    caption = "UMAP of the features of held-out target images, coloured by their true class. "
    if material.pairs is not None:
        some = material.pairs.take(range(min(MOST_PAIRS_ON_MAP, len(material.pairs))))
        found["pairs, source"] = evaluate.predict(material.source, some.only(material.source.modality))[1]
        found["pairs, target"] = evaluate.predict(adapted, some.only(material.modality))[1]
        mixed = maps.neighbour_purity(found["pairs, source"].cpu(), found["pairs, target"].cpu())
        caption += (
            f"Pale: both halves of {len(some)} pairs; in feature space {100 * mixed:.0f} % of a half's 15 "
            "nearest neighbours are of its own modality (50 % = fully mixed, 100 % = two islands). "
        )
    positions = make_map({name: values.cpu().numpy() for name, values in found.items()}, settings.seed)
    modality = material.modality
    titles = {"target": f"{modality}, held out", "pairs, target": f"{modality} of pairs"}
    titles["pairs, source"] = f"{material.source.modality.replace('rgb', 'RGB')} of pairs"
    clouds = {
        name: plots.Cloud(
            points,
            material.source.modality if name == "pairs, source" else modality,
            titles[name],
            material.held_out.labels.cpu().numpy() if name == "target" else None,
        )
        for name, points in reversed(positions.items())
    }
    return plots.feature_map(clouds, adapted.classes), caption + "Distances between clusters mean little."


def _curves(rows: list[dict[str, str]], scores: list[Score]) -> Drawing:
    """Losses and accuracies over the epochs, side by side."""
    figure = plots.new_figure(1180, 380)
    left, right = (figure.add_axes((x, 0.17, 0.3, 0.7)) for x in (0.075, 0.575))
    names = dict.fromkeys(name for row in rows for name in row if name not in ("epoch", *_LAST))
    losses = {}
    for name in names:
        seen = [(int(row["epoch"]), float(row[name])) for row in rows if name in row]
        largest = max(abs(value) for _, value in seen) or 1.0
        losses[name] = ([epoch for epoch, _ in seen], [value / largest for _, value in seen])
    plots.curves(losses, left, title="losses", ylabel="share of the largest", ylim=None)
    accuracies = {}
    for title, name in (("held out", HELD_OUT), ("adapted to", TRANSDUCTIVE)):
        seen = [(int(row["epoch"]), float(row[name])) for row in rows if name in row]
        if seen:
            accuracies[title] = ([epoch for epoch, _ in seen], [value for _, value in seen])
    levels = {other.name: other.held_out for other in (scores[0], *scores[2:])}
    plots.curves(accuracies, right, title="target accuracy", ylabel="share right", levels=levels)
    for ax in (left, right):
        ax.locator_params(axis="x", integer=True)  # there is no half epoch
    return figure


def write_report(run: Run) -> Path:
    """Build ``report.html`` from the files of a finished run; return its path."""
    try:
        found = json.loads((run.folder / RESULTS).read_text(encoding="utf-8"))
        results = Results(**{**found, "scores": [Score(**values) for values in found["scores"]]})
        figures = [_stored_figure(run.folder, about) for about in results.figures]
    except FileNotFoundError as error:
        raise LabError(
            f"{run.folder} is not finished, {Path(str(error.filename)).name} is missing: "
            f"go on with `socketlab adapt --resume {run.folder}`."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"{run.folder / RESULTS} cannot be read ({error}): make it again with "
            f"`socketlab adapt --resume {run.folder}`."
        ) from error
    write_whole(run.folder / REPORT, page(_report(run, results, figures)).encode())
    return run.folder / REPORT


def _stored_figure(folder: Path, about: dict[str, Any]) -> Figure:
    png = (folder / about["file"]).read_bytes()
    return Figure(about["title"], png, about["alt"], about["caption"], about["wide"])


def _report(run: Run, results: Results, figures: list[Figure]) -> Report:
    """Put the run into the words of the page."""
    settings = run.settings
    kind = f"{settings.pairs} pairs" if settings.pack is None else "task-irrelevant pairs"
    pairs = kind if settings.uses_pairs else "no pairs"
    modality = settings.target or run.config.get("target", "depth")
    place = sensor_named(settings.sensor).title if settings.pack is None else settings.place
    made = datetime.fromisoformat(run.config["made"])
    method = results.scores[1].name
    return Report(
        title=f"{method[0].upper()}{method[1:]} on {place}",
        subtitle=(
            f"{modality} as the target modality · {pairs} · seed {settings.seed} · {made:%d %B %Y, %H:%M}"
        ),
        scores=results.scores,
        has_oracle=results.has_oracle,
        classes=[name.replace("_", " ") for name in results.classes],
        things="rooms" if settings.pack is None else "images",
        held_out_images=results.held_out_images,
        adapted_images=results.adapted_images,
        settings=_settings_table(run),
        rerun=run.config["rerun"],
        wall_seconds=sum(float(row["seconds"]) for row in run.rows),
        selection="that of the last epoch; no accuracy takes part in the choice.",
        labels=(
            "those of target images were used to measure the accuracies on this page and to colour the map, "
            "and for nothing else; the method never sees them."
            + (" The oracle was trained with those of the images adapted to." if results.has_oracle else "")
        ),
        notes=results.notes,
        figures=figures,
    )


def _settings_table(run: Run) -> dict[str, object]:
    """Everything that the run depends on, in the words of the sliders."""
    settings, config = run.settings, run.config
    table: dict[str, object] = {}
    names = config.get("sources") or settings.source_names
    if settings.pack is None:
        table["sensor"] = f"{settings.sensor}, strength {settings.strength:g}"
    table["source network"] = f"{', '.join(names)} (sha256 {config['source_digest'][:12]}…)"
    images = "PocketRooms" if settings.pack is None else settings.place
    table["rooms" if settings.pack is None else "set"] = f"{images} (sha256 {config['data_digest'][:12]}…)"
    table |= config.get("about", {})
    if settings.depth_encoding != "metric":
        table["depth encoding"] = settings.depth_encoding
    if settings.uses_pairs:
        kind = settings.pairs if settings.pack is None else "task-irrelevant"
        table["pairs"] = f"{kind}, {settings.pair_count or 'all'}"
    table |= {"seed": settings.seed, "device": settings.device}
    for name, about in knobs().items():
        value = getattr(settings.recipe, name)
        table[f"{about.label} ({name})"] = f"{value:g}" if isinstance(value, float) else value
    return table | config["environment"]


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
