"""Live pictures of the course's panels: rows of images, numbers on scales, channels, layers.

As in `live`: an off-screen figure on fixed axes, of which only the moving parts are drawn again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike, NDArray

from socketlab.figures import figures
from socketlab.panels import session
from socketlab.panels.session import DRAW

_DOTTED = (0, (1, 2))
Picture = NDArray[np.uint8]


class LiveTiles(session.LivePicture):
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


class LiveGauges(session.LivePicture):
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


class LiveChannels(session.LivePicture):
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


class LiveProfile(session.LivePlot):
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
