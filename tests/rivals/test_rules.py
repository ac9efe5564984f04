"""Rules of the literature beside the library's: their values by hand."""

import math

import numpy as np
import pytest
import torch
from rivals import rules
from scipy.special import softmax

from socketlab.measures.model_selection import Evidence


def evidence(logits):
    return Evidence(torch.as_tensor(logits, dtype=torch.float64), None, 0.0)


def certain(classes, count, sure):
    return sure * np.eye(classes)[np.arange(count) % classes]


@pytest.mark.parametrize("rule", ["certainty", "nuclear_norm", "matrix_norm"])
def test_certain_predictions_have_the_highest_value(rule):
    judged = rules.RULES[rule]
    sure, vague = (judged(evidence(certain(4, 12, by))) for by in (40, 0))
    assert {
        "certainty": (0, -math.log(4)), "nuclear_norm": (1, 0.25), "matrix_norm": (4**-0.25, 0.25)
    }[rule] == pytest.approx((sure, vague), abs=1e-9)  # fmt: skip
    one_class = judged(evidence(certain(4, 12, 40)[[0] * 12]))
    assert one_class == pytest.approx(0.5 if rule == "nuclear_norm" else sure, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_norms_are_those_of_the_papers_in_numpy(seed):
    """MaNo takes softmax where predictions are far from even, and its Taylor form of second order else."""
    logits = np.random.default_rng(seed).normal(size=(9, 4))
    p = softmax(logits, axis=1)
    nuclear = np.linalg.svd(p, compute_uv=False).sum() / math.sqrt(9 * 4)
    assert rules.nuclear_norm(evidence(logits)) == pytest.approx(nuclear, rel=1e-9)
    for z, is_sure in ((logits, False), (20 * logits, True)):
        assert (-np.log(softmax(z, axis=1)).mean() > 5) == is_sure
        run = np.exp(z) if is_sure else 1 + z + z**2 / 2
        wanted = ((run / run.sum(1, keepdims=True)) ** 4).mean() ** 0.25
        assert rules.matrix_norm(evidence(z)) == pytest.approx(wanted, rel=1e-9)
