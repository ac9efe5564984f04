"""The live panel of the modality gap: a camera, its errors and a layer, and what they do to the gap.

`GapWorld` loads and caches. A setting that it has is shown at once; another one is computed in the session's
thread, stage by stage, with progress, and can be stopped.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from socketlab.errors import LabError
from socketlab.figures import figures, gap_figures, map_figures, maps, style
from socketlab.figures.gap_figures import Scale
from socketlab.figures.map_figures import Cloud
from socketlab.images import encodings, pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS, STRONGEST
from socketlab.measures import distances, similarity
from socketlab.measures.comparison import main_layers
from socketlab.measures.layer_features import extract_features
from socketlab.measures.metrics import MEASURES
from socketlab.networks.checkpoints import Source, load_source
from socketlab.networks.networks import networks_of
from socketlab.panels import session
from socketlab.panels.base import Control, Panel, Table

STRENGTHS = tuple(0.5 * i for i in range(int(2 * STRONGEST) + 1))
EXAMPLES = 24
TARGETS = ("depth", "nir")
MAPS = {"UMAP": "joint UMAP", "placed": "UMAP of colour, the others placed in it", "PCA": "PCA of colour"}
Canvas = Figure | SubFigure
View = tuple[str, str, float]
Images = Callable[[str, str, float], PairedImages]


NUMBERS = {
    "accuracy": Scale("right answers of the source network", 0.0, 1.0, {}, "{:.0%}"),
    "neighbour_purity": Scale(
        "neighbours of the same modality", 0.4, 1.0, {"mixed": 0.5, "fully separated": 1.0}, "{:.0%}"
    ),
    "mmd": Scale("MMD², bandwidth of colour", 0.0, 0.6, {"no gap": 0.0}, "{:.3f}"),
    "cka": Scale("linear CKA, debiased", 0.0, 1.0, {"nothing in common": 0.0, "alike": 1.0}),
    "rank": Scale("median rank of the partner", 0.0, 0.6, {"first": 0.0, "a guess": 0.5}),
}


@dataclass(frozen=True)
class GapChoice:
    """What is looked at.

    Parameters
    ----------
    sensor : a name in `SENSORS`; its own source network reads colour.
    modality : the target, "depth" or "nir".
    strength : of the target camera's errors, 0 to 3; colour is always as published.
    layer : of the network; "" is the last one, what its head reads.
    """

    sensor: str = "kinect_v1"
    modality: str = "depth"
    strength: float = 1.0
    layer: str = ""

    @property
    def view(self) -> View:
        """All that decides which images are read."""
        return self.sensor, self.modality, self.strength


@dataclass
class Seen:
    """One view as the source network reads it: a few rooms, features (N, D) by layer, accuracy, labels.

    `numbers` has the other `NUMBERS` against colour by layer; it is empty for colour itself.
    """

    examples: PairedImages
    features: dict[str, NDArray[np.float32]]
    accuracy: float
    labels: NDArray[np.int64]
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)


def shipped_images(sensor: str, modality: str, strength: float) -> PairedImages:
    """The held-out rooms of the task in one modality, as one camera sees them."""
    return pocketrooms.load("target_test", sensor, (modality,), strength)


def shipped_network(sensor: str) -> Source:
    """The network that was trained on this camera's colour images."""
    return load_source(f"rgb_{sensor}")


def look(source: Source, images: PairedImages, layers: list[str]) -> Seen:
    """Read images of one modality: features of layers, accuracy, a few examples.

    A modality that the network was not trained on is normalised by its own mean and deviation, as `adapt`
    does before its first step.
    """
    modality = images.modality
    own = modality == source.modality
    transform = source.normalisation if own else encodings.measure(images.images[modality], modality)
    found = extract_features(source.network, images, layers, transform, precision="float32")
    arrays = {name: np.asarray(values) for name, values in found.items()}
    with torch.no_grad():
        logits = source.network.head(torch.from_numpy(np.array(arrays[layers[-1]])))
    right = float((logits.argmax(dim=1) == images.labels).float().mean())
    return Seen(images.take(range(min(EXAMPLES, len(images)))), arrays, right, images.labels.numpy())


def gap_numbers(colour: NDArray[np.float32], other: NDArray[np.float32]) -> dict[str, float]:
    """`NUMBERS` but for the accuracy, of partners row by row; one that cannot be had is NaN.

    The bandwidth of MMD² is the median distance within colour, so that values at several strengths compare.
    """
    a, b = torch.from_numpy(np.array(colour)), torch.from_numpy(np.array(other))
    measures: dict[str, Callable[[], float]] = {
        "neighbour_purity": lambda: distances.neighbour_purity(a, b),
        "mmd": lambda: distances.mmd(a, b, bandwidth=distances.median_distance(a, a)),
        "cka": lambda: similarity.linear_cka(a, b, debiased=True),
        "rank": lambda: MEASURES["pair_rank"].fix(a, b, True, 0)(a, b),
    }
    found = dict.fromkeys(measures, math.nan)
    for name, measure in measures.items():
        with suppress(LabError):
            found[name] = float(measure())
    return found


class GapWorld:
    """Settings that were computed, and how to compute another one.

    Parameters
    ----------
    images : (sensor, modality, strength) -> labelled images of that modality, the same rooms every time.
    network, networks : sensor -> source network; those of the sensors looked at so far.
    seen : view -> what the network made of it.
    """

    def __init__(self, images: Images = shipped_images, network: Callable[[str], Source] = shipped_network):
        self._images, self._network = images, network
        self.networks: dict[str, Source] = {}
        self.seen: dict[View, Seen] = {}
        self._maps: dict[tuple[View, str, str], dict[str, NDArray[np.float32]]] = {}
        self._lock = threading.Lock()  # a sweep and a slider may read images at the same time

    def network(self, sensor: str) -> Source:
        """The source network of a camera."""
        if sensor not in self.networks:
            self.networks[sensor] = self._network(sensor)
        return self.networks[sensor]

    def layers(self, sensor: str) -> list[str]:
        """Names of the network's large parts, in order."""
        return main_layers(networks_of(self.network(sensor).network)[0])

    def layer(self, choice: GapChoice) -> str:
        """The layer by name."""
        return choice.layer or self.layers(choice.sensor)[-1]

    def views(self, choice: GapChoice) -> tuple[View, View, View]:
        """Colour, the target without errors, the target as it was chosen."""
        colour = choice.sensor, self.network(choice.sensor).modality, 1.0
        return colour, (choice.sensor, choice.modality, 0.0), choice.view

    def knows(self, choice: GapChoice) -> bool:
        """Whether this setting was computed."""
        return all(view in self.seen for view in self.views(choice))

    def numbers(self, choice: GapChoice) -> dict[str, float]:
        """`NUMBERS` of a known setting at its layer."""
        found = self.seen[choice.view]
        return {"accuracy": found.accuracy} | found.numbers[self.layer(choice)]

    def marks(self, choice: GapChoice) -> dict[str, float]:
        """What to compare the accuracy with: chance, and the accuracy on colour."""
        source = self.network(choice.sensor)
        return {"chance": 1 / len(source.classes), "on colour": self.seen[self.views(choice)[0]].accuracy}

    def sets(self, choice: GapChoice) -> dict[str, NDArray[np.float32]]:
        """Features of colour and of the target at the chosen layer."""
        colour, _, target = self.views(choice)
        return {view[1]: self.seen[view].features[self.layer(choice)] for view in (colour, target)}

    def stages(self, choice: GapChoice) -> Iterator[tuple[float, str]]:
        """Compute a setting: (share done, what comes next); leave between two stages at will."""
        missing = [view for view in dict.fromkeys(self.views(choice)) if view not in self.seen]
        for i, view in enumerate(missing):
            sensor, modality, strength = view
            title = style.modality_style(modality).title
            yield 2 * i / (2 * len(missing)), f"{title}: the camera looks (errors × {strength:g})"
            images = self._images(*view)
            yield (2 * i + 1) / (2 * len(missing)), f"{title}: the network reads {len(images)} rooms"
            with self._lock:
                found = look(self.network(sensor), images, self.layers(sensor))
            if view != (colour := self.views(choice)[0]):
                pairs = self.seen[colour].features
                found.numbers = {name: gap_numbers(pairs[name], found.features[name]) for name in pairs}
            self.seen[view] = found
        yield 1.0, "shown"

    def has_map(self, choice: GapChoice, kind: str) -> bool:
        """Whether `clouds` answers at once."""
        return kind == "PCA" or (choice.view, self.layer(choice), kind) in self._maps

    def clouds(self, choice: GapChoice, kind: str) -> dict[str, Cloud]:
        """A map of both sets with true classes: "PCA" at once, others in seconds, and at once when known."""
        key, first = (choice.view, self.layer(choice), kind), self.views(choice)[0][1]
        if key not in self._maps:
            make: Any = {"PCA": maps.pca_map, "UMAP": maps.joint_map, "placed": maps.projected_map}[kind]
            self._maps[key] = make(self.sets(choice), **({} if kind == "UMAP" else {"fit_on": first}))
        labels = self.seen[choice.view].labels
        return {m: Cloud(p, m, style.modality_style(m).title, labels) for m, p in self._maps[key].items()}

    def curve(self, choice: GapChoice, name: str) -> tuple[list[float], list[float]]:
        """A number over the strengths known so far, for this camera, modality and layer."""
        known = [one for s in STRENGTHS if self.knows(one := replace(choice, strength=s))]
        return [one.strength for one in known], [self.numbers(one)[name] for one in known]


# ------------------------------------------------------------------------ pictures


def short_title(sensor: str) -> str:
    """A camera's title without its principle."""
    return SENSORS[sensor].title.split(" (")[0]


def draw_room(figure: Canvas, world: GapWorld, choice: GapChoice, number: int) -> None:
    """One room in colour, without errors, and as the camera sees it."""
    views = world.views(choice)
    target = style.modality_style(choice.modality).short
    titles = [
        f"{style.modality_style(views[0][1]).short}\nas in training",
        f"{target}\nwithout errors",
        f"{target}\nerrors × {choice.strength:g}",
    ]
    examples = [world.seen[view].examples for view in views]
    row = min(number, len(examples[0]) - 1)
    depths = np.asarray(examples[1].images[choice.modality][row].to(torch.int32))
    reach = 1000 * math.ceil(max(float(np.percentile(depths, 99)), 1.0) / 1000)
    images = [
        figures.paint(some.images[view[1]][row], view[1], reach)
        for some, view in zip(examples, views, strict=True)
    ]
    ax = gap_figures.tiles(figure.subplots(), {"": images}, titles)
    style.describe(ax, f"One room: {', '.join(title.replace(chr(10), ' ') for title in titles)}.")


def draw_numbers(figure: Canvas, world: GapWorld, choice: GapChoice, before: Mapping[str, float]) -> None:
    """`NUMBERS` on scales; a pale dot where each of them was before."""
    accuracy = replace(NUMBERS["accuracy"], marks=world.marks(choice))
    colour = style.modality_style(choice.modality).colour
    gap_figures.scales(figure, NUMBERS | {"accuracy": accuracy}, world.numbers(choice), before, colour)


def draw_map(figure: Canvas, world: GapWorld, choice: GapChoice, kind: str, hue: str, more: str = "") -> None:
    """The map of a setting, and the number that it may exaggerate or hide."""
    purity = world.numbers(choice)["neighbour_purity"]
    title = f"{MAPS[kind][0].upper()}{MAPS[kind][1:]}, {world.layer(choice)}{more}"
    classes = world.network(choice.sensor).classes
    ax = map_figures.feature_map(world.clouds(choice, kind), classes, figure.subplots(), hue=hue, title=title)
    note = f"{100 * purity:.0f} % of the neighbours are of the same modality (50 % = mixed)"
    ax.set_xlabel(note, fontsize=style.TEXT, color=style.INK, loc="left")


def draw_strengths(figure: Canvas, world: GapWorld, choice: GapChoice, name: str) -> None:
    """A number over the camera's errors, one line per camera."""
    curves = {sensor: world.curve(replace(choice, sensor=sensor), name) for sensor in world.networks}
    curves = {sensor: curve for sensor, curve in curves.items() if curve[0]}
    styles = {n: replace(style.known_style(n, i), title=short_title(n)) for i, n in enumerate(SENSORS)}
    about = NUMBERS[name]
    ax = figures.curves(
        curves, figure.subplots(), title=f"{about.title[0].upper()}{about.title[1:]}", ylabel="",
        xlabel="strength of the camera's errors", ylim=(about.low, about.high * 1.02), styles=styles,
    )  # fmt: skip
    ax.set_xlim(-0.05, STRONGEST)


# ------------------------------------------------------------------------ the panel


class GapPanel(Panel):
    """Move the camera, its errors and the layer, and see what the gap does: picture, map, numbers.

    **Sweep** computes all strengths of the camera shown, after which its slider answers at once.

    Another `world` loads other images and networks.
    """

    name = "gap"

    def __init__(self, choice: GapChoice | None = None, world: GapWorld | None = None) -> None:
        self.world = world or GapWorld()
        self._first = choice or GapChoice()
        self._shown: dict[str, float] = {}
        words = {"room": "One room, as the camera sees it", "numbers": "The gap in numbers",
                 "map": "Map of features", "strength": "Numbers over the camera's errors"}  # fmt: skip
        pictures = {name: session.LiveFigure(alt=f"{alt}: not computed yet.") for name, alt in words.items()}
        tips = {"run": "compute all strengths of this camera, so that the slider answers at once",
                "stop": "end the sweep, keep its results", "reset": "first settings"}  # fmt: skip
        super().__init__(self._table(), pictures, {}, tips, run_text="Sweep")
        pictures["room"].image.add_class("socketlab-photos")
        self._asked: session.Background[GapChoice] = session.Background(self._compute, self.box, share=1.0)
        self._maps: session.Background[GapChoice] = session.Background(self._make_map, self.box)
        self._on_change(("sensor", "modality", "strength", "layer"), self._move)
        self._on_change(("example",), self._draw_room)
        self._on_change(("map", "hue"), self._ask_map)
        self._on_change(("curve",), self._draw_strengths)
        maps.warm_up()
        self.headline.value = "The network reads its first rooms."
        self._move()

    def _table(self) -> dict[str, Control]:
        first = self._first
        layers = self.world.layers(first.sensor)
        sensors = [(sensor.title, name) for name, sensor in SENSORS.items()]
        targets = [(style.MODALITIES[m].title, m) for m in TARGETS]
        curves = [(number.title, name) for name, number in NUMBERS.items()]
        return {
            "sensor": Control("camera", first.sensor, "the camera of both modalities", options=sensors),
            "modality": Control("target", first.modality, "what the network has never seen", options=targets),
            "strength": Control("camera errors", float(first.strength), "1: as published; 0: perfect", 0,
                                STRONGEST, 0.5, live=True),
            "layer": Control("layer", self.world.layer(first), "whose features are compared", options=layers,
                             steps=True, live=True),
            "example": Control("example", 0, "which room is shown", 0, EXAMPLES - 1, 1, live=True),
            "map": Control("map", "UMAP", "PCA is shown until UMAP is ready",
                           options=[(title, name) for name, title in MAPS.items()]),
            "hue": Control("colour by", "modality", "colour of the points", options=("modality", "class")),
            "curve": Control("curve", "neighbour_purity", "what is drawn over the errors", options=curves),
        }  # fmt: skip

    @property
    def choice(self) -> GapChoice:
        """The setting that the controls show."""
        return GapChoice(*(self.controls[name].value for name in ("sensor", "modality", "strength", "layer")))

    def set(self, choice: GapChoice) -> None:
        """Move the controls to a setting."""
        for name in ("sensor", "modality", "strength"):
            self.controls[name].value = getattr(choice, name)
        self.controls["layer"].value = self.world.layer(choice)

    def _begin(self) -> None:
        """Compute every strength of the camera shown."""
        now = self.choice

        def events() -> Iterator[tuple[float, str]]:
            self.box.clear()
            for i, strength in enumerate(STRENGTHS):
                for share, words in self.world.stages(replace(now, strength=strength)):
                    yield (i + share) / len(STRENGTHS), words
                self._draw_strengths()

        def see(stage: tuple[float, str]) -> float:
            share, self.session.note = stage
            return share

        self.session.start(events, see)

    def reset(self) -> None:
        """Stop, and go back to the setting that the panel began with; what is known stays known."""
        self._halt()
        self._asked.drop()
        self._shown = {}
        self.set(self._first)
        self.session.reset()
        self._move()

    def wait(self, timeout: float | None = None) -> str:
        """Wait for setting, pictures and sweep, and raise what ended a sweep; returns the session's state."""
        for wait in (self._asked.wait, self.session.wait, self._maps.wait):
            wait(timeout)
        return super().wait(timeout)

    def tables(self) -> dict[str, Table]:
        """Numbers of every setting looked at, and the points of the map shown."""
        rows = [
            dict(zip(("sensor", "modality", "strength"), view, strict=True))
            | {"layer": layer, "accuracy": found.accuracy, **numbers}
            for view, found in self.world.seen.items()
            for layer, numbers in found.numbers.items()
        ]
        clouds = self.world.clouds(self.choice, self._map_shown()) if self._shown else {}
        points = [
            {"modality": name, "class": int(label), "x": float(x), "y": float(y)}
            for name, cloud in clouds.items()
            for (x, y), label in zip(cloud.points, cloud.labels, strict=True)  # type: ignore[arg-type]
        ]
        return {"numbers": rows, "map": points}

    def still(self, extremes: bool = False, dpi: float = 100) -> Any:
        """A picture for readers without a kernel; `extremes`: with no, these, and the strongest errors."""
        self.wait()
        if not extremes:
            return style.show(self.sheet(), dpi)
        now = self.choice
        shown = list(dict.fromkeys(replace(now, strength=s) for s in (0.0, now.strength, STRONGEST)))
        for choice in shown:
            for _ in self.world.stages(choice):
                pass
        with session.DRAW:
            figure = style.new_figure(520 * len(shown), 1000)
            figure.set_layout_engine("constrained")
            parts: Any = figure.subfigures(3, len(shown), squeeze=False, height_ratios=(0.8, 1.3, 1.2))
            for column, choice in enumerate(shown):
                draw_room(parts[0, column], self.world, choice, self.controls["example"].value)
                draw_map(parts[1, column], self.world, choice, "PCA", "modality")
                draw_numbers(parts[2, column], self.world, choice, {})
        return style.show(figure, dpi)

    # showing

    def _move(self) -> None:
        """Answer a moved control: at once where the setting is known, else when it has been computed."""
        choice = self.choice
        if self.world.knows(choice):
            self._asked.drop()
            self._show(choice)
        else:
            self._asked.post(choice, at_once=True)

    def _compute(self, choice: GapChoice) -> None:
        """In the background: a setting, unless the controls have moved on to another one."""
        self.box.clear()
        for _, words in self.world.stages(choice):
            self.headline.value = f"{words} …"
            if choice.view != self.choice.view:
                return
        self._show(self.choice)

    def _show(self, choice: GapChoice) -> None:
        """All pictures of a known setting."""
        before, self._shown = self._shown, self.world.numbers(choice)
        paint = partial(draw_numbers, world=self.world, choice=choice, before=before)
        self.pictures["numbers"].post(paint, True)
        self._draw_room()
        self._draw_strengths()
        self._ask_map()
        target, colour = style.modality_style(choice.modality).title, self.world.marks(choice)["on colour"]
        self.headline.value = (
            f"{SENSORS[choice.sensor].title}, {target}, errors × {choice.strength:g}: the source network "
            f"names <b>{100 * self._shown['accuracy']:.0f}&nbsp;%</b> of the rooms right, in colour "
            f"{100 * colour:.0f}&nbsp;%; at <code>{self.world.layer(choice)}</code> "
            f"<b>{100 * self._shown['neighbour_purity']:.0f}&nbsp;%</b> of neighbours are of one modality."
        )

    def _draw_room(self) -> None:
        choice, number = self.choice, self.controls["example"].value
        if self.world.knows(choice):
            self.pictures["room"].post(
                partial(draw_room, world=self.world, choice=choice, number=number), True
            )

    def _draw_strengths(self) -> None:
        choice, name = self.choice, self.controls["curve"].value
        paint = partial(draw_strengths, world=self.world, choice=choice, name=name)
        self.pictures["strength"].post(paint, True)

    def _map_shown(self) -> str:
        """The map that the controls ask for, or PCA until it is there."""
        kind = self.controls["map"].value
        return kind if self.world.has_map(self.choice, kind) else "PCA"

    def _ask_map(self) -> None:
        """The map of the setting shown: at once if known, else PCA until it is there."""
        choice, kind = self.choice, self.controls["map"].value
        if self.world.knows(choice):
            shown = self._map_shown()
            more = "" if shown == kind else f"; {MAPS[kind]} follows"
            hue = self.controls["hue"].value
            paint = partial(draw_map, world=self.world, choice=choice, kind=shown, hue=hue, more=more)
            self.pictures["map"].post(paint, True)
            if shown != kind:
                self._maps.post(choice, at_once=True)
            else:
                self._maps.drop()

    def _make_map(self, choice: GapChoice) -> None:
        """In the background: the map that the controls ask for."""
        kind = self.controls["map"].value
        if not maps.is_warm():
            maps.warm_up().join(120)
        if choice == self.choice:
            self.world.clouds(choice, kind)
            if (choice, kind) == (self.choice, self.controls["map"].value):
                self._ask_map()
