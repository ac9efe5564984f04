"""Two processes with the batch of one: shares, gathered rows, and whole adaptations to the last digits."""

import copy
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import formats
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from tiny_runs import TINY
from torch import distributed, nn
from worlds import patterned, trained_source

from socketlab.errors import LabError
from socketlab.images import encodings
from socketlab.images.importers import survey, write_pack
from socketlab.images.packs import open_pack
from socketlab.method.adaptation import Epoch, State, Step, adapt
from socketlab.method.evaluate import predict
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import Source, load_source
from socketlab.networks.networks import seed_dropout
from socketlab.runs import run_folder, splits
from socketlab.runs.settings import Settings, gather
from socketlab.runs.train_source import SourceRecipe, train
from socketlab.speed import distributed as ranks

pytestmark = pytest.mark.skipif(
    not distributed.is_available(), reason="torch was built without torch.distributed"
)
WORLD = 2
ALL_TERMS = Recipe(
    batch_size=11, align_epochs=1, epochs=1, lambda_bn=0.5, lambda_aad=0.5, lambda_entropy=0.5, bn_average=0.3
)
"""Shares of six and of five; passes over 20 pairs end within a batch."""
CASES = {
    "all terms, two sources": (ALL_TERMS, 2),
    "as published, two sources": (Recipe.paper().replace(batch_size=11, epochs=1), 2),
    "running statistics, new views": (
        ALL_TERMS.replace(bn_mode="running", pair_views=0, test_statistics="running"),
        1,
    ),
    "shared statistics, two sources": (ALL_TERMS.replace(pair_statistics="shared"), 2),
    "TENT": (Recipe.tent().replace(batch_size=9, epochs=1), 1),
}
"""Name → recipe, number of sources."""
LESSONS = {
    "in other colours": SourceRecipe(epochs=2, batch_size=7, width=4),
    "at two rates": SourceRecipe(
        epochs=1, batch_size=9, rate=0.01, trunk_rate=0.001, width=4, schedule="paper", recolour=False
    ),
}
"""Name → how a source network is trained; shares of four and three, of five and four."""


# Shares


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_are_those_of_tensor_split(count, world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "world", lambda: world)
        rows = torch.arange(count)
        expected = rows.tensor_split(world)
        for number in range(world):
            assert torch.equal(rows[ranks.share(count, number)], expected[number])


def test_alone_everything_is_handed_back():
    x, layer = torch.randn(3, 2), nn.BatchNorm1d(2)
    assert (ranks.world(), ranks.rank(), ranks.share(5)) == (1, 0, slice(0, 5))
    assert ranks.gathered(x, 3) is x
    assert ranks.on_rank_zero(lambda: x) is x
    ranks.join("cpu")
    assert ranks.world() == 1
    ranks.leave()
    with ranks._whole_batches(layer):
        assert "forward" not in vars(layer)


# What each process does: everything once, in float64


def sources(count: int) -> list[Source]:
    """Networks that differ, in float64."""
    found = []
    for number in range(count):
        one = copy.deepcopy(trained_source())
        with torch.no_grad():
            for values in one.network.parameters():
                values.mul_(1 + 0.02 * number)
        one.network.double()
        found.append(one)
    return found


@pytest.fixture
def in_double(monkeypatch):
    calculate_in_double(monkeypatch)
    yield
    torch.set_default_dtype(torch.float32)


def calculate_in_double(patch: pytest.MonkeyPatch) -> None:
    """Everything in float64, so that only a wrong sum can be told from another order of the same."""
    trained_source()  # as everywhere else, before anything changes
    encode = encodings.Normalisation.encode
    patch.setattr(encodings.Normalisation, "encode", lambda self, images: encode(self, images).double())
    patch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)


def adapted(recipe: Recipe, count: int, state: State | None = None, stop: int = 100) -> dict[str, object]:
    """Losses and gradients of every step, labels and weights at the end, and the state."""
    target, pairs = patterned(24, 1).only("depth"), patterned(20, 2).unlabelled()
    losses, gradients, last = [], [], state
    execution = ranks.Distributed()
    for event in adapt(sources(count), target, pairs, recipe, seed=5, state=state, execution=execution):
        if isinstance(event, Step):
            losses.append(event.terms)
            slots = [p for group in last.optimiser.param_groups for p in group["params"]]
            gradients.append([p.grad.clone() for p in slots if p.grad is not None])
        elif isinstance(event, Epoch):
            last = event.state
            if event.epoch == stop:
                break
    logits, _ = predict(last.adapted, target, execution=execution)
    weights = {name: value.clone() for name, value in last.adapted.network.state_dict().items()}
    return {"losses": losses, "gradients": gradients, "logits": logits, "weights": weights, "state": last}


def one_process(rank: int, folder: str) -> None:
    """One of two: adaptations, one that is saved on the way, one that goes on with what one process saved."""
    torch.set_num_threads(1)
    trained_source()  # by each alone, before there are two
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD,
        timeout=timedelta(seconds=240),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        calculate_in_double(patch)
        found = {name: adapted(*case) for name, case in CASES.items()}
        state = State.load(f"{folder}/of-one.safetensors", sources(2))
        found["taken over from one"] = adapted(ALL_TERMS, 2, state)
        half = adapted(ALL_TERMS, 2, stop=1)["state"]
        if rank == 0:
            half.save(f"{folder}/of-two.safetensors")
        found |= {name: taught(recipe) for name, recipe in LESSONS.items()}
        found |= {name: of_layers(training) for name, training in {"train": True, "eval": False}.items()}
        with pytest.raises(LabError, match="said by 0"):
            ranks.on_rank_zero(lambda: refuse(rank))
        with pytest.raises(LabError, match="batch of 1 images is too small for 2"):
            ranks.Distributed().trunk_pass(trained_source().network, torch.zeros(1, 3, 56, 56))
        for name in (*CASES, "taken over from one"):
            found[name].pop("state")
        torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def taught(recipe: SourceRecipe) -> dict[str, object]:
    """Losses and gradients of every step of training a source network, and its weights at the end."""
    losses, gradients = [], []
    for event in train(patterned(24, 3).only("rgb"), recipe, seed=2, execution=ranks.Distributed()):
        if isinstance(event, Step):
            losses.append(event.terms)
        else:
            network = event.source.network
            gradients.append([p.grad.clone() for p in network.parameters()])
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    return {"losses": losses, "gradients": gradients, "weights": weights}


def refuse(rank: int) -> None:
    raise LabError(f"said by {rank}")


def of_layers(training: bool) -> dict[str, object]:
    """Batch norm of all sorts, and dropout, on a share of nine images: all that it gives."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Conv2d(4, 2, 2),
        nn.BatchNorm2d(2, momentum=None), nn.Flatten(), nn.Dropout(0.4), nn.Linear(32, 5), nn.BatchNorm1d(5),
    )  # fmt: skip
    network.train(training)
    seed_dropout(network, 3)
    execution = ranks.Distributed()
    whole = 2 + 3 * torch.randn(9, 3, 7, 7)
    x = whole[ranks.share(9)].requires_grad_()
    with ranks._whole_batches(network), execution.batch_statistics(network) as layers:
        out = ranks.gathered(network(x), 9)
        seen = [(layer.mean, layer.variance) for layer in layers.values()]
        (out.square().mean() + sum((m**2).sum() + (v.sqrt() * m).sum() for m, v in seen)).backward()
    execution.average_gradients(network.parameters())
    gradients = [p.grad for p in network.parameters()]
    return {
        "out": out.detach(),
        "statistics": [(m.detach(), v.detach()) for m, v in seen],
        "gradients": gradients,
        "of images": ranks.gathered(x.grad, 9) / ranks.world(),  # of the sum over the ranks' losses
        "buffers": list(network.buffers()),
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes found, and their folder."""
    folder = tmp_path_factory.mktemp("ranks")
    raw = formats.write_rgbnir(folder / "raw")
    write_pack(survey("rgbnir", raw), folder / "pack", size=24, processes=1)
    with pytest.MonkeyPatch.context() as patch:
        calculate_in_double(patch)
        try:
            adapted(ALL_TERMS, 2, stop=1)["state"].save(folder / "of-one.safetensors")
        finally:
            torch.set_default_dtype(torch.float32)
    torch.multiprocessing.spawn(one_process, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)], folder


def alike(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_two_processes_adapt_as_one(both, in_double, name):
    """Losses and gradients of every step, pseudo-labels, weights and statistics at the end."""
    expected = adapted(*CASES[name])
    expected.pop("state")
    assert len(expected["losses"]) in (2, 4)
    for found in both[0]:
        for part in expected:
            alike(found[name][part], expected[part])
    first, second = (found[name]["weights"] for found in both[0])
    assert all(torch.equal(first[n], second[n]) for n in first)  # no rank drifts from another


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", LESSONS)
def test_two_processes_train_a_source_network_as_one(both, in_double, name):
    """Losses of every step, gradients of each epoch's last, weights and statistics at the end."""
    expected = taught(LESSONS[name])
    assert len(expected["losses"]) == 24 // LESSONS[name].batch_size * LESSONS[name].epochs
    for found in both[0]:
        for part in expected:
            alike(found[name][part], expected[part])


@pytest.mark.timeout(300)
def test_a_run_goes_on_with_another_number_of_processes(both, in_double):
    expected = adapted(ALL_TERMS, 2)["weights"]
    for found in both[0]:
        alike(found["taken over from one"]["weights"], expected)
    state = State.load(both[1] / "of-two.safetensors", sources(2))
    alike(adapted(ALL_TERMS, 2, state)["weights"], expected)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["train", "eval"])
def test_layers_normalise_by_all_images(both, in_double, name):
    """Shares of five and four: outputs, statistics, running statistics, and the gradient of all of it."""
    expected = of_layers(training=name == "train")
    for found in both[0]:
        for part in expected:
            alike(found[name][part], expected[part])


class Own(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x)


def test_a_layer_that_cannot_is_named(monkeypatch):
    monkeypatch.setattr(ranks, "world", lambda: 2)
    with (
        pytest.raises(LabError, match="Own cannot normalise"),
        ranks._whole_batches(nn.Sequential(Own(2))),
    ):
        pass


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    """A command of socketlab by two processes, as it is typed."""
    program = str(Path(__file__).parents[1] / "plain_map_cli.py")
    places = os.pathsep.join([str(Path(ranks.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", program]
    return subprocess.run(
        [*started, *words], capture_output=True, text=True, timeout=480,
        env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_torchrun_trains_a_source_network(both, tmp_path, monkeypatch):
    """As typed: one file, every sentence once, and a refusal once; an experiment has processes of its own."""
    monkeypatch.chdir(tmp_path)
    pack = str(both[1] / "pack")
    words = ("train-source", "--pack", pack, "--epochs", "1", "--batch-size", "7", "--device", "cpu")
    done = torchrun(*words)
    assert done.returncode == 0, done.stderr
    assert "left at the end" not in done.stderr  # a thread that is left may abort the process as it ends
    assert done.stdout.count("held-out images right") == 1 and done.stderr.count("epoch 1 of 1") == 1
    found = load_source(tmp_path / "rgb_pack.safetensors")
    task = splits.pack_training_task(open_pack(pack), SourceRecipe(epochs=1, batch_size=7))
    *_, last = train(task.images, task.recipe)
    assert found.card["held_out_images"] == len(task.held_out) and found.card["seed"] == 0
    weights, expected = (one.network.state_dict() for one in (found, last.source))
    assert weights.keys() == expected.keys()
    torch.testing.assert_close(weights["trunk.0.weight"], expected["trunk.0.weight"], rtol=0.05, atol=0.01)
    again = torchrun(*words)
    assert again.returncode != 0 and again.stderr.count("exists already") == 1
    done = torchrun("experiment", "rgbnir", "--data", pack, "--quick", "--device", "cpu")
    assert done.returncode != 0 and done.stderr.count("starts its own processes") == 1


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_torchrun_writes_the_run_of_one_process(tiny_data, tmp_path, monkeypatch):
    """One folder, one report; the first loss, and weights so near as their chaos allows.

    Networks that were never trained magnify 1e-7 in their weights to 4 % of the way that two steps go.
    """
    monkeypatch.setenv("SOCKETLAB_DATA", str(tiny_data))
    recipe = TINY.replace(epochs=1, batch_size=24)
    settings = Settings(recipe=recipe)
    material = gather(settings)
    alone = run_folder.create(tmp_path / "alone", settings, material)
    *_, last = run_folder.record(alone, material)
    plain = asdict(Recipe())
    words = [f"--set={name}={value}" for name, value in asdict(recipe).items() if value != plain[name]]
    done = torchrun("adapt", "--device=cpu", f"--out={tmp_path / 'together'}", *words)
    assert done.returncode == 0, done.stderr
    assert "left at the end" not in done.stderr
    assert done.stdout.count("report: ") == done.stdout.count("accuracy on") == 1
    together = run_folder.read(tmp_path / "together")
    assert (together.folder / run_folder.REPORT).is_file()
    first_loss = [float(run.rows[1]["TI"]) for run in (together, alone)]
    assert first_loss[0] == pytest.approx(first_loss[1], rel=1e-4)
    networks = material.source, last.state.adapted, load_source(together.folder / run_folder.CHECKPOINT)
    begun, expected, found = (
        torch.cat([values.detach().flatten() for values in one.network.parameters()]) for one in networks
    )
    assert (found - expected).norm() < 0.2 * (expected - begun).norm()
