"""A static site of the course, to be read without a kernel and without a network: ``make site``.

``python -m tools.website [folder]`` writes the notebooks as they are stored, with their pictures and the
words for them, and the pages of ``docs/``. Formulas become MathML, which browsers draw themselves; there is a
search, a light and a dark look, and nothing is loaded from elsewhere. The folder can be opened from a disk.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from socketlab.course import quiz
from socketlab.course.name_this_room import NameThisRoom
from socketlab.errors import LabError
from socketlab.figures import film
from socketlab.files import write_whole
from tools import run_notebooks

ROOT = Path(__file__).resolve().parent.parent
FILES = Path(__file__).resolve().parent / "website_files"
OUT = ROOT / "build" / "site"
MARK = ".socketlab-site"
"""A file that marks a folder as ours: no other folder is emptied."""

READING = ("docs/teaching.md", "docs/results.md", "data/pocketrooms/README.md")
"""Pages that come before the other ones of ``docs/``."""

LINK = re.compile(r'(?P<name>\b(?:href|src)=")(?P<target>[^"]*)(?P<end>")')
HEADING = re.compile(r'<h(?P<level>[1-6]) id="(?P<id>[^"]+)">(?P<text>.*?)</h[1-6]>', re.DOTALL)
WIDGETS = {"quiz": "course/quiz.js", "name_this_room": "course/name_this_room.js"}
"""Widgets that play in the page without a kernel: name → their JavaScript in the package."""
EXPLORER = "files/explorer.html"
"""The linked explorer as a page of its own, which notebook 01 shows in a frame."""
WIDGET_NOTE = "Run this cell to see the live panel."
PANEL_NOTE = "Here the notebook has a live panel. A still picture of it follows below."


@dataclass
class Page:
    """One page: where it comes from, its name in the site, its title and its content as HTML."""

    path: Path
    name: str
    title: str
    body: str
    summary: str = ""
    minutes: str = ""
    picture: str = ""
    headings: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def is_notebook(self) -> bool:
        """Whether it belongs to the course proper."""
        return self.path.suffix == ".ipynb"


# ------------------------------------------------------------------------ pieces of a page


def markdown_reader() -> Any:
    """A reader of Markdown with tables, formulas between dollars, and headings that can be linked to."""
    from latex2mathml.converter import convert
    from markdown_it import MarkdownIt
    from mdit_py_plugins.anchors import anchors_plugin
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    def formula(text: str, about: dict[str, Any]) -> str:
        drawn = str(convert(text, display="block" if about["display_mode"] else "inline"))
        return drawn.replace(
            "<mo>&#x02016;</mo>", '<mo stretchy="false">&#x02016;</mo>'
        )  # ‖ like its partner

    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    reader.use(dollarmath_plugin, renderer=formula, allow_space=False, double_inline=True)
    reader.use(anchors_plugin, max_level=4)
    reader.options.highlight = coloured
    return reader


def coloured(code: str, language: str = "python", _: object = None) -> str:
    """Code as HTML, its parts in classes of their own."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name({"": "text", "bash": "console"}.get(language, language))
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


def code_styles() -> str:
    """Rules for coloured code, for the light and for the dark look."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="xcode").get_style_defs(":root .code")
    dark = HtmlFormatter(style="github-dark").get_style_defs(':root[data-look="dark"] .code')
    return f"{light}\n{dark}\n"


def shown_outputs(cell: Any, pictures: Path) -> Iterator[str]:
    """The outputs of a cell as HTML; pictures go to files, widgets that need no kernel stay alive."""
    playing = widget_of(cell)
    if playing:
        yield playing
        return
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        text = output.get("text") or data.get("text/plain", "")
        if film.MIME in data:
            yield film.fragment(data[film.MIME])
        elif "image/png" in data:
            yield _picture(data["image/png"], output.get("metadata", {}).get("image/png", {}), pictures)
        elif "text/html" in data:
            yield f'<div class="output">{_bare(data["text/html"])}</div>'
        elif text.startswith(WIDGET_NOTE):
            yield f'<p class="panel">{PANEL_NOTE}</p>'
        elif text.strip():
            yield f'<pre class="output">{html.escape(text.rstrip())}</pre>'


def widget_of(cell: Any) -> str:
    """A question or a game as a widget of the page; "" for other cells."""
    asked = cell.metadata.get("socketlab", {}).get("question")
    if asked:
        return widget("quiz", quiz.ask(asked), "question")
    if "NameThisRoom()" in cell.source:
        return widget("name_this_room", NameThisRoom(), "game")
    if "Explorer(" in cell.source:
        return f'<iframe class="explorer" src="{EXPLORER}" title="Points and their images"></iframe>'
    return ""


def explorer_page() -> str:
    """The explorer of notebook 01 with all its cards, on the joint map that is recorded for it."""
    from socketlab import compare, load_source, rooms
    from socketlab.figures.map_figures import Cloud
    from socketlab.figures.style import MODALITIES
    from socketlab.panels.explorer import Explorer
    from socketlab.runs import replay

    source = load_source("rgb_kinect_v1")
    both = rooms.load("target_test", "kinect_v1", ("rgb", "depth"))
    joint, labels, names = replay.read("01-joint"), both.labels.numpy(), both.modalities
    gap = compare(source, source, *(both.only(name) for name in names), rounds=2)
    clouds = {name: Cloud(joint[name], name, MODALITIES[name].title, labels) for name in names}
    values, before = (dict(zip(names, pair, strict=True)) for pair in (gap.features, gap.outputs))
    explorer = Explorer(clouds, both, values, before=before, classes=source.classes, view="Joint UMAP")
    return alone(explorer, "Points and their images")


def alone(explorer: Any, title: str = "Feature map") -> str:
    """An explorer as a page without a kernel: its state, all cards, and a model that nobody answers."""
    from socketlab.panels.explorer import CSS, SCRIPT

    state = {name: getattr(explorer.map, name) for name in ("height", "points", "hue", "links", "focus")}
    cards = {str(scene): explorer.card(scene) for scene in range(len(explorer.cards.images))}
    state |= {"selection": bytes(explorer.map.selection), "cards": cards}
    text = json.dumps(state, default=lambda array: {"bytes": base64.b64encode(array).decode()})
    values = {
        "title": html.escape(title),
        "css": CSS,
        "script": SCRIPT,
        "state": text.replace("<", "\\u003c"),
    }
    page = (FILES / "explorer.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], page)


def widget(name: str, of: Any, *traits: str) -> str:
    """A place that `site.js` fills with a widget of `WIDGETS`, and the values that it reads."""
    values = json.dumps({trait: getattr(of, trait) for trait in traits}, ensure_ascii=False)
    inside = values.replace("<", "\\u003c")
    return f'<div class="widget" data-widget="{name}"><script type="application/json">{inside}</script></div>'


def widgets_script() -> str:
    """All widgets as one script: a page from a disk may not load modules."""
    parts = []
    for name, file in WIDGETS.items():
        code = (ROOT / "socketlab" / file).read_text(encoding="utf-8")
        parts.append(f"(() => {{\n{code.replace('export default', f'window.WIDGETS.{name} =')}}})();\n")
    return "window.WIDGETS = {};\n" + "".join(parts)


def _bare(table: str) -> str:
    """A table of pandas without its own look."""
    table = re.sub(r"<style.*?</style>", "", table, flags=re.DOTALL)
    return re.sub(r"<table[^>]*>", "<table>", table)


def _picture(encoded: str, about: dict[str, Any], pictures: Path) -> str:
    content = base64.b64decode(encoded)
    name = hashlib.sha256(content).hexdigest()[:16] + ".png"
    write_whole(pictures / name, content)
    words, width = html.escape(about.get("alt", ""), quote=True), about.get("width")
    size = f' width="{width}"' if width else ""
    return f'<figure><img src="{pictures.name}/{name}" alt="{words}"{size} loading="lazy"></figure>'


# ------------------------------------------------------------------------ pages


def notebook_page(path: Path, out: Path, reader: Any) -> Page:
    """A notebook as it is stored: text, code and outputs."""
    notebook = run_notebooks.read(path)
    parts, environment = [], {}  # type: ignore[var-annotated]
    whole = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(reader.render(cell.source, environment))
        elif cell.cell_type == "code":
            parts.append(f'<pre class="code"><code>{coloured(cell.source)}</code></pre>')
            parts += shown_outputs(cell, out / "pictures")
    if any("socketlab-film-here" in part for part in parts):
        parts.append(f'<script type="module">{film.page_script()}</script>')
    page = Page(path, f"{path.stem}.html", _title(whole, path), _with_places(parts))
    page.summary = _plain_text(reader.renderInline(_paragraph(whole, "What you will see.")))
    page.minutes = _plain_text(reader.renderInline(_paragraph(whole, "Time.")))
    page.picture = next(iter(re.findall(r'<img src="([^"]+)"', page.body)), "")
    page.headings = _headings(page.body)
    return page


def text_page(path: Path, reader: Any) -> Page:
    """A page of text."""
    text = path.read_text(encoding="utf-8")
    name = "pocketrooms" if path.name == "README.md" else path.stem
    body = _with_places([re.sub(r"<!-- .*? -->\n?", "", reader.render(text))])
    page = Page(path, f"{name}.html", _title(text, path), body, headings=_headings(body))
    first = re.search(r"<p>(.*?)</p>", body, re.DOTALL)
    page.summary = _plain_text(first[1]) if first else ""
    return page


def _title(text: str, path: Path) -> str:
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    if not found:
        raise LabError(f"{path.name} has no title: begin it with a line '# …'.")
    return found[1].strip()


def _paragraph(text: str, opening: str) -> str:
    """The paragraph that opens with these words in bold, without them."""
    found = re.search(rf"^\*\*{re.escape(opening)}\*\*\s*(.+?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _plain_text(body: str) -> str:
    """The words of some HTML."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body))).strip()


def _with_places(parts: Sequence[str]) -> str:
    """One HTML text: no heading's id comes twice, numbers keep together, wide tables can be scrolled."""
    seen: dict[str, int] = {}

    def unique(match: re.Match[str]) -> str:
        name = match["id"]
        seen[name] = seen.get(name, 0) + 1
        new = name if seen[name] == 1 else f"{name}-{seen[name]}"
        return f'<h{match["level"]} id="{new}">{match["text"]}</h{match["level"]}>'

    body = HEADING.sub(unique, "\n".join(parts))
    body = re.sub(r"<td>(?=[\d.,±%\s+−-]*</td>)", '<td class="number">', body)
    return body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")


def _headings(body: str) -> list[tuple[int, str, str]]:
    return [(int(m["level"]), m["id"], _plain_text(m["text"])) for m in HEADING.finditer(body)]


# ------------------------------------------------------------------------ the site


def build(out: Path = OUT) -> Path:
    """Write the whole site into a new folder, which then takes the place of the old one.

    Returns
    -------
    Path of its first page.

    Raises
    ------
    LabError : the folder holds something else, or a link leads nowhere.
    """
    if out.exists() and not (out / MARK).exists():
        raise LabError(f"{out} is there already and is no site of ours: choose another folder, or delete it.")
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write(unfinished)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out / "index.html"


def _write(out: Path) -> None:
    reader = markdown_reader()
    course = [notebook_page(path, out, reader) for path in run_notebooks.find(())]
    if any(EXPLORER in page.body for page in course):
        (out / EXPLORER).parent.mkdir()
        write_whole(out / EXPLORER, explorer_page().encode())
    texts = [ROOT / name for name in READING if (ROOT / name).is_file()]
    texts += sorted(path for path in (ROOT / "docs").glob("*.md") if path not in texts)
    pages = [*course, *(text_page(path, reader) for path in texts)]
    names = {page.path.resolve(): page.name for page in pages}
    names |= {(ROOT / "README.md").resolve(): "index.html"}
    for page in pages:
        page.body = LINK.sub(partial(_relinked, path=page.path, names=names, out=out), page.body)
    index = Page(
        ROOT / "README.md", "index.html", "Map of the course", _contents(course, pages[len(course) :])
    )
    order = [index, *pages]
    for number, page in enumerate(order):
        around = (
            order[number - 1] if number else None,
            order[number + 1] if number + 1 < len(order) else None,
        )
        write_whole(out / page.name, _framed(page, order, around).encode())
    shutil.copy(FILES / "site.js", out)
    write_whole(out / "widgets.js", widgets_script().encode())
    style = (FILES / "site.css").read_text(encoding="utf-8") + code_styles()
    write_whole(out / "site.css", style.encode())
    write_whole(
        out / "words.js", f"window.WORDS = {json.dumps(_words(pages), ensure_ascii=False)};\n".encode()
    )
    write_whole(out / MARK, b"")


def _relinked(match: re.Match[str], path: Path, names: dict[Path, str], out: Path) -> str:
    """A link of the repository as one of the site; pictures are copied."""
    target, hash_, place = match["target"].partition("#")
    if not target or re.match(r"[a-z]+:", target) or (out / target).is_file():
        return match[0]
    there = (path.parent / target).resolve()
    if there in names:
        return f"{match['name']}{names[there]}{hash_}{place}{match['end']}"
    if not there.is_file():
        raise LabError(f"{path.name} links to {target}, which is not there.")
    folder = "pictures" if there.suffix in (".png", ".jpg", ".svg") else "files"
    (out / folder).mkdir(exist_ok=True)
    shutil.copy(there, out / folder / there.name)
    return f"{match['name']}{folder}/{there.name}{match['end']}"


def _contents(course: Sequence[Page], texts: Sequence[Page]) -> str:
    """The first page: what this is, the notebooks in their order, the pages of text."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    opening = markdown_reader().render(readme.split("\n\n")[1])
    cards = "".join(
        f'<li><a href="{page.name}"><img src="{page.picture}" alt="" loading="lazy">'
        f"<span><b>{html.escape(page.path.stem[:2])}</b> {html.escape(page.title)}</span></a>"
        f"<p>{html.escape(page.summary)}</p><p class='minutes'>{html.escape(page.minutes)}</p></li>"
        for page in course
    )
    lines = "".join(
        f'<li><a href="{page.name}">{html.escape(page.title)}</a> {html.escape(_short(page.summary))}</li>'
        for page in texts
    )
    return (
        f"<h1>socketlab</h1>{opening}<p>These are the notebooks as they were run, to be read where "
        "nothing runs. To run them, install the kit: its README says how.</p>"
        f'<h2 id="course">The course</h2><ol class="cards">{cards}</ol>'
        f'<h2 id="pages">Pages</h2><ul class="texts">{lines}</ul>'
    )


def _short(text: str, most: int = 150) -> str:
    """The first sentence, or as much of it as has room."""
    sentence = re.split(r"(?<=[.!?]) ", text)[0]
    return sentence if len(sentence) <= most else sentence[:most].rsplit(" ", 1)[0] + " …"


def _framed(page: Page, order: Sequence[Page], around: tuple[Page | None, Page | None]) -> str:
    """A page in its frame: navigation, search, the pages before and after it."""
    frame = (FILES / "page.html").read_text(encoding="utf-8")
    before, after = around
    turns = "".join(
        f'<a rel="{rel}" href="{other.name}">{sign.format(html.escape(other.title))}</a>'
        for rel, other, sign in (("prev", before, "← {}"), ("next", after, "{} →"))
        if other
    )
    values = {
        "title": html.escape(page.title if page.name == "index.html" else f"{page.title} · socketlab"),
        "summary": html.escape(_short(page.summary or "The course of socketlab"), quote=True),
        "menu": _menu(page, order),
        "body": page.body,
        "turns": turns,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], frame)


def _menu(here: Page, order: Sequence[Page]) -> str:
    lines = []
    for page in order:
        current = ' aria-current="page"' if page is here else ""
        number = f"<b>{page.path.stem[:2]}</b> " if page.is_notebook else ""
        within = ""
        if page is here and page is not order[0]:
            parts = [(name, text) for level, name, text in page.headings if level == 2]
            within = "".join(f'<li><a href="#{name}">{html.escape(text)}</a></li>' for name, text in parts)
            within = f"<ul>{within}</ul>" if within else ""
        lines.append(f'<li><a href="{page.name}"{current}>{number}{html.escape(page.title)}</a>{within}</li>')
    return f"<ul>{''.join(lines)}</ul>"


def _words(pages: Sequence[Page]) -> list[dict[str, str]]:
    """What the search looks through: the text of every section, and the descriptions of its pictures."""
    found = []
    for page in pages:
        pieces = re.split(r'<h[1-6] id="([^"]+)">(.*?)</h[1-6]>', page.body, flags=re.DOTALL)
        for name, heading, body in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            body = re.sub(r'<img[^>]* alt="([^"]*)"[^>]*>', r" \1 ", body)
            place = {"page": page.title, "to": f"{page.name}#{name}", "heading": _plain_text(heading)}
            found.append(
                {**place, "text": _plain_text(re.sub(r"<math.*?</math>", "", body, flags=re.DOTALL))}
            )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the site, and say where its first page is."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.website", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", nargs="?", type=Path, default=OUT, help="default: build/site")
    chosen = parser.parse_args(arguments)
    try:
        first = build(chosen.folder)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed: python -m pip install -e '.[site]'", file=sys.stderr)
        return 1
    count = len(list(first.parent.glob("*.html")))
    size = sum(path.stat().st_size for path in first.parent.rglob("*") if path.is_file())
    print(f"{count} pages, {size / 1e6:.1f} MB: open {first}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
