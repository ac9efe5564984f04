"""What README says is what the tables say, and every file it shows is there."""

import csv
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import pytest

from socketlab.files import data_folder

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
ROWS = {
    "source only": ("source-only", ""),
    "AdaBN": ("adabn", ""),
    "SHOT": ("shot", ""),
    "SOCKET, far pairs": ("socket", "far"),
    "SOCKET, near pairs": ("socket", "near"),
    "oracle (trained with target labels)": ("oracle", ""),
}


def accuracies() -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with open(data_folder() / "results" / "slice.csv", newline="") as file:
        for row in csv.DictReader(file):
            found[row["method"], row["pairs"]].append(100 * float(row["accuracy_heldout"]))
    return found


@pytest.mark.parametrize(("name", "key"), ROWS.items())
def test_the_table_in_readme_is_the_table_in_data(name, key):
    values = accuracies()[key]
    low, high = mean(accuracies()["source-only", ""]), mean(accuracies()["oracle", ""])
    closed = 100 * (mean(values) - low) / (high - low)
    assert f"| {name} | {mean(values):.1f} ± {stdev(values):.1f} | {closed:.0f} % |" in README


def test_socket_with_near_pairs_keeps_its_promise():
    """At least 20 points above SHOT, and three quarters of the way from source only to the oracle."""
    table = accuracies()
    near, shot = mean(table["socket", "near"]), mean(table["shot", ""])
    low, high = mean(table["source-only", ""]), mean(table["oracle", ""])
    assert len(table["socket", "near"]) >= 12
    assert near - shot >= 20
    assert near - low >= 0.75 * (high - low)


def test_files_that_are_linked_are_there():
    for name in ("README.md", "data/pocketrooms/README.md", "CONTRIBUTING.md"):
        page = REPOSITORY / name
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_first_ten_lines_say_what_for_whom_and_how():
    start = "\n".join(README.splitlines()[:10])
    assert "make lab" in start
    assert "make test" in start
    assert "learners and instructors" in start
