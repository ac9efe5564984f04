"""References of notebooks 01 and 02 against torch's own layer, the library and plain NumPy, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional as F

from socketlab import losses
from socketlab.course import checks
from socketlab.course.exercises import gap, statistics
from socketlab.figures import maps
from socketlab.measures import distances
from socketlab.networks.networks import mixing_weights
from tests.wrong_early import change_the_input, kl, pca, variance_detached, without_itself

some_seed = st.integers(0, 2**31 - 1)


def verdict(exercise_id: str, answer: Callable[..., Any]) -> checks.Verdict:
    return checks.judge(checks.find(exercise_id), answer)


def arguments(exercise_id: str) -> Iterator[tuple[Any, ...]]:
    """Those of every case, tensors in float64."""
    for case in checks.find(exercise_id).cases():
        yield tuple(a.detach().double() if isinstance(a, Tensor) else a for a in case.arguments)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# 01, the modality gap


def test_mixing_is_the_librarys_and_a_trees() -> None:
    for a, b, k in arguments("01-mixing"):
        found = float(gap.same_world_share(a, b, k))
        assert found == pytest.approx(distances.neighbour_purity(a, b, k), abs=1e-6)
        x, own = torch.cat([a, b]).numpy(), np.arange(len(a) + len(b)) < len(a)
        near = cKDTree(x).query(x, k + 1)[1][:, 1:]
        assert found == pytest.approx((own[near] == own[:, None]).mean(), abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(some_seed)
def test_the_gap_of_means_has_no_units_and_sees_no_rotation(seed: int) -> None:
    a, b = noise(9, 4, seed=seed), 1 + 0.5 * noise(6, 4, seed=seed + 1)
    found = gap.mean_gap(a, b)
    turn = torch.linalg.qr(noise(4, 4, seed=seed + 2)).Q
    assert torch.isclose(gap.mean_gap(7 * a @ turn + 3, 7 * b @ turn + 3), found)
    inner = [((rows - rows.mean(0)) ** 2).sum() for rows in (a.numpy(), b.numpy())]
    spread = np.sqrt(sum(inner) / 15)
    assert float(found) == pytest.approx(np.linalg.norm(a.mean(0) - b.mean(0)) / spread)
    assert float(gap.mean_gap(a, a.flip(0))) == pytest.approx(0, abs=1e-12)


def test_the_spread_of_all_together_is_bounded_as_its_words_say() -> None:
    """With a spread that holds the gap itself no gap can be more than 2; ours grows with the shift."""
    (wrong,) = (m for m in checks.find("01-mean-gap").mistakes if m.name == "spread of all together")
    a, b = noise(10, 3, seed=0), noise(10, 3, seed=1)
    far = b + 1000
    assert 1.99 < float(wrong.answer(a, far)) <= 2 and float(gap.mean_gap(a, far)) > 100


def test_mmd_is_the_librarys() -> None:
    a, b = noise(14, 3, seed=0), 0.6 + noise(14, 3, seed=1)
    squared = [torch.cdist(x, y) ** 2 for x, y in ((a, a), (b, b), (a, b))]
    found = gap.unbiased_mmd(*(torch.exp(-s / (2 * 1.3**2)) for s in squared))
    assert float(found) == pytest.approx(distances.mmd(a, b, bandwidth=1.3), abs=1e-9)


def test_mmd_without_bias_is_zero_on_average_over_all_halves_of_one_world() -> None:
    """Exactly, as each pair of images is as often in one half as in two; with the diagonal it is above."""
    (biased,) = (m for m in checks.find("01-mmd").mistakes if m.name == "keeps the diagonal")
    k, found, too_large = torch.exp(-torch.cdist(x := noise(8, 2, seed=0), x)), [], []
    for one in itertools.combinations(range(8), 4):
        i, j = list(one), [row for row in range(8) if row not in one]
        kernels = k[i][:, i], k[j][:, j], k[i][:, j]
        found.append(float(gap.unbiased_mmd(*kernels)))
        too_large.append(float(biased.answer(*kernels)))
    assert min(found) < -0.01 and np.mean(found) == pytest.approx(0, abs=1e-12)
    assert min(too_large) >= 0 and np.mean(too_large) > 0.1


def test_projection_is_the_librarys() -> None:
    for a, b in arguments("01-projection"):
        wanted = maps.pca_map({"rgb": a, "depth": b}, fit_on="rgb")
        wanted = gap.either_way([torch.from_numpy(wanted[m]).double() for m in ("rgb", "depth")])
        for x, y in zip(gap.either_way(gap.project_on_source(a, b)), wanted, strict=True):
            assert torch.allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("turned", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_an_axis_may_point_either_way_but_both_worlds_share_it(turned: tuple[int, int]) -> None:
    signs = torch.tensor(turned, dtype=torch.float32)

    def answer(a: Tensor, b: Tensor, other: Tensor = signs) -> tuple[Tensor, Tensor]:
        axes = pca(a)[:, [-1, -2]]
        return (a - a.mean(0)) @ axes * signs, (b - a.mean(0)) @ axes * other

    assert verdict("01-projection", answer).right
    for other in (-signs, signs * torch.tensor([1, -1])):
        assert not verdict("01-projection", lambda a, b, o=other: answer(a, b, o)).right


def test_results_that_are_no_two_maps_are_left_to_the_checker() -> None:
    points = torch.zeros(3, 2)
    odd = [
        None,
        3.0,
        points,
        (points,),
        (points, "b"),
        (points, torch.zeros(3, 4)),
        (points, torch.zeros(0, 2)),
    ]
    assert all(gap.either_way(one) is one for one in odd)
    for one in odd[1:]:
        assert not verdict("01-projection", lambda a, b, one=one: one).right


def test_other_right_answers_on_the_gap_pass() -> None:
    assert verdict("01-mixing", lambda a, b, k: np.mean(without_itself(a, b, k))).right
    assert verdict("01-mixing", lambda a, b, k: distances.neighbour_purity(a, b, k)).right
    assert verdict("01-mixing", change_the_input).mistake == "changes its input"
    eye = torch.eye
    assert verdict(
        "01-mmd",
        lambda xx, yy, xy: (xx + yy)[~eye(len(xx), dtype=torch.bool)].mean() - xy.mean() - xy.mean(),
    ).right


# 02, batch-norm statistics


def layer_after(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(len(m), momentum=momentum, dtype=torch.float64).train()
    layer.running_mean, layer.running_var = m.clone(), r.clone()
    layer(x)
    return layer


def close(a: tuple[Tensor, ...], b: tuple[Any, ...]) -> bool:
    return len(a) == len(b) and all(torch.allclose(x, y, rtol=1e-10) for x, y in zip(a, b, strict=True))


@settings(deadline=None, max_examples=20)
@given(some_seed, st.integers(1, 4), st.integers(1, 5), st.floats(0, 1))
def test_statistics_and_memory_are_torchs(seed: int, batch: int, channels: int, momentum: float) -> None:
    x = 2 + 3 * noise(batch, channels, 3, 2, seed=seed)
    m, r = noise(channels, seed=seed + 1), noise(channels, seed=seed + 2).exp()
    forgetful = layer_after(x, m, r, 1.0)
    assert close(statistics.batch_statistics(x), (forgetful.running_mean, forgetful.running_var))
    layer = layer_after(x, m, r, momentum)
    assert close(statistics.update_memory(x, m, r, momentum), (layer.running_mean, layer.running_var))


@settings(deadline=None, max_examples=20)
@given(some_seed, st.floats(1e-6, 1))
def test_normalising_is_torchs(seed: int, eps: float) -> None:
    x, m, weight, bias = (noise(*s, seed=seed + i) for i, s in enumerate([(2, 3, 4, 5), (3,), (3,), (3,)]))
    r = noise(3, seed=seed + 4).square()
    wanted = F.batch_norm(x, m, r, weight, bias, training=False, eps=eps)
    assert torch.allclose(statistics.normalise(x, m, r, weight, bias, eps), wanted)


def test_matching_is_the_librarys_with_its_gradient() -> None:
    for x, m, r in arguments("02-matching"):
        x.requires_grad_()
        mu, v = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        library = losses.statistics_distance([mu], [v], [m], [r])
        loss = statistics.matching_loss(x, m, r)
        assert torch.isclose(loss, library, rtol=1e-4)  # the library's floor is 1e-5
        ours, theirs = (torch.autograd.grad(each, x, retain_graph=True)[0] for each in (loss, library))
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)
        count, channels = x.numel() // x.shape[1], x.shape[1]
        g_mu, g_v = (mu - m) / r / channels, 0.5 * (1 / r - 1 / v) / channels
        line = g_mu / count + 2 * g_v / count * (x.movedim(1, -1) - mu)  # as the notebook derives it
        assert torch.allclose(ours, line.movedim(-1, 1))


def test_matching_is_a_divergence() -> None:
    x = noise(4, 3, 2, 2, seed=0)
    mu, v = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    assert float(statistics.matching_loss(x, mu, v)) == pytest.approx(0, abs=1e-12)
    for m, r in ((mu + 0.1, v), (mu, 1.2 * v), (mu, v / 1.2)):
        assert float(statistics.matching_loss(x, m, r)) > 1e-4


@settings(deadline=None, max_examples=20)
@given(some_seed, st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_pooled_statistics_are_those_of_all_values(seed: int, sizes: list[int]) -> None:
    parts = [3 * i + noise(n, 4, seed=seed + i) for i, n in enumerate(sizes)]
    means = torch.stack([p.mean(0) for p in parts])
    variances = torch.stack([p.var(0, correction=0) for p in parts])
    whole = torch.cat(parts)
    found = statistics.pooled_statistics(means, variances, torch.tensor(sizes, dtype=torch.float64))
    assert close(found, (whole.mean(0), whole.var(0, correction=0)))


@pytest.mark.parametrize("exercise_id", ["02-batch-statistics", "02-running", "02-pooled"])
@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("factor", [100, -1, 1.001, 0.999])
def test_neither_result_may_be_multiplied_by_anything(exercise_id: str, part: int, factor: float) -> None:
    """A check that forgets one of two results passes with running_var × 100."""
    reference = checks.find(exercise_id).answer

    def wrong(*given: Any) -> list[Tensor]:
        return [t * factor if i == part else t for i, t in enumerate(reference(*given))]

    said = verdict(exercise_id, wrong)
    assert not said.right and f"in result {part + 1} of 2" in said.words


def test_other_right_answers_on_statistics_pass() -> None:
    def by_a_layer(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
        layer = nn.BatchNorm2d(len(m), momentum=momentum).train()
        layer.running_mean, layer.running_var = m.clone(), r.clone()
        layer(x)
        return layer.running_mean, layer.running_var

    def with_a_floor(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
        mu, v = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        return losses.statistics_distance([mu], [v], [m], [r])

    assert verdict("02-batch-statistics", lambda x: torch.var_mean(x, dim=(0, 2, 3))[::-1]).right
    assert verdict("02-running", by_a_layer).right
    assert verdict("02-normalise", lambda x, m, r, w, b, eps: F.batch_norm(x, m, r, w, b, eps=eps)).right
    assert verdict("02-matching", with_a_floor).right
    assert verdict("02-matching", lambda x, m, r: kl(x, m, r).mean()).right


def test_a_loss_whose_variance_is_cut_off_is_refused() -> None:
    assert verdict("02-matching", variance_detached).mistake == "no gradient"


# what the questions say


def test_what_is_said_of_pooled_variances() -> None:
    """Two batches, all 0 and all 1: no variance each, a quarter together."""
    means, sizes = torch.tensor([[0.0], [1.0]]), torch.tensor([5.0, 5.0])
    assert statistics.pooled_statistics(means, torch.zeros(2, 1), sizes)[1].item() == 0.25


def test_what_is_said_of_forgotten_eval() -> None:
    """In training mode a prediction depends on the batch, and the memory moves without a gradient."""
    layer, x = nn.BatchNorm2d(3).train(), 1 + noise(6, 3, 2, 2, seed=0).float()
    before = layer.running_mean.clone()
    with torch.no_grad():
        assert not torch.allclose(layer(x)[0], layer(x[:3])[0], atol=1e-3)
    assert not torch.allclose(layer.running_mean, before)


def test_what_is_said_of_the_weight() -> None:
    """The raw weight always falls, at any learning rate; a share of one is 1 and has no gradient."""
    for rate in (0.001, 0.1):
        g, seen = torch.ones(1, requires_grad=True), []
        for _ in range(20):
            (torch.sigmoid(g) * 3.0).sum().backward()
            with torch.no_grad():
                g -= rate * g.grad
            g.grad = None
            seen.append(g.item())
        assert all(later < earlier for earlier, later in itertools.pairwise(seen))
    g = torch.ones(1, requires_grad=True)
    (mixing_weights(g) * 3.0).sum().backward()
    assert mixing_weights(g).item() == 1 and g.grad.item() == 0
