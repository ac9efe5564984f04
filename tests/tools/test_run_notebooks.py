"""The notebooks as they are stored, and the command that executes them."""

import itertools
import json
import re
from pathlib import Path

import nbformat
import pytest
from kernels import code

from socketlab.errors import LabError
from tools import run_notebooks

PATHS = run_notebooks.find(())
LAPTOP_SECONDS, CELL_SECONDS, REPLAY_SECONDS = 300, 60, 60


def test_measured_seconds_keep_their_limits() -> None:
    """What ``timings.csv`` has of every notebook, measured on two cores without other work."""
    measured = run_notebooks.timings()
    for path in PATHS:
        laptop, replay = measured[path.stem, "laptop"], measured[path.stem, "replay"]
        assert laptop.seconds <= LAPTOP_SECONDS and laptop.slowest_seconds <= CELL_SECONDS, path.stem
        assert replay.seconds <= REPLAY_SECONDS, path.stem
        assert laptop.cores == replay.cores == 2


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_is_stored_executed_and_small(path: Path) -> None:
    notebook = run_notebooks.read(path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "widgets" not in notebook.metadata
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [output for output in outputs if run_notebooks.WIDGET_VIEW in output.get("data", {})]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 4_000_000


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_picture_of_a_notebook_has_a_description(path: Path) -> None:
    for cell in run_notebooks.read(path).cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"].split()) > 5


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_cells_are_short_and_each_has_a_sentence_before_it(path: Path) -> None:
    notebook = run_notebooks.read(path)
    code = [c.source.splitlines() for c in notebook.cells if c.cell_type == "code"]
    lengths = sorted(sum(bool(line.strip()) for line in lines) for lines in code)
    assert max(len(lines) for lines in code) <= 30
    assert lengths[int(0.9 * (len(lengths) - 1))] <= 15
    assert lengths[len(lengths) // 2] <= 5
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == kinds[-1] == "markdown"
    assert ("code", "code") not in list(itertools.pairwise(kinds))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_has_its_frame_and_its_links_lead_somewhere(path: Path) -> None:
    words = "\n".join(c.source for c in run_notebooks.read(path).cells if c.cell_type == "markdown")
    assert words.startswith("# ")
    for part in ("What you will see", "Objectives", "Time", "Take-aways", "Further reading"):
        assert part in words, part
    for target in re.findall(r"\]\(([^)#]+)\)", words):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_number_of_a_result_is_typed_into_the_text(path: Path) -> None:
    """Accuracies come from a cell; a percentage in the text would go stale."""
    words = "\n".join(c.source for c in run_notebooks.read(path).cells if c.cell_type == "markdown")
    assert re.findall(r"\d+(?:\.\d+)?\s?%", words) == []


# the command


def test_a_failing_cell_is_named() -> None:
    with pytest.raises(LabError, match="ZeroDivisionError"):
        run_notebooks.execute(code("1 / 0"))


def test_an_error_that_a_callback_swallowed_is_found() -> None:
    hidden = code(
        "import ipywidgets as w\nbutton, out = w.Button(), w.Output()",
        "button.on_click(out.capture()(lambda _: 1 / 0))\ndisplay(out)\nbutton.click()",
    )
    with pytest.raises(LabError, match="hides an error"):
        run_notebooks.execute(hidden)


def test_an_error_box_is_found() -> None:
    boxed = code(
        "from socketlab import LabError; from socketlab.panels import session as live\nbox = live.ErrorBox()",
        "box.show(LabError('No data here.'))\nbox",
    )
    with pytest.raises(LabError, match="No data here"):
        run_notebooks.execute(boxed)


def test_what_a_widget_captures_is_not_sent_on_the_socket_of_replies() -> None:
    """A message there lets the reply to the cell go unnoticed, now and then."""
    first = "import ipywidgets as w\nout = w.Output()\nwith out:\n    print(6 * 7)"
    run_notebooks.execute(code(first, "assert out.outputs == ()"))


def test_a_cell_that_hangs_is_ended() -> None:
    with pytest.raises(LabError, match="ended"):
        run_notebooks.execute(code("import time; time.sleep(60)"), seconds=3)


def test_the_command_stores_outputs_without_widgets(tmp_path: Path) -> None:
    path = tmp_path / "small.ipynb"
    nbformat.write(code("import ipywidgets\nipywidgets.IntSlider(3)", "6 * 7"), path)
    before = path.read_bytes()
    assert run_notebooks.main([str(path), "--check"]) == 0
    assert path.read_bytes() == before
    assert run_notebooks.main([str(path)]) == 0
    stored = json.loads(path.read_text())
    assert "widgets" not in stored["metadata"]
    assert "live panel" in str(stored["cells"][0]["outputs"])
    assert "widget-view" not in str(stored)
    assert stored["cells"][1]["outputs"][0]["data"]["text/plain"] == "42"


def test_the_command_stores_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKETLAB_TIER", "laptop")
    for name in ("01_b", "00_a"):
        nbformat.write(code("1", "import time; time.sleep(1)", "2"), tmp_path / f"{name}.ipynb")
        assert run_notebooks.main([str(tmp_path / f"{name}.ipynb"), "--check"]) == 0
        assert not (tmp_path / run_notebooks.TIMINGS).exists() or name == "00_a"
        assert run_notebooks.main([str(tmp_path / f"{name}.ipynb")]) == 0
    found = run_notebooks.timings(tmp_path)
    assert list(found) == [("00_a", "laptop"), ("01_b", "laptop")]
    for line in found.values():
        assert line.slowest_cell == 2
        assert 1 <= line.slowest_seconds <= line.seconds
        assert line.cores >= 1


def test_at_replay_times_are_stored_and_pictures_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOCKETLAB_TIER", "laptop")
    path = tmp_path / "00_a.ipynb"
    cell = "from socketlab.runs import replay\nassert replay.tier() == 'replay'"
    nbformat.write(code(cell), path)
    before = path.read_bytes()
    assert run_notebooks.main([str(path), "--tier", "replay"]) == 0
    assert path.read_bytes() == before
    assert list(run_notebooks.timings(tmp_path)) == [("00_a", "replay")]


def test_timings_of_other_tiers_and_notebooks_stay(tmp_path: Path) -> None:
    old = [
        run_notebooks.Timing("00", "laptop", 9.0, 1, 2.0, 2, "old"),
        run_notebooks.Timing("01", "laptop", 8.0, 1, 2.0, 2, "old"),
    ]
    run_notebooks.store_timings(old, tmp_path)
    new = [
        run_notebooks.Timing("00", "laptop", 7.5, 3, 1.5, 4, "new"),
        run_notebooks.Timing("00", "replay", 1.0, 1, 1.0, 4, "new"),
    ]
    run_notebooks.store_timings(new, tmp_path)
    assert set(run_notebooks.timings(tmp_path).values()) == {*new, old[1]}
    assert run_notebooks.timings(tmp_path / "elsewhere") == {}


def test_only_the_course_is_run_without_a_name(tmp_path: Path) -> None:
    for name in ("00_a", "live", "Untitled"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in run_notebooks.find((), tmp_path)] == ["00_a"]
    assert run_notebooks.find(["live"], tmp_path) == [tmp_path / "live.ipynb"]


def test_an_unknown_notebook_is_said_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_notebooks.main(["99_nothing"]) == 1
    assert "no notebook '99_nothing'" in capsys.readouterr().err


def test_a_broken_notebook_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "broken.ipynb"
    nbformat.write(code("undefined_name"), path)
    before = path.read_bytes()
    assert run_notebooks.main([str(path)]) == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_a_kernel_that_dies_before_it_answers_is_started_again(
    deaths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ports may have been taken by another one; three such deaths are no accident."""
    import nbclient

    started = []

    class Client(nbclient.NotebookClient):
        def execute(self, **more: object) -> object:
            started.append(self)
            if len(started) <= deaths:
                raise RuntimeError("Kernel died before replying to kernel_info")
            return super().execute(**more)

    monkeypatch.setattr(run_notebooks, "NotebookClient", Client)
    if deaths == 3:
        with pytest.raises(RuntimeError, match="before replying"):
            run_notebooks.execute(code("1 + 1"))
    else:
        assert run_notebooks.execute(code("1 + 1")).cells[0].outputs[0].data["text/plain"] == "2"
    assert len(started) == min(deaths + 1, run_notebooks.STARTS)


def test_a_question_is_stored_as_it_can_be_read() -> None:
    from socketlab.course import quiz
    from tools import build_notebooks

    asked = nbformat.v4.new_notebook(cells=build_notebooks.question_cells("03-broken"))
    stored = run_notebooks.without_widgets(run_notebooks.execute(asked))
    (output,) = stored.cells[1].outputs
    assert output.data["text/plain"] == repr(quiz.ask("03-broken"))
    assert quiz.find("03-broken").options[-1].text in output.data["text/plain"]
    assert run_notebooks.WIDGET_VIEW not in output.data
