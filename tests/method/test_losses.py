"""Losses against float64 references written another way, their gradients, and their properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from scipy.stats import entropy as scipy_entropy

from socketlab import losses


def random_logits(seed: int, batch: int = 12, classes: int = 5, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, classes, generator=generator, dtype=torch.float64)


@given(st.integers(0, 10_000), st.floats(0.01, 30))
def test_information_maximisation_equals_scipy_and_stays_in_range(seed, scale):
    logits = random_logits(seed, scale=scale)
    p = softmax(logits.numpy(), axis=1)
    expected = scipy_entropy(p, axis=1).mean() - scipy_entropy(p.mean(axis=0))
    found = float(losses.information_maximisation(logits))
    assert found == pytest.approx(expected, abs=1e-10)
    assert -math.log(5) - 1e-9 <= found <= 1e-9


def test_information_maximisation_at_its_corners():
    certain_and_even = 1000 * torch.eye(4)
    one_class_for_all = torch.tensor([[1000.0, 0, 0, 0]]).repeat(4, 1)
    undecided = torch.zeros(4, 4)
    assert float(losses.information_maximisation(certain_and_even)) == pytest.approx(-math.log(4), abs=1e-6)
    assert float(losses.information_maximisation(one_class_for_all)) == pytest.approx(0, abs=1e-6)
    assert float(losses.information_maximisation(undecided)) == pytest.approx(0, abs=1e-6)


def test_information_maximisation_of_infinite_logits_is_a_number():
    logits = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], requires_grad=True)
    loss = losses.information_maximisation(logits)
    assert float(loss.detach()) == pytest.approx(-math.log(2))


def test_pseudo_label_loss_equals_scipy():
    logits, labels = random_logits(1), torch.arange(12) % 5
    expected = -log_softmax(logits.numpy(), axis=1)[np.arange(12), labels.numpy()].mean()
    assert float(losses.pseudo_label_loss(logits, labels)) == pytest.approx(expected)


@given(st.integers(0, 10_000), st.sampled_from(["mean", "paper"]))
def test_paired_alignment_knows_pairs(seed, form):
    """Permuting both halves alike changes nothing; breaking one pair raises the loss."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    near = features + 0.01 * torch.randn(8, 6, generator=generator, dtype=torch.float64)
    order = torch.randperm(8, generator=generator)
    loss = losses.paired_alignment(features, near, form)
    assert torch.isclose(loss, losses.paired_alignment(features[order], near[order], form))
    broken = near[[1, 0, 2, 3, 4, 5, 6, 7]]
    assert losses.paired_alignment(features, broken, form) > loss


def test_paired_alignment_forms():
    source, target = torch.zeros(4, 3, dtype=torch.float64), torch.full((4, 3), 2.0, dtype=torch.float64)
    assert float(losses.paired_alignment(source, target)) == pytest.approx(4)
    assert float(losses.paired_alignment(source, target, "paper")) == pytest.approx(math.sqrt(48))


def test_fault_11_mean_form_does_not_depend_on_the_batch():
    """The published norm grows with the root of the batch; the mean does not."""
    source, target = torch.zeros(2, 3), torch.ones(2, 3)
    twice = source.repeat(2, 1), target.repeat(2, 1)
    assert losses.paired_alignment(*twice) == losses.paired_alignment(source, target)
    ratio = losses.paired_alignment(*twice, "paper") / losses.paired_alignment(source, target, "paper")
    assert float(ratio) == pytest.approx(math.sqrt(2))


def test_alignment_sends_no_gradient_into_the_source():
    source, target = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    losses.paired_alignment(source, target).backward()
    assert source.grad is None
    assert target.grad is not None


def statistics(seed: int, layers: int = 3) -> tuple[list[torch.Tensor], ...]:
    generator = torch.Generator().manual_seed(seed)

    def draw(positive: bool) -> list[torch.Tensor]:
        found = [torch.randn(4 + layer, generator=generator, dtype=torch.float64) for layer in range(layers)]
        return [x.exp() if positive else x for x in found]

    return draw(False), draw(True), draw(False), draw(True)


def test_statistics_distance_in_the_published_form():
    means, variances, source_means, source_variances = statistics(0)
    by_hand = 0.0
    for layer, (mu, v, m, r) in enumerate(zip(means, variances, source_means, source_variances, strict=True)):
        distance = np.linalg.norm(mu.numpy() - m.numpy()) + np.linalg.norm(v.numpy() - r.numpy())
        by_hand += (10 if layer == 0 else 1) * distance
    found = losses.statistics_distance(means, variances, source_means, source_variances, form="paper")
    assert float(found) == pytest.approx(by_hand)


@given(st.integers(0, 1000))
def test_statistics_divergence_equals_torch_distributions(seed):
    means, variances, source_means, source_variances = statistics(seed)
    kl = torch.distributions.kl_divergence
    normal = torch.distributions.Normal
    by_torch = [
        kl(normal(mu, v.sqrt()), normal(m, r.sqrt())).mean()
        for mu, v, m, r in zip(means, variances, source_means, source_variances, strict=True)
    ]
    found = losses.statistics_distance(means, variances, source_means, source_variances)
    assert float(found) == pytest.approx(float(torch.stack(by_torch).mean()), rel=2e-3, abs=1e-4)
    assert float(found) >= 0


@pytest.mark.parametrize("form", ["kl", "paper"])
def test_statistics_distance_vanishes_on_equal_statistics(form):
    means, variances, _, _ = statistics(3)
    assert float(losses.statistics_distance(means, variances, means, variances, form)) == pytest.approx(0)


def test_gradients():
    logits = random_logits(2).requires_grad_()
    assert torch.autograd.gradcheck(losses.information_maximisation, logits)
    features = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    fixed = torch.randn(4, 3, dtype=torch.float64)
    for form in ("mean", "paper"):
        assert torch.autograd.gradcheck(
            lambda x, form=form: losses.paired_alignment(fixed, x, form), features
        )
    means, variances, source_means, source_variances = statistics(4, layers=1)
    inputs = (means[0].requires_grad_(), variances[0].requires_grad_())
    for form in ("kl", "paper"):
        assert torch.autograd.gradcheck(
            lambda mu, v, form=form: losses.statistics_distance(
                [mu], [v], source_means, source_variances, form
            ),
            inputs,
        )


def test_map_alignment_sees_places_that_the_average_hides():
    """A map whose places are shuffled has the same average, so only the map's own loss tells it apart."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(3, 5, 2, 2, generator=generator, dtype=torch.float64)
    shuffled = wanted.flip(2, 3)
    assert float(losses.paired_alignment(wanted.mean((2, 3)), shuffled.mean((2, 3)))) == pytest.approx(0)
    assert float(losses.map_alignment(wanted, shuffled)) > 0.5
    assert float(losses.map_alignment(wanted, wanted)) == 0
    constant = wanted.mean().expand_as(wanted)
    by_hand = ((constant - wanted) ** 2).mean() / np.var(wanted.numpy(), ddof=1)
    assert float(losses.map_alignment(wanted, constant)) == pytest.approx(float(by_hand))
    assert float(losses.map_alignment(7 * wanted, 7 * constant)) == pytest.approx(float(by_hand))
    moving = wanted.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: losses.map_alignment(constant + wanted, x), moving)
