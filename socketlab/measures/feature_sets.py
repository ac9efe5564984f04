"""Two sets of features, checked, and the sums over their rows from which every measure is computed.

Features are (n, D), a row per image. Up to `MODERATE` numbers a set all is float64; above, matrix products
are float32 and their sums float64, some thousand rows at a time, so that no second copy of the features is
made (features given in float64 stay so).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from socketlab.errors import LabError

MODERATE = 1 << 22
"""Up to so many numbers a set, everything is computed in float64."""
ROWS = 2048
"""Rows of the features that are converted to working precision at a time: 16 MB of 2,048 features."""

Features = ArrayLike | Tensor
P = ParamSpec("P")
R = TypeVar("R")


def checked(
    a: Features, b: Features, *, paired: bool = False, same_width: bool = True, least: int = 2
) -> tuple[Tensor, Tensor]:
    """Both sets as (n, D) tensors on one device; float64 where there are at most `MODERATE` numbers.

    Raises
    ------
    LabError : a set that is no (n, D) array of finite real numbers or has fewer than ``least`` rows, two
        widths where ``same_width``, two counts where ``paired``.
    """
    first, second = _features(a, "first"), _features(b, "second")
    (n, width), (m, other_width) = first.shape, second.shape
    if same_width and width != other_width:
        raise LabError(
            f"The sets have {width} and {other_width} features a row; the measure needs one width."
        )
    if paired and n != m:
        raise LabError(f"{n} and {m} rows are no pairs: row i of both sets must be one scene.")
    if min(n, m) < least:
        raise LabError(
            f"A set has {min(n, m)} of the {least} rows that the measure needs: give it more images."
        )
    return first, second.to(first.device)


def _features(values: Features, which: str) -> Tensor:
    if isinstance(values, Tensor):
        x = values.detach()
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise LabError(f"The {which} set is no array of equal rows: {error}") from error
        if array.dtype.kind not in "biuf":
            raise LabError(f"The {which} set holds {array.dtype} values; features are real numbers.")
        x = torch.from_numpy(array if array.flags.writeable else array.copy())
    if x.ndim != 2 or x.shape[1] == 0:
        raise LabError(f"The {which} set has shape {tuple(x.shape)}; features are (n, D), a row per image.")
    if x.is_complex():
        raise LabError(f"The {which} set holds complex values; features are real numbers.")
    x = x.cpu() if x.device.type == "mps" else x  # which has no float64
    if not x.is_floating_point() or x.numel() <= MODERATE:
        x = x.double()
    if not all(bool(torch.stack(rows.aminmax()).isfinite().all()) for rows in x.split(ROWS) if len(rows)):
        raise LabError(f"The {which} set holds NaN or infinite numbers: look for the images that give them.")
    return x


def no_grad_no_autocast(measure: Callable[P, R]) -> Callable[P, R]:
    """Decorate a measure: no gradient, and no autocast, which would make its products half precision."""

    @functools.wraps(measure)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return measure(*args, **kwargs)

    return plain


def precision(*sets: Tensor) -> torch.dtype:
    """Of the computation: float64 where all sets are, else float32."""
    return torch.float64 if all(x.dtype == torch.float64 for x in sets) else torch.float32


def mean_row(*sets: Tensor) -> Tensor:
    """Mean row of all sets together, (D,) float64."""
    total = sum(rows.to(precision(x)).sum(dim=0).double() for x in sets for rows in x.split(ROWS))
    return torch.as_tensor(total) / sum(len(x) for x in sets)


def centred_rows(x: Tensor, mean: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Rows less the mean in working precision, `ROWS` at a time."""
    for rows in x.split(ROWS):
        yield rows.to(dtype) - mean.to(dtype)


def less_mean(x: Tensor, mean: Tensor, dtype: torch.dtype) -> Tensor:
    """All rows less the mean: a copy."""
    return torch.cat(list(centred_rows(x, mean, dtype)))


def product(x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    """Xᵀ Y of the centred sets, (D, E) float64; of x with itself, only the half on and above the diagonal."""
    total = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
    if x is not y:
        both = (centred_rows(z, mean_row(z), dtype) for z in (x, y))
        for rows, others in zip(*both, strict=True):
            total += rows.T @ others
        return total
    for rows in centred_rows(x, mean_row(x), dtype):
        for i in range(0, x.shape[1], 512):
            total[i : i + 512, i:] += rows[:, i : i + 512].T @ rows[:, i:]
    return total.triu() + total.triu(1).T


def covariance(x: Tensor) -> Tensor:
    """(D, D) float64, with n - 1 below."""
    return product(x, x, precision(x)) / (len(x) - 1)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(n, m), by one matrix product; both sets should lie around the origin."""
    squared = torch.addmm(y.square().sum(dim=1), x, y.T, alpha=-2)
    return squared.add_(x.square().sum(dim=1, keepdim=True)).clamp_min_(0)
