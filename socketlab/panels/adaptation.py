"""The live panel of an adaptation: sliders, buttons, pictures.

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

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from socketlab.errors import LabError
from socketlab.figures import figures, maps
from socketlab.files import data_folder, verified
from socketlab.images import pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.recipe import METHODS, Recipe, knobs
from socketlab.networks.checkpoints import Source, load_source
from socketlab.panels import session
from socketlab.panels.base import (
    LABEL,
    WIDE,
    Panel,
    heading,
    in_a_row,
    in_words,
    slider_for,
    text_box,
    with_class,
)
from socketlab.panels.exports import Table
from socketlab.runs import replay
from socketlab.runs.settings import Material

TARGET = "depth"
WEIGHTS = tuple(name for name in knobs() if name.startswith("lambda_"))
LIVE = (*WEIGHTS, "trunk_lr")
NEXT = ("align_epochs", "epochs")
DATA = ("sensor", "strength", "pairs", "near", "seed")
WORDS = {
    "lambda_ti": "pairs",
    "lambda_bn": "statistics",
    "lambda_pl": "pseudo-labels",
    "lambda_im": "information",
    "lambda_entropy": "entropy",
    "lambda_aad": "neighbours",
}
USUAL_TERMS = ("TI", "BN", "PL", "IM")
MAP_PAIRS, MAP_TARGETS = 200, 240
MAP_SETS = ("pairs, source half", "pairs, target half", "target images")
LINKS = MAP_SETS[:2]
UNSEEN = "labels unseen by the method: for the reader only"


# ------------------------------------------------------------------------ plain values


@dataclass(frozen=True)
class Choice:
    """What a run is asked to do, as plain values.

    Parameters
    ----------
    recipe : every number of the adaptation.
    sensor : a name in `SENSORS`.
    strength : of the sensor's errors, 0 to 3; 1 as published.
    pairs : how many task-irrelevant pairs.
    near : share of them that show near rooms, in [0, 1]; the others show far ones.
    seed : of everything that is drawn.
    """

    recipe: Recipe = field(default_factory=Recipe)
    sensor: str = "kinect_v1"
    strength: float = 1.0
    pairs: int = 400
    near: float = 1.0
    seed: int = 0

    @property
    def data(self) -> tuple[Any, ...]:
        """All that decides which images are loaded."""
        return self.sensor, self.strength, self.pairs, self.near, self.seed


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
class Run:
    """One run that the panel keeps."""

    number: int
    choice: Choice
    classes: tuple[str, ...] = ()
    epochs: list[int] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    levels: dict[str, float] = field(default_factory=dict)
    clouds: dict[str, figures.Cloud] = field(default_factory=dict)
    map_title: str = ""
    map_note: str = ""
    outcome: str = "running"
    recorded: bool = False
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """How pictures and table call it."""
        return f"run {self.number}"

    def add_losses(self, losses: Mapping[str, float]) -> None:
        """Add one step; a term that is not at work leaves a gap."""
        length = max((len(values) for values in self.losses.values()), default=0)
        for name in (*self.losses, *losses):
            values = self.losses.setdefault(name, [math.nan] * length)
            if len(values) == length:
                values.append(losses.get(name, math.nan))


@dataclass(frozen=True)
class Snapshot:
    """Features at one epoch: what the map is made of."""

    run: Run
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


def _look_at(bench: Bench, event: Epoch) -> dict[str, Any]:
    """The confusion; to be recorded, features of the beginning, of the alignment's end and of the end too."""
    seen = {"confusion": evaluate.confusion(event.state.adapted, bench.material.held_out)}
    if replay.recording() and event.epoch in (0, event.state.recipe.align_epochs, event.epochs):
        sets = map_features(bench, event.state.adapted)
        seen |= {name: torch.from_numpy(sets[name]).half() for name in MAP_SETS[1:]}
    return seen


def _map_sets(bench: Bench, look: replay.Observation) -> dict[str, NDArray[np.float32]]:
    """What the map of an epoch is made of; nothing where a recording kept no map."""
    if look.state is not None:
        return map_features(bench, look.state.adapted)
    kept = {name: look.seen[name].float().numpy() for name in MAP_SETS[1:] if name in look.seen}
    return {MAP_SETS[0]: bench.source_half} | kept if kept else {}


def clouds_of(bench: Bench, points: Mapping[str, NDArray[np.float32]]) -> dict[str, figures.Cloud]:
    """Positions with their modality, name and (target images only) class."""
    source, target = bench.material.source.modality, bench.seen.modality
    titles = (
        f"pairs, {figures.MODALITIES[source].short}",
        f"pairs, {figures.MODALITIES[target].short}",
        "target images",
    )
    labels = (None, None, bench.seen.labels.numpy())
    return {
        name: figures.Cloud(points[name], modality, title, label)
        for name, modality, title, label in zip(
            MAP_SETS, (source, target, target), titles, labels, strict=True
        )
    }


def pair_counts() -> dict[str, int]:
    """How many pairs ship: {"near": n, "far": m}."""
    with open(verified("pocketrooms/index.csv"), newline="", encoding="utf-8") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    return {kind: splits.count(f"ti_{kind}") for kind in ("near", "far")}


# ------------------------------------------------------------------------ widgets


class AdaptationPanel(Panel):
    """Watch a network learn a modality that it never saw, and take part.

    Parameters
    ----------
    choice : the settings to begin with; its pair count is cut to what there is.
    gather : loads the material of a choice; another function shows another world.
    counts : how many near and far pairs there are; None asks the shipped data.
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
        super().__init__({"run": "train with the settings shown"})
        self.classes = classes
        self.runs: list[Run] = []
        self._gather = gather
        self._benches: dict[tuple[Any, ...], Bench] = {}
        self._bench: Bench | None = None
        self._map: session.Background[Snapshot] = session.Background(self._draw_map, self.box)
        self._snapshot: Snapshot | None = None
        self._layout_run: tuple[int, dict[str, NDArray[np.float32]]] | None = None
        self._counts = dict(counts) if counts is not None else self._ask_counts()
        first = choice or Choice()
        most = max(self._counts.values(), default=first.pairs)
        self._first = Choice(
            first.recipe, first.sensor, first.strength, min(first.pairs, most), first.near, first.seed
        )
        self._base = self._first.recipe
        self.controls = with_class(self._make_controls(most))
        self._make_pictures()
        self.children = self._arrange()
        self._listen()
        self._tell_accuracy()
        maps.warm_up()

    def __repr__(self) -> str:
        return f"AdaptationPanel with {len(self.runs)} runs: run this cell to see it live"

    # what the sliders say

    @property
    def choice(self) -> Choice:
        """The settings that the sliders show."""
        values = {name: control.value for name, control in self.controls.items()}
        return Choice(
            recipe=self._base.replace(**_recipe_values(values, self._base)),
            sensor=values["sensor"],
            strength=values["strength"],
            pairs=values["pairs"],
            near=values["near"],
            seed=values["seed"],
        )

    def set(self, choice: Choice) -> None:
        """Move all sliders to a choice."""
        self._base = choice.recipe
        values = {name: getattr(choice.recipe, name) for name in (*LIVE, *NEXT)}
        values |= {name: getattr(choice, name) for name in DATA}
        for name, value in values.items():
            self.controls[name].value = value

    # what the buttons do

    def run(self, wait: bool = False, timeout: float | None = None) -> str:
        """Start a run with the settings shown, or let a paused one go on; never a second one beside it.

        Parameters
        ----------
        wait : return only at the end of the run (and of its map), and raise what made it fail.
        timeout : the most seconds to wait.

        Returns
        -------
        The state of the session: "running", "finished", ...
        """
        state = super().run(wait, timeout)
        if wait and not self.session.running:
            self._map.wait(timeout)
        return state

    def reset(self) -> None:
        """Stop, forget all runs, empty the pictures, move the sliders to where they began."""
        self._halt()
        self._map.drop()
        self._map.wait(30)
        self.runs, self._snapshot, self._layout_run = [], None, None
        self.controls["method"].value = ""
        self.set(self._first)
        self._clear_pictures(self.choice.recipe, {})
        self.map.clear()
        self.matrix.draw(np.zeros((len(self.classes),) * 2, int))
        self._tell_runs()
        self._tell_accuracy()
        self.session.reset()

    def still(self, dpi: float = 100, extremes: bool = False) -> Any:
        """A picture of the last run for readers without a kernel, as an IPython `Image` with its description.

        A run that is under way is waited for; when nothing has run yet, the settings shown run once.

        Parameters
        ----------
        extremes : run the settings shown, and each of them with the strongest sensor errors, the fewest pairs
            and without pairs: four runs.
        """
        if self.session.running:
            self.session.wait()
        if extremes:
            self._run_extremes()
        elif not self.runs:
            self.run()
            self.session.wait()
        self._map.wait(120)
        with session.DRAW:
            figure = still_figure(self.runs)
        return figures.show(figure, dpi)

    def _run_extremes(self) -> None:
        now = self.choice
        without = now.recipe.replace(lambda_ti=0.0, align_epochs=0)
        for choice in (
            replace(now, recipe=without),
            replace(now, pairs=self.controls["pairs"].min),
            replace(now, strength=self.controls["strength"].max),
            now,
        ):
            self.set(choice)
            self.run(wait=True)

    def tables(self) -> dict[str, Table]:
        """Settings and accuracies of all runs, terms of their losses, and the points of the last map."""
        rows, steps = [], []
        for run in self.runs:
            recipe = {f.name: getattr(run.choice.recipe, f.name) for f in fields(Recipe)}
            data = {name: getattr(run.choice, name) for name in DATA}
            rows += [
                {"run": run.number, "epoch": epoch, "held_out_accuracy": accuracy, **data, **recipe}
                for epoch, accuracy in zip(run.epochs, run.accuracies, strict=True)
            ]
            length = max((len(values) for values in run.losses.values()), default=0)
            steps += [
                {"run": run.number, "step": i + 1} | {name: v[i] for name, v in run.losses.items()}
                for i in range(length)
            ]
        return {"epochs": rows, "losses": steps, "map": _map_rows(self.runs)}

    # the worker's side

    def _begin(self) -> None:
        choice = self.choice
        run = Run(len(self.runs) + 1, choice, self.classes)
        for name in LIVE:
            self.session.post(name, self.controls[name].value)

        def events() -> Iterator[Step | replay.Observation]:
            self.box.clear()
            bench = self._bench_for(choice)
            if self.session.stopping:
                return iter(())
            run.levels = bench.levels
            self.runs.append(run)
            self._clear_pictures(choice.recipe, bench.levels)
            material = bench.material
            recipe = _LiveRecipe(choice.recipe, self.session.wishes)

            def begin() -> Iterator[Step | Epoch]:
                return adapt(material.source, material.target, material.pairs, recipe, seed=choice.seed)

            return replay.played(choice, begin, lambda event: _look_at(bench, event))

        self.session.start(
            events,
            lambda event: self._see(run, event),
            lambda: self._draw(run),
            lambda state: self._end(run, state),
        )

    def _bench_for(self, choice: Choice) -> Bench:
        """Load, or take what the last run loaded."""
        if choice.data not in self._benches:
            bench = prepare(self._gather(choice))
            self._benches = {choice.data: bench}
        self._bench = self._benches[choice.data]
        return self._bench

    def _see(self, run: Run, event: Step | replay.Observation) -> float | None:
        if isinstance(event, Step):
            begins = not run.losses
            run.add_losses(event.losses)
            if begins or _terms(run) != self.losses.names:
                self.losses.clear((0, event.steps), marks=_marks(run, event.steps), names=_terms(run))
            self.session.note = _phase(run, event.epoch)
            return event.step / event.steps
        bench = self._bench
        assert bench is not None
        run.recorded = event.state is None
        run.confusion = counts = event.seen["confusion"].numpy()
        run.epochs.append(event.epoch)
        run.accuracies.append(float(np.trace(counts) / max(counts.sum(), 1)))
        self.matrix.draw(counts)
        last = event.epoch >= event.epochs
        if (last or self._map.idle) and (sets := _map_sets(bench, event)):
            self._snapshot = Snapshot(run, bench, event.epoch, sets)
            self._map.post(self._snapshot, at_once=last)
        return event.epoch / event.epochs if event.epochs else 1.0

    def _draw(self, run: Run) -> None:
        self.losses.draw({name: run.losses[name] for name in _terms(run) if name in run.losses})
        self._draw_accuracy()
        self._tell_accuracy(run)

    def _draw_accuracy(self) -> None:
        shown = self.runs[-5:]
        for run in shown:
            self.accuracy.looks[run.name] = figures.run_style(run.number)
        self.accuracy.draw({run.name: (run.epochs, run.accuracies) for run in shown})

    def _end(self, run: Run, state: str) -> None:
        run.outcome = "recorded" if run.recorded and state == "finished" else state
        run.seconds = self.session.seconds
        if self._snapshot is not None and self._snapshot.run is run:
            self._map.post(self._snapshot, at_once=True)
        self._tell_runs()
        if state == "finished":
            self.tell_listeners()

    # the map's own thread

    def _draw_map(self, snapshot: Snapshot) -> None:
        """PCA at once; UMAP as soon as it is warm, each map beginning where the last one of the run ended."""
        run = snapshot.run
        if run not in self.runs:
            return
        apart = maps.neighbour_purity(snapshot.sets[LINKS[0]], snapshot.sets[LINKS[1]])
        note = f"pairs: {100 * apart:.0f} % of neighbours are of the same half (50 % = mixed)"
        wants_umap = self.controls["map"].value == "UMAP"
        same_run = self._layout_run is not None and self._layout_run[0] == run.number
        if not wants_umap or not (maps.is_warm() and same_run):
            points = maps.pca_map(snapshot.sets, fit_on=MAP_SETS[0])
            waiting = ", UMAP is on its way" if wants_umap else ""
            self._show_map(snapshot, points, f"Epoch {snapshot.epoch}: PCA of the source half{waiting}", note)
        if not wants_umap:
            return
        if not maps.is_warm():
            if self.session.running:
                return
            maps.warm_up().join(120)
        start = self._layout_run[1] if same_run and self._layout_run is not None else None
        points = maps.joint_map(snapshot.sets, seed=run.choice.seed, start=start)
        self._layout_run = (run.number, points)
        self._show_map(snapshot, points, f"Epoch {snapshot.epoch}: joint UMAP", note)

    def _show_map(self, snapshot: Snapshot, points: Mapping[str, Any], title: str, note: str) -> None:
        run = snapshot.run
        run.clouds, run.map_title, run.map_note = clouds_of(snapshot.bench, points), title, note
        self.map.draw(run.clouds, self.controls["hue"].value, title, note, LINKS)
        if not self.session.running:
            self._tell_pictures()

    # making

    def _ask_counts(self) -> dict[str, int]:
        try:
            return pair_counts()
        except LabError as error:
            self.box.show(error)
            return {}

    def _make_controls(self, most_pairs: int) -> dict[str, widgets.Widget]:
        first = self._first
        made = {}
        for name in (*LIVE, *NEXT):
            label = f"{knobs()[name].label} {WORDS.get(name, '')}".strip()
            made[name] = slider_for(name, knobs()[name], getattr(first.recipe, name), label)
        made["trunk_lr"].description = "learning rate"
        wide: dict[str, Any] = {"layout": WIDE, "style": LABEL}
        slow: dict[str, Any] = {**wide, "continuous_update": False}
        made["sensor"] = widgets.Dropdown(
            options=[(sensor.title, name) for name, sensor in SENSORS.items()],
            value=first.sensor,
            description="sensor",
            tooltip="the depth camera of the target images",
            layout={"width": "420px"},
            style=LABEL,
        )
        made["strength"] = widgets.FloatSlider(
            first.strength,
            min=0,
            max=3,
            step=0.25,
            description="sensor errors",
            readout_format=".2f",
            tooltip="0: none, 1: as published, 3: three times that",
            **slow,
        )
        made["pairs"] = widgets.IntSlider(
            first.pairs,
            min(16, most_pairs),
            most_pairs,
            step=1,
            description="pairs",
            tooltip="how many task-irrelevant pairs",
            **slow,
        )
        made["near"] = widgets.FloatSlider(
            first.near,
            min=0,
            max=1,
            step=0.25,
            description="share near",
            readout_format=".0%",
            tooltip="share of the pairs that show rooms with the task's furniture",
            **slow,
        )
        made["seed"] = widgets.BoundedIntText(
            first.seed, 0, 999, description="seed", tooltip="of everything that is drawn", **wide
        )
        made["method"] = widgets.Dropdown(
            options=[("…", ""), *[(figures.known_style(m, 0).title, m) for m in METHODS]],
            value="",
            description="start from",
            tooltip="moves the sliders to the recipe of a method",
            **wide,
        )
        small: dict[str, Any] = {
            "style": {"description_width": "auto"},
            "layout": widgets.Layout(width="190px"),
        }
        made["map"] = widgets.Dropdown(options=["UMAP", "PCA"], description="map", **small)
        made["hue"] = widgets.Dropdown(options=["class", "modality"], description="colour by", **small)
        return made

    def _make_pictures(self) -> None:
        classes = self.classes
        self.accuracy = session.LivePlot(
            (),
            title="Accuracy on held-out target images",
            xlabel="epoch",
            ylabel="accuracy",
            ylim=(0, 1.1),  # room for a name above 1
            width=450,
            height=344,
        )
        self.losses = session.LivePlot(
            USUAL_TERMS,
            title="Terms of the loss",
            titles={name: look.title for name, look in figures.TERMS.items()},
            looks=figures.TERMS,
            separate=True,
            smooth=0.9,
            width=450,
            height=344,
        )
        self.matrix = session.LiveMatrix(
            classes, title="True class (rows) and prediction, %", width=440, height=430
        )
        self.map = session.LiveScatter(classes, title="Map of features", width=620, height=430)
        self.headline = text_box("accuracy")
        self.table = text_box("runs")
        self.pictures = {
            "accuracy": self.accuracy,
            "losses": self.losses,
            "confusion": self.matrix,
            "map": self.map,
        }

    def _arrange(self) -> list[widgets.Widget]:
        def together(*names: str) -> widgets.Box:
            return in_a_row(*(self.controls[name] for name in names))

        return [
            heading("Weights and learning rate", "act at once, also during a run"),
            together(*LIVE, "method"),
            heading("Length and data", "act at the next run"),
            together(*NEXT, "strength", "pairs", "near", "seed", "sensor"),
            *self._bar(),
            self.headline,
            in_a_row(self.accuracy.image, self.losses.image),
            in_a_row(self.matrix.image, self.map.image),
            together("map", "hue"),
            self.table,
            self.words,
        ]

    def _listen(self) -> None:
        super()._listen()
        for name in LIVE:
            post = session.guarded(self.box, lambda change, name=name: self.session.post(name, change["new"]))
            self.controls[name].observe(post, "value")
        for name in ("map", "hue"):
            self.controls[name].observe(session.guarded(self.box, lambda _: self._redraw_map()), "value")
        self.controls["method"].observe(session.guarded(self.box, self._take_method), "value")

    def _take_method(self, change: Mapping[str, Any]) -> None:
        if change["new"]:
            now = self.choice
            self.set(Choice(Recipe.for_method(change["new"]), *now.data))
            self.controls["method"].value = ""  # so that the same method can be chosen again

    def _redraw_map(self) -> None:
        if self._snapshot is not None:
            self._map.post(self._snapshot, at_once=True)

    # telling

    def _clear_pictures(self, recipe: Recipe, levels: Mapping[str, float]) -> None:
        last = max([recipe.total_epochs, 1, *[max(run.epochs, default=0) for run in self.runs[-5:]]])
        marks = {"all terms": recipe.align_epochs} if 0 < recipe.align_epochs < recipe.total_epochs else {}
        self.accuracy.clear((0, last), levels, marks)
        self.losses.clear((0, 1))

    def _tell_accuracy(self, run: Run | None = None) -> None:
        text = "Press <b>Run</b>."
        if run is not None and run.accuracies:
            before, last = run.levels.get("source only", run.accuracies[0]), run.accuracies[-1]
            text = (
                f"{run.name}, epoch {run.epochs[-1]}: <b>{100 * last:.1f}&nbsp;%</b> of the held-out target "
                f"images are named right (source only {100 * before:.1f}&nbsp;%). "
                f'<span style="opacity:.75">{UNSEEN.capitalize()}.</span>'
            )
        self.headline.value = f'<div style="font-size:16px;line-height:1.4">{text}</div>'

    def _tell_runs(self) -> None:
        self.table.value = runs_table(self.runs)
        self._tell_pictures()

    def _tell_pictures(self) -> None:
        """The four pictures in words, folded; changed only while nothing runs."""
        self.words.value = in_words(self.pictures)


class _LiveRecipe:
    """The recipe of a run with the sliders' latest weights and rate: what `adapt` asks between two steps."""

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


def _map_rows(runs: list[Run]) -> list[dict[str, Any]]:
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
        about = knobs()["bottleneck_lr"]
        assert about.low is not None
        assert about.high is not None
        ratio = base.bottleneck_lr / base.trunk_lr
        found["trunk_lr"] = min(
            max(found["trunk_lr"], knobs()["trunk_lr"].low or 0.0), knobs()["trunk_lr"].high or 1.0
        )
        found["bottleneck_lr"] = min(max(found["trunk_lr"] * ratio, about.low), about.high)
    return found


def _phase(run: Run, epoch: int) -> str:
    recipe = run.choice.recipe
    phase = "aligning" if epoch <= recipe.align_epochs else "all terms"
    return f"epoch {epoch} of {recipe.total_epochs}, {phase}"


def _terms(run: Run) -> tuple[str, ...]:
    """Whose loss curves to show: SOCKET's four terms, or a run's own where it has others."""
    return tuple(run.losses) if set(run.losses) - set(USUAL_TERMS) else USUAL_TERMS


def _marks(run: Run, steps: int) -> dict[str, float]:
    recipe = run.choice.recipe
    if not 0 < recipe.align_epochs < recipe.total_epochs:
        return {}
    return {"all terms": steps * recipe.align_epochs / recipe.total_epochs}


# ------------------------------------------------------------------------ runs side by side


def runs_table(runs: list[Run]) -> str:
    """The runs kept, as an HTML table: settings, accuracy as number and bar, time."""
    if not runs:
        return ""
    weights = _weights_at_work(runs)
    about = [_label_html(knobs()[name].label) for name in weights]
    heads = [
        "run",
        "sensor",
        "errors",
        "pairs",
        "near",
        *about,
        "rate",
        "epochs",
        "seed",
        "held-out accuracy",
        "time",
    ]
    head = "".join(f'<th style="text-align:left;padding:2px 10px 2px 0">{name}</th>' for name in heads)
    rows = "".join(f"<tr>{''.join(_cells(run, weights))}</tr>" for run in runs)
    return (
        '<div style="font-size:15px;margin-top:6px"><b>Runs kept for comparison</b> '
        '<span style="opacity:.75">settings as each run began; accuracy after its last epoch</span></div>'
        f'<table style="font-size:14px;line-height:1.5;border-spacing:0"><tr>{head}</tr>{rows}</table>'
    )


def _weights_at_work(runs: list[Run]) -> list[str]:
    """Fields of the weights that some run has above 0."""
    return [name for name in WEIGHTS if any(getattr(run.choice.recipe, name) > 0 for run in runs)]


def _label_html(label: str) -> str:
    """λ_TI with an index."""
    stem, _, index = label.partition("_")
    return f"{html.escape(stem)}<sub>{html.escape(index)}</sub>" if index else html.escape(label)


def _cells(run: Run, weights: list[str]) -> list[str]:
    choice, recipe = run.choice, run.choice.recipe
    values = [
        choice.sensor,
        f"{choice.strength:g}",
        f"{choice.pairs}",
        f"{choice.near:.0%}",
        *[f"{getattr(recipe, name):g}" for name in weights],
        f"{recipe.trunk_lr:.2g}",
        f"{recipe.align_epochs}+{recipe.epochs}",
        f"{choice.seed}",
    ]
    colour = figures.run_style(run.number).colour
    last = run.accuracies[-1] if run.accuracies else 0.0
    bar = (
        f'<span style="display:inline-block;width:90px;height:10px;background:rgba(127,127,127,.25)">'
        f'<span style="display:block;width:{90 * last:.0f}px;height:10px;background:{colour}"></span></span> '
        f"<b>{100 * last:.1f}&nbsp;%</b>"
    )
    time = f"{run.seconds:.0f} s" + ("" if run.outcome == "finished" else f", {run.outcome}")
    first = f'<span style="color:{colour}">●</span> {run.number}'
    return [f'<td style="padding:2px 10px 2px 0">{cell}</td>' for cell in (first, *values, bar, time)]


def still_figure(runs: list[Run]) -> Figure:
    """The panel's four pictures of the last run, on one sheet."""
    run, shown = runs[-1], runs[-5:]
    with session.DRAW:
        figure = figures.new_figure(1180, 920)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
        cells = figure.add_gridspec(2, 2, width_ratios=(1, 1.15))
        figures.curves(
            {r.name: (r.epochs, r.accuracies) for r in shown},
            figure.add_subplot(cells[0, 0]),
            title="Accuracy on held-out target images",
            ylim=(0, 1.02),
            levels=run.levels,
            styles={r.name: figures.run_style(r.number) for r in shown},
        )
        _draw_terms(run, figure, cells[0, 1])
        if run.confusion is not None:
            table = figure.add_subplot(cells[1, 0])
            figures.confusion_matrix(
                run.confusion, run.classes, table, title=f"{run.name}: percent of each row"
            )
        if run.clouds:
            ax = figure.add_subplot(cells[1, 1])
            figures.feature_map(run.clouds, run.classes, ax, links=LINKS, title=run.map_title)
            ax.set_xlabel(run.map_note, fontsize=figures.TEXT)
    return figure


def _draw_terms(run: Run, figure: Figure, cell: Any) -> None:
    """Small axes for each term of the loss, in one cell of a sheet."""
    names = [name for name in _terms(run) if name in run.losses]
    small = cell.subgridspec(-(-max(len(names), 1) // 2), 2)
    for i, name in enumerate(names):
        look, values = figures.TERMS.get(name) or figures.known_style(name, i), run.losses[name]
        ax = figures.dress(
            figure.add_subplot(small[i // 2, i % 2]), xlabel="step" if i >= len(names) - 2 else ""
        )
        steps = np.arange(1, len(values) + 1)
        ax.plot(steps, values, color=look.colour, linewidth=1, alpha=0.3)
        ax.plot(steps, session.running_mean(values, 0.9), color=look.colour, linewidth=2.2)
        ax.set_title(look.title, fontsize=figures.TEXT, color=figures.INK, loc="left")
        ax.locator_params(axis="both", nbins=4)
        figures.describe(ax, f"{name} over {len(values)} steps, last value {values[-1]:.3g}.")
