"""Statistics at the input of every batch-norm layer: of all images at once, and of every image alone.

From mean and variance of each image follow those of *any* batch: a slider over the batch size needs one pass
over the images and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from socketlab.errors import LabError
from socketlab.measures.distances import symmetric_divergence
from socketlab.measures.layer_features import Images, Transform, pass_images
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


# ---- all images at once


@dataclass(frozen=True)
class NormStatistics:
    """Running statistics of one batch-norm layer beside those of its input: float64 tensors (C,) on the CPU.

    ``var`` is biased, as batch norm normalises; ``running_var`` averages unbiased variances of batches.
    ``count`` values per channel, images × places, are behind ``mean`` and ``var``.
    """

    name: str
    running_mean: Tensor
    running_var: Tensor
    mean: Tensor
    var: Tensor
    count: int
    eps: float

    @property
    def from_running(self) -> float:
        """`symmetric_divergence` of both, mean over the channels, nats."""
        both = self.mean, self.var, self.running_mean, self.running_var
        return float(symmetric_divergence(*both, floor=self.eps).mean())


def norm_statistics(network: nn.Module, images: Images, transform: Transform = None) -> list[NormStatistics]:
    r"""Mean and variance of these images at the input of every batch-norm layer, beside its running ones.

    The network runs in eval mode: each layer sees the images as the layers before it, normalising by *their*
    running statistics, pass them on. Batches are merged in float64: the result is that of all images at once.
    Parameters are those of `layer_features.extract_features`; a LabError where no layer has statistics.

    Returns
    -------
    One record per layer that was reached, in the order of the modules.
    """

    def of_batch(x: Tensor) -> Moments:
        found = moments((x.cpu() if x.is_mps else x).double())  # Apple's GPUs have no float64
        return Moments(found.mean.cpu(), found.variance.cpu(), found.size)

    records = []
    for name, parts in _of_inputs(network, images, transform, of_batch).items():
        layer: Any = network.get_submodule(name)
        mean, variance, count = pooled(parts)
        records.append(NormStatistics(name, *_memory(layer), mean, variance, int(count), layer.eps))
    return records


def _of_inputs(
    network: nn.Module, images: Images, transform: Transform, reduce: Callable[[Tensor], Any], *names: str
) -> dict[str, list[Any]]:
    """What ``reduce`` makes of every batch at the input of the batch-norm layers named, or of each."""
    names = names or tuple(norm_names(network))
    found: dict[str, list[Any]] = {name: [] for name in names}

    def take(name: str, x: Tensor, rows: range) -> None:
        found[name].append(reduce(x))

    pass_images(network, images, names, take, transform=transform, inputs=True)
    reached = {name: parts for name, parts in found.items() if parts}
    if not reached:
        raise LabError(
            f"No batch-norm layer of {type(network).__name__} was called in its forward pass: are they "
            "folded into other layers, or called by their forward()?"
        )
    return reached


# ---- every image alone


@dataclass(frozen=True)
class ImageMoments:
    """Mean and biased variance (N, C), over places, of every image at the input of one layer.

    ``places`` are the values per image and channel, ``remembered`` the running mean and variance (C,).
    """

    mean: Tensor
    var: Tensor
    places: int
    remembered: Statistics

    def __len__(self) -> int:
        return len(self.mean)

    def batch(self, rows: Tensor | None = None) -> Statistics:
        r"""Mean and biased variance of a batch (default: of all images), as the layer takes them in training.

        .. math:: \mu = \operatorname{mean}_i \mu_i, \qquad v = \operatorname{mean}_i v_i
            + \operatorname{mean}_i (\mu_i - \mu)^2
        """
        mean, var = (self.mean, self.var) if rows is None else (self.mean[rows], self.var[rows])
        return mean.mean(dim=0), var.mean(dim=0) + mean.var(dim=0, correction=0)


def image_moments(network: nn.Module, images: Images, transform: Transform = None) -> dict[str, ImageMoments]:
    """One pass in eval mode: for each batch-norm layer that was reached, the moments of every image.

    Parameters, order and errors as of `norm_statistics`.
    """

    def of_images(x: Tensor) -> tuple[Tensor, Tensor, int]:
        places = x.double().reshape(*x.shape[:2], -1)
        return places.mean(dim=2), places.var(dim=2, correction=0), places.shape[2]

    images_of = {}
    for name, parts in _of_inputs(network, images, transform, of_images).items():
        mean, var = (torch.cat([part[i] for part in parts]) for i in (0, 1))
        images_of[name] = ImageMoments(mean, var, parts[0][2], _memory(network.get_submodule(name)))
    return images_of


def layer_gaps(
    images: Mapping[str, ImageMoments], source: Mapping[str, ImageMoments], rows: Tensor | None = None
) -> list[float]:
    """Mean `gaussian_divergence` of each layer: a batch (None: all images) from `source`'s running ones."""
    pairs = ((*images[name].batch(rows), *one.remembered) for name, one in source.items())
    return [float(gaussian_divergence(*pair).mean()) for pair in pairs]


# ---- one channel, value by value


@dataclass(frozen=True)
class Channel:
    """One channel of a batch-norm layer: input values (n,) of a batch, running mean and variance, γ and β."""

    values: Tensor
    mean: float
    var: float
    weight: float
    bias: float

    def input(self, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """The values as scale · x + shift · σ, with σ the running deviation."""
        return scale * self.values + shift * self.var**0.5

    def output(self, scale: float, shift: float, training: bool) -> Tensor:
        r"""What the layer makes of that input, by the batch's μ and v in training, else by the running ones.

        .. math:: y = \gamma \, (x - \mu) / \sqrt{v + \epsilon} + \beta
        """
        x = self.input(scale, shift)
        mean, var = (x.mean(), x.var(correction=0)) if training else (self.mean, torch.tensor(self.var))
        return self.weight * (x - mean) / (var + EPS).sqrt() + self.bias


def read_channels(
    network: nn.Module, images: Images, layer: str, transform: Transform = None
) -> list[Channel]:
    """All channels of a batch-norm layer on one batch: one pass in evaluation mode."""
    parts = _of_inputs(network, images, transform, lambda x: x.cpu().double().flatten(2), layer)
    values, norm = torch.cat(parts[layer]).transpose(0, 1).flatten(1), network.get_submodule(layer)
    columns: list[Any] = [norm.running_mean, norm.running_var, norm.weight, norm.bias]
    numbers = zip(*(column.detach().tolist() for column in columns), strict=True)
    return [Channel(x, *four) for x, four in zip(values, numbers, strict=True)]
