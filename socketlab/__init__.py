"""Cross-modal knowledge transfer without task-relevant source data, to be seen and changed.

The main names can be taken from here, each loaded when it is first used, so that ``import socketlab`` is
quick and needs neither torch nor a display; everything else comes from its room (README.md beside this file).
"""

import pkgutil
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

_HOMES = {"rooms": "images.pocketrooms", "features": "method.evaluate", "losses": "method.losses"}
for _module, _names in {
    "errors": "LabError",
    "images.paired_images": "PairedImages",
    "measures.comparison": "Comparison compare",
    "method.adaptation": "Epoch State Step adapt",
    "method.recipe": "METHODS Recipe",
    "networks.checkpoints": "Source load_source save_source",
}.items():
    _HOMES |= {_name: f"{_module}:{_name}" for _name in _names.split()}

__all__ = [
    "adapt", "Step", "Epoch", "State", "Recipe", "METHODS",
    "Source", "load_source", "save_source", "PairedImages", "LabError", "compare", "Comparison",
    "rooms", "features", "losses",
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load an exported name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return pkgutil.resolve_name(f"{__name__}.{_HOMES[name]}")


def __dir__() -> list[str]:
    """List the exported names too, for completion in a notebook."""
    return sorted({*globals(), *__all__})
