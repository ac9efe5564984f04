"""What the panels share: controls, the bar with run, pause, stop and reset, the export, who listens.

A panel is a box of core widgets around one `live.Session`. Callbacks pass through `live.guarded`, and sliders
tell their value when they are let go.
"""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from socketlab.method.recipe import Knob
from socketlab.panels import exports, session
from socketlab.panels.exports import Table
from socketlab.panels.live_pictures import LivePicture

WIDE, LABEL = {"width": "360px"}, {"description_width": "150px"}
ROW = {"flex_flow": "row wrap", "align_items": "center"}
TIPS = {
    "run": "run with the settings shown",
    "pause": "hold the run, and go on",
    "stop": "end the run, keep what it showed",
    "reset": "forget all runs, settings as at the beginning",
}
_ICONS = {"run": "play", "pause": "pause", "stop": "stop", "reset": "undo", "export": "download"}


# ------------------------------------------------------------------------ controls


def slider_for(name: str, knob: Knob, value: Any, label: str = "") -> widgets.Widget:
    """The widget of one recipe field: range, scale and help are the knob's, and its label unless told."""
    about: dict[str, Any] = {
        "description": label or knob.label or name,
        "tooltip": knob.help,
        "layout": WIDE,
        "style": LABEL,
    }
    if knob.choices:
        return widgets.Dropdown(options=knob.choices, value=value, **about)
    if isinstance(value, bool):
        return widgets.Checkbox(value=value, **about)
    assert knob.low is not None
    assert knob.high is not None
    about["continuous_update"] = False
    if isinstance(value, int):
        return widgets.IntSlider(value, int(knob.low), int(knob.high), **about)
    if knob.log:
        low, high = math.log10(knob.low), math.log10(knob.high)
        return widgets.FloatLogSlider(
            value, base=10, min=low, max=high, step=0.05, readout_format=".2g", **about
        )
    step = 10 ** math.floor(math.log10((knob.high - knob.low) / 100))
    return widgets.FloatSlider(value, min=knob.low, max=knob.high, step=step, readout_format=".2f", **about)


def slider(
    label: str, value: float, low: float, high: float, step: float, tip: str, form: str = ".2f"
) -> widgets.Widget:
    """A slider that speaks when it is let go; of whole numbers where value and step are whole."""
    about: dict[str, Any] = {"description": label, "tooltip": tip, "layout": WIDE, "style": LABEL}
    about |= {"min": low, "max": high, "step": step, "continuous_update": False}
    if isinstance(value, int) and isinstance(step, int):
        return widgets.IntSlider(value, **about)
    return widgets.FloatSlider(value, readout_format=form, **about)


def steps_slider(label: str, options: Sequence[Any], value: Any, tip: str) -> widgets.SelectionSlider:
    """A slider over names or numbers at unequal steps; it speaks when it is let go."""
    return widgets.SelectionSlider(
        options=options,
        value=value,
        description=label,
        tooltip=tip,
        continuous_update=False,
        layout=WIDE,
        style=LABEL,
    )


def menu(label: str, options: Sequence[Any], value: Any, tip: str, small: bool = False) -> widgets.Dropdown:
    """A list to choose from; a small one has no room kept for its label."""
    layout = {"width": "auto", "margin": "2px 16px 2px 2px"} if small else WIDE
    style = {"description_width": "initial"} if small else LABEL
    return widgets.Dropdown(
        options=options, value=value, description=label, tooltip=tip, layout=layout, style=style
    )


def with_class(controls: Mapping[str, widgets.Widget]) -> dict[str, widgets.Widget]:
    """The same controls, each to be found in a page as ``.socketlab-<name>``."""
    for name, control in controls.items():
        control.add_class(f"socketlab-{name.replace('_', '-')}")
    return dict(controls)


def button(name: str, tip: str, text: str = "", style: str = "") -> widgets.Button:
    """A button with the icon of what it does."""
    made = widgets.Button(
        description=text or name.capitalize(),
        icon=_ICONS.get(name, ""),
        tooltip=tip,
        button_style=style,
        layout=widgets.Layout(width="100px"),
    )
    made.add_class(f"socketlab-{name}")
    return made


def heading(text: str, note: str = "") -> widgets.HTML:
    """A small title with a quieter remark beside it."""
    return widgets.HTML(
        f'<div style="font-size:15px;margin:4px 0 2px"><b>{text}</b> '
        f'<span style="opacity:.75">{note}</span></div>'
    )


def said(text: str) -> str:
    """Text, which may be HTML, in the size of a panel's headline."""
    return f'<div style="font-size:16px;line-height:1.4">{text}</div>'


def text_box(name: str, lines: float = 0) -> widgets.HTML:
    """Where a panel writes; of fixed height where its number of lines is told, so that nothing jumps."""
    height = {"min_height": f"{round(24 * lines)}px"} if lines else {}
    box = widgets.HTML(layout=widgets.Layout(width="auto", overflow="auto", **height))
    box.add_class(f"socketlab-{name}")
    return box


def in_a_row(*parts: widgets.Widget) -> widgets.Box:
    """Side by side while there is room, else below one another."""
    return widgets.Box(list(parts), layout=widgets.Layout(**ROW))


def in_words(pictures: Mapping[str, LivePicture]) -> str:
    """What the pictures show, folded away."""
    lines = "".join(f"<li>{html.escape(picture.alt)}</li>" for picture in pictures.values())
    return f"<details><summary>The pictures in words</summary><ul>{lines}</ul></details>"


def rows_table(title: str, note: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of cells that are HTML already; empty without rows."""
    if not rows:
        return ""
    cell = '<{0} style="text-align:left;padding:2px 10px 2px 0">{1}</{0}>'
    head = "".join(cell.format("th", name) for name in heads)
    body = "".join("<tr>" + "".join(cell.format("td", one) for one in row) + "</tr>" for row in rows)
    return (
        f'<div style="font-size:15px;margin-top:6px"><b>{title}</b> '
        f'<span style="opacity:.75">{note}</span></div>'
        f'<table style="font-size:14px;line-height:1.5;border-spacing:0"><tr>{head}</tr>{body}</table>'
    )


def share_bar(share: float, colour: str) -> str:
    """A share in [0, 1] as a bar and in percent."""
    full = f'<span style="display:block;width:{90 * share:.0f}px;height:10px;background:{colour}"></span>'
    return (
        f'<span style="display:inline-block;width:90px;height:10px;background:rgba(127,127,127,.25)">{full}'
        f"</span> <b>{100 * share:.1f}&nbsp;%</b>"
    )


# ------------------------------------------------------------------------ the panel


class Panel(widgets.VBox):
    """A box with one session, its buttons, an export, and those who want to know when a run has ended.

    Subclasses fill `controls` and `pictures`, answer `_begin` and `reset`, give `tables`, call `_listen`.

    Attributes
    ----------
    controls : name -> widget, of all that can be set.
    pictures : name -> live picture, as they are exported.
    buttons : "run", "pause", "stop", "reset", "export".
    listeners : called without arguments after each run that ended by itself, in the worker's thread.
    exported : the folders written so far.
    """

    name = "panel"

    def __init__(self, tips: Mapping[str, str] | None = None, run_text: str = "Run") -> None:
        self.box = session.ErrorBox()
        self.session: session.Session[Any] = session.Session(self.box)
        self.controls: dict[str, widgets.Widget] = {}
        self.pictures: dict[str, LivePicture] = {}
        self.listeners: list[Callable[[], None]] = []
        self.exported: list[Path] = []
        told = TIPS | dict(tips or {})
        self.buttons = {name: button(name, told[name]) for name in TIPS}
        self.buttons["run"].button_style, self.buttons["run"].description = "primary", run_text
        self.buttons["export"] = button("export", "pictures as PNG and SVG, numbers as CSV")
        self.folder = widgets.Text(
            exports.FOLDER,
            description="into",
            continuous_update=False,
            tooltip="folder for exports, beside the notebook unless its path is given in full",
            layout={"width": "230px"},
            style={"description_width": "40px"},
        )
        self.export_note = text_box("exported")
        self.words = text_box("words")
        super().__init__()
        self.add_class("socketlab-panel")

    def tables(self) -> dict[str, Table]:
        """The numbers behind the pictures: file name -> rows."""
        return {}

    def run(self, wait: bool = False, timeout: float | None = None) -> str:
        """Start a run with the settings shown, or let a paused one go on; never a second one beside it.

        Parameters
        ----------
        wait : return only at the end of the run, and raise what made it fail.
        timeout : the most seconds to wait.

        Returns
        -------
        The state of the session: "running", "finished", ...
        """
        self.buttons["pause"].description = "Pause"
        if self.session.running:
            self.session.resume()
        else:
            self._begin()
        return self.session.wait(timeout) if wait else self.session.state

    def _begin(self) -> None:
        """Start the session with the settings shown."""
        raise NotImplementedError

    def pause(self) -> None:
        """Hold the run, or let it go on."""
        if not self.session.running:
            return
        held = self.buttons["pause"].description == "Pause"
        self.buttons["pause"].description = "Go on" if held else "Pause"
        self.session.pause() if held else self.session.resume()

    def stop(self) -> None:
        """End the run; what it showed stays."""
        self.buttons["pause"].description = "Pause"
        self.session.stop()

    def reset(self) -> None:
        """Forget all runs and go back to the first settings."""
        raise NotImplementedError

    def _halt(self) -> None:
        """End the run, wait for its last step, and take down what the error box says."""
        self.stop()
        self.session.join(10)
        self.box.clear()

    def export(self) -> Path:
        """Write all pictures (PNG, SVG) and numbers (CSV) into a new folder, and say where.

        Returns
        -------
        The folder.

        Raises
        ------
        LabError : the folder cannot be written.
        """
        folder = exports.write(self.pictures, self.tables(), self.name, self.folder.value or exports.FOLDER)
        self.exported.append(folder)
        count = len(list(folder.iterdir()))
        self.export_note.value = (
            f'<span style="font-size:15px">{count} files written to '
            f"<code>{html.escape(str(folder))}</code></span>"
        )
        return folder

    def tell_listeners(self) -> None:
        """Tell whoever waits that a run has ended."""
        for listener in list(self.listeners):
            listener()

    def _bar(self) -> list[widgets.Widget]:
        """Buttons, progress, and the box for errors."""
        held = widgets.Layout(flex_flow="row wrap", margin="6px 0 0", align_items="center")
        parts = [*self.buttons.values(), self.folder, self.export_note]
        return [widgets.Box(parts, layout=held), self.session.bar, self.session.status, self.box]

    def _listen(self) -> None:
        for name, one in self.buttons.items():
            act = getattr(self, name)
            one.on_click(session.guarded(self.box, lambda _, act=act: act()))

    def _on_change(self, names: Sequence[str], act: Callable[[], None]) -> None:
        for name in names:
            self.controls[name].observe(session.guarded(self.box, lambda _: act()), "value")
