"""The panel in a real browser: a slider moved, a run begun, its pictures looked at, the run stopped."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
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
SECOND = 1000
expect.set_options(timeout=20 * SECOND)

# Of an image: its size, how many pixels are in colour (curves, cells and points are, frames and texts are
# not), whether its outermost pixels are all white, and its place on the page.
_LOOK = """async image => {
    await image.decode();
    const [w, h] = [image.naturalWidth, image.naturalHeight];
    const context = Object.assign(document.createElement('canvas'), {width: w, height: h}).getContext('2d');
    context.drawImage(image, 0, 0);
    const rgba = context.getImageData(0, 0, w, h).data;
    let coloured = 0, clear = true;
    for (let y = 0, i = 0; y < h; y++) for (let x = 0; x < w; x++, i += 4) {
        const darkest = Math.min(rgba[i], rgba[i + 1], rgba[i + 2]);
        coloured += Math.max(rgba[i], rgba[i + 1], rgba[i + 2]) - darkest > 40;
        clear &&= darkest == 255 || (x > 0 && y > 0 && x < w - 1 && y < h - 1);
    }
    const {left, top, right, bottom} = image.getBoundingClientRect();
    return {width: w, height: h, coloured, clear, left, top, right, bottom};
}"""


def overlap(a: dict[str, float], b: dict[str, float]) -> bool:
    return (
        a["left"] < b["right"]
        and b["left"] < a["right"]
        and a["top"] < b["bottom"]
        and b["top"] < a["bottom"]
    )


def look_at(pictures: list[Locator]) -> list[dict[str, Any]]:
    """What `_LOOK` finds, of whole pictures that do not cover one another."""
    seen: list[dict[str, Any]] = [picture.evaluate(_LOOK) for picture in pictures]
    for one in seen:
        assert one["width"] > 300
        assert one["clear"], "something is cut off at a picture's edge"
        shown = (one["right"] - one["left"]) / (one["bottom"] - one["top"])
        assert shown == pytest.approx(one["width"] / one["height"], rel=0.01)
    assert not any(overlap(a, b) for a, b in itertools.combinations(seen, 2))
    return seen


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
