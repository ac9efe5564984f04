"""The live panel of the modality gap: a camera, its errors and a layer, and what they do to the gap.

A thin shell over `gap.GapWorld`: what it knows is shown at once, the rest is worked out in the thread
of the session, with progress, and can be stopped.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from socketlab.errors import LabError
from socketlab.figures import figures, maps
from socketlab.figures import maps as embed
from socketlab.images import encodings, pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS, STRONGEST
from socketlab.measures import distances, similarity
from socketlab.measures.comparison import main_layers
from socketlab.measures.layer_features import extract_features
from socketlab.measures.metrics import MEASURES
from socketlab.networks.checkpoints import Source, load_source
from socketlab.networks.networks import networks_of
from socketlab.panels import live_pictures, session
from socketlab.panels.exports import Table
from socketlab.panels.live_pictures import Gauge, LiveGauges, LiveTiles
from socketlab.panels.old_base import (  # fmt: skip
    Panel,
    heading,
    in_a_row,
    in_words,
    menu,
    said,
    slider,
    steps_slider,
    text_box,
    with_class,
)

SPLIT = "target_test"
STRENGTHS = tuple(0.5 * i for i in range(int(2 * STRONGEST) + 1))
EXAMPLES = 24
MAPS = {"UMAP": "joint UMAP", "placed": "UMAP of colour, the others placed in it", "PCA": "PCA of colour"}
NUMBERS = {
    "accuracy": "right answers of the source network",
    "neighbour_purity": "neighbours of the same modality",
    "mmd": "MMD², bandwidth of colour",
    "cka": "linear CKA, debiased",
    "rank": "median rank of the partner",
}
FORMS = {
    "accuracy": "{:.0%}",
    "neighbour_purity": "{:.0%}",
    "mmd": "{:.3f}",
    "cka": "{:.2f}",
    "rank": "{:.2f}",
}
View = tuple[str, str, float]
Images = Callable[[str, str, float], PairedImages]


# ------------------------------------------------------------------------ settings


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
    """One camera setting through the eyes of the source network.

    Parameters
    ----------
    examples : a few rooms as the camera saw them.
    features : layer -> (N, D).
    accuracy : share of all rooms that the network names right, in [0, 1]; for the reader only.
    numbers : layer -> `NUMBERS` against colour; empty for colour itself.
    """

    examples: PairedImages
    features: dict[str, NDArray[np.float32]]
    accuracy: float
    labels: NDArray[np.int64]
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)


def shipped_images(sensor: str, modality: str, strength: float) -> PairedImages:
    """The held-out rooms of the task in one modality, as one camera sees them."""
    return pocketrooms.load(SPLIT, sensor, (modality,), strength)


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
    found: dict[str, Callable[[], float]] = {
        "neighbour_purity": lambda: distances.neighbour_purity(a, b),
        "mmd": lambda: distances.mmd(a, b, bandwidth=distances.median_distance(a, a)),
        "cka": lambda: similarity.linear_cka(a, b, debiased=True),
        "rank": lambda: MEASURES["pair_rank"].fix(a, b, True, 0)(a, b),
    }
    return {name: _or_nan(measure) for name, measure in found.items()}


def _or_nan(measure: Callable[[], float]) -> float:
    try:
        return float(measure())
    except LabError:
        return math.nan


class GapWorld:
    """Settings that were looked at, and how to look at another one.

    Parameters
    ----------
    images : (sensor, modality, strength) -> labelled images of that modality, the same rooms every time.
    network : sensor -> source network.
    """

    def __init__(self, images: Images = shipped_images, network: Callable[[str], Source] = shipped_network):
        self._images, self._network = images, network
        self._networks: dict[str, Source] = {}
        self._seen: dict[View, Seen] = {}
        self._maps: dict[tuple[View, str, str], dict[str, NDArray[np.float32]]] = {}

    def network(self, sensor: str) -> Source:
        """The source network of a camera."""
        if sensor not in self._networks:
            self._networks[sensor] = self._network(sensor)
        return self._networks[sensor]

    @property
    def networks(self) -> list[str]:
        """The cameras whose network was asked for."""
        return list(self._networks)

    def layers(self, sensor: str) -> list[str]:
        """Names of the network's large parts, in order."""
        return main_layers(networks_of(self.network(sensor).network)[0])

    def knows(self, choice: GapChoice) -> bool:
        """Whether this setting is answered at once."""
        return all(view in self._seen for view in (self.colour(choice), self.ideal(choice), choice.view))

    def colour(self, choice: GapChoice) -> View:
        """The view of the source's own modality."""
        return choice.sensor, self.network(choice.sensor).modality, 1.0

    def ideal(self, choice: GapChoice) -> View:
        """The same camera without errors."""
        return choice.sensor, choice.modality, 0.0

    def seen(self, view: View) -> Seen:
        """What is known of a view; a KeyError where `stages` has not been there."""
        return self._seen[view]

    def numbers(self, choice: GapChoice) -> dict[str, float]:
        """`NUMBERS` of a known setting at its layer."""
        found = self.seen(choice.view)
        return {"accuracy": found.accuracy} | found.numbers[self.layer(choice)]

    def layer(self, choice: GapChoice) -> str:
        """The layer by name."""
        return choice.layer or self.layers(choice.sensor)[-1]

    def sets(self, choice: GapChoice) -> dict[str, NDArray[np.float32]]:
        """Features of colour and of the target at the chosen layer."""
        views, layer = (self.colour(choice), choice.view), self.layer(choice)
        return {view[1]: self.seen(view).features[layer] for view in views}

    def stages(self, choice: GapChoice) -> Iterator[tuple[float, str]]:
        """Work a setting out: (share done, what comes next); leave between two stages at will."""
        views = [v for v in (self.colour(choice), self.ideal(choice), choice.view) if v not in self._seen]
        views = list(dict.fromkeys(views))
        for i, (sensor, modality, strength) in enumerate(views):
            title = figures.modality_style(modality).title
            yield (2 * i) / (2 * len(views)), f"{title}: the camera looks (errors × {strength:g})"
            images = self._images(sensor, modality, strength)
            yield (2 * i + 1) / (2 * len(views)), f"{title}: the network reads {len(images)} rooms"
            found = look(self.network(sensor), images, self.layers(sensor))
            if modality != self.colour(choice)[1]:
                colour = self.seen(self.colour(choice)).features
                found.numbers = {name: gap_numbers(colour[name], found.features[name]) for name in colour}
            self._seen[sensor, modality, strength] = found
        yield 1.0, "shown"

    def map(self, choice: GapChoice, kind: str) -> dict[str, NDArray[np.float32]]:
        """A map of both sets; "PCA" at once, the others in seconds, and at once when known."""
        key = choice.view, self.layer(choice), kind
        if key not in self._maps:
            sets, first = self.sets(choice), self.colour(choice)[1]
            self._maps[key] = {
                "PCA": lambda: maps.pca_map(sets, fit_on=first),
                "UMAP": lambda: maps.joint_map(sets),
                "placed": lambda: maps.projected_map(sets, fit_on=first),
            }[kind]()
        return self._maps[key]

    def has_map(self, choice: GapChoice, kind: str) -> bool:
        """Whether `map` answers at once."""
        return kind == "PCA" or (choice.view, self.layer(choice), kind) in self._maps

    def clouds(self, choice: GapChoice, points: dict[str, NDArray[np.float32]]) -> dict[str, figures.Cloud]:
        """Points with modality, name and true class."""
        labels = self.seen(choice.view).labels
        return {m: figures.Cloud(p, m, figures.modality_style(m).title, labels) for m, p in points.items()}

    def curve(self, choice: GapChoice, name: str) -> tuple[list[float], list[float]]:
        """A number over the strengths known so far, for this camera, modality and layer."""
        known = [s for s in STRENGTHS if self.knows(replace(choice, strength=s))]
        return known, [self.numbers(replace(choice, strength=s))[name] for s in known]

    def known(self) -> list[View]:
        """Every target view looked at so far."""
        return [view for view, found in self._seen.items() if found.numbers]


# ------------------------------------------------------------------------ pictures


def written(name: str, value: float) -> str:
    """A number as text; a dash where it could not be had."""
    return FORMS[name].format(value).replace("%", " %") if np.isfinite(value) else "–"


def short_title(sensor: str) -> str:
    """A camera's title without its principle."""
    return SENSORS[sensor].title.split(" (")[0]


def example_tiles(world: GapWorld, choice: GapChoice, number: int) -> tuple[list[Any], list[str]]:
    """One room in colour, perfect and as the camera sees it; with a title each."""
    views = world.colour(choice), world.ideal(choice), choice.view
    target = figures.modality_style(choice.modality).short
    titles = [
        f"{figures.modality_style(views[0][1]).short}\nwhat it was trained on",
        f"{target}\nwithout errors",
        f"{target}\nerrors × {choice.strength:g}",
    ]
    examples = [world.seen(view).examples for view in views]
    row = min(number, len(examples[0]) - 1)
    depths = np.asarray(examples[1].images[choice.modality][row].to(torch.int32))
    reach = 1000 * math.ceil(max(float(np.percentile(depths, 99)), 1.0) / 1000)
    images = [
        figures.paint(some.images[view[1]][row], view[1], reach)
        for some, view in zip(examples, views, strict=True)
    ]
    return images, titles


def still_figure(world: GapWorld, shown: list[GapChoice], kind: str = "PCA", example: int = 0) -> Figure:
    """Settings side by side: the room, the map, the numbers.

    Parameters
    ----------
    shown : known settings; a column each.
    kind : of map, a name in `MAPS`.
    """
    wide = 430 * len(shown) if len(shown) > 1 else 640
    figure = figures.new_figure(wide, 860)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    grid = figure.subplots(3, len(shown), squeeze=False, height_ratios=(1, 1.5, 0.9))
    for column, choice in enumerate(shown):
        images, titles = example_tiles(world, choice, example)
        top, middle, low = grid[:, column]
        top.imshow(
            np.concatenate([images[0], np.full((len(images[0]), 3, 3), 255, np.uint8), images[2]], axis=1)
        )
        top.set_axis_off()
        top.set_title(titles[2].replace("\n", ", "), fontsize=figures.TEXT + 1, color=figures.INK, loc="left")
        _still_map(world, choice, kind, middle, legend=column == len(shown) - 1)
        _still_numbers(world, choice, low)
    return figure


def _still_map(world: GapWorld, choice: GapChoice, kind: str, ax: Any, legend: bool) -> None:
    clouds = world.clouds(choice, world.map(choice, kind))
    figures.map_frame(ax, f"{MAPS[kind]}, {world.layer(choice)}")
    figures.scatter_clouds(ax, clouds, "modality")
    handles = [
        figures.legend_dot(
            figures.modality_style(m).marker, figures.cloud_colours(cloud, "modality"), cloud.title
        )
        for m, cloud in clouds.items()
    ]
    if legend:
        ax.legend(handles=handles, loc="upper right", fontsize=figures.TEXT, labelcolor=figures.INK)
    figures.describe(ax, f"Map of {' and '.join(cloud.title for cloud in clouds.values())}.")


def _still_numbers(world: GapWorld, choice: GapChoice, ax: Any) -> None:
    numbers = world.numbers(choice)
    ax.set_axis_off()
    for i, (name, title) in enumerate(NUMBERS.items()):
        text = written(name, numbers[name])
        ax.text(0, 0.95 - 0.2 * i, title, transform=ax.transAxes, fontsize=figures.TEXT, color=figures.INK)
        ax.text(
            1, 0.95 - 0.2 * i, text, transform=ax.transAxes, fontsize=figures.TEXT + 1, ha="right",
            fontweight="bold", color=figures.INK,
        )  # fmt: skip
    told = ", ".join(f"{NUMBERS[name]} {value:.3g}" for name, value in numbers.items())
    figures.describe(
        ax, f"{short_title(choice.sensor)}, {choice.modality}, errors × {choice.strength:g}: {told}."
    )


# ------------------------------------------------------------------------ the panel


TARGETS = ("depth", "nir")


def gauges(chance: float, colour: float) -> dict[str, Gauge]:
    """The scales of `NUMBERS`, with what to compare each of them to."""
    return {
        "accuracy": Gauge(NUMBERS["accuracy"], marks={"chance": chance, "on colour": colour}, form="{:.0%}"),
        "neighbour_purity": Gauge(
            NUMBERS["neighbour_purity"], 0.4, 1.0, {"mixed": 0.5, "fully separated": 1.0}, "{:.0%}"
        ),
        "mmd": Gauge(NUMBERS["mmd"], 0.0, 0.6, {"no gap": 0.0}, "{:.3f}"),
        "cka": Gauge(NUMBERS["cka"], 0.0, 1.0, {"nothing in common": 0.0, "alike": 1.0}),
        "rank": Gauge(NUMBERS["rank"], 0.0, 0.6, {"first": 0.0, "a guess": 0.5}),
    }


class GapPanel(Panel):
    """Move the camera, its errors and the layer, and see what the gap does: picture, map, numbers.

    **Sweep** works out all strengths of the camera shown, after which its slider answers at once.

    Parameters
    ----------
    choice : the setting to begin with.
    world : loads and remembers; another one shows another world.
    """

    name = "gap"

    def __init__(self, choice: GapChoice | None = None, world: GapWorld | None = None) -> None:
        super().__init__(
            {
                "run": "work out all strengths of this camera, so that the slider answers at once",
                "stop": "end the work under way, keep what is known",
                "reset": "settings as at the beginning",
            },
            run_text="Sweep",
        )
        self.world = world or GapWorld()
        self._first = choice or GapChoice()
        self._lock = threading.RLock()
        self._wanted: GapChoice | None = None
        self._sweep: list[GapChoice] = []
        self._worker: object | None = None
        self._shown: tuple[GapChoice, dict[str, float]] | None = None
        self._marks: Any = None
        self._clouds: dict[str, figures.Cloud] = {}
        self._maps: session.Background[GapChoice] = session.Background(self._draw_map, self.box)
        self.controls = with_class(self._make_controls())
        self._make_pictures()
        self.children = self._arrange()
        self._listen()
        self._on_change(("sensor", "modality", "strength", "layer"), self._move)
        self._on_change(("example",), self._show_examples)
        self._on_change(("map", "hue"), self._ask_map)
        self._on_change(("curve",), self._draw_curve)
        embed.warm_up()
        self._move()

    def __repr__(self) -> str:
        return "GapPanel: run this cell to see it live"

    @property
    def choice(self) -> GapChoice:
        """The setting that the controls show."""
        c = self.controls
        return GapChoice(c["sensor"].value, c["modality"].value, c["strength"].value, c["layer"].value)

    def set(self, choice: GapChoice) -> None:
        """Move the controls to a setting."""
        values = {"sensor": choice.sensor, "modality": choice.modality, "strength": choice.strength}
        values["layer"] = self.world.layer(choice)
        for name, value in values.items():
            self.controls[name].value = value

    # what the buttons do

    def run(self, wait: bool = False, timeout: float | None = None) -> str:
        """Work out every strength of the camera shown, also beside a setting that is under way."""
        self.buttons["pause"].description = "Pause"
        self.session.resume()
        now = self.choice
        with self._lock:
            self._sweep = [replace(now, strength=s) for s in STRENGTHS]
        self._work()
        return self.wait(timeout) if wait else self.session.state

    def stop(self) -> None:
        """End the work under way."""
        with self._lock:
            self._sweep, self._wanted = [], None
        self._maps.drop()
        super().stop()

    def reset(self) -> None:
        """Stop, and go back to the setting that the panel began with; what is known stays known."""
        self._halt()
        self._shown = None
        self.set(self._first)
        self.session.reset()
        self._move()

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the setting shown, its map and a sweep are done, and raise what went wrong.

        Returns
        -------
        The state of the session.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        state = self.session.wait(timeout)
        while self._worker is not None and time.monotonic() < until:
            time.sleep(0.01)  # one worker hands over to the next
            state = self.session.wait(timeout)
        self._maps.wait(timeout)
        return state

    def tables(self) -> dict[str, Table]:
        """Numbers of every setting looked at, and the points of the map shown."""
        rows = []
        for sensor, modality, strength in self.world.known():
            found = self.world.seen((sensor, modality, strength))
            about = {"sensor": sensor, "modality": modality, "strength": strength}
            rows += [
                {**about, "layer": layer, "accuracy": found.accuracy, **numbers}
                for layer, numbers in found.numbers.items()
            ]
        points = [
            {"modality": cloud.modality, "class": int(label), "x": float(x), "y": float(y)}
            for cloud in self._clouds.values()
            for (x, y), label in zip(cloud.points, cloud.labels, strict=True)  # type: ignore[arg-type]
        ]
        return {"numbers": rows, "map": points}

    def still(self, extremes: bool = False, dpi: float = 100) -> Any:
        """A picture for readers without a kernel, as an IPython `Image` with its description.

        Parameters
        ----------
        extremes : show the setting at no errors and at the strongest ones too.
        """
        self.wait()
        now = self.choice
        shown = [now]
        if extremes:
            shown = list(dict.fromkeys([replace(now, strength=s) for s in (0.0, now.strength, STRONGEST)]))
            for choice in shown:
                for _ in self.world.stages(choice):
                    pass
        kind = "PCA" if extremes else self.controls["map"].value
        self.world.map(now, kind)
        with session.DRAW:
            figure = still_figure(self.world, shown, kind, self.controls["example"].value)
        return figures.show(figure, dpi)

    # the worker's side

    def _move(self) -> None:
        """Answer a moved control: at once where the setting is known."""
        choice = self.choice
        if self.world.knows(choice):
            with self._lock:
                self._wanted = None
            self._show(choice)
            return
        with self._lock:
            self._wanted = choice
        self._work()

    def _work(self) -> None:
        """See that a worker is at work; one that is about to leave is waited for, and another one started."""
        with self._lock:
            if self._worker is not None and not self.session.stopping:
                return
            token = self._worker = object()

        def begin() -> None:
            self.session.join()
            if not self.session.start(lambda: self._stages(token), self._see):
                self._leave(token)

        if self.session.running:
            threading.Thread(target=begin, name="socketlab-handover", daemon=True).start()
        else:
            begin()

    def _next(self, token: object) -> GapChoice | None:
        """What to work out next: what the controls show, then the sweep; None ends the work."""
        with self._lock:
            if self._wanted is not None and not self.world.knows(self._wanted):
                return self._wanted
            self._sweep = [choice for choice in self._sweep if not self.world.knows(choice)]
            if self._sweep:
                return self._sweep[0]
            self._leave(token)
            return None

    def _leave(self, token: object) -> None:
        """From now on whoever wants something starts a new worker."""
        with self._lock:
            if self._worker is token:
                self._worker = None

    def _overtaken(self, choice: GapChoice) -> bool:
        """Whether the controls have moved on to another setting that is to be worked out first."""
        wanted = self._wanted
        return wanted is not None and wanted.view != choice.view and not self.world.knows(wanted)

    def _stages(self, token: object) -> Iterator[tuple[float, str]]:
        total = len(self._sweep)
        self.box.clear()
        try:
            while (choice := self._next(token)) is not None:
                left = len(self._sweep)
                for share, words in self.world.stages(choice):
                    if self.world.knows(choice):
                        self._arrived(choice)
                    yield (total - left + share) / total if choice in self._sweep else share, words
                    if self._overtaken(choice):
                        break
        finally:
            self._leave(token)

    def _arrived(self, choice: GapChoice) -> None:
        """A setting is known now: show it where it is the one that the controls show."""
        if choice.view == self.choice.view:
            self._show(self.choice)
        else:
            self._draw_curve()

    def _see(self, stage: tuple[float, str]) -> float:
        self.session.note = stage[1]
        return stage[0]

    # showing

    def _show(self, choice: GapChoice) -> None:
        """All pictures of a known setting."""
        numbers = self.world.numbers(choice)
        colour = self.world.seen(self.world.colour(choice)).accuracy
        chance = 1 / len(self.world.network(choice.sensor).classes)
        before = self._shown[1] if self._shown is not None else None
        with self._lock:
            if (chance, colour) != self._marks:
                self._marks = chance, colour
                self.gauges.frame(gauges(chance, colour))
            self.gauges.colour = figures.modality_style(choice.modality).colour
            self.gauges.draw(numbers, before)
            self._shown = choice, numbers
        self._show_examples()
        self._draw_curve()
        self._ask_map()
        title = figures.modality_style(choice.modality).title
        self.headline.value = said(
            f"{SENSORS[choice.sensor].title}, {title}, errors × {choice.strength:g}: the source network "
            f"names <b>{100 * numbers['accuracy']:.0f}&nbsp;%</b> of the rooms right, in colour "
            f"{100 * colour:.0f}&nbsp;%; at <code>{self.world.layer(choice)}</code> "
            f"<b>{100 * numbers['neighbour_purity']:.0f}&nbsp;%</b> of the neighbours are of one modality."
        )

    def _show_examples(self) -> None:
        choice = self.choice
        if self.world.knows(choice):
            images, titles = example_tiles(self.world, choice, self.controls["example"].value)
            self.tiles.draw(images, titles)

    def _draw_curve(self) -> None:
        choice, name = self.choice, self.controls["curve"].value
        with self._lock:
            self.curve.rename(name)
            curves = {n: self.world.curve(replace(choice, sensor=n), name) for n in self.world.networks}
            shown = {sensor: curve for sensor, curve in curves.items() if curve[0]}
            self.curve.draw(shown)

    def _ask_map(self) -> None:
        """The map of the setting shown: at once if known, else PCA until it is there."""
        choice, kind = self.choice, self.controls["map"].value
        if not self.world.knows(choice):
            return
        if self.world.has_map(choice, kind):
            self._maps.drop()
            self._show_map(choice, kind)
            return
        self._show_map(choice, "PCA", f"; {MAPS[kind]} is on its way")
        self._maps.post(choice, at_once=True)

    def _draw_map(self, choice: GapChoice) -> None:
        """In the background: the map that the controls ask for."""
        kind = self.controls["map"].value
        if not embed.is_warm():
            embed.warm_up().join(120)
        if choice == self.choice:
            self.world.map(choice, kind)
            if (choice, kind) == (self.choice, self.controls["map"].value):
                self._show_map(choice, kind)

    def _show_map(self, choice: GapChoice, kind: str, more: str = "") -> None:
        self._clouds = self.world.clouds(choice, self.world.map(choice, kind))
        apart = self.world.numbers(choice)["neighbour_purity"]
        note = f"{100 * apart:.0f} % of the neighbours are of the same modality (50 % = mixed){more}"
        title = f"{MAPS[kind][0].upper()}{MAPS[kind][1:]}, {self.world.layer(choice)}"
        self.map.draw(self._clouds, self.controls["hue"].value, title, note)
        self.words.value = in_words(self.pictures)

    # making

    def _make_controls(self) -> dict[str, Any]:
        first = self._first
        layers = self.world.layers(first.sensor)
        sensors = [(sensor.title, name) for name, sensor in SENSORS.items()]
        targets = [(figures.MODALITIES[m].title, m) for m in TARGETS]
        curves = [(title, name) for name, title in NUMBERS.items()]
        maps = [(title, name) for name, title in MAPS.items()]
        return {
            "sensor": menu("camera", sensors, first.sensor, "the camera of both modalities"),
            "modality": menu("target", targets, first.modality, "what the network has never seen"),
            "strength": slider(
                "camera errors", float(first.strength), 0.0, STRONGEST, 0.5, "1: as published; 0: perfect"
            ),
            "layer": steps_slider("layer", layers, self.world.layer(first), "whose features are compared"),
            "example": slider("example", 0, 0, EXAMPLES - 1, 1, "which room is shown"),
            "map": menu("map", maps, "UMAP", "PCA is shown until UMAP is ready", small=True),
            "hue": menu("colour by", ["modality", "class"], "modality", "colour of the points", small=True),
            "curve": menu("curve", curves, "neighbour_purity", "what is drawn over the errors", small=True),
        }

    def _make_pictures(self) -> None:
        self.tiles = LiveTiles([""], 3, tile=188, title="One room, as the camera sees it")
        self.gauges = LiveGauges(gauges(1 / 8, 1.0), "The gap in numbers")
        self.map = live_pictures.LiveScatter(
            self.world.network(self._first.sensor).classes, "Map of features", 620, 430
        )
        self.curve = StrengthCurve(
            (),
            title=NUMBERS["neighbour_purity"],
            xlabel="strength of the camera's errors",
            xlim=(0, STRONGEST),
            looks={
                n: replace(figures.known_style(n, i), title=short_title(n)) for i, n in enumerate(SENSORS)
            },
            width=450,
            height=344,
        )
        self.pictures = {"room": self.tiles, "numbers": self.gauges, "map": self.map, "strength": self.curve}
        self.headline = text_box("headline", lines=2)
        self.headline.value = said("The network reads its first rooms.")

    def _arrange(self) -> list[Any]:
        c = self.controls
        return [
            heading("Camera and layer", "what is known answers at once, the rest shows its progress"),
            in_a_row(c["sensor"], c["modality"], c["strength"], c["layer"], c["example"]),
            *self._bar(),
            self.headline,
            in_a_row(self.tiles.image, self.gauges.image),
            in_a_row(self.map.image, self.curve.image),
            in_a_row(c["map"], c["hue"], c["curve"]),
            self.words,
        ]


class StrengthCurve(live_pictures.LivePlot):
    """A number over the camera's errors, one line per camera; its title and limits go with the number."""

    def rename(self, name: str) -> None:
        """Show another number."""
        limits = {
            "accuracy": (0.0, 1.02),
            "neighbour_purity": (0.4, 1.02),
            "rank": (0.0, 0.6),
            "cka": (0.0, 1.02),
        }
        title = f"{NUMBERS[name][0].upper()}{NUMBERS[name][1:]}"
        if title != self._title:
            self._title, self.ylim = title, limits.get(name)
            self.clear()
