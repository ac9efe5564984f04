"""The live panel of paired alignment: how many pairs, of what, how broken, and what is learned from them.

A run is `adapt` with epochs of alignment alone. All runs are evaluated on the same pairs, kept aside, each
with its own partner, and on held-out images of the task.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from socketlab.errors import LabError
from socketlab.figures import figures, style
from socketlab.images import pocketrooms
from socketlab.images.paired_images import PairedImages, index_images
from socketlab.measures import similarity
from socketlab.method import evaluate, losses
from socketlab.method.adaptation import Step, adapt
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import Source, load_source
from socketlab.panels.base import Table, controls_of, setting
from socketlab.panels.training import PanelRun, RunPanel
from socketlab.runs import replay

Canvas = Figure | SubFigure
KEPT, FEWEST, WIDEST = 400, 16, 32
MEASURED, SHOWN = 100, 6  # pairs of a run: on which its own loss is measured, and in the picture
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
SHARE: Any = {"form": ".0%", "live": True}


@dataclass(frozen=True)
class PairsChoice:
    """Which pairs, what is wrong with them, and how long the alignment goes.

    The target halves of a share `broken` belong to another pair; all are moved right by `shift` pixels, round
    the edge.
    """

    pairs: int = setting(KEPT, "pairs", "how many", FEWEST, KEPT, 1, live=True)
    near: float = setting(1.0, "share of near rooms", "rooms with the task's furniture", 0, 1, 0.25, **SHARE)
    broken: float = setting(0.0, "wrong partners", "pairs with another room's depth", 0, 1, 0.05, **SHARE)
    shift: int = setting(0, "shift, pixels", "of depth, 64 wide", 0, WIDEST, 1, live=True)
    epochs: int = setting(6, "epochs", "passes of alignment", 1, 20, 1)
    seed: int = setting(0, "seed", "random seed of the training", 0, 99, 1)

    @property
    def recipe(self) -> Recipe:
        """SOCKET's first part, alignment on pairs, alone."""
        return Recipe.socket().replace(align_epochs=self.epochs, epochs=0)

    @property
    def words(self) -> str:
        """What is special about it, in a few words."""
        near = f"{100 * self.near:.0f} % near" if self.near else "far"
        parts = {
            f"{self.pairs} pairs": True,
            near: self.near < 1,
            f"{100 * self.broken:.0f} % broken": self.broken,
            f"shifted {self.shift} px": self.shift,
        }
        return ", ".join(part for part, special in parts.items() if special)


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
class PairsWorld:
    """A source network, target images, held-out ones for the reader, and pairs in a fixed random order."""

    source: Source
    target: PairedImages
    held_out: PairedImages
    near: PairedImages
    far: PairedImages
    aside: PairedImages

    @cached_property
    def _aside(self) -> Tensor:
        """Features of the source halves of the pairs kept aside."""
        return _features(self.source, self.aside)

    def mixed(self, count: int, near: float) -> PairedImages:
        """The first `count` pairs, a share of them near; fewer are always among the more.

        Raises `LabError` where there are not so many.
        """
        of_near, taken = round(near * count), []
        for wanted, there in ((of_near, self.near), (count - of_near, self.far)):
            if wanted > len(there):
                raise LabError(f"{wanted} pairs were asked for, but there are {len(there)}: choose fewer.")
            if wanted:
                taken.append(there.take(range(wanted)))
        if len(taken) == 1:
            return taken[0]
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        return pocketrooms.join(*taken).take(order)

    def given(self, choice: PairsChoice) -> PairedImages:
        """The pairs of a choice, as a run gets them."""
        pairs = self.mixed(choice.pairs, choice.near)
        return spoilt(pairs, self.target.modality, choice.broken, choice.shift)

    def evaluate(self, student: Source, given: PairedImages) -> dict[str, float]:
        """L_TI on pairs that a network is given and on those kept aside, rank of the partner, accuracy."""
        some, found = given.take(evenly(len(given), MEASURED)), _features(student, self.aside)
        own = losses.paired_alignment(_features(self.source, some), _features(student, some))
        return {
            "given": float(own),
            "aside": float(losses.paired_alignment(self._aside, found)),
            "rank": float(similarity.pair_alignment(self._aside, found).median_rank[0]),
            "accuracy": evaluate.accuracy(student, self.held_out),
        }


def shipped() -> PairsWorld:
    """The kit's network, images and pairs, of which a hundred near ones are kept aside."""
    source = load_source("rgb_kinect_v1")
    target, held_out = (pocketrooms.load(f"target_{s}", "kinect_v1", ("depth",)) for s in ("adapt", "test"))
    near, far = (pocketrooms.ti_pairs(mix=mix) for mix in ("near", "far"))
    order, other = (torch.randperm(len(x), generator=torch.Generator().manual_seed(0)) for x in (near, far))
    near, aside = near.take(order[:KEPT]), near.take(order[KEPT:])
    return PairsWorld(source, target, held_out, near, far.take(other), aside)


def _features(network: Source, pairs: PairedImages) -> Tensor:
    return evaluate.predict(network, pairs.only(network.modality))[1]


def wrong_rows(count: int, share: float) -> Tensor:
    """(count,) which pair each target half is taken from: the first ones in a ring, the rest their own."""
    broken = round(share * count)
    return torch.cat([torch.arange(broken).roll(1), torch.arange(broken, count)])


def spoilt(pairs: PairedImages, modality: str, broken: float, shift: int) -> PairedImages:
    """The same pairs, a share with wrong partners, and every half of a modality moved to the right."""
    halves = index_images(pairs.images[modality], wrong_rows(len(pairs), broken))
    moved = torch.from_numpy(np.roll(halves.numpy(), shift, axis=3))
    return replace(pairs, images={**pairs.images, modality: moved})


def evenly(count: int, most: int) -> Tensor:
    """At most so many rows, evenly spaced."""
    return torch.linspace(0, count - 1, min(most, count)).round().long()


def draw_pairs(figure: Canvas, given: PairedImages, broken: float) -> None:
    """Some pairs as a run gets them: source halves above target halves."""
    rows = evenly(len(given), SHOWN)
    some, wrong = rows.tolist(), (wrong_rows(len(given), broken)[rows] != rows).tolist()
    source, target = sorted(given.modalities, key=lambda modality: modality != "rgb")
    depths = given.images[target][rows].to(torch.int32)
    reach = 1000.0 * max(1, int(np.ceil(np.percentile(depths, 99) / 1000)))
    images = {
        style.modality_style(m).short: [figures.paint(given.images[m][row], m, reach) for row in some]
        for m in (source, target)
    }
    kinds = [style.spaced(given.kinds[row]) for row in some]
    marks = ["\n(wrong)" if bad else "" for bad in wrong]
    titles = [kind.replace(" ", "\n") + mark for kind, mark in zip(kinds, marks, strict=True)]
    ax = figures.tiles(figure.subplots(), images, titles)
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


class PairsPanel(RunPanel[PairsChoice]):
    """Align a network on pairs of other rooms, and see its answers to pairs and rooms that it never saw.

    It begins with `choice`, cut to `most` pairs; `load` loads pairs, network and images, once.
    """

    name = "pairs"
    tips: ClassVar = {"run": "align on the pairs shown, with the source network as teacher"}
    folded: ClassVar = {"Training": ["epochs", "seed"]}

    def __init__(
        self, choice: PairsChoice | None = None, load: Callable[[], PairsWorld] = shipped, most: int = KEPT
    ) -> None:
        self._load, first, fewest = load, choice or PairsChoice(), min(FEWEST, most)
        first = replace(first, pairs=min(first.pairs, most))
        table = controls_of(first)
        table["pairs"] = replace(table["pairs"], low=fewest, high=most)
        pictures = {name: f"{title}: no run yet." for name, title in TITLES.items()}
        super().__init__(first, experiments(first, fewest), table, pictures)
        self.pictures["pairs"].image.add_class("socketlab-photos")
        self._on_change(("pairs", "near", "broken", "shift"), self._show_pairs)
        self._ready()

    def world(self) -> PairsWorld:
        """Pairs, network and images; the first call loads them."""
        return self._loaded("world", self._load)  # type: ignore[no-any-return]

    def _show_pairs(self) -> None:
        choice = self.choice
        paint = lambda figure: draw_pairs(figure, self.world().given(choice), choice.broken)  # noqa: E731
        self.pictures["pairs"].post(paint, at_once=True)
        if not self.runs:
            self.headline.value = f"{choice.words}. Press <b>Run</b>."

    def _events(self, run: PanelRun[PairsChoice]) -> Iterator[Step | replay.Observation]:
        choice, world = run.choice, self.world()
        given, recipe = world.given(choice), choice.recipe
        begin = partial(adapt, world.source, world.target, given.unlabelled(), recipe, seed=choice.seed)
        return replay.played(choice, begin, lambda event: world.evaluate(event.state.adapted, given))

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
        chance = 1 / len(self.world().source.classes) if runs else None
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
