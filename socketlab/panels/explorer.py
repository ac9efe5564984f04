"""A linked explorer: select points of a feature map, see their images in every modality.

Beside the images stand the class counts of the selection, predictions before and after adaptation, and the
nearest neighbours of a point in feature space. Python prepares the numbers; the page (`explorer.js`, a 2-D
canvas through anywidget) draws, selects and counts, and asks the kernel for cards of images only.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from socketlab.figures import map_figures, maps, style
from socketlab.figures.map_figures import Cloud
from socketlab.files import csv_text
from socketlab.images.paired_images import PairedImages
from socketlab.method import evaluate
from socketlab.networks.checkpoints import Source, source_for_modality
from socketlab.panels import session
from socketlab.panels.cards import STYLE, UNKNOWN, Cards, Images, Indices, on_cpu, point_table, written

Arrays = Mapping[str, ArrayLike]
Floats = NDArray[np.float32]
NEIGHBOURS = 6
HERE = Path(__file__).parent
SCATTER = Path(style.__file__).with_name("scatter.js")
SCRIPT = "\n".join(path.read_text(encoding="utf-8") for path in (SCATTER, HERE / "explorer.js"))
CSS = (HERE / "explorer.css").read_text(encoding="utf-8") + STYLE
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}</style>
<title>{title}</title><style>{css}</style><h1>{title}</h1><div class="socketlab-explorer" id="explorer"></div>
<script type="application/json" id="state">{state}</script>
<script type="module">{script}\nalone();</script></html>
"""


def partners_of(scenes: Indices) -> Indices:
    """(N, P) the other views of each point's scene, rising; filled up with -1."""
    groups = pd.Series(scenes).groupby(scenes).groups.values()
    found = np.full((len(scenes), max(map(len, groups)) - 1), -1, np.int32)
    for rows in groups:
        for row in rows:
            found[row, : len(rows) - 1] = rows.drop(row)
    return found


def neighbours(values: Floats, partners: Indices, count: int = NEIGHBOURS) -> tuple[Indices, Indices]:
    """Nearest points (Euclidean) of every point, and the place of its partners among all.

    Parameters
    ----------
    values, partners : (N, D), and (N, P) as of `partners_of`.

    Returns
    -------
    (N, min(count, N - 1)) indices, nearest first, and (N, P) ranks from 1 on.
    """
    x = torch.from_numpy(np.ascontiguousarray(values)).double()
    near, ranks = [], []
    for rows in torch.arange(len(x)).split(512):
        distance = torch.cdist(x[rows] - x.mean(dim=0), x - x.mean(dim=0))
        distance[torch.arange(len(rows)), rows] = torch.inf
        near.append(distance.topk(min(count, len(x) - 1), largest=False).indices.int())
        away = distance.gather(1, torch.from_numpy(partners).long()[rows].clamp(min=0))
        ranks.append(1 + (distance[:, None] < away[..., None]).sum(dim=2).int())
    return torch.cat(near).numpy(), torch.cat(ranks).numpy()


class FeatureMap(anywidget.AnyWidget):
    """The page's side: draws, selects, counts. See explorer.js."""

    _esm = SCRIPT
    _css = CSS
    height = traitlets.Int(520).tag(sync=True)
    points = traitlets.Dict().tag(sync=True)
    views = traitlets.Dict().tag(sync=True)
    view = traitlets.Unicode().tag(sync=True)
    hue = traitlets.Unicode("modality").tag(sync=True)
    links = traitlets.Bool(False).tag(sync=True)
    selection = traitlets.Any(b"").tag(sync=True, echo_update=False)  # bytes out, a memoryview in
    focus = traitlets.Int(-1).tag(sync=True)
    cards = traitlets.Dict().tag(sync=True)


class Explorer(widgets.VBox):
    """Select points in a feature map; see their images, classes, predictions and neighbours.

    Parameters
    ----------
    points : name -> `Cloud` or (n, 2) positions, of scene i in row i; a plain array is of the modality it is
        named after.
    images : `PairedImages`, or modality -> (S, C, H, W) images (uint8, uint16 millimetres, or float). Scene i
        is row i of every modality; a modality may have fewer scenes than another.
    features : name -> (n, D) features that neighbours are looked for in; without them, on the map.
    before, after : name -> (n, K) logits before and after adaptation, of the clouds that have them.
    classes : their names; taken from `PairedImages` by default.
    view : name of this map.

    Attributes
    ----------
    table : a row per point: `cards.point_table`, with the name and true class of its scene.
    views : map name -> (N, 2) positions; `add_view` adds one, ``map.view = name`` shows it.
    map : the widget of the page; its `hue` is one of `hues`, its `focus` the row of the point whose
        neighbours are shown, its `height` in pixels.
    """

    def __init__(
        self,
        points: Mapping[str, Cloud | ArrayLike],
        images: Images,
        features: Arrays | None = None,
        *,
        before: Arrays | None = None,
        after: Arrays | None = None,
        classes: Sequence[str] = (),
        view: str = "map",
    ) -> None:
        self.cards = Cards(images, classes)
        self.classes = self.cards.classes
        number = {name: label for label, name in enumerate(self.classes)}
        labels = [number.get(kind, UNKNOWN) for kind in self.cards.kinds]
        self.clouds = {
            n: c if isinstance(c, Cloud) else Cloud(np.array(on_cpu(c), np.float32, ndmin=1), n, n)
            for n, c in points.items()
        }
        self._words = {word: given for word, given in (("before", before), ("after", after)) if given}
        self.table = point_table(self.clouds, labels, self._words)
        self.table["name"] = [self.cards.names.get(scene, "") for scene in self.table["scene"]]
        self.table["true_class"] = self.table["label"].map(self.cards.class_name)
        self.partners = partners_of(self.table["scene"].to_numpy())
        self.views: dict[str, Floats] = {}
        self._rows: Indices = np.empty(0, np.int32)
        self.box = session.ErrorBox()
        self.map = FeatureMap(points=self._packed(), hue=self.hues[0])
        super().__init__([self.box, self.map])
        self.add_class("socketlab-explorer")
        self.add_view(view, {name: cloud.points for name, cloud in self.clouds.items()}, features)
        self.map.view = view
        self.map.on_msg(session.guarded(self.box, lambda _, content, __: self._answer(content)))
        self.map.observe(session.guarded(self.box, lambda change: self._take(change["new"])), "selection")

    def __repr__(self) -> str:
        return f"Explorer of {len(self.table)} points: run this cell to see it live"

    @property
    def selected(self) -> pd.DataFrame:
        """The rows of `table` that are selected."""
        return self.table.iloc[self._rows]

    def select(self, which: ArrayLike) -> None:
        """Select points by truth values for all rows of `table`, or by numbers of rows."""
        with self.map.hold_sync():
            self.map.selection, self.map.focus = self._checked(which).tobytes(), -1

    def _checked(self, which: ArrayLike) -> Indices:
        """Rows of the table, rising."""
        chosen, count = on_cpu(which), len(self.table)
        if chosen.dtype == bool and chosen.shape != (count,):
            raise LabError(f"The mask has shape {chosen.shape}; {count} points need ({count},).")
        if chosen.dtype != bool and chosen.size:
            if chosen.dtype.kind not in "iu":
                raise LabError(f"Points are chosen by whole numbers or truth values, not by {chosen.dtype}.")
            if not 0 <= chosen.min() <= chosen.max() < count:
                span = f"{chosen.min()} to {chosen.max()}"
                raise LabError(f"Points are numbered from 0 to {count - 1}, not {span}.")
        return np.unique(np.arange(count, dtype=np.int32)[chosen if chosen.size else []])

    def _take(self, sent: bytes) -> None:
        self._rows = self._checked(np.frombuffer(bytes(sent), np.int32))

    def to_csv(self) -> str:
        """Return the selection as CSV, a row per point."""
        table = self.selected.drop(columns="label")
        for word in self._words:
            sure = table[f"{word}_confidence"].map("{:.4f}".format)
            table[f"{word}_confidence"] = sure.where(table[word] >= 0, "")
            table[word] = table[word].map(self.cards.class_name)
        table["x"], table["y"] = self.views[self.map.view][self._rows].T
        return csv_text(table.to_dict("records"), list(table))

    @property
    def hues(self) -> list[str]:
        """What the map can be coloured by."""
        return [*(["class"] if (self.table["label"] >= 0).any() else []), *self._words, "modality"]

    def add_view(self, name: str, points: Arrays, features: Arrays | None = None) -> None:
        """Add a map of the same points, or replace one; neighbours are looked for in its features."""
        at = self._stack(points, 2)
        near, ranks = neighbours(at if features is None else self._stack(features), self.partners)
        packed = {"xy": at.tobytes(), "near": near.tobytes(), "ranks": ranks.tobytes()}
        self.views[name] = at
        self.map.views = self.map.views | {name: packed | {"in_features": features is not None}}

    def _stack(self, given: Arrays, width: int | None = None) -> Floats:
        """(N, width) float32 of all clouds, checked."""
        sizes = {name: len(cloud.points) for name, cloud in self.clouds.items()}
        if set(given) != set(sizes):
            raise LabError(f"One array for each of {', '.join(sizes)} is needed, not for {', '.join(given)}.")
        arrays = {name: np.asarray(on_cpu(given[name]), np.float32) for name in sizes}
        wide = width or max(array.shape[-1] if array.ndim else 0 for array in arrays.values())
        if any(array.shape != (sizes[name], wide) for name, array in arrays.items()):
            found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            wanted = ", ".join(f"{name} ({size}, {width or 'D'})" for name, size in sizes.items())
            raise LabError(f"Arrays of shapes {wanted} are needed, not {found}.")
        stacked = np.concatenate(list(arrays.values()))
        if not np.isfinite(stacked).all():
            raise LabError("Positions and features must be finite; there are NaN or infinite numbers.")
        return np.ascontiguousarray(stacked)

    def _packed(self) -> dict[str, Any]:
        """What the page needs of the points; arrays as bytes."""
        sets = []
        for cloud in self.clouds.values():
            look = style.modality_style(cloud.modality)
            about = {name: getattr(look, name) for name in ("short", "marker", "colour", "pale")}
            sets.append(about | {"title": cloud.title, "size": len(cloud.points)})
        columns = {name: self.table[name].to_numpy(np.int32) for name in ("label", "scene", *self._words)}
        sure = {word: self.table[f"{word}_confidence"].to_numpy(np.float32) for word in self._words}
        return {
            "sets": sets,
            "classes": list(self.classes),
            "colours": [style.class_colour(label) for label in range(max(len(self.classes), 10))],
            "hues": self.hues,
            "words": list(self._words),
            "partners": self.partners.tobytes(),
            "columns": {name: values.tobytes() for name, values in columns.items()},
            "confidence": {name: values.tobytes() for name, values in sure.items()},
        }

    def _answer(self, wanted: Mapping[str, Any]) -> None:
        """Send the page the cards of scenes, or the selection as a table."""
        if "cards" in wanted:
            self.map.send({"cards": {str(scene): self.card(int(scene)) for scene in wanted["cards"]}})
        if "csv" in wanted:
            self.map.send({"csv": self.to_csv()})

    def card(self, scene: int) -> str:
        """Return one scene as HTML: its images, its class, the predictions of each of its points."""
        views, lines = self.table[self.table["scene"] == scene], []
        for _, point in views.iterrows():
            if words := [word for word in self._words if point[word] >= 0]:
                found = [self.cards.prediction(point[w], point[f"{w}_confidence"]) for w in words]
                who = written(style.modality_style(point["modality"]).short)
                lines.append(f"<small>{who}:</small> {' → '.join(found)}")
        points = dict.fromkeys([*self.cards.images, *self.table["modality"].unique()])
        points |= dict(zip(views["modality"], views.index, strict=True))
        return self.cards.card(scene, views["true_class"].iloc[0], lines, points)

    def html(self, title: str = "Feature map") -> str:
        """Return the explorer as a page that stands alone, cards included: no kernel, server or network."""
        names = ("height", "points", "views", "view", "hue", "links", "focus")
        state = {name: getattr(self.map, name) for name in names}
        found = {str(scene): self.card(scene) for scene in self.table["scene"].unique()}
        state |= {"selection": self._rows.tobytes(), "cards": found, "alone": True}
        text = json.dumps(state, default=lambda array: base64.b64encode(array).decode())
        text = text.replace("<", "\\u003c")
        return PAGE.format(title=written(title), css=CSS, state=text, script=SCRIPT)

    def still(self, dpi: float = 100) -> Any:
        """Return a picture of the map, for readers without a kernel."""
        clouds = {}
        for name, cloud in self.clouds.items():
            rows = np.flatnonzero(self.table["set"] == name)
            labels = self.table["label"].to_numpy(np.int64)[rows]
            known = labels if len(rows) and (labels >= 0).all() else None
            clouds[name] = replace(cloud, points=self.views[self.map.view][rows], labels=known)
        hue = "modality" if self.map.hue == "modality" else "class"
        with session.DRAW:
            made = map_figures.feature_map(clouds, self.classes, hue=hue, title=self.map.view)
            return style.show(made, dpi)


def explore(
    source: Source,
    images: PairedImages,
    adapted: Source | None = None,
    make: Callable[[Arrays], dict[str, Floats]] = maps.pca_map,
) -> Explorer:
    """Return an explorer of the features of a network.

    The source reads every modality of the images (`source_for_modality`). An adapted network reads its own
    modality in place of the source; then there are maps before and after. `make` makes them: `maps.pca_map`
    at once, `maps.joint_map` (UMAP) in seconds.
    """
    parts = {m: images.only(m) for m in images.modalities}
    seen = {m: evaluate.predict(source_for_modality(source, part), part) for m, part in parts.items()}
    before = {m: features.cpu().numpy() for m, (_, features) in seen.items()}
    sets, after = {"map": before}, {}
    if adapted is not None:
        m = adapted.modality
        after[m], features = evaluate.predict(adapted, parts[m])
        sets = {"after": before | {m: features.cpu().numpy()}, "before": before}
    (newest, points), *others = ((when, make(some)) for when, some in sets.items())
    clouds = {m: Cloud(at, m, style.modality_style(m).title) for m, at in points.items()}
    logits = {m: logits for m, (logits, _) in seen.items()}
    about: dict[str, Any] = {"before": logits, "after": after, "classes": source.classes}
    made = Explorer(clouds, images, sets[newest], view=newest, **about)
    for when, points in others:
        made.add_view(when, points, sets[when])
    return made
