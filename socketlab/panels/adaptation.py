"""The live panel of an adaptation: watch a network learn depth that only knew colour, and take part.

A thin shell: `gather` loads what a choice names, `prepare` and `map_features` turn networks into numbers, and
the stream of events is that of `socketlab.method.adaptation`. Weights and learning rate act at once, also in
the middle of a run; all else acts at the next run.
"""

import csv
import html
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from socketlab.figures import figures, maps
from socketlab.files import data_folder, verified
from socketlab.images import pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS, STRONGEST
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.recipe import METHODS, Recipe, knobs
from socketlab.networks.checkpoints import Source, load_source
from socketlab.panels import session
from socketlab.panels.base import Control, Table
from socketlab.panels.pairs import spoilt
from socketlab.panels.training import Change, PanelRun, RunPanel
from socketlab.runs import replay
from socketlab.runs.settings import Material

TARGET = "depth"
WEIGHTS = tuple(name for name in knobs() if name.startswith("lambda_"))
LIVE = (*WEIGHTS, "trunk_lr")
NEXT = ("align_epochs", "epochs")
DATA = ("pairs", "near", "wrong", "sensor", "strength", "seed")
WORDS = {
    "lambda_ti": "paired alignment",
    "lambda_bn": "statistics",
    "lambda_pl": "pseudo-labels",
    "lambda_im": "information",
    "lambda_entropy": "entropy",
    "lambda_aad": "neighbours",
}
MAP_PAIRS, MAP_TARGETS = 200, 240
MAP_SETS = ("pairs, source half", "pairs, target half", "target images")
LINKS = MAP_SETS[:2]
UNSEEN = "labels unseen by the method: for the reader only"
FEW = 25


# ------------------------------------------------------------------------ plain values


@dataclass(frozen=True)
class Choice:
    """The settings of a run, as plain values.

    Parameters
    ----------
    recipe : every number of the adaptation.
    sensor : a name in `SENSORS`.
    strength : of the sensor's errors, 0 to 3; 1 as published.
    pairs : how many task-irrelevant pairs.
    near : share of them that show near rooms, in [0, 1]; the others show far ones.
    wrong : share of them whose target half belongs to another pair, in [0, 1].
    seed : random seed.
    later : (epoch, field, value): weights that change after an epoch, by themselves.
    """

    recipe: Recipe = field(default_factory=Recipe)
    sensor: str = "kinect_v1"
    strength: float = 1.0
    pairs: int = 500
    near: float = 1.0
    wrong: float = 0.0
    seed: int = 0
    later: tuple[tuple[int, str, float], ...] = ()

    @property
    def data(self) -> tuple[Any, ...]:
        """All that decides which images are loaded."""
        return self.sensor, self.strength, self.pairs, self.near, self.wrong, self.seed


def experiments(first: Choice, far: int) -> dict[str, Choice]:
    """Experiments worth trying, by title; recorded for the tier ``replay``.

    Parameters
    ----------
    first : the settings that they vary.
    far : how many far pairs there are.
    """
    without = first.recipe.replace(lambda_ti=0.0, align_epochs=0, epochs=first.recipe.total_epochs)
    early = max(1, first.recipe.align_epochs * 3 // 10)
    return {
        "SOCKET": first,
        f"λ_TI to 0 after epoch {early}": replace(first, later=((early, "lambda_ti", 0.0),)),
        "no pairs": replace(first, recipe=without),
        f"{FEW} pairs": replace(first, pairs=min(FEW, first.pairs)),
        "far pairs": replace(first, pairs=min(first.pairs, far), near=0.0),
        "half the partners wrong": replace(first, wrong=0.5),
        "strong sensor errors": replace(first, strength=STRONGEST),
        "statistics too, λ_d 0.1": replace(first, recipe=first.recipe.replace(lambda_bn=0.1)),
    }


@dataclass
class Bench:
    """Images and networks of a choice, and what does not change during a run.

    Parameters
    ----------
    material : source network, target images, pairs.
    levels : name -> accuracy to compare with: chance, source only, oracle.
    pairs, seen : the scenes that the map shows.
    source_half : (n, D) features of the pairs' source halves, from the source network.
    """

    material: Material
    levels: dict[str, float]
    pairs: PairedImages
    seen: PairedImages
    source_half: NDArray[np.float32]


@dataclass
class AdaptationRun(PanelRun[Choice]):
    """One run that the panel keeps, with its losses by step, its last answers and its last map."""

    classes: tuple[str, ...] = ()
    losses: dict[str, list[float]] = field(default_factory=dict)
    answers: NDArray[np.int64] | None = None
    confusion: NDArray[np.int64] | None = None
    levels: dict[str, float] = field(default_factory=dict)
    clouds: dict[str, figures.Cloud] = field(default_factory=dict)
    map_title: str = ""
    weights: dict[str, Any] = field(default_factory=dict)

    def add_losses(self, losses: Mapping[str, float]) -> None:
        """Append one step; a term that is not at work leaves a gap."""
        length = max((len(values) for values in self.losses.values()), default=0)
        for name in (*self.losses, *losses):
            values = self.losses.setdefault(name, [math.nan] * length)
            if len(values) == length:
                values.append(float(losses.get(name, math.nan)))


@dataclass(frozen=True)
class Snapshot:
    """Features at one epoch: what the map is made of."""

    run: AdaptationRun
    bench: Bench
    epoch: int
    sets: dict[str, NDArray[np.float32]]


def gather(choice: Choice) -> Material:
    """Load source network, target images and pairs of a choice; no RGB image of the task is opened.

    Raises
    ------
    LabError : unknown sensor, missing or altered file, more pairs than there are.
    """
    source = load_source(f"rgb_{choice.sensor}")
    target, held_out = (
        pocketrooms.load(split, choice.sensor, (TARGET,), choice.strength)
        for split in ("target_adapt", "target_test")
    )
    pairs = pocketrooms.ti_pairs(
        choice.sensor, choice.near, choice.pairs, (source.modality, TARGET), choice.seed, choice.strength
    )
    pairs = spoilt(pairs, TARGET, choice.wrong, shift=0)
    oracle = f"oracle_{TARGET}_{choice.sensor}"
    shipped = (data_folder() / "models" / f"{oracle}.safetensors").is_file()
    return Material(source, target, held_out, pairs, load_source(oracle) if shipped else None)


def prepare(material: Material) -> Bench:
    """Choose the scenes of the map, and measure what does not change during a run."""
    assert material.pairs is not None
    pairs, seen = some(material.pairs, MAP_PAIRS), some(material.held_out, MAP_TARGETS)
    source = material.source
    _, source_half = evaluate.predict(source, pairs.only(source.modality))
    first = next(iter(adapt(source, material.target, None, Recipe.for_method("source-only"))))
    assert isinstance(first, Epoch)
    levels = {
        "chance": 1 / len(source.classes),
        "source only": evaluate.accuracy(first.state.adapted, material.held_out),
    }
    if material.oracle is not None:
        levels["oracle"] = evaluate.accuracy(material.oracle, material.held_out)
    return Bench(material, levels, pairs, seen, source_half.numpy())


def some(images: PairedImages, count: int) -> PairedImages:
    """At most `count` scenes, always the same ones."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.take(order[:count].sort().values)


def map_features(bench: Bench, adapted: Source) -> dict[str, NDArray[np.float32]]:
    """The three sets of the map, (n, D) each: both halves of the pairs, and the target images."""
    _, target_half = evaluate.predict(adapted, bench.pairs.only(adapted.modality))
    _, targets = evaluate.predict(adapted, bench.seen)
    return dict(zip(MAP_SETS, (bench.source_half, target_half.numpy(), targets.numpy()), strict=True))


def observe(bench: Bench, event: Epoch) -> dict[str, Any]:
    """Answers for held-out images; when recording, features at beginning, middle and end too."""
    logits, _ = evaluate.predict(event.state.adapted, bench.material.held_out)
    seen: dict[str, Any] = {"answers": logits.argmax(dim=1).to(torch.int16)}
    if replay.recording() and event.epoch in (0, event.state.recipe.align_epochs, event.epochs):
        sets = map_features(bench, event.state.adapted)
        seen |= {name: torch.from_numpy(sets[name]).half() for name in MAP_SETS[1:]}
    return seen


def _map_sets(bench: Bench, event: replay.Observation) -> dict[str, NDArray[np.float32]]:
    """What the map of an epoch is made of; nothing where a recording kept no map."""
    if event.state is not None:
        return map_features(bench, event.state.adapted)
    kept = {name: event.seen[name].float().numpy() for name in MAP_SETS[1:] if name in event.seen}
    return {MAP_SETS[0]: bench.source_half} | kept if kept else {}


def clouds_of(bench: Bench, points: Mapping[str, NDArray[np.float32]]) -> dict[str, figures.Cloud]:
    """Positions with their modality, name and (target images only) class."""
    source, target = bench.material.source.modality, bench.seen.modality
    titles = (*(f"pairs, {figures.MODALITIES[m].short}" for m in (source, target)), "target images")
    labels = (None, None, bench.seen.labels.numpy())
    modalities = (source, target, target)
    return {
        name: figures.Cloud(points[name], modality, title, label)
        for name, modality, title, label in zip(MAP_SETS, modalities, titles, labels, strict=True)
    }


def pair_counts() -> dict[str, int]:
    """How many pairs ship: {"near": n, "far": m}."""
    with open(verified("pocketrooms/index.csv"), newline="", encoding="utf-8") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    return {kind: splits.count(f"ti_{kind}") for kind in ("near", "far")}


# ------------------------------------------------------------------------ pictures


def draw_accuracy(figure: Figure | SubFigure, runs: list[AdaptationRun], last_epoch: int) -> None:
    """Held-out accuracy of the last five runs over epochs, with ticks where a weight was changed."""
    shown = runs[-5:]
    ax = figure.subplots()
    figures.curves(
        {run.name: run.curve("accuracy") for run in shown},
        ax,
        title="Accuracy on held-out target images",
        ylim=(0, 1.02),
        levels=shown[-1].levels if shown else None,
        styles={run.name: run.style for run in shown},
    )
    ax.set_xlim(0, last_epoch)
    for run in shown:
        for change in run.changes:
            ax.axvline(change.epoch, ymax=0.06, color=run.style.colour, linewidth=3)


def draw_losses(figure: Figure | SubFigure, losses: Mapping[str, list[float]], changes: list[Change]) -> None:
    """Small axes for each term that is at work; a dotted line where a weight was changed."""
    if not losses:
        figures.dress(figure.subplots(), "Terms of the loss", "step")
        return
    columns = 1 if len(losses) == 1 else 2
    axes: Any = figure.subplots(-(-len(losses) // columns), columns, squeeze=False)
    for ax in axes.flat[len(losses) :]:
        ax.set_axis_off()
    for i, (name, values) in enumerate(losses.items()):
        style, ax = figures.TERMS.get(name) or figures.known_style(name, i), axes.flat[i]
        figures.dress(ax, xlabel="step" if i >= len(losses) - columns else "")
        steps = np.arange(1, len(values) + 1)
        ax.plot(steps, values, color=style.colour, linewidth=1, alpha=0.3)
        ax.plot(steps, running_mean(values, 0.9), color=style.colour, linewidth=2.2)
        for change in changes:
            ax.axvline(change.step, color=figures.SOFT, linewidth=1.2, linestyle=(0, (1, 2)))
        ax.set_title(style.title, fontsize=figures.TEXT, color=figures.INK, loc="left")
        ax.locator_params(axis="both", nbins=4)
        figures.describe(ax, f"L_{name} over {len(values)} steps, last value {_last(values):.3g}.")


def _last(values: list[float]) -> float:
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


def running_mean(values: list[float], weight: float) -> list[float]:
    """Exponential running mean, without the pull toward zero at the start; gaps are skipped.

    Parameters
    ----------
    weight : of the past, in [0, 1).
    """
    out, total, mass = [], 0.0, 0.0
    for value in values:
        if math.isfinite(value):
            total, mass = weight * total + (1 - weight) * value, weight * mass + 1 - weight
        out.append(total / mass if mass else math.nan)
    return out


# ------------------------------------------------------------------------ the panel


class AdaptationPanel(RunPanel[Choice]):
    """Watch a network learn a modality that it never saw, and take part.

    Parameters
    ----------
    choice : the settings to begin with; its pair count is cut to what there is.
    gather : loads the material of a choice; another function shows another world.
    counts : how many near and far pairs there are; None counts the shipped ones.
    classes : names of the classes.

    Attributes
    ----------
    runs : every run so far, the last one last.
    controls : name -> widget, of all that can be set.
    """

    name = "adaptation"

    def __init__(
        self,
        choice: Choice | None = None,
        gather: Callable[[Choice], Material] = gather,
        counts: Mapping[str, int] | None = None,
        classes: tuple[str, ...] = pocketrooms.CLASSES,
    ) -> None:
        counts = pair_counts() if counts is None else counts
        first, most = choice or Choice(), max(counts.values())
        first = replace(first, pairs=min(first.pairs, most))
        self.classes = classes
        self._gather = gather
        self._benches: dict[tuple[Any, ...], Bench] = {}
        self._snapshot: Snapshot | None = None
        self._layout: tuple[int, dict[str, NDArray[np.float32]]] | None = None
        self._base, self._later = first.recipe, first.later
        offered = experiments(first, counts.get("far", most))
        pictures = {
            "accuracy": session.LiveFigure(alt="Accuracy on held-out target images: no run yet."),
            "losses": session.LiveFigure(alt="Terms of the loss: no run yet."),
            "confusion": session.LiveFigure(alt="Confusion matrix: no run yet."),
            "map": session.LiveFigure(alt="Map of features: no run yet."),
        }
        weights = [name for name in (*LIVE, *NEXT) if name != "lambda_ti"]
        folded = {
            "More weights and length": [*weights, "method"],
            "Data": ["wrong", "sensor", "strength", "seed"],
            "Map": ["map", "hue"],
        }
        tips = {"run": "train with the settings shown"}
        super().__init__(
            first, offered, _table(first, most), pictures, folded, ("map", "hue", "method"), tips
        )
        self._map: session.Background[Snapshot] = session.Background(self._draw_map, self.box)
        for name in LIVE:
            post = session.guarded(self.box, lambda change, name=name: self.session.post(name, change["new"]))
            self.controls[name].observe(post, "value")
        self._on_change(("map", "hue"), self._redraw_map)
        self._on_change(("method",), self._take_method)
        self._ready()
        maps.warm_up()

    # settings

    @property
    def choice(self) -> Choice:
        """The settings that the controls show."""
        values = {name: control.value for name, control in self.controls.items()}
        recipe = self._base.replace(**_recipe_values(values, self._base))
        return Choice(recipe, **{name: values[name] for name in DATA}, later=self._later)

    def _values_of(self, choice: Choice) -> dict[str, Any]:
        self._base, self._later = choice.recipe, choice.later
        values = {name: getattr(choice.recipe, name) for name in (*LIVE, *NEXT)}
        return values | {name: getattr(choice, name) for name in DATA}

    def _moved(self) -> None:
        self._later = ()

    def _take_method(self) -> None:
        if method := self.controls["method"].value:
            self.set(replace(self.choice, recipe=Recipe.for_method(method), later=()))
            self.controls["method"].value = ""  # so that the same method can be chosen again

    def wait(self, timeout: float | None = None) -> str:
        """Wait for a run and for the pictures, and raise what went wrong; returns the session's state."""
        state = self.session.wait(timeout)
        self._map.wait(timeout)
        return super().wait(timeout) or state

    # the worker's side

    def _new_run(self, number: int, choice: Choice) -> AdaptationRun:
        weights = {name: self.controls[name].value for name in LIVE}
        for name, value in weights.items():
            self.session.post(name, value)
        return AdaptationRun(number, choice, classes=self.classes, weights=weights)

    def _events(self, run: AdaptationRun) -> Iterator[Step | replay.Observation]:
        choice = run.choice
        if choice.data not in self._benches:
            self._benches = {choice.data: prepare(self._gather(choice))}
        bench = self._benches[choice.data]
        run.levels, material = bench.levels, bench.material
        recipe = _LiveRecipe(choice.recipe, self.session.wishes)

        def begin() -> Iterator[Step | Epoch]:
            return adapt(material.source, material.target, material.pairs, recipe, seed=choice.seed)

        return replay.played(choice, begin, lambda event: observe(bench, event))

    def _note(self, run: AdaptationRun, step: Step) -> str:
        recipe = run.choice.recipe
        phase = "aligning" if step.epoch <= recipe.align_epochs else "all terms"
        return f"epoch {step.epoch} of {recipe.total_epochs}, {phase}"

    def _step(self, run: AdaptationRun, step: Step) -> None:
        run.add_losses(step.losses)
        now = {name: value for name, value in self.session.wishes().items() if name in LIVE}
        for name, value in now.items():
            if value != run.weights[name]:
                run.change(_label(name), run.weights[name], value, step.step, step.epoch)
        run.weights = now

    def _epoch(self, run: AdaptationRun, seen: replay.Observation) -> None:
        bench = self._benches[run.choice.data]
        run.answers = seen.seen["answers"].long().numpy()
        run.confusion = counts = confusion_of(bench.material.held_out, run.answers, len(self.classes))
        run.add(seen.epoch, accuracy=float(np.trace(counts) / max(counts.sum(), 1)))
        for epoch, name, value in run.choice.later:
            if epoch == seen.epoch:
                self._move({name: value})
        last = seen.epoch >= seen.epochs
        if (last or self._map.idle) and (sets := _map_sets(bench, seen)):
            self._snapshot = Snapshot(run, bench, seen.epoch, sets)
            self._map.post(self._snapshot, at_once=last)
        title = f"{run.name}, epoch {seen.epoch}: answers, % of each row"
        self.pictures["confusion"].post(lambda f: _draw_confusion(f, counts, self.classes, title), last)

    def _draw(self, run: AdaptationRun) -> None:
        over = run.outcome != "running"
        losses = {name: list(values) for name, values in run.losses.items() if np.isfinite(values).any()}
        changes, runs = list(run.changes), list(self.runs)
        last = max(r.choice.recipe.total_epochs for r in runs[-5:]) or 1
        self.pictures["losses"].post(lambda f: draw_losses(f, losses, changes), over)
        self.pictures["accuracy"].post(lambda f: draw_accuracy(f, runs, last), over)
        self._show_accuracy(run)

    def _clear(self, run: AdaptationRun | None) -> None:
        runs = list(self.runs)
        last = max([r.choice.recipe.total_epochs for r in runs[-5:]], default=1) or 1
        self.pictures["accuracy"].post(lambda f: draw_accuracy(f, runs, last), at_once=True)
        self.pictures["losses"].post(lambda f: draw_losses(f, {}, []), at_once=True)
        if run is None:
            self._snapshot, self._layout = None, None
            self._map.drop()
            self._map.wait(30)
            none = np.zeros((len(self.classes),) * 2, int)
            self.pictures["confusion"].post(
                lambda f: _draw_confusion(f, none, self.classes, "Answers, % of each row"), at_once=True
            )
            self.pictures["map"].post(
                lambda f: figures.map_frame(f.subplots(), "Map of features"), at_once=True
            )
            self._show_accuracy(None)

    def _end(self, run: AdaptationRun, state: str) -> None:
        if self._snapshot is not None and self._snapshot.run is run:
            self._map.post(self._snapshot, at_once=True)
        if run.choice.later:
            self.set(run.choice)  # a weight that moved by itself goes back to where the run began
        super()._end(run, state)

    # the map's own thread

    def _draw_map(self, snapshot: Snapshot) -> None:
        """PCA at once; UMAP as soon as it is warm, each map beginning where the last one of the run ended."""
        run = snapshot.run
        if run not in self.runs:
            return
        wants_umap = self.controls["map"].value == "UMAP"
        start = self._layout[1] if self._layout is not None and self._layout[0] == run.number else None
        if not wants_umap or not maps.is_warm() or start is None:
            points = maps.pca_map(snapshot.sets, fit_on=MAP_SETS[0])
            self._show_map(snapshot, points, "PCA" + (", UMAP follows" if wants_umap else ""))
        if not wants_umap or (self.session.running and not maps.is_warm()):
            return
        if not maps.is_warm():
            maps.warm_up().join(120)
        points = maps.joint_map(snapshot.sets, seed=run.choice.seed, start=start)
        self._layout = run.number, points
        self._show_map(snapshot, points, "joint UMAP")

    def _show_map(self, snapshot: Snapshot, points: Mapping[str, Any], kind: str) -> None:
        run = snapshot.run
        purity = maps.neighbour_purity(snapshot.sets[LINKS[0]], snapshot.sets[LINKS[1]])
        run.clouds = clouds_of(snapshot.bench, points)
        run.map_title = f"Map after epoch {snapshot.epoch}, {kind}"
        note = f"pairs: {100 * purity:.0f} % of neighbours are of the same half (50 % = mixed)"
        clouds, title, hue = run.clouds, run.map_title, self.controls["hue"].value

        def paint(figure: Figure | SubFigure) -> None:
            ax = figures.feature_map(
                clouds, self.classes, figure.subplots(), hue=hue, links=LINKS, title=title
            )
            ax.set_xlabel(note, fontsize=figures.TEXT, loc="left")

        self.pictures["map"].draw(paint)

    def _redraw_map(self) -> None:
        if self._snapshot is not None:
            self._map.post(self._snapshot, at_once=True)

    # numbers

    def tables(self) -> dict[str, Table]:
        """Settings and accuracies of all runs, terms of their losses, and the points of the last map."""
        epochs: list[Mapping[str, Any]] = []
        steps: list[Mapping[str, Any]] = []
        for run in self.runs:
            settings = {name: getattr(run.choice, name) for name in DATA}
            settings |= {f.name: getattr(run.choice.recipe, f.name) for f in fields(Recipe)}
            changed = "; ".join(map(str, run.changes))
            epochs += [
                {"held_out_accuracy": row.pop("accuracy")} | row | {"changed": changed}
                for row in run.rows(**settings)
            ]
            length = max((len(values) for values in run.losses.values()), default=0)
            steps += [
                {"run": run.number, "step": i + 1} | {name: v[i] for name, v in run.losses.items()}
                for i in range(length)
            ]
        return {"epochs": epochs, "losses": steps, "map": _map_rows(self.runs)}

    def _show_accuracy(self, run: AdaptationRun | None) -> None:
        if run is None or not run.epochs:
            self.headline.value = "Press <b>Run</b>." if run is None else ""
            return
        before = run.levels.get("source only", run.values["accuracy"][0])
        self.headline.value = (
            f"{run.name}, epoch {run.epochs[-1]}: <b>{100 * run.last('accuracy'):.1f}&nbsp;%</b> of the "
            f"held-out target images are named right (source only {100 * before:.1f}&nbsp;%). "
            f'<span style="opacity:.75">{UNSEEN.capitalize()}.</span>'
        )

    def _cells(self, run: AdaptationRun) -> dict[str, str]:
        choice, recipe = run.choice, run.choice.recipe
        at_work = [n for n in WEIGHTS if any(getattr(r.choice.recipe, n) > 0 for r in self.runs)]
        return {
            "sensor": f"{html.escape(choice.sensor)} × {choice.strength:g}",
            "pairs": f"{choice.pairs}, {choice.near:.0%} near"
            + (f", {choice.wrong:.0%} wrong" if choice.wrong else ""),
            **{_label_html(name): f"{getattr(recipe, name):g}" for name in at_work},
            "rate": f"{recipe.trunk_lr:.2g}",
            "epochs": f"{recipe.align_epochs}+{recipe.epochs}",
            "seed": f"{choice.seed}",
        }


def _table(first: Choice, most_pairs: int) -> dict[str, Control]:
    """Every control of the panel; those not folded come first."""
    recipe = first.recipe
    weights = {
        name: Control.of_recipe(
            name, getattr(recipe, name), f"{knobs()[name].label} {WORDS.get(name, '')}".strip()
        )
        for name in (*LIVE, *NEXT)
    }
    weights["trunk_lr"] = replace(weights["trunk_lr"], label="learning rate")
    sensors = [(sensor.title, name) for name, sensor in SENSORS.items()]
    methods = [("…", ""), *((figures.known_style(name, 0).title, name) for name in METHODS)]
    return {
        "lambda_ti": weights.pop("lambda_ti"),
        "pairs": Control("pairs", first.pairs, "task-irrelevant pairs", min(16, most_pairs), most_pairs, 1),
        "near": Control(
            "share of near rooms", first.near, "pairs that show rooms with the task's furniture",
            step=0.25, form=".0%",
        ),
        **weights,
        "method": Control("recipe of a method", "", "moves the sliders to it", options=methods),
        "wrong": Control(
            "wrong partners", first.wrong, "pairs whose depth is another pair's", step=0.25, form=".0%"
        ),
        "sensor": Control("sensor", first.sensor, "the depth camera of the target images", options=sensors),
        "strength": Control(
            "sensor errors", first.strength, "0: none, 1: as published, 3: thrice that", 0, STRONGEST, 0.25
        ),
        "seed": Control("seed", first.seed, "random seed", 0, 99, 1),
        "map": Control("map", "UMAP", "PCA is shown until UMAP is ready", options=("UMAP", "PCA")),
        "hue": Control("colour by", "class", "colour of the points", options=("class", "modality")),
    }  # fmt: skip


class _LiveRecipe:
    """The recipe of a run with the sliders' latest weights and rate: `adapt` calls it between two steps."""

    def __init__(self, base: Recipe, wishes: Callable[[], Mapping[str, Any]]) -> None:
        self.base, self.wishes = base, wishes
        self._seen: dict[str, Any] = {}
        self._now = base

    def __call__(self) -> Recipe:
        values = {name: value for name, value in self.wishes().items() if name in LIVE}
        if values != self._seen:
            self._now = self.base.replace(**_recipe_values(values, self.base))
            self._seen = values
        return self._now


def confusion_of(images: PairedImages, answers: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(K, K) counts of labelled images; row = true class, column = answer."""
    labels = images.labels.numpy()
    known = labels >= 0
    counts = np.bincount(labels[known] * classes + answers[known], minlength=classes**2)
    return counts.reshape(classes, classes)


def _draw_confusion(figure: Figure | SubFigure, counts: Any, classes: tuple[str, ...], title: str) -> None:
    ax = figures.confusion_matrix(counts, classes, figure.subplots(), title=title)
    ax.set_xticks(range(len(classes)), [name[:4] for name in classes], rotation=40)
    ax.set_aspect("auto")


def _map_rows(runs: list[Any]) -> list[dict[str, Any]]:
    """A row per point of the last run's map; points without a class of the task have none."""
    rows = []
    for name, cloud in (runs[-1].clouds if runs else {}).items():
        labels = [None] * len(cloud.points) if cloud.labels is None else cloud.labels.tolist()
        rows += [
            {"set": name, "modality": cloud.modality, "class": label, "x": float(x), "y": float(y)}
            for (x, y), label in zip(cloud.points, labels, strict=True)
        ]
    return rows


def _recipe_values(values: Mapping[str, Any], base: Recipe) -> dict[str, Any]:
    """Slider values as recipe fields; the one learning rate moves trunk and bottleneck by the same factor."""
    found = {name: values[name] for name in (*LIVE, *NEXT) if name in values}
    if "trunk_lr" in found:
        trunk, bottleneck = knobs()["trunk_lr"], knobs()["bottleneck_lr"]
        rate = float(np.clip(found["trunk_lr"], trunk.low, trunk.high))
        scaled = rate / base.trunk_lr * base.bottleneck_lr
        found |= {"trunk_lr": rate, "bottleneck_lr": float(np.clip(scaled, bottleneck.low, bottleneck.high))}
    return found


def _label(name: str) -> str:
    return "learning rate" if name == "trunk_lr" else knobs()[name].label


def _label_html(name: str) -> str:
    """λ_TI with an index."""
    stem, _, index = knobs()[name].label.partition("_")
    return f"{html.escape(stem)}<sub>{html.escape(index)}</sub>" if index else html.escape(stem)
