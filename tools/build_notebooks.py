"""Exercises into the notebooks, and the instructor's edition: ``python -m tools.build_notebooks``.

A notebook holds its exercises and questions as cells that are marked with an id; their content is made from
`socketlab.course.exercises`, so that text, stub, checker and solution cannot drift apart. This command renews
those cells and writes ``instructor/`` (not stored in the repository): the same notebooks with solutions, the
commonest wrong answers, the answers to the questions and a timetable.
"""

from __future__ import annotations

import argparse
import ast
import copy
import inspect
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from socketlab.course import checks, quiz
from socketlab.course.exercises import BEGIN, END, Exercise, catalogue
from socketlab.course.sections import MARK, Notebook, Section, sections_of
from socketlab.errors import LabError
from tools import run_notebooks

INSTRUCTOR = run_notebooks.FOLDER.parent / "instructor"
Cell = Any


# exercises in a notebook


def exercise_cells(exercise_id: str) -> list[Cell]:
    """The two cells of an exercise: its task with hints, and the stub with its check."""
    exercise = checks.find(exercise_id)
    return [
        _cell("markdown", task(exercise), f"ex-{exercise_id}", exercise=exercise_id),
        _cell("code", _code(exercise, stub(exercise)), f"ex-{exercise_id}-code", exercise=exercise_id),
    ]


def stub(exercise: Exercise) -> str:
    """Source of the reference with the learner's part cut out."""
    lines = textwrap.dedent(inspect.getsource(exercise.answer)).splitlines()
    marks = [line.strip() for line in lines]
    begin, end = marks.index(BEGIN), marks.index(END)
    indent = " " * (len(lines[begin]) - len(lines[begin].lstrip()))
    count = end - begin - 1
    yours = f"{indent}# Your code here: {count} line{'s' if count > 1 else ''} will do."
    return "\n".join([*lines[:begin], yours, f"{indent}raise NotImplementedError", *lines[end + 1 :]])


def question_cells(question_id: str) -> list[Cell]:
    """The two cells of a question: a sentence, and the call that shows it."""
    quiz.find(question_id)
    code = f'from socketlab.course import ask\n\nask("{question_id}")'
    words = "**A question.** Choose first, then read why."
    return [
        _cell("markdown", words, f"qu-{question_id}", question=question_id),
        _cell("code", code, f"qu-{question_id}-code", question=question_id),
    ]


def task(exercise: Exercise) -> str:
    """Markdown of an exercise: header, task, two folded hints and the way to the solution."""
    difficulty = "●" * exercise.difficulty + "○" * (3 - exercise.difficulty)
    importance = "●" * exercise.importance + "○" * (3 - exercise.importance)
    solution = f'Try first. Then run `from socketlab.course import reveal; reveal("{exercise.id}")`.'
    folded = {"Hint 1": exercise.hints[0], "Hint 2": exercise.hints[1], "Solution": solution}
    return "\n\n".join(
        [
            f"### Exercise {exercise.id}: {exercise.title}",
            f"*{exercise.minutes} minutes · difficulty {difficulty} · importance {importance}*",
            exercise.task,
            *(f"<details><summary>{name}</summary>\n\n{text}\n\n</details>" for name, text in folded.items()),
        ]
    )


def renew(notebook: Notebook) -> Notebook:
    """Write the exercises' and questions' cells anew, outputs kept where the source stays; in place."""
    for cell in notebook.cells:
        about = cell.metadata.get(MARK, {})
        for new in _cells_of(about.get("exercise") or about.get("question") or ""):
            if new.id == cell.id and new.source != cell.source:
                cell.source = new.source
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
    return notebook


def exercises_in(cells: Sequence[Cell]) -> list[str]:
    """Ids of the exercises and questions among the cells, in order."""
    marks = [cell.metadata.get(MARK, {}) for cell in cells if cell.cell_type == "code"]
    return [one for mark in marks if (one := mark.get("exercise") or mark.get("question"))]


def _cells_of(one: str) -> list[Cell]:
    if not one:
        return []
    return exercise_cells(one) if one in catalogue() else question_cells(one)


def _code(exercise: Exercise, body: str) -> str:
    """Imports, the function, and its check."""
    used = {node.id for node in ast.walk(ast.parse(checks.solution(exercise))) if isinstance(node, ast.Name)}
    imports = {
        "math": "import math",
        "torch": "import torch",
        "check": "from socketlab.course import check",
        "Tensor": "from torch import Tensor",
        "F": "from torch.nn import functional as F",
    }
    lines = [line for name, line in imports.items() if name in used | {"check"}]
    check = f'{exercise.name} = check("{exercise.id}", {exercise.name})'
    return "\n".join([*lines, "", body, "", check])


def _cell(kind: str, source: str, cell_id: str, **about: Any) -> Cell:
    import nbformat

    make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
    return make(source, id=cell_id, metadata={MARK: about})


# the instructor's edition


def instructor_edition(notebook: Notebook, seconds: float | None = None) -> Notebook:
    """A copy with solutions, wrong answers, answers to the questions and a timetable; without outputs.

    Parameters
    ----------
    notebook : the learner's.
    seconds : measured computing time.
    """
    made = copy.deepcopy(notebook)
    cells = []
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            about = cell.metadata.get(MARK, {})
            if "exercise" in about:
                exercise = checks.find(about["exercise"])
                cell.source = _code(exercise, checks.solution(exercise))
                cells.append(_note(f"{cell.id}-note", for_instructors(exercise)))
            elif "question" in about:
                cells.append(_note(f"{cell.id}-note", answers(about["question"])))
        cells.append(cell)
    cells.insert(1, _note("timetable", timetable(notebook, seconds)))
    made.cells = cells
    return made


def for_instructors(exercise: Exercise) -> str:
    """What a class gets wrong in an exercise, and why the answer is as it is."""
    wrong = "\n".join(f"- *{mistake.name}*: {mistake.words}" for mistake in exercise.mistakes)
    head = f"**Exercise {exercise.id}, {exercise.minutes} minutes.** {exercise.because}"
    return f"{head}\n\nCommon answers:\n\n{wrong}"


def answers(question_id: str) -> str:
    """The options of a question, each with its reason."""
    question = quiz.find(question_id)
    lines = [f"- {'**✔**' if o.right else '✘'} {o.text} *{o.because}*" for o in question.options]
    return "\n".join([f"**Answers to {question_id}.** {question.text}", "", *lines])


def timetable(notebook: Notebook, seconds: float | None = None) -> str:
    """Markdown: the sections with their minutes in class, breaks and exercises."""
    lines = ["**Timetable.**", "", "| section | minutes | from the start | exercises |", "|---|---|---|---|"]
    passed = 0
    for section in sections_of(notebook):
        ids = ", ".join(exercises_in(notebook.cells[section.first : section.last]))
        pause = " · **break**" if section.pause else ""
        whole = _minutes(notebook, section)
        lines.append(f"| {section.number}. {section.title}{pause} | {whole} | {passed} | {ids} |")
        passed += whole
    computing = f" The notebook computes for {seconds:.0f} seconds on two cores." if seconds else ""
    return "\n".join([*lines, "", f"{passed} minutes in all, exercises counted.{computing}"])


def minutes(notebook: Notebook) -> int:
    """Minutes in class: those of the sections and of the exercises."""
    return sum(_minutes(notebook, section) for section in sections_of(notebook))


def _minutes(notebook: Notebook, section: Section) -> int:
    ids = exercises_in(notebook.cells[section.first : section.last])
    return section.minutes + sum(checks.find(one).minutes for one in ids if one in catalogue())


def measured_seconds(stem: str) -> float | None:
    """How long a notebook computes at the laptop tier; None before the first measurement."""
    found = run_notebooks.timings().get((stem, "laptop"))
    return found.seconds if found else None


def _note(cell_id: str, text: str) -> Cell:
    quoted = "\n".join(f"> {line}".rstrip() for line in text.splitlines())
    return _cell("markdown", quoted, cell_id, instructor=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew the exercises in all notebooks, and write the instructor's edition."""
    about = (__doc__ or "").split("\n")[0]
    argparse.ArgumentParser(prog="python -m tools.build_notebooks", description=about).parse_args(arguments)
    INSTRUCTOR.mkdir(exist_ok=True)
    try:
        for path in run_notebooks.find(()):
            notebook = renew(run_notebooks.read(path))
            run_notebooks.write(notebook, path)
            edition = instructor_edition(notebook, measured_seconds(path.stem))
            run_notebooks.write(edition, INSTRUCTOR / path.name)
            print(f"{path.name}: {', '.join(exercises_in(notebook.cells)) or 'no exercises'}")
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
