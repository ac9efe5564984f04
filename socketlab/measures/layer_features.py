"""Features of images at any layer of any torch network; hooks, modes and random state are left as they were.

They are pooled in the forward pass, so that no batch's activations outlive it.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from socketlab.networks.networks import device_of, fast_bfloat16, norm_layers

Images = PairedImages | Tensor | NDArray[Any] | Iterable[Any]
"""Of one modality; or (N, C, H, W); or a list of (C, H, W); or batches (B, C, H, W), as of a DataLoader."""
Transform = Normalisation | Callable[[Tensor], Tensor] | None
"""From stored images to the network's input: (B, C, H, W) → (B, C', H', W') float."""
Progress = Callable[[int, int | None], object]
"""Called after each batch with the number of images done, and of all where that is known."""
Pattern = str | re.Pattern[str]

PRECISIONS = ("auto", "float32", "bfloat16")
POOLS = ("mean", "max", "flat")


# ---- names


def layer_names(network: nn.Module, pattern: Pattern | Sequence[Pattern] = "*") -> list[str]:
    """Names of modules, in their order, that match a pattern.

    Parameters
    ----------
    pattern : a glob (``"layer[1-4]"``, ``"*.bn?"``; ``*`` matches dots too), a compiled regular expression
        that fits the whole name, or several of both, all with a match. ``""`` is the network: its output.
    """
    every = [name for name, _ in network.named_modules(remove_duplicate=False)]
    # weights under a parametrization are modules too, but return no features of an image
    usual = [name for name, _ in network.named_modules() if name and ".parametrizations." not in f".{name}."]
    chosen: set[str] = set()
    if not _patterns(pattern):
        raise LabError("No layer is named: give names or patterns, as layer_names lists them.")
    for one in _patterns(pattern):
        if isinstance(one, re.Pattern):
            found = {name for name in usual if one.fullmatch(name)}
        elif isinstance(one, str):
            found = {one} if one in every else set(fnmatch.filter(usual, one))
        else:
            raise LabError(f"A layer is chosen by its name or a pattern, not by {one!r}.")
        if not found:
            wanted = one if isinstance(one, str) else one.pattern
            near = difflib.get_close_matches(wanted, usual, n=4, cutoff=0.5)
            near = near or [name for name in usual if "." not in name][:8]
            listed = f"near it are {', '.join(near)}" if near else "it has no layers by name"
            raise LabError(f"{type(network).__name__} has no layer {wanted!r}: {listed}.")
        chosen |= found
    return [name for name in dict.fromkeys(every) if name in chosen]


def _patterns(pattern: Pattern | Sequence[Pattern]) -> Sequence[Pattern]:
    return pattern if isinstance(pattern, list | tuple | set | dict) else [pattern]  # type: ignore[list-item]


# ---- images through a network


class ForwardPass:
    """All images through a network, in eval mode, a batch at a time; parameters as of `extract_features`."""

    def __init__(
        self, network: nn.Module, images: Images, transform: Transform = None, batch: int = 256,
        precision: str = "auto", progress: Progress | None = None,
    ) -> None:  # fmt: skip
        if precision not in PRECISIONS:
            raise LabError(f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
        if not isinstance(network, nn.Module):
            raise LabError(f"A network is a torch module, not {network!r}: load one with load_source.")
        if batch < 1:
            raise LabError(f"batch is {batch}; a pass takes 1 image or more at a time.")
        if isinstance(images, PairedImages) and transform is None:
            raise LabError("PairedImages are as the sensor stored them: give the network's normalisation.")
        if isinstance(images, list) and images and all(np.ndim(one) == 3 for one in images):
            if len({tuple(one.shape) for one in images}) > 1:
                raise LabError("These images are of several sizes: give batches, each of one size.")
            images = torch.stack([torch.as_tensor(one) for one in images])
        self.network, self.transform, self.batch, self.progress = network, transform, batch, progress
        self.images = torch.as_tensor(images) if isinstance(images, np.ndarray) else images
        self.count = len(self.images) if isinstance(self.images, Tensor | PairedImages) else None
        self.dtype = next((x.dtype for x in network.parameters() if x.is_floating_point()), torch.float32)
        self.device = device_of(network)
        self.half = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(self.device))
        self.size = 0

    def run(
        self, names: Iterable[str], take: Callable[[str, Any], None], after: Callable[[], None] | None = None,
        inputs: bool = False,
    ) -> None:  # fmt: skip
        """Pass all images: ``take(name, output or input)`` at each call of a layer, ``after`` each batch."""

        def hook(name: str, module: nn.Module, given: Any, *output: Any) -> None:
            take(name, output[0] if output else given[0])

        done = 0
        numbers = torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
        with _steady_randomness(), evaluating(self.network), torch.no_grad(), numbers, ExitStack() as stack:
            for name in names:
                layer = self.network.get_submodule(name)
                add: Any = layer.register_forward_pre_hook if inputs else layer.register_forward_hook
                stack.callback(add(partial(hook, name)).remove)
            for encoded in self._encoded():
                self.size = len(encoded)
                try:
                    self.network(encoded.to(self.device))
                except (RuntimeError, ValueError, TypeError, AssertionError) as error:
                    raise LabError(_why_unread(self.network, encoded, error)) from error
                if after is not None:
                    after()
                done += self.size
                if self.progress is not None:
                    self.progress(done, self.count)
        if done == 0:
            raise LabError("There are no images to measure.")

    def _encoded(self) -> Iterator[Tensor]:
        """Encoded batches in the network's type of numbers."""
        encode = self.transform.encode if isinstance(self.transform, Normalisation) else self.transform
        if isinstance(self.images, PairedImages) and isinstance(self.transform, Normalisation):
            batches: Iterable[Any] = encoded_batches(self.images, self.transform, self.batch)
            encode = None
        elif isinstance(self.images, PairedImages):
            batches = self.images.images[self.images.modality].split(self.batch)
        elif isinstance(self.images, Tensor):
            batches = self.images.split(self.batch) if len(self.images) else ()
        else:  # images, or images and labels
            batches = (one[0] if isinstance(one, list | tuple) and one else one for one in self.images)
        for stored in batches:
            batch = stored if encode is None else encode(stored)
            if not isinstance(batch, Tensor) or not batch.is_floating_point() or batch.ndim < 2:
                what = f"{batch.dtype} {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch)
                raise LabError(
                    f"A network reads batches (B, C, H, W) of floats, not {what}: give a transform."
                )
            yield batch.to(self.dtype)


def _why_unread(network: nn.Module, batch: Tensor, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    last = batch.ndim == 4 and batch.shape[1] not in (1, 3) and batch.shape[-1] in (1, 3)
    cure = "move the channels forward, as images.permute(0, 3, 1, 2)" if last else "give (B, C, H, W)"
    return f"{type(network).__name__} does not run on images {tuple(batch.shape)} ({reason}): {cure}."


@contextmanager
def _steady_randomness() -> Iterator[None]:
    """The same random numbers in every such block; torch's generators, CPU and CUDA, are then put back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        yield


# ---- features


def extract_features(
    network: nn.Module, images: Images, layers: Pattern | Sequence[Pattern] = "*",
    transform: Transform = None, *, pool: str = "mean", batch: int = 256, precision: str = "auto",
    progress: Progress | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Features of images at chosen layers, in eval mode, without gradient, on the network's device.

    A layer that is called several times counts with its last output; of a tuple, list or dict the first
    tensor counts. Layers named in full must be reached in the forward pass; of those that a pattern matches,
    the ones that are not, or return nothing per image, are left out.

    Parameters
    ----------
    images : `PairedImages` of one modality, a tensor (N, C, H, W), a list of (C, H, W), or batches; floats of
        another size are converted to the network's.
    layers : for `layer_names`.
    transform : a `Normalisation` (which takes the centre view of `PairedImages`), or any function of a batch.
    pool : over places, "mean" or "max" → (N, C); "flat" keeps all numbers → (N, C·H·W). The channels are the
        last dimension of linear layers, layer norms and token sequences (B, T, C), else dimension 1.
    precision : "auto" (bfloat16 where the processor is made for it), "float32" or "bfloat16" of convolutions
        and products; pooling sums in float32.

    Returns
    -------
    name → float32 array, in the order of the modules.

    Raises
    ------
    LabError : no such layer; one named in full is never reached, or returns nothing per image; images that
        are none, integers, or of several sizes with pool="flat".
    """
    names = layer_names(network, layers)
    exact = [name for name in names if name in _patterns(layers)]
    if pool not in POOLS:
        raise LabError(f"There is no pool {pool!r}: choose one of {', '.join(POOLS)}.")
    run = ForwardPass(network, images, transform, batch, precision, progress)
    parts = _read_layers(run, names, exact, pool)
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _read_layers(
    run: ForwardPass, names: list[str], exact: list[str], pool: str
) -> dict[str, list[NDArray[Any]]]:
    """One pass over all images; the rows of each layer that is reached, a batch at a time."""
    parts: dict[str, list[NDArray[Any]]] = {}
    found: dict[str, Tensor] = {}
    refused: dict[str, str] = {}

    def take(name: str, output: Any) -> None:
        tensor = _first_tensor(output)
        if tensor is None:
            refused[name] = f"returns a {type(output).__name__} without a tensor"
        elif tensor.ndim == 0 or len(tensor) != run.size:
            refused[name] = f"returns {tuple(tensor.shape)} for a batch of {run.size} images"
        else:  # a copy: the next layer may work in place
            found[name] = _pooled(run.network.get_submodule(name), tensor, pool).clone()

    def after() -> None:
        reached = {name: found[name].float().cpu().numpy() for name in names if name in found}
        missing = [name for name in exact if name not in reached] or ([] if reached else names)
        if not parts and missing:
            never = "is never called in the forward pass (a container, or called by its forward()?)"
            raise LabError(
                f"Layer {missing[0]!r} of {type(run.network).__name__} {refused.get(missing[0], never)}: "
                "choose another; layer_names lists them."
            )
        if parts and parts.keys() != reached.keys():
            differing = ", ".join(sorted(parts.keys() ^ reached.keys()))
            raise LabError(f"Layers {differing} are reached for some batches and not for others.")
        for name, rows in reached.items():
            width = parts[name][0].shape[1:] if name in parts else rows.shape[1:]
            if rows.shape[1:] != width:
                raise LabError(
                    f"{name!r} is {width} wide for some images and {rows.shape[1:]} for others: give images "
                    'of one size, or average over places with pool="mean".'
                )
            parts.setdefault(name, []).append(rows)
        found.clear()

    run.run(names, take, after)
    return parts


def _pooled(module: nn.Module, x: Tensor, pool: str) -> Tensor:
    """The output of a layer (B, ...) → rows (B, D) in full precision; see `extract_features`."""
    if pool == "flat" or x.ndim <= 2:
        return x.flatten(1) if x.ndim > 1 else x[:, None]
    first = norm_layers(module) == [module] or isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    last = type(module) in (nn.Linear, nn.LayerNorm) or (x.ndim == 3 and not first)
    places = x.movedim(-1 if last else 1, 1).flatten(2)  # (B, C, P)
    full = torch.float64 if x.dtype == torch.float64 else torch.float32
    return places.mean(dim=2, dtype=full) if pool == "mean" else places.amax(dim=2)


def _first_tensor(output: Any) -> Tensor | None:
    """The first tensor in what a module returns: itself, or in a tuple, list or dict, however deep."""
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output
    if isinstance(output, Mapping | list | tuple):
        return next((x for x in map(_first_tensor, parts) if x is not None), None)
    return None
