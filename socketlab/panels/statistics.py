"""The live panel of batch-norm statistics, and one channel of a layer seen close up.

`StatisticsPanel` compares running statistics with those of a batch, and matches the two by `adapt` with the
loss L_BN alone, beside AdaBN. `ChannelView` shows what batch norm does to shift and stretch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from ipywidgets import Dropdown, FloatSlider, IntSlider, SelectionSlider

from socketlab.figures import figures, gap_figures, style
from socketlab.figures.style import Style
from socketlab.images import pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.measures import bn_moments
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.losses import gaussian_divergence
from socketlab.method.recipe import Recipe, knobs
from socketlab.networks.checkpoints import Source, load_source, source_for_modality
from socketlab.panels import base, session
from socketlab.panels.base import RELEASED, controls_of, recipe_slider, setting, titled
from socketlab.panels.session import Canvas, Paint
from socketlab.panels.training import SHOWN_RUNS, PanelRun, RunPanel, draw_runs
from socketlab.runs import replay

WHERE = {"rgb": "new colour rooms", "depth": "depth"}
BY = {"batch": "the batch's statistics", "running": "the source's statistics"}
LAYERS = knobs()["bn_layers"]
FIXED = {"bn_mode": "running", "test_statistics": "running", "trunk_lr": 0.005, "bottleneck_lr": 0.005}
PROFILE = {
    "batch": Style("this batch", "#159ab3", "^", "--"),
    "matched": Style("matching", "#0b6bcb", "D", "-"),
}


@dataclass(frozen=True)
class StatisticsChoice:
    """What is measured, and how a matching run goes; the layer "" is the first."""

    layer: str = setting("", SelectionSlider, "layer", "of batch norm")
    modality: str = setting("depth", Dropdown, "batches of", "what the layer sees", options=titled(WHERE))
    batch_size: int = setting(32, IntSlider, "batch", "images in a batch", min=2, max=128)
    seed: int = setting(0, IntSlider, "seed", "random seed of the batches and of a run", max=99, **RELEASED)
    lambda_bn: float = field(default=1.0, metadata={"control": partial(recipe_slider, "lambda_bn")})
    layers: str = setting("all", Dropdown, "matched layers", LAYERS.help, options=LAYERS.choices)
    by: str = setting("batch", Dropdown, "normalised by", knobs()["bn_mode"].help, options=titled(BY))
    epochs: int = setting(5, IntSlider, "epochs", "passes over the target images", min=1, max=20, **RELEASED)

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
        adabn: Any = next(iter(adapt(source, target, None, Recipe.for_method("adabn"))))
        untrained = {"source only": source_for_modality(source, target), "AdaBN": adabn.state.adapted}
        self.levels = {"chance": 1 / len(source.classes)}
        self.levels |= {title: evaluate.accuracy(one, self.held_out) for title, one in untrained.items()}
        self.profiles = {"source-only": self.gaps(source), "adabn": self.gaps(adabn.state.adapted)}

    def gaps(self, adapted: Source) -> list[float]:
        """How far a network's layers are, on held-out images, from the *source's* running statistics."""
        return bn_moments.layer_gaps(_moments(adapted, self.held_out), self.moments[self.target.modality])


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

    `profile` has the batch's gap at every layer, and `words` describes the batch in HTML.
    """

    def __init__(self, bench: StatisticsBench, choice: StatisticsChoice) -> None:
        layer, moments = choice.layer or bench.layers[0], bench.moments[choice.modality]
        self.choice, here = replace(choice, layer=layer), moments[layer]
        rows = torch.randperm(len(here), generator=torch.Generator().manual_seed(choice.seed))
        rows = rows[: choice.batch_size]
        self.remembered, self.batch, self.everything = here.remembered, here.batch(rows), here.batch()
        self.profile = bn_moments.layer_gaps(moments, moments, rows)
        n, gap = len(rows) * here.places, self.profile[bench.layers.index(layer)]
        of_all = float(gaussian_divergence(*self.everything, *self.remembered).mean())
        self.words = (
            f"A batch of {len(rows)} gives N = {n:,} values per channel: before a variance is "
            f"remembered it is multiplied by N / (N − 1) = <b>{n / (n - 1):.6g}</b>. The batch is "
            f"<b>{gap:.3f}</b> nats from the memory, all images {of_all:.3f}."
        )


def draw_channels(figure: Canvas, found: LayerReading) -> None:
    """Remembered against measured statistics, a dot per channel; all images pale behind the batch."""
    modality = found.choice.modality
    styles = {"all images": Style("all images", style.PALE, "o", "")}
    styles[modality] = replace(style.modality_style(modality), title="this batch")
    sets = {"all images": found.everything, modality: found.batch}
    title = f"{found.choice.layer}, {WHERE.get(modality, modality)}"
    figures.channel_statistics(found.remembered, sets, title, figure=figure, styles=styles)


def draw_profile(figure: Canvas, layers: list[str], gaps: dict[str, list[float]], marked: str) -> None:
    """Distance of every layer from the source's memory; the layer of the sliders is shaded."""
    ax = gap_figures.layer_profile(
        layers, gaps, ax=figure.subplots(), title="Distance from the source's memory", ylabel="nats",
        styles=PROFILE, log=True,
    )  # fmt: skip
    place = layers.index(marked)
    ax.axvspan(place - 0.4, place + 0.4, color=style.GRID, alpha=0.6, linewidth=0, zorder=0)


def draw_losses(figure: Canvas, runs: list[PanelRun[StatisticsChoice]]) -> None:
    """L_BN over steps, of the last runs."""
    losses = {run.name: run.losses.get("BN", []) for run in runs[-SHOWN_RUNS:]}
    series = {name: (range(1, len(values) + 1), values) for name, values in losses.items()}
    about: dict[str, Any] = {"styles": {run.name: run.style for run in runs}, "ylabel": "nats", "ylim": None}
    figures.curves(series, figure.subplots(), title="L_BN while matching", xlabel="step", **about)


class StatisticsPanel(RunPanel[StatisticsChoice]):
    """What a batch-norm layer remembers against what it measures, and what matching the two is worth.

    Sliders answer at once. **Run** takes gradient steps on L_BN alone, live, beside AdaBN. `gather` loads
    networks and images; another function shows another world.
    """

    view: ClassVar = ("layer", "modality", "batch_size")
    live: ClassVar = ("layers", "accuracy", "loss")
    folded: ClassVar = {"Matching": ("lambda_bn", "layers", "by", "epochs", "seed")}

    def __init__(
        self, choice: StatisticsChoice | None = None, gather: Callable[[], StatisticsBench] = shipped
    ) -> None:
        first = choice or StatisticsChoice()
        self._gather = gather
        self._answer: LayerReading | None = None
        experiments = {
            "match all layers": first,
            "match the first layer": replace(first, layers="first"),
            "normalised by the source's statistics": replace(first, by="running"),
            "no weight, λ_d 0": replace(first, lambda_bn=0.0),
        }
        table = controls_of(first, layer={"options": [first.layer]})
        super().__init__(first, experiments, table, ("channels", *self.live))
        self._asked = session.Background[None](self._read, self.box)
        self.background.append(self._asked)
        ask = partial(self._asked.post, None, at_once=True)
        self._on_change((*self.view, "seed"), ask)
        ask()

    def _values_of(self, choice: StatisticsChoice) -> dict[str, Any]:
        return super()._values_of(choice) | {"layer": choice.layer or self.controls["layer"].options[0]}

    def bench(self) -> StatisticsBench:
        """Networks, images and what was measured once; the first call loads them."""
        return self._loaded("bench", self._gather)  # type: ignore[no-any-return]

    def _read(self, _: None) -> None:
        """In the background: what the controls ask for by now; the channels answer before the layers."""
        bench, control = self.bench(), self.controls["layer"]
        if len(control.options) < len(bench.layers):
            control.options = bench.layers
            control.value = self.first.layer or bench.layers[0]
        others = ("layers",) if self._answer else self.live
        self._answer = LayerReading(bench, self.choice)
        self.redraw("channels")
        self.redraw(*others, at_once=False)

    def _events(self, run: PanelRun[StatisticsChoice]) -> Iterator[Step | replay.Observation]:
        bench, choice = self.bench(), run.choice

        def observe(event: Epoch) -> dict[str, Any]:
            adapted = event.state.adapted
            return {"accuracy": evaluate.accuracy(adapted, bench.held_out), "profile": bench.gaps(adapted)}

        begin = partial(adapt, bench.source, bench.target, None, choice.recipe, seed=choice.seed)
        return replay.played(self._run_of(choice), begin, observe)

    def paints(self) -> dict[str, Paint]:
        """Nothing before the first images are read."""
        if (found := self._answer) is None:
            return {}
        bench, runs = self.bench(), list(self.runs)
        gaps = {"batch": found.profile, **bench.profiles}
        if matched := [run for run in runs if run.epochs]:
            gaps["matched"] = matched[-1].last("profile")
        top = 0.7 if max(bench.levels.values()) < 0.5 else 1.05
        about: Any = {"title": "Accuracy on held-out depth", "ylim": (0, top), "levels": bench.levels}
        return {
            "channels": partial(draw_channels, found=found),
            "layers": partial(draw_profile, layers=bench.layers, gaps=gaps, marked=found.choice.layer),
            "accuracy": partial(draw_runs, runs=runs, name="accuracy", **about),
            "loss": partial(draw_losses, runs=runs),
        }

    def told(self) -> str:
        """The batch in words."""
        return self._answer.words if self._answer else "The layers read their first images."


class ChannelView(base.Readable):
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
        self.box, self.headline = session.ErrorBox(), base.text_box("headline")
        tip = "of the input, in running deviations"
        self.controls: dict[str, Any] = {
            "channel": IntSlider(description="channel", tooltip=f"of {layer}", max=len(self.channels) - 1),
            "shift": FloatSlider(description="shift", tooltip=tip, min=-4, max=4),
            "scale": FloatSlider(1, description="stretch", tooltip="of it", min=0.25, max=4, step=0.05),
            "mode": Dropdown(description="mode", tooltip="of the layer", options=("training", "evaluation")),
        }
        for name, control in self.controls.items():
            base.named(name, control).observe(session.guarded(self.box, lambda _: self._show()), "value")
        self.picture = session.LiveFigure(860, 260, f"One channel of {layer}", self.box)
        parts = [base.box_of("column", list(self.controls.values())), self.picture.image]
        super().__init__([base.box_of("channel-view", parts), self.headline, self.box])
        self.add_class("socketlab-panel")
        self.accessible()
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
