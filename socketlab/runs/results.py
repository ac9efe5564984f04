"""What came out of a run: scores first, then pictures, each of which may fail by itself, then the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from socketlab.errors import LabError
from socketlab.figures import figures as plots
from socketlab.figures import maps, style
from socketlab.figures.film import Film, Snapshot
from socketlab.figures.map_figures import Cloud, feature_map
from socketlab.figures.report import Figure, Score, page
from socketlab.files import as_json, reason, write_whole
from socketlab.images.sensors import sensor_named
from socketlab.measures.distances import neighbour_purity
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch, State, adapt
from socketlab.method.recipe import Recipe, knobs
from socketlab.networks.checkpoints import Source, read_tensors, save_source
from socketlab.networks.networks import networks_of
from socketlab.runs import run_folder
from socketlab.runs.run_folder import RESULTS, Run
from socketlab.runs.settings import Material, Settings, gather

TITLES = {name: look.title for name, look in style.METHODS.items()} | {"source-only": "no adaptation"}
MOST_PAIRS_ON_MAP = 300


@dataclass(frozen=True)
class Results:
    """What came out of a finished run: scores of the source network, the method, and the oracle, if any.

    ``confusion`` are (K, K) counts on the held-out images, row = true class.
    """

    scores: list[Score]
    has_oracle: bool
    classes: list[str]
    confusion: list[list[int]]
    held_out_images: int
    adapted_images: int
    notes: list[str]


def finish(run: Run, material: Material, state: State) -> Results:
    """Write results, checkpoint, pictures and report of a run whose epochs are done."""
    return illustrate(run, material, run_folder.chosen(run, state), measure(run, material, state))


def measure(run: Run, material: Material, state: State) -> Results:
    """Measure the network that counts (`run_folder.chosen`); write ``results.json``, then the checkpoint."""
    if not state.finished:
        raise LabError(f"{run.folder} is at epoch {state.epoch}: finish it with --resume {run.folder}.")
    adapted, oracle, config = run_folder.chosen(run, state), material.oracle, run.config
    before = adapt(  # the source network as it meets the target
        material.sources, material.target, None, Recipe.for_method("source-only"), seed=config.settings.seed,
        normalisation=material.normalisation,
    )  # fmt: skip
    first = next(before)
    assert isinstance(first, Epoch)
    networks = {"source only": first.state.adapted, TITLES[config.settings.method]: adapted}
    scores = [score(name, network, material, adapts=True) for name, network in networks.items()]
    if oracle is not None:
        scores.append(score("oracle", oracle, material, adapts=False))
    results = Results(
        scores=scores,
        has_oracle=oracle is not None,
        classes=list(adapted.classes),
        confusion=evaluate.confusion(adapted, material.held_out).tolist(),
        held_out_images=len(material.held_out),
        adapted_images=len(material.target),
        notes=notes(run, material),
    )
    write_whole(run.folder / RESULTS, as_json(asdict(results)))
    adapted.card = {
        "modality": material.modality,
        "sensor" if config.settings.pack is None else "set": config.settings.place,
        "made_by": config.rerun,
        "adapted_from": ", ".join(config.sources or config.settings.source_names),
        "held_out_accuracy": round(scores[1].held_out, 4),
        "selection": config.selection,
        "recipe": asdict(config.settings.recipe),
        "seed": config.settings.seed,
        "data_digest": config.data_digest,
    }
    save_source(adapted, run.folder / run_folder.CHECKPOINT)
    return results


def score(name: str, network: Source, material: Material, *, adapts: bool) -> Score:
    """Measure a network on the held-out images and, when it ``adapts``, on those adapted to."""
    images = material.held_out
    counts = evaluate.confusion(network, images)
    recalls = [int(row[i]) / int(row.sum()) if row.sum() else None for i, row in enumerate(counts)]
    learnt = material.labelled_target if adapts else None
    transductive = None if learnt is None else evaluate.accuracy(network, learnt)
    effective = None
    if images.blocks:
        right = evaluate.predict(network, images)[0].argmax(dim=1).cpu() == images.labels.cpu()
        effective = effective_images(right.numpy(), images.blocks)
    return Score(name, float(counts.trace() / counts.sum()), transductive, recalls, effective)


def effective_images(right: np.ndarray, blocks: Sequence[str]) -> float:
    r"""How many independent images are worth as much as these, of which some are of one block (recording).

    .. math:: n_{eff} = \frac{p(1 - p)}{v}, \quad v = \frac{B}{B - 1} \sum_b \frac{(r_b - p n_b)^2}{n^2}

    with r_b of n_b images of block b ``right``; between 1 and n; B where all are right, or none.

    Source: Korn and Graubard, Survey Methodology 24, 1998.
    """
    _, block = np.unique(np.asarray(blocks), return_inverse=True)
    sizes, hits = np.bincount(block), np.bincount(block, right)
    count, share = len(right), float(np.mean(right))
    if len(sizes) == 1 or share in (0.0, 1.0):
        return float(len(sizes))
    variance = ((hits - share * sizes) ** 2).sum() / count**2 * len(sizes) / (len(sizes) - 1)
    return min(float(count), max(1.0, share * (1 - share) / variance)) if variance > 0 else float(count)


def notes(run: Run, material: Material) -> list[str]:
    """Return what a reader of the numbers should know besides."""
    settings, held_out = run.settings, material.held_out
    no_oracle, of_rooms, blocks = material.oracle is None, settings.pack is None, len(set(held_out.blocks))
    file = f" (data/models/oracle_{material.modality}_{settings.sensor}.safetensors)" if of_rooms else ""
    weaker = of_rooms and not no_oracle and settings.strength != 1
    elsewhere = run.config.environment != run_folder.environment()
    unseen = ", ".join(sorted(set(held_out.classes) - set(held_out.kinds)))
    unknown = len(material.target) - len(material.labelled_target or ())
    found = {
        f"The oracle, a network trained with target labels, is missing{file}, so the share of the gap that "
        f"was closed cannot be given; `socketlab report {run.folder} --oracle FILE` adds one.": no_oracle,
        f"The oracle was trained on images of strength 1, but these have strength {settings.strength:g}: it "
        "may fall short of what labels could give here.": weaker,
        f"The {len(held_out)} held-out images are of {blocks} recordings or places and not independent: the "
        "intervals are those of the effective number of images.": blocks,
        f"No held-out image shows {unseen}: nothing is known of these classes.": unseen,
        f"{unknown} of the images adapted to have no label: accuracies on these leave them out.": unknown,
        "This run was resumed under other versions, or with another number of threads, than it began with: "
        "its last digits may differ from those of an uninterrupted run.": elsewhere,
    }
    return [text for text, holds in found.items() if holds]


def again(run: Run, oracle: str | None) -> Results:
    """Finish a run once more, with an ``oracle`` that was trained with target labels, if one is named."""
    settings = run.settings if oracle is None else dataclasses.replace(run.settings, oracle=oracle)
    material = gather(settings)
    state = run_folder.resume(run, material)
    if state is None:
        raise LabError(f"{run.folder} has no epoch yet: continue with --resume {run.folder}.")
    if settings != run.settings:
        run.config = dataclasses.replace(run.config, settings=settings, rerun=settings.command())
        run.write_config()
    return finish(run, material, state)


def illustrate(run: Run, material: Material, adapted: Source, results: Results) -> Results:
    """Draw the pictures and write the report; a picture that fails is left out, with its reason."""
    figures, failed = [], []
    counts, classes = torch.tensor(results.confusion), tuple(results.classes)
    rows = f"Held-out target images, {results.scores[1].name}; each row sums to 100 %."
    drawings: dict[str, tuple[str, Callable[[], tuple[Axes | Drawing | None, str]]]] = {
        "confusion.png": ("What is taken for what", lambda: (plots.confusion_matrix(counts, classes), rows)),
        "mistakes.png": ("The commonest mistakes", lambda: _mistakes(material, adapted)),
        "map.png": ("Map of the features", lambda: _map(run.settings, material, adapted)),
        "losses.png": ("Epoch by epoch", lambda: _curves(run, results.scores)),
    }
    for file, (title, draw) in drawings.items():
        try:
            drawing, caption = draw()
            if drawing is not None:
                png, wide = style.png(drawing, dpi=130), file in ("map.png", "losses.png")
                write_whole(run.folder / file, png)
                figures.append(Figure(title, png, style.alt_text(drawing), caption, wide))
        except Exception as error:  # whatever it is, the scores stand
            failed.append(f"“{title}” could not be drawn: {reason(error)}.")
    try:
        film = _film(run, material)
    except LabError as error:  # a file of it was damaged
        film = None
        failed.append(f"The film of the epochs could not be made: {reason(error)}.")
    results = dataclasses.replace(results, notes=[*results.notes, *failed])
    write_whole(run.folder / run_folder.REPORT, _report(run, results, figures, film).encode())
    return results


def _mistakes(material: Material, adapted: Source) -> tuple[Drawing | None, str]:
    images, modality = material.held_out, material.modality
    found = evaluate.predict(adapted, images)[0].argmax(dim=1).cpu()
    stored = images.images[modality].cpu()
    drawing = plots.confusion_examples(stored, modality, images.labels.cpu(), found, adapted.classes)
    return drawing, "Held-out target images behind the largest numbers off the diagonal."


def _map(settings: Settings, material: Material, adapted: Source) -> tuple[Axes, str]:
    """One map of held-out target features and both halves of pairs; of several sources, by the first."""
    adapted = dataclasses.replace(adapted, network=networks_of(adapted.network)[0])
    sets: dict[str, tuple[Tensor, str, Any]] = {}  # title → features, modality, labels; the last lie on top
    caption = "features of held-out target images, coloured by their true class. "
    if material.pairs is not None:
        some = material.pairs.take(range(len(material.pairs))[:MOST_PAIRS_ON_MAP])
        for network in (material.source, adapted):
            title = f"{network.modality.replace('rgb', 'RGB')} of pairs"
            found = evaluate.predict(network, some.only(network.modality))[1].cpu()
            sets[title] = found, network.modality, None
        colour, target = (one[0] for one in sets.values())
        purity = neighbour_purity(colour, target)
        caption += (
            f"Pale: both halves of {len(some)} pairs; in feature space {100 * purity:.0f} % of a half's 15 "
            "nearest neighbours are of its own modality (50 % = fully mixed, 100 % = two islands). "
        )
    found, labels = evaluate.predict(adapted, material.held_out)[1].cpu(), material.held_out.labels
    sets[f"{material.modality}, held out"] = found, material.modality, labels.cpu().numpy()
    points, why = maps.joint_map_or_pca({title: one[0].numpy() for title, one in sets.items()}, settings.seed)
    clouds = {title: Cloud(points[title], one[1], title, one[2]) for title, one in sets.items()}
    kind = "Principal components" if why else "UMAP"
    caption = f"{kind} of the {caption}Distances between clusters mean little. {why}".strip()
    return feature_map(clouds, adapted.classes), caption


def _curves(run: Run, scores: Sequence[Score]) -> tuple[Drawing, str]:
    """Losses and accuracies over the epochs, side by side."""
    measured = {"held out": run.curve(run_folder.HELD_OUT), "adapted to": run.curve(run_folder.TRANSDUCTIVE)}
    accuracies = {title: curve for title, curve in measured.items() if curve[0]}
    levels = {other.name: other.held_out for other in (scores[0], *scores[2:])}
    return plots.training_curves({name: run.curve(name) for name in run.losses}, accuracies, levels), (
        "Left: mean of each loss over an epoch, unweighted, each in its own units. "
        "Right: target accuracy after each epoch (0: before any training, with the statistics that the "
        "recipe tests with); the method does not see it, and no epoch is chosen by it."
    )


def _film(run: Run, material: Material) -> Film | None:
    """The features of every epoch on one map; None where an epoch was not kept, as by an earlier version."""
    paths = [run.folder / run_folder.FILM / f"{epoch}.safetensors" for epoch in range(len(run.rows))]
    if len(paths) < 2 or not all(path.is_file() for path in paths):
        return None
    frames = [read_tensors(path)[0] for path in paths]
    titles = ["before", *(f"epoch {epoch}" for epoch in range(1, len(frames)))]
    snapshots = [
        Snapshot(title, {name: x.float().numpy() for name, x in frame.items()}, frame["confusion"].numpy())
        for title, frame in zip(titles, frames, strict=True)
    ]
    source, target, images = material.source.modality, material.modality, material.held_out
    sets: dict[str, Any] = {"source half": (source, f"pairs, {source}", None)}
    sets |= {"target half": (target, f"pairs, {target}", None)}
    links = ("source half", "target half") if material.pairs is not None else None
    labels = run_folder.shown(images, run_folder.SHOWN_IMAGES).labels.cpu().numpy()
    sets = (sets if links else {}) | {"images": (target, f"{target}, held out", labels)}
    return Film.of_features(snapshots, sets, images.classes, links)


def _report(run: Run, results: Results, figures: list[Figure], film: Film | None) -> str:
    """The run in the fields of the page."""
    settings, of_rooms, method = run.settings, run.settings.pack is None, results.scores[1].name
    place = sensor_named(settings.sensor).title if of_rooms else settings.place
    modality, made = settings.target or run.config.target, datetime.fromisoformat(run.config.made)
    labels = (
        "those of target images were used to measure the accuracies on this page and to colour the map, "
        "and for nothing else; the method never sees them."
    )
    if results.has_oracle:
        labels += " The oracle was trained with those of the images adapted to."
    return page(
        title=f"{method[:1].upper()}{method[1:]} on {place}",
        subtitle=f"{modality} as the target modality · seed {settings.seed} · {made:%d %B %Y, %H:%M}",
        scores=results.scores,
        has_oracle=results.has_oracle,
        classes=[name.replace("_", " ") for name in results.classes],
        things="rooms" if of_rooms else "images",
        images=(results.held_out_images, results.adapted_images),
        settings=_settings_table(run),
        rerun=run.config.rerun,
        wall_seconds=sum(run.curve("seconds")[1]),
        selection=f"that of {run.which}; no accuracy takes part in the choice.",
        labels=labels,
        notes=results.notes,
        figures=figures,
        film=film,
    )


def _settings_table(run: Run) -> dict[str, object]:
    """Everything that the run depends on, with the labels of the sliders."""
    settings, config = run.settings, run.config
    names = ", ".join(config.sources or settings.source_names)
    images = "PocketRooms" if settings.pack is None else settings.place
    table = {name.replace("_", " "): value for name, value in settings.stated().items() if name != "pack"}
    table["source"] = f"{names} (sha256 {config.source_digest[:12]}…)"
    table |= {"images": f"{images} (sha256 {config.data_digest[:12]}…)"} | config.about
    for name, about in knobs().items():
        value = getattr(settings.recipe, name)
        table[f"{about.label} ({name})"] = f"{value:g}" if isinstance(value, float) else value
    return table | config.environment
