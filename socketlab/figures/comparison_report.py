"""The report of a comparison: an HTML page with its pictures inside, all numbers as CSV, settings as JSON."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from socketlab.figures.figures import channel_statistics
from socketlab.figures.gap_figures import layer_profile, reliability
from socketlab.figures.map_figures import Cloud, feature_map
from socketlab.figures.maps import joint_map_or_pca, pca_map
from socketlab.figures.report import Figure, Table, percent, render, share_and_interval
from socketlab.figures.style import Style, alt_text, modality_style, png
from socketlab.files import csv_text, write_whole
from socketlab.images.paired_images import PairedImages
from socketlab.measures.bootstrap import Measured
from socketlab.measures.comparison import PROFILE, Comparison, NormGaps, Side
from socketlab.measures.metrics import MEASURES

MOST_POINTS, MOST_LINKS = 1000, 150
"""Points of each side on the map, and lines between them; more hide each other."""
_ABOUT = (
    "Intervals are of 95 %, from random halves of the images or from a standard error; p is of a permutation "
    "test. A value below 0 is no error: an unbiased measure of no gap scatters about 0. socketlab/measures "
    "describes what each measure is, costs and gets wrong."
)
REPORT, NUMBERS, SETTINGS = "report.html", "numbers.csv", "settings.json"


def write(
    comparison: Comparison, folder: Path | str, rerun: str = "", umap: bool = True,
    about: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write report, numbers and settings over those of an earlier report; returns the path of the report.

    Parameters
    ----------
    rerun : the command that makes it again, if there is one.
    umap : draw the map by UMAP, which takes seconds; else by its principal components.
    about : what was compared, name → text: the sensor, the names of the networks, …
    """
    folder, settings = Path(folder), _settings(comparison, about or {})
    head = "measure", "value", "95 % interval", "p", "a larger value means"
    rows = [_measure_row(one) for one in comparison.measures[comparison.at]]
    measured = Table(head, rows, title=f"All measures at {comparison.at}", about=_ABOUT)
    answers = _answers(comparison).items()
    known = [(t, *share_and_interval(float(r.mean()), len(r)), percent(c.mean())) for t, (c, r) in answers]
    accuracies = Table(("", "accuracy", "95 % interval", "mean confidence"), known)
    counts = " and ".join(f"{len(x):,}" for x in comparison.features)
    page = render(
        title=f"{comparison.a.title} against {comparison.b.title}",
        subtitle=f"{counts} images, {len(comparison.layers)} layers · {settings['made']}",
        headline=headline(comparison),
        tables=[accuracies, measured] if known else [measured],
        notes=comparison.notes,
        figures=pictures(comparison, umap),
        settings=settings,
        rerun=rerun,
    )
    words = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
    for name, text in {NUMBERS: csv_text(comparison.numbers()), SETTINGS: words, REPORT: page}.items():
        write_whole(folder / name, text.encode())
    return folder / REPORT


def headline(comparison: Comparison) -> str:
    """The answer in a few sentences: whether there is a gap, how large, whether partners find each other."""
    a, b, at = comparison.a.title, comparison.b.title, comparison.at
    names = ("mmd", "neighbour_purity", "linear_cka_debiased", "pair_recall")
    mmd, purity, cka, recall = (
        None if one is None or math.isnan(one.value) else one for one in map(comparison.found, names)
    )
    if not (mmd and mmd.p is not None and purity):
        return f"The features of {a} and {b} at {at} have different widths."
    apart = "differ" if mmd.p <= 0.05 else "cannot be told apart"
    words = (
        f"At {at} the features of {a} and {b} {apart}: MMD² {mmd.value:.3f} "
        f"[{mmd.low:.3f}, {mmd.high:.3f}], p = {mmd.p:.3f}. {100 * purity.value:.0f} % of an image's nearest "
        "neighbours are of its own side (50 %: mixed)."
    )
    if cka and recall:
        words += (
            f" As pairs they are alike to {cka.value:.2f} (linear CKA; 1 is alike but for a rotation), and "
            f"an image finds its partner first in {100 * recall.value:.0f} % of cases."
        )
    return words


def pictures(comparison: Comparison, umap: bool = True) -> list[Figure]:
    """The pictures of the report, those that this comparison allows."""
    made = [_profile_figure(comparison)]
    if comparison.features[0].shape[1] == comparison.features[1].shape[1]:
        made.insert(0, _map_figure(comparison, umap))
    if comparison.norms is not None:
        made += _norm_figures(comparison, comparison.norms)
    if groups := _answers(comparison):
        ax = reliability(groups, styles=_styles(comparison))
        caption = "On the diagonal a network is right as often as it is certain. Labels only measure here."
        made.append(_figure("Confidence and accuracy", ax, caption, wide=False))
    return made


def _map_figure(comparison: Comparison, umap: bool) -> Figure:
    """All points, or as many drawn at random; partners together."""
    draw = np.random.default_rng(0)
    rows = [np.sort(draw.permutation(len(x))[:MOST_POINTS]) for x in comparison.features]
    if comparison.paired:
        rows[1] = rows[0]
    shown = (np.asarray(x[some], np.float32) for x, some in zip(comparison.features, rows, strict=True))
    sets = dict(zip("ab", shown, strict=True))
    points, why = joint_map_or_pca(sets) if umap else (pca_map(sets), "")
    clouds = {
        key: Cloud(points[key], look, side.title, None if side.labels is None else side.labels[some])
        for (key, (side, look)), some in zip(_sides(comparison).items(), rows, strict=True)
    }
    linked = ("a", "b") if comparison.paired and len(sets["a"]) <= MOST_LINKS else None
    ax = feature_map(clouds, hue="modality", links=linked)
    kind = "UMAP" if umap and not why else "PCA"
    caption = f"Joint {kind} of the features at {comparison.at}. For looking: a joint UMAP exaggerates a gap."
    return _figure(f"Map of the features ({kind})", ax, f"{caption} {why}".strip())


def _profile_figure(comparison: Comparison) -> Figure:
    series, bands = {}, {}
    for name in PROFILE:
        found = [one for layer in comparison.layers if (one := comparison.found(name, layer)) is not None]
        if len(found) == len(comparison.layers):
            title = MEASURES[name].title
            series[title] = [one.value for one in found]
            bands[title] = ([one.low for one in found], [one.high for one in found])
    ax = layer_profile(list(comparison.layers), series, bands, ylabel="value")
    return _figure("Layer by layer", ax, "Bands are intervals of 95 %. Spatial positions are averaged.")


def _norm_figures(comparison: Comparison, norms: NormGaps) -> list[Figure]:
    a, b = comparison.a.title, comparison.b.title
    about: dict[str, Any] = {"ylabel": "symmetric KL per channel, nats", "log": True}
    ax = layer_profile(norms.layers, {a: norms.a, b: norms.b}, styles=_styles(comparison), **about)
    title = "What the batch-norm layers see, against their running statistics"
    gaps = _figure(title, ax, "0 where a layer's input has the running statistics.")
    worst, sides = norms.worst[1], _sides(comparison).values()
    seen = {look: (x.mean, x.var) for (_, look), x in zip(sides, norms.worst, strict=True)}
    caption = f"The layer where {b} is furthest from the running statistics; a dot per channel."
    channels = channel_statistics((worst.running_mean, worst.running_var), seen, worst.name)
    return [gaps, _figure(f"Channels of {worst.name}", channels, caption)]


def _figure(title: str, drawn: Any, caption: str, wide: bool = True) -> Figure:
    return Figure(title, png(drawn), alt_text(drawn), caption, wide)


def _sides(comparison: Comparison) -> dict[str, tuple[Side, str]]:
    """Both sides, and what each is drawn as: its modality, or its title where both have one modality."""
    a, b = comparison.a, comparison.b
    looks = (a.title, b.title) if a.modality == b.modality else (a.modality, b.modality)
    return {"a": (a, looks[0]), "b": (b, looks[1])}


def _styles(comparison: Comparison) -> dict[str, Style]:
    sides = _sides(comparison).values()
    return {one.title: replace(modality_style(look), title=one.title, brief="") for one, look in sides}


def _answers(comparison: Comparison) -> dict[str, Any]:
    """Confidence and whether it is right, of each side whose labels are known."""
    known = {side.title: comparison.accuracy(key) for key, (side, _) in _sides(comparison).items()}
    return {title: pair for title, pair in known.items() if pair is not None}


def _measure_row(one: Measured) -> tuple[str, ...]:
    title, larger = MEASURES[one.name].title, MEASURES[one.name].larger
    if math.isnan(one.value):
        return title, "–", "", "", one.how
    value, low, high = (f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}" for x in (one.value, one.low, one.high))
    ends = "" if math.isnan(one.low) else f"{low} to {high}"
    return title, value, ends, "" if one.p is None else f"{one.p:.3f}", larger


def _settings(comparison: Comparison, about: Mapping[str, str]) -> dict[str, Any]:
    """What was compared, with digests of networks and images, and in which environment."""
    found: dict[str, Any] = {"made": datetime.now().astimezone().strftime("%d %B %Y, %H:%M")} | dict(about)
    for (key, (side, _)), features in zip(_sides(comparison).items(), comparison.features, strict=True):
        network = f"{type(side.network).__name__} (sha256 {_sha256(side.network.state_dict())})"
        images = dict(side.images.images) if isinstance(side.images, PairedImages) else side.images
        # not of batches, which are made anew at every reading
        digest = f" (sha256 {_sha256(images)})" if isinstance(images, dict | Tensor) else ""
        found[key] = f"{side.title}: {network}, {len(features)} {side.modality} images{digest}"
    pairs = comparison.layers.items()
    found["layers"] = ", ".join(one if one == other else f"{one} with {other}" for one, other in pairs)
    found |= {"at": comparison.at} | comparison.settings
    versions = ", ".join(f"{name} {version(name)}" for name in ("socketlab", "torch", "numpy"))
    return found | {"versions": f"python {platform.python_version()}, {versions}"}


def _sha256(values: Mapping[str, Tensor] | Tensor) -> str:
    """First digits, of names, types, shapes and numbers, a part at a time: images may be mapped files."""
    state = hashlib.sha256()
    for name, tensor in (values if isinstance(values, Mapping) else {"": values}).items():
        state.update(f"<{name} {tensor.dtype} {tuple(tensor.shape)}>".encode())
        for part in tensor.detach().reshape(-1).split(2**20):
            state.update(part.cpu().view(torch.uint8).numpy().data)
    return f"{state.hexdigest()[:16]}…"
