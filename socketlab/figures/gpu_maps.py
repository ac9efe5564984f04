"""UMAP on a GPU, by way of TorchDR, where both are there.

The calls are tested against TorchDR 0.5 on a CPU. This kit has not run them on a GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from socketlab.errors import LabError


def takes_gpu(device: str) -> bool:
    """Whether a map is made on the GPU; a LabError where "cuda" is asked for and cannot be."""
    if device not in ("cpu", "cuda", "auto"):
        raise LabError(f'Maps are made on "cpu", "cuda" or "auto", not {device!r}.')
    if device == "cpu":
        return False
    missing = "no GPU that torch can use" if not torch.cuda.is_available() else ""
    if not missing and importlib.util.find_spec("torchdr") is None:
        missing = "no TorchDR (`pip install torchdr`)"
    if missing and device == "cuda":
        raise LabError(f'There is {missing}: make the map with device="cpu".')
    return not missing


def fit_on_gpu(
    features: NDArray[np.float32],
    k: int,
    min_dist: float,
    epochs: int,
    start: NDArray[np.float32] | None,
    seed: int,
    device: str = "cuda",
) -> NDArray[np.float32]:
    """UMAP by TorchDR; with FAISS where that is installed, else all N² distances at once.

    Parameters
    ----------
    features : (N, D).
    k : neighbours, the point itself counted, as umap-learn counts.
    min_dist, epochs, seed : as for `embed.joint_map`.
    start : (N, 2) positions to begin from; the first two principal components when None.

    Returns
    -------
    (N, 2) float32.
    """
    torchdr = importlib.import_module("torchdr")
    begin: dict[str, Any] = {}
    if start is not None:  # it would shrink a start to a dot
        begin = {"init": torch.from_numpy(start), "init_scaling": float(start[:, 0].std(ddof=1))}
    with _global_state_kept():
        umap = torchdr.UMAP(
            n_neighbors=k,
            min_dist=min_dist,
            max_iter=epochs,
            random_state=seed,
            device=device,
            backend="faiss" if importlib.util.find_spec("faiss") else None,
            **begin,
        )
        points = umap.fit_transform(torch.from_numpy(features))
    return np.asarray(torch.as_tensor(points).detach().cpu(), np.float32)


@contextmanager
def _global_state_kept() -> Iterator[None]:
    """TorchDR seeds every generator there is and sets switches of cuDNN: put all of them back."""
    cudnn = torch.backends.cudnn
    switches, hashing = (cudnn.deterministic, cudnn.benchmark), os.environ.get("PYTHONHASHSEED")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        cudnn.deterministic, cudnn.benchmark = switches
        if hashing is None:
            os.environ.pop("PYTHONHASHSEED", None)
        else:
            os.environ["PYTHONHASHSEED"] = hashing
