"""One style for every picture: what a modality, a method and a class look like, and how axes are dressed.

A modality has one colour, one marker and one line style everywhere. Classes take the colours of `petroff10`,
the palette that stays apart best under colour-vision deficiencies, and twenty more. Text is at least 12 pt at
the size shown, the background is opaque, and every picture has a description in words: `alt_text(ax)`. Names
given by users are never parsed as TeX.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray

INK, SOFT, GRID, PALE = "#24292f", "#57606a", "#dde1e6", "#b9c0c8"
DPI = 100
TEXT = 12.0  # points; 12 is what the last row of a class can read
DOTTED = (0, (1, 2))
MISSING = "#ff70ff"  # whatever kind of cone is missing, none of `DEPTH_COLOURS` looks like it
DEPTH_COLOURS = "viridis_r"
SHORT, MIDDLE, LONG = "#009e73", "#c9b98f", "#d55e00"
"""Colours of lines between partners: bluish green and vermillion of Okabe and Ito."""
LINK_COLOURS = LinearSegmentedColormap.from_list("links", [SHORT, MIDDLE, LONG])
LONG_LINK = 0.25
"""Share of a map's diagonal from which a line between partners counts as long."""


@dataclass(frozen=True)
class Style:
    """How a modality or method is drawn wherever it appears.

    Parameters
    ----------
    title : name in legends.
    colour, marker, line : as matplotlib takes them.
    brief : abbreviation of the title, where it has one.
    pale : grey for points without a class.
    """

    title: str
    colour: str
    marker: str
    line: str
    brief: str = ""
    pale: str = PALE

    @property
    def short(self) -> str:
        """The title, or its abbreviation where it has one."""
        return self.brief or self.title


MODALITIES = {
    "rgb": Style("RGB", "#c2410c", "o", "-", pale="#99918a"),
    "nir": Style("near-infrared", "#7e3ff2", "s", "-.", "NIR", "#9490a3"),
    "depth": Style("depth", "#159ab3", "^", "--", pale="#8aa1a8"),
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
_LINES, _MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P")
_PETROFF = matplotlib.color_sequences["petroff10"]
CLASS_COLOURS: tuple[str, ...] = (
    *(to_hex(_PETROFF[i]) for i in (0, 1, 2, 4, 5, 6, 7, 9, 3, 8)),  # its greys last
    "#2d003c", "#690f00", "#2d3c69", "#691eff", "#4b5a5a", "#4bb4f0", "#d2d296", "#2d0078", "#2d78b4",
    "#4b1e3c", "#8769ff", "#690f96", "#961e2d", "#3c0000", "#b48769", "#9687a5", "#96c3b4", "#f08700",
    "#963c87", "#d24b1e",
)  # fmt: skip
"""The ten of `petroff10`, and twenty more: each the one farthest from those before, whoever looks."""
_others: dict[str, Style] = {}  # styles of further modalities, in the order of their first use
_alt: WeakKeyDictionary[Figure, dict[int, str]] = WeakKeyDictionary()
_typeset = {style.title for style in TERMS.values()}
_POWER = re.compile(r"\$\\mathdefault\{(\\times|[-−+0-9.^{}])*\}\$")  # a tick of a logarithmic axis


# ------------------------------------------------------------------------ styles


def class_colour(label: int) -> str:
    """The colour of a class; after thirty they repeat."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def run_style(number: int) -> Style:
    """How a panel's run of this number, counted from 1, is drawn: by colour, marker and kind of line."""
    return _numbered(f"run {number}", number - 1)


def known_style(name: str, index: int) -> Style:
    """A method's or modality's own style, else the next class colour and line.

    A variant is drawn as its method: "socket far" has the colour of "socket" and the title "SOCKET far".
    """
    known = METHODS.get(name) or MODALITIES.get(name)
    method, _, variant = name.partition(" ")
    if known is None and method in METHODS:
        known = replace(METHODS[method], title=f"{METHODS[method].title} {variant}")
    return known or _numbered(name, index)


def modality_style(name: str) -> Style:
    """A modality's own style; an unknown modality takes the next free one, and keeps it."""
    if name in MODALITIES:
        return MODALITIES[name]
    free = _numbered(name, len(MODALITIES) + len(_others))
    red, green, blue = to_rgb(free.colour)
    pale = to_hex((0.5 + 0.12 * red, 0.5 + 0.12 * green, 0.5 + 0.12 * blue))
    return _others.setdefault(name, replace(free, pale=pale))


def _numbered(title: str, index: int) -> Style:
    return Style(title, class_colour(index), _MARKERS[index % len(_MARKERS)], _LINES[index % len(_LINES)])


def link_colours(lengths: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Colours (n, 4) of lines between partners by their length in parts of the map's diagonal."""
    return LINK_COLOURS(np.clip(np.asarray(lengths) / LONG_LINK, 0, 1))


# ------------------------------------------------------------------------ figures and axes


def new_figure(width: float, height: float, dpi: float = DPI) -> Figure:
    """An empty opaque figure off the screen; width and height in pixels at 100 dpi."""
    figure = Figure(figsize=(width / 100, height / 100), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def own_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """The axes given, or new ones in a figure that leaves room for the names at the right."""
    if ax is not None:
        return ax
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    return figure.subplots()


def figure_of(picture: Axes | Figure) -> Figure:
    """The whole figure that holds these axes."""
    figure = picture.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def dress(ax: Axes, title: str = "", xlabel: str = "", ylabel: str = "", grid: str = "y") -> Axes:
    """Give axes the style of the kit: quiet frame, 12 pt text, pale grid along "x", "y", "both" or ""."""
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


def name_ends(ax: Axes, ends: list[tuple[float, str, Any]]) -> None:
    """Write each line's name beside its end, pushed apart so that no two overlap.

    Parameters
    ----------
    ends : height of the end, name and colour of each line.
    """
    height = ax.get_position().height * figure_of(ax).get_figheight() * 72  # points
    low, high = ax.get_ylim()
    step = (TEXT * 1.25) / height * (high - low)
    ends = sorted(ends, key=lambda end: end[0])
    places = apart([max(value, low) for value, _, _ in ends], step)
    at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    for place, (_, name, colour) in zip(places, ends, strict=True):
        ax.annotate(name, (1, place), (8, 0), **at, va="center", color=colour, fontsize=TEXT,
                    annotation_clip=False)  # fmt: skip


def apart(heights: Sequence[float], step: float, high: float = np.inf) -> list[float]:
    """Rising heights, moved up until they are a step apart, and down again where they end above `high`."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + step) if places else height)
    for i in reversed(range(len(places))):
        high = places[i] = min(places[i], high)
        high -= step
    return places


# ------------------------------------------------------------------------ text and files


def spaced(name: str) -> str:
    """A class's name for the eye: blanks for underscores."""
    return name.replace("_", " ")


def typeset(text: str) -> str:
    """Mark one of our own texts, in which ``$…$`` is mathematics; any other text is shown as it is."""
    _typeset.add(text)
    return text


def plain_text(picture: Axes | Figure) -> None:
    r"""Switch TeX off in all texts but ours: a class may be called ``$\frac$``."""
    for text in picture.findobj(Text):
        words = text.get_text()  # type: ignore[attr-defined]
        if words:
            text.set_parse_math(words in _typeset or bool(_POWER.fullmatch(words)))  # type: ignore[attr-defined]


def describe(ax: Axes, text: str) -> Axes:
    """Finish axes: attach a description in words, which `alt_text` returns, and show names as they are."""
    figure = figure_of(ax)
    plain_text(figure)
    _alt.setdefault(figure, {})[id(ax)] = " ".join(text.split())
    return ax


def alt_text(picture: Axes | Figure) -> str:
    """The description of axes, or of all axes of a figure; empty when there is none."""
    if isinstance(picture, Figure):
        return " ".join(_alt.get(picture, {}).values())
    return _alt.get(figure_of(picture), {}).get(id(picture), "")


def png(picture: Axes | Figure, dpi: float = DPI) -> bytes:
    """The whole figure as an opaque PNG."""
    file, figure = io.BytesIO(), figure_of(picture)
    plain_text(figure)
    figure.savefig(file, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def show(picture: Axes | Figure, dpi: float = 130) -> Any:
    """A picture for a notebook cell, with its description as alternative text.

    It is drawn a little finer than shown, so that it stays sharp on a projector.
    """
    from IPython.display import Image

    figure = figure_of(picture)
    width = round(figure.get_figwidth() * 100)
    return Image(data=png(figure, dpi), format="png", width=width, alt=alt_text(figure))


def running_mean(values: ArrayLike, weight: float) -> NDArray[np.float64]:
    """Running mean with a weight of the past in [0, 1), unbiased at the start; gaps (NaN) are skipped."""
    out, total, mass = [], 0.0, 0.0
    for value in np.asarray(values, float):
        if np.isfinite(value):
            total, mass = weight * total + (1 - weight) * value, weight * mass + 1 - weight
        out.append(total / mass if mass else np.nan)
    return np.array(out)
