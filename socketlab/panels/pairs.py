"""The live panel of paired alignment: how many pairs, of what, how broken, and what is learned from them.

A thin shell over `pairs_bench`; a run is `adapt` with epochs of alignment alone.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from socketlab.figures import figures
from socketlab.figures.figures import Style
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.panels import session
from socketlab.panels.base import (  # fmt: skip
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
from socketlab.panels.exports import Table
from socketlab.panels.live_pictures import LiveTiles
from socketlab.panels.pairs_bench import (  # fmt: skip
    SHOWN,
    WIDEST,
    PairsChoice,
    PairsRun,
    PairsWorld,
    given_pairs,
    still_figure,
    tiles,
)
from socketlab.runs import replay

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

            return replay.played(
                choice, begin, lambda event: self.world.judge(event.state.adapted, given)
            )

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
        self.losses = session.LivePlot(
            tuple(LOSSES), title="L_TI of the last run", xlabel="epoch", looks=LOSSES, xlim=(0, 6), **size
        )  # fmt: skip
        self.rank = session.LivePlot(
            (), title="Median rank of the partner", xlabel="epoch", ylabel="rank, kept aside",
            ylim=(0, 0.6), levels={"a guess": 0.5}, xlim=(0, 6), **size,
        )  # fmt: skip
        self.accuracy = session.LivePlot(
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
