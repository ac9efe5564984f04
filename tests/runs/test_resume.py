"""Killed at any step and gone on with: the end is that of a run nobody disturbed, bit for bit."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from foreign import narrow_vgg, seeded
from tiny_runs import TINY, epochs_without_seconds
from worlds import CLASSES, patterned, trained_source

from socketlab.method.adaptation import Epoch, State, adapt
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import Source
from socketlab.networks.custom_networks import adapted
from socketlab.runs import run_folder
from socketlab.runs.settings import Settings, gather

EVERYTHING = Recipe(
    batch_size=12, align_epochs=1, epochs=2, lambda_bn=0.5, lambda_aad=0.5, lambda_entropy=0.5,
    bn_average=0.3, pair_views=2,
)  # fmt: skip
PUBLISHED = Recipe.paper().replace(batch_size=12, epochs=3)
STEPS = 6


def two_sources() -> list[Source]:
    other = copy.deepcopy(trained_source())
    with torch.no_grad():
        for values in other.network.parameters():
            values.mul_(1.02)
    return [trained_source(), other]


def with_dropout() -> list[Source]:
    network = adapted(seeded(narrow_vgg), len(CLASSES), features="classifier.5", width=16).eval()
    return [Source(network, CLASSES, trained_source().normalisation)]


CASES = {
    "all terms": (EVERYTHING, two_sources),
    "as published": (PUBLISHED, two_sources),
    "dropout": (EVERYTHING, with_dropout),
}


def run(sources, recipe, folder: Path, kill_at: int | None = None) -> dict[str, torch.Tensor] | None:
    """From what was saved last, where there is something, to the end or to a step; saved epoch by epoch."""
    saved = folder / "state.safetensors"
    state = State.load(saved, sources) if saved.exists() else None
    last, images = state, (patterned(24, 1).only("depth"), patterned(20, 2).unlabelled())
    for event in adapt(sources, *images, recipe, seed=3, state=state):
        if isinstance(event, Epoch):
            event.state.save(saved)
            last = event.state
        elif event.step == kill_at:
            return None
    return dict(last.adapted.network.state_dict())


@pytest.mark.parametrize("name", CASES)
def test_resume_after_a_kill_at_any_step(name, tmp_path):
    recipe, make = CASES[name]
    sources = make()
    (tmp_path / "undisturbed").mkdir()
    expected = run(sources, recipe, tmp_path / "undisturbed")
    (tmp_path / "killed at every step").mkdir()
    for step in range(1, STEPS + 1):  # one after the other: each begins at the epoch that is saved
        assert run(sources, recipe, tmp_path / "killed at every step", kill_at=step) is None
    found = run(sources, recipe, tmp_path / "killed at every step")
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize(
    ("first", "stride"),
    [(7, 29), *(pytest.param(first, 4, marks=pytest.mark.slow) for first in (1, 2, 3, 4))],
)
def test_resume_after_a_kill_at_any_file_operation(tiny_data, tmp_path, first, stride):
    """Whatever is left, `--resume` ends with the same bits, or a fresh start is not blocked."""
    tests = Path(__file__).parents[1]
    places = [str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_runs.py"), tmp_path, str(first), str(stride)],
        capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "SOCKETLAB_DATA": str(tiny_data)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + (tmp_path / "printed.txt").read_text()
    *wrong, operations = done.stdout.splitlines()
    assert not wrong, "\n".join(wrong)
    assert int(operations.removeprefix("operations: ")) > 60


RECORD = """
import sys, torch
from pathlib import Path
from socketlab.runs import run_folder as runs
from socketlab.runs.settings import gather
torch.set_num_threads(1)
run = runs.read(Path(sys.argv[1]))
material = gather(run.settings)
for event in runs.record(run, material, runs.resume(run, material)): pass
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_resume_after_a_kill_from_outside(tiny_data, tmp_path, monkeypatch):
    """Killed for good while it trains; gone on with in this process."""
    monkeypatch.setenv("SOCKETLAB_DATA", str(tiny_data))
    settings = Settings(recipe=TINY.replace(epochs=5))
    material = gather(settings)
    alone, killed = (run_folder.create(tmp_path / name, settings, material) for name in ("alone", "killed"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the other process: another number may change the last bit
    try:
        *_, last = run_folder.record(alone, material)
        places = os.pathsep.join(
            [str(Path(run_folder.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        )
        process = subprocess.Popen(
            [sys.executable, "-c", RECORD, str(killed.folder)], env=os.environ | {"PYTHONPATH": places}
        )
        while process.poll() is None and not (killed.folder / run_folder.STATE).exists():
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        again = run_folder.read(killed.folder)
        state = run_folder.resume(again, material)
        assert state is None or not state.finished
        *_, end = run_folder.record(again, material, state)
    finally:
        torch.set_num_threads(threads)
    expected, found = (event.state.adapted.network.state_dict() for event in (last, end))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert epochs_without_seconds(again.folder) == epochs_without_seconds(alone.folder)
    assert (again.folder / run_folder.STATE).read_bytes() == (alone.folder / run_folder.STATE).read_bytes()
