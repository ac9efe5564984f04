"""Wrong answers to the exercises of notebooks 04 to 07; see `tests.wrong_answers`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Answers = dict[str, Callable[..., Any]]


# 04, adaptation


def entropy_of(p: Tensor) -> Tensor:
    return -torch.sum(p * torch.log(p + 1e-30), dim=-1)


def diversity_added(logits: Tensor) -> Tensor:
    p = F.softmax(logits, dim=-1)
    return entropy_of(p).mean() + entropy_of(p.mean(0))


def of_mean_logits(logits: Tensor) -> Tensor:
    sharp = entropy_of(F.softmax(logits, dim=-1)).mean()
    return sharp - entropy_of(F.softmax(logits.mean(dim=0, keepdim=True), dim=-1)).squeeze()


def added_up(logits: Tensor) -> Tensor:
    p = F.softmax(logits, dim=-1)
    return sum(entropy_of(row) for row in p) - entropy_of(p.mean(0))


def in_bits(logits: Tensor) -> Tensor:
    p = F.softmax(logits, dim=-1)
    mean = p.mean(0)
    return -(p * (p + 1e-30).log2()).sum(1).mean() + (mean * (mean + 1e-30).log2()).sum()


def over_the_batch(logits: Tensor) -> Tensor:
    p = F.softmax(logits, dim=0)
    return entropy_of(p).mean() - entropy_of(p.mean(0))


def other_way_round(logits: Tensor) -> Tensor:
    p = F.softmax(logits, dim=-1)
    return entropy_of(p.mean(0)) - entropy_of(p).mean()


def not_to_be_learned(logits: Tensor) -> Tensor:
    with torch.no_grad():
        p = F.softmax(logits, dim=-1)
        return entropy_of(p).mean() - entropy_of(p.mean(0))


def first_choices(u: Tensor, q: Tensor) -> Tensor:
    chosen = q.argmax(1)
    return torch.stack([u[chosen == k].mean(0) for k in range(q.shape[1])])


def sums(u: Tensor, q: Tensor) -> Tensor:
    return torch.einsum("xk,xe->ke", q / q.sum(dim=1, keepdim=True), u)


def of_all(u: Tensor, q: Tensor) -> Tensor:
    return (q[:, :, None] * u[:, None, :]).mean(dim=0)


def of_length_one(u: Tensor, q: Tensor) -> Tensor:
    centres = q.T @ u / q.sum(0).unsqueeze(1)
    return centres / centres.norm(dim=1, keepdim=True)


def surest(u: Tensor, q: Tensor) -> Tensor:
    return torch.stack([u[int(column.argmax())] for column in q.T])


def by_product(u: Tensor, centres: Tensor, used: Tensor) -> Tensor:
    score = torch.einsum("xe,ke->xk", u, centres)
    score[:, ~used] = -1e9
    return score.max(dim=1).indices


def by_distance(u: Tensor, centres: Tensor, used: Tensor) -> Tensor:
    squares = ((u[:, None] - centres[None]) ** 2).sum(-1)
    squares[:, ~used] = 1e9
    return squares.min(dim=1).indices


def of_all_classes(u: Tensor, centres: Tensor, used: Tensor) -> Tensor:
    return F.cosine_similarity(u[:, None], centres[None], dim=-1).argmax(dim=1)


def masked_by_product(u: Tensor, centres: Tensor, used: Tensor) -> Tensor:
    return (F.cosine_similarity(u[:, None], centres[None], dim=-1) * used).argmax(dim=1)


def cosines(u: Tensor, centres: Tensor, used: Tensor) -> Tensor:
    return F.cosine_similarity(u[:, None], centres[None], dim=-1)


# 05, mixtures


def shares_of(g: Tensor) -> Tensor:
    return F.normalize(torch.sigmoid(g), p=1, dim=0)


def committee(logits: Tensor, g: Tensor) -> Tensor:
    return sum(a * F.softmax(z, dim=-1) for a, z in zip(shares_of(g), logits, strict=True))  # type: ignore


def raw_shares(logits: Tensor, g: Tensor) -> Tensor:
    return F.softmax(torch.tensordot(torch.sigmoid(g), logits, dims=1), dim=-1)


def softmax_shares(logits: Tensor, g: Tensor) -> Tensor:
    return F.softmax(torch.tensordot(F.softmax(g, dim=0), logits, dims=1), dim=-1)


def equal_shares(logits: Tensor, g: Tensor) -> Tensor:
    return F.softmax(logits.mean(dim=0), dim=-1)


def columns_of_one(logits: Tensor, g: Tensor) -> Tensor:
    return F.softmax(torch.tensordot(shares_of(g), logits, dims=1), dim=0)


def only_logits(logits: Tensor, g: Tensor) -> Tensor:
    return torch.tensordot(shares_of(g), logits, dims=1)


def shares_that_stay(logits: Tensor, g: Tensor) -> Tensor:
    return F.softmax(torch.tensordot(shares_of(g.detach()), logits, dims=1), dim=-1)


def by_autograd(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient of a loss that is not quite the right one."""

    def gradient(g: Tensor, losses: Tensor) -> Tensor:
        g = g.clone().requires_grad_()
        return torch.autograd.grad(of(g, losses), g)[0]

    return gradient


def softmax_gradient(g: Tensor, losses: Tensor) -> Tensor:
    a = shares_of(g)
    return (torch.diag(a) - torch.outer(a, a)) @ losses


# 06, infrared


def like_imagenet(images: Tensor, target: Tensor) -> Tensor:
    x = images.float().div(255).repeat(1, 3, 1, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def of_the_batch(images: Tensor, target: Tensor) -> Tensor:
    x = images.float().div(255)
    return torch.cat([(x - x.mean()) / x.var(correction=0).sqrt()] * 3, dim=1)


def of_each_picture(images: Tensor, target: Tensor) -> Tensor:
    done = [(x - x.mean()) / x.std(correction=0) for x in images.double()]
    return torch.stack(done).float().repeat(1, 3, 1, 1)


def of_each_place(images: Tensor, target: Tensor) -> Tensor:
    known = target.float()
    return ((images.float() - known.mean(0)) / known.std(0, correction=0)).repeat(1, 3, 1, 1)


def centred(images: Tensor, target: Tensor) -> Tensor:
    return ((images.float() - target.float().mean()) / 255).repeat(1, 3, 1, 1)


def by_the_variance(images: Tensor, target: Tensor) -> Tensor:
    known = target.float() / 255
    return ((images.float() / 255 - known.mean()) / known.std(correction=0) ** 2).repeat(1, 3, 1, 1)


def by_default(images: Tensor, target: Tensor) -> Tensor:
    known = target.float()
    return ((images.float() - known.mean()) / known.std()).repeat(1, 3, 1, 1)


def one_channel(images: Tensor, target: Tensor) -> Tensor:
    known = target.float()
    return (images.float() - known.mean()) / known.std(correction=0)


def precision(counts: Tensor) -> Tensor:
    columns = range(len(counts))
    return torch.stack([counts[k, k] / counts[:, k].sum() for k in columns if counts[:, k].sum()]).mean()


def zero_for_nobody(counts: Tensor) -> Tensor:
    rows = counts.double().sum(1)
    return torch.nan_to_num(counts.diagonal() / rows, nan=0.0).mean()


def mean_count(counts: Tensor) -> Tensor:
    return torch.tensor([float(row[k]) for k, row in enumerate(counts) if row.sum() > 0]).mean()


def of_all_images(counts: Tensor) -> Tensor:
    there = int((counts.sum(1) > 0).sum())
    return counts.trace() / counts.sum() / there


def every_share(counts: Tensor) -> Tensor:
    there = counts.sum(1) > 0
    return counts.diagonal()[there] / counts.sum(1)[there]


# 07, own data


def holes_are_near(depth: Tensor, mean: float, std: float) -> Tensor:
    values = depth.to(torch.float32) / 8000
    values[values == 0] = 0
    return (values - mean) / std


def in_millimetres(depth: Tensor, mean: float, std: float) -> Tensor:
    values = depth.to(torch.float32)
    return torch.where(values == 0, 0.0, (values - mean) / std)


def in_metres(depth: Tensor, mean: float, std: float) -> Tensor:
    values = depth.to(torch.float32) / 1000
    return torch.where(values == 0, 0.0, (values - mean) / std)


def divided_first(depth: Tensor, mean: float, std: float) -> Tensor:
    values = depth.to(torch.float32) / 8000
    return torch.where(values == 0, 0.0, values / std - mean)


def squared(depth: Tensor, mean: float, std: float) -> Tensor:
    values = depth.to(torch.float32) / 8000
    return torch.where(values == 0, 0.0, (values - mean) / (std * std))


def clipped(depth: Tensor, mean: float, std: float) -> Tensor:
    values = torch.minimum(depth.to(torch.float32), torch.tensor(8000.0)) / 8000
    return torch.where(values == 0, 0.0, (values - mean) / std)


def three_channels(depth: Tensor, mean: float, std: float) -> Tensor:
    values = depth.to(torch.float32) / 8000
    return torch.where(values == 0, 0.0, (values - mean) / std).repeat(1, 3, 1, 1)


def in_place(depth: Tensor, mean: float, std: float) -> Tensor:
    here = depth == 0
    depth.copy_(torch.where(here, 8000.0, depth.to(torch.float32)).to(torch.uint16))
    return torch.where(here, 0.0, (depth.to(torch.float32) / 8000 - mean) / std)


Files = tuple[list[tuple[str, str]], list[str]]


def stem(name: str) -> str:
    return Path(name).stem


def left_over(pairs: list[tuple[str, str]], rgb: list[str], depth: list[str]) -> Files:
    return pairs, sorted({*rgb, *depth} - {name for pair in pairs for name in pair})


def line_by_line(rgb: list[str], depth: list[str]) -> Files:
    return left_over([(rgb[i], depth[i]) for i in range(min(len(rgb), len(depth)))], rgb, depth)


def sorted_lines(rgb: list[str], depth: list[str]) -> Files:
    return line_by_line(sorted(rgb), sorted(depth))


def beginnings(rgb: list[str], depth: list[str]) -> Files:
    pairs = []
    for name in sorted(rgb):
        for other in sorted(depth):
            if stem(name) in other and other.index(stem(name)) == 0:
                pairs.append((name, other))
                break
    return left_over(pairs, rgb, depth)


def first_points(rgb: list[str], depth: list[str]) -> Files:
    sides = []
    for names in (rgb, depth):
        side = {}
        for name in names:
            side[name[: name.index(".")]] = name
        sides.append(side)
    both = sorted(sides[0].keys() & sides[1].keys())
    alone = [side[s] for side in sides for s in side.keys() - set(both)]
    return [(sides[0][s], sides[1][s]) for s in both], alone


def small_letters(rgb: list[str], depth: list[str]) -> Files:
    found = {stem(name).casefold(): name for name in depth}
    pairs = [(name, found[stem(name).casefold()]) for name in rgb if stem(name).casefold() in found]
    return left_over(sorted(pairs, key=lambda pair: stem(pair[0]).casefold()), rgb, depth)


def true_pairs(rgb: list[str], depth: list[str]) -> list[tuple[str, str]]:
    return sorted((a, b) for a in rgb for b in depth if stem(a) == stem(b))


def as_listed(rgb: list[str], depth: list[str]) -> Files:
    return left_over([(a, b) for a in rgb for b in depth if stem(a) == stem(b)], rgb, depth)


def one_side(rgb: list[str], depth: list[str]) -> Files:
    known = {stem(name) for name in depth}
    return true_pairs(rgb, depth), [name for name in rgb if stem(name) not in known]


LATE: dict[str, Answers] = {
    "04-information": {
        "sign of the diversity": diversity_added,
        "without diversity": lambda z: torch.distributions.Categorical(logits=z).entropy().mean(),
        "diversity alone": lambda z: -entropy_of(F.softmax(z, dim=-1).mean(0)),
        "mean of the logits": of_mean_logits,
        "sum over the batch": added_up,
        "softmax over the batch": over_the_batch,
        "factor": in_bits,
        "no gradient": not_to_be_learned,
    },
    "04-centroids": {
        "hard centroids": first_choices,
        "not divided by the weight": sums,
        "divided by the number of images": of_all,
        "scaled to length 1": of_length_one,
        "the surest image": surest,
        "shape": lambda u, q: u.T @ (q / q.sum(dim=0)),
    },
    "04-pseudo-labels": {
        "product without length": by_product,
        "Euclidean distance": by_distance,
        "classes not in use": of_all_classes,
        "masked with 0": masked_by_product,
        "shape": cosines,
    },
    "04-gap-closed": {
        "points gained": lambda s, m, o: torch.sub(m, s),
        "share of the oracle": lambda s, m, o: torch.div(m, o),
        "gain relative to the source": lambda s, m, o: m / s - 1,
        "share of the errors": lambda s, m, o: 1 - (1 - m) / (1 - s),
        "what is left": lambda s, m, o: 1 - (m - s) / (o - s),
        "cut to 0 and 1": lambda s, m, o: torch.clip((m - s) / (o - s), 0, 1),
        "factor": lambda s, m, o: 100 * (m - s) / (o - s),
        "shape": lambda s, m, o: ((m - s) / (o - s)).mean(),
    },
    "05-mixture": {
        "mean of the probabilities": committee,
        "shares that do not sum to 1": raw_shares,
        "shares by softmax": softmax_shares,
        "equal shares": equal_shares,
        "softmax over the images": columns_of_one,
        "no softmax at the end": only_logits,
        "no gradient": shares_that_stay,
    },
    "05-weight-gradient": {
        "the losses themselves": lambda g, losses: losses + 0.0,
        "share times loss": lambda g, losses: shares_of(g) * losses,
        "forgets the mean": by_autograd(lambda g, x: g.sigmoid() @ x / g.sigmoid().sum().detach()),
        "gradient of a softmax": softmax_gradient,
        "shares that do not sum to 1": by_autograd(lambda g, losses: g.sigmoid() @ losses),
        "sign": by_autograd(lambda g, losses: -(shares_of(g) @ losses)),
        "shape": lambda g, losses: by_autograd(lambda h, x: shares_of(h) @ x)(g, losses).sum(),
    },
    "06-normalise-channels": {
        "numbers of colour": like_imagenet,
        "the batch's own numbers": of_the_batch,
        "each picture by itself": of_each_picture,
        "place by place": of_each_place,
        "divided by the variance": by_the_variance,
        "n less one": by_default,
        "not divided": centred,
        "shape": one_channel,
    },
    "06-class-mean": {
        "overall accuracy": lambda counts: counts.diagonal().sum() / counts.sum(),
        "columns for rows": precision,
        "missing classes count as 0": zero_for_nobody,
        "a count, no share": mean_count,
        "divided by all images": of_all_images,
        "shape": every_share,
        "factor": lambda counts: 100 * every_share(counts).mean(),
    },
    "07-depth": {
        "missing is near": holes_are_near,
        "millimetres": in_millimetres,
        "metres": in_metres,
        "mean after the deviation": divided_first,
        "divided by the variance": squared,
        "clipped at 8 m": clipped,
        "shape": three_channels,
        "changes its input": in_place,
    },
    "07-pairs": {
        "in the order of listing": line_by_line,
        "sorted, then in line": sorted_lines,
        "names that begin alike": beginnings,
        "up to the first point": first_points,
        "capitals do not count": small_letters,
        "orphans are dropped": lambda rgb, depth: (true_pairs(rgb, depth), []),
        "orphans of colour only": one_side,
        "in the order of one folder": as_listed,
        "kind": lambda rgb, depth: len(true_pairs(rgb, depth)),
    },
}
