"""What docs/results.md says under its tables is what the tables say."""

import csv
from statistics import mean
from typing import Any

import pandas as pd
import pytest
from scipy.stats import sem, t

from socketlab.files import data_folder

RESULTS = data_folder() / "results"


def _lines(table):
    with open(RESULTS / f"{table}.csv", newline="") as file:
        return list(csv.DictReader(file))


def _is_socket(line):
    return (line["method"], line["pairs"]) == ("socket", "near")


def test_what_is_said_of_batch_norm_matching():
    """The sentences under the table in docs/results.md, in notebook 02 and in `Recipe.socket`."""
    with open(data_folder() / "results" / "bn.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    used = [line for line in lines if line["difference"]]
    own = [line for line in used if "source's statistics" not in line["setting"]]
    kept = [line for line in used if "source's statistics" in line["setting"]]
    pairs = [round(float(line["difference"]), 1) for line in own if "pairs" in line["setting"]]
    assert (min(pairs), max(pairs)) == (-0.6, 0.5)
    assert all(float(line["difference"]) < 0 for line in own if line["setting"] == "alone")
    assert all(float(line["difference"]) > 2.5 for line in kept)
    held_out = {(line["setting"], line["lambda_bn"]): float(line["held_out"]) for line in lines}
    assert round(held_out["25 near pairs", "0.0"]) == 77
    assert round(held_out["25 near pairs, source's statistics", "3.0"]) == 54
    assert {line["runs"] for line in lines} == {"5"}


def test_what_is_said_of_four_sources():
    """Against the target's own camera, against each single network, against shares that begin even."""
    own = {line["sensor"]: float(line["held_out"]) for line in _lines("methods") if _is_socket(line)}
    sources = [line for line in _lines("sources") if line["method"] == "socket"]
    four = {line["sensor"]: float(line["held_out"]) for line in sources}
    single, everywhere = {}, {}
    for line in _lines("transfers"):
        if line["method"] == "socket" and line["sensor"] != "all":
            single.setdefault(line["sensor"], {})[line["source"]] = float(line["held_out"])
        elif line["method"] == "socket":
            everywhere[line["source"]] = float(line["held_out"])
    best = {sensor: max(found.values()) for sensor, found in single.items()}
    assert [len(found) for found in (everywhere, *single.values())] == [4] * 5
    assert f"{max(everywhere.values()):.1f}" == "85.8"
    assert f"{own['all']:.1f}" == "86.6"
    assert f"{mean(best.values()):.1f}" == "87.1"
    assert four["all"] > max(*everywhere.values(), own["all"], mean(best.values()))
    assert {sensor for sensor, points in best.items() if four[sensor] > points} == {"kinect_v1", "xtion"}
    assert all(four[sensor] > points - 0.55 for sensor, points in best.items())


def test_what_is_said_of_how_shares_begin():
    gains = {line["sensor"]: line for line in _lines("sources") if line["method"] == "socket"}
    assert 2.5 < float(gains.pop("kinect_v2")["difference"]) < 3.5
    assert all(float(line["low"]) < 0 < float(line["high"]) for line in gains.values())
    for line in _lines("runs"):
        mixture = line["sources"].count(" ") == 3 and "baseline" not in line["recipe"]
        if mixture and line["mix"] == "near" and line["modality"] == "depth":
            shares = [float(share) for share in line["shares"].split()]
            if "mixing_start=even" in line["recipe"]:
                assert all(0.24 < share < 0.26 for share in shares)
            elif line["sensor"] == "kinect_v2":
                assert shares[1] > 0.8
            else:
                assert 0.115 < min(shares) < max(shares) < 0.435


def test_what_is_said_of_the_shares_in_near_infrared():
    lines = _lines("sources_nir")
    gains = {line["sensor"]: line for line in lines if line["method"] == "socket" and line["sensor"] != "all"}
    own = {line["sensor"]: float(line["held_out"]) for line in lines if line["method"].startswith("own")}
    assert 1.5 < float(gains["kinect_v2"]["difference"]) < 2.5 and float(gains["kinect_v2"]["low"]) > 0
    assert abs(float(gains.pop("kinect_v2")["held_out"]) - own["kinect_v2"]) < 0.5
    for sensor, line in gains.items():
        assert float(line["low"]) < 0 < float(line["high"])
        assert float(line["held_out"]) > own[sensor] + 1


def test_what_is_said_of_the_colours_of_the_cameras():
    surest, accurate = {}, {}
    for line in _lines("cameras"):
        surest.setdefault(line["sensor"], {})[line["source"]] = float(line["information_of_pairs"])
        accurate.setdefault(line["sensor"], {})[line["source"]] = float(line["held_out"])
    for sensor, found in surest.items():
        first, second, *_ = sorted(found.values())
        assert (second - first > 0.08) == (sensor == "kinect_v2")
        assert max(found.values()) - first < 0.03 or sensor == "kinect_v2"
        best = max(accurate[sensor], key=accurate[sensor].get)
        by_certainty = sorted(found, key=found.get)
        assert by_certainty.index(best) == (0 if sensor.startswith("kinect") else 3)
        spread = max(accurate[sensor].values()) - min(accurate[sensor].values())
        assert sensor.startswith("kinect") or spread < 3.2


def test_what_is_said_of_the_published_recipe():
    found = {line["recipe"]: line for line in _lines("paper")}
    gains = {name: float(line["difference"]) for name, line in found.items() if line["difference"]}
    assert 6 < gains["our rates, no L_BN"] < gains["our rates"] < 7
    assert gains["L_TI as a mean"] < -15
    assert -2.5 < gains["shares of L_BN normalised"] < 0
    assert all(abs(gains[name]) < 1 for name in ("two rounds of pseudo-labels", "statistics re-estimated"))


def test_what_is_said_of_the_rivals():
    found = {(x["method"], x["pairs"]): x for x in _lines("rivals") if x["sensor"] == "all"}
    assert {line["runs"] for line in found.values()} == {"20"}
    behind = {key: -float(line["difference"]) for key, line in found.items() if line["difference"]}
    assert len(behind) == len(found) - 2 and all(float(found[key]["high"]) < 0 for key in behind)
    for pairs, low, high in (("near", 5, 7), ("far", 10, 13)):
        close = {round(behind[name, pairs]) for name in ("distillation", "contrast", "translator")}
        assert (min(close), max(close)) == (low, high)
        assert all(behind[name, pairs] > 45 for name in ("unpaired CORAL", "unpaired MMD"))
    cases = [(name, pairs) for name in ("distillation", "contrast") for pairs in ("near", "far")]
    further = [round(behind[name, pairs] - behind["features alone", pairs], 1) for name, pairs in cases]
    assert (min(further), max(further)) == (1.4, 2.1)
    without = {name: [round(behind[name, pairs]) for pairs in ("near", "far")] for name, _ in behind}
    assert without["features alone"] == [3, 8] and without["pairs and AaD"] == [7, 10]


SHARED = ", shared statistics"
"""What a recipe is called whose pairs are normalised together with the target's images."""


@pytest.mark.parametrize(
    ("recipe", "other", "said"),
    [
        ("10 + 5 epochs" + SHARED, "10 + 5 epochs", {"far": (4.3, 3.4, 5.3), "near": 1.8, "25": 1.3}),
        ("3 + 11 epochs", "10 + 5 epochs", {"far": 3.4, "near": 1.8, "25": 3.8}),
        ("3 + 27 epochs, new crops", "3 + 11 epochs", {"far": 3.2, "near": 1.5, "25": 1.7}),
        (
            "3 + 27 epochs, new crops" + SHARED,
            "3 + 27 epochs, new crops",
            {"far": (0.7, -0.6, 1.9), "near": (0.8, 0.1, 1.6), "25": (-1.8, -3.4, -0.2)},
        ),
    ],
)
def test_what_is_said_of_longer_recipes(recipe, other, said):
    for pairs, wanted in said.items():
        mean_and_interval = _compared(recipe, other, pairs)
        if isinstance(wanted, tuple):
            assert mean_and_interval == pytest.approx(wanted, abs=0.06)
        else:
            assert mean_and_interval[0] == pytest.approx(wanted, abs=0.06)
    if other == "3 + 11 epochs":
        assert {pairs for pairs in said if _compared(recipe, other, pairs)[1] < 0} == {"25"}


def test_what_is_said_of_depth_read_as_far_pairs_choose():
    longest = "3 + 27 epochs, new crops" + SHARED
    runs = pd.read_csv(RESULTS / "lengths_runs.csv")
    runs = runs[runs.pairs == "far"]
    held_out = 100 * runs.pivot_table(index=["sensor", "seed"], columns="recipe", values="held_out")
    gains = held_out[longest + ", encoding chosen"] - held_out[longest]
    assert _interval(gains) == pytest.approx((-1.5, -3.4, 0.4), abs=0.06)
    assert _interval(gains["realsense"]) == pytest.approx((4.0, 0.8, 7.2), abs=0.06)
    others = gains.drop("realsense").groupby("sensor").mean()
    assert (round(others.max(), 1), round(others.min(), 1)) == (-1.7, -5.9)
    choices = pd.read_csv(RESULTS / "choices.csv").query("sensor == 'kinect_v1' and pairs == 'far'")
    whole = choices.dropna(subset="encoding").set_index("encoding")
    ranks, accuracy = whole.ranks.astype(float), 100 * whole.held_out
    assert ranks.idxmin() == "inverse" and ranks["metric"] - ranks["inverse"] == pytest.approx(0.002)
    assert round(accuracy["metric"] - accuracy["inverse"]) == 9


def test_what_is_said_of_the_weakest_camera_and_the_best_recipes():
    lengths = pd.read_csv(RESULTS / "lengths.csv")
    lengths = lengths.set_index(["recipe", "pairs", "count", "sensor"]).held_out.sort_index()
    far = dict(lengths["3 + 27 epochs, new crops" + SHARED, "far", 500].drop("all"))
    assert round(far.pop("realsense")) == 74
    assert all(84.9 < accuracy < 93 for accuracy in far.values())
    best = lengths.xs("all", level="sensor").groupby(["pairs", "count"]).max()
    assert best["near", 500] > 90 and 84.4 < best["far", 500] < 85 and 81.5 < best["near", 25] < 82.5


def _compared(recipe, other, pairs) -> tuple[float, float, float]:
    """Mean difference of two recipes, run by run, and its 95 % interval; pairs "25" are near ones."""
    runs = pd.read_csv(RESULTS / "lengths_runs.csv")
    one, few = ("near", 25) if pairs == "25" else (pairs, 500)
    runs = runs[(runs.pairs == one) & (runs["count"] == few)]
    held_out = 100 * runs.pivot_table(index=["sensor", "seed"], columns="recipe", values="held_out")
    return _interval(held_out[recipe] - held_out[other])


def _interval(gains) -> tuple[float, float, float]:
    reach = sem(gains) * t.ppf(0.975, len(gains) - 1)
    return gains.mean(), gains.mean() - reach, gains.mean() + reach


def test_what_is_said_of_smaller_steps():
    found = {(line["method"], line["rate"]): float(line["held_out"]) for line in _lines("rates")}
    [adabn] = [x for x in _lines("methods") if (x["method"], x["sensor"]) == ("adabn", "kinect_v1")]
    assert f"{float(adabn['held_out']):.1f}" == "24.7"
    for method in ("shot-im", "shot", "aad"):
        assert found[method, "0.05"] < found[method, "0.005"] < float(adabn["held_out"]) + 1
    assert found["aad", "0.005"] - found["aad", "0.05"] > 10


def test_what_is_said_of_untidy_targets():
    table = pd.read_csv(RESULTS / "untidy.csv")
    table = table[table.sensor == "all"].set_index(["method", "target"])
    held_out, difference = table.held_out, table.difference
    cost = {
        target: held_out["socket", "even"] - held_out["socket", target]
        for _, target in table.loc[["socket"]].index
    }
    assert [round(cost[target]) for target in ("uneven", "fewer", "missing", "strangers")] == [7, 5, 3, 1]
    without = difference["socket without IM"]
    assert set(without.index) == {"even", "uneven", "missing", "strangers"}
    assert (round(without.max(), 1), round(without.min(), 1)) == (-1.4, -3.0)
    assert (table.high["socket without IM"] < 0).all()


def test_what_is_said_of_what_untidy_targets_show():
    """The shares' distance from even ones, uncertainty and strangers, from the runs themselves."""
    runs = pd.read_csv(RESULTS / "runs.csv").drop_duplicates("origin", keep="last").set_index("origin")
    table = pd.read_csv(RESULTS / "untidy_runs.csv").join(
        runs[["unevenness", "uncertainty", "true_unevenness", "stranger_auroc"]], on="origin"
    )
    found = table[table.method == "socket"].groupby("target").mean(numeric_only=True).round(2)
    assert found.true_unevenness["uneven"] == 0.23
    assert dict(found.unevenness[["uneven", "missing"]]) == {"uneven": 0.18, "missing": 0.10}
    even = found.unevenness[["even", "fewer", "strangers"]]
    assert (even.min(), even.max()) == (0.04, 0.07)
    assert found.stranger_auroc["strangers"] == 0.65
    assert found.uncertainty["strangers"] <= found.uncertainty["even"]


def test_what_is_said_of_one_network_out_of_four():
    [line] = [x for x in _lines("distilled") if x["difference"] and x["sensor"] == "all"]
    assert (float(line["low"]), float(line["high"])) == pytest.approx((-0.05, 1.0), abs=0.03)


def test_what_is_said_of_streams():
    table = pd.read_csv(RESULTS / "streams.csv")
    held_out = table.pivot_table(index=["network", "stream", "batch"], columns="method", values="held_out")
    network = "SOCKET's network, depth"
    matched = held_out["match"] - held_out["follow"]
    assert (round(matched.max(), 1), round(matched.min(), 1)) == (0.2, -0.7)
    assert (held_out["reset"] == held_out["batch"]).all()
    gains = held_out.sub(held_out["source"], axis=0)
    assert round(gains["batch"].min()) == -37
    assert (gains["follow"].drop(network) > 0).all()
    assert round(gains["follow"][network, "camera exchanged", 32]) == 2
    assert gains["follow"][network, "camera exchanged", 1] < 0
    assert [round(gains["follow"][network, name, 1]) for name in ("steady", "errors grow")] == [-5, -5]


def test_what_is_said_of_rules_without_labels():
    """Which rise where training does not help, which one stops early; and SOCKET's last epoch is best."""
    found: dict[tuple[str, str], Any] = {(x["method"], x["chosen_by"]): x for x in _lines("selection")}
    rules = [rule for method, rule in found if method == "shot" and " " not in rule]
    assert len(rules) == 8
    epochs = pd.read_csv(RESULTS / "epochs.csv").groupby("origin")
    assert len(epochs) == 15
    for rule in ("certainty", "nuclear_norm", "matrix_norm"):
        assert (epochs[rule].last() > epochs[rule].first()).all()
    early = {rule for rule in rules if all(float(found[name, rule]["epoch"]) < 5 for name in ("shot", "aad"))}
    assert early == {"bn_closeness"} and float(found["socket", "bn_closeness"]["epoch"]) == 0
    assert float(found["socket", "neighbourhood_density"]["difference"]) < -10
    assert float(found["socket", "neighbourhood_density"]["epoch"]) < 10  # which are alignment alone
    assert all(float(found["socket", rule]["difference"]) <= 0 for rule in rules)
    assert float(found["socket", "oracle, by target labels"]["difference"]) < 0.5
    assert round(float(found["aad", "last epoch"]["held_out"]), 1) == 13.3


def test_what_is_said_of_near_infrared():
    """The share of the way from source only to the oracle that each recipe goes with near pairs."""
    table = pd.read_csv(RESULTS / "nir.csv").fillna({"pairs": ""}).set_index(["way", "method", "pairs"])
    recipes = ("socket", "socket, thorough", "socket, thorough, shared statistics")
    closed = {}
    for way in ("rgb → nir", "nir → rgb"):
        level = table.held_out[way]
        low, high = level["source-only", ""], level["oracle", ""]
        closed[way] = [round(100 * (level[recipe, "near"] - low) / (high - low)) for recipe in recipes]
    assert closed["nir → rgb"] == [42, 55, 60]
    assert min(closed["rgb → nir"]) > 100
    assert all(table.low["nir → rgb", recipe, "far"] < 0 for recipe in recipes[1:])
