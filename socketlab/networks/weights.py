"""Weights in files of other people's code: tensors by name are read, code in a file is never run."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
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

    Raises
    ------
    LabError : no such file, a broken one, one that holds more than tensors, or numbers that are not finite.
    """
    if not path.is_file():
        raise LabError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise LabError(f"{path.name} is not a whole safetensors file: {error}") from error
    except Exception as error:  # in whatever the reading of a stranger's pickle may end
        raise LabError(_why_unread(path, error)) from error
    weights = _without_prefixes(_unwrapped(found, path.name))
    require_finite(weights, path.name)
    return weights


def _why_unread(path: Path, error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
        return f"{path.name} is no torch file of tensors, or not a whole one: fetch or write it again"
    return (
        f"{path.name} holds more than tensors ({named[1]}), which could run code, and was not read: write "
        "module.state_dict() instead of the module"
    )


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


def _without_prefixes(weights: Weights) -> Weights:
    weights = {name: x for name, x in weights.items() if name != "n_averaged"}  # of AveragedModel
    prefix = next((p for p in PREFIXES if weights and all(name.startswith(p) for name in weights)), None)
    if prefix is None:
        return weights
    return _without_prefixes({name.removeprefix(prefix): x for name, x in weights.items()})


def require_finite(weights: Mapping[str, Tensor], file: str) -> None:
    """A LabError that names the first tensor with NaN or infinite numbers."""
    for name, x in weights.items():
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise LabError(
                f"{name} in {file} holds NaN or infinite numbers, as after a training that diverged: give "
                "the weights of an earlier epoch"
            )


def without_classifier(state: Mapping[str, Tensor]) -> Weights:
    """The part of a published network's weights that a trunk takes, by the trunk's names.

    Left out are ``fc`` of a ResNet or an EfficientNet-Lite and the third linear layer of a VGG. SHOT calls a
    VGG's linear layers ``classifier.classifier0`` where torchvision has ``classifier.0``.
    """
    kept: Weights = {}
    for name, tensor in state.items():
        name = re.sub(r"^classifier\.classifier(\d+)\.", r"classifier.\1.", name)
        name = re.sub(r"(^|\.)_", r"\1", name)  # EfficientNet-Lite: _blocks.0._bn1
        if not name.startswith(("fc.", "classifier.6.")):
            kept[re.sub(r"^features\.", "layers.", name)] = tensor
    return kept


def fill(module: nn.Module, weights: Weights, what: str) -> None:
    """Give a module these weights, of the same names and shapes, else a `LabError` that begins with ``what``.

    Counts of batches, which old files lack, may stay out.
    """
    own = module.state_dict()
    counts = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    require_same(own, counts | weights, what)
    module.load_state_dict(counts | weights)


def require_same(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], what: str) -> None:
    """A LabError that begins with ``what``, unless names and shapes are those of ``own``."""
    missing = [name for name in own if name not in weights]
    strange = [name for name in weights if name not in own]
    if missing:
        raise LabError(f"{what} do not fit: {_some(missing)} missing{_elsewhere(missing[0], strange)}")
    if strange:
        raise LabError(f"{what} do not fit: {_some(strange)} too many")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise LabError(
                f"{what} do not fit: {name} is {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            )


def _elsewhere(missing: str, strange: list[str]) -> str:
    """Where the missing names are, if they are only called otherwise."""
    for name in strange:
        if name.endswith(f".{missing}"):
            return f", but there is {name}: take {name.removesuffix(missing)!r} off the names"
    return ""


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"


DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, pickle.UnpicklingError)
"""In which fetching and reading published weights may end."""
