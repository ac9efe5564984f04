"""The panel in a real browser: a slider moved, a run begun, the accuracy seen to change, the run stopped."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

CELLS = (
    "from socketlab.panels import AdaptationPanel, Choice\nfrom socketlab.recipe import Recipe",
    "panel = AdaptationPanel(Choice(Recipe(align_epochs=30, epochs=10), pairs=96))\npanel",
)


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    """Where screenshots go: the folder named by SOCKETLAB_ARTEFACTS, else the test's own."""
    folder = Path(os.environ.get("SOCKETLAB_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def text_of(page: Any, name: str) -> str:
    return page.locator(f".socketlab-{name}").inner_text()


def wait_for(page: Any, condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        page.wait_for_timeout(100)
    return False


@pytest.mark.slow
def test_a_learner_moves_a_slider_runs_and_stops(
    open_notebook: Callable[[str], Any], lab_folder: Path, artefacts: Path
) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab_folder / "panel.ipynb")
    page = open_notebook("panel.ipynb")
    page.wait_for_selector(".socketlab-panel", timeout=60_000)
    assert "Press Run" in text_of(page, "accuracy")

    weight = page.locator(".socketlab-lambda-ti .noUi-handle")
    before = page.locator(".socketlab-lambda-ti .widget-readout").inner_text()
    weight.press("PageUp")
    weight.press("PageUp")
    after = page.locator(".socketlab-lambda-ti .widget-readout").inner_text()
    assert float(after) > float(before)

    page.locator(".socketlab-run").click()
    assert wait_for(page, lambda: "epoch 0" in text_of(page, "accuracy"), 60)
    first = text_of(page, "accuracy")
    assert "unseen by the method" in first.lower()
    assert wait_for(page, lambda: "epoch 2" in text_of(page, "accuracy"), 120)
    assert text_of(page, "accuracy") != first
    assert "left" in text_of(page, "status")

    page.locator(".socketlab-pause").click()
    assert wait_for(page, lambda: "paused" in text_of(page, "status"), 5)
    held = text_of(page, "accuracy")
    page.wait_for_timeout(700)
    assert text_of(page, "accuracy") == held
    page.locator(".socketlab-pause").click()
    assert wait_for(page, lambda: text_of(page, "accuracy") != held, 60)

    begun = time.monotonic()
    page.locator(".socketlab-stop").click()
    assert wait_for(page, lambda: "stopped" in text_of(page, "status"), 5)
    assert time.monotonic() - begun < 3
    assert wait_for(page, lambda: after.rstrip("0").rstrip(".") in text_of(page, "runs"), 5)
    pictures = page.locator(".socketlab-panel img")
    assert wait_for(page, lambda: pictures.count() >= 1, 30)
    sizes = pictures.evaluate_all("all => all.map(i => i.naturalWidth)")
    assert min(sizes) > 300

    page.screenshot(path=artefacts / "panel.png")
    assert (artefacts / "panel.png").stat().st_size > 50_000
