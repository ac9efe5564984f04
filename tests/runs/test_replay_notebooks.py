"""The tier replay: every notebook shows what was recorded, trains nothing, and takes a minute at most."""

import os
import re
import resource
import time
from pathlib import Path

import pytest
from kernels import NO_NETWORK, NO_TRAINING, begin_every_kernel_with, code

from socketlab.errors import LabError
from socketlab.runs import replay
from tools import run_notebooks

PATHS = sorted(run_notebooks.FOLDER.glob("*.ipynb"))
REPLAY_SECONDS, CORES = 60, 2
TRACES_BYTES = 12_000_000


@pytest.fixture
def at_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tier replay: kernels reach loopback only, and no optimiser takes a step."""
    begin_every_kernel_with(NO_NETWORK + NO_TRAINING, tmp_path, monkeypatch)
    monkeypatch.setenv("SOCKETLAB_TIER", "replay")


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_at_replay_a_notebook_trains_nothing_and_takes_a_minute_at_most(path: Path, at_replay: None) -> None:
    """Other work on the machine is no fault of the notebook: what counts then is the processors' time in it.

    When the machine is free the clock counts; what it said then is in ``timings.csv``.
    """
    free = os.getloadavg()[0] < 1
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run_notebooks.execute(run_notebooks.read(path), path.parent)
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{path.stem} at replay: {took:.0f} s, {worked:.0f} s of processor time")
    assert worked < CORES * REPLAY_SECONDS
    assert took < REPLAY_SECONDS or not free


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        "from socketlab.method.adaptation import adapt\nfrom socketlab import Recipe, load_source, rooms\n"
        "target = rooms.load('target_adapt', 'kinect_v1', ('depth',)).take(range(32))\n"
        "list(adapt(load_source('rgb_kinect_v1'), target, None, Recipe.shot().replace(epochs=1)))",
        "import torch\nx = torch.ones(1, requires_grad=True)\n"
        "x.sum().backward()\ntorch.optim.SGD([x]).step()",
    ],
    ids=["adapt", "by hand"],
)
def test_what_trains_at_replay_is_noticed(training: str, at_replay: None) -> None:
    with pytest.raises(LabError, match="something is trained at the tier replay"):
        run_notebooks.execute(code(training))


def test_every_recording_is_shown_somewhere_and_all_are_small() -> None:
    sources = "\n".join(cell.source for path in PATHS for cell in run_notebooks.read(path).cells)
    named = set(re.findall(r'replayed\(f?"([a-z0-9-]+)', sources))
    folder = run_notebooks.FOLDER.parent / "data" / replay.FOLDER
    kept = list(folder.glob("*.safetensors"))
    for path in kept:
        name = path.name.split(".")[0]
        assert name.startswith("panel-") or any(name.startswith(one) for one in named), name
    for one in named:
        assert any(path.name.startswith(one) for path in kept), one
    assert sum(path.stat().st_size for path in kept) < TRACES_BYTES
