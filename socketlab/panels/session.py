"""Live pictures, and the thread behind them.

Training runs in one worker thread; the notebook's own threads only post wishes (a slider's value, pause,
stop) that the worker reads between two steps. The worker writes to output widgets alone: `Image`, `HTML`,
progress. Pictures are drawn off the screen on fixed axes, only their moving parts each time, and may take a
fifth of the time.

Errors never vanish: every callback passes through `guarded`, every thread keeps what it met, and both show it
in an `ErrorBox`. With `SOCKETLAB_STRICT=1` (tests, executed notebooks) they are raised as well.
"""

import html
import io
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import ipywidgets as widgets
import numpy as np
from ipywidgets.widgets.widget_description import DescriptionWidget
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from PIL import Image as Pillow

from socketlab.errors import LabError
from socketlab.figures import figures

Event = TypeVar("Event")
Job = TypeVar("Job")
DRAW = threading.RLock()  # matplotlib is not made for threads: take this around every draw
ERROR_CLASS = "socketlab-error"
IDLE_SECONDS = 30.0
_Rectangle = tuple[float, float, float, float]
_DOTTED = (0, (1, 2))
_QUIET: dict[str, Any] = {"textcoords": "offset points", "color": figures.SOFT, "fontsize": figures.TEXT}


# ------------------------------------------------------------------------ errors


def strict() -> bool:
    """True when errors in callbacks are to be raised and not only shown."""
    return os.environ.get("SOCKETLAB_STRICT") == "1"


class ErrorBox(widgets.HTML):
    """A readable box for errors; empty while all is well."""

    def __init__(self) -> None:
        super().__init__(layout=widgets.Layout(width="auto", margin="0"))
        self.errors: list[BaseException] = []
        self.add_class("socketlab-errors")

    def show(self, error: BaseException) -> None:
        """Show one error: the sentence of a `LabError`, name and folded traceback of anything else."""
        self.errors.append(error)
        text = html.escape(str(error) or type(error).__name__)
        if not isinstance(error, LabError):
            lines = html.escape("".join(traceback.format_exception(error)))
            text = (
                f"<b>{type(error).__name__}:</b> {text}"
                "<details><summary>This is a fault of the kit: details to report</summary>"
                f"<pre style='white-space:pre-wrap;font-size:12px'>{lines}</pre></details>"
            )
        self.value = (
            f'<div class="{ERROR_CLASS}" role="alert" style="border-left:4px solid #b42318;'
            'background:#fef3f2;color:#24292f;padding:8px 12px;margin:4px 0;font-size:15px;line-height:1.4">'
            f"{text}</div>"
        )

    def clear(self) -> None:
        """Forget what was shown."""
        self.errors.clear()
        self.value = ""


def guarded(box: ErrorBox, call: Callable[..., Any]) -> Callable[..., Any]:
    """A callback that cannot fail unseen.

    ipywidgets swallows what a callback raises. This one shows it in `box`, and in strict mode raises it too.
    """

    def safely(*arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except Exception as error:
            box.show(error)
            if strict():
                raise
            return None

    return safely


# ------------------------------------------------------------------------ pictures


class Picture(widgets.Image, DescriptionWidget):
    """An image with its content in words: the mouse shows them, a screen reader reads them.

    The front end hangs a tooltip on what has a description, be it empty; a plain `Image` has none, and with a
    tooltip it is not shown at all.
    """


class LivePicture:
    """An off-screen figure of which only some artists move, shown by an `Image` widget.

    Subclasses draw what stays in `__init__`, add what moves with `animated=True` and call `_blit`.

    Parameters
    ----------
    width, height : size shown, CSS pixels.
    alt : the picture in words, also its tooltip.
    sharpness : pixels drawn per pixel shown.
    """

    def __init__(self, width: int = 440, height: int = 300, alt: str = "", sharpness: float = 1.5) -> None:
        self.width, self.height = width, height
        with DRAW:
            self.figure = figures.new_figure(width, height, dpi=figures.DPI * sharpness)
        self._background: Any = None
        self.image = Picture(
            format="png",
            layout=widgets.Layout(width=f"{width}px", height=f"{height}px", object_fit="contain", margin="0"),
        )
        self.say(alt)

    def say(self, alt: str) -> None:
        """Describe the picture in words."""
        self.alt = alt
        self.image.tooltip = alt

    def axes_at(self, left: float, bottom: float, right: float, top: float) -> Axes:
        """Axes with margins in pixels; no layout engine works while a picture is live."""
        return self.figure.add_axes(self._within(left, bottom, right, top))

    def _within(self, left: float, bottom: float, right: float, top: float) -> _Rectangle:
        w, h = self.width, self.height
        return left / w, bottom / h, (w - left - right) / w, (h - bottom - top) / h

    def _write(self, text: str, down: float = 8, size: float = figures.TEXT + 1, **more: Any) -> Any:
        """A line of text at the left, `down` pixels below the upper edge; the first one is the title."""
        place = 8 / self.width, 1 - down / self.height
        return self.figure.text(*place, text, fontsize=size, color=figures.INK, va="top", **more)

    def _settle(self) -> None:
        """Draw everything that stays and keep it (50 ms); needed again when limits or texts change."""
        self.figure.canvas.draw()
        self._background = self.figure.canvas.copy_from_bbox(self.figure.bbox)  # type: ignore[attr-defined]

    def _blit(self, moving: Sequence[Artist], alt: str | None = None) -> None:
        """Draw what moves over what stays, and show it with its words in one message (15 ms)."""
        if self._background is None:
            self._settle()
        canvas: Any = self.figure.canvas
        canvas.restore_region(self._background)
        for artist in moving:
            self.figure.draw_artist(artist)
        file = io.BytesIO()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        Pillow.fromarray(pixels).save(file, "PNG", compress_level=1)
        with self.image.hold_sync():  # the front end draws an image anew for every message
            self.image.value = file.getvalue()
            if alt is not None:
                self.say(alt)


class LivePlot(LivePicture):
    """Curves that grow.

    Parameters
    ----------
    names : one line each; a line that comes later takes the next colour.
    separate : every name on axes of its own (terms of a loss live on different scales).
    smooth : also draw a running mean, weight of the past in [0, 1); the raw line turns pale.
    xlim, ylim : fixed limits; None follows the data.
    levels : name -> height of a dotted line.
    marks : name -> place of a dotted line upwards, where something begins.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        title: str = "",
        titles: Mapping[str, str] | None = None,
        xlabel: str = "step",
        ylabel: str = "",
        xlim: tuple[float, float] = (0, 1),
        ylim: tuple[float, float] | None = None,
        separate: bool = False,
        smooth: float = 0.0,
        levels: Mapping[str, float] | None = None,
        marks: Mapping[str, float] | None = None,
        looks: Mapping[str, figures.Style] | None = None,
        width: int = 440,
        height: int = 300,
    ) -> None:
        super().__init__(width, height, alt=title)
        self.names, self.smooth, self.ylim = tuple(names), smooth, ylim
        self._title, self._titles, self._xlabel, self._ylabel = title, dict(titles or {}), xlabel, ylabel
        self._separate, self.looks = separate, dict(looks or {})
        self._lines: dict[str, Any] = {}
        self._raw: dict[str, Any] = {}
        self._axes: dict[str, Axes] = {}
        self._xlim = xlim
        self.clear(xlim, levels, marks)

    def clear(
        self,
        xlim: tuple[float, float] | None = None,
        levels: Mapping[str, float] | None = None,
        marks: Mapping[str, float] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Begin again with empty axes, other limits along x, levels and marks, and for other names."""
        with DRAW:
            self.names = self.names if names is None else tuple(names)
            self._xlim = xlim or self._xlim
            self._levels, self._marks = dict(levels or {}), dict(marks or {})
            self.figure.clear()
            self._lines, self._raw, self._axes = {}, {}, {}
            self._frame()
            self._settle()
            self._blit([])

    def draw(self, series: Mapping[str, ArrayLike | tuple[ArrayLike, ArrayLike]]) -> None:
        """Show curves: name -> y (x counts from 1), or name -> (x, y); what is not finite leaves a gap."""
        with DRAW:
            grown = False
            heights: dict[Axes, list[Any]] = {}
            for name, values in series.items():
                x, y = values if isinstance(values, tuple) else (np.arange(1, np.size(values) + 1), values)
                x, y = np.asarray(x, float), np.asarray(y, float)
                if name not in self._lines:
                    self._add(name)
                    grown = True
                self._lines[name].set_data(x, running_mean(y, self.smooth) if self.smooth else y)
                self._lines[name].set_markersize(5 if len(x) <= 25 else 0)
                if name in self._raw:
                    self._raw[name].set_data(x, y)
                heights.setdefault(self._axes[name], []).append(y)
            for ax, values in heights.items():
                grown |= self._fit(ax, values)
            if grown:
                self._settle()
            self._blit([*self._raw.values(), *self._lines.values()], self._last_in_words(series))

    def _frame(self) -> None:
        if self._separate:
            self._frame_separate()
        else:
            self._frame_shared()
        for name in self.names:
            self._add(name)

    def _frame_shared(self) -> None:
        """From the top: title, legend, names of the marks, axes."""
        self._write(self._title, weight="bold")
        self._legend_top = 32 if self._title else 8
        ax = self._shared = self.axes_at(70, 48, 24, self._legend_top + 46)
        figures.dress(ax, "", self._xlabel, self._ylabel)
        ax.locator_params(axis="x", integer=True)  # there is no half epoch
        ax.set(xlim=self._xlim, ylim=self.ylim or (0, 1))
        self._name_levels(ax)
        begin, end = self._xlim
        for name, place in self._marks.items():
            ax.axvline(place, color=figures.PALE, linewidth=1.2, linestyle=_DOTTED)
            share = (place - begin) / (end - begin)
            across = "left" if share < 0.2 else "right" if share > 0.8 else "center"
            ax.annotate(name, (place, 1), (0, 4), ("data", "axes fraction"), ha=across, va="bottom", **_QUIET)
        self._axes = dict.fromkeys(self.names, ax)

    def _name_levels(self, ax: Axes) -> None:
        """Dotted lines; the lowest is named below, the others above, pushed apart where they are close."""
        for level in self._levels.values():
            ax.axhline(level, color=figures.SOFT, linewidth=1.2, linestyle=_DOTTED)
        low, high = ax.get_ylim()
        letter = figures.TEXT / 72 * figures.DPI / (ax.get_position().height * self.height) * (high - low)
        names = sorted(self._levels, key=lambda name: self._levels[name])
        above = figures.apart([self._levels[name] for name in names[1:]], 1.3 * letter, high=high - letter)
        places = [self._levels[name] for name in names[:1]] + above
        for name, place in zip(names, places, strict=True):
            shift, up = ((-2, -3), "top") if name == names[0] else ((-2, 2), "bottom")
            ax.annotate(name, (1, place), shift, ("axes fraction", "data"), ha="right", va=up, **_QUIET)

    def _frame_separate(self) -> None:
        """A grid of axes of one height: 34 pixels above each for its name, 24 below for its ticks."""
        self._write(self._title, weight="bold")
        columns = 2 if len(self.names) > 1 else 1
        rows = -(-len(self.names) // columns)
        head, foot = 26 if self._title else 0, 24
        cell_w, cell_h = self.width / columns, (self.height - head - foot) / rows
        for i, name in enumerate(self.names):
            row, column = divmod(i, columns)
            ax = self.axes_at(
                column * cell_w + 62,
                (rows - 1 - row) * cell_h + foot + 24,
                (columns - 1 - column) * cell_w + 26,
                row * cell_h + head + 34,
            )
            figures.dress(ax, "", self._xlabel if i + columns >= len(self.names) else "")
            ax.set_title(
                self._titles.get(name, name),
                x=-46 / (ax.get_position().width * self.width),
                loc="left",
                pad=9,
                fontsize=figures.TEXT,
                color=figures.INK,
            )
            ax.locator_params(axis="x", nbins=4, steps=(1, 2, 5, 10), integer=True)
            ax.locator_params(axis="y", nbins=4 if rows < 3 else 2, steps=(1, 2, 5, 10))
            ax.set(xlim=self._xlim, ylim=self.ylim or (0, 1))
            for place in self._marks.values():
                ax.axvline(place, color=figures.PALE, linewidth=1.2, linestyle=_DOTTED)
            self._axes[name] = ax

    def _add(self, name: str) -> None:
        if name in self._lines:
            return
        ax = self._axes.get(name) or (self._shared if not self._separate else next(iter(self._axes.values())))
        self._axes[name] = ax
        look = self.looks.get(name) or figures.known_style(name, len(self._lines))
        if self.smooth:
            (self._raw[name],) = ax.plot([], [], color=look.colour, linewidth=1, alpha=0.3, animated=True)
        line, marker = ("-", "") if self._separate else (look.line, look.marker)
        (self._lines[name],) = ax.plot(
            [],
            [],
            line,
            color=look.colour,
            linewidth=2.2,
            marker=marker,
            markersize=5,
            label=look.title,
            animated=True,
        )
        if not self._separate and len(self._lines) > 1:
            self._legend(ax)

    def _legend(self, ax: Axes) -> None:
        """One row under the title, as wide as the picture."""
        ax.legend(
            loc="upper left",
            bbox_to_anchor=(8 / self.width, 1 - self._legend_top / self.height),
            bbox_transform=self.figure.transFigure,
            ncols=5,
            frameon=False,
            fontsize=figures.TEXT,
            handlelength=1.1,
            handletextpad=0.3,
            columnspacing=0.6,
            borderpad=0,
            borderaxespad=0,
            labelcolor=figures.INK,
        )

    def _fit(self, ax: Axes, values: Sequence[Any]) -> bool:
        """Fit the limits along y when curves have left them or have become flat; True when they changed."""
        y = np.concatenate([value[np.isfinite(value)] for value in values])
        if self.ylim is not None or not y.size:
            return False
        low, high = ax.get_ylim()
        least, most = float(y.min()), float(y.max())
        span = max(most - least, 1e-6 + 0.1 * abs(most))
        if low <= least and most <= high and span > 0.35 * (high - low):
            return False
        bottom = 0.0 if 0 <= least < span else least - 0.15 * span
        ax.set_ylim(bottom, most + 0.15 * span)
        return True

    def _last_in_words(self, series: Mapping[str, Any]) -> str:
        lasts = []
        for name, values in series.items():
            y = np.asarray(values[1] if isinstance(values, tuple) else values, float)
            if np.isfinite(y).any():
                lasts.append(f"{_in_words(self._titles.get(name, name))} {y[np.isfinite(y)][-1]:.3g}")
        levels = ", ".join(f"{name} {level:.3g}" for name, level in self._levels.items())
        compare = f" To compare: {levels}." if levels else ""
        return f"{self._title or 'Curves'}. Last values: {', '.join(lasts) or 'none'}.{compare}"


def _in_words(title: str) -> str:
    """A title without the signs of mathematical typesetting."""
    return "".join(letter for letter in title if letter not in "${}")


class LiveMatrix(LivePicture):
    """A confusion matrix that is redrawn in place: percent of each row."""

    def __init__(self, classes: Sequence[str], title: str = "", width: int = 440, height: int = 400) -> None:
        super().__init__(width, height, alt=title)
        self.classes = tuple(classes)
        n = len(self.classes)
        with DRAW:
            self._write(title, weight="bold")
            ax = self.axes_at(0, 0, 0, 0)
            figures.matrix_frame(ax, self.classes, "")
            ax.set(xlabel="prediction", ylabel="")
            ax.set_position(self._room_for_names(ax, 36 if title else 10))
            self._cells = ax.imshow(
                np.zeros((n, n)), cmap="Blues", vmin=0, vmax=1, aspect="auto", animated=True
            )
            self._gaps = [
                line(k - 0.5, color="white", linewidth=1.5, animated=True)
                for k in range(1, n)
                for line in (ax.axvline, ax.axhline)
            ]
            self._numbers = [
                [
                    ax.text(j, i, "", ha="center", va="center", fontsize=figures.TEXT, animated=True)
                    for j in range(n)
                ]
                for i in range(n)
            ]
        self.draw(np.zeros((n, n), int))

    def _room_for_names(self, ax: Axes, top: float) -> _Rectangle:
        """Margins as wide as the names beside and below the axes, and 8 pixels."""
        inner, outer = ax.get_window_extent(), ax.get_tightbbox()
        assert outer is not None
        scale = figures.DPI / self.figure.dpi
        return self._within(scale * (inner.x0 - outer.x0) + 8, scale * (inner.y0 - outer.y0) + 8, 10, top)

    def draw(self, counts: ArrayLike) -> None:
        """Show (K, K) counts; row = true class."""
        share = figures.row_shares(counts)
        with DRAW:
            self._cells.set_data(share)
            moving: list[Artist] = [self._cells, *self._gaps]
            for i, j in zip(*np.nonzero(share >= 0.005), strict=True):
                text = self._numbers[i][j]
                text.set_text(f"{100 * share[i, j]:.0f}")
                text.set_color("white" if share[i, j] > 0.55 else figures.INK)
                moving.append(text)
            self._blit(moving, figures.matrix_in_words(counts, self.classes))


class LiveScatter(LivePicture):
    """A feature map whose points move; partners of `links` are joined by thin lines."""

    def __init__(
        self, classes: Sequence[str] = (), title: str = "Feature map", width: int = 660, height: int = 430
    ) -> None:
        super().__init__(width, height, alt=title)
        self.classes = tuple(classes)
        self._key: Any = None
        self._marks: list[Any] = []
        self._links: Any = None
        self.title = title
        self.clear()

    def clear(self) -> None:
        """An empty frame."""
        with DRAW:
            self._key, self._marks, self._links = None, [], None
            self.figure.clear()
            self._ax = figures.map_frame(self.axes_at(10, 12, 204, 62))
            self._head = self._write("", weight="bold", animated=True)
            self._note = self._write("", 31, figures.TEXT, animated=True)
            self._settle()
            self._head.set_text(self.title)
            self._blit([self._head], self.title)

    def draw(
        self,
        clouds: Mapping[str, figures.Cloud],
        hue: str = "class",
        title: str = "",
        note: str = "",
        links: tuple[str, str] | None = None,
    ) -> None:
        """Show a map; the frame and the legend are drawn again only when the sets or the hue change.

        Parameters
        ----------
        clouds, hue, links : as for `plots.feature_map`.
        title, note : two lines above the map, the second quieter.
        """
        with DRAW:
            key = (hue, links, tuple((n, len(c.points), c.modality, c.title) for n, c in clouds.items()))
            if key != self._key:
                self._rebuild(clouds, hue, links)
                self._key = key
            for mark, cloud in zip(self._marks, clouds.values(), strict=True):
                mark.set_offsets(cloud.points)
                mark.set_facecolor(figures.cloud_colours(cloud, hue))
            if links is not None:
                self._links.set_segments(np.stack([clouds[name].points for name in links], axis=1))
            everything = np.concatenate([cloud.points for cloud in clouds.values()])
            middle, reach = _middle_and_reach(everything)
            self._ax.set(
                xlim=(middle[0] - reach[0], middle[0] + reach[0]),
                ylim=(middle[1] - reach[1], middle[1] + reach[1]),
            )
            self._head.set_text(title or self.title)
            self._note.set_text(note)
            lines = [self._links] if links is not None else []
            words = f"{title or self.title}, coloured by {hue}. {note}"
            self._blit([*lines, *self._marks, self._head, self._note], words)

    def _rebuild(self, clouds: Mapping[str, figures.Cloud], hue: str, links: tuple[str, str] | None) -> None:
        from matplotlib.collections import LineCollection

        self.clear()
        if links is not None:
            self._links = self._ax.add_collection(
                LineCollection([], colors=figures.PALE, linewidths=0.6, alpha=0.5, animated=True),
                autolim=False,
            )
        for cloud in clouds.values():
            self._marks.append(
                self._ax.scatter(
                    [],
                    [],
                    s=26,
                    marker=figures.MODALITIES[cloud.modality].marker,
                    linewidths=0.4,
                    edgecolors="white",
                    alpha=0.85,
                    animated=True,
                )
            )
        figures.map_legend(self._ax, clouds, self.classes, hue)
        self._settle()


def _middle_and_reach(points: Any) -> tuple[Any, Any]:
    """Centre and half widths that hold all points with a margin."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, np.maximum((high - low) / 2 * 1.06, 1e-6)


def running_mean(y: ArrayLike, weight: float) -> Any:
    """Exponential running mean, without the pull toward zero at the start; what is not finite is skipped.

    Parameters
    ----------
    y : (n,) numbers.
    weight : of the past, in [0, 1).
    """
    out, total, mass = np.empty(np.size(y)), 0.0, 0.0
    for i, value in enumerate(np.asarray(y, float)):
        if np.isfinite(value):
            total, mass = weight * total + (1 - weight) * value, weight * mass + 1 - weight
        out[i] = total / mass if mass else np.nan
    return out


# ------------------------------------------------------------------------ threads


class Session(Generic[Event]):
    """One worker thread that walks a stream of events, and the wishes that it reads in between.

    Parameters
    ----------
    box : where errors are shown.
    draw_share : the largest share of the time that `draw` may take.
    hertz : the most draws per second.

    Attributes
    ----------
    state : "ready", "running", "paused", "finished", "stopped" or "failed".
    bar, status : widgets for progress and remaining time; only the worker writes to them.
    error : what ended a failed run.
    """

    def __init__(self, box: ErrorBox | None = None, draw_share: float = 0.2, hertz: float = 5.0) -> None:
        self.box = box or ErrorBox()
        self.draw_share, self.hertz = draw_share, hertz
        self.bar = widgets.FloatProgress(0.0, max=1.0, layout=widgets.Layout(width="100%", min_width="120px"))
        self.status = widgets.HTML()
        self.status.add_class("socketlab-status")
        self.state = "ready"
        self.error: BaseException | None = None
        self.note = ""  # a few words of the reader of events, shown beside the progress
        self.seconds = 0.0  # of the run, without its pauses
        self.threads_started = 0
        self._wishes: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._stop, self._go, self._done = threading.Event(), threading.Event(), threading.Event()
        self._done.set()

    # wishes: any thread

    def post(self, name: str, value: Any) -> None:
        """Leave a value in the mailbox; the latest one wins."""
        with self._lock:
            self._wishes[name] = value

    def wishes(self) -> dict[str, Any]:
        """A copy of the mailbox."""
        with self._lock:
            return dict(self._wishes)

    def start(
        self,
        events: Callable[[], Iterator[Event]],
        see: Callable[[Event], float | None],
        draw: Callable[[], None] = lambda: None,
        end: Callable[[str], None] = lambda state: None,
    ) -> bool:
        """Start the worker; False when one is at work already.

        Parameters
        ----------
        events : makes the stream; called in the worker, so it may load data.
        see : reads one event, returns the share of the run that is done (None = unknown).
        draw : draws what was seen; called at most `hertz` times a second and `draw_share` of the time.
        end : told how the run ended, before `wait` returns.
        """
        with self._lock:
            if not self._done.is_set():
                return False
            self._done.clear()
        self._stop.clear()
        self._go.set()
        self.error, self.seconds, self.state, self.note = None, 0.0, "running", ""
        self.threads_started += 1
        work = threading.Thread(
            target=self._work, args=(events, see, draw, end), name="socketlab-worker", daemon=True
        )
        work.start()
        return True

    def pause(self) -> None:
        """Hold the run before its next step."""
        self._go.clear()

    def resume(self) -> None:
        """Let a paused run go on."""
        self._go.set()

    def stop(self) -> None:
        """End the run after the step at hand."""
        self._stop.set()
        self._go.set()

    @property
    def running(self) -> bool:
        """True while a worker is at work or paused."""
        return not self._done.is_set()

    @property
    def stopping(self) -> bool:
        """True once a stop was asked for: long work inside a step may look here."""
        return self._stop.is_set()

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the end of the run, and raise what made it fail; interrupting the wait stops the run.

        Returns
        -------
        The state; "running" or "paused" when the time was not enough.
        """
        try:
            self._done.wait(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        if not self.running and self.error is not None:
            raise self.error
        return self.state

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the run without a word; False when the time was not enough."""
        return self._done.wait(timeout)

    def reset(self) -> None:
        """Back to "ready", with an empty bar; only between two runs."""
        if not self.running:
            self.state, self.error, self.note = "ready", None, ""
            self._tell(0.0, "ready")

    # the worker's own

    def _work(self, events: Any, see: Any, draw: Any, end: Any) -> None:
        stream: Any = None
        try:
            self._tell(0.0, "loading")
            stream = events()
            stopped = self._walk(stream, see, draw)
            draw()
            self.state = "stopped" if stopped else "finished"
        except BaseException as error:
            self.error, self.state = error, "failed"
            self.box.show(error)
        finally:
            self._close(stream, end)

    def _walk(self, stream: Iterator[Event], see: Callable[[Event], float | None], draw: Any) -> bool:
        """Read events until they end (False) or a stop is asked for (True)."""
        begun, due = time.perf_counter(), 0.0
        for event in stream:
            share = see(event)
            now = time.perf_counter()
            self.seconds = now - begun
            if now >= due:
                draw()
                self._tell(share, "running")
                end = time.perf_counter()
                due = end + max(1 / self.hertz, (end - now) * (1 / self.draw_share - 1))
            if not self._go.is_set():
                held = time.perf_counter()
                draw()
                self.state = "paused"
                self._tell(share, "paused")
                self._go.wait()
                self.state, due = "running", 0.0
                begun += time.perf_counter() - held
            if self._stop.is_set():
                return True
        return self._stop.is_set()

    def _close(self, stream: Any, end: Callable[[str], None]) -> None:
        try:
            if hasattr(stream, "close"):
                stream.close()
            end(self.state)
        except Exception as error:
            self.error, self.state = error, "failed"
            self.box.show(error)
        finally:
            self._tell(1.0 if self.state == "finished" else None, self.state)
            self._done.set()

    def _tell(self, share: float | None, word: str) -> None:
        """Progress and remaining time, in words."""
        if share is not None:
            self.bar.value = share
        colours = {"failed": "#b42318", "paused": "#b8860b", "stopped": "#8a939d", "finished": "#2da44e"}
        self.bar.style.bar_color = colours.get(word, "#0b6bcb")
        parts = [f"<b>{word}</b>", *([html.escape(self.note)] if self.note else [])]
        if word in ("running", "paused") and share:
            left = self.seconds * (1 - share) / share
            parts.append(f"{100 * share:.0f}&nbsp;%")
            parts.append(f"about {_seconds(left)} left" if share < 1 else "nearly done")
        elif word in ("finished", "stopped"):
            parts.append(f"after {_seconds(self.seconds)}")
        self.status.value = f'<span style="font-size:15px">{" · ".join(parts)}</span>'


def _seconds(count: float) -> str:
    """Seconds, or minutes and seconds, in words."""
    whole = round(count)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60:02d} s"


class Background(Generic[Job]):
    """A second thread that works on the newest job only and rests in proportion.

    Parameters
    ----------
    work : does one job; its errors go to `box`.
    share : the largest share of the time it may be at work while jobs keep coming.
    """

    def __init__(
        self, work: Callable[[Job], None], box: ErrorBox, share: float = 0.2, name: str = "map"
    ) -> None:
        self.work, self.box, self.share, self.name = work, box, share, name
        self.jobs_done = 0
        self._ready = threading.Condition()
        self._job: list[Job] = []
        self._busy = False
        self._rest_until = 0.0
        self._thread: threading.Thread | None = None

    def post(self, job: Job, at_once: bool = False) -> None:
        """Give it a job, which replaces one that waits; `at_once` cuts the rest short."""
        with self._ready:
            self._job = [job]
            if at_once:
                self._rest_until = 0.0
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=f"socketlab-{self.name}", daemon=True)
                self._thread.start()
            self._ready.notify_all()

    @property
    def idle(self) -> bool:
        """True when a job posted now would be done at once."""
        with self._ready:
            return not self._busy and not self._job and time.monotonic() >= self._rest_until

    def drop(self) -> None:
        """Forget the job that waits."""
        with self._ready:
            self._job = []
            self._ready.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False when the time was not enough."""
        with self._ready:
            return self._ready.wait_for(lambda: not self._job and not self._busy, timeout)

    def _loop(self) -> None:
        while True:
            with self._ready:
                if not self._ready.wait_for(lambda: bool(self._job), IDLE_SECONDS):
                    self._thread = None  # nothing to do for long: the next job starts another thread
                    return
                while self._job and (rest := self._rest_until - time.monotonic()) > 0:
                    self._ready.wait(rest)
                if not self._job:
                    continue
                job, self._busy = self._job.pop(), True
            begun = time.monotonic()
            try:
                self.work(job)
            except Exception as error:
                self.box.show(error)
            finally:
                with self._ready:
                    self._busy = False
                    self.jobs_done += 1
                    now = time.monotonic()
                    self._rest_until = now + (now - begun) * (1 / self.share - 1)
                    self._ready.notify_all()
