"""The live panel of an adaptation: watch a network learn depth that only knew colour, and take part.

Weights and learning rate act at once, also in the middle of a run; all else acts at the next run.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from ipywidgets import Dropdown, FloatSlider, IntSlider
from sklearn.metrics import confusion_matrix  # type: ignore[import-untyped]

from socketlab.figures import figures, style
from socketlab.figures.film import Film, Snapshot
from socketlab.files import data_folder, read_csv, verified
from socketlab.images import pocketrooms
from socketlab.images.sensors import SENSORS, STRONGEST
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.recipe import METHODS, Recipe, knobs
from socketlab.networks.checkpoints import load_source, source_for_modality
from socketlab.panels.base import RELEASED, box_of, controls_of, named, recipe_slider, setting
from socketlab.panels.cards import Mistakes
from socketlab.panels.pairs import NEAR, SHARE, spoilt
from socketlab.panels.session import Canvas, Paint
from socketlab.panels.training import SHOWN_RUNS, PanelRun, RunPanel, draw_runs
from socketlab.runs import replay
from socketlab.runs.settings import Material

TARGET = "depth"
WEIGHTS = tuple(name for name in knobs() if name.startswith("lambda_"))
LIVE = (*WEIGHTS, "trunk_lr")
NEXT = ("align_epochs", "epochs")
LABELS = {name: knobs()[name].label for name in (*LIVE, *NEXT)} | {"trunk_lr": "learning rate"}
TERMS = ("paired alignment", "statistics", "pseudo-labels", "information", "entropy", "neighbours")
WORDS = dict(zip(WEIGHTS, TERMS, strict=True))
CAMERAS = [(sensor.title, name) for name, sensor in SENSORS.items()]
Slider = partial(FloatSlider, **RELEASED)
MAP_PAIRS, MAP_TARGETS, COMPONENTS, FEW = 200, 240, 16, 25
MAP_SETS = ("source half", "target half", "target images")


@dataclass(frozen=True)
class Choice:
    """The settings of a run.

    Parameters
    ----------
    pairs, near : how many task-irrelevant pairs, and which share of them shows near rooms, in [0, 1].
    wrong : share of the pairs whose target half belongs to another pair, in [0, 1].
    sensor, strength : a name in `SENSORS`, and how strong its errors are, 0 to 3; 1 as published.
    later : (epoch, field, value): weights that change after an epoch, by themselves.
    """

    recipe: Recipe = field(default_factory=Recipe)
    sensor: str = setting("kinect_v1", Dropdown, "sensor", "camera of the target images", options=CAMERAS)
    strength: float = setting(1.0, Slider, "sensor errors", "1: as published", max=STRONGEST, step=0.25)
    pairs: int = setting(500, IntSlider, "pairs", "task-irrelevant pairs", **RELEASED)
    near: float = setting(1.0, Slider, "share of near rooms", NEAR, step=0.25, **SHARE)
    wrong: float = setting(0.0, Slider, "wrong partners", "depth of another pair", step=0.25, **SHARE)
    seed: int = setting(0, IntSlider, "seed", "random seed", max=99, **RELEASED)
    later: tuple[tuple[int, str, float], ...] = ()


def experiments(first: Choice, far: int) -> dict[str, Choice]:
    """Experiments worth trying, title -> variation of ``first``; there are ``far`` far pairs."""
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


def methods(first: Choice) -> dict[str, Choice]:
    """Every method but that of ``first``, title -> ``first`` with its recipe."""
    titles = {method: f"method {style.known_style(method, 0).title}" for method in METHODS}
    found = {title: replace(first, recipe=Recipe.for_method(name)) for name, title in titles.items()}
    return {title: choice for title, choice in found.items() if choice != first}


@dataclass
class AdaptationRun(PanelRun[Choice]):
    """A run with features and confusion matrix by epoch, and the last answers."""

    levels: dict[str, float] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    answers: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.recipe = self.choice.recipe  # with what the sliders have changed since


def gather(choice: Choice) -> Material:
    """Load what a choice names, or raise `LabError`; no RGB image of the task is opened."""
    sensor, strength = choice.sensor, choice.strength
    source, oracle = load_source(f"rgb_{sensor}"), f"oracle_{TARGET}_{sensor}"
    splits = "target_adapt", "target_test"
    target, held_out = (pocketrooms.load(split, sensor, (TARGET,), strength) for split in splits)
    modalities = (source.modality, TARGET)
    pairs = pocketrooms.ti_pairs(sensor, choice.near, choice.pairs, modalities, choice.seed, strength)
    pairs = spoilt(pairs, TARGET, choice.wrong, shift=0)
    shipped = (data_folder() / "models" / f"{oracle}.safetensors").is_file()
    return Material([source], target, held_out, pairs, load_source(oracle) if shipped else None)


class Bench:
    """Images and networks of a choice, and what does not change during a run.

    The map shows `pairs` and the held-out rows `seen`, on the (D, C) principal `components` about `centre` of
    their features before the run. `levels` are accuracies to compare with.
    """

    def __init__(self, material: Material) -> None:
        assert material.pairs is not None
        self.material, source, held_out = material, material.source, material.held_out
        self.pairs = material.pairs.take(some(len(material.pairs), MAP_PAIRS))
        self.seen = some(len(held_out), MAP_TARGETS)
        adapted = source_for_modality(source, material.target)
        self.levels = {"chance": 1 / len(source.classes), "source only": evaluate.accuracy(adapted, held_out)}
        if material.oracle is not None:
            self.levels["oracle"] = evaluate.accuracy(material.oracle, held_out)
        halves = [evaluate.predict(net, self.pairs.only(net.modality))[1] for net in (source, adapted)]
        features = torch.cat([*halves, evaluate.predict(adapted, held_out.take(self.seen))[1]])
        self.centre = features.mean(dim=0)
        basis = torch.linalg.svd(features - self.centre, full_matrices=False).Vh
        self.components = basis[:COMPONENTS].T
        self.source_half = (halves[0] - self.centre) @ self.components
        names = (source.modality, adapted.modality)
        about: list[Any] = [(m, f"pairs, {style.MODALITIES[m].short}", None) for m in names]
        about.append((adapted.modality, "target images", held_out.labels[self.seen].numpy()))
        self.film_sets = dict(zip(MAP_SETS, about, strict=True))

    def observe(self, event: Epoch) -> dict[str, torch.Tensor]:
        """Answers for held-out images, and features of the map's target half and images on its components."""
        adapted = event.state.adapted
        logits, features = evaluate.predict(adapted, self.material.held_out)
        half = evaluate.predict(adapted, self.pairs.only(adapted.modality))[1]
        shown = (torch.cat([half, features[self.seen]]) - self.centre) @ self.components
        shown = shown.nan_to_num().clamp(-6e4, 6e4)  # what 16 bits hold
        return {"answers": logits.argmax(dim=1).to(torch.int16), "features": shown.half()}


def some(count: int, most: int) -> torch.Tensor:
    """Up to `most` of `count` rows, the same every time, in order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


def pair_counts() -> dict[str, int]:
    """How many pairs ship: {"near": n, "far": m}."""
    splits = [row["split"] for row in read_csv(verified("pocketrooms/index.csv"))]
    return {kind: splits.count(f"ti_{kind}") for kind in ("near", "far")}


def draw_accuracy(figure: Canvas, runs: list[AdaptationRun]) -> None:
    """Held-out accuracy of runs over epochs, with ticks where a weight was changed."""
    levels = runs[-1].levels if runs else None
    last = max([1, *(run.recipe.total_epochs for run in runs)])
    about: dict[str, Any] = {"title": "Accuracy on held-out target images", "ylim": (0, 1.02)}
    ax = draw_runs(figure, runs, "accuracy", levels=levels, **about)
    ax.set_xlim(-0.03 * last, 1.03 * last)
    for run in runs[-SHOWN_RUNS:]:
        for change in run.changes:
            ax.axvline(change.epoch, ymax=0.06, color=run.style.colour, linewidth=3)


def draw_losses(figure: Canvas, runs: list[AdaptationRun]) -> None:
    """The terms that are at work in the last run, over steps."""
    losses = runs[-1].losses if runs else {}
    shown = {n: (range(1, len(y) + 1), y) for n, y in losses.items() if np.isfinite(y).any()}
    if shown:
        marks = [change.step for change in runs[-1].changes]
        figures.loss_terms(figure, shown, 1 if len(shown) == 1 else 2, "step", 0.9, marks)
    else:
        figures.curves({}, figure.subplots(), title="Terms of the loss", xlabel="step", ylabel="loss")


# ------------------------------------------------------------------------ the panel


class AdaptationPanel(RunPanel[Choice]):
    """Watch a network learn a modality that it never saw, and take part.

    It begins with `choice`, whose pair count is cut to what `counts` has (default: the shipped pairs);
    `gather` loads the material of a choice.
    """

    run_type = AdaptationRun
    live: ClassVar = ("accuracy", "losses")
    folded: ClassVar = {
        "More weights, length": [*WEIGHTS[1:], "trunk_lr", *NEXT],
        "Data": ["wrong", "sensor", "strength", "seed"],
    }

    def __init__(
        self, choice: Choice | None = None, gather: Callable[[Choice], Material] = gather,
        counts: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        counts = pair_counts() if counts is None else counts
        first, most = choice or Choice(), max(counts.values())
        first = replace(first, pairs=min(first.pairs, most))
        self._gather = gather
        self.film: Film | None = None
        self.mistakes = Mistakes()
        self.below = (self.mistakes,)
        self._film_box = box_of("film-box", [])
        labels = {name: f"{LABELS[name]} {WORDS.get(name, '')}".strip() for name in (*LIVE, *NEXT)}
        recipe = {n: recipe_slider(n, getattr(first.recipe, n), label) for n, label in labels.items()}
        own = controls_of(first, pairs={"min": min(16, most), "max": most})
        table = {"lambda_ti": recipe["lambda_ti"], **own, **recipe}
        offered = experiments(first, counts.get("far", most)) | methods(first)
        super().__init__(first, offered, table, (*self.live, "confusion", "map"))

    def _grid(self) -> Any:
        """Two pictures at the left, the film at the right; confusion and map are drawn for stills alone."""
        images = [self.pictures[name].image for name in self.live]
        return named("pictures-film", box_of("pictures", [*images, self._film_box]))

    def _bench(self, choice: Choice) -> Bench:
        data = replace(choice, recipe=Recipe(), later=())  # all that decides which images are loaded
        return self._loaded(data, lambda: Bench(self._gather(choice)))  # type: ignore[no-any-return]

    # settings

    @property
    def choice(self) -> Choice:
        """The settings that the controls show."""
        shown: Choice = replace(super().choice, recipe=self._recipe(self._base.recipe, *NEXT))
        return shown if shown == self._base else replace(shown, later=())

    def _values_of(self, choice: Choice) -> dict[str, Any]:
        recipe = {name: getattr(choice.recipe, name) for name in (*LIVE, *NEXT)}
        return recipe | super()._values_of(choice)

    def _recipe(self, base: Recipe, *more: str) -> Recipe:
        """A recipe with the sliders' values; the learning rate also moves the bottleneck's, in proportion."""
        values = {name: self.controls[name].value for name in (*LIVE, *more)}
        rate, knob = values["trunk_lr"], knobs()["trunk_lr"]
        rates: Any = np.clip([rate, rate / base.trunk_lr * base.bottleneck_lr], knob.low, knob.high)
        return base.replace(**values | dict(zip(("trunk_lr", "bottleneck_lr"), rates.tolist(), strict=True)))

    # the worker's side

    def _events(self, run: AdaptationRun) -> Iterator[Step | replay.Observation]:
        choice, bench = run.choice, self._bench(run.choice)
        run.levels, material = bench.levels, bench.material
        self.mistakes.clear()
        recipe = partial(self._recipe, choice.recipe)  # `adapt` calls it between two steps
        begin = partial(adapt, material.source, material.target, material.pairs, recipe, seed=choice.seed)
        return replay.played(choice, begin, bench.observe)

    def _see(self, run: AdaptationRun, event: Step | replay.Observation) -> float:
        share = super()._see(run, event)
        if isinstance(event, Step):
            last, now = run.choice.recipe, self._recipe(run.choice.recipe)
            phase = "aligning" if event.epoch <= last.align_epochs else "all terms"
            self.session.note = f"epoch {event.epoch} of {last.total_epochs}, {phase}"
            for name in LIVE:
                before, after = getattr(run.recipe, name), getattr(now, name)
                if before != after:
                    run.change(LABELS[name], before, after, event.step, event.epoch)
            run.recipe = now
        return share

    def _epoch(self, run: AdaptationRun, event: replay.Observation) -> None:
        bench, seen = self._bench(run.choice), event.seen
        run.answers = seen["answers"].long()
        places = range(len(bench.material.source.classes))
        counts = confusion_matrix(bench.material.held_out.labels, run.answers, labels=places)
        run.add(event.epoch, accuracy=float(np.trace(counts) / counts.sum()))
        half, targets = seen["features"].float().split([len(bench.pairs), len(bench.seen)])
        sets = zip(MAP_SETS, (bench.source_half, half, targets), strict=True)
        title = f"epoch {event.epoch}" if event.epoch else "before"
        run.snapshots.append(Snapshot(title, {name: values.numpy() for name, values in sets}, counts))
        for epoch, name, value in run.choice.later:
            if epoch == event.epoch:
                self.controls[name].value = value
        self._show_film(run)

    def _end(self, run: AdaptationRun, state: str) -> None:
        if run.choice.later:  # a weight that moved by itself goes back
            self.set(run.choice)
        super()._end(run, state)
        if state != "failed" and run.answers is not None:
            self._show_film(run)
            held_out = self._bench(run.choice).material.held_out
            self.mistakes.of(held_out, run.answers, f"{run.name}, epoch {run.epochs[-1]}")

    def reset(self) -> None:
        """Stop, forget all runs, settings and pictures as at the beginning."""
        super().reset()
        self.film, self._film_box.children = None, ()
        self.mistakes.clear()

    # pictures

    def paints(self) -> dict[str, Paint]:
        """Curves of the runs, and the losses of the last one."""
        runs = list(self.runs)
        return {"accuracy": partial(draw_accuracy, runs=runs), "losses": partial(draw_losses, runs=runs)}

    def told(self) -> str:
        """The accuracy of the last run."""
        run = self.runs[-1] if self.runs else None
        if run is None or not run.epochs:
            return "Press <b>Run</b>."
        return (
            f"{run.name}, epoch {run.epochs[-1]}: <b>{100 * run.last('accuracy'):.1f}&nbsp;%</b> of the "
            f"held-out target images are named right (source only {100 * run.levels['source only']:.1f}"
            "&nbsp;%), by labels that the method never sees."
        )

    def _show_film(self, run: AdaptationRun) -> None:
        """Put the epochs of a run so far on one map, and show it in the place of the last one."""
        bench = self._bench(run.choice)
        classes = bench.material.source.classes
        film = Film.of_features(run.snapshots, bench.film_sets, classes, MAP_SETS[:2], fit_on=0)
        self.film, last = film, len(film.frames) - 1
        if self._film_box.children:
            self._film_box.children[0].film = film.data()
        else:
            self._film_box.children = (film.widget(),)
        if run.outcome != "running":
            title = f"{run.name}, {film.titles[-1]}"
            confusion = partial(figures.confusion_matrix, film.confusion[-1], classes, title=title)
            self.pictures["map"].post(lambda f: film.draw(last, f.subplots()), at_once=True)
            self.pictures["confusion"].post(lambda f: confusion(ax=f.subplots()), at_once=True)
