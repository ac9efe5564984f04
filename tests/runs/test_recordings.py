"""The three tiers: what each does, and that a recording gives back what was computed."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from worlds import patterned, trained_source

from socketlab import features
from socketlab.errors import LabError
from socketlab.measures.model_selection import Evidence
from socketlab.method.adaptation import Epoch, Step, adapt
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import write_tensors
from socketlab.runs import replay
from tools import record as recorder
from tools import run_notebooks
from tools.manifest import write_manifest

RECIPE = Recipe(batch_size=8, align_epochs=1, epochs=1)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, and no tier set."""
    monkeypatch.setenv("SOCKETLAB_DATA", str(tmp_path))
    monkeypatch.delenv(replay.SETTING, raising=False)
    monkeypatch.delenv(replay.RECORDING, raising=False)
    write_manifest(tmp_path)
    return tmp_path


def record(monkeypatch: pytest.MonkeyPatch, data: Path, name: str, value: object) -> None:
    monkeypatch.setenv(replay.RECORDING, "1")
    assert replay.replayed(name, lambda: value) is value
    write_manifest(data)
    monkeypatch.delenv(replay.RECORDING)


def untouchable() -> object:
    raise AssertionError("something was computed at the tier replay")


@pytest.mark.parametrize(("said", "meant"), [(None, "laptop"), ("", "laptop"), (" Replay ", "replay")])
def test_tier_from_the_environment(monkeypatch: pytest.MonkeyPatch, said: str | None, meant: str) -> None:
    monkeypatch.setenv(replay.SETTING, said) if said is not None else monkeypatch.delenv(
        replay.SETTING, raising=False
    )
    assert replay.tier() == meant


def test_a_tier_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(replay.SETTING, "fast")
    with pytest.raises(LabError, match="'fast' is unknown: choose one of replay, laptop"):
        replay.tier()


def test_use_sets_the_tier_and_leaves_it_at_a_wrong_name(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(replay.SETTING, "laptop")
    assert replay.use("replay").startswith("replay: nothing is trained")
    with pytest.raises(LabError):
        replay.use("quick")
    assert replay.tier() == "replay"


def test_at_laptop_the_function_is_called_and_nothing_is_kept(data: Path) -> None:
    assert replay.replayed("00-answer", lambda: 42) == 42
    assert not (data / replay.FOLDER).exists()


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1 + 0.2, "λ", [], {}, (), [1, (2.5, "a")], {"a": {1: [None]}, 0.5: ({}, [()])}],
    ids=str,
)
def test_plain_values_come_back_the_same(data: Path, monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    record(monkeypatch, data, "00-value", value)
    monkeypatch.setenv(replay.SETTING, "replay")
    found = replay.replayed("00-value", untouchable)
    assert found == value
    assert type(found) is type(value)


def test_tensors_come_back_to_the_bit(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"a": torch.randn(3, 4, dtype=torch.float64), "b": [torch.arange(5).half(), torch.tensor(7)]}
    record(monkeypatch, data, "00-tensors", value)
    monkeypatch.setenv(replay.SETTING, "replay")
    found = replay.replayed("00-tensors", untouchable)
    for ours, theirs in [(found["a"], value["a"]), *zip(found["b"], value["b"], strict=True)]:
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_arrays_and_records_of_the_kit_come_back_as_they_were(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"rgb": np.arange(6, dtype=np.float32).reshape(3, 2), "right": np.array([True, False])}
    evidence = Evidence(torch.randn(3, 2), None, 0.25)
    record(monkeypatch, data, "00-mixed", [points, evidence])
    monkeypatch.setenv(replay.SETTING, "replay")
    found, again = replay.replayed("00-mixed", untouchable)
    for name, array in points.items():
        assert isinstance(found[name], np.ndarray) and found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    assert isinstance(again, Evidence)
    assert torch.equal(again.logits, evidence.logits)
    assert (again.before, again.distance) == (None, 0.25)


def test_networks_come_back_in_16_bits(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, images = trained_source(), patterned(12, 5).only("rgb")
    record(monkeypatch, data, "00-networks", (source, {"again": source}))
    monkeypatch.setenv(replay.SETTING, "replay")
    first, more = replay.replayed("00-networks", untouchable)
    for found in (first, more["again"]):
        assert found.classes == source.classes
        assert torch.allclose(
            features.predict(found, images)[0], features.predict(source, images)[0], atol=0.05
        )
        weights = zip(found.network.parameters(), source.network.parameters(), strict=True)
        assert all(torch.equal(ours, theirs.half().float()) for ours, theirs in weights)


def test_of_a_module_of_ones_own_the_numbers_are_recorded(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def module() -> torch.nn.Sequential:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))

    own, source = module(), trained_source()
    record(monkeypatch, data, "00-own", own.state_dict())
    monkeypatch.setenv(replay.SETTING, "replay")
    again = module()
    again.load_state_dict(replay.replayed("00-own", untouchable))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), own.parameters(), strict=True))
    monkeypatch.setenv(replay.SETTING, "laptop")
    monkeypatch.setenv(replay.RECORDING, "1")
    monkeypatch.setattr(type(source.network.trunk), "name", "")
    with pytest.raises(LabError, match=r"return its state_dict\(\)"):
        replay.replayed("00-source", lambda: source)


def test_what_cannot_be_recorded_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(replay.RECORDING, "1")
    with pytest.raises(LabError, match="A set cannot be recorded"):
        replay.replayed("00-set", lambda: {1, 2})
    with pytest.raises(LabError, match="A Choice cannot be recorded"):  # a record, but not the kit's
        replay.replayed("00-choice", lambda: Choice(RECIPE))
    with pytest.raises(LabError, match="is no name for a recording"):
        replay.replayed("../00 set", lambda: 1)


def test_a_recording_that_is_missing_or_altered(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(monkeypatch, data, "00-value", 1)
    monkeypatch.setenv(replay.SETTING, "replay")
    with pytest.raises(LabError, match=r"no recording '00-other'.*SOCKETLAB_TIER=laptop"):
        replay.replayed("00-other", untouchable)
    path = data / replay.FOLDER / "00-value.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(LabError, match="was altered"):
        replay.replayed("00-value", untouchable)


@pytest.mark.parametrize(
    "tree",
    [
        {"record": ["Popen", {"dict": []}]},
        {"record": [["subprocess", "Popen"], {"dict": []}]},
        {"record": ["Evidence", {"dict": [["nothing", 1]]}]},
        {"tensor": "t9"},
        {"network": "../../models/rgb_kinect_v1"},
        {"code": "1 + 1"},
        {"dict": [1, 2]},
        {"list": 3},
        {},
        {"a": 1, "b": 2},
    ],
    ids=str,
)
def test_a_recording_of_another_shape_is_refused_in_a_sentence(
    data: Path, monkeypatch: pytest.MonkeyPatch, tree: object
) -> None:
    write_tensors(data / replay.FOLDER / "00-odd.safetensors", {"none": torch.zeros(1)}, {"value": tree})
    write_manifest(data)
    monkeypatch.setenv(replay.SETTING, "replay")
    with pytest.raises(LabError, match=r"not a recording of this kit|may not hold"):
        replay.replayed("00-odd", untouchable)


def test_a_recording_is_replaced_whole(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks of an older recording of that name do not stay behind."""
    record(monkeypatch, data, "00-value", [trained_source(), trained_source()])
    record(monkeypatch, data, "00-value", [trained_source()])
    assert sorted(p.name for p in (data / replay.FOLDER).iterdir()) == [
        "00-value.0.safetensors",
        "00-value.safetensors",
    ]


# runs of a panel


@dataclass(frozen=True)
class Choice:
    """The settings of a run, as a panel has them."""

    recipe: Recipe
    seed: int = 0


def run(choice: Choice) -> list[Step | replay.Observation]:
    target, held_out, pairs = patterned(16, 1).only("depth"), patterned(12, 3).only("depth"), patterned(16, 2)

    def look(event: Epoch) -> dict[str, object]:
        counts = features.confusion(event.state.adapted, held_out)
        return {"confusion": counts, "accuracy": float(counts.trace() / counts.sum())}

    def begin():
        return adapt(trained_source(), target, pairs.unlabelled(), choice.recipe, seed=choice.seed)

    return list(replay.played(choice, begin, look))


def test_a_run_is_played_as_it_was_recorded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = Choice(RECIPE.replace(epochs=2))
    monkeypatch.setenv(replay.RECORDING, "1")
    computed = run(choice)
    write_manifest(data)
    monkeypatch.setenv(replay.SETTING, "replay")
    monkeypatch.setattr("test_recordings.adapt", untouchable)
    shown = run(choice)
    assert len(shown) == len(computed)
    for then, now in zip(computed, shown, strict=True):
        assert type(then) is type(now)
        assert then.epoch == now.epoch
        if isinstance(then, Step):
            assert (now.step, now.steps, now.losses) == (then.step, then.steps, then.losses)
        else:
            assert now.state is None
            assert then.state is not None
            assert torch.equal(now.seen["confusion"], then.seen["confusion"])
            assert now.seen["accuracy"] == then.seen["accuracy"]
    assert [event.epoch for event in shown if isinstance(event, replay.Observation)] == [0, 1, 2, 3]


def test_a_run_that_was_not_recorded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(replay.SETTING, "replay")
    with pytest.raises(LabError, match=r"no recording 'panel-.*SOCKETLAB_TIER=laptop"):
        run(Choice(RECIPE))


def test_a_run_that_was_left_is_not_recorded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(replay.RECORDING, "1")
    target = patterned(16, 1).only("depth")
    shot = Choice(Recipe.for_method("shot").replace(batch_size=8, epochs=2))

    def begin():
        return adapt(trained_source(), target, None, shot.recipe)

    stream = replay.played(shot, begin, lambda event: None)
    list(itertools.islice(stream, 3))
    stream.close()
    assert not (data / replay.FOLDER).exists()


def test_other_settings_have_another_name() -> None:
    choice = Choice(RECIPE)
    others = [replace(choice, seed=1), replace(choice, recipe=RECIPE.replace(lambda_ti=2.0))]
    assert len({replay.run_name(one) for one in (choice, *others)}) == 3
    assert replay.run_name(replace(choice, recipe=RECIPE.replace(lambda_ti=1 + 1e-9))) == replay.run_name(
        replace(choice, recipe=RECIPE.replace(lambda_ti=1.0))
    ), "what a slider rounds is the same run"
    assert replay.run_name(choice) == replay.run_name(replace(choice))


# the command


def test_the_command_records_what_a_notebook_computes(
    data: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path_factory.mktemp("notebooks") / "00_small.ipynb"
    source = "from socketlab.runs import replay\nassert replay.replayed('00-sum', lambda: 1 + 1) == 2"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    assert recorder.main([str(path)]) == 0
    assert "00-sum.safetensors" in capsys.readouterr().out
    assert replay.read("00-sum") == 2
    assert not replay.recording(), "the setting is the kernel's alone"


def test_a_panel_runs_what_a_class_will_try_while_it_is_recorded() -> None:
    """Behind the last cell of a notebook that has such a panel, by the names that the notebook gives."""
    for path in run_notebooks.find(()):
        written = run_notebooks.read(path)
        kinds = [kind for kind in recorder.ALSO if any(f"{kind}(" in cell.source for cell in written.cells)]
        count = len(written.cells)
        more = recorder.with_more_runs(written).cells[count:]
        assert [cell.source for cell in more] == [recorder.ALSO[kind].strip() for kind in kinds]
        if kinds:
            assert any("panel = " + kinds[0] in cell.source for cell in written.cells)


def test_the_command_says_which_notebook_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert recorder.main(["99_nothing"]) == 1
    assert "no notebook '99_nothing'" in capsys.readouterr().err
