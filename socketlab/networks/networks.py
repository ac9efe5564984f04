"""Networks: a trunk, a bottleneck and a head, as in SHOT and SOCKET."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, logsigmoid
from torch.nn.utils.parametrizations import weight_norm

from socketlab.errors import LabError

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
"""Batch norm with statistics that can be matched and re-estimated; subclasses count."""
INFORMATION_TEMPERATURE = 0.05
"""Nats of L_IM by which one network has to be ahead of another for a share e times as large."""


class Block(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut (He et al., CVPR 2016, fig. 5 left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            narrow = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(narrow, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Trunk(nn.Module):
    """F: (B, 3, H, W) → (B, ``features``), by way of a map that keeps places apart.

    The map, by all layers in turn unless `last_map` is redefined, is averaged over places; a trunk that does
    more with it redefines `with_map`.
    """

    features: int
    name: str = ""  # by which `checkpoints.load_source` builds it again; "" for a user's own module

    def last_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        for layer in self.children():
            x = layer(x)
        return x

    def with_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last map and F(x), in one pass: (B, C, h, w), (B, features)."""
        spatial = self.last_map(x)
        return spatial, pooled(spatial)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, features)."""
        return self.with_map(x)[1]


def pooled(spatial: Tensor) -> Tensor:
    """A map averaged over its places: (B, C, h, w) → (B, C)."""
    # The gradient stays channels last; that of `mean` slows all layers below on a GPU (docs/tried.md).
    return avg_pool2d(spatial, spatial.shape[-2:]).flatten(1)


class SmallResNet(Trunk, nn.Sequential):
    """Ten layers for pictures of about 56 pixels, (B, 3, H, W) → (B, 8 · width); 1.2 M parameters at 32."""

    name = "small"

    def __init__(self, width: int = 32) -> None:
        widths = [width, 2 * width, 4 * width, 8 * width]
        stem = [nn.Conv2d(3, width, 5, 2, padding=2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        sizes = zip([width, *widths], widths, strict=False)
        blocks = [Block(inputs, outputs, stride=1 if outputs == width else 2) for inputs, outputs in sizes]
        super().__init__(*stem, *blocks)
        self.features = widths[-1]


class Network(nn.Module):
    """Trunk F, bottleneck B (Linear → BatchNorm1d, D = ``width``), head C (weight-normalised linear, K).

    Source: Liang et al., ICML 2020 (SHOT), section 3.1.
    """

    def __init__(self, trunk: Trunk, trunk_features: int, classes: int, width: int = 128) -> None:
        super().__init__()
        self.trunk = trunk
        self.bottleneck = nn.Sequential(nn.Linear(trunk_features, width), nn.BatchNorm1d(width))
        self.head = weight_norm(nn.Linear(width, classes))

    def features(self, x: Tensor) -> Tensor:
        """f(x) = B(F(x)): (B, 3, H, W) → (B, D)."""
        return self.bottleneck(self.trunk(x))

    def map_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's last map, before it is averaged, and f(x): (B, C, h, w), (B, D)."""
        spatial, pooled = self.trunk.with_map(x)
        return spatial, self.bottleneck(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """z(x) = C(f(x)): (B, 3, H, W) → (B, K) logits."""
        return self.head(self.features(x))


class SeededDropout(nn.Dropout):
    """`torch.nn.Dropout` with a generator of its own, on the CPU, which `seed_dropout` restarts."""

    generator: torch.Generator

    def rows(self, x: Tensor) -> tuple[int, slice]:
        """For how many rows a mask is drawn, and which of them are those of ``x``; here all."""
        return len(x), slice(None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) → the same shape: in train mode a share p is 0 and the rest is larger by 1 / (1 - p)."""
        if not self.training or self.p == 0:
            return x
        (count, own), keep = self.rows(x), 1 - self.p
        mask = torch.empty(count, *x.shape[1:]).bernoulli_(keep, generator=self.generator)
        return x * (mask[own] / max(keep, 1e-12)).to(x)


def seed_dropout(network: nn.Module, seed: int) -> None:
    """Give every `torch.nn.Dropout` its own generator, seeded by ``seed``; in place."""
    layers = [layer for layer in network.modules() if type(layer) in (nn.Dropout, SeededDropout)]
    for number, layer in enumerate(layers):
        layer.__class__ = SeededDropout
        layer.generator = torch.Generator().manual_seed(seed + number)  # type: ignore[assignment]


class Mixture(nn.Module):
    r"""Several networks of the same classes, their logits mixed.

    .. math:: z = \sum_k a_k z_k, \quad a_k = w_k / \sum_j w_j, \quad w_k = \operatorname{sigmoid}(g_k)

    Source: Ahmed et al., CVPR 2021 (DECISION), for the mixing weights.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.mixing = nn.Parameter(torch.ones(len(networks)))

    def features(self, x: Tensor) -> Tensor:
        """The networks' features side by side: (B, 3, H, W) → (B, n · D)."""
        return torch.cat([network.features(x) for network in networks_of(self)], dim=1)

    def head(self, features: Tensor) -> Tensor:
        """Mixed logits from features side by side: (B, n · D) → (B, K)."""
        parts = features.chunk(len(self.networks), dim=1)
        logits = [network.head(part) for network, part in zip(networks_of(self), parts, strict=True)]
        return weighted_sum(logits, mixing_weights(self.mixing))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, K) logits."""
        return self.head(self.features(x))


def mixing_weights(g: Tensor) -> Tensor:
    """a_k = sigmoid(g_k) / Σ_j sigmoid(g_j): (n,) → (n,), positive, of sum 1.

    Written as a softmax of logarithms, so that with one source a is exactly 1 and its gradient exactly 0.
    """
    return logsigmoid(g).softmax(dim=0)


def mixing_from(information: Tensor) -> Tensor:
    r"""The g of shares by each network's L_IM of the target in nats, (n,) → (n,): the lower, the larger.

    .. math:: a_k \propto \exp(-L_{\mathrm{IM},k} / T)

    The largest share begins where all begin otherwise, at g = 1. L_IM is unreliable of networks with very
    large logits (docs/results.md). Source: this kit.
    """
    shares = (-information / INFORMATION_TEMPERATURE).softmax(dim=0)
    w = torch.ones(()).sigmoid() * shares / shares.max()
    return w.clamp_min(1e-6).logit()


def weighted_sum(parts: Sequence[Tensor], weights: Tensor, whole: bool = False) -> Tensor:
    """Σ_k a_k x_k over tensors of one shape; of one alone, a x.

    ``whole`` passes the gradient of the sum to each of several x_k undivided, not its share a_k of it: each
    network then learns as fast as it would alone.
    """
    if whole and len(parts) > 1:
        parts = [x.detach() + (x - x.detach()) / a for x, a in zip(parts, weights.detach(), strict=True)]
    return torch.stack([a * x for x, a in zip(parts, weights, strict=True)]).sum(dim=0)


def norm_layers(network: nn.Module) -> list[BatchNorm]:
    """Every batch-norm layer, subclasses too, in the order of the modules."""
    return [layer for layer in network.modules() if isinstance(layer, BatchNorm)]


def check_batch_norm(network: nn.Module) -> None:
    """A LabError for batch norm that `norm_layers` would leave out: lazy, frozen or hand-made."""
    norms = BatchNorm | nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d
    for layer in network.modules():
        kind, own = type(layer).__name__, dict(layer.named_buffers(recurse=False)).keys()
        if isinstance(layer, nn.LazyBatchNorm1d | nn.LazyBatchNorm2d | nn.LazyBatchNorm3d):
            raise LabError(f"{kind} does not have its channels yet: pass a batch through the network first")
        if not isinstance(layer, norms) and {"running_mean", "running_var"} <= own:
            raise LabError(f"{kind} is a batch norm that cannot adapt: put torch.nn.BatchNorm2d in its place")


@contextmanager
def attribute_set(modules: Iterable[nn.Module], name: str, value: object) -> Iterator[None]:
    """Within the block, an attribute of all modules has this value; afterwards the value that each had."""
    kept = [(module, getattr(module, name)) for module in modules]
    try:
        for module, _ in kept:
            setattr(module, name, value)
        yield
    finally:
        for module, before in kept:
            setattr(module, name, before)


def networks_of(network: nn.Module) -> list[Network]:
    """The networks of a `Mixture`, or the one network alone."""
    return list(network.networks) if isinstance(network, Mixture) else [network]  # type: ignore


def device_of(network: nn.Module) -> torch.device:
    """Where a network's numbers lie; the CPU for one without any."""
    return next((x.device for x in chain(network.parameters(), network.buffers())), torch.device("cpu"))


def fast_bfloat16(device: torch.device, network: nn.Module | None = None) -> bool:
    """Whether the device multiplies bfloat16 itself: most GPUs since 2020, CPUs with AVX-512 BF16 or AMX.

    On a CPU not for a network with grouped convolutions, whose gradients are slower in bfloat16.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    layers = () if network is None else network.modules()
    grouped = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in layers)
    held_back = "AVX2" in os.environ.get("ONEDNN_MAX_CPU_ISA", "")  # as an older processor would compute
    if grouped or held_back or device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def small_network(classes: int, width: int = 32, seed: int = 0) -> Network:
    """A `SmallResNet` with bottleneck and head, random by a seed; torch's global generator stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = SmallResNet(width)
        network = Network(trunk, trunk.features, classes)
    return network.to(memory_format=torch.channels_last)  # a fifth faster on a CPU, and what GPUs prefer
