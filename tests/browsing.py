"""What tests in a real browser share: looking at pictures, parts of a panel, timed keys."""

import itertools
import os
import re
import statistics
import time
from collections.abc import Sequence
from typing import Any

from playwright.sync_api import Locator, Page, expect

ANSWER_MS = 200
QUIET_SECONDS = 0.012  # of the work in `slowness`, on the machine where the bound was met
TRIES = 12  # the best counts: other work on the machine is no fault of the panel
SECOND = 1000
expect.set_options(timeout=20 * SECOND)

# Of an image: its size, how many pixels are in colour (curves, cells and points are, frames and texts are
# not), whether its outermost pixels are all white, and its place on the page.
_LOOK = """async image => {
    for (let again = 9; again; again--)  // the picture may be replaced while it is decoded
        try { await image.decode(); break; } catch { await new Promise(requestAnimationFrame); }
    const [w, h] = [image.naturalWidth, image.naturalHeight];
    const context = Object.assign(document.createElement('canvas'), {width: w, height: h}).getContext('2d');
    context.drawImage(image, 0, 0);
    const rgba = context.getImageData(0, 0, w, h).data;
    let coloured = 0, clear = true;
    for (let y = 0, i = 0; y < h; y++) for (let x = 0; x < w; x++, i += 4) {
        const darkest = Math.min(rgba[i], rgba[i + 1], rgba[i + 2]);
        coloured += Math.max(rgba[i], rgba[i + 1], rgba[i + 2]) - darkest > 40;
        clear &&= darkest == 255 || (x > 0 && y > 0 && x < w - 1 && y < h - 1);
    }
    const {left, top, right, bottom} = image.getBoundingClientRect();
    const stretched = Math.abs((right - left) / (bottom - top) * h / w - 1) > 0.01;
    const whole = !stretched || getComputedStyle(image).objectFit == 'contain';
    const name = image.title || image.alt;
    return {name, width: w, height: h, coloured, clear, whole, left, top, right, bottom};
}"""


def overlap(a: dict[str, float], b: dict[str, float]) -> bool:
    return (
        a["left"] < b["right"]
        and b["left"] < a["right"]
        and a["top"] < b["bottom"]
        and b["top"] < a["bottom"]
    )


def look_at(pictures: list[Locator]) -> list[dict[str, Any]]:
    """What `_LOOK` finds, of whole pictures that do not cover one another."""
    seen: list[dict[str, Any]] = [picture.evaluate(_LOOK) for picture in pictures]
    for one in seen:
        assert one["width"] > 300
        assert one["clear"], f"something is cut off at the edge of a picture: {one['name']}"
        assert one["whole"], f"a picture has lost its proportions: {one['name']}"
    assert not any(overlap(a, b) for a, b in itertools.combinations(seen, 2))
    return seen


# From a key to the new picture: decoded, and a frame later on the screen.
_TIME = """image => {
    window.answers = [];
    let asked = null;
    const decoded = async () => {  // the picture may be replaced while it is decoded
        try { await image.decode(); } catch { await new Promise(requestAnimationFrame); await decoded(); }
    };
    document.addEventListener('keydown', () => { asked = performance.now(); }, true);
    new MutationObserver(async () => {
        if (asked === null) return;
        const begun = asked;
        asked = null;
        await decoded();
        await new Promise(requestAnimationFrame);
        window.answers.push(performance.now() - begun);
    }).observe(image, {attributes: true, attributeFilter: ['src']});
}"""


def part(page: Page, name: str) -> Locator:
    return page.locator(f".socketlab-{name}")


def slowness() -> float:
    """How much longer than on a quiet machine a panel may take now, 1 at least: others are at work.

    Browser and kernel fill two cores; tests that run beside this one take their share of them, and neighbours
    of a virtual machine slow all work down, as they do some that is always the same.
    """
    seconds = []
    for _ in range(15):
        begun = time.perf_counter()
        sum(i * i for i in range(200_000))
        seconds.append(time.perf_counter() - begun)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    crowd = max(1.0, 2 * workers / (os.cpu_count() or 1)) if workers > 1 else 1.0
    return crowd * max(1.0, statistics.median(seconds) / QUIET_SECONDS)


def assert_answers(page: Page, control: str, picture: str, keys: Sequence[str]) -> None:
    """Press keys on a slider or menu; the picture changes each time, within 200 ms times `slowness`.

    The next key waits for the kernel to be idle: while it answers, ipywidgets keeps only the newest value,
    and there and back again are then no change at all.
    """
    image = page.get_by_role("img", name=re.compile(picture))
    expect(image).to_have_count(1)
    image.evaluate(_TIME)
    handle = part(page, control).locator(".noUi-handle, select")
    idle = page.locator(".jp-Notebook-ExecutionIndicator").last
    for i in range(TRIES):
        expect(idle).to_have_attribute("data-status", "idle", timeout=60 * SECOND)
        handle.press(keys[i % len(keys)])
        page.wait_for_function("count => window.answers.length > count", arg=i, timeout=20 * SECOND)
    answers = page.evaluate("window.answers")
    print(f"{control}: best {min(answers):.0f} ms, median {sorted(answers)[len(answers) // 2]:.0f} ms")
    assert min(answers) < ANSWER_MS * slowness()
