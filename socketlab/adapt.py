"""The loop that everything reads: adaptation as a stream of events.

A script, a progress bar, a widget and a test read the same generator. Stopping is leaving the loop; going on
is passing the last state back. No label of the target can reach the method: `adapt` drops them first.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from . import encodings, steps
from .bnstats import reestimate_statistics, watch
from .checkpoints import Source, read_tensors, write_tensors
from .encodings import Normalisation
from .errors import LabError
from .features import encoded_batches, evaluating, predict
from .pairs import PairedImages, random_views
from .pseudolabels import paper_pseudo_labels, shot_pseudo_labels
from .recipe import Recipe

REESTIMATION_BATCH = 128


@dataclass(frozen=True)
class Step:
    """After each step: its number, from 1 over the whole run, and the unweighted terms of its loss."""

    epoch: int
    step: int
    steps: int
    terms: dict[str, Tensor]

    @property
    def losses(self) -> dict[str, float]:
        """Name → value; reading it waits for the device."""
        return {name: float(term) for name, term in self.terms.items()}


@dataclass(frozen=True)
class Epoch:
    """Before the first step (epoch 0) and after each epoch; ``state`` is live: copy what is to be kept."""

    epoch: int
    epochs: int
    state: State


@dataclass
class State:
    """Where an adaptation stands: all that is needed to use it, or to go on with it.

    Parameters
    ----------
    adapted : the target network so far, with the target's normalisation.
    optimiser : with its momenta.
    recipe, seed : as the run began.
    epoch, step : finished epochs and steps.
    """

    adapted: Source
    optimiser: torch.optim.SGD
    recipe: Recipe
    seed: int
    epoch: int = 0
    step: int = 0

    @property
    def finished(self) -> bool:
        """Whether all epochs of the recipe are done."""
        return self.epoch >= self.recipe.total_epochs

    @classmethod
    def start(cls, source: Source, normalisation: Normalisation, recipe: Recipe, seed: int) -> State:
        """A copy of the source network, head frozen, with the target's normalisation."""
        network = copy.deepcopy(source.network)
        watch(network.trunk)
        network.requires_grad_(True)
        network.head.requires_grad_(False)
        adapted = Source(network, source.classes, normalisation, dict(source.card))
        groups = [{"params": list(part.parameters())} for part in (network.trunk, network.bottleneck)]
        optimiser = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, weight_decay=1e-3)
        return cls(adapted, optimiser, recipe, seed)

    def save(self, path: Path | str) -> None:
        """Write the whole state as one safetensors file, whole or not at all."""
        tensors = {f"network.{name}": value for name, value in self.adapted.network.state_dict().items()}
        for index, slot in self.optimiser.state_dict()["state"].items():
            if slot.get("momentum_buffer") is not None:
                tensors[f"momentum.{index}"] = slot["momentum_buffer"]
        header = {
            "recipe": dataclasses.asdict(self.recipe),
            "seed": self.seed,
            "epoch": self.epoch,
            "step": self.step,
            "normalisation": self.adapted.normalisation.as_dict(),
        }
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: Path | str, source: Source) -> State:
        """The state that `save` wrote, for the source network that it began from."""
        tensors, header = read_tensors(Path(path))
        try:
            about = header["normalisation"]
            normalisation = Normalisation(about["modality"], tuple(about["mean"]), tuple(about["std"]))
            state = cls.start(source, normalisation, Recipe(**header["recipe"]), header["seed"])
            weights = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
            state.adapted.network.load_state_dict(weights)
            slots = {n.removeprefix("momentum."): t for n, t in tensors.items() if n.startswith("momentum.")}
            saved = state.optimiser.state_dict()
            saved["state"] = {int(index): {"momentum_buffer": slot} for index, slot in slots.items()}
            state.optimiser.load_state_dict(saved)
            state.epoch, state.step = header["epoch"], header["step"]
        except (KeyError, TypeError, RuntimeError) as error:
            raise LabError(f"{Path(path).name} is not the state of an adaptation of this network") from error
        return state


def adapt(
    source: Source,
    target: PairedImages,
    pairs: PairedImages | None,
    recipe: Recipe | Callable[[], Recipe],
    *,
    seed: int = 0,
    state: State | None = None,
) -> Iterator[Step | Epoch]:
    """Move a source network to another modality, one event at a time.

    Parameters
    ----------
    source : the network and its normalisation; not changed.
    target : images of the task's classes in the one target modality. Labels are dropped at once.
    pairs : task-irrelevant scenes in the source's and the target's modality, or None for methods without.
    recipe : a `Recipe`, or a function that returns the current one: weights and rates may then change between
        steps, while epochs, batch and forms are those of the start.
    seed : fixes batches and views; the same seed on the same machine gives the same numbers.
    state : the state of an earlier `Epoch`, to go on from; the end is that of an uninterrupted run.

    Yields
    ------
    Epoch 0 before any training (normalisation and, by recipe, statistics are the target's already), then a
    `Step` after each step and an `Epoch` after each epoch.

    Raises
    ------
    LabError
        When pairs are missing or lack a modality, or a loss stops being a number.
    """
    current = recipe if callable(recipe) else lambda: recipe
    target = target.unlabelled()
    plan = state.recipe if state else current()
    _check(source, target, pairs, plan)
    if state is None:
        normalisation = encodings.measure(target.images[target.modality], target.modality)
        state = State.start(source, normalisation, plan, seed)
        _settle_statistics(state, target)
        yield Epoch(0, plan.total_epochs, state)
    frozen = dataclasses.replace(source, network=copy.deepcopy(source.network).eval().requires_grad_(False))
    watch(frozen.network.trunk)
    while not state.finished:
        yield from _epoch(frozen, target, pairs, state, current)
        state.epoch += 1
        _settle_statistics(state, target)
        yield Epoch(state.epoch, plan.total_epochs, state)


def _epoch(
    source: Source,
    target: PairedImages,
    pairs: PairedImages | None,
    state: State,
    current: Callable[[], Recipe],
) -> Iterator[Step]:
    """One pass over the target; the pairs go on where the last epoch left them (fault 5)."""
    plan, network = state.recipe, state.adapted.network
    generator = torch.Generator().manual_seed(_mix(state.seed, state.epoch))
    pair_generator = torch.Generator().manual_seed(_mix(state.seed, state.epoch, 1))
    batch = min(plan.batch_size, len(target))
    per_epoch = len(target) // batch
    order = torch.randperm(len(target), generator=generator)
    aligning = state.epoch < plan.align_epochs
    remembered = steps.remembered_statistics(source.network)
    labels = None if aligning or current().lambda_pl == 0 else _pseudo_labels(state, target)
    for i in range(per_epoch):
        now = current()
        rows = order[i * batch : (i + 1) * batch]
        network.train()
        terms: dict[str, Tensor] = {}
        if not aligning or plan.test_statistics == "running":
            _normalise_by(network, plan.bn_mode)
            views = random_views(target, rows, generator)[target.modality]
            images = state.adapted.normalisation.encode(views)
            chosen = None if labels is None else labels[rows.to(labels.device)]
            found = steps.target_terms(network, images, chosen, remembered, now)
            terms |= {} if aligning else found  # while aligning, the pass is for the running statistics alone
            network.train()
        if now.lambda_ti > 0:
            terms |= _pair_terms(source, pairs, state, now, pair_generator)
        state.step += 1
        _update(state, terms, now, per_epoch * plan.total_epochs)
        yield Step(state.epoch + 1, state.step, per_epoch * plan.total_epochs, _detached(terms))


def _pair_terms(
    source: Source, pairs: PairedImages | None, state: State, recipe: Recipe, generator: torch.Generator
) -> dict[str, Tensor]:
    """Both halves of a batch of pairs, cut and flipped alike, through their own normalisations."""
    if pairs is None:
        raise LabError(
            "λ_TI is above 0 but there are no task-irrelevant pairs: give pairs, or set lambda_ti to 0"
        )
    rows = endless_rows(len(pairs), min(state.recipe.batch_size, len(pairs)), state.step, state.seed)
    views = random_views(pairs, rows, generator)
    adapted = state.adapted
    target_half = adapted.normalisation.encode(views[adapted.modality])
    source_half = source.normalisation.encode(views[source.modality])
    return steps.pair_terms(adapted.network, source, target_half, source_half, recipe)


def endless_rows(count: int, batch: int, draw: int, seed: int) -> Tensor:
    """Draw number ``draw`` from an endless row of shuffled passes over ``count`` pairs: (batch,) int64.

    It depends on nothing but its arguments, so a resumed run meets the same pairs, and every pass covers the
    whole set before the next begins.
    """
    first = draw * batch
    passes = range(first // count, (first + batch - 1) // count + 1)
    shuffled = [
        torch.randperm(count, generator=torch.Generator().manual_seed(_mix(seed, number, 7)))
        for number in passes
    ]
    start = first - passes[0] * count
    return torch.cat(shuffled)[start : start + batch]


def rate_factor(progress: float, schedule: str) -> float:
    """Share of the peak learning rate at ``progress`` in [0, 1].

    "one-cycle" climbs over the first fifth and falls to 0 along a cosine; "paper" is (1 + 10 t)^-0.75.
    """
    if schedule == "paper":
        return (1 + 10 * progress) ** -0.75
    rise = 0.2
    if progress < rise:
        return 0.1 + 0.9 * progress / rise
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def _update(state: State, terms: dict[str, Tensor], recipe: Recipe, total_steps: int) -> None:
    """One optimiser step, after a look at every term."""
    if not terms:
        return
    loss = steps.weighted_sum(terms, recipe)
    if not math.isfinite(float(loss.detach())):
        values = ", ".join(f"{name} = {float(term.detach()):g}" for name, term in terms.items())
        raise LabError(
            f"the loss stopped being a number at step {state.step} ({values}): lower the learning rates "
            "or the weight of the term that left; the state of the last epoch is intact"
        )
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    factor = rate_factor((state.step - 1) / total_steps, state.recipe.schedule)
    for group, rate in zip(
        state.optimiser.param_groups, (recipe.trunk_lr, recipe.bottleneck_lr), strict=True
    ):
        group["lr"] = factor * rate
    state.optimiser.step()


def _normalise_by(network: nn.Module, mode: str) -> None:
    """Whether target batches are normalised by their own statistics or by the running ones."""
    if mode == "running":
        for layer in network.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()


def _settle_statistics(state: State, target: PairedImages) -> None:
    """Leave the network with the statistics that the recipe tests with."""
    if state.recipe.test_statistics == "reestimated":
        batches = encoded_batches(target, state.adapted.normalisation, REESTIMATION_BATCH)
        reestimate_statistics(state.adapted.network, batches)


def _pseudo_labels(state: State, target: PairedImages) -> Tensor:
    with evaluating(state.adapted.network):
        logits, features = predict(state.adapted, target)
    if state.recipe.pseudo_labels == "paper":
        return paper_pseudo_labels(features, logits)
    return shot_pseudo_labels(features, logits)


def _detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}


def _mix(seed: int, *numbers: int) -> int:
    """One generator seed from a run's seed and the place in the run."""
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**62
    return seed


def _check(source: Source, target: PairedImages, pairs: PairedImages | None, recipe: Recipe) -> None:
    """Everything that can be known before the first step."""
    if len(target) < 2:
        raise LabError(f"{len(target)} target images are too few: batch norm needs two at least")
    if pairs is None:
        if recipe.lambda_ti > 0 and recipe.total_epochs > 0:
            raise LabError(
                "λ_TI is above 0 but there are no task-irrelevant pairs: give pairs, or set lambda_ti to 0"
            )
        return
    missing = {source.modality, target.modality} - set(pairs.modalities)
    if missing:
        raise LabError(
            f"the pairs lack {' and '.join(sorted(missing))}: they have {', '.join(pairs.modalities)}"
        )
    if len(pairs) < 2:
        raise LabError(f"{len(pairs)} pairs are too few: batch norm needs two at least")
