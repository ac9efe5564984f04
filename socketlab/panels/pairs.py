"""The live panel of paired alignment: how many pairs, of what, how broken, and what is learned from them.

A run is `adapt` with epochs of alignment alone. All runs are evaluated on the same pairs, kept aside, each
with its own partner, and on held-out images of the task.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from ipywidgets import FloatSlider, IntSlider
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
from socketlab.panels.base import RELEASED, controls_of, named, setting
from socketlab.panels.session import Canvas, Paint
from socketlab.panels.training import PanelRun, RunPanel, draw_runs
from socketlab.runs import replay

KEPT, FEWEST, WIDEST = 400, 16, 32
MEASURED, SHOWN = 100, 6  # pairs of a run: on which its own loss is measured, and at most in the picture
LOSSES = {
    "given": style.Style("pairs given", "#be185d", "s", "--"),
    "aside": style.Style("pairs kept aside", "#0b6bcb", "o", "-"),
}
NEAR = "pairs that show rooms with the task's furniture"
SHARE: Any = {"min": 0, "max": 1, "readout_format": ".0%"}


@dataclass(frozen=True)
class PairsChoice:
    """Which pairs, what is wrong with them, and how long the alignment goes.

    The target halves of a share `broken` belong to another pair; all are moved right by `shift` pixels, round
    the edge.
    """

    pairs: int = setting(KEPT, IntSlider, "pairs", "how many")
    near: float = setting(1.0, FloatSlider, "share of near rooms", NEAR, step=0.25, **SHARE)
    broken: float = setting(0.0, FloatSlider, "wrong partners", "depth of another pair", step=0.05, **SHARE)
    shift: int = setting(0, IntSlider, "shift, pixels", "of depth, 64 wide", max=WIDEST)
    epochs: int = setting(6, IntSlider, "epochs", "passes of alignment", min=1, max=20, **RELEASED)
    seed: int = setting(0, IntSlider, "seed", "random seed of the training", max=99, **RELEASED)

    @property
    def recipe(self) -> Recipe:
        """SOCKET's first part, alignment on pairs, alone."""
        return Recipe.socket().replace(align_epochs=self.epochs, epochs=0)


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
    rows = evenly(len(given), min(SHOWN, int((figure.bbox.width / figure.dpi - 0.7) / 0.9)))  # names fit
    some, wrong = rows.tolist(), (wrong_rows(len(given), broken)[rows] != rows).tolist()
    source, target = sorted(given.modalities, key=lambda modality: modality != "rgb")
    reach = figures.reach_of(given.images[target][rows])
    images = {
        style.modality_style(m).short: [figures.paint(given.images[m][row], m, reach) for row in some]
        for m in (source, target)
    }
    kinds = [style.spaced(given.kinds[row]) for row in some]
    titles = [kind.replace(" ", "\n") + "\n(wrong)" * bad for kind, bad in zip(kinds, wrong, strict=True)]
    ax = figures.tiles(figure.subplots(), images, titles)
    words = f"{len(given)} pairs are given, {len(rows)} are shown, {sum(wrong)} with a wrong partner"
    style.describe(ax, f"{words}: {', '.join(kinds)}.")


def draw_losses(figure: Canvas, runs: list[PanelRun[PairsChoice]]) -> None:
    """L_TI of the last run over epochs, on the pairs given and on those kept aside."""
    series: dict[str, Any] = {name: run.curve(name) for run in runs[-1:] for name in LOSSES}
    most = max((max(y, default=0.0) for _, y in series.values()), default=0.0)
    about: dict[str, Any] = {"title": "L_TI of the last run", "ylabel": "L_TI", "ylim": (0, 1.1 * most or 1)}
    figures.curves(series, figure.subplots(), styles=LOSSES, **about)


class PairsPanel(RunPanel[PairsChoice]):
    """Align a network on pairs of other rooms, and see its answers to pairs and rooms that it never saw.

    It begins with `choice`, cut to `most` pairs; `load` loads pairs, network and images, once.
    """

    folded: ClassVar = {"Training": ["epochs", "seed"]}
    live: ClassVar = ("losses", "rank", "accuracy")

    def __init__(
        self, choice: PairsChoice | None = None, load: Callable[[], PairsWorld] = shipped, most: int = KEPT
    ) -> None:
        self._load, first, fewest = load, choice or PairsChoice(), min(FEWEST, most)
        first = replace(first, pairs=min(first.pairs, most))
        table = controls_of(first, pairs={"min": fewest, "max": most})
        super().__init__(first, experiments(first, fewest), table, ("pairs", *self.live))
        named("photos", self.pictures["pairs"].image)
        self._on_change(("pairs", "near", "broken", "shift"), partial(self.redraw, "pairs"))

    def world(self) -> PairsWorld:
        """Pairs, network and images; the first call loads them."""
        return self._loaded("world", self._load)  # type: ignore[no-any-return]

    def _events(self, run: PanelRun[PairsChoice]) -> Iterator[Step | replay.Observation]:
        choice, world = run.choice, self.world()
        given, recipe = world.given(choice), choice.recipe
        begin = partial(adapt, world.source, world.target, given.unlabelled(), recipe, seed=choice.seed)
        return replay.played(choice, begin, lambda event: world.evaluate(event.state.adapted, given))

    def paints(self) -> dict[str, Paint]:
        """The pairs of the sliders, and curves of the runs."""
        choice, runs = self.choice, list(self.runs)
        rank: Any = {"title": "Median rank of the partner", "ylabel": "rank, kept aside", "ylim": (0, 0.6)}
        accuracy: Any = {"title": "Accuracy on held-out depth", "ylim": (0, 1.05)}
        chance = {"chance": 1 / len(self.world().source.classes)} if runs else {}
        return {
            "pairs": lambda figure: draw_pairs(figure, self.world().given(choice), choice.broken),
            "losses": partial(draw_losses, runs=runs),
            "rank": partial(draw_runs, runs=runs, name="rank", levels={"a guess": 0.5}, **rank),
            "accuracy": partial(draw_runs, runs=runs, name="accuracy", levels=chance, **accuracy),
        }

    def told(self) -> str:
        """The numbers of the last run, or what will run."""
        run = self.runs[-1] if self.runs else None
        if run is None or not run.epochs:
            return f"{self.differs(self.choice) or 'The first settings'}. Press <b>Run</b>."
        return (
            f"{run.name}, epoch {run.epochs[-1]}: L<sub>TI</sub> {run.last('given'):.2f} on the pairs given, "
            f"<b>{run.last('aside'):.2f}</b> on those kept aside; median rank of the partner "
            f"<b>{run.last('rank'):.2f}</b> (0 first, 0.5 a guess); <b>{100 * run.last('accuracy'):.1f}"
            "&nbsp;%</b> of the held-out images are named right."
        )
