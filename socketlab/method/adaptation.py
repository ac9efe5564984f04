"""SOCKET's training loop, a stream of events: leave it to stop, pass the last `State` to resume.

The source networks are copied; heads stay frozen, trunks and bottlenecks learn from target images and pairs.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from socketlab.errors import LabError, checked
from socketlab.images import encodings
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages, cut_views, derive_seed, draw_views, on_device
from socketlab.method import losses, pseudolabels, steps
from socketlab.method.bnstats import Moments, normalise_by, reestimate_statistics, running_moments
from socketlab.method.evaluate import encoded_batches, predict
from socketlab.method.pair_features import PairFeatures
from socketlab.method.recipe import Recipe
from socketlab.method.steps import PLAIN, Bank, Execution, Features, PairLoss, TrunkPass, autocast
from socketlab.networks import networks as nets
from socketlab.networks.checkpoints import Source, read_tensors, require_classes, write_tensors
from socketlab.networks.networks import Mixture, Network, networks_of, norm_layers

REESTIMATION_BATCH = 128
WEIGHT_DECAY = 1e-3
LOOKS_ON_A_GPU = 20
"""The loss is checked at every step on a CPU; on a GPU, which each check waits for, at every twentieth."""
PairBatch = tuple[Tensor, list[Features]]
NO_PAIRS = "λ_TI is above 0 but there are no task-irrelevant pairs: give pairs, or set lambda_ti to 0"


@dataclass(frozen=True)
class Step:
    """After each step: its number, from 1 over the whole run, and the unweighted terms of its loss."""

    epoch: int
    step: int
    steps: int
    terms: dict[str, Tensor]
    bn_shares: Tensor | None = None  # (n,) weight of each source's L_BN before λ_d

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
    """All that is needed to use an adaptation, or to resume it."""

    adapted: Source  # the target network so far, with the target's normalisation
    mixing: nn.Parameter  # (n,) the trainable g of the mixing weights
    optimiser: torch.optim.SGD
    recipe: Recipe  # as the run began
    seed: int
    epoch: int = 0  # finished
    step: int = 0  # finished
    statistics_ready: bool = True  # whether the running statistics have been re-estimated for testing

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
        sources = [source] if isinstance(source, Source) else list(source)
        networks = [copy.deepcopy(networks_of(one.network)[0]) for one in sources]
        for network in networks:
            _choose_what_learns(network, recipe.trained)
        device = nets.device_of(networks[0])
        together = (Mixture(networks) if len(networks) > 1 else networks[0]).to(device)
        alone = nn.Parameter(torch.ones(1, device=device))
        mixing = together.mixing if isinstance(together, Mixture) else alone
        statistics = "batch" if recipe.test_statistics == "batch" else "running"
        adapted = Source(together, sources[0].classes, normalisation, dict(sources[0].card), statistics)
        trunks = [p for network in networks for p in network.trunk.parameters()]
        bottlenecks = [p for network in networks for p in network.bottleneck.parameters()]
        groups: list[dict[str, Any]] = [{"params": trunks}, {"params": bottlenecks}]
        groups += [{"params": [mixing], "weight_decay": 0.0}]
        fused = device.type in ("cpu", "cuda")  # one call for all weights, with the same numbers
        optimiser = torch.optim.SGD(
            groups, lr=0.0, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY, fused=fused
        )
        return cls(adapted, mixing, optimiser, recipe, seed)

    def save(self, path: Path | str) -> None:
        """Write the whole state as one safetensors file, whole or not at all."""
        tensors = {f"network.{name}": value for name, value in self.adapted.network.state_dict().items()}
        tensors["mixing"] = self.mixing.detach().clone()  # a mixture holds the same storage
        for index, slot in self.optimiser.state_dict()["state"].items():
            if slot.get("momentum_buffer") is not None:
                tensors[f"momentum.{index}"] = slot["momentum_buffer"]
        header = {name: getattr(self, name) for name in ("seed", "epoch", "step")}
        header["recipe"] = dataclasses.asdict(self.recipe)
        header["normalisation"] = self.adapted.normalisation.as_dict()
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: Path | str, source: Source | Sequence[Source]) -> State:
        """The state that `save` wrote, for the source network, or networks, that it began from."""
        tensors, header = read_tensors(Path(path))
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "momentum": {}, "mixing": {}}
        try:
            for name, tensor in tensors.items():
                kind, _, rest = name.partition(".")
                parts[kind][rest] = tensor
            normalisation = Normalisation.from_dict(header["normalisation"])
            state = cls.start(source, normalisation, Recipe(**header["recipe"]), header["seed"])
            state.adapted.network.load_state_dict(parts["network"])
            state.mixing.data.copy_(tensors["mixing"])
            weights = [p for group in state.optimiser.param_groups for p in group["params"]]
            momenta = {  # in the memory format of its weight, which a file does not keep
                int(index): {"momentum_buffer": torch.empty_like(weights[int(index)]).copy_(momentum)}
                for index, momentum in parts["momentum"].items()
            }
            state.optimiser.load_state_dict({**state.optimiser.state_dict(), "state": momenta})
            state.epoch, state.step = header["epoch"], header["step"]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            raise LabError(f"{Path(path).name} is not the state of an adaptation of this network") from error
        return state


@checked
def adapt(
    source: Source | Sequence[Source], target: PairedImages, pairs: PairedImages | None,
    recipe: Recipe | Callable[[], Recipe], *, seed: int = 0, state: State | None = None, every: int = 1,
    normalisation: Normalisation | None = None, execution: Execution | None = None,
    pair_loss: PairLoss | None = None,
) -> Iterator[Step | Epoch]:  # fmt: skip
    """Adapt a source network, or several, to another modality, one event at a time.

    Parameters
    ----------
    source : one or several, which are trained together with their mixing weights; copied, not changed.
    target : images of the task's classes in the one target modality; labels are dropped.
    pairs : task-irrelevant scenes in the source's and the target's modality, or None for methods without.
    recipe : a `Recipe`, or a function that returns the current one: weights and rates may then change between
        steps; the number of epochs, the batch size and the loss variants cannot.
    seed : fixes batches and views; the same seed on the same machine gives the same numbers.
    state : that of an earlier `Epoch`, to resume; the result is that of an uninterrupted run.
    every : epochs from one `Epoch` to the next; the result does not depend on it.
    normalisation : how the target's images are encoded; None measures it on them, depth as metric.
    execution : how steps are computed; default: the plain form; `socketlab.speed` has others.
    pair_loss : a distance of the pairs' features; default: `steps.alignment_loss`.

    Yields
    ------
    Epoch 0, with the target's normalisation and, by recipe, statistics, then each `Step` and `Epoch`.

    Raises
    ------
    LabError : an argument of another type, pairs that are missing or lack a modality, sources of different
        classes, a network without what the recipe trains, a loss that stops being a number.
    """
    changing = callable(recipe) and not isinstance(recipe, nn.Module)
    current: Callable[[], Any] = recipe if changing else lambda: recipe  # type: ignore[assignment]
    plan = state.recipe if state else current()
    if not isinstance(plan, Recipe) or every < 1:
        raise LabError("adapt takes a Recipe, or a function that returns one, and every = 1 or more epochs")
    sources, target = [source] if isinstance(source, Source) else list(source), target.unlabelled()
    _check_inputs(sources, target, pairs, plan)
    begins = state is None
    if state is None:
        normalisation = normalisation or encodings.measure(target.images[target.modality], target.modality)
        state = State.start(sources, normalisation, plan, seed)
    run = _Run(sources, target, pairs, state, current, execution or PLAIN, pair_loss)
    if begins:
        run.prepare_statistics()
        yield Epoch(0, plan.total_epochs, state)
    while not state.finished:
        yield from run.epoch()
        state.epoch += 1
        state.statistics_ready = False
        if state.finished or state.epoch % every == 0:
            run.prepare_statistics()
            yield Epoch(state.epoch, plan.total_epochs, state)


class _Run:
    """A running adaptation: the frozen sources, the images, and the state that is trained."""

    def __init__(
        self, sources: Sequence[Source], target: PairedImages, pairs: PairedImages | None, state: State,
        current: Callable[[], Recipe], execution: Execution, pair_loss: PairLoss | None,
    ) -> None:  # fmt: skip
        self.target, self.state, self.current = target, state, current
        self.execution, self.pair_loss = execution, pair_loss
        self.network, self.plan, self.device = state.adapted.network, state.recipe, state.mixing.device
        self.encode = state.adapted.normalisation.encode
        self.places = [images.device for images in (target, pairs) if images is not None]
        frozen = copy.deepcopy(list(sources))
        for one in frozen:
            one.network.eval().requires_grad_(False)
        self.source_statistics = [running_moments(networks_of(one.network)[0].trunk) for one in frozen]
        self.wanted = None if pairs is None else PairFeatures(frozen, pairs, self.plan, state.seed, execution)
        self.sharing = self.wanted is not None and self.plan.pair_statistics == "shared"
        self.batch = min(self.plan.batch_size, len(target))
        self.steps = len(target) // self.batch * self.plan.total_epochs
        self.labels: Tensor | None = None
        self.bank: Bank | None = None
        self.averages: list[list[Moments]] = []

    @property
    def aligning(self) -> bool:
        """Whether this epoch is one of paired alignment alone."""
        return self.state.epoch < self.plan.align_epochs

    def epoch(self) -> Iterator[Step]:
        """One pass over the target; the pairs go on where the last epoch left them."""
        state = self.state
        self.begin_epoch()
        for rows, images, pairs in self.execution.prefetch(self.batches(), self.device, *self.places):
            recipe, shares = self.current(), bn_shares(state.mixing, self.plan)
            self.network.train()
            terms = self.terms(rows, images, pairs, shares, recipe)
            state.step += 1
            self.update(terms, recipe)
            detached = {name: term.detach() for name, term in terms.items()}
            yield Step(state.epoch + 1, state.step, self.steps, detached, shares.detach())

    def begin_epoch(self) -> None:
        """From all target images: pseudo-labels, AaD's bank and, once, the first mixing weights."""
        state, plan, recipe = self.state, self.plan, self.current()
        self.labels, self.bank, self.averages = None, None, []
        several, first = len(state.networks) > 1, state.epoch == plan.align_epochs
        mixing_begins = several and first and plan.mixing_start == "information"
        labelling = recipe.lambda_pl > 0 or mixing_begins
        predicting = labelling or recipe.lambda_aad > 0 or plan.bn_mode == "running"
        if not self.aligning and not state.statistics_ready and predicting:
            self.prepare_statistics()
        if not self.aligning and labelling:
            alone = [dataclasses.replace(state.adapted, network=network) for network in state.networks]
            found = [predict(one, self.target, execution=self.execution) for one in alone]
            logits, features = zip(*found, strict=True)
            if mixing_begins:
                information = torch.stack([losses.information_maximisation(z) for z in logits])
                state.mixing.data.copy_(nets.mixing_from(information))
            if recipe.lambda_pl > 0:
                paper, shot = pseudolabels.paper_pseudo_labels, pseudolabels.mixed_shot_pseudo_labels
                label = paper if plan.pseudo_labels == "paper" else shot
                self.labels = label(features, logits, nets.mixing_weights(state.mixing.detach()))
        if not self.aligning and recipe.lambda_aad > 0:
            mixed, side_by_side = predict(state.adapted, self.target, execution=self.execution)
            self.bank = side_by_side, mixed.softmax(dim=1)
        nets.seed_dropout(self.network, derive_seed(state.seed, state.epoch, 13))

    def batches(self) -> Iterator[tuple[Tensor, Tensor | None, PairBatch | None]]:
        """For each step: rows of the target, their images cut, flipped and encoded, and a batch of pairs."""
        state, target, batch, first = self.state, self.target, self.batch, self.state.step
        target_wanted = not self.aligning or self.sharing or self.plan.test_statistics == "running"
        generator = torch.Generator().manual_seed(derive_seed(state.seed, state.epoch))
        order = torch.randperm(len(target), generator=generator)
        for i in range(len(target) // batch):
            rows, images = order[i * batch : (i + 1) * batch], None
            if target_wanted:
                views = draw_views(target, batch, generator)
                stored = cut_views(target, rows, views, device=self.device)
                images = self.encode(stored[target.modality])
            pairs = self.pairs(first + i) if self.current().lambda_ti > 0 else None
            yield on_device(rows, self.device), images, pairs

    def pairs(self, number: int) -> PairBatch:
        """The target halves of a batch of pairs, encoded, and the sources' features of the other halves."""
        if self.wanted is None:
            raise LabError(NO_PAIRS)
        images, features = self.wanted.batch_of(number, self.target.modality)
        return self.encode(images), features

    def terms(
        self, rows: Tensor, images: Tensor | None, pairs: PairBatch | None, shares: Tensor, recipe: Recipe
    ) -> dict[str, Tensor]:
        """The terms of one step."""
        state, terms = self.state, dict[str, Tensor]()
        mixing = state.mixing.detach() if self.aligning else state.mixing  # pairs do not rank the sources
        weights = nets.mixing_weights(mixing)
        # λ_TI may have been 0 when this step was prefetched
        pairs = pairs or self.pairs(state.step) if recipe.lambda_ti > 0 else None
        with autocast(self.plan, self.device, self.network):
            own, of_pairs = self.passes(images, pairs, recipe)
            if own and not self.aligning:  # while aligning, the pass is for statistics
                labels, known = None if self.labels is None else self.labels[rows], self.source_statistics
                progress = state.step / self.steps
                batch = steps.TargetBatch(rows, known, labels, self.averages, self.bank, progress)
                terms |= steps.target_terms(state.networks, own, weights, shares, batch, recipe)
            if of_pairs and pairs is not None:
                terms |= steps.pair_terms(state.networks, of_pairs, weights, pairs[1], recipe, self.pair_loss)
        return terms

    def passes(
        self, images: Tensor | None, pairs: PairBatch | None, recipe: Recipe
    ) -> tuple[list[TrunkPass], list[TrunkPass]]:
        """Each network's pass over the target's images and over the pairs; nothing where there are none."""
        networks, execution, matching = self.state.networks, self.execution, recipe.lambda_bn > 0
        own, of_pairs = list[TrunkPass](), list[TrunkPass]()
        with normalise_by(self.network, self.plan.bn_mode):
            if self.sharing and images is not None and pairs is not None:
                together, n = torch.cat([images, pairs[0]]), len(images)
                both = [steps.pass_images(one, together, execution, matching) for one in networks]
                return [one.rows(slice(n)) for one in both], [one.rows(slice(n, None)) for one in both]
            if images is not None:
                own = [steps.pass_images(one, images, execution, matching) for one in networks]
        if pairs is not None:
            of_pairs = [steps.pass_images(one, pairs[0], execution, frozen=True) for one in networks]
        return own, of_pairs

    def update(self, terms: dict[str, Tensor], recipe: Recipe) -> None:
        """One optimiser step, after a check of the loss."""
        if not terms:
            return
        loss, step, optimiser = steps.total_loss(terms, recipe), self.state.step, self.state.optimiser
        looking = self.device.type == "cpu" or step % LOOKS_ON_A_GPU == 0 or step == self.steps
        if looking and not math.isfinite(float(loss.detach())):
            values = ", ".join(f"{name} = {float(term.detach()):g}" for name, term in terms.items())
            raise LabError(
                f"the loss stopped being a number at step {step} ({values}): lower the learning rates "
                "or the weight of the term that became infinite; the state of the last epoch is intact"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.execution.average_gradients(p for group in optimiser.param_groups for p in group["params"])
        factor = learning_rate_factor((step - 1) / self.steps, self.plan.schedule)
        rates = recipe.trunk_lr, recipe.bottleneck_lr, recipe.mixing_lr
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = factor * rate
        optimiser.step()

    def prepare_statistics(self) -> None:
        """Give the networks the running statistics that the recipe tests with."""
        state = self.state
        if self.plan.test_statistics == "reestimated":
            nets.seed_dropout(self.network, derive_seed(state.seed, state.epoch, 17))
            for network in state.networks:
                with autocast(self.plan, self.device, self.network):
                    forward = partial(self.execution.features, network)
                    reestimate_statistics(network, self.test_batches(), forward)
        state.statistics_ready = True

    def test_batches(self) -> Iterator[Tensor]:
        """Encoded centre views of the target; where pairs share its statistics, batches as in training."""
        wanted, how = self.wanted if self.sharing else None, self.state.adapted.normalisation
        size = self.batch if wanted else REESTIMATION_BATCH
        for number, images in enumerate(encoded_batches(self.target, how, size, self.device, self.execution)):
            if wanted:
                beside = wanted.draw(number, self.target.modality)
                images = torch.cat([images, *encoded_batches(beside, how, size, self.device)])
            yield images


def bn_shares(mixing: Tensor, recipe: Recipe) -> Tensor:
    """Weight of each source's L_BN: a_k, or as published sigmoid(g_k), which training lets fall to 0."""
    return mixing.sigmoid() if recipe.bn_share == "raw" else nets.mixing_weights(mixing)


def learning_rate_factor(progress: float, schedule: str) -> float:
    """Share of the peak learning rate at ``progress`` in [0, 1], for "one-cycle" or "paper"."""
    if schedule == "paper":
        return (1 + 10 * progress) ** -0.75
    rise = 0.2  # linearly, then down to 0 along a cosine
    if progress < rise:
        return 0.1 + 0.9 * progress / rise
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def _choose_what_learns(network: Network, trained: str) -> None:
    """Heads stay frozen; with "norm", as in TENT, only the scales and shifts of norm layers learn."""
    network.requires_grad_(trained == "all")
    for layer in network.modules():
        if layer in norm_layers(network) or isinstance(layer, nn.LayerNorm | nn.GroupNorm):
            layer.requires_grad_(True)
    network.head.requires_grad_(False)
    if not any(p.requires_grad for p in network.parameters()):
        raise LabError("nothing would learn: the network has no norm layer with weights; set trained to all")


def _check_inputs(
    sources: Sequence[Source], target: PairedImages, pairs: PairedImages | None, recipe: Recipe
) -> None:
    """Check all arguments before the first step."""
    if not sources:
        raise LabError("there is no source network: give one at least")
    for source in sources:
        require_classes(source, sources[0].classes)
        if isinstance(source.network, Mixture):
            raise LabError("a mixture of networks cannot be a source: give the networks one by one")
        nets.check_batch_norm(source.network)
        layers = norm_layers(source.network.trunk)
        if recipe.lambda_bn > 0 and not (layers and all(x.track_running_stats for x in layers)):
            what = "no batch norm" if not layers else "batch norm without running statistics"
            raise LabError(f"λ_d is above 0, but the source's trunk has {what}: set lambda_bn to 0")
    if pairs is None and recipe.lambda_ti > 0 and recipe.total_epochs > 0:
        raise LabError(NO_PAIRS)
    for images, what in ((target, "target images"), *([] if pairs is None else [(pairs, "pairs")])):
        if len(images) < 2:
            raise LabError(f"{len(images)} {what} are too few: batch norm needs two at least")
    if pairs is not None:
        missing = {target.modality, *(source.modality for source in sources)} - set(pairs.modalities)
        if missing:
            has = ", ".join(pairs.modalities)
            raise LabError(f"the pairs lack {' and '.join(sorted(missing))}: they have {has}")
