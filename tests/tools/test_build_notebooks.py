"""Exercises stand in the notebooks as the catalogue has them, and the instructor's edition adds to them."""

import re
from pathlib import Path

import nbformat
import pytest

from socketlab.course import checks
from socketlab.course.exercises import catalogue, questions
from tools import build_notebooks, run_notebooks

PATHS = run_notebooks.find(())
each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def book(*cells: str) -> nbformat.NotebookNode:
    """A notebook; text that begins with # is Markdown."""
    make = {True: nbformat.v4.new_markdown_cell, False: nbformat.v4.new_code_cell}
    return nbformat.v4.new_notebook(cells=[make[text.startswith("#")](text) for text in cells])


# the notebooks as they are stored


@each
def test_exercises_stand_in_the_notebook_as_the_catalogue_has_them(path: Path) -> None:
    """``python -m tools.build_notebooks`` was run."""
    stored, fresh = run_notebooks.read(path), build_notebooks.renew(run_notebooks.read(path))
    assert [cell.source for cell in stored.cells] == [cell.source for cell in fresh.cells]


def test_every_exercise_and_question_has_its_place_in_its_own_notebook() -> None:
    found = [
        (one, path.stem[:2])
        for path in PATHS
        for one in build_notebooks.exercises_in(run_notebooks.read(path).cells)
    ]
    assert all(one[:2] == book for one, book in found)
    names = [one for one, _ in found]
    assert sorted(names) == sorted([*catalogue(), *questions()])


@each
def test_no_solution_leaks(path: Path) -> None:
    notebook = run_notebooks.read(path)
    for one in build_notebooks.exercises_in(notebook.cells):
        if one in catalogue():
            exercise = checks.find(one)
            cut = set(checks.solution(exercise).splitlines()) - set(
                build_notebooks.stub(exercise).splitlines()
            )
            words = {line.strip().removeprefix("return ") for line in cut}
            for cell in notebook.cells:
                if cell.id == f"ex-{one}":
                    continue  # its second hint may say a line
                assert not [w for w in words if len(w) > 20 and w in cell.source], (one, cell.id)


@each
def test_the_time_in_class_is_that_of_the_timetable(path: Path) -> None:
    notebook = run_notebooks.read(path)
    said = re.search(r"\*\*Time\.\*\* About (\d+) minutes", notebook.cells[0].source)
    assert said and int(said[1]) == build_notebooks.minutes(notebook)


# how it is done


def test_a_stub_in_a_cell_runs_and_the_reference_goes_on() -> None:
    space: dict[str, object] = {}
    exec(build_notebooks.exercise_cells("03-loss")[1].source, space)
    assert space["paired_loss"] is checks.find("03-loss").answer


def test_the_instructors_edition_has_solutions_reasons_and_times() -> None:
    notebook = book("# T", "## 1. S", "a = 1")
    notebook.cells[1].metadata["socketlab"] = {"minutes": 7, "break": True}
    notebook.cells += build_notebooks.exercise_cells("03-loss") + build_notebooks.question_cells("03-broken")
    made = build_notebooks.instructor_edition(notebook, 42.0)
    text = "\n".join(cell.source for cell in made.cells)
    assert "return ((f_s - f_t) ** 2).mean()" in text and "NotImplementedError" not in text
    assert all(m.words in text for m in checks.find("03-loss").mistakes)
    assert all(o.because in text for o in questions()["03-broken"].options)
    assert "| 1. S · **break** | 11 | 0 | 03-loss, 03-broken |" in text
    assert "42 seconds" in text
    learners = "".join(cell.source for cell in notebook.cells)
    assert "NotImplementedError" in learners and "return ((" not in learners


def test_the_command_writes_the_instructors_edition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in PATHS}
    monkeypatch.setattr(build_notebooks, "INSTRUCTOR", tmp_path / "instructor")
    assert build_notebooks.main([]) == 0
    assert "03_paired_alignment.ipynb: 03-loss" in capsys.readouterr().out
    made = sorted((tmp_path / "instructor").glob("*.ipynb"))
    assert [path.name for path in made] == [path.name for path in PATHS]
    assert "NotImplementedError" not in made[3].read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in PATHS} == before, "the learner's notebooks were current"
