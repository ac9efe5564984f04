"""The course's exercises and questions as plain data, a module for each notebook."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

ORDER = ("gap", "statistics", "alignment", "adaptation", "mixtures", "infrared", "own_data")
"""Modules in the course's order: notebooks 01 to 07."""
BEGIN, END = "# begin", "# end"
"""Lines of a reference between which the learner's part stands."""
Answer = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One input to try a function on, by a name such as "a batch of one"."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that somebody will give: a name for instructors, the function, words for the learner."""

    name: str
    answer: Answer
    words: str


@dataclass(frozen=True)
class Exercise:
    """A task, its reference and its checker.

    Parameters
    ----------
    id : notebook, then one word: "03-loss". Never changed once a class has used it.
    task : Markdown; what to write, with the formula.
    answer : the reference; the learner's part of its source stands between `BEGIN` and `END`.
    cases : makes the inputs, the same at every call.
    mistakes : at least four.
    hints : two; the second says more than the first.
    because : why the answer is as it is, shown when it is right.
    minutes : in class.
    difficulty, importance : 1 to 3.
    gradient : whether the result must carry a gradient to the tensors that require one.
    canonical : applied to both results before they are compared, where several results are equally right.
    """

    id: str
    title: str
    task: str
    answer: Answer
    cases: Callable[[], Sequence[Case]]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str]
    because: str
    minutes: int = 5
    difficulty: int = 1
    importance: int = 2
    gradient: bool = False
    canonical: Answer = field(default=lambda result: result)

    @property
    def name(self) -> str:
        """Of the function that the learner writes."""
        return str(self.answer.__name__)


@dataclass(frozen=True)
class Option:
    """One answer, and why it is right or wrong."""

    text: str
    because: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question with two to five options; `id` is its notebook and a word, "01-umap"."""

    id: str
    text: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        """Refuse a question that has not exactly one right answer."""
        if not 2 <= len(self.options) <= 5 or sum(option.right for option in self.options) != 1:
            raise ValueError(f"question {self.id} needs two to five options, one of them right")


def modules() -> list[ModuleType]:
    """The modules, loaded; each has a tuple `EXERCISES`, and most a tuple `QUESTIONS`."""
    return [importlib.import_module(f"{__name__}.{name}") for name in ORDER]


@cache
def catalogue() -> dict[str, Exercise]:
    """Every exercise by its id, in the course's order."""
    return {exercise.id: exercise for module in modules() for exercise in module.EXERCISES}


@cache
def questions() -> dict[str, Question]:
    """Every question by its id, in the course's order."""
    return {question.id: question for module in modules() for question in getattr(module, "QUESTIONS", ())}
