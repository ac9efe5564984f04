"""What README says is what the tables say, and every file it shows is there."""

import csv
import importlib
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import pytest

from socketlab.files import data_folder

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def accuracies() -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with open(data_folder() / "results" / "methods_runs.csv", newline="") as file:
        for row in csv.DictReader(file):
            found[row["method"], row["pairs"]].append(100 * float(row["held_out"]))
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/real_data.md"])
def test_tables_in_pages_are_the_tables_in_data(page, monkeypatch):
    """Every table is what ``data/results`` gives today: run ``python benchmarks/pages.py`` after a change."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    pages = importlib.import_module("pages")
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert pages.MARK.search(text)
    assert pages.filled(text, data_folder() / "results") == text


def test_socket_with_near_pairs_keeps_its_promise():
    """At least 20 points above SHOT, and four fifths of the way from source only to the oracle."""
    table = accuracies()
    near, shot = mean(table["socket", "near"]), mean(table["shot", ""])
    low, high = mean(table["source-only", ""]), mean(table["oracle", ""])
    assert len(table["socket", "near"]) >= 20
    assert near - shot >= 20
    assert near - low >= 0.8 * (high - low)


def test_what_the_pages_say_of_batch_norm_matching_is_what_the_table_says():
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


def test_what_the_results_say_of_four_sources_is_what_the_tables_say():
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


def test_what_the_results_say_of_how_shares_begin_is_what_the_tables_say():
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


def test_what_the_results_say_of_the_shares_in_near_infrared_is_what_the_table_says():
    lines = _lines("sources_nir")
    gains = {line["sensor"]: line for line in lines if line["method"] == "socket" and line["sensor"] != "all"}
    own = {line["sensor"]: float(line["held_out"]) for line in lines if line["method"].startswith("own")}
    assert 1.5 < float(gains["kinect_v2"]["difference"]) < 2.5 and float(gains["kinect_v2"]["low"]) > 0
    assert abs(float(gains.pop("kinect_v2")["held_out"]) - own["kinect_v2"]) < 0.5
    for sensor, line in gains.items():
        assert float(line["low"]) < 0 < float(line["high"])
        assert float(line["held_out"]) > own[sensor] + 1


def test_what_the_results_say_of_the_colours_of_the_cameras_is_what_the_table_says():
    surest = {}
    for line in _lines("cameras"):
        surest.setdefault(line["sensor"], {})[line["source"]] = float(line["information_of_pairs"])
    for sensor, found in surest.items():
        first, second, *_ = sorted(found.values())
        assert (second - first > 0.08) == (sensor == "kinect_v2")
        assert max(found.values()) - first < 0.03 or sensor == "kinect_v2"
    assert min(surest["kinect_v2"], key=surest["kinect_v2"].get) == "kinect_v2"


def test_what_the_results_say_of_the_published_recipe_is_what_the_table_says():
    found = {line["recipe"]: line for line in _lines("paper")}
    gains = {name: float(line["difference"]) for name, line in found.items() if line["difference"]}
    assert 6 < gains["our rates, no L_BN"] < gains["our rates"] < 7
    assert gains["L_TI as a mean"] < -15
    assert -2.5 < gains["shares of L_BN normalised"] < 0
    assert all(abs(gains[name]) < 1 for name in ("two rounds of pseudo-labels", "statistics re-estimated"))


def test_what_the_results_say_of_the_rivals_is_what_the_table_says():
    found = {(x["method"], x["pairs"]): x for x in _lines("rivals") if x["sensor"] == "all"}
    assert {line["runs"] for line in found.values()} == {"20"}
    behind = {key: -float(line["difference"]) for key, line in found.items() if line["difference"]}
    assert len(behind) == len(found) - 2 and all(float(found[key]["high"]) < 0 for key in behind)
    for pairs, low, high in (("near", 5, 7), ("far", 10, 13)):
        close = {round(behind[name, pairs]) for name in ("distillation", "contrast", "translator")}
        assert (min(close), max(close)) == (low, high)
        assert all(behind[name, pairs] > 45 for name in ("unpaired CORAL", "unpaired MMD"))
        for name in ("distillation", "contrast"):  # behind SOCKET without maps
            assert round(behind[name, pairs] - behind["features alone", pairs], 1) in (1.4, 1.8, 1.9, 2.1)
    without = {name: [round(behind[name, pairs]) for pairs in ("near", "far")] for name, _ in behind}
    assert without["features alone"] == [3, 8] and without["pairs and AaD"] == [7, 10]


def test_what_the_results_say_of_longer_recipes_is_what_the_table_says():
    found = {}
    for row in _lines("lengths_runs"):
        case = row["pairs"], int(row["count"])
        found.setdefault((row["recipe"], case), []).append(100 * float(row["held_out"]))
    usual, both = "3 + 27 epochs, new crops", "3 + 27 epochs, new crops, shared statistics"
    said = {("near", 500): (0.8, 0.1, 1.6), ("far", 500): (0.7, -0.6, 1.9), ("near", 25): (-1.8, -3.4, -0.2)}
    for case, (wanted, low, high) in said.items():
        gains = [a - b for a, b in zip(found[both, case], found[usual, case], strict=True)]
        half = 2.093 * stdev(gains) / len(gains) ** 0.5  # Student's t of 19 degrees of freedom
        interval = mean(gains), mean(gains) - half, mean(gains) + half
        assert interval == pytest.approx((wanted, low, high), abs=0.06)
    cameras = {
        x["sensor"]: float(x["held_out"])
        for x in _lines("lengths")
        if x["recipe"] == both and x["pairs"] == "far"
    }
    assert round(cameras.pop("realsense")) == 74 and all(
        84.9 < x < 93 for name, x in cameras.items() if name != "all"
    )
    best = {case: max(mean(x) for (_, one), x in found.items() if one == case) for case in said}
    assert best["near", 500] > 90 and 84.4 < best["far", 500] < 85 and 81.5 < best["near", 25] < 82.5


def test_what_the_results_say_of_smaller_steps_is_what_the_table_says():
    found = {(line["method"], line["rate"]): float(line["held_out"]) for line in _lines("rates")}
    [adabn] = [x for x in _lines("methods") if (x["method"], x["sensor"]) == ("adabn", "kinect_v1")]
    assert f"{float(adabn['held_out']):.1f}" == "24.7"
    for method in ("shot-im", "shot", "aad"):
        assert found[method, "0.05"] < found[method, "0.005"] < float(adabn["held_out"]) + 1
    assert found["aad", "0.005"] - found["aad", "0.05"] > 10


def _lines(table):
    with open(data_folder() / "results" / f"{table}.csv", newline="") as file:
        return list(csv.DictReader(file))


def _is_socket(line):
    return (line["method"], line["pairs"]) == ("socket", "near")


def test_files_that_are_linked_are_there():
    for name in (
        "README.md",
        "data/pocketrooms/README.md",
        "CONTRIBUTING.md",
        "socketlab/README.md",
        *(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")),
    ):
        page = REPOSITORY / name
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_each_fault_of_the_published_code_is_held_by_a_test_that_exists():
    page = (REPOSITORY / "docs" / "published_code.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == [str(number) for number in range(1, 14)]
    named = re.findall(r"\[(test_fault_(\d+)_\w+)\]\(\.\./(tests/[^)]+)\)", page)
    assert [number for _, number, _ in named] == [str(number) for number in range(1, 14)]
    for name, _, file in named:
        assert f"def {name}(" in (REPOSITORY / file).read_text(encoding="utf-8"), name


def test_the_first_ten_lines_say_what_for_whom_and_how():
    start = "\n".join(README.splitlines()[:10])
    assert "make lab" in start
    assert "make test" in start
    assert "learners and instructors" in start
