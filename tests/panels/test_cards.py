"""Cards: thumbnails, and the images behind a cell or a point."""

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
from socketlab.panels import cards


def pictures(text: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_the_images_of_some_scenes_in_every_modality() -> None:
    rooms = patterned(12, 0)
    shown = cards.show_images(rooms, [2, 5], title="2 images of <bars>")
    assert re.findall(r"#(\d+)</small>", shown) == ["2", "5"]
    assert "<strong>2 images of &lt;bars&gt;</strong>" in shown
    found = pictures(shown)
    assert [one.size for one in found] == [(64, 64)] * 4
    expected = rooms.images["rgb"][2].numpy().transpose(1, 2, 0).astype(int)
    assert np.abs(np.asarray(found[0]).astype(int) - expected).mean() < 6  # JPEG
    assert shown._repr_html_() == shown  # a notebook shows it


def test_of_many_scenes_a_few_are_shown_with_their_predictions() -> None:
    logits = torch.eye(3)[torch.arange(60) % 3] * 4
    shown = cards.show_images(patterned(60, 0), np.arange(60) % 3 == 1, logits=logits, most=5)
    assert "(5 of 20 shown)" in shown and len(pictures(shown)) == 10
    assert shown.count("predicted: columns&nbsp;96&nbsp;%") == 5
    plain = cards.show_images(patterned(60, 0), [1], logits=logits.argmax(dim=1))
    assert "predicted: columns</p>" in plain
    assert len(pictures(cards.show_images({"depth": patterned(4, 0).images["depth"]}, [0]))) == 1
    assert pictures(cards.show_images(patterned(4, 0), [])) == []


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


def test_a_scene_without_a_modality_has_a_note() -> None:
    made = cards.Cards(replace(patterned(1, 0).only("rgb"), names=('"><script>',)))
    text = made.card(0, CLASSES[0], [], {"rgb": None, "sonar": None})
    assert "no sonar" in text and "no RGB" not in text and "<script>" not in text
    assert "no RGB" in made.card(4, "", [], {"rgb": None})


def test_depth_is_painted_as_in_the_other_pictures() -> None:
    depth = np.array([[[[0, 1500], [3000, 6000]]]], np.uint16)
    thumbnails = cards.Cards({"depth": torch.from_numpy(depth)})
    reach = thumbnails._range["depth"][1]
    painted = figures.paint(depth[0], "depth", reach).astype(int)
    shown = np.asarray(thumbnails.picture("depth", 0).convert("RGB")).astype(int)
    assert np.abs(shown - painted).max() <= 3
    assert (shown[0, 0] == painted[0, 0]).all()  # missing


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float16])
def test_images_of_other_kinds_get_a_thumbnail(kind: torch.dtype) -> None:
    images = (torch.rand(3, 1, 300, 200) * (255 if kind is torch.uint8 else 7)).to(kind)
    picture = cards.Cards({"thermal": images}).picture("thermal", 1)
    assert picture.mode == "L" and max(picture.size) == 2 * cards.SIDE
    assert np.ptp(np.asarray(picture)) > 60
