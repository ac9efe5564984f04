"""The live panel of batch-norm statistics, and one channel of a layer seen close up.

`StatisticsPanel` compares running statistics with those of a batch while sliders move (`bn_moments` has every
image's part, from which any batch follows), and matches the two by `adapt` with the loss L_BN alone, beside
AdaBN. `ChannelView` shows what batch norm does to shift and stretch, in training and in evaluation.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure, SubFigure

from socketlab.figures import figures, gap_figures, style
from socketlab.figures.style import Style
from socketlab.images import encodings, pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.measures import bn_moments
from socketlab.measures.bn_moments import ImageMoments, Statistics
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.recipe import Recipe, knobs
from socketlab.networks.checkpoints import Source, load_source
from socketlab.panels import session
from socketlab.panels.base import Control, Table, accessible, box_of, make_controls, text_box
from socketlab.panels.training import PanelRun, RunPanel
from socketlab.runs import replay

Canvas = Figure | SubFigure
BATCHES, LARGEST, LONGEST = 60, 128, 20
WHERE = {"rgb": "new colour rooms", "depth": "depth"}
BY = {"batch": "the batch's statistics", "running": "the source's statistics"}
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
        """What a matching run depends on; all else as by default."""
        return StatisticsChoice(
            seed=self.seed, lambda_bn=self.lambda_bn, layers=self.layers, by=self.by, epochs=self.epochs
        )

    @property
    def recipe(self) -> Recipe:
        """L_BN alone, with the rates that the kit's own table uses (docs/results.md)."""
        alone = Recipe.shot().replace(lambda_pl=0.0, lambda_im=0.0, lambda_bn=self.lambda_bn)
        alone = alone.replace(epochs=self.epochs, bn_layers=self.layers)
        return alone.replace(**FIXED) if self.by == "running" else alone


def experiments(first: StatisticsChoice) -> dict[str, StatisticsChoice]:
    """Matching runs worth trying, by title."""
    return {
        "match all layers": first,
        "match the first layer": replace(first, layers="first"),
        "normalised by the source's statistics": replace(first, by="running"),
        "no weight, λ_d 0": replace(first, lambda_bn=0.0),
    }


@dataclass(frozen=True)
class StatisticsMaterial:
    """Networks and images: the source, unlabelled depth to match on, held-out rooms in colour and depth."""

    source: Source
    target: PairedImages
    held_out: PairedImages


@dataclass(frozen=True)
class StatisticsBench:
    """What does not change while sliders move: moments by modality and layer, accuracies and gaps by name."""

    material: StatisticsMaterial
    moments: dict[str, dict[str, ImageMoments]]
    levels: dict[str, float]
    profiles: dict[str, list[float]]

    @property
    def layers(self) -> list[str]:
        """Names of the batch-norm layers, in order."""
        return list(next(iter(self.moments.values())))


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
    transforms = {source.modality: source.normalisation}
    transforms[target] = encodings.measure(held_out.images[target], target)
    moments = {
        m: bn_moments.image_moments(source.network, held_out.only(m), transform)
        for m, transform in transforms.items()
    }
    depth, levels = held_out.only(target), {"chance": 1 / len(source.classes)}
    profiles = {"all": bn_moments.layer_gaps(moments[target], moments[target])}
    for title, name in (("source only", "source-only"), ("AdaBN", "adabn")):
        first: Any = next(iter(adapt(source, material.target, None, Recipe.for_method(name))))
        levels[title] = evaluate.accuracy(first.state.adapted, depth)
        if name == "adabn":
            profiles[name] = gaps_of(first.state.adapted, depth, moments[target])
    return StatisticsBench(material, moments, levels, profiles)


def gaps_of(adapted: Source, images: PairedImages, source: dict[str, ImageMoments]) -> list[float]:
    """How far an adapted network's layers are from the running statistics of the *source's*."""
    found = bn_moments.image_moments(adapted.network, images, adapted.normalisation)
    return bn_moments.layer_gaps(found, source)


@dataclass(frozen=True)
class Answer:
    """One batch, and a row of batches, at one layer.

    Parameters
    ----------
    remembered, batch, everything : mean and variance of the channels: running, of the batch, of all images.
    profile : gap of each layer, of the batch.
    running : as `bn_moments.convergence`.
    values, size : N, the values per channel behind a batch, and its images.
    gap, all_gap : divergence of the batch and of all images at this layer, nats.
    out_shift : mean size of the layer's output in evaluation, before γ and β; 0 on the source's images.
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
    layer, plain = choice.layer or bench.layers[0], bench.moments[choice.modality]
    moved = dict(plain) | {layer: plain[layer].changed(choice.scale, choice.shift)}
    here = moved[layer]
    rows = bn_moments.draws(len(here), min(choice.batch_size, len(here)), BATCHES, choice.seed)
    profile = bn_moments.layer_gaps(moved, plain, rows[0])
    everything, (m, r) = here.batch(), here.remembered
    return Answer(
        here.remembered, here.batch(rows[0]), everything, profile,
        running=bn_moments.convergence(here, rows, choice.momentum),
        values=here.count(len(rows[0])), size=len(rows[0]), gap=profile[bench.layers.index(layer)],
        all_gap=float(bn_moments.divergence(everything, here.remembered).mean()),
        out_shift=float(((everything[0] - m) / (r + bn_moments.EPS).sqrt()).abs().mean()),
    )  # fmt: skip


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


@dataclass
class MatchingRun(PanelRun[StatisticsChoice]):
    """One matching run: L_BN of every step, and the gap of every layer after the last epoch seen."""

    losses: list[float] = field(default_factory=list)
    profile: list[float] = field(default_factory=list)


# ------------------------------------------------------------------------ pictures


def draw_channels(figure: Canvas, found: Answer, choice: StatisticsChoice) -> None:
    """Remembered against measured statistics, a dot per channel; all images pale behind the batch."""
    styles = {"all images": Style("all images", style.PALE, "o", "")}
    styles[choice.modality] = replace(style.modality_style(choice.modality), title="this batch")
    sets = {"all images": found.everything, choice.modality: found.batch}
    title = f"{choice.layer}, {WHERE.get(choice.modality, choice.modality)}"
    figures.channel_statistics(found.remembered, sets, title, figure=figure, styles=styles)


def draw_running(figure: Canvas, found: Answer, choice: StatisticsChoice) -> None:
    """Running statistics of the layer, batch by batch."""
    series = {name: (range(BATCHES + 1), y) for name, y in found.running.items()}
    top = 1.1 * max(1.0, *(max(y) for y in found.running.values()))
    figures.curves(
        series, figure.subplots(), title=f"Batches of {found.size}, momentum {choice.momentum:g}",
        xlabel="batches so far", ylabel="share / distance", levels={"all images": 1.0}, styles=RUNNING,
        ylim=(0, top),
    )  # fmt: skip


def draw_profile(figure: Canvas, layers: list[str], gaps: dict[str, list[float]], marked: str) -> None:
    """Distance of every layer from the source's memory; the layer of the sliders is shaded."""
    ax = gap_figures.layer_profile(
        layers, gaps, ax=figure.subplots(), title="Distance from the source's memory", ylabel="nats",
        styles=PROFILE, log=True,
    )  # fmt: skip
    place = layers.index(marked)
    ax.axvspan(place - 0.4, place + 0.4, color=style.GRID, alpha=0.6, linewidth=0, zorder=0)


def draw_runs(figure: Canvas, runs: list[MatchingRun], name: str, levels: dict[str, float]) -> None:
    """Accuracy over epochs, or L_BN over steps, of the last five runs."""
    styles = {run.name: run.style for run in runs}
    if name == "accuracy":
        series: Any = {run.name: run.curve(name) for run in runs[-5:]}
        top = 0.7 if max(levels.values(), default=0.0) < 0.5 else 1.05
        about: dict[str, Any] = {"title": "Accuracy on held-out depth", "ylim": (0, top), "levels": levels}
    else:
        series = {run.name: (range(1, len(run.losses) + 1), list(run.losses)) for run in runs[-5:]}
        about = {"title": "L_BN while matching", "xlabel": "step", "ylabel": "nats", "ylim": None}
    figures.curves(series, figure.subplots(), styles=styles, **about)


# ------------------------------------------------------------------------ the panel


class StatisticsPanel(RunPanel[StatisticsChoice]):
    """What a batch-norm layer remembers against what it measures, and what matching the two is worth.

    Sliders answer at once. **Run** takes gradient steps on L_BN alone, live, beside AdaBN. `gather` loads
    networks and images; another function shows another world.
    """

    name = "statistics"
    run_type = MatchingRun
    live = ("layer", "modality", "batch_size", "momentum", "shift", "scale")

    def __init__(
        self, choice: StatisticsChoice | None = None, gather: Callable[[], StatisticsMaterial] = shipped
    ) -> None:
        first = choice or StatisticsChoice()
        self._gather, self._loading = gather, threading.Lock()
        self._bench: StatisticsBench | None = None
        self._answer: Answer | None = None
        self._cleared = True
        pictures = {
            name: session.LiveFigure(alt=f"{name}: the layers read their first images.")
            for name in ("channels", "running", "layers", "accuracy", "loss")
        }
        folded = {"Matching": ["lambda_bn", "layers", "by", "epochs", "seed"]}
        tips = {"run": "match statistics: gradient steps on L_BN alone"}
        super().__init__(first, experiments(first), _table(first), pictures, folded, self.live, tips)
        self._asked: session.Background[None] = session.Background(lambda _: self._show(), self.box, 1.0)
        self._on_change((*self.live, "seed"), self._ask)
        self._ready()

    def _run_of(self, choice: StatisticsChoice) -> StatisticsChoice:
        return choice.of_a_run

    def _values_of(self, choice: StatisticsChoice) -> dict[str, Any]:
        values = super()._values_of(choice)
        return values | {"layer": choice.layer or self.controls["layer"].options[0]}

    def bench(self) -> StatisticsBench:
        """Networks, images and what was measured once; the first call loads them."""
        with self._loading:
            if self._bench is None:
                self._bench = prepare(self._gather())
            return self._bench

    # showing

    def _ask(self) -> None:
        self._asked.post(None, at_once=True)

    def _show(self) -> None:
        bench, control = self.bench(), self.controls["layer"]
        if tuple(control.options) != tuple(bench.layers):
            control.options = bench.layers
            control.value = self.first.layer or bench.layers[0]
        choice = self.choice
        found = self._answer = answer(bench, choice)
        self.pictures["channels"].post(partial(draw_channels, found=found, choice=choice), at_once=True)
        self.pictures["running"].post(partial(draw_running, found=found, choice=choice), at_once=True)
        self._draw_profile()
        if self._cleared:
            self._cleared = False
            self._draw_runs(at_once=True)
        self.headline.value = in_numbers(choice, found)

    def _draw_profile(self) -> None:
        if self._answer is not None:
            bench = self.bench()
            gaps = {"batch": self._answer.profile, **bench.profiles}
            matched = [run.profile for run in self.runs if run.profile]
            gaps |= {"matched": matched[-1]} if matched else {}
            layers, marked = bench.layers, self.controls["layer"].value
            self.pictures["layers"].post(partial(draw_profile, layers=layers, gaps=gaps, marked=marked), True)

    def wait(self, timeout: float | None = None) -> str:
        """Wait for sliders, run and pictures, and raise what went wrong."""
        self._asked.wait(timeout)
        return super().wait(timeout)

    # a run

    def _events(self, run: MatchingRun) -> Iterator[Step | replay.Observation]:
        material, choice = self.bench().material, run.choice

        def begin() -> Iterator[Step | Epoch]:
            return adapt(material.source, material.target, None, choice.recipe, seed=choice.seed)

        return replay.played(choice.of_a_run, begin, self._observe)

    def _observe(self, event: Epoch) -> dict[str, Any]:
        """Accuracy of an epoch, and how far its layers are from the source's memory."""
        bench, adapted = self.bench(), event.state.adapted
        images, source = bench.material.held_out.only(adapted.modality), bench.moments[adapted.modality]
        return {"accuracy": evaluate.accuracy(adapted, images), "profile": gaps_of(adapted, images, source)}

    def _step(self, run: MatchingRun, step: Step) -> None:
        run.losses.append(float(step.losses.get("BN", 0.0)))

    def _epoch(self, run: MatchingRun, seen: replay.Observation) -> None:
        run.add(seen.epoch, accuracy=seen.seen["accuracy"])
        run.profile = seen.seen["profile"]

    def _draw(self, run: MatchingRun) -> None:
        self._draw_runs(run.outcome != "running")
        self._draw_profile()

    def _draw_runs(self, at_once: bool) -> None:
        runs, levels = list(self.runs), self.bench().levels
        for name in ("accuracy", "loss"):
            self.pictures[name].post(partial(draw_runs, runs=runs, name=name, levels=levels), at_once)

    def _clear(self, run: MatchingRun | None) -> None:
        self._cleared = True
        self._ask()

    def _cells(self, run: MatchingRun) -> dict[str, str]:
        c = run.choice
        first, last = (f"{run.losses[i]:.3f}" if run.losses else "–" for i in (0, -1))
        return {"λ<sub>d</sub>": f"{c.lambda_bn:g}", "layers": c.layers, "normalised by": BY[c.by],
                "seed": f"{c.seed}", "L<sub>BN</sub>": f"{first} → {last}"}  # fmt: skip

    def tables(self) -> dict[str, Table]:
        """Channels, layers, running averages and runs."""
        if self._answer is None:
            return {}
        found, bench = self._answer, self.bench()
        sets = {"remembered": found.remembered, "batch": found.batch, "all_images": found.everything}
        parts = [
            (f"{n}_{part}", pair[i]) for n, pair in sets.items() for i, part in enumerate(("mean", "var"))
        ]
        gaps = {
            "batch": found.profile,
            **bench.profiles,
            **{r.name: r.profile for r in self.runs if r.profile},
        }
        return {
            "channels": _rows("channel", {name: values.tolist() for name, values in parts}),
            "layers": _rows("layer", gaps, bench.layers),
            "batches": _rows("batch", found.running),
            "steps": [
                {"run": r.number, **row} for r in self.runs for row in _rows("step", {"L_BN": r.losses})
            ],
            "epochs": [row for r in self.runs for row in r.rows(**asdict(r.choice.of_a_run))],
        }


def _rows(name: str, columns: dict[str, list[float]], names: list[str] | None = None) -> list[dict[str, Any]]:
    """Columns as rows, each with its number or name."""
    keys = names or range(max(map(len, columns.values())))
    return [{name: key} | {c: values[i] for c, values in columns.items()} for i, key in enumerate(keys)]


def _table(first: StatisticsChoice) -> dict[str, Control]:
    """Every control of the panel."""
    names, by = ([(title, name) for name, title in names.items()] for names in (WHERE, BY))
    layers = knobs()["bn_layers"]
    return {
        "layer": Control("layer", first.layer, "of batch norm", options=[first.layer], steps=True, live=True),
        "modality": Control("batches of", first.modality, "what the layer sees", options=names),
        "batch_size": Control("batch", first.batch_size, "images in a batch", 2, LARGEST, 1, live=True),
        "momentum": Control("momentum", first.momentum, "weight of a batch in the average", 0.01, live=True),
        "shift": Control("shift of the input", first.shift, "in running deviations", -2, 2, 0.1, live=True),
        "scale": Control("scale of the input", first.scale, "the input times this", 0.25, 4, 0.05, live=True),
        "lambda_bn": Control.of_recipe("lambda_bn", first.lambda_bn),
        "layers": Control("matched layers", first.layers, layers.help, options=layers.choices or ()),
        "by": Control("normalised by", first.by, knobs()["bn_mode"].help, options=by),
        "epochs": Control("epochs", first.epochs, "passes over the target images", 1, LONGEST, 1),
        "seed": Control("seed", first.seed, "random seed of the batches and of a run", 0, 99, 1),
    }  # fmt: skip


# ------------------------------------------------------------------------ one channel


class ChannelView(widgets.VBox):
    """One channel of a batch-norm layer: shift and stretch its input, in training and in evaluation.

    In training the output stands still; in evaluation it runs away. By default: the first layer of the
    shipped network, and 32 depth images.
    """

    def __init__(
        self, source: Source | None = None, images: PairedImages | None = None, layer: str = ""
    ) -> None:
        if source is None or images is None:
            source = load_source("rgb_kinect_v1")
            images = pocketrooms.load("target_adapt", "kinect_v1", ("depth",)).take(range(32))
        name = self.modality = images.modality
        measured = encodings.measure(images.images[name], name)
        transform = source.normalisation if name == source.modality else measured
        layer = layer or bn_moments.norm_names(source.network)[0]
        self.channels = bn_moments.read_channels(source.network, images, layer, transform)
        self.controls = make_controls({
            "channel": Control("channel", 0, f"of {layer}", 0, len(self.channels) - 1, 1, live=True),
            "shift": Control("shift", 0.0, "of the input, in running deviations", -4.0, 4.0, 0.1, live=True),
            "scale": Control("stretch", 1.0, "the input times this", 0.25, 4.0, 0.05, live=True),
            "mode": Control("mode", "training", "of the layer", options=("training", "evaluation")),
        })  # fmt: skip
        self.box = session.ErrorBox()
        self.picture = session.LiveFigure(860, 260, f"One channel of {layer}", self.box, share=1.0)
        self.headline = text_box("headline")
        parts = [box_of("column", list(self.controls.values())), self.picture.image]
        super().__init__([box_of("channel-view", parts), self.headline, self.box])
        self.add_class("socketlab-panel")
        accessible(self)
        for control in self.controls.values():
            control.observe(session.guarded(self.box, lambda _: self._show()), "value")
        self._show()

    def _show(self) -> None:
        number, shift, scale, mode = (self.controls[n].value for n in ("channel", "shift", "scale", "mode"))
        channel = self.channels[number]
        out = {m: channel.output(scale, shift, m == "training") for m in ("training", "evaluation")}
        sets = {"input": (channel.input(scale, shift), channel.mean, channel.var**0.5),
                f"output in {mode}": (out[mode], channel.bias, abs(channel.weight))}  # fmt: skip
        about: dict[str, Any] = {"colour": style.modality_style(self.modality).colour, "name": "the source's"}
        self.picture.post(partial(gap_figures.histograms, sets=sets, **about), at_once=True)
        told = "{}: output mean <b>{:.2f}</b>, deviation <b>{:.2f}</b>"
        self.headline.value = "; ".join(told.format(m, y.mean(), y.std(correction=0)) for m, y in out.items())
