"""The live panel of the modality gap: a camera, its errors and a layer, and what they do to the gap.

A setting that `GapWorld` has computed is shown at once; another one follows in the background.
"""

import math
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from ipywidgets import Dropdown, FloatSlider, IntSlider, SelectionSlider
from numpy.typing import NDArray

from socketlab.errors import LabError
from socketlab.figures import figures, gap_figures, map_figures, maps, style
from socketlab.figures.gap_figures import Scale
from socketlab.images import pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS, STRONGEST
from socketlab.measures import distances, similarity
from socketlab.measures.comparison import main_layers
from socketlab.measures.layer_features import extract_features
from socketlab.networks.checkpoints import Source, load_source, source_for_modality
from socketlab.networks.networks import networks_of
from socketlab.panels import session
from socketlab.panels.base import Panel, controls_of, named, setting, titled
from socketlab.panels.session import Canvas, Paint

STRENGTHS = np.arange(0, STRONGEST + 0.5, 0.5).tolist()
EXAMPLES = 24
CAMERAS = {name: sensor.title for name, sensor in SENSORS.items()}
TARGETS = {modality: style.MODALITIES[modality].title for modality in ("depth", "nir")}
MAPS = {"UMAP": "joint UMAP", "PCA": "PCA of colour"}
View = tuple[str, str, float]
NUMBERS = {
    "accuracy": Scale("right answers of the source network", 0.0, 1.0, {}, "{:.0%}"),
    "neighbour_purity": Scale(
        "neighbours of the same modality", 0.4, 1.0, {"mixed": 0.5, "fully separated": 1.0}, "{:.0%}"
    ),
    "mmd": Scale("MMD², bandwidth of colour", 0.0, 0.6, {"no gap": 0.0}, "{:.3f}"),
    "cka": Scale("linear CKA, debiased", 0.0, 1.0, {"nothing in common": 0.0, "alike": 1.0}),
    "rank": Scale("median rank of the partner", 0.0, 0.6, {"first": 0.0, "a guess": 0.5}),
}
CURVES = {name: scale.title for name, scale in NUMBERS.items()}
MEASURES: dict[str, Callable[..., float]] = {
    "neighbour_purity": distances.neighbour_purity,
    "mmd": lambda a, b: distances.mmd(a, b, bandwidth=distances.median_distance(a, a)),
    "cka": partial(similarity.linear_cka, debiased=True),
    "rank": lambda a, b: sum(similarity.pair_alignment(a, b).median_rank) / 2,
}


@dataclass(frozen=True)
class GapChoice:
    """What is looked at: colour, always as published, against a modality that the camera's network never saw.

    For a panel, the layer "" is the last one, what the head reads. `curve` is a name in `NUMBERS`.
    """

    sensor: str = setting("kinect_v1", Dropdown, "camera", "of both modalities", options=titled(CAMERAS))
    modality: str = setting("depth", Dropdown, "target", "never seen before", options=titled(TARGETS))
    strength: float = setting(1.0, FloatSlider, "camera errors", "0: none", max=STRONGEST, step=0.5)
    layer: str = setting("", SelectionSlider, "layer", "whose features are compared")
    example: int = setting(0, IntSlider, "example", "which room is shown", max=EXAMPLES - 1)
    map: str = setting("UMAP", Dropdown, "map", "PCA until UMAP is ready", options=titled(MAPS))
    hue: str = setting("modality", Dropdown, "colour by", "of the points", options=("modality", "class"))
    curve: str = setting("neighbour_purity", Dropdown, "curve", "over the errors", options=titled(CURVES))

    @property
    def view(self) -> View:
        """All that decides which images are read."""
        return self.sensor, self.modality, self.strength


@dataclass
class Seen:
    """One view as the source network reads it: a few rooms, features (N, D) by layer, accuracy, labels.

    `numbers` has `NUMBERS` against colour by layer; it is empty for colour itself.
    """

    examples: PairedImages
    features: dict[str, NDArray[np.float32]]
    accuracy: float
    labels: NDArray[np.int64]
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)


def gap_numbers(colour: NDArray[np.float32], other: NDArray[np.float32]) -> dict[str, float]:
    """The numbers of `MEASURES`, of partners row by row; one that cannot be had is NaN."""
    found = dict.fromkeys(MEASURES, math.nan)
    for name, measure in MEASURES.items():
        with suppress(LabError):
            found[name] = float(measure(torch.from_numpy(colour), torch.from_numpy(other)))
    return found


class GapWorld:
    """Settings that were computed (`seen`), and how to compute another one.

    `images` returns labelled images for a sensor, a modality and a strength, the same rooms every time, by
    default the task's held-out ones; `network` the source network of a sensor, by default that of its colour.
    """

    def __init__(
        self,
        images: Callable[[str, str, float], PairedImages] = lambda sensor, modality, strength: (
            pocketrooms.load("target_test", sensor, (modality,), strength)
        ),
        network: Callable[[str], Source] = lambda sensor: load_source(f"rgb_{sensor}"),
    ) -> None:
        self._images, self.network = images, cache(network)
        self.seen: dict[View, Seen] = {}
        self._maps: dict[tuple[View, str, str], dict[str, map_figures.Cloud]] = {}
        self._lock = threading.Lock()  # a sweep and a slider may read images at the same time

    def layers(self, sensor: str) -> list[str]:
        """Names of the network's large parts, in order."""
        return main_layers(networks_of(self.network(sensor).network)[0])

    def views(self, choice: GapChoice) -> tuple[View, View, View]:
        """Colour, the target without errors, the target as it was chosen."""
        colour = choice.sensor, self.network(choice.sensor).modality, 1.0
        return colour, (choice.sensor, choice.modality, 0.0), choice.view

    def numbers(self, choice: GapChoice) -> dict[str, float]:
        """`NUMBERS` of a known setting at its layer."""
        return self.seen[choice.view].numbers[choice.layer]

    def look(self, choice: GapChoice) -> None:
        """Read what a setting needs, colour first: a target that was seen can be compared with it."""
        with self._lock:
            colour, *_ = views = self.views(choice)
            for view in views:
                if view not in self.seen:
                    self.seen[view] = self._read(view, colour)

    def _read(self, view: View, colour: View) -> Seen:
        """Images of one modality, read by `source_for_modality`, and compared with colour."""
        images, source, layers = self._images(*view), self.network(view[0]), self.layers(view[0])
        transform = source_for_modality(source, images).normalisation
        read = extract_features(source.network, images, layers, transform)
        features = {name: np.array(values) for name, values in read.items()}
        with torch.no_grad():
            logits = source.network.head(torch.from_numpy(features[layers[-1]]))
        right = float((logits.argmax(dim=1) == images.labels).float().mean())
        found = Seen(images.take(range(min(EXAMPLES, len(images)))), features, right, images.labels.numpy())
        if view != colour:
            pairs = self.seen[colour].features
            for name in layers:
                found.numbers[name] = {"accuracy": right} | gap_numbers(pairs[name], features[name])
        return found

    def map_at_once(self, choice: GapChoice) -> GapChoice:
        """The same, with PCA in place of a map that was not computed yet."""
        known = (choice.view, choice.layer, choice.map) in self._maps
        return choice if known else replace(choice, map="PCA")

    def clouds(self, choice: GapChoice) -> dict[str, map_figures.Cloud]:
        """The map of colour and target with true classes: PCA at once, others in seconds, cached."""
        (colour, _, target), key = self.views(choice), (choice.view, choice.layer, choice.map)
        if key not in self._maps:
            sets = {view[1]: self.seen[view].features[choice.layer] for view in (colour, target)}
            found = maps.joint_map(sets) if choice.map == "UMAP" else maps.pca_map(sets, fit_on=colour[1])
            titles, labels = {m: style.modality_style(m).title for m in found}, self.seen[target].labels
            self._maps[key] = {m: map_figures.Cloud(x, m, titles[m], labels) for m, x in found.items()}
        return self._maps[key]

    def curve(self, choice: GapChoice) -> tuple[list[float], list[float]]:
        """A number over the strengths known so far, for this camera, modality and layer."""
        settings = [replace(choice, strength=strength) for strength in STRENGTHS]
        known = [one for one in settings if one.view in self.seen]
        return [one.strength for one in known], [self.numbers(one)[choice.curve] for one in known]


def draw_room(figure: Canvas, world: GapWorld, choice: GapChoice) -> None:
    """One room in colour, without errors, and as the camera sees it."""
    views = world.views(choice)
    rooms = [world.seen[view].examples.images[view[1]] for view in views]
    rooms = [some[min(choice.example, len(some) - 1)] for some in rooms]
    reach = figures.reach_of(rooms[1])
    images = [figures.paint(room, view[1], reach) for room, view in zip(rooms, views, strict=True)]
    about = "as in\ntraining", "without\nerrors", f"errors\n× {choice.strength:g}"
    titles = [f"{style.modality_style(v[1]).short}\n{words}" for v, words in zip(views, about, strict=True)]
    ax = figures.tiles(figure.subplots(), {"": images}, titles)
    style.describe(ax, f"One room: {', '.join(title.replace(chr(10), ' ') for title in titles)}.")


def draw_numbers(figure: Canvas, world: GapWorld, choice: GapChoice, before: Mapping[str, float]) -> None:
    """`NUMBERS` on scales; a pale dot where each of them was before."""
    chance = 1 / len(world.network(choice.sensor).classes)
    marks = {"chance": chance, "on colour": world.seen[world.views(choice)[0]].accuracy}
    about = NUMBERS | {"accuracy": replace(NUMBERS["accuracy"], marks=marks)}
    colour = style.modality_style(choice.modality).colour
    gap_figures.scales(figure, about, world.numbers(choice), before, colour)


def draw_map(figure: Canvas, world: GapWorld, choice: GapChoice) -> None:
    """The map of a setting, and the number that it may exaggerate or hide; PCA until it is computed."""
    shown = world.map_at_once(choice)
    more = "" if shown == choice else f"; {MAPS[choice.map]} follows"
    title = f"{MAPS[shown.map][0].upper()}{MAPS[shown.map][1:]}, {choice.layer}{more}"
    about: dict[str, Any] = {"hue": choice.hue, "title": title}
    classes = world.network(choice.sensor).classes
    ax = map_figures.feature_map(world.clouds(shown), classes, figure.subplots(), **about)
    purity = world.numbers(choice)["neighbour_purity"]
    note = f"{100 * purity:.0f} % of neighbours: same modality (mixed:\xa050\xa0%)"
    ax.set_xlabel(note, **style.WORDS, loc="left", wrap=True)


def draw_strengths(figure: Canvas, world: GapWorld, choice: GapChoice) -> None:
    """A number over the camera's errors, one line per camera."""
    curves, styles, scale = {}, {}, NUMBERS[choice.curve]
    for i, (sensor, title) in enumerate(CAMERAS.items()):
        styles[sensor] = replace(style.known_style(sensor, i), title=title.split(" (")[0])
        if (curve := world.curve(replace(choice, sensor=sensor)))[0]:
            curves[sensor] = curve
    ax = figures.curves(
        curves, figure.subplots(), title=f"{scale.title[0].upper()}{scale.title[1:]}", ylabel="",
        xlabel="strength of the camera's errors", ylim=(scale.low, scale.high * 1.02), styles=styles,
    )  # fmt: skip
    ax.set_xlim(-0.05 * STRONGEST, 1.025 * STRONGEST)


class GapPanel(Panel):
    """Move the camera, its errors and the layer, and see what the gap does: picture, map, numbers.

    **Sweep** computes all strengths of the camera shown, after which its slider answers at once.
    """

    run_text = "Sweep"
    run_tip = "compute all strengths of this camera, so that the slider answers at once"

    def __init__(self, choice: GapChoice | None = None, world: GapWorld | None = None) -> None:
        self.world, self._before, self._shown = world or GapWorld(), dict[str, float](), dict[str, float]()
        first = choice or GapChoice()
        layers = self.world.layers(first.sensor)
        self._first = replace(first, layer=first.layer or layers[-1])
        table = controls_of(self._first, layer={"options": layers})
        super().__init__(table, ("room", "numbers", "map", "strength"))
        named("photos", self.pictures["room"].image)
        self._asked = session.Background[None](self._compute, self.box)
        self._maps = session.Background[None](self._make_map, self.box)
        self.background += [self._asked, self._maps]
        self._on_change(("sensor", "modality", "strength"), self._move)
        self._on_change(("layer",), partial(self._move, "numbers"))
        for control, picture in {"example": "room", "map": "map", "hue": "map", "curve": "strength"}.items():
            self._on_change((control,), partial(self.redraw, picture))
        self._move()

    @property
    def choice(self) -> GapChoice:
        """The setting that the controls show."""
        return GapChoice(**{name: control.value for name, control in self.controls.items()})

    def _begin(self) -> None:
        """Compute every strength of the camera shown."""
        now = self.choice

        def events() -> Generator[float]:
            self.box.clear()
            for i, strength in enumerate(STRENGTHS):
                self.session.note = f"errors × {strength:g}"
                self.world.look(replace(now, strength=strength))
                yield (i + 1) / len(STRENGTHS)

        self.session.start(events, partial(self.redraw, "strength"))

    def reset(self) -> None:
        """Stop, and go back to the setting that the panel began with; what is known stays known."""
        super().reset()
        self._shown = {}
        for name, value in asdict(self._first).items():
            self.controls[name].value = value
        self._move()

    def _move(self, *first: str) -> None:
        """Answer a moved control, cheap pictures `first`; when it has been computed where it is not known."""
        choice = self.choice
        if choice.view not in self.world.seen:
            self._asked.post(None, at_once=True)
            return
        self._before, self._shown = self._shown, self.world.numbers(choice)
        self.redraw(*(first or ("numbers", "room")))
        self.redraw("map", "strength", at_once=False)

    def _compute(self, _: None) -> None:
        """In the background: the setting that the controls ask for by now."""
        self.box.clear()
        self.headline.value = self.told()
        self.world.look(self.choice)
        self._move()

    def paints(self) -> dict[str, Paint]:
        """All pictures of a known setting; a map that was not made yet is asked for."""
        choice = self.choice
        about: Any = {"world": self.world, "choice": choice}
        if choice.view not in self.world.seen:
            return {}
        if self.world.map_at_once(choice) != choice:
            self._maps.post(None, at_once=True)
        return {
            "room": partial(draw_room, **about),
            "numbers": partial(draw_numbers, **about, before=self._before),
            "map": partial(draw_map, **about),
            "strength": partial(draw_strengths, **about),
        }

    def told(self) -> str:
        """What the network makes of the setting shown."""
        choice = self.choice
        if choice.view not in self.world.seen:
            return f"The network reads rooms, errors × {choice.strength:g} …"
        colour, target = self.world.seen[self.world.views(choice)[0]], style.modality_style(choice.modality)
        numbers = self.world.numbers(choice)
        return (
            f"{SENSORS[choice.sensor].title}, {target.title}, errors × {choice.strength:g}: the source "
            f"network names <b>{100 * numbers['accuracy']:.0f}&nbsp;%</b> of the rooms right, in colour "
            f"{100 * colour.accuracy:.0f}&nbsp;%; at <code>{choice.layer}</code> "
            f"<b>{100 * numbers['neighbour_purity']:.0f}&nbsp;%</b> of neighbours are of one modality."
        )

    def _make_map(self, _: None) -> None:
        """In the background: the map that the controls ask for by now."""
        if (choice := self.choice).view in self.world.seen:
            self.world.clouds(choice)
            self.redraw("map")

    def still(self, extremes: bool = False) -> Any:
        """A picture for readers without a kernel; `extremes`: with no, these, and the strongest errors."""
        if not extremes:
            return super().still()
        self.wait()
        now = replace(self.choice, map="PCA", hue="modality")
        shown = list(dict.fromkeys(replace(now, strength=s) for s in (0.0, now.strength, STRONGEST)))
        with session.DRAW:
            figure = style.new_figure(520 * len(shown), 1000, fitted=True)
            parts: Any = figure.subfigures(3, len(shown), squeeze=False, height_ratios=(0.8, 1.3, 1.2))
            for (room, points, numbers), choice in zip(parts.T, shown, strict=True):
                self.world.look(choice)
                draw_room(room, self.world, choice)
                draw_map(points, self.world, choice)
                draw_numbers(numbers, self.world, choice, {})
        return style.show(figure, 100)
