"""Any module that takes images, as a network of the kit: `adapted`.

>>> source = Source(adapted(mine, len(classes), head="fc"), classes, normalisation)  # doctest: +SKIP
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from socketlab.errors import LabError
from socketlab.files import reason
from socketlab.networks.networks import Network, Trunk, check_batch_norm, norm_layers, pooled

Shapes = dict[str, tuple[int, ...]]
"""Name of a layer → shape of its output; () where that is no tensor."""


class AdaptedTrunk(Trunk):
    """A module that is run as far as the layer ``at``, whose output, averaged over places, is F(x).

    ``map_at`` is the layer whose output is the map. Layers are kept by name: a copy hooks its own.
    """

    def __init__(self, module: nn.Module, at: str, map_at: str, features: int) -> None:
        super().__init__()
        self.module, self.at, self.map_at, self.features = module, at, map_at, features

    def last_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        return self.with_map(x)[0]

    def with_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map and F(x), in one pass: (B, C, h, w), (B, features); rows are a map of a single place."""
        found = _outputs(self.module, x, self.at, {self.map_at, self.at})
        spatial, last = found[self.map_at], found[self.at]
        spatial = spatial if spatial.ndim == 4 else spatial[:, :, None, None]
        return spatial, pooled(last) if last.ndim == 4 else last


class _ReachedError(Exception):
    """Raised at the layer whose output is wanted: the rest of the module need not run."""


def _outputs(module: nn.Module, x: Tensor, at: str, names: Iterable[str]) -> dict[str, Any]:
    """Outputs of layers in the order in which they end, until ``at``: the module goes no further."""
    found: dict[str, Any] = {}

    def note(name: str, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        # a copy of all but the last, for the next layer may work in place
        found[name] = output.clone() if name != at and isinstance(output, Tensor) else output
        if name == at:
            raise _ReachedError

    with ExitStack() as hooks, suppress(_ReachedError):
        for name in names:
            hooks.enter_context(module.get_submodule(name).register_forward_hook(partial(note, name)))
        module(x)
    return found


def adapted(
    module: nn.Module, classes: int, *, head: str | None = None, features: str | None = None,
    width: int = 256, side: int = 64, batch_norm: bool = True, seed: int = 0,
) -> Network:  # fmt: skip
    """Any module with batch norm as a network of the kit; the module is copied, not changed.

    With ``head``, a trained classifier stays what it is: the input of that layer are the features f(x), the
    layer is the head C, and there is no bottleneck. With ``features``, the output of that layer is F(x), and
    a new bottleneck and head follow, to be trained on the source.

    Parameters
    ----------
    module : (B, 3, H, W) → (B, K) logits; with ``features``, → anything.
    classes : K.
    head : name of the layer that makes the logits, as ``fc``.
    features : name of the layer whose output is F(x): (B, D), or a map (B, D, h, w) that is averaged over
        places; "" is the whole module.
    width, seed : of a new bottleneck and head.
    side : of the noise images that are passed through, in pixels.
    batch_norm : False lets a module without batch norm pass, for the terms that need none.

    Raises
    ------
    LabError : a layer is missing or never called, features or logits have another shape, the module does more
        than its head to the features, or there is no batch norm to match.
    """
    if (head is None) == (features is None):
        raise LabError("give either head, the layer that makes the logits, or features, a layer before it")
    at, kind = str(features if head is None else head), type(module).__name__
    training, module = module.training, _copied(module).eval()
    probe = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    probe = probe.to(next(module.parameters(), probe).device)
    names = [name for name, _ in module.named_modules() if name or head is None]
    if at not in names:
        near = difflib.get_close_matches(at, names, n=4, cutoff=0.5)
        near = near or [name for name, _ in module.named_children()]
        raise LabError(f"{kind} has no layer {at!r}: near it are {', '.join(near)}")
    shapes = _probed(module, probe, at)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if head is None:
            trunk = _trunk_up_to(module, at, shapes)
            network = Network(trunk, trunk.features, classes, width)
        else:
            network = _with_own_head(module, head, classes, probe)
    _require_norms(network.trunk, kind, batch_norm)
    return network.to(probe.device).train(training)


def _copied(module: nn.Module) -> nn.Module:
    """A copy of a module in float32."""
    kind = type(module).__name__
    for x in module.parameters():
        if is_lazy(x):
            raise LabError(f"{kind} has lazy layers without weights yet: run it once on a batch")
        if x.is_floating_point() and x.dtype != torch.float32:
            kept = str(x.dtype).removeprefix("torch.")
            raise LabError(f"{kind} has {kept} weights: give it in float32, as module.float()")
    return copy.deepcopy(module)


@torch.no_grad()
def _with_own_head(module: nn.Module, head: str, classes: int, probe: Tensor) -> Network:
    """The module in two parts, before its head and the head, whose logits together are the module's."""
    wanted, shape = module(probe), (len(probe), classes)
    if not isinstance(wanted, Tensor) or wanted.shape != shape:
        returned = tuple(wanted.shape) if isinstance(wanted, Tensor) else f"a {type(wanted).__name__}"
        what = f"{type(module).__name__} returns {returned} for {len(probe)} images, not {shape}"
        raise LabError(f"{what}, one logit for each class: name other classes, or give features, not head")
    layer = module.get_submodule(head)
    module.set_submodule(head, nn.Identity())
    shapes = _probed(module, probe, head)
    if len(shapes[head]) != 2:
        raise LabError(f"layer {head!r} reads {shapes[head]}: a head reads features (B, D)")
    trunk = _trunk_up_to(module, head, shapes)
    network = Network(trunk, trunk.features, classes).eval()
    network.bottleneck, network.head = nn.Sequential(), layer
    found = network(probe)
    if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=1e-4, atol=1e-5):
        raise LabError(f"the logits of layer {head!r} are not those of the module: let it return them")
    return network


@torch.no_grad()
def _probed(module: nn.Module, probe: Tensor, at: str) -> Shapes:
    """Shapes of the outputs of all layers that end before ``at`` or with it, in that order."""
    try:
        found = _outputs(module, probe, at, [name for name, _ in module.named_modules()])
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        side, what = probe.shape[-1], f"{type(module).__name__} does not run on images {tuple(probe.shape)}"
        raise LabError(f"{what} ({reason(error)}): their size is given as side, here {side}") from error
    if at not in found:
        raise LabError(f"layer {at!r} of {type(module).__name__} is never called in its forward pass")
    return {name: tuple(y.shape) if isinstance(y, Tensor) else () for name, y in found.items()}


def _trunk_up_to(module: nn.Module, at: str, shapes: Shapes) -> AdaptedTrunk:
    """The trunk up to ``at``, without the layers that are never reached; the last map has several places.

    Batch norm there would have no statistics, other weights would lie idle. A layer within one that was run
    may be used without being called, and stays; but not batch norm.
    """
    kind, shape = type(module).__name__, shapes[at]
    if len(shape) not in (2, 4):
        raise LabError(f"layer {at!r} of {kind} gives {shape}: features are (B, D), or a map (B, D, h, w)")
    maps = [name for name, of in shapes.items() if len(of) == 4 and of[2] * of[3] > 1]
    norms = norm_layers(module)
    for name, layer in list(module.named_modules()):
        alone = name != "" and name not in shapes and not list(layer.children())
        if alone and (layer in norms or name.rpartition(".")[0] not in shapes):
            module.set_submodule(name, nn.Identity())
    return AdaptedTrunk(module, at, maps[-1] if maps else at, shape[1])


def _require_norms(trunk: nn.Module, kind: str, wanted: bool) -> None:
    """Batch norm with running statistics is what most terms work on."""
    check_batch_norm(trunk)
    norms = norm_layers(trunk)
    if any(layer.running_mean is None for layer in norms):
        raise LabError(f"a batch norm of {kind} keeps no running statistics: set track_running_stats=True")
    if wanted and not norms:
        terms = "batch-norm matching (λ_d), AdaBN, and TENT have nothing to work on"
        raise LabError(f"{kind} has no batch norm: {terms}; batch_norm=False lets it pass")
