"""Panels that train: runs kept side by side, experiments, recorded runs, and a guess before them."""

import html
import math
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import ipywidgets as widgets
import pandas as pd  # type: ignore[import-untyped]

from socketlab.errors import LabError, require_choice
from socketlab.figures import figures
from socketlab.figures.style import Style, run_style
from socketlab.method.adaptation import Step
from socketlab.panels import session
from socketlab.panels.base import Panel, Readable, text_box, written
from socketlab.runs import replay

Setting = TypeVar("Setting")
SAME_CHANGE = 10  # steps within which a slider that moves on makes one change
SHOWN_RUNS = 5  # the last ones, in a picture
Outcome = str | tuple[str, str] | None


@dataclass(frozen=True)
class Change:
    """A setting that was changed while a run went on."""

    label: str
    before: float
    after: float
    step: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.label} {self.before:.3g} → {self.after:.3g} at step {self.step}"


@dataclass
class PanelRun(Generic[Setting]):
    """One run that a panel keeps: its settings as it began, losses by step, and numbers by epoch."""

    number: int
    choice: Setting
    epochs: list[int] = field(default_factory=list)
    values: dict[str, list[Any]] = field(default_factory=dict)
    steps: list[dict[str, float]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    outcome: str = "running"
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Name in pictures and tables."""
        return f"run {self.number}"

    @property
    def style(self) -> Style:
        """Colour, marker and line in pictures."""
        return run_style(self.number)

    @property
    def losses(self) -> dict[str, list[float]]:
        """Term -> its value at every step; NaN where it was not at work."""
        return pd.DataFrame(self.steps, dtype=float).to_dict("list")  # type: ignore[return-value]

    def add(self, epoch: int, **values: Any) -> None:
        """Append what was seen after an epoch: numbers, or lists of them."""
        self.epochs.append(epoch)
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def change(self, label: str, before: float, after: float, step: int, epoch: int) -> None:
        """Append a change; one that goes on from the change before it is the same one."""
        if self.changes and self.changes[-1].label == label and step - self.changes[-1].step < SAME_CHANGE:
            before = self.changes.pop().before
        self.changes.append(Change(label, before, after, step, epoch))

    def last(self, name: str) -> Any:
        """The latest of a name; NaN where there is none."""
        return (self.values.get(name) or [math.nan])[-1]

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Epochs and numbers of a name, copied, for a picture."""
        values = list(self.values.get(name, ()))
        return self.epochs[: len(values)], values


def draw_runs(figure: session.Canvas, runs: Sequence[PanelRun[Any]], name: str, **about: Any) -> Any:
    """One number of the last runs over epochs, in axes that are returned."""
    shown = runs[-SHOWN_RUNS:]
    styles = {run.name: run.style for run in shown}
    series = {run.name: run.curve(name) for run in shown}
    return figures.curves(series, figure.subplots(), styles=styles, **about)


class RunPanel(Panel, Generic[Setting]):
    """A panel whose Run trains: it keeps its runs, offers experiments, and shows recorded runs at ``replay``.

    Subclasses define `_events`; `_values_of` and `choice` where their settings are not simply those of the
    controls; `run_type`, `_see` and `_epoch` where a run keeps more; `view`, the controls that change only
    what is shown, and `live`, the pictures of a run.

    Parameters
    ----------
    first : the settings to begin with; at ``replay`` recorded ones.
    experiments : title -> settings, offered in a menu; at ``replay`` those that were recorded.

    Attributes
    ----------
    listeners : called without arguments after each run that ended by itself, in the worker's thread.
    """

    run_type: type[PanelRun[Any]] = PanelRun
    view: ClassVar[Sequence[str]] = ()
    live: ClassVar[Sequence[str]] = ()

    def __init__(
        self, first: Any, experiments: Mapping[str, Any], table: Mapping[str, Any], pictures: Sequence[str]
    ) -> None:
        self.runs: list[Any] = []
        self.listeners: list[Callable[[], Any]] = []
        self.replays, tip = replay.tier() == "replay", "settings worth trying"
        self.experiments: dict[str, Any] = dict(experiments)
        if self.replays:
            tip += ", recorded: at the tier replay nothing else can run"
            self.experiments = {title: c for title, c in experiments.items() if self.recorded(c)}
            if self.experiments and not self.recorded(first):
                first = next(iter(self.experiments.values()))
        self.first = self._base = first
        self._loading, self._kept = threading.Lock(), dict[Any, Any]()
        options = [("own settings", ""), *((title, title) for title in self.experiments)]
        menu = widgets.Dropdown(options=options, value="", description="experiment", tooltip=tip)
        super().__init__({"experiment": menu, **table}, pictures)
        own = [name for name in table if name not in self.view]
        for name in own:  # at replay they would change nothing
            self.controls[name].disabled = self.replays
        self.set(first)
        self._on_change(("experiment",), self._take_experiment)
        self._on_change(own, self._name_experiment)
        self.redraw()

    # settings

    @property
    def choice(self) -> Any:
        """The settings that the controls show."""
        names = [f.name for f in fields(self._base) if f.name in self.controls]
        return replace(self._base, **{name: self.controls[name].value for name in names})

    def _values_of(self, choice: Any) -> dict[str, Any]:
        """Name of a control -> its value for some settings."""
        return {f.name: getattr(choice, f.name) for f in fields(choice) if f.name in self.controls}

    def set(self, choice: Setting) -> None:
        """Move the controls to some settings."""
        self._base, values = choice, self._values_of(choice)
        for name in values:
            self.controls[name].value = values[name]
        self._name_experiment()

    def differs(self, choice: Setting) -> str:
        """What decides a run and is other than in the first settings, as the controls write it."""
        first = self._values_of(self.first)
        return ", ".join(
            f"{self.controls[name].description} {written(self.controls[name], value)}"
            for name, value in self._values_of(choice).items()
            if value != first[name] and name not in self.view
        )

    def _run_of(self, choice: Any) -> Any:
        """The part of the settings that decides a run, and names its recording: all but the `view`."""
        return replace(choice, **{f.name: f.default for f in fields(choice) if f.name in self.view})

    def recorded(self, choice: Setting) -> bool:
        """Whether a run with these settings was recorded."""
        return replay.is_recorded(replay.run_name(self._run_of(choice)))

    def _name_experiment(self) -> None:
        """Show in the menu which experiment the settings are."""
        now = self._run_of(self.choice)
        titles = (title for title, choice in self.experiments.items() if self._run_of(choice) == now)
        self.controls["experiment"].value = next(titles, "")

    def _take_experiment(self) -> None:
        chosen, now = self.experiments.get(self.controls["experiment"].value), self.choice
        if chosen is not None and self._run_of(chosen) != self._run_of(now):
            self.set(replace(chosen, **{n: getattr(now, n) for n in self.view if hasattr(now, n)}))

    def _loaded(self, key: Any, load: Callable[[], Any]) -> Any:
        """What `load` returned for a key, from any thread; the newest is kept."""
        with self._loading:
            if key not in self._kept:
                self._kept = {key: load()}
            return self._kept[key]

    # a run

    def _begin(self) -> None:
        run = self.run_type(len(self.runs) + 1, self.choice)
        if self.replays and not self.recorded(run.choice):
            raise LabError(
                "At the tier replay nothing is trained, and no run with these settings was recorded: choose "
                f"one in the menu 'experiment' ({', '.join(self.experiments) or 'empty'}), or set "
                "SOCKETLAB_TIER=laptop and start the notebook again."
            )

        def events() -> Generator[float]:
            self.box.clear()
            stream = self._events(run)
            if not self.session.stopping:
                self.session.note = ""
                self.runs.append(run)
                for event in stream:
                    yield self._see(run, event)

        self.session.start(events, partial(self.redraw, *self.live, at_once=False), partial(self._end, run))

    def _events(self, run: Any) -> Iterator[Any]:
        """Load what a run needs, and return its events, played by `replay.played`."""
        raise NotImplementedError

    def _see(self, run: Any, event: Step | replay.Observation) -> float:
        if isinstance(event, Step):
            self.session.note = f"epoch {event.epoch}"
            run.steps.append({name: float(loss) for name, loss in event.losses.items()})
            return event.step / event.steps
        self._epoch(run, event)
        return event.epoch / max(event.epochs, 1)

    def _epoch(self, run: Any, seen: replay.Observation) -> None:
        """Keep the numbers of an epoch."""
        run.add(seen.epoch, **seen.seen)

    def _end(self, run: Any, state: str) -> None:
        run.outcome = "recorded" if self.replays and state == "finished" else state
        run.seconds = self.session.seconds
        self.redraw(*self.live)
        self.show_runs()
        if state == "finished":
            for listener in self.listeners:
                listener()

    def reset(self) -> None:
        """Stop, forget all runs, settings and pictures as at the beginning."""
        super().reset()
        self.runs = []
        self.set(self.first)
        self.redraw()
        self.show_runs()

    # runs side by side

    def show_runs(self) -> None:
        """Write the table of runs below the pictures."""
        with pd.option_context("display.max_colwidth", None):
            rows = pd.DataFrame(map(self._row, self.runs))
            table = rows.to_html(escape=False, index=False, border=0, justify="left", na_rep="")
        title = "<p><b>Runs kept for comparison</b>, settings as each run began</p>"
        self.table.value = title + table if self.runs else ""

    def _row(self, run: PanelRun[Any]) -> dict[str, str]:
        share, colour = run.last("accuracy"), run.style.colour
        known = 0.0 if math.isnan(share) else share
        full = f'<span style="width:{90 * known:.0f}px;background:{colour}"></span>'
        bar = f'<span class="socketlab-share">{full}</span> <b>{100 * known:.1f}&nbsp;%</b>'
        time = f"{run.seconds:.0f} s" + ("" if run.outcome == "finished" else f", {run.outcome}")
        changed = "; ".join(map(str, run.changes))
        last = {name: run.last(name) for name in run.values if name != "accuracy"}
        others = {name: f"{one:.3g}" for name, one in last.items() if isinstance(one, float)}
        return {
            "run": f'<span style="color:{colour}">●</span> {run.number}',
            "other than at first": html.escape(self.differs(run.choice)),
            "held-out accuracy": bar,
            **others,
            "time": time + (f"<br><b>changed: {html.escape(changed)}</b>" if changed else ""),
        }

    def still(self) -> Any:
        """A picture of the last run for readers without a kernel, as an IPython `Image`.

        A run that is under way is waited for; when nothing has run yet, the settings shown run once.
        """
        self.wait()
        if not self.runs:
            self.run(wait=True)
        return super().still()


class Guess(Readable):
    """A question whose answer the learner picks before a run shows what happens; nothing is graded.

    Parameters
    ----------
    question : one sentence; HTML is allowed.
    options : two different answers at least, plain text.
    outcome : panel -> the option that came true, or that option and a sentence on it (HTML), or None while
        its runs do not answer the question; once shown, the option is `revealed`.
    """

    def __init__(self, question: str, options: Sequence[str], outcome: Callable[[Any], Outcome]) -> None:
        self.question, self.options, self.outcome = question, tuple(options), outcome
        if len(self.options) < 2 or len(set(self.options)) < len(self.options):
            raise LabError(f"A guess needs two different options at least, not {list(self.options)}.")
        self.revealed: str | None = None
        self.box, self.answer = session.ErrorBox(), text_box("outcome-text")
        self.picker = widgets.RadioButtons(options=self.options, value=None, layout={"width": "auto"})
        self.picker.add_class("socketlab-guess")
        title = f"<b>Guess first.</b> {question}"
        listed = "".join(f"<li>{html.escape(option)}</li>" for option in self.options)
        self.page = f"<p>{title}</p><ol type='a'>{listed}</ol>"
        super().__init__([widgets.HTML(title), self.picker, self.answer, self.box])
        self.accessible()
        self.picker.observe(session.guarded(self.box, lambda _: self._show()), "value")
        self._show()

    def follow(self, panel: RunPanel[Any]) -> "Guess":
        """Show the outcome beside the guess whenever a run of this panel has ended."""
        panel.listeners.append(session.guarded(self.box, lambda: self.reveal(panel)))
        return self

    def reveal(self, panel: Any) -> str | None:
        """Show the outcome beside the guess; the option that came true, or None without guess or outcome."""
        found = self.outcome(panel) if self.picker.value else None
        if found is None:
            return None
        option, words = (found, "") if isinstance(found, str) else found
        require_choice("outcome", option, self.options)
        self.revealed = option
        self._show(words)
        return option

    def _show(self, words: str = "") -> None:
        """The guess, and beside it the outcome where it is known."""
        guess, text = self.picker.value, "No guess yet."
        if guess:
            text = f"Your guess: <b>{html.escape(guess)}</b>."
        if guess and self.revealed:
            colour, sign = ("#1a7f37", "✓") if self.revealed == guess else ("#b42318", "≠")
            outcome = f"<b>{html.escape(self.revealed)}</b> <span style='color:{colour}'>{sign}</span>"
            text += f" The run: {outcome} {words}"
        self.answer.value = text

    def __repr__(self) -> str:
        listed = "\n".join(f"  ( ) {option}" for option in self.options)
        return f"Guess first. {html.unescape(re.sub(r'<[^>]+>', '', self.question))}\n{listed}"
