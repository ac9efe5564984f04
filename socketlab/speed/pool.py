"""Independent tasks side by side; in `distributed` several processes work at one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
import torch


class Pool:
    """So many processes on a device, "cpu" or "cuda"; default: one for each GPU, or for each two cores."""

    def __init__(self, device: str, workers: int | None = None) -> None:
        self.device, cores = device, joblib.cpu_count()
        self.workers = workers or (torch.cuda.device_count() if device == "cuda" else max(1, cores // 2))
        self.threads = max(1, cores // self.workers)

    def run(self, work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield the results of ``work(*task)`` as they are finished; alone, in order and in this process."""
        if self.workers == 1 or len(tasks) < 2:
            yield from (work(*task) for task in tasks)
            return
        gpus: Any = None
        if self.device == "cuda":
            gpus = multiprocessing.Manager().Queue()
            for worker in range(self.workers):
                gpus.put(worker % torch.cuda.device_count())
        calls = (joblib.delayed(_call)(work, task, self.threads, gpus) for task in tasks)
        with joblib.parallel_config("loky", inner_max_num_threads=self.threads):
            yield from joblib.Parallel(self.workers, return_as="generator_unordered")(calls)


def _call(work: Callable[..., Any], task: tuple[Any, ...], threads: int, gpus: Any) -> Any:
    """In a process of the pool, on a GPU that no other one uses."""
    torch.set_num_threads(threads)
    if gpus is None:
        return work(*task)
    gpu = gpus.get()
    try:
        torch.cuda.set_device(gpu)
        return work(*task)
    finally:
        gpus.put(gpu)
