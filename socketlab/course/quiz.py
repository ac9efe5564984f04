"""Questions with options to choose from: choosing one shows why it is right or wrong."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from socketlab.course.exercises import Question, questions
from socketlab.errors import require_choice


class Quiz(anywidget.AnyWidget):
    """A question as radio buttons; the page shows the reasons by itself (quiz.js)."""

    _esm = Path(__file__).with_name("quiz.js")
    question = traitlets.Dict().tag(sync=True)

    def __init__(self, question: Question) -> None:
        super().__init__(question=asdict(question) | {"options": [asdict(one) for one in question.options]})

    def __repr__(self) -> str:
        """The question and its options, for readers without a kernel."""
        texts = [option["text"] for option in self.question["options"]]
        lines = [f"  {letter}) {text}" for letter, text in zip("abcde", texts, strict=False)]
        return "\n".join([self.question["text"], *lines])

    def _repr_mimebundle_(self, **named: Any) -> Any:
        """As every widget, with the whole text, which anywidget would cut short."""
        data, metadata = super()._repr_mimebundle_(**named) or ({}, {})
        return {**data, "text/plain": repr(self)}, metadata


def find(question_id: str) -> Question:
    """The question of this id; `LabError` lists the known ones."""
    require_choice("question", question_id, questions())
    return questions()[question_id]


def ask(question_id: str) -> Quiz:
    """The question of this id as a widget, to be shown as the last line of a cell."""
    return Quiz(find(question_id))
