"""One style for every picture: a modality has one colour, marker and line everywhere, text is at least 12 pt.

Every picture has an opaque background and a description in words (`alt_text`); names given by users are never
TeX. Classes take the colours of `petroff10`, which stay apart best under colour-vision deficiencies.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

INK, SOFT, GRID, PALE = "#24292f", "#57606a", "#dde1e6", "#b9c0c8"
DPI = 100
TEXT = 12.0  # points; 12 is what the last row of a class can read
WORDS: dict[str, Any] = {"fontsize": TEXT, "color": INK}
LEGEND: dict[str, Any] = {"fontsize": TEXT, "labelcolor": INK, "frameon": False}
BESIDE: dict[str, Any] = LEGEND | {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "labelspacing": 0.3}
BELOW: dict[str, Any] = LEGEND | {"loc": "outside lower center", "handletextpad": 0.2}
LEAN: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
DOTTED: dict[str, Any] = {"color": SOFT, "linewidth": 1.2, "linestyle": (0, (1, 2))}
MISSING = "#ff70ff"  # whatever kind of cone is missing, none of `DEPTH_COLOURS` looks like it
DEPTH_COLOURS = "viridis_r"
SHORT, MIDDLE, LONG = "#009e73", "#c9b98f", "#d55e00"
"""Colours of lines between partners: bluish green and vermillion of Okabe and Ito."""
LINK_COLOURS = LinearSegmentedColormap.from_list("links", [SHORT, MIDDLE, LONG])
LONG_LINK = 0.25
"""Share of a map's diagonal from which a line between partners counts as long."""


@dataclass(frozen=True)
class Style:
    """How a modality or method is drawn; ``pale`` is the grey of its points without a class."""

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
_typeset = {text for look in TERMS.values() for text in (look.title, look.title.replace(" ", "\n", 1))}
_POWER = re.compile(r"\$\\mathdefault\{(\\times|[-−+0-9.^{}])*\}\$")  # a tick of a logarithmic axis


def class_colour(label: int) -> str:
    """The colour of a class; after thirty they repeat."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def run_style(number: int) -> Style:
    """How a panel's run of this number, counted from 1, is drawn."""
    return _numbered(f"run {number}", number - 1)


def known_style(name: str, index: int, styles: Mapping[str, Style] | None = None) -> Style:
    """The style given for a name, its own as a method or modality, else the next class colour and line.

    A variant is drawn as its method: "socket far" has the colour of "socket" and the title "SOCKET far".
    """
    method, _, variant = name.partition(" ")
    known = (styles or {}).get(name) or METHODS.get(name) or MODALITIES.get(name)
    if known is None and method in METHODS:
        known = replace(METHODS[method], title=f"{METHODS[method].title} {variant}")
    return known or _numbered(name, index)


def modality_style(name: str) -> Style:
    """A modality's own style; an unknown modality takes the next free one, and keeps it."""
    if name in MODALITIES:
        return MODALITIES[name]
    free = _numbered(name, len(MODALITIES) + len(_others))
    red, green, blue = (0.5 + 0.12 * part for part in to_rgb(free.colour))
    return _others.setdefault(name, replace(free, pale=to_hex((red, green, blue))))


def _numbered(title: str, index: int) -> Style:
    return Style(title, class_colour(index), _MARKERS[index % len(_MARKERS)], _LINES[index % len(_LINES)])


def new_figure(width: float, height: float, dpi: float = DPI, fitted: bool = False) -> Figure:
    """An empty opaque figure off the screen, width and height in pixels at 100 dpi; `fitted` to its texts."""
    figure = Figure(figsize=(width / 100, height / 100), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    if fitted:
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    return figure


def own_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """The axes given, or new ones in a figure that leaves room for the names at the right."""
    return ax or new_figure(width, height, fitted=True).subplots()


def figure_of(picture: Axes | Figure) -> Figure:
    """The whole figure that holds these axes."""
    return cast(Figure, picture.get_figure(root=True))


def dress(
    ax: Axes, title: str = "", xlabel: str = "", ylabel: str = "", grid: str = "y", pad: float = 9
) -> Axes:
    """Give axes the style of the kit: quiet frame, 12 pt text, pale grid along "x", "y", "both" or ""."""
    ax.set_facecolor("white")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(PALE)
    ax.tick_params(colors=SOFT, labelcolor=INK, labelsize=TEXT, length=3)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    ax.set_xlabel(xlabel, **WORDS, wrap=True)
    ax.set_ylabel(ylabel, **WORDS)
    if title:
        ax.set_title(title, color=INK, fontsize=TEXT + 1, loc="left", fontweight="bold", pad=pad, wrap=True)
    return ax


def name_ends(ax: Axes, ends: Sequence[tuple[float, str, Any]]) -> None:
    """Write names beside the ends of lines (height, name, colour), pushed up so that no two overlap."""
    height = ax.get_position().height * figure_of(ax).get_figheight() * 72  # points
    low, high = ax.get_ylim()
    step = TEXT * 1.25 / height * (high - low)
    ends = sorted(ends, key=lambda end: end[0])
    places = accumulate((max(end[0], low) for end in ends), lambda last, own: max(own, last + step))
    beside: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points", "annotation_clip": False}
    beside |= {"xycoords": ("axes fraction", "data"), "fontsize": TEXT, "va": "center"}
    for place, (_, name, colour) in zip(places, ends, strict=True):
        ax.annotate(name, (1, place), **beside, color=colour)


def spaced(name: str) -> str:
    """A class's name for the eye: blanks for underscores."""
    return name.replace("_", " ")


def typeset(text: str) -> str:
    """Mark one of our own texts, in which ``$…$`` is mathematics; any other text is shown as it is."""
    _typeset.add(text)
    return text


def plain_text(picture: Axes | Figure) -> None:
    r"""Switch TeX off in all texts but ours: a class may be called ``$\frac$``, which wrapping reads too."""
    for text in cast(list[Text], picture.findobj(Text)):
        if words := text.get_text():
            ours = words in _typeset or bool(_POWER.fullmatch(words))
            text.set(parse_math=ours, wrap=text.get_wrap() and (ours or "$" not in words))


def describe(ax: Axes, text: str) -> Axes:
    """Finish axes: attach a description in words, which `alt_text` returns, and show names as they are."""
    plain_text(figure_of(ax))
    ax.set_gid(" ".join(text.split()))
    return ax


def alt_text(picture: Axes | Figure) -> str:
    """The description of axes, or of all axes of a figure; empty when there is none."""
    axes = picture.axes if isinstance(picture, Figure) else [picture]
    return " ".join(filter(None, (ax.get_gid() for ax in axes)))


def png(picture: Axes | Figure, dpi: float = DPI) -> bytes:
    """The whole figure as an opaque PNG."""
    file, figure = io.BytesIO(), figure_of(picture)
    plain_text(figure)
    figure.savefig(file, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def show(picture: Axes | Figure, dpi: float = 130) -> Any:
    """A picture for a notebook cell, sharp on a projector, with its description as alternative text."""
    from IPython.display import Image

    width = round(figure_of(picture).get_figwidth() * 100)
    return Image(data=png(picture, dpi), format="png", width=width, alt=alt_text(figure_of(picture)))
