"""Panels in a real browser: sliders answered in time, runs begun and stopped."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import SECOND, assert_answers, part
from playwright.sync_api import Page, expect

# Few images and no compiler in the background: what happens in the browser is the same.
GAP = (
    "import time\nfrom socketlab.figures import maps\n"
    "from socketlab.images import pocketrooms\nfrom socketlab.panels.gap import GapPanel, GapWorld",
    "maps.joint_map = maps.pca_map\n"
    "def few(sensor, modality, strength):\n    time.sleep(0.5)  # long enough to press Stop\n"
    "    return pocketrooms.load('target_test', sensor, (modality,), strength).take(range(64))",
    "panel = GapPanel(world=GapWorld(few))\npanel",
)
STATISTICS = (
    "from socketlab import load_source, rooms\nfrom socketlab.panels.statistics import *",
    "def few(): return StatisticsBench(load_source('rgb_kinect_v1'), *(\n"
    "    rooms.load(*view).take(range(64)) for view in (('target_adapt', 'kinect_v1', ('depth',)),\n"
    "                                                   ('target_test', 'kinect_v1', ('rgb', 'depth')))))",
    "panel = StatisticsPanel(StatisticsChoice(epochs=20), few)\npanel",
)
CHANNEL = ("from socketlab.panels.statistics import ChannelView", "view = ChannelView()\nview")
PAIRS = (
    "from dataclasses import replace\nfrom socketlab.panels.pairs import PairsChoice, PairsPanel, shipped\n"
    "from socketlab.panels.training import Guess",
    "def few():\n    all = shipped()\n"
    "    return replace(all, target=all.target.take(range(64)), held_out=all.held_out.take(range(48)))",
    "panel = PairsPanel(PairsChoice(pairs=32, epochs=1), few)\npanel",
    "def outcome(panel):\n    before, *_, after = panel.runs[0].values['aside']\n"
    "    return 'it falls' if after < before else 'it rises'",
    "Guess('L_TI on pairs kept aside, after one epoch?', ('it falls', 'it rises'), outcome).follow(panel)",
)
LAPTOP = {"width": 1366, "height": 768}


def unfold(page: Page, title: str) -> None:
    page.locator(".socketlab-more .jupyter-widget-Collapse-header").filter(has_text=title).click()


def assert_fits(page: Page, pictures: int, artefacts: Path, name: str) -> None:
    """On a laptop run bar, headline and pictures are all on the screen, and nothing scrolls sideways."""
    page.set_viewport_size(LAPTOP)
    panel = page.locator(".socketlab-panel")
    panel.scroll_into_view_if_needed()
    panel.evaluate("panel => panel.scrollIntoView(true)")
    page.wait_for_timeout(1500)  # pictures take the proportions of their places
    places = [part(page, "bar"), part(page, "headline"), *page.locator(".socketlab-picture").all()]
    assert len(places) == pictures + 2
    for place in places:
        box = place.bounding_box()
        assert box is not None
        assert box["y"] >= 0 and box["y"] + box["height"] <= LAPTOP["height"], place
        assert box["x"] >= 0 and box["x"] + box["width"] <= LAPTOP["width"], place
    assert panel.evaluate("panel => panel.scrollWidth <= panel.clientWidth")
    page.screenshot(path=artefacts / f"{name}_1366.png")
    page.set_viewport_size({"width": 1920, "height": 1080})
    page.wait_for_timeout(1500)
    page.screenshot(path=artefacts / f"{name}_1920.png")
    page.set_viewport_size({"width": 1400, "height": 1900})


def assert_runs_and_stops(page: Page) -> None:
    """Run shows progress, stop ends it."""
    status = part(page, "status")
    part(page, "run").click()
    expect(status).to_contain_text("running", timeout=120 * SECOND)
    expect(status).to_contain_text("epoch", timeout=120 * SECOND)
    part(page, "stop").click()
    expect(status).to_contain_text("stopped", timeout=5 * SECOND)


@pytest.mark.slow
def test_the_gap_panel(open_cells: Callable[..., Page], lab_folder: Path, artefacts: Path) -> None:
    page = open_cells("gap", GAP)
    expect(part(page, "headline")).to_contain_text("right, in colour", timeout=120 * SECOND)
    assert_fits(page, 4, artefacts, "gap")
    assert_answers(page, "layer", "In numbers", ["ArrowLeft", "ArrowRight"])
    part(page, "strength").locator(".noUi-handle").press("ArrowRight")  # not known yet
    expect(part(page, "headline")).to_contain_text("errors × 1.5", timeout=60 * SECOND)
    part(page, "run").click()
    expect(part(page, "status")).to_contain_text("running", timeout=60 * SECOND)
    part(page, "stop").click()
    expect(part(page, "status")).to_contain_text("stopped", timeout=5 * SECOND)


@pytest.mark.slow
def test_the_statistics_panel(open_cells: Callable[..., Page], lab_folder: Path, artefacts: Path) -> None:
    page = open_cells("statistics", STATISTICS)
    expect(part(page, "headline")).to_contain_text("A batch of 32", timeout=120 * SECOND)
    assert_answers(page, "batch-size", "mean distance from the diagonal", ["PageDown", "PageUp"])
    assert_runs_and_stops(page)
    expect(part(page, "runs").locator("tr").last).to_contain_text("stopped")
    assert_fits(page, 4, artefacts, "statistics")


@pytest.mark.slow
def test_a_channel_in_training_and_evaluation(open_cells: Callable[..., Page], artefacts: Path) -> None:
    page = open_cells("channel", CHANNEL)
    headline = part(page, "headline")
    expect(headline).to_contain_text("training: output mean", timeout=60 * SECOND)
    still = headline.inner_text().split(";")[0]
    shift = part(page, "shift").get_by_role("slider", name="shift")
    for _ in range(10):
        shift.press("ArrowRight")
    expect(part(page, "shift").locator(".widget-readout")).to_have_text("1.00")
    part(page, "mode").locator("select").select_option("evaluation")
    expect(page.locator(".socketlab-picture")).to_have_accessible_name(
        re.compile("output in evaluation"), timeout=20 * SECOND
    )
    assert headline.inner_text().split(";")[0] == still
    page.locator(".socketlab-panel").screenshot(path=artefacts / "channel.png")


@pytest.mark.slow
def test_the_pairs_panel_and_a_guess(
    open_cells: Callable[..., Page], lab_folder: Path, artefacts: Path
) -> None:
    page = open_cells("pairs", PAIRS)
    expect(part(page, "headline")).to_contain_text("Press Run", timeout=120 * SECOND)
    assert_answers(page, "shift", "pairs are given", ["PageUp", "PageDown"])
    part(page, "guess").get_by_label("it rises").check()
    part(page, "run").click()
    expect(part(page, "headline")).to_contain_text("epoch 1", timeout=120 * SECOND)
    expect(part(page, "outcome-text")).to_contain_text("The run: it", timeout=60 * SECOND)
    assert_fits(page, 4, artefacts, "pairs")
    unfold(page, "Training")
    for _ in range(3):
        part(page, "epochs").locator(".noUi-handle").press("PageUp")
    assert_runs_and_stops(page)
