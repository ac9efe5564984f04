"""Distances: against references and closed forms, their properties, and input of every sort."""

import functools
import math
import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics.pairwise import rbf_kernel

from socketlab import losses
from socketlab.errors import LabError
from socketlab.figures import maps
from socketlab.measures import distances

I, J = np.arange(60)[:, None], np.arange(5)[None]
X, Y = np.sin(1 + 0.37 * I * (J + 1)), 1.2 * np.cos(0.5 + 0.29 * I * (J + 1)) + 0.3
"""Two sets for which other libraries gave the numbers below."""

UNBIASED = (functools.partial(distances.mmd, bandwidth=2.0), distances.energy)
AT_ZERO = (
    distances.frechet, distances.coral,
    distances.sliced_wasserstein, distances.channel_divergence,
)  # fmt: skip
ALL = (*UNBIASED, *AT_ZERO, distances.neighbour_purity, distances.proxy_a_distance)


def sets(n: int, m: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of correlated features, apart in mean and spread."""
    rng = np.random.default_rng(seed)
    mix, other = rng.normal(size=(2, width, width))
    return rng.normal(size=(n, width)) @ mix, rng.normal(size=(m, width)) @ other + 0.5


def biased_energy(a: np.ndarray, b: np.ndarray) -> float:
    """With each row's distance 0 to itself among those within its set."""
    return distances.energy(a, b) + sum(pdist(x).mean() / len(x) for x in (a, b))


# against references


def test_numbers_that_other_libraries_gave():
    middle = np.sort(pdist(np.concatenate([X, Y])))[3569]  # the lower of the two in the middle
    assert middle == pytest.approx(2.500156649, abs=1e-9)
    assert distances.mmd(X, Y, 1.0) == pytest.approx(0.025130545659, abs=1e-11)
    assert distances.mmd(X, Y, middle / math.sqrt(2)) == pytest.approx(0.027116861975, abs=1e-10)
    assert distances.frechet(X, Y) == pytest.approx(0.458618554771, abs=1e-11)
    # geomloss takes half, and no distance below 1e-4, not even of a row to itself
    floor = 1e-4 / 60
    assert biased_energy(X, Y) / 2 - floor == pytest.approx(0.101192135642, abs=1e-11)
    assert distances.coral(X, Y) == pytest.approx(0.002588431822, abs=1e-11)
    assert distances.neighbour_purity(X, Y) == pytest.approx(0.47, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (9, 40), (1100, 1030)])
def test_mmd_against_the_kernel_matrices_of_scikit_learn(n, m):
    a, b = sets(n, m, 4)
    expected = 0.0
    for scale in (0.5, 2.0):
        aa, bb, ab = (rbf_kernel(x, y, 0.5 / (3 * scale) ** 2) for x, y in ((a, a), (b, b), (a, b)))
        outside = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (aa, bb)]
        expected += (sum(outside) - 2 * ab.mean()) / 2
    assert distances.mmd(a, b, 3.0, (0.5, 2.0)) == pytest.approx(expected, abs=1e-12)


def test_mmd_of_pairs_leaves_partners_out():
    a, b = sets(40, 40, 3)
    ab = rbf_kernel(a, b, 0.5 / 4)
    without = (ab.sum() - np.trace(ab)) / (40 * 39)
    difference = distances.mmd(a, b, 2.0, paired=True) - distances.mmd(a, b, 2.0)
    assert difference == pytest.approx(2 * (ab.mean() - without), abs=1e-12)


def test_mmd_by_hand():
    """Two points a set, unit distances: k = e^(−1/2) for neighbours, e^(−1) across the diagonal."""
    a, b = [[0, 0], [1, 0]], [[0, 1], [1, 1]]
    near, far = math.exp(-0.5), math.exp(-1)
    assert distances.mmd(a, b, 1.0) == pytest.approx(2 * near - (near + far))
    assert distances.mmd(a, b, 1.0, paired=True) == pytest.approx(2 * near - 2 * far)


def test_mmd_of_gaussians_is_that_of_the_formula():
    """E k(x, y) of N(μ, I) and N(0, I) with bandwidth s: (s² / (s² + 2))^(D/2) exp(−‖μ‖² / (2 (s² + 2)))."""
    width, shift, s = 3, 0.8, 1.5
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2500, width)) + np.array([0, shift])[:, None, None]
    alike = (s**2 / (s**2 + 2)) ** (width / 2)
    truth = 2 * alike * (1 - math.exp(-width * shift**2 / (2 * (s**2 + 2))))
    assert distances.mmd(a, b, s) == pytest.approx(truth, abs=0.01)


@pytest.mark.parametrize(("n", "m"), [(25, 25), (7, 31)])
def test_energy_against_scipy(n, m):
    a, b = sets(n, m, 1)
    reference = scipy.stats.energy_distance(a[:, 0], b[:, 0]) ** 2
    assert biased_energy(a, b) == pytest.approx(reference, rel=1e-9)
    a, b = sets(n, m, 4)
    within = sum(pdist(x).mean() for x in (a, b))
    assert distances.energy(a, b) == pytest.approx(2 * cdist(a, b).mean() - within, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(50, 60), (12, 40), (5, 6)], ids=["full", "half thin", "thin"])
def test_frechet_against_a_matrix_root(n, m):
    a, b = sets(n, m, 12)
    sa, sb = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(sa)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ sb @ root).clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sa) + np.trace(sb) - 2 * shared
    assert distances.frechet(a, b) == pytest.approx(expected, rel=1e-6)
    if n > 12:
        root = scipy.linalg.sqrtm(sa @ sb)
        assert shared == pytest.approx(np.trace(root).real, rel=1e-9)


def test_frechet_of_gaussians_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20_000, 3))
    b = 2 * b + np.array([1.0, -2.0, 0.5])
    assert distances.frechet(a, b) == pytest.approx(5.25 + 3 * (2 - 1) ** 2, rel=0.03)


def test_frechet_of_features_that_lie_in_a_plane():
    """Rank 3 in 9 dimensions, with more rows than features: as in the 3 dimensions themselves."""
    a, b = sets(40, 50, 3)
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(9, 3)))[0].T
    inside = distances.frechet(a, b)
    assert distances.frechet(a @ basis, b @ basis) == pytest.approx(inside, rel=1e-7)
    dead = np.concatenate([a, np.zeros((40, 2))], axis=1), np.concatenate([b, np.zeros((50, 2))], axis=1)
    assert distances.frechet(*dead) == pytest.approx(inside, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (6, 10), (7, 12), (1, 3)])
def test_quantile_steps_against_repeated_rows_and_scipy(n, m):
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.normal(size=n)), np.sort(rng.normal(size=m))
    which_a, which_b, width = (part.numpy() for part in distances._common_steps(n, m))
    assert width.sum() == pytest.approx(1)
    step = a[which_a] - b[which_b]
    assert (np.abs(step) * width).sum() == pytest.approx(scipy.stats.wasserstein_distance(a, b))
    repeated = np.repeat(a, m) - np.repeat(b, n)
    assert (step**2 * width).sum() == pytest.approx((repeated**2).mean())


def test_sliced_wasserstein_in_one_dimension_needs_one_slice():
    a, b = sets(12, 18, 1)
    repeated = np.repeat(np.sort(a[:, 0]), 18) - np.repeat(np.sort(b[:, 0]), 12)
    assert distances.sliced_wasserstein(a, b, directions=3) == pytest.approx((repeated**2).mean())


def test_sliced_wasserstein_against_other_directions():
    """Independent directions, many: the orthogonal ones estimate the same mean."""
    a, b = sets(200, 200, 4)
    theta = np.random.default_rng(0).normal(size=(4000, 4))
    theta /= np.linalg.norm(theta, axis=1, keepdims=True)
    slices = (np.sort(a @ theta.T, axis=0) - np.sort(b @ theta.T, axis=0)) ** 2
    found = [distances.sliced_wasserstein(a, b, 1000, seed=s) for s in (0, 1)]
    assert found[0] != found[1]
    assert found == pytest.approx([slices.mean()] * 2, rel=0.06)


def test_directions_are_orthogonal_and_of_length_one():
    theta = distances._directions(5, 12, 0)
    assert theta.shape == (12, 5)
    np.testing.assert_allclose(theta[:5] @ theta[:5].T, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(theta.norm(dim=1), 1, atol=1e-12)


def test_coral_against_numpy():
    a, b = sets(30, 20, 6)
    expected = ((np.cov(a.T) - np.cov(b.T)) ** 2).sum() / (4 * 36)
    assert distances.coral(a, b) == pytest.approx(expected, rel=1e-12)


def test_symmetric_divergence_against_an_integral_and_the_loss():
    rng = np.random.default_rng(0)
    mean, source_mean = torch.from_numpy(rng.normal(size=(2, 6)))
    variance, source_variance = torch.from_numpy(rng.uniform(0.1, 3, size=(2, 6)))
    found = distances.symmetric_divergence(mean, variance, source_mean, source_variance, floor=0.0)

    def divergence(mu, v, m, r):
        """KL(N(μ, v) ‖ N(m, r)) by numerical integration."""
        x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)[:, None]
        ours, theirs = (-((x - c) ** 2) / (2 * s) - (2 * math.pi * s).log() / 2 for c, s in ((mu, v), (m, r)))
        return torch.trapezoid(ours.exp() * (ours - theirs), x, dim=0)

    there = divergence(mean, variance, source_mean, source_variance)
    back = divergence(source_mean, source_variance, mean, variance)
    torch.testing.assert_close(found, there + back)

    one, other = ([mean], [variance]), ([source_mean], [source_variance])
    loss = losses.statistics_distance(*one, *other) + losses.statistics_distance(*other, *one)
    floored = distances.symmetric_divergence(mean, variance, source_mean, source_variance)
    torch.testing.assert_close(floored.mean(), loss)


def test_divergence_of_a_dead_channel_is_finite():
    gap = distances.symmetric_divergence([0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0])
    assert gap[0] == 0
    assert gap.isfinite().all() and gap[1] > 1e3


def test_mixing_against_all_distances():
    a, b = sets(30, 45, 3)
    x, own = np.concatenate([a, b]), np.arange(75) < 30
    distance = cdist(x, x)
    np.fill_diagonal(distance, np.inf)
    same = (own[np.argsort(distance, axis=1)[:, :7]] == own[:, None]).mean(axis=1)
    assert distances.neighbour_purity(a, b, k=7) == pytest.approx((same[own].mean() + same[~own].mean()) / 2)
    assert distances.neighbour_purity(a, b, k=500) == pytest.approx((29 / 74 + 44 / 74) / 2)
    assert distances.neighbour_purity(a, b + 1000) == 1.0


def test_mixing_is_the_one_beside_the_maps():
    a, b = sets(60, 60, 3)
    assert maps.neighbour_purity(a, b) == distances.neighbour_purity(a, b)


def test_proxy_a_distance_of_sets_near_and_far():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400, 5))
    assert abs(distances.proxy_a_distance(a, b)) < 0.3
    assert distances.proxy_a_distance(a, b + 10) == 2.0
    # one feature, means 1 apart: the best line errs as often as a normal variable exceeds 1/2
    best = 2 * (1 - 2 * scipy.stats.norm.sf(0.5))
    assert distances.proxy_a_distance(a[:, :1], b[:, :1] + 1) == pytest.approx(best, abs=0.15)
    few = distances.proxy_a_distance(a[:40], b + 10)
    assert few == 2.0


def test_partners_stay_in_one_fold():
    """Copies as partners: in other folds each would be taken for its twin's set, and 0 would become −2."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 200))
    apart = distances.proxy_a_distance(a, a + 1e-6 * rng.normal(size=a.shape))
    together = distances.proxy_a_distance(a, a + 1e-6 * rng.normal(size=a.shape), paired=True)
    assert apart < -0.5
    assert abs(together) < 0.5


# properties


@settings(max_examples=25)
@given(n=st.integers(4, 20), m=st.integers(4, 20), width=st.integers(1, 8), seed=st.integers(0, 99))
def test_distances_are_symmetric(n, m, width, seed):
    a, b = sets(n, m, width, seed)
    for measure in (*UNBIASED, *AT_ZERO, distances.neighbour_purity):
        assert measure(a, b) == pytest.approx(measure(b, a), rel=1e-7, abs=1e-9)


@settings(max_examples=25)
@given(n=st.integers(3, 20), width=st.integers(1, 8), seed=st.integers(0, 99))
def test_a_set_is_at_distance_zero_from_itself(n, width, seed):
    a, _ = sets(n, 2, width, seed)
    size = a.var() * width
    for measure in AT_ZERO:
        assert 0 <= measure(a, a[::-1]) <= 1e-8 * max(1, size**2)
    for measure in UNBIASED:
        assert measure(a, a) < 0, "the row itself is among the other set's, but left out of its own"


@settings(max_examples=25)
@given(width=st.integers(1, 8), seed=st.integers(0, 99))
def test_a_common_shift_or_rotation_changes_nothing(width, seed):
    a, b = sets(15, 18, width, seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
    for measure in (*UNBIASED, distances.frechet, distances.coral, distances.neighbour_purity):
        assert measure(a @ turn + 3, b @ turn + 3) == pytest.approx(measure(a, b), rel=1e-7, abs=1e-9)
    for measure in AT_ZERO:
        assert measure(a + 3, b + 3) == pytest.approx(measure(a, b), rel=1e-6, abs=1e-9)


@settings(max_examples=15)
@given(width=st.integers(1, 6), seed=st.integers(0, 99))
def test_distances_grow_with_a_shift(width, seed):
    a, _ = sets(40, 2, width, seed)
    rng = np.random.default_rng(seed)
    b, deviation = rng.permutation(a), np.linalg.norm(a.std(axis=0))
    direction = rng.normal(size=width)
    direction *= deviation / np.linalg.norm(direction)
    bandwidth = distances.median_distance(a, b)
    for measure in (
        functools.partial(distances.mmd, bandwidth=bandwidth), distances.energy, distances.frechet,
        distances.sliced_wasserstein, distances.channel_divergence,
    ):  # fmt: skip
        values = [measure(a, b + step * direction) for step in (0, 0.5, 1, 2)]
        assert values == sorted(values) and values[0] < values[-1]
    assert distances.coral(a, b + direction) == pytest.approx(0, abs=1e-9), "CORAL is blind to means"


@settings(max_examples=25)
@given(n=st.integers(2, 20), m=st.integers(2, 20), width=st.integers(1, 7), seed=st.integers(0, 99))
def test_a_mere_shift(n, m, width, seed):
    """‖δ‖²/D by D orthogonal slices, ‖δ‖² by Fréchet; only the mean of unequal counts adds to it."""
    rng = np.random.default_rng(seed)
    a, delta = rng.normal(size=(n, width)), rng.normal(size=width)
    size = (delta**2).sum()
    assert distances.sliced_wasserstein(a, a + delta, width, seed) == pytest.approx(size / width)
    assert distances.frechet(a, a + delta) == pytest.approx(size, abs=1e-7)
    points = np.zeros((n, width)), np.zeros((m, width)) + delta
    assert distances.sliced_wasserstein(*points, width, seed) == pytest.approx(size / width)


def test_unbiased_estimates_of_equal_distributions_lie_around_zero():
    rng = np.random.default_rng(0)
    for measure in UNBIASED:
        found = [measure(*rng.normal(size=(2, 15, 3))) for _ in range(300)]
        error = np.std(found) / math.sqrt(300)
        assert abs(np.mean(found)) < 3 * error
        assert min(found) < 0 < max(found)


# the median heuristic


def test_median_distance_leaves_equal_rows_out():
    a, b = sets(20, 30, 3)
    pooled = np.concatenate([a, b])
    middle = np.median(pdist(pooled))
    assert distances.median_distance(a, b) == pytest.approx(middle, rel=1e-12)
    assert distances.median_distance(np.ones((9, 3)), np.ones((8, 3))) == 1.0
    sparse = np.zeros((20, 2))
    sparse[0] = 3, 4
    assert distances.median_distance(sparse, sparse[1:]) == pytest.approx(5.0)


def test_median_distance_of_many_rows_is_that_of_some_of_them():
    a, b = sets(3000, 900, 3)
    assert distances.median_distance(a, b) == distances.median_distance(a, b)
    some = np.concatenate([a, b])[::4]
    assert distances.median_distance(a, b) == pytest.approx(np.median(pdist(some)), rel=0.05)


@pytest.mark.parametrize("bad", [{"bandwidth": 0.0}, {"bandwidth": -1.0}, {"bandwidth": 1.0, "scales": ()}])
def test_kernels_that_cannot_be(bad):
    with pytest.raises(LabError, match="must be positive"):
        distances.mmd(X, Y, **bad)


# what comes in


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.full((9, 3), np.nan), np.ones((9, 3)), "first set holds NaN"),
        (np.ones((9, 3)), np.full((9, 3), -np.inf), "second set holds NaN or infinite"),
        (np.ones((1, 3)), np.ones((9, 3)), "has 1 of the 2 rows"),
        (np.ones((0, 3)), np.ones((9, 3)), "has 0 of the 2 rows"),
        (np.ones((9, 3)), np.ones((9, 4)), "3 and 4 features"),
        (np.ones(9), np.ones(9), r"shape \(9,\)"),
        (np.ones((9, 0)), np.ones((9, 0)), r"shape \(9, 0\)"),
        (np.ones((9, 3, 2)), np.ones((9, 3, 2)), r"shape \(9, 3, 2\)"),
        (np.ones((9, 3), complex), np.ones((9, 3)), "real numbers"),
        (torch.ones(9, 3, dtype=torch.complex64), np.ones((9, 3)), "real numbers"),
        ([["a", "b"]] * 4, np.ones((9, 2)), "real numbers"),
        ([[1.0], [1.0, 2.0]], np.ones((9, 2)), "equal rows"),
    ],
)
def test_input_that_says_nothing_is_refused_in_a_sentence(measure, a, b, words):
    with pytest.raises(LabError, match=words):
        measure(a, b)


@pytest.mark.parametrize("measure", [distances.mmd, distances.energy, distances.proxy_a_distance])
def test_pairs_come_in_equal_numbers(measure):
    with pytest.raises(LabError, match="60 and 50 rows are no pairs"):
        measure(X, Y[:50], paired=True)


@pytest.mark.parametrize("measure", [*ALL, distances.mmd])
def test_constant_features(measure):
    same = measure(np.full((9, 3), 4.2), np.full((8, 3), 4.2))
    assert same == pytest.approx(0.5 if measure is distances.neighbour_purity else 0, abs=0.11)
    if measure not in (distances.neighbour_purity, distances.proxy_a_distance):
        assert same == pytest.approx(0, abs=1e-12)
    one_dead = [np.concatenate([z, np.ones((60, 1))], axis=1) for z in (X, Y)]
    assert math.isfinite(measure(*one_dead))


@pytest.mark.parametrize("measure", ALL)
def test_two_rows_are_enough(measure):
    assert math.isfinite(measure(X[:2], Y[:3]))


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int16, torch.uint8])
def test_any_type_gives_what_its_values_say(measure, dtype):
    a, b = (torch.as_tensor(40 * (z + 2)).to(dtype) for z in (X, Y))
    assert measure(a, b) == measure(a.double().numpy(), b.double().numpy())


def test_autocast_and_gradients_are_left_out():
    a, b = (torch.as_tensor(z, dtype=torch.float32).requires_grad_() for z in (X, Y))
    plain = [measure(a, b) for measure in ALL]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [measure(a, b) for measure in ALL] == plain
    assert torch.is_grad_enabled()


def test_input_is_not_altered_and_nothing_is_warned_of():
    a, b = (torch.as_tensor(z) for z in (X.copy(), Y.copy()))
    read_only = X.copy()
    read_only.flags.writeable = False
    state = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for measure in ALL:
            measure(a, b)
            measure(read_only, Y)
    assert (a.numpy() == X).all() and (b.numpy() == Y).all()
    assert torch.equal(torch.random.get_rng_state(), state)
