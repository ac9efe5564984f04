"""The report of a comparison: an HTML page with its pictures inside, all numbers as CSV, settings as JSON."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from socketlab.figures import figures as plots
from socketlab.figures import gap_figures, report
from socketlab.figures.maps import joint_map, pca_map
from socketlab.files import write_whole
from socketlab.measures.bootstrap import Measured
from socketlab.measures.comparison import PROFILE, Comparison
from socketlab.measures.metrics import MEASURES

MOST_POINTS = 1000
"""Points of each side on the map; more hide each other."""
MOST_LINKS = 150
_ABOUT = """Intervals are of 95 %, from random halves of the images or from a standard error; p is of a
permutation test. A value below 0 is no error: an unbiased measure of no gap scatters about 0. What each
measure is, costs and gets wrong is said in socketlab/distances.py and likeness.py."""
REPORT, NUMBERS, SETTINGS = "report.html", "numbers.csv", "settings.json"


def write(comparison: Comparison, folder: Path | str, rerun: str = "", umap: bool = True) -> Path:
    """Write the report, the numbers and the settings; returns the path of the report.

    Parameters
    ----------
    folder : made when missing; files of an earlier report in it are replaced.
    rerun : what to type to make it again; unless told, the call in Python.
    umap : draw the map by UMAP, which takes seconds; else by its principal components.
    """
    folder = Path(folder)
    write_whole(folder / NUMBERS, _csv(comparison.numbers()))
    write_whole(folder / SETTINGS, (json.dumps(_settings(comparison), indent=1) + "\n").encode())
    write_whole(folder / REPORT, page(comparison, rerun or _call(comparison), umap).encode())
    return folder / REPORT


def page(comparison: Comparison, rerun: str, umap: bool = True) -> str:
    """The page, as HTML that needs no other file."""
    a, b = comparison.a.title, comparison.b.title
    body = [
        f'<p class="headline">{html.escape(headline(comparison))}</p>',
        _accuracies(comparison),
        f"<h2>All measures at {html.escape(comparison.at)}</h2>",
        _measures(comparison.measures[comparison.at]),
        f'<p class="small">{_ABOUT}</p>',
        *(report.note(note) for note in comparison.notes),
        '<div class="figures">'
        + "".join(report.picture(one) for one in pictures(comparison, umap))
        + "</div>",
        "<h2>Settings</h2>",
        f'<div class="scroll">{report.settings_table(_in_words(_settings(comparison)))}</div>',
        f'<p class="small">Measuring took {comparison.seconds:.0f} seconds.</p>',
        f"<h2>Run it again</h2><pre>{html.escape(rerun)}</pre>",
    ]
    counts = " and ".join(f"{len(x):,}" for x in comparison.features)
    return report.document(
        f"{a} against {b}", f"{counts} images, {len(comparison.layers)} layers", "".join(body)
    )


def headline(comparison: Comparison) -> str:
    """The answer in a few sentences: whether there is a gap, how large, whether partners find each other."""
    a, b = comparison.a.title, comparison.b.title
    told = []
    mmd, purity = comparison.found("mmd"), comparison.found("neighbour_purity")
    if mmd is not None and mmd.p is not None and not math.isnan(mmd.value):
        apart = "differ" if mmd.p <= 0.05 else "cannot be told apart"
        told.append(
            f"At {comparison.at} the features of {a} and {b} {apart}: MMD² {mmd.value:.3f} "
            f"[{mmd.low:.3f}, {mmd.high:.3f}], p = {mmd.p:.3f}."
        )
    if purity is not None and not math.isnan(purity.value):
        told.append(
            f"{100 * purity.value:.0f} % of an image's nearest neighbours are of its own side "
            "(50 % when mixed)."
        )
    cka, found = comparison.found("linear_cka_debiased"), comparison.found("pair_recall")
    if cka is not None and found is not None and not math.isnan(cka.value):
        told.append(
            f"As pairs they are alike to {cka.value:.2f} (linear CKA; 1 is alike but for a rotation), and an "
            f"image finds its partner first in {100 * found.value:.0f} % of cases."
        )
    return " ".join(told) or f"The features of {a} and {b} at {comparison.at} have different widths."


def pictures(comparison: Comparison, umap: bool = True) -> list[report.Figure]:
    """The pictures of the report, those that this comparison allows."""
    made = [_profile_figure(comparison)]
    if comparison.features[0].shape[1] == comparison.features[1].shape[1]:
        made.insert(0, _map_figure(comparison, umap))
    if comparison.norms is not None:
        made += [_norm_figure(comparison), _channel_figure(comparison)]
    known = {side.title: comparison.accuracy(key) for key, side in _sides(comparison).items()}
    groups = {title: pair for title, pair in known.items() if pair is not None}
    if groups:
        made.append(
            _figure(
                "Confidence and accuracy",
                gap_figures.reliability(groups, styles=_styles(comparison)),
                "On the diagonal a network is right as often as it says. Labels are for the reader alone.",
            )
        )
    return made


def _map_figure(comparison: Comparison, umap: bool) -> report.Figure:
    sides, rows = _sides(comparison), _shown(comparison)
    sets = {
        key: np.asarray(features[rows[key]], np.float32)
        for key, features in zip(sides, comparison.features, strict=True)
    }
    umap = umap and sum(map(len, sets.values())) >= 5
    points = joint_map(sets) if umap else pca_map(sets)
    clouds = {
        key: plots.Cloud(
            points[key],
            side.modality if _modalities_differ(comparison) else side.title,
            side.title,
            None if side.labels is None else side.labels[rows[key]],
        )
        for key, side in sides.items()
    }
    linked = ("a", "b") if comparison.paired and len(sets["a"]) <= MOST_LINKS else None
    ax = plots.feature_map(clouds, hue="modality", links=linked)
    kind = "UMAP" if umap else "PCA"
    caption = f"Joint {kind} of the features at {comparison.at}. For looking: a joint UMAP exaggerates a gap."
    return _figure(f"Map of the features ({kind})", ax, caption, wide=True)


def _profile_figure(comparison: Comparison) -> report.Figure:
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
    return _figure(
        "Layer by layer", ax, "Bands are intervals of 95 %. Places in a map are averaged.", wide=True
    )


def _norm_figure(comparison: Comparison) -> report.Figure:
    norms = comparison.norms
    assert norms is not None
    series = {comparison.a.title: norms.a, comparison.b.title: norms.b}
    ylabel = "symmetric KL per channel, nats"
    ax = gap_figures.layer_profile(norms.layers, series, ylabel=ylabel, log=True, styles=_styles(comparison))
    title = "What the batch-norm layers see, against what they remember"
    return _figure(title, ax, "0 where a layer sees what it remembers.", wide=True)


def _channel_figure(comparison: Comparison) -> report.Figure:
    norms = comparison.norms
    assert norms is not None
    of_a, of_b = norms.worst
    seen = {
        _style_key(comparison, key): (one.mean.numpy(), one.var.numpy())
        for key, one in (("a", of_a), ("b", of_b))
    }
    remembered = of_b.running_mean.numpy(), of_b.running_var.numpy()
    picture = plots.channel_statistics(remembered, seen, of_b.name)
    caption = f"The layer where {comparison.b.title} is furthest from what is remembered; a dot per channel."
    return report.Figure(
        f"Channels of {of_b.name}", plots.png(picture), plots.alt_text(picture), caption, True
    )


def _figure(title: str, ax: Any, caption: str, wide: bool = False) -> report.Figure:
    return report.Figure(title, plots.png(ax), plots.alt_text(ax), caption, wide)


def _sides(comparison: Comparison) -> dict[str, Any]:
    return {"a": comparison.a, "b": comparison.b}


def _modalities_differ(comparison: Comparison) -> bool:
    return comparison.a.modality != comparison.b.modality


def _style_key(comparison: Comparison, key: str) -> str:
    """What a side is drawn as: its modality, or its title where both have one modality."""
    side = _sides(comparison)[key]
    return side.modality if _modalities_differ(comparison) else side.title


def _styles(comparison: Comparison) -> dict[str, plots.Style]:
    return {
        side.title: replace(plots.modality_style(_style_key(comparison, key)), title=side.title, brief="")
        for key, side in _sides(comparison).items()
    }


def _shown(comparison: Comparison) -> dict[str, Any]:
    """Rows on the map: all, or as many drawn at random; partners together."""
    counts = [len(x) for x in comparison.features]
    draw = np.random.default_rng(0)
    rows = [np.sort(draw.permutation(n)[:MOST_POINTS]) for n in counts]
    return {"a": rows[0], "b": rows[0] if comparison.paired else rows[1]}


def _accuracies(comparison: Comparison) -> str:
    rows = []
    for key, side in _sides(comparison).items():
        known = comparison.accuracy(key)
        if known is not None:
            confidence, right = known
            low, high = report.interval(float(right.mean()), len(right))
            shares = right.mean(), confidence.mean()
            accuracy, certain = (f"{100 * share:.1f} %" for share in shares)
            rows.append([html.escape(side.title), accuracy, f"{100 * low:.1f} to {100 * high:.1f}", certain])
    head = ["", "accuracy", "95 % interval", "mean confidence"]
    return f'<div class="scroll">{report.table(head, rows)}</div>' if rows else ""


def _measures(found: Sequence[Measured]) -> str:
    rows = []
    for one in found:
        known = MEASURES.get(one.name)
        title, larger = (known.title, known.larger) if known else ("gap within classes", "further apart")
        if math.isnan(one.value):
            rows.append([html.escape(title), "–", "", "", html.escape(one.how)])
            continue
        ends = "" if math.isnan(one.low) else f"{_number(one.low)} to {_number(one.high)}"
        p = "" if one.p is None else f"{one.p:.3f}"
        rows.append([html.escape(title), _number(one.value), ends, p, html.escape(larger)])
    head = ["measure", "value", "95 % interval", "p", "a larger value means"]
    return f'<div class="scroll">{report.table(head, rows)}</div>'


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _settings(comparison: Comparison) -> dict[str, Any]:
    about = {
        key: {"title": side.title, "modality": side.modality, "network": type(side.network).__name__}
        for key, side in _sides(comparison).items()
    }
    return about | comparison.settings


def _in_words(settings: dict[str, Any]) -> dict[str, str]:
    """Settings for the eye: no braces; layers that are the same on both sides once."""
    told = {}
    for name, value in settings.items():
        if name == "layers":
            told[name] = ", ".join(la if la == lb else f"{la} with {lb}" for la, lb in value.items())
        elif isinstance(value, dict):
            told[name] = ", ".join(str(part) for part in value.values())
        else:
            told[name] = str(value)
    return told


def _call(comparison: Comparison) -> str:
    """The call in Python; networks and images are the caller's own, and have no names here."""
    about = comparison.settings
    words = {
        "layers": list(comparison.layers),
        "layers_b": list(comparison.layers.values()),
        "titles": (comparison.a.title, comparison.b.title),
        **{name: about[name] for name in ("paired", "rounds", "seed", "precision")},
    }
    told = ", ".join(f"{name}={value!r}" for name, value in words.items())
    return f"compare(model_a, model_b, data_a, data_b, {told})"


def _csv(lines: Sequence[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue().encode()
