"""A network's features, logits and accuracy on images; the network is not changed.

The centre of each image is tested. Accuracies are for the reader: no method uses a label of the target.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from socketlab.errors import LabError, checked
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages, centre_view, on_device
from socketlab.method.bnstats import frozen_running_statistics
from socketlab.method.steps import PLAIN, Execution
from socketlab.networks.checkpoints import Source, require_classes
from socketlab.networks.networks import attribute_set, device_of, norm_layers


def evaluating(network: nn.Module) -> AbstractContextManager[None]:
    """Eval mode within it; afterwards every module is in the mode it was in."""
    return attribute_set(network.modules(), "training", False)


def even_parts(count: int, most: int) -> list[slice]:
    """Slices that follow each other, of sizes that differ by one at most: never a rest of one image."""
    if count < 1 or most < 1:
        raise LabError(f"{count} images in batches of {most} cannot be computed: both must be 1 or more")
    number = -(-count // most)
    return [slice(*ends) for ends in itertools.pairwise(count * i // number for i in range(number + 1))]


def encoded_batches(
    images: PairedImages, normalisation: Normalisation, batch: int = 256, device: torch.device | None = None,
    execution: Execution = PLAIN,
) -> Iterator[Tensor]:  # fmt: skip
    """Encoded centre views of one modality in order, (≤ batch, 3, h, h) at a time, on ``device``."""
    stored = images.images[images.modality]
    wanted = stored.device if device is None else device
    views = (on_device(centre_view(stored[part]), wanted) for part in even_parts(len(images), batch))
    for view in execution.prefetch(views, wanted, stored.device):
        with torch.autocast(wanted.type, enabled=False):  # depth encodings do not survive 16 bits
            encoded = normalisation.encode(view)
        yield encoded


@checked
@torch.no_grad()
def predict(
    source: Source, images: PairedImages, batch: int = 256, execution: Execution = PLAIN
) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D) of images of one modality, in eval mode; the mode is restored.

    A source with ``test_statistics = "batch"`` is normalised by the test images' own statistics, in shuffled
    batches of 64: in order, a batch could hold one class alone.
    """
    network, device = source.network, device_of(source.network)
    with evaluating(network):
        if source.test_statistics == "batch":
            return _predict_by_batches(source, images, execution)
        batches = encoded_batches(images, source.normalisation, batch, device, execution)
        features = torch.cat([execution.features(network, encoded) for encoded in batches])
        return network.head(features), features


def _predict_by_batches(source: Source, images: PairedImages, execution: Execution) -> tuple[Tensor, Tensor]:
    network, device = source.network, device_of(source.network)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    found = []
    with frozen_running_statistics(network), attribute_set(norm_layers(network), "training", True):
        for part in even_parts(len(images), 64):
            batch = encoded_batches(images.take(order[part]), source.normalisation, 64, device)
            found.append(execution.features(network, next(batch)))
    features = torch.cat(found)[order.argsort().to(device)]
    return network.head(features), features


@checked
def confusion(source: Source, images: PairedImages) -> Tensor:
    """(K, K) int64: how many images of class i (row) were taken for class j (column)."""
    require_classes(source, images.classes)
    predicted = predict(source, images)[0].argmax(dim=1)
    classes = len(source.classes)
    places = images.labels.to(predicted.device) * classes + predicted
    return torch.bincount(places, minlength=classes**2).view(classes, classes).cpu()


@checked
def accuracy(source: Source, images: PairedImages) -> float:
    """Share of labelled images that are classified right, in [0, 1]."""
    counts = confusion(source, images)
    return float(counts.trace() / counts.sum())


def class_mean_accuracy(counts: Tensor) -> float:
    """Mean over the classes of the share classified right, from a confusion matrix; absent ones left out."""
    rows = counts.sum(dim=1)
    return float((counts.diagonal()[rows > 0] / rows[rows > 0]).mean())
