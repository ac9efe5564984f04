"""Batches prepared while the one before them computes, for images that do not lie on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from socketlab.method.steps import Batch


def prefetched(batches: Iterator[Batch], device: torch.device, *stored_on: torch.device) -> Iterator[Batch]:
    """The same batches in the same order, each made while its predecessor is used.

    Images on the CPU (a memory-mapped pack, say, larger than the GPU's memory or than the computer's) are
    read and copied to the GPU in a thread and on a stream of their own. Where images and network are in one
    place there is nothing to copy: a batch is made when it is asked for.

    Parameters
    ----------
    batches : makes tensors on ``device``, that of the network, in lists, tuples or dicts.
    stored_on : devices of the images.
    """
    if device.type != "cuda" or all(place == device for place in stored_on):
        yield from batches
        return
    side = torch.cuda.Stream(device)

    def make() -> tuple[Any, torch.cuda.Event]:
        with torch.cuda.device(device), torch.cuda.stream(side):
            return next(batches, None), side.record_event()

    for batch, ready in in_a_thread(make, lambda made: made[0] is None):
        here = torch.cuda.current_stream(device)
        here.wait_event(ready)
        for tensor in tensors(batch):
            if tensor.is_cuda:
                tensor.record_stream(here)  # its memory is not given away before this stream is done with it
        yield batch


def in_a_thread(make: Callable[[], Batch], ended: Callable[[Batch], bool]) -> Iterator[Batch]:
    """``make()`` over and over in one thread, one call ahead of the reader, until ``ended`` of its result.

    An error in the thread is raised here, when its turn comes. Leaving the loop waits for the call under way.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as worker:
        coming = worker.submit(make)
        while not ended(made := coming.result()):
            coming = worker.submit(make)
            yield made


def tensors(batch: Any) -> Iterator[Tensor]:
    """Every tensor in lists, tuples and dicts."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (list, tuple, dict)):
        for part in batch.values() if isinstance(batch, dict) else batch:
            yield from tensors(part)
