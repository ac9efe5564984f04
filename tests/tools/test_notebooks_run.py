"""Every notebook is run: at replay nothing is trained, sections begin alone, no host but loopback is asked.

Half of the notebooks share a kernel, which forgets all names in between: PyTorch and UMAP load once.
"""

import re
from pathlib import Path

import nbformat
import pytest
from kernels import NO_NETWORK, NO_TRAINING, begin_every_kernel_with, code

from socketlab.errors import LabError
from socketlab.runs import replay
from tools import run_notebooks

PATHS = run_notebooks.find(())
TRACES_BYTES = 13_000_000  # the film of notebook 04 takes one of them
halves = pytest.mark.parametrize("half", [PATHS[:4], PATHS[4:]], ids=["00 to 03", "04 to 07"])


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels started by the test reach loopback only."""
    begin_every_kernel_with(NO_NETWORK, tmp_path, monkeypatch)


@pytest.fixture
def at_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tier replay: kernels reach loopback only, and no optimiser takes a step."""
    begin_every_kernel_with(NO_NETWORK + NO_TRAINING, tmp_path, monkeypatch)
    monkeypatch.setenv("SOCKETLAB_TIER", "replay")


@pytest.mark.timeout(900)
@halves
def test_at_replay_notebooks_run_and_train_nothing(half: list[Path], at_replay: None) -> None:
    took = run_notebooks.execute_all({path.stem: run_notebooks.read(path) for path in half})
    print({name: round(seconds) for name, seconds in took.items()})
    assert list(took) == [path.stem for path in half]


@pytest.mark.parametrize(
    "last_alone",
    [pytest.param(True, marks=pytest.mark.slow), pytest.param(False, marks=pytest.mark.exhaustive)],
    ids=["the last", "each"],
)
@pytest.mark.timeout(1800)
@halves
def test_a_section_runs_alone(half: list[Path], at_replay: None, last_alone: bool) -> None:
    """``python -m tools.run_notebooks --sections`` runs them at any tier."""
    assert min(run_notebooks.run_sections(half, last_alone).values()) > 0


@pytest.mark.exhaustive
@pytest.mark.timeout(2400)
@halves
def test_at_laptop_notebooks_compute_offline(
    half: list[Path], offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOCKETLAB_TIER", "laptop")
    run_notebooks.execute_all({path.stem: run_notebooks.read(path) for path in half}, seconds=1200)


def test_a_section_that_leans_on_another_is_named(tmp_path: Path) -> None:
    """What a cell changes without naming it cannot be seen before it runs."""
    make, words = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    first, second = make("import json\nkept = json"), make("globals()['k' + 'ept'].dumps(1)")
    notebook = nbformat.v4.new_notebook(cells=[words("## 1. One"), first, words("## 2. Two"), second])
    nbformat.write(notebook, tmp_path / "00_small.ipynb")
    with pytest.raises(LabError, match=r"00_small-section-2: A cell failed:(.|\n)*KeyError"):
        run_notebooks.run_sections([tmp_path / "00_small.ipynb"])


def test_no_network_reaches_beyond_loopback(offline: None) -> None:
    with pytest.raises(LabError, match="forbids the connection"):
        run_notebooks.execute(code("import socket; socket.create_connection(('192.0.2.1', 80), 2)"))


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
