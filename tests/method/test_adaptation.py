"""The stream of events: what it may see, what it changes, how it stops and resumes."""

import copy
import dataclasses
import itertools

import pytest
import torch
from torch import nn
from worlds import CLASSES, patterned, trained_source

from socketlab import adapt, features
from socketlab.errors import LabError
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import endless_rows
from socketlab.method import steps
from socketlab.method.adaptation import Epoch, State, Step, learning_rate_factor
from socketlab.method.pair_features import PairFeatures
from socketlab.method.recipe import METHODS, Recipe
from socketlab.networks.checkpoints import Source
from socketlab.networks.custom_networks import adapted
from socketlab.networks.networks import norm_layers

QUICK = Recipe(batch_size=8, align_epochs=2, epochs=2, lambda_bn=0.5)
SHARED = QUICK.replace(pair_statistics="shared", precision="float32")


@pytest.fixture
def source():
    return trained_source()


@pytest.fixture(scope="module")
def target():
    return patterned(24, 1).only("depth")


@pytest.fixture(scope="module")
def pairs():
    return patterned(20, 2).unlabelled()


def weights(state: State) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.adapted.network.state_dict().items()}


def last_weights(events) -> dict[str, torch.Tensor]:
    state = None
    for event in events:
        if isinstance(event, Epoch):
            state = event.state
    return weights(state)


def same(a, b) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_events_count_and_end(source, target, pairs):
    events = list(adapt(source, target, pairs, QUICK))
    steps = [event for event in events if isinstance(event, Step)]
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [event.epoch for event in epochs] == [0, 1, 2, 3, 4]
    assert [event.step for event in steps] == list(range(1, 13))
    assert {event.steps for event in steps} == {12}
    assert epochs[-1].state.finished
    assert set(steps[0].losses) == {"TI"}
    assert set(steps[-1].losses) == {"TI", "BN", "IM", "PL"}


def test_pairs_teach_what_no_statistic_can(source, target):
    """Depth shows the stripes turned: without pairs bars are taken for columns, with them they are told."""
    many = patterned(48, 3).unlabelled()
    recipe = QUICK.replace(align_epochs=10, epochs=2, lambda_bn=0.0)
    *_, last = adapt(source, target, many, recipe)
    assert features.accuracy(last.state.adapted, target) > 0.9
    *_, without = adapt(source, target, None, Recipe.shot().replace(batch_size=8, epochs=4))
    assert features.accuracy(without.state.adapted, target) < 0.5


def test_the_source_is_not_changed(source, target, pairs):
    before = copy.deepcopy(source.network.state_dict())
    list(adapt(source, target, pairs, QUICK))
    assert same(before, source.network.state_dict())
    assert not source.network.training


def test_no_label_of_the_target_can_matter(source, target, pairs):
    """Shuffled, absent and misnamed labels give the same weights to the bit."""
    shuffled = dataclasses.replace(target, kinds=tuple(reversed(target.kinds)))
    expected = last_weights(adapt(source, target, pairs, QUICK))
    assert same(expected, last_weights(adapt(source, shuffled, pairs, QUICK)))
    assert same(expected, last_weights(adapt(source, target.unlabelled(), pairs, QUICK)))


def test_same_seed_same_numbers_and_another_seed_others(source, target, pairs):
    state_before = torch.get_rng_state()
    first = last_weights(adapt(source, target, pairs, QUICK, seed=3))
    assert same(first, last_weights(adapt(source, target, pairs, QUICK, seed=3)))
    assert not same(first, last_weights(adapt(source, target, pairs, QUICK, seed=4)))
    assert torch.equal(state_before, torch.get_rng_state())


@pytest.mark.parametrize("recipe", [QUICK, SHARED], ids=["own", "shared"])
@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_resume_ends_where_an_uninterrupted_run_ends(source, target, pairs, tmp_path, stop_after, recipe):
    uninterrupted = last_weights(adapt(source, target, pairs, recipe, seed=1))
    for event in adapt(source, target, pairs, recipe, seed=1):
        if isinstance(event, Epoch):
            event.state.save(tmp_path / "state.safetensors")
            if event.epoch == stop_after:
                break
    state = State.load(tmp_path / "state.safetensors", source)
    assert state.epoch == stop_after
    resumed = last_weights(adapt(source, target, pairs, recipe, seed=1, state=state))
    assert same(uninterrupted, resumed)


def test_fault_8_a_saved_state_is_a_copy_not_the_live_weights(source, target, pairs, tmp_path):
    events = adapt(source, target, pairs, QUICK)
    first = next(events)
    first.state.save(tmp_path / "state.safetensors")
    start = weights(first.state)
    list(events)
    assert same(start, weights(State.load(tmp_path / "state.safetensors", source)))
    assert not same(start, weights(first.state))  # the live view has moved on


def test_fault_5_every_pass_covers_all_pairs_before_the_next():
    drawn = torch.cat([endless_rows(20, 8, draw, seed=0) for draw in range(10)])
    for start in range(0, 80, 20):
        assert sorted(drawn[start : start + 20].tolist()) == list(range(20))
    assert drawn[:20].tolist() != drawn[20:40].tolist()


@pytest.mark.parametrize("count", [20, 4])
def test_shared_statistics_are_those_of_target_and_pairs_in_training_and_test(source, target, pairs, count):
    """One pass over 8 target images and as many pairs as a batch has; what is tested with is their mean."""
    pairs, seen = pairs.take(range(count)), []
    events = adapt(source, target, pairs, SHARED, seed=1)
    network = next(events).state.networks[0]
    first = norm_layers(network.trunk)[0]
    begun = copy.deepcopy(network).train()
    first.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach().clone()))
    whole = []
    with_map = network.trunk.with_map
    network.trunk.with_map = lambda x: whole.append(x.detach().clone()) or with_map(x)
    step = next(events)
    beside = min(8, count)
    assert [len(images) for images in whole] == [8 + beside]
    wanted = PairFeatures([source], pairs, SHARED, 1).batch_of(0, "depth")[1]
    spatial, features_ = begun.trunk.with_map(whole[0])
    made = spatial[8:], begun.bottleneck(features_)[8:]
    expected = steps.alignment_loss(begun, wanted[0], made, SHARED)
    assert step.losses["TI"] == pytest.approx(float(expected.detach()), rel=1e-5)
    for event in events:
        if isinstance(event, Step):
            seen.clear()  # what follows the last step are the passes for the test's statistics
    assert [len(x) for x in seen] == [8 + beside] * 3
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    torch.testing.assert_close(first.running_mean, mean, rtol=1e-4, atol=1e-5)


def test_shared_statistics_need_pairs_to_make_a_difference(source, target, pairs):
    shot = Recipe.shot().replace(epochs=1, batch_size=8)
    alone, shared = (
        last_weights(adapt(source, target, None, shot.replace(pair_statistics=which)))
        for which in ("own", "shared")
    )
    assert same(alone, shared)
    assert not same(*(
        last_weights(adapt(source, target, pairs, QUICK.replace(pair_statistics=which)))
        for which in ("own", "shared")
    ))  # fmt: skip


def test_the_weight_of_shared_pairs_may_fall_to_zero_and_rise_again(source, target, pairs):
    """λ_TI as a slider moves it, and two sources that normalise by running statistics."""
    weights_of_pairs = itertools.cycle([3.0, 0.0, 0.0, 1.0])
    recipe = SHARED.replace(bn_mode="running", align_epochs=1, trunk_lr=0.005, bottleneck_lr=0.005)
    sources = [source, copy.deepcopy(source)]

    def moving() -> Recipe:
        return recipe.replace(lambda_ti=next(weights_of_pairs))

    found = [event for event in adapt(sources, target, pairs, moving) if isinstance(event, Step)]
    assert len(found) == 9
    assert {"TI" in event.terms for event in found} == {True, False}
    assert all(torch.isfinite(term) for event in found for term in event.terms.values())


@pytest.mark.parametrize("removed", ["lambda_pl", "lambda_im", "lambda_bn", "lambda_ti"])
def test_fault_10_an_ablation_changes_only_its_own_term(source, target, pairs, removed):
    """Without one term the network trains as before: train mode, other terms still there, weights move."""
    name = {"lambda_pl": "PL", "lambda_im": "IM", "lambda_bn": "BN", "lambda_ti": "TI"}[removed]
    recipe = QUICK.replace(**{removed: 0.0}, align_epochs=0)
    events = adapt(source, target, pairs, recipe)
    start = weights(next(events).state)
    steps = []
    for event in events:
        if isinstance(event, Step):
            steps.append(event)
        else:
            state = event.state
    assert {tuple(sorted(step.losses)) for step in steps} == {
        tuple(sorted({"PL", "IM", "BN", "TI"} - {name}))
    }
    moved = [n for n, value in weights(state).items() if not torch.equal(value, start[n])]
    assert any(n.startswith("trunk") for n in moved)
    assert not any(n.startswith("head") for n in moved)


@pytest.mark.parametrize("lambda_pl", [0.0, 0.3])
def test_fault_10_target_batches_are_normalised_by_themselves_whatever_the_terms(source, target, lambda_pl):
    """The published code stays in eval mode with λ_PL = 0; running statistics show who was in train mode."""
    recipe = Recipe.shot().replace(lambda_pl=lambda_pl, epochs=1, batch_size=8, test_statistics="running")
    events = adapt(source, target, None, recipe)
    start = weights(next(events).state)["trunk.1.running_mean"]
    *_, last = events
    assert not torch.equal(start, weights(last.state)["trunk.1.running_mean"])


def test_fault_9_running_statistics_are_the_targets_alone(source, target, pairs):
    """Whatever the pairs show, the statistics of the first layer come from the target."""
    recipe = QUICK.replace(
        trunk_lr=1e-5, bottleneck_lr=1e-5, test_statistics="running", align_epochs=1, epochs=0
    )
    odd = dataclasses.replace(pairs, images={**pairs.images, "depth": patterned(20, 9).images["depth"]})
    with_pairs = last_weights(adapt(source, target, pairs, recipe))
    with_odd_pairs = last_weights(adapt(source, target, odd, recipe))
    torch.testing.assert_close(
        with_pairs["trunk.1.running_mean"], with_odd_pairs["trunk.1.running_mean"], rtol=1e-3, atol=1e-4
    )


def test_methods_that_learn_nothing(source, target):
    only = list(adapt(source, target, None, Recipe.for_method("source-only")))
    assert [event.epoch for event in only] == [0]
    assert same(dict(source.network.state_dict()), weights(only[0].state))
    re_estimated = list(adapt(source, target, None, Recipe.for_method("adabn")))
    found = weights(re_estimated[0].state)
    changed = {n for n in found if not torch.equal(found[n], source.network.state_dict()[n])}
    assert changed
    assert all("running" in n or "tracked" in n for n in changed)


def test_a_live_recipe_changes_the_weights_of_the_terms(source, target, pairs):
    now = [QUICK.replace(align_epochs=0)]
    seen = []
    for event in adapt(source, target, pairs, lambda: now[0], seed=0):
        if isinstance(event, Step):
            seen.append(set(event.losses))
            if event.step == 2:
                now[0] = now[0].replace(lambda_bn=0.0)
    assert seen[1] == {"TI", "BN", "IM", "PL"}
    assert seen[2] == {"TI", "IM", "PL"}


def test_stopping_is_leaving_the_loop(source, target, pairs):
    events = itertools.islice(adapt(source, target, pairs, QUICK), 3)
    assert len(list(events)) == 3


def test_not_a_number_is_caught_before_the_weights_move(source, target, pairs):
    # a step that overshoots without bound: the loss leaves the numbers while epoch 0 is still on disk
    broken = copy.deepcopy(source)
    with torch.no_grad():
        broken.network.bottleneck[0].weight[0, 0] = torch.nan
    events = adapt(broken, target, pairs, QUICK)
    start = weights(next(events).state)
    with pytest.raises(LabError, match=r"stopped being a number at step 1 .*TI = nan"):
        next(events)
    assert start.keys()


def test_bad_input_is_named(source, target, pairs):
    with pytest.raises(LabError, match="no task-irrelevant pairs"):
        next(adapt(source, target, None, QUICK))
    with pytest.raises(LabError, match="lack rgb"):
        next(adapt(source, target, pairs.only("depth"), QUICK))
    with pytest.raises(LabError, match="too few"):
        next(adapt(source, target.take([0]), pairs, QUICK))
    with pytest.raises(LabError, match="one modality"):
        next(adapt(source, patterned(8, 0), pairs, QUICK))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_on_unlabelled_images(method, source, target, pairs):
    recipe = Recipe.for_method(method)
    if recipe.total_epochs:
        recipe = recipe.replace(align_epochs=min(recipe.align_epochs, 1), epochs=1, batch_size=8)
    *_, last = adapt(source, target.unlabelled(), pairs, recipe)
    assert last.state.adapted.classes == CLASSES
    assert last.state.adapted.modality == "depth"


def test_rate_schedules():
    shares = [learning_rate_factor(i / 100, "one-cycle") for i in range(101)]
    assert max(shares) == pytest.approx(1)
    assert shares[-1] == pytest.approx(0)
    assert learning_rate_factor(0.5, "paper") == pytest.approx(6**-0.75)


def test_aad_of_several_sources_in_half_precision(source, target):
    """Their mixed logits come in bfloat16, the remembered predictions are float32."""
    recipe = Recipe.for_method("aad").replace(epochs=1, batch_size=8, precision="bfloat16")
    *_, last = adapt([source, source], target, None, recipe)
    assert all(torch.isfinite(value).all() for value in weights(last.state).values())


def test_images_are_encoded_in_32_bits(source, target, pairs, monkeypatch):
    """Slopes and angles of a depth encoding do not survive 16 bits: only the networks' passes have them."""
    plain, seen = Normalisation.encode, []

    def encode(self, images):
        seen.append(torch.is_autocast_enabled("cpu"))
        return plain(self, images)

    monkeypatch.setattr(Normalisation, "encode", encode)
    recipe = QUICK.replace(align_epochs=0, epochs=1, precision="bfloat16", lambda_pl=0.0)
    recipe = recipe.replace(test_statistics="running", pair_views=0)
    assert sum(isinstance(event, Step) for event in adapt(source, target, pairs, recipe)) == 3
    assert len(seen) >= 9 and not any(seen)


class Normed(nn.Module):
    """Two layers with a norm of another kind than batch norm, or none, between them."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 5, 4), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.fc = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.stem(images))


def without_batch_norm(norm: nn.Module) -> Source:
    torch.manual_seed(0)
    network = adapted(Normed(norm), 3, head="fc", side=56, batch_norm=False)
    return Source(network, CLASSES, trained_source().normalisation, {"modality": "rgb"})


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 8), nn.LayerNorm((8, 13, 13))])
def test_tent_trains_norm_layers_of_other_kinds_and_nothing_else(norm, target):
    source = without_batch_norm(norm)
    (_, *_, last) = adapt(source, target, None, Recipe.tent().replace(epochs=1, batch_size=8))
    before, after = source.network.state_dict(), last.state.adapted.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    own = {f"{name}.{kind}" for name, m in source.network.named_modules() if type(m) is type(norm)
           for kind in ("weight", "bias")}  # fmt: skip
    assert moved == own
    assert len(own) == 2


def test_tent_without_any_norm_layer_is_refused(target):
    with pytest.raises(LabError, match=r"nothing would learn.*set trained to all"):
        next(adapt(without_batch_norm(nn.Identity()), target, None, Recipe.tent()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "rgb_kinect_v1"}, "source must be Source"),
        ({"source": []}, "no source network"),
        ({"target": torch.zeros(4, 1, 64, 64)}, "target must be PairedImages, not Tensor"),
        ({"pairs": "near"}, "pairs must be PairedImages"),
        ({"recipe": "socket"}, "recipe must be Recipe"),
        ({"recipe": dict}, "a Recipe, or a function that returns one"),
        ({"seed": 0.5}, "seed must be int"),
        ({"state": 3}, "state must be State"),
        ({"every": 0}, "every = 1 or more"),
        ({"pair_loss": "mse"}, "pair_loss must be Callable"),
    ],
)
def test_arguments_of_other_types_are_refused_in_a_sentence(source, target, pairs, change, words):
    given = {"source": source, "target": target, "pairs": pairs, "recipe": QUICK} | change
    with pytest.raises(LabError, match=words):
        next(adapt(**given))
