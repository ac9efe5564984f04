"""Pictures: axes in, axes out, one look for the whole course.

A modality has one colour, one marker and one line style everywhere; a class has one colour of `petroff10`,
the palette that stays apart best under colour-vision deficiencies. Text is at least 12 pt at the size shown,
the background is opaque, and every picture carries a description in words: `alt_text(ax)`.

Every function draws into the axes given, or makes a figure of its own that no window or notebook grabs;
`show` puts it into a notebook together with its description.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError
from socketlab.images.paired_images import PairedImages

INK, SOFT, GRID, PALE = "#24292f", "#57606a", "#dde1e6", "#b9c0c8"
DPI = 100
TEXT = 12.0  # points; 12 is what the last row of a class can read
_PETROFF = matplotlib.color_sequences["petroff10"]
CLASS_COLOURS: tuple[Any, ...] = tuple(_PETROFF[i] for i in (0, 1, 2, 4, 5, 6, 7, 9, 3, 8))  # its greys last
MISSING = "#ff70ff"  # whatever kind of cone is missing, none of `DEPTH_COLOURS` looks like it
DEPTH_COLOURS = "viridis_r"


@dataclass(frozen=True)
class Style:
    """How a modality is drawn wherever it appears; points without a class are `pale`, a grey of its own."""

    title: str
    colour: str
    marker: str
    line: str
    dark: str = INK
    brief: str = ""
    pale: str = PALE

    @property
    def short(self) -> str:
        """The title, or its abbreviation where it has one."""
        return self.brief or self.title


MODALITIES = {
    "rgb": Style("RGB", "#c2410c", "o", "-", "#6b2205", pale="#99918a"),
    "nir": Style("near-infrared", "#7e3ff2", "s", "-.", "#43189c", "NIR", "#9490a3"),
    "depth": Style("depth", "#159ab3", "^", "--", "#064450", pale="#8aa1a8"),
}
METHODS = {
    "source-only": Style("source only", "#8a939d", "o", ":"),
    "adabn": Style("AdaBN", "#b8860b", "s", "-."),
    "shot": Style("SHOT", "#7e3ff2", "D", "--"),
    "socket": Style("SOCKET", "#0b6bcb", "o", "-"),
    "oracle": Style("oracle", "#24292f", "*", "-"),
    "batch": Style("batch statistics", "#a96b59", "v", ":"),
    "tent": Style("TENT", "#be185d", "^", "-."),
    "shot-im": Style("SHOT-IM", "#b9a3e8", "d", "--"),
    "aad": Style("AaD", "#4d7c0f", "P", "--"),
    "paper": Style("SOCKET as published", "#7fb2e5", "X", "-"),
}
TERMS = {
    "TI": Style("$L_{TI}$ paired alignment", "#0b6bcb", "", "-"),
    "BN": Style("$L_{BN}$ statistics", "#b8860b", "", "-"),
    "PL": Style("$L_{PL}$ pseudo-labels", "#be185d", "", "-"),
    "IM": Style("$L_{IM}$ information", "#4d7c0f", "", "-"),
    "H": Style("$L_{H}$ entropy", "#8c3d10", "", "-"),
    "AaD": Style("$L_{AaD}$ neighbours", "#159ab3", "", "-"),
}
_others: dict[str, Style] = {}  # styles of modalities that the course does not know, as they come
_alt: WeakKeyDictionary[Figure, dict[int, str]] = WeakKeyDictionary()


# ------------------------------------------------------------------------ paper and ink


def new_figure(width: float, height: float, dpi: float = DPI) -> Figure:
    """An empty opaque figure off the screen; width and height in pixels at 100 dpi."""
    figure = Figure(figsize=(width / 100, height / 100), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress(ax: Axes, title: str = "", xlabel: str = "", ylabel: str = "", grid: str = "y") -> Axes:
    """Give axes the look of the kit: quiet frame, 12 pt text, pale grid along "x", "y", "both" or ""."""
    ax.set_facecolor("white")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(PALE)
    ax.tick_params(colors=SOFT, labelcolor=INK, labelsize=TEXT, length=3)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    ax.set_xlabel(xlabel, color=INK, fontsize=TEXT)
    ax.set_ylabel(ylabel, color=INK, fontsize=TEXT)
    if title:
        ax.set_title(title, color=INK, fontsize=TEXT + 1, loc="left", fontweight="bold", pad=9)
    return ax


def describe(ax: Axes, text: str) -> Axes:
    """Attach a description in words to axes; `alt_text` gives it back."""
    _alt.setdefault(figure_of(ax), {})[id(ax)] = " ".join(text.split())
    return ax


def alt_text(picture: Axes | Figure) -> str:
    """The description of axes, or of all axes of a figure; empty when nobody wrote one."""
    if isinstance(picture, Figure):
        return " ".join(_alt.get(picture, {}).values())
    return _alt.get(figure_of(picture), {}).get(id(picture), "")


def png(picture: Axes | Figure, dpi: float = DPI) -> bytes:
    """The whole figure as an opaque PNG."""
    file = io.BytesIO()
    figure = picture if isinstance(picture, Figure) else figure_of(picture)
    figure.savefig(file, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def show(picture: Axes | Figure, dpi: float = 130) -> Any:
    """A picture for a notebook cell, with its description for those who do not see it.

    It is drawn a little finer than shown, so that it stays sharp on a projector.
    """
    from IPython.display import Image

    figure = picture if isinstance(picture, Figure) else figure_of(picture)
    width = round(figure.get_figwidth() * 100)
    return Image(data=png(figure, dpi), format="png", width=width, alt=alt_text(figure))


# ------------------------------------------------------------------------ the rooms


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
    rooms : images in at least the modalities asked for.
    indices : which scenes; the first six by default.
    modalities : the rows, from the top.
    titles : one per column; the kind of room by default.
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
    rows = {MODALITIES[m].short: (m, some.images[m]) for m in modalities}
    return gallery(rows, heads, tile)


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
            ax.imshow(paint(images[c], modality, reach), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if r == 0:
                ax.set_title(heads[c], fontsize=TEXT, color=INK, pad=6)
            if c == 0:
                ax.set_ylabel(label, fontsize=TEXT, color=_colour(modality), fontweight="bold", labelpad=6)
    if depths:
        _depth_ruler(figure, reach, (wide - 96) / wide, 8 / high, 16 / wide, (high - top - 8) / high)
    kinds = ", ".join(dict.fromkeys(titles))
    names = ", ".join(rows)
    describe(figure.axes[0], f"{len(rows)} rows of {columns} pictures ({names}); the columns: {kinds}.")
    return figure


def _depth_ruler(figure: Figure, reach: float, x: float, y: float, width: float, height: float) -> None:
    """Metres beside colours, and the colour of what the sensor missed."""
    swatch = 0.07 * height
    ax = figure.add_axes((x, y + 2 * swatch, width, height - 2 * swatch))
    ax.imshow(
        np.linspace(0, 1, 128)[:, None], cmap=DEPTH_COLOURS, aspect="auto", extent=(0, 1, reach / 1000, 0)
    )
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


def _colour(modality: str) -> str:
    return MODALITIES[modality].colour


# ------------------------------------------------------------------------ numbers


def curves(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
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
    series : name -> (x, y).
    levels : name -> a height to compare with, a dotted line (chance, source only, oracle).
    styles : name -> look, where the name is not a method or a modality.
    """
    ax = own_axes(ax, 760, 400)
    dress(ax, title, xlabel, ylabel)
    ends: list[tuple[float, str, Any]] = []
    last_x = max((float(np.asarray(x, float).max()) for x, _ in series.values() if np.size(x)), default=1.0)
    for i, (name, (x, y)) in enumerate(series.items()):
        look = (styles or {}).get(name) or known_style(name, i)
        x, y = np.asarray(x, float), np.asarray(y, float)
        few = len(x) <= 25
        ax.plot(
            x, y, look.line, color=look.colour, linewidth=2.2, marker=look.marker if few else "", markersize=6
        )
        if len(y):
            ends.append((float(y[-1]), look.title, look.colour))
    for name, level in (levels or {}).items():
        ax.axhline(level, color=SOFT, linewidth=1.2, linestyle=(0, (1, 2)))
        ends.append((level, name, SOFT))
    if ylim is not None:
        ax.set_ylim(*ylim)
    ax.set_xlim(right=last_x)
    name_ends(ax, ends)
    said = "; ".join(
        f"{name} from {np.asarray(y)[0]:.2f} to {np.asarray(y)[-1]:.2f}"
        for name, (_, y) in series.items()
        if np.size(y)
    )
    said += "".join(f"; {name} at {level:.2f}" for name, level in (levels or {}).items())
    return describe(ax, f"Curves of {ylabel} over {xlabel}: {said or 'none yet'}.")


def name_ends(ax: Axes, ends: list[tuple[float, str, Any]]) -> None:
    """Write each line's name beside its end, pushed apart so that no two overlap."""
    figure = figure_of(ax)
    height = ax.get_position().height * figure.get_figheight() * 72  # points
    low, high = ax.get_ylim()
    step = (TEXT * 1.25) / height * (high - low)
    ends = sorted(ends, key=lambda end: end[0])
    places = apart([max(value, low) for value, _, _ in ends], step)
    for place, (_, name, colour) in zip(places, ends, strict=True):
        ax.annotate(
            name,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=TEXT,
            annotation_clip=False,
        )


def apart(heights: Sequence[float], step: float, high: float = np.inf) -> list[float]:
    """Rising heights, moved up until they are a step apart, and down again where they end above `high`."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + step) if places else height)
    for i in reversed(range(len(places))):
        high = places[i] = min(places[i], high)
        high -= step
    return places


def channel_statistics(
    remembered: tuple[ArrayLike, ArrayLike],
    measured: Mapping[str, tuple[ArrayLike, ArrayLike]],
    title: str = "",
) -> Figure:
    """What a batch-norm layer remembers against what it measures: a dot per channel, equal on the diagonal.

    Parameters
    ----------
    remembered : running mean and variance of the source's layer, (C,) each.
    measured : modality -> mean and variance of the layer's input on a batch, (C,) each.
    """
    figure = new_figure(960, 400)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    ways = (
        ("mean", lambda pair: np.asarray(pair[0])),
        ("standard deviation", lambda p: np.sqrt(np.asarray(p[1]))),
    )
    for ax, (name, pick) in zip(figure.subplots(1, 2), ways, strict=True):
        dress(
            ax, f"{title}: {name}" if title else name, f"remembered {name}", f"measured {name}", grid="both"
        )
        ends = [
            float(extreme(pick(pair)))
            for pair in (remembered, *measured.values())
            for extreme in (np.min, np.max)
        ]
        ax.plot(
            [min(ends), max(ends)], [min(ends), max(ends)], color=SOFT, linewidth=1.2, linestyle=(0, (1, 2))
        )
        for modality, pair in measured.items():
            look = modality_style(modality)
            ax.scatter(
                pick(remembered),
                pick(pair),
                s=44,
                color=look.colour,
                marker=look.marker,
                alpha=0.85,
                edgecolors="white",
                linewidths=0.5,
                label=look.title,
            )
        far = {m: float(np.abs(pick(p) - pick(remembered)).mean()) for m, p in measured.items()}
        said = ", ".join(f"{modality_style(m).title} {d:.2f}" for m, d in far.items())
        describe(
            ax,
            f"Measured against remembered {name} of each channel; mean distance from the diagonal: {said}.",
        )
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside right center",
        frameon=False,
        fontsize=TEXT,
        labelcolor=INK,
        handletextpad=0.2,
    )
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
    ax = own_axes(ax, 620, 560)
    share = row_shares(table)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    matrix_frame(ax, classes, title)
    for i, j in np.ndindex(*table.shape):
        if table[i, j]:
            text = f"{100 * share[i, j]:.0f}" if shares else f"{table[i, j]}"
            ax.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=TEXT,
                color="white" if share[i, j] > 0.55 else INK,
            )
    return describe(ax, matrix_in_words(table, classes))


def matrix_frame(ax: Axes, classes: Sequence[str], title: str = "") -> Axes:
    """Names along both sides of a confusion matrix."""
    dress(ax, title, "prediction", "true class", grid="")
    names = [name.replace("_", " ") for name in classes]
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
    names = [name.replace("_", " ") for name in classes]
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
    for row, (name, values) in enumerate(groups.items()):
        look = (styles or {}).get(name) or known_style(name, row)
        dots = np.atleast_1d(np.asarray(values, float))
        mean = float(dots.mean())
        ax.barh(row, mean, height=0.62, color=look.colour, alpha=0.9)
        if len(dots) > 1:
            spread = row + np.linspace(-0.14, 0.14, len(dots))
            ax.scatter(dots, spread, s=26, color="white", edgecolor=INK, linewidth=1.0, zorder=3)
        ax.annotate(
            f"{100 * mean:.0f} %",
            (max(mean, dots.max()), row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=TEXT,
            color=INK,
        )
    titles = [((styles or {}).get(name) or known_style(name, 0)).title for name in groups]
    ax.set_yticks(range(len(titles)), titles)
    ax.set(ylim=(len(titles) - 0.5, -0.6), xlim=(0, 1.08), xticks=np.linspace(0, 1, 6))
    ax.set_xticklabels([f"{100 * x:.0f} %" for x in np.linspace(0, 1, 6)])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if chance is not None:
        if title:
            ax.set_title(title, color=INK, fontsize=TEXT + 1, loc="left", fontweight="bold", pad=24)
        ax.axvline(chance, color=SOFT, linewidth=1.4, linestyle=(0, (1, 2)))
        ax.annotate(
            "chance",
            (chance, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            ha="center",
            va="bottom",
            textcoords="offset points",
            fontsize=TEXT,
            color=SOFT,
        )
    said = ", ".join(
        f"{name} {100 * float(np.mean(np.asarray(values, float))):.0f} %" for name, values in groups.items()
    )
    return describe(ax, f"Bars of {xlabel}: {said or 'none yet'}.")


# ------------------------------------------------------------------------ the map


@dataclass(frozen=True)
class Cloud:
    """One set of points of a feature map.

    Parameters
    ----------
    points : (n, 2) positions.
    modality : decides the marker.
    title : name in the legend.
    labels : (n,) whole numbers, the class of each point; None when the points have no class of the task.
    """

    points: NDArray[np.float32]
    modality: str
    title: str
    labels: NDArray[np.int64] | None = None


def feature_map(
    clouds: Mapping[str, Cloud],
    classes: Sequence[str] = (),
    ax: Axes | None = None,
    *,
    hue: str = "class",
    links: tuple[str, str] | None = None,
    title: str = "",
) -> Axes:
    """A map of features. Marker = modality; hue = class (points without a class grey), or hue = modality.

    Parameters
    ----------
    clouds : name -> cloud.
    classes : names of the classes that labels count.
    hue : "class" or "modality".
    links : two clouds whose i-th points are partners: a thin line joins each pair.
    """
    if hue not in ("class", "modality"):
        raise LabError(f"hue is {hue!r}; choose 'class' or 'modality'.")
    ax = own_axes(ax, 880, 560)
    map_frame(ax, title)
    if links is not None:
        a, b = (clouds[name].points for name in links)
        for start, end in zip(a, b, strict=True):
            ax.plot(*np.stack([start, end]).T, color=PALE, linewidth=0.6, alpha=0.45, zorder=1)
    scatter_clouds(ax, clouds, hue)
    map_legend(ax, clouds, classes, hue)
    counts = ", ".join(f"{len(c.points)} {c.title}" for c in clouds.values())
    return describe(ax, f"Map of features ({title or 'two dimensions'}), coloured by {hue}: {counts}.")


def scatter_clouds(ax: Axes, clouds: Mapping[str, Cloud], hue: str) -> Axes:
    """The points of a map, those with a class above those without."""
    for cloud in clouds.values():
        ax.scatter(
            cloud.points[:, 0],
            cloud.points[:, 1],
            s=30,
            c=cloud_colours(cloud, hue),
            marker=modality_style(cloud.modality).marker,
            linewidths=0.4,
            edgecolors="white",
            alpha=0.85,
            zorder=2 + (cloud.labels is not None),
        )
    return ax


def map_frame(ax: Axes, title: str = "") -> Axes:
    """A map has no axes to read: a pale frame and no ticks."""
    dress(ax, title, grid="")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(GRID)
    return ax


def cloud_colours(cloud: Cloud, hue: str) -> Any:
    """A colour, or one per point: the modality's, the class's, or grey for rooms outside the task."""
    look = modality_style(cloud.modality)
    if hue == "modality":
        return look.colour if cloud.labels is None else look.dark
    if cloud.labels is None:
        return look.pale
    return [class_colour(int(label)) for label in cloud.labels]


def class_colour(label: int) -> Any:
    """The colour of a class; after ten they begin again."""
    return matplotlib.colors.to_hex(CLASS_COLOURS[label % len(CLASS_COLOURS)])


def run_style(number: int) -> Style:
    """How a panel's run of this number, counted from 1, is drawn: by colour, marker and kind of line."""
    lines, markers = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P")
    k = number - 1
    return Style(f"run {number}", class_colour(k), markers[k % len(markers)], lines[k % len(lines)])


def map_legend(ax: Axes, clouds: Mapping[str, Cloud], classes: Sequence[str], hue: str) -> None:
    """What marker and colour mean, to the right of the map."""
    handles = []
    for cloud in clouds.values():
        colour = cloud_colours(cloud, hue)
        colour = SOFT if isinstance(colour, list) else colour
        handles.append(_dot(modality_style(cloud.modality).marker, colour, cloud.title))
    if hue == "class" and any(cloud.labels is not None for cloud in clouds.values()):
        seen = next(cloud for cloud in clouds.values() if cloud.labels is not None)
        marker = modality_style(seen.modality).marker
        handles += [_dot(marker, class_colour(i), name.replace("_", " ")) for i, name in enumerate(classes)]
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=TEXT,
        handletextpad=0.3,
        labelcolor=INK,
        borderaxespad=0.2,
    )


def _dot(marker: str, colour: Any, label: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, color=colour, markersize=8, label=label)


# ------------------------------------------------------------------------ axes and styles


def own_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """The axes given, or new ones in a figure that leaves room for the names at the right."""
    if ax is not None:
        return ax
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    return figure.subplots()


def figure_of(ax: Axes) -> Figure:
    """The whole figure that holds these axes."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def known_style(name: str, index: int) -> Style:
    """A method's or modality's own look, else the next class colour and line."""
    known = METHODS.get(name) or MODALITIES.get(name)
    lines, markers = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P")
    return known or Style(name, class_colour(index), markers[index % len(markers)], lines[index % len(lines)])


def modality_style(name: str) -> Style:
    """A modality's own look; one that the course does not know gets the next free look, and keeps it."""
    if name in MODALITIES:
        return MODALITIES[name]
    free = known_style(name, len(MODALITIES) + len(_others))
    red, green, blue = matplotlib.colors.to_rgb(free.colour)
    dark = matplotlib.colors.to_hex((0.5 * red, 0.5 * green, 0.5 * blue))
    pale = matplotlib.colors.to_hex((0.5 + 0.12 * red, 0.5 + 0.12 * green, 0.5 + 0.12 * blue))
    return _others.setdefault(name, replace(free, dark=dark, pale=pale))
