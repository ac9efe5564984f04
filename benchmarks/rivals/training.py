"""The training loop that these methods share: shuffled batches without end, one-cycle rate, one loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from socketlab.images.paired_images import PairedImages, random_views
from socketlab.method.adaptation import learning_rate_factor
from socketlab.method.bnstats import reestimate_statistics
from socketlab.method.evaluate import encoded_batches
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import device_of

BATCH = 32


def train(
    learner: Source, images: PairedImages, target: PairedImages, loss_of: Callable[[Tensor, Tensor], Tensor],
    steps: int, seed: int, batch_size: int = BATCH,
) -> Source:  # fmt: skip
    """Train every weight of the learner in place by a loss of the logits and rows of random views of images.

    SGD with Nesterov momentum 0.9, weight decay 1e-3 and a one-cycle rate up to 0.02. Batch norm's running
    statistics are re-estimated at the end on all images of the target (AdaBN): with few images, those of
    training would be of as few.
    """
    network, read = learner.network.requires_grad_(True).train(), learner.normalisation.encode
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-3)

    def loss_of_rows(rows: Tensor) -> Tensor:
        views = random_views(images, rows, generator)[images.modality]
        return loss_of(network(read(views)), rows)

    descend(optimiser, loss_of_rows, endless_batches(len(images), batch_size, generator), steps, 0.02)
    reestimate_statistics(network, encoded_batches(target, learner.normalisation, 128, device_of(network)))
    network.eval()
    return learner


def descend(
    optimiser: torch.optim.Optimizer, loss_of: Callable[[Tensor], Tensor], batches: Iterator[Tensor],
    steps: int, rate: float,
) -> None:  # fmt: skip
    """Take ``steps`` steps down the loss of each batch's rows; the rate is one-cycle, at most ``rate``."""
    for step in range(steps):
        loss = loss_of(next(batches))
        for group in optimiser.param_groups:
            group["lr"] = rate * learning_rate_factor(step / steps, "one-cycle")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def endless_batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of shuffled passes over ``count`` images, (batch,) int64 at a time, without end."""
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < batch:
            rest = torch.cat([rest, torch.randperm(count, generator=generator)])
        yield rest[:batch]
        rest = rest[batch:]
