"""Wrong answers to the exercises, as learners write them: exercise → name of the mistake → function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.wrong_early import EARLY
from tests.wrong_late import LATE

Answers = dict[str, Callable[..., Any]]


# 03, alignment


def one_mirrored(rgb: Tensor, depth: Tensor, top: int, left: int, side: int, mirror: bool) -> Any:
    rgb, depth = (x[:, :, top : top + side, left : left + side] for x in (rgb, depth))
    if mirror:
        rgb = torch.flip(rgb, (3,))
    return rgb, depth


def turned_over(rgb: Tensor, depth: Tensor, top: int, left: int, side: int, mirror: bool) -> Any:
    both = [x[:, :, top : top + side, left : left + side] for x in (rgb, depth)]
    return [torch.flip(x, (2,)) if mirror else x for x in both]


def exchanged(rgb: Tensor, depth: Tensor, top: int, left: int, side: int, mirror: bool) -> Any:
    both = [x[:, :, left : left + side, top : top + side] for x in (rgb, depth)]
    return [torch.flip(x, (3,)) if mirror else x for x in both]


def not_mirrored(rgb: Tensor, depth: Tensor, top: int, left: int, side: int, mirror: bool) -> Any:
    return [x.narrow(2, top, side).narrow(3, left, side) for x in (rgb, depth)]


def rank_with_itself(f_s: Tensor, f_t: Tensor) -> Tensor:
    d = torch.cdist(f_s, f_t)
    return torch.stack([(d[i] <= d[i, i]).sum() / (len(d) - 1) for i in range(len(d))])


def rank_of_all(f_s: Tensor, f_t: Tensor) -> Tensor:
    d = torch.cdist(f_s, f_t)
    return torch.stack([(d[i] < d[i, i]).sum() / len(d) for i in range(len(d))])


def rank_by_columns(f_s: Tensor, f_t: Tensor) -> Tensor:
    d = torch.cdist(f_t, f_s)
    return (d < torch.diag(d)[:, None]).sum(1) / (len(d) - 1)


def rank_from_the_end(f_s: Tensor, f_t: Tensor) -> Tensor:
    d = torch.cdist(f_s, f_t)
    return (d > torch.diag(d).unsqueeze(1)).sum(1) / (len(d) - 1)


ALIGNMENT: dict[str, Answers] = {
    "03-loss": {
        "sum over features": lambda a, b: F.mse_loss(a, b, reduction="sum") / len(a),
        "mean of distances": lambda a, b: torch.linalg.vector_norm(a - b, dim=-1).mean(),
        "absolute difference": lambda a, b: F.l1_loss(a, b),
        "difference of the means": lambda a, b: F.mse_loss(a.mean(0), b.mean(0)),
        "mean before the square": lambda a, b: torch.mean(a - b).square(),
        "no gradient": lambda a, b: F.mse_loss(a.detach(), b.detach()),
    },
    "03-rank": {
        "counts the partner": rank_with_itself,
        "divides by all": rank_of_all,
        "asks the depth images": rank_by_columns,
        "counts who is farther": rank_from_the_end,
    },
    "03-cut": {
        "mirrors one half": one_mirrored,
        "upside down": turned_over,
        "rows and columns exchanged": exchanged,
        "never mirrors": not_mirrored,
    },
}

WRONG: dict[str, Answers] = {**EARLY, **ALIGNMENT, **LATE}
