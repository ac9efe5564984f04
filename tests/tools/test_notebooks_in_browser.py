"""Every notebook in a real browser, at the tier replay: cells run, panels draw and answer, nothing fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import SECOND, assert_answers, look_at, part
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from tools import run_notebooks

PATHS = run_notebooks.find(())
# name of a notebook -> a slider or menu of its panel that replay does not lock, the picture that it changes,
# and keys to be pressed in turn
ANSWERS = {
    "01_modality_gap": ("layer", "In numbers", ["ArrowLeft", "ArrowRight"]),
    "02_bn_statistics": ("batch-size", "Measured against remembered mean", ["PageDown", "PageUp"]),
    "03_paired_alignment": ("experiment", "pairs are given", ["ArrowDown", "ArrowUp"]),
    "06_near_infrared": ("layer", "In numbers", ["ArrowLeft", "ArrowRight"]),
}
RUNS = ("02_bn_statistics", "03_paired_alignment", "04_full_adaptation")
"""Notebooks with a panel that trains: at replay its first run is shown again at once."""
FIRST = "from socketlab.runs import replay\n\nreplay.use('replay')"
# Cells that have not yet been run to their end, by their prompt: none of them, of all with code.
_DONE = """count => {
    const cells = [...document.querySelectorAll('.jp-CodeCell')];
    const prompts = cells.map(c => c.querySelector('.jp-InputPrompt')?.textContent ?? '');
    return prompts.length >= count && prompts.every(p => /\\[\\d+\\]/.test(p));
}"""


@pytest.fixture
def console(page: Page) -> Iterator[list[str]]:
    """What the page says of errors; at the end nothing may have been said."""
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            said.append(f"{message.text} ({message.location.get('url', '')})")

    page.on("console", hear)
    yield said
    assert said == []


@pytest.fixture
def opened(
    open_notebook: Callable[[str], Page], lab_folder: Path, page: Page
) -> Iterator[Callable[[Path], Page]]:
    """Copies a notebook without its outputs, puts the tier before its first cell, opens it and runs all.

    Afterwards its kernel is shut down: eight of them need more memory than a small computer has.
    """
    import nbformat

    def open_copy(path: Path) -> Page:
        notebook = run_notebooks.read(path)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(FIRST))
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, lab_folder / path.name)
        page = open_notebook(path.name)
        count = sum(cell.cell_type == "code" for cell in notebook.cells)
        page.wait_for_function(_DONE, arg=count, timeout=240 * SECOND)
        return page

    yield open_copy
    page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_in_the_browser(
    path: Path, opened: Callable[[Path], Page], console: list[str], artefacts: Path
) -> None:
    page = opened(path)
    expect(page.locator(".jp-OutputArea-output img").first).to_be_visible()
    panel = page.locator(".socketlab-panel")
    for one in panel.all():
        assert_panel_is_drawn(one)
    if path.stem in ANSWERS:
        assert_answers(page, *ANSWERS[path.stem])
    if path.stem in RUNS:
        part(page, "reset").click()
        expect(part(page, "status")).not_to_contain_text("finished", timeout=60 * SECOND)
        part(page, "run").click()
        expect(part(page, "status")).to_contain_text("finished", timeout=60 * SECOND)
        assert_panel_is_drawn(panel)
    if panel.count():
        panel.first.scroll_into_view_if_needed()
        panel.first.screenshot(path=artefacts / f"{path.stem}.png")
    else:
        page.screenshot(path=artefacts / f"{path.stem}.png")


def assert_panel_is_drawn(panel: Locator) -> None:
    """Its pictures are whole, do not cover one another, and show something."""
    pictures = [image for image in panel.locator("img.socketlab-picture").all() if image.is_visible()]
    assert pictures
    assert max(one["coloured"] for one in look_at(pictures)) > 300


def test_all_panels_are_among_those_that_are_tried() -> None:
    kinds = ("GapPanel(", "StatisticsPanel(", "PairsPanel(", "AdaptationPanel(")
    for path in PATHS:
        code = "\n".join(cell.source for cell in run_notebooks.read(path).cells if cell.cell_type == "code")
        assert any(kind in code for kind in kinds) == (path.stem in {*ANSWERS, *RUNS})
