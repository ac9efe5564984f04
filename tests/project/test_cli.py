"""The command line: what it writes, what it says, how it stops and goes on, and one sentence per error."""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import call, refused
from hypothesis import HealthCheck, given
from hypothesis import settings as checking
from tiny_runs import TINY, epochs_without_seconds, make_tiny_data, settings_of_any_kind

from socketlab import features, files, rooms
from socketlab.errors import LabError
from socketlab.images.sensors import SENSORS
from socketlab.measures.model_selection import EncodingChoice
from socketlab.method.recipe import METHODS, Recipe
from socketlab.networks.checkpoints import Source, load_source, save_source
from socketlab.networks.networks import networks_of, small_network
from socketlab.runs import doctor, run_folder
from socketlab.runs import results as outcome
from socketlab.runs import settings as run_settings
from socketlab.runs.settings import Settings, gather
from socketlab.runs.splits import rooms_digest

pytestmark = pytest.mark.usefixtures("quick")
CHANGES = {"align_epochs": 1, "epochs": 2, "batch_size": 8, "trunk_lr": 0.001, "bottleneck_lr": 0.001}
SHORT = [word for name, value in CHANGES.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_adapt_writes_a_run_and_says_three_accuracies(here, finished):
    run, results = finished
    result = call("adapt", *SHORT, "--out", "first", "--device", "cpu")
    assert result.exit_code == 0, result.output
    folder = here / "first"
    assert epochs_without_seconds(folder) == epochs_without_seconds(run.folder)
    for score in results.scores:
        assert re.search(rf"{score.name} +{100 * score.held_out:.1f} %", result.stdout)
    assert "report.html" in result.stdout
    assert "epoch 3 of 3" in result.stderr and "unseen by the method" in result.stderr


def test_several_sources_adapt_together_and_can_be_loaded(here, tiny_data):
    """Two networks, by name and with a comma: the report names both, the mixture can be loaded."""
    two = "rgb_kinect_v1,rgb_kinect_v1"
    words = ["adapt", *SHORT, "--source", two, "--out", "two", "--device", "cpu"]
    assert call(*words).exit_code == 0
    folder = here / "two"
    adapted = load_source(folder / run_folder.CHECKPOINT)
    assert len(networks_of(adapted.network)) == 2
    assert adapted.card["adapted_from"] == "rgb_kinect_v1, rgb_kinect_v1"
    page = (folder / run_folder.REPORT).read_text()
    assert "rgb_kinect_v1, rgb_kinect_v1" in page and two in page
    assert Settings(source="all").source_names == tuple(f"rgb_{sensor}" for sensor in SENSORS)
    refused(call("adapt", "--source", "rgb_kinect_v1,oracle_depth_kinect_v1"), "reads depth already")


def test_the_folder_is_named_after_the_time(here):
    folder = run_folder.free_folder(None, Settings(sensor="xtion", method="shot", seed=7))
    assert re.fullmatch(r"runs/\d{8}-\d{6}-xtion-shot-s7", folder.as_posix())


@checking(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(settings_of_any_kind())
def test_the_command_of_a_run_makes_the_same_run(quick, settings):
    """``rerun`` in config.json, typed again, asks for exactly the same settings."""
    found = []

    def note(settings):
        found.append(settings)
        raise LabError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_settings, "gather", note)
        result = call(*shlex.split(settings.command())[1:])
    assert found, result.output
    if not settings.uses_pairs:
        settings = replace(settings, pairs=found[0].pairs)
    assert found[0] == settings


@pytest.mark.parametrize("stop_at", [2, 5])
def test_ctrl_c_and_resume_end_with_the_same_numbers(here, finished, monkeypatch, stop_at):
    run, _ = finished
    adapt = run_folder.adapt

    def interrupted(*args, **kwargs):
        for event in adapt(*args, **kwargs):
            if getattr(event, "step", 0) == stop_at:
                raise KeyboardInterrupt
            yield event

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "adapt", interrupted)
        result = call("adapt", *SHORT, "--out", "cut", "--device", "cpu")
    assert result.exit_code == 130
    assert "socketlab adapt --resume cut" in result.stderr and "Traceback" not in result.output
    assert not (here / "cut" / run_folder.RESULTS).exists()
    result = call("adapt", "--resume", "cut")
    assert result.exit_code == 0, result.output
    assert epochs_without_seconds(here / "cut") == epochs_without_seconds(run.folder)
    for name in (run_folder.CHECKPOINT, run_folder.RESULTS):
        assert (here / "cut" / name).read_bytes() == (run.folder / name).read_bytes()


def test_ctrl_c_while_drawing_loses_no_epoch(here, finished, monkeypatch):
    run, _ = finished

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outcome, "illustrate", interrupted)
        assert call("adapt", *SHORT, "--out", "cut").exit_code == 130
    result = call("adapt", "--resume", "cut")
    assert result.exit_code == 0, result.output
    assert epochs_without_seconds(here / "cut") == epochs_without_seconds(run.folder)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_real_signal_leaves_a_run_that_can_be_resumed(here, sent, code):
    """The process is stopped from outside in the midst of an epoch."""
    words = [
        "adapt",
        *SHORT,
        "--out",
        "cut",
        "--device",
        "cpu",
        "--set",
        "align_epochs=0",
        "--set",
        "epochs=90",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "socketlab", *words],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have it ignored
    )  # fmt: skip
    for line in process.stderr:
        if "epoch 2 of 90" in line:
            process.send_signal(sent)
            break
    rest = process.stderr.read()
    assert process.wait(60) == code
    assert "Traceback" not in rest
    assert ("--resume cut" in rest) == (code == 130)
    run = run_folder.read(Path("cut"))
    state = run_folder.resume(run, gather(run.settings))
    assert state.epoch >= 2 and len(run.rows) - 1 == state.epoch


def test_an_unknown_sensor(here):
    refused(call("adapt", "--sensor", "webcam"), "webcam", *SENSORS)
    assert not list(here.iterdir())


def test_the_help_names_all_sensors_and_methods():
    text = " ".join(call("adapt", "--help").stdout.replace("│", " ").split())
    for name in (*SENSORS, *METHODS):
        assert name in text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lambda=1", "lambda_ti"),
        ("lambda_ti=1000", "must lie between 0 and 30"),
        ("lambda_ti=nan", "a number"),
        ("epochs=2.5", "whole number"),
        ("epochs=many", "whole number"),
        ("schedule=never", "one-cycle"),
        ("lambda_ti", "--set"),
        ("=1", "--set"),
    ],
)
def test_a_wrong_override(here, override, said):
    refused(call("adapt", "--set", override), said)
    assert not list(here.iterdir())


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """A data folder that a test may spoil."""
    folder = make_tiny_data(tmp_path / "own")
    monkeypatch.setenv("SOCKETLAB_DATA", str(folder))
    return folder


@pytest.mark.parametrize(
    "name",
    ["pocketrooms/target_adapt.depth.png", "pocketrooms/index.csv", "models/rgb_kinect_v1.safetensors"],
)
def test_a_missing_or_altered_data_file(here, own_data, name):
    with open(own_data / name, "ab") as file:
        file.write(b" ")
    refused(call("adapt", *SHORT, "--out", "run"), name, "altered")
    (own_data / name).unlink()
    refused(call("adapt", *SHORT, "--out", "run"), name, "missing")
    assert not (here / "run").exists()


def test_a_missing_data_folder(here, monkeypatch):
    monkeypatch.setenv("SOCKETLAB_DATA", str(here / "nowhere"))
    refused(call("adapt"), "nowhere", "SOCKETLAB_DATA")


def test_a_missing_source_network(here):
    refused(call("adapt", "--source", "networks/none.safetensors"), "none.safetensors")


def test_a_checkpoint_for_other_classes(here):
    normalisation = load_source("rgb_kinect_v1").normalisation
    save_source(Source(small_network(2, 8), ("cat", "dog"), normalisation, {}), here / "pets.safetensors")
    refused(call("adapt", "--source", "pets.safetensors", "--out", "run"), "cat, dog")
    assert not (here / "run").exists()


def test_a_loss_that_is_no_number(here, monkeypatch):
    monkeypatch.setattr(
        "socketlab.method.steps.total_loss", lambda terms, recipe: sum(terms.values()) * float("nan")
    )
    result = call("adapt", *SHORT, "--out", "run")
    assert result.exit_code == 2
    assert "stopped being a number" in result.stderr.splitlines()[-1]
    assert not (here / "run" / run_folder.RESULTS).exists()


def test_a_full_disk(here, monkeypatch):
    def full(*args):
        raise LabError("The disk is full: nothing was written.")

    monkeypatch.setattr(run_folder, "write_whole", full)
    refused(call("adapt", *SHORT, "--out", "run"), "disk is full")
    assert not (here / "run").exists()


def test_a_folder_that_exists_is_left_alone(here):
    (here / "run").mkdir()
    (here / "run" / "thesis.tex").write_text("x")
    refused(call("adapt", *SHORT, "--out", "run"), "exists already", "--resume run")
    assert [path.name for path in (here / "run").iterdir()] == ["thesis.tex"]


def test_resume_of_what_is_no_run(here):
    refused(call("adapt", "--resume", "nowhere"), "not a run folder")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sensor", "xtion"), "leave --sensor out"),
        (("--seed", "3"), "leave --seed out"),
        (("--set", "epochs=9"), "leave --set out"),
        (("--out", "elsewhere", "--device", "cpu"), "leave --out, --device out"),
    ],
)
def test_resume_with_another_configuration(here, finished, words, said):
    run, _ = finished
    refused(call("adapt", "--resume", run.folder, *words), "continues a run with its own settings", said)


def test_a_finished_run_is_resumed_without_another_epoch(here, finished):
    run, _ = finished
    before = epochs_without_seconds(run.folder)
    result = call("adapt", "--resume", run.folder)
    assert result.exit_code == 0, result.output
    assert epochs_without_seconds(run.folder) == before


def test_report_again(finished):
    run, _ = finished
    result = call("report", run.folder)
    assert result.exit_code == 0 and str(run.folder / run_folder.REPORT) in result.stdout
    refused(call("report", run.folder.parent), "not a run folder")
    refused(call("report", run.folder / "no" / "run"), "not a run folder")
    assert not (run.folder / "no").exists()


def test_a_checkpoints_card_names_what_it_came_from(finished):
    run, _ = finished
    card = load_source(run.folder / run_folder.CHECKPOINT).card
    assert card["adapted_from"] == "rgb_kinect_v1" and card["selection"] == "last"
    assert 0 <= card["held_out_accuracy"] <= 1


@pytest.mark.parametrize(
    ("modality", "name"), [("rgb", "rgb_kinect_v1"), ("depth", "oracle_depth_kinect_v1")]
)
def test_train_source_is_reproducible(here, monkeypatch, modality, name):
    narrow(monkeypatch)
    words = ("train-source", "--modality", modality, "--epochs", "1", "--device", "cpu")
    first, again = call(*words), call(*words, "--out", "again.safetensors")
    assert first.exit_code == again.exit_code == 0, first.output + again.output
    assert (here / f"{name}.safetensors").read_bytes() == (here / "again.safetensors").read_bytes()
    stored = load_source(here / "again.safetensors")
    card = stored.card
    held_out = rooms.load(card["tested_on"], "kinect_v1", (modality,))
    assert features.accuracy(stored, held_out) == pytest.approx(card["held_out_accuracy"], abs=1e-4)
    assert card["tested_on"] == ("target_test" if modality == "depth" else "source_test")
    assert f"{100 * card['held_out_accuracy']:.1f} %" in first.stdout
    assert card["data_digest"] == rooms_digest()
    call(*words, "--out", "other.safetensors", "--seed", "1")
    assert (here / "other.safetensors").read_bytes() != (here / "again.safetensors").read_bytes()


def narrow(monkeypatch):
    from socketlab.runs import train_source as source

    recipe = source.SourceRecipe
    monkeypatch.setattr(source, "SourceRecipe", lambda **about: recipe(**about, batch_size=8, width=8))


def test_train_source_refuses_before_it_trains(here):
    (here / "rgb_kinect_v1.safetensors").write_bytes(b"mine")
    refused(call("train-source"), "exists already")
    refused(call("train-source", "--modality", "sound"), "sound")
    refused(call("train-source", "--sensor", "webcam"), "webcam")
    refused(call("train-source", "--epochs", "0", "--out", "new"), "epochs")
    assert (here / "rgb_kinect_v1.safetensors").read_bytes() == b"mine"


def test_ctrl_c_in_training_writes_nothing(here, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("socketlab.runs.splits.train", interrupted)
    result = call("train-source")
    assert result.exit_code == 130 and "Traceback" not in result.output
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("report", "code"), [("[ok] Python: 3.12", 0), ("[ok] Python\n[--] data: altered", 1)]
)
def test_doctor_says_what_to_do_by_its_exit_code(monkeypatch, report, code):
    monkeypatch.setattr(doctor, "report", lambda: report)
    result = call("doctor")
    assert result.exit_code == code and result.stdout == report + "\n"


def test_help_needs_no_torch():
    """Only then it answers in well under a second."""
    code = "import sys; sys.argv[1:] = ['--help']; import socketlab.cli as c\ntry: c.main()\n"
    code += (
        "except SystemExit: print([m for m in ('torch', 'numpy', 'matplotlib', 'umap') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "train-source" in done.stdout


def test_the_tiny_data_are_whole(tiny_data):
    assert files.verified("pocketrooms/index.csv").is_file()
    assert TINY.total_epochs == 3


@pytest.mark.parametrize("page", ["cp1252", "cp850", "cp932"])
def test_output_into_a_file_whose_code_page_lacks_letters_is_whole(page, tmp_path):
    """Ticks, arrows and λ become question marks; no line is lost, also where a check fails."""
    (tmp_path / "manifest.json").write_text('{"gone.bin": "00"}')
    more = {"SOCKETLAB_DATA": str(tmp_path), "PYTHONIOENCODING": page}
    done = subprocess.run(
        [sys.executable, "-m", "socketlab", "doctor"], env=os.environ | more, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2 + 6
    assert b"gone.bin" in done.stdout
    assert b"Traceback" not in done.stdout + done.stderr


def test_the_encoding_that_pairs_choose_stands_in_configuration_and_report(here, tiny_data, monkeypatch):
    choice = EncodingChoice("inverse", {"metric": 0.2, "inverse": 0.125}, 20)
    seen = []
    monkeypatch.setattr(run_settings, "choose_encoding", lambda *about, **more: seen.append(more) or choice)
    result = call(
        "adapt", *SHORT, "--depth-encoding", "auto", "--seed", "3", "--out", "run", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    run = run_folder.read(here / "run")
    assert seen[0]["seed"] == 3
    assert run.settings.depth_encoding == "inverse"
    assert "--depth-encoding inverse" in run.config.rerun
    assert load_source(here / "run" / run_folder.CHECKPOINT).normalisation.depth_encoding == "inverse"
    assert "lowest partner rank on 20 held-out pairs" in (here / "run" / run_folder.REPORT).read_text()
    assert call("adapt", "--resume", "run").exit_code == 0
    assert len(seen) == 1


def test_an_encoding_cannot_be_chosen_without_pairs(here, tiny_data):
    refused(
        call("adapt", "--method", "shot", "--depth-encoding", "auto"), "chosen by pairs", "name an encoding"
    )


@pytest.mark.parametrize(
    ("images", "batch", "epochs"),
    [(480, 32, (10, 5)), (151, 32, (40, 20)), (20, 32, (100, 75)), (64, 4, (10, 5))],
)
def test_a_small_target_has_as_many_steps_as_the_rooms(images, batch, epochs):
    recipe = run_settings.lengthened(Recipe(batch_size=batch), images)
    assert (recipe.align_epochs, recipe.epochs) == epochs


def test_the_command_lengthens_no_epochs_that_were_given(here, tiny_data):
    words = (
        "adapt",
        "--method",
        "shot",
        "--device",
        "cpu",
        "--set",
        "batch_size=8",
        "--set",
        "trunk_lr=0.001",
    )
    assert call(*words, "--set", "epochs=1", "--out", "one").exit_code == 0
    assert run_folder.read(here / "one").settings.recipe.epochs == 1


def test_the_thorough_recipe_is_stored_and_repeated(here, tiny_data):
    result = call("adapt", "--thorough", *SHORT, "--out", "run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    recipe, thorough = run_folder.read(here / "run").settings.recipe, Recipe.thorough()
    assert recipe.pair_views == thorough.pair_views == 0
    refused(call("adapt", "--thorough", "--method", "shot"), "--thorough is a recipe of socket", "shot")
