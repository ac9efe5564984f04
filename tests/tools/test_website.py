"""The static site: complete, linked, described, and loading nothing from elsewhere."""

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import expect

from socketlab.course import quiz
from socketlab.errors import LabError
from tools import run_notebooks, website

LOADS = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src", "object": "data"}


class Reader(HTMLParser):
    """What a page links to, loads, names and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, Any]] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if found.get("id") else []
        if tag == "a":
            self.links.append(found["href"] or "")
        if tag in LOADS and LOADS[tag] in found:
            self.loaded.append(found[LOADS[tag]] or "")
        if tag == "img":
            self.images.append(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return website.build(tmp_path_factory.mktemp("built") / "site").parent


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Reader]:
    return {path.name: Reader(path.read_text(encoding="utf-8")) for path in site.glob("*.html")}


def test_every_notebook_and_every_page_of_docs_is_there(pages: dict[str, Reader]) -> None:
    wanted = {path.stem for path in run_notebooks.find(())} | {
        path.stem for path in (website.ROOT / "docs").glob("*.md")
    }
    assert {f"{name}.html" for name in wanted} | {"index.html", "pocketrooms.html"} == set(pages)


def test_every_link_leads_somewhere(site: Path, pages: dict[str, Reader]) -> None:
    for name, page in pages.items():
        for link in page.links:
            if link.startswith("https://"):
                continue  # for the reader to follow, or not
            target, _, place = link.partition("#")
            assert (site / (target or name)).is_file(), f"{name}: {link}"
            if place:
                assert place in pages[target or name].ids, f"{name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Reader]) -> None:
    for name, page in pages.items():
        for source in page.loaded:
            inside = source.startswith("data:") or (site / source).is_file()
            assert inside, f"{name} loads {source}"
        text = (site / name).read_text(encoding="utf-8")
        assert not re.search(r'style="[^"]*url\(|<style|@import', text)
    style = (site / "site.css").read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style
    script = (site / "site.js").read_text(encoding="utf-8")
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(|WebSocket", script)


def test_every_picture_has_its_words_but_the_ones_beside_a_title(pages: dict[str, Reader]) -> None:
    for name, page in pages.items():
        for image in page.images:
            assert "alt" in image, name
            assert name == "index.html" or image["alt"].strip(), f"{name}: {image}"


@pytest.mark.parametrize("path", run_notebooks.find(()), ids=lambda path: path.stem)
def test_a_notebook_is_shown_whole(site: Path, pages: dict[str, Reader], path: Path) -> None:
    notebook, page = run_notebooks.read(path), pages[f"{path.stem}.html"]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    described = [o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]
    assert [image["alt"] for image in page.images] == described
    text = (site / f"{path.stem}.html").read_text(encoding="utf-8")
    assert text.count('<pre class="code">') == sum(cell.cell_type == "code" for cell in notebook.cells)
    words = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert page.tags.count("math") >= words.count("$$") // 2
    prose = re.sub(r"<(pre|code|script)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert "$" not in website._plain_text(prose)


def test_ids_are_unique_and_pages_are_chained(site: Path, pages: dict[str, Reader]) -> None:
    nexts = {}
    for name, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), name
        found = re.search(r'rel="next" href="([^"]+)"', (site / name).read_text(encoding="utf-8"))
        nexts[name] = found[1] if found else None
    walked, here = [], "index.html"
    while here:
        walked.append(here)
        here = nexts[here]
    assert sorted(walked) == sorted(pages)
    stems = [f"{path.stem}.html" for path in run_notebooks.find(())]
    assert walked[1 : 1 + len(stems)] == stems


@pytest.mark.parametrize(
    "formula",
    [r"$x_1$", r"$$\tfrac12\Big(\frac{v}{r}\Big)$$", r"$\lVert x\rVert^2$", r"$\operatorname{mean}_i$"],
)
def test_formulas_become_mathml(formula: str) -> None:
    drawn = website.markdown_reader().render(f"So {formula} it is.")
    assert "<math" in drawn
    assert "\\" not in drawn
    assert "$" not in drawn


def test_prices_are_no_formulas() -> None:
    assert "<math" not in website.markdown_reader().render("It costs 5 $ here and 6 $ there.")


def test_numbers_in_tables_keep_together() -> None:
    cells = {"94.1 ± 3.6": True, "-2.5 %": True, "": True, "7 rooms": False, "AdaBN": False}
    body = website._with_places(["<table>", *(f"<td>{text}</td>" for text in cells), "</table>"])
    for text, number in cells.items():
        assert (f'<td class="number">{text}</td>' in body) is number


def test_code_and_outputs_are_escaped(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell(
        "print('<script>')", outputs=[nbformat.v4.new_output("stream", text="<script>alert()</script>")]
    )
    (shown,) = website.shown_outputs(cell, tmp_path)
    assert "<script>" not in shown + website.coloured(cell.source)


def test_a_link_that_leads_nowhere_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cell = nbformat.v4.new_markdown_cell("# A title\n\n[gone](99_gone.ipynb)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "00_one.ipynb")
    monkeypatch.setattr(run_notebooks, "find", lambda names: [folder / "00_one.ipynb"])
    with pytest.raises(LabError, match=r"00_one\.ipynb links to 99_gone\.ipynb"):
        website.build(tmp_path / "site")
    assert not (tmp_path / "site").exists()
    assert not list(tmp_path.glob(".site*"))


def test_a_folder_of_others_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert website.main([str(tmp_path)]) == 1
    assert "no site of ours" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ModuleNotFoundError("no such module", name="latex2mathml")

    monkeypatch.setattr(website, "markdown_reader", fail)
    assert website.main([str(tmp_path / "site")]) == 1
    assert "latex2mathml is not installed" in capsys.readouterr().err


# in a browser


@pytest.fixture
def opened(site: Path, browser: Any) -> Iterator[Callable[..., Any]]:
    """`opened(width, look)` is a page on which nothing may fail and no request may leave the disk."""
    asked: list[str] = []
    faults: list[str] = []

    def open_page(width: int, look: str) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=look)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        return page

    yield open_page
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert faults == []


@pytest.mark.parametrize(("width", "look"), [(1300, "light"), (375, "dark")])
def test_every_page_fits_and_the_search_finds(
    site: Path, opened: Callable[..., Any], artefacts: Path, width: int, look: str
) -> None:
    page = opened(width, look)
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
    assert page.evaluate("document.documentElement.dataset.look") == look
    page.screenshot(path=artefacts / f"site-{width}.png")
    page.locator("#search input").fill("running mean")
    page.locator("#search li a").first.click()
    page.wait_for_url("**#*")
    page.locator("#look").click()
    assert page.evaluate("document.documentElement.dataset.look") != look


def test_questions_and_the_game_answer_without_a_kernel(
    site: Path, opened: Callable[..., Any], artefacts: Path
) -> None:
    page = opened(1300, "light")
    page.goto((site / "01_modality_gap.html").as_uri())
    question = quiz.find("01-umap")
    asked = page.get_by_role("group", name=question.text)
    for option in question.options:
        asked.get_by_label(option.text).check()
        expect(asked.get_by_role("status")).to_contain_text(option.because)
        expect(asked.get_by_role("status")).to_contain_text("Yes" if option.right else "Not quite")
    page.goto((site / "00_start_here.html").as_uri())
    game = page.locator(".socketlab-game")
    for number in range(1, 11):
        expect(game.get_by_role("img")).to_have_accessible_name(re.compile(f"Depth image {number}:"))
        game.get_by_role("button", name="bedroom").press("Enter")
    expect(game.get_by_role("status")).to_contain_text("You named 1 of 10, the network 2.")
    expect(game.get_by_role("img")).to_have_count(20)
    game.screenshot(path=artefacts / "game.png")


def test_the_explorer_answers_without_a_kernel(
    site: Path, opened: Callable[..., Any], artefacts: Path
) -> None:
    """Keys choose a point of notebook 01's map, and the room behind it appears in both modalities."""
    page = opened(1300, "light")
    page.goto((site / "01_modality_gap.html").as_uri())
    page.evaluate("document.querySelector('iframe.explorer').scrollIntoView()")
    frame = page.frame_locator("iframe.explorer")
    points = frame.get_by_role("application")
    expect(points).to_have_accessible_name(re.compile("320 RGB, 320 depth"))
    points.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(frame.get_by_role("status").filter(has_text="1 point selected")).to_be_visible()
    expect(frame.get_by_role("listitem").filter(has_text="#").locator("img").first).to_be_visible()
    page.screenshot(path=artefacts / "site-explorer.png")


def test_files_of_the_site_are_in_the_package() -> None:
    assert {path.name for path in website.FILES.iterdir()} == {
        "explorer.html",
        "page.html",
        "site.css",
        "site.js",
    }
