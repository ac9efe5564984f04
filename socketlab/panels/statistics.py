"""The live panel of batch-norm statistics, and one channel of a layer seen close up.

`StatisticsPanel` compares running statistics with those of a batch while sliders move, and matches the two by
`adapt` with the loss L_BN alone, beside AdaBN. `ChannelView` shows what batch norm does to shift and stretch.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import ipywidgets as widgets
import pandas as pd  # type: ignore[import-untyped]

from socketlab.figures import figures, gap_figures, style
from socketlab.figures.style import Style
from socketlab.images import pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.measures import bn_moments
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.recipe import Recipe, knobs
from socketlab.networks.checkpoints import Source, load_source, source_for_modality
from socketlab.panels import session
from socketlab.panels.base import (
    Control,
    Table,
    accessible,
    box_of,
    controls_of,
    make_controls,
    setting,
    text_box,
)
from socketlab.panels.session import Canvas
from socketlab.panels.training import PanelRun, RunPanel
from socketlab.runs import replay

BATCHES = 60
WHERE = {"rgb": "new colour rooms", "depth": "depth"}
BY = {"batch": "the batch's statistics", "running": "the source's statistics"}
LAYERS = knobs()["bn_layers"]
OF_A_RUN = ("lambda_bn", "layers", "by", "epochs", "seed")
FIXED = {"bn_mode": "running", "test_statistics": "running", "trunk_lr": 0.005, "bottleneck_lr": 0.005}
RUNNING = {
    "torch": Style("unbiased, torch", "#0b6bcb", "", "-"),
    "biased": Style("biased", "#be185d", "", "--"),
    "mean": Style("mean: distance", "#8a939d", "", "-."),
}
PROFILE = {
    "batch": Style("this batch", "#159ab3", "^", "--"),
    "all": Style("source only", "#8a939d", "o", ":"),
    "adabn": Style("AdaBN", "#b8860b", "s", "-."),
    "matched": Style("matching", "#0b6bcb", "D", "-"),
}


@dataclass(frozen=True)
class StatisticsChoice:
    """What is measured, and how a matching run goes; the layer "" is the first.

    The layer's input is scale · x + shift · σ, with σ the remembered deviation.
    """

    layer: str = setting("", "layer", "of batch norm", live=True)
    modality: str = setting("depth", "batches of", "what the layer sees", options=WHERE)
    batch_size: int = setting(32, "batch", "images in a batch", 2, 128, 1, live=True)
    momentum: float = setting(0.1, "momentum", "weight of a batch in the average", 0, 1, 0.01, live=True)
    shift: float = setting(0.0, "shift of the input", "in running deviations", -2, 2, 0.1, live=True)
    scale: float = setting(1.0, "scale of the input", "the input times this", 0.25, 4, 0.05, live=True)
    seed: int = setting(0, "seed", "random seed of the batches and of a run", 0, 99, 1)
    lambda_bn: float = field(default=1.0, metadata={"control": Control.of_recipe("lambda_bn", 1.0)})
    layers: str = setting("all", "matched layers", LAYERS.help, options=LAYERS.choices)
    by: str = setting("batch", "normalised by", knobs()["bn_mode"].help, options=BY)
    epochs: int = setting(5, "epochs", "passes over the target images", 1, 20, 1)

    @property
    def recipe(self) -> Recipe:
        """L_BN alone, with the rates that the kit's own table uses (docs/results.md)."""
        about: dict[str, Any] = {"lambda_pl": 0.0, "lambda_im": 0.0, "lambda_bn": self.lambda_bn}
        about |= {"epochs": self.epochs, "bn_layers": self.layers}
        return Recipe.shot().replace(**about, **(FIXED if self.by == "running" else {}))


class StatisticsBench:
    """A network, unlabelled images of another modality, and held-out ones in both, for the reader alone.

    They are read once: what is here does not change while sliders move. `moments` are of the held-out images,
    by modality and layer; accuracies (`levels`) and gaps (`profiles`) are of what costs no training.
    """

    def __init__(self, source: Source, target: PairedImages, held_out: PairedImages) -> None:
        self.source, self.target = source, target
        self.moments = {m: _moments(source, held_out.only(m)) for m in held_out.modalities}
        self.layers = list(self.moments[target.modality])
        self.held_out = held_out.only(target.modality)
        self.levels = {"chance": 1 / len(source.classes)}
        self.profiles = {"all": self.gaps(source)}
        for title, name in (("source only", "source-only"), ("AdaBN", "adabn")):
            first: Any = next(iter(adapt(source, target, None, Recipe.for_method(name))))
            self.levels[title] = evaluate.accuracy(first.state.adapted, self.held_out)
            if name == "adabn":
                self.profiles[name] = self.gaps(first.state.adapted)

    def gaps(self, adapted: Source) -> list[float]:
        """How far a network's layers are, on held-out images, from the *source's* running statistics."""
        found = _moments(adapted, self.held_out)
        return bn_moments.layer_gaps(found, self.moments[self.target.modality])


def _moments(source: Source, images: PairedImages) -> dict[str, bn_moments.ImageMoments]:
    transform = source_for_modality(source, images).normalisation
    return bn_moments.image_moments(source.network, images, transform)


def shipped(sensor: str = "kinect_v1") -> StatisticsBench:
    """The kit's own rooms."""
    splits = ("target_adapt", ("depth",)), ("target_test", ("rgb", "depth"))
    images = (pocketrooms.load(split, sensor, modalities) for split, modalities in splits)
    return StatisticsBench(load_source(f"rgb_{sensor}"), *images)


class LayerReading:
    """Mean and variance of the channels of a layer: `remembered`, of one `batch`, of `everything`.

    `profile` has the batch's gap at every layer, `running` a row of batches as `bn_moments.convergence`, and
    `words` describes the batch in HTML.
    """

    def __init__(self, bench: StatisticsBench, choice: StatisticsChoice) -> None:
        layer, plain = choice.layer or bench.layers[0], bench.moments[choice.modality]
        here = plain[layer].changed(choice.scale, choice.shift)
        self.choice = replace(choice, layer=layer, batch_size=min(choice.batch_size, len(here)))
        rows = bn_moments.draws(len(here), self.choice.batch_size, BATCHES, choice.seed)
        self.remembered, self.batch, self.everything = here.remembered, here.batch(rows[0]), here.batch()
        self.profile = bn_moments.layer_gaps({**plain, layer: here}, plain, rows[0])
        self.running = bn_moments.convergence(here, rows, choice.momentum)
        n, gap = here.count(len(rows[0])), self.profile[bench.layers.index(layer)]
        of_all = float(bn_moments.divergence(self.everything, self.remembered).mean())
        self.words = (
            f"A batch of {len(rows[0])} gives N = {n:,} values per channel: before a variance is "
            f"remembered it is multiplied by N / (N − 1) = <b>{n / (n - 1):.6g}</b>. The batch is "
            f"<b>{gap:.3f}</b> nats from the memory, all images {of_all:.3f}."
        )
        if (choice.scale, choice.shift) != (1.0, 0.0):
            mean, var = self.remembered
            away = (self.everything[0] - mean) / (var + bn_moments.EPS).sqrt()
            self.words += (
                " In training the layer divides shift and scale out: its output stays as it was. In "
                f"evaluation its mean output is off by <b>{away.abs().mean():.2f}</b> standard deviations."
            )


@dataclass
class MatchingRun(PanelRun[StatisticsChoice]):
    """One matching run: L_BN of every step, and the gap of every layer after the last epoch seen."""

    losses: list[float] = field(default_factory=list)
    profile: list[float] = field(default_factory=list)


def draw_channels(figure: Canvas, found: LayerReading) -> None:
    """Remembered against measured statistics, a dot per channel; all images pale behind the batch."""
    modality = found.choice.modality
    styles = {"all images": Style("all images", style.PALE, "o", "")}
    styles[modality] = replace(style.modality_style(modality), title="this batch")
    sets = {"all images": found.everything, modality: found.batch}
    title = f"{found.choice.layer}, {WHERE.get(modality, modality)}"
    figures.channel_statistics(found.remembered, sets, title, figure=figure, styles=styles)


def draw_running(figure: Canvas, found: LayerReading) -> None:
    """Running statistics of the layer, batch by batch."""
    series = {name: (range(BATCHES + 1), y) for name, y in found.running.items()}
    title = f"Batches of {found.choice.batch_size}, momentum {found.choice.momentum:g}"
    top = 1.1 * max(1.0, *(max(y) for y in found.running.values()))
    figures.curves(
        series, figure.subplots(), title=title, xlabel="batches so far", ylabel="share / distance",
        levels={"all images": 1.0}, styles=RUNNING, ylim=(0, top),
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
    if name == "accuracy":
        series: Any = {run.name: run.curve(name) for run in runs[-5:]}
        top = 0.7 if max(levels.values(), default=0.0) < 0.5 else 1.05
        about: dict[str, Any] = {"title": "Accuracy on held-out depth", "ylim": (0, top), "levels": levels}
    else:
        series = {run.name: (range(1, len(run.losses) + 1), list(run.losses)) for run in runs[-5:]}
        about = {"title": "L_BN while matching", "xlabel": "step", "ylabel": "nats", "ylim": None}
    figures.curves(series, figure.subplots(), styles={run.name: run.style for run in runs}, **about)


class StatisticsPanel(RunPanel[StatisticsChoice]):
    """What a batch-norm layer remembers against what it measures, and what matching the two is worth.

    Sliders answer at once. **Run** takes gradient steps on L_BN alone, live, beside AdaBN. `gather` loads
    networks and images; another function shows another world.
    """

    name = "statistics"
    run_type = MatchingRun
    view = ("layer", "modality", "batch_size", "momentum", "shift", "scale")
    tips: ClassVar = {"run": "match statistics: gradient steps on L_BN alone"}
    folded: ClassVar = {"Matching": OF_A_RUN}

    def __init__(
        self, choice: StatisticsChoice | None = None, gather: Callable[[], StatisticsBench] = shipped
    ) -> None:
        first = choice or StatisticsChoice()
        self._gather = gather
        self._answer: LayerReading | None = None
        names = ("channels", "layers", "running", "accuracy", "loss")
        pictures = {name: f"{name}: the layers read their first images." for name in names}
        experiments = {
            "match all layers": first,
            "match the first layer": replace(first, layers="first"),
            "normalised by the source's statistics": replace(first, by="running"),
            "no weight, λ_d 0": replace(first, lambda_bn=0.0),
        }
        table = controls_of(first)
        table["layer"] = replace(table["layer"], options=[first.layer])
        super().__init__(first, experiments, table, pictures)
        self._asked = session.Background[bool](self._show, self.box, share=1.0)
        self.background.append(self._asked)
        self._on_change((*self.view, "seed"), self._ask)
        self._ready()

    def _run_of(self, choice: StatisticsChoice) -> StatisticsChoice:
        return StatisticsChoice(**{name: getattr(choice, name) for name in OF_A_RUN})

    def _values_of(self, choice: StatisticsChoice) -> dict[str, Any]:
        values = super()._values_of(choice)
        return values | {"layer": choice.layer or self.controls["layer"].options[0]}

    def bench(self) -> StatisticsBench:
        """Networks, images and what was measured once; the first call loads them."""
        return self._loaded("bench", self._gather)  # type: ignore[no-any-return]

    def _ask(self) -> None:
        self._asked.post(True, at_once=True)

    def _show(self, _: bool) -> None:
        bench, control = self.bench(), self.controls["layer"]
        if tuple(control.options) != tuple(bench.layers):
            control.options = bench.layers
            control.value = self.first.layer or bench.layers[0]
            self._draw_runs(at_once=True)
        found = self._answer = LayerReading(bench, self.choice)
        self.pictures["channels"].post(partial(draw_channels, found=found), at_once=True)
        self.pictures["running"].post(partial(draw_running, found=found), at_once=True)
        self._draw_profile()
        self.headline.value = found.words

    def _draw_profile(self) -> None:
        if self._answer is not None:
            layers, marked = self.bench().layers, self.controls["layer"].value
            gaps = {"batch": self._answer.profile, **self.bench().profiles}
            if matched := [run.profile for run in self.runs if run.profile]:
                gaps["matched"] = matched[-1]
            self.pictures["layers"].post(partial(draw_profile, layers=layers, gaps=gaps, marked=marked), True)

    def _events(self, run: MatchingRun) -> Iterator[Step | replay.Observation]:
        bench, choice = self.bench(), run.choice

        def begin() -> Iterator[Step | Epoch]:
            return adapt(bench.source, bench.target, None, choice.recipe, seed=choice.seed)

        def observe(event: Epoch) -> dict[str, Any]:
            adapted = event.state.adapted
            accuracy = evaluate.accuracy(adapted, bench.held_out)
            return {"accuracy": accuracy, "profile": bench.gaps(adapted)}

        return replay.played(self._run_of(choice), begin, observe)

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
        if self._kept:
            self._draw_runs(at_once=True)
        self._ask()

    def _cells(self, run: MatchingRun) -> dict[str, str]:
        c = run.choice
        first, last = (f"{run.losses[i]:.3f}" if run.losses else "–" for i in (0, -1))
        return {"λ<sub>d</sub>": f"{c.lambda_bn:g}", "layers": c.layers, "normalised by": BY[c.by],
                "seed": f"{c.seed}", "L<sub>BN</sub>": f"{first} → {last}"}  # fmt: skip

    def tables(self) -> dict[str, Table]:
        """Channels, layers, running averages and runs."""
        if (found := self._answer) is None:
            return {}
        channels: dict[str, Any] = {}
        sets = {"remembered": found.remembered, "batch": found.batch, "all_images": found.everything}
        for name, (mean, var) in sets.items():
            channels |= {f"{name}_mean": mean.numpy(), f"{name}_var": var.numpy()}
        gaps = {"batch": found.profile, **self.bench().profiles}
        gaps |= {run.name: run.profile for run in self.runs if run.profile}
        frames = {
            "channels": pd.DataFrame(channels).rename_axis("channel"),
            "layers": pd.DataFrame(gaps, self.bench().layers).rename_axis("layer"),
            "batches": pd.DataFrame(found.running).rename_axis("batch"),
        }
        tables = {name: frame.reset_index().to_dict("records") for name, frame in frames.items()}
        losses = [(run.number, i, loss) for run in self.runs for i, loss in enumerate(run.losses)]
        steps = [{"run": run, "step": step, "L_BN": loss} for run, step, loss in losses]
        epochs = [row for run in self.runs for row in run.rows(**asdict(self._run_of(run.choice)))]
        return {**tables, "steps": steps, "epochs": epochs}


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
        self.modality, layer = images.modality, layer or bn_moments.norm_names(source.network)[0]
        transform = source_for_modality(source, images).normalisation
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
        number, shift, scale, mode = (control.value for control in self.controls.values())
        channel = self.channels[number]
        out = {m: channel.output(scale, shift, m == "training") for m in ("training", "evaluation")}
        sets = {"input": (channel.input(scale, shift), channel.mean, channel.var**0.5),
                f"output in {mode}": (out[mode], channel.bias, abs(channel.weight))}  # fmt: skip
        about: dict[str, Any] = {"colour": style.modality_style(self.modality).colour, "name": "the source's"}
        self.picture.post(partial(gap_figures.histograms, sets=sets, **about), at_once=True)
        told = "{}: output mean <b>{:.2f}</b>, deviation <b>{:.2f}</b>"
        self.headline.value = "; ".join(told.format(m, y.mean(), y.std(correction=0)) for m, y in out.items())
