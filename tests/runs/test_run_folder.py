"""Run folders: what is written, that it can be resumed and read again, and that nothing is half-written."""

import copy
import csv
import errno
import json
import os
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import TINY, epochs_without_seconds, full_run, settings_of_any_kind
from worlds import patterned

from socketlab import files, rooms
from socketlab.errors import LabError
from socketlab.figures import report
from socketlab.figures.film import script_policy
from socketlab.figures.report import Figure, Score, gap_closed, interval, page
from socketlab.files import from_json
from socketlab.method import steps
from socketlab.method.recipe import METHODS, Recipe
from socketlab.networks.checkpoints import Source, load_source, save_source
from socketlab.networks.networks import small_network
from socketlab.runs import run_folder
from socketlab.runs import settings as run_settings
from socketlab.runs.results import TITLES, again, effective_images, finish, score
from socketlab.runs.settings import Settings, gather

pytestmark = pytest.mark.usefixtures("quick")


def test_a_finished_run_holds_all_its_files(finished):
    run, _ = finished
    names = {path.name for path in run.folder.iterdir()}
    pictures = {"confusion.png", "mistakes.png", "map.png", "losses.png"}
    assert names == {
        run_folder.CONFIG, run_folder.EPOCHS, run_folder.STATE, run_folder.RESULTS,
        run_folder.CHECKPOINT, run_folder.REPORT, run_folder.FILM, *pictures
    }  # fmt: skip


def test_a_row_per_epoch_with_marked_accuracies(finished):
    run, results = finished
    with open(run.folder / run_folder.EPOCHS, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1]["TI"] != "" and rows[1]["IM"] == ""  # alignment first, all terms later
    assert rows[2]["IM"] != "" and rows[2]["PL"] != ""
    assert all(name.startswith("unseen_by_method") for name in rows[0] if "accuracy" in name)
    assert float(rows[-1][run_folder.HELD_OUT]) == pytest.approx(results.scores[1].held_out, abs=1e-6)


def test_the_checkpoint_is_the_network_of_the_last_epoch(finished):
    run, results = finished
    adapted = load_source(run.folder / run_folder.CHECKPOINT)
    measured = score("again", adapted, gather(run.settings), adapts=True)
    assert measured.held_out == results.scores[1].held_out
    assert adapted.modality == "depth"
    assert adapted.card["selection"] == "last"


def test_no_colour_picture_of_the_task_is_opened(monkeypatch):
    opened = []
    verified = files.verified
    monkeypatch.setattr(rooms, "verified", lambda name: opened.append(name) or verified(name))
    gather(Settings(recipe=TINY))
    colour = [name for name in opened if ".rgb." in name]
    assert colour == ["pocketrooms/ti_near.rgb.jpg"]


def test_labels_change_no_weight(finished, tmp_path, monkeypatch):
    """The target's labels are shuffled: accuracies change, the network does not."""
    run, _ = finished
    load = rooms.load

    def shuffled(split, *args, **kwargs):
        images = load(split, *args, **kwargs)
        return replace(images, kinds=images.kinds[::-1]) if split.startswith("target") else images

    monkeypatch.setattr(rooms, "load", shuffled)
    other, _ = full_run(tmp_path / "shuffled", run.settings)
    ours, theirs = (load_source(r.folder / run_folder.CHECKPOINT).network.state_dict() for r in (run, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("stop_at", [1, 4, 8])
def test_resuming_ends_with_the_same_numbers(finished, tmp_path, stop_at):
    run, _ = finished
    material = gather(run.settings)
    cut = run_folder.create(tmp_path / "cut", run.settings, material)
    for event in run_folder.record(cut, material):
        if getattr(event, "step", 0) == stop_at:
            break
    resumed, material = run_folder.read(cut.folder), gather(run.settings)
    state = run_folder.resume(resumed, material)
    for event in run_folder.record(resumed, material, state):
        state = getattr(event, "state", state)
    finish(resumed, material, state)
    assert epochs_without_seconds(resumed.folder) == epochs_without_seconds(run.folder)
    for name in (run_folder.CHECKPOINT, run_folder.RESULTS):
        assert (resumed.folder / name).read_bytes() == (run.folder / name).read_bytes()


@pytest.mark.parametrize("rule", ["information", "agreement", "bn_closeness"])
def test_a_rule_chooses_the_epoch_and_resuming_changes_nothing(tmp_path, monkeypatch, rule):
    """The network of the best score is measured and kept; `agreement` needs the epoch before."""
    settings = Settings(recipe=TINY, choose=rule)
    states = {}
    save = run_folder.State.save
    monkeypatch.setattr(
        run_folder.State, "save",
        lambda state, path: states.update({state.epoch: copy.deepcopy(state.adapted)}) or save(state, path),
    )  # fmt: skip
    run, results = full_run(tmp_path / "whole", settings)
    scores = run.curve(run_folder.SCORE)[1]
    best = max(range(4), key=lambda epoch: (scores[epoch], epoch))
    assert run.which == f"epoch {best}, chosen by {rule}"
    kept = load_source(run.folder / run_folder.CHECKPOINT)
    assert kept.card["selection"] == rule
    wanted = states[best].network.state_dict()
    assert all(torch.equal(kept.network.state_dict()[name], wanted[name]) for name in wanted)
    assert results.scores[1].held_out == score("again", states[best], gather(settings), adapts=True).held_out
    assert f"that of epoch {best}, chosen by {rule}" in (run.folder / run_folder.REPORT).read_text()
    material = gather(settings)
    cut = run_folder.create(tmp_path / "cut", settings, material)
    for event in run_folder.record(cut, material):
        if getattr(event, "step", 0) == 5:
            break
    resumed = run_folder.read(cut.folder)
    state = run_folder.resume(resumed, material)
    for event in run_folder.record(resumed, material, state):
        state = getattr(event, "state", state)
    finish(resumed, material, state)
    assert epochs_without_seconds(resumed.folder) == epochs_without_seconds(run.folder)
    assert (resumed.folder / run_folder.CHECKPOINT).read_bytes() == (
        run.folder / run_folder.CHECKPOINT
    ).read_bytes()


@pytest.mark.parametrize(("made", "changed"), [("last", "information"), ("information", "last")])
def test_another_rule_than_the_run_began_with_is_refused(tmp_path, made, changed):
    run, _ = full_run(tmp_path / "run", Settings(recipe=TINY, choose=made))
    config = json.loads((run.folder / run_folder.CONFIG).read_text())
    config["settings"]["choose"] = changed
    (run.folder / run_folder.CONFIG).write_text(json.dumps(config))
    again = run_folder.read(run.folder)
    with pytest.raises(LabError, match="was changed since the run began"):
        run_folder.resume(again, gather(again.settings))


def test_a_row_without_its_state_is_written_again(finished, tmp_path):
    """Killed after ``epochs.csv`` and before the state: the epoch is repeated, not doubled."""
    run, _ = finished
    material = gather(run.settings)
    cut = run_folder.create(tmp_path / "cut", run.settings, material)
    for event in run_folder.record(cut, material):
        if getattr(event, "step", 0) == 4:
            break
    cut.add({**cut.rows[-1], "epoch": "2"})
    again = run_folder.read(cut.folder)
    state = run_folder.resume(again, material)
    assert (state.epoch, len(again.rows) - 1) == (1, 1)
    for _ in run_folder.record(again, material, state):
        pass
    assert epochs_without_seconds(again.folder) == epochs_without_seconds(run.folder)


def test_a_run_without_an_epoch_starts_over(tmp_path):
    settings = Settings(recipe=TINY)
    material = gather(settings)
    run = run_folder.create(tmp_path / "new", settings, material)
    assert run_folder.resume(run_folder.read(run.folder), material) is None


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_with_a_report(method, tmp_path):
    recipe = Recipe.for_method(method)
    short = recipe.replace(
        align_epochs=min(recipe.align_epochs, 1),
        epochs=min(recipe.epochs, 1),
        batch_size=TINY.batch_size,
        trunk_lr=TINY.trunk_lr,
        bottleneck_lr=TINY.bottleneck_lr,
    )
    run, results = full_run(tmp_path / method, Settings(method=method, recipe=short))
    text = (run.folder / run_folder.REPORT).read_text()
    assert report.percent(results.scores[1].held_out) in text
    assert results.scores[1].name == TITLES[method]
    assert len(run.rows) == short.total_epochs + 1
    if method == "source-only":
        assert (
            results.scores[1].held_out
            == results.scores[0].held_out
            == float(run.rows[0][run_folder.HELD_OUT])
        )


@given(settings_of_any_kind())
def test_settings_survive_the_configuration_file(settings):
    assert from_json(Settings, json.loads(json.dumps(asdict(settings)))) == settings


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"sensor": "webcam"}, "kinect_v1, kinect_v2"),
        ({"method": "magic"}, "socket"),
        ({"pairs": "close"}, "near, far, both"),
        ({"pair_count": 0}, "pair count 0"),
        ({"strength": 3.5}, "from 0 to 3"),
        ({"strength": float("nan")}, "from 0 to 3"),
        ({"seed": -1}, "seed -1"),
        ({"depth_encoding": "sepia"}, "metric, inverse"),
        ({"domain": "xtion"}, "--pack"),
        ({"device": "tpu"}, "cpu, cuda"),
    ],
)
def test_settings_out_of_range_are_named(wrong, named):
    with pytest.raises(LabError, match=named):
        Settings(**wrong)


def test_a_network_for_other_classes_is_refused(tmp_path):
    ours = load_source("rgb_kinect_v1")
    other = Source(small_network(2, 8), ("cat", "dog"), ours.normalisation, {})
    save_source(other, tmp_path / "pets.safetensors")
    with pytest.raises(LabError, match="cat, dog"):
        gather(Settings(source=str(tmp_path / "pets.safetensors"), recipe=TINY))


def test_a_network_that_reads_depth_already_is_refused():
    with pytest.raises(LabError, match="reads depth already"):
        gather(Settings(source="oracle_depth_kinect_v1", recipe=TINY))


def test_a_loss_that_is_no_number_leaves_the_last_epoch(tmp_path, monkeypatch):
    settings = Settings(recipe=TINY)
    material = gather(settings)
    run = run_folder.create(tmp_path / "nan", settings, material)
    weighted, calls = steps.total_loss, []

    def spoiled(terms, recipe):
        calls.append(1)
        return weighted(terms, recipe) * (float("nan") if len(calls) == 5 else 1)

    monkeypatch.setattr(steps, "total_loss", spoiled)
    with pytest.raises(LabError, match="number"):
        list(run_folder.record(run, material))
    assert run_folder.resume(run_folder.read(run.folder), material).epoch == 1


def fill_the_disk(monkeypatch, when):
    """From now on there is no room for a file whose name holds ``when``."""
    replace_ = os.replace

    def full(source, target):
        if when in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_(source, target)

    monkeypatch.setattr(os, "replace", full)


def test_a_full_disk_at_the_start_leaves_no_folder(tmp_path, monkeypatch):
    settings = Settings(recipe=TINY)
    material = gather(settings)
    fill_the_disk(monkeypatch, run_folder.CONFIG)
    with pytest.raises(LabError, match="disk is full"), run_folder.locked(tmp_path / "full"):
        run_folder.create(tmp_path / "full", settings, material)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", [run_folder.EPOCHS, run_folder.STATE])
def test_a_full_disk_later_leaves_a_run_that_goes_on(finished, tmp_path, monkeypatch, file):
    run, _ = finished
    material = gather(run.settings)
    cut = run_folder.create(tmp_path / "full", run.settings, material)
    events = run_folder.record(cut, material)
    while getattr(next(events), "step", 0) < 5:
        pass
    with monkeypatch.context() as patch:
        fill_the_disk(patch, file)
        with pytest.raises(LabError, match="disk is full"):
            list(events)
    assert not [path for path in cut.folder.iterdir() if "unfinished" in path.name]
    again = run_folder.read(cut.folder)
    for _ in run_folder.record(again, material, run_folder.resume(again, material)):
        pass
    assert epochs_without_seconds(again.folder) == epochs_without_seconds(run.folder)


def test_changed_images_or_networks_stop_a_resume(finished, tmp_path):
    run, _ = finished
    material = gather(run.settings)
    changed = run_folder.read(run.folder)
    changed.config.data_digest = "0" * 64
    with pytest.raises(LabError, match="the images changed"):
        run_folder.resume(changed, material)
    with torch.no_grad():
        next(material.source.network.parameters()).mul_(1.5)
    with pytest.raises(LabError, match="the source network changed"):
        run_folder.resume(run_folder.read(run.folder), material)


def test_a_changed_configuration_stops_a_resume(finished):
    run, _ = finished
    changed = run_folder.read(run.folder)
    changed.config.settings = replace(run.settings, seed=1)
    with pytest.raises(LabError, match=r"config\.json was changed"):
        run_folder.resume(changed, gather(run.settings))


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(LabError, match="not a run folder"):
        run_folder.read(tmp_path)
    (tmp_path / run_folder.CONFIG).write_text("[1, 2")
    with pytest.raises(LabError, match="start a new run"):
        run_folder.read(tmp_path)


@pytest.mark.parametrize("how", [{"target": "nir"}, {"depth_encoding": "hha"}, {"depth_encoding": "colours"}])
def test_the_rooms_have_other_targets_and_readings(tmp_path, how):
    run, results = full_run(tmp_path / "run", Settings(recipe=TINY, **how))
    adapted = load_source(run.folder / run_folder.CHECKPOINT)
    assert adapted.modality == how.get("target", "depth")
    assert adapted.normalisation.depth_encoding == how.get("depth_encoding", "metric")
    assert results.has_oracle == (adapted.modality == "depth")
    text = (run.folder / run_folder.REPORT).read_text()
    assert f"{adapted.modality} as the target modality" in text and how.get("depth_encoding", "") in text
    state = run_folder.resume(run, gather(run.settings))
    assert state.adapted.normalisation == adapted.normalisation


def test_a_missing_oracle_is_said(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(run_settings, "_oracle", lambda *about: None)
    run, results = full_run(tmp_path / "alone", Settings(method="adabn", recipe=Recipe.for_method("adabn")))
    text = (run.folder / run_folder.REPORT).read_text()
    assert not results.has_oracle
    assert "oracle_depth_kinect_v1.safetensors" in text
    assert "no oracle" in text


def test_the_report_can_be_built_again(finished):
    run, _ = finished
    before = (run.folder / run_folder.REPORT).read_bytes()
    again(run_folder.read(run.folder), None)
    assert (run.folder / run_folder.REPORT).read_bytes() == before


def test_the_report_of_an_unfinished_run_says_how_to_go_on(tmp_path):
    settings = Settings(recipe=TINY)
    run = run_folder.create(tmp_path / "new", settings, gather(settings))
    with pytest.raises(LabError, match="--resume"):
        again(run, None)


def test_the_report_stands_alone(finished):
    run, results = finished
    text = (run.folder / run_folder.REPORT).read_text()
    for link in ("http:", "https:", 'src="/', "url(", "<script src", "<link", "@import"):
        assert link not in text
    assert text.count('src="data:image/png;base64,') == text.count("<img") == 4
    assert "default-src 'none'" in text and f"script-src {script_policy()}" in text
    assert text.count("<script") == 2, "the film's data, and what shows it"
    assert text.count('alt=""') == 0
    for one in results.scores:
        assert report.percent(one.held_out) in text
    for words in ("transductive", "last epoch", "used to measure", run.config.rerun, "λ_TI"):
        assert words in text


def test_the_film_of_a_report_has_every_epoch_and_is_left_out_where_one_is_damaged(tmp_path):
    run, _ = full_run(tmp_path / "run", Settings(recipe=TINY))
    report_of = run.folder / run_folder.REPORT
    data = re.search(r'<script type="application/json">(.*?)</script>', report_of.read_text(), re.DOTALL)
    film = json.loads(data[1])
    assert film["titles"] == ["before", "epoch 1", "epoch 2", "epoch 3"]
    assert len(film["positions"]) == len(film["confusion"]) == 4
    (run.folder / run_folder.FILM / "2.safetensors").write_bytes(b"cut")
    again(run_folder.read(run.folder), None)
    text = report_of.read_text()
    assert "<script" not in text and "The film of the epochs could not be made" in text
    (run.folder / run_folder.FILM / "2.safetensors").unlink()  # as in runs of version 0.1
    again(run_folder.read(run.folder), None)
    assert "film of the epochs" not in report_of.read_text()


def test_the_film_shows_every_class():
    """Scenes come class by class in turn: every second one would leave half of the classes out."""
    images = patterned(320, 3).only("depth")
    some = run_folder.shown(images, 240)
    assert len(some) == 240 and set(some.kinds) == set(images.kinds)
    assert some.names == run_folder.shown(images, 240).names


def example(**changes) -> str:
    scores = [Score("source only", 0.25, 0.3, [0.5, 0.0]), Score("SOCKET", 0.75, 0.8, [1.0, None])]
    scores.append(Score("oracle", 0.95, None, [0.9, 1.0]))
    plain = {
        "title": "SOCKET on <Kinect>", "subtitle": "", "scores": scores, "has_oracle": True,
        "classes": ["bath & bed", "office"], "images": (100, 200), "settings": {},
        "rerun": "socketlab adapt", "wall_seconds": 61.7, "selection": "last", "labels": "none",
        "figures": [Figure("A", b"png", 'a "quoted" picture', "c")],
    }  # fmt: skip
    return page(**(plain | changes))


def test_the_page_says_what_the_numbers_say():
    text = example()
    assert "71\u00a0%</strong> of the gap is closed" in text  # (75 - 25) / (95 - 25)
    assert "25.0\u00a0%" in text and "75.0\u00a0%" in text and "95.0\u00a0%" in text
    assert "66 to 82\u00a0%" in text  # Wilson's interval of 75 in 100
    assert "62 seconds" in text


def test_the_page_escapes_what_it_is_given():
    text = example()
    assert "SOCKET on &lt;Kinect&gt;" in text and "bath &amp; bed" in text
    assert 'alt="a &#34;quoted&#34; picture"' in text


def test_no_gap_is_no_division():
    assert gap_closed(0.5, 0.6, 0.5) is None
    flat = [Score(name, 0.5, 0.5, [0.5, 0.5]) for name in ("source only", "SOCKET", "oracle")]
    assert "no gap to close" in example(scores=flat)


@given(st.integers(1, 10_000), st.data())
def test_the_interval_holds_the_share(count, data):
    right = data.draw(st.integers(0, count))
    low, high = interval(right / count, count)
    assert 0 <= low <= right / count + 1e-12 and right / count - 1e-12 <= high <= 1
    assert high - low < 1.96 / np.sqrt(count) + 0.05


# images that are not independent


def test_images_of_independent_blocks_are_worth_their_number():
    right = np.random.default_rng(0).random(400) < 0.7
    assert effective_images(right, [str(i) for i in range(400)]) == pytest.approx(399)
    assert effective_images(right, ["one"] * 400) == 1
    assert effective_images(np.ones(30, bool), list("abc") * 10) == 3


def test_blocks_that_agree_are_worth_their_number():
    """Ten blocks of 20 images, each right or wrong as a whole: nine degrees of freedom."""
    right = np.repeat([True, False] * 5, 20)
    assert effective_images(right, np.repeat(np.arange(10), 20).astype(str)) == pytest.approx(9)


def test_the_interval_covers_the_share_of_blocks_that_differ():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        blocks = np.repeat(np.arange(20).astype(str), 30)
        right = rng.random(600) < np.repeat(rng.beta(3.5, 1.5, 20), 30)
        low, high = interval(right.mean(), effective_images(right, blocks))
        hits += low <= 0.7 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_report_of_dependent_images_says_so(tmp_path):
    settings = Settings(method="adabn")
    material = gather(settings)
    blocks = tuple(f"video {i // 6}" for i in range(len(material.held_out)))
    material = replace(material, held_out=replace(material.held_out, blocks=blocks))
    run = run_folder.create(tmp_path / "run", settings, material)
    *_, last = run_folder.record(run, material)
    results = finish(run, material, last.state)
    assert results.scores[1].effective_images <= len(material.held_out)
    text = (run.folder / run_folder.REPORT).read_text()
    assert "24 held-out images are of 4 recordings or places" in text
    low, high = interval(results.scores[1].held_out, results.scores[1].effective_images)
    assert f"{100 * low:.0f} to {100 * high:.0f}\u00a0%" in text
