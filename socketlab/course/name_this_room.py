"""The game *Name this room*: rooms to be named from depth alone, against the network that reads colour.

Ten depth images, a button for each class, then your score and the network's, and the same rooms in colour.
The page plays by itself (name_this_room.js), in Jupyter and on the site.
"""

import base64
import io
from dataclasses import replace
from pathlib import Path

import anywidget
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from socketlab.figures import figures
from socketlab.images import encodings, pocketrooms
from socketlab.images.paired_images import PairedImages
from socketlab.method import evaluate
from socketlab.networks.checkpoints import load_source


class NameThisRoom(anywidget.AnyWidget):
    """Rooms to be named from their depth images.

    Parameters
    ----------
    seed : another one, other rooms.
    count : how many rooms; each class comes once before any comes twice.
    sensor : whose depth images, and whose RGB network plays against you.
    """

    _esm = Path(__file__).with_name("name_this_room.js")
    game = traitlets.Dict().tag(sync=True)
    answers = traitlets.List(traitlets.Int()).tag(sync=True)
    """Index of the class named for each room; empty until the last room was named."""

    def __init__(self, seed: int = 0, count: int = 10, sensor: str = "kinect_v1") -> None:
        both = pocketrooms.load("target_test", sensor, ("rgb", "depth"))
        answers = _network_answers(both.only("depth"), sensor)
        rows = _some_of_each_class(both.labels, seed, count)
        self.rooms = both.take(rows)
        rounds = [
            {
                "depth": _data_url(both.images["depth"][row], "depth"),
                "rgb": _data_url(both.images["rgb"][row], "rgb"),
                "truth": int(both.labels[row]),
                "network": int(answers[row]),
            }
            for row in rows.tolist()
        ]
        right = float((answers == both.labels).float().mean())
        super().__init__(
            game={
                "classes": [name.replace("_", " ") for name in both.classes],
                "rounds": rounds,
                "accuracy": {"images": len(both), "share": f"{right:.0%}"},
            }
        )

    def still(self) -> Figure:
        """The depth images with their numbers and without their names, for readers without a kernel."""
        titles = [str(number) for number in range(1, len(self.rooms) + 1)]
        return figures.gallery({"depth": ("depth", self.rooms.images["depth"])}, titles, tile=84)


def _network_answers(depth: PairedImages, sensor: str) -> torch.Tensor:
    """(N,) class that the unchanged RGB network names for each depth image."""
    target = pocketrooms.load("target_adapt", sensor, ("depth",))
    source = load_source(f"rgb_{sensor}")
    encoded = replace(source, normalisation=encodings.measure(target.images["depth"], "depth"))
    return evaluate.predict(encoded, depth)[0].argmax(dim=1)


def _some_of_each_class(labels: torch.Tensor, seed: int, count: int) -> torch.Tensor:
    """(count,) rows in random order: each class once before any comes twice."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    turn = torch.zeros(len(labels), dtype=torch.int64)
    for label in labels.unique():
        own = order[labels[order] == label]
        turn[own] = torch.arange(len(own))
    chosen = order[turn[order].sort(stable=True).indices][:count]
    return chosen[torch.randperm(len(chosen), generator=generator)]


def _data_url(image: torch.Tensor, modality: str) -> str:
    """One stored image as a PNG within the page."""
    file = io.BytesIO()
    Image.fromarray(figures.paint(image, modality, float(image.float().max()))).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
