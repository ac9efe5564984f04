"""Passes of a trunk as graphs, with a stand-in for torch's capture; on a GPU with the real one."""

import copy

import pytest
import torch
from torch import nn
from worlds import patterned, trained_source

from socketlab import features
from socketlab.method.adaptation import State, Step, adapt
from socketlab.method.recipe import Recipe
from socketlab.speed import cuda_graphs
from socketlab.speed.fast_statistics import FastStatistics

pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA is not available")
RECIPE = Recipe(batch_size=8, align_epochs=1, epochs=2, lambda_bn=0.3, precision="float32")


@pytest.fixture(scope="module")
def target():
    return patterned(24, 1).only("depth")


@pytest.fixture(scope="module")
def pairs():
    return patterned(20, 2).unlabelled()


class Shown:
    """In place of a capture: passes of nothing move the running statistics first, as in a capture."""

    made: list["Shown"]

    def __init__(self, one, images):
        self.one, self.shape, self.calls = one, images.shape, 0
        for _ in range(cuda_graphs.WARM):
            one(images)
        Shown.made.append(self)

    def __call__(self, images):
        assert images.shape == self.shape
        self.calls += 1
        return self.one(images)


def end(source, target, pairs, recipe, execution=None):
    steps, state = [], None
    for event in adapt(source, target, pairs, recipe, execution=execution):
        if isinstance(event, Step):
            steps.append(event.losses)
        else:
            state = event.state
    return steps, state


@pytest.mark.parametrize("bn_mode", ["batch", "running"])
@pytest.mark.parametrize("several", [False, True])
def test_a_run_by_graphs_is_the_run_without_them(several, bn_mode, target, pairs, monkeypatch):
    source = [trained_source(), trained_source()] if several else trained_source()
    recipe = RECIPE.replace(bn_mode=bn_mode, test_statistics="running", trunk_lr=0.005)
    plain, expected = end(source, target, pairs, recipe, FastStatistics())
    Shown.made = []
    monkeypatch.setattr(cuda_graphs, "capturable", lambda trunk: True)
    monkeypatch.setattr(cuda_graphs, "graphed", Shown)
    by_graphs, found = end(source, target, pairs, recipe, cuda_graphs.CudaGraphs())
    assert by_graphs == plain
    for a, b in zip(
        expected.adapted.network.state_dict().values(),
        found.adapted.network.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b)
    networks = 2 if several else 1
    kinds = {tuple(one.one.run.keywords.values()) for one in Shown.made}
    assert kinds == {(True, False), (False, True)} and len(Shown.made) == 2 * networks
    assert [one.calls for one in Shown.made] == [9] * 2 * networks


def test_a_kind_is_captured_when_it_first_occurs(target, pairs, monkeypatch):
    """λ_d moved up from 0 in the middle of an epoch."""
    Shown.made = []
    monkeypatch.setattr(cuda_graphs, "capturable", lambda trunk: True)
    monkeypatch.setattr(cuda_graphs, "graphed", Shown)
    now = [RECIPE.replace(lambda_bn=0.0, align_epochs=0)]
    seen = []
    execution = cuda_graphs.CudaGraphs()
    for event in adapt(trained_source(), target, pairs, lambda: now[0], execution=execution):
        if isinstance(event, Step):
            seen.append("BN" in event.losses)
            now[0] = RECIPE.replace(align_epochs=0)
    assert seen == [False, True, True, True, True, True]
    passes = [(one.one.run.keywords["statistics"], one.calls) for one in Shown.made]
    assert passes == [(False, 1), (False, 6), (True, 5)]


def test_what_becomes_a_graph():
    trunk = copy.deepcopy(trained_source().network.trunk)
    assert not cuda_graphs.capturable(trunk)  # on a CPU
    images = torch.randn(4, 3, 16, 16)
    network = copy.deepcopy(trained_source().network).eval()
    assert torch.equal(cuda_graphs.CudaGraphs().trunk_pass(network, images).features, network.trunk(images))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
class TestOnAGPU:
    def test_modules_with_dropout_and_of_ones_own_are_left_as_they_are(self):
        trunk = copy.deepcopy(trained_source().network.trunk).cuda()
        assert cuda_graphs.capturable(trunk)
        trunk.requires_grad_(False)
        assert not cuda_graphs.capturable(trunk)
        trunk.requires_grad_(True)
        trunk.name = ""
        assert not cuda_graphs.capturable(trunk)
        trunk.name = "small"
        trunk.append(nn.Dropout(0.5))
        assert not cuda_graphs.capturable(trunk)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @pytest.mark.parametrize("several", [False, True])
    def test_graphs_give_the_numbers_of_plain_passes(self, several, precision, target, pairs):
        source = trained_source()
        source.network.cuda()
        try:
            used = [source, source] if several else source
            data, recipe = (target.to("cuda"), pairs.to("cuda")), RECIPE.replace(precision=precision)
            by_graphs, found = end(used, *data, recipe, cuda_graphs.CudaGraphs())
            plain, expected = end(used, *data, recipe)
            for one, other in zip(by_graphs, plain, strict=True):
                for name in other:
                    assert one[name] == pytest.approx(other[name], rel=0.05, abs=0.01), name
            by_graphs, plain = (features.predict(s.adapted, data[0])[0] for s in (found, expected))
            assert float((by_graphs.argmax(1) == plain.argmax(1)).float().mean()) > 0.9
        finally:
            source.network.cpu()

    def test_beside_a_thread_that_reads_images_nothing_is_captured(self, target, pairs, monkeypatch):
        """Images in the computer's memory: a capture bears no copying by another thread."""
        source = trained_source()
        source.network.cuda()
        monkeypatch.setattr(cuda_graphs, "graphed", None)
        try:
            _, state = end(source, target, pairs, RECIPE, cuda_graphs.CudaGraphs())
            assert isinstance(state, State) and state.finished
        finally:
            source.network.cpu()
