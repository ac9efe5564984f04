"""The live panel of paired alignment: how many pairs, of what, how broken, and what is learned from them.

A run is `adapt` with epochs of alignment alone.
"""

import threading
from collections.abc import Callable, Iterator
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
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import Source, load_source
from socketlab.panels import live_pictures, session
from socketlab.panels.exports import Table
from socketlab.panels.live_pictures import LiveTiles
from socketlab.panels.old_base import (  # fmt: skip
    Panel,
    heading,
    in_a_row,
    in_words,
    rows_table,
    said,
    share_bar,
    slider,
    text_box,
    with_class,
)
from socketlab.runs import replay

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


# ------------------------------------------------------------------------ the panel


FEWEST, LATE = 16, 20
LOSSES = {
    "given": Style("pairs given", "#be185d", "s", "--"),
    "aside": Style("pairs kept aside", "#0b6bcb", "o", "-"),
}


class PairsPanel(Panel):
    """Align a network on pairs of other rooms, and see what it knows of pairs and rooms it never saw.

    Parameters
    ----------
    choice : the settings to begin with; its pair count is cut to what there is.
    world : loads pairs, network and images.
    """

    name = "pairs"

    def __init__(self, choice: PairsChoice | None = None, world: PairsWorld | None = None) -> None:
        super().__init__({"run": "align on the pairs shown, with the source network as teacher"})
        self.world = world or PairsWorld()
        first = choice or PairsChoice()
        self._first = replace(first, pairs=min(first.pairs, self.world.most))
        self.runs: list[PairsRun] = []
        self._asked: session.Background[None] = session.Background(
            lambda _: self._show(), self.box, share=1.0
        )
        self.controls = with_class(self._make_controls())
        self._make_pictures()
        self.children = self._arrange()
        self._listen()
        self._on_change(("pairs", "near", "broken", "shift"), self._move)
        self._move()

    def __repr__(self) -> str:
        return f"PairsPanel with {len(self.runs)} runs: run this cell to see it live"

    @property
    def choice(self) -> PairsChoice:
        """The settings that the sliders show."""
        return PairsChoice(**{name: control.value for name, control in self.controls.items()})

    def set(self, choice: PairsChoice) -> None:
        """Move all sliders."""
        for name, control in self.controls.items():
            control.value = getattr(choice, name)

    def reset(self) -> None:
        """Stop, forget all runs, settings as at the beginning."""
        self._halt()
        self.runs = []
        self.set(self._first)
        self._clear_runs(self._first)
        self._tell()
        self.session.reset()

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the pictures and for a run, and raise what made it fail."""
        self._asked.wait(timeout)
        return self.session.wait(timeout)

    def tables(self) -> dict[str, Table]:
        """A row per run and epoch."""
        return {"epochs": [row for run in self.runs for row in run.rows()]}

    def still(self, extremes: bool = False, dpi: float = 100) -> Any:
        """A picture for readers without a kernel, as an IPython `Image` with its description.

        A run that is under way is waited for; when nothing has run yet, the settings shown run once.

        Parameters
        ----------
        extremes : run the settings shown, and each with the fewest pairs, far ones, all broken, most shifted.
        """
        self.wait()
        now = self.choice
        if extremes:
            for choice in extremes_of(now, self.controls["pairs"].min, self.controls["shift"].max):
                self.set(choice)
                self.run(wait=True)
            self.set(now)
        elif not self.runs:
            self.run(wait=True)
        shown = self.runs[-5:]
        chance = 1 / len(self.world.material.source.classes)
        with session.DRAW:
            given = given_pairs(self.world.stock, shown[0].choice)
            figure = still_figure(given, shown[0].choice.broken, shown, chance)
        return figures.show(figure, dpi)

    # the worker's side

    def _begin(self) -> None:
        choice = self.choice
        run = PairsRun(len(self.runs) + 1, choice)

        def events() -> Iterator[Step | replay.Observation]:
            self.box.clear()
            given = given_pairs(self.world.stock, choice)
            material = self.world.material
            if self.session.stopping:
                return iter(())
            self.runs.append(run)
            self._clear_runs(choice)

            def begin() -> Iterator[Step | Epoch]:
                pairs = given.unlabelled()
                return adapt(material.source, material.target, pairs, choice.recipe, seed=choice.seed)

            return replay.played(choice, begin, lambda event: self.world.judge(event.state.adapted, given))

        self.session.start(
            events, lambda e: self._see(run, e), lambda: self._draw(run), lambda state: self._end(run, state)
        )

    def _see(self, run: PairsRun, event: Step | replay.Observation) -> float | None:
        if isinstance(event, Step):
            self.session.note = f"epoch {event.epoch} of {run.choice.epochs}"
            return event.step / event.steps
        run.add(event.epoch, event.seen)
        return event.epoch / event.epochs if event.epochs else 1.0

    def _draw(self, run: PairsRun) -> None:
        if not run.epochs:
            return
        self.losses.draw({"given": (run.epochs, run.given), "aside": (run.epochs, run.aside)})
        shown = self.runs[-5:]
        for one in shown:
            self.rank.looks[one.name] = self.accuracy.looks[one.name] = one.look
        self.rank.draw({one.name: (one.epochs, one.ranks) for one in shown})
        self.accuracy.draw({one.name: (one.epochs, one.accuracies) for one in shown})
        self.headline.value = said(
            f"{run.name}, epoch {run.epochs[-1]}, {run.choice.words}: L<sub>TI</sub> "
            f"{run.given[-1]:.2f} on the pairs given, <b>{run.aside[-1]:.2f}</b> on those kept aside; "
            f"median rank of the partner <b>{run.ranks[-1]:.2f}</b> (0 first, 0.5 a guess); "
            f"<b>{100 * run.accuracies[-1]:.1f}&nbsp;%</b> of the held-out images are named right."
        )

    def _end(self, run: PairsRun, state: str) -> None:
        run.outcome, run.seconds = state, self.session.seconds
        self._tell()
        if state == "finished":
            self.tell_listeners()

    # showing

    def _move(self) -> None:
        """Show the pairs: at once where they are loaded, else when they are."""
        if self.world.ready:
            self._show()
        else:
            self._asked.post(None, at_once=True)

    def _show(self) -> None:
        choice = self.choice
        images, titles, words = tiles(given_pairs(self.world.stock, choice), choice.broken)
        empty = [None] * (SHOWN - len(titles))
        half = len(titles)
        self.tiles.draw(
            [*images[:half], *empty, *images[half:], *empty], [*titles, *[""] * len(empty)], words
        )
        self._tell()

    def _tell(self) -> None:
        self.table.value = table_of(self.runs)
        self.words.value = in_words(self.pictures)
        if not self.runs:
            self.headline.value = said(f"{self.choice.words}. Press <b>Run</b>.")

    def _clear_runs(self, choice: PairsChoice) -> None:
        last = max([choice.epochs, 1, *[max(run.epochs, default=0) for run in self.runs[-5:]]])
        self.losses.clear((0, last))
        self.rank.clear((0, last), {"a guess": 0.5})
        self.accuracy.clear((0, last), {"chance": 1 / len(self.world.material.source.classes)})

    # making

    def _make_controls(self) -> dict[str, Any]:
        first, most = self._first, self.world.most
        return {
            "pairs": slider("pairs", first.pairs, min(FEWEST, most), most, 1, "how many"),
            "near": slider(
                "share near", float(first.near), 0.0, 1.0, 0.25, "rooms with the task's furniture", ".0%"
            ),
            "broken": slider(
                "wrong partners",
                float(first.broken),
                0.0,
                1.0,
                0.05,
                "another room's depth",
                ".0%",
            ),
            "shift": slider("shift, pixels", first.shift, 0, WIDEST, 1, "of depth; 64 are a width"),
            "epochs": slider("epochs", first.epochs, 1, LATE, 1, "passes of alignment"),
            "seed": slider("seed", first.seed, 0, 99, 1, "of the training"),
        }

    def _make_pictures(self) -> None:
        self.tiles = LiveTiles(["RGB", "depth"], SHOWN, tile=140, title="Pairs as the network gets them")
        size: dict[str, Any] = {"width": 400, "height": 330}
        self.losses = live_pictures.LivePlot(
            tuple(LOSSES), title="L_TI of the last run", xlabel="epoch", looks=LOSSES, xlim=(0, 6), **size
        )  # fmt: skip
        self.rank = live_pictures.LivePlot(
            (), title="Median rank of the partner", xlabel="epoch", ylabel="rank, kept aside",
            ylim=(0, 0.6), levels={"a guess": 0.5}, xlim=(0, 6), **size,
        )  # fmt: skip
        self.accuracy = live_pictures.LivePlot(
            (), title="Accuracy on held-out depth", xlabel="epoch", ylabel="accuracy", ylim=(0, 1.1),
            xlim=(0, 6), **size,
        )  # fmt: skip
        self.pictures = {
            "pairs": self.tiles, "loss": self.losses, "rank": self.rank, "accuracy": self.accuracy
        }  # fmt: skip
        self.headline = text_box("headline", lines=2)
        self.headline.value = said("The pairs are on their way.")
        self.table = text_box("runs")

    def _arrange(self) -> list[Any]:
        return [
            heading("Pairs", "shown at once, trained on at the next run"),
            in_a_row(*self.controls.values()),
            in_a_row(self.tiles.image),
            *self._bar(),
            self.headline,
            in_a_row(self.losses.image, self.rank.image, self.accuracy.image),
            self.table,
            self.words,
        ]


def extremes_of(choice: PairsChoice, fewest: int, widest: int) -> list[PairsChoice]:
    """The settings given, and each of its extremes."""
    found = [
        choice,
        replace(choice, pairs=fewest),
        replace(choice, near=0.0),
        replace(choice, broken=1.0),
        replace(choice, shift=widest),
    ]
    return list(dict.fromkeys(found))


def table_of(runs: list[PairsRun]) -> str:
    """The runs kept, as an HTML table."""
    heads = ["run", "pairs", "near", "broken", "shift", "epochs", "seed", "L<sub>TI</sub> given",
             "L<sub>TI</sub> aside", "partner's rank", "held-out accuracy", "time"]  # fmt: skip
    rows = []
    for run in runs:
        c, colour = run.choice, run.look.colour
        lasts = [values[-1] if values else np.nan for values in (run.given, run.aside, run.ranks)]
        time = f"{run.seconds:.0f} s" + ("" if run.outcome == "finished" else f", {run.outcome}")
        rows.append([
            f'<span style="color:{colour}">●</span> {run.number}', f"{c.pairs}", f"{c.near:.0%}",
            f"{c.broken:.0%}", f"{c.shift}", f"{c.epochs}", f"{c.seed}", *(f"{x:.2f}" for x in lasts),
            share_bar((run.accuracies or [0.0])[-1], colour), time,
        ])  # fmt: skip
    return rows_table("Runs kept for comparison", "numbers after the last epoch", heads, rows)
