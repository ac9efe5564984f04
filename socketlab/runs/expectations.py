"""What an experiment costs before it is begun: operations and bytes that can be counted without a GPU.

Operations are those of the trunk, counted by torch on tensors without numbers; a pass forward counts once, a
pass forward and backward three times. Bytes are weights and their momenta, what the backward pass keeps of a
step's views, and the images that lie on the GPU: the convolutions' own work needs more, so the sum is the
least. Times are measured or they are quotients: nothing here knows how fast a device is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from socketlab.errors import LabError
from socketlab.method.recipe import Recipe
from socketlab.networks.backbones import backbone_trunk
from socketlab.networks.networks import SmallResNet
from socketlab.runs.train_source import SourceRecipe

ASSUMED = 30e12
"""Operations per second that a quotient is given for; a GPU's own figure is the reader's to put in."""
FORWARD, BOTH = 1, 3
"""What a pass counts: forward, and forward and backward."""


@dataclass(frozen=True)
class Trunk:
    """What one view costs: operations forward, values that its backward pass keeps; weights of the trunk."""

    operations: float
    kept: float
    weights: int


@functools.cache
def trunk_cost(name: str, width: int, side: int) -> Trunk:
    """Count a trunk on two views of ``side`` pixels that have shapes, but no numbers.

    Raises
    ------
    LabError : the views are too small for it.
    """
    with torch.device("meta"):
        trunk = SmallResNet(width) if name == SmallResNet.name else backbone_trunk(name)
    views = torch.empty(2, 3, side, side, device="meta")
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor
        return tensor

    own = {p.untyped_storage()._cdata for p in trunk.parameters()}
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            trunk.train()(views)
    except (RuntimeError, ValueError) as error:
        raise LabError(f"Views of {side} pixels are too small for {name}: import a larger --size.") from error
    kept = sum(tensor.numel() for place, tensor in held.items() if place not in own)
    weights = sum(p.numel() for p in trunk.parameters())
    return Trunk(counter.get_total_flops() / 2, kept / 2, weights)


def passes(recipe: Recipe, sources: int = 1) -> tuple[float, float]:
    """Passes, forward being one, per image of the target that a run of this recipe makes: learning, looking.

    While it aligns, a pair goes both ways through each network and once through its frozen source; with all
    terms an image of the target goes both ways too. Looking is what happens before the first epoch and after
    each: the statistics, the pseudo-labels and the accuracy of the images adapted to.
    """
    of_pairs = BOTH + FORWARD if recipe.lambda_ti > 0 else 0
    statistics = FORWARD if recipe.test_statistics == "running" else 0
    aligning = recipe.align_epochs * (of_pairs + statistics)
    whole = recipe.epochs * (of_pairs + BOTH)
    return sources * (aligning + whole), sources * (recipe.total_epochs + 1) * 2 * FORWARD


def of_run(recipe: Recipe, trunk: Trunk, images: int, held_out: int, sources: int = 1) -> float:
    """Operations of an adaptation to ``images``, measured on ``held_out`` after every epoch."""
    learning, looking = passes(recipe, sources)
    measured = sources * (recipe.total_epochs + 1) * held_out
    return trunk.operations * ((learning + looking) * images + measured)


def of_network(recipe: SourceRecipe, trunk: Trunk, images: int, held_out: int) -> float:
    """Operations of training a network with labels, measured once."""
    return trunk.operations * (BOTH * recipe.epochs * images + held_out)


def least_memory(recipes: Iterable[Recipe], trunk: Trunk, sources: int, images: int = 0) -> float:
    """Bytes: weights, gradients, momenta and the frozen source, 32 bits; a step's views, 16 bits; images."""
    views = max((_views(recipe) for recipe in recipes), default=0)
    return sources * (16 * trunk.weights + 2 * trunk.kept * views) + images


def _views(recipe: Recipe) -> int:
    """Views of one step that a backward pass goes through: of the pairs, and of the target."""
    kinds = (recipe.lambda_ti > 0) + (recipe.epochs > 0)
    return recipe.batch_size * kinds if recipe.total_epochs else 0


def duration(seconds: float) -> str:
    """Seconds in words of one unit: "40 s", "12 minutes", "3.5 hours"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            value = seconds / length
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{max(1, round(seconds))} s"
