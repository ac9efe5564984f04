"""What a network says of images: features, logits, accuracy. Nothing here learns or leaves a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages, centre_view, on_device
from socketlab.method.bnstats import frozen_running_statistics
from socketlab.networks.checkpoints import Source, require_classes
from socketlab.networks.networks import device_of, norm_layers
from socketlab.speed import distributed
from socketlab.speed.prefetch import ahead


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode within the block; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def encoded_batches(
    images: PairedImages,
    normalisation: Normalisation,
    batch: int = 256,
    device: torch.device | None = None,
    *,
    shared: bool = False,
) -> Iterator[Tensor]:
    """The centre views of one modality, encoded: (≤ batch, 3, h, h) at a time, in order.

    Parameters
    ----------
    device : where they are wanted; where the images lie unless told.
    shared : of several processes each gets its share of every batch, which may be empty.
    """
    stored = images.images[images.modality]
    wanted = stored.device if device is None else device

    def views() -> Iterator[Tensor]:
        for start in range(0, len(images), batch):
            whole = stored[start : start + batch]
            yield on_device(centre_view(whole[distributed.share(len(whole))] if shared else whole), wanted)

    for cut in ahead(views(), wanted, stored.device):
        yield normalisation.encode(cut)


@torch.inference_mode()
def predict(source: Source, images: PairedImages, batch: int = 256) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D) of images of one modality, in eval mode; the mode is restored.

    A source with ``test_statistics = "batch"`` is normalised by the test images' own statistics, in shuffled
    batches of 64: in order, a batch could hold one class alone.
    """
    if source.test_statistics == "batch":
        return _predict_by_batches(source, images)
    logits, features = [], []
    with evaluating(source.network):
        for encoded in encoded_batches(images, source.normalisation, batch, device_of(source.network)):
            found = source.network.features(encoded)
            features.append(found)
            logits.append(source.network.head(found))
    return torch.cat(logits).clone(), torch.cat(features).clone()


def _predict_by_batches(source: Source, images: PairedImages, batch: int = 64) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    parts, device = max(1, round(len(images) / batch)), device_of(source.network)
    found = []
    with evaluating(source.network), frozen_running_statistics(source.network):
        for layer in norm_layers(source.network):
            layer.train()
        for rows in order.tensor_split(parts):  # no rest of one image
            encoded = encoded_batches(images.take(rows), source.normalisation, len(rows), device)
            found.append(source.network.features(next(encoded)))
    back = order.argsort()
    features = torch.cat(found)[back.to(found[0].device)]
    return source.network.head(features).clone(), features.clone()


def confusion(source: Source, images: PairedImages) -> Tensor:
    """(K, K) int64: how many images of class i (row) were taken for class j (column)."""
    require_classes(source, images.classes)
    predicted = predict(source, images)[0].argmax(dim=1)
    classes = len(source.classes)
    places = images.labels.to(predicted.device) * classes + predicted
    return torch.bincount(places, minlength=classes**2).view(classes, classes).cpu()


def accuracy(source: Source, images: PairedImages) -> float:
    """Share of labelled images named right, in [0, 1]. For the reader: no method ever sees it."""
    counts = confusion(source, images)
    return float(counts.trace() / counts.sum())


def class_mean_accuracy(counts: Tensor) -> float:
    """Mean over the classes of the share named right, from a confusion matrix; absent classes left out."""
    rows = counts.sum(dim=1)
    return float((counts.diagonal()[rows > 0] / rows[rows > 0]).mean())
