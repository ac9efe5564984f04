"""The experiments as lists of jobs, the tables made of them, and a small run of everything, twice."""

import csv
import dataclasses
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def experiments():
    return importlib.import_module("experiments")


@pytest.fixture
def tables():
    return importlib.import_module("tables")


def run_of(held_out):
    return {"held_out": str(held_out), "transductive": "0.5", "class_mean": "0.5", "chosen_by": "last epoch"}


def test_every_table_has_each_line_once_per_seed_and_sensor(experiments):
    seen = set()
    for row in experiments.rows(range(2)):
        if row.job is not None:
            key = (row.table, row.about, row.job.seed)
            assert key not in seen
            seen.add(key)
    assert {row.table for row in experiments.rows(range(1))} == {
        "methods", "forms", "bn", "ablations", "nir", "sources", "sources_nir", "paper", "pairs", "rates",
        "transfers", "lengths", "rivals", "labels", "untidy", "distilled",
    }  # fmt: skip


def test_one_recipe_serves_all_sensors(experiments):
    """A method has the same recipe wherever it is run, seed by seed."""
    for table in ("methods", "ablations", "sources", "sources_nir", "transfers"):
        recipes: dict[tuple[str, str], set] = {}
        for row in experiments.rows(range(2)):
            if row.table == table and row.job is not None:
                about = dict(row.about)
                recipes.setdefault((about["method"], about.get("pairs", "")), set()).add(row.job.recipe)
        assert all(len(found) == 1 for found in recipes.values())


def test_a_job_is_named_by_all_that_decides_it(experiments):
    job = experiments.Job(mix="near")
    changed = [
        dataclasses.replace(job, seed=1), dataclasses.replace(job, mix="far"),
        dataclasses.replace(job, count=25), dataclasses.replace(job, sensor="xtion"),
        dataclasses.replace(job, recipe=job.recipe.replace(lambda_bn=0.7)),
    ]  # fmt: skip
    assert len({one.origin for one in [job, *changed]}) == 6
    assert experiments.Job(mix="near").origin == job.origin


def test_alignments_are_shared_by_what_follows_and_by_nothing_else(experiments):
    job = experiments.Job(mix="near")
    for name, shared in (("lambda_bn", True), ("lambda_pl", True), ("lambda_im", True), ("lambda_ti", False),
                         ("ti_map", False), ("trunk_lr", False), ("epochs", False)):  # fmt: skip
        value = 7 if name == "epochs" else 0.02
        other = dataclasses.replace(job, recipe=job.recipe.replace(**{name: value}))
        assert (other.alignment == job.alignment) == shared, name


@pytest.mark.slow
def test_a_run_after_a_shared_alignment_is_the_run_by_itself(experiments):
    """Same accuracies, to the last image, whether a job was alone or finished another's alignment."""
    results = importlib.import_module("results")
    recipe = experiments.Job().recipe.replace(align_epochs=1, epochs=1)
    jobs = [
        experiments.Job(mix="near", count=32, recipe=recipe.replace(lambda_bn=weight))
        for weight in (0.0, 1.0)
    ]
    together = results.carry_out(jobs)
    alone = [results.carry_out([job])[0] for job in jobs]
    for one, other in zip(together, alone, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }


def test_differences_are_paired_and_their_interval_is_students(experiments, tables):
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.9, size=6)
    better = base + 0.02 + 0.005 * rng.normal(size=6)
    runs = {("", i): run_of(better[i]) for i in range(6)}
    found = tables._compared(runs, {("", i): run_of(base[i]) for i in range(6)})
    test = stats.ttest_rel(100 * better, 100 * base)
    low, high = test.confidence_interval(0.95)
    assert float(found["difference"]) == pytest.approx(100 * (better - base).mean(), abs=0.006)
    assert float(found["low"]) == pytest.approx(low, abs=0.006)
    assert float(found["high"]) == pytest.approx(high, abs=0.006)
    assert tables._compared(runs, runs)["difference"] == ""
    assert tables._compared(runs, {})["low"] == ""


def test_a_table_is_written_only_when_all_its_runs_are_there(experiments, tables, tmp_path):
    rows = list(experiments.same_sensor(range(2)))
    oracles = {row.oracle: run_of(0.9) for row in rows if row.oracle}
    done = {(row.job.origin, "cpu"): run_of(0.5 + 0.1 * row.job.seed) for row in rows if row.job}
    missing = dict(list(done.items())[:-1])
    assert tables.write(tmp_path, rows, missing, oracles) == []
    written = tables.write(tmp_path, rows, done, oracles)
    assert [path.name for path in written] == ["methods.csv", "methods_runs.csv"]
    lines = tables.read(written[0])
    [near] = [
        line for line in lines if (line["method"], line["pairs"], line["sensor"]) == ("socket", "near", "all")
    ]
    assert (near["runs"], near["held_out"]) == ("8", "55.00")
    assert float(near["held_out_std"]) == pytest.approx(100 * np.std([0.5] * 4 + [0.6] * 4, ddof=1), abs=0.01)


def test_the_tables_that_ship_are_those_of_the_runs_that_ship(experiments, tables, tmp_path):
    """Tables made anew from ``runs.csv`` are, to the byte, the ones in ``data/results``."""
    results = importlib.import_module("results")
    from socketlab.files import data_folder

    folder = data_folder() / "results"
    plan = experiments.rows(range(5))
    done = results.finished(folder / "runs.csv")
    written = tables.write(tmp_path, plan, done, results.oracles(plan))
    shutil.copy(folder / "epochs.csv", tmp_path)
    written += tables.write_selection(tmp_path, experiments.watched(range(5)))
    assert {path.name for path in written} >= {f"{row.table}.csv" for row in plan} | {"selection.csv"}
    for path in written:
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_depth_is_read_as_held_out_pairs_chose(experiments):
    """The lowest rank of the partner among far pairs, without labels, by a seed that no table has."""
    from socketlab.files import data_folder

    with open(data_folder() / "results" / "choices.csv", newline="") as file:
        far = [line for line in csv.DictReader(file) if line["pairs"] == "far"]
    lines = [line for line in far if not line["encoding"]]
    assert {line["sensor"]: line["chosen"] for line in lines} == experiments.READ_AS
    for line in lines:
        words = line["ranks"].split()
        ranks = dict(zip(words[::2], map(float, words[1::2]), strict=True))
        assert min(ranks, key=ranks.get) == line["chosen"] and int(line["seed"]) not in range(5)
    jobs = [row.job for row in experiments.lengths(range(1))]
    assert {job.sensor: job.encoding for job in jobs if job.encoding} == experiments.READ_AS


def test_a_job_whose_encoding_is_named_reads_depth_so(experiments):
    results = importlib.import_module("results")
    from socketlab import Recipe
    from socketlab.images.encodings import measure

    recipe = Recipe.for_method("adabn")
    metric, normals = (experiments.Job(recipe=recipe, encoding=name) for name in ("", "normals"))
    assert metric.origin != normals.origin and results.in_words(normals).endswith("encoding=normals")
    data = results.read(normals)
    wanted = measure(data[1].images["depth"], "depth", "normals")
    assert results.finish(normals, *data)[0].adapted.normalisation.as_dict() == wanted.as_dict()
    assert results.finish(metric, *data)[0].adapted.normalisation.as_dict() != wanted.as_dict()
    short = Recipe.socket().replace(align_epochs=1, epochs=1)
    paired = dataclasses.replace(normals, recipe=short, mix="near", count=64)
    aligned = results.align(paired, *results.read(paired))
    assert aligned.adapted.normalisation.as_dict() == wanted.as_dict()


def test_a_table_is_made_of_one_kind_of_device_where_one_made_all(tables):
    """The CPU's runs where it has all of them, else the GPU's; some of each only where neither has all."""
    done = {("a", "cpu"): run_of(0.1), ("a", "cuda"): run_of(0.2), ("b", "cuda"): run_of(0.3)}
    found = tables.of_one_device({"a", "b"}, done)
    assert [found[origin]["held_out"] for origin in "ab"] == ["0.2", "0.3"]
    assert tables.of_one_device({"a"}, done)["a"]["held_out"] == "0.1"
    assert tables.of_one_device({"b"}, {("b", "cpu"): run_of(0.4), **done})["b"]["held_out"] == "0.4"
    assert tables.of_one_device({"a", "c"}, done) is None
    both = {
        ("a", "cpu"): run_of(0.1),
        ("a", "cuda"): run_of(0.2),
        ("b", "cuda"): run_of(0.3),
        ("c", "cpu"): run_of(0.4),
    }
    assert tables.of_devices({"a", "b"}, both) == tables.of_one_device({"a", "b"}, both)
    found = tables.of_devices({"a", "b", "c"}, both)
    assert [found[origin]["held_out"] for origin in "abc"] == ["0.1", "0.3", "0.4"]
    assert tables.of_devices({"a", "d"}, both) is None


@pytest.mark.parametrize("change", [{"source_gradient": "share"}, {"mixing_start": "even"}])
def test_how_sources_share_decides_nothing_for_one(change, experiments):
    job = experiments.Job(mix="near")
    shares = dataclasses.replace(job, recipe=job.recipe.replace(**change))
    assert (shares.origin, shares.alignment) == (job.origin, job.alignment)
    two = [dataclasses.replace(one, sources=("rgb_xtion", "rgb_realsense")) for one in (job, shares)]
    assert two[0].origin != two[1].origin
    assert (two[0].alignment == two[1].alignment) == ("mixing_start" in change)  # which counts afterwards


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_small_runs_give_identical_files(tmp_path):
    """``make results`` with --quick, and once more a few tables: the same lines, byte for byte."""
    again = ("methods", "bn", "sources", "untidy")
    for name, only in (("first", ()), ("second", ("--only", *again))):
        command = [sys.executable, BENCHMARKS / "results.py", "--quick", "--out", tmp_path / name, *only]
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
    first, second = (
        {path.name: path.read_text() for path in (tmp_path / n).iterdir()} for n in ("first", "second")
    )
    assert {"runs.csv", "epochs.csv", "selection.csv", "rivals.csv", "labels.csv"} <= first.keys()
    assert {f"{name}.csv" for name in again} <= second.keys()
    assert all(set(text.splitlines()) <= set(first[name].splitlines()) for name, text in second.items())
    with open(tmp_path / "first" / "runs.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert all(0 <= float(line["held_out"]) <= 1 for line in lines)
    assert {line["chosen_by"] for line in lines} == {"last epoch"}
