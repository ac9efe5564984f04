"""Sections: what each needs from the cells before it, and entering a notebook at one."""

import builtins
from pathlib import Path

import nbformat
import pytest

from socketlab.course import begin, sections
from socketlab.errors import LabError
from tools import run_notebooks

PATHS = run_notebooks.find(())


def book(*cells: str) -> nbformat.NotebookNode:
    """A notebook; text that begins with # is Markdown."""
    make = {True: nbformat.v4.new_markdown_cell, False: nbformat.v4.new_code_cell}
    return nbformat.v4.new_notebook(cells=[make[text.startswith("#")](text) for text in cells])


def missing(notebook: nbformat.NotebookNode, section: sections.Section) -> set[str]:
    """Names that a section uses and that neither it, nor the cells that it needs, nor Python define."""
    known, found = set(dir(builtins)) | {"display", "get_ipython"}, set()
    for place in [*sections.needed(notebook, section), *range(section.first, section.last)]:
        if notebook.cells[place].cell_type == "code":
            defined, used = sections.names(compile(notebook.cells[place].source, "cell", "exec"))
            found |= used - known
            known |= defined
    return found


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_section_finds_what_it_stands_on(path: Path) -> None:
    notebook = run_notebooks.read(path)
    found = sections.sections_of(notebook)
    assert [section.number for section in found] == list(range(1, len(found) + 1))
    for section in found:
        assert missing(notebook, section) == set(), section.title
        assert section.minutes > 0, section.title
    assert "begin(" in "".join(cell.source for cell in notebook.cells[:2])


def test_a_section_needs_what_it_names_and_what_that_needs() -> None:
    notebook = book(
        "# Title", "import math\na = 1", "b = a + 1", "c = 5", "d = 7",
        "## 2. Next", "def f(x):\n    return x + b", "f(c)",
    )  # fmt: skip
    (section,) = sections.sections_of(notebook)
    assert sections.needed(notebook, section) == [1, 2, 3]
    assert missing(notebook, section) == set()


def test_a_name_that_a_section_gives_itself_is_not_needed() -> None:
    notebook = book("# T", "a = 1", "b = 2", "## 1. S", "a = 3\nfor i in range(a):\n    print(i)", "b += a")
    (section,) = sections.sections_of(notebook)
    assert sections.needed(notebook, section) == [2]


def test_a_value_made_from_its_old_self_is_needed() -> None:
    notebook = book("# T", "x = 1", "## 1. S", "x = x + 1")
    assert sections.needed(notebook, sections.sections_of(notebook)[0]) == [1]


def test_names_that_nobody_gives_are_found() -> None:
    notebook = book("# T", "## 1. S", "print(nowhere, [k for k in (1, 2)])")
    assert missing(notebook, sections.sections_of(notebook)[0]) == {"nowhere"}


def test_begin_wants_jupyter_and_a_section_that_is_there() -> None:
    with pytest.raises(LabError, match="in Jupyter"):
        begin("03", 2)
    with pytest.raises(LabError, match="no 99"):
        sections.find("00", 99)
    with pytest.raises(LabError, match="names 0 notebooks"):
        sections.find("99", 1)


def test_begin_runs_what_a_section_stands_on() -> None:
    asked = book("# T", "from socketlab.course import begin\nbegin('02', 3)", "# ok", "type(source).__name__")
    made = run_notebooks.execute(asked)
    assert "Ready for section 3" in made.cells[1].outputs[0].text
    assert made.cells[3].outputs[0].data["text/plain"] == "'Source'"
