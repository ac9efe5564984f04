"""The style: names are shown as they are, our own mathematics is typeset, colours do not repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from colour_vision import difference
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from socketlab.figures import figures, gap_figures, map_figures, style
from socketlab.figures.film import Film

STRANGE = (r"$\frac$", "a$b$c", r"\$ and $", "$\\mathdefault{\\frac}$")
UP = np.array([0, 1], np.float32)
POINTS = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)


def pictures(name: str) -> dict[str, Any]:
    """Every picture with a user's text wherever one can stand."""
    clouds = {
        "a": figures.Cloud(POINTS, name, name),
        "b": figures.Cloud(POINTS + 1, "rgb", name, np.arange(12) % 3),
    }
    classes, pair = (name, "kitchen", name), (POINTS[:, 0], POINTS[:, 1] ** 2)
    images = torch.zeros(12, 3, 8, 8, dtype=torch.uint8)
    labels = np.arange(12) % 3
    series: Any = {name: [1, 2, 3]}
    return {
        "map": figures.feature_map(clouds, classes, title=name),
        "crowded map": figures.feature_map(clouds, classes * 5, links=("a", "b")),
        "matrix": figures.confusion_matrix(np.eye(3), classes, title=name),
        "curves": figures.curves({name: ([0, 1], [0.1, 0.9])}, title=name, ylabel=name, levels={name: 0.5}),
        "training": figures.training_curves({name: ([0, 1], [3, 2])}, {name: ([0, 1], [0.1, 0.9])}),
        "bars": figures.accuracy_bars({name: [0.4, 0.5]}, title=name, xlabel=name, chance=0.1),
        "gallery": figures.gallery({name: ("rgb", images[:2])}, [name, name]),
        "examples": figures.confusion_examples(images, "rgb", labels, 0 * labels, classes),
        "channels": figures.channel_statistics(pair, {name: pair}, name),
        "profile": gap_figures.layer_profile([name] * 3, series, title=name, ylabel=name, log=True),
        "reliability": gap_figures.reliability({name: (np.full(9, 0.5), np.arange(9) % 2 == 0)}, title=name),
        "table": gap_figures.matrix(np.eye(2), [name] * 2, [name] * 2, title=name, label=name),
        "film": Film([clouds, clouds], [name, name], classes, ("a", "b")).still(),
    }


def shown(figure: Figure) -> set[str]:
    """All texts that are drawn without mathematics."""
    return {t.get_text() for t in figure.findobj(Text) if not t.get_parse_math()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", STRANGE)
def test_a_user_s_text_is_never_tex(name: str) -> None:
    for kind, picture in pictures(name).items():
        assert style.png(picture).startswith(b"\x89PNG"), kind
        assert any(name in text for text in shown(style.figure_of(picture))), kind


def test_our_own_mathematics_is_typeset() -> None:
    figure = figures.training_curves({"TI": ([0, 1], [1, 0])}, {})
    titles = {t.get_text(): t.get_parse_math() for t in figure.findobj(Text)}  # type: ignore[attr-defined]
    assert titles["$L_{TI}$ paired alignment"]
    ax = gap_figures.layer_profile(["a", "b"], {"x": [1, 1000]}, log=True)
    style.png(ax)
    style.png(ax)  # the ticks' texts exist after the first drawing
    powers = [t for t in ax.get_yticklabels() if "10^{" in t.get_text()]
    assert powers and all(t.get_parse_math() for t in powers)
    mine = ax.set_ylabel(style.typeset(r"weight, before $\lambda_d$"))
    style.png(ax)
    assert mine.get_parse_math()


def test_thirty_classes_have_thirty_colours_that_everybody_tells_apart() -> None:
    colours = [to_rgb(style.class_colour(i)) for i in range(30)]
    assert min(difference(a, b) for i, a in enumerate(colours) for b in colours[:i]) > 6


def test_lines_between_partners_are_green_when_short_and_red_when_long() -> None:
    ends = style.LINK_COLOURS(np.array([0.0, 1.0, 8.0]))[:, :3]
    np.testing.assert_allclose(ends, [to_rgb(style.SHORT), to_rgb(style.LONG), to_rgb(style.LONG)], atol=0.01)
    assert difference(to_rgb(style.SHORT), to_rgb(style.LONG)) > 10


def test_a_variant_of_a_method_has_the_method_s_colour_and_a_readable_title() -> None:
    variant = style.known_style("socket far", 3)
    assert (variant.title, variant.colour) == ("SOCKET far", style.METHODS["socket"].colour)
    assert style.known_style("my own", 3).title == "my own"


def test_a_modality_has_one_colour_whether_classes_are_known_or_not() -> None:
    labelled = figures.Cloud(POINTS, "depth", "held out", np.arange(12) % 3)
    bare = figures.Cloud(POINTS + 1, "depth", "pairs")
    assert map_figures.cloud_colours(labelled, "modality") == map_figures.cloud_colours(bare, "modality")
    ax = figures.feature_map({"a": labelled, "b": bare}, hue="modality")
    filled, hollow = ax.collections
    colour = to_rgb(style.MODALITIES["depth"].colour)
    assert tuple(filled.get_facecolor()[0][:3]) == colour == tuple(hollow.get_edgecolor()[0][:3])


@pytest.mark.parametrize(
    ("classes", "marks"),
    [
        (tuple("aceil") + ("g",) * 7, list("aceil") + ["g"] * 7),
        ([f"kind {i}" for i in range(12)], list("ABCDEFGHIJKL")),
        ([f"kind {i}" for i in range(27)], [str(i + 1) for i in range(27)]),
    ],
)
def test_marks_of_a_crowded_map(classes: list[str], marks: list[str]) -> None:
    assert map_figures.class_marks(classes) == marks
    labels = np.arange(60) % len(classes)
    cloud = figures.Cloud(np.random.default_rng(0).normal(size=(60, 2)), "depth", "held out", labels)
    ax = figures.feature_map({"a": cloud}, classes)
    assert [text.get_text() for text in ax.texts] == marks


def test_the_median_line_is_written_below_a_map() -> None:
    clouds = {"a": figures.Cloud(POINTS, "rgb", "a"), "b": figures.Cloud(POINTS + UP, "depth", "b")}
    ax = figures.feature_map(clouds, links=("a", "b"))
    diagonal = np.linalg.norm(np.ptp(np.concatenate([POINTS, POINTS + UP]), axis=0))
    assert ax.get_xlabel() == f"Median line between partners: {100 / diagonal:.0f} % of the map's diagonal."


def test_commonest_mistakes_are_shown_with_their_images() -> None:
    images = torch.arange(12, dtype=torch.uint8).reshape(12, 1, 1, 1).expand(12, 3, 4, 4)
    truth, found = np.repeat([0, 1, 2], 4), np.array([0, 1, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2])
    figure = figures.confusion_examples(images, "rgb", truth, found, ("bed_room", "bath", "hall"))
    assert figure is not None and len(figure.axes) == 2
    assert figure.axes[0].get_title(loc="left") == "bed room taken for bath: 3 of 4"
    shown = [int(np.asarray(image.get_array())[0, 0, 0]) for ax in figure.axes for image in ax.images]
    assert shown == [1, 2, 3, 7]
    assert figures.confusion_examples(images, "rgb", truth, truth, ("a", "b", "c")) is None


def test_a_smoothed_loss_starts_without_bias_and_skips_gaps() -> None:
    figure = style.new_figure(400, 300)
    figures.loss_terms(figure, {"TI": (range(4), [np.nan, 4.0, np.nan, 2.0])}, smooth=0.5)
    smooth = figure.axes[0].lines[1].get_ydata()
    assert np.isnan(smooth[0])
    assert smooth[1:] == pytest.approx([4, 4, (0.5 * 0.5 * 4 + 0.5 * 2) / 0.75])
