"""Pictures of the gap between two sets of features, and of what a classifier makes of it.

Like seaborn's own functions, each draws into the axes given (or makes a figure of its own) and returns them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError
from socketlab.figures.figures import curves
from socketlab.figures.style import (
    GRID,
    INK,
    PALE,
    SOFT,
    TEXT,
    Style,
    describe,
    dress,
    known_style,
    name_ends,
    own_axes,
)

MOST_LAYER_NAMES = 24
_BARS_FOOT, _BARS_TOP = -0.34, -0.09  # where a reliability diagram draws its counts
Series = Mapping[str, tuple[ArrayLike, ...]]


# ------------------------------------------------------------------------ images, numbers, values


def tiles(ax: Axes, rows: Mapping[str, Sequence[NDArray[np.uint8]]], titles: Sequence[str]) -> Axes:
    """Images (H, W, 3) of one size, a row per name, under column titles, all in one axes."""
    height, width = next(iter(rows.values()))[0].shape[:2]
    gap = max(1, width // 16)
    canvas = np.full((len(rows) * (height + gap) - gap, len(titles) * (width + gap) - gap, 3), 255, np.uint8)
    for r, images in enumerate(rows.values()):
        for c, image in enumerate(images):
            y, x = r * (height + gap), c * (width + gap)
            canvas[y : y + height, x : x + width] = image
    ax.imshow(canvas, interpolation="nearest")
    ax.set_xticks([c * (width + gap) + width / 2 for c in range(len(titles))], titles)
    ax.set_yticks([r * (height + gap) + height / 2 for r in range(len(rows))], list(rows))
    ax.tick_params(length=0, labelsize=TEXT, labelcolor=INK, top=True, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    words = ", ".join(title.replace("\n", " ") for title in titles)
    return describe(ax, f"{len(titles)} images in each of {len(rows)} rows ({', '.join(rows)}): {words}.")


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
    figure: Figure | SubFigure,
    about: Mapping[str, Scale],
    values: Mapping[str, float],
    before: Mapping[str, float],
    colour: str,
) -> None:
    """Numbers on scales, one below another; a pale dot where each of them was before."""
    axes: Any = figure.subplots(len(about), 1, squeeze=False)[:, 0]
    for ax, (name, scale) in zip(axes, about.items(), strict=True):
        span, value = scale.high - scale.low, values[name]
        ax.set(xlim=(scale.low - 0.04 * span, scale.high + 0.3 * span), ylim=(0, 1))
        ax.set_axis_off()
        ax.text(scale.low, 0.98, scale.title, fontsize=TEXT, color=INK, va="top")
        ax.plot([scale.low, scale.high], [0.42, 0.42], color=PALE, linewidth=4, solid_capstyle="round")
        for title, place in scale.marks.items():
            ax.plot([place, place], [0.3, 0.54], color=SOFT, linewidth=1.6)
            share = (place - scale.low) / span
            across = "left" if share < 0.12 else "right" if share > 0.88 else "center"
            ax.text(place, 0.24, title, fontsize=TEXT, color=SOFT, ha=across, va="top")
        for dot, shade, size in ((before.get(name, np.nan), PALE, 10), (value, colour, 12)):
            ax.plot(
                [np.clip(dot, scale.low, scale.high)],
                [0.42],
                "o",
                markersize=size,
                color=shade,
                clip_on=False,
            )
        ax.text(scale.high + 0.06 * span, 0.42, scale.written(value), fontsize=TEXT + 2, fontweight="bold",
                color=INK, va="center")  # fmt: skip
    told = "; ".join(f"{scale.title} {scale.written(values[name])}" for name, scale in about.items())
    describe(axes[0], f"In numbers: {told}.")


def histograms(
    figure: Figure | SubFigure, sets: Mapping[str, tuple[ArrayLike, float, float]], colour: str, name: str
) -> None:
    """Values as histograms, each over the bell curve that it is compared with; the axes hold 8 deviations.

    Parameters
    ----------
    sets : title -> values, and mean and standard deviation of the curve.
    name : of the curve.
    """
    axes: Any = figure.subplots(1, len(sets), squeeze=False)[0]
    for ax, (title, (given, mean, deviation)) in zip(axes, sets.items(), strict=True):
        values, width = np.asarray(given, float), max(deviation, 1e-6)
        edges = np.linspace(mean - 8 * width, mean + 8 * width, 129)
        density, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
        curve = np.exp(-0.5 * ((edges - mean) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        dress(ax, title, grid="")
        ax.fill_between(edges, curve, color=PALE, alpha=0.8, label=name, linewidth=0)
        ax.stairs(density / len(values) / (edges[1] - edges[0]), edges, fill=True, color=colour, alpha=0.6,
                  label="this batch")  # fmt: skip
        ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 3 * curve.max()), yticks=[])
        ax.legend(
            loc="upper right", frameon=False, fontsize=TEXT, labelcolor=INK, handlelength=1, borderaxespad=0
        )
        describe(ax, f"{title}: mean {values.mean():.2f}, deviation {values.std():.2f}; {name}: {mean:.2f} "
                     f"and {deviation:.2f}.")  # fmt: skip


# ------------------------------------------------------------------------ gaps over layers and time


def layer_profile(
    layers: Sequence[str],
    series: Mapping[str, ArrayLike],
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ax: Axes | None = None,
    *,
    title: str = "",
    ylabel: str = "gap",
    styles: Mapping[str, Style] | None = None,
    log: bool = False,
) -> Axes:
    """A gap measure from the first layer to the last: one line per measure or method, intervals as bands.

    Parameters
    ----------
    layers : L names, in the order of the forward pass.
    series : name -> (L,) values, or (L, R) values of R runs or bootstrap draws: then the line is their mean
        and the band runs from the 2.5th to the 97.5th percentile. NaN leaves a gap.
    bands : name -> lower and upper ends of an interval, (L,) each; instead of the percentiles.
    log : a logarithmic axis upwards.
    """
    values = {name: np.asarray(y, float) for name, y in series.items()}
    for name, y in values.items():
        if y.ndim not in (1, 2) or len(y) != len(layers):
            raise LabError(
                f"{name!r} has shape {y.shape}; {len(layers)} layers need ({len(layers)},) or "
                f"({len(layers)}, runs)."
            )
    ax = own_axes(ax, 860, 440)
    dress(ax, title, "", ylabel)
    if log:
        ax.set_yscale("log")
    ends, words = [], []
    for i, (name, y) in enumerate(values.items()):
        style = (styles or {}).get(name) or known_style(name, i)
        runs = y.reshape(len(layers), -1)
        line = runs.mean(axis=1)
        band = (bands or {}).get(name)
        if band is None and runs.shape[1] > 1:
            band = np.percentile(runs, 2.5, axis=1), np.percentile(runs, 97.5, axis=1)
        (drawn,) = ax.plot(line, style.line, color=style.colour, linewidth=2.2, markersize=7,
                           marker=style.marker if len(line) <= 25 else "")  # fmt: skip
        if band is not None:
            low, high = (np.asarray(end, float) for end in band)
            ax.fill_between(np.arange(len(line)), low, high, color=style.colour, alpha=0.18, linewidth=0)
        if np.isfinite(line).any():
            ends.append((float(line[np.isfinite(line)][-1]), style.title, style.colour))
            drawn.set_label(style.title)
            most = int(np.nanargmax(line))
            words.append(f"{name} from {line[0]:.3g} to {line[-1]:.3g}, largest at {layers[most]} "
                         f"({line[most]:.3g})")  # fmt: skip
    _name_layers(ax, layers)
    ax.set_xlim(-0.3, max(len(layers) - 1, 0.5) + 0.1)
    if log:  # where heights are no distances, names beside the ends would be misplaced
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=TEXT, labelcolor=INK)
    else:
        name_ends(ax, ends)
    return describe(ax, f"{ylabel} over {len(layers)} layers: {'; '.join(words) or 'no values'}.")


def _name_layers(ax: Axes, layers: Sequence[str]) -> None:
    """Layers by name while there is room, every second (third, …) one when there are many."""
    every = -(-len(layers) // MOST_LAYER_NAMES)
    shown = range(0, len(layers), every)
    lean = sum(len(layers[i]) for i in shown) > 60
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if lean else {}
    ax.set_xticks(list(shown), [layers[i] for i in shown], **turned)


def gap_over_training(
    series: Series,
    ax: Axes | None = None,
    *,
    title: str = "",
    xlabel: str = "epoch",
    ylabel: str = "gap",
    levels: Mapping[str, float] | None = None,
    styles: Mapping[str, Style] | None = None,
    ylim: tuple[float, float] | None = None,
) -> Axes:
    """A gap measure against epochs: one line per run, with its interval where there is one.

    Parameters
    ----------
    series : name -> (epochs, values) or (epochs, values, low, high), (T,) each.
    levels : name -> a height to compare with: two halves of the source's own images, a fully mixed map.
    ylim : limits upwards; None follows the data. An unbiased measure may be negative, and is drawn as it is.
    """
    for name, parts in series.items():
        lengths = {np.size(part) for part in parts}
        if len(parts) not in (2, 4) or len(lengths) != 1:
            raise LabError(
                f"{name!r} needs (epochs, values) or (epochs, values, low, high) of one length, not "
                f"{len(parts)} parts of lengths {sorted(lengths)}."
            )
    ax = own_axes(ax, 800, 420)
    ax.locator_params(axis="x", integer=True)
    return curves(
        series, ax, title=title, xlabel=xlabel, ylabel=ylabel, ylim=ylim, levels=levels, styles=styles
    )


def forest(
    rows: Mapping[str, tuple[float, float, float]],
    ax: Axes | None = None,
    *,
    title: str = "",
    xlabel: str = "difference, points",
) -> Axes:
    """Differences and their intervals, a row each, against zero; pale where the interval holds zero.

    Parameters
    ----------
    rows : name -> value, lower and upper end; drawn from the top in this order.
    """
    ax = dress(own_axes(ax, 800, 90 + 27 * len(rows)), title, xlabel, grid="x")
    ax.axvline(0, color=INK, linewidth=1.2)
    for row, (value, low, high) in enumerate(rows.values()):
        colour = INK if low > 0 or high < 0 else SOFT
        ax.plot([low, high], [row, row], color=colour, linewidth=2)
        ax.plot(value, row, "o", color=colour, markersize=7)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    apart = [name for name, (_, low, high) in rows.items() if low > 0 or high < 0]
    return describe(
        ax, f"{len(rows)} differences with intervals; away from zero: {', '.join(apart) or 'none'}."
    )


def scatter_by_group(
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]], ax: Axes | None = None, *,
    title: str = "", xlabel: str = "", ylabel: str = "held-out accuracy",
) -> Axes:  # fmt: skip
    """Two numbers of many networks against each other, a dot each: group -> (n,) across and (n,) upwards."""
    ax = dress(own_axes(ax, 800, 440), title, xlabel, ylabel, grid="both")
    for i, (name, (x, y)) in enumerate(groups.items()):
        style = known_style(name, i)
        ax.scatter(x, y, s=60, color=style.colour, marker=style.marker, label=style.title, alpha=0.9)
    ax.legend(frameon=False, fontsize=TEXT, loc="center left", bbox_to_anchor=(1.01, 0.5))
    count = sum(np.size(x) for x, _ in groups.values())
    return describe(ax, f"{ylabel} against {xlabel} of {count} networks, by {', '.join(groups)}.")


def matrix(
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    ax: Axes | None = None,
    *,
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = (0.0, 1.0),
    xlabel: str = "",
    ylabel: str = "",
) -> Axes:
    """Numbers as colours: CKA of every layer of one network with every layer of another, and the like.

    Parameters
    ----------
    values : (R, C) numbers; NaN leaves a cell empty.
    label : what the colours measure, beside their ruler.
    limits : ends of the colours; None follows the data.
    """
    table = np.asarray(values, float)
    if table.shape != (len(rows), len(columns)):
        raise LabError(f"The table has shape {table.shape}; its names need {(len(rows), len(columns))}.")
    ax = own_axes(ax, 200 + 46 * len(columns) + 90, 150 + 40 * len(rows))
    low, high = limits or (None, None)
    seaborn.heatmap(table, ax=ax, cmap="Blues", vmin=low, vmax=high, annot=table.size <= 150, fmt=".2f",
                    annot_kws={"fontsize": TEXT}, linewidths=1, linecolor="white")  # fmt: skip
    dress(ax, title, xlabel, ylabel, grid="")
    ax.spines[:].set_visible(False)
    shown = range(0, len(columns), 1 if len(columns) <= MOST_LAYER_NAMES else 2)
    names = [columns[i] for i in shown]
    ax.set_xticks(np.array(shown) + 0.5, names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(np.arange(len(rows)) + 0.5, list(rows), rotation=0)
    ax.tick_params(length=0)
    ruler = ax.collections[0].colorbar
    if ruler is not None:
        ruler.ax.tick_params(labelsize=TEXT, colors=SOFT, labelcolor=INK, length=0)
        ruler.ax.set_ylabel(label, fontsize=TEXT, color=INK)
        ruler.outline.set_visible(False)  # type: ignore[operator]
    return describe(ax, _matrix_in_words(table, rows, columns, label or title or "values"))


def _matrix_in_words(table: Any, rows: Sequence[str], columns: Sequence[str], label: str) -> str:
    if not np.isfinite(table).any():
        return f"Matrix of {label} without values."
    i, j = divmod(int(np.nanargmax(table)), len(columns))
    k, m = divmod(int(np.nanargmin(table)), len(columns))
    return (
        f"Matrix of {label}, {len(rows)} rows and {len(columns)} columns: largest {table[i, j]:.2f} at "
        f"{rows[i]} and {columns[j]}, smallest {table[k, m]:.2f} at {rows[k]} and {columns[m]}."
    )


# ------------------------------------------------------------------------ certainty


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy, in bins of equal width; see `calibration`."""

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    error: float


def calibration(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> Calibration:
    r"""How often a classifier is right when it is so certain.

    .. math:: ECE = \sum_b \tfrac{n_b}{n} \left| acc_b - conf_b \right|

    Parameters
    ----------
    confidence : (n,) largest probability of each prediction, in [0, 1].
    correct : (n,) truth values: was it right?
    bins : of equal width, open at the left; 0 counts to the first.

    Returns
    -------
    Per bin its edges (bins + 1), count, mean confidence and accuracy (NaN where it is empty), and `error`:
    the expected calibration error, in [0, 1]. With few images it is biased upwards.

    Raises
    ------
    LabError : no images, unequal lengths, numbers outside [0, 1].

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """
    certain, right = np.asarray(confidence, float), np.asarray(correct, bool)
    if certain.ndim != 1 or certain.shape != right.shape or not len(certain):
        raise LabError(
            f"Confidence {certain.shape} and correct {right.shape} need a number per image, and an image."
        )
    if not ((certain >= 0) & (certain <= 1 + 1e-6)).all():
        raise LabError("Confidences lie in [0, 1]: pass probabilities, not logits.")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, certain, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, certain, bins) / count
        share = np.bincount(place, right, bins) / count
    error = float(np.nansum(count * np.abs(share - mean)) / len(certain))
    return Calibration(edges, count, mean, share, error)


def reliability(
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]],
    ax: Axes | None = None,
    *,
    title: str = "",
    bins: int = 10,
    styles: Mapping[str, Style] | None = None,
) -> Axes:
    """Accuracy against confidence: on the diagonal a classifier is right as often as it is certain.

    Parameters
    ----------
    groups : name -> confidence (n,) and correct (n,), as for `calibration`; "before" and "after", say.
    bins : of equal width.

    The line joins the bins that hold images; a dot's area grows with their count, and bars below tell it.
    Labels are for the reader: no method sees them.
    """
    if not groups:
        raise LabError("A reliability diagram needs at least one classifier.")
    ax = own_axes(ax, 760, 640)
    dress(ax, title, "confidence", "accuracy", grid="")
    ax.plot([0, 1], [0, 1], color=PALE, linewidth=1.6, label="perfectly calibrated")
    found = {name: calibration(*pair, bins) for name, pair in groups.items()}
    most = max(int(one.count.max()) for one in found.values())
    words = []
    for i, (name, one) in enumerate(found.items()):
        style = (styles or {}).get(name) or known_style(name, i)
        seen = one.count > 0
        x, y, area = one.confidence[seen], one.accuracy[seen], 30 + 230 * one.count[seen] / one.count.max()
        label = f"{style.title}: ECE {100 * one.error:.1f} %"
        ax.plot(x, y, style.line, color=style.colour, linewidth=2, label=label)
        ax.scatter(x, y, s=area, color=style.colour, marker=style.marker, edgecolors="white", zorder=3)
        width = 0.86 / bins / len(found)
        places = one.edges[:-1] + 0.07 / bins + (i + 0.5) * width
        heights = (_BARS_TOP - _BARS_FOOT) * one.count / most
        ax.bar(places, heights, width, _BARS_FOOT, color=style.colour, alpha=0.85)
        confidence, correct = (float(np.mean(np.asarray(part, float))) for part in groups[name])
        words.append(
            f"{name}, {one.count.sum()} images: mean confidence {confidence:.2f}, "
            f"accuracy {correct:.2f}, expected calibration error {one.error:.3f}"
        )
    _reliability_frame(ax, most)
    ax.legend(loc="upper left", framealpha=0.9, edgecolor="none", fontsize=TEXT, labelcolor=INK)
    return describe(ax, f"Reliability diagram, {bins} bins: {'; '.join(words)}.")


def _reliability_frame(ax: Axes, most: int) -> None:
    """Ticks for accuracy above, for the number of images below."""
    shares = np.linspace(0, 1, 6)
    ax.set(xlim=(0, 1), ylim=(_BARS_FOOT, 1.02), xticks=shares)
    ax.set_yticks([_BARS_FOOT, _BARS_TOP, *shares], ["0", f"{most}", *[f"{share:.1f}" for share in shares]])
    for share in shares:
        ax.axhline(share, color=GRID, linewidth=0.8, zorder=0)
    ax.yaxis.label.set_y(0.63)
    ax.text(-0.095, 0.12, "images", transform=ax.transAxes, rotation=90, ha="right", va="center",
            fontsize=TEXT, color=INK)  # fmt: skip
