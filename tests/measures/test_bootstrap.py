"""Intervals cover, tests hold their level, and one loop brings all measures."""

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from socketlab.errors import LabError
from socketlab.measures import bootstrap, metrics
from socketlab.measures.bootstrap import bootstrap_interval, permutation_test
from socketlab.measures.distances import (
    energy,
    kernel_distance,
    median_distance,
    minus_distance,
    mmd,
    neighbour_purity,
    rbf,
)
from socketlab.measures.metrics import MEASURES, measure_all
from socketlab.measures.similarity import linear_cka


def normal(n: int, m: int, width: int, seed: int, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(k, width, generator=generator, dtype=torch.float64) for k in (n, m))
    return a, b + shift


def pairs(n: int, width: int, seed: int, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of the same scenes."""
    scenes, _ = normal(n, 2, width, seed)
    first, second = normal(n, n, width, seed + 10_000)
    return scenes + noise * first, scenes + noise * second


def mean_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(b.mean() - a.mean())


# intervals


SAMPLES = 120


def covered(truth: float, measure, draw, **options) -> int:
    """How many of the samples' intervals hold the truth."""
    samples = range(1000, 1000 + SAMPLES)
    found = [bootstrap_interval(measure, *draw(seed), rounds=60, seed=seed, **options) for seed in samples]
    return sum(one.low <= truth <= one.high for one in found)


def allowed(coverage: float) -> tuple[float, float]:
    """What 99.8 % of such experiments see; 60 draws give intervals a little short, by 1.5 points."""
    return tuple(scipy.stats.binom.ppf([0.001, 0.999], SAMPLES, [coverage - 0.015, coverage]))


@pytest.mark.parametrize(("n", "m"), [(60, 60), (31, 90)])
def test_intervals_of_a_mean_cover_as_they_say(n, m):
    draw = functools.partial(normal, n, m, 1, shift=0.3)
    low, high = allowed(0.95)
    for options in ({}, {"most": 20}):
        assert low <= covered(0.3, mean_difference, draw, **options) <= high


def test_intervals_of_mmd_cover_the_true_distance():
    shift, s = 1.0, 1.5
    alike = s**2 / (s**2 + 2)
    truth = 2 * alike * (1 - math.exp(-2 * shift**2 / (2 * (s**2 + 2))))
    draw = functools.partial(normal, 50, 50, 2, shift=shift)
    low, high = allowed(0.95)
    assert low <= covered(truth, functools.partial(mmd, bandwidth=s), draw) <= high
    equal = functools.partial(normal, 30, 30, 2)
    found = covered(0.0, functools.partial(mmd, bandwidth=s), equal)
    assert found >= 0.95 * SAMPLES, "cautious where they are equal"


def test_halves_hold_no_copies():
    """Drawn with replacement, purity comes out larger in every round: a row and its copy are neighbours."""
    a, b = normal(80, 80, 2, 0)
    rows = np.random.default_rng(0)
    copies = [
        neighbour_purity(a[rows.integers(80, size=80)], b[rows.integers(80, size=80)], k=3) for _ in range(40)
    ]
    found = bootstrap_interval(functools.partial(neighbour_purity, k=3), a, b, rounds=40)
    assert np.quantile(copies, 0.025) > found.value, "a plain bootstrap's interval does not hold the value"
    assert found.low < found.value < found.high


def test_pairs_are_drawn_together():
    """The difference within pairs is certain, that of two loose sets is not."""
    a, b = pairs(50, 1, 0, noise=0.01)
    tight, loose = (
        bootstrap_interval(mean_difference, a, b, rounds=50, paired=paired) for paired in (True, False)
    )
    assert tight.high - tight.low < 0.1 * (loose.high - loose.low)
    assert "pairs" in tight.how and "rows" in loose.how
    assert bootstrap_interval(linear_cka, a, b, rounds=20, paired=True).low > 0.9


def test_same_seed_same_interval():
    a, b = normal(20, 30, 2, 0)
    first, again, other = (bootstrap_interval(energy, a, b, rounds=20, seed=seed) for seed in (3, 3, 4))
    assert first == again and first.value == other.value and first.low != other.low
    assert (first.name, first.p) == ("energy", None)
    assert "20 and 30 rows" in first.how and "seed 3" in first.how


@pytest.mark.parametrize(
    ("options", "words"),
    [({"rounds": 1}, "at least 2"), ({"paired": True}, "no pairs")],
)
def test_intervals_that_cannot_be(options, words):
    with pytest.raises(LabError, match=words):
        bootstrap_interval(energy, *normal(20, 30, 2, 0), **options)
    with pytest.raises(LabError, match="3 of the 4 rows"):
        bootstrap_interval(energy, *normal(3, 30, 2, 0))


# permutation


def rejections(measure, draw, paired=False, tests=200, rounds=19) -> int:
    found = []
    for seed in range(tests):
        a, b = draw(seed)
        kernel = minus_distance if measure is energy else rbf(median_distance(a, b))
        found.append(permutation_test(kernel, a, b, rounds=rounds, seed=seed, paired=paired))
    return sum(p <= 0.05 for p in found)


@pytest.mark.parametrize(
    ("measure", "draw", "paired"),
    [
        (mmd, functools.partial(normal, 15, 20, 3), False),
        (energy, functools.partial(normal, 12, 12, 2), False),
        (mmd, functools.partial(pairs, 15, 2), True),
    ],
)
def test_level_of_the_permutation_test(measure, draw, paired):
    """Of 200 tests at 5 % about 10 reject; 99.9 % of such experiments see 2 to 21 (binomial)."""
    assert 2 <= rejections(measure, draw, paired) <= 21


def test_unpaired_shuffling_of_pairs_would_see_too_little():
    """Why there is a null for pairs: partners are alike, so that two sets of pairs are nearer than chance."""
    draw = functools.partial(pairs, 15, 2, noise=0.2)
    assert rejections(energy, draw) == 0


def test_power_of_the_permutation_test():
    shifted = functools.partial(normal, 20, 20, 3, shift=1.0)
    assert rejections(mmd, shifted, tests=30) >= 27

    def moved(seed):
        a, b = pairs(20, 2, seed, noise=0.2)
        return a, b + 0.4

    assert rejections(energy, moved, paired=True, tests=30) >= 27


@settings(max_examples=15)
@given(n=st.integers(3, 12), m=st.integers(3, 12), seed=st.integers(0, 99), paired=st.booleans())
def test_one_kernel_matrix_serves_all_rounds(n, m, seed, paired):
    """The value of the sets as they are, and of each dealing out, are those that the measure itself gives."""
    m = n if paired else m
    a, b = normal(n, m, 2, seed, shift=0.5)
    kernel = rbf(1.3, (0.5, 1.0))
    measure = functools.partial(kernel_distance, kernel=kernel, paired=paired)
    values = bootstrap._dealt_out(kernel, a, b, 5, torch.Generator().manual_seed(seed), paired)
    assert values[0] == pytest.approx(measure(a, b), abs=1e-12)
    again = torch.Generator().manual_seed(seed)
    if paired:
        stays = torch.rand(n, 5, generator=again) < 0.5
        dealt = [(torch.where(s[:, None], a, b), torch.where(s[:, None], b, a)) for s in stays.T]
    else:
        chosen = torch.rand(n + m, 5, generator=again).argsort(dim=0) < n
        pooled = torch.cat([a, b])
        dealt = [(pooled[c], pooled[~c]) for c in chosen.T]
    assert values[1:] == pytest.approx([measure(*sets) for sets in dealt], abs=1e-12)


def test_p_is_at_least_one_in_all_rounds():
    a, b = normal(10, 10, 2, 0)
    assert permutation_test(minus_distance, a, b + 100, rounds=49) == 1 / 50
    assert permutation_test(minus_distance, torch.zeros(8, 2), torch.zeros(8, 2), rounds=19) == 1.0


def test_tests_that_cannot_be():
    a, b = normal(10, 12, 2, 0)
    with pytest.raises(LabError, match="no pairs"):
        permutation_test(minus_distance, a, b, paired=True)
    with pytest.raises(LabError, match="at least 1"):
        permutation_test(minus_distance, a, b, rounds=0)
    with pytest.raises(LabError, match="too many to test at once"):
        permutation_test(minus_distance, torch.zeros(9000, 1), torch.zeros(2000, 1))


# all of them


def test_every_measure_of_pairs():
    a, b = pairs(60, 6, 0)
    centres = 4 * torch.randn(3, 6, generator=torch.Generator().manual_seed(1))[np.arange(60) % 3]
    a, b = (a + centres).float(), (b + centres + 0.2).half()
    found = measure_all(a, b, paired=True, rounds=20)
    assert [one.name for one in found] == list(MEASURES)
    for one in found:
        assert one.low <= one.value <= one.high, one
        measure = MEASURES[one.name]
        assert measure.low <= one.low and one.high <= measure.high
        assert (one.p is not None) is (one.name in ("mmd", "mmd_scales", "energy"))
        assert "60" in one.how
    by_name = {one.name: one for one in found}
    assert by_name["linear_cka"].value > 0.8 and by_name["pair_rank"].value < 0.1
    again = measure_all(a, b, paired=True, rounds=20)
    assert again == found


def test_sets_without_pairs_and_without_labels():
    a, b = normal(40, 30, 3, 0, shift=0.5)
    found = measure_all(a, b, rounds=5)
    assert [one.name for one in found] == [n for n, measure in MEASURES.items() if not measure.pairs]
    assert [one.name for one in measure_all(a, b, names=["energy", "mmd"], rounds=5)] == ["energy", "mmd"]


def test_networks_of_different_widths_can_be_compared_by_cka_alone():
    a, b = pairs(30, 4, 0)
    names = [one.name for one in measure_all(a, b[:, :3], paired=True, rounds=5)]
    assert names == ["linear_cka", "linear_cka_debiased", "kernel_cka"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["linear_cka"], "needs pairs"),
        (["bures"], "'bures' is no measure; there are mmd"),
    ],
)
def test_measures_that_cannot_be_had(names, words):
    with pytest.raises(LabError, match=words):
        measure_all(*normal(10, 10, 2, 0), names=names)


def test_a_measure_that_fails_says_why_and_the_others_go_on():
    a, _ = normal(20, 2, 3, 0)
    found = {one.name: one for one in measure_all(a, torch.ones(20, 3), paired=True, rounds=5)}
    assert math.isnan(found["linear_cka"].value) and "second set is constant" in found["linear_cka"].how
    assert math.isfinite(found["frechet"].value)
    few = {one.name: one for one in measure_all(a[:3], a[5:8], paired=True, rounds=5)}
    assert math.isnan(few["linear_cka_debiased"].value)
    assert math.isfinite(few["energy"].value) and math.isnan(few["energy"].low)
    assert "no interval" in few["energy"].how


def test_many_rows_are_measured_in_bounded_work(monkeypatch):
    """Some rows for what costs the square of their number."""
    seen = []

    def spy(a, b, k=15):
        seen.append((len(a), len(b)))
        return neighbour_purity(a, b, k)

    monkeypatch.setattr(metrics, "MEASURES", MEASURES | {
        "neighbour_purity": metrics.Measure("", "", spy, most=50),
        "mmd": replace(MEASURES["mmd"], most=60),
    })  # fmt: skip
    a, b = normal(3000, 2500, 2, 0, shift=0.3)
    found = {one.name: one for one in measure_all(a, b, names=["mmd", "neighbour_purity"], rounds=5, most=30)}
    assert "60 and 60 rows" in found["mmd"].how
    assert found["mmd"].low < found["mmd"].value < found["mmd"].high
    assert found["mmd"].p == 1 / 200
    assert max(seen) == (50, 50) and "50 and 50 rows" in found["neighbour_purity"].how
