"""Run folders: an adaptation on the disk, so that it can be read, resumed and repeated.

``config.json`` has all that is needed to repeat the run: settings, recipe, versions, digests; ``epochs.csv``
a row per epoch: mean losses, target accuracies (unseen by the method), seconds; ``state.safetensors`` the
state of the training, for ``--resume``; ``best.safetensors`` the network that a rule without labels prefers;
``film`` features of some images after each epoch. `results` adds the network that counts,
``adapted.safetensors``, ``results.json``, pictures and ``report.html``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import socketlab
from socketlab import files
from socketlab.errors import LabError
from socketlab.files import csv_text, exclusive, from_json, is_free, read_csv, read_json, reason, write_whole
from socketlab.images.paired_images import PairedImages
from socketlab.measures import model_selection
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, State, Step, adapt
from socketlab.networks.checkpoints import Source, load_source, save_source, write_tensors
from socketlab.networks.networks import networks_of
from socketlab.runs.settings import LAST, Material, Settings, fingerprints
from socketlab.speed import best_execution, distributed

CONFIG, EPOCHS, STATE, RESULTS = "config.json", "epochs.csv", "state.safetensors", "results.json"
CHECKPOINT, REPORT, FILM, BEST = "adapted.safetensors", "report.html", "film", "best.safetensors"
TRANSDUCTIVE = "unseen_by_method_accuracy_adapted_to"
HELD_OUT = "unseen_by_method_accuracy_held_out"
SHOWN_IMAGES, SHOWN_PAIRS = 240, 120  # in the film
SCORE = "score_without_labels"  # of the rule that chooses
_LAST = (TRANSDUCTIVE, HELD_OUT, SCORE, "seconds")


@dataclass
class Config:
    """All that is needed to repeat a run, the content of ``config.json``."""

    made: str
    settings: Settings
    rerun: str
    selection: str
    data_digest: str
    source_digest: str
    environment: dict[str, str]
    target: str = "depth"
    sources: list[str] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """A run folder: its configuration, and the epochs written so far, as the text of their cells."""

    folder: Path
    config: Config
    rows: list[dict[str, str]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """What the run was asked to do."""
        return self.config.settings

    @property
    def losses(self) -> list[str]:
        """Names of the losses in the rows."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name not in ("epoch", *_LAST)))

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """The epochs that have a value of this name, and their values."""
        seen = [row for row in self.rows if row.get(name)]
        return [int(row["epoch"]) for row in seen], [float(row[name]) for row in seen]

    @property
    def which(self) -> str:
        """The epoch whose network counts: the last, or the best by the run's rule; of equals the later."""
        epochs, scores = self.curve(SCORE)
        best = max(zip(scores, epochs, strict=True), default=None)
        return f"epoch {best[1]}, chosen by {self.settings.choose}" if best else "the last epoch"

    def add(self, row: dict[str, str]) -> None:
        """Add an epoch and write ``epochs.csv``; a loss that an epoch did not have is left blank."""
        self.rows.append(row)
        columns = ["epoch", *self.losses, *(name for name in _LAST if any(name in one for one in self.rows))]
        write_whole(self.folder / EPOCHS, csv_text(self.rows, columns).encode())

    def write_config(self) -> None:
        """Write ``config.json``."""
        write_whole(self.folder / CONFIG, files.as_json(asdict(self.config)))


def free_folder(folder: Path | None, settings: Settings) -> Path:
    """The folder, by default ``runs/<time>-<place>-<method>-s<seed>``, if it holds nothing yet."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = folder or Path("runs") / f"{time}-{settings.place}-{settings.method}-s{settings.seed}"
    if not is_free(folder):
        raise LabError(f"{folder} exists already: choose another --out, or continue with --resume {folder}.")
    return folder


def create(folder: Path, settings: Settings, material: Material) -> Run:
    """Make a run folder and write its configuration."""
    free_folder(folder, settings)
    config = Config(
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        settings=settings,
        rerun=settings.command(),
        selection=settings.choose,
        environment=environment(),
        target=material.modality,
        sources=list(settings.source_names),
        about=material.about,
        **fingerprints(material),
    )
    run = Run(folder, config)
    run.write_config()
    return run


def read(folder: Path) -> Run:
    """Read a run folder; ``LabError`` when it is none."""
    if not (folder / CONFIG).is_file():
        raise LabError(f"{folder} is not a run folder, it has no {CONFIG}: begin a run with --out.")
    try:
        run = Run(folder, from_json(Config, read_json(folder / CONFIG, "begin another")))
        datetime.fromisoformat(run.config.made)
        if (folder / EPOCHS).is_file():
            run.rows = [{k: v for k, v in row.items() if v} for row in read_csv(folder / EPOCHS)]
            for name in (*run.losses, *_LAST):
                run.curve(name)
    except (ValueError, KeyError, LabError) as error:
        raise LabError(f"{folder} cannot be read as a run ({reason(error)}): start a new run.") from error
    return run


def resume(run: Run, material: Material) -> State | None:
    """Load the state of a run and drop what was written after it; None before its first epoch.

    Raises `LabError`: data, source network or configuration have changed since, or files are missing.
    """
    now = fingerprints(material)
    for name, what in {"data_digest": "the images", "source_digest": "the source network"}.items():
        if getattr(run.config, name) != now[name]:
            raise LabError(f"{run.folder} cannot be resumed: {what} changed; restore it, or start a new run.")
    if not (run.folder / STATE).is_file():
        run.rows = []
        return None
    state = State.load(run.folder / STATE, material.sources)
    begun, settings = (state.recipe, state.seed, run.config.selection), run.settings
    if begun != (settings.recipe, settings.seed, settings.choose):
        raise LabError(f"{run.folder / CONFIG} was changed since the run began: undo that, or begin another.")
    if [row["epoch"] for row in run.rows[: state.epoch + 1]] != [str(n) for n in range(state.epoch + 1)]:
        raise LabError(f"{run.folder / EPOCHS} lacks epochs before {state.epoch}: start a new run instead.")
    run.rows = run.rows[: state.epoch + 1]
    return state


def record(run: Run, material: Material, state: State | None = None) -> Iterator[Step | Epoch]:
    """Adapt, and yield every event after it has been written; of several processes the first writes.

    After an epoch, ``epochs.csv`` and the state are on the disk, and stay there where a loss is not a number
    or the disk is full (`LabError`). The accuracies are measured with target labels, which the method never
    sees, and nothing is chosen by them.
    """
    settings, begun = run.settings, time.perf_counter()
    losses: dict[str, list[float]] = {}
    source_half = features_shown(material) if distributed.rank() == 0 else {}
    chooses = settings.choose != LAST
    logits = evaluate.predict(state.adapted, material.target)[0] if state and chooses else None
    for event in adapt(
        material.sources, material.target, material.pairs, settings.recipe, seed=settings.seed, state=state,
        normalisation=material.normalisation, execution=best_execution(),
    ):  # fmt: skip
        if distributed.rank() > 0:
            pass
        elif isinstance(event, Step):
            for name, value in event.losses.items():
                losses.setdefault(name, []).append(value)
        elif event.epoch >= len(run.rows):
            row = {"epoch": str(event.epoch)}
            row |= {name: f"{math.fsum(values) / len(values):.6g}" for name, values in losses.items()}
            counts = evaluate.confusion(event.state.adapted, material.held_out)
            row[HELD_OUT] = f"{float(counts.trace() / counts.sum()):.6f}"
            if (known := material.labelled_target) is not None:
                row[TRANSDUCTIVE] = f"{evaluate.accuracy(event.state.adapted, known):.6f}"
            frame = {"confusion": counts} | features_shown(material, event.state.adapted) | source_half
            write_tensors(run.folder / FILM / f"{event.epoch}.safetensors", frame, {})
            if chooses:
                row[SCORE], logits = judge(run, material, event.state.adapted, logits)
            row["seconds"] = f"{time.perf_counter() - begun:.3f}"
            run.add(row)
            event.state.save(run.folder / STATE)
            losses, begun = {}, time.perf_counter()
        yield event


def judge(run: Run, material: Material, adapted: Source, before: Tensor | None) -> tuple[str, Tensor]:
    """Score an epoch by the run's rule, and keep its network while it is the best; returns the logits too."""
    found = model_selection.gather(adapted, material.target, material.sources, before)
    score = f"{model_selection.RULES[run.settings.choose](found):.9g}"
    if all(float(score) >= float(row[SCORE]) for row in run.rows):
        save_source(adapted, run.folder / BEST)
    return score, found.logits


def chosen(run: Run, state: State) -> Source:
    """The network that counts: of the last epoch, or of the one that the run's rule chose."""
    settings = run.settings
    return state.adapted if settings.choose == LAST else load_source(run.folder / BEST, settings.device)


def shown(images: PairedImages, most: int) -> PairedImages:
    """At most so many of the images, drawn always alike: those in the film."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.take(order[:most].sort().values)


def features_shown(material: Material, adapted: Source | None = None) -> dict[str, Tensor]:
    """Features of an epoch of the film, (n, D): of held-out images and pairs; before all, of the source half.

    Of several sources, of the first and of the network that began from it.
    """
    sets = {} if material.pairs is None else {"source half": (material.source, material.pairs, SHOWN_PAIRS)}
    if adapted is not None:
        first = dataclasses.replace(adapted, network=networks_of(adapted.network)[0])
        sets = {} if material.pairs is None else {"target half": (first, material.pairs, SHOWN_PAIRS)}
        sets["images"] = first, material.held_out, SHOWN_IMAGES
    return {
        name: evaluate.predict(network, shown(images, most).only(network.modality))[1].cpu().half()
        for name, (network, images, most) in sets.items()
    }


def locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the folder's lock within the block, in the first process; leftovers of a kill are removed."""
    return exclusive(folder) if distributed.rank() == 0 else contextlib.nullcontext()


def environment() -> dict[str, str]:
    """Return what the last digits of the numbers may depend on: versions, platform, threads."""
    return {
        "python": platform.python_version(),
        **{module.__name__: module.__version__.split("+")[0] for module in (socketlab, torch, np)},
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }
