"""The course: exercises stand in the notebooks as the catalogue has them, and each section begins alone."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from socketlab.course import checks, course, quiz
from socketlab.errors import LabError
from tools import run_notebooks

PATHS = course.learners()
each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def book(*cells: str) -> nbformat.NotebookNode:
    """A notebook; text that begins with # is Markdown."""
    make = {True: nbformat.v4.new_markdown_cell, False: nbformat.v4.new_code_cell}
    return nbformat.v4.new_notebook(cells=[make[text.startswith("#")](text) for text in cells])


# the notebooks as they are stored


@each
def test_exercises_stand_in_the_notebook_as_the_catalogue_has_them(path: Path) -> None:
    """``python -m socketlab.course.course`` was run."""
    stored, fresh = run_notebooks.read(path), course.renew(run_notebooks.read(path))
    assert [cell.source for cell in stored.cells] == [cell.source for cell in fresh.cells]


def test_every_exercise_and_question_has_its_place_in_its_own_notebook() -> None:
    found = [(one, path.stem[:2]) for path in PATHS for one in course.exercises_in(run_notebooks.read(path))]
    assert all(one[:2] == book for one, book in found)
    names = [one for one, _ in found]
    assert sorted(names) == sorted([*checks.catalogue(), *quiz.questions()])


@each
def test_no_solution_leaks(path: Path) -> None:
    notebook = run_notebooks.read(path)
    for one in course.exercises_in(notebook):
        if one in checks.catalogue():
            exercise = checks.find(one)
            cut = set(checks.solution(exercise).splitlines()) - set(checks.stub(exercise).splitlines())
            words = {line.strip().removeprefix("return ") for line in cut}
            for cell in notebook.cells:
                if cell.id == f"ex-{one}":
                    continue  # its second hint may say a line
                assert not [w for w in words if len(w) > 20 and w in cell.source], (one, cell.id)


@each
def test_the_instructors_edition_is_current(path: Path) -> None:
    stored = run_notebooks.read(path.parent / course.INSTRUCTOR / path.name)
    fresh = course.instructor_edition(run_notebooks.read(path), course.measured_seconds(path.stem))
    assert stored.cells == fresh.cells


@each
def test_every_section_finds_what_it_stands_on(path: Path) -> None:
    notebook = run_notebooks.read(path)
    found = course.sections(notebook)
    assert [section.number for section in found] == list(range(1, len(found) + 1))
    for section in found:
        assert course.missing_names(notebook, section) == set(), section.title
        assert section.minutes > 0, section.title
    assert "begin(" in "".join(cell.source for cell in notebook.cells[:2])


@each
def test_the_time_in_class_is_that_of_the_timetable(path: Path) -> None:
    notebook = run_notebooks.read(path)
    said = re.search(r"\*\*Time\.\*\* About (\d+) minutes", notebook.cells[0].source)
    assert said and int(said[1]) == course.minutes(notebook)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@each
def test_each_section_of_a_notebook_runs_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At replay; ``python -m socketlab.course.course --sections`` runs them at any tier."""
    monkeypatch.setenv("SOCKETLAB_TIER", "replay")
    course.run_sections([path])
    ran = re.findall(r"section (\d+): \d+ s", capsys.readouterr().out)
    assert ran == [str(section.number) for section in course.sections(run_notebooks.read(path))]


def test_a_section_that_leans_on_another_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a cell changes without naming it cannot be seen before it runs."""
    notebook = book(
        "# T", "## 1. One", "import sys, json\nkept = json", "## 2. Two", "globals()['k' + 'ept'].dumps(1)"
    )  # fmt: skip
    nbformat.write(notebook, tmp_path / "00_small.ipynb")
    with pytest.raises(LabError, match=r"00_small, section 2 alone: A cell failed:(.|\n)*KeyError"):
        course.run_sections([tmp_path / "00_small.ipynb"])


# how it is done


def test_a_section_needs_what_it_names_and_what_that_needs() -> None:
    notebook = book(
        "# Title", "import math\na = 1", "b = a + 1", "c = 5", "d = 7",
        "## 2. Next", "def f(x):\n    return x + b", "f(c)",
    )  # fmt: skip
    (section,) = course.sections(notebook)
    assert course.needed(notebook, section) == [1, 2, 3]
    assert course.missing_names(notebook, section) == set()


def test_a_name_that_a_section_gives_itself_is_not_needed() -> None:
    notebook = book("# T", "a = 1", "b = 2", "## 1. S", "a = 3\nfor i in range(a):\n    print(i)", "b += a")
    (section,) = course.sections(notebook)
    assert course.needed(notebook, section) == [2]


def test_a_value_made_from_its_old_self_is_needed() -> None:
    notebook = book("# T", "x = 1", "## 1. S", "x = x + 1")
    assert course.needed(notebook, course.sections(notebook)[0]) == [1]


def test_names_that_nobody_gives_are_found() -> None:
    notebook = book("# T", "## 1. S", "print(nowhere, [k for k in (1, 2)])")
    assert course.missing_names(notebook, course.sections(notebook)[0]) == {"nowhere"}


def test_an_exercise_is_inserted_as_task_and_stub() -> None:
    notebook = book("# T", "a = 1")
    notebook.cells[1].id = "here"
    course.insert(notebook, "here", "03-loss", "03-broken")
    assert course.exercises_in(notebook) == ["03-loss", "03-broken"]
    assert "raise NotImplementedError" in notebook.cells[3].source
    assert 'check("03-loss", paired_loss)' in notebook.cells[3].source
    with pytest.raises(LabError, match="no cell 'elsewhere'"):
        course.insert(notebook, "elsewhere", "03-loss")


def test_a_stub_in_a_cell_runs_and_the_reference_goes_on() -> None:
    space: dict[str, object] = {}
    exec(course.exercise_cells("03-loss")[1].source, space)
    assert space["paired_loss"] is checks.find("03-loss").answer


def test_the_instructors_edition_has_solutions_reasons_and_times() -> None:
    notebook = book("# T", "## 1. S", "a = 1")
    notebook.cells[1].metadata["socketlab"] = {"minutes": 7, "break": True}
    course.insert(notebook, notebook.cells[2].id, "03-loss", "03-broken")
    made = course.instructor_edition(notebook, 42.0)
    text = "\n".join(cell.source for cell in made.cells)
    assert "return ((f_s - f_t) ** 2).mean()" in text and "NotImplementedError" not in text
    assert all(m.words in text for m in checks.find("03-loss").mistakes)
    assert all(o.because in text for o in quiz.questions()["03-broken"].options)
    assert "| 1. S · **break** | 11 | 0 | 03-loss, 03-broken |" in text
    assert "42 seconds" in text
    learners = "".join(cell.source for cell in notebook.cells)
    assert "NotImplementedError" in learners and "return ((" not in learners


def test_begin_wants_jupyter_and_a_section_that_is_there() -> None:
    with pytest.raises(LabError, match="in Jupyter"):
        course.begin("03", 2)
    with pytest.raises(LabError, match="no 99"):
        course._section(run_notebooks.read(PATHS[0]), 99, "00")
    with pytest.raises(LabError, match="names 0 notebooks"):
        course._path("99")


def test_begin_runs_what_a_section_stands_on() -> None:
    asked = book("# T", "from socketlab.course import begin\nbegin('02', 3)", "# ok", "type(source).__name__")
    made = run_notebooks.execute(asked)
    assert "Ready for section 3" in made.cells[1].outputs[0].text
    assert made.cells[3].outputs[0].data["text/plain"] == "'Source'"
