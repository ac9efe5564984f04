"""The game: which rooms come, and what the page gets; playing it is tried on the site."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from socketlab.course.name_this_room import NameThisRoom, _some_of_each_class


@pytest.fixture(scope="module")
def game() -> NameThisRoom:
    return NameThisRoom()


def test_ten_rooms_in_both_modalities_with_the_networks_answers(game: NameThisRoom) -> None:
    rounds, classes = game.game["rounds"], game.game["classes"]
    assert len(rounds) == 10 and len(classes) == 8
    assert {one["truth"] for one in rounds} == set(range(8))
    assert [classes[one["truth"]] for one in rounds] == [kind.replace("_", " ") for kind in game.rooms.kinds]
    right = sum(one["truth"] == one["network"] for one in rounds)
    assert right / 10 == pytest.approx(0.2) and game.game["accuracy"] == {"images": 320, "share": "19%"}
    for number, one in enumerate(rounds):
        colours = base64.b64decode(one["rgb"].removeprefix("data:image/png;base64,"))
        shown = np.asarray(Image.open(io.BytesIO(colours))).transpose(2, 0, 1)
        assert np.array_equal(shown, game.rooms.images["rgb"][number].numpy())


def test_the_still_picture_shows_no_name(game: NameThisRoom) -> None:
    titles = [label.get_text() for label in game.still().axes[0].get_xticklabels()]
    assert titles == [str(number) for number in range(1, 11)]


def test_each_class_comes_once_before_any_comes_twice() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 7)
    for seed in range(20):
        rows = _some_of_each_class(labels, seed, 5)
        counts = labels[rows].bincount(minlength=3)
        assert len(rows.unique()) == 5 and counts.min() >= 1 and counts.max() <= 2
