"""Panels that train: runs kept side by side, experiments, recorded runs, and a guess before them."""

import html
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Generic, TypeVar

import ipywidgets as widgets
import pandas as pd  # type: ignore[import-untyped]

from socketlab.errors import LabError
from socketlab.figures.style import Style, run_style, show
from socketlab.method.adaptation import Step
from socketlab.panels import session
from socketlab.panels.base import Control, Panel, accessible, text_box
from socketlab.runs import replay

Setting = TypeVar("Setting")
SAME_CHANGE = 10  # steps within which a slider that moves on makes one change
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
    """One run that a panel keeps: its settings as it began, and one number per name and epoch."""

    number: int
    choice: Setting
    epochs: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
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

    def add(self, epoch: int, **values: float) -> None:
        """Append the numbers of an epoch."""
        self.epochs.append(epoch)
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def change(self, label: str, before: float, after: float, step: int, epoch: int) -> None:
        """Append a change; one that goes on from the change before it is the same one."""
        if self.changes and self.changes[-1].label == label and step - self.changes[-1].step < SAME_CHANGE:
            before = self.changes.pop().before
        self.changes.append(Change(label, before, after, step, epoch))

    def last(self, name: str) -> float:
        """The latest number of a name; NaN where there is none."""
        return (self.values.get(name) or [math.nan])[-1]

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Epochs and numbers of a name, copied, for a picture."""
        values = list(self.values.get(name, ()))
        return self.epochs[: len(values)], values

    def rows(self, **settings: Any) -> list[dict[str, Any]]:
        """A row per epoch, for a table; the settings stand in each."""
        return [
            {"run": self.number, **settings, "epoch": epoch} | {n: v[i] for n, v in self.values.items()}
            for i, epoch in enumerate(self.epochs)
        ]


class RunPanel(Panel, Generic[Setting]):
    """A panel whose Run trains: it keeps its runs, offers experiments, and shows recorded runs at ``replay``.

    Subclasses call `_ready` at the end of their construction. They define `_events`, `_draw`, `_clear` and
    `_cells`; `_values_of` and `choice` where their settings are not simply those of the controls; `run_type`,
    `_step` and `_epoch` where a run keeps more; and `view`, the controls that change only what is shown.

    Parameters
    ----------
    first : the settings to begin with; at ``replay`` recorded ones.
    experiments : title -> settings, offered in a menu; at ``replay`` those that were recorded.
    """

    run_type: type[PanelRun[Any]] = PanelRun
    view: Sequence[str] = ()

    def __init__(
        self,
        first: Any,
        experiments: Mapping[str, Setting],
        table: Mapping[str, Control],
        pictures: Mapping[str, str],
    ) -> None:
        self.runs: list[Any] = []
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
        menu = Control("experiment", "", tip, options=options)
        super().__init__({"experiment": menu, **table}, pictures)
        self._own = [name for name in table if name not in self.view]
        for name in self._own:  # at replay they would change nothing
            self.controls[name].disabled = self.replays

    def _ready(self) -> None:
        """Show the first settings and listen; called by a subclass when it is complete."""
        self.set(self.first)
        self._on_change(("experiment",), self._take_experiment)
        self._on_change(self._own, self._name_experiment)
        self._clear(None)

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

    def _run_of(self, choice: Any) -> Any:
        """The part of the settings that decides a run; it names the recording."""
        return choice

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

        def events() -> Iterator[Any]:
            self.box.clear()
            stream = self._events(run)
            if not self.session.stopping:
                self.session.note = ""
                self.runs.append(run)
                self._clear(run)
                yield from stream

        see, draw, end = partial(self._see, run), partial(self._redraw, run), partial(self._end, run)
        self.session.start(events, see, draw, end)

    def _events(self, run: Any) -> Iterator[Any]:
        """Load what a run needs, and return its events, played by `replay.played`."""
        raise NotImplementedError

    def _see(self, run: Any, event: Step | replay.Observation) -> float:
        if isinstance(event, Step):
            self.session.note = f"epoch {event.epoch}"
            self._step(run, event)
            return event.step / event.steps
        self._epoch(run, event)
        return event.epoch / event.epochs if event.epochs else 1.0

    def _step(self, run: Any, step: Step) -> None:
        """Keep the losses of a step."""

    def _epoch(self, run: Any, seen: replay.Observation) -> None:
        """Keep the numbers of an epoch."""
        run.add(seen.epoch, **seen.seen)

    def _redraw(self, run: Any) -> None:
        if run in self.runs:
            self._draw(run)

    def _draw(self, run: Any) -> None:
        """Post the pictures, in the worker: copy what is drawn."""

    def _clear(self, run: Any) -> None:
        """Empty the pictures for a run, or for none."""

    def _end(self, run: Any, state: str) -> None:
        run.outcome = "recorded" if self.replays and state == "finished" else state
        run.seconds = self.session.seconds
        self._redraw(run)
        self.show_runs()
        if state == "finished":
            for listener in self.listeners:
                listener()

    def reset(self) -> None:
        """Stop, forget all runs, settings and pictures as at the beginning."""
        self._halt()
        self.runs = []
        self.set(self.first)
        self._clear(None)
        self.show_runs()
        self.session.reset()

    # runs side by side

    def _cells(self, run: Any) -> dict[str, str]:
        """Heading -> cell of a run's row, HTML."""
        return {}

    def show_runs(self) -> None:
        """Write the table of runs below the pictures."""
        with pd.option_context("display.max_colwidth", None):
            rows = pd.DataFrame(map(self._row, self.runs))
            table = rows.to_html(escape=False, index=False, border=0, justify="left")
        title = "<p><b>Runs kept for comparison</b>, settings as each run began</p>"
        self.table.value = title + table if self.runs else ""

    def _row(self, run: PanelRun[Any]) -> dict[str, str]:
        share, colour = run.last("accuracy"), run.style.colour
        known = 0.0 if math.isnan(share) else share
        full = f'<span style="width:{90 * known:.0f}px;background:{colour}"></span>'
        bar = f'<span class="socketlab-share">{full}</span> <b>{100 * known:.1f}&nbsp;%</b>'
        changed = "; ".join(html.escape(str(change)) for change in run.changes)
        time = f"{run.seconds:.0f} s" + ("" if run.outcome == "finished" else f", {run.outcome}")
        return {
            "run": f'<span style="color:{colour}">●</span> {run.number}',
            **self._cells(run),
            "held-out accuracy": bar,
            "time": time + (f"<br><b>changed: {changed}</b>" if changed else ""),
        }

    def still(self, dpi: float = 100) -> Any:
        """A picture of the last run for readers without a kernel, as an IPython `Image`.

        A run that is under way is waited for; when nothing has run yet, the settings shown run once.
        """
        self.wait()
        if not self.runs:
            self.run(wait=True)
        return show(self.sheet(), dpi)


class Guess(widgets.VBox):
    """A question whose answer the learner picks before a run shows what happens; nothing is graded.

    Parameters
    ----------
    question : one sentence; HTML is allowed.
    options : two different answers at least, plain text; `value` is the one picked, or None.
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
        title = widgets.HTML(f"<b>Guess first.</b> {question}")
        super().__init__([title, self.picker, self.answer, self.box])
        accessible(self)
        self.picker.observe(session.guarded(self.box, lambda _: self._show("")), "value")
        self._show("")

    @property
    def value(self) -> str | None:
        """The option picked, or None."""
        return self.picker.value

    def follow(self, panel: Panel) -> "Guess":
        """Show the outcome beside the guess whenever a run of this panel has ended."""
        panel.listeners.append(session.guarded(self.box, lambda: self.reveal(panel)))
        return self

    def reveal(self, panel: Any) -> str | None:
        """Show the outcome beside the guess; the option that came true, or None without guess or outcome."""
        found = self.outcome(panel) if self.value is not None else None
        if found is None:
            return None
        option, words = (found, "") if isinstance(found, str) else found
        if option not in self.options:
            raise LabError(f"The outcome {option!r} is none of the options {', '.join(self.options)}.")
        self.revealed = option
        self._show(words)
        return option

    def _show(self, words: str) -> None:
        """The guess, and beside it the outcome where it is known."""
        text = f"Your guess: <b>{html.escape(self.value)}</b>." if self.value else "No guess yet."
        if self.value and self.revealed:
            colour, sign = ("#1a7f37", "✓") if self.revealed == self.value else ("#b42318", "≠")
            outcome = f"<b>{html.escape(self.revealed)}</b> <span style='color:{colour}'>{sign}</span>"
            text += f" The run: {outcome} {words}"
        self.answer.value = text

    def __repr__(self) -> str:
        listed = "\n".join(f"  ( ) {option}" for option in self.options)
        return f"Guess first. {html.unescape(re.sub(r'<[^>]+>', '', self.question))}\n{listed}"

    def _repr_mimebundle_(self, **named: Any) -> dict[str, Any]:
        """As every widget, with question and options for pages where no kernel runs."""
        bundle: dict[str, Any] = super()._repr_mimebundle_(**named) or {}
        listed = "".join(f"<li>{html.escape(option)}</li>" for option in self.options)
        page = f"<p><b>Guess first.</b> {self.question}</p><ol type='a'>{listed}</ol>"
        return bundle | {"text/plain": repr(self), "text/html": page}
