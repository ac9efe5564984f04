"""Training a network with labels: the source networks that ship, and the oracle that no method may see."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from socketlab.errors import LabError, check_fields, require_choice
from socketlab.images import encodings
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages, cut_views, draw_views, recoloured
from socketlab.method.adaptation import Step, learning_rate_factor
from socketlab.method.evaluate import evaluating
from socketlab.method.recipe import Recipe
from socketlab.method.steps import PLAIN, Execution, autocast
from socketlab.networks.backbones import BACKBONES, backbone_network, weights_normalisation
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Network, SmallResNet, seed_dropout, small_network

SCHEDULES = ("one-cycle", "paper")


@dataclass(frozen=True)
class SourceRecipe:
    """How a network is trained with labels; a `LabError` for a value that is unknown or out of range.

    SGD has Nesterov momentum 0.9 and weight decay 1e-3.

    Parameters
    ----------
    rate : learning rate at its peak, of bottleneck and head.
    width : of the small network.
    trunk_rate : of the trunk; None for the same.
    schedule : "one-cycle", or "paper", which falls from the first step.
    recolour : whether pictures other than depth are shown in other colours too.
    backbone : "small", or one of ``backbones.BACKBONES``.
    weights : of a backbone's trunk, as `backbones.backbone_network` takes them; None for random ones.
    precision : as in `Recipe`.
    """

    epochs: int = 60
    batch_size: int = 32
    rate: float = 0.05
    width: int = 32
    trunk_rate: float | None = None
    schedule: str = "one-cycle"
    recolour: bool = True
    backbone: str = SmallResNet.name
    weights: str | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_fields(self)
        for name, least in {"epochs": 1, "batch_size": 2, "width": 1, "rate": 0, "trunk_rate": 0}.items():
            value = getattr(self, name)
            if value is not None and not (least <= value < math.inf and value):
                limit = f"{least} or more" if least else "more than 0"
                raise LabError(f"{name.replace('_', ' ')} {value} is out of range: choose {limit}")
        require_choice("schedule", self.schedule, SCHEDULES)
        require_choice("backbone", self.backbone, (SmallResNet.name, *BACKBONES))
        if self.backbone == SmallResNet.name and self.weights is not None:
            raise LabError("the small network begins with random weights: leave the weights out")

    def network(self, classes: int, seed: int) -> Network:
        """The network at the start of the training."""
        if self.backbone == SmallResNet.name:
            return small_network(classes, self.width, seed)
        return backbone_network(self.backbone, classes, self.weights, seed=seed)

    def normalisation(self, images: PairedImages) -> Normalisation:
        """Of colour pictures for pretrained weights, that of ImageNet; else measured on the images."""
        if self.weights is not None and images.modality == "rgb":
            return weights_normalisation(self.backbone)
        return encodings.measure(images.images[images.modality], images.modality)


def source_recipe(backbone: str, weights: str | None, changes: Mapping[str, Any]) -> SourceRecipe:
    """As published from pretrained weights, quicker from random ones; with the changes that are not None.

    Parameters
    ----------
    weights : "imagenet", "none", or the path of a file; default: ImageNet's, for the small network none.

    Source: Liang et al., ICML 2020 (SHOT), section 4.1: what is new learns at ten times the trunk's rate.
    """
    word = weights or ("none" if backbone == SmallResNet.name else "imagenet")
    found = {"imagenet": "DEFAULT", "none": None}.get(word.lower(), word)
    about: dict[str, Any] = {"backbone": backbone, "weights": found}
    if found is not None:
        about |= {"epochs": 20, "rate": 1e-2, "trunk_rate": 1e-3, "schedule": "paper"}
        about |= {"recolour": False, "precision": "auto"}
    return SourceRecipe(**about | {name: value for name, value in changes.items() if value is not None})


@dataclass(frozen=True)
class Trained:
    """After each epoch; ``source`` is live and complete."""

    epoch: int
    epochs: int
    source: Source


def train(
    images: PairedImages, recipe: SourceRecipe | None = None, *, seed: int = 0,
    normalisation: Normalisation | None = None, device: torch.device | str | None = None,
    execution: Execution = PLAIN,
) -> Iterator[Step | Trained]:  # fmt: skip
    """Train a network on labelled images of one modality; yields every `Step`, and every epoch's `Trained`.

    Cross-entropy with label smoothing 0.1, random crops and flips; from scratch, other colours too (not for
    depth) and a one-cycle learning rate. The seed fixes the weights at the start, the batches and the views.
    By default the images are encoded in the recipe's own way, and the network learns where they lie; else
    batches are brought to the ``device``. ``execution`` is as in `adapt`. A `LabError` for fewer images than
    a batch has.

    Source: Liang et al., ICML 2020 (SHOT), section 3.1, for the loss; from scratch the rate is higher.
    """
    recipe = recipe or SourceRecipe()
    if len(images) < recipe.batch_size:
        raise LabError(f"{len(images)} images are fewer than one batch of {recipe.batch_size}")
    generator = torch.Generator().manual_seed(seed)
    place = torch.device(images.device if device is None else device)
    network = recipe.network(len(images.classes), seed).to(place)
    normalisation = normalisation or recipe.normalisation(images)
    card = {"recipe": dataclasses.asdict(recipe), "seed": seed}
    source = Source(network, images.classes, normalisation, card)
    rates = (recipe.trunk_rate or recipe.rate, recipe.rate)
    precision = Recipe(precision=recipe.precision)
    new = [*network.bottleneck.parameters(), *network.head.parameters()]
    optimiser = torch.optim.SGD(
        [{"params": list(network.trunk.parameters())}, {"params": new}],
        lr=0.0, momentum=0.9, nesterov=True, weight_decay=1e-3, foreach=True,
    )  # fmt: skip
    seed_dropout(network, seed)

    def views_of(rows: Tensor) -> tuple[Tensor, Tensor]:
        drawn = draw_views(images, len(rows), generator)
        views = cut_views(images, rows, drawn, device=place)[images.modality]
        recolour = images.modality != "depth" and recipe.recolour
        return rows, recoloured(views, generator) if recolour else views

    per_epoch = len(images) // recipe.batch_size
    total, step, labels = per_epoch * recipe.epochs, 0, images.labels.to(place)
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        network.train()
        batches = order[: per_epoch * recipe.batch_size].split(recipe.batch_size)
        for rows, views in execution.prefetch(map(views_of, batches), place, images.device):
            encoded = normalisation.encode(views)
            with autocast(precision, place, network):
                logits = network.head(execution.features(network, encoded))
                loss = cross_entropy(logits, labels[rows.to(place)], label_smoothing=0.1)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * learning_rate_factor(step / total, recipe.schedule)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            execution.average_gradients(network.parameters())
            optimiser.step()
            step += 1
            yield Step(epoch + 1, step, total, {"cross-entropy": loss.detach()})
        with evaluating(network):
            yield Trained(epoch + 1, recipe.epochs, source)
