"""Several processes at one adaptation: what each does of a batch, and how they put it together.

Each process (rank) works on its share of the rows of every batch; what is made of the rows is gathered, so
that every rank computes the loss of the whole batch, and the gradients are averaged. Alone, all functions
hand back what they are given.

The loss that is differentiated is the mean over the ranks of each one's loss. All are the same, so the mean
is that loss; but each came to be with its own copies of what all rows share (weights of the network, mixing
weights), and only together do the copies' gradients make up the whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from socketlab.errors import LabError

Told = TypeVar("Told")


def world() -> int:
    """How many processes work together; 1 alone."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if world() > 1 else 0


def share(count: int, of: int | None = None) -> slice:
    """Which of ``count`` rows are those of rank ``of``, this one unless told.

    Shares follow each other and differ by one row at most; the first are the larger, as those of
    `torch.tensor_split`. With more ranks than rows, the last have none.
    """
    number = rank() if of is None else of
    least, more = divmod(count, world())
    start = number * least + min(number, more)
    return slice(start, start + least + (number < more))


def gathered(own: Tensor, count: int) -> Tensor:
    """The rows of all ranks, in order, with gradient: (b, ...) of each → (count, ...).

    Parameters
    ----------
    own : the rows that `share` gives this rank, b of them.
    count : of the rows of all ranks.
    """
    if world() == 1:
        return own
    shares = [share(count, number) for number in range(world())]
    longest = shares[0].stop
    padded = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])])
    every = stacked(padded)
    return torch.cat([rows[: one.stop - one.start] for rows, one in zip(every, shares, strict=True)])


def stacked(own: Tensor, group: Any = None) -> Tensor:
    """A tensor of the same shape from each rank, with gradient: (...) → (ranks, ...)."""
    return _Stack.apply(own, group)


class _Stack(torch.autograd.Function):
    """The tensors of all ranks; the gradient of this one's is summed over all that used it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: Any) -> Tensor:
        ctx.group = group
        rows = [torch.empty_like(own, memory_format=torch.contiguous_format)]
        rows += [torch.empty_like(rows[0]) for _ in range(distributed.get_world_size(group) - 1)]
        distributed.all_gather(rows, own.contiguous(), group=group)
        return torch.stack(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return summed(grad, ctx.group)[distributed.get_rank(ctx.group)], None


def summed(own: Tensor, group: Any = None) -> Tensor:
    """The sum over the ranks of a tensor of one shape, without gradient."""
    total = own.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total, group=group)
    return total


def averaged(own: Tensor) -> Tensor:
    """The mean over the ranks of a tensor of one shape, without gradient."""
    return own if world() == 1 else summed(own) / world()


def rows(own: Tensor) -> int:
    """How many rows all ranks have together, where this one has those of ``own``."""
    return len(own) if world() == 1 else int(summed(torch.tensor(len(own), device=own.device)))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks, in one message.

    `torch.nn.parallel.DistributedDataParallel` does so too, but only around a module whose one forward pass
    makes the loss; a step here goes through several networks, twice, by way of their maps and features.
    """
    if world() == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    together = torch.cat([grad.flatten() for grad in grads])
    distributed.all_reduce(together)
    together /= world()
    for grad, mean in zip(grads, together.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view(grad.shape))


def on_rank_zero(work: Callable[[], Told]) -> Told:
    """What ``work`` gives on rank 0, on every rank; a `LabError` there is raised everywhere."""
    if world() == 1:
        return work()
    told: list[Any] = [None]
    if rank() == 0:
        try:
            told = [work()]
        except LabError as error:
            told = [error]
    distributed.broadcast_object_list(told)
    if isinstance(told[0], LabError):
        raise told[0]
    return told[0]


def join(device: str) -> None:
    """Work with the processes that ``torchrun`` started beside this one; alone, do nothing.

    Parameters
    ----------
    device : "cuda", one GPU for each process (NCCL), or "cpu" (gloo).

    Raises
    ------
    LabError
        When there are more processes than GPUs, or this torch cannot do it.
    """
    said = {"WORLD_SIZE", "RANK", "MASTER_ADDR"} <= os.environ.keys()
    if not said or int(os.environ["WORLD_SIZE"]) == 1:
        return
    if not distributed.is_available():
        raise LabError("This torch was built without torch.distributed: start one process, without torchrun.")
    if device == "cuda":
        here, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if here >= gpus:
            raise LabError(f"There are more processes than GPUs: give torchrun --nproc-per-node {gpus}.")
        torch.cuda.set_device(here)
    # torch imports this module at some time, and its default arguments keep the group that stands then for
    # good. A group that outlives `leave` has threads; one that is busy as Python ends aborts the process.
    from torch.distributed.nn import functional  # noqa: F401

    distributed.init_process_group("nccl" if device == "cuda" else "gloo")


def leave() -> None:
    """Work alone from here on, once all processes have come so far: none is left talking to one that went."""
    if world() > 1:
        distributed.barrier()
        distributed.destroy_process_group()
