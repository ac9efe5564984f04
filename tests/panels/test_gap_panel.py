"""The panel of the modality gap, driven without a browser; what it knows, as plain values."""

import io
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from panel_tools import end_all, pixels
from PIL import Image
from worlds import patterned, trained_source

from socketlab import features
from socketlab.errors import LabError
from socketlab.figures import maps
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS
from socketlab.measures import distances, similarity
from socketlab.panels import gap
from socketlab.panels.gap import NUMBERS, GapChoice, GapPanel, GapWorld

SLOW = threading.Event()


def images(sensor: str, modality: str, strength: float) -> PairedImages:
    """The same scenes for every camera; the stronger its errors, the more of them is noise."""
    scenes = patterned(24, 3)
    generator = torch.Generator().manual_seed(list(SENSORS).index(sensor))
    if modality == "rgb":
        return scenes.only("rgb")
    depth = scenes.images["depth"].to(torch.int32)
    noise = 200 * strength * torch.randn(depth.shape, generator=generator)
    noisy = (depth + noise.int()).clamp(1, 8000)
    if modality == "nir":
        return PairedImages({"nir": (noisy / 32).to(torch.uint8)}, scenes.names, scenes.kinds, scenes.classes)
    return PairedImages({"depth": noisy.to(torch.uint16)}, scenes.names, scenes.kinds, scenes.classes)


def world() -> GapWorld:
    return GapWorld(images, lambda sensor: trained_source())


@pytest.fixture(autouse=True)
def quick_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """UMAP has its own tests."""
    monkeypatch.setattr(maps, "joint_map", lambda sets: maps.pca_map(sets))


@pytest.fixture
def make() -> Iterator[Callable[..., GapPanel]]:
    """Makes panels on a tiny world; at the end none may be left with an error that nobody expected."""
    made: list[GapPanel] = []

    def panel(choice: GapChoice | None = None, of: GapWorld | None = None) -> GapPanel:
        made.append(GapPanel(choice, of or world()))
        return made[-1]

    yield panel
    end_all(made)


# plain values


def test_a_setting_is_what_the_network_says_of_its_images() -> None:
    known = world()
    choice = GapChoice(strength=2.0, layer=known.layers("kinect_v1")[-1])
    assert choice.view not in known.seen
    known.look(choice)
    assert choice.view in known.seen
    source, colour = trained_source(), images("kinect_v1", "rgb", 1.0)
    plain = features.predict(source, colour)[1].numpy()
    seen = [known.seen[view] for view in known.views(choice)]
    assert seen[0].accuracy == pytest.approx(features.accuracy(source, colour))
    a, _, b = (torch.from_numpy(one.features[choice.layer]) for one in seen)
    np.testing.assert_allclose(a, plain, atol=1e-5)
    found = known.numbers(choice)
    assert list(found) == list(NUMBERS)
    assert found["neighbour_purity"] == pytest.approx(distances.neighbour_purity(a, b))
    assert found["mmd"] == pytest.approx(distances.mmd(a, b, bandwidth=distances.median_distance(a, a)))
    assert found["cka"] == pytest.approx(similarity.linear_cka(a, b, debiased=True))
    both = similarity.pair_alignment(a, b).median_rank
    assert found["rank"] == pytest.approx(sum(both) / 2)


def test_no_gap_between_a_set_and_itself() -> None:
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    found = gap.gap_numbers(x, x)
    assert found["cka"] == pytest.approx(1)
    assert found["rank"] == 0
    constant = gap.gap_numbers(x, np.zeros_like(x))
    assert np.isnan(constant["cka"])


def test_every_layer_of_a_known_setting_is_known() -> None:
    known, choice = world(), GapChoice()
    known.look(choice)
    for layer in known.layers(choice.sensor):
        there = GapChoice(layer=layer)
        assert there.view in known.seen
        assert set(known.numbers(there)) == set(NUMBERS)


# the panel


def test_a_panel_begins_by_itself(make: Callable[..., GapPanel]) -> None:
    panel = make()
    panel.wait(60)
    assert "names <b>" in panel.headline.value
    assert "errors × 1" in panel.pictures["room"].alt
    assert panel.pictures["numbers"].alt.startswith("In numbers: right answers")
    assert "Joint UMAP" in panel.pictures["map"].alt
    assert "strength of the camera's errors" in panel.pictures["strength"].alt


@pytest.mark.parametrize("name", ["strength", "example"])
@pytest.mark.parametrize("where", ["min", "max"])
def test_sliders_at_their_ends(make: Callable[..., GapPanel], name: str, where: str) -> None:
    panel = make()
    panel.wait(60)
    before = pixels(panel.pictures["room"])
    panel.controls[name].value = getattr(panel.controls[name], where)
    panel.wait(60)
    moved = panel.controls[name].value not in (0, 1.0)
    assert (pixels(panel.pictures["room"]) != before).any() == (moved or name == "strength")


@pytest.mark.parametrize("name", ["sensor", "modality", "layer", "map", "hue", "curve"])
def test_every_choice_of_every_menu(make: Callable[..., GapPanel], name: str) -> None:
    panel = make()
    for option in panel.controls[name].options:
        panel.controls[name].value = option[1] if isinstance(option, tuple) else option
        panel.wait(60)
    assert panel.box.errors == []


def test_a_known_setting_is_answered_without_a_worker(
    make: Callable[..., GapPanel], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = make()
    panel.wait(60)
    panel.controls["strength"].value = 3.0
    panel.wait(60)
    far, posted = pixels(panel.pictures["numbers"]), []
    monkeypatch.setattr(panel._asked, "post", lambda *job, **more: posted.append(job))
    panel.controls["strength"].value = 1.0
    assert "errors × 1:" in panel.headline.value  # when the assignment returns
    panel.wait(60)
    assert (pixels(panel.pictures["numbers"]) != far).any()
    assert posted == [] and panel.session.state == "ready"


def test_a_map_is_made_although_another_slider_moves_meanwhile(
    make: Callable[..., GapPanel], monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(sets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        entered.set()
        go_on.wait(20)
        return maps.pca_map(sets)

    monkeypatch.setattr(maps, "joint_map", slow)
    panel = make()
    assert entered.wait(60)
    panel.controls["example"].value = 3
    go_on.set()
    panel.wait(60)
    assert "Joint UMAP" in panel.pictures["map"].alt and "follows" not in panel.pictures["map"].alt


def test_a_sweep_works_out_all_strengths(make: Callable[..., GapPanel]) -> None:
    panel = make()
    panel.wait(60)
    panel.buttons["run"].click()
    assert panel.wait(60) == "finished"
    strengths, values = panel.world.curve(panel.choice)
    assert strengths == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert all(0 <= value <= 1 for value in values)
    assert {strength for _, _, strength in panel.world.seen} == {0, 0.5, 1, 1.5, 2, 2.5, 3}


def test_a_slider_moved_while_at_work_wins(make: Callable[..., GapPanel]) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(sensor: str, modality: str, strength: float) -> PairedImages:
        if strength == 2.0:
            entered.set()
            go_on.wait(20)
        return images(sensor, modality, strength)

    panel = make(of=GapWorld(slow, lambda sensor: trained_source()))
    panel.wait(60)
    panel.controls["strength"].value = 2.0
    assert entered.wait(20)
    panel.controls["strength"].value = 3.0
    go_on.set()
    panel.wait(60)
    assert "errors × 3" in panel.pictures["room"].alt
    assert panel.choice.view in panel.world.seen


def test_stop_ends_a_sweep_and_a_slider_begins_again(make: Callable[..., GapPanel]) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(sensor: str, modality: str, strength: float) -> PairedImages:
        if strength == 0.5:
            entered.set()
            go_on.wait(20)
        return images(sensor, modality, strength)

    panel = make(of=GapWorld(slow, lambda sensor: trained_source()))
    panel.wait(60)
    panel.buttons["run"].click()
    assert entered.wait(20)
    panel.buttons["stop"].click()
    panel.controls["strength"].value = 2.5  # before the worker has noticed
    go_on.set()
    panel.wait(60)
    assert "errors × 2.5" in panel.pictures["room"].alt
    assert GapChoice(strength=2.0).view not in panel.world.seen


def test_reset_goes_back(make: Callable[..., GapPanel]) -> None:
    panel = make(GapChoice(modality="nir"))
    panel.wait(60)
    panel.controls["modality"].value = "depth"
    panel.wait(60)
    panel.buttons["reset"].click()
    panel.wait(60)
    assert panel.choice.modality == "nir"
    assert "NIR" in panel.pictures["room"].alt


def test_an_error_while_looking_is_seen(make: Callable[..., GapPanel]) -> None:
    def broken(sensor: str, modality: str, strength: float) -> PairedImages:
        if strength == 3.0:
            raise LabError("data/pocketrooms/target_test.depth.png is missing.")
        return images(sensor, modality, strength)

    panel = make(of=GapWorld(broken, lambda sensor: trained_source()))
    panel.wait(60)
    panel.controls["strength"].value = 3.0
    panel.wait(60)
    assert "is missing" in panel.box.value
    panel.controls["strength"].value = 2.0  # and the panel goes on
    panel.wait(60)
    assert panel.box.value == ""
    with pytest.raises(LabError, match="missing"):
        panel.run(wait=True, timeout=60)
    panel.reset()


def test_an_error_in_a_callback_is_seen(
    make: Callable[..., GapPanel], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = make()
    panel.wait(60)

    def fails(*_: object) -> None:
        raise LabError("No such layer.")

    monkeypatch.setattr(panel.world, "numbers", fails)
    monkeypatch.setenv("SOCKETLAB_STRICT", "1")
    with pytest.raises(LabError, match="No such layer"):
        panel.controls["layer"].value = panel.controls["layer"].options[0]
    assert "No such layer" in panel.box.value
    panel.box.clear()


def test_stills(make: Callable[..., GapPanel]) -> None:
    panel = make()
    panel.wait(60)
    plain, extremes = panel.still(), panel.still(extremes=True)
    assert Image.open(io.BytesIO(plain.data)).width >= 1180
    assert Image.open(io.BytesIO(extremes.data)).width == 3 * 520
    for strength in ("× 0.", "× 1.", "× 3."):
        assert strength in extremes.alt
    assert "right answers" in plain.alt


def test_controls_can_be_found_in_a_browser(make: Callable[..., GapPanel]) -> None:
    panel = make()
    for name, widget in {**panel.controls, **panel.buttons}.items():
        assert f"socketlab-{name}" in widget._dom_classes
    assert [value for _, value in panel.controls["modality"].options] == ["depth", "nir"]


@pytest.mark.parametrize("hue", ["modality", "class"])
def test_no_picture_is_cut_at_its_edge_in_any_place(make: Callable[..., GapPanel], hue: str) -> None:
    panel = make(GapChoice(hue=hue))
    panel.wait()
    for name, picture in panel.pictures.items():
        for width in (100, *range(350, 450, 10), 540, 900):  # a cut may fall between two letters
            picture.fit(width, 340)
            assert picture.wait(20)
            seen = pixels(picture)
            assert seen.shape[1] >= seen.shape[0]
            edges = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
            assert edges.min() == 255, f"{name} is cut at {width}"
