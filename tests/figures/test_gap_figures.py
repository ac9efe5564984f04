"""Pictures of the gap: what they show, that they can be read, and that they say it in words too."""

import io
import warnings

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from PIL import Image

from socketlab.errors import LabError
from socketlab.figures import figures, gap_figures, style
from socketlab.figures.map_figures import Cloud

LAYERS = ("stem", "layer1", "layer2", "head")
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(3, 40, 2)).astype(np.float32)
CLOUDS = {
    "a": Cloud(POINTS[0], "rgb", "pairs, RGB"),
    "b": Cloud(POINTS[1] + 2, "depth", "pairs, depth"),
    "c": Cloud(POINTS[2] + 2, "depth", "target", np.arange(40) % 3),
}
CONFIDENCE, CORRECT = RNG.uniform(0.3, 1, 200), RNG.uniform(size=200) < 0.5


def every_picture() -> dict[str, Axes]:
    classes = ("bedroom", "kitchen", "living_room")
    training = {"shot": (range(4), [0.4, 0.3, 0.2, 0.1], [0.3, 0.2, 0.1, 0], [0.5, 0.4, 0.3, 0.2])}
    on_map = figures.feature_map(CLOUDS, classes, links=("a", "b"), title="T")
    return {
        "layers": gap_figures.layer_profile(LAYERS, {"adabn": [0.1, 0.2, 0.4, 0.3]}, title="T"),
        "layers, log": gap_figures.layer_profile(LAYERS, {"x": [1, 10, 3, 2], "y": [1, 2, 3, 4]}, log=True),
        "training": figures.curves(training, levels={"within RGB": 0.05}, title="T"),
        "forest": gap_figures.forest({"a": (1.0, 0.2, 1.8), "b": (-0.1, -0.5, 0.3)}, title="T"),
        "scatter": gap_figures.scatter_by_group(
            {"shot": ([1, 2], [0.3, 0.4]), "socket": ([0], [0.9])}, title="T"
        ),
        "matrix": gap_figures.matrix(np.eye(4), LAYERS, LAYERS, title="T", label="linear CKA"),
        "reliability": gap_figures.reliability({"shot": (CONFIDENCE, CORRECT)}, title="T"),
        "map": on_map,
    }


@pytest.mark.parametrize("name", list(every_picture()))
def test_every_picture_is_opaque_described_readable_and_whole(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = every_picture()[name]
        image = Image.open(io.BytesIO(style.png(picture))).convert("RGBA")
    assert image.getextrema()[3] == (255, 255)
    pixels = np.asarray(image)[..., :3]
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges > 235).all(), "something is cut off at an edge"
    assert len(style.alt_text(picture).split()) >= 6
    figure = style.figure_of(picture)
    words = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]
    assert min(t.get_fontsize() for t in words) >= 12


def test_pictures_are_drawn_into_the_axes_given_and_leave_pyplot_alone() -> None:
    import matplotlib.pyplot as plt

    ax = style.new_figure(600, 500).subplots()
    assert gap_figures.layer_profile(LAYERS, {"x": [1, 2, 3, 4]}, ax=ax) is ax
    assert gap_figures.reliability({"x": (CONFIDENCE, CORRECT)}, ax) is ax
    every_picture()
    assert plt.get_fignums() == []


def test_a_layer_profile_shows_values_and_given_intervals() -> None:
    values = RNG.normal(size=4) + np.arange(4)
    ax = gap_figures.layer_profile(
        LAYERS, {"bare": values, "given": values}, {"given": (values - 1, values + 2)}
    )
    for line in ax.lines:
        if len(line.get_xdata()) == 4:
            assert np.allclose(line.get_ydata(), values)
    (band,) = (c.get_paths()[0].vertices for c in ax.collections)
    assert np.isclose(band[:, 1].max(), values.max() + 2)
    assert [t.get_text() for t in ax.get_xticklabels()] == list(LAYERS)
    with pytest.raises(LabError, match="4 layers"):
        gap_figures.layer_profile(LAYERS, {"x": [1, 2]})


def test_many_layers_are_thinned_out() -> None:
    names = [f"features.{i}" for i in range(60)]
    ax = gap_figures.layer_profile(names, {"x": np.arange(60)})
    assert len(ax.get_xticks()) <= gap_figures.MOST_LAYER_NAMES
    assert "largest at features.59" in style.alt_text(ax)


def test_curves_may_be_negative_and_need_parts_of_one_length() -> None:
    ax = figures.curves({"socket": ([0, 1], [0.1, -0.02])}, ylim=None)
    assert ax.get_ylim()[0] < -0.02
    with pytest.raises(LabError, match="one length"):
        figures.curves({"socket": ([0, 1], [0.1])})
    with pytest.raises(LabError, match="3 parts"):
        figures.curves({"socket": ([0, 1], [0.1, 0.2], [0, 0])})


def test_calibration_against_a_loop() -> None:
    found, error = gap_figures.calibration(CONFIDENCE, CORRECT, 10)
    total = 0.0
    for b in range(10):
        inside = [i for i, c in enumerate(CONFIDENCE) if b / 10 < c <= (b + 1) / 10]
        assert found["count"][b] == len(inside)
        if inside:
            certain, right = np.mean(CONFIDENCE[inside]), np.mean(CORRECT[inside])
            assert found.confidence[b] == pytest.approx(certain)
            assert found.accuracy[b] == pytest.approx(right)
            total += len(inside) / 200 * abs(certain - right)
    assert error == pytest.approx(total)


@given(st.integers(1, 60), st.integers(1, 15), st.integers(0, 99))
def test_calibration_error_bounds(count: int, bins: int, seed: int) -> None:
    """It lies between |accuracy - mean confidence| (one bin) and 1, and is 0 for the certain and right."""
    rng = np.random.default_rng(seed)
    confidence, correct = rng.uniform(size=count), rng.uniform(size=count) < 0.5
    found, error = gap_figures.calibration(confidence, correct, bins)
    assert abs(correct.mean() - confidence.mean()) - 1e-9 <= error <= 1
    assert found["count"].sum() == count
    assert gap_figures.calibration(np.ones(count), np.ones(count), bins)[1] == 0


def test_calibration_refuses_logits_and_unequal_lengths() -> None:
    with pytest.raises(LabError, match="not logits"):
        gap_figures.calibration([3.0], [True])
    with pytest.raises(LabError, match="a number per image"):
        gap_figures.calibration([0.5, 0.6], [True])
    with pytest.raises(LabError, match="an image"):
        gap_figures.calibration([], [])


def test_reliability_tells_the_error_and_draws_the_diagonal() -> None:
    ax = gap_figures.reliability({"shot": (CONFIDENCE, CORRECT)}, bins=5)
    table, error = gap_figures.calibration(CONFIDENCE, CORRECT, 5)
    legend = ax.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == [
        "perfectly calibrated",
        f"SHOT: ECE {100 * error:.1f} %",
    ]
    assert ax.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    heights = np.array([bar.get_height() for bar in ax.patches])
    assert np.allclose(heights / heights.max(), table["count"] / table["count"].max())


def test_matrix_refuses_names_that_do_not_fit_and_keeps_empty_cells() -> None:
    values = np.array([[0.5, np.nan], [0.1, 1.0]])
    ax = gap_figures.matrix(values, ["a", "b"], ["c", "d"])
    assert sorted(t.get_text() for t in ax.texts) == ["0.10", "0.50", "1.00"]
    assert "largest 1.00 at b and d, smallest 0.10 at b and c" in style.alt_text(ax)
    with pytest.raises(LabError, match="shape"):
        gap_figures.matrix(values, ["a"], ["c", "d"])


def test_a_modality_of_ones_own_has_a_look_and_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "_others", {})  # none has been drawn before
    look = style.modality_style("thermal")
    assert look == style.modality_style("thermal") and look.title == "thermal"
    assert look.marker not in {known.marker for known in figures.MODALITIES.values()}
    other = style.modality_style("sonar")
    assert (other.marker, other.colour) != (look.marker, look.colour)
    cloud = {"t": Cloud(POINTS[0], "thermal", "thermal images")}
    assert "thermal images" in style.alt_text(figures.feature_map(cloud, hue="modality"))
    assert figures.channel_statistics(([0, 1], [1, 1]), {"thermal": ([0, 2], [1, 2])}).legends


def test_of_differences_those_away_from_zero_are_dark_and_named() -> None:
    ax = gap_figures.forest({"up": (1.0, 0.2, 1.8), "none": (0.1, -0.5, 0.3), "down": (-2, -3, -1)})
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 2][1:]
    assert [tuple(line.get_xdata()) for line in lines] == [(0.2, 1.8), (-0.5, 0.3), (-3, -1)]
    assert [line.get_color() == style.INK for line in lines] == [True, False, True]
    assert "away from zero: up, down" in style.alt_text(ax)
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "drawn from the top"
