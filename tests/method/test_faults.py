"""Faults of the published code that no other test is named after; ``tests/put_faults_back.py`` lists all."""

import dataclasses
import importlib
from collections import Counter

import numpy as np
import pytest
import torch
from beginnings import QUICK, begun, other_source, pair_terms, target_terms
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from worlds import patterned, trained_source

from socketlab import adapt, losses, rooms
from socketlab.errors import LabError
from socketlab.images.importers import survey, write_pack
from socketlab.method import pseudolabels, steps
from socketlab.method.adaptation import Epoch, Step
from socketlab.method.recipe import Recipe
from socketlab.networks import networks
from socketlab.networks.checkpoints import load_source, save_source

adapting = importlib.import_module("socketlab.method.adaptation")
ALL_TERMS = QUICK.replace(lambda_bn=1.0, lambda_ti=3.0)


@pytest.mark.parametrize("share", ["normalised", "raw"])
def test_fault_1_with_one_source_nothing_can_switch_bn_matching_off(share):
    """The gradient of L_BN and L_TI on g is exactly 0; under the published share it is not, and falls."""
    recipe = ALL_TERMS.replace(bn_share=share)
    state, batch, images = begun(trained_source(), recipe)
    weights, shares = networks.mixing_weights(state.mixing), adapting.bn_shares(state.mixing, recipe)
    terms = target_terms(state, images, batch, recipe, weights, shares)
    wanted = [(None, torch.zeros(8, 128))]
    terms |= pair_terms(state, images, wanted, recipe, weights)
    slope = {
        name: torch.autograd.grad(terms[name], state.mixing, retain_graph=True)[0] for name in ("BN", "TI")
    }
    assert slope["TI"] == 0
    assert (slope["BN"] == 0) == (share == "normalised")
    if share == "raw":
        assert slope["BN"] > 0  # descending it lowers the share for good


def test_fault_1_the_share_of_bn_stands_here_and_falls_as_published():
    target, pairs = patterned(24, 1).only("depth"), patterned(16, 2).unlabelled()
    shares = {}
    for recipe in (ALL_TERMS.replace(epochs=4), Recipe.paper().replace(batch_size=8, epochs=4)):
        events = adapt(trained_source(), target, pairs, recipe)
        shares[recipe.bn_share] = [float(e.bn_shares) for e in events if isinstance(e, Step)]
    assert set(shares["normalised"]) == {1.0}
    assert shares["raw"][0] == pytest.approx(0.731, abs=1e-3)
    assert shares["raw"][-1] < 0.1


def test_fault_2_every_source_is_compared_with_its_own_statistics_at_full_weight():
    """L_BN of two sources is Σ a_k of what each has alone, the first layer's γ = 10 included."""
    sources = [trained_source(), other_source()]
    recipe = QUICK.replace(bn_form="paper", lambda_im=0.0, lambda_pl=0.0)
    state, batch, images = begun(sources, recipe)
    weights = torch.tensor([0.3, 0.7])
    together = target_terms(state, images, batch, recipe, weights)["BN"]
    apart = []
    for source in sources:
        state, batch, images = begun(source, recipe)
        apart.append(target_terms(state, images, batch, recipe)["BN"])
    assert apart[0].item() != pytest.approx(apart[1].item(), rel=0.05)
    assert together.item() == pytest.approx((0.3 * apart[0] + 0.7 * apart[1]).item(), rel=1e-5)


def test_fault_3_pairs_are_made_by_name_and_orphans_are_refused(tmp_path):
    """Files written in another order, and so listed in another, are partners by their names alone."""
    names = [f"room {i:02}" for i in range(12)]
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    for modality, order in (("rgb", range(12)), ("depth", shuffled)):
        folder = tmp_path / "set" / modality / "office"
        folder.mkdir(parents=True)
        for i in order:
            picture = (
                np.full((4, 4, 3), i, np.uint8) if modality == "rgb" else np.full((4, 4), i + 1000, np.uint16)
            )
            Image.fromarray(picture).save(folder / f"{names[i]}.png")
    found = survey("folders", tmp_path / "set")
    pack = write_pack(found, tmp_path / "pack", size=4, processes=1)
    for split in pack.splits:
        pairs = pack.load(split)
        assert torch.equal(pairs.images["rgb"][:, 0].int() + 1000, pairs.images["depth"][:, 0].int())
        assert [f"office/{names[i]}" for i in pairs.images["rgb"][:, 0, 0, 0].tolist()] == list(pairs.names)
    (tmp_path / "set" / "depth" / "office" / "room 00.png").unlink()
    with pytest.raises(LabError, match="office/room 00 has no depth image"):
        write_pack(survey("folders", tmp_path / "set"), tmp_path / "other", size=4, on_bad="stop")
    (tmp_path / "set" / "depth" / "office" / "ROOM 01.png").write_bytes(b"")
    with pytest.raises(LabError, match="the same name as"):
        write_pack(survey("folders", tmp_path / "set"), tmp_path / "other", size=4, on_bad="stop")


def test_fault_7_the_target_is_normalised_by_its_own_numbers(tmp_path):
    """Mean and deviation of the target's images, not the source's; they travel with the checkpoint."""
    source, target = trained_source(), patterned(24, 1).only("depth")
    adapted = next(adapt(source, target, None, Recipe.for_method("adabn"))).state.adapted
    encoded = adapted.normalisation.encode(target.images["depth"])
    assert float(encoded.mean()) == pytest.approx(0, abs=1e-3)
    assert float(encoded.std()) == pytest.approx(1, abs=1e-3)
    assert adapted.normalisation.mean != source.normalisation.mean
    save_source(adapted, tmp_path / "adapted.safetensors")
    assert load_source(tmp_path / "adapted.safetensors").normalisation == adapted.normalisation


class Counting(TorchDispatchMode):
    """Counts the operators that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_fault_12_no_loop_over_images_and_few_parameter_groups():
    """Ten times the images take the same number of operators; three groups hold all parameters."""
    counts = []
    for images in (30, 300):
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(images, 6, generator=generator)
        logits = torch.randn(images, 4, generator=generator)
        with Counting() as counting:
            pseudolabels.shot_pseudo_labels(features, logits)
            near = losses.nearest_neighbours(features[:8], features, torch.arange(8))
            losses.attract_and_disperse(logits[:8], logits.softmax(1)[near])
            losses.information_maximisation(logits)
        counts.append(counting.calls)
    assert counts[0] == counts[1]
    state, *_ = begun([trained_source(), other_source()])
    assert len(state.optimiser.param_groups) == 3


def test_fault_9_a_pass_over_pairs_leaves_every_running_statistic():
    """Trunk and bottleneck in train mode: means, variances and counts stay, to the bit."""
    state, _, images = begun(trained_source())
    before = {name: value.clone() for name, value in state.adapted.network.named_buffers()}
    pair_terms(state, images, [(None, torch.zeros(8, 128))], ALL_TERMS)
    after = dict(state.adapted.network.named_buffers())
    assert {name.split(".")[0] for name in before} >= {"trunk", "bottleneck"}
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_fault_12_a_step_copies_nothing_from_the_device_per_layer():
    """The terms of a step are made without one look at a value: no ``item`` in forward or backward."""
    state, batch, images = begun(trained_source(), ALL_TERMS)
    weights = networks.mixing_weights(state.mixing)
    with Counting() as counting:
        terms = target_terms(state, images, batch, ALL_TERMS, weights)
        steps.total_loss(terms, ALL_TERMS).backward()
    assert not [name for name in counting.calls if "item" in name or "_local_scalar" in name]


def test_fault_13_the_images_that_judge_are_not_the_images_adapted_to():
    """Held-out scenes are others than those adapted to, and what a method gets carries no label."""
    adapted_to = rooms.load("target_adapt", modalities=("depth",))
    held_out = rooms.load("target_test", modalities=("depth",))
    assert not set(adapted_to.names) & set(held_out.names)
    assert adapted_to.labels.shape == (480,)
    bare = adapted_to.unlabelled()
    assert not set(bare.kinds) & set(adapted_to.classes)
    with pytest.raises(LabError, match="no labels"):
        _ = bare.labels


def test_fault_13_the_last_epoch_is_the_result_whatever_the_accuracy():
    """Nothing in the stream says how good an epoch was, so that none can be chosen by it."""
    target, pairs = patterned(24, 1).only("depth"), patterned(16, 2).unlabelled()
    events = list(adapt(trained_source(), target, pairs, QUICK))
    assert isinstance(events[-1], Epoch)
    assert events[-1].state.finished
    assert {f.name for f in dataclasses.fields(Epoch)} == {"epoch", "epochs", "state"}


def test_every_fault_can_still_be_put_back():
    """The passages that ``put_faults_back.py`` spoils are there, once each; running it takes minutes."""
    import put_faults_back

    for fault in put_faults_back.FAULTS:
        text = (put_faults_back.REPOSITORY / "socketlab" / fault.file).read_text(encoding="utf-8")
        assert text.count(fault.ours) == 1, fault.what
    assert {fault.number for fault in put_faults_back.FAULTS} == set(range(1, 14))
