"""What of an imported set is source, target, held out and pairs: SOCKET's protocol on a pack.

The source is trained on the training scenes of one domain, in colour; the target are the training scenes of
another domain (of the same where there is one only) in another modality; test scenes are held out; pairs are
the task-irrelevant scenes of all domains. Labels of the target are for measuring alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from socketlab.errors import LabError
from socketlab.files import data_folder, read_manifest
from socketlab.images import pocketrooms
from socketlab.images.encodings import FOCAL, MODALITIES, Normalisation, focal_of, measure
from socketlab.images.packs import MANIFEST, Pack
from socketlab.images.paired_images import CROP, PairedImages
from socketlab.images.sensors import SENSORS, sensor_named
from socketlab.networks.checkpoints import Source, load_source, require_classes
from socketlab.networks.networks import networks_of
from socketlab.networks.shot_files import FILES, read_triple
from socketlab.runs.train_source import SourceRecipe

TEST_SHARE = 0.2
"""Of a set that has no test scenes of its own."""
RESIZED_AT_ONCE = 64


def digest(pack: Pack) -> str:
    """SHA-256 of the manifest, which holds the digests of all files of the pack."""
    return hashlib.sha256((pack.folder / MANIFEST).read_bytes()).hexdigest()


def domains_with(pack: Pack, modality: str) -> list[str]:
    """Domains that have training scenes in a modality, in the pack's order; a LabError when none has."""
    split = pack.manifest["splits"].get("train")
    if split is None:
        raise LabError(
            f"{pack.folder.name} has no training scenes of the task: import it with other classes."
        )
    if modality not in split["arrays"]:
        there = ", ".join(split["arrays"])
        raise LabError(f"{pack.folder.name} has no {modality} images in train, only {there}.")
    return [domain for domain in split["domains"] if len(pack.load("train", domain, (modality,)))]


def source_domain(pack: Pack, modality: str = "rgb", domain: str | None = None) -> str:
    """The domain that a source network is trained on: the one asked for, else the first."""
    known = domains_with(pack, modality)
    return known[0] if domain is None else _known(domain, known, pack, modality)


def target_modality(pack: Pack, modality: str | None = None) -> str:
    """The modality that is adapted to: the one asked for, else depth, else the first that is not colour."""
    there = [one for one in pack.modalities if one in MODALITIES]
    if modality is not None:
        if modality not in there:
            raise LabError(f"{pack.folder.name} has no {modality} images, only {', '.join(there)}.")
        return modality
    other = [one for one in ("depth", *there) if one in there and one != "rgb"]
    if not other:
        raise LabError(f"{pack.folder.name} has {', '.join(there)} alone: there is nothing to adapt to.")
    return other[0]


def target_domain(pack: Pack, modality: str, domain: str | None = None) -> str:
    """The domain that is adapted to: the one asked for, else the first that no source is trained on."""
    known = domains_with(pack, modality)
    if domain is not None:
        return _known(domain, known, pack, modality)
    colour = "rgb" if "rgb" in pack.manifest["splits"]["train"]["arrays"] and modality != "rgb" else None
    own = None if colour is None else source_domain(pack, colour)
    return next((one for one in known if one != own), known[0])


def _known(domain: str, known: Sequence[str], pack: Pack, modality: str) -> str:
    if domain not in known:
        told = ", ".join(known)
        raise LabError(f"{pack.folder.name} has no {modality} training images of {domain!r}, only of {told}.")
    return domain


def scenes(
    pack: Pack, modality: str, domain: str, size: int | None = None
) -> tuple[PairedImages, PairedImages]:
    """Scenes of the task in one modality and domain: those to learn from, and those held out.

    Held-out scenes have labels. Where the set has no test scenes, a fifth of each class is held out, chosen
    by the digests of the names.

    Raises
    ------
    LabError : a class has no image to learn from, nothing can be held out, or ``size`` is too large.
    """
    learn, held_out = _learnt_and_held_out(pack, (modality,), domain)
    _require_classes_seen(pack, learn, modality, domain)
    held_out = labelled(held_out)
    if not len(held_out):
        raise LabError(
            f"{pack.folder.name} has no labelled {modality} image of {domain} to be held out: add some."
        )
    return resized(learn, size), resized(held_out, size)


def _learnt_and_held_out(
    pack: Pack, modalities: tuple[str, ...], domain: str
) -> tuple[PairedImages, PairedImages]:
    """Training and test scenes; of a set without test scenes, the training scenes divided."""
    learn, split = pack.load("train", domain, modalities), pack.manifest["splits"].get("test")
    if split is None or domain not in split["domains"] or not set(modalities) <= set(split["arrays"]):
        return _divided(learn)
    held_out = pack.load("test", domain, modalities)
    return (learn, held_out) if len(held_out) else _divided(learn)


def _divided(images: PairedImages) -> tuple[PairedImages, PairedImages]:
    """A fifth of each class apart, one scene at least of two or more; whole blocks, in an order by digests.

    A class of a single block is divided at one place, so that neighbours stay together but there.
    """
    by_kind: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (kind, block) in enumerate(zip(images.kinds, images.blocks or images.names, strict=True)):
        if kind in images.classes:
            by_kind[kind][block].append(row)
    test: set[int] = set()
    for blocks in by_kind.values():
        names = sorted(blocks, key=lambda name: hashlib.sha256(name.encode()).digest())
        wanted = max(1, round(TEST_SHARE * sum(map(len, blocks.values()))))
        if len(names) == 1:
            rows = sorted(blocks[names[0]], key=lambda row: images.names[row])
            test |= set(rows[-wanted:]) if len(rows) > 1 else set()
        taken = 0
        for name in names[:-1]:
            if taken < wanted:
                test |= set(blocks[name])
                taken += len(blocks[name])
    every = range(len(images))
    return images.take([i for i in every if i not in test]), images.take([i for i in every if i in test])


def labelled(images: PairedImages) -> PairedImages:
    """The scenes whose class is known."""
    rows = [row for row, kind in enumerate(images.kinds) if kind in images.classes]
    return images if len(rows) == len(images) else images.take(rows)


def _require_classes_seen(pack: Pack, images: PairedImages, modality: str, domain: str) -> None:
    seen = set(images.kinds)
    missing = [name for name in images.classes if name not in seen]
    if missing and seen <= set(images.classes):  # unlabelled scenes may show any class
        raise LabError(
            f"{pack.folder.name} has no {modality} training image of {', '.join(missing)} in {domain}: "
            "choose another domain, or import the set again and leave the class out of --task."
        )


def pairs(
    pack: Pack, modalities: Sequence[str], count: int | None = None, seed: int = 0, size: int | None = None
) -> PairedImages:
    """Task-irrelevant scenes of all domains in these modalities; ``count`` of them drawn by ``seed``.

    Raises
    ------
    LabError : the pack has none, or too few.
    """
    if "pairs" not in pack.splits:
        raise LabError(
            f"{pack.folder.name} has no task-irrelevant pairs: import it with --task, so that some classes "
            "are left for pairs, or adapt without them, as with --method shot."
        )
    found = pack.load("pairs", None, tuple(dict.fromkeys(modalities)))
    if len(found) < max(2, count or 0):
        wanted = f"{count} were asked for" if count else "two are needed at least"
        told = " and ".join(dict.fromkeys(modalities))
        raise LabError(f"{pack.folder.name} has {len(found)} pairs in {told}, but {wanted}.")
    if count is not None:
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
        found = found.take(order[:count])
    return resized(found, size)


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


def resized(images: PairedImages, size: int | None) -> PairedImages:
    """The same scenes at another size, in memory: colours smoothly, depth from the pixel under the centre.

    Raises
    ------
    LabError : larger than stored.
    """
    if size is None or not images.images:
        return images
    stored = min(min(one.shape[-2:]) for one in images.images.values())
    if not 8 <= size <= stored:
        raise LabError(
            f"size {size} is out of range: the set stores {stored} pixels; choose 8 to {stored}, or import "
            "it again with a larger --size."
        )
    if size == stored:
        return images
    small = {modality: _resized(one, size) for modality, one in images.images.items()}
    return dataclasses.replace(images, images=small)


def _resized(images: Tensor, size: int) -> Tensor:
    if images.dtype is torch.uint16:
        y, x = (((torch.arange(size) + 0.5) * n / size).long() for n in images.shape[-2:])
        parts = [part.view(torch.int16)[:, :, y[:, None], x] for part in images.split(RESIZED_AT_ONCE)]
        return torch.cat(parts).view(torch.uint16)
    parts = [
        torch.nn.functional.interpolate(part.float(), (size, size), mode="bilinear", antialias=True)
        for part in images.split(RESIZED_AT_ONCE)
    ]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])


# ------------------------------------------------------------------------ source networks


def load_network(name: str, classes: Sequence[str], device: torch.device | str = "cpu") -> Source:
    """A source network for these classes: a checkpoint, or a folder with the three files of SHOT.

    The three files do not name their classes. ``classes.txt`` beside them may, one a line in the order of the
    labels; else they are taken to be these classes in this order.

    Raises
    ------
    LabError : no such network, or one for other classes.
    """
    folder = Path(name)
    if folder.is_dir() and (folder / FILES[0]).is_file():
        source = _published(folder, tuple(classes), device)
    elif folder.is_dir():
        raise LabError(f"{folder} is no source network: it has no {', '.join(FILES)}.")
    else:
        source = load_source(name, device)
    require_classes(source, tuple(classes))
    return source


def _published(folder: Path, classes: tuple[str, ...], device: torch.device | str) -> Source:
    listed = folder / "classes.txt"
    if not listed.is_file():
        return read_triple(folder, classes, device=device)
    own = tuple(line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    source = read_triple(folder, own, device=device)
    return in_order(source, classes) if set(own) == set(classes) else source


def in_order(source: Source, classes: tuple[str, ...]) -> Source:
    """The same network with its outputs in the order of ``classes``, which are the same in another order."""
    rows = torch.tensor([source.classes.index(name) for name in classes])
    for network in networks_of(source.network):
        head = network.head.state_dict()
        network.head.load_state_dict({name: x[rows.to(x.device)] for name, x in head.items()})
    return dataclasses.replace(source, classes=classes)


def network_name(pack: Pack, modality: str, domain: str) -> str:
    """Of the file that a network of a pack is written to, and looked for: ``rgb_mypack.safetensors``."""
    several = [f"_{domain}"] if len(pack.domains) > 1 else []
    return "_".join([modality, pack.folder.name]) + "".join(several) + ".safetensors"


def default_network(pack: Pack) -> str:
    """The file of the source network that a run takes unless told: the one that ``train-source`` writes."""
    if "rgb" not in pack.manifest["splits"].get("train", {}).get("arrays", {}):
        raise LabError(
            f"{pack.folder.name} has no colour pictures of the task, which a source network could be trained "
            "on: name one with --source."
        )
    return network_name(pack, "rgb", source_domain(pack))


@dataclass(frozen=True)
class Lesson:
    """What a network is trained with labels on.

    Parameters
    ----------
    images, held_out : labelled, of one modality and domain.
    recipe : with a batch that the images fill.
    normalisation : of the images; None for the recipe's own.
    card : what a checkpoint says of its data.
    """

    images: PairedImages
    held_out: PairedImages
    recipe: SourceRecipe
    normalisation: Normalisation | None
    card: dict[str, object]


def lesson(
    pack: Pack,
    recipe: SourceRecipe,
    modality: str = "rgb",
    domain: str | None = None,
    *,
    size: int | None = None,
    depth_encoding: str = "metric",
    field_of_view: float | None = None,
) -> Lesson:
    """The labelled scenes of a pack's domain: for a source network or, in the target's modality, an oracle.

    Raises
    ------
    LabError : no such domain or modality, a class without an image, an encoding for what is not depth.
    """
    domain = source_domain(pack, modality, domain)
    learn, held_out = scenes(pack, modality, domain, size)
    learn = labelled(learn)
    if len(set(learn.kinds)) < len(learn.classes):
        missing = ", ".join(sorted(set(learn.classes) - set(learn.kinds)))
        told = f"{pack.folder.name} has no labelled {modality} image of {missing} in {domain}"
        raise LabError(f"{told}: add some, or import the set again and leave the class out of --task.")
    normalisation = None
    if depth_encoding != "metric":
        if modality != "depth":
            raise LabError(f"{modality} images have no depth encoding: leave --depth-encoding out.")
        seen = focal(pack, domain, field_of_view)[0]
        normalisation = measure(learn.images[modality], modality, depth_encoding, seen)
    recipe = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, len(learn)))
    card: dict[str, object] = {"modality": modality, "set": pack.folder.resolve().name, "domain": domain}
    card |= {"size": min(learn.images[modality].shape[-2:]), "data_digest": digest(pack)}
    return Lesson(learn, held_out, recipe, normalisation, card)


def rooms_lesson(sensor: str, modality: str, recipe: SourceRecipe) -> Lesson:
    """The shipped rooms as one sensor records them: other scenes for a source network than for the oracle."""
    names = ("target_adapt", "target_test") if modality == "depth" else ("source_train", "source_test")
    images, held_out = (pocketrooms.load(name, sensor, (modality,)) for name in names)
    card: dict[str, object] = {"modality": modality, "sensor": sensor, "trained_on": names[0]}
    card |= {"tested_on": names[1], "data_digest": rooms_digest()}
    return Lesson(images, held_out, recipe, None, card)


def rooms_digest() -> str:
    """Return one SHA-256 digest for all images of PocketRooms, taken from their manifest."""
    listed = sorted(read_manifest(data_folder()).items())
    read = [[name, sha] for name, sha in listed if name.startswith("pocketrooms/") and name.endswith(_READ)]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()


_READ = (".jpg", ".png", ".csv")


def compared_scenes(
    pack: Pack, modalities: Sequence[str], split: str | None = None, domain: str | None = None
) -> PairedImages:
    """Scenes in several modalities, to compare networks on: by default those that `adapt` holds out.

    Without labelled scenes of the task, the pairs; without these, the training scenes.

    Raises
    ------
    LabError : the pack has no such split, domain or modality.
    """
    read = tuple(dict.fromkeys(modalities))
    if split is not None:
        return pack.load(split, domain, read)
    if "train" in pack.splits:
        domain = target_domain(pack, read[-1], domain)
        learn, held_out = _learnt_and_held_out(pack, read, domain)
        held_out = labelled(held_out)
        if len(held_out) or "pairs" not in pack.splits:
            return held_out if len(held_out) else learn
    return pack.load("pairs" if "pairs" in pack.splits else pack.splits[0], domain, read)


def placed(device: torch.device | str, *sets: PairedImages) -> list[PairedImages]:
    """The sets on a GPU, where all of them fill no more than half of its free memory; else as they are.

    From where they are, batches are brought to the GPU one by one while the last one computes.
    """
    stored = [one for part in sets for one in part.images.values()]
    needed = sum(one.numel() * one.element_size() for one in stored)
    if torch.device(device).type != "cuda" or needed > torch.cuda.mem_get_info()[0] / 2:
        return list(sets)
    return [part.to(device) for part in sets]
