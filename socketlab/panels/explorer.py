"""A linked explorer: select points of a feature map, see their images in every modality.

Beside the images stand the class counts of the selection, predictions before and after adaptation, and the
nearest neighbours of a point in feature space. Python prepares the numbers; the page (`explorer.js`, a 2-D
canvas through anywidget) draws, selects and counts. It asks the kernel for cards of images only, and
`Explorer.html` holds these too: a page of its own, without a kernel or a server.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import ipywidgets as widgets
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
import traitlets
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError
from socketlab.figures import figures, maps
from socketlab.figures.figures import Cloud
from socketlab.files import csv_text
from socketlab.images import encodings
from socketlab.images.paired_images import PairedImages
from socketlab.method import evaluate
from socketlab.networks.checkpoints import Source
from socketlab.panels import session
from socketlab.panels.cards import (
    STYLE,
    UNKNOWN,
    Indices,
    Thumbnails,
    as_cloud,
    card,
    on_cpu,
    point_table,
    written,
)

Floats = NDArray[np.float32]
NEIGHBOURS = 6
HERE = Path(__file__).parent
SCRIPT = "\n".join(
    path.read_text(encoding="utf-8")
    for path in (Path(figures.__file__).with_name("scatter.js"), HERE / "explorer.js")
)
CSS = (HERE / "explorer.css").read_text(encoding="utf-8") + STYLE
PAGE_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>:root { color-scheme: light dark; font-family: system-ui, sans-serif; }</style>"""


# ------------------------------------------------------------------------ neighbours


def partners_of(scenes: Indices) -> Indices:
    """(N, P) the other views of each point's scene, rising; filled up with -1."""
    groups = list(pd.Series(scenes).groupby(scenes).groups.items())
    found = np.full((len(scenes), max(len(rows) for _, rows in groups) - 1), -1, np.int32)
    for scene, rows in groups:
        for row in rows if scene >= 0 else ():
            found[row, : len(rows) - 1] = rows.drop(row)
    return found


def neighbours(values: Floats, partners: Indices, count: int = NEIGHBOURS) -> tuple[Indices, Indices]:
    """Nearest points (Euclidean) of every point, nearest first, and the place of its partners among all.

    Parameters
    ----------
    values : (N, D).
    partners : (N, P), -1 where there is none.

    Returns
    -------
    (N, min(count, N - 1)) indices, and (N, P) ranks from 1 on.
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


# ------------------------------------------------------------------------ the explorer


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
    status = traitlets.Unicode().tag(sync=True)
    selection = traitlets.Any(b"").tag(sync=True, echo_update=False)  # bytes out, a memoryview in
    focus = traitlets.Int(-1).tag(sync=True)
    cards = traitlets.Dict().tag(sync=True)


class View(NamedTuple):
    """One map: (N, 2) positions, and the features (N, D) that neighbours are looked for in."""

    points: Floats
    features: Floats | None = None


class Explorer(widgets.VBox):
    """Select points in a feature map; see their images, classes, predictions and neighbours.

    Parameters
    ----------
    points : name -> `figures.Cloud` or (n, 2) positions; a plain array is of the modality it is named after.
    images : `PairedImages`, or modality -> (S, C, H, W) images (uint8, uint16 millimetres, or float). Scene i
        is row i of every modality; a modality may have fewer scenes than another.
    features : name -> (n, D) features that neighbours are looked for in; without them, on the map.
    before, after : name -> (n, K) logits before and after adaptation, of the clouds that have them.
    classes : names of the classes; taken from `PairedImages` when they have some.
    scenes : name -> (n,) the scene each point is a view of; without it, point i of a cloud is scene i.
    names : one per scene; taken from `PairedImages`.
    view : name of this map.
    height : of the map, pixels; it is as wide as there is room.

    Attributes
    ----------
    table : a row per point, as `point_table` makes it.
    views : map name -> `View`; `add_view` adds one, `show` switches.
    map : the widget of the page.
    box : where errors are shown.
    """

    def __init__(
        self,
        points: Mapping[str, Cloud | ArrayLike],
        images: PairedImages | Mapping[str, Any],
        features: Mapping[str, ArrayLike] | None = None,
        *,
        before: Mapping[str, ArrayLike] | None = None,
        after: Mapping[str, ArrayLike] | None = None,
        classes: Sequence[str] = (),
        scenes: Mapping[str, ArrayLike] | None = None,
        names: Sequence[str] = (),
        view: str = "map",
        height: int = 520,
    ) -> None:
        paired = images if isinstance(images, PairedImages) else None
        stored: Mapping[str, Any] = paired.images if paired is not None else images  # type: ignore[assignment]
        self.classes = tuple(classes) or (paired.classes if paired is not None else ())
        self.names = names or (paired.names if paired is not None else ())
        kinds = paired.kinds if paired is not None else ()
        labels = [self.classes.index(kind) if kind in self.classes else UNKNOWN for kind in kinds]
        self.clouds = {name: as_cloud(name, given) for name, given in points.items()}
        self._words = {word: given for word, given in (("before", before), ("after", after)) if given}
        self.table = point_table(self.clouds, scenes or {}, labels, self._words)
        self.thumbnails = Thumbnails(stored)
        self.modalities = tuple(dict.fromkeys([*stored, *self.table["modality"]]))
        self.partners = partners_of(self.table["scene"].to_numpy())
        self.views: dict[str, View] = {}
        self._rows: Indices = np.empty(0, np.int32)
        self.box = session.ErrorBox()
        self._work: session.Background[Callable[[], None]] = session.Background(lambda job: job(), self.box)
        self.map = FeatureMap(points=self._packed(), height=height, hue=self.hues[0])
        super().__init__([self.box, self.map])
        self.add_class("socketlab-explorer")
        self.add_view(view, {name: cloud.points for name, cloud in self.clouds.items()}, features)
        self.map.on_msg(session.guarded(self.box, lambda _, content, __: self._answer(content)))
        self.map.observe(session.guarded(self.box, lambda change: self._take(change["new"])), "selection")

    def __repr__(self) -> str:
        return f"Explorer of {len(self.table)} points: run this cell to see it live"

    # selecting

    @property
    def selected(self) -> dict[str, Indices]:
        """Numbers of the selected points, by set."""
        chosen = self.table.iloc[self._rows]
        return {name: chosen.loc[chosen["set"] == name, "point"].to_numpy() for name in self.clouds}

    def rows(self, which: ArrayLike, cloud: str | None = None) -> Indices:
        """Return rows of the table for truth values or numbers of points, of one set or of all.

        Raises
        ------
        LabError : no such set, a mask of another length, a number that is no point.
        """
        if cloud is not None and cloud not in self.clouds:
            raise LabError(f"There is no set of points {cloud!r}; choose among {', '.join(self.clouds)}.")
        rows = np.flatnonzero((self.table["set"] == cloud) | (cloud is None)).astype(np.int32)
        chosen = on_cpu(which)
        if chosen.dtype == bool and chosen.shape != rows.shape:
            raise LabError(f"The mask has shape {chosen.shape}; {len(rows)} points need ({len(rows)},).")
        if chosen.size and chosen.dtype != bool:
            if not np.issubdtype(chosen.dtype, np.integer):
                raise LabError(f"Points are chosen by whole numbers or truth values, not by {chosen.dtype}.")
            if not (chosen.min() >= 0 and chosen.max() < len(rows)):
                span = f"{chosen.min()} to {chosen.max()}"
                raise LabError(f"Points are numbered from 0 to {len(rows) - 1}, not {span}.")
        return np.unique(rows[chosen if chosen.size else []])

    def select(self, which: ArrayLike, cloud: str | None = None) -> None:
        """Select points by truth values or numbers, of one set or (in the order of the sets) of all."""
        with self.map.hold_sync():
            self.map.selection, self.map.focus = self.rows(which, cloud).tobytes(), -1

    def select_class(self, name: str, by: str = "class") -> None:
        """Select all points of a class: the true one ("class"), or the one predicted "before" or "after"."""
        if name not in self.classes:
            raise LabError(f"There is no class {name!r}; choose among {', '.join(self.classes)}.")
        if by != "class" and by not in self._words:
            raise LabError(f"There are no predictions {by!r}; choose among {', '.join(self.hues)}.")
        found = self.table["label" if by == "class" else by]
        self.select((found == self.classes.index(name)).to_numpy())

    def clear(self) -> None:
        """Select nothing."""
        self.select([])

    def look_at(self, number: int, cloud: str | None = None) -> None:
        """Show the neighbours of a point; the selection stays."""
        self.map.focus = int(self.rows([number], cloud)[0])

    def _take(self, sent: bytes) -> None:
        self._rows = self.rows(np.frombuffer(bytes(sent), np.int32))

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the selection as CSV, a row per point; written to `path` if one is given."""
        table = self.table.assign(name=[self._name(scene) for scene in self.table["scene"]])
        table = table.assign(true_class=[self._class(label) for label in table.pop("label")])
        for word in self._words:
            sure = table[f"{word}_confidence"].map("{:.4f}".format)
            table[f"{word}_confidence"] = sure.where(table[word] >= 0, "")
            table[word] = [self._class(label) for label in table[word]]
        table["x"], table["y"] = self.views[self.map.view].points.T
        text = csv_text(table.iloc[self._rows].to_dict("records"), list(table))
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _class(self, label: int) -> str:
        """A class by name; "" where it is not known."""
        return "" if label < 0 else self.classes[label] if label < len(self.classes) else f"class {label}"

    def _name(self, scene: int) -> str:
        return str(self.names[scene]) if 0 <= scene < len(self.names) else ""

    # maps and colours

    @property
    def hues(self) -> list[str]:
        """What the map can be coloured by."""
        return [*(["class"] if (self.table["label"] >= 0).any() else []), *self._words, "modality"]

    def add_view(
        self,
        name: str,
        points: Mapping[str, ArrayLike],
        features: Mapping[str, ArrayLike] | None = None,
        show: bool = True,
    ) -> None:
        """Add a map of the same points, or replace one; neighbours are looked for in its features."""
        view = View(self._stack(points, 2), None if features is None else self._stack(features))
        near, ranks = neighbours(view.points if view.features is None else view.features, self.partners)
        packed = {"xy": view.points.tobytes(), "near": near.tobytes(), "ranks": ranks.tobytes()}
        self.views[name] = view
        with self.map.hold_sync():
            self.map.views = self.map.views | {name: packed | {"in_features": features is not None}}
            if show:
                self.map.view = name

    def show(self, name: str) -> None:
        """Switch to a map."""
        if name not in self.views:
            raise LabError(f"There is no map {name!r}; choose among {', '.join(self.views)}.")
        self.map.view = name

    def colour_by(self, hue: str) -> None:
        """Colour the map by true "class", by the class predicted "before" or "after", or by "modality"."""
        if hue not in self.hues:
            raise LabError(f"The map cannot be coloured by {hue!r}; choose among {', '.join(self.hues)}.")
        self.map.hue = hue

    def _stack(self, given: Mapping[str, ArrayLike], width: int | None = None) -> Floats:
        """(N, width) float32 of all clouds, checked."""
        sizes = {name: len(cloud.points) for name, cloud in self.clouds.items()}
        if set(given) != set(sizes):
            raise LabError(f"One array for each of {', '.join(sizes)} is needed, not for {', '.join(given)}.")
        arrays = {name: np.asarray(on_cpu(given[name]), np.float32) for name in sizes}
        shapes = {array.shape for array in arrays.values()}
        wide = width or max(shape[-1] if shape else 0 for shape in shapes)
        if any(array.shape != (sizes[name], wide) for name, array in arrays.items()):
            found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            wanted = ", ".join(f"{name} ({size}, {width or 'D'})" for name, size in sizes.items())
            raise LabError(f"Arrays of shapes {wanted} are needed, not {found}.")
        stacked = np.concatenate(list(arrays.values()))
        if not np.isfinite(stacked).all():
            raise LabError("Positions and features must be finite; there are NaN or infinite numbers.")
        return np.ascontiguousarray(stacked)

    # the page

    def _packed(self) -> dict[str, Any]:
        """All that the page needs to know of the points; arrays as bytes."""
        sets = []
        for cloud in self.clouds.values():
            look = figures.modality_style(cloud.modality)
            about = {"short": look.short, "marker": look.marker, "colour": look.colour, "pale": look.pale}
            sets.append(about | {"title": cloud.title, "size": len(cloud.points)})
        columns = {name: self.table[name].to_numpy(np.int32) for name in ("label", "scene", *self._words)}
        sure = {word: self.table[f"{word}_confidence"].to_numpy(np.float32) for word in self._words}
        return {
            "sets": sets,
            "classes": list(self.classes),
            "colours": [figures.class_colour(label) for label in range(max(len(self.classes), 10))],
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
        views = self.table[self.table["scene"] == scene]
        lines = []
        for _, point in views.iterrows():
            steps = [
                f"{written(self._class(point[word]))} {100 * point[f'{word}_confidence']:.0f} %".replace(
                    " ", "&nbsp;"
                )
                for word in self._words
                if point[word] >= 0
            ]
            if steps:
                who = written(figures.modality_style(point["modality"]).short)
                lines.append(f"<small>{who}:</small> {' → '.join(steps)}")
        label = int(views["label"].iloc[0])
        points = dict(zip(views["modality"], views.index, strict=True))
        colour = figures.class_colour(label) if label >= 0 else ""
        about: dict[str, Any] = {"label": self._class(label), "colour": colour, "name": self._name(scene)}
        return card(self.thumbnails, scene, self.modalities, lines=lines, points=points, **about)

    def html(self, title: str = "Feature map") -> str:
        """Return the explorer as a page that stands alone, cards included: no kernel, server or network."""
        names = ("height", "points", "views", "view", "hue", "links", "focus")
        state = {name: getattr(self.map, name) for name in names}
        cards = {str(scene): self.card(scene) for scene in self.table["scene"].unique()}
        state |= {"selection": self._rows.tobytes(), "status": "", "cards": cards, "alone": True}
        stored = json.dumps(_as_text(state)).replace("<", "\\u003c")
        head = (PAGE_HEAD, f"<title>{written(title)}</title><style>{CSS}</style>")
        body = f'<h1>{written(title)}</h1><div class="socketlab-explorer" id="explorer"></div>'
        data = f'<script type="application/json" id="state">{stored}</script>'
        return "".join((*head, body, data, f'<script type="module">{SCRIPT}\nalone();</script></html>\n'))

    def still(self, dpi: float = 100) -> Any:
        """Return a picture of the map, for readers without a kernel."""
        clouds = {}
        for name, cloud in self.clouds.items():
            rows = self.rows(np.arange(len(cloud.points)), name)
            labels = self.table["label"].to_numpy(np.int64)[rows]
            known = labels if len(rows) and (labels >= 0).all() else None
            clouds[name] = replace(cloud, points=self.views[self.map.view].points[rows], labels=known)
        hue = "modality" if self.map.hue == "modality" else "class"
        with session.DRAW:
            return figures.show(figures.feature_map(clouds, self.classes, hue=hue, title=self.map.view), dpi)

    # work in the background

    def later(self, work: Callable[[], None]) -> None:
        """Do slow work, such as another map, in a thread; its errors appear in the box."""
        self._work.post(work, at_once=True)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the work in the background; False when the time was not enough."""
        return self._work.wait(timeout)


def _as_text(value: Any) -> Any:
    """The same with bytes as base64, for JSON."""
    if isinstance(value, dict):
        return {name: _as_text(one) for name, one in value.items()}
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


# ------------------------------------------------------------------------ from networks and images


def explore(
    source: Source | Mapping[str, Source],
    images: PairedImages,
    adapted: Source | None = None,
    *,
    umap: bool = True,
    seed: int = 0,
    **more: Any,
) -> Explorer:
    """Return an explorer of the features of networks: PCA at once, UMAP as soon as it is ready.

    Parameters
    ----------
    source : the network before adaptation. It reads every modality, each with the normalisation measured on
        these very images where it is not its own; or modality -> network.
    images : views of the same scenes.
    adapted : the network after adaptation; it reads its own modality in place of `source`, and its maps come
        beside those before.
    umap : make UMAPs too, in the background.
    seed : of the UMAP.
    more : passed on to `Explorer`.
    """
    networks = {m: _reader(source, images.only(m), m) for m in images.modalities}
    before = {m: evaluate.predict(network, images.only(m)) for m, network in networks.items()}
    sets = {"before" if adapted else "": {m: found[1].cpu().numpy() for m, found in before.items()}}
    after = None
    if adapted is not None:
        logits, found = evaluate.predict(adapted, images.only(adapted.modality))
        after = {adapted.modality: logits}
        sets["after"] = sets["before"] | {adapted.modality: found.cpu().numpy()}
    last, *earlier = reversed(list(sets))
    points = maps.pca_map(sets[last])
    made = Explorer(
        {m: Cloud(found, m, figures.modality_style(m).title) for m, found in points.items()},
        images,
        sets[last],
        before={m: found[0] for m, found in before.items()},
        after=after,
        classes=more.pop("classes", None) or next(iter(networks.values())).classes,
        view=_title("PCA", last),
        **more,
    )
    for word in earlier:
        made.add_view(_title("PCA", word), maps.pca_map(sets[word]), sets[word], show=False)
    if umap:
        maps.warm_up()
        made.map.status = "A UMAP is being made; PCA meanwhile."
        made.later(lambda: _make_umaps(made, sets, seed))
    return made


def _title(kind: str, word: str) -> str:
    return f"{kind}, {word}" if word else kind


def _reader(source: Source | Mapping[str, Source], images: PairedImages, modality: str) -> Source:
    """The network that reads a modality, normalised by these images where it was trained on another one."""
    if isinstance(source, Mapping):
        if modality not in source:
            raise LabError(f"There is no network for {modality} images, only for {', '.join(source)}.")
        return source[modality]
    if source.modality == modality:
        return source
    return replace(source, normalisation=encodings.measure(images.images[modality], modality))


def _make_umaps(made: Explorer, sets: Mapping[str, Mapping[str, Floats]], seed: int) -> None:
    """The last set first, since it is the one shown; the others begin from its layout."""
    start = None
    for word in reversed(list(sets)):
        points = maps.joint_map(sets[word], seed=seed, start=start)
        start = start or points
        made.add_view(_title("UMAP", word), points, sets[word], show=start is points)
    made.map.status = ""
