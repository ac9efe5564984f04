"""The film: one map for all epochs, in Python, as a still, and in a browser without a server."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from socketlab.errors import LabError
from socketlab.figures import style
from socketlab.figures.film import Film, Snapshot, fragment, page_script

CLASSES = ("bedroom", "kitchen", "living_room")
SETS = {
    "rgb": ("rgb", "RGB of pairs", None),
    "depth": ("depth", "depth of pairs", None),
    "target": ("depth", "depth, held out", np.arange(30) % 3),
}


def snapshots(count: int = 5, seed: int = 0) -> list[Snapshot]:
    """Depth comes nearer to its RGB partners from epoch to epoch, and more rooms are named right."""
    rng = np.random.default_rng(seed)
    rgb, away, target = rng.normal(size=(20, 6)), rng.normal(size=(20, 6)), rng.normal(size=(30, 6))
    made = []
    for t in range(count):
        right = 4 + t
        table = np.full((3, 3), (10 - right) // 2) + np.eye(3, dtype=int) * (right - (10 - right) // 2)
        features = {"rgb": rgb, "depth": rgb + 2 * away / (t + 1), "target": target * (1 + t)}
        made.append(Snapshot("before" if t == 0 else f"epoch {t}", features, table))
    return made


def made(count: int = 5, **options: Any) -> Film:
    return Film.of_features(snapshots(count), SETS, CLASSES, ("rgb", "depth"), **options)


def test_all_epochs_share_one_map() -> None:
    film = made()
    assert [list(frame) for frame in film.frames] == [["rgb", "depth", "target"]] * 5
    first, *others = (frame["rgb"].points for frame in film.frames)
    assert all(np.allclose(first, other, atol=1e-5) for other in others), "the source network stays as it is"
    medians = film.link_medians()
    assert medians == sorted(medians, reverse=True) and medians[-1] < 0.4 * medians[0]
    assert film.accuracy == sorted(film.accuracy)
    points = np.concatenate([cloud.points for frame in film.frames for cloud in frame.values()])
    np.testing.assert_allclose(film.limits, [points.min(axis=0), points.max(axis=0)])


def test_a_map_fitted_on_the_first_epoch_does_not_move_when_frames_are_added() -> None:
    early, late = made(2, fit_on=0), made(5, fit_on=0)
    assert early.live and late.live and not made().live
    for a, b in zip(early.frames, late.frames, strict=False):
        np.testing.assert_array_equal(a["target"].points, b["target"].points)


def test_the_page_receives_positions_partners_and_tables() -> None:
    film = made()
    data = json.loads(json.dumps(film.data()))
    packed = np.frombuffer(base64.b64decode(data["positions"][2]), "<u2").reshape(-1, 2)
    low, high = film.limits
    points = np.concatenate([cloud.points for cloud in film.frames[2].values()])
    np.testing.assert_allclose(low + packed / 65535 * (high - low), points, atol=1e-3)
    assert data["partners"] == [[i, 20 + i] for i in range(20)]
    assert data["labels"] == [-1] * 40 + [0, 1, 2] * 10
    assert [group["start"] for group in data["groups"]] == [0, 20, 40]
    assert data["confusion"][0] == [[4, 3, 3], [3, 4, 3], [3, 3, 4]]
    assert data["accuracy"][0] == pytest.approx(0.4)
    assert data["marks"] is None and "living room" in [entry["text"] for entry in data["legend"]]


def test_many_classes_have_marks() -> None:
    names = tuple(f"kind {i}" for i in range(17))
    sets = SETS | {"target": ("depth", "held out", np.arange(30) % 17)}
    bare = [Snapshot(s.title, s.features) for s in snapshots()]
    data = Film.of_features(bare, sets, names).data()
    assert data["marks"] == list("ABCDEFGHIJKLMNOPQ") and len(set(data["class_colours"])) == 17
    assert data["confusion"] is None and data["accuracy"] is None and data["partners"] == []


def test_the_still_shows_first_and_last_frame_on_the_same_axes() -> None:
    figure = made().still()
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
    assert left.get_title(loc="left") == "before: 40 % right"
    assert "Median line between partners" in style.alt_text(figure)
    assert left.get_legend() is None and right.get_legend() is not None
    assert style.png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda: Film.of_features([], SETS), "at least one snapshot"),
        (lambda: Film([], []), "at least one frame"),
        (lambda: Film(made().frames, ["one"]), "as many titles"),
        (lambda: Film([*made(1).frames, {"rgb": made().frames[0]["rgb"]}], ["a", "b"]), "same points"),
    ],
)
def test_frames_that_do_not_fit_are_refused(broken: Any, words: str) -> None:
    with pytest.raises(LabError, match=words):
        broken()


def test_names_cannot_leave_the_page_s_data() -> None:
    sets = SETS | {"target": ("depth", "</script><script>alert(1)</script>", np.arange(30) % 3)}
    page = fragment(Film.of_features(snapshots(), sets, CLASSES).data())
    assert "alert(1)</script>" not in page and page.count("<script") == 1


def test_the_script_needs_nothing_from_elsewhere() -> None:
    assert "import " not in page_script() and "http" not in page_script()


def test_a_widget_shows_further_frames() -> None:
    widget = made(2, fit_on=0).widget()
    assert len(widget.film["positions"]) == 2
    widget.film = made(3, fit_on=0).data()
    assert len(widget.film["positions"]) == 3 and widget.film["live"]
    assert "export default" in page_script()


# ------------------------------------------------------------------------ in a browser, from a file


def test_the_timeline_moves_the_map(tmp_path: Path, page: Any) -> None:
    errors: list[str] = []
    page.set_viewport_size({"width": 1366, "height": 768})
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    script = f'<script type="module">{page_script()}</script>'
    (tmp_path / "film.html").write_text(f"<!DOCTYPE html>{fragment(made().data())}{script}", "utf-8")
    page.goto((tmp_path / "film.html").as_uri())
    hand, status = page.get_by_role("slider", name="epoch"), page.locator(".socketlab-film-status")
    status.get_by_text("before").wait_for()
    picture = "canvas => canvas.toDataURL()"
    places = [page.locator(".socketlab-film-map").evaluate(picture)]
    hand.focus()
    page.keyboard.press("ArrowRight")
    status.get_by_text("epoch 1").wait_for()
    places.append(page.locator(".socketlab-film-map").evaluate(picture))
    page.keyboard.press("End")
    status.get_by_text("epoch 4").wait_for()
    places.append(page.locator(".socketlab-film-map").evaluate(picture))
    assert len(set(places)) == 3
    assert "80 % right" in (hand.get_attribute("aria-valuetext") or "")
    assert hand.get_attribute("data-lm-suppress-shortcuts") == "true"
    page.keyboard.press("Home")
    page.get_by_role("button", name="Play").click()
    status.get_by_text("epoch 2").wait_for(timeout=5000)
    page.get_by_role("button", name="Pause").click()
    accuracy = page.locator(".socketlab-film-accuracy")
    accuracy.click(position={"x": accuracy.bounding_box()["width"] - 12, "y": 40})
    status.get_by_text("epoch 4").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert errors == []
