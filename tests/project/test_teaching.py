"""The page for instructors: schedules add up, names exist, measured numbers are those of the file."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from socketlab.cli import app
from socketlab.errors import LabError
from tools import run_notebooks

ROOT = Path(__file__).resolve().parents[2]
TEXT = run_notebooks.PAGE.read_text(encoding="utf-8")
COURSE = run_notebooks.COURSE.findall(TEXT)


def schedules() -> dict[str, list[tuple[int, int, str]]]:
    """Title → (from, minutes, notebook) of every line."""
    found = {}
    for part in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| (\d+) \| (\d+) \| ([^|]*)\|", part.split("\n## ")[0], re.MULTILINE)
        found[part.splitlines()[0]] = [(int(a), int(b), name.strip(" `")) for a, b, name in rows]
    return found


@pytest.mark.parametrize(
    ("title", "minutes"),
    [("50 minutes", 50), ("90 minutes", 90), ("180 minutes", 180), ("Half a day: four hours", 240)],
)
def test_a_schedule_adds_up(title: str, minutes: int) -> None:
    (rows,) = [rows for name, rows in schedules().items() if name.startswith(title)]
    passed = 0
    for begins, takes, name in rows:
        assert begins == passed
        assert name in ("", *COURSE)
        passed += takes
    assert passed == minutes
    named = [name for _, _, name in rows if name]
    assert named == sorted(named), "the notebooks come in their order"


def test_every_notebook_that_there_is_has_its_line() -> None:
    there = [path.stem for path in run_notebooks.find(())]
    assert sorted(COURSE) == COURSE
    assert set(there) <= set(COURSE)
    assert len(COURSE) == 8


def test_the_measured_table_is_that_of_the_file() -> None:
    """``make notebooks`` fills it."""
    assert run_notebooks.with_table(TEXT, run_notebooks.timings()) == TEXT


def test_computing_fits_into_the_minutes() -> None:
    """In no schedule does the computer work longer than the class has for a notebook."""
    measured = run_notebooks.timings()
    for rows in schedules().values():
        for name in {name for _, _, name in rows if name}:
            if (name, "laptop") in measured:
                minutes = sum(takes for _, takes, other in rows if other == name)
                assert measured[name, "laptop"].seconds < 60 * minutes


COMPUTING = {
    "under a minute": (0, 60),
    "about half a minute": (20, 45),
    "about a minute": (40, 90),
    "about a minute and a half": (70, 130),
    "about two minutes": (90, 150),
    "about three minutes": (140, 220),
    "about four minutes": (190, 290),
}


@pytest.mark.parametrize("path", run_notebooks.find(()), ids=lambda path: path.stem)
def test_how_long_a_notebook_computes_is_as_it_says(path: Path) -> None:
    said = re.search(r"Computing takes ([a-z ]+) on two cores", run_notebooks.read(path).cells[0].source)
    assert said
    low, high = COMPUTING[said[1]]
    assert low <= run_notebooks.timings()[path.stem, "laptop"].seconds <= high


def test_commands_and_targets_that_are_named_exist() -> None:
    commands = set(get_command(app).commands)
    assert set(re.findall(r"`socketlab ([\w-]+)", TEXT)) <= commands
    for name in set(re.findall(r"-m tools\.(\w+)", TEXT)):
        assert (ROOT / "tools" / f"{name}.py").is_file(), name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make ([\w-]+)`", TEXT)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_a_table_of_what_was_and_was_not_measured() -> None:
    measured = {
        ("00_a", "laptop"): run_notebooks.Timing("00_a", "laptop", 61.2, 3, 17.8, 2, "an Abacus"),
        ("00_a", "replay"): run_notebooks.Timing("00_a", "replay", 9.4, 3, 5.0, 2, "an Abacus"),
    }
    page = "| `00_a` | Why? |\n| `01_b` | How? |\n<!-- computing -->\nold\n<!-- /computing -->\n"
    table = run_notebooks.with_table(page, measured)
    assert "| `00_a` | 61 | 18 | 9 |" in table
    assert "| `01_b` |  |  |  |" in table
    assert "On 2 cores of an Abacus" in table
    assert "old" not in table


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(LabError, match="no place for the table"):
        run_notebooks.with_table("# Teaching\n", {})
