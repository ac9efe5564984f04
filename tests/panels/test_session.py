"""Live pictures and the worker thread: nothing freezes, nothing fails unseen."""

import itertools
import threading
import time
from collections.abc import Iterator

import ipywidgets as widgets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from panel_tools import pixels

from socketlab import rooms
from socketlab.errors import LabError
from socketlab.figures import figures
from socketlab.panels import session as live


def ticks(count: int = 10_000, pause: float = 0.002) -> Iterator[int]:
    for i in range(1, count + 1):
        time.sleep(pause)
        yield i


def wait_for(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


@pytest.fixture
def session() -> Iterator[live.Session[int]]:
    made: live.Session[int] = live.Session()
    yield made
    made.stop()
    assert made.join(5)


# errors


def test_guarded_shows_a_box_and_raises_only_in_strict_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise LabError("Pairs are <missing>.")

    box = live.ErrorBox()
    monkeypatch.delenv("SOCKETLAB_STRICT", raising=False)
    live.guarded(box, fails)(None)
    assert "Pairs are &lt;missing&gt;." in box.value
    assert 'role="alert"' in box.value
    assert "<details>" not in box.value  # the reader can mend it: no traceback
    box.clear()
    assert box.value == ""
    monkeypatch.setenv("SOCKETLAB_STRICT", "1")
    with pytest.raises(LabError):
        live.guarded(box, fails)(None)
    assert live.ERROR_CLASS in box.value


def test_a_fault_of_the_kit_keeps_its_traceback_folded() -> None:
    box = live.ErrorBox()
    live.guarded(box, lambda: 1 / 0)()
    assert "ZeroDivisionError" in box.value
    assert "<details>" in box.value


def test_a_guarded_click_is_seen_although_ipywidgets_swallows_it() -> None:
    box, button = live.ErrorBox(), widgets.Button()
    button.on_click(live.guarded(box, lambda _: 1 / 0))
    button.click()
    assert len(box.errors) == 1


# the worker


def test_a_run_ends_with_its_last_event_seen_and_drawn(session: live.Session[int]) -> None:
    seen: list[int] = []
    drawn: list[int] = []
    ended: list[str] = []

    def see(i: int) -> float:
        seen.append(i)
        return i / 20

    assert session.start(lambda: ticks(20), see, lambda: drawn.append(len(seen)), ended.append)
    assert session.wait(5) == "finished"
    assert seen == list(range(1, 21))
    assert drawn[-1] == 20
    assert ended == ["finished"]
    assert session.bar.value == 1.0
    assert "finished" in session.status.value


def test_a_second_start_makes_no_second_worker(session: live.Session[int]) -> None:
    starts = [session.start(ticks, lambda i: None) for _ in range(3)]
    assert starts == [True, False, False]
    assert session.threads_started == 1
    others = [t for t in threading.enumerate() if t.name == "socketlab-worker" and t.is_alive()]
    assert len(others) == 1


def test_starts_from_many_threads_make_one_worker(session: live.Session[int]) -> None:
    threads = [threading.Thread(target=session.start, args=(ticks, lambda i: None)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.threads_started == 1


def test_stop_takes_less_than_a_second_and_closes_the_stream(session: live.Session[int]) -> None:
    closed = threading.Event()

    def stream() -> Iterator[int]:
        try:
            yield from ticks()
        finally:
            closed.set()

    session.start(stream, lambda i: 0.1)
    time.sleep(0.1)
    begun = time.monotonic()
    session.stop()
    assert session.wait(5) == "stopped"
    assert time.monotonic() - begun < 1
    assert closed.is_set()


def test_pause_holds_and_does_not_count_as_running_time(session: live.Session[int]) -> None:
    seen: list[int] = []
    session.start(ticks, lambda i: seen.append(i) or 0.5)
    assert wait_for(lambda: len(seen) > 10)
    session.pause()
    assert wait_for(lambda: session.state == "paused")
    count, seconds = len(seen), session.seconds
    time.sleep(0.4)
    assert len(seen) == count
    assert "paused" in session.status.value
    session.resume()
    assert wait_for(lambda: len(seen) > count + 5)
    assert session.seconds < seconds + 0.3
    assert "left" in session.status.value


def test_stop_ends_a_paused_run(session: live.Session[int]) -> None:
    session.start(ticks, lambda i: None)
    session.pause()
    assert wait_for(lambda: session.state == "paused")
    session.stop()
    assert session.wait(2) == "stopped"


def test_an_error_in_the_worker_is_shown_and_raised_by_wait(session: live.Session[int]) -> None:
    def stream() -> Iterator[int]:
        yield 1
        raise LabError("The loss stopped being a number.")

    session.start(stream, lambda i: None)
    with pytest.raises(LabError, match="number"):
        session.wait(5)
    assert "The loss stopped" in session.box.value
    assert "failed" in session.status.value
    assert session.start(lambda: ticks(2), lambda i: None)  # and a new run is possible
    assert session.wait(5) == "finished"


def test_an_error_while_ending_is_not_lost(session: live.Session[int]) -> None:
    def end(_: str) -> None:
        raise LabError("The disk is full.")

    session.start(lambda: ticks(2), lambda i: None, end=end)
    with pytest.raises(LabError, match="full"):
        session.wait(5)


def test_the_latest_wish_reaches_the_stream(session: live.Session[int]) -> None:
    found: list[float] = []

    def stream() -> Iterator[int]:
        for i in ticks():
            found.append(session.wishes()["rate"])
            yield i

    session.post("rate", 1.0)
    session.start(stream, lambda i: None)
    assert wait_for(lambda: len(found) > 3)
    for value in np.linspace(1, 2, 50):
        session.post("rate", value)
    assert wait_for(lambda: found[-1] == 2.0, 1)


def test_drawing_takes_at_most_its_share(session: live.Session[int]) -> None:
    spent = [0.0]

    def draw() -> None:
        time.sleep(0.05)
        spent[0] += 0.05

    session.start(lambda: ticks(400), lambda i: i / 400, draw)
    session.wait(20)
    assert spent[0] < 0.3 * session.seconds


def test_waiting_is_cut_short_by_its_timeout(session: live.Session[int]) -> None:
    session.start(ticks, lambda i: None)
    begun = time.monotonic()
    assert session.wait(0.1) == "running"
    assert time.monotonic() - begun < 1


# the second thread


def test_background_does_the_newest_job_and_rests() -> None:
    done: list[tuple[int, float]] = []

    def work(job: int) -> None:
        time.sleep(0.05)
        done.append((job, time.monotonic()))

    background = live.Background(work, live.ErrorBox(), share=0.2)
    for job in range(5):
        background.post(job)
        time.sleep(0.005)
    assert background.wait(5)
    jobs = [job for job, _ in done]
    assert jobs[-1] == 4
    assert len(jobs) < 5
    assert not background.idle  # it rests for four times what it worked
    assert all(b - a > 0.2 for (_, a), (_, b) in itertools.pairwise(done))
    begun = time.monotonic()
    background.post(9, at_once=True)
    background.wait(5)
    assert time.monotonic() - begun < 0.15


def test_background_survives_an_error_and_shows_it() -> None:
    box, done = live.ErrorBox(), []

    def work(job: int) -> None:
        done.append(1 / job)

    background = live.Background(work, box)
    background.post(0)
    assert background.wait(2)
    assert "ZeroDivisionError" in box.value
    background.post(1, at_once=True)
    assert background.wait(2)
    assert done == [1.0]


def test_background_thread_ends_when_nothing_is_left_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.05)
    done: list[int] = []
    background = live.Background(done.append, live.ErrorBox(), name="brief")
    for job in (1, 2):
        background.post(job, at_once=True)
        assert background.wait(5)
        assert wait_for(lambda: not [t for t in threading.enumerate() if t.name == "socketlab-brief"])
    assert done == [1, 2]


# pictures


def test_a_live_plot_shows_its_curves_and_follows_them() -> None:
    plot = live.LivePlot(["TI"], title="Loss", xlim=(0, 100))
    empty = pixels(plot)
    plot.draw({"TI": np.linspace(50, 40, 80)})
    assert (pixels(plot) != empty).any()
    low, high = plot._axes["TI"].get_ylim()
    assert low < 40 < 50 < high
    assert "TI 40" in plot.alt
    assert plot.image.tooltip == plot.alt
    plot.draw({"TI": np.linspace(50, 0, 100), "late": [1.0, 2.0]})
    assert plot._axes["TI"].get_ylim()[0] <= 0
    assert set(plot._lines) == {"TI", "late"}
    plot.clear((0, 10))
    assert plot._axes["TI"].get_xlim() == (0, 10)


def edges(picture: live.LivePicture) -> np.ndarray:
    """The outermost pixels of a picture: where something is cut off they are not all white."""
    shown = pixels(picture)
    return np.concatenate([shown[0], shown[-1], shown[:, 0], shown[:, -1]])


def overlaps(picture: live.LivePicture) -> list[tuple[str, str]]:
    """Pairs of free texts (titles, legend, names beside lines) that cover one another."""
    axes = picture.figure.axes
    legends = [text for ax in axes if ax.get_legend() for text in ax.get_legend().get_texts()]
    texts = [*picture.figure.texts, *legends, *(text for ax in axes for text in ax.texts)]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]
    return [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)]


def titles_touched(picture: live.LivePicture) -> list[str]:
    """Titles of axes that cover numbers along the same axes."""
    found = []
    for ax in picture.figure.axes:
        title = ax.get_title("left")
        (text,) = (t for t in ax.findobj(Text) if t.get_text() == title)
        numbers = ax.yaxis.get_tightbbox()
        assert numbers is not None
        found += [title] if text.get_window_extent().overlaps(numbers) else []
    return found


def test_a_picture_and_its_words_are_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[set[str]] = []
    monkeypatch.setattr(live.Picture, "send_state", lambda self, key=None: sent.append(set(key or ())))
    plot = live.LivePlot(["a"], title="A loss")
    sent.clear()
    plot.draw({"a": [3.0, 2.0]})
    assert [{"value", "tooltip"} <= names for names in sent] == [True]
    sent.clear()
    live.LiveMatrix(["x", "y"]).draw([[3, 1], [0, 4]])
    assert {"value", "tooltip"} <= sent[-1]


def test_an_image_with_words_is_one_that_the_front_end_can_show() -> None:
    state = live.LivePicture(alt="A square.").image.get_state()
    assert state["tooltip"] == "A square."
    assert state["description"] == ""  # without it the front end fails at the tooltip
    assert state["_view_name"] == "ImageView"


@settings(max_examples=20)
@given(
    runs=st.integers(1, 5),
    place=st.integers(1, 99),
    chance=st.floats(0.06, 0.5),
    others=st.lists(st.floats(0.06, 1.0), min_size=2, max_size=2),
)
def test_names_in_a_live_plot_neither_overlap_nor_leave_it(
    runs: int, place: int, chance: float, others: list[float]
) -> None:
    plot = live.LivePlot((), title="Accuracy on held-out target images", ylim=(0, 1.1), width=450, height=344)
    levels = dict(zip(("chance", "source only", "oracle"), (chance, *others), strict=True))
    plot.clear((0, 100), levels, {"all terms": place})
    plot.draw({f"run {10 + k}": ([0, 100], [0, 1]) for k in range(runs)})
    assert overlaps(plot) == []
    assert (edges(plot) == 255).all()


@pytest.mark.parametrize(
    "names", [("TI",), ("TI", "BN", "IM"), ("TI", "BN", "PL", "IM"), tuple(figures.TERMS)]
)
@pytest.mark.parametrize("height", [-2.0, 0.05, 3.0, 700.0])
def test_curves_on_axes_of_their_own_are_whole(names: tuple[str, ...], height: float) -> None:
    titles = {name: look.title for name, look in figures.TERMS.items()}
    plot = live.LivePlot(names, title="Terms", titles=titles, separate=True, width=450, height=344)
    plot.clear((0, 2000), marks={"all terms": 1000})
    assert titles_touched(plot) == []
    plot.draw({name: height * (1 + np.linspace(0.03, 0, 2000)) for name in names})
    assert (edges(plot) == 255).all()
    boxes = [ax.get_tightbbox() for ax in plot.figure.axes]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2) if one and other)
    assert titles_touched(plot) == []
    assert "$" not in plot.alt


def test_a_live_plot_takes_other_names() -> None:
    plot = live.LivePlot(["TI", "BN"], separate=True)
    plot.clear((0, 10), names=("H",))
    plot.draw({"H": [1.0, 0.5]})
    assert len(plot.figure.axes) == 1
    assert "H 0.5" in plot.alt


def test_words_skip_what_is_no_number_and_tell_the_levels() -> None:
    plot = live.LivePlot(["a", "b"])
    plot.clear((0, 3), levels={"chance": 0.125})
    plot.draw({"a": [0.5, np.nan], "b": [np.nan]})
    assert plot.alt == "Curves. Last values: a 0.5. To compare: chance 0.125."


@pytest.mark.parametrize("classes", [rooms.CLASSES, ("a", "b"), ("a very long name of a class", "b", "c")])
def test_names_of_a_live_matrix_are_whole(classes: tuple[str, ...]) -> None:
    matrix = live.LiveMatrix(classes, "True class and prediction", 440, 430)
    matrix.draw(np.eye(len(classes), dtype=int) * 1000)
    assert (edges(matrix) == 255).all()
    assert "_" not in matrix.alt


@pytest.mark.parametrize("hue", ["class", "modality"])
def test_a_live_map_is_whole(hue: str) -> None:
    points = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    scatter = live.LiveScatter(rooms.CLASSES, width=620, height=430)
    shown = {
        "a": figures.Cloud(points, "nir", "pairs, NIR"),
        "b": figures.Cloud(points + 1, "depth", "target images", np.arange(9) % 8),
    }
    scatter.draw(
        shown, hue, "Epoch 100: PCA of the source half, UMAP is on its way", "pairs: 100 % (50 % = mixed)"
    )
    assert overlaps(scatter) == []
    assert (edges(scatter) == 255).all()


def test_a_live_plot_draws_gaps_for_what_is_not_finite() -> None:
    plot = live.LivePlot(["a", "b"], separate=True, smooth=0.5, xlim=(0, 5))
    plot.draw({"a": [np.nan, np.nan, 1.0, 2.0], "b": []})
    assert plot._axes["a"] is not plot._axes["b"]
    assert np.isfinite(plot._axes["a"].get_ylim()).all()


def test_blitting_gives_the_picture_of_a_full_redraw() -> None:
    fresh, used = (live.LivePlot(["a"], xlim=(0, 9), ylim=(0, 1)) for _ in range(2))
    used.draw({"a": [0.9, 0.8, 0.7]})
    for plot in (fresh, used):
        plot.draw({"a": [0.1, 0.5, 0.3]})
    assert (pixels(fresh) == pixels(used)).all()


def test_a_live_matrix_colours_the_diagonal() -> None:
    matrix = live.LiveMatrix(("one", "two"))
    before = pixels(matrix)
    matrix.draw([[9, 1], [0, 10]])
    assert (pixels(matrix) != before).any()
    assert "95 % right" in matrix.alt
    assert matrix._numbers[0][0].get_text() == "90"


def test_a_live_map_keeps_its_frame_while_points_move() -> None:
    rng = np.random.default_rng(0)
    scatter = live.LiveScatter(("x", "y"))

    def clouds() -> dict[str, figures.Cloud]:
        points = rng.normal(size=(2, 6, 2)).astype(np.float32)
        return {
            "a": figures.Cloud(points[0], "rgb", "RGB"),
            "b": figures.Cloud(points[1], "depth", "depth", np.arange(6) % 2),
        }

    scatter.draw(clouds(), links=("a", "b"), title="one")
    marks, first = scatter._marks, pixels(scatter)
    scatter.draw(clouds(), links=("a", "b"), title="two")
    assert scatter._marks is marks
    assert (pixels(scatter) != first).any()
    assert "two" in scatter.alt
    scatter.draw(clouds(), hue="modality")
    assert scatter._marks is not marks


def test_a_frame_is_drawn_in_time() -> None:
    plot = live.LivePlot(["a"], xlim=(0, 300), ylim=(0, 1))
    y = np.random.default_rng(0).random(300)
    times = []
    for _ in range(10):
        begun = time.thread_time()  # of this thread: other work on the machine does not count
        plot.draw({"a": y})
        times.append(time.thread_time() - begun)
    assert sorted(times)[3] < 0.2  # a slider's redraw


def test_running_mean_starts_without_bias_and_skips_gaps() -> None:
    assert live.running_mean([2.0, 2.0, 2.0], 0.9) == pytest.approx([2, 2, 2])
    out = live.running_mean([np.nan, 4.0, np.nan, 2.0], 0.5)
    assert np.isnan(out[0])
    assert out[1:] == pytest.approx([4, 4, (0.5 * 0.5 * 4 + 0.5 * 2) / 0.75])
