"""The course's exercises, a module for each notebook: references, inputs, known mistakes, hints."""

import importlib
from types import ModuleType

ORDER = ("gap", "statistics", "alignment", "adaptation", "mixtures", "infrared", "own_data")
"""Modules in the course's order: notebooks 01 to 07."""


def modules() -> list[ModuleType]:
    """The modules, loaded; each has a tuple `EXERCISES`."""
    return [importlib.import_module(f"{__name__}.{name}") for name in ORDER]
