"""CKA and the alignment of pairs: against matrices written out, invariances, chance, edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel

from socketlab.errors import LabError
from socketlab.measures.similarity import kernel_cka, linear_cka, pair_alignment

I, J = np.arange(60)[:, None], np.arange(5)[None]
X, Y = np.sin(1 + 0.37 * I * (J + 1)), 1.2 * np.cos(0.5 + 0.29 * I * (J + 1)) + 0.3
"""Two sets for which other libraries gave the numbers below."""


def related(
    n: int, width: int, other: int, seed: int = 0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Two views of the same scenes, of different widths."""
    rng = np.random.default_rng(seed)
    scenes = rng.normal(size=(n, 4))
    return tuple(
        scenes @ rng.normal(size=(4, w)) + noise * rng.normal(size=(n, w)) + rng.normal(size=w)
        for w in (width, other)
    )


def hsic_0(k: np.ndarray, l: np.ndarray) -> float:
    h = np.eye(len(k)) - 1 / len(k)
    return np.trace(k @ h @ l @ h)


def hsic_1(k: np.ndarray, l: np.ndarray) -> float:
    """Through U-centred matrices (Székely and Rizzo 2014), another form of Song's."""
    n = len(k)

    def u_centred(x: np.ndarray) -> np.ndarray:
        x = x - np.diag(np.diag(x))
        rows = x.sum(axis=0)
        u = x - rows[None] / (n - 2) - rows[:, None] / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(u, 0)
        return u

    return (u_centred(k) * u_centred(l)).sum()


def cka(k: np.ndarray, l: np.ndarray, hsic) -> float:
    return hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))


# CKA


def test_numbers_that_other_libraries_gave():
    assert linear_cka(X, Y) == pytest.approx(0.223051028342, abs=1e-11)
    assert linear_cka(X, Y, debiased=True) == pytest.approx(0.151185745374, abs=1e-11)


@pytest.mark.parametrize(("width", "other"), [(3, 7), (50, 5), (70, 90)], ids=["wide", "mixed", "thin"])
@pytest.mark.parametrize("debiased", [False, True])
def test_cka_against_centred_kernel_matrices(width, other, debiased):
    a, b = related(40, width, other)
    hsic = hsic_1 if debiased else hsic_0
    assert linear_cka(a, b, debiased=debiased) == pytest.approx(cka(a @ a.T, b @ b.T, hsic), rel=1e-9)
    k, l = rbf_kernel(a, gamma=0.5 / 9), rbf_kernel(b, gamma=0.5 / 16)
    assert kernel_cka(a, b, (3.0, 4.0), debiased=debiased) == pytest.approx(cka(k, l, hsic), rel=1e-9)


def test_cka_of_many_rows_is_that_of_the_matrices():
    a, b = related(1100, 3, 2)
    k, l = rbf_kernel(a, gamma=0.5 / 9), rbf_kernel(b, gamma=0.5 / 9)
    for debiased, hsic in ((False, hsic_0), (True, hsic_1)):
        found = kernel_cka(a, b, (3.0, 3.0), debiased=debiased)
        if debiased:
            assert found == pytest.approx(cka(k, l, hsic), rel=1e-9)
        else:  # without products of matrices
            k, l = (x - x.mean(0) - x.mean(1, keepdims=True) + x.mean() for x in (k, l))
            assert found == pytest.approx((k * l).sum() / math.sqrt((k * k).sum() * (l * l).sum()), rel=1e-9)
            k, l = rbf_kernel(a, gamma=0.5 / 9), rbf_kernel(b, gamma=0.5 / 9)


@settings(max_examples=25)
@given(n=st.integers(5, 30), width=st.integers(2, 8), scale=st.floats(0.01, 100), seed=st.integers(0, 99))
def test_cka_knows_no_rotation_no_scale_and_no_shift(n, width, scale, seed):
    a, b = related(n, width, width + 1, seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
    moved = scale * a @ turn + 5
    for debiased in (False, True):
        before = linear_cka(a, b, debiased=debiased)
        assert linear_cka(moved, b, debiased=debiased) == pytest.approx(before, abs=1e-8)
        assert linear_cka(b, moved, debiased=debiased) == pytest.approx(before, abs=1e-8)
        assert linear_cka(a, moved, debiased=debiased) == pytest.approx(1)
        assert before <= 1
        before = kernel_cka(a, b, debiased=debiased)
        assert kernel_cka(moved, b, debiased=debiased) == pytest.approx(before, abs=1e-8)
        assert kernel_cka(a, moved, debiased=debiased) == pytest.approx(1)
    assert linear_cka(a, b) >= 0


def test_another_linear_map_is_noticed():
    a, _ = related(50, 4, 4)
    assert linear_cka(a, a * np.array([1, 1, 1, 20])) < 0.95


def test_unrelated_sets_debiased_give_zero_and_biased_do_not():
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(2, 12, 30)) for _ in range(200)]
    for measure in (linear_cka, kernel_cka):
        biased = [measure(a, b) for a, b in drawn]
        debiased = [measure(a, b, debiased=True) for a, b in drawn]
        assert min(biased) > 0.3
        assert abs(np.mean(debiased)) < 3 * np.std(debiased) / math.sqrt(200)


def test_kernel_cka_sees_what_no_line_shows():
    x = np.linspace(-1, 1, 200)[:, None]
    assert linear_cka(x, x**2) == pytest.approx(0, abs=1e-12)
    assert kernel_cka(x, x**2) > 0.2


def test_shuffled_partners_have_less_in_common():
    a, b = related(100, 6, 6)
    shuffled = b[np.random.default_rng(0).permutation(100)]
    for measure in (linear_cka, kernel_cka):
        assert measure(a, b, debiased=True) > 0.2 > abs(measure(a, shuffled, debiased=True)) + 0.1


# pairs


def ranks(similarity: np.ndarray) -> np.ndarray:
    return 1 + (similarity > np.diag(similarity)[:, None]).sum(axis=1)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("n", [25, 1100])
def test_pairs_against_the_matrix_of_cosines(centred, n):
    a, b = related(n, 4, 4, noise=2.0)
    b = a + b
    found = pair_alignment(a, b, centred=centred, ks=(1, 3))
    x, y = (z - z.mean(axis=0) * centred for z in (a, b))
    cosines = cosine_similarity(x, y)
    true = np.trace(cosines)
    assert found.true_cosine == pytest.approx(true / n)
    assert found.random_cosine == pytest.approx((cosines.sum() - true) / (n * (n - 1)), abs=1e-12)
    assert found.cosine_gain == found.true_cosine - found.random_cosine
    there, back = ranks(cosines), ranks(cosines.T)
    assert found.median_rank == pytest.approx([(np.median(rank) - 1) / (n - 1) for rank in (there, back)])
    for k in (1, 3):
        assert found.recall[k] == pytest.approx([(rank <= k).mean() for rank in (there, back)])


def test_pairs_by_hand():
    """Three scenes; the second and third are taken for one another by the second set."""
    a = np.eye(3)
    b = a[[0, 2, 1]]
    found = pair_alignment(a, b, centred=False, ks=(1, 2, 9))
    assert found.true_cosine == pytest.approx(1 / 3)
    assert found.random_cosine == pytest.approx(2 / 6)
    assert found.recall == {1: (1 / 3, 1 / 3), 2: (1 / 3, 1 / 3), 9: (1.0, 1.0)}
    assert found.median_rank == (0.75, 0.75), "a partner at cosine 0 shares ranks 2 and 3: 2.5"


def test_equal_sets_are_found_at_once_and_unrelated_ones_by_chance():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400, 6))
    same = pair_alignment(a, a)
    assert same.true_cosine == pytest.approx(1)
    assert same.recall[1] == (1.0, 1.0) and same.median_rank == (0.0, 0.0)
    other = pair_alignment(a, b)
    assert other.median_rank == pytest.approx([0.5, 0.5], abs=0.1)
    assert other.recall[10] == pytest.approx([10 / 400] * 2, abs=0.03)
    assert abs(other.cosine_gain) < 0.1


def test_a_constant_network_finds_partners_by_chance():
    constant = pair_alignment(np.full((21, 3), 2.5), np.full((21, 3), 2.5), centred=False, ks=(1, 10, 11))
    assert constant.median_rank == (0.5, 0.5)
    assert constant.cosine_gain == pytest.approx(0, abs=1e-12)
    assert constant.recall[1] == constant.recall[10] == (0.0, 0.0)
    assert constant.recall[11] == (1.0, 1.0)


def test_what_a_modality_has_in_common_hides_its_scenes_until_it_is_taken_away():
    a, _ = related(60, 5, 5)
    apart = a + 1000 * np.eye(5)[0]
    assert pair_alignment(a, apart).recall[1] == (1.0, 1.0)
    assert pair_alignment(a, apart, centred=False).recall[1][0] < 0.2


# what comes in

EVERY = (
    linear_cka,
    lambda a, b: linear_cka(a, b, debiased=True),
    kernel_cka,
    lambda a, b: pair_alignment(a, b).cosine_gain,
)


@pytest.mark.parametrize("measure", EVERY)
@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.full((9, 3), np.nan), np.ones((9, 3)), "first set holds NaN"),
        (np.ones((8, 3)), np.ones((9, 3)), "8 and 9 rows are no pairs"),
        (np.ones((1, 3)), np.ones((1, 3)), "has 1 of the"),
        (np.ones(9), np.ones(9), r"shape \(9,\)"),
    ],
)
def test_input_that_says_nothing_is_refused_in_a_sentence(measure, a, b, words):
    with pytest.raises(LabError, match=words):
        measure(a, b)


@pytest.mark.parametrize("measure", EVERY[:3])
def test_cka_of_constant_features_is_refused(measure):
    with pytest.raises(LabError, match="second set is constant"):
        measure(X, np.full((60, 3), 0.1))
    with pytest.raises(LabError, match="first set is constant"):
        measure(np.full((60, 3), 0.1), Y)
    dead = np.concatenate([X, np.full((60, 2), 7.0)], axis=1)
    assert measure(dead, Y) == pytest.approx(measure(X, Y))


def test_few_rows():
    assert 0 <= linear_cka(X[:2], Y[:2]) <= 1
    assert 0 <= kernel_cka(X[:2], Y[:2]) <= 1
    with pytest.raises(LabError, match="3 of the 4 rows"):
        linear_cka(X[:3], Y[:3], debiased=True)


@pytest.mark.parametrize("measure", EVERY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int16])
def test_any_type_gives_what_its_values_say(measure, dtype):
    a, b = (torch.as_tensor(40 * (z + 2)).to(dtype) for z in (X, Y))
    assert measure(a, b) == measure(a.double().numpy(), b.double().numpy())


@pytest.mark.parametrize("measure", EVERY)
def test_autocast_and_gradients_are_left_out(measure):
    a, b = (torch.as_tensor(z, dtype=torch.float32) for z in (X, Y))
    plain = measure(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measure(a.requires_grad_(), b) == plain
