"""Features of images at any layer of any torch network; hooks, modes and random state are left as they were.

They are pooled in the forward pass, so that no batch's activations outlive it.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from socketlab.errors import LabError
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages
from socketlab.method.evaluate import encoded_batches, evaluating
from socketlab.networks.networks import device_of, norm_layers

Images = PairedImages | Tensor | NDArray[Any] | Iterable[Any]
"""Of one modality; or (N, C, H, W); or a list of (C, H, W); or batches (B, C, H, W), as of a DataLoader."""
Transform = Normalisation | Callable[[Tensor], Tensor] | None
"""From stored images to the network's input: (B, C, H, W) → (B, C', H', W') float."""
Pattern = str | Sequence[str]
"""A name or a glob, or several."""


def layer_names(network: nn.Module, pattern: Pattern = "*") -> list[str]:
    """Names of modules, in their order, that match a pattern.

    Parameters
    ----------
    pattern : a glob (``"layer[1-4]"``, ``"*.bn?"``; ``*`` matches dots too) or several, all with a match.
        ``""`` is the network: its output.
    """
    every = [name for name, _ in network.named_modules(remove_duplicate=False)]
    # weights under a parametrization are modules too, but return no features of an image
    usual = [name for name, _ in network.named_modules() if name and ".parametrizations." not in f".{name}."]
    chosen: set[str] = set()
    if not _listed(pattern):
        raise LabError("No layer is named: give names or patterns, as layer_names lists them.")
    for one in _listed(pattern):
        if not isinstance(one, str):
            raise LabError(f"A layer is chosen by its name or a pattern, not by {one!r}.")
        found = {one} if one in every else set(fnmatch.filter(usual, one))
        if not found:
            near = difflib.get_close_matches(one, usual, n=4, cutoff=0.5)
            near = near or [name for name in usual if "." not in name][:8]
            listed = f"near it are {', '.join(near)}" if near else "it has no layers by name"
            raise LabError(f"{type(network).__name__} has no layer {one!r}: {listed}.")
        chosen |= found
    return [name for name in dict.fromkeys(every) if name in chosen]


def _listed(pattern: Pattern) -> Sequence[str]:
    return pattern if isinstance(pattern, list | tuple | set | dict) else [pattern]  # type: ignore[list-item]


# ---- images through a network


def pass_images(
    network: nn.Module, images: Images, names: Iterable[str], take: Callable[[str, Any, range], None], *,
    transform: Transform = None, batch: int = 256, inputs: bool = False,
) -> None:  # fmt: skip
    """All images through a network, in eval mode, a batch at a time; parameters as of `extract_features`.

    ``take(name, output or input, rows of this batch)`` is called at each call of a layer.
    """
    if not isinstance(network, nn.Module):
        raise LabError(f"A network is a torch module, not {network!r}: load one with load_source.")
    if batch < 1:
        raise LabError(f"batch is {batch}; a pass takes 1 image or more at a time.")
    device, rows = device_of(network), range(0)
    dtype = next((x.dtype for x in network.parameters() if x.is_floating_point()), torch.float32)

    def hook(name: str, module: nn.Module, given: Any, *output: Any) -> None:
        take(name, output[0] if output else given[0], rows)

    numbers = torch.autocast(device.type, enabled=False)
    with evaluating(network), torch.no_grad(), numbers, ExitStack() as stack:
        # the same random numbers in every pass; torch's generators are put back afterwards
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        torch.manual_seed(0)
        for name in names:
            layer = network.get_submodule(name)
            add: Any = layer.register_forward_pre_hook if inputs else layer.register_forward_hook
            stack.callback(add(partial(hook, name)).remove)
        for encoded in _encoded(images, transform, batch):
            rows = range(rows.stop, rows.stop + len(encoded))
            try:
                network(encoded.to(device, dtype))
            except (RuntimeError, ValueError, TypeError, AssertionError) as error:
                raise LabError(_why_unread(network, encoded, error)) from error
    if not rows:
        raise LabError("There are no images to measure.")


def _encoded(images: Images, transform: Transform, batch: int) -> Iterator[Tensor]:
    """Batches as the network reads them."""
    if isinstance(images, list) and images and all(np.ndim(one) == 3 for one in images):
        if len({tuple(one.shape) for one in images}) > 1:
            raise LabError("These images are of several sizes: give batches, each of one size.")
        images = torch.stack([torch.as_tensor(one) for one in images])
    if isinstance(images, PairedImages):
        if transform is None:
            raise LabError("PairedImages are as the sensor stored them: give the network's normalisation.")
        if isinstance(transform, Normalisation):
            yield from encoded_batches(images, transform, batch)
            return
        images = images.images[images.modality]
    if isinstance(images, Tensor | np.ndarray):
        images = torch.as_tensor(images).split(batch) if len(images) else ()
    encode = transform.encode if isinstance(transform, Normalisation) else transform
    for one in images:
        stored = one[0] if isinstance(one, list | tuple) and one else one  # images, or images and labels
        encoded = stored if encode is None else encode(stored)
        if not isinstance(encoded, Tensor) or not encoded.is_floating_point() or encoded.ndim < 2:
            what = f"{encoded.dtype} {tuple(encoded.shape)}" if isinstance(encoded, Tensor) else type(encoded)
            raise LabError(f"A network reads batches (B, C, H, W) of floats, not {what}: give a transform.")
        yield encoded


def _why_unread(network: nn.Module, batch: Tensor, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    last = batch.ndim == 4 and batch.shape[1] not in (1, 3) and batch.shape[-1] in (1, 3)
    cure = "move the channels forward, as images.permute(0, 3, 1, 2)" if last else "give (B, C, H, W)"
    return f"{type(network).__name__} does not run on images {tuple(batch.shape)} ({reason}): {cure}."


def extract_features(
    network: nn.Module, images: Images, layers: Pattern = "*", transform: Transform = None, *,
    batch: int = 256,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Features of images at chosen layers, averaged over places, in eval mode, on the network's device.

    A layer that is called several times counts with its last output; of a tuple, list or dict the first
    tensor counts. Layers named in full must be reached in the forward pass; of those that a pattern matches,
    the ones that are not, or return nothing per image, are left out.

    Parameters
    ----------
    images : `PairedImages` of one modality, a tensor (N, C, H, W), a list of (C, H, W), or batches; floats of
        another size are converted to the network's.
    layers : for `layer_names`.
    transform : a `Normalisation` (which takes the centre view of `PairedImages`), or any function of a batch.

    Returns
    -------
    name → (N, C) float32 array, in the order of the modules. The channels are the last dimension of linear
    layers, layer norms and token sequences (B, T, C), else dimension 1.

    Raises
    ------
    LabError : no such layer; one named in full is never reached, or returns nothing per image; images that
        are none, or integers.
    """
    names = layer_names(network, layers)
    parts: dict[str, dict[int, NDArray[Any]]] = {name: {} for name in names}
    refused: dict[str, str] = {}

    def take(name: str, output: Any, rows: range) -> None:
        tensor = _first_tensor(output)
        if tensor is None:
            refused[name] = f"returns a {type(output).__name__} without a tensor"
        elif tensor.ndim == 0 or len(tensor) != len(rows):
            refused[name] = f"returns {tuple(tensor.shape)} for a batch of {len(rows)} images"
        else:  # a copy: the next layer may work in place
            pooled = _pooled(network.get_submodule(name), tensor)
            parts[name][rows.start] = pooled.float().cpu().numpy().copy()

    pass_images(network, images, names, take, transform=transform, batch=batch)
    found = {name: np.concatenate(list(rows.values())) for name, rows in parts.items() if rows}
    missing = [name for name in names if name in _listed(layers) and name not in found]
    if missing or not found:
        first = (missing or names)[0]
        never = "is never called in the forward pass (a container, or called by its forward()?)"
        raise LabError(
            f"Layer {first!r} of {type(network).__name__} {refused.get(first, never)}: choose another; "
            "layer_names lists them."
        )
    most = max(map(len, found.values()))
    if differing := [name for name, rows in found.items() if len(rows) < most]:
        raise LabError(f"Layers {', '.join(differing)} are reached for some batches and not for others.")
    return found


def _pooled(module: nn.Module, x: Tensor) -> Tensor:
    """The output of a layer (B, ...) → rows (B, C) in full precision; see `extract_features`."""
    if x.ndim <= 2:
        return x if x.ndim == 2 else x[:, None]
    first = norm_layers(module) == [module] or isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    last = type(module) in (nn.Linear, nn.LayerNorm) or (x.ndim == 3 and not first)
    places = x.movedim(-1 if last else 1, 1).flatten(2)  # (B, C, P)
    return places.mean(dim=2, dtype=torch.promote_types(x.dtype, torch.float32))


def _first_tensor(output: Any) -> Tensor | None:
    """The first tensor in what a module returns: itself, or in a tuple, list or dict, however deep."""
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output
    found = map(_first_tensor, parts if isinstance(output, Mapping | list | tuple) else ())
    return next((x for x in found if x is not None), None)
