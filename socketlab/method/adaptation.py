"""The loop that everything reads: adaptation as a stream of events.

A script, a progress bar, a widget and a test read the same generator. Stopping is leaving the loop; going on
is passing the last state back. No label of the target can reach the method: `adapt` drops them first.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from socketlab.errors import LabError
from socketlab.images import encodings
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages, crop_side, cut_views, draw_views, on_device
from socketlab.method import losses, steps
from socketlab.method.bnstats import (
    Statistics,
    normalised_together,
    reestimate_statistics,
    watch,
)
from socketlab.method.evaluate import encoded_batches, predict
from socketlab.method.pair_features import Cut, Said, Teacher, derive_seed
from socketlab.method.pseudolabels import mixed_shot_pseudo_labels, paper_pseudo_labels
from socketlab.method.recipe import Recipe
from socketlab.method.steps import Bank, TargetBatch, autocast
from socketlab.networks.checkpoints import Source, read_tensors, require_classes, write_tensors
from socketlab.networks.networks import (
    Mixture,
    Network,
    device_of,
    mixing_from,
    mixing_weights,
    networks_of,
    norm_layers,
    seed_dropout,
)
from socketlab.speed import distributed
from socketlab.speed.cuda_graphs import Graphs
from socketlab.speed.prefetch import ahead

REESTIMATION_BATCH = 128
WEIGHT_DECAY = 1e-3
LOOKS_ON_A_GPU = 20
"""Every how many steps a loss is looked at on a GPU: each look waits for it. On a CPU, every step."""


StepImages = tuple[Tensor, Tensor | None, list[Cut] | None]
"""Rows of the target in one step's batch, their images and those of the pairs, where it wants them."""


@dataclass(frozen=True)
class Step:
    """After each step: its number, from 1 over the whole run, and the unweighted terms of its loss.

    ``bn_shares`` (n,) is the weight of each source's L_BN before λ_d: 1 with one source, but for the paper's
    fault.
    """

    epoch: int
    step: int
    steps: int
    terms: dict[str, Tensor]
    bn_shares: Tensor | None = None

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
    adapted : the target network so far, with the target's normalisation; a `Mixture` of several sources.
    mixing : (n,) the trainable g of the sources' shares.
    optimiser : with its momenta.
    recipe, seed : as the run began.
    epoch, step : finished epochs and steps.
    statistics_ready : whether the statistics are those that the recipe tests with.
    """

    adapted: Source
    mixing: nn.Parameter
    optimiser: torch.optim.SGD
    recipe: Recipe
    seed: int
    epoch: int = 0
    step: int = 0
    statistics_ready: bool = True

    @property
    def finished(self) -> bool:
        """Whether all epochs of the recipe are done."""
        return self.epoch >= self.recipe.total_epochs

    @property
    def networks(self) -> list[Network]:
        """The target's network of each source."""
        return networks_of(self.adapted.network)

    @classmethod
    def start(
        cls, source: Source | Sequence[Source], normalisation: Normalisation, recipe: Recipe, seed: int
    ) -> State:
        """A copy of each source network, head frozen, with the target's normalisation."""
        sources = _several(source)
        networks = [copy.deepcopy(networks_of(one.network)[0]) for one in sources]
        for network in networks:
            watch(network)
            _choose_what_learns(network, recipe.trained)
        together = Mixture(networks) if len(networks) > 1 else networks[0]
        together.to(device := device_of(networks[0]))
        alone = nn.Parameter(torch.ones(1, device=device))
        mixing = together.mixing if isinstance(together, Mixture) else alone
        statistics = "batch" if recipe.test_statistics == "batch" else "running"
        adapted = Source(together, sources[0].classes, normalisation, dict(sources[0].card), statistics)
        trunks = [p for network in networks for p in network.trunk.parameters()]
        bottlenecks = [p for network in networks for p in network.bottleneck.parameters()]
        groups: list[dict[str, Any]] = [{"params": trunks}, {"params": bottlenecks}]
        groups.append({"params": [mixing], "weight_decay": 0.0})
        # one call for all weights: on a CPU to the bit the same as one by one, and quicker
        together_as = {"fused": True} if device.type in ("cpu", "cuda") else {"foreach": True}
        optimiser = torch.optim.SGD(
            groups, lr=0.0, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY, **together_as
        )
        return cls(adapted, mixing, optimiser, recipe, seed)

    def save(self, path: Path | str) -> None:
        """Write the whole state as one safetensors file, whole or not at all."""
        tensors = {f"network.{name}": value for name, value in self.adapted.network.state_dict().items()}
        tensors["mixing"] = self.mixing.detach().clone()  # a mixture holds the same storage
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
    def load(cls, path: Path | str, source: Source | Sequence[Source]) -> State:
        """The state that `save` wrote, for the source network, or networks, that it began from."""
        tensors, header = read_tensors(Path(path))
        try:
            normalisation = Normalisation.from_dict(header["normalisation"])
            state = cls.start(source, normalisation, Recipe(**header["recipe"]), header["seed"])
            weights = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
            state.adapted.network.load_state_dict(weights)
            with torch.no_grad():
                state.mixing.copy_(tensors["mixing"])
            slots = {n.removeprefix("momentum."): t for n, t in tensors.items() if n.startswith("momentum.")}
            saved = state.optimiser.state_dict()
            weights_of = [p for group in state.optimiser.param_groups for p in group["params"]]
            saved["state"] = {  # laid out in memory as its weight is, which a file does not keep
                int(index): {"momentum_buffer": torch.empty_like(weights_of[int(index)]).copy_(slot)}
                for index, slot in slots.items()
            }
            state.optimiser.load_state_dict(saved)
            state.epoch, state.step = header["epoch"], header["step"]
        except (KeyError, TypeError, RuntimeError) as error:
            raise LabError(f"{Path(path).name} is not the state of an adaptation of this network") from error
        return state


def adapt(
    source: Source | Sequence[Source],
    target: PairedImages,
    pairs: PairedImages | None,
    recipe: Recipe | Callable[[], Recipe],
    *,
    seed: int = 0,
    state: State | None = None,
    every: int = 1,
    normalisation: Normalisation | None = None,
) -> Iterator[Step | Epoch]:
    """Move a source network, or several, to another modality, one event at a time.

    Several processes that have joined (`ranks`) share the work of every batch: each calls this with the same
    arguments, and gets the events, losses and weights that one alone would get, to the last digits.

    Parameters
    ----------
    source : the network and its normalisation; not changed. Several learn side by side, and their shares too.
    target : images of the task's classes in the one target modality. Labels are dropped at once. They may
        lie elsewhere than the network, as a pack larger than the GPU's memory does.
    pairs : task-irrelevant scenes in the source's and the target's modality, or None for methods without.
    recipe : a `Recipe`, or a function that returns the current one: weights and rates may then change between
        steps, while epochs, batch and forms are those of the start.
    seed : fixes batches and views; the same seed on the same machine gives the same numbers.
    state : the state of an earlier `Epoch`, to go on from; the end is that of an uninterrupted run.
    every : an `Epoch` is yielded after every so many epochs, and after the last. Statistics are re-estimated
        only when somebody asks for them, so that a reader of the end alone waits less; the end is the same.
    normalisation : how the target's images are encoded; None measures it on them, depth as metric.

    Yields
    ------
    Epoch 0 before any training (normalisation and, by recipe, statistics are the target's already), then a
    `Step` after each step and an `Epoch` after each epoch.

    Raises
    ------
    LabError
        When pairs are missing or lack a modality, sources differ in their classes, or a loss stops being a
        number.
    """
    current = recipe if callable(recipe) else lambda: recipe
    sources = _several(source)
    target = target.unlabelled()
    plan = state.recipe if state else current()
    _check(sources, target, pairs, plan)
    for images in (target, *([] if pairs is None else [pairs])):
        _check_shares(images, plan)
    if state is None:
        if normalisation is None:
            normalisation = encodings.measure(target.images[target.modality], target.modality)
        state = State.start(sources, normalisation, plan, seed)
        _settle_statistics(state, target)
        yield Epoch(0, plan.total_epochs, state)
    frozen = [_frozen(one) for one in sources]
    remembered = [steps.remembered_statistics(networks_of(one.network)[0]) for one in frozen]
    teacher = None if pairs is None else Teacher(frozen, pairs, plan, state.seed)
    graphs = Graphs(state.networks, lambda: autocast(plan, device_of(state.adapted.network), cached=False))
    while not state.finished:
        yield from _epoch(teacher, target, remembered, state, current, graphs)
        state.epoch += 1
        state.statistics_ready = False
        if state.finished or state.epoch % every == 0:
            _settle_statistics(state, target)
            yield Epoch(state.epoch, plan.total_epochs, state)


def _several(source: Source | Sequence[Source]) -> list[Source]:
    return [source] if isinstance(source, Source) else list(source)


def _frozen(source: Source) -> Source:
    network = copy.deepcopy(source.network).eval().requires_grad_(False)
    watch(networks_of(network)[0].trunk)
    return dataclasses.replace(source, network=network)


def _choose_what_learns(network: Network, trained: str) -> None:
    """Heads stay; with "norm", as TENT has it, only batch norm's scale and shift learn."""
    network.requires_grad_(trained == "all")
    for layer in norm_layers(network):
        layer.requires_grad_(True)
    network.head.requires_grad_(False)


def _epoch(
    teacher: Teacher | None,
    target: PairedImages,
    remembered: list[Statistics],
    state: State,
    current: Callable[[], Recipe],
    graphs: Graphs,
) -> Iterator[Step]:
    """One pass over the target; the pairs go on where the last epoch left them (fault 5)."""
    plan, adapted = state.recipe, state.adapted
    aligning = state.epoch < plan.align_epochs
    asked = current().lambda_pl or plan.bn_mode == "running" or _shares_begin(state)
    if not aligning and not state.statistics_ready and asked:
        _settle_statistics(state, target)
    if _shares_begin(state):
        _begin_shares(state, target)
    labels = None if aligning or current().lambda_pl == 0 else _pseudo_labels(state, target)
    bank = None if aligning or current().lambda_aad == 0 else _bank(state, target)
    seed_dropout(adapted.network, derive_seed(state.seed, state.epoch, 13))
    averages: list[Statistics] = []
    total = len(target) // _batch(target, plan) * plan.total_epochs
    device = device_of(adapted.network)
    _capture(graphs, teacher, target, state, current())
    stored_on = [images.device for images in (target, teacher and teacher.pairs) if images is not None]
    for rows, images, of_pairs in ahead(_cut_images(teacher, target, state, current), device, *stored_on):
        now = current()
        state.adapted.network.train()
        weights, shares = mixing_weights(state.mixing), _bn_shares(state.mixing, plan)
        if aligning:  # how far each network is from its source says nothing of which one knows the target
            weights = weights.detach()
        terms: dict[str, Tensor] = {}
        encoded = None if images is None else adapted.normalisation.encode(images)
        ready = _ready_pairs(teacher, of_pairs, state) if now.lambda_ti > 0 else None
        with _training(state):  # around both passes: each weight is brought to 16 bits once
            if encoded is not None:
                rows = on_device(rows, device)
                seen = TargetBatch(encoded, rows, remembered, None, averages, bank, state.step / total)
                seen.pseudo_labels = None if labels is None else labels[rows]
                with _normalising_by(adapted.network, plan.bn_mode):
                    found = steps.target_terms(state.networks, weights, shares, seen, now, graphs)
                terms |= {} if aligning else found  # while aligning, it is for the running statistics alone
            if ready is not None:
                terms |= steps.pair_terms(state.networks, weights, *ready, now, graphs)
        state.step += 1
        _update(state, terms, now, total)
        yield Step(state.epoch + 1, state.step, total, _detached(terms), shares.detach())


def _capture(
    graphs: Graphs, teacher: Teacher | None, target: PairedImages, state: State, recipe: Recipe
) -> None:
    """Before an epoch: the graphs of its passes, where they can be.

    Not where images are read and copied by a thread meanwhile (`ahead`): a capture bears no other work.
    """
    network, plan = state.adapted.network, state.recipe
    stored_on = {images.device for images in (target, teacher and teacher.pairs) if images is not None}
    if stored_on != {device_of(network)}:
        return
    network.train()
    if _target_wanted(state):
        side = crop_side(target.images[target.modality])
        with _normalising_by(network, plan.bn_mode):
            graphs.prepare(_batch(target, plan), side, watched=recipe.lambda_bn > 0)
    if teacher is not None and recipe.lambda_ti > 0:
        side = crop_side(teacher.pairs.images[state.adapted.modality])
        graphs.prepare(teacher.batch, side, untouched=True)


def _target_wanted(state: State) -> bool:
    """While aligning, a pass over the target is for the running statistics alone."""
    return state.epoch >= state.recipe.align_epochs or state.recipe.test_statistics == "running"


def _batch(images: PairedImages, recipe: Recipe) -> int:
    return min(recipe.batch_size, len(images))


def _cut_images(
    teacher: Teacher | None, target: PairedImages, state: State, current: Callable[[], Recipe]
) -> Iterator[StepImages]:
    """What each step of an epoch reads, cut and flipped; of several processes, the share of this one."""
    modality, first = target.modality, state.step
    device, batch = device_of(state.adapted.network), _batch(target, state.recipe)
    generator = torch.Generator().manual_seed(derive_seed(state.seed, state.epoch))
    order = torch.randperm(len(target), generator=generator)
    target_wanted = _target_wanted(state)
    own = distributed.share(batch)
    for i in range(len(target) // batch):
        rows, images, of_pairs = order[i * batch : (i + 1) * batch], None, None
        if target_wanted:
            views = draw_views(target, batch, generator).take(own)
            images = cut_views(target, rows[own], views, device=device)[modality]
        if teacher is not None and current().lambda_ti > 0:
            of_pairs = teacher.cut(first + i, modality)
        yield rows, images, of_pairs


@contextmanager
def _training(state: State) -> Iterator[None]:
    """Convolutions in the recipe's precision, batch norm by the batch of all processes."""
    network = state.adapted.network
    with autocast(state.recipe, device_of(network)), normalised_together(network):
        yield


def _bn_shares(mixing: Tensor, plan: Recipe) -> Tensor:
    """Weight of each source's L_BN: a_k, or sigmoid(g_k), which nothing keeps from falling to 0 (fault 1)."""
    return mixing.sigmoid() if plan.bn_share == "raw" else mixing_weights(mixing)


def _ready_pairs(teacher: Teacher | None, cut: list[Cut] | None, state: State) -> tuple[Tensor, list[Said]]:
    """The target halves of a batch of pairs, encoded, (B, 3, H, W), and what the sources say of theirs.

    Both halves are cut and flipped alike, and go through their own normalisations.
    """
    if teacher is None:
        raise LabError(
            "λ_TI is above 0 but there are no task-irrelevant pairs: give pairs, or set lambda_ti to 0"
        )
    adapted = state.adapted
    if cut is None:  # λ_TI was still 0 when this step's images were made ready
        cut = teacher.cut(state.step, adapted.modality)
    wanted = teacher.say(state.step, cut)
    images = adapted.normalisation.encode(torch.cat([part[adapted.modality] for part in cut]))
    return images, wanted


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
    loss = steps.total_loss(terms, recipe)
    if loss.device.type == "cpu" or state.step % LOOKS_ON_A_GPU == 0 or state.step == total_steps:
        _look_at(loss, terms, state.step)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    distributed.average_gradients(p for group in state.optimiser.param_groups for p in group["params"])
    factor = rate_factor((state.step - 1) / total_steps, state.recipe.schedule)
    rates = (recipe.trunk_lr, recipe.bottleneck_lr, recipe.mixing_lr)
    for group, rate in zip(state.optimiser.param_groups, rates, strict=True):
        group["lr"] = factor * rate
    state.optimiser.step()


def _look_at(loss: Tensor, terms: dict[str, Tensor], step: int) -> None:
    if math.isfinite(float(loss.detach())):
        return
    values = ", ".join(f"{name} = {float(term.detach()):g}" for name, term in terms.items())
    raise LabError(
        f"the loss stopped being a number at step {step} ({values}): lower the learning rates "
        "or the weight of the term that left; the state of the last epoch is intact"
    )


@contextmanager
def _normalising_by(network: nn.Module, mode: str) -> Iterator[None]:
    """Whether target batches are normalised by their own statistics or by the running ones."""
    layers = norm_layers(network) if mode == "running" else []
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


def _settle_statistics(state: State, target: PairedImages) -> None:
    """Leave the network with the statistics that the recipe tests with."""
    if state.recipe.test_statistics == "reestimated":
        device, normalisation = device_of(state.adapted.network), state.adapted.normalisation
        seed_dropout(state.adapted.network, derive_seed(state.seed, state.epoch, 17))
        for network in state.networks:
            batches = encoded_batches(target, normalisation, REESTIMATION_BATCH, device, shared=True)
            with _training(state):
                reestimate_statistics(network, batches)
    state.statistics_ready = True


def _predictions(state: State, target: PairedImages) -> list[tuple[Tensor, Tensor]]:
    """Logits (N, K) and features (N, D) of all target images, of each source's network."""
    adapted = state.adapted
    return [_predicted(dataclasses.replace(adapted, network=network), target) for network in state.networks]


@torch.no_grad()
def _predicted(source: Source, target: PairedImages) -> tuple[Tensor, Tensor]:
    """`predict`, of which several processes do a share each, but for batches that are normalised whole."""
    if source.test_statistics == "batch":
        return predict(source, target)
    logits, features = predict(source, target.part(distributed.share(len(target))))
    return distributed.gathered(logits, len(target)), distributed.gathered(features, len(target))


def _pseudo_labels(state: State, target: PairedImages) -> Tensor:
    found = _predictions(state, target)
    logits, features = [z for z, _ in found], [f for _, f in found]
    label = paper_pseudo_labels if state.recipe.pseudo_labels == "paper" else mixed_shot_pseudo_labels
    return label(features, logits, mixing_weights(state.mixing.detach()))


def _shares_begin(state: State) -> bool:
    """Whether this is the epoch from which several networks' predictions of the target count."""
    several = len(state.networks) > 1 and state.recipe.mixing_start == "information"
    return several and state.epoch == state.recipe.align_epochs


def _begin_shares(state: State, target: PairedImages) -> None:
    """Shares by how sure, and how varied, each network's own predictions of the target are."""
    information = [losses.information_maximisation(logits) for logits, _ in _predictions(state, target)]
    with torch.no_grad():
        state.mixing.copy_(mixing_from(torch.stack(information)))


def _bank(state: State, target: PairedImages) -> Bank:
    """AaD's memory, filled afresh at each epoch, so that a resumed run has the same."""
    logits, features = _predicted(state.adapted, target)
    return Bank(features.clone(), logits.softmax(dim=1))


def _detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}


def _check(
    sources: Sequence[Source], target: PairedImages, pairs: PairedImages | None, recipe: Recipe
) -> None:
    """Everything that can be known before the first step."""
    if not sources:
        raise LabError("there is no source network: give one at least")
    for source in sources:
        require_classes(source, sources[0].classes)
        if isinstance(source.network, Mixture):
            raise LabError("a mixture of networks cannot be a source: give the networks one by one")
        if recipe.lambda_bn > 0 and not norm_layers(source.network.trunk):
            raise LabError("λ_d is above 0, but the source's trunk has no batch norm: set lambda_bn to 0")
    if len(target) < 2:
        raise LabError(f"{len(target)} target images are too few: batch norm needs two at least")
    if pairs is None:
        if recipe.lambda_ti > 0 and recipe.total_epochs > 0:
            raise LabError(
                "λ_TI is above 0 but there are no task-irrelevant pairs: give pairs, or set lambda_ti to 0"
            )
        return
    missing = {source.modality for source in sources} | {target.modality}
    missing -= set(pairs.modalities)
    if missing:
        raise LabError(
            f"the pairs lack {' and '.join(sorted(missing))}: they have {', '.join(pairs.modalities)}"
        )
    if len(pairs) < 2:
        raise LabError(f"{len(pairs)} pairs are too few: batch norm needs two at least")


def _check_shares(images: PairedImages, recipe: Recipe) -> None:
    """Every process needs an image of every batch."""
    batch = _batch(images, recipe)
    if batch < distributed.world():
        raise LabError(
            f"a batch of {batch} images is too small for {distributed.world()} processes: "
            f"start {batch} at most"
        )
