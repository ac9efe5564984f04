"""Live pictures of the panels: what is asked for is drawn, whole, and told in words."""

import io

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from socketlab.figures import figures
from socketlab.panels import live_pictures
from socketlab.panels.live_pictures import Gauge, LiveChannels, LiveGauges, LiveProfile, LiveTiles

GAUGES = {"a": Gauge("share", marks={"chance": 0.1, "all": 1.0}, form="{:.0%}"), "b": Gauge("MMD²", 0, 0.5)}
LOOKS = {"all": figures.Style("all images", "#b9c0c8", "o", ""), "depth": figures.MODALITIES["depth"]}


def pixels(picture: live_pictures.LivePicture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.image.value))).astype(int)


def assert_whole(picture: live_pictures.LivePicture) -> None:
    """Every text at least 12 pt, and nothing at the picture's edge."""
    for text in picture.figure.findobj(Text):
        if text.get_text().strip():
            assert text.get_fontsize() >= figures.TEXT
    shown = pixels(picture)
    for edge in (shown[0], shown[-1], shown[:, 0], shown[:, -1]):
        assert (edge == 255).all()


def test_tiles_show_their_images_and_titles() -> None:
    tiles = LiveTiles(["RGB", "depth"], 3, tile=100, title="Pairs")
    red, blue = (np.full((8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    tiles.draw([red, None, blue, blue, blue, blue], ["a", "b", "two\nlines"])
    seen = pixels(tiles)
    scale = seen.shape[1] / tiles.width
    area = {c: (seen == c).all(axis=2).sum() / (100 * scale) ** 2 for c in ((255, 0, 0), (0, 0, 255))}
    assert area[255, 0, 0] == pytest.approx(1, rel=0.03)
    assert area[0, 0, 255] == pytest.approx(4, rel=0.03)
    assert tiles.alt == "a, b, two lines"
    assert_whole(tiles)
    larger = np.full((64, 64, 3), (0, 255, 0), np.uint8)  # of another size than before
    tiles.draw([larger] * 6, ["a", "b", "c"], "Six images.")
    assert (pixels(tiles) == (0, 255, 0)).all(axis=2).sum() == pytest.approx(6 * (100 * scale) ** 2, rel=0.03)
    assert tiles.alt == "Six images."


def test_gauges_point_at_their_numbers() -> None:
    gauges = LiveGauges(GAUGES, "Numbers", colour="#ff0000")
    gauges.draw({"a": 0.25, "b": 0.1}, {"a": 0.75})
    (ghost, dot, number) = gauges._moving["a"]
    assert ghost.get_xdata()[0] == 0.75
    assert dot.get_xdata()[0] == 0.25
    assert number.get_text() == "25 %"
    assert gauges.alt == "Numbers: share 25 %; MMD² 0.10."
    assert_whole(gauges)


def test_a_number_beyond_its_scale_stays_in_the_picture() -> None:
    gauges = LiveGauges(GAUGES, "Numbers")
    gauges.draw({"a": 0.5, "b": 7.0})
    _, dot, number = gauges._moving["b"]
    assert dot.get_xdata()[0] == 0.5
    assert number.get_text() == "7.00"
    gauges.draw({"a": np.nan})
    assert gauges.alt == "Numbers: share –; MMD² –."
    assert_whole(gauges)


def test_channels_lie_on_the_diagonal_when_nothing_has_changed() -> None:
    rng = np.random.default_rng(0)
    memory = rng.normal(size=40), rng.uniform(0.5, 4, 40)
    channels = LiveChannels(LOOKS)
    channels.draw(memory, {"all": memory, "depth": (memory[0] + 1, memory[1])}, "bn1")
    assert "all images: means 0.00, deviations 0.00; depth: means 1.00" in channels.alt
    for i, ax in enumerate(channels._axes):
        x, y = channels._diagonals[i].get_data()
        assert (np.asarray(x) == np.asarray(y)).all()
        dots = channels._dots["all"][i]
        assert np.allclose(dots.get_xdata(), dots.get_ydata())
        low, high = ax.get_ylim()
        assert (low <= dots.get_ydata()).all() and (dots.get_ydata() <= high).all()
    assert_whole(channels)
    channels.draw(memory, {"all": memory}, "bn1")
    assert len(channels._dots["depth"][0].get_xdata()) == 0  # a set that is not shown is taken away


@pytest.mark.parametrize("values", [[1e-5, 3.0, 40.0], [0.02, 0.02, 0.02], [0.0, 1.0, np.nan]])
def test_a_profile_holds_all_its_numbers(values: list[float]) -> None:
    profile = LiveProfile(["conv1", "trunk.4.shortcut.1", "bottleneck.1"], ("one",), title="Gap", width=640)
    profile.draw({"one": values})
    low, high = profile._shared.get_ylim()
    shown = [v for v in values if np.isfinite(v) and v > 0]
    assert low <= min(shown) and max(shown) <= high
    assert_whole(profile)


def test_a_profile_marks_one_layer_and_can_be_named_anew() -> None:
    profile = LiveProfile([""], ("one",), title="Gap")
    profile.name_layers(["a", "b"])
    profile.draw({"one": [0.1, 0.2]})
    plain = pixels(profile)
    profile.mark("b")
    profile.draw({"one": [0.1, 0.2]})
    assert (pixels(profile) != plain).any()
    assert [label.get_text() for label in profile._shared.get_xticklabels()] == ["a", "b"]
