"""The explorer without a browser: what a selection shows, and what it refuses."""

import base64
import csv
import io
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from worlds import CLASSES, patterned, trained_source

from socketlab.errors import LabError
from socketlab.figures import figures, maps
from socketlab.figures.figures import Cloud
from socketlab.method.adaptation import adapt
from socketlab.method.recipe import Recipe
from socketlab.panels import cards
from socketlab.panels.explorer import Explorer, explore


@pytest.fixture(autouse=True)
def strict_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors in callbacks are raised; UMAP's compiler has its own tests."""
    monkeypatch.setenv("SOCKETLAB_STRICT", "1")
    monkeypatch.setattr(maps, "warm_up", lambda: threading.Thread())
    monkeypatch.setattr(maps, "joint_map", lambda sets, seed=0, start=None: maps.pca_map(sets))


def made(count: int = 12, **more: object) -> Explorer:
    """Two modalities of the same scenes; depth lies one step to the right of RGB, on the map and in D = 5."""
    rng = np.random.default_rng(0)
    rgb = rng.normal(size=(count, 2)).astype(np.float32)
    points = {"rgb": rgb, "depth": rgb + np.array([1, 0], np.float32)}
    features = {name: np.pad(p, ((0, 0), (0, 3))) for name, p in points.items()}
    logits = {"depth": np.eye(3)[np.arange(count) % 3] * 4}
    after = {"depth": np.roll(logits["depth"], 1, axis=1)}
    settings: dict[str, object] = {"features": features, "before": logits, "after": after}
    return Explorer(points, patterned(count, 0), **(settings | more))  # type: ignore[arg-type]


def scenes_of(text: str) -> list[int]:
    return [int(number) for number in re.findall(r">#(\d+)</span>", text)]


def pictures(text: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_a_selection_shows_its_scenes_in_every_modality() -> None:
    explorer = made()
    explorer.select([2, 5], "depth")
    assert explorer.selected["depth"].tolist() == [2, 5] and explorer.selected["rgb"].tolist() == []
    assert scenes_of(explorer.cards.value) == [2, 5]
    shown = pictures(explorer.cards.value)
    assert [one.size for one in shown] == [(64, 64)] * 4
    expected = patterned(12, 0).images["rgb"][2].numpy().transpose(1, 2, 0).astype(int)
    assert np.abs(np.asarray(shown[0]).astype(int) - expected).mean() < 6  # JPEG
    assert explorer.cards.value.count("<figure class=chosen>") == 2  # only the depth half was chosen
    assert "2 points" in explorer.headline.value and "2 depth" in explorer.headline.value
    assert "for the reader only" in explorer.counts.value
    assert np.frombuffer(explorer.map.selection, np.int32).tolist() == [14, 17]


def test_predictions_before_and_after_stand_beside_the_images() -> None:
    explorer = made()
    explorer.select([1], "depth")
    sure = 100 * np.exp(4) / (np.exp(4) + 2)
    said = re.sub(r"<[^>]+>|&nbsp;", " ", explorer.cards.value)
    assert re.search(rf"columns\s+{sure:.0f} %\s+→\s+blank\s+{sure:.0f} %", said)
    explorer.select([1], "rgb")
    assert "→" not in explorer.cards.value  # nothing was asked about RGB


def test_counts_of_all_selected_points_by_class() -> None:
    explorer = made(30)
    explorer.select(np.ones(60, bool))
    lines = re.findall(r"<tr>(.*?)</tr>", explorer.counts.value)
    table = [re.sub(r"<[^>]+>", " ", line).split() for line in lines]
    assert table[1] == ["●", "bars", "20", "10", "10"]
    assert table[4] == ["●", "none", "30", "30"]
    assert len(scenes_of(explorer.cards.value)) <= cards.MOST_SHOWN
    assert "images of 24 of them" in explorer.headline.value


def test_nothing_selected_shows_nothing() -> None:
    explorer = made()
    explorer.select_random(5, seed=0)
    assert explorer.cards.value and explorer.near.value
    explorer.select(np.zeros(24, bool))
    assert explorer.cards.value == explorer.near.value == explorer.counts.value == ""
    assert "Nothing is selected" in explorer.headline.value
    assert explorer.map.focus == -1 and explorer.controls["csv"].disabled
    assert explorer.to_csv().count("\n") == 1


def test_one_point_alone() -> None:
    points = {"rgb": np.zeros((1, 2)), "depth": np.zeros((0, 2))}
    explorer = Explorer(points, {"rgb": torch.zeros(1, 3, 8, 8)})
    explorer.select([0])
    assert scenes_of(explorer.cards.value) == [0] and "1 point<" in explorer.headline.value
    assert np.frombuffer(explorer.map.neighbours, np.int32).size == 0


def test_five_thousand_points_send_few_images() -> None:
    explorer = made(2500)
    explorer.select(np.ones(5000, bool))
    assert len(pictures(explorer.cards.value)) <= 2 * cards.MOST_SHOWN
    assert len(np.frombuffer(explorer.map.selection, np.int32)) == 5000


def test_unlabelled_images_have_no_class_column_and_no_class_colours() -> None:
    pairs = patterned(6, 0).unlabelled()
    explorer = Explorer({"rgb": np.random.default_rng(0).normal(size=(6, 2))}, pairs)
    explorer.select([0, 1])
    assert explorer.counts.value == ""
    assert [value for _, value in explorer.controls["hue"].options] == ["modality"]
    with pytest.raises(LabError, match="coloured by 'class'"):
        explorer.colour_by("class")


def test_a_scene_without_a_modality_says_so() -> None:
    """Target images exist in depth alone: scenes 3 and 4 have no RGB half."""
    rooms = patterned(5, 0)
    images = {"rgb": rooms.images["rgb"][:3], "depth": rooms.images["depth"]}
    points = {
        "pairs": Cloud(np.zeros((3, 2), np.float32), "rgb", "pairs"),
        "target": Cloud(np.ones((2, 2), np.float32), "depth", "target", np.array([0, 1])),
    }
    explorer = Explorer(points, images, scenes={"target": [3, 4]}, classes=CLASSES)
    explorer.select([1], "target")
    assert scenes_of(explorer.cards.value) == [4]
    assert "no RGB" in explorer.cards.value and len(pictures(explorer.cards.value)) == 1
    only_rgb = Explorer({"rgb": np.zeros((2, 2)), "sonar": np.ones((2, 2))}, {"rgb": images["rgb"]})
    only_rgb.select([0], "sonar")
    assert "no sonar" in only_rgb.cards.value


def test_what_does_not_fit_is_refused_with_a_sentence() -> None:
    explorer, two = made(), {"rgb": np.zeros((2, 2)), "depth": np.zeros((2, 2))}
    images = patterned(2, 0)
    refused = (
        ("mask has shape", lambda: explorer.select(np.ones(7, bool))),
        (r"12 points need \(12,\)", lambda: explorer.select(np.ones(24, bool), "rgb")),
        ("numbered from 0 to 11", lambda: explorer.select([12], "rgb")),
        ("whole numbers", lambda: explorer.select([0.5])),
        ("no set of points 'nir'", lambda: explorer.select([0], "nir")),
        ("no class 'attic'", lambda: explorer.select_class("attic")),
        ("no map 'UMAP'", lambda: explorer.show("UMAP")),
        ("no points", lambda: Explorer({}, images)),
        (r"\(n, 2\)", lambda: Explorer({"rgb": np.zeros((2, 3))}, images)),
        ("NaN", lambda: Explorer({"rgb": np.full((2, 2), np.nan)}, images)),
        ("logits of shape", lambda: Explorer(two, images, before={"rgb": np.zeros((3, 4))})),
        ("no sets of points", lambda: Explorer(two, images, before={"nir": np.zeros((2, 4))})),
        ("Arrays of shapes", lambda: Explorer(two, images, {"rgb": np.zeros((2, 4)), "depth": [[1.0]] * 2})),
        ("One array for each", lambda: Explorer(two, images, {"rgb": np.zeros((2, 4))})),
        ("thumbnails need", lambda: Explorer(two, {"rgb": torch.zeros(2, 5, 4, 4)})),
    )
    for sentence, attempt in refused:
        with pytest.raises(LabError, match=sentence):
            attempt()
    assert explorer.selected["rgb"].tolist() == []


def test_what_the_page_sends_is_shown_and_an_error_is_not_swallowed() -> None:
    explorer = made()
    explorer.map.set_state({"selection": memoryview(np.array([3, 4], np.int32).tobytes())})
    assert scenes_of(explorer.cards.value) == [3, 4]
    before = explorer.near.value
    explorer.map.set_state({"focus": 15})
    assert explorer.near.value != before and "point 3 of depth" in explorer.near.value
    assert explorer.selected["rgb"].tolist() == [3, 4]
    with pytest.raises(LabError, match="numbered"):
        explorer.map.set_state({"selection": memoryview(np.array([99], np.int32).tobytes())})
    assert "numbered from 0" in explorer.box.value


def test_neighbours_are_those_of_feature_space_and_the_partner_has_its_rank() -> None:
    explorer = made(40)
    explorer.look_at(7, "rgb")
    features = np.concatenate([*(explorer.views["map"].features[a:b] for a, b in ((0, 40), (40, 80)))])  # type: ignore
    order = np.argsort(np.linalg.norm(features - features[7], axis=1), kind="stable")
    near = np.frombuffer(explorer.map.neighbours, np.int32)
    assert near.tolist() == order[1:7].tolist()
    rank = order.tolist().index(47)
    assert f"is the {rank}{'st' if rank == 1 else ''}" in explorer.near.value
    assert "in feature space" in explorer.near.value


@given(st.integers(1, 40), st.integers(0, 45), st.integers(0, 10))
def test_nearest_agrees_with_sorting_everything(count: int, wanted: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    index = seed % count
    distance = ((values.astype(float) - values[index]) ** 2).sum(axis=1)
    others = [i for i in np.argsort(distance, kind="stable") if i != index]
    assert cards.nearest_to(values, index, wanted).tolist() == others[:wanted]


def test_the_controls_select_without_a_mouse() -> None:
    explorer = made()
    c = explorer.controls
    c["class"].value = "columns"
    assert explorer.selected["rgb"].tolist() == [1, 4, 7, 10] == explorer.selected["depth"].tolist()
    c["by"].value = "after"
    assert explorer.selected["rgb"].tolist() == []
    assert explorer.selected["depth"].tolist() == [0, 3, 6, 9]
    c["set"].value, c["number"].value = "depth", 5
    c["select"].click()
    assert explorer.selected["depth"].tolist() == [5]
    c["next"].click()
    assert explorer.selected["depth"].tolist() == [6] and c["number"].value == 6
    c["nearest"].click()
    assert sum(map(len, explorer.selected.values())) == 7
    assert explorer.map.focus == 12 + 6
    c["random"].click()
    assert sum(map(len, explorer.selected.values())) == 24
    c["links"].value = True
    assert explorer.map.links
    c["hue"].value = "modality"
    assert explorer.map.palette == [figures.MODALITIES[m].colour for m in ("rgb", "depth")]
    c["csv"].click()
    assert "selection.csv, 24 points" in explorer.link.value
    c["nothing"].click()
    assert "Nothing is selected" in explorer.headline.value and explorer.link.value == ""


def test_csv_holds_the_selection(tmp_path: Path) -> None:
    explorer = made()
    explorer.select([0, 13])
    text = explorer.to_csv(tmp_path / "selection.csv")
    assert (tmp_path / "selection.csv").read_text() == text
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["set"], first["scene"], first["true_class"], first["before"]) == ("rgb", "0", "bars", "")
    assert (second["set"], second["point"], second["true_class"]) == ("depth", "1", "columns")
    assert (second["before"], second["after"], second["name"]) == ("columns", "blank", "scene-0-1")
    assert float(second["x"]) == pytest.approx(float(explorer.views["map"].points[13, 0]), rel=1e-5)


def test_text_from_the_data_is_not_taken_for_html() -> None:
    explorer = Explorer(
        {"rgb": np.zeros((1, 2))},
        {"rgb": torch.zeros(1, 3, 4, 4)},
        before={"rgb": [[1.0, 0.0]]},
        classes=("<b>x", "y"),
        names=['"><script>'],
    )
    explorer.select([0])
    assert "<script>" not in explorer.cards.value and "<b>x" not in explorer.cards.value


def test_depth_is_painted_as_in_the_other_pictures() -> None:
    depth = np.array([[[[0, 1500], [3000, 6000]]]], np.uint16)
    thumbnails = cards.Thumbnails({"depth": torch.from_numpy(depth)})
    reach = thumbnails._reach["depth"][1]
    painted = figures.paint(depth[0], "depth", reach).astype(int)
    shown = np.asarray(thumbnails.picture("depth", 0).convert("RGB")).astype(int)
    assert np.abs(shown - painted).max() <= 3
    assert (shown[0, 0] == painted[0, 0]).all()  # missing


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float16])
def test_images_of_other_kinds_get_a_thumbnail(kind: torch.dtype) -> None:
    images = (torch.rand(3, 1, 300, 200) * (255 if kind is torch.uint8 else 7)).to(kind)
    picture = cards.Thumbnails({"thermal": images}).picture("thermal", 1)
    assert picture.mode == "L" and max(picture.size) == 2 * cards.SIDE
    assert np.ptp(np.asarray(picture)) > 60


def test_another_map_keeps_the_selection_and_changes_the_neighbours() -> None:
    explorer = made()
    explorer.select([3], "rgb")
    before = explorer.near.value
    turned = {name: 100 * np.random.default_rng(1).normal(size=(12, 2)) for name in ("rgb", "depth")}
    explorer.add_view("other", turned, show=False)
    assert explorer.controls["view"].value == "map" and explorer.near.value == before
    explorer.controls["view"].value = "other"
    assert explorer.selected["rgb"].tolist() == [3]
    assert "on this map" in explorer.near.value
    assert np.allclose(np.frombuffer(explorer.map.xy, np.float32).reshape(-1, 2)[:12], turned["rgb"])


def test_explore_makes_maps_before_and_after_adaptation() -> None:
    source, images = trained_source(), patterned(15, 3)
    *_, last = adapt(source, patterned(24, 1).only("depth"), None, Recipe.for_method("adabn"))
    explorer = explore(source, images, last.state.adapted)  # type: ignore[union-attr]
    assert explorer.wait(60)
    assert list(explorer.views) == ["PCA, after", "PCA, before", "UMAP, after", "UMAP, before"]
    assert explorer.controls["view"].value == "UMAP, after" and explorer.status.value == ""
    before, after = (explorer.views[f"PCA, {word}"].features for word in ("before", "after"))
    assert (before[:15] == after[:15]).all() and not np.allclose(before[15:], after[15:])  # type: ignore[index]
    explorer.select_class(CLASSES[0])
    assert len(explorer.selected["depth"]) == 5
    assert "columns" in explorer.counts.value and "said after" in explorer.counts.value
    assert explorer.box.errors == []
    assert "Map of features" in explorer.still()._repr_png_()[1]["alt"]


def test_explore_refuses_modalities_that_are_not_paired() -> None:
    one, other = patterned(6, 0).only("rgb"), patterned(6, 1).only("depth")
    with pytest.raises(LabError, match="paired_by_name"):
        explore(trained_source(), {"rgb": one, "depth": other})
    with pytest.raises(LabError, match="same scenes"):
        explore(trained_source(), {"rgb": one, "depth": other.take([0, 1])})
    with pytest.raises(LabError, match="no network for depth"):
        explore({"rgb": trained_source()}, patterned(6, 0))
