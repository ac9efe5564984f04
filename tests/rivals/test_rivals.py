"""Rivals with pairs, labels, streams and distillation: losses against their papers' equations in float64."""

import csv
import math
from types import SimpleNamespace

import experiments
import other_methods
import pytest
import rival_weights
import torch
from rivals import distillation, pair_losses, supervised, test_time, training, translation
from torch import nn

from socketlab import LabError, Recipe, adapt, features, load_source, rooms
from socketlab.files import data_folder
from socketlab.images import encodings
from socketlab.measures import model_selection
from socketlab.networks.networks import Mixture, small_network

HEAD = SimpleNamespace(head=nn.Identity())


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(autouse=True)
def double(monkeypatch):
    """Losses go to float32 for autocast's sake; here they stay in float64."""
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)


# losses


def test_distillation_is_the_divergence_of_softened_predictions():
    z_s, z_t, t = rows([1.0, 0.0, -1.0], [0.5, 2.0, 0.0]), rows([0.0, 1.0, 0.0], [2.0, 0.0, 1.0]), 2.0
    by_hand = 0.0
    for a, b in zip((z_s / t).tolist(), (z_t / t).tolist(), strict=True):
        p = [math.exp(x) / sum(map(math.exp, a)) for x in a]
        q = [math.exp(x) / sum(map(math.exp, b)) for x in b]
        by_hand += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)) / 2
    found = pair_losses.distillation(HEAD, (None, z_s), (None, z_t), temperature=t)
    assert float(found) == pytest.approx(t * t * by_hand, rel=1e-12)
    assert float(pair_losses.distillation(HEAD, (None, z_s), (None, z_s))) == pytest.approx(0, abs=1e-12)


def test_contrast_is_cross_entropy_over_the_scenes_of_a_batch():
    f_s, f_t, tau = rows([1.0, 0.0], [0.0, 1.0]), rows([3.0, 3.0], [0.0, 2.0]), 0.5
    c = math.cos(math.pi / 4)
    by_hand = (math.log(2) + math.log(1 + math.exp((0 - 1) / tau))) / 2
    assert float(pair_losses.contrast(HEAD, (None, f_s), (None, f_t), temperature=tau)) == pytest.approx(
        by_hand, rel=1e-12
    )
    assert c == pytest.approx(0.7071, abs=1e-4)  # both cosines of the first row: so log 2
    alike = f_s[:1].repeat(4, 1)
    assert float(pair_losses.contrast(HEAD, (None, alike), (None, alike))) == pytest.approx(math.log(4))


def test_coral_compares_covariances_and_means():
    f_s, f_t = rows([0.0, 0.0], [2.0, 0.0]), rows([1.0, 0.0], [1.0, 4.0])
    # covariances diag(2, 0) and diag(0, 8), over D² = 4; means (1, 0) and (1, 2), over D = 2
    assert float(pair_losses.unpaired_coral(HEAD, (None, f_s), (None, f_t))) == pytest.approx(
        (4 + 64) / 4 + 4 / 2
    )


@pytest.mark.parametrize("name", ["unpaired CORAL", "unpaired MMD"])
def test_unpaired_losses_do_not_see_who_is_whose_partner(name):
    loss, _ = pair_losses.PAIR_LOSSES[name]
    f_s, f_t = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = (float(loss(HEAD, (None, f_s), (None, f))) for f in (f_t, f_t.flip(0)))
    assert one == pytest.approx(other, rel=1e-9)
    assert float(loss(HEAD, (None, f_s), (None, f_s))) == pytest.approx(0, abs=1e-9)


def test_mmd_by_hand_of_two_points():
    """One point a set, at distance 2 (squared 4); the mean squared distance of the 2 × 2 table is 2."""
    found = float(pair_losses.unpaired_mmd(HEAD, (None, rows([0.0])), (None, rows([2.0]))))
    by_hand = sum(2 - 2 * math.exp(-4 / (2 * f)) for f in (0.25, 0.5, 1, 2, 4))
    assert found == pytest.approx(by_hand, rel=1e-9)


def test_the_source_gets_no_gradient():
    for loss, _ in pair_losses.PAIR_LOSSES.values():
        f_s = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        f_t = torch.randn(8, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
        loss(HEAD, (None, f_s), (None, f_t)).backward()
        assert f_s.grad is None and f_t.grad.abs().max() > 0


# labels, translator, stream, distillation


@pytest.fixture(scope="module")
def source():
    return load_source("rgb_kinect_v1")


@pytest.fixture(scope="module")
def depth():
    return rooms.load("target_adapt", "kinect_v1", ("depth",))


@pytest.fixture(scope="module")
def test_rooms():
    return rooms.load("target_test", "kinect_v1", ("depth",))


def test_labels_are_drawn_evenly_and_refused_where_there_are_too_few(depth):
    few = supervised.labelled_subset(depth, 3, seed=1)
    assert torch.bincount(few.labels).tolist() == [3] * 8
    assert few.names != supervised.labelled_subset(depth, 3, seed=2).names
    with pytest.raises(LabError, match="1000 labelled images"):
        supervised.labelled_subset(depth, 1000)


def test_a_few_labels_help(source, depth, test_rooms):
    few = supervised.labelled_subset(depth, 10)
    before = source.network.state_dict()["head.bias"].clone()
    tuned = supervised.fine_tune(source, few, depth, steps=40)
    assert tuned.modality == "depth"
    assert features.accuracy(tuned, test_rooms) > 0.4  # 0.25 with none
    assert torch.equal(source.network.state_dict()["head.bias"], before)


def test_rows_without_end_cover_every_image():
    batches = training.endless_batches(5, 4, torch.Generator().manual_seed(0))
    drawn = torch.cat([next(batches) for _ in range(5)])
    assert torch.bincount(drawn).tolist() == [4] * 5


def test_a_translation_is_judged_by_its_pixels_and_its_features():
    made, wanted = rows([0.0, 2.0], [1.0, 1.0]), rows([1.0, 0.0], [1.0, 4.0])
    found, features = rows([3.0], [0.0]), rows([1.0], [1.0])
    by_hand = (1 + 2 + 0 + 3) / 4 + 0.3 * (4 + 1) / 2
    assert float(translation.translation_loss(made, wanted, found, features, 0.3)) == pytest.approx(by_hand)


def test_a_translator_makes_depth_readable(source, depth, test_rooms):
    pairs = rooms.ti_pairs("kinect_v1", "near", count=16)
    found = translation.translate(source, depth, pairs, steps=3)
    assert found.modality == "depth"
    assert features.predict(found, test_rooms.take(range(8)))[0].shape == (8, 8)
    frozen = dict(source.network.trunk.named_parameters())
    kept = dict(found.network.trunk.trunk.named_parameters())
    assert all(torch.equal(frozen[name], kept[name]) for name in frozen)


@pytest.mark.parametrize("method", test_time.METHODS)
def test_a_stream_is_answered_batch_by_batch(source, depth, method):
    normalisation = encodings.measure(depth.images["depth"], "depth")
    batches = [depth.take(range(i, i + 4)) for i in (0, 4)]
    answers = list(test_time.answer_stream(source, batches, method, normalisation))
    assert [tuple(a.shape) for a in answers] == [(4, 8), (4, 8)]
    assert all(a.isfinite().all() for a in answers)


def test_what_a_stream_remembers(source, depth):
    """Reset and batch forget: the same batch gets the same answer again. TENT and following ones do not."""
    normalisation = encodings.measure(depth.images["depth"], "depth")
    batch = depth.take(range(8))
    same = {}
    for method in test_time.METHODS:
        first, second = test_time.answer_stream(source, [batch, batch], method, normalisation)
        same[method] = torch.equal(first, second)
    assert same == {
        "source": True, "batch": True, "follow": False, "tent": False, "reset": True, "match": False
    }  # fmt: skip


def test_one_image_at_a_time(source, depth):
    normalisation = encodings.measure(depth.images["depth"], "depth")
    batches = [depth.take([i]) for i in range(3)]
    for method in test_time.METHODS:
        assert all(
            a.isfinite().all() for a in test_time.answer_stream(source, batches, method, normalisation)
        )


def test_an_unknown_method_and_a_network_without_batch_norm(source, depth):
    normalisation = encodings.measure(depth.images["depth"], "depth")
    with pytest.raises(LabError, match="unknown method 'x'"):
        next(test_time.answer_stream(source, [depth], "x", normalisation))


def test_weights_are_those_that_held_out_pairs_chose():
    with open(data_folder() / "results" / "rival_weights.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    chosen = {line["method"]: float(line["weight"]) for line in lines if line["chosen"]}
    for line in lines:  # the lowest mean rank of a method, and no other
        best = min(float(x["mean_rank"]) for x in lines if x["method"] == line["method"])
        assert (float(line["mean_rank"]) == best) == bool(line["chosen"])
    used = {name: weight for name, (_, weight) in pair_losses.PAIR_LOSSES.items()}
    used["translator"] = translation.FEATURES
    for row in experiments.rivals(range(1)):
        method, recipe = dict(row.about)["method"], row.job.recipe
        if method == "features alone":
            used[method] = recipe.lambda_ti
        if method == "pairs and AaD":
            used[method] = recipe.lambda_aad
        if method in pair_losses.PAIR_LOSSES:
            assert row.job.baseline == f"{method}:{used[method]:g}"
    assert used == chosen


def test_a_weight_is_judged_by_pairs_that_it_has_not_seen(monkeypatch):
    """Four fifths learn, the last fifth judges; here no step is taken, and the judge sees the other pairs."""
    seen = {}

    def adapted_by(job, sources, target, pairs):
        seen["learned"] = set(pairs.names)
        return sources[0]

    def partner_rank(source, adapted, pairs):
        seen["judged"] = set(pairs.names)
        return 0.25

    monkeypatch.setattr(other_methods, "adapted_by", adapted_by)
    monkeypatch.setattr(model_selection, "partner_rank", partner_rank)
    line = rival_weights.judged("contrast", 0.3, "kinect_v1", "near", "cpu")
    assert (len(seen["learned"]), len(seen["judged"])) == (400, 100)
    assert not seen["learned"] & seen["judged"]
    assert line["rank"] == 0.25
    assert rival_weights.job_of("contrast", 0.3, "kinect_v1", "near").baseline == "contrast:0.3"
    assert rival_weights.job_of("pairs and AaD", 0.3, "xtion", "far").recipe.lambda_aad == 0.3


def test_untidy_targets(depth):
    """Even, fewer, uneven from 10 : 1, one class missing, strangers: counted."""
    made = {
        how: other_methods.untidy(depth, how, "kinect_v1", "depth", 0)
        for how in ("even", "fewer", "uneven", "missing", "strangers")
    }
    counts = {how: torch.bincount(made[how].labels, minlength=8).tolist() for how in list(made)[:4]}
    assert counts["even"] == [60] * 8
    assert counts["fewer"] == [33] * 8
    assert sorted(counts["uneven"]) == [6, 14, 21, 29, 37, 45, 52, 60]
    assert sorted(counts["missing"]) == [0] + [60] * 7
    assert sum(kind not in depth.classes for kind in made["strangers"].kinds) == 120
    assert len(made["fewer"]) == len(made["uneven"]) == 264


def test_signs_of_an_untidy_target(monkeypatch, depth):
    """Half the sum of distances from even shares; uncertainty is 1 − max p; strangers are told by it."""
    some = other_methods.untidy(depth, "strangers", "kinect_v1", "depth", 0)
    some = some.take([*range(6), *range(len(some) - 2, len(some))])
    certain = torch.full((8, 8), -20.0)
    certain[:, 0] = 20.0
    certain[6:] = 0.0  # the two strangers
    monkeypatch.setattr(features, "predict", lambda adapted, images: (certain, None))
    found = other_methods.signs(None, some)
    assert float(found["unevenness"]) == 1 - 1 / 8  # argmax of equal logits is class 0, too
    assert float(found["uncertainty"]) == pytest.approx(2 / 8 * 7 / 8, abs=1e-4)
    assert float(found["stranger_auroc"]) == 1
    assert float(found["true_unevenness"]) == 0.25  # six classes have a sixth each, two have none: 2 · 1/8
    monkeypatch.setattr(features, "predict", lambda adapted, images: (certain[:6], None))
    assert other_methods.signs(None, some.take(range(6)))["stranger_auroc"] == ""


def test_a_mixture_becomes_one_network(source, depth, test_rooms):
    networks = [small_network(8, seed=0), load_source("rgb_xtion").network]
    mixture = Mixture(networks)
    with torch.no_grad():
        mixture.mixing.copy_(torch.tensor([-2.0, 2.0]))
    normalisation = encodings.measure(depth.images["depth"], "depth")
    both = type(source)(mixture, source.classes, normalisation)
    one = distillation.distilled(both, depth, steps=10)
    assert not isinstance(one.network, Mixture)
    assert features.predict(one, test_rooms)[0].shape == (len(test_rooms), 8)
    assert distillation.distilled(source, depth) is source


def test_another_pair_loss_takes_the_place_of_alignment(source, depth):
    pairs = rooms.ti_pairs("kinect_v1", "near", count=32)
    recipe = Recipe.socket().replace(align_epochs=1, epochs=0)
    first = {}
    for name, loss in (("socket", None), ("contrast", pair_losses.contrast)):
        more = {} if loss is None else {"pair_loss": loss}
        events = adapt(source, depth.take(range(64)), pairs, recipe, seed=0, **more)
        first[name] = next(event.losses["TI"] for event in events if hasattr(event, "losses"))
    assert first["contrast"] == pytest.approx(math.log(32), rel=0.2) != first["socket"]
