"""Wrong answers to the exercises of notebooks 01 and 02; see `tests.wrong_answers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# 01, the modality gap


def shares_row_by_row(a: Tensor, b: Tensor, k: int, first: int = 0, most: bool = False) -> list[float]:
    """Neighbours sorted for each row by itself, from the one at place `first` to the one at place k - 1."""
    x = torch.vstack([a, b])
    world = [0] * len(a) + [1] * len(b)
    found = []
    for i in range(len(x)):
        order = (x - x[i]).norm(dim=1).argsort(descending=most).tolist()
        near = order[first:k]
        found.append(sum(world[j] == world[i] for j in near) / len(near))
    return found


def without_itself(a: Tensor, b: Tensor, k: int) -> list[float]:
    return shares_row_by_row(a, b, k + 1, first=1)


def itself_and_the_farthest(a: Tensor, b: Tensor, k: int) -> Tensor:
    x = torch.cat([a, b])
    own = torch.cat([torch.zeros(len(a)), torch.ones(len(b))])
    near = (torch.cdist(x, x) + torch.diag(torch.full((len(x),), torch.inf))).topk(k)
    return (own[near.indices] == own.unsqueeze(1)).double().mean()


def shares_by_cosine(a: Tensor, b: Tensor, k: int) -> Tensor:
    x = F.normalize(torch.cat([a, b]), dim=1)
    likeness = x @ x.T - 3 * torch.eye(len(x))
    own = torch.cat([torch.zeros(len(a)), torch.ones(len(b))])
    return (own[likeness.topk(k).indices] == own.unsqueeze(1)).double().mean()


def change_the_input(a: Tensor, b: Tensor, k: int) -> Tensor:
    share = torch.tensor(without_itself(a, b, k)).mean()
    a -= a.mean(dim=0)
    return share


def distance_of_means(a: Tensor, b: Tensor) -> Tensor:
    return (a.mean(0) - b.mean(0)).square().sum().sqrt()


def by_total_spread(a: Tensor, b: Tensor) -> Tensor:
    return distance_of_means(a, b) / torch.cat([a, b]).var(dim=0, correction=0).sum().sqrt()


def by_mean_of_variances(a: Tensor, b: Tensor) -> Tensor:
    both = a.var(dim=0, correction=0).sum(), b.var(dim=0, correction=0).sum()
    return distance_of_means(a, b) / (sum(both) / 2) ** 0.5


def by_source_spread(a: Tensor, b: Tensor) -> Tensor:
    return distance_of_means(a, b) / a.var(dim=0, correction=0).sum().sqrt()


def by_one_number(a: Tensor, b: Tensor) -> Tensor:
    return distance_of_means(a, b) / torch.cat([a - a.mean(0), b - b.mean(0)]).pow(2).mean().sqrt()


def by_pooled_estimate(a: Tensor, b: Tensor) -> Tensor:
    n, m = len(a), len(b)
    pooled = ((n - 1) * a.var(0).sum() + (m - 1) * b.var(0).sum()) / (n + m - 2)
    return distance_of_means(a, b) / pooled.sqrt()


def by_variance(a: Tensor, b: Tensor) -> Tensor:
    n, m = len(a), len(b)
    pooled = (n * a.var(0, correction=0).sum() + m * b.var(0, correction=0).sum()) / (n + m)
    return distance_of_means(a, b) / pooled


def feature_by_feature(a: Tensor, b: Tensor) -> Tensor:
    return (a.mean(0) - b.mean(0)).abs() / torch.cat([a - a.mean(0), b - b.mean(0)]).std(dim=0)


def mean_off_diagonal(k: Tensor) -> Tensor:
    return k[~torch.eye(len(k), dtype=torch.bool)].mean()


def zeroed_mean(k: Tensor) -> Tensor:
    return (k * (1 - torch.eye(len(k)))).mean()


def pca(x: Tensor) -> Tensor:
    """(features, features), a direction in each *column*, the widest last."""
    return torch.linalg.eigh(torch.cov(x.T)).eigenvectors


def joint_pca(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.cat([a, b])
    axes = pca(x)[:, [-1, -2]]
    return (a - x.mean(0)) @ axes, (b - x.mean(0)) @ axes


def own_centres(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    axes = pca(a)[:, [-1, -2]]
    return (a - a.mean(0)) @ axes, (b - b.mean(0)) @ axes


def two_maps(a: Tensor, b: Tensor) -> list[Tensor]:
    found = []
    for f in (a, b):
        u, s, _ = torch.linalg.svd(f - f.mean(0), full_matrices=False)
        found.append(u[:, :2] * s[:2])
    return found


def uncentred(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    axes = torch.linalg.eigh(a.T @ a).eigenvectors[:, [-1, -2]]
    return (a - a.mean(0)) @ axes, (b - a.mean(0)) @ axes


def unmoved(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return a @ pca(a)[:, [-1, -2]], b @ pca(a)[:, [-1, -2]]


def narrowest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return (a - a.mean(0)) @ pca(a)[:, :2], (b - a.mean(0)) @ pca(a)[:, :2]


def columns_of_v(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    _, _, v = np.linalg.svd((a - a.mean(0)).numpy(), full_matrices=False)
    axes = torch.from_numpy(v[:, :2])
    return (a - a.mean(0)) @ axes, (b - a.mean(0)) @ axes


def left_vectors(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    u, s, v = torch.linalg.svd(a - a.mean(0), full_matrices=False)
    return u[:, :2], (b - a.mean(0)) @ v[:2].T / s[:2]


# 02, batch-norm statistics


def flat(x: Tensor) -> Tensor:
    """(channels, values)."""
    return x.transpose(0, 1).flatten(1)


def trained_layer(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(len(m), momentum=momentum).train()
    layer.running_mean, layer.running_var = m.clone(), r.clone()
    layer(x)
    return layer


def other_share(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    layer = trained_layer(x, m, r, 1 - momentum)
    return layer.running_mean, layer.running_var  # type: ignore[return-value]


def biased_memory(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    return torch.lerp(m, flat(x).mean(1), momentum), torch.lerp(r, flat(x).var(1, False), momentum)


def memory_of_deviations(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    return torch.lerp(m, flat(x).mean(1), momentum), torch.lerp(r, flat(x).std(1), momentum)


def piled_up(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    return momentum * flat(x).mean(1) + m, momentum * flat(x).var(1) + r


def only_the_mean(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    return trained_layer(x, m, r, momentum).running_mean, r  # type: ignore[return-value]


def written_over(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    return m.lerp_(flat(x).mean(1), momentum), r.lerp_(flat(x).var(1), momentum)


def in_training(x: Tensor, m: Tensor, r: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    return F.batch_norm(x, m.clone(), r.clone(), w, b, training=True, eps=eps)


def per_channel(one: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A formula for one channel, applied to each."""

    def every(x: Tensor, *each: Any) -> Tensor:
        *tensors, eps = each
        return torch.stack([one(x[:, c], *(t[c] for t in tensors), eps) for c in range(x.shape[1])], dim=1)

    return every


def last_dimension(x: Tensor, m: Tensor, r: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    return b + w * (x - m) * torch.rsqrt(r + eps)


def gaussians(x: Tensor, m: Tensor, r: Tensor, biased: bool = True) -> tuple[Any, Any]:
    normal = torch.distributions.Normal
    batch = normal(flat(x).mean(1), flat(x).var(1, unbiased=not biased).sqrt())
    return batch, normal(m, r.sqrt())


def kl(x: Tensor, m: Tensor, r: Tensor, biased: bool = True) -> Tensor:
    return torch.distributions.kl_divergence(*gaussians(x, m, r, biased))


def reversed_kl(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
    return torch.distributions.kl_divergence(*gaussians(x, m, r)[::-1]).mean()


def deviation_for_variance(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
    s = flat(x).std(1, unbiased=False)
    return ((s + (flat(x).mean(1) - m).square()) / r - 1 - s.log() + r.log()).mean() / 2


def placewise(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
    m, r = (t[:, None, None].expand(x.shape[1:]) for t in (m, r))
    batch = torch.distributions.Normal(x.mean(0), x.std(0, unbiased=False))
    return torch.distributions.kl_divergence(batch, torch.distributions.Normal(m, r.sqrt())).mean()


def without_logarithm(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
    v = flat(x).var(1, False)
    return (((v - r) + (flat(x).mean(1) - m).square()) / (2 * r)).mean()


def variance_detached(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
    v = flat(x).var(1, False).detach()
    return ((v + (flat(x).mean(1) - m).square()) / r - 1 - (v / r).log()).mean() / 2


def weighted(values: Tensor, sizes: Tensor) -> Tensor:
    return torch.from_numpy(np.average(values.numpy(), axis=0, weights=sizes.numpy()))


def unweighted(means: Tensor, variances: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


def half_weighted(means: Tensor, variances: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    overall = weighted(means, sizes)
    return overall, weighted(variances, sizes) + (means - overall).pow(2).mean(0)


def second_moments(means: Tensor, variances: Tensor, sizes: Tensor) -> Tensor:
    return weighted(variances + means**2, sizes) - weighted(means, sizes) ** 2


EARLY: dict[str, dict[str, Callable[..., Any]]] = {
    "01-mixing": {
        "counts itself": lambda a, b, k: np.mean(shares_row_by_row(a, b, k)),
        "one neighbour short": lambda a, b, k: np.mean(shares_row_by_row(a, b, k, first=1)),
        "the other world": lambda a, b, k: np.mean(1 - np.array(without_itself(a, b, k))),
        "asks colour only": lambda a, b, k: sum(without_itself(a, b, k)[: len(a)]) / len(a),
        "asks depth only": lambda a, b, k: sum(without_itself(a, b, k)[len(a) :]) / len(b),
        "a count, no share": lambda a, b, k: torch.tensor(without_itself(a, b, k)).mean() * k,
        "the farthest": lambda a, b, k: np.mean(shares_row_by_row(a, b, k, most=True)),
        "itself and the farthest": itself_and_the_farthest,
        "by angle": shares_by_cosine,
        "shape": lambda a, b, k: torch.tensor(without_itself(a, b, k)),
        "kind": lambda a, b, k: {"share": np.mean(without_itself(a, b, k))},
        "changes its input": change_the_input,
    },
    "01-mean-gap": {
        "spread of all together": by_total_spread,
        "averages the two spreads": by_mean_of_variances,
        "colour's spread only": by_source_spread,
        "no units": distance_of_means,
        "variance for its root": by_variance,
        "spread of one feature": by_one_number,
        "divides by two less": by_pooled_estimate,
        "squared gap": lambda a, b: distance_of_means(a, b) * by_variance(a, b),
        "shape": feature_by_feature,
    },
    "01-mmd": {
        "keeps the diagonal": lambda xx, yy, xy: xx.mean() - 2 * xy.mean() + yy.mean(),
        "divides by all": lambda xx, yy, xy: zeroed_mean(xx) + zeroed_mean(yy) - 2 * xy.mean(),
        "leaves out partners": lambda xx, yy, xy: mean_off_diagonal(xx + yy - 2 * xy),
        "between once": lambda xx, yy, xy: mean_off_diagonal(xx + yy) - xy.sum() / xy.numel(),
        "root": lambda xx, yy, xy: (mean_off_diagonal(xx + yy) - 2 * xy.mean()) ** 0.5,
        "factor": lambda xx, yy, xy: 2 * xy.mean() - mean_off_diagonal(xx + yy),
    },
    "01-projection": {
        "fitted on both": joint_pca,
        "each its own mean": own_centres,
        "each its own axes": two_maps,
        "directions without centre": uncentred,
        "points not centred": unmoved,
        "smallest variance": narrowest,
        "columns for rows": columns_of_v,
        "axes of one length": left_vectors,
        "shape": lambda a, b: ((a - a.mean(0)) @ pca(a), (b - a.mean(0)) @ pca(a)),
        "kind": lambda a, b: (a - a.mean(0)) @ pca(a)[:, [-1, -2]],
    },
    "02-batch-statistics": {
        "biased variance": lambda x: (flat(x).mean(1), flat(x).var(1, unbiased=False)),
        "standard deviation": lambda x: (flat(x).mean(1), flat(x).std(1)),
        "over the batch only": lambda x: (x.mean(0), x.std(0) ** 2),
        "over the channels": lambda x: [x.flatten(1).mean(1), x.flatten(1).var(1)],
        "image by image": lambda x: (flat(x).mean(1), x.flatten(2).var(2).mean(0)),
        "mean of squares": lambda x: (flat(x).mean(1), flat(x).pow(2).mean(1)),
        "shape": lambda x: torch.var_mean(x, dim=(0, 2, 3), keepdim=True)[::-1],
        "kind": lambda x: x.var(dim=(0, 2, 3)),
    },
    "02-running": {
        "momentum the wrong way round": other_share,
        "biased variance": biased_memory,
        "standard deviation": memory_of_deviations,
        "adds without forgetting": piled_up,
        "forgets everything": lambda x, m, r, momentum: (flat(x).mean(1), flat(x).var(1)),
        "mean only": only_the_mean,
        "nothing moves": lambda x, m, r, momentum: (m.clone(), r.clone()),
        "changes its input": written_over,
    },
    "02-normalise": {
        "by the batch": in_training,
        "no eps": per_channel(lambda x, m, r, w, b, eps: w * (x - m) / r.sqrt() + b),
        "eps outside the root": per_channel(lambda x, m, r, w, b, eps: w * (x - m) / (r**0.5 + eps) + b),
        "variance for its root": per_channel(lambda x, m, r, w, b, eps: w * (x - m) / (r + eps) + b),
        "no weight and bias": lambda x, m, r, w, b, eps: F.batch_norm(x, m, r, eps=eps),
        "bias before weight": per_channel(lambda x, m, r, w, b, eps: w * (b + (x - m) / (r + eps).sqrt())),
        "along the columns": last_dimension,
        "factor": lambda x, m, r, w, b, eps: F.batch_norm(x, m, r, 3 * w, 3 * b, eps=eps),
    },
    "02-matching": {
        "unbiased variance": lambda x, m, r: kl(x, m, r, biased=False).mean(),
        "the other way round": reversed_kl,
        "standard deviation": deviation_for_variance,
        "per place": placewise,
        "sum over channels": lambda x, m, r: kl(x, m, r).sum(),
        "distance is not zero at rest": lambda x, m, r: kl(x, m, r).mean() + 0.5,
        "no logarithm": without_logarithm,
        "mean only": lambda x, m, r: ((flat(x).mean(1) - m).square() / r / 2).mean(),
        "factor": lambda x, m, r: 2 * kl(x, m, r).mean(),
        "shape": kl,
        "no gradient": lambda x, m, r: kl(x.detach(), m, r).mean(),
    },
    "02-pooled": {
        "forgets differences between batches": lambda m, v, s: (weighted(m, s), weighted(v, s)),
        "between only": lambda m, v, s: (weighted(m, s), weighted(m**2, s) - weighted(m, s) ** 2),
        "all batches alike": unweighted,
        "between without shares": half_weighted,
        "averages deviations": lambda m, v, s: (weighted(m, s), weighted(v.sqrt(), s) ** 2),
        "standard deviation": lambda m, v, s: (weighted(m, s), second_moments(m, v, s).sqrt()),
        "kind": second_moments,
    },
}
