"""The live panel of batch-norm statistics: what a layer remembers, what a batch says, and matching the two.

Sliders are answered at once. Matching runs `adapt` with the loss L_BN
alone, beside AdaBN, which sets at once what matching approaches.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from socketlab.figures import figures, gap_figures
from socketlab.figures.figures import Style
from socketlab.images import encodings, pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.measures import bn_moments
from socketlab.measures.bn_moments import ImageMoments, Statistics
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.recipe import Recipe, knobs
from socketlab.networks.checkpoints import Source, load_source
from socketlab.panels import live_pictures, session
from socketlab.panels.exports import Table
from socketlab.panels.live_pictures import LiveChannels, LiveProfile
from socketlab.panels.old_base import (  # fmt: skip
    Panel,
    heading,
    in_a_row,
    in_words,
    menu,
    rows_table,
    said,
    share_bar,
    slider,
    slider_for,
    steps_slider,
    text_box,
    with_class,
)
from socketlab.runs import replay

BATCHES = 60
WHERE = {"rgb": "new colour rooms", "depth": "depth"}
FIXED = {"bn_mode": "running", "test_statistics": "running", "trunk_lr": 0.005, "bottleneck_lr": 0.005}
RUNNING = {
    "torch": Style("unbiased variance (torch)", "#0b6bcb", "", "-"),
    "biased": Style("biased variance", "#be185d", "", "--"),
    "mean": Style("mean, distance", "#8a939d", "", "-."),
}
PROFILE = {
    "batch": Style("this batch", "#159ab3", "^", "--"),
    "all": Style("source only", "#8a939d", "o", ":"),
    "adabn": Style("AdaBN", "#b8860b", "s", "-."),
    "matched": Style("matching", "#0b6bcb", "D", "-"),
}


# ------------------------------------------------------------------------ settings and runs


@dataclass(frozen=True)
class StatisticsChoice:
    """What is measured, and how a matching run goes.

    Parameters
    ----------
    layer : name of a batch-norm layer; "" is the first.
    modality : of the batch, "rgb" or "depth".
    batch_size : images in a batch, 2 to 128.
    momentum : how far the running average moves toward each batch, in [0, 1].
    shift, scale : what is done to the layer's input: scale · x + shift · σ, σ the remembered deviation.
    seed : of the batches, and of a run.
    lambda_bn : λ_d, weight of L_BN in a matching run.
    layers : which layers are matched: "all", "first", "early", "late".
    by : what normalises the batches of a run: "batch" or "running".
    epochs : of a run.
    """

    layer: str = ""
    modality: str = "depth"
    batch_size: int = 32
    momentum: float = 0.1
    shift: float = 0.0
    scale: float = 1.0
    seed: int = 0
    lambda_bn: float = 1.0
    layers: str = "all"
    by: str = "batch"
    epochs: int = 5

    @property
    def of_a_run(self) -> "StatisticsChoice":
        """What a matching run depends on; everything that is only looked at is as at the beginning."""
        return StatisticsChoice(
            seed=self.seed, lambda_bn=self.lambda_bn, layers=self.layers, by=self.by, epochs=self.epochs
        )

    @property
    def recipe(self) -> Recipe:
        """L_BN alone, with the rates that the kit's own table uses (docs/results.md)."""
        alone = Recipe.shot().replace(lambda_pl=0.0, lambda_im=0.0, lambda_bn=self.lambda_bn)
        alone = alone.replace(epochs=self.epochs, bn_layers=self.layers)
        return alone.replace(**FIXED) if self.by == "running" else alone


@dataclass(frozen=True)
class StatisticsMaterial:
    """Networks and images: the source, unlabelled depth to match on, held-out rooms in colour and depth."""

    source: Source
    target: PairedImages
    held_out: PairedImages


@dataclass
class StatisticsBench:
    """What does not change while sliders move."""

    material: StatisticsMaterial
    moments: dict[str, dict[str, ImageMoments]]
    levels: dict[str, float]
    profiles: dict[str, list[float]]

    @property
    def layers(self) -> list[str]:
        """Names of the batch-norm layers, in order."""
        return list(next(iter(self.moments.values())))


@dataclass
class MatchingRun:
    """One matching run that the panel keeps."""

    number: int
    choice: StatisticsChoice
    losses: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    profile: list[float] = field(default_factory=list)
    outcome: str = "running"

    @property
    def name(self) -> str:
        """How pictures and table call it."""
        return f"run {self.number}"

    @property
    def look(self) -> Style:
        """Its line."""
        return figures.run_style(self.number)


def shipped(sensor: str = "kinect_v1") -> StatisticsMaterial:
    """The kit's own rooms. The colour halves of the held-out rooms are for the reader's eyes alone."""
    return StatisticsMaterial(
        load_source(f"rgb_{sensor}"),
        pocketrooms.load("target_adapt", sensor, ("depth",)),
        pocketrooms.load("target_test", sensor, ("rgb", "depth")),
    )


def prepare(material: StatisticsMaterial) -> StatisticsBench:
    """Read all images once, and take the two levels that cost no training: source only and AdaBN."""
    source, held_out = material.source, material.held_out
    (target,) = (m for m in held_out.modalities if m != source.modality)
    own = encodings.measure(held_out.images[target], target)
    moments = {
        source.modality: bn_moments.image_moments(
            source.network, held_out.only(source.modality), source.normalisation
        ),
        target: bn_moments.image_moments(source.network, held_out.only(target), own),
    }
    begun = {name: beginning(material, name) for name in ("source-only", "adabn")}
    depth = held_out.only(target)
    levels = {
        "chance": 1 / len(source.classes),
        "source only": evaluate.accuracy(begun["source-only"], depth),
    }
    levels["AdaBN"] = evaluate.accuracy(begun["adabn"], depth)
    memory = {name: one.remembered for name, one in moments[target].items()}
    profiles = {"all": layer_gaps(moments[target], memory), "adabn": gaps_of(begun["adabn"], depth, memory)}
    return StatisticsBench(material, moments, levels, profiles)


def beginning(material: StatisticsMaterial, method: str) -> Source:
    """The network of a method before any training."""
    first = next(iter(adapt(material.source, material.target, None, Recipe.for_method(method))))
    assert isinstance(first, Epoch)
    return first.state.adapted


def layer_gaps(
    moments: dict[str, ImageMoments],
    memory: dict[str, Statistics],
    rows: torch.Tensor | None = None,
) -> list[float]:
    """Mean divergence over the channels of each layer, of a batch (None: all images) from a memory."""
    return [float(bn_moments.divergence(moments[name].batch(rows), memory[name]).mean()) for name in memory]


def gaps_of(adapted: Source, images: PairedImages, memory: dict[str, Statistics]) -> list[float]:
    """How far an adapted network's layers are from the *source's* memory."""
    found = bn_moments.image_moments(adapted.network, images, adapted.normalisation)
    return layer_gaps(found, memory)


@dataclass(frozen=True)
class Answer:
    """All that the sliders ask for.

    Parameters
    ----------
    remembered, batch, everything : mean and variance of the layer's channels: its memory, one batch, all
        images.
    profile : gap of each layer, of the batch.
    running : name in `RUNNING` -> one number before the first and after each batch.
    values : N, the values per channel behind a batch.
    gap, all_gap : divergence of the batch and of all images at this layer, nats.
    size : images in the batch.
    out_shift : mean size of the layer's output in evaluation, before its own scale and shift, where a batch
        like the source's would give 0.
    """

    remembered: Statistics
    batch: Statistics
    everything: Statistics
    profile: list[float]
    running: dict[str, list[float]]
    values: int
    gap: float
    all_gap: float
    out_shift: float
    size: int


def answer(bench: StatisticsBench, choice: StatisticsChoice) -> Answer:
    """Statistics of one batch and of a row of batches, from the moments of the images."""
    layer = choice.layer or bench.layers[0]
    plain = bench.moments[choice.modality]
    moved = dict(plain) | {layer: plain[layer].changed(choice.scale, choice.shift)}
    here = moved[layer]
    rows = bn_moments.draws(len(here), min(choice.batch_size, len(here)), BATCHES, choice.seed)
    memory = {name: one.remembered for name, one in plain.items()}
    batch, everything = here.batch(rows[0]), here.batch()
    profile = layer_gaps(moved, memory, rows[0])
    (mean, _), (m, r) = everything, here.remembered
    place = bench.layers.index(layer)
    return Answer(
        here.remembered,
        batch,
        everything,
        profile,
        converging(here, rows, choice.momentum),
        here.count(len(rows[0])),
        profile[place],
        float(bn_moments.divergence(everything, here.remembered).mean()),
        float(((mean - m) / (r + 1e-5).sqrt()).abs().mean()),
        len(rows[0]),
    )


def converging(here: ImageMoments, rows: list[torch.Tensor], momentum: float) -> dict[str, list[float]]:
    """Running statistics against those of all images, from the layer's memory on, batch by batch.

    "torch" and "biased" are variances of all channels together, as a share of that of all images; the first
    takes N / (N - 1) times a batch's variance, as torch does. "mean" is the mean distance of the running
    mean, in standard deviations of all images.
    """
    whole_mean, whole_var = here.batch()
    found = [here.batch(one) for one in rows]
    count = here.count(len(rows[0]))
    start_mean, start_var = here.remembered
    biased = bn_moments.running([var for _, var in found], momentum, start_var)
    unbiased = bn_moments.running([var * count / (count - 1) for _, var in found], momentum, start_var)
    means = bn_moments.running([mean for mean, _ in found], momentum, start_mean)
    away = ((means - whole_mean).abs() / (whole_var + 1e-5).sqrt()).mean(dim=1)
    return {
        "torch": (unbiased.sum(dim=1) / whole_var.sum()).tolist(),
        "biased": (biased.sum(dim=1) / whole_var.sum()).tolist(),
        "mean": away.tolist(),
    }


def in_numbers(choice: StatisticsChoice, found: Answer) -> str:
    """The batch in one paragraph, HTML."""
    n = found.values
    text = (
        f"A batch of {found.size} gives N = {n:,} values per channel: before a variance is remembered "
        f"it is multiplied by N / (N − 1) = <b>{n / (n - 1):.6g}</b>. The batch is <b>{found.gap:.3f}</b> "
        f"nats from the memory, all images {found.all_gap:.3f}."
    )
    if (choice.scale, choice.shift) != (1.0, 0.0):
        text += (
            " In training the layer divides shift and scale out: its output stays as it was. In evaluation "
            f"its mean output is off by <b>{found.out_shift:.2f}</b> standard deviations."
        )
    return text


def still_figure(bench: StatisticsBench, shown: list[StatisticsChoice], runs: list[MatchingRun]) -> Figure:
    """Channels and running averages of each setting, and below them layers and accuracies of the runs."""
    rows = len(shown) + 1
    figure = figures.new_figure(1180, 330 * rows)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    grid = figure.subplots(rows, 2, squeeze=False, width_ratios=(1, 1))
    for (left, right), choice in zip(grid, shown, strict=False):
        found = answer(bench, choice)
        _still_channels(found, choice, left)
        series = {RUNNING[name].title: (range(BATCHES + 1), y) for name, y in found.running.items()}
        looks = {look.title: look for look in RUNNING.values()}
        title = f"Running statistics, batches of {found.size}, momentum {choice.momentum:g}"
        about: dict[str, Any] = {"xlabel": "batches since the memory", "ylabel": "share / distance"}
        top = 1.1 * max(1.0, *(max(y) for y in found.running.values()))
        figures.curves(
            series, right, title=title, ylim=(0, top), levels={"all images": 1.0}, styles=looks, **about
        )
    gaps = {PROFILE[name].title: values for name, values in bench.profiles.items()}
    gaps |= {run.name: run.profile for run in runs if run.profile}
    looks = {look.title: look for look in PROFILE.values()} | {run.name: run.look for run in runs}
    about = {"title": "Distance from the source's memory", "ylabel": "nats", "styles": looks, "log": True}
    gap_figures.layer_profile(bench.layers, gaps, ax=grid[-1, 0], **about)
    curves = {run.name: (run.epochs, run.accuracies) for run in runs if run.epochs}
    title = "Accuracy on held-out depth" + ("" if curves else " (no matching run yet)")
    figures.curves(curves, grid[-1, 1], title=title, levels=bench.levels, styles=looks)
    return figure


def _still_channels(found: Answer, choice: StatisticsChoice, ax: Any) -> None:
    title = f"Deviations, {choice.layer}, batch of {found.size}"
    figures.dress(ax, title, "remembered", "measured", grid="both")
    known = found.remembered[1].sqrt().numpy()
    ends = [float(known.min()), float(known.max())]
    ax.plot(ends, ends, color=figures.SOFT, linewidth=1.2, linestyle=(0, (1, 2)))
    look = figures.modality_style(choice.modality)
    sets = {
        "all images": (found.everything, figures.PALE, "o"),
        "this batch": (found.batch, look.colour, look.marker),
    }
    told = []
    for name, ((_, var), colour, marker) in sets.items():
        seen = var.sqrt().numpy()
        ax.scatter(known, seen, s=40, color=colour, marker=marker, edgecolors="white", linewidths=0.4)
        ax.plot([], [], marker, color=colour, label=name)
        told.append(f"{name} {float(np.abs(seen - known).mean()):.2f}")
    ax.legend(fontsize=figures.TEXT, labelcolor=figures.INK, frameon=False, handletextpad=0.2)
    where = WHERE.get(choice.modality, choice.modality)
    figures.describe(ax, f"{title}, {where}: mean distance from what is remembered: {', '.join(told)}.")


# ------------------------------------------------------------------------ the panel


MOST, LATE = 128, 20
BY = {"batch": "the batch's statistics", "running": "the source's statistics"}
PARTS = ((0, "mean"), (1, "var"))


class StatisticsPanel(Panel):
    """What a batch-norm layer remembers against what it measures, and what matching the two is worth.

    Sliders answer at once. **Run** takes gradient steps on L_BN alone, live, beside AdaBN.

    Parameters
    ----------
    choice : the settings to begin with.
    gather : loads networks and images; another function shows another world.
    """

    name = "statistics"

    def __init__(
        self,
        choice: StatisticsChoice | None = None,
        gather: Callable[[], StatisticsMaterial] = shipped,
    ) -> None:
        super().__init__({"run": "match statistics: gradient steps on L_BN alone"})
        self._first, self._gather = choice or StatisticsChoice(), gather
        self._loading = threading.Lock()
        self._bench: StatisticsBench | None = None
        self.runs: list[MatchingRun] = []
        self._answer: Answer | None = None
        self._asked: session.Background[None] = session.Background(
            lambda _: self._show(), self.box, share=1.0
        )
        self._levelled = False
        self.controls = with_class(self._make_controls())
        self._make_pictures()
        self.children = self._arrange()
        self._listen()
        self._on_change(("layer", "modality", "batch_size", "momentum", "shift", "scale", "seed"), self._move)
        self._move()

    def __repr__(self) -> str:
        return f"StatisticsPanel with {len(self.runs)} runs: run this cell to see it live"

    @property
    def choice(self) -> StatisticsChoice:
        """The settings that the controls show."""
        return StatisticsChoice(**{name: control.value for name, control in self.controls.items()})

    def set(self, choice: StatisticsChoice) -> None:
        """Move all controls."""
        for name, control in self.controls.items():
            value = getattr(choice, name)
            control.value = control.options[0] if name == "layer" and not value else value

    def bench(self) -> StatisticsBench:
        """Networks, images and what was measured once; the first call loads them."""
        with self._loading:
            if self._bench is None:
                self._bench = prepare(self._gather())
            return self._bench

    # what the buttons do

    def reset(self) -> None:
        """Stop, forget all runs, settings as at the beginning."""
        self._halt()
        self.runs = []
        self.set(self._first)
        self._clear_runs(self._first)
        self.session.reset()
        self._move()

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the pictures and for a run, and raise what went wrong."""
        self._asked.wait(timeout)
        return self.session.wait(timeout)

    def tables(self) -> dict[str, Table]:
        """Channels, layers, running averages and runs."""
        if self._answer is None:
            return {}
        found, bench = self._answer, self.bench()
        columns = {"remembered": found.remembered, "batch": found.batch, "all_images": found.everything}
        channels = [
            {"channel": c}
            | {f"{name}_{part}": float(pair[i][c]) for name, pair in columns.items() for i, part in PARTS}
            for c in range(len(found.remembered[0]))
        ]
        gaps = {"batch": found.profile, **bench.profiles} | {
            r.name: r.profile for r in self.runs if r.profile
        }
        layers = [
            {"layer": layer} | {name: values[i] for name, values in gaps.items()}
            for i, layer in enumerate(bench.layers)
        ]
        batches = [
            {"batch": t} | {name: values[t] for name, values in found.running.items()}
            for t in range(BATCHES + 1)
        ]
        steps = [
            {"run": run.number, "step": i + 1, "L_BN": value}
            for run in self.runs
            for i, value in enumerate(run.losses)
        ]
        epochs = [
            {"run": run.number, "lambda_bn": run.choice.lambda_bn, "layers": run.choice.layers,
             "normalised_by": run.choice.by, "epoch": epoch, "held_out_accuracy": accuracy}
            for run in self.runs
            for epoch, accuracy in zip(run.epochs, run.accuracies, strict=True)
        ]  # fmt: skip
        return {"channels": channels, "layers": layers, "batches": batches, "steps": steps, "epochs": epochs}

    def still(self, extremes: bool = False, dpi: float = 100) -> Any:
        """A picture for readers without a kernel, as an IPython `Image` with its description.

        Parameters
        ----------
        extremes : also the smallest and the largest batch, in rows of their own.
        """
        self.wait()
        now = self.choice
        sizes = [2, now.batch_size, self.controls["batch_size"].max] if extremes else [now.batch_size]
        shown = [replace(now, batch_size=size) for size in dict.fromkeys(sizes)]
        with session.DRAW:
            figure = still_figure(self.bench(), shown, self.runs[-5:])
        return figures.show(figure, dpi)

    # showing

    def _move(self) -> None:
        """Answer at once where everything is loaded, else when it is."""
        if self._bench is None:
            self._asked.post(None, at_once=True)
        else:
            self._show()

    def _show(self) -> None:
        bench = self.bench()
        control = self.controls["layer"]
        if tuple(control.options) != tuple(bench.layers):
            self.profile.name_layers(bench.layers)
            control.options = bench.layers
            control.value = self._first.layer or bench.layers[0]
        choice = self.choice
        found = self._answer = answer(bench, choice)
        self.channels.draw(
            found.remembered,
            {"all": found.everything, choice.modality: found.batch},
            f"{choice.layer}: a dot per channel, {WHERE.get(choice.modality, choice.modality)}",
        )
        self.running.draw({name: (range(BATCHES + 1), y) for name, y in found.running.items()})
        self._draw_profile()
        if not self._levelled:
            self._clear_runs(choice)
        self.headline.value = said(in_numbers(choice, found))
        self.words.value = in_words(self.pictures)

    def _draw_profile(self) -> None:
        if self._answer is None:
            return
        bench = self.bench()
        shown = {"batch": self._answer.profile, **bench.profiles}
        done = [run for run in self.runs if run.profile]
        if done:
            shown["matched"] = done[-1].profile
        self.profile.mark(self.choice.layer)
        self.profile.draw(shown)

    # the worker's side

    def _begin(self) -> None:
        choice = self.choice
        run = MatchingRun(len(self.runs) + 1, choice)

        def events() -> Iterator[Step | replay.Observation]:
            self.box.clear()
            material = self.bench().material
            if self.session.stopping:
                return iter(())
            self.runs.append(run)
            self._clear_runs(choice)

            def begin() -> Iterator[Step | Epoch]:
                return adapt(material.source, material.target, None, choice.recipe, seed=choice.seed)

            return replay.played(choice.of_a_run, begin, self._look)

        self.session.start(
            events, lambda e: self._see(run, e), self._draw_runs, lambda state: self._end(run, state)
        )

    def _look(self, event: Epoch) -> dict[str, Any]:
        """Accuracy of an epoch, and how far its layers are from the source's memory."""
        bench = self.bench()
        adapted, images = event.state.adapted, bench.material.held_out.only(event.state.adapted.modality)
        memory = {name: one.remembered for name, one in bench.moments[adapted.modality].items()}
        return {"accuracy": evaluate.accuracy(adapted, images), "profile": gaps_of(adapted, images, memory)}

    def _see(self, run: MatchingRun, event: Step | replay.Observation) -> float | None:
        if isinstance(event, Step):
            run.losses.append(event.losses.get("BN", 0.0))
            self.session.note = f"epoch {event.epoch} of {run.choice.epochs}"
            if event.step == 1:
                self.losses.clear((0, event.steps))
            return event.step / event.steps
        run.epochs.append(event.epoch)
        run.accuracies.append(event.seen["accuracy"])
        run.profile = event.seen["profile"]
        return event.epoch / event.epochs if event.epochs else 1.0

    def _draw_runs(self) -> None:
        for run in self.runs[-5:]:
            self.losses.looks[run.name] = self.accuracy.looks[run.name] = run.look
        self.losses.draw({run.name: run.losses for run in self.runs[-5:] if run.losses})
        self.accuracy.draw({run.name: (run.epochs, run.accuracies) for run in self.runs[-5:] if run.epochs})
        self._draw_profile()

    def _end(self, run: MatchingRun, state: str) -> None:
        run.outcome = state
        self.table.value = table_of(self.runs)
        self.words.value = in_words(self.pictures)
        if state == "finished":
            self.tell_listeners()

    def _clear_runs(self, choice: StatisticsChoice) -> None:
        last = max([choice.epochs, 1, *[max(run.epochs, default=0) for run in self.runs[-5:]]])
        levels = self.bench().levels
        self.accuracy.ylim = (0, 0.7 if max(levels.values()) < 0.5 else 1.1)
        self.accuracy.clear((0, last), levels)
        self.losses.clear((0, 1))
        self.table.value = table_of(self.runs)
        self._levelled = True

    # making

    def _make_controls(self) -> dict[str, Any]:
        first = self._first
        names = [(title, name) for name, title in WHERE.items()]
        return {
            "layer": steps_slider("layer", [first.layer], first.layer, "which batch-norm layer"),
            "modality": menu("batches of", names, first.modality, "what the layer sees"),
            "batch_size": slider("batch", first.batch_size, 2, MOST, 1, "images in a batch"),
            "momentum": slider(
                "momentum", first.momentum, 0.01, 1.0, 0.01, "how far the average moves to a batch"
            ),
            "shift": slider("shift of the input", first.shift, -2.0, 2.0, 0.1, "in remembered deviations"),
            "scale": slider("scale of the input", first.scale, 0.25, 4.0, 0.05, "the input times this"),
            "seed": slider("which batches", first.seed, 0, 99, 1, "seed of the batches and of a run"),
            "lambda_bn": slider_for("lambda_bn", knobs()["lambda_bn"], first.lambda_bn),
            "layers": menu(
                "matched layers", knobs()["bn_layers"].choices, first.layers, knobs()["bn_layers"].help
            ),
            "by": menu("normalised by", [(t, n) for n, t in BY.items()], first.by, knobs()["bn_mode"].help),
            "epochs": slider("epochs", first.epochs, 1, LATE, 1, "passes over the target images"),
        }

    def _make_pictures(self) -> None:
        looks = {"all": Style("all images", figures.PALE, "o", "")}
        for modality in WHERE:
            known = figures.MODALITIES[modality]
            looks[modality] = Style(f"this batch, {known.title}", known.colour, known.marker, "")
        self.channels = LiveChannels(looks, 600, 344)
        self.running = live_pictures.LivePlot(
            tuple(RUNNING), title="Running statistics, batch by batch", xlabel="batches since the memory",
            ylabel="share / distance", xlim=(0, BATCHES), levels={"all images": 1.0}, looks=RUNNING,
            width=600, height=344,
        )  # fmt: skip
        self.profile = LiveProfile(
            [""], ("batch",), title="Distance from the source's memory, by layer", ylabel="nats",
            looks=PROFILE, width=520, height=404,
        )  # fmt: skip
        self.accuracy = live_pictures.LivePlot(
            (), title="Accuracy on held-out depth", xlabel="epoch", ylabel="accuracy", ylim=(0, 0.7),
            width=340, height=404,
        )  # fmt: skip
        self.losses = live_pictures.LivePlot((), title="L_BN while matching, nats", width=340, height=404)
        self.pictures = {
            "channels": self.channels, "running": self.running, "layers": self.profile,
            "accuracy": self.accuracy, "loss": self.losses,
        }  # fmt: skip
        self.headline = text_box("headline", lines=3)
        self.headline.value = said("The layers read their first images.")
        self.table = text_box("runs")

    def _arrange(self) -> list[Any]:
        c = self.controls
        names = ("layer", "modality", "batch_size", "momentum", "shift", "scale", "seed")
        return [
            heading("A layer and its batches", "answer at once"),
            in_a_row(*(c[name] for name in names)),
            self.headline,
            in_a_row(self.channels.image, self.running.image),
            heading("Matching", "gradient steps on L_BN alone, beside AdaBN; acts at the next run"),
            in_a_row(*(c[name] for name in ("lambda_bn", "layers", "by", "epochs"))),
            *self._bar(),
            in_a_row(self.profile.image, self.accuracy.image, self.losses.image),
            self.table,
            self.words,
        ]


def table_of(runs: list[MatchingRun]) -> str:
    """The runs kept, as an HTML table."""
    heads = [
        "run",
        "λ<sub>d</sub>",
        "layers",
        "normalised by",
        "seed",
        "L<sub>BN</sub>",
        "held-out accuracy",
        "",
    ]
    rows = []
    for run in runs:
        c, colour = run.choice, run.look.colour
        first, last = (f"{run.losses[i]:.3f}" if run.losses else "–" for i in (0, -1))
        rows.append([
            f'<span style="color:{colour}">●</span> {run.number}', f"{c.lambda_bn:g}", c.layers, BY[c.by],
            f"{c.seed}", f"{first} → {last}", share_bar((run.accuracies or [0.0])[-1], colour),
            run.outcome,
        ])  # fmt: skip
    return rows_table("Runs kept for comparison", "the loss of the first step and of the last", heads, rows)
