"""Live pictures of the course's panels: rows of images, numbers on scales, channels, layers.

As in `live`: an off-screen figure on fixed axes, of which only the moving parts are drawn again.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow

from socketlab.figures import figures
from socketlab.panels.session import DRAW
from socketlab.panels.session import Picture as PictureWidget

_Rectangle = tuple[float, float, float, float]
_DOTTED = (0, (1, 2))
_QUIET: dict[str, Any] = {"textcoords": "offset points", "color": figures.SOFT, "fontsize": figures.TEXT}
Picture = NDArray[np.uint8]


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
        self.image = PictureWidget(
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


class LiveTiles(LivePicture):
    """A grid of images under column titles, with a name before each row.

    Parameters
    ----------
    rows : row names, one per row; "" keeps no room for names where all are empty.
    columns : how many images in a row.
    tile : side of an image, CSS pixels.
    titles : whether every column has a title of up to two lines.
    """

    def __init__(
        self, rows: Sequence[str], columns: int, tile: int = 150, title: str = "", titles: bool = True
    ) -> None:
        self.rows, self.columns = tuple(rows), columns
        left, gap = (72 if any(rows) else 8), 8
        head = (30 if title else 6) + (44 if titles else 0)
        super().__init__(
            left + columns * (tile + gap) + 4, head + len(rows) * (tile + gap) + 4, alt=title or "Images"
        )
        with DRAW:
            self._write(title, weight="bold")
            self._images, self._heads = [], []
            blank = np.full((2, 2, 3), 255, np.uint8)
            for r in range(len(rows)):
                for c in range(columns):
                    x, y = left + c * (tile + gap), head + r * (tile + gap)
                    ax = self.axes_at(x, self.height - y - tile, self.width - x - tile, y)
                    ax.set_axis_off()
                    self._images.append(ax.imshow(blank, interpolation="nearest", animated=True))
                    if r == 0 and titles:
                        at = (x + tile / 2) / self.width, 1 - (head - 6) / self.height
                        self._heads.append(self._column_title(*at))
            for r, name in enumerate(rows):
                middle = 1 - (head + r * (tile + gap) + tile / 2) / self.height
                self.figure.text(
                    8 / self.width, middle, name, fontsize=figures.TEXT, color=figures.INK, va="center"
                )
            self._settle()
            self._blit([])

    def _column_title(self, x: float, y: float) -> Any:
        return self.figure.text(
            x, y, "", fontsize=figures.TEXT, color=figures.INK, ha="center", va="bottom", animated=True
        )

    def draw(self, images: Sequence[Picture | None], titles: Sequence[str] = (), alt: str = "") -> None:
        """Show (H, W, 3) images row by row, None leaves a place white; titles may have two lines."""
        with DRAW:
            for place, image in zip(self._images, images, strict=True):
                shown = np.full((2, 2, 3), 255, np.uint8) if image is None else image
                place.set_data(shown)
                place.set_extent((-0.5, shown.shape[1] - 0.5, shown.shape[0] - 0.5, -0.5))
            for head, text in zip(self._heads, titles, strict=False):
                head.set_text(text)
            words = alt or ", ".join(title.replace("\n", " ") for title in titles)
            self._blit([*self._images, *self._heads], words)


@dataclass(frozen=True)
class Gauge:
    """One number on a scale.

    Parameters
    ----------
    title : what it is.
    low, high : ends of the scale; a number beyond them is drawn at the end and written as it is.
    marks : name -> place of what to compare with.
    form : how the number is written.
    """

    title: str
    low: float = 0.0
    high: float = 1.0
    marks: Mapping[str, float] = field(default_factory=dict)
    form: str = "{:.2f}"


class LiveGauges(LivePicture):
    """Numbers on scales, one below another; a pale dot shows where each of them was before."""

    def __init__(
        self, gauges: Mapping[str, Gauge], title: str = "", width: int = 440, row: int = 72, colour: str = ""
    ) -> None:
        head = 34 if title else 8
        super().__init__(width, head + row * len(gauges) + 4, alt=title)
        self.gauges, self.title, self.colour = dict(gauges), title, colour or figures.METHODS["socket"].colour
        self._row, self._head = row, head
        self._moving: dict[str, list[Any]] = {}
        self.frame(gauges)

    def frame(self, gauges: Mapping[str, Gauge]) -> None:
        """Draw the scales again, with other marks; the numbers go."""
        with DRAW:
            self.gauges = dict(gauges)
            self.figure.clear()
            self._write(self.title, weight="bold")
            for i, (name, gauge) in enumerate(self.gauges.items()):
                self._moving[name] = self._scale(gauge, self._head + i * self._row)
            self._settle()
            self._blit([])

    def _scale(self, gauge: Gauge, top: float) -> list[Any]:
        """Name, line and marks of one scale; what moves on it: ghost, dot, number."""
        ax = self.axes_at(20, self.height - top - self._row, 90, top)
        ax.set(xlim=(gauge.low, gauge.high), ylim=(0, 1))
        ax.set_axis_off()
        ax.text(
            0, 0.98, gauge.title, transform=ax.transAxes, fontsize=figures.TEXT, color=figures.INK, va="top"
        )
        ax.plot(
            [gauge.low, gauge.high], [0.46, 0.46], color=figures.PALE, linewidth=4, solid_capstyle="round"
        )
        span = gauge.high - gauge.low
        for name, place in gauge.marks.items():
            ax.plot([place, place], [0.34, 0.58], color=figures.SOFT, linewidth=1.6)
            share = (place - gauge.low) / span
            across = "left" if share < 0.12 else "right" if share > 0.88 else "center"
            ax.text(place, 0.28, name, fontsize=figures.TEXT, color=figures.SOFT, ha=across, va="top")
        ghost, dot = (
            ax.plot([], [], "o", markersize=size, color=colour, clip_on=False, animated=True)[0]
            for size, colour in ((10, figures.PALE), (12, self.colour))
        )
        number = ax.text(
            1 + 14 / ax.get_position().width / self.width,
            0.46,
            "",
            transform=ax.transAxes,
            fontsize=figures.TEXT + 2,
            color=figures.INK,
            fontweight="bold",
            va="center",
            animated=True,
        )
        return [ghost, dot, number]

    def draw(self, values: Mapping[str, float], before: Mapping[str, float] | None = None) -> None:
        """Show numbers by name, and pale where they were before; NaN is written as a dash."""
        told = []
        with DRAW:
            moving = []
            for name, (ghost, dot, number) in self._moving.items():
                gauge, value = self.gauges[name], values.get(name, np.nan)
                for mark, place in ((ghost, (before or {}).get(name, np.nan)), (dot, value)):
                    mark.set_data([np.clip(place, gauge.low, gauge.high)], [0.46])
                text = gauge.form.format(value).replace("%", " %") if np.isfinite(value) else "–"
                number.set_text(text)
                told.append(f"{gauge.title} {text}")
                moving += [ghost, dot, number]
            self._blit(moving, f"{self.title or 'Measures'}: {'; '.join(told)}.")


class LiveChannels(LivePicture):
    """What a layer remembers against what it measures: a dot per channel, for mean and deviation.

    Parameters
    ----------
    looks : name of a set -> its look; the first one is drawn below the others.
    """

    def __init__(self, looks: Mapping[str, figures.Style], width: int = 640, height: int = 344) -> None:
        super().__init__(width, height, alt="Channels: remembered against measured")
        self.looks = dict(looks)
        with DRAW:
            self._head = self._write("", weight="bold", animated=True)
            half = width / 2
            self._axes = [self.axes_at(84, 54, half + 4, 86), self.axes_at(half + 84, 54, 12, 86)]
            for ax, name in zip(self._axes, ("mean", "standard deviation"), strict=True):
                figures.dress(ax, "", "remembered", "measured", grid="both")
                ax.set_title(name, loc="left", fontsize=figures.TEXT, color=figures.INK, pad=6)
                ax.locator_params(nbins=5)
            self._diagonals = [ax.plot([], [], color=figures.SOFT, linestyle=_DOTTED)[0] for ax in self._axes]
            self._dots = {name: [self._marks(ax, look) for ax in self._axes] for name, look in looks.items()}
            handles = [dots[0] for dots in self._dots.values()]
            self.figure.legend(
                handles,
                [look.title for look in looks.values()],
                loc="upper left",
                bbox_to_anchor=(4 / width, 1 - 30 / height),
                ncols=len(looks),
                frameon=False,
                fontsize=figures.TEXT,
                labelcolor=figures.INK,
                handletextpad=0.1,
                borderaxespad=0,
            )
            self._settle()
            self._blit([])

    @staticmethod
    def _marks(ax: Axes, look: figures.Style) -> Any:
        return ax.plot(
            [],
            [],
            look.marker,
            color=look.colour,
            markersize=7,
            alpha=0.8,
            markeredgecolor="white",
            markeredgewidth=0.4,
            animated=True,
        )[0]

    def draw(
        self,
        remembered: tuple[ArrayLike, ArrayLike],
        measured: Mapping[str, tuple[ArrayLike, ArrayLike]],
        title: str = "",
    ) -> None:
        """Show (C,) means and variances; the axes move only when dots leave them or shrink to a corner."""
        known = np.asarray(remembered[0], float), np.sqrt(np.asarray(remembered[1], float))
        with DRAW:
            ranges = [[known[0]], [known[1]]]
            for name in self._dots.keys() - measured.keys():
                for dots in self._dots[name]:
                    dots.set_data([], [])
            for name, (mean, var) in measured.items():
                seen = np.asarray(mean, float), np.sqrt(np.asarray(var, float))
                for i, dots in enumerate(self._dots[name]):
                    dots.set_data(known[i], seen[i])
                    ranges[i].append(seen[i])
            self._head.set_text(title)
            moved = [self._fit(i, known[i], np.concatenate(found[1:])) for i, found in enumerate(ranges)]
            if any(moved):
                self._settle()
            moving = [self._head, *(dots for pair in self._dots.values() for dots in pair)]
            self._blit(moving, f"{title}. {_away(known, measured, self.looks)}")

    def _fit(self, i: int, x: Any, y: Any) -> bool:
        """Limits of one half, and its diagonal; True when they changed."""
        ax = self._axes[i]
        changed = False
        for values, get, put in ((x, ax.get_xlim, ax.set_xlim), (y, ax.get_ylim, ax.set_ylim)):
            low, high = float(values.min()), float(values.max())
            span = max(high - low, 1e-6)
            left, right = get()
            if low < left or high > right or span < 0.3 * (right - left):
                put(low - 0.12 * span, high + 0.12 * span)
                changed = True
        ends = [min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])]
        if changed:
            limits = ax.get_xlim(), ax.get_ylim()
            self._diagonals[i].set_data(ends, ends)
            ax.set(xlim=limits[0], ylim=limits[1])
        return changed


def _away(known: Any, measured: Mapping[str, Any], looks: Mapping[str, figures.Style]) -> str:
    """Mean distances from the diagonal, in words."""
    told = []
    for name, (mean, var) in measured.items():
        apart = [
            float(np.abs(np.asarray(value, float) - old).mean())
            for value, old in ((mean, known[0]), (np.sqrt(np.asarray(var, float)), known[1]))
        ]
        told.append(f"{looks[name].title}: means {apart[0]:.2f}, deviations {apart[1]:.2f}")
    return f"Mean distance from the diagonal: {'; '.join(told)}."


class LiveProfile(LivePlot):
    """A number per layer, from the first to the last, on a logarithmic axis; one layer can be marked."""

    def __init__(self, layers: Sequence[str], names: Sequence[str], **about: Any) -> None:
        self.layers = tuple(layers)
        self._marked: int | None = None
        super().__init__(names, xlabel="", xlim=(0.6, len(self.layers) + 0.4), **about)

    def name_layers(self, layers: Sequence[str]) -> None:
        """Begin again with other layers."""
        self.layers, self._marked = tuple(layers), None
        self.clear((0.6, len(self.layers) + 0.4))

    def mark(self, layer: str) -> None:
        """Shade one layer; the lines have to be drawn again."""
        place = self.layers.index(layer)
        if place != self._marked:
            self._marked = place
            self.clear()

    def _frame_shared(self) -> None:
        super()._frame_shared()
        ax = self._shared
        ax.set_position(self._within(84, 118, 24, self._legend_top + 30))
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xticks(
            range(1, len(self.layers) + 1), self.layers, rotation=40, ha="right", rotation_mode="anchor"
        )
        ax.set(xlim=self._xlim, ylim=self.ylim or (1e-3, 10))
        if self._marked is not None:
            ax.axvspan(self._marked + 0.6, self._marked + 1.4, color=figures.GRID, alpha=0.6, linewidth=0)

    def _fit(self, ax: Axes, values: Sequence[Any]) -> bool:
        """Whole powers of ten that hold all numbers; True when they changed."""
        y = np.concatenate([value[np.isfinite(value) & (value > 0)] for value in values])
        if not y.size:
            return False
        ends = 10.0 ** np.floor(np.log10(y.min())), 10.0 ** np.ceil(np.log10(y.max()) + 1e-9)
        low, high = max(ends[0], 1e-6), max(ends[1], ends[0] * 10)
        if ax.get_ylim() == (low, high):
            return False
        ax.set_ylim(low, high)
        return True
