"""What of an imported set is source, target, held out and pairs: SOCKET's protocol on a pack.

The source is trained on the training scenes of one domain, in colour; the target are the training scenes of
another domain (of the same where there is one only) in another modality; test scenes are held out; pairs are
the task-irrelevant scenes of all domains. Labels of the target are for measuring alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from socketlab import files
from socketlab.errors import LabError, require_choice
from socketlab.images import pocketrooms
from socketlab.images.encodings import FOCAL, MODALITIES, Normalisation, focal_of, measure
from socketlab.images.packs import MANIFEST, Pack
from socketlab.images.paired_images import CROP, PairedImages
from socketlab.images.scan import TEST_SHARE, for_testing
from socketlab.images.sensors import SENSORS, sensor_named
from socketlab.method import evaluate
from socketlab.networks.checkpoints import Source
from socketlab.runs.train_source import SourceRecipe, Trained, train
from socketlab.speed import best_execution

Progress = Callable[[Iterable[Any], Callable[[Any], str]], Iterable[Any]]
"""Yields the events and shows how far they are; the function describes an epoch in a few words."""


def digest(pack: Pack) -> str:
    """SHA-256 of the manifest, which holds the digests of all files of the pack."""
    return files.digest(pack.folder / MANIFEST)


def domains_with(pack: Pack, modality: str) -> list[str]:
    """Domains that have training scenes in a modality, in the pack's order."""
    if "train" not in pack.splits:
        raise LabError(f"{pack.folder.name} has no training scenes: import it with other classes.")
    domains = pack.manifest["splits"]["train"]["domains"]
    return [domain for domain in domains if len(pack.load("train", domain, (modality,)))]


def source_domain(pack: Pack, modality: str = "rgb", domain: str | None = None) -> str:
    """The domain that a source network is trained on: the one asked for, else the first."""
    known = domains_with(pack, modality)
    if domain is not None:
        require_choice(f"{modality} training domain of {pack.folder.name}", domain, known)
    return domain or known[0]


def target_modality(pack: Pack, modality: str | None = None) -> str:
    """The modality that is adapted to: the one asked for, else depth, else the first that is not colour."""
    there = [one for one in pack.modalities if one in MODALITIES]
    if modality not in (None, *there):
        raise LabError(f"{pack.folder.name} has no {modality} images, only {', '.join(there)}.")
    found = modality or next((one for one in ("depth", *there) if one in there and one != "rgb"), None)
    if found is None:
        raise LabError(f"{pack.folder.name} has {', '.join(there)} alone: there is nothing to adapt to.")
    return found


def target_domain(pack: Pack, modality: str, domain: str | None = None) -> str:
    """The domain that is adapted to: the one asked for, else the first that no source is trained on."""
    first = source_domain(pack, modality, domain)
    if domain is not None or modality == "rgb" or "rgb" not in pack.manifest["splits"]["train"]["arrays"]:
        return first
    own = source_domain(pack)
    return next((one for one in domains_with(pack, modality) if one != own), first)


def scenes(pack: Pack, modality: str, domain: str) -> tuple[PairedImages, PairedImages]:
    """Scenes of the task in one modality and domain: those to learn from, and those held out, with labels.

    Where the set has no test scenes, a fifth of each class is held out, chosen by the digests of the names. A
    `LabError` for a class without an image to learn from, or nothing to hold out.
    """
    learn, held_out = _learnt_and_held_out(pack, (modality,), domain)
    if len(labelled(learn)) == len(learn):  # scenes without a label may show any class
        _require_every_class(pack, learn, domain)
    held_out = labelled(held_out)
    if not len(held_out):
        raise LabError(f"{pack.folder.name} has no labelled {modality} image of {domain} to be held out.")
    return learn, held_out


def _require_every_class(pack: Pack, images: PairedImages, domain: str) -> None:
    if missing := ", ".join(name for name in images.classes if name not in images.kinds):
        what = f"{images.modality} training image of {missing} in {domain}"
        raise LabError(f"{pack.folder.name} has no {what}: choose another domain, or import another --task.")


def _learnt_and_held_out(
    pack: Pack, modalities: tuple[str, ...], domain: str
) -> tuple[PairedImages, PairedImages]:
    """Training and test scenes; of a set without test scenes, the training scenes divided."""
    learn, test = pack.load("train", domain, modalities), pack.manifest["splits"].get("test")
    if test and domain in test["domains"] and set(modalities) <= set(test["arrays"]):
        held_out = pack.load("test", domain, modalities)
        if len(held_out):
            return learn, held_out
    return _divided(learn)


def _divided(images: PairedImages) -> tuple[PairedImages, PairedImages]:
    """A fifth of each class apart: whole blocks, as an import divides them; of a single block, its end."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, (kind, block) in enumerate(zip(images.kinds, images.blocks or images.names, strict=True)):
        if kind in images.classes:
            groups[kind, block].append(row)
    test = {row for key in for_testing(groups, images.kinds) for row in groups[key]}
    blocks = Counter(kind for kind, _ in groups)
    for (kind, _), rows in groups.items():
        if blocks[kind] == 1 and len(rows) > 1:
            rows.sort(key=lambda row: images.names[row])
            test |= set(rows[-max(1, round(TEST_SHARE * len(rows))) :])
    every = range(len(images))
    return images.take([i for i in every if i not in test]), images.take([i for i in every if i in test])


def labelled(images: PairedImages) -> PairedImages:
    """The scenes whose class is known."""
    rows = [row for row, kind in enumerate(images.kinds) if kind in images.classes]
    return images if len(rows) == len(images) else images.take(rows)


def pairs(pack: Pack, modalities: Sequence[str], count: int | None = None, seed: int = 0) -> PairedImages:
    """Task-irrelevant scenes of all domains in these modalities; ``count`` of them drawn by ``seed``."""
    if "pairs" not in pack.splits:
        raise LabError(f"{pack.folder.name} has no task-irrelevant pairs: import another task, or use shot.")
    read = tuple(dict.fromkeys(modalities))
    found = pack.load("pairs", None, read)
    if len(found) < max(2, count or 0):
        wanted = f"{count} were asked for" if count else "two are needed at least"
        raise LabError(f"{pack.folder.name} has {len(found)} pairs in {' and '.join(read)}, but {wanted}.")
    if count is None:
        return found
    return found.take(torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:count])


def focal(pack: Pack, domain: str, field_of_view: float | None = None) -> tuple[tuple[float, float], str]:
    """Focal lengths in sides of a view, and where they come from.

    In this order: what was asked for, the intrinsics of the domain's scenes (their median), what is known of
    a sensor of that name, that of a Kinect v1.
    """
    if field_of_view is not None:
        return focal_of(field_of_view), f"{field_of_view:g}° as given"
    known = [one for one in pack.intrinsics("train", domain) if one is not None]
    if known:
        across, down = np.median(np.asarray(known)[:, :2], axis=0) / round(CROP * pack.size)
        return (float(across), float(down)), "the set's intrinsics"
    if domain in SENSORS:
        return focal_of(sensor_named(domain).fov_deg), f"what is known of {domain}"
    return FOCAL, "57°, a Kinect's, the default"


def network_name(pack: Pack, modality: str, domain: str) -> str:
    """Of the file that a network of a pack is written to, and looked for: ``rgb_mypack.safetensors``."""
    several = f"_{domain}" if len(pack.domains) > 1 else ""
    return f"{modality}_{pack.folder.name}{several}.safetensors"


def default_network(pack: Pack) -> str:
    """The file of the source network that a run takes by default: the one that ``train-source`` writes."""
    if "rgb" not in pack.manifest["splits"].get("train", {}).get("arrays", {}):
        raise LabError(f"{pack.folder.name} has no colour pictures of the task to train on: name a --source.")
    return network_name(pack, "rgb", source_domain(pack))


@dataclass(frozen=True)
class TrainingTask:
    """Labelled images of one modality, how to train on them, and what a checkpoint's card holds about them.

    The batch is one that the images fill; without a ``normalisation``, the recipe's own is taken.
    """

    images: PairedImages
    held_out: PairedImages
    recipe: SourceRecipe
    normalisation: Normalisation | None
    card: dict[str, Any]


def encoding(images: PairedImages, depth_encoding: str, seen: tuple[float, float]) -> Normalisation:
    """The normalisation measured on images of one modality; ``seen`` are focal lengths, as of `focal`."""
    if depth_encoding != "metric" and images.modality != "depth":
        raise LabError(f"{images.modality} images have no depth encoding: leave --depth-encoding out.")
    return measure(images.images[images.modality], images.modality, depth_encoding, seen)


def pack_training_task(
    pack: Pack, recipe: SourceRecipe, modality: str = "rgb", domain: str | None = None,
    depth_encoding: str = "metric", field_of_view: float | None = None,
) -> TrainingTask:  # fmt: skip
    """Labelled scenes of a pack's domain: for a source network or, in the target's modality, an oracle."""
    domain = source_domain(pack, modality, domain)
    learn, held_out = scenes(pack, modality, domain)
    learn = labelled(learn)
    _require_every_class(pack, learn, domain)
    normalisation = None
    if depth_encoding != "metric":
        normalisation = encoding(learn, depth_encoding, focal(pack, domain, field_of_view)[0])
    recipe = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, len(learn)))
    card: dict[str, Any] = {"modality": modality, "set": pack.folder.resolve().name, "domain": domain}
    card |= {"size": min(learn.images[modality].shape[-2:]), "data_digest": digest(pack)}
    return TrainingTask(learn, held_out, recipe, normalisation, card)


def rooms_training_task(sensor: str, modality: str, recipe: SourceRecipe) -> TrainingTask:
    """The shipped rooms as one sensor records them: other scenes for a source network than for the oracle."""
    names = ("target_adapt", "target_test") if modality == "depth" else ("source_train", "source_test")
    images, held_out = (pocketrooms.load(name, sensor, (modality,)) for name in names)
    about = {"modality": modality, "sensor": sensor, "trained_on": names[0], "tested_on": names[1]}
    return TrainingTask(images, held_out, recipe, None, {**about, "data_digest": rooms_digest()})


def train_on(task: TrainingTask, show: Progress, *, seed: int, device: str, half: bool = False) -> Source:
    """Train a network on a task to its end; its card has the accuracy on the held-out images.

    With ``half``, weights are rounded to 16 bits, as they are then stored, before they are measured.
    """
    images, held_out = placed(device, task.images, task.held_out)
    events = train(
        images, task.recipe, seed=seed, normalisation=task.normalisation, device=device,
        execution=best_execution(),
    )  # fmt: skip
    last = deque(show(events, lambda event: f"epoch {event.epoch} of {event.epochs}"), maxlen=1).pop()
    assert isinstance(last, Trained)
    source = last.source
    if half:
        source.network.half().float()
    accuracy = round(evaluate.accuracy(source, held_out), 4)
    source.card |= task.card | {"held_out_accuracy": accuracy, "held_out_images": len(held_out)}
    return source


def rooms_digest() -> str:
    """Return one SHA-256 digest for all images of PocketRooms, taken from their manifest."""
    listed = sorted(files.read_manifest(files.data_folder()).items())
    read = [[name, sha] for name, sha in listed if re.fullmatch(r"pocketrooms/.*\.(jpg|png|csv)", name)]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()


def compared_scenes(
    pack: Pack, modalities: Sequence[str], split: str | None = None, domain: str | None = None
) -> PairedImages:
    """Scenes in several modalities, to compare networks on: by default those that `adapt` holds out.

    Without labelled scenes of the task, the pairs; without these, the training scenes.
    """
    read = tuple(dict.fromkeys(modalities))
    if split is None and "train" in pack.splits:
        domain = target_domain(pack, read[-1], domain)
        held_out = labelled(_learnt_and_held_out(pack, read, domain)[1])
        if len(held_out):
            return held_out
    return pack.load(split or ("pairs" if "pairs" in pack.splits else pack.splits[0]), domain, read)


def placed(device: torch.device | str, *sets: PairedImages) -> list[PairedImages]:
    """The sets on a GPU, where all of them fill no more than half of its free memory; else as they are.

    From where they are, batches are brought to the GPU one by one while the last one computes.
    """
    stored = [one for part in sets for one in part.images.values()]
    needed = sum(one.numel() * one.element_size() for one in stored)
    if torch.device(device).type != "cuda" or needed > torch.cuda.mem_get_info()[0] / 2:
        return list(sets)
    return [part.to(device) for part in sets]
