"""Pictures of the gap between two sets of features, and of what a classifier makes of it.

Like seaborn's own functions, each draws into the axes given (or makes a figure of its own) and returns them;
the margins, densities, lines with bands, boxes and matrices are seaborn's. The look is that of `plots`: text
of 12 pt, colours that stay apart under colour-vision deficiencies, a description by `plots.alt_text`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError
from socketlab.figures import figures
from socketlab.figures.figures import Cloud, Style

MARGIN = 0.2  # height of a marginal density, in parts of the axes
MOST_LAYER_NAMES = 24
_CALM = "#7fb2e5"
_DOTTED = (0, (1, 2))
_BARS_FOOT, _BARS_TOP = -0.34, -0.09  # where a reliability diagram draws its counts
Series = Mapping[str, tuple[ArrayLike, ...]]


# ------------------------------------------------------------------------ the joint view


def joint_view(
    clouds: Mapping[str, Cloud],
    classes: Sequence[str] = (),
    ax: Axes | None = None,
    *,
    hue: str = "modality",
    title: str = "",
    xlabel: str = "first direction",
    ylabel: str = "second direction",
) -> Axes:
    """Points along two directions of feature space, and each modality's density along either.

    Where the joint picture is full, the margins still tell whether one modality lies beside the other.

    Parameters
    ----------
    clouds : name -> cloud; a map, or any two columns of the features.
    classes : names of the classes that labels count.
    hue : "modality" or "class", as for `plots.feature_map`; the margins always show modalities.

    Returns
    -------
    The axes of the points; the margins are their children.
    """
    if hue not in ("class", "modality"):
        raise LabError(f"hue is {hue!r}; choose 'class' or 'modality'.")
    if not any(len(cloud.points) for cloud in clouds.values()):
        raise LabError("A joint view needs at least one point.")
    ax = figures.own_axes(ax, 880, 600)
    figures.dress(ax, "", xlabel, ylabel, grid="both")
    figures.scatter_clouds(ax, clouds, hue)
    ax.autoscale(False)
    pooled = _by_modality(clouds)
    above = _margin(ax, pooled, 0)
    _margin(ax, pooled, 1)
    if title:
        above.set_title(
            title, color=figures.INK, fontsize=figures.TEXT + 1, loc="left", fontweight="bold", pad=9
        )
    figures.map_legend(ax, clouds, classes, hue)
    legend = ax.get_legend()
    assert legend is not None
    legend.set_bbox_to_anchor((1.03 + MARGIN, 0.5), transform=ax.transAxes)
    counts = ", ".join(f"{len(cloud.points)} {cloud.title}" for cloud in clouds.values())
    return figures.describe(
        ax,
        f"Joint view ({title or 'two directions'}) with densities at its margins: {counts}. {_apart(pooled)}",
    )


def _by_modality(clouds: Mapping[str, Cloud]) -> dict[str, NDArray[np.float32]]:
    pooled: dict[str, list[Any]] = {}
    for cloud in clouds.values():
        pooled.setdefault(cloud.modality, []).append(cloud.points)
    return {modality: np.concatenate(parts) for modality, parts in pooled.items()}


def _margin(ax: Axes, pooled: Mapping[str, NDArray[np.float32]], along: int) -> Axes:
    """Densities above (along 0) or to the right (along 1) of the axes."""
    if along == 0:
        side = ax.inset_axes((0, 1.02, 1, MARGIN), sharex=ax)
    else:
        side = ax.inset_axes((1.02, 0, MARGIN, 1), sharey=ax)
    for modality, points in pooled.items():
        look, values = figures.modality_style(modality), points[:, along]
        if len(values) < 2 or np.ptp(values) < 1e-9 * max(1.0, np.abs(values).max()):
            continue  # one place has no density
        at: dict[str, Any] = {"x" if along == 0 else "y": values, "ax": side, "color": look.colour}
        seaborn.kdeplot(**at, fill=True, alpha=0.18, linewidth=0, warn_singular=False)
        seaborn.kdeplot(**at, linestyle=look.line, linewidth=2, warn_singular=False)
    figures.dress(side)
    side.set_axis_off()
    return side


def _apart(pooled: Mapping[str, NDArray[np.float32]]) -> str:
    """How far the means of two modalities lie apart along each direction, in pooled standard deviations."""
    told = []
    for a, b in itertools.combinations(pooled, 2):
        away = np.abs(pooled[a].mean(axis=0) - pooled[b].mean(axis=0))
        spread = np.sqrt((pooled[a].var(axis=0) + pooled[b].var(axis=0)) / 2)
        first, second = away / np.maximum(spread, 1e-12)
        names = " and ".join(figures.modality_style(m).title for m in (a, b))
        told.append(
            f"The means of {names} lie {first:.1f} and {second:.1f} standard deviations apart along the two."
        )
    return " ".join(told)


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
    ax = figures.own_axes(ax, 860, 440)
    figures.dress(ax, title, "layer", ylabel)
    if log:
        ax.set_yscale("log")
    ends = []
    for i, (name, y) in enumerate(values.items()):
        look = (styles or {}).get(name) or figures.known_style(name, i)
        line = y if y.ndim == 1 else y.mean(axis=1)
        _line(ax, np.arange(len(layers)), y, (bands or {}).get(name), look)
        if np.isfinite(line).any():
            ends.append((float(line[np.isfinite(line)][-1]), look.title, look.colour))
    _name_layers(ax, layers)
    ax.set_xlim(-0.3, max(len(layers) - 1, 0.5) + 0.1)
    _name_ends(ax, ends)
    return figures.describe(ax, _profile_in_words(layers, values, ylabel))


def _line(ax: Axes, x: Any, y: Any, band: tuple[ArrayLike, ArrayLike] | None, look: Style) -> None:
    """One line with its band: the one given, else the middle 95 % of the columns of y, else none."""
    repeats = 1 if y.ndim == 1 else y.shape[1]
    percentiles = ("pi", 95) if repeats > 1 and band is None else None
    seaborn.lineplot(
        x=np.repeat(x, repeats),
        y=y.ravel(),
        ax=ax,
        color=look.colour,
        linestyle=look.line,
        linewidth=2.2,
        marker=look.marker if len(x) <= 25 else "",
        markersize=7,
        errorbar=percentiles,
        err_kws={"alpha": 0.18, "linewidth": 0},
    )
    if band is not None:
        low, high = (np.asarray(end, float) for end in band)
        ax.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)


def _name_layers(ax: Axes, layers: Sequence[str]) -> None:
    """Layers by name while there is room, every second (third, …) one when there are many."""
    every = -(-len(layers) // MOST_LAYER_NAMES)
    shown = range(0, len(layers), every)
    lean = sum(len(layers[i]) for i in shown) > 60
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if lean else {}
    ax.set_xticks(list(shown), [layers[i] for i in shown], **turned)
    ax.set_xlabel("")


def _name_ends(ax: Axes, ends: list[tuple[float, str, Any]]) -> None:
    """Names beside the ends of the lines, or in a legend where a logarithmic axis would misplace them."""
    if ax.get_yscale() == "linear":
        figures.name_ends(ax, ends)
        return
    handles = [line for line in ax.get_lines() if len(line.get_xdata()) > 0]  # type: ignore[arg-type]
    for handle, (_, name, _) in zip(handles, ends, strict=False):
        handle.set_label(name)
    ax.legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=figures.TEXT,
        labelcolor=figures.INK,
    )


def _profile_in_words(layers: Sequence[str], values: Mapping[str, Any], ylabel: str) -> str:
    told = []
    for name, y in values.items():
        line = y if y.ndim == 1 else y.mean(axis=1)
        if not np.isfinite(line).any():
            continue
        most = int(np.nanargmax(line))
        told.append(
            f"{name} from {line[0]:.3g} to {line[-1]:.3g}, largest at {layers[most]} ({line[most]:.3g})"
        )
    return f"{ylabel} over {len(layers)} layers: {'; '.join(told) or 'no values'}."


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
    ax = figures.own_axes(ax, 800, 420)
    ax.locator_params(axis="x", integer=True)
    for i, (name, parts) in enumerate(series.items()):
        if len(parts) == 4:
            look = (styles or {}).get(name) or figures.known_style(name, i)
            x, _, low, high = (np.asarray(part, float) for part in parts)
            ax.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)
    return figures.curves(
        {name: (parts[0], parts[1]) for name, parts in series.items()},
        ax,
        title=title,
        xlabel=xlabel,
        ylabel=ylabel,
        ylim=ylim,
        levels=levels,
        styles=styles,
    )


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
    ax = figures.own_axes(ax, 200 + 46 * len(columns) + 90, 150 + 40 * len(rows))
    low, high = limits or (None, None)
    few = table.size <= 150
    seaborn.heatmap(
        table,
        ax=ax,
        cmap="Blues",
        vmin=low,
        vmax=high,
        annot=few,
        fmt=".2f",
        annot_kws={"fontsize": figures.TEXT},
        linewidths=1,
        linecolor="white",
        cbar_kws={"label": label},
    )
    figures.dress(ax, title, xlabel, ylabel, grid="")
    ax.spines[:].set_visible(False)
    every = 1 if len(columns) <= MOST_LAYER_NAMES else 2
    places = np.arange(0, len(columns), every)
    ax.set_xticks(
        places + 0.5, [columns[int(i)] for i in places], rotation=40, ha="right", rotation_mode="anchor"
    )
    ax.set_yticks(np.arange(len(rows)) + 0.5, list(rows), rotation=0)
    ax.tick_params(length=0)
    ruler = ax.collections[0].colorbar
    if ruler is not None:
        ruler.ax.tick_params(labelsize=figures.TEXT, colors=figures.SOFT, labelcolor=figures.INK, length=0)
        ruler.ax.set_ylabel(label, fontsize=figures.TEXT, color=figures.INK)
        ruler.outline.set_visible(False)  # type: ignore[operator]
    return figures.describe(ax, _matrix_in_words(table, rows, columns, label or title or "values"))


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
    """Accuracy against confidence: on the diagonal a classifier is as often right as it says it is.

    Parameters
    ----------
    groups : name -> confidence (n,) and correct (n,), as for `calibration`; "before" and "after", say.
    bins : of equal width.

    The line joins the bins that hold images; a dot's area grows with their count, and bars below tell it.
    Labels are for the reader: no method sees them.
    """
    if not groups:
        raise LabError("A reliability diagram needs at least one classifier.")
    ax = figures.own_axes(ax, 760, 640)
    figures.dress(ax, title, "confidence", "accuracy", grid="")
    ax.plot([0, 1], [0, 1], color=figures.PALE, linewidth=1.6, label="perfectly calibrated")
    found = {name: calibration(*pair, bins) for name, pair in groups.items()}
    most = max(int(one.count.max()) for one in found.values())
    told = []
    for i, (name, one) in enumerate(found.items()):
        look = (styles or {}).get(name) or figures.known_style(name, i)
        _reliability_line(ax, one, look)
        width = 0.86 / bins / len(found)
        places = one.edges[:-1] + 0.07 / bins + (i + 0.5) * width
        heights = (_BARS_TOP - _BARS_FOOT) * one.count / most
        ax.bar(places, heights, width, _BARS_FOOT, color=look.colour, alpha=0.85)
        confidence, correct = (float(np.mean(np.asarray(part, float))) for part in groups[name])
        told.append(
            f"{name}, {one.count.sum()} images: mean confidence {confidence:.2f}, "
            f"accuracy {correct:.2f}, expected calibration error {one.error:.3f}"
        )
    _reliability_frame(ax, most)
    ax.legend(
        loc="upper left",
        frameon=True,
        framealpha=0.9,
        edgecolor="none",
        fontsize=figures.TEXT,
        labelcolor=figures.INK,
    )
    return figures.describe(ax, f"Reliability diagram, {bins} bins: {'; '.join(told)}.")


def _reliability_line(ax: Axes, found: Calibration, look: Style) -> None:
    seen = found.count > 0
    x, y = found.confidence[seen], found.accuracy[seen]
    label = f"{look.title}: ECE {100 * found.error:.1f} %"
    ax.plot(x, y, look.line, color=look.colour, linewidth=2, label=label)
    area = 30 + 230 * found.count[seen] / found.count.max()
    ax.scatter(
        x, y, s=area, color=look.colour, marker=look.marker, edgecolors="white", linewidths=0.8, zorder=3
    )


def _reliability_frame(ax: Axes, most: int) -> None:
    """Ticks for accuracy above, for the number of images below."""
    shares = np.linspace(0, 1, 6)
    ax.set(xlim=(0, 1), ylim=(_BARS_FOOT, 1.02), xticks=shares)
    ax.set_yticks([_BARS_FOOT, _BARS_TOP, *shares], ["0", f"{most}", *[f"{share:.1f}" for share in shares]])
    for share in shares:
        ax.axhline(share, color=figures.GRID, linewidth=0.8, zorder=0)
    ax.yaxis.label.set_y(0.63)
    ax.text(
        *(-0.095, 0.12, "images"),
        transform=ax.transAxes,
        rotation=90,
        ha="right",
        va="center",
        fontsize=figures.TEXT,
        color=figures.INK,
    )


# ------------------------------------------------------------------------ what a map keeps


def stability_figure(
    kept: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    title: str = "",
    xlabel: str = "share of nearest neighbours kept",
    chance: float | None = None,
) -> Axes:
    """How many neighbours two maps share: between seeds, and between a map and the features it was made of.

    Parameters
    ----------
    kept : name of a comparison -> (n,) shares in [0, 1], one per point, or one per pair of seeds.
    chance : the share that random maps keep, a dotted line: k / (n - 1).

    Returns
    -------
    A shape per comparison with median and quartiles as lines, or a dot per number where there are fewer than
    twenty; the mean in numbers.
    """
    values = {name: np.atleast_1d(np.asarray(v, float)) for name, v in kept.items()}
    empty = [name for name, v in values.items() if not np.isfinite(v).any()]
    if empty or not values:
        raise LabError(f"There are no numbers to show{' for ' + ', '.join(empty) if empty else ''}.")
    ax = figures.own_axes(ax, 800, 110 + 56 * len(values))
    figures.dress(ax, title, xlabel, "", grid="x")
    for row, v in enumerate(values.values()):
        _distribution(ax, v[np.isfinite(v)], row)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    for row, v in enumerate(values.values()):
        ax.annotate(
            f"{100 * float(np.nanmean(v)):.0f} %",
            (1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=figures.TEXT,
            color=figures.INK,
            annotation_clip=False,
        )
    ax.set(xlim=(0, 1), xticks=np.linspace(0, 1, 6), ylabel="")
    ax.set_xlabel(xlabel if chance is None else f"{xlabel} (dotted: by chance)")
    ax.set_xticklabels([f"{100 * x:.0f} %" for x in np.linspace(0, 1, 6)])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if chance is not None:
        ax.axvline(chance, color=figures.SOFT, linewidth=1.4, linestyle=_DOTTED)
    said = ", ".join(f"{name} {100 * float(np.nanmean(v)):.0f} %" for name, v in values.items())
    by_chance = "" if chance is None else f"; by chance {100 * chance:.0f} %"
    return figures.describe(ax, f"Distributions of {xlabel}; means: {said}{by_chance}.")


def _distribution(ax: Axes, values: NDArray[np.float64], row: int) -> None:
    """Many numbers as a violin, few as dots."""
    at = {"ax": ax, "x": values, "y": np.full(len(values), row), "orient": "h", "native_scale": True}
    if len(values) < 20 or np.ptp(values) == 0:
        seaborn.stripplot(**at, color=_CALM, size=9, jitter=0.12, edgecolor="white", linewidth=0.8)
        return
    seaborn.violinplot(
        **at, color=_CALM, saturation=1, cut=0, inner="quart", width=0.8, linecolor=figures.INK, linewidth=1.2
    )


# ------------------------------------------------------------------------ pictures on a map


def thumbnails(
    ax: Axes,
    points: ArrayLike,
    pictures: Sequence[ArrayLike] | NDArray[np.uint8],
    *,
    most: int = 20,
    side: float = 56,
    colours: Sequence[Any] | None = None,
) -> list[int]:
    """Lay a few images on a map, at their points, none over another.

    Parameters
    ----------
    ax : a map with its limits and place settled, as `plots.feature_map` returns it.
    points : (n, 2) positions, in data coordinates.
    pictures : n images (H, W, 3) uint8, as `plots.paint` makes them.
    most : how many at most.
    side : of a picture, pixels at 100 dpi.
    colours : n colours of the frames; INK when None.

    Returns
    -------
    Indices of the images shown: each next one the farthest from those before, while there is room.
    """
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    where = np.asarray(points, float)
    if where.ndim != 2 or where.shape[1] != 2 or len(where) != len(pictures):
        raise LabError(f"{len(pictures)} pictures need as many points (n, 2), not {where.shape}.")
    figure = figures.figure_of(ax)
    figure.draw_without_rendering()  # settles the layout: only then is it known what overlaps
    scale = figure.dpi / 72
    frame = side * 0.72 + 5  # points: the picture and its border
    inner = ax.get_window_extent()
    pixels = ax.transData.transform(where)
    room = frame * scale / 2 + 4
    inside = (
        (pixels[:, 0] > inner.x0 + room)
        & (pixels[:, 0] < inner.x1 - room)
        & (pixels[:, 1] > inner.y0 + room)
        & (pixels[:, 1] < inner.y1 - room)
    )
    shown = spread(pixels, inside, most, (frame + 1) * scale)
    for i in shown:
        image = np.asarray(pictures[i])
        small = OffsetImage(
            image, zoom=side * 0.72 / max(image.shape[:2]), interpolation="nearest", resample=False
        )
        edge = figures.INK if colours is None else colours[i]
        ax.add_artist(
            AnnotationBbox(
                small,
                (where[i, 0], where[i, 1]),
                frameon=True,
                pad=0.12,
                bboxprops={"edgecolor": edge, "linewidth": 1.6, "facecolor": "white"},
            )
        )
    said = figures.alt_text(ax)
    figures.describe(ax, f"{said} {len(shown)} images lie at their points.")
    return shown


def spread(pixels: NDArray[np.float64], inside: NDArray[np.bool_], most: int, apart: float) -> list[int]:
    """At most `most` points that lie `apart` in x or in y: squares of that side around them do not overlap.

    Farthest first: begins next to the middle of all and then takes the point that is farthest (in the maximum
    of both coordinates) from all taken.

    Parameters
    ----------
    pixels : (n, 2).
    inside : (n,) which may be taken.
    """
    if most < 1 or not inside.any():
        return []
    from_middle = np.abs(pixels - np.median(pixels[inside], axis=0)).max(axis=1)
    taken = [int(np.where(inside, from_middle, np.inf).argmin())]
    nearest = np.where(inside, np.abs(pixels - pixels[taken[0]]).max(axis=1), -np.inf)
    while len(taken) < most and nearest.max() >= apart:
        taken.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.abs(pixels - pixels[taken[-1]]).max(axis=1))
    return taken
