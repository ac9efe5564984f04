"""The references of notebooks 04 to 07 agree with the library, and what their questions claim is so."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from socketlab import features, losses
from socketlab.course.checks import find, judge
from socketlab.course.exercises import adaptation, infrared, mixtures, own_data, questions
from socketlab.figures import report
from socketlab.files import verified
from socketlab.images import encodings
from socketlab.method import pseudolabels
from socketlab.networks import networks

SEEDS = range(5)


def stem(name: str) -> str:
    return Path(name).stem


def pairs_of_stems(rgb: list[str], depth: list[str]) -> tuple[tuple[tuple[str, str], ...], set[str]]:
    pairs = tuple((a, b) for a in sorted(rgb, key=stem) for b in depth if stem(a) == stem(b))
    return pairs, {*rgb, *depth} - {name for pair in pairs for name in pair}


def gradient_of_shares(g: Tensor, terms: Tensor) -> Tensor:
    g = g.clone().requires_grad_()
    return torch.autograd.grad((g.sigmoid() / g.sigmoid().sum()) @ terms, g)[0]


def mutual(logits: Tensor) -> Tensor:
    """Minus the mutual information of image and class."""
    log_p = logits.log_softmax(1)
    log_mean = torch.logsumexp(log_p, 0) - torch.tensor(float(len(logits))).log()
    return -(log_p.exp() * (log_p - log_mean)).sum(1).mean()


OTHERWISE: dict[str, Callable[..., Any]] = {
    "04-information": mutual,
    "04-centroids": lambda u, q: torch.einsum("xk,xe->ke", q / q.sum(0), u),
    "04-pseudo-labels": lambda u, centres, used: used.nonzero()[:, 0][
        F.cosine_similarity(u[:, None], centres[used], dim=-1).argmax(1)
    ],
    "04-gap-closed": lambda source, method, oracle: 1 - (oracle - method) / (oracle - source),
    "05-mixture": lambda logits, g: F.softmax(torch.tensordot(g.sigmoid(), logits, 1) / g.sigmoid().sum(), 1),
    "05-weight-gradient": gradient_of_shares,
    "06-normalise-channels": lambda images, target: (
        (images.double() - target.double().mean()) / target.double().std(correction=0)
    ).repeat(1, 3, 1, 1),
    "06-class-mean": lambda counts: float(
        np.nanmean(
            [float(row[k]) / float(row.sum()) if row.sum() else np.nan for k, row in enumerate(counts)]
        )
    ),
    "07-depth": lambda depth, mean, std: torch.where(depth == 0, 0, (depth / 8000 - mean) / std),
    "07-pairs": pairs_of_stems,
}
"""The same answers, written in other ways."""


@pytest.mark.parametrize("exercise_id", OTHERWISE)
def test_right_answers_of_another_form_are_accepted(exercise_id: str) -> None:
    verdict = judge(find(exercise_id), OTHERWISE[exercise_id])
    assert verdict.right, verdict


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def arguments(exercise_id: str) -> Iterator[tuple[Any, ...]]:
    for case in find(exercise_id).cases():
        yield case.arguments


# 04, adaptation


@pytest.mark.parametrize("seed", SEEDS)
def test_information_is_the_library_s(seed: int) -> None:
    logits = drawn(seed, 7, 5, scale=3)
    theirs = losses.information_maximisation(logits.requires_grad_())
    ours = adaptation.information(logits)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(*(torch.autograd.grad(x, logits) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_information_bears_certainty_without_nan() -> None:
    logits = (200 * torch.eye(4)[[0, 0, 1]]).requires_grad_()
    loss = adaptation.information(logits)
    loss.backward()
    torch.testing.assert_close(loss, losses.information_maximisation(logits))
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("seed", SEEDS)
def test_centroids_and_nearest_centres_make_the_pseudo_labels_of_shot(seed: int) -> None:
    f, logits = drawn(seed, 40, 6), drawn(seed + 100, 40, 5, scale=2)
    logits[:, 3] -= 20  # a class that nobody is predicted as
    u, q = pseudolabels.unit_vectors(f), logits.softmax(dim=1)
    torch.testing.assert_close(adaptation.soft_centroids(u, q), pseudolabels.centroids(u, q))
    used = logits.argmax(dim=1).bincount(minlength=5) > 0
    for rounds in (1, 2):
        labels = adaptation.nearest_centre(u, adaptation.soft_centroids(u, q).nan_to_num(), used)
        assert torch.equal(labels, pseudolabels.shot_pseudo_labels(f, logits, rounds))
        q = F.one_hot(labels, 5).float()


def test_no_class_of_the_centroids_exercise_is_empty() -> None:
    for _, q in arguments("04-centroids"):
        assert len(q.argmax(dim=1).unique()) == q.shape[1]


def test_the_gap_closed_is_the_report_s() -> None:
    for source, method, oracle in arguments("04-gap-closed"):
        shares = adaptation.gap_closed(source, method, oracle).tolist()
        theirs = [
            report.gap_closed(*three)
            for three in zip(source.tolist(), method.tolist(), oracle.tolist(), strict=True)
        ]
        assert shares == pytest.approx(theirs)


def test_the_minimum_of_information_maximisation_is_what_the_question_says() -> None:
    assert "−log K" in next(o.because for o in questions()["04-im-minimum"].options if o.right)
    sure = 50 * torch.eye(4)
    even, same, blank = (adaptation.information(z) for z in (sure, sure[[1] * 4], torch.zeros(4, 4)))
    torch.testing.assert_close(even, -torch.tensor(4.0).log())
    assert float(same) == pytest.approx(0, abs=1e-5) and float(blank) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(adaptation.information(sure.roll(1, dims=0)), even)  # all of them false


@pytest.mark.parametrize("seed", SEEDS)
def test_piles_that_exchange_their_names_cost_nothing(seed: int) -> None:
    f, logits = drawn(seed, 30, 6), drawn(seed + 10, 30, 4, scale=2)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    labels, renamed = (pseudolabels.shot_pseudo_labels(f, z) for z in (logits, logits[:, order]))
    assert torch.equal(order[renamed], labels)
    torch.testing.assert_close(
        losses.pseudo_label_loss(logits, labels), losses.pseudo_label_loss(logits[:, order], renamed)
    )
    torch.testing.assert_close(
        adaptation.information(logits), adaptation.information(logits[:, order]), atol=1e-6, rtol=1e-5
    )


# 05, mixtures


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_mixture_is_the_library_s(count: int) -> None:
    logits, g = drawn(count, count, 6, 3, scale=2), drawn(count + 10, count).requires_grad_()
    ours = mixtures.mixture(logits, g)
    theirs = networks.weighted_sum(list(logits), networks.mixing_weights(g)).softmax(dim=1)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_the_gradient_of_shares_is_autograd_s(count: int) -> None:
    g, terms = drawn(count, count).requires_grad_(), drawn(count + 10, count)
    wanted = torch.autograd.grad(networks.mixing_weights(g) @ terms, g)[0]
    found = mixtures.share_gradient(g.detach(), terms)
    torch.testing.assert_close(found, wanted)
    assert count > 1 or float(found) == 0 == float(wanted)


def test_information_maximisation_can_raise_the_share_of_a_certain_network_that_is_wrong() -> None:
    right = torch.arange(12) % 3
    hesitant, wrong = 1.0 * F.one_hot(right, 3), 8.0 * F.one_hot((right + 1) % 3, 3)
    g = torch.zeros(4, requires_grad=True)
    logits = [hesitant] * 3 + [wrong]
    losses.information_maximisation(networks.weighted_sum(logits, networks.mixing_weights(g))).backward()
    assert g.grad is not None and float(g.grad[3]) < 0 < float(g.grad[:3].min())


# 06, infrared


def test_near_infrared_is_encoded_as_the_kit_does() -> None:
    for images, target in arguments("06-normalise-channels"):
        theirs = encodings.measure(target, "nir").encode(images)
        torch.testing.assert_close(infrared.encode_nir(images, target), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_class_mean_accuracy_is_the_library_s(seed: int) -> None:
    counts = torch.randint(20, (5, 5), generator=torch.Generator().manual_seed(seed))
    counts[seed % 5] = 0
    for table in (counts, *(t for (t,) in arguments("06-class-mean"))):
        assert float(infrared.class_mean(table)) == pytest.approx(features.class_mean_accuracy(table))


def test_a_network_that_always_says_the_same_gets_one_in_k() -> None:
    table = torch.zeros(4, 4, dtype=torch.int64)
    table[:, 2] = torch.tensor([90, 5, 3, 2])
    assert float(infrared.class_mean(table)) == pytest.approx(1 / 4)


def test_equal_inputs_give_the_parts_of_a_filter_equal_gradients() -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3, bias=False)
    before = first.weight.detach().clone()
    optimiser = torch.optim.SGD(first.parameters(), lr=0.1, momentum=0.9)
    for seed in range(3):
        optimiser.zero_grad()
        first(drawn(seed, 2, 1, 8, 8).expand(-1, 3, -1, -1)).square().mean().backward()
        optimiser.step()
    moved = first.weight.detach() - before
    torch.testing.assert_close(moved[:, 0], moved[:, 1])
    torch.testing.assert_close(moved[:, 0], moved[:, 2])
    assert float(moved.abs().max()) > 0.01


# 07, own data


def test_depth_is_encoded_as_the_kit_does() -> None:
    for depth, mean, std in arguments("07-depth"):
        theirs = encodings.Normalisation("depth", (mean,) * 3, (std,) * 3).encode(depth)
        found = own_data.encode_depth(depth, mean, std)
        torch.testing.assert_close(found.expand(-1, 3, -1, -1), theirs)
    assert encodings.DEPTH_UNIT_MM == 8000  # as the task says


def test_holes_do_not_move_the_mean_of_valid_depth() -> None:
    depth = (1000 + 500 * drawn(0, 3, 1, 8, 8).abs()).to(torch.int32)
    holes = depth.clone()
    holes[:, :, 2:4] = 0
    kept = torch.cat([depth[:, :, :2], depth[:, :, 4:]], dim=2)
    measured = [encodings.measure(x.to(torch.uint16), "depth") for x in (holes, kept)]
    assert measured[0].mean == pytest.approx(measured[1].mean)


@pytest.mark.parametrize("seed", SEEDS)
def test_names_are_paired_as_the_kit_does(seed: int) -> None:
    source = random.Random(seed)
    stems = [f"room{number}" for number in range(1, 15)]
    sides = {
        modality: source.sample(stems, source.choice((12, 14))) if seed else source.sample(stems, 14)
        for modality in ("rgb", "depth")
    }
    rgb, depth = [f"{s}.jpg" for s in sides["rgb"]], [f"{s}.png" for s in sides["depth"]]
    pairs, orphans = own_data.pair_up(rgb, depth)
    names = sorted(set(sides["rgb"]) & set(sides["depth"]))
    assert [a.rpartition(".")[0] for a, _ in pairs] == [b.rpartition(".")[0] for _, b in pairs] == names
    assert sorted([*(name for pair in pairs for name in pair), *orphans]) == sorted([*rgb, *depth])


# what is said of the tables


def test_what_the_questions_say_of_the_tables_is_in_them() -> None:
    with verified("results/trust.csv").open() as file:
        closeness = {row["title"]: float(row["all"]) for row in csv.DictReader(file)}
    away = [value for title, value in closeness.items() if title.startswith("batch-norm layers")]
    assert len(away) == 1 and away[0] > 0  # the further from the source's memory, the better
    with verified("results/nir.csv").open() as file:
        table = {r["method"]: float(r["held_out"]) for r in csv.DictReader(file) if r["way"] == "rgb → nir"}
    closed = report.gap_closed(table["source-only"], table["adabn"], table["oracle"])
    assert closed is not None and 0.3 < closed < 0.9
