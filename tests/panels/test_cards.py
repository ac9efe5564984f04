"""Cards: thumbnails, and the images behind a mistake."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from worlds import CLASSES, patterned

from socketlab.figures import figures
from socketlab.images.paired_images import PairedImages
from socketlab.panels import cards
from socketlab.panels.cards import written


def pictures(text: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_a_card_has_the_images_of_a_scene_in_every_modality() -> None:
    rooms = patterned(12, 0)
    shown = cards.Cards(rooms).card(2, ["of <b>two</b> lines"])
    assert (
        "#2</small>" in shown and written(rooms.kinds[2]) in shown and "<p>of <b>two</b> lines</p>" in shown
    )
    found = pictures(shown)
    assert [one.size for one in found] == [(64, 64)] * 2
    assert np.array_equal(np.asarray(found[0]), rooms.images["rgb"][2].numpy().transpose(1, 2, 0))
    assert "96&nbsp;%" in cards.Cards(rooms).prediction(1, 0.964)


def test_a_menu_of_mistakes_shows_the_images_behind_each() -> None:
    rooms = replace(patterned(12, 0).only("depth"), kinds=tuple(CLASSES * 4))
    answers = rooms.labels.clone()
    answers[[0, 3, 9]], answers[4] = 2, 0
    found = cards.Mistakes()
    assert found.menu.disabled
    found.of(rooms, answers, "run 1, epoch 3")
    offered = [label for label, _ in found.menu.options]
    assert offered == [
        "run 1, epoch 3: 4 of 12",
        f"3 × {CLASSES[0]} taken for {CLASSES[2]}",
        f"1 × {CLASSES[1]} taken for {CLASSES[0]}",
    ]
    assert found.menu.index == 1  # the commonest is shown at once
    assert re.findall(r"#(\d+)</small>", found.cards.value) == ["0", "3", "9"]
    assert found.cards.value.count(f"predicted: {CLASSES[2]}") == len(pictures(found.cards.value)) == 3
    found.menu.index = 2
    assert re.findall(r"#(\d+)</small>", found.cards.value) == ["4"]
    found.of(rooms, rooms.labels, "run 2, epoch 3")
    assert found.menu.disabled and found.cards.value == ""


def test_of_many_images_of_a_mistake_a_few_are_shown() -> None:
    rooms, found = patterned(90, 0), cards.Mistakes()
    found.of(rooms, (rooms.labels + 1) % 3, "run 1")
    assert found.menu.label == f"30 × {CLASSES[0]} taken for {CLASSES[1]}"
    assert found.cards.value.count("predicted:") == cards.MOST


def test_names_from_the_data_are_not_taken_for_html() -> None:
    made = cards.Cards(replace(patterned(1, 0).only("rgb"), names=('"><script>',)))
    assert "<script>" not in made.card(0, [])


def test_depth_is_painted_as_in_the_other_pictures() -> None:
    depth = np.array([[[[0, 1500], [3000, 6000]]]], np.uint16)
    (shown,) = pictures(f'src="{cards.image_url(depth[0], "depth", 6000)}"')
    assert np.array_equal(np.asarray(shown), figures.paint(depth[0], "depth", 6000))


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16])
def test_images_of_other_modalities_get_a_thumbnail(kind: torch.dtype) -> None:
    images = (torch.rand(3, 1, 300, 200) * 255).to(kind)
    thermal = PairedImages({"thermal": images}, ("a", "b", "c"), ("x", "y", "x"))
    (picture,) = pictures(cards.Cards(thermal).card(1, []))
    assert max(picture.size) == 2 * cards.SIDE
    assert np.ptp(np.asarray(picture)) > 60
