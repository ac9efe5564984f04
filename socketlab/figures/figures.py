"""The pictures of the course, and all that `style` and `map_figures` offer to whoever draws.

Each function draws into the axes given, or makes a figure of its own that no window or notebook grabs, and
returns it; `show` puts it into a notebook together with its description.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError, require_choice
from socketlab.figures import style
from socketlab.figures.map_figures import Cloud, feature_map  # noqa: F401 (notebooks find all here)
from socketlab.figures.style import METHODS, MODALITIES, TERMS, show  # noqa: F401
from socketlab.images.paired_images import PairedImages

Lines = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""Name → x and y."""
GAP = 0.05  # between images, in parts of their width


def paint(image: ArrayLike, modality: str, reach_mm: float = 6000.0) -> NDArray[np.uint8]:
    """One stored image in colours for the eye, (H, W, 3) uint8.

    Parameters
    ----------
    image : (3, H, W) or (1, H, W); uint8, or uint16 millimetres for depth.
    modality : "rgb", "nir" or "depth"; any other is a `LabError`.
    reach_mm : the far end of the depth colours. Near is bright; missing depth is pink, as no depth is.
    """
    pixels = np.asarray(image)
    require_choice("modality", modality, ("rgb", "nir", "depth"))
    if modality == "rgb":
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if modality == "nir":
        return np.repeat(pixels[0][..., None], 3, axis=2)
    ramp = matplotlib.colormaps[style.DEPTH_COLOURS]
    colours = ramp(np.clip(pixels[0] / reach_mm, 0, 1), bytes=True)[..., :3]
    colours[pixels[0] == 0] = np.round(np.array(matplotlib.colors.to_rgb(style.MISSING)) * 255)
    return colours


def triptych(
    rooms: PairedImages, indices: Sequence[int] | None = None,
    modalities: Sequence[str] = ("rgb", "nir", "depth"), tile: float = 140,
) -> Figure:  # fmt: skip
    """A column per room (default: the first six), a row per modality; images of `tile` pixels."""
    some = rooms.take(range(min(6, len(rooms))) if indices is None else [int(i) for i in indices])
    if absent := [m for m in modalities if m not in some.modalities]:
        raise LabError(f"There are no {' or '.join(absent)} images, only {', '.join(some.modalities)}.")
    rows = {style.modality_style(m).short: (m, some.images[m]) for m in modalities}
    return gallery(rows, [style.spaced(kind) for kind in some.kinds], tile)


def gallery(rows: Mapping[str, tuple[str, torch.Tensor]], titles: Sequence[str], tile: float = 140) -> Figure:
    """Rows of images (N, C, H, W) under N column titles, `tile` pixels wide; a ruler where there is depth."""
    lengths = {label: len(images) for label, (_, images) in rows.items()}
    if set(lengths.values()) != {len(titles)}:
        raise LabError(f"Every row needs {len(titles)} images, one per title; they have {lengths}.")
    depths = [images for modality, images in rows.values() if modality == "depth"]
    reach = max((reach_of(images) for images in depths), default=6000.0)
    heads = [title.replace(" ", "\n") if len(title) > tile / 9 else title for title in titles]
    top = 52 if any("\n" in head for head in heads) else 34
    width, height = (tile * (n + GAP * (n - 1)) for n in (len(titles), len(rows)))
    wide, high = width + (156 if depths else 56), height + top + 8
    ax = style.new_figure(wide, high).add_axes((40 / wide, 8 / high, width / wide, height / high))
    tiles(ax, {label: [paint(x, m, reach) for x in images] for label, (m, images) in rows.items()}, heads)
    for label, (modality, _) in zip(ax.get_yticklabels(), rows.values(), strict=True):
        label.set(color=style.modality_style(modality).colour, fontweight="bold", rotation=90, va="center")
    if depths:
        _depth_ruler(ax, reach, 16 / width)
    names, kinds = ", ".join(rows), ", ".join(dict.fromkeys(titles))
    style.describe(ax, f"{len(rows)} rows of {len(titles)} pictures ({names}); the columns: {kinds}.")
    return style.figure_of(ax)


def tiles(ax: Axes, rows: Mapping[str, Sequence[NDArray[np.uint8]]], titles: Sequence[str]) -> Axes:
    """Images (H, W, 3) of one shape, a row per name, under column titles, all in one axes."""
    tall, wide = next(iter(rows.values()))[0].shape[:2]
    across, down = 1 + GAP, tall / wide + GAP
    for r, images in enumerate(rows.values()):
        for c, image in enumerate(images):
            ends = (c * across, c * across + 1, (r + 1) * down - GAP, r * down)
            ax.imshow(image, extent=ends, interpolation="nearest")
    ax.set(xlim=(0, len(titles) * across - GAP), ylim=(len(rows) * down - GAP, 0))
    ax.set_xticks(np.arange(len(titles)) * across + 0.5, titles)
    ax.set_yticks(np.arange(len(rows)) * down + (down - GAP) / 2, list(rows))
    ax.tick_params(length=0, labeltop=True, labelbottom=False, labelsize=style.TEXT, labelcolor=style.INK)
    ax.spines[:].set_visible(False)
    return ax


def confusion_examples(
    images: torch.Tensor, modality: str, labels: ArrayLike, predictions: ArrayLike, classes: Sequence[str]
) -> Figure | None:
    """Six images, of (N, C, H, W), behind each of the four commonest mistakes; None when nothing is wrong."""
    truth, found = np.asarray(labels), np.asarray(predictions)
    wrong = truth != found
    worst = Counter(zip(truth[wrong].tolist(), found[wrong].tolist(), strict=True)).most_common(4)
    if not worst:
        return None
    reach = reach_of(images) if modality == "depth" else 6000.0
    tile, each, told = 104, 6, []
    wide, high = 10 + each * (tile + 6), len(worst) * (tile + 36)
    figure = style.new_figure(wide, high)
    for r, ((true, taken), count) in enumerate(worst):
        rows = np.flatnonzero((truth == true) & (found == taken))[:each]
        width, bottom = tile * (len(rows) + GAP * (len(rows) - 1)), high - (r + 1) * (tile + 36) + 6
        ax = figure.add_axes((5 / wide, bottom / high, width / wide, tile / high))
        tiles(ax, {"": [paint(images[row], modality, reach) for row in rows.tolist()]}, [""] * len(rows))
        which = f"{style.spaced(classes[true])} taken for {style.spaced(classes[taken])}"
        told.append(f"{which}: {count} of {(truth == true).sum()}")
        ax.set_title(told[-1], **style.WORDS, loc="left", pad=6, wrap=True)
    style.describe(figure.axes[0], f"Images of the commonest mistakes; {'; '.join(told)}.")
    return figure


def _depth_ruler(ax: Axes, reach: float, width: float) -> None:
    """Metres beside colours, and the colour of missing depth."""
    low = max(0.14, 28 / ax.bbox.height)  # room for two words above each other
    ruler = ax.inset_axes((1 + width, low, width, 1 - low))
    ramp = np.linspace(0, 1, 128)[:, None]
    ruler.imshow(ramp, cmap=style.DEPTH_COLOURS, aspect="auto", extent=(0, 1, reach / 1000, 0))
    ruler.yaxis.tick_right()
    ruler.yaxis.set_label_position("right")
    ruler.tick_params(labelsize=style.TEXT, colors=style.SOFT, labelcolor=style.INK)
    ruler.set_ylabel("metres", **style.WORDS)
    patch = ax.inset_axes((1 + width, 0, width, 0.07), facecolor=style.MISSING, yticks=[])
    patch.text(1.35, 0.5, "missing", **style.WORDS, va="center", transform=patch.transAxes)
    for part in (ruler, patch):
        part.set_xticks([])
        part.spines[:].set_visible(False)


def reach_of(depth: torch.Tensor) -> float:
    """A round number of metres, in millimetres, that holds 99 % of the depths seen."""
    seen = np.asarray(depth)
    seen = seen[seen > 0]
    return 1000.0 * float(np.ceil(np.percentile(seen, 99) / 1000)) if seen.size else 6000.0


def curves(
    series: Mapping[str, tuple[ArrayLike, ...]], ax: Axes | None = None, *, title: str = "",
    xlabel: str = "epoch", ylabel: str = "accuracy", ylim: tuple[float, float] | None = (0.0, 1.0),
    levels: Mapping[str, float] | None = None, styles: Mapping[str, style.Style] | None = None,
) -> Axes:  # fmt: skip
    """Lines over time, each named at its end; on a logarithmic axis, by a legend.

    Parameters
    ----------
    series : name -> (x, y), or (x, y, low, high) with the ends of an interval.
    ylim : None follows the data: an unbiased measure of a gap may be negative, and is drawn as it is.
    levels : name -> a height to compare with, a dotted line (chance, source only, oracle).
    styles : name -> style, where the name is not a method or a modality.
    """
    drawn = {name: [np.asarray(part, float) for part in parts] for name, parts in series.items()}
    for name, parts in drawn.items():
        lengths = [len(part) for part in parts]
        if len(parts) not in (2, 4) or len(set(lengths)) != 1:
            what = f"{len(parts)} parts of lengths {lengths}"
            raise LabError(f"{name!r} needs (x, y) or (x, y, low, high) of one length, not {what}.")
    ax = style.dress(style.own_axes(ax, 760, 400), title, xlabel, ylabel)
    ends: list[tuple[float, str, Any]] = []
    told = []
    for i, (name, (x, y, *band)) in enumerate(drawn.items()):
        look = style.known_style(name, i, styles)
        if band:
            low, high = band
            ax.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)
        marker = look.marker if len(x) <= 25 else ""
        (line,) = ax.plot(x, y, look.line, color=look.colour, linewidth=2.2, marker=marker, markersize=6)
        if np.isfinite(y).any():
            line.set_label(look.title)
            ends.append((float(y[np.isfinite(y)][-1]), look.title, look.colour))
            told.append(f"{name} from {y[0]:.2f} to {y[-1]:.2f}")
    for name, level in (levels or {}).items():
        ax.axhline(level, **style.DOTTED)
        ends.append((level, name, style.SOFT))
        told.append(f"{name} at {level:.2f}")
    if ylim is not None:
        ax.set_ylim(*ylim)
    if xlabel in ("epoch", "step"):  # there is no half epoch
        ax.locator_params(axis="x", integer=True)
    places = np.concatenate([[], *(x for x, *_ in drawn.values())])
    places = places if len(places) else np.array([0.0, 1.0])
    width = np.ptp(places) or 1.0  # the last points stand whole within the frame, close to their names
    ax.set_xlim(places.min() - 0.05 * width, places.max() + 0.025 * width)
    if ax.get_yscale() == "log":  # where heights are no distances, names beside the ends would be misplaced
        wide = style.figure_of(ax).get_figwidth() > 4.7
        (ax if wide else ax.figure).legend(**style.BESIDE if wide else style.BELOW | {"ncols": 2})
    else:
        style.name_ends(ax, ends)
    return style.describe(ax, f"Curves of {ylabel} over {xlabel}: {'; '.join(told) or 'none yet'}.")


def training_curves(losses: Lines, accuracies: Lines, levels: Mapping[str, float] | None = None) -> Figure:
    """Terms of the loss (`loss_terms`), and target accuracy over epochs (`curves`) beside them."""
    figure = style.new_figure(1180, 400, fitted=True)
    columns = max(len(losses) if len(losses) < 3 else -(-len(losses) // 2), 1)
    halves: Any = figure.subfigures(1, 2, width_ratios=[columns, 0.75 * columns + 0.4])
    loss_terms(halves[0], losses, columns)
    curves(accuracies, halves[1].subplots(), title="target accuracy", ylabel="share right", levels=levels)
    return figure


def loss_terms(
    figure: Figure | SubFigure, losses: Lines, columns: int = 2, xlabel: str = "epoch", smooth: float = 0.0,
    marks: Sequence[float] = (),
) -> None:  # fmt: skip
    """Every term of a loss ("TI", "IM", …) in axes and units of its own; NaN leaves a gap.

    Parameters
    ----------
    smooth : weight of the past, in [0, 1), in a moving average that is drawn over the pale values.
    marks : places of dotted lines, where something was changed.
    """
    axes: Any = figure.subplots(max(-(-len(losses) // columns), 1), columns, squeeze=False)
    for ax in axes.flat[len(losses) :]:
        ax.set_axis_off()
    most = max([1.0, *(np.max(x) for x, _ in losses.values() if np.size(x))])
    for i, (name, (x, y)) in enumerate(losses.items()):
        look, ax, values = style.known_style(name, i, style.TERMS), axes.flat[i], np.asarray(y, float)
        style.dress(ax, xlabel=xlabel if i >= len(losses) - columns else "")
        title = look.title.replace(" ", "\n", int(figure.bbox.width < 4.2 * figure.dpi))  # narrow: two lines
        ax.set_title(title, **style.WORDS, loc="left", wrap=True)
        few = "o" if len(values) <= 25 and not smooth else ""
        thin = {"alpha": 0.3, "linewidth": 1.0} if smooth else {}
        ax.plot(x, values, look.line, color=look.colour, marker=few, markersize=5, **thin)
        if smooth:
            import pandas as pd

            mean = pd.Series(values).ewm(alpha=1 - smooth, ignore_na=True).mean()
            ax.plot(x, mean, look.line, color=look.colour, linewidth=2.2)
        for mark in marks:
            ax.axvline(mark, **style.DOTTED)
        ax.margins(y=0.12)
        ax.set_xlim(-0.04 * most, 1.04 * most)
        ax.locator_params(nbins=4)
        ax.locator_params(axis="x", integer=True)
        ends = values[np.isfinite(values)]
        told = f"from {ends[0]:.3g} to {ends[-1]:.3g}" if len(ends) else "without values"
        style.describe(ax, f"{name} {told} over {len(values)} values.")


def channel_statistics(
    remembered: tuple[ArrayLike, ArrayLike], measured: Lines, title: str = "",
    figure: Figure | SubFigure | None = None, styles: Mapping[str, style.Style] | None = None,
) -> Figure | SubFigure:  # fmt: skip
    """Running statistics of a batch-norm layer against measured ones: a dot per channel.

    Parameters
    ----------
    remembered : running mean and variance of the source's layer, (C,) each.
    measured : modality -> mean and variance of the layer's input on a batch, (C,) each.
    styles : name -> style, where a name is not a modality.
    """
    looks = {name: (styles or {}).get(name) or style.modality_style(name) for name in measured}
    figure = figure or style.new_figure(960, 400, fitted=True)
    for k, (ax, name) in enumerate(zip(figure.subplots(1, 2), ("mean", "standard deviation"), strict=True)):
        power = 0.5 if k else 1.0  # of the variance, its root
        known = np.asarray(remembered[k], float) ** power
        found = {m: np.asarray(pair[k], float) ** power for m, pair in measured.items()}
        style.dress(ax, name, "remembered", "" if k else "measured", grid="both")
        ends = [f([known, *found.values()]) for f in (np.min, np.max)]
        ax.plot(ends, ends, **style.DOTTED)
        for m, look in looks.items():
            ax.scatter(known, found[m], s=44, color=look.colour, marker=look.marker, alpha=0.85,
                       edgecolors="white", linewidths=0.5, label=look.title)  # fmt: skip
        told = ", ".join(f"{looks[m].title} {np.abs(found[m] - known).mean():.2f}" for m in looks)
        about = f"Measured against remembered {name} of each channel; mean distance from the diagonal: "
        style.describe(ax, f"{about}{told}.")
    if title:
        figure.suptitle(title, fontsize=style.TEXT + 1, fontweight="bold", color=style.INK, parse_math=False)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), ncols=len(measured), **style.BELOW)
    return figure


def cells(
    ax: Axes, values: NDArray[Any], texts: ArrayLike | bool, rows: Sequence[str], columns: Sequence[str]
) -> Collection:
    """Numbers in [0, 1] as blue cells with texts on them, names along both sides."""
    import seaborn  # half a second

    style.plain_text(style.figure_of(ax))  # seaborn draws the figure
    about: dict[str, Any] = {"cmap": "Blues", "vmin": 0, "vmax": 1, "linewidths": 1.2, "linecolor": "white"}
    # texts are within the axes: the layout need not measure them
    about |= {"annot": texts, "fmt": "", "annot_kws": {"fontsize": style.TEXT, "in_layout": False}}
    seaborn.heatmap(values, ax=ax, cbar=False, **about)
    ax.set_xticks(np.arange(len(columns)) + 0.5, columns, **style.LEAN | {"rotation": 50})
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0)
    ax.tick_params(length=0)
    return ax.collections[0]


def confusion_matrix(
    counts: ArrayLike, classes: Sequence[str], ax: Axes | None = None, *, title: str = ""
) -> Axes:
    """Which class is taken for which: (K, K) counts, a row per true class, percent of it in each cell."""
    table, size = np.asarray(counts), len(classes)
    if table.shape != (size, size):
        raise LabError(f"The table has shape {table.shape}; {size} classes need {(size, size)}.")
    ax = style.own_axes(ax, max(620, 200 + 34 * size), max(560, 140 + 34 * size))
    names = [style.spaced(name) for name in classes]
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    texts = np.where(table == 0, "", np.round(100 * share).astype(int).astype(str))
    style.dress(ax, title, "prediction", "true class", grid="").set_aspect("equal")
    cells(ax, share, texts, names, names)
    return style.describe(ax, _matrix_in_words(table, np.diag(share), names))


def _matrix_in_words(table: NDArray[Any], recall: NDArray[np.float64], names: Sequence[str]) -> str:
    """Overall accuracy, the best and the worst class, and the commonest mistake."""
    total, right = int(table.sum()), int(table.trace())
    if not total:
        return "Confusion matrix without images."
    ends = (int(recall.argmax()), int(recall.argmin()))
    best, worst = (f"{names[k]} ({100 * recall[k]:.0f} %)" for k in ends)
    words = f"Confusion matrix of {total} images, {100 * right / total:.0f} % right; "
    words += f"best class {best}, worst {worst}"
    if right < total:
        wrong = table - np.diag(np.diag(table))
        i, j = divmod(int(wrong.argmax()), len(wrong))
        words += f"; commonest mistake: {names[i]} taken for {names[j]} ({wrong[i, j]} times)"
    return f"{words}."


def accuracy_bars(
    groups: Mapping[str, ArrayLike], ax: Axes | None = None, *, title: str = "",
    xlabel: str = "accuracy on held-out target images", styles: Mapping[str, style.Style] | None = None,
    chance: float | None = None,
) -> Axes:  # fmt: skip
    """One horizontal bar per name: the mean, and a dot for every single run.

    Accuracies lie in [0, 1], one or several (seeds) per name; that of chance is a dotted line.
    """
    ax = style.own_axes(ax, 760, 90 + 44 * max(len(groups), 1))
    style.dress(ax, title, xlabel, grid="x", pad=9 if chance is None else 24)
    near: dict[str, Any] = {"textcoords": "offset points", "fontsize": style.TEXT}
    chosen = {name: style.known_style(name, row, styles) for row, name in enumerate(groups)}
    told = []
    for row, (name, values) in enumerate(groups.items()):
        dots = np.atleast_1d(np.asarray(values, float))
        share = f"{100 * dots.mean():.0f} %"
        ax.barh(row, dots.mean(), height=0.62, color=chosen[name].colour, alpha=0.9)
        if len(dots) > 1:
            spread = row + np.linspace(-0.14, 0.14, len(dots))
            ax.scatter(dots, spread, s=26, color="white", edgecolor=style.INK, linewidth=1.0, zorder=3)
        ax.annotate(share, (dots.max(), row), (7, 0), **near, va="center", color=style.INK)
        told.append(f"{name} {share}")
    ax.set_yticks(range(len(groups)), [look.title for look in chosen.values()])
    ax.set(ylim=(len(groups) - 0.5, -0.6), xlim=(0, 1.08))
    ax.set_xticks(np.linspace(0, 1, 6), [f"{x} %" for x in range(0, 101, 20)])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if chance is not None:
        ax.axvline(chance, **style.DOTTED)
        ax.annotate("chance", (chance, 1), (0, 2), xycoords=("data", "axes fraction"), **near, ha="center",
                    va="bottom", color=style.SOFT)  # fmt: skip
    return style.describe(ax, f"Bars of {xlabel}: {', '.join(told) or 'none yet'}.")
