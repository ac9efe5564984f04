"""What a few labels of the target are worth: the same training loop from any network.

From an RGB network (fine-tuning), from an adapted one (SOCKET, then labels) or from random weights; the
number of labels with which one of them reaches SOCKET's accuracy is what SOCKET is worth in labels.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from rivals.training import descend, endless_batches, sgd
from socketlab.errors import LabError
from socketlab.images import encodings
from socketlab.images.paired_images import PairedImages, random_views
from socketlab.method.bnstats import reestimate_statistics
from socketlab.method.evaluate import encoded_batches
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import device_of, small_network


def untrained(classes: tuple[str, ...], images: PairedImages, seed: int = 0) -> Source:
    """A small network with random weights that reads these images; the same seed gives the same weights."""
    normalisation = encodings.measure(images.images[images.modality], images.modality)
    network = small_network(len(classes), seed=seed).to(images.device)
    return Source(network, classes, normalisation)


def labelled_subset(images: PairedImages, per_class: int, seed: int = 0) -> PairedImages:
    """``per_class`` random images of each class.

    Raises
    ------
    LabError : a class has fewer.
    """
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
    source: Source,
    labelled: PairedImages,
    unlabelled: PairedImages,
    *,
    steps: int = 300,
    rate: float = 0.02,
    batch_size: int = 32,
    seed: int = 0,
) -> Source:
    r"""Train every weight by cross-entropy with the labels that there are, labels smoothed by 0.1.

    SGD with Nesterov momentum 0.9 and weight decay 1e-3, one-cycle rate, random crops and flips. Batch norm's
    running statistics are re-estimated at the end on all images of the target, which need no labels (AdaBN):
    with one image a class, those of training would be of eight images.

    Parameters
    ----------
    source : the network to begin with; not changed. Its normalisation is replaced by the target's.
    labelled : images of one modality with labels.
    unlabelled : all images of the target, for normalisation and statistics.
    steps : optimiser steps, whatever the number of labels.
    rate : learning rate at its peak.

    Returns
    -------
    The trained network.
    """
    target = unlabelled.unlabelled()
    normalisation = source.normalisation
    if normalisation.modality != target.modality:
        normalisation = encodings.measure(target.images[target.modality], target.modality)
    network = copy.deepcopy(source.network).requires_grad_(True)
    learner = Source(network, source.classes, normalisation, dict(source.card))
    labels = labelled.labels.to(device_of(network))
    generator = torch.Generator().manual_seed(seed)

    def loss_of(rows: Tensor) -> Tensor:
        images = normalisation.encode(random_views(labelled, rows, generator)[labelled.modality])
        return F.cross_entropy(network(images), labels[rows.to(labels.device)], label_smoothing=0.1)

    network.train()
    batches = endless_batches(len(labelled), batch_size, generator)
    descend(sgd(network, rate), loss_of, batches, steps, rate)
    batches_of = encoded_batches(target, normalisation, 128, device_of(network))
    reestimate_statistics(network, batches_of)
    network.eval()
    return learner
