"""Rules that choose without labels: their values by hand, what they prefer, and that they move nothing."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from worlds import patterned, trained_source

from socketlab import LabError, adapt, losses
from socketlab.measures import model_selection
from socketlab.measures.model_selection import Evidence
from socketlab.method.adaptation import Epoch
from socketlab.method.recipe import Recipe


def evidence(logits, before=None, distance=0.0):
    return Evidence(torch.as_tensor(logits, dtype=torch.float64), before, distance)


def certain(classes, count=12, sure=20.0):
    return sure * np.eye(classes)[np.arange(count) % classes]


def test_information_prefers_sharp_and_even_predictions():
    best, vague = (
        model_selection.information(evidence(certain(4))),
        model_selection.information(evidence(certain(4, 12, 0))),
    )
    one_class = model_selection.information(evidence(certain(4)[[0] * 12]))
    assert best == pytest.approx(math.log(4), abs=1e-6)
    assert vague == pytest.approx(0, abs=1e-9)
    assert one_class == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_density_is_saitos_equation_in_loops(seed):
    logits = 2 * np.random.default_rng(seed).normal(size=(9, 4))
    p = softmax(logits, axis=1)
    p /= np.linalg.norm(p, axis=1, keepdims=True)
    by_hand = 0.0
    for i in range(9):
        q = softmax([p[i] @ p[j] / 0.05 for j in range(9) if j != i])
        by_hand -= (q * np.log(q)).sum() / 9
    assert model_selection.neighbourhood_density(evidence(logits)) == pytest.approx(by_hand, rel=1e-9)


def test_density_prefers_clusters_to_a_ring():
    """Twelve predictions in two clusters have more near neighbours than twelve that are all apart."""
    apart = np.log(np.eye(12) * 0.9 + 0.1 / 12)
    assert model_selection.neighbourhood_density(evidence(certain(2))) == pytest.approx(math.log(5), abs=1e-3)
    far = model_selection.neighbourhood_density(evidence(apart))
    assert far == pytest.approx(math.log(11), abs=1e-6)  # all equally far: the rule's known weakness


@pytest.mark.parametrize("rule", ["certainty", "nuclear_norm", "matrix_norm"])
def test_certain_predictions_have_the_highest_value(rule):
    judged = model_selection.RULES[rule]
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
    assert model_selection.nuclear_norm(evidence(logits)) == pytest.approx(nuclear, rel=1e-9)
    for z, is_sure in ((logits, False), (20 * logits, True)):
        assert (-np.log(softmax(z, axis=1)).mean() > 5) == is_sure
        run = np.exp(z) if is_sure else 1 + z + z**2 / 2
        wanted = ((run / run.sum(1, keepdims=True)) ** 4).mean() ** 0.25
        assert model_selection.matrix_norm(evidence(z)) == pytest.approx(wanted, rel=1e-9)


def test_agreement_counts_equal_classes():
    logits = torch.tensor(certain(3))
    other = logits.clone()
    other[:3] = logits[[1, 2, 0]]
    assert model_selection.agreement(evidence(logits, before=other)) == pytest.approx(0.75)
    assert model_selection.agreement(evidence(logits)) == 0


def test_clusters_are_those_of_the_features():
    rng = np.random.default_rng(0)
    kinds = np.arange(60) % 3
    features = torch.tensor(8 * np.eye(3)[kinds] + rng.normal(size=(60, 3)))
    right = Evidence(torch.tensor(certain(3, 60)), None, 0.0, features)
    shuffled = Evidence(torch.tensor(certain(3, 60)[rng.permutation(60)]), None, 0.0, features)
    one = Evidence(torch.tensor(certain(3)[[0] * 60]), None, 0.0, features)
    assert model_selection.class_clusters(right) == pytest.approx(1)
    assert model_selection.class_clusters(shuffled) < 0.1
    assert model_selection.class_clusters(one) == pytest.approx(0)
    assert model_selection.class_clusters(evidence(certain(3))) == pytest.approx(1), "logits without features"


def test_an_unknown_rule_is_refused():
    with pytest.raises(LabError, match="rule 'luck' is unknown: choose one of information"):
        model_selection.choose([evidence(certain(3))], "luck")


@pytest.mark.parametrize("count", [2, 3, 129, 257])
def test_any_number_of_images_can_be_gathered(count):
    """No batch is left with a single image, which batch norm could not normalise by."""
    source, target = trained_source(), patterned(count, 1).only("rgb")
    found = model_selection.gather(source, target, [source])
    assert found.logits.shape == (count, 3) and found.features.shape[0] == count
    assert math.isfinite(found.distance)
    with pytest.raises(LabError, match="1 target image is too few"):
        model_selection.gather(source, target.take([0]), [source])


def test_the_best_is_chosen_and_the_last_of_equals():
    candidates = [evidence(certain(3), distance=d) for d in (0.4, 0.1, 0.7, 0.1)]
    assert model_selection.choose(candidates, model_selection.bn_closeness) == 3
    assert model_selection.choose(candidates[:3], model_selection.bn_closeness) == 1


def test_gathering_moves_nothing_needs_no_label_and_measures_the_whole_target():
    source = trained_source()
    target = patterned(300, 1).only("depth")
    adapted = next(adapt(source, target, None, Recipe.for_method("adabn"))).state.adapted
    before, mode = copy.deepcopy(adapted.network.state_dict()), adapted.network.training
    found = model_selection.gather(adapted, target.unlabelled(), [source])
    assert all(torch.equal(before[name], value) for name, value in adapted.network.state_dict().items())
    assert adapted.network.training == mode
    # the first layer's input does not depend on batches: its statistics over all 300 images by hand
    images = adapted.normalisation.encode(target.images["depth"][..., 4:60, 4:60])
    with torch.no_grad():
        first = adapted.network.trunk[0](images)
    seen = model_selection._seen_statistics(adapted.network, adapted, target)[0]
    torch.testing.assert_close(seen.mean, first.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen.variance, first.var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-4)
    assert found.distance > 0
    assert found.logits.shape == (300, 3)


def test_the_source_on_its_own_images_is_close_to_its_own_statistics():
    source = trained_source()
    own = model_selection.gather(source, patterned(48, 0).only("rgb"), [source])
    shifted = copy.deepcopy(source)
    target = patterned(48, 0).only("depth")
    shifted = next(adapt(shifted, target, None, Recipe.for_method("source-only"))).state.adapted
    assert own.distance < model_selection.gather(shifted, target, [source]).distance


def test_every_epoch_of_a_run_can_be_judged():
    source, target, pairs = trained_source(), patterned(24, 1).only("depth"), patterned(16, 2).unlabelled()
    seen: list[Evidence] = []
    for event in adapt(source, target, pairs, Recipe(batch_size=8, align_epochs=1, epochs=1)):
        if isinstance(event, Epoch):
            before = seen[-1].logits if seen else None
            seen.append(model_selection.gather(event.state.adapted, target, [source], before))
    assert len(seen) == 3
    for rule in (*model_selection.RULES, *model_selection.RULES.values()):
        assert model_selection.choose(seen, rule) in range(3)
    assert losses.information_maximisation(seen[-1].logits) <= 0


# depth encodings


def test_the_encoding_with_the_lowest_partner_rank_is_taken(monkeypatch):
    """The rank of each candidate is given; labels are not there, and a tenth of the pairs is held out."""
    from socketlab import Recipe, load_source, rooms
    from socketlab.measures import model_selection

    ranks = {"metric": 0.2, "inverse": 0.1, "relative": 0.3}
    asked = []

    def rank(source, adapted, pairs):
        asked.append(len(pairs))
        return ranks[adapted.normalisation.depth_encoding]

    monkeypatch.setattr(model_selection, "partner_rank", rank)
    monkeypatch.setattr(model_selection, "STEPS", 1)
    target = rooms.load("target_adapt", "kinect_v1", ("depth",)).take(range(32))
    pairs = rooms.ti_pairs("kinect_v1", "near", count=60)
    source = load_source("rgb_kinect_v1")
    chosen = model_selection.choose_encoding(source, target, pairs, Recipe.socket(), candidates=tuple(ranks))
    assert chosen.encoding == "inverse" and chosen.ranks == ranks and chosen.held_out == 20
    assert asked == [20, 20, 20]
    assert "inverse 0.100, metric 0.200, relative 0.300" in chosen.reason


def test_an_encoding_needs_depth_and_some_pairs():
    from socketlab import LabError, Recipe, load_source, rooms
    from socketlab.measures.model_selection import choose_encoding

    source, pairs = load_source("rgb_kinect_v1"), rooms.ti_pairs("kinect_v1", "near", count=30)
    depth = rooms.load("target_adapt", "kinect_v1", ("depth",))
    with pytest.raises(LabError, match="30 pairs are too few"):
        choose_encoding(source, depth, pairs, Recipe.socket())
    with pytest.raises(LabError, match="nir images have no depth encoding"):
        choose_encoding(source, rooms.load("target_adapt", "kinect_v1", ("nir",)), pairs, Recipe.socket())


def test_partner_rank_by_hand(monkeypatch):
    """Three scenes on a line: the first is next to its partner, the others' partners are farthest away."""
    from types import SimpleNamespace

    from socketlab.measures import model_selection

    features = {"rgb": torch.tensor([[0.0], [10.0], [20.0]]), "depth": torch.tensor([[1.0], [21.0], [-1.0]])}
    monkeypatch.setattr(model_selection, "predict", lambda source, images: (None, features[images]))

    class Pairs(SimpleNamespace):
        def only(self, modality):
            return modality

        def __len__(self):
            return 3

    rank = model_selection.partner_rank(
        SimpleNamespace(modality="rgb"), SimpleNamespace(modality="depth"), Pairs()
    )
    assert rank == pytest.approx((0 + 1 / 2 + 2 / 2) / 3)
