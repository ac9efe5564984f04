"""Checked exercises: an answer is compared with the reference, and a known mistake is called by its name."""

from __future__ import annotations

import _thread
import contextlib
import copy
import html
import inspect
import numbers
import re
import textwrap
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from socketlab.course.exercises import BEGIN, END, Answer, Case, Exercise, Mistake, catalogue
from socketlab.errors import require_choice

TOLERANCE = 1e-4
"""Largest difference that counts as equal, as a share of the largest number of the right answer."""
Trial = tuple[Case, Any, Any]
"""A case, what an answer makes of it, and what is right."""


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, the words for it, and the name of the mistake."""

    right: bool
    words: str
    mistake: str = ""


def check(exercise_id: str, answer: Answer) -> Answer:
    """Judge an answer and show the verdict; returned is what the notebook goes on with, right in any case."""
    from IPython.display import display

    exercise = find(exercise_id)
    verdict = judge(exercise, answer)
    display(shown(exercise, verdict), raw=True)
    return answer if verdict.right else exercise.answer


def judge(exercise: Exercise, answer: Any, seconds: float = 20.0) -> Verdict:
    """Compare an answer with the reference on all cases, each of which may take so many seconds."""
    if not callable(answer):
        return Verdict(False, f"{exercise.name} should be a function, and is {_kind(answer)}.", "no function")
    trials: list[Trial] = []
    for case in exercise.cases():
        given, wanted = copy.deepcopy(case.arguments), exercise.answer(*copy.deepcopy(case.arguments))
        try:
            with _stopped_after(seconds):
                result = answer(*given)
        except KeyboardInterrupt:
            words = f"Stopped after {seconds:g} seconds, or by hand: does a loop of yours go on for ever?"
            return Verdict(False, words, "does not end")
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
    wrong = [trial for trial in trials if not agree(exercise, *trial[1:])]
    if not wrong:
        return _gradient_verdict(exercise, answer, trials)
    for mistake in exercise.mistakes:
        if all(_is_mistake(exercise, mistake, case, result) for case, result, _ in trials):
            return Verdict(False, mistake.words, mistake.name)
    factors = {_factor(_parts(exercise, result), _parts(exercise, right)) for _, result, right in trials}
    kind, words = _difference(exercise, *wrong[0][1:], factors.pop() if len(factors) == 1 else None)
    return Verdict(False, f"For {wrong[0][0].name} {words}", kind)


@contextlib.contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """A KeyboardInterrupt in the main thread if the block takes longer, and again until it ends."""
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


def _parts(exercise: Exercise, result: Any) -> list[Any] | None:
    """The result in its canonical form, as a list of tensors; None if it is of another kind."""
    with contextlib.suppress(TypeError, ValueError, RuntimeError, IndexError):
        return _flat(exercise.canonical(result))
    return None


def agree(exercise: Exercise, result: Any, wanted: Any) -> bool:
    """Whether two results are the same numbers, up to `TOLERANCE`, in the same shape."""
    a, b = _parts(exercise, result), _parts(exercise, wanted)
    return a is not None and b is not None and len(a) == len(b) and all(map(_close, a, b))


def _close(x: Any, y: Any) -> bool:
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return type(x) is type(y) and bool(x == y)
    whole = not y.is_floating_point() and not x.is_floating_point()
    x, y = x.detach().double(), y.detach().double()
    scale = float(y.abs().max()) if y.numel() else 0.0
    margin = 0.0 if whole else TOLERANCE * max(scale, 1e-6)
    return x.shape == y.shape and bool(((x - y).abs() <= margin).all())


def _is_mistake(exercise: Exercise, mistake: Mistake, case: Case, result: Any) -> bool:
    with contextlib.suppress(Exception):  # a mistake that stops on some input is not what this answer did
        return agree(exercise, result, mistake.answer(*copy.deepcopy(case.arguments)))
    return False


def _gradient_verdict(exercise: Exercise, answer: Answer, trials: list[Trial]) -> Verdict:
    """The verdict on right numbers: their gradient has to be right too, where the exercise needs one."""
    for case, _, _ in trials if exercise.gradient else ():
        if not _same_gradient(answer, exercise.answer, case):
            words = f"The numbers are right, but for {case.name} there is no gradient, or a wrong one"
            more = "a part is cut off by detach(), item() or no_grad(), or flows where it should not."
            return Verdict(False, f"{words}: {more}", "no gradient")
    return Verdict(True, exercise.because)


def _same_gradient(answer: Answer, reference: Answer, case: Case) -> bool:
    """Whether two functions have one gradient, rounded wider than values: a gradient may be zero."""
    try:
        found, wanted = (_gradients(one, copy.deepcopy(case.arguments)) for one in (answer, reference))
    except RuntimeError:  # as for no graph, or one that is used up
        return False
    pairs = zip(found, wanted, strict=True)
    return all(bool(((x - y).abs() <= 1e-3 * max(float(y.abs().max()), 1e-3)).all()) for x, y in pairs)


def _gradients(function: Answer, arguments: Any) -> Sequence[Tensor]:
    """Of a weighted sum of what a function returns; zeros where nothing flows."""
    inputs = [t for t in arguments if isinstance(t, Tensor) and t.requires_grad]
    parts = [p.flatten() for p in _flat(function(*arguments)) if isinstance(p, Tensor) and p.requires_grad]
    weighted = [(part * torch.linspace(1, 2, len(part))).sum() for part in parts]
    return torch.autograd.grad(weighted, inputs, materialize_grads=True) if inputs else []


def _difference(exercise: Exercise, result: Any, wanted: Any, factor: float | None) -> tuple[str, str]:
    """(kind, words) for an answer that is no known mistake, by the factor that all cases have in common."""
    a, b = _parts(exercise, result), _parts(exercise, wanted)
    tensors = a and b and all(isinstance(part, Tensor) for part in (*a, *b))
    if a is None or b is None or (len(a) != len(b) and any(isinstance(part, Tensor) for part in (*a, *b))):
        return "kind", f"your function returns {_kind(result)}; {_kind(wanted)} is wanted."
    if not tensors:
        return "", f"you get {_short(result)}, right is {_short(wanted)}."
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return "shape", f"the shape is {tuple(x.shape)}, and should be {tuple(y.shape)}."
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            return "no number", "the result holds NaN or an infinity; look for 0 / 0 or log(0)."
    if factor == -1:
        return "factor", "the numbers are right but for their sign."
    if factor is not None:
        return "factor", f"your result is {factor:g} times the right one."
    return "", _unlike(a, b)


def _unlike(a: list[Tensor], b: list[Tensor]) -> str:
    """The first part of an answer that differs, and of many numbers one that shows it."""
    number = next(n for n, (x, y) in enumerate(zip(a, b, strict=True)) if not _close(x, y))
    x, y = a[number].detach(), b[number].detach()
    where = [f"in result {number + 1} of {len(a)}"] if len(a) > 1 else []
    shown, right = _short(x), _short(y)
    if shown == right:  # the first few are alike: show where it is worst, and more digits
        place = np.unravel_index(int((x.double() - y).abs().argmax()), x.shape)
        where += [f"at {[int(i) for i in place]}"] if place else []
        shown, right = (f"{float(t[place]):.7g}" for t in (x, y))
    return f"{' '.join([*where, 'you get'])} {shown}, right is {right}."


def _factor(a: list[Any] | None, b: list[Any] | None) -> float | None:
    """The one number by which a result differs from the right one, if there is one; three digits."""
    shapes = [[x.shape for x in many if isinstance(x, Tensor)] for many in (a or [], b or [])]
    if not a or not b or not len(a) == len(b) == len(shapes[0]) or shapes[0] != shapes[1]:
        return None
    x, y = (torch.cat([t.detach().double().flatten() for t in many]) for many in (a, b))
    factor = float(x @ y / (y @ y))
    rounded = float(f"{factor:.3g}")
    return rounded if _close(x, factor * y) and rounded not in (0, 1) else None


def _flat(result: Any) -> list[Any]:
    """Tensors, numbers and NumPy arrays as a list of tensors; words and truth values as they are."""
    if isinstance(result, Tensor | bool | str):
        return [result]
    if isinstance(result, np.ndarray | np.generic | numbers.Real):
        return [torch.as_tensor(result)]
    if isinstance(result, tuple | list):
        return [part for each in result for part in _flat(each)]
    raise TypeError(f"{_kind(result)} is neither a tensor nor a number")


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(np.all(a == b))


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__name__
    of = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}{of}"


def _short(value: Any) -> str:
    """A number or the first few of many; of words as much as fits into a line."""
    parts: list[Any] = []
    with contextlib.suppress(TypeError):  # of a kind that only the exercise's `canonical` understands
        parts = _flat(value)
    if not parts or not isinstance(parts[0], Tensor):
        return textwrap.shorten(repr(value), 100, placeholder=" …")
    first = parts[0].detach().double().flatten()
    shown = ", ".join(f"{number:.4g}" for number in first[:3].tolist())
    return f"{shown}, …" if len(first) > 3 or len(parts) > 1 else shown


def shown(exercise: Exercise, verdict: Verdict) -> dict[str, str]:
    """A verdict as a console and as Jupyter show it: MIME type → text."""
    waiting = verdict.mistake == "not solved"
    mark, colour = ("✔", "#00736e") if verdict.right else ("…", "#666666") if waiting else ("✘", "#b8420f")
    lines = [f"{mark} {exercise.id}, {exercise.title}: {verdict.words}"]
    if not verdict.right:
        lines.append("Change it and run the cell again, or go on with the kit's own version.")
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape("\n".join(lines), quote=False))
    style = f"border-left:5px solid {colour};padding:6px 12px;margin:4px 0;line-height:1.45"
    box = f'<div style="{style}">{"<br>".join(marked.splitlines())}</div>'
    return {"text/plain": "\n".join(lines), "text/html": box}


def find(exercise_id: str) -> Exercise:
    """The exercise of this id; `LabError` lists the known ones."""
    require_choice("exercise", exercise_id, catalogue())
    return catalogue()[exercise_id]


def solution(exercise: Exercise) -> str:
    """Source of the reference, without the marks of the learner's part."""
    lines = textwrap.dedent(inspect.getsource(exercise.answer)).splitlines()
    return "\n".join(line for line in lines if line.strip() not in (BEGIN, END))


def reveal(exercise_id: str) -> None:
    """Print the solution of an exercise; for when the hints did not help."""
    print(solution(find(exercise_id)))
