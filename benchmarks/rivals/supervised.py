"""What a few labels of the target are worth, from an RGB network, an adapted one or random weights."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F

from rivals.training import train
from socketlab.errors import LabError
from socketlab.images import encodings
from socketlab.images.paired_images import PairedImages
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import device_of, small_network


def untrained(classes: tuple[str, ...], images: PairedImages, seed: int = 0) -> Source:
    """A small network with random weights that reads these images; the same seed gives the same weights."""
    normalisation = encodings.measure(images.images[images.modality], images.modality)
    network = small_network(len(classes), seed=seed).to(images.device)
    return Source(network, classes, normalisation)


def labelled_subset(images: PairedImages, per_class: int, seed: int = 0) -> PairedImages:
    """``per_class`` random images of each class; a LabError where a class has fewer."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    labels, rows = images.labels.cpu()[order], []
    for label, name in enumerate(images.classes):
        found = order[labels == label][:per_class]
        if len(found) < per_class:
            raise LabError(
                f"{per_class} labelled images of each class were wanted; {name!r} has {len(found)}."
            )
        rows.append(found)
    return images.take(torch.cat(rows))


def fine_tune(
    source: Source, labelled: PairedImages, unlabelled: PairedImages, *, steps: int = 300, seed: int = 0
) -> Source:
    """A copy of the network after so many steps on the labels that there are, smoothed by 0.1.

    ``unlabelled``, all images of the target, give the normalisation and the statistics of batch norm.
    """
    target, normalisation = unlabelled.unlabelled(), source.normalisation
    if normalisation.modality != target.modality:
        normalisation = encodings.measure(target.images[target.modality], target.modality)
    learner = Source(copy.deepcopy(source.network), source.classes, normalisation, dict(source.card))
    labels = labelled.labels.to(device_of(learner.network))
    return train(
        learner, labelled, target,
        lambda logits, rows: F.cross_entropy(logits, labels[rows.to(labels.device)], label_smoothing=0.1),
        steps, seed,
    )  # fmt: skip
