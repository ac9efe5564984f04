"""An adaptation at its first step, for tests of single terms."""

import dataclasses

import torch
from torch import Tensor
from worlds import patterned, trained_source

from socketlab.images import encodings
from socketlab.method import steps
from socketlab.method.adaptation import State
from socketlab.method.bnstats import running_moments
from socketlab.method.recipe import Recipe
from socketlab.method.steps import PLAIN, TargetBatch
from socketlab.networks import networks

QUICK = Recipe(batch_size=8, align_epochs=0, epochs=1, lambda_bn=0.5, precision="float32")


def other_source(seed: int = 1):
    """A second network of the same classes, with other weights and other statistics."""
    source = trained_source()
    network = networks.small_network(3, 8, seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 1, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
    return dataclasses.replace(source, network=network.eval())


def begun(sources, recipe=QUICK) -> tuple[State, TargetBatch, Tensor]:
    target = patterned(16, 1).only("depth").unlabelled()
    normalisation = encodings.measure(target.images["depth"], "depth")
    state = State.start(sources, normalisation, recipe, seed=0)
    statistics = [running_moments(network.trunk) for network in state.networks]
    images = normalisation.encode(target.images["depth"][:8])
    state.adapted.network.train()
    return state, TargetBatch(torch.arange(8), statistics, torch.zeros(8, dtype=torch.int64)), images


def target_terms(state, images, batch, recipe, weights=None, shares=None) -> dict[str, Tensor]:
    """A pass over the images, and the terms of it; the weights are 1 unless they are given."""
    weights = torch.ones(len(state.networks)) if weights is None else weights
    passed = [steps.pass_images(one, images, PLAIN, recipe.lambda_bn > 0) for one in state.networks]
    return steps.target_terms(
        state.networks, passed, weights, weights if shares is None else shares, batch, recipe
    )


def pair_terms(state, images, wanted, recipe, weights=None) -> dict[str, Tensor]:
    """A pass over the target halves of pairs, and L_TI."""
    weights = torch.ones(len(state.networks)) if weights is None else weights
    passed = [steps.pass_images(one, images, PLAIN, frozen=True) for one in state.networks]
    return steps.pair_terms(state.networks, passed, weights, wanted, recipe)
