"""The script behind "which measures of the gap tell the accuracy"."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import trust
from experiments import ONE

from socketlab.files import data_folder
from socketlab.measures.metrics import MEASURES


def made_up(count=24):
    """Networks whose MMD² falls with accuracy and whose CKA grows with it; all else is noise."""
    draw = np.random.default_rng(0)
    lines = []
    for i in range(count):
        accuracy, method = draw.uniform(0.2, 0.9), f"method {i % 3}"
        values = {name: draw.normal() for name in [*MEASURES, "norm_gap"]}
        values |= {"mmd": -accuracy, "linear_cka": accuracy**2}
        about = {"origin": str(i), "sensor": f"sensor {i % 4}", "strength": 1.0, "method": method}
        lines.append(about | {"held_out": f"{accuracy:.6f}"} | values)
    return lines


def test_the_summary_is_spearmans_rank_correlation():
    points = made_up()
    found = {line["measure"]: line for line in trust.summary(points)}
    assert set(found) == {*MEASURES, "norm_gap"}
    assert found["mmd"]["all"] == "-1.00"
    assert found["linear_cka"]["all"] == "-1.00"  # turned round: likeness
    assert found["mmd"]["within_method"] == found["mmd"]["within_sensor"] == "-1.00"
    other = stats.spearmanr([line["coral"] for line in points], [float(line["held_out"]) for line in points])
    assert float(found["coral"]["all"]) == pytest.approx(other.statistic, abs=0.006)
    assert float(found["coral"]["low"]) <= float(found["coral"]["all"]) <= float(found["coral"]["high"])


def shipped(name):
    return trust.read(data_folder() / "results" / name)


@pytest.mark.slow
def test_the_table_that_ships_is_that_of_the_networks_that_ship(tmp_path):
    trust.write_rows(tmp_path / "trust.csv", trust.summary(shipped(trust.POINTS)), trust.FIELDS)
    assert (tmp_path / "trust.csv").read_bytes() == (data_folder() / "results" / "trust.csv").read_bytes()
    assert [line["origin"] for line in shipped(trust.POINTS)] == list(trust.planned())


def test_what_the_pages_say_of_trust_is_what_the_table_says():
    """Partners go with accuracy, also inside a method; clouds only over methods; the memory the wrong way."""
    inside = {line["measure"]: float(line["within_method"]) for line in shipped("trust.csv")}
    everywhere = {line["measure"]: float(line["all"]) for line in shipped("trust.csv")}
    clouds = (
        "mmd",
        "energy",
        "frechet",
        "sliced_wasserstein",
        "coral",
        "neighbour_purity",
        "proxy_a_distance",
    )
    assert max(inside["pair_rank"], inside["pair_cosine"]) < -0.7
    assert max(everywhere["pair_rank"], everywhere["pair_cosine"], everywhere["linear_cka"]) < -0.7
    assert all(everywhere[name] < -0.5 and abs(inside[name]) < 0.25 for name in clouds)
    assert everywhere["norm_gap"] > 0.5


def test_the_plan_varies_sensor_strength_and_method():
    jobs = trust.planned()
    assert len(jobs) == 4 * len(trust.STRENGTHS) * len(trust.METHODS)


def test_pairs_that_measure_train_nothing():
    job = next(
        job for method, job in trust.planned().values() if method == "socket far" and job.sensor == ONE
    )
    trained = set(trust.drawn_pairs(job, ("rgb", "depth")).names)
    unseen = trust.unseen_pairs(job)
    assert len(trained) == trust.HALF
    assert trained.isdisjoint(unseen.names)
    assert len(unseen) >= 200


def test_one_network_in_every_measure():
    origin, (method, job) = next(
        item for item in trust.planned().items() if item[1][0] == "adabn" and item[1][1].sensor == ONE
    )
    line = trust.point(origin, method, dataclasses.replace(job))
    assert 0 <= float(line["held_out"]) <= 1
    assert set(MEASURES) <= set(line)
    assert all(np.isfinite(float(line[name])) for name in [*MEASURES, "norm_gap"])
