"""Work spread over processes, one thread each; the results come as they are done."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from socketlab.errors import LabError

Job = TypeVar("Job")
Result = TypeVar("Result")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """Cores that this process may use, 1 or more."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], processes: int | None = None
) -> Iterator[Result]:
    """``function(job)`` of every job, in the order in which they are done.

    Parameters
    ----------
    function : of a module (not of a script) that loads quickly: every process loads it.
    jobs : what it is called with.
    processes : how many; None for one per core. With one (or one job) the work is done here.

    Raises
    ------
    LabError : a process died.
    Exception : whatever ``function`` raises; jobs not begun are dropped.
    """
    wanted = min(cores() if processes is None else processes, len(jobs))
    if wanted < 1 and jobs:
        raise LabError(f"{processes} processes do nothing: choose 1 or more.")
    if wanted <= 1:
        yield from map(function, jobs)
        return
    # spawn: a forked copy of a process that runs torch's threads may hang.
    pool = ProcessPoolExecutor(wanted, multiprocessing.get_context("spawn"), initializer=_settle)
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        with _script_left_alone():
            futures = [pool.submit(function, job) for job in jobs]  # starts the processes
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise LabError(
            "A process of this work died, perhaps for want of memory: run it again, with fewer processes."
        ) from None
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _script_left_alone() -> Iterator[None]:
    """Keep new processes from running the caller's script again.

    It may load torch, and without ``if __name__ == "__main__"`` it would start processes of its own.
    """
    script = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {name: script.pop(name) for name in ("__spec__", "__file__") if name in script}
    script["__spec__"] = None
    try:
        yield
    finally:
        del script["__spec__"]
        script.update(kept)


def _settle() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
