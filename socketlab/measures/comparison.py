"""Two networks, two layers' worth of features, or one network on two kinds of images: how far apart they are.

`compare` reads both sides once, measures every layer with an interval, and asks the batch-norm layers what
they remember; `figures.comparison_report.write` makes the report.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList

from socketlab.cache import Cache
from socketlab.errors import LabError
from socketlab.images import encodings
from socketlab.images.paired_images import PairedImages
from socketlab.measures.bootstrap import Measured
from socketlab.measures.distances import channel_gap
from socketlab.measures.forward import Images, Progress, Transform
from socketlab.measures.layer_features import (
    NormStatistics,
    Pattern,
    extract_features,
    layer_names,
    norm_statistics,
)
from socketlab.measures.metrics import MEASURES, measure_all
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Mixture

PROFILE = ("neighbour_purity", "mmd", "linear_cka_debiased")
"""Measured at every layer; all measures are taken at one of them."""
MOST_LAYERS = 10


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Parameters
    ----------
    title : what tables and pictures call it.
    modality : decides its marker and colour; any word.
    network : read, never changed.
    images, transform : as `extract_features` takes them.
    labels : (n,) int64, or None.
    names : of the scenes, or None; equal names on both sides make pairs.
    classes : names of the network's outputs, where they are known.
    """

    title: str
    modality: str
    network: nn.Module
    images: Images
    transform: Transform
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NormGaps:
    """How far what the batch-norm layers see is from what they remember: symmetric KL per channel, nats.

    Parameters
    ----------
    layers : L names.
    a, b : (L,) means over the channels.
    worst : the layer where b is furthest; with its records of a and b.
    """

    layers: tuple[str, ...]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    worst: tuple[NormStatistics, NormStatistics]


@dataclass(frozen=True)
class Comparison:
    """All that `compare` found.

    Parameters
    ----------
    a, b : the sides.
    paired : row i of both is one scene.
    layers : layer of a → the layer of b that it was compared with.
    at : the layer of a at which all measures were taken; the last of ``layers``.
    features : of a and b at that layer, (n, D) and (m, D').
    outputs : what both networks return, (n, K) and (m, K'); None where that is no row of numbers per image.
    measures : layer of a → its numbers.
    norms : None where a network has no batch norm.
    notes : what could not be had, and why.
    settings : to make it again.
    seconds : how long it took.
    """

    a: Side
    b: Side
    paired: bool
    layers: dict[str, str]
    at: str
    features: tuple[NDArray[Any], NDArray[Any]]
    outputs: tuple[NDArray[Any] | None, NDArray[Any] | None]
    measures: dict[str, list[Measured]]
    norms: NormGaps | None
    notes: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def found(self, name: str, layer: str | None = None) -> Measured | None:
        """One measure at one layer (``at`` unless told); None where it was not taken."""
        return next((one for one in self.measures[layer or self.at] if one.name == name), None)

    def numbers(self) -> list[dict[str, Any]]:
        """Every number with its interval, a line each: layer, measure, value, low, high, p, how."""
        lines: list[dict[str, Any]] = []
        for layer, other in self.layers.items():
            for one in self.measures[layer]:
                title = MEASURES[one.name].title if one.name in MEASURES else "gap within classes"
                lines.append(
                    {"layer": layer, "layer_b": other, "measure": one.name, "title": title}
                    | {"value": one.value, "low": one.low, "high": one.high, "p": one.p, "how": one.how}
                )
        if self.norms is not None:
            how = "symmetric KL of what the layer sees and what it remembers, mean over channels"
            for side, values in (("a", self.norms.a), ("b", self.norms.b)):
                for layer, value in zip(self.norms.layers, values.tolist(), strict=True):
                    lines.append(
                        {"layer": layer, "layer_b": layer, "measure": f"norm_gap_{side}", "title": how}
                        | {"value": value, "low": math.nan, "high": math.nan, "p": None, "how": "all images"}
                    )
        return lines

    def accuracy(self, side: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """Confidence (n,) and whether it was right (n,) of side "a" or "b"; None without labels or logits."""
        about, logits = (self.a, self.outputs[0]) if side == "a" else (self.b, self.outputs[1])
        if about.labels is None or logits is None or about.labels.max() >= logits.shape[1]:
            return None
        shares = torch.from_numpy(np.array(logits, np.float32)).softmax(dim=1)
        best = shares.max(dim=1)
        return best.values.double().numpy(), best.indices.numpy() == about.labels


def compare(
    model_a: Source | nn.Module,
    model_b: Source | nn.Module | Pattern | Sequence[Pattern],
    data_a: Images,
    data_b: Images,
    *,
    layers: Pattern | Sequence[Pattern] | None = None,
    layers_b: Pattern | Sequence[Pattern] | None = None,
    transform_a: Transform = None,
    transform_b: Transform = None,
    labels_a: ArrayLike | Tensor | None = None,
    labels_b: ArrayLike | Tensor | None = None,
    titles: tuple[str, str] = ("", ""),
    paired: bool | None = None,
    rounds: int = 100,
    seed: int = 0,
    precision: str = "float32",
    cache: Cache | str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """How far apart two sets of features are, layer by layer, in every measure and with intervals.

    One network on two kinds of images shows a gap between modalities; two networks on the same images show
    what an adaptation changed; a layer in place of the second network looks at that layer alone.

    Parameters
    ----------
    model_a : a network; of a `Source`, the classes and the normalisation are known.
    model_b : another, or the same again, or layers of ``model_a``, which then reads both data.
    data_a, data_b : `PairedImages` of one modality, tensors (N, C, H, W), or batches that can be read again.
    layers, layers_b : names or patterns for `layer_names`; as many of b as of a, in their order. Unless told,
        `main_layers`, and the same names in b.
    transform_a, transform_b : from stored images to what a network reads. A `Source` brings its own; images
        of a modality that it does not read are normalised by their own mean and deviation, as `adapt` does.
    labels_a, labels_b : (n,) classes; those of `PairedImages` are found. For the reader alone.
    titles : names of the sides.
    paired : whether row i of both is one scene; unless told, equal names of scenes say so. The numbers that
        `PairedImages.unlabelled` puts in place of names say nothing.
    rounds : random halves behind each interval.
    precision : of the networks' arithmetic, as in `extract_features`.
    cache : keeps features by content.
    progress : told how many images are done.

    Raises
    ------
    LabError : no such layers, unequal numbers of them, images that cannot be read, pairs of unequal number.
    """
    begun = time.perf_counter()
    if isinstance(model_b, str | re.Pattern) or not isinstance(model_b, Source | nn.Module):
        layers, model_b = model_b, model_a
    a = side(model_a, data_a, transform_a, labels_a, titles[0] or "A")
    b = side(model_b, data_b, transform_b, labels_b, titles[1] or "B")
    together = _paired(a, b) if paired is None else paired
    matched = _matched(a.network, b.network, layers, layers_b)
    reading: dict[str, Any] = {"precision": precision, "cache": cache, "progress": progress}
    of_a, out_a = _read(a, list(matched), reading)
    of_b, out_b = _read(b, list(matched.values()), reading)
    matched = {la: lb for la, lb in matched.items() if la in of_a and lb in of_b}
    at = list(matched)[-1]
    known: dict[str, Any] = {"labels_a": a.labels, "labels_b": b.labels} if _same_classes(a, b) else {}
    measured = {}
    for la, lb in matched.items():
        if la == at:
            measured[la] = measure_all(
                of_a[la], of_b[lb], paired=together, rounds=rounds, seed=seed, **known
            )  # fmt: skip
        else:
            names = [n for n in PROFILE if _possible(n, of_a[la], of_b[lb], together)]
            measured[la] = measure_all(
                of_a[la], of_b[lb], paired=together, rounds=min(rounds, 50), seed=seed, names=names
            )
    norms, notes = _norm_gaps(a, b, reading)
    for model, about in ((model_a, a), (model_b, b)):
        if isinstance(model, Source) and model.test_statistics == "batch":
            notes.append(f"{about.title} is tested by each batch's statistics; here its running ones count.")
        if isinstance(about.network, Mixture) and layers is None:
            notes.append(
                f"{about.title} is a mixture; its first network is compared. Name layers for others."
            )
    if not together:
        notes.append("The images are no pairs: CKA and the retrieval of partners are left out.")
    settings = {"layers": matched, "at": at, "paired": together, "rounds": rounds, "seed": seed,
                "precision": precision}  # fmt: skip
    return Comparison(
        a, b, together, matched, at, (of_a[at], of_b[matched[at]]), (out_a, out_b), measured, norms,
        tuple(notes), settings, time.perf_counter() - begun,
    )  # fmt: skip


def side(
    model: Source | nn.Module,
    data: Images,
    transform: Transform = None,
    labels: ArrayLike | Tensor | None = None,
    title: str = "",
) -> Side:
    """All that is known of one side: a `Source` brings classes and normalisation, `PairedImages` labels."""
    network, classes = (model.network, model.classes) if isinstance(model, Source) else (model, ())
    names, modality = None, title or "images"
    if isinstance(data, PairedImages):
        names, modality = data.names, data.modality
        if labels is None and data.classes and set(data.kinds) <= set(data.classes):
            labels = data.labels.cpu()
        if transform is None and isinstance(model, Source):
            fits = model.modality == modality
            transform = model.normalisation if fits else encodings.measure(data.images[modality], modality)
    known = None if labels is None else np.asarray(labels, np.int64)
    count = len(data) if isinstance(data, Tensor | PairedImages) else None
    if known is not None and count is not None and known.shape != (count,):
        raise LabError(f"{title}: {count} images need as many labels, not {known.shape}.")
    return Side(title or modality, modality, network, data, transform, known, names, tuple(classes))


def main_layers(network: nn.Module, most: int = MOST_LAYERS) -> list[str]:
    """Names of a network's large parts that have weights, in order; the last one is what its head reads.

    Its children, opened until there are four or more; where there are more than ``most``, evenly spaced ones.
    """
    if isinstance(network, Mixture):
        return [f"networks.0.{name}" for name in main_layers(network.networks[0], most)]
    names = _weighty(network, [name for name, _ in network.named_children()])
    while len(names) < 4:
        opened = [inner for name in names for inner in _opened(network, name, names)]
        if opened == names:
            break
        names = _weighty(network, opened)
    if len(names) > 1 and isinstance(list(network.get_submodule(names[-1]).modules())[-1], _HEADS):
        names = names[:-1]
    if len(names) > most:
        names = [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]
    return names


_HEADS = (nn.Linear, ParametrizationList, _WeightNorm)


def _weighty(network: nn.Module, names: Sequence[str]) -> list[str]:
    """The parts with weights, normalisation alone left out."""
    parts = {name: network.get_submodule(name) for name in names}
    norms = _BatchNorm | nn.LayerNorm | nn.GroupNorm
    return [
        n for n, part in parts.items() if any(True for _ in part.parameters()) and not isinstance(part, norms)
    ]


def _opened(network: nn.Module, name: str, among: Sequence[str]) -> list[str]:
    """The children of a long sequence; where there is none, of the largest part."""
    parts = {n: network.get_submodule(n) for n in among}
    long = [
        n for n, part in parts.items() if isinstance(part, nn.Sequential | nn.ModuleList) and len(part) > 3
    ]
    wide = [n for n, part in parts.items() if any(True for _ in part.children())]
    wide = [n for n in wide if not hasattr(parts[n], "parametrizations")]
    largest = max(wide, key=lambda n: sum(p.numel() for p in parts[n].parameters()), default=None)
    if name in (long or {largest}):
        return [f"{name}.{child}" for child, _ in parts[name].named_children()]
    return [name]


def _matched(
    a: nn.Module, b: nn.Module, layers: Pattern | Sequence[Pattern] | None, layers_b: Any
) -> dict[str, str]:
    """Layer of a → layer of b."""
    of_a = main_layers(a) if layers is None else layer_names(a, layers)
    if layers_b is not None:
        of_b = layer_names(b, layers_b)
    elif set(of_a) <= {name for name, _ in b.named_modules()}:
        of_b = of_a
    else:
        of_b = main_layers(b) if layers is None else layer_names(b, layers)
    if len(of_a) != len(of_b):
        if layers is None and layers_b is None:  # two kinds of networks: what their heads read
            return {of_a[-1]: of_b[-1]}
        raise LabError(
            f"{len(of_a)} layers of {type(a).__name__} ({', '.join(of_a[:4])}, …) cannot be compared with "
            f"{len(of_b)} of {type(b).__name__} ({', '.join(of_b[:4])}, …): name as many with layers_b."
        )
    return dict(zip(of_a, of_b, strict=True))


def _read(
    side: Side, layers: Sequence[str], reading: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """Features at the layers, and the network's output where that is a row of numbers per image."""
    try:
        found = extract_features(side.network, side.images, [*layers, ""], side.transform, **reading)
    except (
        LabError
    ):  # a detector, say, returns no row per image; any other cause is told by the second reading
        found = extract_features(side.network, side.images, layers, side.transform, **reading)
    output = found.pop("", None)
    count = len(next(iter(found.values())))
    if count < 2:
        raise LabError(f"{side.title}: {count} images are too few to compare; give two or more.")
    return found, output


def _paired(a: Side, b: Side) -> bool:
    """Whether the scenes have equal names, and names at all: all unlabelled sets are numbered alike."""
    return a.names is not None and a.names == b.names and a.names != tuple(map(str, range(len(a.names))))


def _same_classes(a: Side, b: Side) -> bool:
    return a.labels is not None and b.labels is not None and a.classes == b.classes


def _possible(name: str, a: NDArray[Any], b: NDArray[Any], paired: bool) -> bool:
    measure = MEASURES[name]
    return (paired or not measure.pairs) and (a.shape[1] == b.shape[1] or not measure.one_space)


def _norm_gaps(a: Side, b: Side, reading: Mapping[str, Any]) -> tuple[NormGaps | None, list[str]]:
    """What the batch-norm layers of each network see, against what they remember."""
    try:
        seen_a = {one.name: one for one in norm_statistics(a.network, a.images, a.transform, **reading)}
        seen_b = {one.name: one for one in norm_statistics(b.network, b.images, b.transform, **reading)}
    except LabError as error:
        return None, [str(error)]
    names = tuple(name for name in seen_a if name in seen_b)
    if not names:
        return None, [
            "The two networks have no batch-norm layers of the same name: their memories are not compared."
        ]
    of_a, of_b = (np.array([_from_memory(seen[name]) for name in names]) for seen in (seen_a, seen_b))
    worst = names[int(of_b.argmax())]
    return NormGaps(names, of_a, of_b, (seen_a[worst], seen_b[worst])), []


def _from_memory(seen: NormStatistics) -> float:
    gap = channel_gap(seen.mean, seen.var, seen.running_mean, seen.running_var, floor=seen.eps)
    return float(gap.symmetric_kl.mean())
