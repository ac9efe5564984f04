"""Checked exercises: an answer is compared with the reference, and a mistake is called by its name.

An exercise is plain data: a reference, inputs to try it on, and the answers that go wrong most often, each as
a function with the words that help. `check` runs the learner's function on all inputs. Where its numbers are
those of a known mistake, that mistake is named; else the checker says what kind of difference it sees. It
returns the learner's function if that is right and the reference if not, so that a notebook goes on in any
case. The exercises themselves are in `socketlab.course.exercises`, a module for each notebook.
"""

from __future__ import annotations

import _thread
import contextlib
import copy
import html
import inspect
import math
import numbers
import re
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from socketlab.errors import LabError

TOLERANCE = 1e-4
"""Largest difference that counts as equal, as a share of the largest number of the right answer."""
SECONDS = 20.0
"""The longest that an answer may compute: a loop without an end gets a sentence too."""
BEGIN, END = "# begin", "# end"
"""Lines of a reference between which the learner's part stands."""
Answer = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One input to try a function on.

    Parameters
    ----------
    name : says what is special about it, as in "a batch of one".
    arguments : given to the function in this order; each call gets a copy of its own.
    """

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that somebody will give.

    Parameters
    ----------
    name : two or three words, for instructors.
    answer : the function as it is written by mistake.
    words : what the learner is told: what was computed, and why that is something else.
    """

    name: str
    answer: Answer
    words: str


@dataclass(frozen=True)
class Exercise:
    """A task, its reference and its checker.

    Parameters
    ----------
    id : notebook, then one word: "03-loss". Never changed once a class has used it.
    title : a few words.
    task : Markdown; what to write, with the formula.
    answer : the reference; the learner's part of its source stands between `BEGIN` and `END`.
    cases : makes the inputs, the same at every call.
    mistakes : at least four.
    hints : two; the second says more than the first.
    because : why the answer is as it is, told when it is right.
    minutes : in class.
    difficulty, importance : 1 to 3.
    gradient : whether the result must carry a gradient to its first tensor that asks for one.
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
class Verdict:
    """What `judge` found: whether the answer is right, the words for it, and the mistake if it is known."""

    right: bool
    words: str
    mistake: str = ""


def check(exercise_id: str, answer: Answer) -> Answer:
    """Judge an answer, show the verdict, and return what the notebook shall go on with.

    Parameters
    ----------
    exercise_id : as in the exercise's title, "03-loss".
    answer : the learner's function.

    Returns
    -------
    The learner's function if it is right, else the reference.

    Raises
    ------
    LabError : there is no such exercise.
    """
    exercise = find(exercise_id)
    verdict = judge(exercise, answer)
    _show(exercise, verdict)
    return answer if verdict.right else exercise.answer


def judge(exercise: Exercise, answer: Any, seconds: float = SECONDS) -> Verdict:
    """Compare an answer with the reference on all cases.

    Parameters
    ----------
    answer : the learner's function, or whatever stands in its place.
    seconds : the longest that all cases together may take.
    """
    if not callable(answer):
        return Verdict(False, f"{exercise.name} should be a function, and is {_kind(answer)}.", "no function")
    try:
        with _limited(seconds):
            return _judged(exercise, answer)
    except KeyboardInterrupt:
        words = (
            f"Stopped: your function did not come to an end within {seconds:g} seconds, or was interrupted."
        )
        return Verdict(False, f"{words} Does a loop go on for ever?", "does not end")


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread if the block takes longer, and again until it ends."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(seconds):
            _thread.interrupt_main()

    if threading.current_thread() is threading.main_thread():
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _judged(exercise: Exercise, answer: Answer) -> Verdict:
    trials = []
    for case in exercise.cases():
        given, wanted = copy.deepcopy(case.arguments), exercise.answer(*copy.deepcopy(case.arguments))
        try:
            result = answer(*given)
        except Exception as error:  # whatever a learner's function may do, a sentence comes of it
            if type(error) is NotImplementedError and not error.args:  # a stub's; torch's own has a message
                return Verdict(False, "Not solved yet.", "not solved")
            why = f"{type(error).__name__}: {error}"
            return Verdict(False, f"For {case.name} your function stops with {why}", "stops")
        if result is None or result is Ellipsis:
            return Verdict(False, "Not solved yet: your function returns nothing.", "not solved")
        if not _equal(given, case.arguments):
            words = f"For {case.name} your function changes its input; work on a new tensor instead."
            return Verdict(False, words, "changes its input")
        trials.append((case, result, wanted))
    verdict = _compare(exercise, trials)
    if verdict.right and exercise.gradient:
        for case in exercise.cases():
            if not _same_gradient(answer, exercise.answer, case):
                words = f"The numbers are right, but for {case.name} their gradient is not: a part of it is"
                return Verdict(False, f"{words} cut off, or flows where it should not.", "no gradient")
    return verdict


def _compare(exercise: Exercise, trials: list[tuple[Case, Any, Any]]) -> Verdict:
    """The verdict on results that are all there."""
    if all(agree(exercise, result, wanted) for _, result, wanted in trials):
        for case, result, wanted in trials:
            if exercise.gradient and not _carries_gradient(result, wanted):
                words = f"The numbers are right, but no gradient flows for {case.name}: it would not train."
                return Verdict(False, f"{words} Leave out detach(), item() and no_grad().", "no gradient")
        return Verdict(True, exercise.because)
    for mistake in exercise.mistakes:
        if all(_is_mistake(exercise, mistake, case, result) for case, result, _ in trials):
            return Verdict(False, mistake.words, mistake.name)
    case, result, wanted = next(t for t in trials if not agree(exercise, t[1], t[2]))
    kind, words = _difference(exercise, result, wanted)
    if kind == "factor" and len({_factor(exercise, r, w) for _, r, w in trials}) > 1:
        kind, words = "", _unlike(exercise, result, wanted)
    return Verdict(False, f"For {case.name} {words}", kind)


def agree(exercise: Exercise, result: Any, wanted: Any) -> bool:
    """Whether two results are the same number, up to `TOLERANCE`, in the same shape."""
    try:
        a, b = _flat(exercise.canonical(result)), _flat(exercise.canonical(wanted))
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    return len(a) == len(b) and all(_close(x, y) for x, y in zip(a, b, strict=True))


def _close(x: Any, y: Any) -> bool:
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return type(x) is type(y) and bool(x == y)
    if x.shape != y.shape:
        return False
    if not y.is_floating_point() and not x.is_floating_point():
        return bool((x == y).all())
    x, y = x.detach().double(), y.detach().double()
    scale = float(y.abs().max()) if y.numel() else 0.0
    return bool(((x - y).abs() <= TOLERANCE * max(scale, 1e-6)).all())


def _is_mistake(exercise: Exercise, mistake: Mistake, case: Case, result: Any) -> bool:
    try:
        made = mistake.answer(*copy.deepcopy(case.arguments))
    except Exception:  # a mistake that stops on some input is not what this answer did
        return False
    return agree(exercise, result, made)


def _difference(exercise: Exercise, result: Any, wanted: Any) -> tuple[str, str]:
    """(kind, words) for an answer that is no known mistake."""
    try:
        a, b = _flat(exercise.canonical(result)), _flat(exercise.canonical(wanted))
    except (TypeError, ValueError, RuntimeError, IndexError):
        return "kind", f"your function returns {_kind(result)}; {_kind(wanted)} is wanted."
    if len(a) != len(b) and not any(isinstance(part, Tensor) for part in (*a, *b)):  # words
        return "", f"you get {_short(result)}, right is {_short(wanted)}."
    if len(a) != len(b):
        return "kind", f"your function returns {_kind(result)}; {_kind(wanted)} is wanted."
    for x, y in zip(a, b, strict=True):
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            if x.shape != y.shape:
                return "shape", f"the shape is {tuple(x.shape)}, and should be {tuple(y.shape)}."
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                return "no number", "the result holds NaN or an infinity; look for 0 / 0 or log(0)."
    factor = _factor(exercise, result, wanted)
    if factor == -1:
        return "factor", "the numbers are right but for their sign."
    if factor is not None:
        return "factor", f"your result is {factor:g} times the right one."
    return "", _unlike(exercise, result, wanted)


def _unlike(exercise: Exercise, result: Any, wanted: Any) -> str:
    """The first part of an answer that differs, and of many numbers one that shows it."""
    a, b = _flat(exercise.canonical(result)), _flat(exercise.canonical(wanted))
    if not all(isinstance(part, Tensor) for part in (*a, *b)):
        return f"you get {_short(result)}, right is {_short(wanted)}."
    number = next(n for n, (x, y) in enumerate(zip(a, b, strict=True)) if not _close(x, y))
    x, y = a[number], b[number]
    where = [f"in result {number + 1} of {len(a)}"] if len(a) > 1 else []
    shown, right = _short(x), _short(y)
    if shown == right:  # the first few are alike: show where it is worst, and more digits
        place = np.unravel_index(int((x.detach().double() - y.detach()).abs().argmax()), x.shape)
        where += [f"at {[int(i) for i in place]}"] if place else []
        shown, right = (f"{float(t[place]):.7g}" for t in (x.detach(), y.detach()))
    return f"{' '.join([*where, 'you get'])} {shown}, right is {right}."


def _factor(exercise: Exercise, result: Any, wanted: Any) -> float | None:
    """The one number by which a result differs from the right one, if there is one; three digits."""
    a, b = _flat(exercise.canonical(result)), _flat(exercise.canonical(wanted))
    if len(a) != len(b) or not all(isinstance(x, Tensor) for x in (*a, *b)):
        return None
    if any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return None
    x, y = (torch.cat([t.detach().double().flatten() for t in many]) for many in (a, b))
    if not len(y) or not float(y.abs().max()):
        return None
    factor = float(x @ y / (y @ y))
    off = float((x - factor * y).abs().max())
    if abs(factor) < 1e-6 or not math.isfinite(off) or off > TOLERANCE * float(x.abs().max()):
        return None
    rounded = float(f"{factor:.3g}")
    return None if rounded == 1 else rounded  # "1 times the right one" would help nobody


def _carries_gradient(result: Any, wanted: Any) -> bool:
    asked = [t.requires_grad for t in _flat(wanted) if isinstance(t, Tensor)]
    has = [t.requires_grad for t in _flat(result) if isinstance(t, Tensor)]
    return all(h or not a for h, a in zip(has, asked, strict=True))


def _same_gradient(answer: Answer, reference: Answer, case: Case) -> bool:
    """Whether two functions of one value have one gradient, by all tensors that ask for it."""
    try:
        ours, theirs = _gradients(answer, case), _gradients(reference, case)
    except RuntimeError:  # as for a graph that is used up
        return False
    # wider than for values: two right formulas may round differently, and a gradient may be zero
    return all(
        bool(((x - y).abs() <= 1e-3 * max(float(y.abs().max()), 1e-3)).all())
        for x, y in zip(ours, theirs, strict=True)
    )


def _gradients(function: Answer, case: Case) -> list[Tensor]:
    """Of a weighted sum of what a function returns; zeros where nothing flows."""
    arguments = copy.deepcopy(case.arguments)
    asked = [t for t in arguments if isinstance(t, Tensor) and t.requires_grad]
    if not asked:
        return []
    parts = [p for p in _flat(function(*arguments)) if isinstance(p, Tensor) and p.requires_grad]
    weighted = [(p.flatten() * torch.linspace(1, 2, p.numel())).sum() for p in parts]
    found = torch.autograd.grad(weighted, asked, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(asked, found, strict=True)]


def _flat(result: Any) -> list[Any]:
    """Tensors, numbers and NumPy arrays as a list of tensors; words and truth values as they are."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, bool | str):
        return [result]
    if isinstance(result, np.ndarray | np.generic | numbers.Real):
        return [torch.as_tensor(result)]
    if isinstance(result, tuple | list):
        return [part for each in result for part in _flat(each)]
    raise TypeError(f"{_kind(result)} is neither a tensor nor a number")


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.all(a == b))


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    article = "an" if type(value).__name__[0] in "aeiou" else "a"
    return f"{article} {type(value).__name__}"


def _short(value: Any) -> str:
    """A number or the first few of many; of words as much as fits into a line."""
    try:
        parts = [t.detach().double().flatten() if isinstance(t, Tensor) else t for t in _flat(value)]
    except TypeError:  # of a kind that only the exercise's `canonical` understands
        parts = []
    if not parts or not isinstance(parts[0], Tensor):
        return textwrap.shorten(repr(value), 100, placeholder=" …")
    first = parts[0]
    shown = ", ".join(f"{number:.4g}" for number in first[:3].tolist())
    return f"{shown}, …" if len(first) > 3 or len(parts) > 1 else shown


# the catalogue


@cache
def catalogue() -> dict[str, Exercise]:
    """Every exercise by its id, in the course's order."""
    from socketlab.course.exercises import modules

    found: dict[str, Exercise] = {}
    for module in modules():
        for exercise in module.EXERCISES:
            if exercise.id in found:
                raise ValueError(f"two exercises are called {exercise.id}")
            found[exercise.id] = exercise
    return found


def find(exercise_id: str) -> Exercise:
    """The exercise of this id; `LabError` lists the known ones."""
    try:
        return catalogue()[exercise_id]
    except KeyError:
        known = ", ".join(catalogue())
        raise LabError(f"There is no exercise {exercise_id!r}: choose among {known}.") from None


def solution(exercise: Exercise) -> str:
    """Source of the reference, without the marks of the learner's part."""
    lines = textwrap.dedent(inspect.getsource(exercise.answer)).splitlines()
    return "\n".join(line for line in lines if line.strip() not in (BEGIN, END))


def stub(exercise: Exercise) -> str:
    """Source of the reference with the learner's part cut out."""
    lines = textwrap.dedent(inspect.getsource(exercise.answer)).splitlines()
    marks = [line.strip() for line in lines]
    begin, end = marks.index(BEGIN), marks.index(END)
    indent = " " * (len(lines[begin]) - len(lines[begin].lstrip()))
    count = end - begin - 1
    yours = f"{indent}# Your code here: {count} line{'s' if count > 1 else ''} will do."
    return "\n".join([*lines[:begin], yours, f"{indent}raise NotImplementedError", *lines[end + 1 :]])


def reveal(exercise_id: str) -> None:
    """Print the solution of an exercise; for when the hints did not help."""
    print(solution(find(exercise_id)))


# what is seen


def _show(exercise: Exercise, verdict: Verdict) -> None:
    """A box in a notebook, lines on a console."""
    from IPython.display import display

    display(Shown(exercise, verdict))


class Shown:
    """A verdict as Jupyter and a console show it."""

    def __init__(self, exercise: Exercise, verdict: Verdict) -> None:
        self.exercise, self.verdict = exercise, verdict

    def _lines(self) -> Iterator[str]:
        waiting = self.verdict.mistake == "not solved"
        mark = "✔" if self.verdict.right else "…" if waiting else "✘"
        yield f"{mark} {self.exercise.id}, {self.exercise.title}: {self.verdict.words}"
        if not self.verdict.right:
            yield "Change it and run the cell again, or go on: the kit's own version is used below."

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        waiting = self.verdict.mistake == "not solved"
        colour = "#00736e" if self.verdict.right else "#666666" if waiting else "#b8420f"
        first, *more = [_code_marked(html.escape(line, quote=False)) for line in self._lines()]
        rest = "".join(f'<br><span style="opacity:.75">{line}</span>' for line in more)
        style = f"border-left:5px solid {colour};padding:6px 12px;margin:4px 0;line-height:1.45"
        return f'<div style="{style}">{first}{rest}</div>'


def _code_marked(text: str) -> str:
    """`code` in a sentence as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
