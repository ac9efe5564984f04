"""A linked explorer: select points of a feature map, see their images in every modality.

Beside the images stand the class counts of the selection, what a classifier said before and after adaptation,
and the nearest neighbours of a point in feature space. The map is a small view of our own on a 2-D canvas
(`explorer.js`, through anywidget): a marker per modality, both halves of a pair in one map, a lasso, no WebGL
and nothing from another host. Everything that the mouse can do the controls beside it do as well.
"""

import base64
import html
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets
from numpy.typing import ArrayLike, NDArray

from socketlab.errors import LabError
from socketlab.figures import figures, maps
from socketlab.figures.figures import Cloud
from socketlab.images import encodings
from socketlab.images.paired_images import PairedImages
from socketlab.method import evaluate as features
from socketlab.networks.checkpoints import Source
from socketlab.panels import session
from socketlab.panels.cards import (  # fmt: skip
    MOST_SHOWN,
    UNKNOWN,
    Indices,
    Table,
    Thumbnails,
    View,
    Writer,
    a_sample,
    chosen_rows,
    make_table,
    middle_one,
    nearest_to,
    on_cpu,
)

NEIGHBOURS = 6


# ------------------------------------------------------------------------ the map


class FeatureMap(anywidget.AnyWidget):
    """The map in the page: draws points, sends back which ones were chosen. See explorer.js."""

    _esm = Path(__file__).with_name("explorer.js")
    _css = Path(__file__).with_name("explorer.css")
    width = traitlets.Int(640).tag(sync=True)
    height = traitlets.Int(520).tag(sync=True)
    xy = traitlets.Bytes().tag(sync=True)
    marks = traitlets.Bytes().tag(sync=True)
    tints = traitlets.Bytes().tag(sync=True)
    scenes = traitlets.Bytes().tag(sync=True)
    markers: traitlets.List[str] = traitlets.List().tag(sync=True)
    palette: traitlets.List[str] = traitlets.List().tag(sync=True)
    legend: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    groups: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    says = traitlets.Unicode().tag(sync=True)
    links = traitlets.Bool(False).tag(sync=True)
    selection = traitlets.Any(b"").tag(
        sync=True, echo_update=False
    )  # bytes to the page, a memoryview from it
    shown = traitlets.Bytes().tag(sync=True)
    focus = traitlets.Int(-1).tag(sync=True)
    neighbours = traitlets.Bytes().tag(sync=True)


def colours_of(
    table: Table, hue: str, classes: Sequence[str]
) -> tuple[list[str], bytes, list[dict[str, str]]]:
    """Palette, an index into it per point, and the legend, for one way to colour the map.

    Parameters
    ----------
    hue : "class", "before", "after" or "modality".
    """
    looks = [figures.modality_style(cloud.modality) for cloud in table.clouds.values()]
    sizes = np.diff(table.starts)
    group = np.repeat(np.arange(len(looks)), sizes)
    marks = [
        {"marker": look.marker, "colour": look.colour, "text": cloud.title}
        for look, cloud in zip(looks, table.clouds.values(), strict=True)
    ]
    if hue == "modality":
        return [look.colour for look in looks], group.astype(np.uint8).tobytes(), marks
    found = table.labels if hue == "class" else table.said[hue].classes
    colours = [figures.class_colour(label) for label in range(len(figures.CLASS_COLOURS))]
    palette = [*colours, *[look.pale for look in looks]]
    tints = np.where(found >= 0, found % len(colours), len(colours) + group).astype(np.uint8)
    legend = [{**mark, "colour": figures.SOFT} for mark in marks]
    legend += [
        {"marker": "o", "colour": figures.class_colour(label), "text": name.replace("_", " ")}
        for label, name in enumerate(classes)
    ]
    return palette, tints.tobytes(), legend


# ------------------------------------------------------------------------ the explorer


class Explorer(widgets.VBox):
    """Select points in a feature map; see their images, classes, predictions and neighbours.

    Parameters
    ----------
    points : name -> `plots.Cloud` or (n, 2) positions; a plain array is of the modality it is named after.
    images : `PairedImages`, or modality -> (S, C, H, W) images (uint8, uint16 millimetres, or float). Scene i
        is row i of every modality; a modality may have fewer scenes than another.
    features : name -> (n, D) features that neighbours are looked for in; without them, on the map.
    before, after : name -> (n, K) logits before and after adaptation, of the clouds that have them.
    classes : names of the classes; taken from `PairedImages` when they have some.
    scenes : name -> (n,) the scene each point is a view of; without it, point i of a cloud is scene i.
    names : one per scene; taken from `PairedImages`.
    width, height : of the map, pixels.

    Attributes
    ----------
    views : map name -> `View`; `add_view` adds one, `show` switches.
    controls : name -> widget; all that the mouse does can be done with them.
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
        width: int = 640,
        height: int = 520,
    ) -> None:
        paired = images if isinstance(images, PairedImages) else None
        known = tuple(classes) or (paired.classes if paired is not None else ())
        labels = (
            [known.index(kind) if kind in known else UNKNOWN for kind in paired.kinds] if paired else None
        )
        self.table = make_table(points, scenes, labels if known else None, before, after)
        stored = dict(paired.images) if paired is not None else dict(images)  # type: ignore[arg-type]
        shown = tuple(dict.fromkeys([*stored, *[cloud.modality for cloud in self.table.clouds.values()]]))
        thumbnails = Thumbnails(stored)
        self.writer = Writer(self.table, thumbnails, known, names or (paired.names if paired else ()), shown)
        self.box, self._lock = session.ErrorBox(), threading.RLock()
        self.views: dict[str, View] = {}
        self._rows, self._focus, self._view = np.empty(0, np.int32), -1, view
        self._settling = False
        self._work: session.Background[Callable[[], None]] = session.Background(lambda job: job(), self.box)
        self.map = self._make_map(width, height)
        self.controls = self._make_controls()
        self.status, self.link, self.headline, self.cards, self.counts, self.near = (
            widgets.HTML() for _ in range(6)
        )
        super().__init__(self._arrange(height))
        self.add_class("socketlab-explorer")
        self.add_view(view, {name: cloud.points for name, cloud in self.table.clouds.items()}, features)
        self.colour_by(self.controls["hue"].value)
        self._listen()
        self._tell()

    def __repr__(self) -> str:
        return f"Explorer of {len(self.table)} points: run this cell to see it live"

    # selecting

    @property
    def selected(self) -> dict[str, Indices]:
        """Numbers of the selected points, by set."""
        starts = self.table.starts
        return {
            name: self._rows[(self._rows >= low) & (self._rows < high)] - low
            for name, low, high in zip(self.table.clouds, starts[:-1], starts[1:], strict=True)
        }

    def select(self, which: ArrayLike, cloud: str | None = None) -> None:
        """Select points by truth values or numbers, of one set or (in the order of the sets) of all."""
        self._select(chosen_rows(self.table, which, cloud))

    def select_class(self, name: str, by: str = "class") -> None:
        """Select all points of a class: the true one ("class"), or the one said "before" or "after"."""
        if name not in self.writer.classes:
            raise LabError(f"There is no class {name!r}; choose among {', '.join(self.writer.classes)}.")
        if by != "class" and by not in self.table.said:
            raise LabError(f"No predictions {by!r} were given; choose among {', '.join(self._hues())}.")
        found = self.table.labels if by == "class" else self.table.said[by].classes
        self._select(np.flatnonzero(found == self.writer.classes.index(name)).astype(np.int32))

    def select_nearest(self, number: int, cloud: str | None = None, count: int = NEIGHBOURS) -> None:
        """Select a point and the `count` nearest to it in feature space."""
        (row,) = chosen_rows(self.table, [number], cloud)
        near = nearest_to(self._neighbour_space()[0], int(row), count)
        self._select(np.sort(np.asarray([row, *near], np.int32)), int(row))

    def select_random(self, count: int = MOST_SHOWN, seed: int | None = None) -> None:
        """Select some points at random."""
        drawn = np.random.default_rng(seed).choice(
            len(self.table), min(count, len(self.table)), replace=False
        )
        self._select(np.sort(drawn).astype(np.int32))

    def clear(self) -> None:
        """Select nothing."""
        self._select(np.empty(0, np.int32))

    def look_at(self, number: int, cloud: str | None = None) -> None:
        """Show the neighbours of a point; the selection stays."""
        with self._lock:
            self._focus = int(chosen_rows(self.table, [number], cloud)[0])
            self._tell_focus()

    def to_csv(self, path: str | Path | None = None) -> str:
        """The selection as CSV, a row per point; written to `path` if one is given."""
        text = self.writer.table_of(self._rows, self.views[self._view].points)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _select(self, rows: Indices, focus: int | None = None) -> None:
        with self._lock:
            self._rows = rows
            points = self.views[self._view].points
            self._focus = focus if focus is not None else middle_one(points, rows) if len(rows) else -1
            self._tell()

    # maps and colours

    def add_view(
        self,
        name: str,
        points: Mapping[str, ArrayLike],
        features: Mapping[str, ArrayLike] | None = None,
        show: bool = True,
    ) -> None:
        """Add a map of the same points, or replace one; neighbours are looked for in its features."""
        stacked = self._stack(points, 2)
        view = View(stacked, None if features is None else self._stack(features))
        with self._lock:
            self.views[name] = view
            self._show_options(name if show else self._view)
            if show:
                self.show(name)

    def show(self, name: str) -> None:
        """Switch to a map."""
        if name not in self.views:
            raise LabError(f"There is no map {name!r}; choose among {', '.join(self.views)}.")
        with self._lock:
            self._view = name
            self.map.xy = self.views[name].points.tobytes()
            self.controls["view"].value = name
            self._tell_focus()

    def _show_options(self, value: str) -> None:
        """Offer all maps; new options make the widget jump to the first one, which nobody asked for."""
        control = self.controls["view"]
        if tuple(control.options) != tuple(self.views):
            self._settling = True
            try:
                control.options, control.value = tuple(self.views), value
            finally:
                self._settling = False

    def _stack(self, given: Mapping[str, ArrayLike], width: int | None = None) -> NDArray[np.float32]:
        """(N, width) float32 of all clouds, checked."""
        sizes = {name: len(cloud.points) for name, cloud in self.table.clouds.items()}
        if set(given) != set(sizes):
            raise LabError(f"One array for each of {', '.join(sizes)} is needed, not for {', '.join(given)}.")
        arrays = {name: np.asarray(on_cpu(given[name]), np.float32) for name in sizes}
        widths = {array.shape[1:] for array in arrays.values()}
        fits = all(array.ndim == 2 and len(array) == sizes[name] for name, array in arrays.items())
        if not fits or len(widths) != 1 or (width is not None and widths != {(width,)}):
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            wanted = ", ".join(f"{name} ({size}, {width or 'D'})" for name, size in sizes.items())
            raise LabError(f"Arrays of shapes {wanted} are needed, not {shapes}.")
        stacked = np.concatenate(list(arrays.values()))
        if not np.isfinite(stacked).all():
            raise LabError("Positions and features must be finite; there are NaN or infinite numbers.")
        return np.ascontiguousarray(stacked)

    def colour_by(self, hue: str) -> None:
        """Colour the map by true "class", by what was said "before" or "after", or by "modality"."""
        if hue not in self._hues():
            raise LabError(f"The map cannot be coloured by {hue!r}; choose among {', '.join(self._hues())}.")
        palette, tints, legend = colours_of(self.table, hue, self.writer.classes)
        with self._lock, self.map.hold_sync():
            self.map.palette, self.map.tints, self.map.legend = palette, tints, legend
            sets = ", ".join(f"{len(cloud.points)} {cloud.title}" for cloud in self.table.clouds.values())
            self.map.says = f"Map of features, coloured by {hue}: {sets}."
            self.controls["hue"].value = hue

    def _hues(self) -> list[str]:
        known = ["class"] if (self.table.labels >= 0).any() else []
        return [*known, *self.table.said, "modality"]

    # work in the background

    def later(self, work: Callable[[], None]) -> None:
        """Do slow work, such as another map, in a thread; its errors appear in the box."""
        self._work.post(work, at_once=True)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the work in the background; False when the time was not enough."""
        return self._work.wait(timeout)

    def still(self, dpi: float = 100) -> Any:
        """A picture of the map with a few thumbnails, for readers without a kernel."""
        with self._lock, session.DRAW:
            parts = np.split(self.views[self._view].points, self.table.starts[1:-1])
            hue = "modality" if self.controls["hue"].value == "modality" else "class"
            clouds = {
                name: replace(cloud, points=part, labels=self._labels(name))
                for (name, cloud), part in zip(self.table.clouds.items(), parts, strict=True)
            }
            ax = figures.feature_map(clouds, self.writer.classes, hue=hue, title=self._view)
        return figures.show(ax, dpi)

    def _labels(self, cloud: str) -> NDArray[np.int64] | None:
        labels = self.table.labels[self.table.rows(cloud)]
        return labels.astype(np.int64) if (labels >= 0).all() and len(labels) else None

    # telling

    def _neighbour_space(self) -> tuple[NDArray[np.float32], bool]:
        view = self.views[self._view]
        return (view.points, False) if view.features is None else (view.features, True)

    def _tell(self) -> None:
        """Show the selection: cards, counts, neighbours, rings on the map."""
        shown = a_sample(self._rows)
        self.cards.value = self.writer.cards(shown, self._rows) if len(shown) else ""
        with self.map.hold_sync():
            self.map.selection, self.map.shown = self._rows.tobytes(), shown.tobytes()
            self._tell_focus()
        self.headline.value = self.writer.headline(self._rows, len(shown))
        self.counts.value = self.writer.counts(self._rows)
        self.controls["csv"].disabled = not len(self._rows)
        self.link.value = ""

    def _tell_focus(self) -> None:
        if self._focus < 0:
            near = np.empty(0, np.int32)
            self.near.value = ""
        else:
            space, in_features = self._neighbour_space()
            near = nearest_to(space, self._focus, NEIGHBOURS)
            partner = self._partner(space)
            self.near.value = self.writer.neighbours(self._focus, near, in_features, partner)
        with self.map.hold_sync():
            self.map.focus, self.map.neighbours = self._focus, near.tobytes()

    def _partner(self, space: NDArray[np.float32]) -> str:
        """Where the other views of the same scene come among all neighbours."""
        distance = np.square(space - space[self._focus]).sum(axis=1)
        told = []
        for other in np.flatnonzero(self.table.scenes == self.table.scenes[self._focus]).tolist():
            if other != self._focus:
                rank = int((distance < distance[other]).sum() - (distance[self._focus] < distance[other])) + 1
                title = html.escape(figures.modality_style(self.table.modality(other)).title)
                told.append(f"Its partner in {title} is the {_ordinal(rank)} nearest of {len(space) - 1}.")
        return " ".join(told)

    # widgets

    def _make_map(self, width: int, height: int) -> FeatureMap:
        looks = [figures.modality_style(cloud.modality) for cloud in self.table.clouds.values()]
        marks = np.repeat(np.arange(len(looks)), np.diff(self.table.starts)).astype(np.uint8)
        starts = self.table.starts[:-1].tolist()
        return FeatureMap(
            width=width,
            height=height,
            marks=marks.tobytes(),
            scenes=self.table.scenes.tobytes(),
            markers=[look.marker for look in looks],
            groups=[
                {"title": cloud.title, "start": start}
                for cloud, start in zip(self.table.clouds.values(), starts, strict=True)
            ],
        )

    def _make_controls(self) -> dict[str, Any]:
        slim: dict[str, Any] = {"style": {"description_width": "auto"}, "layout": {"width": "max-content"}}
        sets = [(cloud.title, name) for name, cloud in self.table.clouds.items()]
        words = {"class": "true class (for the reader)", "modality": "modality"}
        words |= {word: f"class said {word}" for word in self.table.said}
        hues = self._hues()
        by = [(words[hue], hue) for hue in hues if hue != "modality"]
        options = [("…", ""), *[(name.replace("_", " "), name) for name in self.writer.classes]]
        made: dict[str, Any] = {
            "view": widgets.Dropdown(options=[self._view], description="map", **slim),
            "hue": widgets.Dropdown(
                options=[(words[hue], hue) for hue in hues], description="colour by", **slim
            ),
            "links": widgets.Checkbox(
                False, description="join pairs", indent=False, layout={"width": "110px"}
            ),
            "class": widgets.Dropdown(options=options, description="select class", **slim),
            "by": widgets.Dropdown(options=by or [("…", "")], description="by", **slim),
            "set": widgets.Dropdown(options=sets, description="select point of", **slim),
            "number": widgets.BoundedIntText(
                0, 0, len(next(iter(self.table.clouds.values())).points) - 1, layout={"width": "80px"}
            ),
        }
        for name, text, tip in (
            ("select", "Select", "this point alone"),
            ("nearest", "With nearest", "this point and its nearest neighbours"),
            ("next", "Next", "the point with the next number"),
            ("random", "Random", f"{MOST_SHOWN} points at random"),
            ("nothing", "Clear", "select nothing"),
            ("csv", "Export CSV", "a link to the selection as a table"),
        ):
            made[name] = widgets.Button(description=text, tooltip=tip, layout={"width": "auto"})
        for name, control in made.items():
            control.add_class(f"socketlab-explore-{name}")
        return made

    def _arrange(self, height: int) -> list[widgets.Widget]:
        c = self.controls
        for name in ("headline", "cards", "counts", "near"):
            getattr(self, name).add_class(f"socketlab-{name}-box")
        layout = widgets.Layout
        row = layout(flex_flow="row wrap", align_items="center", grid_gap="0 8px")
        hidden = [] if self.writer.classes else ["class", "by"]

        def together(*names: str) -> widgets.Box:
            return widgets.Box([c[name] for name in names if name not in hidden], layout=row)

        self.cards.layout = layout(max_height=f"{height}px", overflow="auto", margin="0")
        self.counts.layout = layout(flex="0 0 auto", margin="6px 0 0")
        self.near.layout = layout(flex="1 1 500px", margin="0")
        side = widgets.VBox([self.headline, self.cards], layout=layout(flex="1 1 340px", width="auto"))
        wrap = layout(flex_flow="row wrap", grid_gap="0 18px", align_items="flex-start")
        return [
            together("view", "hue", "links", "class", "by"),
            together("set", "number", "select", "nearest", "next", "random", "nothing", "csv"),
            self.box,
            widgets.Box([self.status, self.link], layout=row),
            widgets.Box([self.map, side], layout=wrap),
            widgets.Box([self.counts, self.near], layout=wrap),
        ]

    def _listen(self) -> None:
        c = self.controls
        acts: dict[str, Callable[[], None]] = {
            "select": lambda: self.select([c["number"].value], c["set"].value),
            "nearest": lambda: self.select_nearest(c["number"].value, c["set"].value),
            "next": self._next,
            "random": self.select_random,
            "nothing": self.clear,
            "csv": self._offer_csv,
        }
        for name, act in acts.items():
            c[name].on_click(session.guarded(self.box, lambda _, act=act: self._safely(act)))
        seen: dict[str, Callable[[Any], None]] = {
            "view": self._take_view,
            "hue": self.colour_by,
            "links": lambda value: setattr(self.map, "links", value),
            "class": lambda _: self._take_class(),
            "by": lambda _: self._take_class(),
            "set": self._take_set,
        }
        for name, take in seen.items():
            c[name].observe(session.guarded(self.box, lambda change, take=take: take(change["new"])), "value")
        self.map.observe(
            session.guarded(self.box, lambda change: self._from_page(change["new"])), "selection"
        )
        self.map.observe(
            session.guarded(self.box, lambda change: self._focus_from_page(change["new"])), "focus"
        )

    def _safely(self, act: Callable[[], None]) -> None:
        self.box.clear()
        act()

    def _from_page(self, sent: bytes) -> None:
        """The page has a new selection; what Python itself has set is not news."""
        rows = np.frombuffer(bytes(sent), np.int32)
        if not np.array_equal(rows, self._rows):
            self._select(chosen_rows(self.table, rows))

    def _focus_from_page(self, focus: int) -> None:
        if focus != self._focus and focus >= 0:
            self.look_at(focus)

    def _take_view(self, name: str) -> None:
        if name != self._view and not self._settling:
            self.show(name)

    def _take_class(self) -> None:
        if self.controls["class"].value:
            self.select_class(self.controls["class"].value, self.controls["by"].value)

    def _take_set(self, cloud: str) -> None:
        self.controls["number"].max = max(len(self.table.clouds[cloud].points) - 1, 0)

    def _next(self) -> None:
        control = self.controls["number"]
        control.value = 0 if control.value >= control.max else control.value + 1
        self.select([control.value], self.controls["set"].value)

    def _offer_csv(self) -> None:
        """A link that holds the table itself, so that it works wherever the kernel is."""
        data = base64.b64encode(self.to_csv().encode()).decode()
        count = f"{len(self._rows)} point{'s' if len(self._rows) != 1 else ''}"
        self.link.value = (
            f'<a download="selection.csv" href="data:text/csv;base64,{data}" '
            f'style="font-size:15px;color:#0b6bcb;text-decoration:underline">selection.csv, {count}</a>'
        )


def _ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ..."""
    tail = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{tail}"


# ------------------------------------------------------------------------ from networks and images


def explore(
    source: Source | Mapping[str, Source],
    images: PairedImages | Mapping[str, PairedImages],
    adapted: Source | None = None,
    *,
    umap: bool = True,
    seed: int = 0,
    **more: Any,
) -> Explorer:
    """An explorer of what networks make of images: features, PCA at once, UMAP as soon as it is ready.

    Parameters
    ----------
    source : the network before adaptation. It reads every modality, each with the normalisation measured on
        these very images where it is not its own; or modality -> network.
    images : paired images; or name -> images of one modality each, where names with as many scenes are views
        of the same scenes.
    adapted : the network after adaptation; it reads its own modality in place of `source`, and its maps come
        beside those before.
    umap : make UMAPs too, in the background.
    seed : of the UMAP.
    more : passed on to `Explorer`.
    """
    paired = images if isinstance(images, PairedImages) else _pair_up(images)
    networks = {m: _reader(source, paired.only(m), m) for m in paired.modalities}
    before = {m: features.predict(network, paired.only(m)) for m, network in networks.items()}
    sets = {"before" if adapted else "": {m: found[1].cpu().numpy() for m, found in before.items()}}
    after = None
    if adapted is not None:
        modality = adapted.modality
        logits, found = features.predict(adapted, paired.only(modality))
        after = {modality: logits}
        sets["after"] = sets["before"] | {modality: found.cpu().numpy()}
    first = list(sets)[-1]
    made = Explorer(
        _clouds(maps.pca_map(sets[first]), paired),
        paired,
        sets[first],
        before={m: found[0] for m, found in before.items()},
        after=after,
        classes=more.pop("classes", None) or next(iter(networks.values())).classes,
        view=_title("PCA", first),
        **more,
    )
    for word in list(sets)[:-1]:
        made.add_view(_title("PCA", word), maps.pca_map(sets[word]), sets[word], show=False)
    if umap:
        maps.warm_up()
        made.status.value = '<span style="font-size:15px">A UMAP is being made; PCA meanwhile.</span>'
        made.later(lambda: _make_umaps(made, sets, seed))
    return made


def _title(kind: str, word: str) -> str:
    return f"{kind}, {word}" if word else kind


def _clouds(points: Mapping[str, NDArray[np.float32]], images: PairedImages) -> dict[str, Cloud]:
    return {m: Cloud(found, m, figures.modality_style(m).title) for m, found in points.items()}


def _pair_up(images: Mapping[str, PairedImages]) -> PairedImages:
    """One set of paired images from one per modality, scene i beside scene i."""
    first = next(iter(images.values()))
    counts = {name: len(one) for name, one in images.items()}
    if len(set(counts.values())) != 1:
        raise LabError(f"Every modality needs the same scenes in the same order; their counts are {counts}.")
    if len({one.names for one in images.values()}) != 1:
        raise LabError("The scenes of the modalities have other names or another order: see paired_by_name.")
    return replace(first, images={one.modality: one.images[one.modality] for one in images.values()})


def _reader(source: Source | Mapping[str, Source], images: PairedImages, modality: str) -> Source:
    """The network that reads a modality, told what these images' grey is where it was trained on others."""
    if isinstance(source, Mapping):
        if modality not in source:
            raise LabError(f"There is no network for {modality} images, only for {', '.join(source)}.")
        return source[modality]
    if source.modality == modality:
        return source
    return replace(source, normalisation=encodings.measure(images.images[modality], modality))


def _make_umaps(made: Explorer, sets: Mapping[str, Mapping[str, NDArray[np.float32]]], seed: int) -> None:
    """The last set first, since it is the one shown; the others begin from its layout."""
    start = None
    for word in reversed(list(sets)):
        points = maps.joint_map(sets[word], seed=seed, start=start)
        start = start or points
        made.add_view(_title("UMAP", word), points, sets[word], show=start is points)
    made.status.value = ""
