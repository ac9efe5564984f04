"""Pictures of the gap between two sets of features, and of what a classifier makes of it, as in `figures`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike

from socketlab.errors import LabError
from socketlab.figures import figures, style
from socketlab.figures.figures import Lines

MOST_LAYER_NAMES = 24
_FOOT, _TOP = -0.34, -0.09  # where a reliability diagram draws its counts


@dataclass(frozen=True)
class Scale:
    """A number's title, the ends of its scale, what to compare it with, and how it is written."""

    title: str
    low: float
    high: float
    marks: Mapping[str, float]
    form: str = "{:.2f}"

    def written(self, value: float) -> str:
        """The number as text; a dash where it could not be computed."""
        return self.form.format(value).replace("%", " %") if np.isfinite(value) else "–"


def scales(
    figure: Figure | SubFigure, about: Mapping[str, Scale], values: Mapping[str, float],
    before: Mapping[str, float], colour: str,
) -> None:  # fmt: skip
    """Numbers on scales, one below another; a pale dot where each of them was before."""
    axes: Any = figure.subplots(len(about), 1, squeeze=False)[:, 0]
    for ax, (name, scale) in zip(axes, about.items(), strict=True):
        low, high, span, value = scale.low, scale.high, scale.high - scale.low, values[name]
        ax.set(xlim=(low - 0.04 * span, high + 0.3 * span), ylim=(0, 1), xticks=[], yticks=[])
        ax.set_axis_off()
        inside: Any = {"va": "top", "in_layout": False}  # within the axes: the layout need not measure it
        ax.text(low, 0.98, scale.title, **style.WORDS, **inside)
        ax.plot([low, high], [0.42, 0.42], color=style.PALE, linewidth=4, solid_capstyle="round")
        for title, place in scale.marks.items():
            ax.plot([place, place], [0.3, 0.54], color=style.SOFT, linewidth=1.6)
            share = (place - low) / span
            across = "left" if share < 0.12 else "right" if share > 0.88 else "center"
            ax.text(place, 0.24, title, fontsize=style.TEXT, color=style.SOFT, ha=across, **inside)
        for dot, shade, size in ((before.get(name, np.nan), style.PALE, 10), (value, colour, 12)):
            ax.plot(np.clip(dot, low, high), 0.42, "o", markersize=size, color=shade, clip_on=False)
        ax.text(high + 0.06 * span, 0.42, scale.written(value), fontsize=style.TEXT + 2, fontweight="bold",
                color=style.INK, va="center")  # fmt: skip
    told = "; ".join(f"{scale.title} {scale.written(values[name])}" for name, scale in about.items())
    style.describe(axes[0], f"In numbers: {told}.")


def histograms(
    figure: Figure | SubFigure, sets: Mapping[str, tuple[ArrayLike, float, float]], colour: str, name: str
) -> None:
    """Values as histograms, each over a bell curve of this name; the axes hold 8 deviations.

    ``sets``: title -> values, and mean and standard deviation of the curve.
    """
    axes: Any = figure.subplots(1, len(sets), squeeze=False)[0]
    for ax, (title, (given, mean, deviation)) in zip(axes, sets.items(), strict=True):
        values, width = np.asarray(given, float), max(deviation, 1e-6)
        edges = np.linspace(mean - 8 * width, mean + 8 * width, 129)
        curve = np.exp(-0.5 * ((edges - mean) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        style.dress(ax, title, grid="")
        ax.fill_between(edges, curve, color=style.PALE, alpha=0.8, label=name, linewidth=0)
        ax.hist(values.clip(edges[0], edges[-1]), edges, density=True, histtype="stepfilled", color=colour,
                alpha=0.6, label="this batch")  # fmt: skip
        ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 3 * curve.max()), yticks=[])
        ax.legend(**style.LEGEND, loc="upper right", handlelength=1, borderaxespad=0)
        found = f"mean {values.mean():.2f}, deviation {values.std():.2f}"
        style.describe(ax, f"{title}: {found}; {name}: {mean:.2f} and {deviation:.2f}.")


def layer_profile(
    layers: Sequence[str], series: Mapping[str, ArrayLike],
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None, ax: Axes | None = None, *,
    title: str = "", ylabel: str = "gap", styles: Mapping[str, style.Style] | None = None, log: bool = False,
) -> Axes:  # fmt: skip
    """A gap measure from the first layer to the last: one line per measure or method, intervals as bands.

    Parameters
    ----------
    layers : L names, in the order of the forward pass.
    series : name -> (L,) values; NaN leaves a gap.
    bands : name -> lower and upper ends of an interval, (L,) each.
    """
    lines: dict[str, tuple[ArrayLike, ...]] = {}
    words = []
    for name, given in series.items():
        y = np.asarray(given, float)
        if y.shape != (len(layers),):
            raise LabError(f"{name!r} has shape {y.shape}; {len(layers)} layers need ({len(layers)},).")
        lines[name] = (range(len(layers)), y, *(bands or {}).get(name, ()))
        if np.isfinite(y).any():
            most = int(np.nanargmax(y))
            largest = f"largest at {layers[most]} ({y[most]:.3g})"
            words.append(f"{name} from {y[0]:.3g} to {y[-1]:.3g}, {largest}")
    ax = style.own_axes(ax, 860, 440)
    if log:
        ax.set_yscale("log")
    figures.curves(lines, ax, title=title, xlabel="", ylabel=ylabel, ylim=None, styles=styles)
    wide = style.figure_of(ax).get_figwidth()
    every = -(-len(layers) // min(MOST_LAYER_NAMES, int(2 * wide)))
    lean = style.LEAN if len("".join(layers[::every])) > min(60, 7 * wide) else {}
    ax.set_xticks(range(0, len(layers), every), layers[::every], **lean)
    ax.set_xlim(-0.45, max(len(layers) - 1, 0.5) + 0.45)
    return style.describe(ax, f"{ylabel} over {len(layers)} layers: {'; '.join(words) or 'no values'}.")


def forest(rows: Mapping[str, tuple[float, float, float]], ax: Axes | None = None, **words: Any) -> Axes:
    """Differences (value, low and high end), a row each, against zero; pale where the interval holds 0.

    Further `words` as for `dress`, also for `scatter_by_group` and `matrix`: title, xlabel, ylabel.
    """
    ax = style.own_axes(ax, 800, 90 + 27 * len(rows))
    style.dress(ax, grid="x", **{"xlabel": "difference, points"} | words)
    ax.axvline(0, color=style.INK, linewidth=1.2)
    clear = [name for name, (_, low, high) in rows.items() if low > 0 or high < 0]
    for row, (name, (value, low, high)) in enumerate(rows.items()):
        colour = style.INK if name in clear else style.SOFT
        ax.plot([low, high], [row, row], color=colour, linewidth=2)
        ax.plot(value, row, "o", color=colour, markersize=7)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    away = ", ".join(clear) or "none"
    return style.describe(ax, f"{len(rows)} differences with intervals; away from zero: {away}.")


def scatter_by_group(groups: Lines, ax: Axes | None = None, **words: Any) -> Axes:
    """Two numbers of many networks against each other, a dot each: group -> (n,) across and (n,) upwards."""
    words = {"xlabel": "", "ylabel": "held-out accuracy"} | words
    ax = style.dress(style.own_axes(ax, 800, 440), grid="both", **words)
    for i, (name, (x, y)) in enumerate(groups.items()):
        look = style.known_style(name, i)
        ax.scatter(x, y, s=60, color=look.colour, marker=look.marker, label=look.title, alpha=0.9)
    ax.legend(**style.BESIDE)
    count = sum(np.size(x) for x, _ in groups.values())
    what = f"{words['ylabel']} against {words['xlabel']}"
    return style.describe(ax, f"{what} of {count} networks, by {', '.join(groups)}.")


def matrix(
    values: ArrayLike, rows: Sequence[str], columns: Sequence[str], ax: Axes | None = None, *,
    label: str = "", **words: Any,
) -> Axes:  # fmt: skip
    """Numbers (R, C) in [0, 1] as colours, with a label beside their ruler; NaN leaves a cell empty."""
    table = np.asarray(values, float)
    if table.shape != (len(rows), len(columns)):
        raise LabError(f"The table has shape {table.shape}; its names need {(len(rows), len(columns))}.")
    ax = style.own_axes(ax, 290 + 46 * len(columns), 150 + 40 * len(rows))
    style.dress(ax, grid="", **words)
    texts = np.where(np.isfinite(table), np.vectorize("{:.2f}".format)(table), "")
    mesh = figures.cells(ax, table, texts if table.size <= 150 else False, rows, columns)
    ruler: Any = style.figure_of(ax).colorbar(mesh, ax=ax)
    ruler.ax.tick_params(labelsize=style.TEXT, colors=style.SOFT, labelcolor=style.INK, length=0)
    ruler.set_label(label, **style.WORDS)
    ruler.outline.set_visible(False)
    what = label or words.get("title") or "values"
    about = f"Matrix of {what}, {len(rows)} rows and {len(columns)} columns"
    if np.isfinite(table).any():
        ends = (divmod(int(find(table)), len(columns)) for find in (np.nanargmax, np.nanargmin))
        most, least = (f"{table[i, j]:.2f} at {rows[i]} and {columns[j]}" for i, j in ends)
        about += f": largest {most}, smallest {least}"
    return style.describe(ax, f"{about}.")


def calibration(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> tuple[pd.DataFrame, float]:
    r"""How often a classifier is right when it is so certain.

    .. math:: ECE = \sum_b \tfrac{n_b}{n} \left| acc_b - conf_b \right|

    Parameters
    ----------
    confidence : (n,) largest probability of each prediction, in [0, 1]; other numbers are a `LabError`.
    correct : (n,) truth values: was it right?
    bins : of equal width, open at the left; 0 counts to the first.

    Returns
    -------
    Per bin count, mean confidence and accuracy (NaN where it is empty), and the expected calibration error,
    in [0, 1]. With few images it is biased upwards.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """
    certain, right = np.asarray(confidence, float), np.asarray(correct, bool)
    if certain.ndim != 1 or certain.shape != right.shape or not len(certain):
        raise LabError(f"Shapes {certain.shape}, {right.shape}: give a number per image, and an image.")
    if not ((certain >= 0) & (certain <= 1 + 1e-6)).all():
        raise LabError("Confidences lie in [0, 1]: pass probabilities, not logits.")
    place = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), certain) - 1, 0, bins - 1)
    table = pd.DataFrame({"confidence": certain, "accuracy": right.astype(float)})
    table = table.groupby(place).mean().reindex(range(bins))
    table["count"] = np.bincount(place, minlength=bins)
    away = table["count"] * (table.accuracy - table.confidence).abs()
    return table, float(away.sum() / len(certain))


def reliability(
    groups: Lines, ax: Axes | None = None, *, title: str = "", bins: int = 10,
    styles: Mapping[str, style.Style] | None = None,
) -> Axes:  # fmt: skip
    """Accuracy against confidence: on the diagonal a classifier is right as often as it is certain.

    Of each group, confidence (n,) and correct (n,) as for `calibration`. The line joins the bins that hold
    images; a dot's area grows with their count, which bars below show.
    """
    ax = style.dress(style.own_axes(ax, 760, 640), title, "confidence", "accuracy", grid="")
    ax.plot([0, 1], [0, 1], color=style.PALE, linewidth=1.6, label="perfectly calibrated")
    found = {name: calibration(*pair, bins) for name, pair in groups.items()}
    most = max(table["count"].max() for table, _ in found.values())
    width, words = 0.86 / bins / len(found), []
    for i, (name, (table, error)) in enumerate(found.items()):
        look, count, seen = style.known_style(name, i, styles), table["count"], table.dropna()
        x, y, area = seen.confidence, seen.accuracy, 30 + 230 * seen["count"] / count.max()
        label = f"{look.title}: ECE {100 * error:.1f} %"
        ax.plot(x, y, look.line, color=look.colour, linewidth=2, label=label)
        ax.scatter(x, y, s=area, color=look.colour, marker=look.marker, edgecolors="white", zorder=3)
        places, heights = (np.arange(bins) + 0.07) / bins + (i + 0.5) * width, (_TOP - _FOOT) * count / most
        ax.bar(places, heights, width, _FOOT, color=look.colour, alpha=0.85)
        certain, right = (np.mean(np.asarray(part, float)) for part in groups[name])
        about = f"mean confidence {certain:.2f}, accuracy {right:.2f}, expected calibration error {error:.3f}"
        words.append(f"{name}, {count.sum()} images: {about}")
    shares = np.linspace(0, 1, 6)  # ticks for accuracy above, for the number of images below
    ax.set(xlim=(0, 1), ylim=(_FOOT, 1.02), xticks=shares)
    ax.set_yticks([_FOOT, _TOP, *shares], ["0", f"{most}", *[f"{share:.1f}" for share in shares]])
    ax.hlines(shares, 0, 1, color=style.GRID, linewidth=0.8, zorder=0)
    ax.yaxis.label.set_y(0.63)
    beside: dict[str, Any] = {"transform": ax.transAxes, "rotation": 90, "ha": "right", "va": "center"}
    ax.text(-0.095, 0.12, "images", **style.WORDS, **beside)
    ax.legend(**style.LEGEND | {"frameon": True}, loc="upper left", framealpha=0.9, edgecolor="none")
    return style.describe(ax, f"Reliability diagram, {bins} bins: {'; '.join(words)}.")
