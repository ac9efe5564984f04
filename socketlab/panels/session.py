"""The thread that trains, pictures drawn in the background, and the box that shows errors.

With ``SOCKETLAB_STRICT=1`` (tests, executed notebooks) callbacks raise their errors as well.
"""

import html
import io
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, Generic, TypeVar, cast

import ipywidgets as widgets
import numpy as np
from ipywidgets.widgets.widget_description import DescriptionWidget
from matplotlib.artist import setp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from PIL import Image as Pillow

from socketlab.errors import LabError
from socketlab.figures import style

Job = TypeVar("Job")
Canvas = Figure | SubFigure
Paint = Callable[[Canvas], Any]
DRAW = threading.RLock()  # matplotlib is not made for threads: take this around every draw
ERROR_CLASS = "socketlab-error"
ERROR_STYLE = "border-left:4px solid #b42318;background:#fef3f2;color:#24292f;padding:8px;line-height:1.4"
SHARPNESS = 2.0  # pixels drawn per pixel of the nominal size: the page may show a picture larger
STATUS_SECONDS, REDRAW_SECONDS = 0.2, 1.0
SHARE = 0.1  # of the time, spent on drawing during a run
SHOWN_FROM = 0.05  # share of a run after which the time left can be estimated
COLOURS = {"failed": "#b42318", "stopped": "#8a939d", "finished": "#2da44e"}


class ErrorBox(widgets.HTML):
    """A readable box for `errors`; empty while there are none."""

    def __init__(self) -> None:
        super().__init__(layout=widgets.Layout(width="auto", margin="0"))
        self.errors: list[BaseException] = []

    def show(self, error: BaseException) -> None:
        """Show one error: the sentence of a `LabError`, name and folded traceback of anything else."""
        self.errors.append(error)
        text = html.escape(str(error) or type(error).__name__)
        if not isinstance(error, LabError):
            lines = html.escape("".join(traceback.format_exception(error)))
            text = (
                f"<b>{type(error).__name__}:</b> {text}"
                "<details><summary>This is a fault of the kit: details to report</summary>"
                f"<pre style='white-space:pre-wrap;font-size:12px'>{lines}</pre></details>"
            )
        self.value = f'<div class="{ERROR_CLASS}" role="alert" style="{ERROR_STYLE}">{text}</div>'

    def clear(self) -> None:
        """Remove the errors shown."""
        self.errors.clear()
        self.value = ""


def guarded(box: ErrorBox, call: Callable[..., Any]) -> Callable[..., Any]:
    """A callback whose errors appear in `box`, for ipywidgets swallows them; in strict mode it raises too."""

    def safely(*arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except Exception as error:
            box.show(error)
            if os.environ.get("SOCKETLAB_STRICT") == "1":
                raise
            return None

    return safely


# ------------------------------------------------------------------------ a second thread


class Background(Generic[Job]):
    """A second thread that does the newest job only; errors of `work` go to `box`.

    While jobs keep coming it works for a `SHARE` of the time, and rests in between.
    """

    def __init__(self, work: Callable[[Job], Any], box: ErrorBox) -> None:
        self.work, self.box = work, box
        self._ready = threading.Condition()
        self._job: list[Job] = []
        self._alive, self._hurried, self._rest_until = False, False, 0.0

    def post(self, job: Job, at_once: bool = False) -> None:
        """Replace the job that waits; `at_once` cuts the rest short."""
        with self._ready:
            self._job = [job]
            self._hurried |= at_once
            self._ready.notify_all()
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._loop, name="socketlab-background", daemon=True).start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do, without further rest; False after `timeout` seconds."""
        with self._ready:
            self._hurried = True
            self._ready.notify_all()
            return self._ready.wait_for(lambda: not self._alive, timeout)

    def _loop(self) -> None:
        while True:
            with self._ready:
                while self._job and not self._hurried and (rest := self._rest_until - time.monotonic()) > 0:
                    self._ready.wait(rest)
                self._hurried = False
                if not self._job:
                    self._alive = False
                    self._ready.notify_all()
                    return
                job = self._job.pop()
            begun = time.monotonic()
            try:
                self.work(job)
            except Exception as error:
                self.box.show(error)
            now = time.monotonic()
            self._rest_until = now + (now - begun) * (1 / SHARE - 1)


# ------------------------------------------------------------------------ pictures


class Picture(widgets.Image, DescriptionWidget):
    """An image with a tooltip, its alternative text; the front end shows none without a `description`."""


class LiveFigure(Background[Paint]):
    """A picture drawn by a function, whole each time, and shown by the widget `image`.

    Its size, in pixels, is nominal: the page shows it at the size that it has room for. `alt` is the picture
    in words until it describes itself (`style.describe`). `paint` drew it last, and draws the same into
    another figure, or a part of one. `drawn` is called after each drawing, in its thread.
    """

    def __init__(
        self, width: int = 540, height: int = 340, alt: str = "", box: ErrorBox | None = None
    ) -> None:
        super().__init__(self.draw, box or ErrorBox())
        self.width, self.height, self.alt, self.dark = width, height, alt, False
        self.image = Picture(format="png", tooltip=alt, layout=widgets.Layout(width=f"{width}px"))
        self.image.add_class("socketlab-picture")
        self.paint: Paint = lambda figure: None
        self.drawn: Callable[[], None] = lambda: None

    def draw(self, paint: Paint) -> None:
        """Draw now, by a function that fills an empty figure."""
        self.paint = paint
        with DRAW:
            figure = style.new_figure(self.width, self.height, dpi=style.DPI * SHARPNESS)
            figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
            paint(figure)
            if self.dark:
                figure.set_facecolor("#111111")
                setp(figure.findobj(Text), color=style.GRID)  # type: ignore[arg-type]
            canvas, file = cast(FigureCanvasAgg, figure.canvas), io.BytesIO()
            canvas.draw()
            Pillow.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(file, "PNG", compress_level=1)
            self.alt = style.alt_text(figure) or self.alt
            with self.image.hold_sync():  # the front end draws an image anew for every message
                self.image.value, self.image.tooltip = file.getvalue(), self.alt
        self.drawn()

    def fit(self, width: float, height: float, dark: bool = False) -> None:
        """Take the proportions of the place in the page, pixels; photographs are redrawn, not inverted."""
        dark = dark and "socketlab-photos" in self.image._dom_classes
        nominal = round(self.height * min(max(width / max(height, 1), 1.0), 2.6))
        if abs(nominal - self.width) > 0.04 * self.width or dark != self.dark:
            self.width, self.dark = nominal, dark
            self.post(self.paint, at_once=True)


# ------------------------------------------------------------------------ the worker


class Session:
    """One worker thread that walks a run's events, and can be stopped between them.

    Attributes
    ----------
    state : "ready", "running", "finished", "stopped" or "failed", by `error`.
    bar, status : widgets for progress and remaining time.
    note : a few words beside the progress, set by the run.
    seconds : of the run.
    """

    def __init__(self, box: ErrorBox | None = None) -> None:
        self.box = box or ErrorBox()
        self.bar, self.status = widgets.FloatProgress(0.0, max=1.0), widgets.HTML()
        self.bar.add_class("socketlab-progress")
        self.status.add_class("socketlab-status")
        self.state, self.note, self.seconds = "ready", "", 0.0
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._stop, self._done = threading.Event(), threading.Event()
        self._done.set()

    def start(
        self,
        events: Callable[[], Generator[float | None]],
        draw: Callable[[], None] = lambda: None,
        end: Callable[[str], None] = lambda state: None,
    ) -> bool:
        """Start the worker; False when one is at work already.

        `events` loads what the run needs, and yields after each event the share of the run that is done
        (None: unknown). `draw` posts pictures, every `REDRAW_SECONDS` at most and at the end; `end` gets the
        final state.
        """
        with self._lock:
            if self.running:
                return False
            self._done.clear()
        self._stop.clear()
        self.error, self.seconds = None, 0.0
        self.state, self.note = "running", "loading images and networks"
        parts = events, draw, end
        threading.Thread(target=self._work, args=parts, name="socketlab-worker", daemon=True).start()
        return True

    def stop(self) -> None:
        """End the run after the step at hand."""
        self._stop.set()

    @property
    def running(self) -> bool:
        """True while a worker is at work."""
        return not self._done.is_set()

    @property
    def stopping(self) -> bool:
        """True once `stop` was called: long work inside a step may check it."""
        return self._stop.is_set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the run, failed or not; False after `timeout` seconds."""
        return self._done.wait(timeout)

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the end of the run, and raise what made it fail; interrupting the wait stops the run.

        Returns the state: "running" after `timeout` seconds.
        """
        try:
            ended = self.join(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        if ended and self.error is not None:
            raise self.error
        return self.state

    def reset(self) -> None:
        """Back to "ready", with an empty bar; only between two runs."""
        self.state, self.error, self.note = "ready", None, ""
        self._report(0.0)

    def _work(self, events: Any, draw: Any, end: Any) -> None:
        """In the worker's thread: the whole run."""
        try:
            self._report(0.0)
            with closing(events()) as shares:
                self._walk(shares, draw)
            draw()
            self.state = "stopped" if self.stopping else "finished"
        except BaseException as error:
            self._fail(error)
        try:
            end(self.state)
        except Exception as error:
            self._fail(error)
        finally:
            self._report(1.0 if self.state == "finished" else None)
            self._done.set()

    def _fail(self, error: BaseException) -> None:
        self.error, self.state = error, "failed"
        self.box.show(error)

    def _walk(self, shares: Any, draw: Any) -> None:
        """Follow the run until it ends or is stopped; the time left is by the pace since the first event."""
        begun, report_at, draw_at, first = time.perf_counter(), 0.0, 0.0, None
        for share in shares:
            now = time.perf_counter()
            self.seconds = now - begun
            if first is None and share is not None:
                first = self.seconds, share
            if now >= draw_at:
                draw()
                draw_at = time.perf_counter() + REDRAW_SECONDS
            if now >= report_at:
                self._report(share, first)
                report_at = now + STATUS_SECONDS
            if self.stopping:
                return

    def _report(self, share: float | None, first: tuple[float, float] | None = None) -> None:
        """Show state, progress and remaining time."""
        self.bar.value = self.bar.value if share is None else share
        self.bar.style.bar_color = COLOURS.get(self.state, "#0b6bcb")
        parts = [f"<b>{self.state}</b>", *([html.escape(self.note)] if self.note else [])]
        if share is not None and first is not None:
            parts.append(f"{100 * share:.0f}&nbsp;%")
            if share - first[1] >= SHOWN_FROM:
                left = (self.seconds - first[0]) * (1 - share) / (share - first[1])
                parts.append(f"about {left:.0f} s left" if share < 1 else "nearly done")
        elif self.state in ("finished", "stopped"):
            parts.append(f"after {self.seconds:.0f} s")
        self.status.value = " · ".join(parts)
