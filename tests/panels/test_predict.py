"""Predict, then run: a guess first, the outcome beside it, options for readers without a kernel."""

import pytest

from socketlab.errors import LabError
from socketlab.panels.base import Panel
from socketlab.panels.predict import Prediction

OPTIONS = ("it rises", "it stays", "it falls < 50 %")


def test_the_outcome_is_shown_beside_the_guess() -> None:
    asked = Prediction("What happens?", OPTIONS, lambda: ("it falls < 50 %", "Pairs did the work."))
    assert asked.guess is None
    assert "No guess" in asked.answer.value
    asked.button.click()
    assert "Pick an answer first" in asked.answer.value
    assert asked.revealed is None
    asked.picker.value = "it stays"
    assert "You say: <b>it stays</b>" in asked.answer.value
    asked.button.click()
    assert asked.revealed == "it falls < 50 %"
    for words in ("You say: <b>it stays</b>", "it falls &lt; 50 %", "≠", "Pairs did the work."):
        assert words in asked.answer.value
    asked.picker.value = "it falls < 50 %"
    assert "✓" in asked.answer.value


def test_nothing_to_tell_yet() -> None:
    asked = Prediction("What happens?", OPTIONS, lambda: None)
    asked.picker.value = "it rises"
    assert asked.reveal() is None
    assert "Nothing has run yet" in asked.answer.value


def test_a_panel_that_has_run_shows_the_outcome_but_not_before_a_guess() -> None:
    panel = Panel()
    asked = Prediction("What happens?", OPTIONS, lambda: "it rises", panel)
    panel.tell_listeners()
    assert asked.revealed is None
    assert "it rises" not in asked.answer.value
    asked.picker.value = "it rises"
    panel.tell_listeners()
    assert asked.revealed == "it rises"


def test_readers_without_a_kernel_see_the_options() -> None:
    asked = Prediction("What happens to <i>accuracy</i>?", OPTIONS, lambda: "it rises")
    data = asked._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"].splitlines()[0] == "Guess first. What happens to accuracy?"
    for option in OPTIONS:
        assert option in data["text/plain"]
    assert data["text/html"].count("<li>") == 3
    assert "it falls &lt; 50 %" in data["text/html"]
    assert "it rises</b>" not in data["text/html"]  # the outcome is not given away


def test_an_outcome_that_is_no_option_is_said() -> None:
    asked = Prediction("What happens?", OPTIONS, lambda: "something else")
    asked.picker.value = "it rises"
    asked.button.click()
    assert "none of the options" in asked.box.value
    assert len(asked.box.errors) == 1
    with pytest.raises(LabError, match="none of the options"):
        asked.reveal()


@pytest.mark.parametrize("options", [(), ("one",), ("same", "same")])
def test_a_question_needs_options(options: tuple[str, ...]) -> None:
    with pytest.raises(LabError, match="two different options"):
        Prediction("What happens?", options, lambda: None)
