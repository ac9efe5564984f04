"""The game *Name this room*: ten rooms to be named from depth alone, against a network of colour."""

from pathlib import Path

import anywidget
import pandas as pd
import torch
import traitlets
from matplotlib.figure import Figure

from socketlab.figures import figures
from socketlab.images import pocketrooms
from socketlab.method import evaluate
from socketlab.networks.checkpoints import load_source, source_for_modality
from socketlab.panels.cards import image_url


class NameThisRoom(anywidget.AnyWidget):
    """Rooms to be named from their depth images; another ``seed`` shows other rooms."""

    _esm = Path(__file__).with_name("name_this_room.js")
    game = traitlets.Dict().tag(sync=True)

    def __init__(self, seed: int = 0, count: int = 10, sensor: str = "kinect_v1") -> None:
        both = pocketrooms.load("target_test", sensor, ("rgb", "depth"))
        source, depth = load_source(f"rgb_{sensor}"), both.only("depth")
        named = evaluate.predict(source_for_modality(source, depth), depth)[0].argmax(dim=1)
        rows = _some_of_each_class(both.labels, seed, count)
        self.rooms = both.take(rows)
        rounds = [
            {m: image_url(both.images[m][row], m) for m in ("depth", "rgb")}
            | {"truth": int(both.labels[row]), "network": int(named[row])}
            for row in rows.tolist()
        ]
        accuracy = {"images": len(both), "share": f"{(named == both.labels).double().mean():.0%}"}
        names = [name.replace("_", " ") for name in both.classes]
        super().__init__(game={"classes": names, "rounds": rounds, "accuracy": accuracy})

    def still(self) -> Figure:
        """The depth images with their numbers and without their names, for readers without a kernel."""
        titles = [str(number) for number in range(1, len(self.rooms) + 1)]
        return figures.gallery({"depth": ("depth", self.rooms.images["depth"])}, titles, tile=84)


def _some_of_each_class(labels: torch.Tensor, seed: int, count: int) -> torch.Tensor:
    """(count,) rows in random order: each class once before any comes twice."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    mixed = pd.Series(labels[order].numpy())
    chosen = order[mixed.groupby(mixed).cumcount().argsort(kind="stable").to_list()][:count]
    return chosen[torch.randperm(len(chosen), generator=generator)]
