"""A translator in front of a frozen network: depth becomes a picture that the source network can read.

The smallest form of TGKT (Zhu, Chen, Wang, arXiv 2401.05014): no adversary, no target images.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rivals.training import BATCH, descend, endless_batches
from socketlab.images import encodings
from socketlab.images.paired_images import PairedImages, random_views
from socketlab.method.recipe import Recipe
from socketlab.method.steps import autocast
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Trunk, device_of, networks_of

FEATURES = 0.3
"""The weight w of the features; `rival_weights` chose it."""


class Translator(nn.Module):
    """A U-Net with two halvings: (B, 3, H, W) → (B, 3, H, W), H and W multiples of 4; 0.5 M weights."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.begin = _convolutions(3, width)
        self.down = _convolutions(width, 2 * width)
        self.bottom = _convolutions(2 * width, 4 * width)
        self.up = _convolutions(6 * width, 2 * width)
        self.end = _convolutions(3 * width, width)
        self.colours = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) encoded target images → (B, 3, H, W) on the source's encoded scale."""
        whole = self.begin(x)  # (B, w, H, W)
        half = self.down(F.avg_pool2d(whole, 2))  # (B, 2w, H/2, W/2)
        quarter = self.bottom(F.avg_pool2d(half, 2))  # (B, 4w, H/4, W/4)
        half = self.up(torch.cat([F.interpolate(quarter, scale_factor=2), half], dim=1))
        whole = self.end(torch.cat([F.interpolate(half, scale_factor=2), whole], dim=1))
        return self.colours(whole)


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in (inputs, outputs):
        layers += [nn.Conv2d(size, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class TranslatedTrunk(Trunk):
    """A trunk behind a translator."""

    def __init__(self, translator: Translator, trunk: Trunk) -> None:
        super().__init__()
        self.translator, self.trunk, self.features = translator, trunk, trunk.features

    def with_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's last map and features of the translated images."""
        return self.trunk.with_map(self.translator(x))


def translation_loss(
    made: Tensor, wanted: Tensor, found: Tensor, features: Tensor, weight: float = FEATURES
) -> Tensor:
    r"""How far translations G(t) (B, C, H, W) are from the partners s, and f(G(t)) (B, D) from f(s); ≥ 0.

    .. math:: L = \overline{| G(t) - s |} + w \, \overline{( f(G(t)) - f(s) )^2}

    Means over the batch and all places and features; ``found`` are the features of ``made``.
    """
    return F.l1_loss(made, wanted) + weight * F.mse_loss(found, features)


def translate(
    source: Source, target: PairedImages, pairs: PairedImages, weight: float = FEATURES, *,
    steps: int = 300, seed: int = 0,
) -> Source:  # fmt: skip
    """The source network, one and not changed, behind a translator that was trained on the pairs.

    Adam with a one-cycle rate up to 2e-3, in bfloat16 where `adapt` would be: it sees every pixel of every
    pair. The target's images are used for their normalisation alone.
    """
    modality = target.modality
    frozen = copy.deepcopy(networks_of(source.network)[0]).eval().requires_grad_(False)
    normalisation, device = encodings.measure(target.images[modality], modality), device_of(frozen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        translator = Translator().to(device).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)

    def loss_of(rows: Tensor) -> Tensor:
        views = random_views(pairs, rows, generator)
        wanted = source.normalisation.encode(views[source.modality])
        with autocast(Recipe(), device):
            made = translator(normalisation.encode(views[modality]))
            with torch.no_grad():
                features = frozen.features(wanted)
            found = frozen.features(made)
        return translation_loss(made.float(), wanted, found.float(), features.float(), weight)

    batches = endless_batches(len(pairs), min(BATCH, len(pairs)), generator)
    descend(torch.optim.Adam(translator.parameters()), loss_of, batches, steps, 2e-3)
    whole = copy.deepcopy(frozen)
    whole.trunk = TranslatedTrunk(translator, frozen.trunk)
    return Source(whole.eval(), source.classes, normalisation, dict(source.card))
