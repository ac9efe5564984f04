"""The comparison of depth encodings: what it plans, and the figures that it makes of its runs."""

import importlib
import sys
from concurrent.futures import Future
from pathlib import Path
from statistics import mean, stdev

import pytest
from scipy import stats

from socketlab.images.encodings import DEPTH_ENCODINGS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def comparison(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("depth_encodings")


def test_every_encoding_is_run_under_every_seed_and_nothing_still_twice(comparison):
    jobs = comparison.planned(DEPTH_ENCODINGS, 3, False)
    told = [(method, name, seed) for method, name, seed, _ in jobs.values()]
    assert len(jobs) == len(set(told)) == len(DEPTH_ENCODINGS) * (1 + 3)
    assert {name for _, name, _ in told} == set(DEPTH_ENCODINGS)
    assert set(comparison.planned(("metric",), 3, False)) < set(jobs)
    assert not set(comparison.planned(DEPTH_ENCODINGS, 3, True)) & {
        origin for origin, job in jobs.items() if job[0] == "socket"
    }


def test_differences_are_between_runs_of_one_seed(comparison):
    shares = {"metric": (0.5, 0.6, 0.7), "normals": (0.52, 0.61, 0.75)}
    lines = [
        {
            "method": "socket",
            "encoding": name,
            "seed": seed,
            "chosen_by": "last epoch",
            "milliseconds": seed + 1,
        }
        | dict.fromkeys(comparison.MEASURED, share)
        for name, values in shares.items()
        for seed, share in enumerate(values)
    ]
    plain, normals = comparison.summary(lines)
    assert plain["difference"] == "" and float(plain["held_out"]) == pytest.approx(60)
    assert float(normals["held_out_std"]) == pytest.approx(100 * stdev(shares["normals"]), abs=0.01)
    differences = [2.0, 1.0, 5.0]
    low, high = stats.t.interval(0.95, 2, mean(differences), stats.sem(differences))
    assert float(normals["difference"]) == pytest.approx(mean(differences), abs=0.01)
    assert (float(normals["low"]), float(normals["high"])) == pytest.approx((low, high), abs=0.01)
    assert normals["milliseconds"] == "1.00"


def test_runs_are_kept_and_the_table_waits_for_all_of_one_device(comparison, tmp_path, monkeypatch):
    """A run by the device that was asked for; whoever calls again does what is missing, and loses nothing."""
    pages = importlib.import_module("pages")
    asked = []

    def carried_out(origin, device, method, name, seed, recipe):
        asked.append((device, method, name, seed))
        words = f"torch 1.0, {'CPU' if device == 'cpu' else 'some GPU'}, float32"
        figures = dict.fromkeys(comparison.MEASURED, "0.5000") | {"milliseconds": "3.00"}
        about = {"origin": origin, "method": method, "encoding": name, "seed": seed}
        return about | figures | {"chosen_by": "last epoch", "environment": words}

    class Here:
        """One process, this one."""

        def __init__(self, *about):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *about):
            pass

        def submit(self, function, *words):
            done = Future()
            done.set_result(function(*words))
            return done

    monkeypatch.setattr(comparison, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(comparison, "carried_out", carried_out)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["depth_encodings.py", "--out", str(tmp_path), *words])
        asked.clear()
        comparison.main()
        return len(asked)

    assert call("--seeds", "2", "--only", "metric", "normals") == 2 * 3
    assert not (tmp_path / comparison.TABLE).exists()
    assert "encodings.csv is made by `python benchmarks/depth_encodings.py`" in page(pages, tmp_path)
    assert call("--seeds", "2", "--only", "hha", "--device", "cuda") == 3
    assert call("--seeds", "2") == 4 * 3 and all(device == "cpu" for device, *_ in asked)
    lines = comparison.finished(tmp_path / comparison.RUNS)
    assert len(lines) == 6 * 3 + 3  # what the GPU did is still there
    text = page(pages, tmp_path)
    assert text.count("| `") == 6 and "| `hha` | 50.0 | 2 | 50.0 ± 0.0 | +0.0 [+0.0, +0.0] | 3.00 |" in text
    assert "*Runs: 18 by torch 1.0, CPU, float32.*" in text
    assert call("--seeds", "2") == 0


def page(pages, folder) -> str:
    (folder / "runs.csv").touch()
    return pages.filled("<!-- results:encodings -->\n<!-- /results:encodings -->", folder)


def test_a_run_is_measured_after_its_last_epoch(comparison):
    """AdaBN with normals, in full: a line with every field, which says how it was made."""
    plan = comparison.planned(["normals"], 1, True)
    origin, job = next((origin, job) for origin, job in plan.items() if job[0] == "adabn")
    line = comparison.carried_out(origin, "cpu", *job)
    assert set(line) == set(comparison.FIELDS) and 0 < float(line["held_out"]) < 1
    assert ", CPU, " in line["environment"] and float(line["milliseconds"]) > 0
