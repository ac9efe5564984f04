"""The training loop that these methods share: shuffled batches without end, one-cycle rate, one loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from socketlab.method.adaptation import rate_factor


def descend(
    optimiser: torch.optim.Optimizer,
    loss_of: Callable[[Tensor], Tensor],
    batches: Iterator[Tensor],
    steps: int,
    rate: float,
) -> None:
    """Take ``steps`` steps down the loss of each batch's rows; the rate is one-cycle, at most ``rate``."""
    for step in range(steps):
        loss = loss_of(next(batches))
        for group in optimiser.param_groups:
            group["lr"] = rate * rate_factor(step / steps, "one-cycle")
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


def sgd(network: torch.nn.Module, rate: float) -> torch.optim.SGD:
    """The optimiser of the whole kit: Nesterov momentum 0.9, weight decay 1e-3, every weight."""
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-3)
