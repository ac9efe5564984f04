"""Frame of every panel: controls at the left, a run bar, pictures that fill the window."""

import html
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import ipywidgets as widgets

from socketlab.figures import style
from socketlab.method.recipe import knobs
from socketlab.panels import session

HERE = Path(__file__).parent
RELEASED = {"continuous_update": False}  # of a slider that acts when it is let go
BUTTONS = {
    "run": ("play", ""),
    "stop": ("stop", "end the run, keep what it showed"),
    "reset": ("undo", "forget all runs, settings as at the beginning"),
}
"""Method of a panel → icon and tooltip of its button."""


# ------------------------------------------------------------------------ controls


def setting(value: Any, kind: Callable[..., Any], label: str, tip: str = "", **about: Any) -> Any:
    """A field of a panel's settings, and its control: a kind of widget, its label, tooltip and traits."""
    return field(default=value, metadata={"control": partial(kind, description=label, tooltip=tip, **about)})


def controls_of(choice: Any, **more: Mapping[str, Any]) -> dict[str, Any]:
    """The controls of settings made of `setting`, with the values of these; `more` traits by name."""
    kinds = {f.name: f.metadata["control"] for f in fields(choice) if "control" in f.metadata}
    return {name: kind(value=getattr(choice, name), **more.get(name, {})) for name, kind in kinds.items()}


def titled(titles: Mapping[str, str]) -> list[tuple[str, str]]:
    """Options of a menu from value -> title."""
    return [(title, value) for value, title in titles.items()]


def recipe_slider(name: str, value: float, label: str = "") -> Any:
    """The slider of one recipe field, with its range, scale and help."""
    knob = knobs()[name]
    assert knob.low is not None and knob.high is not None
    about: Any = {"description": label or knob.label, "tooltip": knob.help, "value": value, **RELEASED}
    if knob.log:
        ends = {"min": math.log10(knob.low), "max": math.log10(knob.high)}
        return widgets.FloatLogSlider(step=0.05, readout_format=".2g", **ends, **about)
    about |= {"min": knob.low, "max": knob.high}
    if isinstance(value, int):
        return widgets.IntSlider(**about)
    return widgets.FloatSlider(step=10 ** math.floor(math.log10((knob.high - knob.low) / 100)), **about)


def written(control: Any, value: Any) -> str:
    """A value as a control writes it."""
    if hasattr(control, "options"):
        titles = {one[1]: one[0] for one in control.options if isinstance(one, tuple)}
        return str(titles.get(value, value))
    return format(value, control.readout_format)


def named(name: str, widget: Any) -> Any:
    """The widget, to be found in a page as ``.socketlab-<name>``."""
    return widget.add_class(f"socketlab-{name.replace('_', '-')}")


def text_box(name: str) -> widgets.HTML:
    """A named place for HTML."""
    return named(name, widgets.HTML())  # type: ignore[no-any-return]


def box_of(name: str, children: Sequence[widgets.Widget]) -> widgets.Box:
    """A named box that `panel.css` lays out."""
    return named(name, widgets.Box(list(children)))  # type: ignore[no-any-return]


class Access(anywidget.AnyWidget):
    """Names, values and keys of the widgets beside it, and sizes of their pictures: see panel.js."""

    _esm, _css = HERE / "panel.js", HERE / "panel.css"


class Readable(widgets.VBox):
    """A widget with words for a page where no kernel runs: its `repr`, and the same as HTML, `page`.

    `accessible` names its sliders, keeps its keys from JupyterLab and gives its status to screen readers.
    """

    page = ""

    def accessible(self) -> Access:
        """Call once, when all its parts are in place."""
        access = Access()
        self.add_class("socketlab-accessible")
        self.children: tuple[widgets.Widget, ...] = (*self.children, access)
        access.on_msg(lambda _, content, __: access.send({"pong": True}) if "ping" in content else None)
        return access

    def _repr_mimebundle_(self, **named: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**named) or {}
        return bundle | {"text/plain": repr(self), "text/html": self.page}


# ------------------------------------------------------------------------ the panel


class Panel(Readable):
    """A frame with one session, its buttons, controls and pictures.

    Subclasses define `paints`, `told` and `_begin`, and may set what its Run button says, `below`
    (widgets under the pictures), and `folded` (title -> controls folded away; the others are in sight).

    Parameters
    ----------
    table : name -> control, a widget of ipywidgets.
    pictures : their names, in the order of the grid.

    Attributes
    ----------
    headline, table, words : text above the pictures, and two below them.
    background : further threads that `wait` waits for.
    """

    run_text, run_tip = "Run", "run with the settings shown"
    folded: ClassVar[Mapping[str, Sequence[str]]] = {}
    below: Sequence[widgets.Widget] = ()

    def __init__(self, table: Mapping[str, Any], pictures: Sequence[str]) -> None:
        self.box = session.ErrorBox()
        self._guarded = partial(session.guarded, self.box)
        self.session = session.Session(self.box)
        self.background: list[session.Background[Any]] = []
        self.controls = {name: named(name, control) for name, control in table.items()}
        self.pictures: dict[str, session.LiveFigure] = {}
        for name in pictures:
            picture = session.LiveFigure(alt=f"{name}: not drawn yet.", box=self.box)
            self.pictures[name], picture.drawn = picture, self.describe
            named(f"picture-{name}", picture.image)
        self.buttons: dict[str, widgets.Button] = {}
        for name, (icon, tip) in BUTTONS.items():
            button = widgets.Button(description=name.capitalize(), icon=icon, tooltip=tip)
            button.on_click(self._guarded(lambda _, name=name: getattr(self, name)()))
            self.buttons[name] = named(name, button)
        run = self.buttons["run"]
        run.button_style, run.description, run.tooltip = "primary", self.run_text, self.run_tip
        self.headline, self.table, self.words = map(text_box, ("headline", "runs", "words"))
        self.page = f"<p><em>{self!r}</em></p>"
        super().__init__(self._arranged())
        self.add_class("socketlab-panel")
        self.accessible().on_msg(self._guarded(lambda _, m, __: self._fit(m.get("sizes", {}), m.get("dark"))))

    def _arranged(self) -> list[widgets.Widget]:
        """Run bar, then controls beside headline and pictures, then what may lie below the window."""
        groups = [box_of("group", [self.controls[name] for name in names]) for names in self.folded.values()]
        folded = widgets.Accordion(groups, titles=tuple(self.folded), selected_index=None)
        hidden = set(itertools.chain(*self.folded.values()))
        opened = [control for name, control in self.controls.items() if name not in hidden]
        stage = box_of("stage", [self.headline, self._grid()])
        return [
            box_of("bar", [*self.buttons.values(), self.session.bar, self.session.status]),
            self.box,
            box_of("frame", [box_of("column", [*opened, named("more", folded)]), stage]),
            box_of("below", [*self.below, self.table, self.words]),
        ]

    def _grid(self) -> widgets.Widget:
        """The pictures, two in a row."""
        return box_of("pictures", [picture.image for picture in self.pictures.values()])

    def _fit(self, sizes: Mapping[str, Sequence[float]], dark: bool | None = None) -> None:
        """Fit the pictures to the sizes in the page, and photographs to its theme."""
        for name, (width, height) in sizes.items():
            if name in self.pictures and min(width, height) > 50:
                self.pictures[name].fit(width, height, bool(dark))

    def __repr__(self) -> str:
        return f"{type(self).__name__}: a live panel. Run this cell to use it."

    # buttons

    def run(self, wait: bool = False, timeout: float | None = None) -> str:
        """Start a run with the settings shown, never a second one beside it.

        With `wait` it returns at the end of the run and of its pictures, or after `timeout` seconds, and
        raises what made the run fail. Returns the state of the session: "running", "finished", ...
        """
        if not self.session.running:
            self._begin()
        return self.wait(timeout) if wait else self.session.state

    def _begin(self) -> None:
        """Start the session with the settings shown."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> str:
        """Wait for a run and for the pictures, and raise what went wrong; returns the session's state."""
        state = self.session.wait(timeout)
        for thread in (*self.background, *self.pictures.values()):
            thread.wait(timeout)
        return state

    def stop(self) -> None:
        """End the run; what it showed stays."""
        self.session.stop()

    def reset(self) -> None:
        """End the run, wait for its last step, and clear bar and errors."""
        self.stop()
        self.session.join(10)
        self.box.clear()
        self.session.reset()

    # pictures

    def paints(self) -> Mapping[str, session.Paint]:
        """Name of a picture -> a function that draws what is known now; pictures without one stay."""
        raise NotImplementedError

    def told(self) -> str:
        """The headline."""
        raise NotImplementedError

    def redraw(self, *names: str, at_once: bool = True) -> None:
        """Draw the pictures named, or all, and write the headline, from any thread."""
        for name, paint in self.paints().items():
            if not names or name in names:
                self.pictures[name].post(paint, at_once)
        self.headline.value = self.told()

    def _on_change(self, names: Sequence[str], act: Callable[[], Any]) -> None:
        for name in names:
            self.controls[name].observe(self._guarded(lambda _: act()), "value")

    def describe(self) -> None:
        """Write the pictures in words below the panel, folded; during a run they stay as they are."""
        if self.session.state != "running":
            lines = "".join(f"<li>{html.escape(picture.alt)}</li>" for picture in self.pictures.values())
            self.words.value = f"<details><summary>The pictures in words</summary><ul>{lines}</ul></details>"

    def sheet(self) -> Any:
        """All pictures on one sheet, two in a row: a matplotlib figure."""
        rows = -(-len(self.pictures) // 2)
        with session.DRAW:
            figure = style.new_figure(1180, 430 * rows, fitted=True)
            parts: Any = figure.subfigures(rows, 2, squeeze=False)
            for part, picture in zip(parts.flat, self.pictures.values(), strict=False):
                picture.paint(part)
        return figure

    def still(self) -> Any:
        """A picture for readers without a kernel, as an IPython `Image`."""
        self.wait()
        return style.show(self.sheet(), 100)
