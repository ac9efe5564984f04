"""Pseudo-labels against a NumPy version written from SHOT's equations."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import softmax

from socketlab.method import pseudolabels


def by_hand(features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """SHOT: soft centroids, labels by cosine, hard centroids, labels again; dead classes dropped."""
    u = np.hstack([features, np.ones((len(features), 1))])
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    alive = np.unique(logits.argmax(1))
    weights = softmax(logits, axis=1)
    for _ in range(2):
        centroids = weights.T @ u / (1e-8 + weights.sum(0)[:, None])
        labels = alive[cdist(u, centroids[alive], "cosine").argmin(1)]
        weights = np.eye(logits.shape[1])[labels]
    return labels


def random_case(seed: int, images: int = 40, classes: int = 6):
    rng = np.random.default_rng(seed)
    middles = 2 * rng.normal(size=(classes, 5))
    truth = rng.integers(classes - 1, size=images)  # the last class is often empty
    features = middles[truth] + rng.normal(size=(images, 5))
    logits = 3 * np.eye(classes)[truth] + rng.normal(size=(images, classes))
    return features, logits


@given(st.integers(0, 10_000))
def test_shot_labels_equal_numpy(seed):
    features, logits = random_case(seed)
    found = pseudolabels.shot_pseudo_labels(torch.tensor(features), torch.tensor(logits))
    alive = np.unique(logits.argmax(1))
    assert set(found.tolist()) <= set(alive.tolist())
    if len(np.unique(by_hand(features, logits))) == len(alive):  # a class emptied in round one has no cosine
        np.testing.assert_array_equal(found.numpy(), by_hand(features, logits))


@given(st.integers(0, 10_000))
def test_published_form_equals_numpy(seed):
    features, logits = random_case(seed)
    u = np.hstack([features, np.ones((len(features), 1))])
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    q = softmax(logits, axis=1)
    expected = cdist(u, q.T @ u / q.sum(0)[:, None]).argmin(1)
    one = torch.ones(1, dtype=torch.float64)
    found = pseudolabels.paper_pseudo_labels([torch.tensor(features)], [torch.tensor(logits)], one)
    np.testing.assert_array_equal(found.numpy(), expected)


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_several_sources_vote_with_their_shares_as_in_numpy(seed, share):
    """Cosines to each source's own centroids, mixed by a; two rounds; the loops are NumPy's."""
    (first, first_logits), (second, second_logits) = random_case(seed), random_case(seed + 1)
    a = np.array([share, 1 - share])
    mixed = a[0] * first_logits + a[1] * second_logits
    alive = np.unique(mixed.argmax(1))
    vectors, weights = [], []
    for features, logits in ((first, first_logits), (second, second_logits)):
        u = np.hstack([features, np.ones((len(features), 1))])
        vectors.append(u / np.linalg.norm(u, axis=1, keepdims=True))
        weights.append(softmax(logits, axis=1))
    for _ in range(2):
        votes = sum(
            a[k] * (1 - cdist(u, (w.T @ u / (1e-8 + w.sum(0)[:, None]))[alive], "cosine"))
            for k, (u, w) in enumerate(zip(vectors, weights, strict=True))
        )
        labels = alive[votes.argmax(1)]
        weights = [np.eye(mixed.shape[1])[labels]] * 2
        emptied = len(np.unique(labels)) < len(alive)
        if emptied:  # its centroid has no direction
            return
    found = pseudolabels.mixed_shot_pseudo_labels(
        [torch.tensor(first), torch.tensor(second)],
        [torch.tensor(first_logits), torch.tensor(second_logits)],
        torch.tensor(a),
    )
    np.testing.assert_array_equal(found.numpy(), labels)


def test_a_dead_class_is_never_assigned():
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    logits = torch.zeros(20, 3)
    logits[:10, 0], logits[10:, 1] = 5, 5
    logits[:, 2] = 4  # likely for all, first for none
    assert 2 not in pseudolabels.shot_pseudo_labels(features, logits)
