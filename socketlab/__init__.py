"""Cross-modal knowledge transfer without task-relevant source data, to be seen and changed.

The main names can be taken from here; each is loaded when it is first used, so that ``import socketlab`` is
quick and needs neither torch nor a display::

    from socketlab import Recipe, adapt, load_source, rooms

    source = load_source("rgb_kinect_v1")
    target = rooms.load("target_adapt", "kinect_v1", ("depth",))
    for event in adapt(source, target, rooms.ti_pairs("kinect_v1"), Recipe.socket()):
        print(event)

Everything else is imported from its room: ``from socketlab.measures import distances`` (README.md beside this
file lists them).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socketlab.errors import LabError
    from socketlab.images import pocketrooms as rooms
    from socketlab.images.paired_images import PairedImages
    from socketlab.measures.comparison import Comparison, compare
    from socketlab.method import evaluate as features
    from socketlab.method import losses
    from socketlab.method.adaptation import Epoch, State, Step, adapt
    from socketlab.method.recipe import METHODS, Recipe
    from socketlab.networks.checkpoints import Source, load_source, save_source

__version__ = "0.2.0"

_HOMES = {
    "adapt": "method.adaptation",
    "Step": "method.adaptation",
    "Epoch": "method.adaptation",
    "State": "method.adaptation",
    "Recipe": "method.recipe",
    "METHODS": "method.recipe",
    "Source": "networks.checkpoints",
    "load_source": "networks.checkpoints",
    "save_source": "networks.checkpoints",
    "compare": "measures.comparison",
    "Comparison": "measures.comparison",
    "PairedImages": "images.paired_images",
    "LabError": "errors",
}
"""Exported name → the module that defines it."""

_MODULES = {
    "rooms": "images.pocketrooms",
    "features": "method.evaluate",
    "losses": "method.losses",
}
"""Exported name → the module that it stands for."""

__all__ = [
    "adapt", "Step", "Epoch", "State", "Recipe", "METHODS",
    "Source", "load_source", "save_source", "PairedImages", "LabError", "compare", "Comparison",
    "rooms", "features", "losses",
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load an exported name on first use (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the exported names too, for completion in a notebook."""
    return sorted({*globals(), *__all__})
