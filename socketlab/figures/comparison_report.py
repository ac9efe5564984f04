"""The report of a comparison: an HTML page with its pictures inside, all numbers as CSV, settings as JSON."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from socketlab.figures import gap_figures
from socketlab.figures.figures import channel_statistics
from socketlab.figures.map_figures import Cloud, feature_map
from socketlab.figures.maps import joint_map_or_pca, pca_map
from socketlab.figures.report import Figure, Table, interval, render, settings_table
from socketlab.figures.style import Style, alt_text, modality_style, png
from socketlab.files import csv_text, write_whole
from socketlab.images.paired_images import PairedImages
from socketlab.measures.bootstrap import Measured
from socketlab.measures.comparison import PROFILE, Comparison, Side
from socketlab.measures.metrics import MEASURES

MOST_POINTS = 1000
"""Points of each side on the map; more hide each other."""
MOST_LINKS = 150
_ABOUT = (
    "Intervals are of 95 %, from random halves of the images or from a standard error; p is of a permutation "
    "test. A value below 0 is no error: an unbiased measure of no gap scatters about 0. socketlab/measures "
    "describes what each measure is, costs and gets wrong."
)
REPORT, NUMBERS, SETTINGS = "report.html", "numbers.csv", "settings.json"


def write(
    comparison: Comparison,
    folder: Path | str,
    rerun: str = "",
    umap: bool = True,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write the report, the numbers and the settings; returns the path of the report.

    Parameters
    ----------
    folder : made when missing; files of an earlier report in it are replaced.
    rerun : the command that makes it again; default: the call in Python.
    umap : draw the map by UMAP, which takes seconds; else by its principal components.
    about : what was compared, name → text: the sensor, the names of the networks, …
    """
    folder, settings = Path(folder), _settings(comparison, about or {})
    write_whole(folder / NUMBERS, csv_text(comparison.numbers()).encode())
    write_whole(folder / SETTINGS, (json.dumps(settings, indent=1, ensure_ascii=False) + "\n").encode())
    write_whole(folder / REPORT, page(comparison, rerun or _call(comparison), umap, settings).encode())
    return folder / REPORT


def page(
    comparison: Comparison, rerun: str, umap: bool = True, settings: Mapping[str, Any] | None = None
) -> str:
    """The page, as HTML that needs no other file."""
    counts = " and ".join(f"{len(x):,}" for x in comparison.features)
    settings = settings or _settings(comparison, {})
    found = Table(
        ("measure", "value", "95 % interval", "p", "a larger value means"),
        [_measure_row(one) for one in comparison.measures[comparison.at]],
        title=f"All measures at {comparison.at}",
        about=_ABOUT,
    )
    accuracies = _accuracies(comparison)
    return render(
        title=f"{comparison.a.title} against {comparison.b.title}",
        subtitle=f"{counts} images, {len(comparison.layers)} layers · {settings['made']}",
        headline=headline(comparison),
        tables=[found] if accuracies is None else [accuracies, found],
        notes=comparison.notes,
        figures=pictures(comparison, umap),
        settings=settings_table(_in_words(settings)),
        seconds=f"Measuring took {comparison.seconds:.0f} seconds.",
        rerun=rerun,
    )


def headline(comparison: Comparison) -> str:
    """The answer in a few sentences: whether there is a gap, how large, whether partners find each other."""
    a, b = comparison.a.title, comparison.b.title
    words = []
    mmd, purity = comparison.found("mmd"), comparison.found("neighbour_purity")
    if mmd is not None and mmd.p is not None and not math.isnan(mmd.value):
        apart = "differ" if mmd.p <= 0.05 else "cannot be told apart"
        words.append(
            f"At {comparison.at} the features of {a} and {b} {apart}: MMD² {mmd.value:.3f} "
            f"[{mmd.low:.3f}, {mmd.high:.3f}], p = {mmd.p:.3f}."
        )
    if purity is not None and not math.isnan(purity.value):
        words.append(
            f"{100 * purity.value:.0f} % of an image's nearest neighbours are of its own side (50 %: mixed)."
        )
    cka, found = comparison.found("linear_cka_debiased"), comparison.found("pair_recall")
    if cka is not None and found is not None and not math.isnan(cka.value):
        words.append(
            f"As pairs they are alike to {cka.value:.2f} (linear CKA; 1 is alike but for a rotation), and an "
            f"image finds its partner first in {100 * found.value:.0f} % of cases."
        )
    return " ".join(words) or f"The features of {a} and {b} at {comparison.at} have different widths."


# ------------------------------------------------------------------------ pictures


def pictures(comparison: Comparison, umap: bool = True) -> list[Figure]:
    """The pictures of the report, those that this comparison allows."""
    made = [_profile_figure(comparison)]
    if comparison.features[0].shape[1] == comparison.features[1].shape[1]:
        made.insert(0, _map_figure(comparison, umap))
    if comparison.norms is not None:
        made += [_norm_figure(comparison), _channel_figure(comparison)]
    known = {side.title: comparison.accuracy(key) for key, side in _sides(comparison).items()}
    groups = {title: pair for title, pair in known.items() if pair is not None}
    if groups:
        ax = gap_figures.reliability(groups, styles=_styles(comparison))
        caption = "On the diagonal a network is right as often as it is certain. Labels only measure here."
        made.append(_figure("Confidence and accuracy", ax, caption))
    return made


def _map_figure(comparison: Comparison, umap: bool) -> Figure:
    sides, rows = _sides(comparison), _shown(comparison)
    sets = {
        key: np.asarray(features[rows[key]], np.float32)
        for key, features in zip(sides, comparison.features, strict=True)
    }
    points, why = joint_map_or_pca(sets) if umap else (pca_map(sets), "")
    clouds = {
        key: Cloud(
            points[key],
            _style_key(comparison, key),
            side.title,
            None if side.labels is None else side.labels[rows[key]],
        )
        for key, side in sides.items()
    }
    linked = ("a", "b") if comparison.paired and len(sets["a"]) <= MOST_LINKS else None
    ax = feature_map(clouds, hue="modality", links=linked)
    kind = "UMAP" if umap and not why else "PCA"
    caption = f"Joint {kind} of the features at {comparison.at}. For looking: a joint UMAP exaggerates a gap."
    return _figure(f"Map of the features ({kind})", ax, f"{caption} {why}".strip(), wide=True)


def _profile_figure(comparison: Comparison) -> Figure:
    series, bands = {}, {}
    for name in PROFILE:
        found = [comparison.found(name, layer) for layer in comparison.layers]
        if all(one is not None for one in found):
            title = MEASURES[name].title
            series[title] = np.array([one.value for one in found if one])
            bands[title] = tuple(
                np.array([getattr(one, end) for one in found if one]) for end in ("low", "high")
            )
    layers = list(comparison.layers)
    ax = gap_figures.layer_profile(layers, series, bands, ylabel="value")  # type: ignore[arg-type]
    caption = "Bands are intervals of 95 %. Spatial positions are averaged."
    return _figure("Layer by layer", ax, caption, wide=True)


def _norm_figure(comparison: Comparison) -> Figure:
    norms = comparison.norms
    assert norms is not None
    series = {comparison.a.title: norms.a, comparison.b.title: norms.b}
    ylabel = "symmetric KL per channel, nats"
    ax = gap_figures.layer_profile(norms.layers, series, ylabel=ylabel, log=True, styles=_styles(comparison))
    title = "What the batch-norm layers see, against their running statistics"
    return _figure(title, ax, "0 where a layer's input has the running statistics.", wide=True)


def _channel_figure(comparison: Comparison) -> Figure:
    norms = comparison.norms
    assert norms is not None
    of_a, of_b = norms.worst
    seen = {
        _style_key(comparison, key): (one.mean.numpy(), one.var.numpy())
        for key, one in (("a", of_a), ("b", of_b))
    }
    running = of_b.running_mean.numpy(), of_b.running_var.numpy()
    figure = channel_statistics(running, seen, of_b.name)
    caption = (
        f"The layer where {comparison.b.title} is furthest from the running statistics; a dot per channel."
    )
    return _figure(f"Channels of {of_b.name}", figure, caption, wide=True)


def _figure(title: str, drawn: Any, caption: str, wide: bool = False) -> Figure:
    return Figure(title, png(drawn), alt_text(drawn), caption, wide)


def _sides(comparison: Comparison) -> dict[str, Side]:
    return {"a": comparison.a, "b": comparison.b}


def _style_key(comparison: Comparison, key: str) -> str:
    """What a side is drawn as: its modality, or its title where both have one modality."""
    differ = comparison.a.modality != comparison.b.modality
    return _sides(comparison)[key].modality if differ else _sides(comparison)[key].title


def _styles(comparison: Comparison) -> dict[str, Style]:
    return {
        side.title: replace(modality_style(_style_key(comparison, key)), title=side.title, brief="")
        for key, side in _sides(comparison).items()
    }


def _shown(comparison: Comparison) -> dict[str, Any]:
    """Rows on the map: all, or as many drawn at random; partners together."""
    counts = [len(x) for x in comparison.features]
    draw = np.random.default_rng(0)
    rows = [np.sort(draw.permutation(n)[:MOST_POINTS]) for n in counts]
    return {"a": rows[0], "b": rows[0] if comparison.paired else rows[1]}


# ------------------------------------------------------------------------ tables


def _accuracies(comparison: Comparison) -> Table | None:
    rows = []
    for key, side in _sides(comparison).items():
        known = comparison.accuracy(key)
        if known is not None:
            confidence, right = known
            low, high = interval(float(right.mean()), len(right))
            accuracy, certain = (f"{100 * share:.1f} %" for share in (right.mean(), confidence.mean()))
            rows.append((side.title, accuracy, f"{100 * low:.1f} to {100 * high:.1f}", certain))
    return Table(("", "accuracy", "95 % interval", "mean confidence"), rows) if rows else None


def _measure_row(one: Measured) -> tuple[str, ...]:
    title, larger = MEASURES[one.name].title, MEASURES[one.name].larger
    if math.isnan(one.value):
        return title, "–", "", "", one.how
    ends = "" if math.isnan(one.low) else f"{_number(one.low)} to {_number(one.high)}"
    return title, _number(one.value), ends, "" if one.p is None else f"{one.p:.3f}", larger


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


# ------------------------------------------------------------------------ what was compared


def _settings(comparison: Comparison, about: Mapping[str, str]) -> dict[str, Any]:
    """What was compared, with digests of networks and images, and in which environment."""
    found: dict[str, Any] = {"made": datetime.now().astimezone().strftime("%d %B %Y, %H:%M")} | dict(about)
    for key, side in _sides(comparison).items():
        found[key] = {
            "title": side.title,
            "modality": side.modality,
            "network": type(side.network).__name__,
            "network_sha256": _digest(_weights(side.network)),
            "images": len(comparison.features[key == "b"]),
            "images_sha256": _digest(_pixels(side.images)),
        }
    names = ("socketlab", "torch", "numpy")
    versions = {"python": platform.python_version()} | {name: version(name) for name in names}
    return found | comparison.settings | {"versions": versions}


def _weights(network: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(network.state_dict().items())


def _pixels(images: Any) -> list[tuple[str, torch.Tensor]]:
    """The images as named tensors; nothing for batches that are made anew whenever they are read."""
    if isinstance(images, PairedImages):
        return sorted(images.images.items())
    return [("images", images)] if isinstance(images, torch.Tensor) else []


def _digest(tensors: Sequence[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 of named tensors; empty without any."""
    if not tensors:
        return ""
    found = hashlib.sha256()
    for name, tensor in tensors:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings for the eye: no braces, short digests; layers that are the same on both sides once."""
    words = {}
    for name, value in settings.items():
        if name == "layers":
            words[name] = ", ".join(la if la == lb else f"{la} with {lb}" for la, lb in value.items())
        elif name in ("a", "b"):
            network, images = (value[f"{one}_sha256"][:12] for one in ("network", "images"))
            shown = f"{value['images']} {value['modality']} images" + (
                f" (sha256 {images}…)" if images else ""
            )
            words[name] = f"{value['title']}: {value['network']} (sha256 {network}…), {shown}"
        elif isinstance(value, dict):
            words[name] = ", ".join(f"{key} {part}" for key, part in value.items())
        else:
            words[name] = str(value)
    return words


def _call(comparison: Comparison) -> str:
    """The call in Python; networks and images are the caller's own, and have no names here."""
    about = comparison.settings
    words = {
        "layers": list(comparison.layers),
        "layers_b": list(comparison.layers.values()),
        "titles": (comparison.a.title, comparison.b.title),
        **{name: about[name] for name in ("paired", "rounds", "seed", "precision")},
    }
    arguments = ", ".join(f"{name}={value!r}" for name, value in words.items())
    return f"compare(model_a, model_b, data_a, data_b, {arguments})"
