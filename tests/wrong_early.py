"""Wrong answers to the exercises of notebooks 01 and 02; see `tests.wrong_answers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

EARLY: dict[str, dict[str, Callable[..., Any]]] = {}
