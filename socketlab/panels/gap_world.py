"""What the panel of the modality gap knows: cameras and their errors, seen by a network that reads colour.

`GapWorld` loads and remembers. A setting that it knows is answered at once; another one is worked out stage
by stage, so that whoever waits can see how far it is and leave.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from socketlab.errors import LabError
from socketlab.figures import figures, maps
from socketlab.images import encodings, pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS, STRONGEST
from socketlab.measures import distances, similarity
from socketlab.measures.comparison import main_layers
from socketlab.measures.layer_features import extract_features
from socketlab.measures.metrics import MEASURES
from socketlab.networks.checkpoints import Source, load_source
from socketlab.networks.networks import networks_of

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
        figures._dot(figures.modality_style(m).marker, figures.cloud_colours(cloud, "modality"), cloud.title)
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
