"""The pictures of the course: axes in, axes out, in the style of `style`.

Every function draws into the axes given, or makes a figure of its own that no window or notebook grabs;
`show` puts it into a notebook together with its description.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError
from socketlab.figures.map_figures import (
    Cloud,
    cloud_colours,
    feature_map,
    legend_dot,
    map_frame,
    map_legend,
    scatter_clouds,
)
from socketlab.figures.style import (
    CLASS_COLOURS,
    DEPTH_COLOURS,
    DOTTED,
    DPI,
    GRID,
    INK,
    METHODS,
    MISSING,
    MODALITIES,
    PALE,
    SOFT,
    TERMS,
    TEXT,
    Style,
    alt_text,
    apart,
    class_colour,
    describe,
    dress,
    figure_of,
    known_style,
    modality_style,
    name_ends,
    new_figure,
    own_axes,
    png,
    run_style,
    running_mean,
    show,
    spaced,
)
from socketlab.images.paired_images import PairedImages

__all__ = [
    "paint", "triptych", "gallery", "confusion_examples", "curves", "training_curves", "loss_terms",
    "running_mean", "channel_statistics",
    "confusion_matrix", "matrix_frame", "row_shares", "matrix_in_words", "accuracy_bars",
    # of style and map_figures, for those who draw
    "Cloud", "cloud_colours", "feature_map", "legend_dot", "map_frame", "map_legend", "scatter_clouds",
    "CLASS_COLOURS", "DEPTH_COLOURS", "DPI", "GRID", "INK", "METHODS", "MISSING", "MODALITIES", "PALE",
    "SOFT", "TERMS", "TEXT", "Style", "alt_text", "apart", "class_colour", "describe", "dress", "figure_of",
    "known_style",
    "modality_style", "name_ends", "new_figure", "own_axes", "png", "run_style", "show",
]  # fmt: skip


# ------------------------------------------------------------------------ images


def paint(image: ArrayLike, modality: str, reach_mm: float = 6000.0) -> NDArray[np.uint8]:
    """Turn one stored image into colours for the eye.

    Parameters
    ----------
    image : (3, H, W) or (1, H, W); uint8, or uint16 millimetres for depth.
    modality : "rgb", "nir" or "depth".
    reach_mm : the far end of the depth colours, millimetres.

    Returns
    -------
    (H, W, 3) uint8. Near is bright, far is dark; missing depth is pink, a colour that no depth has.

    Raises
    ------
    LabError : another modality.
    """
    pixels = np.asarray(image)
    if modality == "rgb":
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if modality == "nir":
        return np.repeat(pixels[0][..., None], 3, axis=2)
    if modality != "depth":
        raise LabError(f"There is no way to paint {modality!r}; choose among {', '.join(MODALITIES)}.")
    colours = matplotlib.colormaps[DEPTH_COLOURS](np.clip(pixels[0] / reach_mm, 0, 1), bytes=True)[..., :3]
    colours[pixels[0] == 0] = np.round(np.array(matplotlib.colors.to_rgb(MISSING)) * 255)
    return colours


def triptych(
    rooms: PairedImages,
    indices: Sequence[int] | None = None,
    modalities: Sequence[str] = ("rgb", "nir", "depth"),
    titles: Sequence[str] | None = None,
    tile: float = 140,
) -> Figure:
    """The same rooms in several modalities: a column per room, a row per modality.

    Parameters
    ----------
    rooms : images in at least these modalities.
    indices : which scenes; default: the first six.
    modalities : the rows, from the top.
    titles : one per column; default: the kind of room.
    tile : side of an image, pixels.
    """
    chosen = list(range(min(6, len(rooms)))) if indices is None else [int(i) for i in indices]
    some = rooms.take(chosen)
    heads = [kind.replace("_", " ") for kind in some.kinds] if titles is None else list(titles)
    absent = [m for m in modalities if m not in some.modalities]
    if absent:
        raise LabError(
            f"These rooms have no {' or '.join(absent)} images, only {', '.join(some.modalities)}."
        )
    return gallery({modality_style(m).short: (m, some.images[m]) for m in modalities}, heads, tile)


def gallery(rows: Mapping[str, tuple[str, torch.Tensor]], titles: Sequence[str], tile: float = 140) -> Figure:
    """Rows of images under shared column titles, with a ruler for depth when there is depth.

    Parameters
    ----------
    rows : row label -> (modality, images (N, C, H, W)), one N for all.
    titles : N column titles.
    tile : side of an image, pixels.
    """
    lengths = {label: len(images) for label, (_, images) in rows.items()}
    if set(lengths.values()) != {len(titles)}:
        raise LabError(f"Every row needs {len(titles)} images, one per title; they have {lengths}.")
    depths = [images for modality, images in rows.values() if modality == "depth"]
    reach = max((_reach(images) for images in depths), default=6000.0)
    heads = [title.replace(" ", "\n") if len(title) > tile / 9 else title for title in titles]
    columns, gap, left, top = len(titles), 6, 40, 52 if any("\n" in head for head in heads) else 34
    wide = left + columns * (tile + gap) + (110 if depths else 10)
    high = top + len(rows) * (tile + gap) + 8
    figure = new_figure(wide, high)
    for r, (label, (modality, images)) in enumerate(rows.items()):
        for c in range(columns):
            x, y = left + c * (tile + gap), high - top - (r + 1) * tile - r * gap
            ax = figure.add_axes((x / wide, y / high, tile / wide, tile / high))
            _tile(ax, paint(images[c], modality, reach), heads[c] if r == 0 else "")
            if c == 0:
                colour = modality_style(modality).colour
                ax.set_ylabel(label, fontsize=TEXT, color=colour, fontweight="bold", labelpad=6)
    if depths:
        _depth_ruler(figure, reach, (wide - 96) / wide, 8 / high, 16 / wide, (high - top - 8) / high)
    kinds = ", ".join(dict.fromkeys(titles))
    names = ", ".join(rows)
    describe(figure.axes[0], f"{len(rows)} rows of {columns} pictures ({names}); the columns: {kinds}.")
    return figure


def confusion_examples(
    images: torch.Tensor,
    modality: str,
    labels: ArrayLike,
    predictions: ArrayLike,
    classes: Sequence[str],
    most: int = 4,
    each: int = 6,
    tile: float = 104,
) -> Figure | None:
    """Images behind the commonest mistakes: a row per pair of classes, the first few images of each.

    Parameters
    ----------
    images : (N, C, H, W) of one modality.
    labels, predictions : (N,) class numbers.
    most, each : how many pairs of classes, and how many images of each, at most.
    tile : side of an image, pixels.

    Returns
    -------
    None when nothing is wrong.
    """
    truth, found = np.asarray(labels), np.asarray(predictions)
    wrong: dict[tuple[int, int], list[int]] = {}
    for i in np.flatnonzero(truth != found):
        wrong.setdefault((int(truth[i]), int(found[i])), []).append(int(i))
    worst = sorted(wrong.items(), key=lambda pair: -len(pair[1]))[:most]
    if not worst:
        return None
    reach = _reach(images) if modality == "depth" else 6000.0
    gap, head = 6, 30
    high, wide = len(worst) * (tile + head + gap), 10 + each * (tile + gap)
    figure, told = new_figure(wide, high), []
    for r, ((true, taken), rows) in enumerate(worst):
        of_all = int((truth == true).sum())
        words = f"{spaced(classes[true])} taken for {spaced(classes[taken])}: {len(rows)} of {of_all}"
        told.append(words)
        for c, row in enumerate(rows[:each]):
            y = high - (r + 1) * (tile + head + gap) + gap
            ax = figure.add_axes(((5 + c * (tile + gap)) / wide, y / high, tile / wide, tile / high))
            _tile(ax, paint(images[row], modality, reach))
            if c == 0:
                ax.set_title(words, fontsize=TEXT, color=INK, loc="left", pad=6)
    describe(figure.axes[0], f"Images of the commonest mistakes; {'; '.join(told)}.")
    return figure


def _tile(ax: Axes, pixels: NDArray[np.uint8], title: str = "") -> None:
    ax.imshow(pixels, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=TEXT, color=INK, pad=6)


def _depth_ruler(figure: Figure, reach: float, x: float, y: float, width: float, height: float) -> None:
    """Metres beside colours, and the colour of missing depth."""
    swatch = 0.07 * height
    ax = figure.add_axes((x, y + 2 * swatch, width, height - 2 * swatch))
    ramp = np.linspace(0, 1, 128)[:, None]
    ax.imshow(ramp, cmap=DEPTH_COLOURS, aspect="auto", extent=(0, 1, reach / 1000, 0))
    ax.set(xticks=[])
    ax.yaxis.tick_right()
    ax.tick_params(labelsize=TEXT, colors=SOFT, labelcolor=INK)
    ax.spines[:].set_visible(False)
    ax.yaxis.set_label_position("right")
    ax.set_ylabel("metres", fontsize=TEXT, color=INK)
    low = figure.add_axes((x, y, width, swatch), facecolor=MISSING, xticks=[], yticks=[])
    low.spines[:].set_visible(False)
    low.text(1.35, 0.5, "missing", fontsize=TEXT, color=INK, va="center", transform=low.transAxes)


def _reach(depth: torch.Tensor) -> float:
    """A round number of metres, in millimetres, that holds 99 % of the depths seen."""
    seen = np.asarray(depth)
    seen = seen[seen > 0]
    return 1000.0 * float(np.ceil(np.percentile(seen, 99) / 1000)) if seen.size else 6000.0


# ------------------------------------------------------------------------ numbers


def curves(
    series: Mapping[str, tuple[ArrayLike, ...]],
    ax: Axes | None = None,
    *,
    title: str = "",
    xlabel: str = "epoch",
    ylabel: str = "accuracy",
    ylim: tuple[float, float] | None = (0.0, 1.0),
    levels: Mapping[str, float] | None = None,
    styles: Mapping[str, Style] | None = None,
) -> Axes:
    """Lines over time, each named at its end; no legend to look up.

    Parameters
    ----------
    series : name -> (x, y), or (x, y, low, high) with the ends of an interval.
    levels : name -> a height to compare with, a dotted line (chance, source only, oracle).
    styles : name -> style, where the name is not a method or a modality.
    """
    ax = own_axes(ax, 760, 400)
    dress(ax, title, xlabel, ylabel)
    ends: list[tuple[float, str, Any]] = []
    told = []
    for i, (name, parts) in enumerate(series.items()):
        style = (styles or {}).get(name) or known_style(name, i)
        x, y, *band = (np.asarray(part, float) for part in parts)
        if band:
            ax.fill_between(x, band[0], band[1], color=style.colour, alpha=0.18, linewidth=0)
        marker = style.marker if len(x) <= 25 else ""
        ax.plot(x, y, style.line, color=style.colour, linewidth=2.2, marker=marker, markersize=6)
        if len(y):
            ends.append((float(y[-1]), style.title, style.colour))
            told.append(f"{name} from {y[0]:.2f} to {y[-1]:.2f}")
    for name, level in (levels or {}).items():
        ax.axhline(level, color=SOFT, linewidth=1.2, linestyle=DOTTED)
        ends.append((level, name, SOFT))
        told.append(f"{name} at {level:.2f}")
    if ylim is not None:
        ax.set_ylim(*ylim)
    places = [np.asarray(x, float) for x, *_ in series.values() if np.size(x)]
    if places:  # the last points stand whole within the frame, close to their names
        first, last = min(x.min() for x in places), max(x.max() for x in places)
        ax.set_xlim(first - 0.05 * (last - first or 1), last + 0.025 * (last - first or 1))
    name_ends(ax, ends)
    return describe(ax, f"Curves of {ylabel} over {xlabel}: {'; '.join(told) or 'none yet'}.")


def training_curves(
    losses: Mapping[str, tuple[ArrayLike, ArrayLike]],
    accuracies: Mapping[str, tuple[ArrayLike, ArrayLike]],
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Terms of the loss (`loss_terms`), and target accuracy over epochs (`curves`) beside them."""
    figure = new_figure(1180, 400)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    columns = max(len(losses) if len(losses) < 3 else -(-len(losses) // 2), 1)
    halves: Any = figure.subfigures(1, 2, width_ratios=[columns, 0.75 * columns + 0.4])
    loss_terms(halves[0], losses, columns)
    ax = halves[1].subplots()
    curves(accuracies, ax, title="target accuracy", ylabel="share right", levels=levels)
    ax.locator_params(axis="x", integer=True)  # there is no half epoch
    return figure


def loss_terms(
    figure: Figure | SubFigure,
    losses: Mapping[str, tuple[ArrayLike, ArrayLike]],
    columns: int = 2,
    xlabel: str = "epoch",
    smooth: float = 0.0,
    marks: Sequence[float] = (),
) -> None:
    """Every term of a loss in axes and units of its own, drawn into a figure.

    Parameters
    ----------
    losses : term ("TI", "IM", …) -> (x, values); NaN leaves a gap.
    smooth : weight of the past, in [0, 1), in a running mean that is drawn over the pale values.
    marks : places of dotted lines, where something was changed.
    """
    rows = max(-(-len(losses) // columns), 1)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(losses) :]:
        ax.set_axis_off()
    most = max([1.0, *(np.max(x) for x, _ in losses.values() if np.size(x))])
    for i, (name, (x, y)) in enumerate(losses.items()):
        style, ax, values = TERMS.get(name) or known_style(name, i), axes.flat[i], np.asarray(y, float)
        dress(ax, xlabel=xlabel if i >= len(losses) - columns else "")
        ax.set_title(style.title, fontsize=TEXT, color=INK, loc="left")
        few = "o" if len(values) <= 25 and not smooth else ""
        thin = {"alpha": 0.3, "linewidth": 1.0} if smooth else {}
        ax.plot(x, values, style.line, color=style.colour, marker=few, markersize=5, **thin)
        if smooth:
            ax.plot(x, running_mean(values, smooth), style.line, color=style.colour, linewidth=2.2)
        for mark in marks:
            ax.axvline(mark, color=SOFT, linewidth=1.2, linestyle=DOTTED)
        ax.margins(y=0.12)
        ax.set_xlim(-0.04 * most, 1.04 * most)
        ax.locator_params(nbins=4)
        ax.locator_params(axis="x", integer=True)
        ends = values[np.isfinite(values)]
        told = f"from {ends[0]:.3g} to {ends[-1]:.3g}" if len(ends) else "without values"
        describe(ax, f"{name} {told} over {len(values)} values.")


def channel_statistics(
    remembered: tuple[ArrayLike, ArrayLike],
    measured: Mapping[str, tuple[ArrayLike, ArrayLike]],
    title: str = "",
    figure: Figure | SubFigure | None = None,
    styles: Mapping[str, Style] | None = None,
) -> Figure | SubFigure:
    """Running statistics of a batch-norm layer against measured ones: a dot per channel.

    Parameters
    ----------
    remembered : running mean and variance of the source's layer, (C,) each.
    measured : modality -> mean and variance of the layer's input on a batch, (C,) each.
    figure : to draw into; by default a new one.
    styles : name -> style, where a name is not a modality.
    """
    looks = {name: (styles or {}).get(name) or modality_style(name) for name in measured}
    if figure is None:
        figure = new_figure(960, 400)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    for k, (ax, name) in enumerate(zip(figure.subplots(1, 2), ("mean", "standard deviation"), strict=True)):
        power = 0.5 if k else 1.0  # of the variance, its root
        known = np.asarray(remembered[k], float) ** power
        found = {m: np.asarray(pair[k], float) ** power for m, pair in measured.items()}
        head = f"{title}: {name}" if title else name
        dress(ax, head, f"remembered {name}", f"measured {name}", grid="both")
        everything = np.concatenate([known, *found.values()])
        ends = [everything.min(), everything.max()]
        ax.plot(ends, ends, color=SOFT, linewidth=1.2, linestyle=DOTTED)
        for modality, values in found.items():
            style = looks[modality]
            ax.scatter(known, values, s=44, color=style.colour, marker=style.marker, alpha=0.85,
                       edgecolors="white", linewidths=0.5, label=style.title)  # fmt: skip
        far = {looks[m].title: np.abs(values - known).mean() for m, values in found.items()}
        told = ", ".join(f"{name} {distance:.2f}" for name, distance in far.items())
        describe(ax, f"Measured against remembered {name} of each channel; mean distance from the diagonal: "
                     f"{told}.")  # fmt: skip
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=TEXT, labelcolor=INK,
                  handletextpad=0.2)  # fmt: skip
    return figure


def confusion_matrix(
    counts: ArrayLike, classes: Sequence[str], ax: Axes | None = None, *, title: str = "", shares: bool = True
) -> Axes:
    """Which class is taken for which: a row per true class, percent of that row in each cell.

    Parameters
    ----------
    counts : (K, K) whole numbers; row = true class, column = prediction.
    classes : K names.
    shares : write percent of the row; otherwise counts.
    """
    table = np.asarray(counts)
    if table.shape != (len(classes), len(classes)):
        raise LabError(
            f"The table has shape {table.shape}; {len(classes)} classes need {(len(classes),) * 2}."
        )
    ax = own_axes(ax, max(620, 200 + 34 * len(classes)), max(560, 140 + 34 * len(classes)))
    share = row_shares(table)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    matrix_frame(ax, classes, title)
    for i, j in np.argwhere(table).tolist():
        text = f"{100 * share[i, j]:.0f}" if shares else f"{table[i, j]}"
        colour = "white" if share[i, j] > 0.55 else INK
        cell = ax.text(j, i, text, ha="center", va="center", fontsize=TEXT, color=colour)
        cell.set_in_layout(False)  # within the axes: the layout need not measure it
    return describe(ax, matrix_in_words(table, classes))


def matrix_frame(ax: Axes, classes: Sequence[str], title: str = "") -> Axes:
    """Names along both sides of a confusion matrix."""
    dress(ax, title, "prediction", "true class", grid="")
    names = [spaced(name) for name in classes]
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="minor", length=0)
    return ax


def row_shares(counts: ArrayLike) -> NDArray[np.float64]:
    """Each row of counts divided by its sum; empty rows stay 0."""
    table = np.asarray(counts, float)
    return table / np.maximum(table.sum(axis=1, keepdims=True), 1)


def matrix_in_words(counts: ArrayLike, classes: Sequence[str]) -> str:
    """Overall accuracy, the best and the worst class, and the commonest mistake."""
    table = np.asarray(counts)
    names = [spaced(name) for name in classes]
    total = int(table.sum())
    if not total:
        return "Confusion matrix without images."
    recall = np.diag(row_shares(table))
    wrong = table - np.diag(np.diag(table))
    i, j = divmod(int(wrong.argmax()), len(wrong))
    best, worst = int(recall.argmax()), int(recall.argmin())
    mistake = (
        f"; commonest mistake: {names[i]} taken for {names[j]} ({wrong[i, j]} times)" if wrong.any() else ""
    )
    return (
        f"Confusion matrix of {total} images, {100 * np.trace(table) / total:.0f} % right; "
        f"best class {names[best]} ({100 * recall[best]:.0f} %), "
        f"worst {names[worst]} ({100 * recall[worst]:.0f} %){mistake}."
    )


def accuracy_bars(
    groups: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    title: str = "",
    xlabel: str = "accuracy on held-out target images",
    styles: Mapping[str, Style] | None = None,
    chance: float | None = None,
) -> Axes:
    """One horizontal bar per name: the mean, and a dot for every single run.

    Parameters
    ----------
    groups : name -> one accuracy or several (seeds), each in [0, 1]; drawn from the top in this order.
    chance : accuracy of guessing, a dotted line.
    """
    ax = own_axes(ax, 760, 90 + 44 * max(len(groups), 1))
    dress(ax, title, xlabel, "", grid="x")
    near: dict[str, Any] = {"textcoords": "offset points", "fontsize": TEXT}
    chosen = {name: (styles or {}).get(name) or known_style(name, row) for row, name in enumerate(groups)}
    means = {name: float(np.mean(np.asarray(values, float))) for name, values in groups.items()}
    for row, (name, values) in enumerate(groups.items()):
        dots = np.atleast_1d(np.asarray(values, float))
        ax.barh(row, means[name], height=0.62, color=chosen[name].colour, alpha=0.9)
        if len(dots) > 1:
            spread = row + np.linspace(-0.14, 0.14, len(dots))
            ax.scatter(dots, spread, s=26, color="white", edgecolor=INK, linewidth=1.0, zorder=3)
        end = (max(means[name], dots.max()), row)
        ax.annotate(f"{100 * means[name]:.0f} %", end, (7, 0), **near, va="center", color=INK)
    ax.set_yticks(range(len(groups)), [style.title for style in chosen.values()])
    ax.set(ylim=(len(groups) - 0.5, -0.6), xlim=(0, 1.08), xticks=np.linspace(0, 1, 6))
    ax.set_xticklabels([f"{100 * x:.0f} %" for x in np.linspace(0, 1, 6)])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if chance is not None:
        if title:
            ax.set_title(title, color=INK, fontsize=TEXT + 1, loc="left", fontweight="bold", pad=24)
        ax.axvline(chance, color=SOFT, linewidth=1.4, linestyle=DOTTED)
        ax.annotate("chance", (chance, 1), (0, 2), xycoords=("data", "axes fraction"), **near, ha="center",
                    va="bottom", color=SOFT)  # fmt: skip
    told = ", ".join(f"{name} {100 * mean:.0f} %" for name, mean in means.items())
    return describe(ax, f"Bars of {xlabel}: {told or 'none yet'}.")
