"""Weights in files of other people's code: tensors by name are read, code in a file is never run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from socketlab.errors import LabError

Weights = dict[str, Tensor]
"""Name → tensor: the weights and buffers of a module."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
"""Keys under which training scripts store the weights, beside epochs and optimisers."""
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "backbone.", "encoder.")
"""Before every name: DataParallel, torch.compile, Lightning and others."""


def read_weights(path: Path) -> Weights:
    """Tensors of a ``.safetensors`` or torch file, without `WRAPPERS` around and `PREFIXES` before them.

    A LabError for no such file, a broken one, one with more than tensors, or numbers that are not finite.
    """
    if not path.is_file():
        raise LabError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # in whatever the reading of a stranger's pickle may end
        why = "is no file of tensors, or not a whole one: fetch or write it again"
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            why = f"holds more than tensors ({named[1]}), which could run code: write module.state_dict()"
        raise LabError(f"{path.name} {why}") from error
    weights = {name: x for name, x in _unwrapped(found, path.name).items() if name != "n_averaged"}
    while weights and (prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in weights)), "")):
        weights = {name.removeprefix(prefix): x for name, x in weights.items()}
        weights.pop("n_averaged", None)  # of AveragedModel
    require_finite(weights, path.name)
    return weights


def _unwrapped(found: Any, file: str) -> Weights:
    """The tensors by name, out of whatever dicts stand around them."""
    if isinstance(found, Mapping):
        inner = {key: part for key, part in found.items() if isinstance(part, Mapping) and part}
        chosen = next((key for key in WRAPPERS if key in inner), None)
        if chosen is not None:
            return _unwrapped(inner[chosen], file)
        if found and all(isinstance(name, str) and isinstance(x, Tensor) for name, x in found.items()):
            return dict(found)
        keys = ", ".join(repr(key) for key in found)
        beside = f" (its keys are {keys[:200]})" if found else ""
    else:
        beside = f" but a {type(found).__name__}"
    raise LabError(f"{file} does not hold tensors by name{beside}: write module.state_dict() into it")


def require_finite(weights: Mapping[str, Tensor], file: str) -> None:
    """A LabError that names the first tensor with NaN or infinite numbers."""
    for name, x in weights.items():
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise LabError(f"{name} in {file} holds NaN or infinite numbers: give those of an earlier epoch")


def without_classifier(state: Mapping[str, Tensor]) -> Weights:
    """The part of a published network's weights that a trunk takes, by the trunk's names."""
    named = {re.sub(r"(^|\.)_", r"\1", name): x for name, x in state.items()}  # Lite0: _blocks.0._bn1
    return {name: x for name, x in named.items() if not name.startswith("fc.")}


def fill(module: nn.Module, weights: Weights, what: str) -> None:
    """Give a module these weights; old files may lack counts of batches. An error begins with ``what``."""
    own = module.state_dict()
    counts = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    require_same(own, counts | weights, what)
    module.load_state_dict(counts | weights)


def require_same(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], what: str) -> None:
    """A LabError that begins with ``what``, unless names and shapes are those of ``own``."""
    missing = [name for name in own if name not in weights]
    strange = [name for name in weights if name not in own]
    if missing:
        renamed = next((name for name in strange if name.endswith(f".{missing[0]}")), "")
        prefix = renamed.removesuffix(missing[0])
        but = f", but there is {renamed}: take {prefix!r} off the names" if renamed else ""
        raise LabError(f"{what} do not fit: {_some(missing)} missing{but}")
    if strange:
        raise LabError(f"{what} do not fit: {_some(strange)} too many")
    for name, tensor in weights.items():
        given, wanted = tuple(tensor.shape), tuple(own[name].shape)
        if given != wanted:
            raise LabError(f"{what} do not fit: {name} is {given}, not {wanted}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"
