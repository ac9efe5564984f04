"""Questions with answers to choose from: every choice is told why it is right or wrong, once it is made."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import ipywidgets as widgets

from socketlab.errors import LabError
from socketlab.panels.session import ErrorBox, guarded


@dataclass(frozen=True)
class Option:
    """One answer.

    Parameters
    ----------
    text : as it is shown.
    because : why it is right or wrong, told after it was chosen.
    right : whether it is the right one; exactly one of a question is.
    """

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


class Quiz(widgets.VBox):
    """A question as radio buttons; choosing an option shows what is to be said of it.

    Parameters
    ----------
    question : from the catalogue, see `ask`.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.box = ErrorBox()
        self.choice = widgets.RadioButtons(
            options=[option.text for option in question.options],
            value=None,
            layout=widgets.Layout(width="auto"),
        )
        self.answer = widgets.HTML()
        self.choice.observe(guarded(self.box, self._tell), names="value")
        self.add_class("socketlab-quiz")
        said = widgets.HTML(f"<b>{html.escape(question.text)}</b>")
        super().__init__([said, self.choice, self.answer, self.box])

    def _tell(self, change: Mapping[str, Any]) -> None:
        chosen = next((o for o in self.question.options if o.text == change["new"]), None)
        if chosen is None:
            self.answer.value = ""
            return
        colour, mark = ("#00736e", "✔ Yes.") if chosen.right else ("#b8420f", "✘ Not quite.")
        style = f"border-left:5px solid {colour};padding:4px 12px;line-height:1.45"
        self.answer.value = f'<div style="{style}">{mark} {html.escape(chosen.because)}</div>'

    def _repr_mimebundle_(self, **named: Any) -> dict[str, Any]:
        """As every widget, with the whole text: ipywidgets would cut it short."""
        bundle: dict[str, Any] = super()._repr_mimebundle_(**named)
        return bundle | {"text/plain": repr(self)}

    def __repr__(self) -> str:
        """The question and its options, for readers without a kernel."""
        letters = "abcde"
        lines = [f"  {letter}) {o.text}" for letter, o in zip(letters, self.question.options, strict=False)]
        return "\n".join([self.question.text, *lines])


@cache
def questions() -> dict[str, Question]:
    """Every question of the course by its id."""
    from socketlab.course.exercises import modules

    found: dict[str, Question] = {}
    for module in modules():
        for question in getattr(module, "QUESTIONS", ()):
            if question.id in found:
                raise ValueError(f"two questions are called {question.id}")
            found[question.id] = question
    return found


def find(question_id: str) -> Question:
    """The question of this id; `LabError` lists the known ones."""
    if question_id not in questions():
        known = ", ".join(questions())
        raise LabError(f"There is no question {question_id!r}: choose among {known}.")
    return questions()[question_id]


def ask(question_id: str) -> Quiz:
    """The question of this id as a widget, to be shown as the last line of a cell."""
    return Quiz(find(question_id))
