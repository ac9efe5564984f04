"""The film: features of every epoch in one fixed map, so that motion on the page is motion of features.

A map drawn anew for each epoch turns and tears although little has moved. Lines join partners, green when
short and red when long. One component (film.js) shows it in Jupyter, on the site and in reports.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError
from socketlab.figures import maps, style
from socketlab.figures.map_figures import Cloud, class_marks, feature_map, legend_of, link_lengths

MIME = "application/vnd.socketlab.film+json"
"""Key of a film's data in a notebook's output, from which a page without a kernel can play it."""
_MOUNT = """
for (const el of document.querySelectorAll(".socketlab-film-here"))
  film(el, JSON.parse(el.querySelector("script").textContent));
"""


@dataclass(frozen=True)
class Snapshot:
    """Features (n, D) of one epoch, "before" or "epoch 3", by set, and (K, K) counts on held-out images."""

    title: str
    features: Mapping[str, NDArray[Any]]
    confusion: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Film:
    """Positions of the same points in one map, for every epoch; `LabError` where frames do not fit.

    Parameters
    ----------
    frames : T maps, name of a set -> `Cloud`: the same sets, sizes, modalities and labels in each.
    titles : T words, what each frame is.
    links : two sets whose i-th points are partners, or None.
    confusion : T tables (K, K) of counts, from which the accuracy is computed too; empty for none.
    live : whether more frames may come: the hand then follows the last one.
    """

    frames: Sequence[Mapping[str, Cloud]]
    titles: Sequence[str]
    classes: Sequence[str] = ()
    links: tuple[str, str] | None = None
    confusion: Sequence[NDArray[np.int64]] = ()
    live: bool = False

    def __post_init__(self) -> None:
        sizes = {tuple((name, len(cloud.points)) for name, cloud in frame.items()) for frame in self.frames}
        if len(sizes) != 1:
            raise LabError("A film needs at least one frame, and the same points in every frame.")
        if len(self.titles) != len(self.frames) or len(self.confusion) not in (0, len(self.frames)):
            raise LabError(f"{len(self.frames)} frames need as many titles and confusion matrices.")

    @cached_property
    def limits(self) -> NDArray[np.float64]:
        """Lowest and highest x and y of all frames, (2, 2)."""
        points = np.concatenate([cloud.points for frame in self.frames for cloud in frame.values()])
        low, high = points.min(axis=0), points.max(axis=0)
        return np.stack([low, np.maximum(high, low + 1e-6)]).astype(float)

    @classmethod
    def of_features(
        cls, snapshots: Sequence[Snapshot], sets: Mapping[str, tuple[str, str, ArrayLike | None]],
        classes: Sequence[str] = (), links: tuple[str, str] | None = None, fit_on: int | None = None,
    ) -> Film:  # fmt: skip
        """Put the features of all epochs, from before to after, on one map of principal components.

        Parameters
        ----------
        sets : name -> modality, title and labels (n,), or None for labels.
        fit_on : components of this snapshot alone, so that further ones do not move them; default: of all.
        """
        if not snapshots:
            raise LabError("A film needs at least one snapshot.")
        stacked = {
            str(t): np.concatenate([np.asarray(one.features[name], np.float32) for name in sets])
            for t, one in enumerate(snapshots)
        }
        positions = maps.pca_map(stacked, None if fit_on is None else str(fit_on)).values()
        cuts = np.cumsum([len(snapshots[0].features[n]) for n in sets])[:-1]
        about = [(m, t, None if labels is None else np.asarray(labels)) for m, t, labels in sets.values()]
        frames = [
            {n: Cloud(own, *of) for n, own, of in zip(sets, np.split(points, cuts), about, strict=True)}
            for points in positions
        ]
        confusion = [s.confusion for s in snapshots if s.confusion is not None]
        return cls(frames, [s.title for s in snapshots], classes, links, confusion, fit_on is not None)

    @property
    def accuracy(self) -> list[float]:
        """Share right at each frame; empty without confusion matrices."""
        return [float(np.trace(table) / max(int(np.sum(table)), 1)) for table in self.confusion]

    def link_medians(self) -> list[float]:
        """Median length of the lines between partners at each frame, in parts of the map's diagonal."""
        if self.links is None:
            return []
        a, b = self.links
        return [float(np.median(link_lengths(f[a].points, f[b].points, self.limits))) for f in self.frames]

    def widget(self) -> Any:
        """The film in Jupyter; `widget.film = other.data()` shows another, with more frames for example."""
        return _widget_class()(film=self.data())

    def still(self) -> Figure:
        """The first and the last frame side by side, on the same axes."""
        figure = style.new_figure(1240, 560, fitted=True)
        left, right = figure.subplots(1, 2)
        self.draw(0, left).legend_ = None  # the right one has it
        self.draw(len(self.frames) - 1, right)
        return figure

    def draw(self, number: int, ax: Axes | None = None) -> Axes:
        """One frame on the film's axes."""
        right = f": {100 * self.accuracy[number]:.0f} % right" if self.confusion else ""
        title, frame = f"{self.titles[number]}{right}", self.frames[number]
        return feature_map(frame, self.classes, ax, links=self.links, title=title, limits=self.limits)

    def data(self) -> dict[str, Any]:
        """What the page draws, as JSON: positions are base64 of 16 bits in parts of the map."""
        first = self.frames[0]
        sizes = [len(cloud.points) for cloud in first.values()]
        starts = dict(zip(first, np.cumsum([0, *sizes]).tolist(), strict=False))
        legend = legend_of(first, self.classes, "class")
        labels = [np.full(len(c.points), -1) if c.labels is None else c.labels for c in first.values()]
        partners: list[list[int]] = []
        if self.links is not None:
            a, b = (starts[name] for name in self.links)
            partners = [[a + i, b + i] for i in range(len(first[self.links[0]].points))]
        return {
            "titles": list(self.titles),
            "limits": self.limits.tolist(),
            "positions": [self._packed(frame) for frame in self.frames],
            "groups": [
                {"start": start, "count": size, "marker": marker, "colour": colour, "title": title}
                for start, size, (marker, colour, title) in zip(starts.values(), sizes, legend, strict=False)
            ],
            "labels": np.concatenate(labels).tolist(),
            "class_colours": [style.class_colour(i) for i in range(len(self.classes))],
            "marks": class_marks(self.classes) or None,
            "legend": [dict(zip(("marker", "colour", "text"), entry, strict=True)) for entry in legend],
            "partners": partners,
            "link_colours": [style.SHORT, style.MIDDLE, style.LONG],
            "long_link": style.LONG_LINK,
            "accuracy": self.accuracy or None,
            "confusion": [np.asarray(table).tolist() for table in self.confusion] or None,
            "live": self.live,
        }

    def _packed(self, frame: Mapping[str, Cloud]) -> str:
        low, high = self.limits
        points = np.concatenate([cloud.points for cloud in frame.values()])
        parts = np.round(65535 * (points - low) / (high - low)).astype("<u2")
        return base64.b64encode(parts.tobytes()).decode("ascii")


def fragment(data: Mapping[str, Any]) -> str:
    """A film's `data()` as a piece of a page; the page needs `page_script()` once."""
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return f'<div class="socketlab-film-here"><script type="application/json">{text}</script></div>'


@cache
def page_script() -> str:
    """JavaScript that shows every film of a page, for ``<script type="module">``."""
    return _source() + _MOUNT


@cache
def script_policy() -> str:
    """What a content security policy must allow for `page_script`: its digest, no other script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(page_script().encode()).digest()).decode()}'"


def _source() -> str:
    folder = files("socketlab.figures")
    return "".join((folder / name).read_text(encoding="utf-8") for name in ("scatter.js", "film.js"))


@cache
def _widget_class() -> Any:
    import anywidget
    import traitlets

    class FilmWidget(anywidget.AnyWidget):
        """A film in a notebook; its frames are in the trait `film`."""

        _esm = _source()
        film: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)

        def _repr_mimebundle_(self, **named: Any) -> Any:
            data, metadata = super()._repr_mimebundle_(**named) or ({}, {})
            return {**data, MIME: dict(self.film)}, metadata

    return FilmWidget
