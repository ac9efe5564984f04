"""The panels of notebooks 01 to 03 in a real browser: sliders answered in time, runs begun and stopped."""

from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
import pytest
from browsing import SECOND, assert_answers, look_at, part
from playwright.sync_api import Page, expect

# Few images and no compiler in the background: what happens in the browser is the same.
GAP = (
    "import time\nfrom socketlab.figures import maps as embed\nfrom socketlab.panels.gap import GapPanel\n"
    "from socketlab.panels.gap import GapWorld, shipped_images",
    "embed.warm_up, embed.is_warm = lambda: None, lambda: True\nembed.joint_map = embed.pca_map\n"
    "def few(*view):\n    time.sleep(0.5)  # long enough to press Stop\n"
    "    return shipped_images(*view).take(range(64))",
    "panel = GapPanel(world=GapWorld(few))\npanel",
)
STATISTICS = (
    "from socketlab.panels.statistics import StatisticsChoice, StatisticsMaterial, shipped\n"
    "from socketlab.panels.statistics import StatisticsPanel",
    "def few():\n    all = shipped()\n"
    "    return StatisticsMaterial(all.source, all.target.take(range(64)), all.held_out.take(range(64)))",
    "panel = StatisticsPanel(StatisticsChoice(epochs=20), few)\npanel",
)
PAIRS = (
    "from socketlab.panels.pairs import PairsChoice, PairsMaterial, PairsWorld, shipped_material\n"
    "from socketlab.panels.pairs import PairsPanel\nfrom socketlab.panels.training import Guess",
    "def few():\n    all = shipped_material()\n"
    "    return PairsMaterial(all.source, all.target.take(range(64)), all.held_out.take(range(48)))",
    "panel = PairsPanel(PairsChoice(pairs=32, epochs=1), PairsWorld(material=few))\npanel",
    "def outcome(panel):\n    before, *_, after = panel.runs[0].aside\n"
    "    return 'it falls' if after < before else 'it rises'",
    "Guess('L_TI on pairs kept aside, after one epoch?', ('it falls', 'it rises'), outcome).follow(panel)",
)


@pytest.fixture
def opened(open_notebook: Callable[[str], Page], lab_folder: Path) -> Callable[[str, Sequence[str]], Page]:
    """Writes cells as a notebook, opens it and runs them."""

    def open_cells(name: str, cells: Sequence[str]) -> Page:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, lab_folder / f"{name}.ipynb")
        return open_notebook(f"{name}.ipynb")

    return open_cells


def assert_runs_and_stops(page: Page) -> None:
    """Run shows progress, pause holds, stop ends it."""
    status = part(page, "status")
    part(page, "run").click()
    expect(status).to_contain_text("left", timeout=120 * SECOND)
    part(page, "pause").click()
    expect(status).to_contain_text("paused", timeout=10 * SECOND)
    part(page, "pause").click()
    expect(status).to_contain_text("running", timeout=10 * SECOND)
    part(page, "stop").click()
    expect(status).to_contain_text("stopped", timeout=3 * SECOND)


def assert_exports(page: Page, folder: Path, name: str) -> None:
    part(page, "export").click()
    expect(part(page, "exported")).to_contain_text("files written to", timeout=30 * SECOND)
    assert any((folder / "exports" / f"{name}-1").glob("*.svg"))


@pytest.mark.slow
def test_the_gap_panel(opened: Callable[..., Page], lab_folder: Path, artefacts: Path) -> None:
    page = opened("gap", GAP)
    expect(part(page, "headline")).to_contain_text("right, in colour", timeout=120 * SECOND)
    expect(part(page, "status")).to_contain_text("finished")
    pictures = page.locator(".socketlab-panel img")
    expect(pictures).to_have_count(4)
    assert min(one["coloured"] for one in look_at(pictures.all())) > 100
    assert_answers(page, "layer", "The gap in numbers", ["ArrowLeft", "ArrowRight"])
    part(page, "strength").locator(".noUi-handle").press("ArrowRight")  # not known yet: a visible run
    expect(part(page, "headline")).to_contain_text("errors × 1.5", timeout=60 * SECOND)
    part(page, "run").click()
    expect(part(page, "status")).to_contain_text("left", timeout=60 * SECOND)
    part(page, "stop").click()
    expect(part(page, "status")).to_contain_text("stopped", timeout=3 * SECOND)
    assert_exports(page, lab_folder, "gap")
    look_at(pictures.all())
    page.screenshot(path=artefacts / "gap_panel.png")


@pytest.mark.slow
def test_the_statistics_panel(opened: Callable[..., Page], lab_folder: Path, artefacts: Path) -> None:
    page = opened("statistics", STATISTICS)
    expect(part(page, "headline")).to_contain_text("A batch of 32", timeout=120 * SECOND)
    pictures = page.locator(".socketlab-panel img")
    expect(pictures).to_have_count(5)
    look_at(pictures.all())
    assert_answers(page, "batch-size", "a dot per channel", ["PageDown", "PageUp"])
    assert_runs_and_stops(page)
    expect(part(page, "runs").locator("tr").last).to_contain_text("stopped")
    assert_exports(page, lab_folder, "statistics")
    assert min(one["coloured"] for one in look_at(pictures.all())) > 100
    page.screenshot(path=artefacts / "statistics_panel.png")


@pytest.mark.slow
def test_the_pairs_panel_and_a_prediction(
    opened: Callable[..., Page], lab_folder: Path, artefacts: Path
) -> None:
    page = opened("pairs", PAIRS)
    expect(part(page, "headline")).to_contain_text("Press Run", timeout=120 * SECOND)
    pictures = page.locator(".socketlab-panel img")
    expect(pictures).to_have_count(4)
    look_at(pictures.all())
    assert_answers(page, "shift", "pairs are given", ["PageUp", "PageDown"])
    part(page, "guess").get_by_label("it rises").check()
    part(page, "run").click()
    expect(part(page, "headline")).to_contain_text("epoch 1", timeout=120 * SECOND)
    expect(part(page, "outcome-text")).to_contain_text("The run: it", timeout=60 * SECOND)
    for _ in range(3):
        part(page, "epochs").locator(".noUi-handle").press("PageUp")
    assert_runs_and_stops(page)
    assert_exports(page, lab_folder, "pairs")
    assert min(one["coloured"] for one in look_at(pictures.all())) > 100
    page.screenshot(path=artefacts / "pairs_panel.png")
