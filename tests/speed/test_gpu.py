"""On a GPU: a step that never waits for it, and the numbers of the CPU. Skipped where there is none."""

import importlib
from itertools import islice

import pytest
import torch
from worlds import patterned, trained_source

from socketlab import features
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.recipe import Recipe
from socketlab.networks import networks
from socketlab.speed import best_execution

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
adapting = importlib.import_module("socketlab.method.adaptation")
RECIPE = Recipe(batch_size=8, align_epochs=1, epochs=2, lambda_bn=0.3, precision="float32")


@pytest.fixture
def source():
    found = trained_source()
    found.network.cuda()
    yield found
    found.network.cpu()


@pytest.fixture(scope="module")
def target():
    return patterned(48, 1).only("depth").to("cuda")


@pytest.fixture(scope="module")
def pairs():
    return patterned(40, 2).unlabelled().to("cuda")


@pytest.mark.parametrize("execution", ["plain", "quick"])
@pytest.mark.parametrize("several", [False, True], ids=["one source", "two sources"])
@pytest.mark.parametrize("method", ["socket", "shot", "aad", "paper"])
def test_no_step_waits_for_the_gpu(method, several, execution, source, target, pairs, monkeypatch):
    """All that an epoch prepares may wait; from one step of it to the next nothing does."""
    monkeypatch.setattr(adapting, "LOOKS_ON_A_GPU", 10**6)
    recipe = Recipe.for_method(method).replace(batch_size=8, lambda_bn=0.3)
    recipe = recipe.replace(align_epochs=min(1, recipe.align_epochs), epochs=2)
    sources = [source, source] if several else source
    used = pairs if recipe.lambda_ti else None
    events = adapt(
        sources, target, used, recipe, execution=best_execution() if execution == "quick" else None
    )
    found = 0
    for event in events:
        if isinstance(event, Epoch) and not event.state.finished:
            next(events)  # the first step makes what the epoch needs
            torch.cuda.set_sync_debug_mode("error")
            try:
                found += sum(isinstance(step, Step) for step in islice(events, 4))
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert found >= 8


def test_a_gpu_gives_the_numbers_of_the_cpu(source, target, pairs):
    """Losses of the first steps of one and of two sources, to the rounding of 32 bits."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        there = losses(source, target, pairs)
        source.network.cpu()
        here = losses(source, target.to("cpu"), pairs.to("cpu"))
    finally:
        torch.backends.cudnn.allow_tf32 = True
    assert len(here) == len(there) > 4
    for one, other in zip(there, here, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=5e-3, abs=1e-4), name


def losses(source, target, pairs):
    recipe = RECIPE.replace(align_epochs=0, epochs=1)
    steps = (event for event in adapt([source, source], target, pairs, recipe) if isinstance(event, Step))
    return [step.losses for step in steps]


def test_a_run_on_a_gpu_is_saved_and_resumed(source, target, pairs, tmp_path):
    """Momenta of the GPU's optimiser too: the end is that of the run that was not interrupted."""
    ends = []
    for interrupted in (False, True):
        state = None
        for event in adapt(source, target, pairs, RECIPE):
            if isinstance(event, Epoch):
                state = event.state
                if interrupted and event.epoch == 2:
                    state.save(tmp_path / "state.safetensors")
                    break
        if interrupted:
            state = adapting.State.load(tmp_path / "state.safetensors", source)
            for event in adapt(source, target, pairs, RECIPE, state=state):
                state = event.state if isinstance(event, Epoch) else state
        assert networks.device_of(state.adapted.network).type == "cuda"
        ends.append(features.predict(state.adapted, target)[0])
    torch.testing.assert_close(ends[0], ends[1], rtol=2e-2, atol=2e-2)
