"""Two sets of features, checked, and the sums over their rows from which every measure is computed.

Features are (n, D), a row per image. Up to `MODERATE` numbers a set all is float64; above, matrix products
are float32 and their sums float64, `ROWS` rows at a time, without a centred copy of the features.
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

Features = ArrayLike | Tensor
P = ParamSpec("P")
R = TypeVar("R")


def checked(
    a: Features, b: Features, *, paired: bool = False, same_width: bool = True, least: int = 2
) -> tuple[Tensor, Tensor]:
    """Both sets as (n, D) tensors on one device, in float64, or in float32 where one is large.

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
        raise LabError(f"A set has {min(n, m)} of the {least} rows that the measure needs: give more images.")
    dtype = torch.float64 if first.dtype == second.dtype == torch.float64 else torch.float32
    return first.to(dtype), second.to(first.device, dtype)


def _features(values: Features, which: str) -> Tensor:
    try:
        given = values.detach() if isinstance(values, Tensor) else np.require(values, requirements=["C", "W"])
    except ValueError as error:
        raise LabError(f"The {which} set is no array of equal rows: {error}") from error
    real = not given.is_complex() if isinstance(given, Tensor) else given.dtype.kind in "biuf"
    if not real:
        raise LabError(f"The {which} set holds {given.dtype} values; features are real numbers.")
    x = torch.as_tensor(given)
    if x.ndim != 2 or x.shape[1] == 0:
        raise LabError(f"The {which} set has shape {tuple(x.shape)}; features are (n, D), a row per image.")
    x = x.cpu() if x.is_mps else x  # which has no float64
    if not x.is_floating_point() or x.numel() <= MODERATE:
        x = x.double()
    if not all(bool(rows.isfinite().all()) for rows in x.split(ROWS)):
        raise LabError(f"The {which} set holds NaN or infinite numbers: look for the images that give them.")
    return x


def no_grad_no_autocast(measure: Callable[P, R]) -> Callable[P, R]:
    """Decorate a measure: no gradient, and no autocast, which would make its products half precision."""

    @functools.wraps(measure)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return measure(*args, **kwargs)

    return plain


def mean_row(*sets: Tensor) -> Tensor:
    """Mean row of all sets together, (D,) float64."""
    total = sum(rows.sum(dim=0).double() for x in sets for rows in x.split(ROWS))
    return torch.as_tensor(total) / sum(len(x) for x in sets)


def centred(*sets: Tensor) -> list[Tensor]:
    """Copies of the sets less the mean row of all of them together."""
    mean = mean_row(*sets).to(sets[0])
    return [x - mean for x in sets]


def centred_rows(x: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """Rows less the mean, `ROWS` at a time."""
    return (rows - mean.to(x) for rows in x.split(ROWS))


def product(x: Tensor, y: Tensor) -> Tensor:
    """Xᵀ Y of the centred sets, (D, E) float64; of x with itself, only the half on and above the diagonal."""
    total = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
    if x is not y:
        for rows, others in zip(*(centred_rows(z, mean_row(z)) for z in (x, y)), strict=True):
            total += rows.T @ others
        return total
    for rows in centred_rows(x, mean_row(x)):
        for i in range(0, x.shape[1], 512):
            total[i : i + 512, i:] += rows[:, i : i + 512].T @ rows[:, i:]
    return total.triu() + total.triu(1).T


def covariance(x: Tensor) -> Tensor:
    """(D, D) float64, with n - 1 below."""
    return product(x, x) / (len(x) - 1)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(n, m), by one matrix product; both sets should lie around the origin."""
    squared = torch.addmm(y.square().sum(dim=1), x, y.T, alpha=-2)
    return squared.add_(x.square().sum(dim=1, keepdim=True)).clamp_min_(0)
