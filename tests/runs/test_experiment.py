"""The paper's experiments: their files, what they would do, and one of them from end to end."""

import csv
import dataclasses
import os
import re
import shlex
from pathlib import Path
from statistics import mean, stdev

import formats
import pytest
import typer
from command_line import call, refused

from socketlab import cli
from socketlab.errors import LabError
from socketlab.images.encodings import DEPTH_ENCODINGS
from socketlab.images.importers import survey
from socketlab.images.pack_writer import write_pack
from socketlab.method.recipe import Recipe
from socketlab.networks.checkpoints import load_source
from socketlab.runs import expectations, experiment
from socketlab.runs import folder as run_folder
from socketlab.runs.experiment import ORACLE, jobs, load, shortened
from socketlab.runs.results import TITLES
from socketlab.runs.train_source import SourceRecipe


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """A folder of packs, 24 pixels wide."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("sunrgbd", "rgbnir"):
        raw = formats.WRITERS[kind](root / "raw" / kind)
        write_pack(survey(kind, raw, processes=1), root / "packs" / kind, size=24, processes=1)
    return root / "packs"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", experiment.names())
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
    assert set(experiment.names()) == {"sunrgbd-single", "sunrgbd-multi", "diml", "rgbnir"}


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
    own = dataclasses.replace(load("sunrgbd-single"), same_domain=True)
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
    stored = sum(file.stat().st_size for file in (packs / "sunrgbd").glob("*.npy"))
    assert f"images    {stored / 1e9:.2g} GB in the pack, 24 pixels wide" in result.stdout
    assert "PFLOP" in result.stdout and "GB of a GPU at least" in result.stdout
    assert result.stdout.count("counted, not measured") == 2


def test_what_an_experiment_costs_is_counted():
    """ResNet-50's 8.2 GFLOP and 23.5 million weights; passes of recipes that were written down by hand."""
    trunk = expectations.trunk_cost("resnet50", 32, 224)
    assert trunk.operations == pytest.approx(8.2e9, rel=0.01) and trunk.weights == 23_508_032
    socket, shot = Recipe.socket(), Recipe.for_method("shot")
    assert (socket.align_epochs, socket.epochs, socket.test_statistics) == (10, 5, "reestimated")
    assert expectations.passes(socket) == (10 * 4 + 5 * 7, 16 * 2)
    assert expectations.passes(shot, 3) == (3 * 3 * shot.epochs, 3 * 2 * (shot.epochs + 1))
    assert expectations.passes(Recipe.for_method("source-only")) == (0, 2)
    learning, looking = expectations.passes(socket)
    whole = expectations.of_run(socket, trunk, 1000, 100)
    assert whole == pytest.approx(trunk.operations * (1000 * (learning + looking) + 16 * 100))
    recipe = SourceRecipe(epochs=20)
    assert expectations.of_network(recipe, trunk, 10, 5) == trunk.operations * (3 * 20 * 10 + 5)


def test_least_memory_is_what_a_backward_pass_keeps():
    """By hand, for a convolution, a batch norm and a ReLU: their inputs and what they keep of the batch."""
    trunk = expectations.Trunk(1.0, 1000.0, 10)
    both = Recipe.socket().replace(batch_size=4)
    assert expectations.least_memory([both], trunk, 2, 7) == 2 * (16 * 10 + 2 * 1000 * 8) + 7
    assert expectations.least_memory([Recipe.for_method("adabn")], trunk, 1) == 160
    with pytest.raises(LabError, match="Views of 21 pixels are too small for vgg16_bn"):
        expectations.trunk_cost("vgg16_bn", 32, 21)
    small = expectations.trunk_cost("small", 8, 32)
    stem = 8 * 16 * 16  # the stem's output, which batch norm and the next layers keep
    assert stem < small.kept < 40 * stem
    words = [expectations.duration(s) for s in (0.2, 40, 100, 7200, 72000)]
    assert words == ["1 s", "40 s", "1.7 minutes", "2.0 hours", "20 hours"]


def test_an_experiment_from_end_to_end_is_resumed_and_says_what_it_measured(packs, here, monkeypatch):
    """Stopped within a run, gone on with, called once more: the tables are those of an uninterrupted call."""
    words = ("experiment", "rgbnir", "--data", packs, "--quick", "--seeds", "2", "--device", "cpu")
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
    told = call(*words, "--out", "cut", "--dry-run").stdout
    assert re.search(r"\d of 10 runs are done in cut; the longest took \d+ s: .* for the others", told), told
    again = call(*words, "--out", "cut")
    assert again.exit_code == 0 and "training on" not in again.stderr
    for name in ("table.csv", "table.md"):
        assert (here / "cut" / name).read_bytes() == (here / "whole" / name).read_bytes()
    assert not list((here / "cut" / "unfinished").iterdir())
    told = call(*words, "--out", "cut", "--dry-run").stdout
    assert "10 of 10 runs are done" in told and "the longest took" not in told
    monkeypatch.setattr(experiment, "_carried_out", None)  # nothing is left to be done
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


def test_what_has_changed_is_measured_again(packs, here):
    preset = shortened(load("rgbnir"))
    preset = dataclasses.replace(preset, rows=preset.rows[:3], oracle=False)
    said = []
    experiment.carry_out(preset, packs, here / "out", seeds=1, say=said.append)
    before = {line["method"]: line["origin"] for line in lines(here / "out" / "runs.csv")}
    row = dataclasses.replace(preset.rows[2], recipe=preset.rows[2].recipe.replace(lambda_im=0.5))
    changed = dataclasses.replace(preset, rows=(*preset.rows[:2], row))
    said.clear()
    experiment.carry_out(changed, packs, here / "out", seeds=1, say=said.append)
    after = {line["method"]: line["origin"] for line in lines(here / "out" / "runs.csv")}
    assert len(said) == 1 and "SHOT" in said[0]
    assert before["SHOT"] in (here / "out" / "runs.csv").read_text()  # measured, so kept; not in the table
    table = [line for line in lines(here / "out" / "table.csv") if line["target"] == "all"]
    assert [line["runs"] for line in table] == ["1", "1", "1"]
    assert [before[name] == after[name] for name in before] == [True, True, False]
    network = dataclasses.replace(preset.network, rate=0.01)
    said.clear()
    experiment.carry_out(
        dataclasses.replace(changed, network=network), packs, here / "out", seeds=1, say=said.append
    )
    assert sum("training on" in line for line in said) == 1 and sum("run " in line for line in said) == 3
    card = load_source(here / "out" / "networks" / "rgb_rgbnir.safetensors").card
    assert card["recipe"]["rate"] == 0.01


def test_several_sources_adapt_as_one(packs, here):
    preset = shortened(load("sunrgbd-multi"))
    preset = dataclasses.replace(preset, rows=(preset.rows[0], preset.rows[-1]), oracle=False)
    table = experiment.carry_out(preset, packs, here / "out", seeds=1, say=lambda text: None)
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
    table = experiment.carry_out(preset, packs, here / "out", seeds=2, say=lambda text: None)
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
        "no backbone 'resnet19'": text.replace("resnet50", "resnet19"),
        "sources 'some' is unknown": text.replace('sources = "own"', 'sources = "some"'),
        "a value that cannot be": text.replace("epochs = 20", 'epochs = "many"'),
        "size = 'large' cannot be: it must be a whole number": 'size = "large"\n' + text,
        "oracle = 'no' cannot be: it must be true or false": text.replace("oracle = true", 'oracle = "no"'),
        "pack = 3 cannot be: it must be a text": text.replace('pack = "rgbnir"', "pack = 3"),
        "there is no row": "row = []\n" + text[: text.index("[[row]]")],
    }
    for said, content in wrong.items():
        (here / "mine.toml").write_text(content, encoding="utf-8")
        refused(call("experiment", "mine.toml", "--data", packs), said)
    (here / "other").mkdir()
    (here / "other" / "runs.csv").write_text("a,b\n1,2\n")
    words = ("--data", packs, "--out", here / "other", "--dry-run")
    refused(call("experiment", "rgbnir", *words), "holds other things than runs of an experiment")
    (here / "mine.toml").write_text(text.replace('target = "nir"', 'target = "depth"'), encoding="utf-8")
    refused(call("experiment", "mine.toml", "--data", packs), "no depth images in train, only rgb, nir")


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
