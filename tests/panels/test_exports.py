"""Exports: whole files that others can read, and nothing overwritten."""

import csv
import io
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from socketlab.errors import LabError
from socketlab.panels import exports, session


@pytest.fixture
def plot() -> session.LivePlot:
    made = session.LivePlot(("one",), title="A curve", xlim=(0, 3))
    made.draw({"one": [1.0, 0.5, 0.25]})
    return made


def test_files_parse_and_hold_what_moves(plot: session.LivePlot, tmp_path: Path) -> None:
    rows = [{"run": 1, "loss": 0.1 + 0.2}, {"run": 2, "loss": math.nan, "note": "a, b"}]
    folder = exports.write({"curve": plot}, {"steps": rows, "empty": []}, "demo", str(tmp_path))
    assert folder == tmp_path / "demo-1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curve.png", "curve.svg", "pictures.txt", "steps.csv"
    ]  # fmt: skip
    with Image.open(folder / "curve.png") as picture:
        assert picture.size == (880, 600)  # 440 x 300 at 200 dpi
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=2) > 40).sum() > 500  # the line is there
    tree = ElementTree.parse(folder / "curve.svg")
    assert tree.getroot().tag.endswith("svg")
    assert "A curve" in "".join(tree.getroot().itertext())
    with open(folder / "steps.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert float(read[0]["loss"]) == 0.1 + 0.2
    assert read[1] == {"run": "2", "loss": "", "note": "a, b"}
    assert "Last values: one 0.25" in (folder / "pictures.txt").read_text()


def test_nothing_is_overwritten_and_the_live_picture_stays(plot: session.LivePlot, tmp_path: Path) -> None:
    before = plot.image.value
    folders = [exports.write({"curve": plot}, {}, "demo", str(tmp_path)) for _ in range(2)]
    assert [folder.name for folder in folders] == ["demo-1", "demo-2"]
    first, second = ((folder / "curve.svg").read_bytes() for folder in folders)
    assert first == second  # the same picture, the same bytes
    plot.draw({"one": [1.0, 0.5, 0.25]})
    a, b = (np.asarray(Image.open(io.BytesIO(value))) for value in (before, plot.image.value))
    assert (a == b).all()


def test_a_folder_that_cannot_be_written(plot: session.LivePlot, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LabError, match="cannot be written"):
        exports.write({"curve": plot}, {}, "demo", str(tmp_path / "file"))
