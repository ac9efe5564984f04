"""Maps of features: marker = modality, colour = class or modality, lines between partners."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import require_choice
from socketlab.figures import style

WRITTEN_CLASSES = 10
"""Of more classes than this a map carries marks at their centres: colours alone no longer tell them apart."""
SWATCH = "▬"
"""Marker of a class in legends."""


@dataclass(frozen=True)
class Cloud:
    """Points (n, 2) of a feature map; the modality decides their marker; labels (n,) are classes, or None."""

    points: NDArray[np.float32]
    modality: str
    title: str
    labels: NDArray[np.int64] | None = None


def feature_map(
    clouds: Mapping[str, Cloud], classes: Sequence[str] = (), ax: Axes | None = None, *, hue: str = "class",
    links: tuple[str, str] | None = None, title: str = "", limits: NDArray[Any] | None = None,
) -> Axes:  # fmt: skip
    """A map of features. Marker = modality; hue = class (points without a class grey), or hue = modality.

    Of more than ten classes each has a mark (a letter or number) at the middle of its points.

    Parameters
    ----------
    classes : names of the classes that labels count.
    links : two clouds whose i-th points are partners: a line joins each pair, green when short, red when
        longer than a quarter of the map's diagonal; the median is written below.
    limits : (2, 2), lowest and highest x and y of the map; default: those of the points.
    """
    require_choice("hue", hue, ("class", "modality"))
    ax = style.dress(style.own_axes(ax, 880 if len(classes) <= 16 else 1040, 560), title, grid="")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color=style.GRID)
    if limits is None:
        points = np.concatenate([np.zeros((0, 2)), *(cloud.points for cloud in clouds.values())])
        limits = np.stack([points.min(axis=0), points.max(axis=0)]) if len(points) else np.eye(2)
    words = "" if links is None else _draw_links(ax, clouds[links[0]], clouds[links[1]], limits)
    _draw_points(ax, clouds, hue)
    margin = 0.04 * np.maximum(limits[1] - limits[0], 1e-9)
    low, high = limits[0] - margin, limits[1] + margin
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    if hue == "class":
        _mark_classes(ax, clouds, classes)
    handles: list[Any] = [
        Patch(facecolor=colour, label=text)
        if marker == SWATCH
        else Line2D([], [], linestyle="", marker=marker, color=colour, markersize=8, label=text)
        for marker, colour, text in legend_of(clouds, classes, hue)
    ]
    if len(handles) > len(clouds):
        handles.insert(len(clouds), Line2D([], [], linestyle="", label=" "))
    ax.legend(handles=handles, **style.BESIDE, handletextpad=0.5, handlelength=0.9, handleheight=0.8,
              borderaxespad=0.2, ncols=1 if len(handles) <= 20 else 2, columnspacing=1.0)  # fmt: skip
    counts = ", ".join(f"{len(c.points)} {c.title}" for c in clouds.values())
    about = f"Map of features ({title or 'two dimensions'}), coloured by {hue}: {counts}."
    return style.describe(ax, f"{about} {words}")


def link_lengths(a: ArrayLike, b: ArrayLike, limits: NDArray[Any]) -> NDArray[np.float64]:
    """Distances between the i-th points of two (n, 2) arrays, in parts of the map's diagonal."""
    away = np.linalg.norm(np.asarray(a, float) - np.asarray(b, float), axis=1)
    return away / max(float(np.linalg.norm(limits[1] - limits[0])), 1e-12)


def _draw_links(ax: Axes, a: Cloud, b: Cloud, limits: NDArray[Any]) -> str:
    """Lines between partners, the longest last; returns their median length in words."""
    lengths = link_lengths(a.points, b.points, limits)
    order = np.argsort(lengths)
    lines = list(np.stack([a.points, b.points], axis=1)[order])
    colours = style.LINK_COLOURS(lengths[order] / style.LONG_LINK)
    ax.add_collection(LineCollection(lines, colors=colours, linewidths=1.0, alpha=0.7, zorder=1))
    if not len(lengths):
        return ""
    words = f"Median line between partners: {100 * np.median(lengths):.0f} % of the map's diagonal."
    ax.set_xlabel(words, **style.WORDS, loc="left", wrap=True)
    return words


def _draw_points(ax: Axes, clouds: Mapping[str, Cloud], hue: str) -> None:
    """The points of a map, those with a class above those without."""
    labelled = {cloud.modality for cloud in clouds.values() if cloud.labels is not None}
    for cloud in clouds.values():
        colours = cloud_colours(cloud, hue)
        fill: dict[str, Any] = {"c": colours, "edgecolors": "white", "linewidths": 0.4}
        if hue == "modality" and cloud.labels is None and cloud.modality in labelled:
            fill = {"c": "white", "edgecolors": colours, "linewidths": 1.0}
        marker, order = style.modality_style(cloud.modality).marker, 2 + (cloud.labels is not None)
        x, y = cloud.points.T
        ax.scatter(x, y, s=30, marker=marker, alpha=0.85, zorder=order, in_layout=False, **fill)


def cloud_colours(cloud: Cloud, hue: str) -> Any:
    """A colour, or one per point: the modality's, the class's, or grey for rooms outside the task."""
    look = style.modality_style(cloud.modality)
    if hue == "modality":
        return look.colour
    return look.pale if cloud.labels is None else [style.class_colour(int(label)) for label in cloud.labels]


def class_marks(classes: Sequence[str]) -> list[str]:
    """What stands for each of many classes on a map: its name if all are short, a letter, or a number."""
    if len(classes) <= WRITTEN_CLASSES:
        return []
    if all(len(name) <= 2 for name in classes):
        return list(classes)
    return [chr(65 + i) if len(classes) <= 26 else str(i + 1) for i in range(len(classes))]


def _mark_classes(ax: Axes, clouds: Mapping[str, Cloud], classes: Sequence[str]) -> None:
    """A mark at the labelled point next to the median of each class."""
    labelled = [(cloud.points, cloud.labels) for cloud in clouds.values() if cloud.labels is not None]
    for label, mark in enumerate(class_marks(classes)):
        own = np.concatenate([np.zeros((0, 2)), *(points[labels == label] for points, labels in labelled)])
        if len(own):
            x, y = own[np.linalg.norm(own - np.median(own, axis=0), axis=1).argmin()]
            about: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 5, "fontweight": "bold"}
            about |= {"fontsize": style.TEXT + 1, "color": style.class_colour(label)}
            text = ax.text(x, y, mark, **about)
            text.set_path_effects([withStroke(linewidth=3.5, foreground="white")])


def legend_of(clouds: Mapping[str, Cloud], classes: Sequence[str], hue: str) -> list[tuple[str, Any, str]]:
    """Marker, colour and text of each set of points, then, where colours are classes, of each class."""
    entries = []
    for cloud in clouds.values():
        colour = style.SOFT if hue == "class" and cloud.labels is not None else cloud_colours(cloud, hue)
        entries.append((style.modality_style(cloud.modality).marker, colour, cloud.title))
    if hue == "class" and any(cloud.labels is not None for cloud in clouds.values()):
        marks = class_marks(classes) or [""] * len(classes)
        for i, (mark, name) in enumerate(zip(marks, classes, strict=True)):
            text = style.spaced(name) if mark in ("", name) else f"{mark}  {style.spaced(name)}"
            entries.append((SWATCH, style.class_colour(i), text))
    return entries
