"""Run folders that are damaged, foreign, locked, or whose pictures fail: a sentence, and the scores stay."""

import json
import shutil
from dataclasses import replace

import pytest
from command_line import call, refused
from tiny_runs import TINY, full_run

from socketlab.errors import LabError
from socketlab.figures import figures as plots
from socketlab.figures import maps
from socketlab.files import exclusive
from socketlab.images import pocketrooms
from socketlab.runs import results as outcome
from socketlab.runs import run_folder
from socketlab.runs.run_folder import CHECKPOINT, CONFIG, EPOCHS, REPORT, RESULTS, STATE
from socketlab.runs.settings import Settings, gather

pytestmark = pytest.mark.usefixtures("quick")
DEEP = "[" * 100_000


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """A finished run that a test may change, in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished[0].folder, tmp_path / "run")
    return tmp_path / "run"


def changed(path, *steps, value):
    """Set a value deep in a JSON file; the steps are keys and indices."""
    about = place = json.loads(path.read_text())
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = value
    path.write_text(json.dumps(about))


# scores before pictures


def test_a_picture_that_fails_is_named_and_the_rest_stands(tmp_path, monkeypatch):
    def no_matrix(*about):
        raise ValueError("ParseFatalException: Expected \\frac\nmore")

    monkeypatch.setattr(plots, "confusion_matrix", no_matrix)
    run, results = full_run(tmp_path / "run", Settings(recipe=TINY))
    assert {path.name for path in run.folder.glob("*.png")} == {"mistakes.png", "map.png", "losses.png"}
    words = "“What is taken for what” could not be drawn: ParseFatalException: Expected \\frac."
    assert words in results.notes and words in (run.folder / REPORT).read_text()
    assert json.loads((run.folder / RESULTS).read_text())["confusion"] == results.confusion


def test_a_map_without_umap_is_one_of_principal_components(tmp_path, monkeypatch):
    def unkept(*about):
        raise RuntimeError("cannot cache function 'rdist': no locator available")

    monkeypatch.setattr(maps, "joint_map", unkept)
    run, _ = full_run(tmp_path / "run", Settings(recipe=TINY))
    text = (run.folder / REPORT).read_text()
    assert "Principal components of the features" in text
    assert "in place of UMAP: cannot cache function &#39;rdist&#39;" in text


@pytest.mark.parametrize("where", ["illustrate", "_report"])
def test_scores_are_printed_and_kept_before_anything_is_drawn(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)

    def broken(*about):
        raise LabError("the pictures are on strike")

    with monkeypatch.context() as patch:
        patch.setattr(outcome, where, broken)
        result = call("adapt", "--method", "adabn", "--out", "run", "--device", "cpu")
    assert result.exit_code == 2 and "AdaBN" in result.stdout and "on strike" in result.stderr
    assert (tmp_path / "run" / RESULTS).is_file() and (tmp_path / "run" / CHECKPOINT).is_file()
    assert call("adapt", "--resume", "run").exit_code == 0
    assert (tmp_path / "run" / REPORT).is_file()


@pytest.mark.parametrize("name", [r"$\frac$", "a$b$c", "=1+1", "<b>bath</b>", "Küche 寝室"])
def test_any_class_name_ends_in_a_report(tmp_path, monkeypatch, name):
    """A run of a pack with such a class goes through the same code: here the rooms' class is renamed."""
    load = pocketrooms.load

    def renamed(*about, **more):
        images = load(*about, **more)
        new = {"bathroom": name}
        return replace(
            images,
            classes=tuple(new.get(one, one) for one in images.classes),
            kinds=tuple(new.get(one, one) for one in images.kinds),
        )

    settings = Settings(method="adabn")
    material = gather(settings)
    classes = tuple(name if one == "bathroom" else one for one in pocketrooms.CLASSES)
    monkeypatch.setattr(pocketrooms, "load", renamed)
    monkeypatch.setattr(pocketrooms, "CLASSES", classes)
    material = replace(
        material,
        sources=[replace(material.source, classes=classes)],
        oracle=None,
        target=renamed("target_adapt", "kinect_v1", ("depth",)),
        held_out=renamed("target_test", "kinect_v1", ("depth",)),
    )
    run = run_folder.create(tmp_path / "run", settings, material)
    *_, last = run_folder.record(run, material)
    results = outcome.finish(run, material, last.state)
    assert name in results.classes
    assert {path.name for path in run.folder.glob("*.png")} == {
        "confusion.png", "map.png", "losses.png", "mistakes.png"
    }  # fmt: skip
    assert name.replace("<", "&lt;").replace(">", "&gt;") in (run.folder / REPORT).read_text()


# files that are well-formed but not ours


@pytest.mark.parametrize(
    "content",
    [
        DEEP, "[1, 2", "[]", "3", "null", "{}", "\ufeff{}", '{"settings": 3}', '{"settings": []}',
        '{"settings": {"seed": [[]]}}', '{"settings": {"recipe": 3}}',
    ],
)  # fmt: skip
def test_a_configuration_that_is_none(copied, content):
    (copied / CONFIG).write_text(content)
    for command in (("report", "run"), ("adapt", "--resume", "run")):
        refused(
            call(*command), CONFIG if content in (DEEP, "[1, 2", "\ufeff{}") else "run", "start a new run"
        )


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        (("made",), 5), (("made",), "yesterday"), (("rerun",), None), (("environment",), 3),
        (("settings", "seed"), "one"), (("settings", "seed"), -1), (("settings", "sensor"), {}),
        (("settings", "recipe", "epochs"), 1e9), (("settings", "recipe", "epochs"), {}),
        (("settings", "unheard"), 1), (("settings", "pair_count"), True), (("sources",), 3), (("about",), 3),
        (("source_digest",), None), (("settings", "strength"), float("nan")), (("target",), []),
    ],
)  # fmt: skip
def test_a_configuration_with_a_value_of_another_kind(copied, steps, value):
    changed(copied / CONFIG, *steps, value=value)
    refused(call("report", "run"), "run")


def test_damaged_results_are_made_again(copied, finished):
    (copied / RESULTS).write_text("[]")
    assert call("adapt", "--resume", "run").exit_code == 0
    assert (copied / RESULTS).read_bytes() == (finished[0].folder / RESULTS).read_bytes()


@pytest.mark.parametrize(
    "content", ["", "epoch\n", "epoch,TI\n0\n", "a,b\n1,2\n", "epoch,seconds\n0,fast\n", "epoch\nlast\n", '"']
)
def test_epochs_that_are_none(copied, content):
    (copied / EPOCHS).write_text(content)
    refused(call("adapt", "--resume", "run"), "run")


# locks and leftovers


def leftover(name):
    return f".{name}.{'0123456789abcdef' * 2}.unfinished"


def test_leftovers_of_a_kill_block_nothing_and_are_removed(copied, tmp_path):
    (copied / leftover(STATE)).write_bytes(b"half")
    assert call("adapt", "--resume", "run").exit_code == 0
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / leftover(CONFIG)).write_bytes(b"{")
    (tmp_path / "new" / ".lock").write_bytes(b"")
    refused(call("adapt", "--resume", "new"), "not a run folder", "--out")
    assert call("adapt", "--method", "adabn", "--out", "new", "--device", "cpu").exit_code == 0
    for folder in (copied, tmp_path / "new"):
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_checkpoints_leftover_is_removed_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (leftover("net.safetensors"), leftover("other.safetensors")):
        (tmp_path / name).write_bytes(b"half")
    call("train-source", "--out", "net.safetensors", "--epochs", "1", "--batch-size", "1000000")
    assert [path.name for path in tmp_path.iterdir()] == [leftover("other.safetensors")]


def test_two_at_once_exclude_each_other(copied, tmp_path):
    with exclusive(copied):
        refused(call("adapt", "--resume", "run"), "Another process is working in run")
        refused(call("report", "run", "--oracle", "oracle_depth_kinect_v1"), "Another process")
    with exclusive(tmp_path / "new"):
        refused(call("adapt", "--out", "new", "--method", "adabn"), "Another process is working in new")
    assert not (tmp_path / "new").exists()
    assert call("report", "run").exit_code == 0


def test_an_oracle_can_be_added_later(copied, tmp_path, tiny_data):
    shutil.copy(tiny_data / "models" / "oracle_depth_kinect_v1.safetensors", tmp_path / "best.safetensors")
    before = (copied / CHECKPOINT).read_bytes()
    result = call("report", "run", "--oracle", "best.safetensors")
    assert result.exit_code == 0, result.output
    run = run_folder.read(copied)
    assert run.settings.oracle == "best.safetensors" and "--oracle best.safetensors" in run.config.rerun
    assert json.loads((copied / RESULTS).read_text())["has_oracle"]
    assert (copied / CHECKPOINT).read_bytes() != before  # its card names the command
    assert call("adapt", "--resume", "run").exit_code == 0
    refused(call("report", "run", "--oracle", "rgb_kinect_v1"), "reads rgb, but the target is depth")
    (copied / STATE).unlink()
    refused(call("report", "run", "--oracle", "best.safetensors"), "no epoch yet")
