"""What the panel of paired alignment does, as plain values: pairs that are few, far, broken or shifted.

All runs are judged on the same pairs, kept aside, each with its own partner, and on held-out images of the
task.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from socketlab.errors import LabError
from socketlab.figures import figures
from socketlab.figures.figures import Style
from socketlab.images import pocketrooms
from socketlab.images.paired_images import PairedImages, index_images
from socketlab.measures import similarity
from socketlab.method import evaluate, losses
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import Source, load_source

KEPT = 400
LOOKED_AT = 100  # pairs of a run on which its own loss is measured
SHOWN = 6
WIDEST = 32


@dataclass(frozen=True)
class PairsChoice:
    """Which pairs, what is wrong with them, and how long the alignment goes.

    Parameters
    ----------
    pairs : how many.
    near : share of them that show rooms with the task's furniture, in [0, 1].
    broken : share of them whose target half belongs to another pair, in [0, 1].
    shift : pixels by which every target half is moved to the right, round the edge.
    epochs : of alignment; nothing else is trained.
    seed : of the training.
    """

    pairs: int = KEPT
    near: float = 1.0
    broken: float = 0.0
    shift: int = 0
    epochs: int = 6
    seed: int = 0

    @property
    def recipe(self) -> Recipe:
        """SOCKET's first part, alignment on pairs, alone."""
        return Recipe.socket().replace(align_epochs=self.epochs, epochs=0)

    @property
    def words(self) -> str:
        """What is special about it, in a few words."""
        told = [f"{self.pairs} pairs"]
        if self.near < 1:
            told.append("far" if self.near == 0 else f"{self.near:.0%} near".replace("%", " %"))
        if self.broken:
            told.append(f"{self.broken:.0%} broken".replace("%", " %"))
        if self.shift:
            told.append(f"shifted {self.shift} px")
        return ", ".join(told)


@dataclass(frozen=True)
class PairsStock:
    """Pairs to choose from, in a random order that stays: near ones, far ones, and those kept aside."""

    near: PairedImages
    far: PairedImages
    aside: PairedImages


@dataclass(frozen=True)
class PairsMaterial:
    """The source network, unlabelled target images, and held-out ones for the reader."""

    source: Source
    target: PairedImages
    held_out: PairedImages


@dataclass
class PairsRun:
    """One run that the panel keeps; a number per epoch, from before the first one."""

    number: int
    choice: PairsChoice
    epochs: list[int] = field(default_factory=list)
    given: list[float] = field(default_factory=list)
    aside: list[float] = field(default_factory=list)
    ranks: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    outcome: str = "running"
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """How pictures and table call it."""
        return f"run {self.number}"

    @property
    def look(self) -> Style:
        """Its line."""
        return figures.run_style(self.number)

    def add(self, epoch: int, found: dict[str, float]) -> None:
        """Take in what `judge` found after an epoch."""
        self.epochs.append(epoch)
        self.given.append(found["given"])
        self.aside.append(found["aside"])
        self.ranks.append(found["rank"])
        self.accuracies.append(found["accuracy"])

    def rows(self) -> list[dict[str, Any]]:
        """A row per epoch, for a table."""
        choice = {
            "run": self.number,
            "pairs": self.choice.pairs,
            "near": self.choice.near,
            "broken": self.choice.broken,
            "shift": self.choice.shift,
            "seed": self.choice.seed,
        }
        columns = zip(self.epochs, self.given, self.aside, self.ranks, self.accuracies, strict=True)
        names = ("epoch", "L_TI_given", "L_TI_aside", "partner_rank", "held_out_accuracy")
        return [choice | dict(zip(names, row, strict=True)) for row in columns]


def shipped_stock(sensor: str = "kinect_v1") -> PairsStock:
    """The kit's pairs; of the near ones a hundred are kept aside."""
    near, far = (pocketrooms.ti_pairs(sensor, mix) for mix in ("near", "far"))
    order, other = (torch.randperm(len(x), generator=torch.Generator().manual_seed(0)) for x in (near, far))
    return PairsStock(near.take(order[:KEPT]), far.take(other), near.take(order[KEPT:]))


def shipped_material(sensor: str = "kinect_v1") -> PairsMaterial:
    """The kit's network and target images; no colour image of the task is opened."""
    target, held_out = (
        pocketrooms.load(split, sensor, ("depth",)) for split in ("target_adapt", "target_test")
    )
    return PairsMaterial(load_source(f"rgb_{sensor}"), target, held_out)


def mixed_pairs(stock: PairsStock, count: int, near: float) -> PairedImages:
    """The first `count` pairs of which a share is near: fewer pairs are always among the more.

    Raises
    ------
    LabError : more pairs than there are.
    """
    of_near = round(near * count)
    for wanted, there in ((of_near, stock.near), (count - of_near, stock.far)):
        if wanted > len(there):
            raise LabError(f"{wanted} pairs were asked for, but there are {len(there)}: choose fewer.")
    if of_near == count:
        return stock.near.take(range(count))
    if of_near == 0:
        return stock.far.take(range(count))
    both = pocketrooms.join(stock.near.take(range(of_near)), stock.far.take(range(count - of_near)))
    return both.take(torch.randperm(count, generator=torch.Generator().manual_seed(0)))


def wrong_rows(count: int, share: float) -> Tensor:
    """(count,) which pair each target half is taken from: the first ones in a ring, the rest their own."""
    broken = round(share * count)
    rows = torch.arange(count)
    rows[:broken] = rows[:broken].roll(1)
    return rows


def spoilt(pairs: PairedImages, modality: str, broken: float, shift: int) -> PairedImages:
    """The same pairs with wrong partners for a share of them, and every target half moved to the right.

    Parameters
    ----------
    modality : of the halves that are exchanged and moved.
    """
    halves = index_images(pairs.images[modality], wrong_rows(len(pairs), broken))
    bits = halves.view(torch.int16) if halves.dtype is torch.uint16 else halves
    moved = bits.roll(shift, dims=3).view(halves.dtype)
    return replace(pairs, images={**pairs.images, modality: moved})


def given_pairs(stock: PairsStock, choice: PairsChoice, source: str = "rgb") -> PairedImages:
    """The pairs of a choice, as a run gets them."""
    pairs = mixed_pairs(stock, choice.pairs, choice.near)
    (target,) = (m for m in pairs.modalities if m != source)
    return spoilt(pairs, target, choice.broken, choice.shift)


def evenly(count: int, most: int) -> Tensor:
    """At most so many rows, evenly spaced."""
    return torch.linspace(0, count - 1, min(most, count)).round().long()


class PairsWorld:
    """Loads pairs and material when they are first asked for, from any thread.

    Parameters
    ----------
    stock, material : load them; other functions show another world.
    most : the most pairs that can be asked for.
    """

    def __init__(
        self,
        stock: Callable[[], PairsStock] = shipped_stock,
        material: Callable[[], PairsMaterial] = shipped_material,
        most: int = KEPT,
    ) -> None:
        self._load_stock, self._load_material, self.most = stock, material, most
        self._lock = threading.RLock()
        self._stock: PairsStock | None = None
        self._material: PairsMaterial | None = None
        self._wanted: Tensor | None = None

    @property
    def ready(self) -> bool:
        """Whether pairs can be shown at once."""
        return self._stock is not None

    @property
    def stock(self) -> PairsStock:
        """The pairs."""
        with self._lock:
            if self._stock is None:
                self._stock = self._load_stock()
            return self._stock

    @property
    def material(self) -> PairsMaterial:
        """Network and target images."""
        with self._lock:
            if self._material is None:
                self._material = self._load_material()
            return self._material

    def judge(self, student: Source, given: PairedImages) -> dict[str, float]:
        """How far a network is: L_TI on pairs that it is given and on those kept aside, rank, accuracy."""
        material, aside = self.material, self.stock.aside
        if self._wanted is None:
            self._wanted = evaluate.predict(material.source, aside.only(material.source.modality))[1]
        found = evaluate.predict(student, aside.only(student.modality))[1]
        some = given.take(evenly(len(given), LOOKED_AT))
        ours, theirs = (evaluate.predict(s, some.only(s.modality))[1] for s in (material.source, student))
        return {
            "given": float(losses.paired_alignment(ours, theirs)),
            "aside": float(losses.paired_alignment(self._wanted, found)),
            "rank": float(similarity.pair_alignment(self._wanted, found).median_rank[0]),
            "accuracy": evaluate.accuracy(student, material.held_out),
        }


def tiles(given: PairedImages, broken: float, source: str = "rgb") -> tuple[list[Any], list[str], str]:
    """Some pairs as a run gets them: source halves, then target halves; titles; the picture in words."""
    rows = evenly(len(given), SHOWN)
    (target,) = (m for m in given.modalities if m != source)
    wrong = wrong_rows(len(given), broken)[rows] != rows
    depths = given.images[target].to(torch.int32)
    reach = 1000.0 * max(1, int(np.ceil(np.percentile(depths[rows], 99) / 1000)))
    images = [figures.paint(given.images[m][int(row)], m, reach) for m in (source, target) for row in rows]
    kinds = [given.kinds[int(row)].replace("_", " ") for row in rows]
    titles = [f"{kind}\nwrong partner" if bad else kind for kind, bad in zip(kinds, wrong, strict=True)]
    words = f"{len(given)} pairs are given, {len(rows)} are shown, {int(wrong.sum())} with a wrong partner"
    return images, titles, f"{words}: {', '.join(kinds)}."


def still_figure(given: PairedImages, broken: float, runs: list[PairsRun], chance: float) -> Figure:
    """Some pairs as they were given, and below them three curves of the runs."""
    images, titles, words = tiles(given, broken)
    figure = figures.new_figure(1180, 760 + 24 * len(runs))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    parts: Any = figure.subfigures(3, 1, height_ratios=(0.9, 1, 0.06 * len(runs) + 0.04))
    above, below, last = parts
    grid = above.subplots(2, len(titles), squeeze=False)
    for ax, image in zip(grid.flat, images, strict=True):
        ax.imshow(image, interpolation="nearest")
        ax.set_axis_off()
    for ax, title in zip(grid[0], titles, strict=True):
        ax.set_title(title, fontsize=figures.TEXT, color=figures.INK)
    figures.describe(grid[0, 0], words)
    looks = {run.name: run.look for run in runs}
    series: dict[str, tuple[str, Callable[[PairsRun], list[float]], dict[str, float]]] = {
        "L_TI on pairs kept aside": ("L_TI", lambda run: run.aside, {}),
        "Median rank of the partner": ("rank", lambda run: run.ranks, {"a guess": 0.5}),
        "Held-out accuracy": ("accuracy", lambda run: run.accuracies, {"chance": chance}),
    }
    axes = below.subplots(1, len(series))
    for ax, (title, (label, values, levels)) in zip(axes, series.items(), strict=True):
        curves = {run.name: (run.epochs, values(run)) for run in runs if run.epochs}
        most = max([1e-6, *(max(y) for _, y in curves.values())])
        top = {"rank": 0.6, "accuracy": 1.0}.get(label, 1.1 * most)
        figures.curves(curves, ax, title=title, ylabel=label, ylim=(0, top), levels=levels, styles=looks)
    told = "\n".join(f"{run.name}: {run.choice.words}" for run in runs)
    last.text(0.01, 0.98, told, fontsize=figures.TEXT, color=figures.INK, va="top", linespacing=1.5)
    figures.describe(axes[0], f"{figures.alt_text(axes[0])} {told.replace(chr(10), '; ')}.")
    return figure
