"""Points of a feature map as cards: their images in every modality, classes, predictions, neighbours.

Plain values and HTML; the widgets that show them are in `explorer`. True classes are for the reader only:
nothing here computes with them.
"""

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow

from socketlab.errors import LabError
from socketlab.figures import figures
from socketlab.figures.figures import Cloud

Indices = NDArray[np.int32]
MOST_SHOWN = 24  # cards at a time
SIDE = 72  # of a thumbnail, pixels
UNKNOWN = -1
READER = "for the reader only: no method sees it"
_KEPT_THUMBNAILS = 4000


# ------------------------------------------------------------------------ plain values


@dataclass(frozen=True)
class Said:
    """What a classifier said of N points: class (UNKNOWN where it was not asked) and its probability."""

    classes: Indices
    confidence: NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """One map: (N, 2) positions, and the features (N, D) that neighbours are looked for in."""

    points: NDArray[np.float32]
    features: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Table:
    """All points of all clouds in one order, cloud after cloud.

    Parameters
    ----------
    clouds : name -> cloud, with the positions that came first.
    scenes : (N,) which scene each point is a view of.
    labels : (N,) true class, UNKNOWN where there is none.
    said : "before" and "after" -> what a classifier said.
    """

    clouds: dict[str, Cloud]
    scenes: Indices
    labels: Indices
    said: dict[str, Said] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def starts(self) -> Indices:
        """Index of each cloud's first point, and N."""
        return np.cumsum([0, *[len(cloud.points) for cloud in self.clouds.values()]]).astype(np.int32)

    def cloud_of(self, index: int) -> tuple[str, int]:
        """Name of a point's cloud, and its number there."""
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        return list(self.clouds)[place], int(index - self.starts[place])

    def rows(self, cloud: str) -> Indices:
        """Indices of the points of one cloud."""
        if cloud not in self.clouds:
            raise LabError(f"There is no set of points {cloud!r}; choose among {', '.join(self.clouds)}.")
        place = list(self.clouds).index(cloud)
        return np.arange(self.starts[place], self.starts[place + 1], dtype=np.int32)

    def modality(self, index: int) -> str:
        """The modality that a point is an image of."""
        return self.clouds[self.cloud_of(index)[0]].modality


def make_table(
    points: Mapping[str, Cloud | ArrayLike],
    scenes: Mapping[str, ArrayLike] | None = None,
    scene_labels: ArrayLike | None = None,
    before: Mapping[str, ArrayLike] | None = None,
    after: Mapping[str, ArrayLike] | None = None,
) -> Table:
    """Check what an explorer is given, and line it up.

    Parameters
    ----------
    points : name -> cloud or (n, 2) positions; a plain array is of the modality that it is named after.
    scenes : name -> (n,) the scene of each point; without it, point i of a cloud is scene i.
    scene_labels : (S,) true class of each scene; a cloud's own labels go before.
    before, after : name -> (n, K) logits.

    Raises
    ------
    LabError : no points, lengths that do not fit, numbers that are not finite.
    """
    clouds = {name: _as_cloud(name, given) for name, given in points.items()}
    if not any(len(cloud.points) for cloud in clouds.values()):
        raise LabError("There is nothing to explore: no points were given.")
    for given in (scenes, before, after):
        strangers = set(given or ()) - set(clouds)
        if strangers:
            raise LabError(f"{sorted(strangers)} are no sets of points; there are {', '.join(clouds)}.")
    of_scene = {
        name: _numbers(
            (scenes or {}).get(name, np.arange(len(cloud.points))), len(cloud.points), name, "scene"
        )
        for name, cloud in clouds.items()
    }
    labels = [_labels_of(name, cloud, of_scene[name], scene_labels) for name, cloud in clouds.items()]
    said = {word: _said(clouds, given) for word, given in (("before", before), ("after", after)) if given}
    return Table(clouds, np.concatenate(list(of_scene.values())), np.concatenate(labels), said)


def _as_cloud(name: str, given: Cloud | ArrayLike) -> Cloud:
    cloud = given if isinstance(given, Cloud) else Cloud(np.asarray(given, np.float32), name, name)
    positions = np.asarray(cloud.points, np.float32)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise LabError(f"The points {name!r} have shape {positions.shape}; a map needs (n, 2).")
    if not np.isfinite(positions).all():
        raise LabError(f"The points {name!r} hold NaN or infinite numbers; they cannot be put on a map.")
    return replace(cloud, points=positions)


def _numbers(given: ArrayLike, count: int, name: str, what: str) -> Indices:
    found = np.asarray(given)
    if found.shape != (count,):
        raise LabError(f"{name!r} has {count} points, but {what} numbers of shape {found.shape}.")
    return found.astype(np.int32)


def _labels_of(name: str, cloud: Cloud, scenes: Indices, scene_labels: ArrayLike | None) -> Indices:
    if cloud.labels is not None:
        return _numbers(cloud.labels, len(scenes), name, "class")
    known = np.asarray([] if scene_labels is None else scene_labels, np.int32)
    found = np.full(len(scenes), UNKNOWN, np.int32)
    inside = (scenes >= 0) & (scenes < len(known))
    found[inside] = known[scenes[inside]]
    return found


def _said(clouds: Mapping[str, Cloud], logits: Mapping[str, ArrayLike]) -> Said:
    classes, confidence = [], []
    for name, cloud in clouds.items():
        count = len(cloud.points)
        if name not in logits:
            classes.append(np.full(count, UNKNOWN, np.int32))
            confidence.append(np.full(count, np.nan, np.float32))
            continue
        values = torch.as_tensor(on_cpu(logits[name]))
        if values.ndim != 2 or len(values) != count:
            raise LabError(
                f"{name!r} has {count} points, but logits of shape {tuple(values.shape)}: (n, K) needed."
            )
        top, index = values.float().softmax(dim=1).max(dim=1)
        classes.append(index.numpy().astype(np.int32))
        confidence.append(top.numpy())
    return Said(np.concatenate(classes), np.concatenate(confidence))


def on_cpu(given: ArrayLike) -> NDArray[Any]:
    """Numbers on the CPU, from wherever they are."""
    return given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)


def chosen_rows(table: Table, which: ArrayLike, cloud: str | None = None) -> Indices:
    """Points by truth values (one per point) or by their numbers, of one cloud or of all.

    Raises
    ------
    LabError : a mask of another length, a number that is no point.
    """
    rows = np.arange(len(table), dtype=np.int32) if cloud is None else table.rows(cloud)
    asked = on_cpu(which)
    if asked.dtype == bool:
        if asked.shape != rows.shape:
            raise LabError(f"The mask has shape {asked.shape}; {len(rows)} points need ({len(rows)},).")
        return rows[asked]
    asked = np.atleast_1d(asked)
    if asked.size and not np.issubdtype(asked.dtype, np.integer):
        raise LabError(f"Points are chosen by whole numbers or truth values, not by {asked.dtype}.")
    if asked.size and not (asked.min() >= 0 and asked.max() < len(rows)):
        raise LabError(
            f"Points are numbered from 0 to {len(rows) - 1}; {asked.min()} to {asked.max()} asked."
        )
    return np.unique(rows[asked.astype(np.int64)])


def nearest_to(values: NDArray[np.float32], index: int, count: int) -> Indices:
    """The `count` rows nearest to row `index` (Euclidean), nearest first, itself left out."""
    distance = np.square(values - values[index]).sum(axis=1)
    distance[index] = np.inf
    count = min(count, len(values) - 1)
    some = (
        np.argpartition(distance, count - 1)[:count]
        if 0 < count < len(values) - 1
        else np.arange(len(values))
    )
    ordered = some[np.argsort(distance[some], kind="stable")]
    return ordered[ordered != index][:count].astype(np.int32)


def a_sample(rows: Indices, most: int = MOST_SHOWN) -> Indices:
    """At most `most` of them, the same ones each time, in their order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def middle_one(points: NDArray[np.float32], rows: Indices) -> int:
    """The one of these rows that lies nearest to their middle."""
    return int(rows[np.square(points[rows] - points[rows].mean(axis=0)).sum(axis=1).argmin()])


# ------------------------------------------------------------------------ thumbnails


class Thumbnails:
    """Small pictures of scenes, made when they are first asked for.

    Parameters
    ----------
    images : modality -> (n, C, H, W); scene i is row i, and a modality may have fewer scenes than another.
    """

    def __init__(self, images: Mapping[str, Any], side: int = SIDE) -> None:
        self.images, self.side = dict(images), side
        self._made: dict[tuple[str, int], str] = {}
        for modality, some in self.images.items():
            if len(some.shape) != 4 or some.shape[1] not in (1, 3):
                raise LabError(
                    f"{modality!r} images have shape {tuple(some.shape)}; thumbnails need (n, 1 or 3, H, W)."
                )
        self._reach = {m: _range_of(some) for m, some in self.images.items() if len(some)}

    def has(self, modality: str, scene: int) -> bool:
        """Whether there is an image of a scene in a modality."""
        return modality in self.images and 0 <= scene < len(self.images[modality])

    def picture(self, modality: str, scene: int) -> Pillow.Image:
        """Colours for the eye, at most twice as large as shown: near is bright, missing depth is pink."""
        image = on_cpu(self.images[modality][scene])
        low, high = self._reach[modality]
        depth = modality == "depth" and len(image) == 1 and image.dtype != np.uint8
        if depth and np.issubdtype(image.dtype, np.integer):
            places = np.where(image[0] == 0, 0, 1 + 254 * np.clip(image[0] / high, 0, 1)).astype(np.uint8)
            made = Pillow.fromarray(places)
            made.putpalette(_depth_palette())  # not averaged below: what lies between two depths is no depth
        else:
            if image.dtype != np.uint8:
                image = 255 * np.clip((image.astype(np.float32) - low) / (high - low), 0, 1)
            shown = np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))
            made = Pillow.fromarray(shown[..., 0] if len(image) == 1 else shown)
        made.thumbnail((2 * self.side, 2 * self.side))
        return made

    def url(self, modality: str, scene: int) -> str:
        """The picture as a data URL: JPEG for colours, else BMP, which loses nothing and takes no time."""
        key = (modality, scene)
        if key not in self._made:
            if len(self._made) >= _KEPT_THUMBNAILS:
                self._made.clear()
            made, file = self.picture(*key), io.BytesIO()
            kind = "jpeg" if made.mode == "RGB" else "bmp"
            made.save(file, kind, **({"quality": 92, "subsampling": 0} if kind == "jpeg" else {}))
            self._made[key] = f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()
        return self._made[key]


@cache
def _depth_palette() -> bytes:
    """256 colours: what the sensor missed, then from near to far, as `plots.paint` has them."""
    missing = np.array(matplotlib.colors.to_rgb(figures.MISSING))[None]
    depths = matplotlib.colormaps[figures.DEPTH_COLOURS](np.linspace(0, 1, 255))[:, :3]
    return np.round(255 * np.concatenate([missing, depths])).astype(np.uint8).tobytes()


def _range_of(images: Any) -> tuple[float, float]:
    """Where black and white lie: 0 and the 99th percentile of whole numbers, else 0 and 1 or the extremes."""
    some = on_cpu(images[:: max(1, len(images) // 64)])
    if np.issubdtype(some.dtype, np.integer):
        seen = some[some > 0]
        return 0.0, float(np.percentile(seen, 99)) if seen.size else 1.0
    low, high = float(np.nanmin(some)), float(np.nanmax(some))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-6))


# ------------------------------------------------------------------------ words and tables


@dataclass(frozen=True)
class Writer:
    """Turns points into HTML: cards with images, counts, neighbours.

    Parameters
    ----------
    names : one per scene, or none.
    modalities : in the order of a card's images.
    """

    table: Table
    thumbnails: Thumbnails
    classes: tuple[str, ...]
    names: Sequence[str] = ()
    modalities: tuple[str, ...] = ()

    def class_name(self, label: int) -> str:
        """A class in words."""
        if label < 0:
            return "unknown"
        return self.classes[label].replace("_", " ") if label < len(self.classes) else f"class {label}"

    def cards(self, rows: Indices, chosen: Indices, focus: int = -1) -> str:
        """One card per scene of these points; images of chosen points are framed."""
        picked = set(chosen.tolist())
        of_scene: dict[int, list[int]] = {}
        for row in rows.tolist():
            of_scene.setdefault(int(self.table.scenes[row]), []).append(row)
        parts = [self._card(scene, mine, picked, focus in mine) for scene, mine in of_scene.items()]
        return f'<div class="socketlab-cards" role="list">{"".join(parts)}</div>'

    def _card(self, scene: int, rows: list[int], picked: set[int], focus: bool) -> str:
        label = int(self.table.labels[rows[0]])
        name = self.names[scene] if 0 <= scene < len(self.names) else ""
        dot = (
            f'<span class="dot" style="background:{figures.class_colour(label)}"></span>'
            if label >= 0
            else ""
        )
        known = f" {dot}{html.escape(self.class_name(label))}" if label >= 0 else ""
        shown = {self.table.modality(row) for row in rows if row in picked}
        views = "".join(self._view(modality, scene, modality in shown) for modality in self.modalities)
        said = "".join(self._said(row) for row in rows)
        points = ",".join(str(row) for row in rows)
        return (
            f'<div class="socketlab-card{" focus" if focus else ""}" role="listitem" data-points="{points}" '
            f'title="{html.escape(str(name))}">'
            f'<div class="head"><span class="socketlab-quiet">#{scene}</span>{known}</div>'
            f'<div class="views">{views}</div>{said}</div>'
        )

    def _view(self, modality: str, scene: int, chosen: bool) -> str:
        title = html.escape(figures.modality_style(modality).short)
        if not self.thumbnails.has(modality, scene):
            return f'<figure><div class="none">no {title}</div></figure>'
        picture = self.thumbnails.url(modality, scene)
        return (
            f"<figure{' class=chosen' if chosen else ''}>"
            f'<img src="{picture}" alt="{title} image of scene {scene}"></figure>'
        )

    def _said(self, row: int) -> str:
        """One line: what was said of this point before → after."""
        steps = []
        for said in self.table.said.values():
            guess = int(said.classes[row])
            if guess >= 0:
                name = html.escape(self.class_name(guess)).replace(" ", "&nbsp;")
                steps.append(f"{name}&nbsp;{100 * said.confidence[row]:.0f}&nbsp;%")
        if not steps:
            return ""
        look = figures.modality_style(self.table.modality(row))
        who = html.escape(look.short)
        told = " ".join(f"<span>{'→&nbsp;' if i else ''}{step}</span>" for i, step in enumerate(steps))
        return f'<div class="said"><span class="socketlab-quiet">{who}:</span> {told}</div>'

    def headline(self, rows: Indices, shown: int) -> str:
        """How many points were selected, of which sets."""
        if not len(rows):
            hint = "Nothing is selected: draw around points, or use the controls."
            return f'<div style="font-size:15px">{hint}</div>'
        starts = self.table.starts
        sets = [
            f"{count} {html.escape(cloud.title)}"
            for cloud, low, high in zip(self.table.clouds.values(), starts[:-1], starts[1:], strict=True)
            if (count := int(((rows >= low) & (rows < high)).sum()))
        ]
        sample = f"; images of {shown} of them, drawn at random" if shown < len(rows) else ""
        plural = "point" if len(rows) == 1 else "points"
        text = f"<b>{len(rows)} {plural}</b> selected ({', '.join(sets)}){sample}."
        return f'<div style="font-size:15px;line-height:1.4;margin-bottom:6px">{text}</div>'

    def counts(self, rows: Indices) -> str:
        """How many of the selected points are of each class: true, said before, said after."""
        columns = {"true": self.table.labels[rows]} if (self.table.labels >= 0).any() else {}
        columns |= {word: said.classes[rows] for word, said in self.table.said.items()}
        if not columns or not len(rows):
            return ""
        seen = sorted({int(v) for column in columns.values() for v in column})
        head = "".join(f"<th>{'true*' if word == 'true' else f'said {word}'}</th>" for word in columns)
        lines = ""
        for label in [*[v for v in seen if v >= 0], *([UNKNOWN] if UNKNOWN in seen else [])]:
            colour = figures.class_colour(label) if label >= 0 else figures.PALE
            cells = "".join(f"<td>{int((column == label).sum()) or ''}</td>" for column in columns.values())
            name = html.escape(self.class_name(label)) if label >= 0 else "none"
            lines += f'<tr><td><span style="color:{colour}">●</span> {name}</td>{cells}</tr>'
        note = f'<div class="socketlab-quiet" style="font-size:14px">* {READER}</div>'
        table = f'<table class="socketlab-counts"><tr><th>class</th>{head}</tr>{lines}</table>'
        return table + (note if "true" in columns else "")

    def neighbours(self, focus: int, near: Indices, in_features: bool, partner: str) -> str:
        """The images nearest to a point, and where its partner comes among them."""
        if focus < 0:
            return ""
        cloud, number = self.table.cloud_of(focus)
        where = "in feature space" if in_features else "on this map"
        title = html.escape(self.table.clouds[cloud].title)
        modality = self.table.modality(focus)
        strangers = sum(self.table.modality(int(row)) != modality for row in near)
        mixed = f" {strangers} of these {len(near)} are of another modality." if self._mixed() else ""
        head = f"<b>Nearest {where}</b> to point {number} of {title} (blue frame).{mixed} {partner}"
        rows = np.asarray([focus, *near.tolist()], np.int32)
        each = "".join(
            self._card(int(self.table.scenes[row]), [int(row)], {int(row)}, int(row) == focus) for row in rows
        )
        return (
            f'<div style="font-size:15px;line-height:1.4;margin:6px 0">{head}</div>'
            f'<div class="socketlab-cards" role="list">{each}</div>'
        )

    def _mixed(self) -> bool:
        return len({cloud.modality for cloud in self.table.clouds.values()}) > 1

    def table_of(self, rows: Indices, points: NDArray[np.float32]) -> str:
        """The points as CSV."""
        file = io.StringIO()
        out = csv.writer(file, lineterminator="\n")
        words = list(self.table.said)
        heads = [head for word in words for head in (word, f"{word}_confidence")]
        out.writerow(["set", "point", "modality", "scene", "name", "true_class", *heads, "x", "y"])
        for row in rows.tolist():
            cloud, number = self.table.cloud_of(row)
            scene, label = int(self.table.scenes[row]), int(self.table.labels[row])
            name = self.names[scene] if 0 <= scene < len(self.names) else ""
            said: list[str] = []
            for word in words:
                guess = int(self.table.said[word].classes[row])
                sure = f"{self.table.said[word].confidence[row]:.4f}"
                said += [self.class_written(guess), sure] if guess >= 0 else ["", ""]
            place = [f"{value:.6g}" for value in points[row]]
            known = self.class_written(label) if label >= 0 else ""
            modality = self.table.clouds[cloud].modality
            out.writerow([cloud, number, modality, scene, name, known, *said, *place])
        return file.getvalue()

    def class_written(self, label: int) -> str:
        """The class as it is written in the data."""
        return self.classes[label] if label < len(self.classes) else str(label)
