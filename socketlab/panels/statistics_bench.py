"""What the panel of batch-norm statistics shows, as plain values: one batch, a row of batches, matching runs.

Sliders are answered from `batch_moments`, which keeps every image's part and so knows every batch.
"""

from dataclasses import dataclass, field
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
from socketlab.method.adaptation import Epoch, adapt
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import Source, load_source

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
