"""Wrong answers to the exercises of notebooks 04 to 07; see `tests.wrong_answers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LATE: dict[str, dict[str, Callable[..., Any]]] = {}
