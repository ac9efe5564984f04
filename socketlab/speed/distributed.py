"""Several processes at one adaptation, as torchrun starts them.

Each passes its share of every batch through the trunks. Maps and features are gathered, so that every process
computes bottlenecks, heads and losses of the whole batch, and gradients are averaged: the loss that is
differentiated is the mean of equal losses, each computed with a process's own copy of the shared weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from socketlab.errors import LabError
from socketlab.method.bnstats import Moments, Seen, batch_statistics, moments, pooled
from socketlab.method.steps import Execution, TrunkPass
from socketlab.networks.networks import BatchNorm, Network, SeededDropout
from socketlab.speed.fast_statistics import methods_replaced

Result = TypeVar("Result")


def world() -> int:
    """The number of processes that work together; 1 alone."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if world() > 1 else 0


def share(count: int, of: int | None = None) -> slice:
    """Which of ``count`` rows are those of rank ``of`` (default: this one), as `torch.tensor_split` deals."""
    number = rank() if of is None else of
    least, more = divmod(count, world())
    start = number * least + min(number, more)
    return slice(start, start + least + (number < more))


class Distributed(Execution):
    """Trunks pass a share of each batch; their batch norm and dropout see the whole of it."""

    def trunk_pass(
        self, network: Network, images: Tensor, statistics: bool = False, frozen: bool = False
    ) -> TrunkPass:
        """The pass, of which every process has all rows afterwards; a LabError for too few images."""
        count = len(images)
        if count < world():
            raise LabError(f"a batch of {count} images is too small for {world()} processes: start fewer")
        with _whole_batches(network.trunk):
            passed = super().trunk_pass(network, images[share(count)], statistics, frozen)
        return TrunkPass(gathered(passed.map, count), gathered(passed.features, count), passed.statistics)

    def batch_statistics(self, network: nn.Module) -> AbstractContextManager[Seen]:
        """Moments of the whole batch."""
        return batch_statistics(network, moments if world() == 1 else _moments_of_all)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the ranks, in one message.

        `DistributedDataParallel` wraps one module with one forward pass; a step here goes through several
        networks, twice, by way of their maps and features.
        """
        grads = [p.grad for p in parameters if p.grad is not None]
        if world() > 1 and grads:
            mean = summed(torch.cat([grad.flatten() for grad in grads])) / world()
            for grad, part in zip(grads, mean.split([grad.numel() for grad in grads]), strict=True):
                grad.copy_(part.view(grad.shape))


def gathered(own: Tensor, count: int) -> Tensor:
    """The rows of all ranks, in order, with gradient: (b, ...) of each → (count, ...)."""
    if world() == 1:
        return own
    shares = [share(count, number) for number in range(world())]
    padded = torch.cat([own, own.new_zeros(shares[0].stop - len(own), *own.shape[1:])])
    every = zip(_Stack.apply(padded), shares, strict=True)
    return torch.cat([rows[: one.stop - one.start] for rows, one in every])


def _whole_batches(network: nn.Module) -> AbstractContextManager[None]:
    """Within the block batch norm in train mode, and dropout, see the images of all processes."""
    changed: dict[nn.Module, tuple[str, Callable[..., Any]]] = {}
    for layer in network.modules() if world() > 1 else ():
        if isinstance(layer, SeededDropout):
            changed[layer] = "rows", _rows_of_all
        elif isinstance(layer, BatchNorm) and not isinstance(layer, nn.SyncBatchNorm):
            if type(layer).forward is not nn.BatchNorm2d.forward:
                kind = type(layer).__name__
                raise LabError(f"{kind} cannot normalise by the images of several processes: start one")
            changed[layer] = "forward", _normalise_together
    return methods_replaced(changed)


def _moments_of_all(x: Tensor) -> Moments:
    """Moments of the images of all processes, with gradient."""
    mean, variance, _ = moments(x)
    own = torch.stack([mean, variance, torch.full_like(mean, x.numel() // x.shape[1])])
    return pooled([Moments(mean, variance, size[0]) for mean, variance, size in _Stack.apply(own)])


def _normalise_together(layer: Any, x: Tensor) -> Tensor:
    """A batch-norm layer's forward pass by the images of all processes; in eval mode, as always."""
    if not layer.training:
        return type(layer).forward(layer, x)
    mean, variance, count = _moments_of_all(x)
    if layer.track_running_stats:
        with torch.no_grad():
            layer.num_batches_tracked.add_(1)
            rate = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
            layer.running_mean.lerp_(mean, rate)
            layer.running_var.lerp_(variance * (count / (count - 1)), rate)
    shape = (1, -1, *[1] * (x.ndim - 2))
    out = (x - mean.view(shape)) * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        out = out * layer.weight.view(shape) + layer.bias.view(shape)
    return out.to(x.dtype)


def _rows_of_all(layer: SeededDropout, x: Tensor) -> tuple[int, slice]:
    count = int(summed(torch.tensor(len(x), device=x.device)))
    return count, share(count)


class _Stack(torch.autograd.Function):
    """The tensors of all ranks, (...) → (ranks, ...); this one's gradient is summed over all that used it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        rows = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(world())]
        distributed.all_gather(rows, own.contiguous())
        return torch.stack(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return summed(grad)[rank()]


def summed(own: Tensor) -> Tensor:
    """The sum over the ranks of a tensor of one shape, without gradient."""
    total = own.detach().clone(memory_format=torch.contiguous_format)
    if world() > 1:
        distributed.all_reduce(total)
    return total


def on_rank_zero(work: Callable[[], Result]) -> Result:
    """What ``work`` returns on rank 0, on every rank; a `LabError` there is raised everywhere."""
    if world() == 1:
        return work()
    found: list[Any] = [None]
    if rank() == 0:
        try:
            found = [work()]
        except LabError as error:
            found = [error]
    distributed.broadcast_object_list(found)
    if isinstance(found[0], LabError):
        raise found[0]
    return found[0]


def join(device: str) -> None:
    """Work with the processes that ``torchrun`` started beside this one; alone, do nothing.

    On "cuda" by NCCL, one GPU for each process, else by gloo; a LabError for more processes than GPUs.
    """
    started = {"WORLD_SIZE", "RANK", "MASTER_ADDR"} <= os.environ.keys()
    if not started or int(os.environ["WORLD_SIZE"]) == 1:
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
    """Leave the process group, after a barrier."""
    if world() > 1:
        distributed.barrier()
        distributed.destroy_process_group()
