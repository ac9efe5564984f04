"""Statistics at the input of every batch-norm layer: of all images at once, and of every image alone.

`norm_statistics` merges batches as they pass. `image_moments` keeps mean and variance of each image, from
which those of *any* batch follow; so do shift and scale of a layer's input, and running averages: a slider
over the batch size needs one pass over the images and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from socketlab.cache import Cache, opened
from socketlab.errors import LabError
from socketlab.measures.feature_sets import Features, no_grad_no_autocast
from socketlab.measures.layer_features import ForwardPass, Hook, Images, Progress, Transform
from socketlab.method.bnstats import Moments, moments, pooled
from socketlab.method.losses import gaussian_divergence
from socketlab.networks.networks import norm_layers

EPS = 1e-5  # what torch's layers add to a variance
Statistics = tuple[Tensor, Tensor]
"""Mean and variance of each channel, (C,) float64."""


def norm_names(network: nn.Module) -> list[str]:
    """Names of the batch-norm layers with running statistics, or a LabError."""
    layers = norm_layers(network)
    wanted = {id(layer) for layer in layers if layer.running_mean is not None}
    names = [name for name, layer in network.named_modules() if id(layer) in wanted]
    if not names:
        few = "only without running statistics" if layers else "none"
        raise LabError(
            f"{type(network).__name__} has no batch-norm statistics to compare (batch-norm layers: {few}): "
            "compare its features instead, with extract_features and a distance such as MMD, CKA or Fréchet."
        )
    return names


def _memory(layer: nn.Module) -> Statistics:
    """Running mean and variance of a layer: float64, on the CPU."""
    return layer.running_mean.detach().cpu().double(), layer.running_var.detach().cpu().double()  # type: ignore


def _pass(run: ForwardPass, names: Sequence[str], add: Callable[[str, Tensor], object]) -> None:
    """Call ``add(name, input)`` for every batch that reaches one of the layers."""

    def watcher(name: str) -> Hook:
        def pre_hook(module: nn.Module, inputs: Any) -> None:
            add(name, inputs[0].detach())

        return pre_hook

    def hooks(network: nn.Module) -> list[tuple[nn.Module, Hook]]:
        return [(network.get_submodule(name), watcher(name)) for name in names]

    run.run(hooks, after=lambda: None, before=True)


# ---- all images at once


@dataclass(frozen=True)
class NormStatistics:
    """Running statistics of one batch-norm layer beside those of its input: float64 tensors (C,) on the CPU.

    Parameters
    ----------
    name : of the module.
    running_mean, running_var : of training; torch averages the *unbiased* variance of batches.
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
    r"""Mean and variance of these images at the input of every batch-norm layer, beside its running ones.

    The network runs in eval mode: each layer sees the images as the layers before it, normalising by *their*
    running statistics, pass them on. Batches are merged in float64 (`bnstats.pooled`): the result is that of
    all images at once.

    Parameters
    ----------
    network, images, transform, batch, device, precision, cache, progress : as for
        `layer_features.extract_features`.

    Returns
    -------
    One record per layer that was reached, in the order of the modules.

    Raises
    ------
    LabError : the network has no batch norm with running statistics, or none was reached.
    """
    names = norm_names(network)
    run = ForwardPass(network, images, transform, batch, device, precision, progress)
    store = opened(cache)
    if store is None:
        seen = _merged(run, names)
    else:
        key = run.fingerprint("norm statistics")
        seen = store.get(key, lambda entry: entry.save(_merged(run, names)))
    records = []
    for name, rows in seen.items():
        layer: Any = network.get_submodule(name)
        count, mean, var = torch.tensor(np.asarray(rows))
        records.append(NormStatistics(name, *_memory(layer), mean, var, int(count[0]), layer.eps))
    return records


def _merged(run: ForwardPass, names: list[str]) -> dict[str, NDArray[Any]]:
    """Name → count, mean and biased variance of the layer's input, (3, C) float64."""
    parts: dict[str, list[Moments]] = {name: [] for name in names}

    def add(name: str, x: Tensor) -> None:
        for part in x.split(max(1, 2**22 * len(x) // max(1, x.numel()))):  # float64 needs twice their room
            found = moments((part.cpu() if part.is_mps else part).double())  # Apple's GPUs have no float64
            parts[name].append(Moments(found.mean.cpu(), found.variance.cpu(), found.size))

    _pass(run, names, add)
    reached = {name: pooled(found) for name, found in parts.items() if found}
    if not reached:
        raise LabError(
            f"No batch-norm layer of {type(run.network).__name__} was called in its forward pass: are they "
            "folded into other layers, or called by their forward()?"
        )
    return {
        name: torch.stack([torch.full_like(one.mean, float(one.size)), one.mean, one.variance]).numpy()
        for name, one in reached.items()
    }


# ---- every image alone


@dataclass(frozen=True)
class ImageMoments:
    """Mean and biased variance, over places, of every image at the input of one layer.

    Parameters
    ----------
    mean, var : (N, C) float64.
    places : values per image and channel; 1 after the average over places.
    remembered : the layer's running mean and variance, (C,) float64.
    """

    mean: Tensor
    var: Tensor
    places: int
    remembered: Statistics

    def __len__(self) -> int:
        return len(self.mean)

    def batch(self, rows: Tensor | None = None) -> Statistics:
        r"""Mean and biased variance of a batch of images: what the layer normalises by in training.

        .. math:: \mu = \operatorname{mean}_i \mu_i, \qquad v = \operatorname{mean}_i v_i
            + \operatorname{mean}_i (\mu_i - \mu)^2

        Parameters
        ----------
        rows : indices of the images; None takes all.
        """
        mean, var = (self.mean, self.var) if rows is None else (self.mean[rows], self.var[rows])
        return mean.mean(dim=0), var.mean(dim=0) + mean.var(dim=0, correction=0)

    def changed(self, scale: float = 1.0, shift: float = 0.0) -> ImageMoments:
        """The same images with an input of scale · x + shift · σ, with σ the running deviation."""
        moved = scale * self.mean + shift * self.remembered[1].sqrt()
        return replace(self, mean=moved, var=scale**2 * self.var)

    def count(self, batch_size: int) -> int:
        """N, the values per channel behind the statistics of a batch."""
        return batch_size * self.places


def image_moments(network: nn.Module, images: Images, transform: Transform = None) -> dict[str, ImageMoments]:
    """One pass in eval mode: for each batch-norm layer that was reached, the moments of every image.

    Parameters
    ----------
    network, images, transform : as for `norm_statistics`.

    Returns
    -------
    Name → moments, in the order of the modules.

    Raises
    ------
    LabError : the network has no batch norm with running statistics.
    """
    names = norm_names(network)
    found: dict[str, list[tuple[Tensor, Tensor, int]]] = {name: [] for name in names}

    def add(name: str, x: Tensor) -> None:
        places = x.double().reshape(*x.shape[:2], -1)
        found[name].append((places.mean(dim=2), places.var(dim=2, correction=0), places.shape[2]))

    _pass(ForwardPass(network, images, transform, precision="float32"), names, add)
    images_of = {}
    for name, parts in found.items():
        if parts:
            mean, var = (torch.cat([part[i] for part in parts]) for i in (0, 1))  # type: ignore[misc]
            images_of[name] = ImageMoments(mean, var, parts[0][2], _memory(network.get_submodule(name)))
    return images_of


def draws(count: int, batch_size: int, batches: int, seed: int = 0) -> list[Tensor]:
    """Rows of so many random batches of different images, one after the other."""
    if not 2 <= batch_size <= count:
        raise LabError(f"A batch of {batch_size} cannot be drawn: choose 2 to {count} images.")
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(count, generator=generator)[:batch_size] for _ in range(batches)]


def running(values: Sequence[Tensor], momentum: float, start: Tensor) -> Tensor:
    r"""The running average after each batch, as torch moves it: (T + 1, C), the start first.

    .. math:: r_t = (1 - \text{momentum}) \, r_{t-1} + \text{momentum} \cdot x_t

    Parameters
    ----------
    values : T tensors (C,), of one batch each.
    momentum : how far the average moves toward each batch, in [0, 1].
    start : (C,) the average before the first batch.
    """
    found = [start]
    for value in values:
        found.append((1 - momentum) * found[-1] + momentum * value)
    return torch.stack(found)


def layer_gaps(
    images: Mapping[str, ImageMoments], source: Mapping[str, ImageMoments], rows: Tensor | None = None
) -> list[float]:
    """Mean `divergence` of each layer: a batch (None: all images) from the running statistics of `source`."""
    pairs = ((images[name].batch(rows), one.remembered) for name, one in source.items())
    return [float(divergence(*pair).mean()) for pair in pairs]


def convergence(images: ImageMoments, batches: Sequence[Tensor], momentum: float) -> dict[str, list[float]]:
    """Running statistics against those of all images, batch by batch, from the layer's own ones on.

    Parameters
    ----------
    batches : T tensors of rows, equally many in each.
    momentum : how far the average moves toward each batch, in [0, 1].

    Returns
    -------
    T + 1 numbers each. "torch", "biased": the running variance of all channels together as a share of that
    of all images; torch takes N / (N − 1) times a batch's variance. "mean": the mean distance of the running
    mean from that of all images, in their standard deviations.
    """
    mean, var = images.batch()
    means, variances = zip(*(images.batch(rows) for rows in batches), strict=True)
    count, (first_mean, first_var) = images.count(len(batches[0])), images.remembered
    found = {}
    for name, factor in {"torch": count / (count - 1), "biased": 1.0}.items():
        moved = running([factor * one for one in variances], momentum, first_var)
        found[name] = (moved.sum(dim=1) / var.sum()).tolist()
    away = (running(means, momentum, first_mean) - mean).abs() / (var + EPS).sqrt()
    return found | {"mean": away.mean(dim=1).tolist()}


# ---- one channel, value by value


@dataclass(frozen=True)
class Channel:
    """One channel of a batch-norm layer.

    Parameters
    ----------
    values : (n,) float64 at the layer's input, of all images of a batch and all places.
    mean, var : running mean and variance.
    weight, bias : γ and β.
    """

    values: Tensor
    mean: float
    var: float
    weight: float
    bias: float

    def input(self, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """The values as scale · x + shift · σ, with σ the remembered deviation."""
        return scale * self.values + shift * self.var**0.5

    def output(self, scale: float, shift: float, training: bool) -> Tensor:
        r"""What the layer makes of that input.

        .. math:: y = \gamma \, (x - \mu) / \sqrt{v + \epsilon} + \beta

        In training μ and v are those of the batch, in evaluation the running ones.
        """
        x = self.input(scale, shift)
        mean, var = (x.mean(), x.var(correction=0)) if training else (self.mean, torch.tensor(self.var))
        return self.weight * (x - mean) / (var + EPS).sqrt() + self.bias


def read_channels(
    network: nn.Module, images: Images, layer: str, transform: Transform = None
) -> list[Channel]:
    """All channels of a batch-norm layer on one batch: one pass in evaluation mode."""
    found: list[Tensor] = []
    run = ForwardPass(network, images, transform, precision="float32")
    _pass(run, [layer], lambda _, x: found.append(x.cpu().double().flatten(2)))
    values, norm = torch.cat(found).transpose(0, 1).flatten(1), network.get_submodule(layer)
    columns: list[Any] = [norm.running_mean, norm.running_var, norm.weight, norm.bias]
    numbers = zip(*(column.detach().tolist() for column in columns), strict=True)
    return [Channel(x, *four) for x, four in zip(values, numbers, strict=True)]


# ---- distances between statistics


@dataclass(frozen=True)
class ChannelGap:
    """What separates two Gaussians, channel by channel; (C,) float64 each.

    Parameters
    ----------
    shift : (mean − source mean) / source deviation.
    log_ratio : log (variance / source variance).
    symmetric_kl : KL(target ‖ source) + KL(source ‖ target), nats, ≥ 0.
    """

    shift: Tensor
    log_ratio: Tensor
    symmetric_kl: Tensor


@no_grad_no_autocast
def channel_gap(
    mean: Features, variance: Features, source_mean: Features, source_variance: Features, floor: float = 1e-5
) -> ChannelGap:
    r"""Batch-norm divergence of one layer: per channel, of N(μ, v) from the source's N(m, r).

    .. math::
        \frac{\mu - m}{\sqrt r}, \qquad \log \frac v r, \qquad
        KL(N(\mu, v) \,\|\, N(m, r)) + KL(N(m, r) \,\|\, N(\mu, v))

    ``floor`` is added to both variances, as the layer's own eps: a channel that died has variance 0. O(C).

    Parameters
    ----------
    mean, variance, source_mean, source_variance : (C,) each, for example of a layer's input on depth, and its
        ``running_mean`` and ``running_var``.

    Raises
    ------
    LabError : unequal lengths, a number that is not finite, or a variance below 0.

    Source: Jeffreys, Proc. Royal Society A 1946; as a measure between modalities, this kit.
    """
    parts = (mean, variance, source_mean, source_variance)
    mu, v, m, r = (torch.as_tensor(x).detach().cpu().double() for x in parts)
    if len({x.shape for x in (mu, v, m, r)}) > 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in (mu, v, m, r))
        raise LabError(f"Means and variances have shapes {shapes}; they need one number per channel each.")
    if not all(bool(x.isfinite().all()) for x in (mu, v, m, r)) or bool((v < 0).any() or (r < 0).any()):
        raise LabError("Means and variances must be finite, and no variance below 0.")
    there, back = gaussian_divergence(mu, v, m, r, floor), gaussian_divergence(m, r, mu, v, floor)
    v, r = v + floor, r + floor
    return ChannelGap((mu - m) / r.sqrt(), (v / r).log(), there + back)


def divergence(seen: Statistics, remembered: Statistics) -> Tensor:
    """`losses.gaussian_divergence` per channel, (C,); its mean over channels and layers is L_BN."""
    return gaussian_divergence(*seen, *remembered)
