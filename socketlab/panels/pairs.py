"""The live panel of paired alignment: how many pairs, of what, how broken, and what is learned from them.

A run is `adapt` with epochs of alignment alone. All runs are evaluated on the same pairs, kept aside, each
with its own partner, and on held-out images of the task.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from socketlab.errors import LabError
from socketlab.figures import figures, gap_figures, style
from socketlab.images import pocketrooms
from socketlab.images.paired_images import PairedImages, index_images
from socketlab.measures import similarity
from socketlab.method import evaluate, losses
from socketlab.method.adaptation import Step, adapt
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import Source, load_source
from socketlab.panels import session
from socketlab.panels.base import Control, Table
from socketlab.panels.training import PanelRun, RunPanel
from socketlab.runs import replay

Canvas = Figure | SubFigure
KEPT = 400
MEASURED = 100  # pairs of a run on which its own loss is measured
SHOWN, FEWEST, WIDEST, LONGEST = 6, 16, 32, 20
LOSSES = {
    "given": style.Style("pairs given", "#be185d", "s", "--"),
    "aside": style.Style("pairs kept aside", "#0b6bcb", "o", "-"),
}
TITLES = {
    "pairs": "Pairs as the network gets them",
    "losses": "L_TI of the last run",
    "rank": "Median rank of the partner",
    "accuracy": "Accuracy on held-out depth",
}


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
        parts = [f"{self.pairs} pairs"]
        if self.near < 1:
            parts.append(f"{100 * self.near:.0f} % near" if self.near else "far")
        if self.broken:
            parts.append(f"{100 * self.broken:.0f} % broken")
        if self.shift:
            parts.append(f"shifted {self.shift} px")
        return ", ".join(parts)


def experiments(first: PairsChoice, fewest: int) -> dict[str, PairsChoice]:
    """Experiments worth trying, by title: each differs from the first one in one thing."""
    found = {
        "near pairs": first,
        "half as many": replace(first, pairs=max(fewest, first.pairs // 2)),
        f"{fewest} pairs": replace(first, pairs=fewest),
        "far pairs": replace(first, near=0.0),
        "half the partners wrong": replace(first, broken=0.5),
        "all partners wrong": replace(first, broken=1.0),
        "shifted by half a width": replace(first, shift=WIDEST),
    }
    unlike = {choice: title for title, choice in reversed(found.items())}
    return {title: choice for title, choice in found.items() if unlike[choice] == title}


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


def shipped_stock() -> PairsStock:
    """The kit's pairs; of the near ones a hundred are kept aside."""
    near, far = (pocketrooms.ti_pairs(mix=mix) for mix in ("near", "far"))
    order, other = (torch.randperm(len(x), generator=torch.Generator().manual_seed(0)) for x in (near, far))
    return PairsStock(near.take(order[:KEPT]), far.take(other), near.take(order[KEPT:]))


def shipped_material() -> PairsMaterial:
    """The kit's network and target images; no colour image of the task is opened."""
    images = (pocketrooms.load(s, "kinect_v1", ("depth",)) for s in ("target_adapt", "target_test"))
    return PairsMaterial(load_source("rgb_kinect_v1"), *images)


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
    if of_near in (0, count):
        return (stock.near if of_near else stock.far).take(range(count))
    both = pocketrooms.join(stock.near.take(range(of_near)), stock.far.take(range(count - of_near)))
    return both.take(torch.randperm(count, generator=torch.Generator().manual_seed(0)))


def wrong_rows(count: int, share: float) -> Tensor:
    """(count,) which pair each target half is taken from: the first ones in a ring, the rest their own."""
    broken = round(share * count)
    rows = torch.arange(count)
    rows[:broken] = rows[:broken].roll(1)
    return rows


def spoilt(pairs: PairedImages, modality: str, broken: float, shift: int) -> PairedImages:
    """The same pairs, a share with wrong partners, and every half of a modality moved to the right."""
    halves = index_images(pairs.images[modality], wrong_rows(len(pairs), broken))
    bits = halves.view(torch.int16) if halves.dtype is torch.uint16 else halves
    moved = bits.roll(shift, dims=3).view(halves.dtype)
    return replace(pairs, images={**pairs.images, modality: moved})


def evenly(count: int, most: int) -> Tensor:
    """At most so many rows, evenly spaced."""
    return torch.linspace(0, count - 1, min(most, count)).round().long()


class PairsWorld:
    """Pairs and material, loaded on first use, from any thread.

    Parameters
    ----------
    stock, material : load them; other functions show another world.
    most : the largest number of pairs.
    """

    def __init__(
        self,
        stock: Callable[[], PairsStock] = shipped_stock,
        material: Callable[[], PairsMaterial] = shipped_material,
        most: int = KEPT,
    ) -> None:
        self._load_stock, self._load_material, self.most = stock, material, most
        self._lock = threading.Lock()

    @cached_property
    def stock(self) -> PairsStock:
        """The pairs."""
        return self._load_stock()

    @cached_property
    def material(self) -> PairsMaterial:
        """Network and target images."""
        return self._load_material()

    @cached_property
    def _aside(self) -> Tensor:
        """Features of the source halves of the pairs kept aside."""
        return _features(self.material.source, self.stock.aside)

    def given(self, choice: PairsChoice) -> PairedImages:
        """The pairs of a choice, as a run gets them."""
        with self._lock:
            pairs = mixed_pairs(self.stock, choice.pairs, choice.near)
        return spoilt(pairs, _target(pairs), choice.broken, choice.shift)

    def evaluate(self, student: Source, given: PairedImages) -> dict[str, float]:
        """L_TI on pairs that a network is given and on those kept aside, rank of the partner, accuracy."""
        some, source = given.take(evenly(len(given), MEASURED)), self.material.source
        found = _features(student, self.stock.aside)
        own = losses.paired_alignment(_features(source, some), _features(student, some))
        return {
            "given": float(own),
            "aside": float(losses.paired_alignment(self._aside, found)),
            "rank": float(similarity.pair_alignment(self._aside, found).median_rank[0]),
            "accuracy": evaluate.accuracy(student, self.material.held_out),
        }


def _features(network: Source, pairs: PairedImages) -> Tensor:
    return evaluate.predict(network, pairs.only(network.modality))[1]


def _target(pairs: PairedImages) -> str:
    """The modality of the pairs that is not colour."""
    return next(modality for modality in pairs.modalities if modality != "rgb")


# ------------------------------------------------------------------------ pictures


def draw_pairs(figure: Canvas, given: PairedImages, broken: float) -> None:
    """Some pairs as a run gets them: source halves above target halves."""
    rows, target = evenly(len(given), SHOWN), _target(given)
    some = rows.tolist()
    wrong = (wrong_rows(len(given), broken)[rows] != rows).tolist()
    depths = given.images[target][rows].to(torch.int32)
    reach = 1000.0 * max(1, int(np.ceil(np.percentile(depths, 99) / 1000)))
    images = {
        style.modality_style(m).short: [figures.paint(given.images[m][row], m, reach) for row in some]
        for m in ("rgb", target)
    }
    kinds = [style.spaced(given.kinds[row]) for row in some]
    marks = ["\n(wrong)" if bad else "" for bad in wrong]
    titles = [kind.replace(" ", "\n") + mark for kind, mark in zip(kinds, marks, strict=True)]
    ax = gap_figures.tiles(figure.subplots(), images, titles)
    words = f"{len(given)} pairs are given, {len(rows)} are shown, {sum(wrong)} with a wrong partner"
    style.describe(ax, f"{words}: {', '.join(kinds)}.")


def draw_curves(figure: Canvas, runs: list[PanelRun[PairsChoice]], name: str, chance: float | None) -> None:
    """One number of the runs over epochs: "losses" of the last one, "rank" or "accuracy" of the last five."""
    series = {run.name: run.curve(name) for run in runs[-5:]}
    limits, levels, ylabel = (0.0, 1.05), {"chance": chance} if chance else {}, name
    if name == "losses":
        series = {key: run.curve(key) for run in runs[-1:] for key in LOSSES}
        most = max((max(y, default=0.0) for _, y in series.values()), default=0.0)
        limits, levels, ylabel = (0.0, 1.1 * most or 1.0), {}, "L_TI"
    elif name == "rank":
        limits, levels, ylabel = (0.0, 0.6), {"a guess": 0.5}, "rank, kept aside"
    styles, ax = LOSSES | {run.name: run.style for run in runs}, figure.subplots()
    about: dict[str, Any] = {"title": TITLES[name], "ylim": limits, "levels": levels, "styles": styles}
    figures.curves(series, ax, ylabel=ylabel, **about)


# ------------------------------------------------------------------------ the panel


class PairsPanel(RunPanel[PairsChoice]):
    """Align a network on pairs of other rooms, and see its answers to pairs and rooms that it never saw.

    Parameters
    ----------
    choice : the settings to begin with; its pair count is cut to what there is.
    world : loads pairs, network and images.
    """

    name = "pairs"

    def __init__(self, choice: PairsChoice | None = None, world: PairsWorld | None = None) -> None:
        self.world = world or PairsWorld()
        first, most = choice or PairsChoice(), self.world.most
        first, fewest = replace(first, pairs=min(first.pairs, most)), min(FEWEST, most)
        near, other = "rooms with the task's furniture", "pairs with another room's depth"
        share: dict[str, Any] = {"form": ".0%", "live": True}
        table = {
            "pairs": Control("pairs", first.pairs, "how many", fewest, most, 1, live=True),
            "near": Control("share of near rooms", float(first.near), near, step=0.25, **share),
            "broken": Control("wrong partners", float(first.broken), other, step=0.05, **share),
            "shift": Control("shift, pixels", first.shift, "of depth, 64 wide", 0, WIDEST, 1, live=True),
            "epochs": Control("epochs", first.epochs, "passes of alignment", 1, LONGEST, 1),
            "seed": Control("seed", first.seed, "random seed of the training", 0, 99, 1),
        }
        pictures = {name: session.LiveFigure(alt=f"{title}: no run yet.") for name, title in TITLES.items()}
        tips = {"run": "align on the pairs shown, with the source network as teacher"}
        folded = {"Training": ["epochs", "seed"]}
        super().__init__(first, experiments(first, fewest), table, pictures, folded, tips=tips)
        pictures["pairs"].image.add_class("socketlab-photos")
        self._on_change(("pairs", "near", "broken", "shift"), self._show_pairs)
        self._ready()

    def _show_pairs(self) -> None:
        choice = self.choice
        self.pictures["pairs"].post(
            lambda figure: draw_pairs(figure, self.world.given(choice), choice.broken), at_once=True
        )
        if not self.runs:
            self.headline.value = f"{choice.words}. Press <b>Run</b>."

    # a run

    def _events(self, run: PanelRun[PairsChoice]) -> Iterator[Step | replay.Observation]:
        choice, given, material = run.choice, self.world.given(run.choice), self.world.material
        pairs = given.unlabelled()
        begin = partial(adapt, material.source, material.target, pairs, choice.recipe, seed=choice.seed)
        return replay.played(choice, begin, lambda event: self.world.evaluate(event.state.adapted, given))

    def _draw(self, run: PanelRun[PairsChoice]) -> None:
        self._draw_curves(run.outcome != "running")
        if run.epochs:
            self.headline.value = (
                f"{run.name}, epoch {run.epochs[-1]}, {run.choice.words}: L<sub>TI</sub> "
                f"{run.last('given'):.2f} on the pairs given, <b>{run.last('aside'):.2f}</b> on those kept "
                f"aside; median rank of the partner <b>{run.last('rank'):.2f}</b> (0 first, 0.5 a guess); "
                f"<b>{100 * run.last('accuracy'):.1f}&nbsp;%</b> of the held-out images are named right."
            )

    def _clear(self, run: PanelRun[PairsChoice] | None) -> None:
        self._draw_curves(at_once=True)
        self._show_pairs()

    def _draw_curves(self, at_once: bool) -> None:
        runs = list(self.runs)
        chance = 1 / len(self.world.material.source.classes) if runs else None
        for name in ("losses", "rank", "accuracy"):
            self.pictures[name].post(partial(draw_curves, runs=runs, name=name, chance=chance), at_once)

    def _cells(self, run: PanelRun[PairsChoice]) -> dict[str, str]:
        c = run.choice
        cells = {name: f"{getattr(c, name)}" for name in ("pairs", "shift", "epochs", "seed")}
        cells |= {name: f"{getattr(c, name):.0%}" for name in ("near", "broken")}
        titles = {"given": "L<sub>TI</sub> given", "aside": "L<sub>TI</sub> aside", "rank": "partner's rank"}
        return cells | {title: f"{run.last(name):.2f}" for name, title in titles.items()}

    def tables(self) -> dict[str, Table]:
        """A row per run and epoch."""
        return {"epochs": [row for run in self.runs for row in run.rows(**asdict(run.choice))]}
