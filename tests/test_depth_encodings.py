"""The comparison of depth encodings: what it plans, and the figures that it makes of its runs."""

import importlib
from pathlib import Path
from statistics import mean, stdev

import pytest
from scipy import stats

from socketlab.encodings import DEPTH_ENCODINGS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


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
        {"method": "socket", "encoding": name, "seed": seed, "chosen_by": "last epoch"}
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
