"""What batch-norm layers would measure on any batch: kept per image, so that no batch has to be computed.

Mean and variance of a batch follow from those of its images, to rounding; so do shift and scale of a layer's
input, and running averages. A slider over the batch size needs one pass over the images and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from socketlab.errors import LabError
from socketlab.measures.forward import ForwardPass, Hook, Images, Transform
from socketlab.networks.networks import norm_layers

Statistics = tuple[Tensor, Tensor]
"""Mean and variance of each channel, (C,) float64."""


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
        """The same images with an input of scale · x + shift · σ, with σ the remembered deviation."""
        moved = scale * self.mean + shift * self.remembered[1].sqrt()
        return replace(self, mean=moved, var=scale**2 * self.var)

    def count(self, batch_size: int) -> int:
        """N, the values per channel behind the statistics of a batch."""
        return batch_size * self.places


def image_moments(network: nn.Module, images: Images, transform: Transform = None) -> dict[str, ImageMoments]:
    """One pass in eval mode: for each batch-norm layer that was reached, the moments of every image.

    Parameters
    ----------
    network, images, transform : as for `layers.norm_statistics`.

    Returns
    -------
    Name -> moments, in the order of the modules.

    Raises
    ------
    LabError : the network has no batch norm with running statistics.
    """
    wanted = {id(layer) for layer in norm_layers(network) if layer.running_mean is not None}
    names = [name for name, layer in network.named_modules() if id(layer) in wanted]
    if not names:
        raise LabError(f"{type(network).__name__} has no batch-norm layer with running statistics.")
    found: dict[str, list[tuple[Tensor, Tensor, int]]] = {name: [] for name in names}

    def watcher(name: str) -> Hook:
        def keep(module: nn.Module, inputs: Any) -> None:
            x = (
                inputs[0].detach().double().flatten(2)
                if inputs[0].ndim > 2
                else inputs[0].double()[..., None]
            )
            found[name].append((x.mean(dim=2), x.var(dim=2, correction=0), x.shape[2]))

        return keep

    run = ForwardPass(network, images, transform, precision="float32")
    run.run(
        lambda there: [(there.get_submodule(name), watcher(name)) for name in names],
        after=lambda: None,
        before=True,
    )
    return {name: _joined(network.get_submodule(name), parts) for name, parts in found.items() if parts}


def _joined(layer: Any, parts: Sequence[tuple[Tensor, Tensor, int]]) -> ImageMoments:
    remembered = layer.running_mean.detach().double().clone(), layer.running_var.detach().double().clone()
    mean, var = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    return ImageMoments(mean, var, parts[0][2], remembered)


def draws(count: int, batch_size: int, batches: int, seed: int = 0) -> list[Tensor]:
    """Rows of so many random batches of different images, one after the other."""
    if not 2 <= batch_size <= count:
        raise LabError(f"A batch of {batch_size} cannot be drawn: choose 2 to {count} images.")
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(count, generator=generator)[:batch_size] for _ in range(batches)]


def running(values: Sequence[Tensor], momentum: float, start: Tensor) -> Tensor:
    r"""The running average after each batch, as torch moves it.

    .. math:: r_t = (1 - \text{momentum}) \, r_{t-1} + \text{momentum} \cdot x_t

    Parameters
    ----------
    values : T tensors (C,), of one batch each.
    momentum : how far the average moves toward each batch, in [0, 1].
    start : (C,) the average before the first batch.

    Returns
    -------
    (T + 1, C), the start first.
    """
    found = [start]
    for value in values:
        found.append((1 - momentum) * found[-1] + momentum * value)
    return torch.stack(found)


def divergence(seen: Statistics, remembered: Statistics, floor: float = 1e-5) -> Tensor:
    r"""How far each channel is from what the layer remembers: the divergence of two Gaussians, nats.

    .. math:: \tfrac12 \left( \tfrac{v}{r} + \tfrac{(\mu - m)^2}{r} - 1 - \log \tfrac{v}{r} \right)

    Its mean over channels and layers is `losses.statistics_distance`.

    Returns
    -------
    (C,), at least 0.
    """
    (mean, var), (m, r) = seen, remembered
    ratio = (var + floor) / (r + floor)
    return 0.5 * (ratio + (mean - m).square() / (r + floor) - 1 - ratio.log())
