"""Every kind of picture under simulated colour-vision deficiencies: what colour tells apart stays apart.

Two things in the same axes differ by their form (marker, dashes), or their colours differ by at least `LEAST`
for everybody; about 2 can just be told side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from colour_vision import VISIONS, confused, difference, marks, seen
from matplotlib.colors import to_rgb

from socketlab.figures import figures, gap_figures, style
from socketlab.figures.style import MODALITIES, Style
from socketlab.panels import adaptation, statistics
from socketlab.panels.adaptation import AdaptationRun
from tests.figures import test_figures as test_plots
from tests.figures import test_gap_figures as test_gap_plots

LEAST = 6.0
RNG = np.random.default_rng(0)
CLASSES = tuple("abcdefgh")
FEW, MANY = range(12), range(200)  # lines of many points have no markers


# the measure


def test_the_measure_knows_what_is_known_of_deficiencies() -> None:
    red, green, grey = (0.8, 0.2, 0.1), (0.45, 0.45, 0.05), (0.5, 0.5, 0.5)
    assert difference(red, red) == 0
    assert np.allclose(seen([grey], "protanopia"), seen([grey], "usual"), atol=0.2), "greys stay grey"
    apart = {vision: float(np.linalg.norm(np.subtract(*seen([red, green], vision)))) for vision in VISIONS}
    assert apart["deuteranopia"] < 0.5 * apart["usual"]
    assert np.allclose(seen([(1, 1, 1), (0, 0, 0)], "usual"), [[100, 0, 0], [0, 0, 0]], atol=0.01)


def test_confusion_is_found() -> None:
    """Red beside green, in two lines of one form; dashes or a marker put it right."""
    looks = {"a": Style("a", "#cc3311", "", "-"), "b": Style("b", "#708a10", "", "-")}
    lines = {name: (FEW, RNG.uniform(size=12)) for name in looks}
    assert len(list(confused(figures.curves(lines, styles=looks), 20))) == 1
    looks["b"] = Style("b", "#708a10", "", "--")
    assert not list(confused(figures.curves(lines, styles=looks), 20))
    cloud = figures.Cloud(RNG.normal(size=(9, 2)).astype(np.float32), "rgb", "rgb", np.arange(9) % 3)
    assert len(marks(figures.feature_map({"a": cloud}, CLASSES))) == 3


# pictures


def lines_of(names: Any, points: range) -> dict[str, tuple[range, Any]]:
    return {name: (points, RNG.uniform(size=len(points))) for name in names}


def clouds(labelled: bool) -> dict[str, figures.Cloud]:
    """Two modalities of pairs and one with classes, as in the panels; or all three with classes."""
    found = {}
    names = (*adaptation.MAP_SETS, "other")
    for name, modality in zip(names, ("rgb", "depth", "depth", "nir"), strict=True):
        labels = np.arange(40) % len(CLASSES) if labelled or name == adaptation.MAP_SETS[2] else None
        points = RNG.normal(size=(40, 2)).astype(np.float32)
        found[name] = figures.Cloud(points, modality, name, labels)
    return found


def channels() -> Any:
    known = RNG.normal(size=9), RNG.uniform(1, 2, 9)
    return figures.channel_statistics(known, dict.fromkeys(MODALITIES, known), "First layer")


def run_styles() -> dict[str, Style]:
    return {f"run {number}": style.run_style(number) for number in range(1, 9)}


def sheet_of_runs() -> Any:
    """The adaptation panel's curves of five runs."""
    made = []
    for number in range(1, 6):
        run = AdaptationRun(number, adaptation.Choice())
        for epoch in FEW:
            run.add(epoch, accuracy=RNG.uniform())
        for _ in MANY:
            run.steps.append({"TI": RNG.uniform(), "BN": RNG.uniform(), "PL": RNG.uniform(), "IM": 0.5})
        made.append(run)
    figure = style.new_figure(1100, 420)
    left, right = figure.subfigures(1, 2)
    adaptation.draw_accuracy(left, made)
    adaptation.draw_losses(right, made)
    return figure


def reliability() -> Any:
    groups = {name: (RNG.uniform(0.3, 1, 90), RNG.uniform(size=90) < 0.5) for name in MODALITIES}
    return gap_figures.reliability(groups, styles=MODALITIES)


PICTURES: dict[str, Callable[[], Any]] = {
    "methods": lambda: figures.curves(lines_of(figures.METHODS, FEW)),
    "methods, long": lambda: figures.curves(lines_of(figures.METHODS, MANY)),
    "modalities": lambda: figures.curves(lines_of(MODALITIES, MANY)),
    "other names": lambda: figures.curves(lines_of(CLASSES, MANY)),
    "runs": lambda: figures.curves(lines_of(run_styles(), MANY), styles=run_styles()),
    "layers": lambda: gap_figures.layer_profile("abcd", {name: RNG.uniform(size=4) for name in CLASSES}),
    "layers of a bench": lambda: gap_figures.layer_profile(
        "abcd",
        {name: RNG.uniform(size=4) for name in ("batch", "source-only", "adabn", "matched")},
        styles=statistics.PROFILE,
    ),
    "map by class": lambda: figures.feature_map(clouds(False), CLASSES),
    "map by class, all labelled": lambda: figures.feature_map(clouds(True), CLASSES),
    "map by modality": lambda: figures.feature_map(clouds(False), CLASSES, hue="modality"),
    "channels": channels,
    "reliability": reliability,
    "sheet of runs": sheet_of_runs,
}
SHOWN = PICTURES | {
    f"{module.__name__}: {name}": lambda module=module, name=name: module.every_picture()[name]
    for module in (test_plots, test_gap_plots)
    for name in module.every_picture()
    if name != "bars"  # each bar has its name beside it
}


@pytest.mark.parametrize("name", list(SHOWN))
def test_what_colour_tells_apart_stays_apart_for_everybody(name: str) -> None:
    assert list(confused(SHOWN[name](), LEAST)) == []


@pytest.mark.parametrize("name", [name for name in PICTURES if "map" in name or "by class" in name])
def test_maps_draw_every_class_and_modality(name: str) -> None:
    """So that the test above has something to compare."""
    picture = PICTURES[name]()
    figure = getattr(picture, "figure", picture)
    found = set().union(*(marks(ax) for ax in figure.findobj(matplotlib.axes.Axes)))
    points = {mark for mark in found if mark.form[0] == "points"}
    assert len({mark.form for mark in points}) == len(MODALITIES)
    assert len(points) >= (len(CLASSES) if "class" in name else len(MODALITIES))


def test_missing_depth_looks_like_no_depth_to_anybody() -> None:
    colours = matplotlib.colormaps[style.DEPTH_COLOURS](np.linspace(0, 1, 64))[:, :3]
    assert min(difference(colour, to_rgb(style.MISSING)) for colour in colours) > 2 * LEAST


@pytest.mark.parametrize("ruler", [style.DEPTH_COLOURS, "Blues"])
def test_rulers_grow_darker_or_brighter_all_the_way_for_everybody(ruler: str) -> None:
    """Depths, and the cells of matrices, can be put in their order by brightness alone."""
    colours = matplotlib.colormaps[ruler](np.linspace(0, 1, 32))[:, :3]
    for vision in VISIONS:
        brightness = seen(colours, vision)[:, 0]
        assert (np.diff(brightness) < 0).all()
        assert np.ptp(brightness) > 40


def test_names_of_bars_and_of_matrix_cells_are_written() -> None:
    bars = figures.accuracy_bars(dict.fromkeys(figures.METHODS, 0.5))
    assert [text.get_text() for text in bars.get_yticklabels()] == [m.title for m in figures.METHODS.values()]
    matrix = figures.confusion_matrix(np.eye(8, dtype=int) + 1, CLASSES)
    assert len(matrix.texts) == 64
