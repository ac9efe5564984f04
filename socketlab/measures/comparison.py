"""Two networks, two layers' worth of features, or one network on two kinds of images: how far apart they are.

`figures.comparison_report.write` makes a report of what `compare` returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from socketlab.errors import LabError, require_types
from socketlab.images.paired_images import PairedImages
from socketlab.measures.bn_moments import NormStatistics, norm_statistics
from socketlab.measures.bootstrap import Measured
from socketlab.measures.layer_features import Images, Pattern, Transform, extract_features, layer_names
from socketlab.measures.metrics import MEASURES, measure_all, possible_measures
from socketlab.networks.checkpoints import Source, source_for_modality
from socketlab.networks.networks import Mixture, norm_layers

PROFILE = ("neighbour_purity", "mmd", "linear_cka_debiased")
"""Measured at every layer; all measures are taken at one of them."""
Labels = ArrayLike | Tensor


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a network, its images, labels (n,)."""

    title: str
    modality: str
    network: nn.Module
    images: Images
    transform: Transform
    labels: NDArray[np.int64] | None


@dataclass(frozen=True)
class NormGaps:
    """Symmetric KL of batch-norm layers' inputs and running statistics, (L,) means over the channels, nats.

    ``worst`` are the records of a and b at the layer where b is furthest.
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
    layers : layer of a → the layer of b beside it.
    at : the layer of a at which all measures were taken; the last of ``layers``.
    features : of a and b at that layer, (n, D) and (m, D').
    outputs : what both networks return, (n, K) and (m, K'); None where that is no row of numbers per image.
    norms : None where a network has no batch norm.
    notes : what is missing, and why.
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
    settings: dict[str, Any]

    def found(self, name: str, layer: str | None = None) -> Measured | None:
        """One measure at one layer (default: ``at``); None where it was not taken."""
        return next((one for one in self.measures[layer or self.at] if one.name == name), None)

    def numbers(self) -> list[dict[str, Any]]:
        """Every number with its interval, a line each: layer, measure, value, low, high, p, how."""
        found = [
            (layer, other, MEASURES[one.name].title, one)
            for layer, other in self.layers.items()
            for one in self.measures[layer]
        ]
        title = "symmetric KL of the layer's input and its running statistics, mean over channels"
        if (norms := self.norms) is not None:
            found += [
                (layer, layer, title, Measured(f"norm_gap_{side}", value, how="all images"))
                for side, gaps in (("a", norms.a), ("b", norms.b))
                for layer, value in zip(norms.layers, gaps.tolist(), strict=True)
            ]
        return [
            {"layer": layer, "layer_b": other, "measure": one.name, "title": title}
            | {key: getattr(one, key) for key in ("value", "low", "high", "p", "how")}
            for layer, other, title, one in found
        ]

    def accuracy(self, side: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """Confidence (n,) and whether it was right (n,) of side "a" or "b"; None without labels or logits."""
        about, logits = (self.a, self.outputs[0]) if side == "a" else (self.b, self.outputs[1])
        if about.labels is None or logits is None or about.labels.max() >= logits.shape[1]:
            return None
        best = torch.from_numpy(np.array(logits, np.float32)).softmax(dim=1).max(dim=1)
        return best.values.double().numpy(), best.indices.numpy() == about.labels


def compare(
    model_a: Source | nn.Module, model_b: Source | nn.Module | Pattern, data_a: Images, data_b: Images, *,
    layers: Pattern | None = None, transform_a: Transform = None, transform_b: Transform = None,
    labels_a: Labels | None = None, labels_b: Labels | None = None,
    titles: tuple[str, str] = ("", ""), paired: bool | None = None, rounds: int = 100, seed: int = 0,
) -> Comparison:  # fmt: skip
    """How far apart two sets of features are, layer by layer, in every measure and with intervals.

    One network on two kinds of images shows a gap between modalities; two networks on the same images show
    what an adaptation changed; a layer in place of the second network looks at that layer alone.

    Parameters
    ----------
    model_a : a network, or a `Source`, whose classes and normalisation are known.
    model_b : another, or the same again, or layers of ``model_a``, which then reads both data.
    data_a, data_b : `PairedImages` of one modality, tensors (N, C, H, W), lists of images, or batches that
        can be read again.
    layers : names or patterns for `layer_names`, of both networks. Default: `main_layers`.
    transform_a, transform_b : from stored images to the network's input. A `Source` brings its own; images of
        a modality that it does not read are normalised by their own mean and deviation, as `adapt` does.
    labels_a, labels_b : (n,) classes; those of `PairedImages` are found. For the reader alone.
    titles : names of the sides.
    paired : whether row i of both is one scene; default: whether the scenes have equal names. The numbers
        that `PairedImages.unlabelled` puts in place of names do not count.
    rounds : random halves behind each interval, 2 or more.
    """
    given = {"rounds": rounds, "seed": seed, "data_a": data_a, "data_b": data_b}
    require_types("compare", given, {"rounds": int, "seed": int, "data_a": Images, "data_b": Images})
    if not 2 <= rounds <= 100_000:
        raise LabError(f"rounds is {rounds}; an interval needs at least 2, better 100, at most 100,000.")
    if not 0 <= seed < 2**63:
        raise LabError(f"seed is {seed}; choose a whole number from 0.")
    if not isinstance(model_b, Source | nn.Module):
        layers, model_b = model_b, model_a
    a = _side(model_a, data_a, transform_a, labels_a, titles[0] or "A")
    b = _side(model_b, data_b, transform_b, labels_b, titles[1] or "B")
    if paired is None:
        names = [data.names if isinstance(data, PairedImages) else () for data in (data_a, data_b)]
        unnamed = tuple(map(str, range(len(names[0]))))  # all unlabelled sets are numbered alike
        paired = names[0] == names[1] != unnamed
    matched = _matched(a.network, b.network, layers)
    of_a, out_a = _read(a, list(matched))
    of_b, out_b = _read(b, list(matched.values()))
    at = list(matched)[-1]
    measured = {}
    for layer, other in matched.items():  # all measures at one layer, and some at the others
        x, y = of_a[layer], of_b[other]
        some = None if layer == at else [name for name in PROFILE if name in possible_measures(x, y, paired)]
        draws = rounds if layer == at else min(rounds, 50)
        measured[layer] = measure_all(x, y, paired=paired, rounds=draws, seed=seed, names=some)
    norms, notes = _norm_gaps(a, b)
    notes += _notes([(a, model_a), (b, model_b)], layers is None, paired)
    settings = {"paired": paired, "rounds": rounds, "seed": seed}
    return Comparison(
        a, b, paired, matched, at, (of_a[at], of_b[matched[at]]), (out_a, out_b), measured, norms,
        tuple(notes), settings,
    )  # fmt: skip


def _side(
    model: Source | nn.Module, data: Images, transform: Transform, labels: Labels | None, title: str
) -> Side:
    if not isinstance(model, Source | nn.Module):
        raise LabError(f"A network is a Source or a torch module, not {model!r}: see load_source.")
    modality = title
    if isinstance(data, PairedImages):
        modality = data.modality
        if labels is None and data.classes and set(data.kinds) <= set(data.classes):
            labels = data.labels.cpu()
        if transform is None and isinstance(model, Source):
            transform = source_for_modality(model, data).normalisation
    known = None if labels is None else np.asarray(labels)
    if known is not None:
        if known.dtype.kind not in "iu" or known.ndim != 1 or (known < 0).any():
            raise LabError(f"{title}: labels are whole numbers from 0, one for each image.")
        if isinstance(data, Tensor | np.ndarray | PairedImages) and len(known) != len(data):
            raise LabError(f"{title}: {len(data)} images need as many labels, not {known.shape}.")
        known = known.astype(np.int64)
    network = model.network if isinstance(model, Source) else model
    return Side(title, modality, network, data, transform, known)


def _notes(models: Sequence[tuple[Side, Any]], default_layers: bool, paired: bool) -> list[str]:
    notes = []
    for side, model in models:
        if isinstance(model, Source) and model.test_statistics == "batch":
            notes.append(f"{side.title} is tested by each batch's statistics; here its running ones count.")
        if isinstance(side.network, Mixture) and default_layers:
            notes.append(f"{side.title} is a mixture; its first network is compared. Name layers for others.")
    if not paired:
        notes.append("The images are no pairs: CKA and the retrieval of partners are left out.")
    return notes


def main_layers(network: nn.Module, most: int = 10) -> list[str]:
    """Names of a network's large parts that have weights, in order; the last one is what its head reads.

    Its children, opened until there are four or more; of more than ``most``, evenly spaced ones.
    """
    if isinstance(network, Mixture):
        return [f"networks.0.{name}" for name in main_layers(network.networks[0], most)]
    parts = _weighty(dict(network.named_children()))
    while len(parts) < 4 and (opened := _opened(parts)).keys() != parts.keys():
        parts = _weighty(opened)
    names = list(parts)
    if len(names) > 1:  # a head ends in a linear layer, weight-normalised or not
        inner = [m for name, m in parts[names[-1]].named_modules() if "parametrizations" not in name]
        names = names[:-1] if isinstance(inner[-1], nn.Linear) else names
    if len(names) > most:
        names = [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]
    return names


def _weighty(parts: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The parts with weights, normalisation alone left out."""
    return {
        name: part
        for name, part in parts.items()
        if any(True for _ in part.parameters())
        and not (norm_layers(part) == [part] or isinstance(part, nn.LayerNorm | nn.GroupNorm))
    }


def _opened(parts: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The children of long sequences in their place; where there is none, of the largest part."""
    sequences = {n: part for n, part in parts.items() if isinstance(part, nn.Sequential | nn.ModuleList)}
    to_open = [n for n, part in sequences.items() if len(part) > 3]
    if not to_open:
        whole = [n for n, part in parts.items() if list(part.children()) and not is_parametrized(part)]
        to_open = sorted(whole, key=lambda n: -sum(p.numel() for p in parts[n].parameters()))[:1]
    found: dict[str, nn.Module] = {}
    for name, part in parts.items():
        children = {f"{name}.{child}": inner for child, inner in part.named_children()}
        found |= children if name in to_open else {name: part}
    return found


def _matched(a: nn.Module, b: nn.Module, layers: Pattern | None) -> dict[str, str]:
    """Layer of a → layer of b: of the same name, else the layers of b that are chosen alike."""
    of_a, of_b = (main_layers(one) if layers is None else layer_names(one, layers) for one in (a, b))
    if set(of_a) <= {name for name, _ in b.named_modules()}:
        of_b = of_a
    if not of_a or not of_b:
        raise LabError("The list of layers is empty: name one at least, or leave it out.")
    if len(of_a) != len(of_b) and layers is None:  # two kinds of networks: what their heads read
        return {of_a[-1]: of_b[-1]}
    if len(of_a) != len(of_b):
        counts = f"{len(of_a)} layers of {type(a).__name__} and {len(of_b)} of {type(b).__name__}"
        raise LabError(f"{counts} cannot be compared: name layers that both have.")
    return dict(zip(of_a, of_b, strict=True))


def _read(side: Side, layers: Sequence[str]) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """Features at the layers, and the network's output where that is a row of numbers per image."""
    try:
        found = extract_features(side.network, side.images, [*layers, ""], side.transform)
    except LabError:  # a detector, say, returns no row per image; the second reading has any other cause
        found = extract_features(side.network, side.images, layers, side.transform)
    output = found.pop("", None)
    count = len(next(iter(found.values())))
    if count < 2:
        raise LabError(f"{side.title}: {count} images are too few to compare; give two or more.")
    return found, output


def _norm_gaps(a: Side, b: Side) -> tuple[NormGaps | None, list[str]]:
    """Statistics at the batch-norm layers against their running ones, or why there are none."""
    try:
        found = [norm_statistics(side.network, side.images, side.transform) for side in (a, b)]
    except LabError as error:
        return None, [str(error)]
    seen = [{one.name: one for one in of_side} for of_side in found]
    names = tuple(name for name in seen[0] if name in seen[1])
    if not names:
        return None, ["The networks have no batch-norm layers of the same name: none is compared."]
    of_a, of_b = (np.array([of_side[name].from_running for name in names]) for of_side in seen)
    worst = names[int(of_b.argmax())]
    return NormGaps(names, of_a, of_b, (seen[0][worst], seen[1][worst])), []
