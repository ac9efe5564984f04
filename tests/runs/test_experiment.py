"""The paper's experiments: their files, what they would do, and one of them from end to end."""

import csv
import dataclasses
import os
import re
import shlex
from pathlib import Path
from statistics import mean, stdev

import formats
import joblib
import pytest
import torch
import typer
from command_line import call, refused

from socketlab import cli
from socketlab.errors import LabError
from socketlab.files import exclusive
from socketlab.images.encodings import DEPTH_ENCODINGS
from socketlab.images.importers import survey, write_pack
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import load_source
from socketlab.runs import experiment, run_folder
from socketlab.runs.experiment import ORACLE, jobs, load, shortened
from socketlab.runs.results import TITLES


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """A folder of packs, 24 pixels wide."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("sunrgbd", "rgbnir"):
        raw = formats.WRITERS[kind](root / "raw" / kind)
        write_pack(survey(kind, raw), root / "packs" / kind, size=24, processes=1)
    return root / "packs"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


PRESETS = sorted(file.stem for file in experiment.FOLDER.glob("*.toml"))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_begins_as_published(name):
    """ImageNet's ResNet-50, the published rates in every row, the published recipe, and the controls."""
    preset = load(name)
    network = preset.network
    assert (network.backbone, network.weights, network.epochs) == ("resnet50", "DEFAULT", 20)
    assert (network.rate, network.trunk_rate, network.schedule) == (1e-2, 1e-3, "paper")
    rows = {row.title: row for row in preset.rows}
    assert rows[TITLES["paper"]].recipe == Recipe.paper()
    assert {row.method for row in preset.rows} >= {"source-only", "adabn", "shot", "socket", "paper"}
    for row in preset.rows:
        assert (row.recipe.trunk_lr, row.recipe.bottleneck_lr) == (1e-3, 1e-2)
    assert rows["SOCKET with BN"].recipe == rows["SOCKET"].recipe.replace(lambda_bn=0.1)
    assert PRESETS == ["diml", "rgbnir", "sunrgbd-multi", "sunrgbd-single"]


def test_single_is_four_by_four_and_multi_is_one_by_four(packs):
    pack = experiment.packs.open_pack(packs / "sunrgbd")
    single, multi = (jobs(load(f"sunrgbd-{way}"), pack, 3) for way in ("single", "multi"))
    trained = [job for job in single if job.row.method == "socket" and not job.row.recipe.lambda_bn]
    assert len(trained) == 4 * 4 * 3
    assert {(job.sources, job.target) for job in trained} == {
        ((s,), t) for s in pack.domains for t in pack.domains
    }
    assert sum(job.row.method == "adabn" for job in single) == 16  # nothing in it is drawn
    assert {job.sources for job in multi} == {pack.domains}
    assert {job.target for job in multi} == set(pack.domains)
    own = dataclasses.replace(load("sunrgbd-single"), sources="own")
    assert {(job.sources, job.target) for job in jobs(own, pack, 1)} == {((d,), d) for d in pack.domains}


def test_a_dry_run_says_what_would_be_done_and_opens_no_image(packs, here, monkeypatch):
    monkeypatch.setattr(experiment.packs.Pack, "_array", None)
    monkeypatch.setattr(experiment.splits, "domains_with", lambda pack, modality: list(pack.domains))
    result = call("experiment", "sunrgbd-multi", "--data", packs, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "4 × resnet50, weights DEFAULT, 20 epochs" in result.stdout
    assert "12 runs SOCKET as published: 15 epochs" in result.stdout
    assert "0 of 56 runs are done" in result.stdout
    assert not list(here.iterdir())
    assert "24 pixels wide" in result.stdout


def test_an_experiment_from_end_to_end_is_resumed_and_says_what_it_measured(packs, here, monkeypatch):
    """Stopped within a run, gone on with, called once more: the tables are those of an uninterrupted call."""
    words = (
        "experiment",
        "rgbnir",
        "--data",
        packs,
        "--quick",
        "--seeds",
        "2",
        "--device",
        "cpu",
        "--workers",
        "1",
    )
    whole = call(*words, "--out", "whole")
    assert whole.exit_code == 0, whole.output
    adapt, steps = run_folder.adapt, []

    def interrupted(*args, **kwargs):
        for event in adapt(*args, **kwargs):
            steps.append(event)
            if len(steps) == 20:
                raise KeyboardInterrupt
            yield event

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "adapt", interrupted)
        assert call(*words, "--out", "cut").exit_code == 130
    first = lines(here / "cut" / "runs.csv")
    assert 0 < len(first) < 11 and list((here / "cut" / "unfinished").iterdir())
    assert f"{len(first) - 1} of 10 runs are done in cut" in call(*words, "--out", "cut", "--dry-run").stdout
    again = call(*words, "--out", "cut")
    assert again.exit_code == 0 and "network for" not in again.stderr
    for name in ("table.csv", "table.md"):
        assert (here / "cut" / name).read_bytes() == (here / "whole" / name).read_bytes()
    assert not list((here / "cut" / "unfinished").iterdir())
    assert "10 of 10 runs are done" in call(*words, "--out", "cut", "--dry-run").stdout
    monkeypatch.setattr(experiment._Work, "measure", None)  # nothing is left to be done
    assert call(*words, "--out", "cut").exit_code == 0
    found = lines(here / "whole" / "runs.csv")
    table = {line["method"]: line for line in lines(here / "whole" / "table.csv") if line["target"] == "all"}
    assert (
        next(iter(table)) == ORACLE and table["source only"]["runs"] == "1" and table["SHOT"]["runs"] == "2"
    )
    for method in ("SHOT", "SOCKET as published"):
        values = [100 * float(line["held_out"]) for line in found if line["method"] == method]
        assert float(table[method]["held_out"]) == pytest.approx(mean(values), abs=0.01)
        assert float(table[method]["held_out_std"]) == pytest.approx(stdev(values), abs=0.01)
    text = (here / "whole" / "table.md").read_text()
    assert f"| SHOT | 2 | {float(table['SHOT']['held_out']):.1f} ±" in text and "rgbnir → rgbnir" in text
    assert text in whole.stdout
    names = sorted(path.name for path in (here / "whole" / "networks").iterdir())
    assert names == ["nir_rgbnir.safetensors", "rgb_rgbnir.safetensors"]


@pytest.mark.slow
def test_two_processes_side_by_side_write_the_same_tables(packs, here):
    """One thread in each, as in the one that works alone: the numbers are equal to the bit."""
    preset = shortened(load("rgbnir"))
    preset = dataclasses.replace(preset, rows=preset.rows[1:4])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = experiment.carry_out(preset, packs, here / "alone", seeds=2, workers=1, log=lambda text: None)
    finally:
        torch.set_num_threads(threads)
    workers, said = max(2, joblib.cpu_count()), []
    together = experiment.carry_out(preset, packs, here / "two", seeds=2, workers=workers, log=said.append)
    assert alone.read_text() == together.read_text()
    found = [
        sorted(
            (line["origin"], line["held_out"], line["class_mean"]) for line in lines(here / out / "runs.csv")
        )
        for out in ("alone", "two")
    ]
    assert found[0] == found[1]
    assert sum("run " in text for text in said) == 5
    assert not list((here / "two" / "unfinished").iterdir())


def test_an_experiment_is_carried_out_once_at_a_time(packs, here):
    with exclusive(here / "out"):
        words = ("experiment", "rgbnir", "--data", packs, "--quick", "--out", "out")
        refused(call(*words), "Another process is working in out")


def test_what_has_changed_is_measured_again(packs, here):
    preset = shortened(load("rgbnir"))
    preset = dataclasses.replace(preset, rows=preset.rows[:3], oracle=False)
    said = []
    experiment.carry_out(preset, packs, here / "out", seeds=1, log=said.append)
    before = {line["method"]: line["origin"] for line in lines(here / "out" / "runs.csv")}
    row = dataclasses.replace(preset.rows[2], recipe=preset.rows[2].recipe.replace(lambda_im=0.5))
    changed = dataclasses.replace(preset, rows=(*preset.rows[:2], row))
    said.clear()
    experiment.carry_out(changed, packs, here / "out", seeds=1, log=said.append)
    after = {line["method"]: line["origin"] for line in lines(here / "out" / "runs.csv")}
    assert len(said) == 1 and "SHOT" in said[0]
    assert before["SHOT"] in (here / "out" / "runs.csv").read_text()  # measured, so kept; not in the table
    table = [line for line in lines(here / "out" / "table.csv") if line["target"] == "all"]
    assert [line["runs"] for line in table] == ["1", "1", "1"]
    assert [before[name] == after[name] for name in before] == [True, True, False]
    network = dataclasses.replace(preset.network, rate=0.01)
    said.clear()
    experiment.carry_out(
        dataclasses.replace(changed, network=network), packs, here / "out", seeds=1, log=said.append
    )
    assert sum("network for" in line for line in said) == 1 and sum("run " in line for line in said) == 3
    card = load_source(here / "out" / "networks" / "rgb_rgbnir.safetensors").card
    assert card["recipe"]["rate"] == 0.01


def test_several_sources_adapt_as_one(packs, here):
    preset = shortened(load("sunrgbd-multi"))
    preset = dataclasses.replace(preset, rows=(preset.rows[0], preset.rows[-1]), oracle=False)
    table = experiment.carry_out(preset, packs, here / "out", seeds=1, log=lambda text: None)
    found = lines(here / "out" / "runs.csv")
    assert len(found) == 8 and len({line["target"] for line in found}) == 4
    assert {line["source"] for line in found} == {"kinect_v1 + kinect_v2 + realsense + xtion"}
    assert "kinect_v1 + kinect_v2 + realsense + xtion → xtion" in table.read_text()


def test_a_diverged_run_is_told(packs, here, monkeypatch):
    preset = shortened(load("rgbnir"))
    preset = dataclasses.replace(preset, rows=preset.rows[3:4], oracle=False)
    adapt = run_folder.adapt

    def diverging(*args, **kwargs):
        for event in adapt(*args, **kwargs):
            yield event
            if getattr(event, "step", 0):
                raise LabError("the loss stopped being a number at step 1 (TI = nan): lower the rates")

    monkeypatch.setattr(run_folder, "adapt", diverging)
    table = experiment.carry_out(preset, packs, here / "out", seeds=2, log=lambda text: None)
    assert lines(here / "out" / "runs.csv")[0]["chosen_by"] == "diverged"
    assert "2 diverged" in table.read_text()


def test_presets_that_cannot_be_are_refused_in_a_sentence(packs, here):
    refused(call("experiment", "sunrgbd"), "choose diml, rgbnir, sunrgbd-multi, sunrgbd-single")
    refused(call("experiment", "diml", "--data", packs), "socketlab import diml PATH --out")
    text = (experiment.FOLDER / "rgbnir.toml").read_text(encoding="utf-8")
    wrong = {
        "not TOML": text + "[[row",
        "lacks title": text.replace("title =", "# title =", 1),
        "experiment has no colour": "colour = 3\n" + text,
        "'magic' is unknown": text.replace('method = "adabn"', 'method = "magic"'),
        "a recipe has no lambda_x": text.replace("lambda_bn", "lambda_x"),
        "backbone 'resnet19' is unknown": text.replace("resnet50", "resnet19"),
        "sources 'some' is unknown": text.replace('sources = "own"', 'sources = "some"'),
        "epochs must be a whole number, not 'many'": text.replace("epochs = 20", 'epochs = "many"'),
        "depth_encoding must be a text, not 3": "depth_encoding = 3\n" + text,
        "oracle must be true or false, not 'no'": text.replace("oracle = true", 'oracle = "no"'),
        "pack must be a text, not 3": text.replace('pack = "rgbnir"', "pack = 3"),
        "row must be a list": text[: text.index("[[row]]")].replace("title", "row = 3\ntitle", 1),
        "nested too deeply": f"title = {'[' * 10_000}",
        "there is no row": "row = []\n" + text[: text.index("[[row]]")],
    }
    for said, content in wrong.items():
        (here / "mine.toml").write_text(content, encoding="utf-8")
        refused(call("experiment", "mine.toml", "--data", packs), said)
    (here / "other").mkdir()
    (here / "other" / "runs.csv").write_text("a,b\n1,2\n")
    words = ("--data", packs, "--out", here / "other", "--dry-run")
    refused(call("experiment", "rgbnir", *words), "is no table of an experiment's runs")
    (here / "mine.toml").write_text(text.replace('target = "nir"', 'target = "depth"'), encoding="utf-8")
    refused(call("experiment", "mine.toml", "--data", packs), "'depth' is unknown: choose one of rgb, nir")


def test_the_commands_of_the_page_are_understood():
    """Every command line of docs/real_data.md: its options are there, and take such values."""
    text = (Path(__file__).parents[2] / "docs" / "real_data.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^socketlab (.+)$", text, re.MULTILINE)]
    assert {name for name, *_ in commands} == {"import", "train-source", "adapt", "compare", "experiment"}
    known = typer.main.get_command(cli.app)
    for name, *words in commands:
        command = known.get_command(None, name)
        found = command.make_context(name, [os.path.expanduser(word) for word in words]).params
        if name == "experiment" and not found["name"].endswith(".toml"):
            load(found["name"])
    described, measured = text.split("<!-- results:encodings -->")
    for table in (described, measured):
        assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(DEPTH_ENCODINGS)
