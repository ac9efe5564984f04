"""The panel in a real browser: a slider moved, a run begun, its pictures looked at, the run stopped."""

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from browsing import SECOND, look_at
from playwright.sync_api import Locator, Page, expect

# Few images and no compiler in the background, so that an epoch takes no time: what happens in the browser is
# the same. UMAP has its own tests.
CELLS = (
    "import threading\nfrom dataclasses import replace\nfrom socketlab.figures import maps as embed\n"
    "from socketlab.panels.adaptation import AdaptationPanel, Choice, gather, some\n"
    "from socketlab.method.recipe import Recipe",
    "def few(choice):\n    found = gather(choice)\n"
    "    return replace(found, target=some(found.target, 64), held_out=some(found.held_out, 48))",
    "embed.warm_up = threading.Thread\n"
    "panel = AdaptationPanel(Choice(Recipe(align_epochs=3, epochs=57, lambda_bn=0.1), pairs=48), few)\npanel",
)
PICTURES = {
    "accuracy": r"Accuracy on held-out target images.*run 1 0\.\d",
    "losses": r"Terms of the loss.*L_TI.*L_BN.*L_PL.*L_IM",
    "matrix": r"Confusion matrix of 48 images, \d+ % right",
    "map": r"Epoch \d+: (joint UMAP|PCA)",
}


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

    accuracy, status = part("accuracy"), part("status")
    expect(accuracy).to_contain_text("Press Run", timeout=60 * SECOND)
    expect(page.locator(".socketlab-panel img")).to_have_count(len(PICTURES))
    empty = look_at(page.locator(".socketlab-panel img").all())
    assert max(one["coloured"] for one in empty) < 20

    readout = part("lambda-ti").locator(".widget-readout")
    before = float(readout.inner_text())
    part("lambda-ti").locator(".noUi-handle").press("PageUp")
    expect(readout).not_to_have_text(f"{before:.2f}")
    weight = float(readout.inner_text())
    assert weight > before
    part("map").locator("select").select_option("PCA")

    part("run").click()
    expect(accuracy).to_contain_text(re.compile("epoch [1-9]"), timeout=120 * SECOND)
    expect(accuracy).to_contain_text(re.compile("unseen by the method", re.IGNORECASE))
    expect(status).to_contain_text("left")

    part("pause").click()
    expect(status).to_contain_text("paused", timeout=5 * SECOND)
    held = accuracy.inner_text()
    page.wait_for_timeout(600)  # the one wait for nothing to happen
    assert accuracy.inner_text() == held
    part("pause").click()
    expect(accuracy).to_contain_text(re.compile(r"epoch ([5-9]|\d\d)"), timeout=120 * SECOND)

    part("stop").click()
    expect(status).to_contain_text("stopped", timeout=3 * SECOND)
    expect(part("runs").locator("tr").last).to_contain_text(f"{weight:g}")
    part("hue").locator("select").select_option("modality")

    pictures = [page.get_by_role("img", name=re.compile(words)) for words in PICTURES.values()]
    for picture in pictures:
        expect(picture).to_have_count(1)
    expect(pictures[-1]).to_have_accessible_name(re.compile("coloured by modality"))
    for one in look_at(pictures):
        assert one["coloured"] > 300

    page.screenshot(path=artefacts / "panel.png")
