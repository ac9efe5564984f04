"""The same results, quicker or on several devices. No earlier room imports this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socketlab.method.steps import Execution


def best_execution() -> Execution:
    """Shares of every batch where torchrun started several processes; else the quickest form of one."""
    from socketlab.speed.cuda_graphs import CudaGraphs
    from socketlab.speed.distributed import Distributed, world

    return Distributed() if world() > 1 else CudaGraphs()
