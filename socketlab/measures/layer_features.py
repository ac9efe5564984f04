"""Features of images at any layer of any torch network; hooks, modes and random state are left as they were.

Features are pooled in the forward pass, and with a cache written to disk a batch at a time, so that those of
a hundred thousand images need not fit into memory.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from socketlab.cache import ROOM, Cache, Entry, feed_bytes, fingerprint, opened
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
        self._digest: str | None = None

    def fingerprint(self, *options: Any) -> str:
        """Of all that the numbers depend on; takes a reading of the images."""
        if not isinstance(self.images, Tensor | PairedImages) and iter(self.images) is self.images:
            raise LabError(
                "These images can be read once, and a cache reads them twice: give a list, a tensor or a "
                "DataLoader, or no cache."
            )
        content = hashlib.sha256()
        with _steady_randomness():
            self.count = sum(len(encoded) for encoded in self._encoded(content))
        self._digest = content.hexdigest()
        products = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        where = [self.device.type, self.half, torch.__version__, *products]
        return fingerprint(1, self.network, self._digest, where, list(options))

    def run(
        self, names: Iterable[str], take: Callable[[str, Any], None], after: Callable[[], None] | None = None,
        inputs: bool = False,
    ) -> None:  # fmt: skip
        """Pass all images: ``take(name, output or input)`` at each call of a layer, ``after`` each batch."""

        def hook(name: str, module: nn.Module, given: Any, *output: Any) -> None:
            take(name, output[0] if output else given[0])

        done, content = 0, hashlib.sha256()
        numbers = torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
        with _steady_randomness(), evaluating(self.network), torch.no_grad(), numbers, ExitStack() as stack:
            for name in names:
                layer = self.network.get_submodule(name)
                add: Any = layer.register_forward_pre_hook if inputs else layer.register_forward_hook
                stack.callback(add(partial(hook, name)).remove)
            for encoded in self._encoded(content if self._digest else None):
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
        if self._digest not in (None, content.hexdigest()):
            raise LabError(
                "The images differed when they were read again, so nothing was kept: take shuffling and "
                "random changes out of what loads them, or give no cache."
            )

    def _encoded(self, content: Any = None) -> Iterator[Tensor]:
        """Encoded batches in the network's type of numbers; a hash takes them in, whatever their sizes."""
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
        done, shape = 0, None
        for stored in batches:
            batch = stored if encode is None else encode(stored)
            if not isinstance(batch, Tensor) or not batch.is_floating_point() or batch.ndim < 2:
                what = f"{batch.dtype} {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch)
                raise LabError(
                    f"A network reads batches (B, C, H, W) of floats, not {what}: give a transform."
                )
            batch = batch.to(self.dtype)
            if content is not None:
                if shape != batch.shape[1:]:
                    shape = batch.shape[1:]
                    content.update(f"<{done} {self.dtype} {tuple(shape)}>".encode())
                feed_bytes(content, batch)
            done += len(batch)
            yield batch


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
    budget: int = ROOM, cache: Cache | str | None = None, progress: Progress | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Features of images at chosen layers, in eval mode, without gradient, on the network's device.

    A layer that is called several times counts with its last output; of a tuple, list or dict the first
    tensor counts. Layers named in full must be reached in the forward pass; of those that a pattern matches,
    the ones that are not, or return nothing per image, are left out.

    Parameters
    ----------
    images : `PairedImages` of one modality, a tensor (N, C, H, W), a list of (C, H, W), or batches that can
        be read again; floats of another size are converted to the network's.
    layers : for `layer_names`.
    transform : a `Normalisation` (which takes the centre view of `PairedImages`), or any function of a batch.
    pool : over places, "mean" or "max" → (N, C); "flat" keeps all numbers → (N, C·H·W). The channels are the
        last dimension of linear layers, layer norms and token sequences (B, T, C), else dimension 1.
    precision : "auto" (bfloat16 where the processor is made for it), "float32" or "bfloat16" of convolutions
        and products; pooling sums in float32.
    budget : bytes of cached features that are read into memory; more of them are memory maps of files.
    cache : a `Cache` or a folder in which results are kept by content; None for none.

    Returns
    -------
    name → float32 array, in the order of the modules; of a cache, read-only maps of files where large.

    Raises
    ------
    LabError : no such layer; one named in full is never reached, or returns nothing per image; images that
        are none, integers, or of several sizes with pool="flat"; with a cache, images that can be read once
        only, or differ when read again.
    """
    names = layer_names(network, layers)
    exact = [name for name in names if name in _patterns(layers)]
    if pool not in POOLS:
        raise LabError(f"There is no pool {pool!r}: choose one of {', '.join(POOLS)}.")
    run, store = ForwardPass(network, images, transform, batch, precision, progress), opened(cache)
    if store is None:
        parts: dict[str, list[NDArray[Any]]] = {}
        _read_layers(run, names, exact, pool, lambda name, rows: parts.setdefault(name, []).append(rows))
        return {name: np.concatenate(rows) for name, rows in parts.items()}

    def make(entry: Entry) -> None:
        def append(name: str, rows: NDArray[Any]) -> None:
            entry.append(name, rows, (run.count or 0, *rows.shape[1:]))

        _read_layers(run, names, exact, pool, append)

    return store.get(run.fingerprint("features", names, exact, pool, "<f4"), make, budget)


def _read_layers(
    run: ForwardPass, names: list[str], exact: list[str], pool: str,
    append: Callable[[str, NDArray[Any]], None],
) -> None:  # fmt: skip
    """One pass over all images; after each batch the rows of each layer are appended."""
    found: dict[str, Tensor] = {}
    refused: dict[str, str] = {}
    widths: dict[str, tuple[int, ...]] = {}

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
        if not widths and missing:
            never = "is never called in the forward pass (a container, or called by its forward()?)"
            raise LabError(
                f"Layer {missing[0]!r} of {type(run.network).__name__} {refused.get(missing[0], never)}: "
                "choose another; layer_names lists them."
            )
        if widths and widths.keys() != reached.keys():
            differing = ", ".join(sorted(widths.keys() ^ reached.keys()))
            raise LabError(f"Layers {differing} are reached for some batches and not for others.")
        for name, rows in reached.items():
            if rows.shape[1:] != widths.setdefault(name, rows.shape[1:]):
                raise LabError(
                    f"{name!r} is {widths[name]} wide for some images and {rows.shape[1:]} for others: give "
                    'images of one size, or average over places with pool="mean".'
                )
            append(name, rows)
        found.clear()

    run.run(names, take, after)


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
