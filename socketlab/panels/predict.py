"""Predict, then run: a question before a decisive panel, and the outcome beside the guess afterwards.

A guess made first is worth more than a result read off: whoever has committed to an answer sees what does not
fit it. Nothing is graded and nothing is kept.
"""

import html
import re
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from socketlab.errors import LabError
from socketlab.panels import session
from socketlab.panels.base import Panel, button, said, text_box

Outcome = str | tuple[str, str] | None
"""The option that came true, that option and a sentence on it, or None while there is nothing to tell."""


class Prediction(widgets.VBox):
    """A question with options, one of which the learner picks before a run shows what happens.

    Where no kernel runs, the question and its options are listed instead.

    Parameters
    ----------
    question : one sentence; HTML is allowed.
    options : two answers at least.
    outcome : called when the outcome is asked for: returns the option that came true, or that option and a
        sentence on it (HTML), or None while nothing has run.
    panel : shows the outcome by itself when a run of this panel has ended.

    Attributes
    ----------
    guess : the option picked, or None.
    revealed : the option that came true, once it has been shown.

    Raises
    ------
    LabError : fewer than two options, or the same one twice; an outcome that is none of them.
    """

    def __init__(
        self,
        question: str,
        options: Sequence[str],
        outcome: Callable[[], Outcome],
        panel: Panel | None = None,
    ) -> None:
        self.question, self.options, self.outcome = question, tuple(options), outcome
        if len(self.options) < 2 or len(set(self.options)) < len(self.options):
            raise LabError(f"A prediction needs two different options at least, not {list(self.options)}.")
        self.revealed: str | None = None
        self._sentence = ""
        self.box = session.ErrorBox()
        self.picker = widgets.RadioButtons(
            options=self.options, value=None, layout={"width": "auto"}, style={"description_width": "0"}
        )
        self.picker.add_class("socketlab-guess")
        self.button = button("outcome", "what the run showed, beside your guess", "Outcome")
        self.answer = text_box("outcome-text", lines=2)
        super().__init__(
            [
                widgets.HTML(said(f"<b>Guess first.</b> {question}")),
                self.picker,
                self.button,
                self.answer,
                self.box,
            ]
        )
        self.add_class("socketlab-prediction")
        self.button.on_click(session.guarded(self.box, lambda _: self.reveal()))
        self.picker.observe(session.guarded(self.box, lambda _: self._tell()), "value")
        if panel is not None:
            panel.listeners.append(session.guarded(self.box, self._after_run))
        self._tell()

    @property
    def guess(self) -> str | None:
        """The option picked, or None."""
        return self.picker.value

    def reveal(self) -> str | None:
        """Ask for the outcome and show it beside the guess; without a guess it stays hidden.

        Returns
        -------
        The option that came true, or None when there is no guess or nothing to tell.
        """
        if self.guess is None:
            self.answer.value = said("Pick an answer first: a guess costs nothing.")
            return None
        found = self.outcome()
        if found is None:
            self.answer.value = said(f"You say: <b>{_plain(self.guess)}</b>. Nothing has run yet.")
            return None
        option, words = (found, "") if isinstance(found, str) else found
        if option not in self.options:
            raise LabError(f"The outcome {option!r} is none of the options {', '.join(self.options)}.")
        self.revealed, self._sentence = option, words
        self._tell()
        return option

    def _after_run(self) -> None:
        if self.guess is not None:
            self.reveal()

    def _tell(self) -> None:
        """The guess, and beside it the outcome where it is known."""
        if self.guess is None:
            self.answer.value = said('<span style="opacity:.75">No guess yet.</span>')
            return
        text = f"You say: <b>{_plain(self.guess)}</b>."
        if self.revealed is not None:
            same = self.revealed == self.guess
            sign = '<span style="color:#1a7f37">✓</span>' if same else '<span style="color:#b42318">≠</span>'
            text += f" The run says: <b>{_plain(self.revealed)}</b> {sign} {self._sentence}"
        self.answer.value = said(text)

    def __repr__(self) -> str:
        listed = "\n".join(f"  ( ) {option}" for option in self.options)
        return f"Guess first. {_untagged(self.question)}\n{listed}"

    def _repr_mimebundle_(self, **named: Any) -> Any:
        """The widget for a live page; question and options as HTML and as text for all others."""
        found = super()._repr_mimebundle_(**named)
        data, *more = found if isinstance(found, tuple) else (found,)
        listed = "".join(f"<li>{_plain(option)}</li>" for option in self.options)
        page = f"<p><b>Guess first.</b> {self.question}</p><ol type='a'>{listed}</ol>"
        data = {**(data or {}), "text/plain": repr(self), "text/html": page}
        return (data, *more) if more else data


def _plain(text: str) -> str:
    return html.escape(text)


def _untagged(text: str) -> str:
    """Text without its tags and signs for characters."""
    return html.unescape(re.sub(r"<[^>]+>", "", text))
