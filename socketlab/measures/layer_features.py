"""Features of images at any layer of any torch network.

Layers are chosen by the names of modules. Features are pooled in the forward pass, and with a cache written
to disk a batch at a time, so that those of a hundred thousand images need not fit into memory. The network is
left as it was: hooks, modes, statistics and random state.
"""

from __future__ import annotations

import copy
import difflib
import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
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
Hook = Callable[..., None]
Hooks = Callable[[nn.Module], list[tuple[nn.Module, Hook]]]

PRECISIONS = ("auto", "float32", "bfloat16")
POOLS = ("mean", "max", "flat")


# ---- names


def layer_names(network: nn.Module, pattern: Pattern | Sequence[Pattern] = "*") -> list[str]:
    """Names of modules, in their order, that match a pattern.

    Parameters
    ----------
    pattern : a glob (``"layer[1-4]"``, ``"*.bn?"``; ``*`` matches dots too), a compiled regular expression
        that fits the whole name, or several of both. ``""`` is the network itself: its output.

    Raises
    ------
    LabError : a pattern matches nothing; the message lists names that are near.
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
            raise LabError(_no_such_layer(network, one, usual))
        chosen |= found
    return [name for name in dict.fromkeys(every) if name in chosen]


def _patterns(pattern: Pattern | Sequence[Pattern]) -> Sequence[Pattern]:
    return pattern if isinstance(pattern, list | tuple | set | dict) else [pattern]  # type: ignore[list-item]


def _no_such_layer(network: nn.Module, pattern: Pattern, names: list[str]) -> str:
    wanted = pattern if isinstance(pattern, str) else pattern.pattern
    near = difflib.get_close_matches(wanted, names, n=4, cutoff=0.5)
    near = near or [name for name in names if "." not in name][:8]
    listed = f"near it are {', '.join(near)}" if near else "it has no layers by name"
    return f"{type(network).__name__} has no layer {wanted!r}: {listed}."


# ---- images in, a batch at a time


class Reader:
    """Images of any kind as encoded batches, in the network's type of numbers; read again at every ``iter``.

    Raises
    ------
    LabError : `PairedImages` without a transform; reading images that are not floats, nor become so.
    """

    def __init__(self, images: Images, transform: Transform, batch: int, dtype: torch.dtype) -> None:
        if batch < 1:
            raise LabError(f"batch is {batch}; a pass takes 1 image or more at a time.")
        self.transform, self.batch, self.dtype = transform, batch, dtype
        if isinstance(images, PairedImages) and transform is None:
            raise LabError("PairedImages are as the sensor stored them: give the network's normalisation.")
        if isinstance(images, list) and images and all(np.ndim(one) == 3 for one in images):
            if len({tuple(one.shape) for one in images}) > 1:
                raise LabError("These images are of several sizes: give batches, each of one size.")
            images = torch.stack([torch.as_tensor(one) for one in images])
        self.images = torch.as_tensor(images) if isinstance(images, np.ndarray) else images

    @property
    def total(self) -> int | None:
        """How many images there are, where that is known before they are read."""
        return len(self.images) if isinstance(self.images, Tensor | PairedImages) else None

    def __iter__(self) -> Iterator[Tensor]:
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
            encoded = stored if encode is None else encode(stored)
            if not isinstance(encoded, Tensor) or not encoded.is_floating_point() or encoded.ndim < 2:
                kind = type(encoded)
                what = f"{encoded.dtype} {tuple(encoded.shape)}" if isinstance(encoded, Tensor) else kind
                raise LabError(
                    f"A network reads batches (B, C, H, W) of floats, not {what}: give a transform."
                )
            yield encoded.to(self.dtype)

    def digest(self) -> tuple[str, int]:
        """SHA-256 of the images as the network reads them, and their count; takes a reading."""
        if not isinstance(self.images, Tensor | PairedImages) and iter(self.images) is self.images:
            raise LabError(
                "These images can be read once, and a cache reads them twice: give a list, a tensor or a "
                "DataLoader, or no cache."
            )
        state = ContentDigest()
        with steady_randomness():
            for encoded in self:
                state.add(encoded)
        return state.hex(), state.count


class ContentDigest:
    """SHA-256 of a stream of batches, whatever their sizes."""

    def __init__(self) -> None:
        self.count = 0
        self._state = hashlib.sha256()
        self._like: tuple[Any, ...] = ()

    def add(self, batch: Tensor) -> None:
        """Take in one more batch."""
        if self._like != (batch.shape[1:], batch.dtype):
            self._like = (batch.shape[1:], batch.dtype)
            self._state.update(f"<{self.count} {batch.dtype} {tuple(batch.shape[1:])}>".encode())
        feed_bytes(self._state, batch)
        self.count += len(batch)

    def hex(self) -> str:
        """The digest so far."""
        return self._state.hexdigest()


class ForwardPass:
    """All images through a network, in eval mode, without gradients, a batch at a time.

    Parameters
    ----------
    network, images, transform, batch, device, precision, progress : see `extract_features`.

    Raises
    ------
    LabError : an unknown precision, a network that is none, or images that `Reader` refuses.
    """

    def __init__(
        self, network: nn.Module, images: Images, transform: Transform = None, batch: int = 256,
        device: torch.device | str | None = None, precision: str = "auto", progress: Progress | None = None,
    ) -> None:  # fmt: skip
        if precision not in PRECISIONS:
            raise LabError(f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
        if not isinstance(network, nn.Module):
            raise LabError(f"A network is a torch module, not {network!r}: load one with load_source.")
        self.network, self.progress = network, progress
        kept = next((x.dtype for x in network.parameters() if x.is_floating_point()), torch.float32)
        self.reader = Reader(images, transform, batch, kept)
        self.device = device_of(network) if device is None else _existing(device)
        self.half = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(self.device))
        self.size = 0
        self.count: int | None = self.reader.total
        self._digest: str | None = None

    def fingerprint(self, *options: Any) -> str:
        """Of all that the numbers depend on; takes a reading of the images."""
        self._digest, self.count = self.reader.digest()
        products = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        where = [self.device.type, self.half, torch.__version__, *products]
        return fingerprint(1, self.network, self._digest, where, list(options))

    def run(self, hooks: Hooks, after: Callable[[], None], before: bool = False) -> None:
        """Pass all images; ``size`` is that of the current batch.

        Parameters
        ----------
        hooks : from the network (or its copy on the device) to modules and their hooks.
        after : called after each batch.
        before : whether hooks come before the forward pass of their modules.

        Raises
        ------
        LabError : there are no images, the network cannot read them, or they differ from those of the
            fingerprint.
        """
        done, seen = 0, ContentDigest()
        with _evaluated(self.network, self.device, self.half) as network, ExitStack() as stack:
            for module, hook in hooks(network):
                add = module.register_forward_pre_hook if before else module.register_forward_hook
                stack.callback(add(hook).remove)
            for encoded in self.reader:
                if self._digest is not None:
                    seen.add(encoded)
                self.size = len(encoded)
                try:
                    network(encoded.to(self.device))
                except (RuntimeError, ValueError, TypeError, AssertionError) as error:
                    raise LabError(_why_unread(network, encoded, error)) from error
                after()
                done += self.size
                if self.progress is not None:
                    self.progress(done, self.reader.total)
        if done == 0:
            raise LabError("There are no images to measure.")
        if self._digest not in (None, seen.hex()):
            raise LabError(
                "The images differed when they were read again, so nothing was kept: take shuffling and "
                "random changes out of what loads them, or give no cache."
            )


def _why_unread(network: nn.Module, batch: Tensor, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    last = batch.ndim == 4 and batch.shape[1] not in (1, 3) and batch.shape[-1] in (1, 3)
    cure = "move the channels forward, as images.permute(0, 3, 1, 2)" if last else "give (B, C, H, W)"
    return f"{type(network).__name__} does not run on images {tuple(batch.shape)} ({reason}): {cure}."


def _existing(device: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"There is no device {str(device)!r} here ({reason}): choose another.") from error


@contextmanager
def steady_randomness() -> Iterator[None]:
    """The same random numbers in every such block; torch's generators, CPU and CUDA, are then put back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        yield


@contextmanager
def _evaluated(network: nn.Module, device: torch.device, half: bool) -> Iterator[nn.Module]:
    """The network in eval mode, or a copy of it where it does not lie on the device."""
    lies = device_of(network)
    same = lies.type == device.type and device.index in (None, lies.index)
    there = network if same else copy.deepcopy(network).to(device)
    numbers = torch.autocast(device.type, torch.bfloat16, enabled=half)
    with steady_randomness(), evaluating(there), torch.no_grad(), numbers:
        yield there


# ---- features


def pooled_rows(module: nn.Module, x: Tensor, pool: str) -> Tensor:
    """The output of a layer (B, ...) → rows (B, D) in full precision; see `extract_features`."""
    full = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    if pool == "flat" or x.ndim <= 2:
        return (x.flatten(1) if x.ndim > 1 else x[:, None]).to(full)
    first = norm_layers(module) == [module] or isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    last = type(module) in (nn.Linear, nn.LayerNorm) or (x.ndim == 3 and not first)
    places = x.movedim(-1 if last else 1, 1).flatten(2)  # (B, C, P)
    return places.mean(dim=2, dtype=full) if pool == "mean" else places.amax(dim=2).to(full)


def extract_features(
    network: nn.Module, images: Images, layers: Pattern | Sequence[Pattern] = "*",
    transform: Transform = None, *, pool: str = "mean", dtype: DTypeLike = "float32", batch: int = 256,
    device: torch.device | str | None = None, precision: str = "auto", budget: int = ROOM,
    cache: Cache | str | None = None, progress: Progress | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Features of images at chosen layers, in eval mode, without gradient.

    A layer that is called several times in one pass counts with its last output; of a tuple, list or dict
    that a layer returns, the first tensor counts. Layers named in full must be reached in the forward pass;
    of those that a pattern matches, the ones that are not, or return nothing per image, are left out.

    Parameters
    ----------
    network : any module that takes a batch of images.
    images : `PairedImages` of one modality, a tensor (N, C, H, W), a list of (C, H, W), or batches that can
        be read again; floats of another size are converted to the network's.
    layers : for `layer_names`.
    transform : a `Normalisation` (which takes the centre view of `PairedImages`), or any function of a batch.
    pool : over places, "mean" or "max" → (N, C); "flat" keeps all numbers → (N, C·H·W). The channels are the
        last dimension of linear layers, layer norms and token sequences (B, T, C), else dimension 1.
    dtype : of the numbers kept, "float32" or "float16" (half the room, 3 digits, up to 65,504).
    batch : images at a time, where they do not come in batches.
    device : where to compute; elsewhere than the network lies, on a copy of it. None: where it lies.
    precision : "auto" (bfloat16 where the processor is made for it), "float32" or "bfloat16" of convolutions
        and products; pooling sums in float32.
    budget : bytes of cached features that are read into memory; more of them are memory maps of files.
    cache : a `Cache` or a folder in which results are kept by content; None for none.
    progress : called as ``progress(images done, images in all or None)``.

    Returns
    -------
    name → array, in the order of the modules; of a cache, read-only maps of files where large.

    Raises
    ------
    LabError : no such layer; one named in full is never reached, or returns nothing per image; images that
        are none, integers, or of several sizes with pool="flat"; numbers too large for float16; with a cache,
        images that can be read once only, or differ when read again.
    """
    names = layer_names(network, layers)
    exact = [name for name in names if name in _patterns(layers)]
    if np.dtype(dtype).kind != "f":
        raise LabError(f"Features are kept as float16 or float32, not {np.dtype(dtype)}.")
    if pool not in POOLS:
        raise LabError(f"There is no pool {pool!r}: choose one of {', '.join(POOLS)}.")
    run = ForwardPass(network, images, transform, batch, device, precision, progress)
    store = opened(cache)
    if store is None:
        rows = Rows(np.dtype(dtype))
        _read_layers(run, names, exact, pool, rows)
        return {name: np.concatenate(parts) for name, parts in rows.parts.items()}

    def make(entry: Entry) -> None:
        _read_layers(run, names, exact, pool, Rows(np.dtype(dtype), entry, run.count))

    key = run.fingerprint("features", names, exact, pool, np.dtype(dtype).str)
    return store.get(key, make, budget)


@dataclass
class Rows:
    """Rows of each layer, gathered in memory or, where their count is known, written to a cache's entry."""

    dtype: np.dtype[Any]
    entry: Entry | None = None
    count: int | None = None
    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    widths: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def append(self, name: str, rows: NDArray[Any]) -> None:
        """Add rows (n, ...) of a layer; a LabError for another width than before, or an overflow."""
        width = self.widths.setdefault(name, rows.shape[1:])
        if rows.shape[1:] != width:
            raise LabError(
                f"{name!r} is {width} wide for some images and {rows.shape[1:]} for others: give images of "
                'one size, or average over places with pool="mean".'
            )
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(rows, dtype=self.dtype)
        if kept.dtype.itemsize < rows.dtype.itemsize and (np.isinf(kept) & np.isfinite(rows)).any():
            largest = np.abs(rows[np.isfinite(rows)]).max()
            raise LabError(f"{name!r} reaches {largest:.3g}, too much for {self.dtype}: keep it as float32.")
        if self.entry is None:
            self.parts.setdefault(name, []).append(kept)
        else:
            self.entry.append(name, kept, (self.count or 0, *width))


def _read_layers(run: ForwardPass, names: list[str], exact: list[str], pool: str, rows: Rows) -> None:
    """One pass over all images; after each batch the rows of each layer are appended."""
    found: dict[str, Tensor] = {}
    refused: dict[str, str] = {}
    expected: list[str] = []

    def watcher(name: str) -> Hook:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None:
                refused[name] = f"returns a {type(output).__name__} without a tensor"
            elif tensor.ndim == 0 or len(tensor) != run.size:
                refused[name] = f"returns {tuple(tensor.shape)} for a batch of {run.size} images"
            else:  # a copy: the next layer may work in place
                found[name] = pooled_rows(module, tensor, pool).clone()

        return keep

    def after() -> None:
        reached = [name for name in names if name in found]
        if not expected:
            _require_reached(run.network, names, exact, reached, refused)
            expected.extend(reached)
        if reached != expected:
            differing = sorted(set(reached) ^ set(expected))
            raise LabError(f"Layers {', '.join(differing)} are reached for some batches and not for others.")
        for name in reached:
            rows.append(name, found[name].cpu().numpy())
        found.clear()

    run.run(lambda network: [(network.get_submodule(name), watcher(name)) for name in names], after)


def _require_reached(
    network: nn.Module, names: list[str], exact: list[str], reached: list[str], refused: Mapping[str, str]
) -> None:
    wanted = [name for name in exact if name not in reached]
    if wanted or not reached:
        name = (wanted or names)[0]
        never = "is never called in the forward pass (a container, or called by its forward()?)"
        raise LabError(
            f"Layer {name!r} of {type(network).__name__} {refused.get(name, never)}: choose another; "
            "layer_names lists them."
        )


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor in what a module returns: itself, or in a tuple, list or dict, however deep."""
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output
    if isinstance(output, Mapping | list | tuple):
        return next((x for x in map(first_tensor, parts) if x is not None), None)
    return None
