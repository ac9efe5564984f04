"""The notebooks as a course: exercises put into them, sections that begin alone, the instructor's edition.

A notebook holds its exercises as cells that are marked with the exercise's id; what stands in them is made
from `socketlab.course.exercises`, so that text, stub, checker and solution cannot drift apart.
``python -m socketlab.course.course`` renews these cells and writes the instructor's edition, which has the
solutions, the wrong answers that come most often, the answers to the questions and a timetable.
"""

from __future__ import annotations

import ast
import builtins
import copy
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socketlab.course import checks
from socketlab.errors import LabError
from tools import run_notebooks

FOLDER = run_notebooks.FOLDER
INSTRUCTOR = "instructor"
"""Folder in `FOLDER` of the instructor's edition."""
MARK = "socketlab"
"""Key in a cell's metadata; its value names an exercise, a question, or a section's minutes in class."""
Cell = Any
Notebook = Any


# exercises in a notebook


def exercise_cells(exercise_id: str) -> list[Cell]:
    """The two cells of an exercise: its task with hints, and the stub with its check."""
    exercise = checks.find(exercise_id)
    code = "\n".join([*_imports(exercise), checks.stub(exercise), "", _check(exercise)])
    return [
        _cell("markdown", task(exercise), f"ex-{exercise_id}", exercise=exercise_id),
        _cell("code", code, f"ex-{exercise_id}-code", exercise=exercise_id),
    ]


def question_cells(question_id: str) -> list[Cell]:
    """The two cells of a question: a sentence, and the call that shows it."""
    from socketlab.course.quiz import ask

    ask(question_id)
    code = f'from socketlab.course.quiz import ask\n\nask("{question_id}")'
    words = "**A question.** Choose first, then read why."
    return [
        _cell("markdown", words, f"qu-{question_id}", question=question_id),
        _cell("code", code, f"qu-{question_id}-code", question=question_id),
    ]


def task(exercise: checks.Exercise) -> str:
    """Markdown of an exercise: header, task, two folded hints and the way to the solution."""
    difficulty = "●" * exercise.difficulty + "○" * (3 - exercise.difficulty)
    importance = "●" * exercise.importance + "○" * (3 - exercise.importance)
    folded = [
        f"<details><summary>Hint {number}</summary>\n\n{hint}\n\n</details>"
        for number, hint in enumerate(exercise.hints, start=1)
    ]
    last = (
        f"<details><summary>Solution</summary>\n\nTry first. Then run "
        f'`from socketlab.course.checks import reveal; reveal("{exercise.id}")`.\n\n</details>'
    )
    head = f"### Exercise {exercise.id}: {exercise.title}"
    facts = f"*{exercise.minutes} minutes · difficulty {difficulty} · importance {importance}*"
    return "\n\n".join([head, facts, exercise.task, *folded, last])


def insert(notebook: Notebook, after: str, *ids: str) -> None:
    """Put exercises or questions behind the cell named `after`, in place; `LabError` if there is none."""
    places = [number for number, cell in enumerate(notebook.cells) if cell.get("id") == after]
    if not places:
        raise LabError(f"There is no cell {after!r} in this notebook.")
    made = [cell for one in ids for cell in _cells_of(one)]
    notebook.cells[places[0] + 1 : places[0] + 1] = made


def renew(notebook: Notebook) -> Notebook:
    """Write the exercises' and questions' cells anew, outputs kept where the source stays; in place."""
    for cell in notebook.cells:
        about = cell.metadata.get(MARK, {})
        made = _cells_of(about.get("exercise") or about.get("question") or "")
        for new in made:
            if new.id == cell.id and new.source != cell.source:
                cell.source = new.source
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
    return notebook


def exercises_in(notebook: Notebook) -> list[str]:
    """Ids of the exercises and questions in a notebook, in order."""
    return _ids(notebook.cells)


def _ids(cells: Sequence[Cell]) -> list[str]:
    marks = [cell.metadata.get(MARK, {}) for cell in cells if cell.cell_type == "code"]
    return [one for mark in marks if (one := mark.get("exercise") or mark.get("question"))]


def _cells_of(one: str) -> list[Cell]:
    if not one:
        return []
    return exercise_cells(one) if one in checks.catalogue() else question_cells(one)


def _check(exercise: checks.Exercise) -> str:
    return f'{exercise.name} = check("{exercise.id}", {exercise.name})'


def _imports(exercise: checks.Exercise) -> list[str]:
    """Lines that a stub needs before it: the checker, and names of its module that its source mentions."""
    source = checks.solution(exercise)
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    lines = ["from socketlab.course.checks import check"]
    for name, line in (
        ("math", "import math"),
        ("torch", "import torch"),
        ("Tensor", "from torch import Tensor"),
        ("F", "from torch.nn import functional as F"),
    ):
        if name in used:
            lines.append(line)
    order = {"import": 0, "from": 1}
    return [*sorted(lines, key=lambda line: (order[line.split()[0]], line.split()[1])), ""]


def _cell(kind: str, source: str, cell_id: str, **about: Any) -> Cell:
    import nbformat

    make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
    return make(source, id=cell_id, metadata={MARK: about})


# sections


@dataclass(frozen=True)
class Section:
    """A numbered part of a notebook.

    Parameters
    ----------
    number, title : of its heading, "## 3. Cut both halves alike".
    first, last : its cells are ``notebook.cells[first:last]``.
    minutes : in class, as the heading's cell says; 0 if it does not.
    pause : whether a break fits after it.
    """

    number: int
    title: str
    first: int
    last: int
    minutes: int = 0
    pause: bool = False


HEADING = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)


def sections(notebook: Notebook) -> list[Section]:
    """The numbered sections; a section begins with the code after its heading and ends at the next one."""
    found = []
    for place, cell in enumerate(notebook.cells):
        heading = HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        if heading:
            about = cell.metadata.get(MARK, {})
            found.append((place, int(heading[1]), heading[2], about))
    ends = [place for place, *_ in found[1:]] + [len(notebook.cells)]
    return [
        Section(number, title, place, end, about.get("minutes", 0), about.get("break", False))
        for (place, number, title, about), end in zip(found, ends, strict=True)
    ]


def needed(notebook: Notebook, section: Section) -> list[int]:
    """Places of the earlier code cells that a section stands on, found by the names that they define.

    From the section backwards, a cell is needed if it gives a value to a name that is used later and not yet
    explained. What a cell changes without naming it is not seen; a test runs every section alone.
    """
    inside = [c for c in notebook.cells[section.first : section.last] if c.cell_type == "code"]
    wanted: set[str] = set()
    for cell in reversed(inside):
        gives, takes = _names(cell.source)
        wanted = (wanted - gives) | takes
    chosen = []
    for place in range(section.first - 1, -1, -1):
        cell = notebook.cells[place]
        if cell.cell_type != "code":
            continue
        gives, takes = _names(cell.source)
        if gives & wanted:
            chosen.append(place)
            wanted = (wanted - gives) | takes
    return sorted(chosen)


def missing_names(notebook: Notebook, section: Section) -> set[str]:
    """Names that a section uses and that neither it, nor `needed` cells, nor Python define."""
    known = set(dir(builtins)) | {"display", "get_ipython"}
    missing: set[str] = set()
    places = [*needed(notebook, section), *range(section.first, section.last)]
    for place in places:
        cell = notebook.cells[place]
        if cell.cell_type == "code":
            gives, takes = _names(cell.source)
            missing |= takes - known
            known |= gives
    return missing


def _names(source: str) -> tuple[set[str], set[str]]:
    """(names that a cell defines, names that it takes from elsewhere)."""
    tree = ast.parse(source)
    gives = set(_defined(tree.body))
    takes: set[str] = set()
    seen: set[str] = set()
    for statement in tree.body:
        takes |= _taken(statement) - seen
        seen |= set(_defined([statement]))
    return gives, takes


def _defined(body: Iterable[ast.AST]) -> Iterator[str]:
    """Names that statements give a value to, at the level of the cell."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            yield from _defined(ast.iter_child_nodes(node))


def _taken(statement: ast.AST) -> set[str]:
    """Names that a statement reads from outside: not its arguments, loop variables and own functions."""
    inside = _loaded(statement) - _bound(statement)
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        inside.add(statement.target.id)
    value = getattr(statement, "value", None)
    if isinstance(value, ast.AST):  # x = f(x) takes x, although it also gives it
        inside |= _loaded(value) - _bound(value)
    return inside


def _loaded(tree: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _bound(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def begin(name: str, section: int) -> None:
    """Run what a section stands on, so that a notebook can be entered at any of its sections.

    Parameters
    ----------
    name : notebook, or how its name begins: "03".
    section : number of the section that comes next.

    Raises
    ------
    LabError : no such notebook or section, or called outside Jupyter; a cell that fails is named.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise LabError("begin() runs cells of a notebook: call it in Jupyter.")
    notebook = run_notebooks.read(_path(name))
    chosen = _section(notebook, section, name)
    places = needed(notebook, chosen)
    for count, place in enumerate(places, start=1):
        print(f"cell {count} of {len(places)}", end="\r", flush=True)
        ran = shell.run_cell(_silent(notebook.cells[place].source), store_history=False, silent=True)
        if ran.error_in_exec or ran.error_before_exec:
            raise LabError(f"A cell that section {section} stands on failed: {ran.error_in_exec}.")
    print(f"Ready for section {section}, {chosen.title}: {len(places)} earlier cells were run.")


def alone(notebook: Notebook, section: Section) -> Notebook:
    """A notebook of one section and the cells that it stands on, for a test to run."""
    small = copy.copy(notebook)
    kept = [*needed(notebook, section), *range(section.first, section.last)]
    small.cells = [copy.deepcopy(notebook.cells[place]) for place in kept]
    return small


def _silent(source: str) -> str:
    """The source without its last expression's value: pictures of earlier cells are not shown again."""
    tree = ast.parse(source)
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        return source.rstrip().rstrip(";") + ";"
    return source


def _section(notebook: Notebook, number: int, name: str) -> Section:
    found = sections(notebook)
    for section in found:
        if section.number == number:
            return section
    raise LabError(f"Notebook {name} has sections 1 to {len(found)}, no {number}.")


def _path(name: str) -> Path:
    found = sorted(FOLDER.glob(f"{Path(name).stem}*.ipynb"))
    if len(found) != 1:
        known = ", ".join(path.stem for path in sorted(FOLDER.glob("*.ipynb")))
        raise LabError(f"{name!r} names {len(found)} notebooks: choose one of {known}.")
    return found[0]


# the instructor's edition


def instructor_edition(notebook: Notebook, seconds: float | None = None) -> Notebook:
    """A copy with solutions, wrong answers, answers to the questions and a timetable; without outputs.

    Parameters
    ----------
    notebook : the learner's.
    seconds : how long it computes, as measured.
    """
    made = copy.deepcopy(notebook)
    cells = []
    for cell in made.cells:
        about = cell.metadata.get(MARK, {})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "exercise" in about:
                exercise = checks.find(about["exercise"])
                source = "\n".join([*_imports(exercise), checks.solution(exercise), "", _check(exercise)])
                cell.source = source
                cells += [_note(f"{cell.id}-note", for_instructors(exercise)), cell]
                continue
            if "question" in about:
                cells += [_note(f"{cell.id}-note", answers(about["question"])), cell]
                continue
        else:
            cell.source = _one_folder_down(cell.source)
        cells.append(cell)
    cells.insert(1, _note("timetable", timetable(notebook, seconds)))
    made.cells = cells
    return made


def for_instructors(exercise: checks.Exercise) -> str:
    """What a class gets wrong in an exercise, and why the answer is as it is."""
    wrong = "\n".join(f"- *{mistake.name}*: {mistake.words}" for mistake in exercise.mistakes)
    head = f"**Exercise {exercise.id}, {exercise.minutes} minutes.** {exercise.because}"
    return f"{head}\n\nCommon answers:\n\n{wrong}"


def answers(question_id: str) -> str:
    """The options of a question, each with its reason."""
    from socketlab.course.quiz import questions

    question = questions()[question_id]
    lines = [f"- {'**✔**' if o.right else '✘'} {o.text} *{o.because}*" for o in question.options]
    return "\n".join([f"**Answers to {question_id}.** {question.text}", "", *lines])


def timetable(notebook: Notebook, seconds: float | None = None) -> str:
    """Markdown: the sections with their minutes in class, breaks and exercises."""
    lines = ["**Timetable.**", "", "| section | minutes | from the start | exercises |", "|---|---|---|---|"]
    passed = 0
    for section in sections(notebook):
        ids, own = _exercises_of(notebook, section)
        pause = " · **break**" if section.pause else ""
        whole = section.minutes + own
        lines.append(f"| {section.number}. {section.title}{pause} | {whole} | {passed} | {', '.join(ids)} |")
        passed += whole
    told = f" The notebook computes for {seconds:.0f} seconds on two cores." if seconds else ""
    return "\n".join([*lines, "", f"{passed} minutes in all, exercises counted.{told}"])


def minutes(notebook: Notebook) -> int:
    """Minutes in class: those of the sections and of the exercises."""
    found = sections(notebook)
    return sum(section.minutes + _exercises_of(notebook, section)[1] for section in found)


def _exercises_of(notebook: Notebook, section: Section) -> tuple[list[str], int]:
    """(ids of a section's exercises and questions, minutes of the exercises)."""
    ids = _ids(notebook.cells[section.first : section.last])
    return ids, sum(checks.find(one).minutes for one in ids if one in checks.catalogue())


def measured_seconds(stem: str) -> float | None:
    """How long a notebook computes, from the timings that executing it stored; None if it has none."""
    found = run_notebooks.timings().get((stem, "laptop"))
    return found.seconds if found else None


def _note(cell_id: str, text: str) -> Cell:
    quoted = "\n".join(f"> {line}".rstrip() for line in text.splitlines())
    return _cell("markdown", quoted, cell_id, instructor=True)


def _one_folder_down(source: str) -> str:
    """Links to files outside the notebooks' folder, seen from a folder in it."""
    return re.sub(r"\]\(\.\./", "](../../", source)


def learners(folder: Path = FOLDER) -> list[Path]:
    """The course's notebooks, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew the exercises in all notebooks, and write the instructor's edition."""
    import argparse

    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m socketlab.course", description=about)
    parser.add_argument("--sections", nargs="*", metavar="NAME", help="only run every section alone")
    parser.add_argument("--exercises", action="store_true", help="only renew the exercises")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.sections is not None:
            run_sections([_path(name) for name in chosen.sections] or learners())
            return 0
        (FOLDER / INSTRUCTOR).mkdir(exist_ok=True)
        for path in learners():
            notebook = renew(run_notebooks.read(path))
            run_notebooks.write(notebook, path)
            if chosen.exercises:
                continue
            edition = instructor_edition(notebook, measured_seconds(path.stem))
            run_notebooks.write(edition, FOLDER / INSTRUCTOR / path.name)
            print(f"{path.name}: {', '.join(exercises_in(notebook)) or 'no exercises'}")
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run_sections(paths: Iterable[Path]) -> None:
    """Run every section alone, with what it stands on; `LabError` at the first that fails.

    The sections of a notebook share a kernel, which forgets all names before each of them: that saves a
    start of Python and PyTorch per section.
    """
    for path in paths:
        notebook = run_notebooks.read(path)
        joined = each_alone(notebook)
        try:
            run_notebooks.execute(joined, path.parent)
        except LabError as error:
            begun = [cell.id for cell in joined.cells if cell.source == FORGET and cell.execution_count]
            raise LabError(f"{path.stem}, section {begun[-1] if begun else '?'} alone: {error}") from error
        for number, seconds in _section_seconds(joined).items():
            print(f"{path.stem}, section {number}: {seconds:.0f} s")


FORGET = "%reset -f"


def each_alone(notebook: Notebook) -> Notebook:
    """All sections one after the other, each behind a cell that empties the kernel and has its number."""
    joined = copy.copy(notebook)
    joined.cells = []
    for section in sections(notebook):
        joined.cells.append(_cell("code", FORGET, str(section.number)))
        for cell in alone(notebook, section).cells:
            cell.id = f"{section.number}-{cell.id}"
            joined.cells.append(cell)
    return joined


def _section_seconds(joined: Notebook) -> dict[str, float]:
    """How long the code of each section took, by its number, after `each_alone` was run."""
    took = dict(run_notebooks.cell_seconds(joined))
    found: dict[str, float] = {}
    for place, cell in enumerate((c for c in joined.cells if c.cell_type == "code"), start=1):
        number = cell.id.split("-")[0]
        found[number] = found.get(number, 0.0) + took.get(place, 0.0)
    return found


if __name__ == "__main__":
    sys.exit(main())
