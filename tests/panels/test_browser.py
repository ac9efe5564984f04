"""The panel in a real browser: a slider moved, a run begun, its pictures looked at, the run stopped."""

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from browsing import SECOND, look_at
from playwright.sync_api import Locator, Page, expect

# Few images, so that an epoch takes no time: what happens in the browser is
# the same.
CELLS = (
    "from dataclasses import replace\n"
    "from socketlab.panels.adaptation import AdaptationPanel, Choice, gather, some\n"
    "from socketlab.method.recipe import Recipe",
    "def few(choice):\n    found = gather(choice)\n"
    "    rows = some(len(found.target), 64), some(len(found.held_out), 48)\n"
    "    target, held_out = found.target.take(rows[0]), found.held_out.take(rows[1])\n"
    "    return replace(found, target=target, held_out=held_out)",
    "panel = AdaptationPanel(Choice(Recipe(align_epochs=3, epochs=57, lambda_bn=0.1), pairs=48), few)\npanel",
)
PICTURES = {
    "accuracy": r"Curves of accuracy over epoch: run 1 from 0\.\d",
    "losses": r"TI from .*BN from ",
}
LAPTOP = {"width": 1366, "height": 768}


@pytest.mark.slow
def test_a_learner_moves_a_slider_runs_and_stops(
    open_notebook: Callable[[str], Page], lab_folder: Path, artefacts: Path
) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab_folder / "panel.ipynb")
    page = open_notebook("panel.ipynb")

    def part(name: str) -> Locator:
        return page.locator(f".socketlab-{name}")

    page.set_viewport_size(LAPTOP)
    headline, status = part("headline"), part("status")
    expect(page.locator(".socketlab-pictures img")).to_have_count(len(PICTURES), timeout=60 * SECOND)

    handle, readout = part("lambda-ti").locator(".noUi-handle"), part("lambda-ti").locator(".widget-readout")
    expect(handle).to_have_accessible_name(re.compile("λ_TI"))
    before = float(readout.inner_text())
    handle.press("PageUp")
    expect(readout).not_to_have_text(f"{before:.2f}")
    weight = float(readout.inner_text())
    assert weight > before
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    handle.press("d")
    handle.press("d")  # JupyterLab's keys for deleting a cell
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells

    part("run").click()
    expect(headline).to_contain_text(re.compile("epoch [1-9]"), timeout=120 * SECOND)
    expect(status).to_contain_text("left", timeout=60 * SECOND)

    expect(headline).to_contain_text(re.compile(r"epoch ([5-9]|\d\d)"), timeout=120 * SECOND)

    part("stop").click()
    expect(status).to_contain_text("stopped", timeout=20 * SECOND)
    expect(part("runs").locator("tr").last).to_contain_text(f"{weight:g}")

    pictures = [page.get_by_role("img", name=re.compile(words)) for words in PICTURES.values()]
    for picture in pictures:
        expect(picture).to_have_count(1)
    for one in look_at(pictures):
        assert one["coloured"] > 300
    part("panel").evaluate("panel => panel.scrollIntoView()")
    film = page.locator(".socketlab-film-box canvas").first
    confusion = page.get_by_role("img", name=re.compile("Confusion matrix, percent"))
    for seen in (part("run"), pictures[0], film, confusion):
        box = seen.bounding_box()
        assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= LAPTOP["height"]
    hand = page.get_by_label("epoch", exact=True)
    hand.press("Home")
    expect(page.get_by_role("img", name=re.compile("Map of features"))).to_have_accessible_name(
        re.compile("before|epoch 0")
    )

    page.screenshot(path=artefacts / "panel.png")

    mistakes = page.get_by_role("combobox", name="mistakes")
    expect(mistakes).to_be_enabled()
    expect(mistakes.locator("option:checked")).to_contain_text("taken for")
    mistakes.press("ArrowDown")
    expect(mistakes.locator("option:checked")).to_contain_text("taken for")
    expect(page.locator(".socketlab-card img").first).to_have_accessible_name(
        re.compile("depth image of scene")
    )
    mistakes.scroll_into_view_if_needed()
    page.screenshot(path=artefacts / "mistakes.png")
