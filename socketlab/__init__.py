"""Cross-modal knowledge transfer without task-relevant source data, to be seen and changed.

The main names can be taken from here; each is loaded when it is first used, so that ``import socketlab`` is
quick and needs neither torch nor a display::

    from socketlab import Recipe, adapt, load_source, rooms

    source = load_source("rgb_kinect_v1")
    target = rooms.load("target_adapt", "kinect_v1", ("depth",))
    for event in adapt(source, target, rooms.ti_pairs("kinect_v1"), Recipe.socket()):
        print(event)
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socketlab.adapt import Epoch, State, Step, adapt
    from socketlab.checkpoints import Source, load_source, save_source
    from socketlab.compare import Comparison, compare
    from socketlab.errors import LabError
    from socketlab.pairs import PairedImages
    from socketlab.recipe import METHODS, Recipe

__version__ = "0.1.0"

_HOMES = {
    "adapt": "adapt",
    "Step": "adapt",
    "Epoch": "adapt",
    "State": "adapt",
    "Recipe": "recipe",
    "METHODS": "recipe",
    "Source": "checkpoints",
    "load_source": "checkpoints",
    "save_source": "checkpoints",
    "compare": "compare",
    "Comparison": "compare",
    "PairedImages": "pairs",
    "LabError": "errors",
}
"""Exported name → the module that defines it."""

_MODULES = (
    "backbones", "distances", "doctor", "downloads", "embed", "encodings", "explorer", "features",
    "gap_plots", "importers", "layers", "likeness", "map_quality", "measures", "motion", "packs", "panels",
    "plots", "presets", "protocol", "rooms", "runs", "selection", "sensors", "triples", "uncertainty",
)  # fmt: skip
"""Modules that are exported as a whole."""

__all__ = [
    "adapt", "Step", "Epoch", "State", "Recipe", "METHODS",
    "Source", "load_source", "save_source", "PairedImages", "LabError", "compare", "Comparison",
    "backbones", "distances", "doctor", "downloads", "embed", "encodings", "explorer", "features",
    "gap_plots", "importers", "layers", "likeness", "map_quality", "measures", "motion", "packs", "panels",
    "plots", "presets", "protocol", "rooms", "runs", "selection", "sensors", "triples", "uncertainty",
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load an exported name on first use (PEP 562)."""
    home = name if name in _MODULES else _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{home}":
            raise  # something that the module needs is missing: say that instead
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    """List the exported names too, for completion in a notebook."""
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This module, with ``socketlab.adapt`` always the function.

    Python binds a submodule to its package under its own name when it is first loaded; the module ``adapt``
    would hide the function ``adapt``, or not, depending on who imported what first.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
