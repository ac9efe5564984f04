"""Training a network with labels: the source networks that ship, and the oracle that no method may see."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from . import encodings, steps
from .adapt import Step, rate_factor
from .checkpoints import Source
from .errors import LabError
from .features import evaluating
from .nets import small_network
from .pairs import PairedImages, random_views, recoloured


@dataclass(frozen=True)
class SourceRecipe:
    """How a network is trained with labels; SGD with Nesterov momentum 0.9 and weight decay 1e-3."""

    epochs: int = 60
    batch_size: int = 32
    rate: float = 0.05
    width: int = 32


@dataclass(frozen=True)
class Trained:
    """After each epoch; ``source`` is live and complete."""

    epoch: int
    epochs: int
    source: Source


def train(
    images: PairedImages, recipe: SourceRecipe | None = None, *, seed: int = 0
) -> Iterator[Step | Trained]:
    """Train a small network from scratch on labelled images of one modality.

    Cross-entropy with label smoothing 0.1, random crops and flips, other colours (not for depth),
    one-cycle learning rate.

    Parameters
    ----------
    images : labelled, of one modality.
    seed : fixes the weights at the start, the batches and the views.

    Yields
    ------
    A `Step` after each step and a `Trained` after each epoch.

    Source: Liang et al., ICML 2020 (SHOT), section 3.1, for the loss; the rate is higher, from scratch.
    """
    recipe = recipe or SourceRecipe()
    if len(images) < recipe.batch_size:
        raise LabError(f"{len(images)} images are fewer than one batch of {recipe.batch_size}")
    generator = torch.Generator().manual_seed(seed)
    network = small_network(len(images.classes), recipe.width, seed).to(images.device)
    normalisation = encodings.measure(images.images[images.modality], images.modality)
    card = {"recipe": dataclasses.asdict(recipe), "seed": seed}
    source = Source(network, images.classes, normalisation, card)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=1e-3, foreach=True
    )
    per_epoch = len(images) // recipe.batch_size
    total, step, labels = per_epoch * recipe.epochs, 0, images.labels
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        network.train()
        for rows in order[: per_epoch * recipe.batch_size].split(recipe.batch_size):
            views = random_views(images, rows, generator)[images.modality]
            if images.modality != "depth":
                views = recoloured(views, generator)
            terms = steps.source_terms(network, normalisation.encode(views), labels[rows.to(labels.device)])
            optimiser.param_groups[0]["lr"] = recipe.rate * rate_factor(step / total, "one-cycle")
            optimiser.zero_grad(set_to_none=True)
            terms["cross-entropy"].backward()
            optimiser.step()
            step += 1
            yield Step(epoch + 1, step, total, {name: term.detach() for name, term in terms.items()})
        with evaluating(network):
            yield Trained(epoch + 1, recipe.epochs, source)
