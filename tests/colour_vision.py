"""What people with a colour-vision deficiency see of a picture: simulated, and measured as a distance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

# From linear RGB to what is seen of it when one kind of cone is missing.
# Source: Machado, Oliveira, Fernandes, IEEE Trans. Visualization and Computer Graphics 15 (2009), severity 1.
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Oklab, a space in which equal distances look equal. Source: Ottosson, A perceptual color space, 2020.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def seen(colours: Any, vision: str) -> np.ndarray:
    """Places in Oklab, (n, 3), times 100, of (n, 3) sRGB colours in [0, 1] as seen with a kind of vision."""
    rgb = np.asarray(colours, float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ VISIONS[vision].T, 0, 1)
    return 100 * np.cbrt(linear @ _CONES.T) @ _LAB.T


def difference(a: Any, b: Any) -> float:
    """How far two colours are apart for whoever tells them worst; about 2 can just be told, side by side."""
    return min(float(np.linalg.norm(np.subtract(*seen([a, b], vision)))) for vision in VISIONS)


@dataclass(frozen=True)
class Mark:
    """Something drawn: its form (kind, marker, dashes), and its colour on white."""

    form: tuple[Any, ...]
    colour: tuple[float, ...]


def marks(ax: Axes) -> set[Mark]:
    """What is drawn into axes: lines, points, bars; not their frame, nor pictures."""
    found = set()
    for line in ax.get_lines():
        if line.get_visible() and len(line.get_xdata()):  # type: ignore[arg-type]
            found.add(Mark(_form_of(line), _on_white(line.get_color(), line.get_alpha())))
    for points in ax.collections:
        if isinstance(points, PathCollection) and len(points.get_offsets()):  # type: ignore[arg-type]
            form = ("points", points.get_paths()[0].vertices.round(3).tobytes())
            found |= {Mark(form, _on_white(face)) for face in np.unique(points.get_facecolors(), axis=0)}  # type: ignore[attr-defined]
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and patch.get_width() and patch.get_height():
            found.add(Mark(("bar",), _on_white(patch.get_facecolor())))
    return found


def _form_of(line: Line2D) -> tuple[Any, ...]:
    marker = line.get_marker() if line.get_markersize() else ""
    return "line", str(line.get_linestyle()), "" if marker in ("None", None) else marker


def _on_white(colour: Any, alpha: float | None = None) -> tuple[float, ...]:
    *rgb, opaque = to_rgba(colour, alpha)
    return tuple(round(float(opaque * c + 1 - opaque), 4) for c in rgb)


def confused(picture: Axes | Figure, least: float) -> Iterator[str]:
    """Pairs of marks in the same axes that colour alone tells apart, by less than `least`, in words."""
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert isinstance(figure, Figure)
    for ax in figure.findobj(Axes):
        for a, b in itertools.combinations(sorted(marks(ax), key=repr), 2):  # type: ignore[arg-type]
            if a.form == b.form and difference(a.colour, b.colour) < least:
                yield f"{ax.get_title(loc='left')}: {a.form[0]} {a.colour} and {b.colour}"  # type: ignore[attr-defined]
