"""What any layer of any torch network says of images, and what its batch-norm layers see.

Layers are chosen by the names of modules. The features of a hundred thousand images need not fit into memory:
they are pooled in the forward pass, written away a batch at a time, and kept on disk by content if wanted.
The network is only looked at: hooks, modes, statistics and random state are afterwards as they were.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from socketlab.cache import ROOM, Cache, Entry, opened
from socketlab.errors import LabError
from socketlab.measures.forward import ForwardPass, Hook, Images, Progress, Transform
from socketlab.measures.growing import GrowingArrays
from socketlab.networks.networks import norm_layers

Pattern = str | re.Pattern[str]
POOLS = ("mean", "max", "flat", "spatial")


def layer_names(network: nn.Module, pattern: Pattern | Sequence[Pattern] = "*") -> list[str]:
    """Names of modules, in their order, that match a pattern.

    Parameters
    ----------
    network : any.
    pattern : a glob (``"layer[1-4]"``, ``"*.bn?"``; ``*`` matches dots too), a compiled regular expression
        that fits the whole name, or several of both. ``""`` is the network itself: its output.

    Raises
    ------
    LabError : a pattern matches nothing; the message lists names that are near.
    """
    every = [name for name, _ in network.named_modules(remove_duplicate=False)]
    # weights under a parametrization are modules too, but say nothing of an image
    usual = [name for name, _ in network.named_modules() if name and ".parametrizations." not in f".{name}."]
    chosen: set[str] = set()
    for one in [pattern] if isinstance(pattern, str | re.Pattern) else pattern:
        if isinstance(one, str) and one in every:
            found = {one}
        elif isinstance(one, str):
            found = set(fnmatch.filter(usual, one))
        else:
            found = {name for name in usual if one.fullmatch(name)}
        if not found:
            raise LabError(_no_such_layer(network, one, usual))
        chosen |= found
    return [name for name in dict.fromkeys(every) if name in chosen]


def _no_such_layer(network: nn.Module, pattern: Pattern, names: list[str]) -> str:
    wanted = pattern if isinstance(pattern, str) else pattern.pattern
    near = difflib.get_close_matches(wanted, names, n=4, cutoff=0.5)
    near = near or [name for name in names if "." not in name][:8]
    told = f"near it are {', '.join(near)}" if near else "it has no layers by name"
    return f"{type(network).__name__} has no layer {wanted!r}: {told}."


@dataclass(frozen=True)
class Pooling:
    """How the output of a layer becomes rows: see `extract_features`."""

    pool: str = "mean"
    positions: int | None = None
    channels: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise LabError(f"There is no pool {self.pool!r}: choose one of {', '.join(POOLS)}.")
        if self.positions is not None and (self.pool != "spatial" or self.positions < 1):
            raise LabError(f'positions={self.positions} is for pool="spatial", and at least 1.')

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        """The output of a layer (B, ...) → (B, D), or (B, P, C) when spatial; full precision."""
        full = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        if self.pool == "flat" or x.ndim <= 2:
            rows = x.flatten(1) if x.ndim > 1 else x[:, None]
            return rows[:, None].to(full) if self.pool == "spatial" else rows.to(full)
        places = x.movedim(self._channel_dimension(module, x), 1).flatten(2)  # (B, C, P)
        if self.pool == "mean":
            return places.mean(dim=2, dtype=full)
        if self.pool == "max":
            return places.amax(dim=2).to(full)
        return places[:, :, self._drawn(places.shape[2])].transpose(1, 2).to(full)

    def _channel_dimension(self, module: nn.Module, x: Tensor) -> int:
        if self.channels is not None:
            if not -x.ndim <= self.channels < x.ndim or self.channels % x.ndim == 0:
                raise LabError(f"channels={self.channels} is no dimension of an output {tuple(x.shape)}.")
            return self.channels
        if type(module) in (nn.Linear, nn.LayerNorm):
            return -1
        if isinstance(module, _BatchNorm | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return 1
        return -1 if x.ndim == 3 else 1

    def _drawn(self, places: int) -> Tensor:
        """Which places are kept: the same ones in every image, and in every layer of as many."""
        if self.positions is None or self.positions >= places:
            return torch.arange(places)
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(places, generator=generator)[: self.positions].sort().values


def extract_features(
    network: nn.Module,
    images: Images,
    layers: Pattern | Sequence[Pattern] = "*",
    transform: Transform = None,
    *,
    pool: str = "mean",
    positions: int | None = None,
    channels: int | None = None,
    dtype: DTypeLike = "float32",
    batch: int = 256,
    device: torch.device | str | None = None,
    precision: str = "auto",
    seed: int = 0,
    budget: int = ROOM,
    cache: Cache | str | None = None,
    progress: Progress | None = None,
) -> dict[str, NDArray[Any]]:
    """Features of images at chosen layers, in eval mode, without gradient.

    A layer that is called several times in one pass counts with its last output; of a tuple, list or dict
    that a layer returns, the first tensor counts. Layers named in full must be reached in the forward pass;
    of those that a pattern matches, the ones that are not, or return nothing per image, are left out.

    Parameters
    ----------
    network : any module that takes a batch of images.
    images : `PairedImages` of one modality, a tensor (N, C, H, W), or batches that can be read again.
    layers : for `layer_names`.
    transform : a `Normalisation` (which takes the centre view of `PairedImages`), or any function of a batch.
    pool : over places, "mean" or "max" → (N, C); "flat" keeps all numbers → (N, C·H·W); "spatial" keeps
        places → (N, P, C).
    positions : with "spatial", how many places to keep, drawn once with ``seed`` for all images.
    channels : the dimension of an output that holds the channels. Unless told: the last one of linear layers,
        layer norms and token sequences (B, T, C), else 1.
    dtype : of the numbers kept, "float32" or "float16" (half the room, 3 digits, up to 65,504).
    batch : images at a time, where they do not come in batches.
    device : where to compute; elsewhere than the network lies, on a copy of it. None: where it lies.
    precision : "auto" (bfloat16 where the processor is made for it), "float32" or "bfloat16" of convolutions
        and products; pooling sums in float32.
    budget : bytes of features that may gather in memory; more of them are memory maps of files.
    cache : a `Cache` or a folder in which results are kept by content; None for none.
    progress : called as ``progress(images done, images in all or None)``.

    Returns
    -------
    name → array, in the order of the modules; read-only maps of files where large.

    Raises
    ------
    LabError : no such layer; one named in full is never reached, or returns nothing per image; images that
        are none, integers, or of several sizes where places are kept; numbers too large for float16; with a
        cache, images that can be read once only, or differ when read again.
    """
    names = layer_names(network, layers)
    asked = [layers] if isinstance(layers, str | re.Pattern) else layers
    exact = [name for name in names if name in asked]
    if np.dtype(dtype).kind != "f":
        raise LabError(f"Features are kept as float16 or float32, not {np.dtype(dtype)}.")
    pooling = Pooling(pool, positions, channels, seed)
    run = ForwardPass(network, images, transform, batch, device, precision, progress)

    def write(rows: GrowingArrays) -> None:
        _read_layers(run, names, exact, pooling, rows)

    store = opened(cache)
    if store is None:
        with GrowingArrays(dtype, None, budget) as rows:
            write(rows)
            return rows.finish()

    def make(entry: Entry) -> None:
        with GrowingArrays(dtype, entry.file, 0) as rows:
            write(rows)
            rows.finish()

    how = [pool, positions, channels, seed, np.dtype(dtype).str]
    return store.get(run.fingerprint("features", names, exact, how), make, budget)


@dataclass(frozen=True)
class NormStatistics:
    """What one batch-norm layer remembers, and what it saw: float64 tensors (C,) on the CPU.

    Parameters
    ----------
    name : of the module.
    running_mean, running_var : remembered from training; torch averages the *unbiased* variance of batches.
    mean, var : of the layer's input over all images and places; biased, as batch norm normalises.
    count : values per channel behind them: images × places.
    eps : what the layer adds to a variance.
    """

    name: str
    running_mean: Tensor
    running_var: Tensor
    mean: Tensor
    var: Tensor
    count: int
    eps: float


def norm_statistics(
    network: nn.Module,
    images: Images,
    transform: Transform = None,
    *,
    batch: int = 256,
    device: torch.device | str | None = None,
    precision: str = "auto",
    cache: Cache | str | None = None,
    progress: Progress | None = None,
) -> list[NormStatistics]:
    r"""Mean and variance of these images at the input of every batch-norm layer, beside what it remembers.

    The network runs in eval mode: each layer sees the images as the layers before it, normalising by what
    *they* remember, pass them on. Batches A and B are merged in float64, with M the sum of squared deviations
    and δ the difference of the means:

    .. math:: M = M_A + M_B + \delta^2 \frac{n_A n_B}{n_A + n_B}

    so that the result is that of all images at once.

    Parameters
    ----------
    network, images, transform, batch, device, precision, cache, progress : as for `extract_features`.

    Returns
    -------
    One record per layer that was reached, in the order of the modules.

    Raises
    ------
    LabError : the network has no batch norm with running statistics, or none was reached.

    Source: Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances,
    1979, eq. 2.1.
    """
    layers = {name: m for name, m in network.named_modules() if isinstance(m, _BatchNorm)}
    layers = {name: m for name, m in layers.items() if m.running_mean is not None}
    if not layers:
        few = "only without running statistics" if norm_layers(network) else "none"
        raise LabError(
            f"{type(network).__name__} has no batch-norm statistics to compare (batch-norm layers: {few}): "
            "compare its features instead, with extract_features and a distance such as MMD, CKA or Fréchet."
        )
    run = ForwardPass(network, images, transform, batch, device, precision, progress)
    store = opened(cache)
    if store is None:
        seen = _read_norms(run, list(layers))
    else:
        key = run.fingerprint("norm statistics")
        seen = store.get(key, lambda entry: entry.save(_read_norms(run, list(layers))))
    return [_record(name, layers[name], rows) for name, rows in seen.items()]


def _record(name: str, layer: _BatchNorm, seen: NDArray[Any]) -> NormStatistics:
    count, mean, var = torch.tensor(seen, dtype=torch.float64)
    running_mean, running_var = _remembered(layer.running_mean), _remembered(layer.running_var)
    return NormStatistics(name, running_mean, running_var, mean, var, int(count[0]), layer.eps)


def _remembered(buffer: Tensor | None) -> Tensor:
    assert buffer is not None
    return buffer.detach().cpu().to(torch.float64).clone()


@dataclass
class Moments:
    """Count, mean and sum of squared deviations per channel, of all values so far, in float64."""

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, x: Tensor, values: int = 2**22) -> None:
        """Take in (B, C, ...) values, a slice of images at a time: float64 needs twice their room."""
        for part in x.split(max(1, values * len(x) // max(1, x.numel()))):
            part = (part.cpu() if part.is_mps else part).to(torch.float64)  # Apple's GPUs have no float64
            var, mean = torch.var_mean(part, dim=[0, *range(2, part.ndim)], correction=0)
            count = part.numel() // part.shape[1]
            self._merge(count, mean.cpu(), var.cpu() * count)

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        apart = mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + squares + apart.square() * (self.count * count / total)
        self.count = total

    def rows(self) -> NDArray[np.float64]:
        """Count, mean and biased variance: (3, C)."""
        count = torch.full_like(self.mean, self.count)
        return torch.stack([count, self.mean, self.squares / self.count]).numpy()


def _read_norms(run: ForwardPass, names: list[str]) -> dict[str, NDArray[Any]]:
    """Name → count, mean and variance (3, C) of the layer's input."""
    moments = {name: Moments() for name in names}

    def watcher(name: str) -> Hook:
        return lambda module, inputs: moments[name].add(inputs[0])

    def hooks(network: nn.Module) -> list[tuple[nn.Module, Hook]]:
        return [(network.get_submodule(name), watcher(name)) for name in names]

    run.run(hooks, after=lambda: None, before=True)
    reached = {name: one.rows() for name, one in moments.items() if one.count}
    if not reached:
        raise LabError(
            f"No batch-norm layer of {type(run.network).__name__} was called in its forward pass: are they "
            "folded into other layers, or called by their forward()?"
        )
    return reached


def _read_layers(
    run: ForwardPass, names: list[str], exact: list[str], pooling: Pooling, rows: GrowingArrays
) -> None:
    """One pass over all images; after each batch the rows of each layer are written away."""
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
                found[name] = pooling(module, tensor).clone()

        return keep

    def hooks(network: nn.Module) -> list[tuple[nn.Module, Hook]]:
        return [(network.get_submodule(name), watcher(name)) for name in names]

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

    run.run(hooks, after)


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
