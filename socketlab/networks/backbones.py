"""Backbones for real images: torchvision's networks with batch norm, and any module of one's own.

All become a `nets.Network`, which every method of the kit takes. Only tensors are read from files; code in
them is never run. torchvision is imported when one of its networks is asked for, not before.

>>> network = torchvision_network("resnet50", len(classes), "DEFAULT")          # doctest: +SKIP
>>> source = Source(network, classes, weights_normalisation("resnet50"))        # doctest: +SKIP
>>> source = Source(adapted(mine, len(classes), head="fc"), classes, normalisation)  # doctest: +SKIP
"""

from __future__ import annotations

import copy
import difflib
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from socketlab.errors import LabError
from socketlab.images.encodings import Normalisation
from socketlab.method.bnstats import WATCHED, Watched
from socketlab.networks.networks import Network, Trunk, pooled, seed_dropout

BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
)
"""The networks of torchvision that are known by name; all have batch norm."""

Weights = dict[str, Tensor]
"""Name → tensor: the weights and buffers of a module."""

Shapes = dict[str, tuple[int, ...]]
"""Name of a layer → shape of its output; () where that is no tensor."""


# ------------------------------------------------------------------------ torchvision


class ResNetTrunk(Trunk):
    """A torchvision ResNet, ResNeXt or Wide ResNet without ``fc``; its names stay (conv1, bn1, layer1, …).

    (B, 3, H, W) → map (B, C, H / 32, W / 32) → mean over places (B, C); C is 512 or 2048.
    """

    def __init__(self, model: Any, name: str) -> None:
        super().__init__()
        self.name, self.features = name, model.fc.in_features
        for child, layer in model.named_children():
            if child not in ("avgpool", "fc"):
                self.add_module(child, layer)

    def last_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, H / 32, W / 32): all up to the averaging over places."""
        for layer in self.children():
            x = layer(x)
        return x


class VGGTrunk(Trunk):
    """A torchvision VGG without the last layer of its ``classifier``; ``features`` are called ``layers``.

    (B, 3, H, W) → map (B, 512, H / 32, W / 32) → pooled to 7 × 7 → two linear layers → (B, 4096). Dropout
    after these draws from generators of its own (`nets.seed_dropout`).
    """

    def __init__(self, model: Any, name: str) -> None:
        super().__init__()
        *kept, last = model.classifier
        self.name, self.features = name, last.in_features
        self.layers, self.avgpool, self.classifier = model.features, model.avgpool, nn.Sequential(*kept)
        seed_dropout(self, 0)

    def last_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 512, H / 32, W / 32)."""
        return self.layers(x)

    def with_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last map and what the linear layers make of it: (B, 512, h, w), (B, 4096)."""
        spatial = self.last_map(x)
        return spatial, self.classifier(self.avgpool(spatial).flatten(1))


def torchvision_network(
    name: str, classes: int, weights: str | Path | None = None, width: int = 256, seed: int = 0
) -> Network:
    """A torchvision network as trunk, with a new bottleneck and head: ready for training on a source.

    As in SHOT, of a ResNet all up to the averaging over places is the trunk, and ``fc`` is left out; of a
    VGG, all but the last layer of the ``classifier``. How the images that the weights were trained on are
    normalised is told by `weights_normalisation`.

    Parameters
    ----------
    name : one of ``BACKBONES``.
    classes : K.
    weights : of the trunk. None for random ones. "DEFAULT", or another name in torchvision's list for this
        network ("IMAGENET1K_V1"), is downloaded into torch's own cache at the first call. A path (``.pt``,
        ``.pth``, ``.safetensors``) is read and needs no connection.
    width : of the bottleneck, D.
    seed : of all that is random; torch's global generator is put back as it was.

    Raises
    ------
    LabError
        For an unknown name or weights, without a connection, and with a file that is none of this network's.

    Source: Liang et al., ICML 2020 (SHOT), section 4.1 and its published code, for what is cut.
    """
    state = None if weights is None else _trunk_weights(name, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = torchvision_trunk(name)
        network = Network(trunk, trunk.features, classes, width)
    if state is not None:
        fill(trunk, state, f"the weights {weights} for {name}")
    return network.to(memory_format=torch.channels_last)


def torchvision_trunk(name: str) -> Trunk:
    """The trunk alone, with random weights from torch's global generator; see `torchvision_network`."""
    _require_known(name)
    from torchvision import models

    model = models.get_model(name, weights=None)
    return VGGTrunk(model, name) if name.startswith("vgg") else ResNetTrunk(model, name)


def weights_normalisation(name: str, weights: str = "DEFAULT") -> Normalisation:
    """How torchvision normalises RGB images for these weights; known without a download.

    Raises
    ------
    LabError
        For an unknown name or weights.
    """
    transform = _listed(name, weights).transforms()
    return Normalisation("rgb", tuple(transform.mean), tuple(transform.std))


def _listed(name: str, weights: str) -> Any:
    """The entry in torchvision's list of weights: their address, and the transforms that go with them."""
    _require_known(name)
    from torchvision import models

    known = models.get_model_weights(name).__members__
    if weights not in known:
        raise LabError(
            f"torchvision has no weights {weights!r} of {name}: choose {', '.join(known)}, or give the path "
            "of a file"
        )
    return known[weights]


def _require_known(name: str) -> None:
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=3) or BACKBONES
        raise LabError(f"there is no backbone {name!r}: choose {', '.join(near)}")


def _trunk_weights(name: str, weights: str | Path) -> Weights:
    """The weights of a trunk, from a file or by their name in torchvision's list."""
    if isinstance(weights, Path) or not re.fullmatch(r"DEFAULT|[A-Z0-9]+(_[A-Z0-9]+)+", weights):
        return without_classifier(read_weights(Path(weights)))
    listed = _listed(name, weights)
    try:
        found = listed.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise LabError(
            f"{listed.url} cannot be fetched ({getattr(error, 'reason', error)}): check the connection, or "
            "fetch the file elsewhere and give its path"
        ) from error
    return without_classifier(found)


# ------------------------------------------------------------------------ weights in files


def read_weights(path: Path) -> Weights:
    """The tensors of a ``.safetensors`` or torch file; code in a file is never run.

    ``{"state_dict": …}`` around them and ``module.`` before every name, which DataParallel adds, are taken
    off.

    Raises
    ------
    LabError
        When there is no such file, it is broken, or holds more than tensors.
    """
    if not path.is_file():
        raise LabError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise LabError(f"{path.name} is not a whole safetensors file: {error}") from error
    except Exception as error:  # in whatever the reading of a stranger's pickle may end
        raise LabError(_why_unread(path, error)) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found or not all(isinstance(x, Tensor) for x in found.values()):
        raise LabError(f"{path.name} does not hold tensors by name: write module.state_dict() into it")
    bare = all(name.startswith("module.") for name in found)
    return {name.removeprefix("module.") if bare else name: tensor for name, tensor in found.items()}


def _why_unread(path: Path, error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
        return f"{path.name} is no torch file of tensors, or not a whole one: fetch or write it again"
    return (
        f"{path.name} holds more than tensors ({named[1]}), which could run code, and was not read: write "
        "module.state_dict() instead of the module"
    )


def without_classifier(state: Mapping[str, Tensor]) -> Weights:
    """The part of a torchvision or SHOT network's weights that the trunk takes, by the trunk's names.

    Left out are ``fc`` of a ResNet and the third linear layer of a VGG. SHOT calls a VGG's linear layers
    ``classifier.classifier0`` where torchvision has ``classifier.0``.
    """
    kept: Weights = {}
    for name, tensor in state.items():
        name = re.sub(r"^classifier\.classifier(\d+)\.", r"classifier.\1.", name)
        if not name.startswith(("fc.", "classifier.6.")):
            kept[re.sub(r"^features\.", "layers.", name)] = tensor
    return kept


def fill(module: nn.Module, weights: Weights, what: str) -> None:
    """Give a module these weights, of the same names and shapes, else a `LabError` that begins with ``what``.

    Counts of batches, which old files lack, may stay out.
    """
    own = module.state_dict()
    counts = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    weights = counts | weights
    missing = [name for name in own if name not in weights]
    strange = [name for name in weights if name not in own]
    if missing:
        raise LabError(f"{what} do not fit: {_some(missing)} missing")
    if strange:
        raise LabError(f"{what} do not fit: {_some(strange)} too many")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise LabError(
                f"{what} do not fit: {name} is {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            )
    module.load_state_dict(weights)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"


# ------------------------------------------------------------------------ modules of one's own


class AdaptedTrunk(Trunk):
    """A module that is run as far as one of its layers, whose output are the features.

    Layers are kept by name, so that a copy of the trunk looks at its own.

    Parameters
    ----------
    module : any; what comes after ``at`` is not run.
    at : name of the layer whose output is F(x), (B, D), or a map (B, D, h, w) that is averaged over places.
    map_at : name of a layer before ``at`` whose output is the map; "" for the output of ``at`` itself.
    features : D.
    """

    def __init__(self, module: nn.Module, at: str, map_at: str, features: int) -> None:
        super().__init__()
        self.module, self.at, self.map_at, self.features = module, at, map_at, features

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, features)."""
        return _averaged(self._output(x))

    def last_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        return self.with_map(x)[0]

    def with_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map and F(x), in one pass: (B, C, h, w), (B, features); rows are a map of a single place."""
        maps: list[Tensor] = []
        with ExitStack() as hooks:
            if self.map_at:  # a copy: the next layer may work in place
                hooks.enter_context(_listening(self.module, self.map_at, lambda y: maps.append(y.clone())))
            output = self._output(x)
        spatial = maps[-1] if maps else output
        return spatial if spatial.ndim == 4 else spatial[:, :, None, None], _averaged(output)

    def _output(self, x: Tensor) -> Tensor:
        """The output of ``at``; the module goes no further."""
        found: list[Tensor] = []

        def stop(output: Tensor) -> None:
            found.append(output)
            raise _ReachedError

        with _listening(self.module, self.at, stop), suppress(_ReachedError):
            self.module(x)
        return found[0]


class _ReachedError(Exception):
    """The layer that was waited for has spoken: the rest of the module need not run."""


@contextmanager
def _listening(module: nn.Module, name: str, hear: Callable[[Any], None]) -> Iterator[None]:
    """Within the block, ``hear`` is told every output of one layer."""
    layer = module.get_submodule(name)
    handle = layer.register_forward_hook(lambda _layer, _inputs, output: hear(output))
    try:
        yield
    finally:
        handle.remove()


def _averaged(x: Tensor) -> Tensor:
    """(B, D, h, w) or (B, D) → (B, D)."""
    return pooled(x) if x.ndim == 4 else x


def adapted(
    module: nn.Module,
    classes: int,
    *,
    head: str | None = None,
    features: str | None = None,
    last_map: str | None = None,
    width: int = 256,
    side: int = 64,
    batch_norm: bool = True,
    seed: int = 0,
) -> Network:
    """A module of one's own, with batch norm, as a network of the kit; the module is copied, not changed.

    There are two ways. With ``head``, a trained classifier stays what it is: what enters that layer are the
    features f(x), the layer is the head C, and there is no bottleneck. With ``features``, the output of that
    layer is F(x), and a new bottleneck and head follow, to be trained on the source. Noise is passed through
    to find the map, to take out the layers that are never reached, and to compare the logits.

    Parameters
    ----------
    module : (B, 3, H, W) → (B, K) logits; with ``features``, → anything.
    classes : K.
    head : name of the layer that makes the logits, as ``fc``.
    features : name of the layer whose output is F(x): (B, D), or a map (B, D, h, w) that is averaged over
        places; "" is the whole module.
    last_map : name of the layer whose output is the map that pairs are aligned by; None takes the last with
        more than one place.
    width : of a new bottleneck.
    side : of the noise images, in pixels.
    batch_norm : False lets a module without batch norm pass, for the terms that need none.
    seed : of a new bottleneck and head.

    Raises
    ------
    LabError
        When a layer is missing or never called, features or logits have another shape, the module does more
        than its head to the features, or there is no batch norm to match.
    """
    if (head is None) == (features is None):
        raise LabError("give either head, the layer that makes the logits, or features, a layer before it")
    at = str(features if head is None else head)
    training, module = module.training, _copied(module).eval()
    probe = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    probe = probe.to(next(module.parameters(), probe).device)
    for name in (at, last_map or ""):
        _require_layer(module, name)
    shapes = _probed(module, probe, at)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if head is None:
            trunk = _trunk_up_to(module, at, last_map, shapes)
            network = Network(trunk, trunk.features, classes, width)
        else:
            network = _with_own_head(module, head, last_map, classes, probe)
    _require_norms(network.trunk, type(module).__name__, batch_norm)
    return network.to(probe.device).train(training)


@torch.no_grad()
def _with_own_head(
    module: nn.Module, head: str, last_map: str | None, classes: int, probe: Tensor
) -> Network:
    """The module in two parts, before its head and the head, which together say what it says."""
    wanted = _logits(module, probe, classes)
    layer = _cut_out(module, head)
    shapes = _probed(module, probe, head)
    if len(shapes[head]) != 2:
        raise LabError(f"layer {head!r} reads {shapes[head]}: a head reads features (B, D)")
    trunk = _trunk_up_to(module, head, last_map, shapes)
    network = Network(trunk, trunk.features, classes).eval()
    network.bottleneck, network.head = nn.Sequential(), layer
    found = network(probe)
    if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=1e-4, atol=1e-5):
        raise LabError(
            f"the logits of layer {head!r} are not those of the module, which does more after it, as a "
            "softmax or a scale: give a module that returns the logits of its last layer"
        )
    return network


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:  # torch's old weight_norm leaves tensors behind that cannot be copied
        raise LabError(
            f"{type(module).__name__} cannot be copied ({str(error).splitlines()[0]}): replace "
            "torch.nn.utils.weight_norm by torch.nn.utils.parametrizations.weight_norm"
        ) from error


def _require_layer(module: nn.Module, name: str) -> None:
    names = [one for one, _ in module.named_modules()]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
        near = near or [one for one, _ in module.named_children()]
        raise LabError(f"{type(module).__name__} has no layer {name!r}: near it are {', '.join(near)}")


@torch.no_grad()
def _logits(module: nn.Module, probe: Tensor, classes: int) -> Tensor:
    """What the whole module says of noise: (2, K), or a `LabError`."""
    found = module(probe)
    if not isinstance(found, Tensor) or found.shape != (len(probe), classes):
        told = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise LabError(
            f"{type(module).__name__} returns {told} for {len(probe)} images, not ({len(probe)}, {classes}), "
            "one logit for each class: name the right number of classes, or give features instead of head"
        )
    return found


def _cut_out(module: nn.Module, name: str) -> nn.Module:
    """Take a layer out of a module, and leave in its place one that passes its input on."""
    if not name:
        raise LabError("the head cannot be the whole module: name the layer in it that makes the logits")
    layer = module.get_submodule(name)
    module.set_submodule(name, nn.Identity())
    return layer


@torch.no_grad()
def _probed(module: nn.Module, probe: Tensor, at: str) -> Shapes:
    """Shapes of the outputs of all layers that end before ``at`` or with it, in that order."""
    shapes: Shapes = {}

    def note(name: str, output: Any) -> None:
        shapes[name] = tuple(output.shape) if isinstance(output, Tensor) else ()
        if name == at:
            raise _ReachedError

    with ExitStack() as hooks:
        for name, _ in module.named_modules():
            hooks.enter_context(_listening(module, name, partial(note, name)))
        try:
            with suppress(_ReachedError):
                module(probe)
        except (RuntimeError, TypeError, ValueError) as error:
            raise LabError(
                f"{type(module).__name__} does not run on images {tuple(probe.shape)} "
                f"({str(error).splitlines()[0]}): it must take (B, 3, H, W); give the side that it needs"
            ) from error
    if at not in shapes:
        raise LabError(f"layer {at!r} of {type(module).__name__} is never called in its forward pass")
    return shapes


def _trunk_up_to(module: nn.Module, at: str, last_map: str | None, shapes: Shapes) -> AdaptedTrunk:
    """The trunk up to ``at``, without what is never reached."""
    kind, shape = type(module).__name__, shapes[at]
    if len(shape) not in (2, 4):
        raise LabError(f"layer {at!r} of {kind} gives {shape}: features are (B, D), or a map (B, D, h, w)")
    if last_map is not None and len(shapes.get(last_map, ())) != 4:
        raise LabError(f"layer {last_map!r} of {kind} gives no map (B, C, h, w) on the way to {at!r}")
    if last_map is None:
        maps = [name for name, of in shapes.items() if len(of) == 4 and of[2] * of[3] > 1]
        last_map = maps[-1] if maps else at
    _leave_out_unreached(module, shapes)
    return AdaptedTrunk(module, at, "" if last_map == at else last_map, shape[1])


def _leave_out_unreached(module: nn.Module, shapes: Shapes) -> None:
    """Layers after the features: batch norm there would have no statistics, other weights would lie idle.

    A layer within one that was run may be used without being called, and stays; but not batch norm.
    """
    for name, layer in list(module.named_modules()):
        alone = name != "" and name not in shapes and not list(layer.children())
        if alone and (isinstance(layer, _BatchNorm) or name.rpartition(".")[0] not in shapes):
            module.set_submodule(name, nn.Identity())


def _require_norms(trunk: nn.Module, kind: str, wanted: bool) -> None:
    """Batch norm with running statistics, of a kind that can be watched, is what most terms work on."""
    norms = [layer for layer in trunk.modules() if isinstance(layer, _BatchNorm)]
    if any(layer.running_mean is None for layer in norms):
        raise LabError(
            f"a batch norm of {kind} keeps no running statistics, the memory of the source's images: make it "
            "with track_running_stats=True"
        )
    if wanted and not any(type(layer) in WATCHED or isinstance(layer, Watched) for layer in norms):
        raise LabError(
            f"{kind} has no batch norm: batch-norm matching (λ_d), AdaBN, the batch's own statistics and "
            "TENT have nothing to work on; batch_norm=False lets it pass, for SHOT and paired alignment"
        )
