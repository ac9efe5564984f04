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

from socketlab.errors import LabError
from socketlab.figures.style import (
    GRID,
    INK,
    SOFT,
    TEXT,
    class_colour,
    describe,
    dress,
    link_colours,
    modality_style,
    own_axes,
    spaced,
)

WRITTEN_CLASSES = 10
"""Of more classes than this a map carries marks at their centres: colours alone no longer tell them apart."""
Limits = NDArray[np.floating[Any]]


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
    limits: Limits | None = None,
) -> Axes:
    """A map of features. Marker = modality; hue = class (points without a class grey), or hue = modality.

    Of more than ten classes each has a mark (a letter or number) at the middle of its points.

    Parameters
    ----------
    clouds : name -> cloud.
    classes : names of the classes that labels count.
    hue : "class" or "modality".
    links : two clouds whose i-th points are partners: a line joins each pair, green when short, red when
        longer than a quarter of the map's diagonal; the median is written below.
    limits : (2, 2), lowest and highest x and y of the map; default: those of the points.
    """
    if hue not in ("class", "modality"):
        raise LabError(f"hue is {hue!r}; choose 'class' or 'modality'.")
    ax = own_axes(ax, 880 if len(classes) <= 16 else 1040, 560)
    map_frame(ax, title)
    ends = map_limits(clouds) if limits is None else np.asarray(limits, float)
    words = "" if links is None else _draw_links(ax, clouds, links, ends)
    scatter_clouds(ax, clouds, hue)
    margin = 0.04 * np.maximum(ends[1] - ends[0], 1e-9)
    ax.set(xlim=(ends[0, 0] - margin[0], ends[1, 0] + margin[0]))
    ax.set(ylim=(ends[0, 1] - margin[1], ends[1, 1] + margin[1]))
    if hue == "class" and len(classes) > WRITTEN_CLASSES:
        _mark_classes(ax, clouds, classes)
    map_legend(ax, clouds, classes, hue)
    counts = ", ".join(f"{len(c.points)} {c.title}" for c in clouds.values())
    about = f"Map of features ({title or 'two dimensions'}), coloured by {hue}: {counts}."
    return describe(ax, f"{about} {words}")


def map_limits(clouds: Mapping[str, Cloud]) -> NDArray[np.float64]:
    """Lowest and highest x and y of all points, (2, 2); a unit square without points."""
    points = np.concatenate([np.zeros((0, 2)), *(cloud.points for cloud in clouds.values())])
    return np.stack([points.min(axis=0), points.max(axis=0)]) if len(points) else np.array([[0, 0], [1, 1.0]])


def link_lengths(a: ArrayLike, b: ArrayLike, limits: Limits) -> NDArray[np.float64]:
    """Distances between the i-th points of two (n, 2) arrays, in parts of the map's diagonal."""
    away = np.linalg.norm(np.asarray(a, float) - np.asarray(b, float), axis=1)
    return away / max(float(np.linalg.norm(limits[1] - limits[0])), 1e-12)


def _draw_links(ax: Axes, clouds: Mapping[str, Cloud], links: tuple[str, str], limits: Limits) -> str:
    """Lines between partners, the longest last; returns their median length in words."""
    a, b = (clouds[name].points for name in links)
    lengths = link_lengths(a, b, limits)
    order = np.argsort(lengths)
    lines = np.stack([a, b], axis=1)[order]
    ax.add_collection(
        LineCollection(list(lines), colors=link_colours(lengths[order]), linewidths=1.0, alpha=0.7, zorder=1)
    )
    if not len(lengths):
        return ""
    words = f"Median line between partners: {100 * np.median(lengths):.0f} % of the map's diagonal."
    ax.set_xlabel(words, fontsize=TEXT, color=INK, loc="left")
    return words


def scatter_clouds(ax: Axes, clouds: Mapping[str, Cloud], hue: str) -> Axes:
    """The points of a map, those with a class above those without."""
    labelled = {cloud.modality for cloud in clouds.values() if cloud.labels is not None}
    for cloud in clouds.values():
        colours = cloud_colours(cloud, hue)
        hollow = hue == "modality" and cloud.labels is None and cloud.modality in labelled
        drawn = ax.scatter(
            cloud.points[:, 0],
            cloud.points[:, 1],
            s=30,
            c="white" if hollow else colours,
            marker=modality_style(cloud.modality).marker,
            linewidths=1.0 if hollow else 0.4,
            edgecolors=colours if hollow else "white",
            alpha=0.85,
            zorder=2 + (cloud.labels is not None),
        )
        drawn.set_in_layout(False)
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
    style = modality_style(cloud.modality)
    if hue == "modality":
        return style.colour
    if cloud.labels is None:
        return style.pale
    return [class_colour(int(label)) for label in cloud.labels]


def class_marks(classes: Sequence[str]) -> list[str]:
    """What stands for a class on a crowded map: its name if all are short, else a letter, else a number."""
    if all(len(name) <= 2 for name in classes):
        return list(classes)
    return [chr(65 + i) if len(classes) <= 26 else str(i + 1) for i in range(len(classes))]


def _mark_classes(ax: Axes, clouds: Mapping[str, Cloud], classes: Sequence[str]) -> None:
    """A mark at the labelled point next to the median of each class."""
    labelled = [cloud for cloud in clouds.values() if cloud.labels is not None]
    if not labelled:
        return
    points = np.concatenate([cloud.points for cloud in labelled])
    labels = np.concatenate([cloud.labels for cloud in labelled if cloud.labels is not None])
    for label, mark in enumerate(class_marks(classes)):
        own = points[labels == label]
        if len(own):
            x, y = own[np.linalg.norm(own - np.median(own, axis=0), axis=1).argmin()]
            text = ax.text(x, y, mark, fontsize=TEXT + 1, fontweight="bold", color=class_colour(label),
                           ha="center", va="center", zorder=5)  # fmt: skip
            text.set_path_effects([withStroke(linewidth=3.5, foreground="white")])


def map_legend(ax: Axes, clouds: Mapping[str, Cloud], classes: Sequence[str], hue: str) -> None:
    """What marker and colour mean, to the right of the map: first the sets of points, then the classes."""
    by_class = hue == "class" and any(cloud.labels is not None for cloud in clouds.values())
    handles: list[Any] = []
    for cloud in clouds.values():
        colour = SOFT if hue == "class" and cloud.labels is not None else cloud_colours(cloud, hue)
        handles.append(legend_dot(modality_style(cloud.modality).marker, colour, cloud.title))
    if by_class:
        marks = class_marks(classes) if len(classes) > WRITTEN_CLASSES else [""] * len(classes)
        handles.append(Line2D([], [], linestyle="", label=" "))
        for i, (mark, name) in enumerate(zip(marks, classes, strict=True)):
            label = spaced(name) if mark in ("", name) else f"{mark}  {spaced(name)}"
            handles.append(Patch(facecolor=class_colour(i), label=label))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=TEXT,
              handletextpad=0.5, handlelength=0.9, handleheight=0.8, labelcolor=INK, borderaxespad=0.2,
              ncols=1 if len(handles) <= 20 else 2, columnspacing=1.0)  # fmt: skip


def legend_dot(marker: str, colour: Any, label: str) -> Line2D:
    """A marker for a legend."""
    return Line2D([], [], linestyle="", marker=marker, color=colour, markersize=8, label=label)
