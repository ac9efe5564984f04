"""The terms of a step: several sources, what L_BN compares; TENT, AdaBN and AaD from their equations."""

import copy
import dataclasses
import importlib

import numpy as np
import pytest
import torch
from beginnings import begun, other_source, pair_terms, target_terms
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from worlds import patterned, trained_source

from socketlab import adapt, features, losses
from socketlab.images import encodings
from socketlab.method import steps
from socketlab.method.adaptation import Epoch, Step
from socketlab.method.bnstats import Moments, reestimate_statistics
from socketlab.method.recipe import Recipe
from socketlab.networks import networks

adapting = importlib.import_module("socketlab.method.adaptation")
QUICK = Recipe(batch_size=8, align_epochs=1, epochs=1, lambda_bn=0.5, precision="float32")


@pytest.fixture(scope="module")
def target():
    return patterned(24, 1).only("depth")


@pytest.fixture(scope="module")
def pairs():
    return patterned(20, 2).unlabelled()


def last(events):
    *_, event = events
    return event.state


@pytest.mark.parametrize("method", ["shot", "socket"])
def test_two_identical_sources_are_one(method, target, pairs):
    """DECISION and SOCKET with the same network twice end where the single-source run ends.

    By shares, as published, each twin gets half the gradient of the mixed logits: it ends elsewhere.
    """
    recipe = {"shot": Recipe.shot().replace(epochs=2, batch_size=8), "socket": QUICK}[method]
    recipe = recipe.replace(precision="float32", trunk_lr=0.01, bottleneck_lr=0.01)
    one = last(adapt(trained_source(), target, pairs, recipe))
    two = last(adapt([trained_source(), trained_source()], target, pairs, recipe))
    by_shares = recipe.replace(source_gradient="share")
    half = last(adapt([trained_source(), trained_source()], target, pairs, by_shares))
    first, second = networks.networks_of(two.adapted.network)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    expected, _ = features.predict(one.adapted, target)
    found, _ = features.predict(two.adapted, target)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    start = features.predict(next(adapt(trained_source(), target, pairs, recipe)).state.adapted, target)[0]
    assert float((expected - start).abs().max()) > 0.02
    slower, _ = features.predict(half.adapted, target)
    assert float((expected - slower).abs().max()) > 0.02
    assert networks.mixing_weights(two.mixing.detach()).tolist() == [0.5, 0.5]


def test_a_mixture_of_one_network_twice_is_the_network(target):
    source = trained_source()
    mixture = networks.Mixture([copy.deepcopy(source.network), copy.deepcopy(source.network)]).eval()
    together, _ = features.predict(dataclasses.replace(source, network=mixture), patterned(6, 0).only("rgb"))
    alone, _ = features.predict(source, patterned(6, 0).only("rgb"))
    torch.testing.assert_close(together, alone)


def test_mixing_weights_are_shares_and_pull_toward_the_better_source(target, pairs):
    g = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64, requires_grad=True)
    w = 1 / (1 + np.exp(-g.detach().numpy()))
    np.testing.assert_allclose(networks.mixing_weights(g).detach().numpy(), w / w.sum())
    assert torch.autograd.gradcheck(networks.mixing_weights, g)
    recipe = QUICK.replace(epochs=3, mixing_lr=0.5)
    state = last(adapt([trained_source(), other_source()], target, pairs, recipe))
    shares = networks.mixing_weights(state.mixing.detach())
    assert shares[0] != shares[1]
    assert float(shares.sum()) == pytest.approx(1)


def test_unequal_shares_slow_no_network_down():
    """In a mixture each part learns from the sum's own gradient; its value and the shares' gradient stay."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in "abc"]
    shares = torch.tensor([0.7, 0.299, 0.001], dtype=torch.float64, requires_grad=True)
    seen = torch.randn(5, 3, generator=generator, dtype=torch.float64)

    def gradients(whole):
        together = networks.weighted_sum(parts, shares, whole)
        torch.testing.assert_close(together, sum(a * x for a, x in zip(shares, parts, strict=True)))
        return torch.autograd.grad((together * seen).sum(), [*parts, shares])

    *of_parts, of_shares = gradients(whole=True)
    for gradient in of_parts:
        torch.testing.assert_close(gradient, seen)
    *of_parts, expected = gradients(whole=False)
    for share, gradient in zip(shares, of_parts, strict=True):
        torch.testing.assert_close(gradient, share * seen)
    torch.testing.assert_close(of_shares, expected)


def test_while_aligning_each_network_of_several_does_what_it_does_alone(target, pairs):
    recipe = QUICK.replace(align_epochs=2, epochs=0, lambda_bn=0.0)
    sources = [trained_source(), other_source()]
    together = last(adapt(sources, target, pairs, recipe))
    for source, found in zip(sources, together.networks, strict=True):
        alone = last(adapt(source, target, pairs, recipe)).networks[0]
        for a, b in zip(found.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert networks.mixing_weights(together.mixing.detach()).tolist() == [0.5, 0.5]


@given(st.lists(st.floats(-2.0, 0.0), min_size=2, max_size=6))
def test_shares_begin_by_the_information_of_each_network(information):
    information = torch.tensor(information, dtype=torch.float64)
    g = networks.mixing_from(information)
    expected = softmax(-information.numpy() / networks.INFORMATION_TEMPERATURE)
    np.testing.assert_allclose(networks.mixing_weights(g).numpy(), expected, atol=1e-5)
    assert float(g.max()) == pytest.approx(1, abs=1e-6)  # where all begin otherwise


@pytest.mark.parametrize("method", ["shot", "socket"])
@pytest.mark.parametrize("start", ["information", "even"])
def test_shares_begin_when_predictions_of_the_target_begin_to_count(method, start, target, pairs):
    recipe = QUICK if method == "socket" else Recipe.shot().replace(epochs=1, batch_size=8)
    recipe = recipe.replace(precision="float32", mixing_start=start)
    sources = [trained_source(), other_source()]
    shares, state = [], None
    for event in adapt(sources, target, pairs, recipe):
        if isinstance(event, Step):
            shares.append(event.bn_shares)
        elif event.epoch == recipe.align_epochs:
            state = copy.deepcopy(event.state)
    first = len(shares) - len(target) // 8
    assert all(share.tolist() == [0.5, 0.5] for share in shares[:first])
    if start == "even":
        assert shares[first].tolist() == [0.5, 0.5]
        return
    predicted = [
        features.predict(dataclasses.replace(state.adapted, network=network), target)[0]
        for network in settled(state, target)
    ]
    information = [float(losses.information_maximisation(z)) for z in predicted]
    expected = softmax(-np.array(information) / networks.INFORMATION_TEMPERATURE)
    np.testing.assert_allclose(shares[first].numpy(), expected, atol=0.01)
    assert abs(expected[0] - expected[1]) > 0.1


def settled(state, target):
    """The networks of a state, with the statistics that they are asked with."""
    for network in state.networks:
        batches = features.encoded_batches(target, state.adapted.normalisation, adapting.REESTIMATION_BATCH)
        reestimate_statistics(network, batches)
        network.eval()
    return state.networks


@pytest.mark.parametrize("saved", [1, 2])
def test_two_sources_resume_exactly(saved, target, pairs, tmp_path):
    sources = [trained_source(), other_source()]
    recipe = QUICK.replace(epochs=2)
    uninterrupted = last(adapt(sources, target, pairs, recipe))
    for event in adapt(sources, target, pairs, recipe):
        if isinstance(event, Epoch) and event.epoch == saved:
            event.state.save(tmp_path / "state.safetensors")
            break
    state = adapting.State.load(tmp_path / "state.safetensors", sources)
    resumed = last(adapt(sources, target, pairs, recipe, state=state))
    a, b = uninterrupted.adapted.network.state_dict(), resumed.adapted.network.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(uninterrupted.mixing, resumed.mixing)


def test_events_may_be_fewer_and_the_end_is_the_same(target, pairs):
    recipe = QUICK.replace(align_epochs=2, epochs=2)
    every, seldom = (list(adapt(trained_source(), target, pairs, recipe, every=n)) for n in (1, 3))
    assert [e.epoch for e in seldom if isinstance(e, Epoch)] == [0, 3, 4]
    assert len([e for e in seldom if isinstance(e, Step)]) == len([e for e in every if isinstance(e, Step)])
    a, b = (events[-1].state.adapted.network.state_dict() for events in (every, seldom))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_permuting_the_pairs_changes_nothing_and_breaking_one_raises_the_loss():
    state, _, images = begun(trained_source())
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(8, generator=generator)
    with torch.no_grad():
        spatial, found = state.networks[0].map_and_features(images)
    close = [(spatial + 0.01, found + 0.01)]

    def loss(images, wanted):
        return float(pair_terms(state, images, wanted, QUICK)["TI"].detach())

    plain = loss(images, close)
    shuffled = [(close[0][0][order], close[0][1][order])]
    assert loss(images[order], shuffled) == pytest.approx(plain, rel=1e-4)
    swapped = [2, 1, 0, 3, 4, 5, 6, 7]  # scenes 0 and 2 are of different kinds
    assert loss(images, [(close[0][0][swapped], close[0][1][swapped])]) > 2 * plain


def test_layers_of_bn_matching():
    assert [list(steps.chosen_layers(5, which)) for which in ("all", "first", "early", "late")] == [
        [0, 1, 2, 3, 4],
        [0],
        [0, 1, 2],
        [3, 4],
    ]
    state, batch, images = begun(trained_source())

    def distance(**changes):
        recipe = QUICK.replace(lambda_im=0.0, lambda_pl=0.0, **changes)
        return float(target_terms(state, images, batch, recipe)["BN"].detach())

    count = len(batch.source_statistics[0])
    early, late = (distance(bn_layers=which) for which in ("early", "late"))
    half = (count + 1) // 2
    assert distance() == pytest.approx((half * early + (count - half) * late) / count, rel=1e-4)


def test_the_memory_of_bn_matching_is_a_moving_average_with_the_gradient_of_the_new_batch():
    seen = [torch.tensor([1.0]), torch.tensor([3.0], requires_grad=True)]
    averages: list = []
    (first,), (second,) = (steps._averaged([Moments(one, one)], 0, averages, 0.75) for one in seen)
    assert first.mean is seen[0]
    assert float(second.mean.detach()) == pytest.approx(0.75 * 1 + 0.25 * 3)
    second.mean.sum().backward()
    assert float(seen[1].grad) == pytest.approx(0.25)
    assert float(averages[0][0].mean) == pytest.approx(1.5) and not averages[0][0].mean.requires_grad


# -------------------------------------------------------------- other methods, from their papers' equations


def random_logits(seed, images=12, classes=5):
    return 2 * np.random.default_rng(seed).normal(size=(images, classes))


@pytest.mark.parametrize("seed", range(5))
def test_tent_is_the_mean_shannon_entropy(seed):
    logits = random_logits(seed)
    p = softmax(logits, axis=1)
    found = losses.mean_entropy(torch.tensor(logits))
    assert float(found) == pytest.approx(float(-(p * np.log(p)).sum(1).mean()), rel=1e-12)
    assert torch.autograd.gradcheck(losses.mean_entropy, torch.tensor(logits, requires_grad=True))


def test_tent_moves_scale_and_shift_of_batch_norm_alone_and_tests_by_the_batch(target):
    source = trained_source()
    state = last(adapt(source, target, None, Recipe.tent().replace(epochs=1, batch_size=8)))
    before = source.network.state_dict()
    names = {n for n, m in source.network.named_modules() if m in networks.norm_layers(source.network)}
    for name, value in state.adapted.network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if kind in ("weight", "bias") and layer in names:
            continue
        if "running" not in kind and kind != "num_batches_tracked":
            assert torch.equal(value, before[name]), name
    moved = state.adapted.network.state_dict()["trunk.1.weight"]
    assert not torch.equal(moved, before["trunk.1.weight"])
    assert state.adapted.test_statistics == "batch"


def test_batch_statistics_normalise_a_test_batch_by_itself(target):
    """One batch in float64: every norm layer's output has mean β and deviation γ, whatever it remembers."""
    source = trained_source()
    adapted = last(adapt(source, target, None, Recipe.for_method("batch"))).adapted
    before = copy.deepcopy(adapted.network.state_dict())
    _, found = features.predict(adapted, target)
    bottleneck = adapted.network.bottleneck[1]
    torch.testing.assert_close(found.mean(0), bottleneck.bias.detach(), rtol=1e-3, atol=1e-3)
    deviation = found.std(0, correction=0)
    kept = deviation > 0.1 * bottleneck.weight.detach().abs()  # a channel that died has none
    expected = bottleneck.weight.detach().abs()
    torch.testing.assert_close(deviation[kept], expected[kept], rtol=0.05, atol=0.02)
    assert all(torch.equal(before[n], v) for n, v in adapted.network.state_dict().items())
    again, _ = features.predict(adapted, target)
    assert torch.equal(again, features.predict(adapted, target)[0])


def test_adabn_replaces_mean_and_variance_by_the_targets_in_float64(target):
    """The first layer's statistics are those of all its inputs, computed by NumPy."""
    source = copy.deepcopy(trained_source())
    network = source.network.double()
    images = encodings.measure(target.images["depth"], "depth").encode(target.images["depth"]).double()
    inputs = []
    handle = network.trunk[1].register_forward_hook(lambda _m, given, _o: inputs.append(given[0].detach()))
    reestimate_statistics(network, [images])
    handle.remove()
    values = inputs[0].numpy()
    np.testing.assert_allclose(network.trunk[1].running_mean, values.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        network.trunk[1].running_var, values.var((0, 2, 3), ddof=1), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("seed", range(5))
def test_aad_is_its_equation_in_float64(seed):
    """L = 1/B Σ_i (−Σ_j p_i·p_j + λ Σ_m≠i p_i·p_m), in loops."""
    rng = np.random.default_rng(seed)
    logits, bank = random_logits(seed), softmax(random_logits(seed + 50, 12 * 3).reshape(12, 3, 5), axis=2)
    p, dispersion = softmax(logits, axis=1), float(rng.uniform(0, 2))
    by_hand = 0.0
    for i in range(12):
        attraction = sum(p[i] @ bank[i, j] for j in range(3))
        others = sum(p[i] @ p[m] for m in range(12) if m != i)
        by_hand += (dispersion * others - attraction) / 12
    found = losses.attract_and_disperse(torch.tensor(logits), torch.tensor(bank), dispersion)
    assert float(found) == pytest.approx(by_hand, rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda z: losses.attract_and_disperse(z, torch.tensor(bank), dispersion),
        torch.tensor(logits, requires_grad=True),
    )


def test_nearest_neighbours_are_scikit_learns_without_oneself():
    from sklearn.neighbors import NearestNeighbors

    vectors = np.random.default_rng(0).normal(size=(40, 6))
    found = losses.nearest_neighbours(torch.tensor(vectors[:10]), torch.tensor(vectors), torch.arange(10), 5)
    _, expected = NearestNeighbors(n_neighbors=6, metric="cosine").fit(vectors).kneighbors(vectors[:10])
    np.testing.assert_array_equal(found.numpy(), expected[:, 1:])
    few = losses.nearest_neighbours(torch.tensor(vectors[:2]), torch.tensor(vectors[:3]), torch.arange(2), 5)
    assert few.shape == (2, 2)


def test_aads_bank_is_renewed_by_each_batch():
    state, batch, images = begun(trained_source())
    batch.rows = torch.tensor([4, 5, 6, 7, 8, 9, 10, 11])
    batch.bank = (
        torch.randn(16, 128, generator=torch.Generator().manual_seed(0)),
        torch.full((16, 3), 1 / 3),
    )
    before = batch.bank[0].clone()
    recipe = Recipe.for_method("aad").replace(precision="float32")
    target_terms(state, images, batch, recipe)
    changed = (batch.bank[0] != before).any(dim=1)
    assert changed.tolist() == [False] * 4 + [True] * 8 + [False] * 4
    assert losses.dispersion_weight(0.0) == 1
    assert losses.dispersion_weight(1.0) == pytest.approx(1 / 11)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sixteen_bits_change_the_terms_by_little(precision):
    state, batch, images = begun(trained_source())
    recipe = QUICK.replace(precision=precision)
    exact = target_terms(state, images, batch, recipe)
    with steps.autocast(recipe, torch.device("cpu")):
        rounded = target_terms(state, images, batch, recipe)
    for name in exact:
        assert rounded[name].dtype is torch.float32
        torch.testing.assert_close(rounded[name], exact[name], rtol=0.05, atol=0.02)
