"""Checkers: the reference passes, the stub fails, wrong answers are refused by their names.

The wrong answers in `WRONG` are written here anew, as a learner would write them, and not taken from the
catalogue: what is tested is that the checker recognises the *mistake*, not the function.
"""

from __future__ import annotations

import ast
import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from socketlab.course import checks, quiz
from socketlab.course.exercises import Case, Exercise, Option, Question, catalogue, modules, questions
from socketlab.errors import LabError
from tests.wrong_answers import WRONG
from tools import build_notebooks

EXERCISES = list(catalogue().values())
each = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)


def defined(source: str, exercise: Exercise) -> Callable[..., Any]:
    """A function from the source that a notebook's cell holds."""
    space: dict[str, Any] = dict(exercise.answer.__globals__)
    exec(source, space)
    found: Callable[..., Any] = space[exercise.name]
    return found


@each
def test_the_reference_passes_in_the_form_of_a_cell(exercise: Exercise) -> None:
    verdict = checks.judge(exercise, defined(checks.solution(exercise), exercise))
    assert verdict.right and verdict.words == exercise.because


@each
def test_the_stub_fails_and_shows_nothing_of_the_solution(exercise: Exercise) -> None:
    text = build_notebooks.stub(exercise)
    assert checks.judge(exercise, defined(text, exercise)).mistake == "not solved"
    kept, whole = text.splitlines(), checks.solution(exercise).splitlines()
    yours = [line for line in whole if line not in kept]
    assert yours and [line for line in kept if line not in whole] == [
        line for line in kept if "Your code here" in line or "raise NotImplementedError" in line
    ]
    assert [line for line in whole if line in kept] == [line for line in kept if line in whole]
    ast.parse(text)


@each
def test_an_answer_of_nothing_is_not_solved(exercise: Exercise) -> None:
    assert checks.judge(exercise, lambda *_: None).mistake == "not solved"
    assert checks.judge(exercise, 3).mistake == "no function"


@each
def test_wrong_answers_are_refused_by_their_name(exercise: Exercise) -> None:
    wrong = WRONG[exercise.id]
    assert len(wrong) >= 4
    for name, answer in wrong.items():
        verdict = checks.judge(exercise, answer)
        assert not verdict.right and verdict.mistake == name, (name, verdict)


@each
def test_every_known_mistake_has_its_own_words_and_is_told_from_the_others(exercise: Exercise) -> None:
    names = [mistake.name for mistake in exercise.mistakes]
    assert len(names) >= 4 and len(set(names)) == len(names)
    for mistake in exercise.mistakes:
        assert checks.judge(exercise, mistake.answer) == checks.Verdict(False, mistake.words, mistake.name)
        assert len(mistake.words.split()) > 5
    assert set(WRONG[exercise.id]) <= {*names, "factor", "shape", "no gradient", "kind", "changes its input"}


def moved(exercise: Exercise, share: float) -> Callable[..., Any]:
    """The reference with its largest number off by a share of itself."""

    def nearly(*arguments: Any) -> Any:
        result = exercise.answer(*arguments)
        many = list(result) if isinstance(result, tuple) else [result]
        for number, part in enumerate(many):
            if isinstance(part, Tensor) and part.is_floating_point():
                flat = part.clone().reshape(-1)
                place = flat.detach().abs().argmax()
                many[number] = (flat + share * torch.eye(len(flat))[place] * flat).reshape(part.shape)
                break
        return tuple(many) if isinstance(result, tuple) else many[0]

    return nearly


def returns_real_numbers(exercise: Exercise) -> bool:
    """Not only whole numbers or words, which have no tolerance."""
    result = exercise.answer(*exercise.cases()[0].arguments)
    return any(isinstance(part, Tensor) and part.is_floating_point() for part in checks._flat(result))


REAL = [exercise for exercise in EXERCISES if returns_real_numbers(exercise)]


def test_all_exercises_but_two_return_real_numbers() -> None:
    assert {one.id for one in EXERCISES} - {one.id for one in REAL} == {"04-pseudo-labels", "07-pairs"}


@pytest.mark.parametrize("exercise", REAL, ids=lambda exercise: exercise.id)
def test_the_tolerance_is_neither_wider_nor_narrower(exercise: Exercise) -> None:
    assert checks.judge(exercise, moved(exercise, 0.5e-4)).right
    assert not checks.judge(exercise, moved(exercise, 2e-4)).right


@each
def test_words_for_the_learner(exercise: Exercise) -> None:
    assert len(exercise.hints) == 2 and all(len(hint.split()) >= 3 for hint in exercise.hints)
    assert 1 <= exercise.difficulty <= 3 and 1 <= exercise.importance <= 3 and 1 <= exercise.minutes <= 15
    assert exercise.answer.__doc__ and "→" in exercise.answer.__doc__  # says what goes in and comes out


def test_exercises_are_few_in_each_notebook_and_come_in_order() -> None:
    books = [exercise.id[:2] for exercise in EXERCISES]
    assert books == sorted(books)
    assert max(books.count(book) for book in books) <= 5
    assert set(WRONG) == set(catalogue())
    assert len({exercise.id for module in modules() for exercise in module.EXERCISES}) == len(EXERCISES)
    assert len(EXERCISES) == sum(len(module.EXERCISES) for module in modules())


LOSS = checks.find("03-loss")


def test_differences_that_are_no_known_mistake_are_described() -> None:
    right = LOSS.answer

    def says(answer: Callable[..., Any]) -> str:
        return checks.judge(LOSS, answer).words

    assert "sign" in says(lambda a, b: -right(a, b))
    assert "2.5 times" in says(lambda a, b: 2.5 * right(a, b))
    assert "shape is (5,)" in says(lambda a, b: ((a - b) ** 2).mean(dim=0))
    assert "NaN" in says(lambda a, b: right(a, b) * float("nan"))
    assert "you get 1, right is" in says(lambda a, b: torch.ones(()))
    assert "a dict" in says(lambda a, b: {"loss": right(a, b)})
    assert "ZeroDivisionError" in says(lambda a, b: 1 / 0)
    assert "no gradient" in says(lambda a, b: right(a, b).detach())
    assert "no gradient" in says(lambda a, b: right(a, b).item())


def test_a_gradient_that_is_partly_cut_off_is_seen() -> None:
    def half(f_s: Tensor, f_t: Tensor) -> Tensor:
        return ((f_s - f_t) * (f_s - f_t).detach()).mean()

    def used_up(f_s: Tensor, f_t: Tensor) -> Tensor:
        loss = (f_s - f_t).square().mean()
        loss.backward()
        return loss

    for answer in (half, used_up):
        verdict = checks.judge(LOSS, answer)
        assert verdict.mistake == "no gradient" and "three pairs" not in verdict.words, verdict
    assert checks.judge(LOSS, lambda a, b: torch.nn.functional.mse_loss(a, b)).right


@pytest.mark.parametrize(("share", "right"), [(0.5e-3, True), (2e-3, False), (-2e-3, False)])
def test_the_tolerance_of_gradients_is_neither_wider_nor_narrower(share: float, right: bool) -> None:
    def tilted(f_s: Tensor, f_t: Tensor) -> Tensor:
        loss = LOSS.answer(f_s, f_t)
        return loss + share * (loss - loss.detach())

    assert checks.judge(LOSS, tilted).right is right


@pytest.mark.parametrize(("slope", "right"), [(0.5e-6, True), (2e-6, False)])
def test_a_gradient_of_zero_may_be_rounded(slope: float, right: bool) -> None:
    def flat(f_s: Tensor, f_t: Tensor) -> Tensor:
        return f_s.sum() + 0 * f_t.sum()

    def nearly(f_s: Tensor, f_t: Tensor) -> Tensor:
        return flat(f_s, f_t) + slope * (f_t - f_t.detach()).sum()

    assert checks.judge(replace(LOSS, answer=flat, mistakes=()), nearly).right is right


def test_of_several_results_the_wrong_one_is_shown() -> None:
    cut = checks.find("03-cut")

    def spoilt(*arguments: Any) -> tuple[Tensor, Tensor]:
        rgb, depth = (half.clone() for half in cut.answer(*arguments))
        depth[1, 0, 3, 2] += 1
        return rgb, depth

    assert "in result 2 of 2 at [1, 0, 3, 2] you get 1" in checks.judge(cut, spoilt).words


def test_numbers_that_look_alike_are_shown_with_more_digits() -> None:
    def off_by_little(a: Tensor, b: Tensor) -> Tensor:
        return LOSS.answer(a, b) * 1.00012

    shown = re.search(r"you get ([\d.]+), right is ([\d.]+)\.$", checks.judge(LOSS, off_by_little).words)
    assert shown and float(shown[1]) / float(shown[2]) == pytest.approx(1.00012, abs=1e-6)


def test_what_torch_has_not_implemented_is_not_taken_for_a_stub() -> None:
    def stops(f_s: Tensor, f_t: Tensor) -> Tensor:
        raise NotImplementedError("gt_cpu not implemented for UInt16")

    verdict = checks.judge(LOSS, stops)
    assert verdict.mistake == "stops" and "UInt16" in verdict.words


def names_of(names: list[str]) -> list[str]:
    """Names that end in 1 → names."""
    return [name for name in names if name.endswith("1")]


def test_lists_of_words_are_shown_as_they_are_and_cut_where_they_are_long() -> None:
    names = ["a1", "b2", *(f"a_rather_long_name_{number}_1" for number in range(20))]
    cases = [Case("a short list", (names[:2],)), Case("a long list", (names,))]
    exercise = replace(
        LOSS, answer=names_of, cases=lambda: cases, mistakes=(), canonical=sorted, gradient=False
    )
    assert checks.judge(exercise, lambda some: names_of(some)[::-1]).right
    assert "you get ['a1', 'b2'], right is ['a1']." in checks.judge(exercise, lambda some: some).words
    assert "you get [], right is ['a1']." in checks.judge(exercise, lambda some: []).words
    assert "you get {'b2'}, right is ['a1']." in checks.judge(exercise, lambda some: {"b2"}).words
    assert "…" in checks._short(names) and len(checks._short(names)) <= 100


def test_a_factor_that_depends_on_the_case_is_not_called_one() -> None:
    verdict = checks.judge(LOSS, lambda a, b: (len(a) + 0.5) * LOSS.answer(a, b))
    assert "times" not in verdict.words and "you get" in verdict.words


def test_a_function_that_changes_its_input_is_told_so() -> None:
    def greedy(f_s: Tensor, f_t: Tensor) -> Tensor:
        loss = ((f_s - f_t) ** 2).mean()
        f_s += 1
        return loss

    assert checks.judge(LOSS, greedy).mistake == "changes its input"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A kernel can be interrupted while a cell runs; tests in the background of a shell cannot."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_loop_without_an_end_gets_a_sentence(interruptible: None) -> None:
    def endless(f_s: Tensor, f_t: Tensor) -> Tensor:
        while True:
            with contextlib.suppress(Exception):
                f_s = f_s + 0

    verdict = checks.judge(LOSS, endless, seconds=0.2)
    assert verdict.mistake == "does not end" and "after 0.2 seconds" in verdict.words
    time.sleep(0.5)  # nothing interrupts what comes after


def test_an_interrupt_by_hand_gets_a_sentence() -> None:
    def stopped(f_s: Tensor, f_t: Tensor) -> Tensor:
        raise KeyboardInterrupt

    assert checks.judge(LOSS, stopped).mistake == "does not end"


def test_check_returns_what_the_notebook_goes_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    def mine(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean()

    assert checks.check("03-loss", mine) is mine
    assert "✔ 03-loss" in capsys.readouterr().out
    assert checks.check("03-loss", lambda a, b: 0) is LOSS.answer
    assert "✘ 03-loss" in capsys.readouterr().out
    with pytest.raises(LabError, match="exercise '99-x' is unknown"):
        checks.check("99-x", mine)


def test_the_box_of_a_verdict_is_safe_html() -> None:
    shown = checks.shown(LOSS, checks.Verdict(False, "a `x < y` & more", "m"))
    assert "<code>x &lt; y</code> &amp; more" in shown["text/html"]
    assert "kit's own version" in shown["text/plain"]


def test_reveal_prints_the_solution(capsys: pytest.CaptureFixture[str]) -> None:
    checks.reveal("03-loss")
    assert "return ((f_s - f_t) ** 2).mean()" in capsys.readouterr().out


# questions


def test_every_option_of_a_question_has_its_reason() -> None:
    for question in questions().values():
        texts = [option.text for option in question.options]
        assert len(set(texts)) == len(texts)
        assert all(len(option.because.split()) > 4 for option in question.options), question.id


def test_the_page_gets_every_option_with_its_reason() -> None:
    question = quiz.ask("03-broken").get_state()["question"]
    assert [one["because"] for one in question["options"]] == [
        one.because for one in questions()["03-broken"].options
    ]
    assert sum(one["right"] for one in question["options"]) == 1


def test_a_quiz_can_be_read_without_a_kernel_and_does_not_tell_its_answer() -> None:
    text, options = repr(quiz.ask("03-broken")), questions()["03-broken"].options
    assert all(option.text in text for option in options)
    assert not any(option.because in text for option in options)


def test_questions_are_checked_and_found() -> None:
    with pytest.raises(ValueError, match="one of them right"):
        Question("x", "?", (Option("a", "b"), Option("c", "d")))
    with pytest.raises(LabError, match="question '99-x' is unknown"):
        quiz.ask("99-x")
