"""The explorer without a browser: what it sends to the page, and what it refuses."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from explorers import made
from hypothesis import given
from hypothesis import strategies as st
from worlds import patterned, trained_source

from socketlab.errors import LabError
from socketlab.figures import maps
from socketlab.figures.map_figures import Cloud
from socketlab.images.paired_images import PairedImages
from socketlab.method.adaptation import adapt
from socketlab.method.recipe import Recipe
from socketlab.panels.explorer import Explorer, explore, neighbours, partners_of


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors in callbacks are raised."""
    monkeypatch.setenv("SOCKETLAB_STRICT", "1")


def named(count: int, names: list[str]) -> PairedImages:
    return replace(patterned(count, 0), names=tuple(names))


def chosen(explorer: Explorer, cloud: str) -> list[int]:
    """Numbers of the selected points of a set."""
    return explorer.selected.query("set == @cloud")["point"].tolist()


def sent(explorer: Explorer, rows: list[int]) -> None:
    """The page selects points."""
    explorer.map.set_state({"selection": memoryview(np.array(rows, np.int32).tobytes())})


def test_points_are_selected_by_number_mask_or_class() -> None:
    explorer = made()
    explorer.select([14, 17])
    assert chosen(explorer, "depth") == [2, 5] and chosen(explorer, "rgb") == []
    assert np.frombuffer(explorer.map.selection, np.int32).tolist() == [14, 17]
    explorer.select(np.ones(24, bool))
    assert explorer.selected["set"].tolist() == ["rgb"] * 12 + ["depth"] * 12
    explorer.select(explorer.table["true_class"] == "columns")
    assert chosen(explorer, "rgb") == [1, 4, 7, 10] == chosen(explorer, "depth")
    explorer.select(explorer.table["after"] == explorer.classes.index("columns"))
    assert chosen(explorer, "rgb") == []
    assert chosen(explorer, "depth") == [0, 3, 6, 9]
    explorer.select([])
    assert chosen(explorer, "depth") == []
    assert explorer.map.focus == -1


def test_a_card_holds_images_class_and_predictions_before_and_after() -> None:
    explorer = made()
    sure = 100 * np.exp(4) / (np.exp(4) + 2)
    text = re.sub(r"<[^>]+>|&nbsp;", " ", explorer.card(1))
    assert re.search(r"#1\s+columns", text)
    assert re.search(rf"depth:\s+columns\s+{sure:.0f} %\s+→\s+blank\s+{sure:.0f} %", text)
    assert "RGB:" not in text  # nothing was predicted of RGB
    assert explorer.card(1).count("<img") == 2


def test_the_page_asks_for_cards_and_for_the_selection_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = made()
    answers: list[dict[str, object]] = []
    monkeypatch.setattr(explorer.map, "send", answers.append)
    explorer.map._handle_custom_msg({"cards": [3, 4]}, [])
    assert list(answers[0]["cards"]) == ["3", "4"]  # type: ignore[call-overload]
    sent(explorer, [3, 4])
    explorer.map._handle_custom_msg({"csv": True}, [])
    assert answers[1] == {"csv": explorer.to_csv()} and explorer.to_csv().count("\n") == 3


def test_what_the_page_sends_is_checked() -> None:
    explorer = made()
    sent(explorer, [3, 4])
    assert chosen(explorer, "rgb") == [3, 4]
    with pytest.raises(LabError, match="numbered"):
        sent(explorer, [99])
    assert "numbered from 0" in explorer.box.value
    assert chosen(explorer, "rgb") == [3, 4]


def test_one_point_alone() -> None:
    points = {"rgb": np.zeros((1, 2)), "depth": np.zeros((0, 2))}
    explorer = Explorer(points, {"rgb": torch.zeros(1, 3, 8, 8)})
    explorer.select([0])
    assert explorer.to_csv().count("\n") == 2
    assert explorer.map.views["map"]["near"] == b"" and "#0<" in explorer.card(0)


def test_unlabelled_images_have_no_class_to_colour_by() -> None:
    explorer = Explorer({"rgb": np.random.default_rng(0).normal(size=(6, 2))}, patterned(6, 0).unlabelled())
    assert explorer.hues == ["modality"] == [explorer.map.hue]


def test_what_does_not_fit_is_refused_with_a_sentence() -> None:
    explorer, two = made(), {"rgb": np.zeros((2, 2)), "depth": np.zeros((2, 2))}
    images = patterned(2, 0)
    refused = (
        ("mask has shape", lambda: explorer.select(np.ones(7, bool))),
        (r"24 points need \(24,\)", lambda: explorer.select(np.ones(12, bool))),
        ("numbered from 0 to 23", lambda: explorer.select([24])),
        ("whole numbers", lambda: explorer.select([0.5])),
        ("no points", lambda: Explorer({}, images)),
        (r"rgb \(2, 2\) are needed", lambda: Explorer({"rgb": np.zeros((2, 3))}, images)),
        ("NaN", lambda: Explorer({"rgb": np.full((2, 2), np.nan)}, images)),
        (
            "class numbers of shape",
            lambda: Explorer({"rgb": Cloud(two["rgb"], "rgb", "rgb", np.zeros(1))}, images),
        ),
        ("logits of shape", lambda: Explorer(two, images, before={"rgb": np.zeros((3, 4))})),
        ("no sets of points", lambda: Explorer(two, images, before={"nir": np.zeros((2, 4))})),
        ("Arrays of shapes", lambda: Explorer(two, images, {"rgb": np.zeros((2, 4)), "depth": [[1.0]] * 2})),
        ("One array for each", lambda: Explorer(two, images, {"rgb": np.zeros((2, 4))})),
        ("thumbnails need", lambda: Explorer(two, {"rgb": torch.zeros(2, 5, 4, 4)})),
    )
    for sentence, attempt in refused:
        with pytest.raises(LabError, match=sentence):
            attempt()
    assert chosen(explorer, "rgb") == []


@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 10))
def test_neighbours_and_ranks_agree_with_sorting_everything(count: int, wanted: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(size=(count, 3)), rng.normal(size=(count, 3))]).astype(np.float32)
    partners = partners_of(np.tile(np.arange(count), 2).astype(np.int32))
    near, ranks = neighbours(values, partners, wanted)
    distance = np.linalg.norm(values[:, None].astype(float) - values, axis=2)
    for row in (seed % count, 2 * count - 1):
        others = [i for i in np.argsort(distance[row], kind="stable") if i != row]
        assert near[row].tolist() == others[:wanted]
        (partner,) = partners[row]
        assert partner == (row + count) % (2 * count)
        assert ranks[row, 0] == others.index(partner) + 1


def test_partners_are_the_other_views_of_a_scene() -> None:
    found = partners_of(np.array([5, 7, 5, 5], np.int32))
    assert found.tolist() == [[2, 3], [-1, -1], [0, 3], [0, 2]]


def test_csv_holds_the_selection() -> None:
    explorer = made(images=named(12, ["=1+1", *[f"scene {i}" for i in range(1, 12)]]))
    explorer.select([0, 13])
    first, second = csv.DictReader(io.StringIO(explorer.to_csv()))
    assert (first["set"], first["scene"], first["true_class"], first["before"]) == ("rgb", "0", "bars", "")
    assert first["name"] == "'=1+1" and first["before_confidence"] == ""  # no formula for a spreadsheet
    assert (second["set"], second["point"], second["true_class"]) == ("depth", "1", "columns")
    assert (second["before"], second["after"], second["name"]) == ("columns", "blank", "scene 1")
    assert float(second["before_confidence"]) == pytest.approx(np.exp(4) / (np.exp(4) + 2), abs=1e-4)
    assert float(second["x"]) == pytest.approx(float(explorer.views["map"][13, 0]), rel=1e-5)


def test_text_from_the_data_is_not_taken_for_html() -> None:
    explorer = Explorer(
        {"rgb": np.zeros((1, 2))},
        named(1, ['"><script>']),
        before={"rgb": [[1.0, 0.0]]},
        classes=("<b>x", "y"),
    )
    assert "<script>" not in explorer.card(0) and "<b>x" not in explorer.card(0)
    page = explorer.html(title="</title><script>")
    assert page.count("<script") == 2 and "<b>x" not in page


def test_another_map_keeps_the_selection() -> None:
    explorer = made()
    explorer.select([3])
    turned = {name: 100 * np.random.default_rng(1).normal(size=(12, 2)) for name in ("rgb", "depth")}
    explorer.add_view("other", turned)
    assert explorer.map.view == "map"
    explorer.map.view = "other"
    assert chosen(explorer, "rgb") == [3]
    stored = explorer.map.views["other"]
    assert not stored["in_features"]
    assert np.allclose(np.frombuffer(stored["xy"], np.float32).reshape(-1, 2)[:12], turned["rgb"])


def test_explore_makes_maps_before_and_after_adaptation() -> None:
    mapped: list[dict[str, np.ndarray]] = []

    def make(sets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mapped.append(sets)
        return maps.pca_map(sets)

    source, images = trained_source(), patterned(15, 3)
    *_, last = adapt(source, patterned(24, 1).only("depth"), None, Recipe.for_method("adabn"))
    explorer = explore(source, images, last.state.adapted, make)  # type: ignore[union-attr]
    assert list(explorer.views) == ["after", "before"] and explorer.map.view == "after"
    after, before = mapped
    assert (before["rgb"] == after["rgb"]).all() and not np.allclose(before["depth"], after["depth"])
    explorer.select(explorer.table["label"] == 0)
    assert len(chosen(explorer, "depth")) == 5
    assert explorer.hues == ["class", "before", "after", "modality"]
    assert explorer.box.errors == []
    assert "Map of features" in explorer.still()._repr_png_()[1]["alt"]
