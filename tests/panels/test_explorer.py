"""The explorer without a browser: what it sends to the page, and what it refuses."""

import re
from dataclasses import replace

import numpy as np
import pytest
from explorers import clouds, made
from hypothesis import given
from hypothesis import strategies as st
from worlds import patterned

from socketlab.errors import LabError
from socketlab.images.paired_images import PairedImages
from socketlab.panels.explorer import NEIGHBOURS, Explorer, neighbours


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors in callbacks are raised."""
    monkeypatch.setenv("SOCKETLAB_STRICT", "1")


def named(count: int, names: list[str]) -> PairedImages:
    return replace(patterned(count, 0), names=tuple(names))


def chosen(explorer: Explorer, cloud: str) -> list[int]:
    """Numbers of the selected points of a set."""
    return explorer.selected.query("set == @cloud")["scene"].tolist()


def sent(explorer: Explorer, rows: list[int]) -> None:
    """The page selects points."""
    explorer.map.set_state({"selection": memoryview(np.array(rows, np.int32).tobytes())})


def test_what_the_page_selects_is_a_table() -> None:
    explorer = made()
    assert chosen(explorer, "rgb") == [] == chosen(explorer, "depth")
    sent(explorer, [3, 14, 17])
    assert chosen(explorer, "rgb") == [3] and chosen(explorer, "depth") == [2, 5]
    assert explorer.selected["set"].tolist() == ["rgb", "depth", "depth"]


def test_a_card_holds_images_class_and_predictions_before_and_after() -> None:
    explorer = made()
    sure = 100 * np.exp(4) / (np.exp(4) + 2)
    text = re.sub(r"<[^>]+>|&nbsp;", " ", explorer.card(1))
    assert re.search(r"#1\s+columns", text)
    assert re.search(rf"depth:\s+columns\s+{sure:.0f} %\s+→\s+blank\s+{sure:.0f} %", text)
    assert "RGB:" not in text  # nothing was predicted of RGB
    assert explorer.card(1).count("<img") == 2


def test_the_page_asks_for_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = made()
    answers: list[dict[str, object]] = []
    monkeypatch.setattr(explorer.map, "send", answers.append)
    explorer.map._handle_custom_msg({"cards": [3, 4]}, [])
    assert list(answers[0]["cards"]) == ["3", "4"]  # type: ignore[call-overload]


def test_one_point_alone() -> None:
    explorer = Explorer(clouds({"rgb": np.zeros((1, 2))}), patterned(1, 0))
    sent(explorer, [0])
    assert len(explorer.selected) == 1
    assert explorer.map.points["near"] == b"" and "#0<" in explorer.card(0)


def test_unlabelled_images_have_no_class_to_colour_by() -> None:
    points = clouds({"rgb": np.random.default_rng(0).normal(size=(6, 2))})
    explorer = Explorer(points, patterned(6, 0).unlabelled())
    assert explorer.hues == ["modality"] == [explorer.map.hue]


def test_what_does_not_fit_is_refused_with_a_sentence() -> None:
    two = clouds({"rgb": np.zeros((2, 2)), "depth": np.zeros((2, 2))})
    images = patterned(2, 0)
    refused = (
        ("no set of points", lambda: Explorer({}, images)),
        (r"2 scenes need \(2, 2\)", lambda: Explorer(clouds({"rgb": np.zeros((2, 3))}), images)),
        (r"2 scenes need \(2, 2\)", lambda: Explorer(clouds({"rgb": np.zeros((3, 2))}), images)),
        ("NaN", lambda: Explorer(clouds({"rgb": np.full((2, 2), np.nan)}), images)),
        (
            "logits before of 'rgb' have the shape",
            lambda: Explorer(two, images, before={"rgb": np.zeros((2, 4))}),
        ),
        ("logits before of {'nir'}", lambda: Explorer(two, images, before={"nir": np.zeros((2, 3))})),
        (
            "features of 'depth' have",
            lambda: Explorer(two, images, {"rgb": np.zeros((2, 4)), "depth": [[1.0]] * 2}),
        ),
        ("some are missing", lambda: Explorer(two, images, {"rgb": np.zeros((2, 4))})),
    )
    for sentence, attempt in refused:
        with pytest.raises(LabError, match=sentence):
            attempt()


@given(st.integers(1, 40), st.integers(0, 10))
def test_neighbours_and_ranks_agree_with_sorting_everything(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(size=(count, 3)), rng.normal(size=(count, 3))]).astype(np.float32)
    partners = np.roll(np.arange(2 * count, dtype=np.int32), count)[:, None]
    near, ranks = neighbours(values, partners)
    distance = np.linalg.norm(values[:, None].astype(float) - values, axis=2)
    for row in (seed % count, 2 * count - 1):
        others = [i for i in np.argsort(distance[row], kind="stable") if i != row]
        assert near[row].tolist() == others[:NEIGHBOURS]
        (partner,) = partners[row]
        assert ranks[row, 0] == others.index(partner) + 1


def test_partners_are_the_other_views_of_a_scene() -> None:
    points = {name: np.random.default_rng(0).normal(size=(4, 2)) for name in ("rgb", "depth", "later")}
    packed = Explorer(clouds(points), patterned(4, 0)).map.points
    partners = np.frombuffer(packed["partners"], np.int32).reshape(12, 2)
    assert sorted(partners[1]) == [5, 9] and sorted(partners[6]) == [2, 10] and sorted(partners[11]) == [3, 7]


def test_the_table_holds_a_row_for_each_point() -> None:
    explorer = made(images=named(12, [f"scene {i}" for i in range(12)]))
    sent(explorer, [0, 13])
    first, second = explorer.selected.to_dict("records")
    assert (first["set"], first["scene"], first["true_class"], first["before"]) == ("rgb", 0, "bars", -1)
    assert first["name"] == "scene 0" and np.isnan(first["before_confidence"])
    assert (second["set"], second["modality"], second["scene"]) == ("depth", "depth", 1)
    names = [explorer.cards.classes[second[word]] for word in ("before", "after")]
    assert (second["true_class"], *names, second["name"]) == ("columns", "columns", "blank", "scene 1")
    assert second["before_confidence"] == pytest.approx(np.exp(4) / (np.exp(4) + 2), abs=1e-4)
    packed = explorer.map.points
    assert np.frombuffer(packed["columns"]["label"], np.int32).tolist() == [0, 1, 2] * 8
    assert np.allclose(np.frombuffer(packed["xy"], np.float32).reshape(-1, 2), explorer.positions)


def test_text_from_the_data_is_not_taken_for_html() -> None:
    explorer = Explorer(
        clouds({"rgb": np.zeros((1, 2))}),
        named(1, ['"><script>']),
        before={"rgb": [[1.0, 0.0]]},
        classes=("<b>x", "y"),
    )
    assert "<script>" not in explorer.card(0) and "<b>x" not in explorer.card(0)


def test_the_still_picture_is_the_map() -> None:
    explorer = made(view="Two modalities")
    alt = explorer.still()._repr_png_()[1]["alt"]
    assert "Map of features" in alt and "Two modalities" in alt
    assert explorer.hues == ["class", "before", "after", "modality"]
    assert explorer.box.errors == []
