"""The one exception of the library, and the check of arguments that raises it."""

import dataclasses
import functools
import inspect
import numbers
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class LabError(Exception):
    """Something that the reader can put right: one sentence that names the culprit and the way out.

    The command line prints it without a traceback, a panel shows it in a box. Anything else that is raised
    is a fault of the library itself.
    """


def require_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise a `LabError` for a value that is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise LabError(f"{name} {value!r} is unknown: choose one of {', '.join(choices)}.")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function refuse arguments of other types than those of its annotations, with a `LabError`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        require_types(function.__name__, given, _hints(function))
        return function(*args, **kwargs)

    return call


def check_fields(values: Any) -> None:
    """Refuse a dataclass with a field of another type than its annotation, with a `LabError`."""
    given = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    require_types(type(values).__name__, given, _hints(values.__class__))


@functools.cache
def _hints(owner: Any) -> dict[str, Any]:
    return typing.get_type_hints(owner)


def require_types(where: str, given: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raise a `LabError` for the first value that is not of its type."""
    for name, value in given.items():
        if name in hints and not _is(value, hints[name]):
            kind = re.sub(r"[\w.]+\.(?=\w)", "", inspect.formatannotation(hints[name]))
            raise LabError(f"{where}: {name} must be {kind}, not {type(value).__name__}.")


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; True for annotations that are not understood."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, one) for one in inner)
    if origin is typing.Literal:
        return isinstance(value, str) and value in inner
    if origin in (list, tuple, Sequence):  # a list serves as a tuple
        every = [one for one in inner if one is not ...]
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        return set(map(type, value)) <= {every[0]} or all(_is(one, every[0]) for one in value)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    plain = origin or kind
    return not isinstance(plain, type) or isinstance(value, plain)
