"""Live pictures and the worker thread: nothing freezes, nothing fails unseen."""

import itertools
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import ipywidgets as widgets
import pytest
from matplotlib.figure import Figure
from panel_tools import pixels

from socketlab.errors import LabError
from socketlab.figures import figures
from socketlab.panels import session as live


def ticks(count: int = 10_000, see: Callable[[int], Any] = lambda i: None) -> Generator[float | None]:
    """A run of so many events, each seen; of how many, is not known."""
    for i in range(1, count + 1):
        time.sleep(0.002)
        yield see(i)


def wait_for(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "socketlab-worker"]


@pytest.fixture
def session() -> Iterator[live.Session]:
    made: live.Session = live.Session()
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


def test_a_run_ends_with_its_last_event_seen_and_drawn(session: live.Session) -> None:
    seen: list[int] = []
    drawn: list[int] = []
    ended: list[str] = []

    def see(i: int) -> float:
        seen.append(i)
        return i / 20

    assert session.start(lambda: ticks(20, see), lambda: drawn.append(len(seen)), ended.append)
    assert session.wait(5) == "finished"
    assert seen == list(range(1, 21))
    assert drawn[-1] == 20
    assert ended == ["finished"]
    assert session.bar.value == 1.0
    assert "finished" in session.status.value


def test_a_second_start_makes_no_second_worker(session: live.Session) -> None:
    starts = [session.start(ticks) for _ in range(3)]
    assert starts == [True, False, False]
    assert len(workers()) == 1


def test_starts_from_many_threads_make_one_worker(session: live.Session) -> None:
    threads = [threading.Thread(target=session.start, args=(ticks,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(workers()) == 1


def test_stop_takes_less_than_a_second_and_closes_the_stream(session: live.Session) -> None:
    closed = threading.Event()

    def stream() -> Generator[float | None]:
        try:
            yield from ticks()
        finally:
            closed.set()

    session.start(stream)
    time.sleep(0.1)
    begun = time.monotonic()
    session.stop()
    assert session.wait(5) == "stopped"
    assert time.monotonic() - begun < 1
    assert closed.is_set()


def test_time_left_counts_from_the_first_step(session: live.Session) -> None:
    """What comes before it, an evaluation or loading, has another pace."""
    said: list[tuple[float, str]] = []

    def stream() -> Generator[float]:
        for i in range(40):
            time.sleep(0.6 if i == 0 else 0.03)
            said.append((i / 40, session.status.value))
            yield i / 40

    session.start(stream)
    session.wait(20)
    early = [text for share, text in said if 0 < share < live.SHOWN_FROM]
    assert not any("left" in text for text in early)
    lefts = [float(found[1]) for _, text in said if (found := re.search(r"about (\d+) s left", text))]
    assert lefts
    assert max(lefts) <= 3


def test_an_error_in_the_worker_is_shown_and_raised_by_wait(session: live.Session) -> None:
    def stream() -> Generator[float | None]:
        yield None
        raise LabError("The loss stopped being a number.")

    session.start(stream)
    with pytest.raises(LabError, match="number"):
        session.wait(5)
    assert "The loss stopped" in session.box.value
    assert "failed" in session.status.value
    assert session.start(lambda: ticks(2))  # and a new run is possible
    assert session.wait(5) == "finished"


def test_an_error_while_ending_is_not_lost(session: live.Session) -> None:
    def end(_: str) -> None:
        raise LabError("The disk is full.")

    session.start(lambda: ticks(2), end=end)
    with pytest.raises(LabError, match="full"):
        session.wait(5)


def test_draws_are_a_second_apart_and_the_last_one_comes_at_the_end(session: live.Session) -> None:
    seen: list[int] = []
    drawn: list[tuple[float, int]] = []
    session.start(lambda: ticks(700, seen.append), lambda: drawn.append((time.monotonic(), len(seen))))
    session.wait(20)
    assert drawn[0][1] == 1
    assert drawn[-1][1] == 700
    times = [when for when, _ in drawn[:-1]]
    assert all(b - a >= live.REDRAW_SECONDS for a, b in itertools.pairwise(times))


def test_waiting_is_cut_short_by_its_timeout(session: live.Session) -> None:
    session.start(ticks)
    begun = time.monotonic()
    assert session.wait(0.1) == "running"
    assert time.monotonic() - begun < 1


# the second thread


def test_background_does_the_newest_job_and_rests() -> None:
    done: list[tuple[int, float]] = []

    def work(job: int) -> None:
        time.sleep(0.05)
        done.append((job, time.monotonic()))

    background = live.Background(work, live.ErrorBox())
    for job in range(5):
        background.post(job)
        time.sleep(0.005)
    assert wait_for(lambda: bool(done) and done[-1][0] == 4)
    jobs = [job for job, _ in done]
    assert jobs[-1] == 4
    assert len(jobs) < 5
    assert all(b - a > 0.4 for (_, a), (_, b) in itertools.pairwise(done))  # it rests nine times as long
    begun = time.monotonic()
    background.post(8, at_once=True)
    time.sleep(0.02)
    background.post(9, at_once=True)  # while the other one is done
    assert background.wait(5)
    assert [job for job, _ in done[-2:]] == [8, 9]
    assert time.monotonic() - begun < 0.2


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


def test_background_thread_ends_when_nothing_is_left_and_comes_back() -> None:
    done: list[int] = []
    background = live.Background(done.append, live.ErrorBox())
    for job in (1, 2):
        background.post(job, at_once=True)
        assert background.wait(5)
        assert wait_for(lambda: not [t for t in threading.enumerate() if t.name == "socketlab-background"])
    assert done == [1, 2]


# pictures


def line(heights: list[float]) -> live.Paint:
    def paint(figure: Figure) -> None:
        figures.curves(
            {"a": (range(len(heights)), heights)}, figure.subplots(), title="A curve", ylabel="loss"
        )

    return paint


def test_a_picture_is_drawn_whole_with_its_words_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[set[str]] = []
    picture = live.LiveFigure(alt="nothing yet")
    assert picture.image.tooltip == "nothing yet"
    monkeypatch.setattr(live.Picture, "send_state", lambda self, key=None: sent.append(set(key or ())))
    picture.draw(line([3.0, 2.0]))
    assert [{"value", "tooltip"} <= names for names in sent] == [True]
    assert "a from 3.00 to 2.00" in picture.image.tooltip
    shown = pixels(picture)
    assert shown.shape[:2] == (live.SHARPNESS * picture.height, live.SHARPNESS * picture.width)
    picture.draw(line([3.0, 1.0]))
    assert (pixels(picture) != shown).any()


def test_an_image_with_words_is_one_that_the_front_end_can_show() -> None:
    state = live.LiveFigure(alt="A square.").image.get_state()
    assert state["tooltip"] == "A square."
    assert state["description"] == ""  # without it the front end fails at the tooltip
    assert state["_view_name"] == "ImageView"


def test_what_is_posted_is_drawn_in_the_background_and_errors_are_shown() -> None:
    box = live.ErrorBox()
    picture = live.LiveFigure(box=box)
    picture.post(line([1.0, 0.5]))
    assert picture.wait(20)
    assert "a from 1.00 to 0.50" in picture.alt
    picture.post(lambda figure: 1 / 0, at_once=True)
    assert picture.wait(20)
    assert "ZeroDivisionError" in box.value


def test_a_picture_takes_the_proportions_of_its_place() -> None:
    picture = live.LiveFigure()
    picture.draw(line([1.0, 0.5]))
    before = pixels(picture).shape
    picture.fit(picture.width, picture.height)
    picture.fit(800, 400)
    assert picture.wait(20)
    height, width = pixels(picture).shape[:2]
    assert (height, width) == (before[0], 2 * height)
    picture.fit(800, 400, dark=True)
    assert picture.wait(20)
    assert (pixels(picture)[0, 0] == 255).all()  # the page inverts it
    picture.image.add_class("socketlab-photos")
    picture.fit(800, 400, dark=True)
    assert picture.wait(20)
    assert (pixels(picture)[0, 0] < 30).all()
    picture.fit(5000, 50)  # a strip that no picture fits
    assert picture.wait(20)
    assert picture.width <= 2.6 * picture.height


def test_a_picture_is_drawn_in_time() -> None:
    picture, times = live.LiveFigure(), []
    for _ in range(8):
        begun = time.thread_time()  # of this thread: other work on the machine does not count
        picture.draw(line([1.0, 0.5, 0.2]))
        times.append(time.thread_time() - begun)
    assert sorted(times)[2] < 0.2  # a slider's redraw
