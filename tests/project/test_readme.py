"""What README says is what the tables say, and every file it shows is there."""

import csv
import importlib
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean

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
