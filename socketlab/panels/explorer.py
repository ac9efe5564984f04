"""A linked explorer: select points of a feature map, see their images in every modality.

Beside the images stand the class counts of the selection, predictions before and after adaptation, and the
nearest neighbours of a point in feature space. Python prepares the numbers; the page (`explorer.js`, a 2-D
canvas through anywidget) draws, selects and counts, and asks the kernel for cards of images only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
import traitlets
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError
from socketlab.figures import map_figures, style
from socketlab.figures.map_figures import Cloud
from socketlab.images.paired_images import PairedImages
from socketlab.panels import session
from socketlab.panels.cards import STYLE, Cards, written

Arrays = Mapping[str, ArrayLike]
Indices = NDArray[np.int32]
NEIGHBOURS = 6
HERE = Path(__file__).parent
SCATTER = Path(style.__file__).with_name("scatter.js")
SCRIPT = "\n".join(path.read_text(encoding="utf-8") for path in (SCATTER, HERE / "explorer.js"))
CSS = (HERE / "explorer.css").read_text(encoding="utf-8") + STYLE


def neighbours(values: NDArray[np.float32], partners: Indices) -> tuple[Indices, Indices]:
    """Nearest points (Euclidean) of every point, and the place of its partners among all.

    Parameters
    ----------
    values, partners : (N, D), and (N, P) indices.

    Returns
    -------
    (N, min(NEIGHBOURS, N - 1)) indices, nearest first, and (N, P) ranks from 1 on.
    """
    x, near, ranks = torch.from_numpy(values).double(), [], []
    x = x - x.mean(dim=0)
    for rows in torch.arange(len(x)).split(512):
        distance = torch.cdist(x[rows], x)
        distance[torch.arange(len(rows)), rows] = torch.inf
        near.append(distance.topk(min(NEIGHBOURS, len(x) - 1), largest=False).indices.int())
        away = distance.gather(1, torch.from_numpy(partners).long()[rows])
        ranks.append(1 + (distance[:, None] < away[..., None]).sum(dim=2).int())
    return torch.cat(near).numpy(), torch.cat(ranks).numpy()


class FeatureMap(anywidget.AnyWidget):
    """The page's side: draws, selects, counts. See explorer.js."""

    _esm = SCRIPT
    _css = CSS
    height = traitlets.Int(520).tag(sync=True)
    points = traitlets.Dict().tag(sync=True)
    hue = traitlets.Unicode("modality").tag(sync=True)
    links = traitlets.Bool(False).tag(sync=True)
    selection = traitlets.Any(b"").tag(sync=True, echo_update=False)  # bytes out, a memoryview in
    focus = traitlets.Int(-1).tag(sync=True)
    cards = traitlets.Dict().tag(sync=True)


class Explorer(widgets.VBox):
    """Select points in a feature map; see their images, classes, predictions and neighbours.

    Parameters
    ----------
    points : set name -> `Cloud` with a point for every scene of the images, in their order.
    images : S scenes.
    features : set name -> (S, D) features that neighbours are looked for in; without them, on the map.
    before, after : set name -> (S, K) logits before and after adaptation, of the sets that have them.
    classes : names of the K classes; by default those of the images.
    view : name of the map.

    Attributes
    ----------
    table : a row per point, set after set: its set, modality and scene, the scene's name and true class, and
        the number (-1: none) and probability of each prediction.
    map : the widget of the page; its `hue` is one of `hues`, its `focus` the row of the point whose
        neighbours are shown, its `height` in pixels.
    """

    def __init__(
        self, points: Mapping[str, Cloud], images: PairedImages, features: Arrays | None = None, *,
        before: Arrays | None = None, after: Arrays | None = None, classes: Sequence[str] = (),
        view: str = "map",
    ) -> None:  # fmt: skip
        if not points:
            raise LabError("There is nothing to explore: no set of points was given.")
        self.clouds, self.view, self.cards = dict(points), view, Cards(images, classes)
        self.positions = self._rows("positions", {name: cloud.points for name, cloud in points.items()}, 2)
        values = self.positions if features is None else self._rows("features", features)
        if not np.isfinite(values).all():
            raise LabError("Every set needs finite positions and features; some are missing or NaN.")
        classes = [kind if kind in self.cards.classes else "" for kind in images.kinds]
        scenes = pd.DataFrame({"scene": range(len(images)), "name": images.names, "true_class": classes})
        sets = [scenes.assign(set=name, modality=cloud.modality) for name, cloud in points.items()]
        self.table = pd.concat(sets, ignore_index=True)
        self._words = [word for word, given in (("before", before), ("after", after)) if given]
        for word, given in zip(self._words, filter(None, (before, after)), strict=True):
            logits = torch.from_numpy(self._rows(f"logits {word}", given, len(self.cards.classes)))
            share, label = logits.softmax(dim=1).max(dim=1)
            self.table[word] = label.where(share.isfinite(), -1).int().numpy()
            self.table[f"{word}_confidence"] = share.numpy()
        self.box = session.ErrorBox()
        self.map = FeatureMap(points=self._packed(values, features is not None), hue=self.hues[0])
        super().__init__([self.box, self.map])
        self.add_class("socketlab-explorer")
        self.map.on_msg(session.guarded(self.box, lambda _, content, __: self._answer(content)))

    def _rows(self, what: str, given: Arrays, width: int | None = None) -> NDArray[np.float32]:
        """(N, width) numbers of all sets in order, NaN for a set that is not given."""
        if unknown := set(given) - set(self.clouds):
            raise LabError(f"There are {what} of {unknown}, but points of {', '.join(self.clouds)} alone.")
        arrays = {name: torch.as_tensor(values).float().cpu().numpy() for name, values in given.items()}
        count = len(self.cards.images)
        width = width or max(array.shape[-1] for array in arrays.values())
        for name, array in arrays.items():
            if array.shape != (count, width):
                wanted = f"{count} scenes need ({count}, {width})"
                raise LabError(f"The {what} of {name!r} have the shape {array.shape}; {wanted}.")
        blank = np.full((count, width), np.nan, np.float32)
        return np.concatenate([arrays.get(name, blank) for name in self.clouds])

    def _packed(self, values: NDArray[np.float32], in_features: bool) -> dict[str, Any]:
        """What the page needs of the points; arrays as bytes."""
        sets, total, count = [], len(self.table), len(self.cards.images)
        for cloud in self.clouds.values():
            look = style.modality_style(cloud.modality)
            about = {name: getattr(look, name) for name in ("short", "marker", "colour", "pale")}
            sets.append(about | {"title": cloud.title, "size": count})
        partners = (np.arange(total)[:, None] + count * np.arange(1, len(sets))).astype(np.int32) % total
        near, ranks = neighbours(values, partners)
        number = {name: label for label, name in enumerate(self.cards.classes)}
        columns = {"label": [number.get(name, -1) for name in self.table["true_class"]]}
        columns |= {name: self.table[name] for name in ("scene", *self._words)}
        sure = {word: self.table[f"{word}_confidence"].to_numpy().tobytes() for word in self._words}
        return {
            "sets": sets,
            "classes": list(self.cards.classes),
            "colours": [style.class_colour(label) for label in range(max(len(self.cards.classes), 10))],
            "hues": self.hues,
            "words": self._words,
            "view": self.view,
            "in_features": in_features,
            "xy": self.positions.tobytes(),
            "near": near.tobytes(),
            "ranks": ranks.tobytes(),
            "partners": partners.tobytes(),
            "columns": {name: np.array(some, np.int32).tobytes() for name, some in columns.items()},
            "confidence": sure,
        }

    def __repr__(self) -> str:
        return f"Explorer of {len(self.table)} points: run this cell to see it live"

    @property
    def hues(self) -> list[str]:
        """What the map can be coloured by."""
        return [*(["class"] if (self.table["true_class"] != "").any() else []), *self._words, "modality"]

    @property
    def selected(self) -> pd.DataFrame:
        """The rows of `table` that are selected in the page."""
        return self.table.iloc[np.frombuffer(bytes(self.map.selection), np.int32)]

    def _answer(self, wanted: Mapping[str, Any]) -> None:
        """Send the page the cards of scenes."""
        if "cards" in wanted:
            self.map.send({"cards": {str(scene): self.card(int(scene)) for scene in wanted["cards"]}})

    def card(self, scene: int) -> str:
        """One scene as HTML: its images, its class, the predictions of each of its points."""
        views, lines = self.table[self.table["scene"] == scene], []
        for _, point in views.iterrows():
            if words := [word for word in self._words if point[word] >= 0]:
                found = [self.cards.prediction(point[w], point[f"{w}_confidence"]) for w in words]
                who = written(style.modality_style(point["modality"]).short)
                lines.append(f"<small>{who}:</small> {' → '.join(found)}")
        return self.cards.card(scene, lines, dict(zip(views["modality"], views.index, strict=True)))

    def still(self, dpi: float = 100) -> Any:
        """A picture of the map, for readers without a kernel."""
        hue = "modality" if self.map.hue == "modality" else "class"
        with session.DRAW:
            made = map_figures.feature_map(self.clouds, self.cards.classes, hue=hue, title=self.view)
            return style.show(made, dpi)
