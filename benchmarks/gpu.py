"""What a step costs on a GPU: ``python benchmarks/gpu.py``, four minutes; writes ``docs/speed_gpu.md``.

As in `speed`, everything is a ratio measured in one run, forms taking turns. The network is torchvision's
ResNet-50 at 224 × 224 pixels in bfloat16, channels last. Beside the ratios stand steps and images per second
and the most memory that each form held.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from speed import (
    ALL_TERMS,
    BOUNDS,
    DOCS,
    NORMALISATION,
    Bench,
    Form,
    Line,
    Spread,
    alternate,
    milliseconds,
    noise_images,
    quotient,
    source_network,
    table,
)

from socketlab.files import write_whole
from socketlab.method.adaptation import Step, adapt
from socketlab.method.recipe import Recipe
from socketlab.speed import best_execution

GPU = torch.device("cuda")
RECIPE = ALL_TERMS.replace(precision="bfloat16")
FLOOR = 0.90
"""The least share of a step that the floor must be."""
IN_A_ROW = 5
"""Calls between two looks at the clock: as in training, the computer is a step ahead of the GPU."""
COMPARED = (
    ("the same step twice: the noise of this run", "again", "step", ""),
    ("BN matching: a SOCKET step with it, against without", "step", "without BN", "BN"),
    ("throughput: the floor's time, as a share of a SOCKET step", "floor", "step", "floor"),
    ("the plain step, against the step", "plain", "step", ""),
    ("the floor without a CUDA graph, against the floor", "plain floor", "floor", ""),
    ("input pipeline: share of a step", "pipeline", "step", "pipeline"),
)
"""In words, one form, the other, the name of its bound."""


def forms_of(batch: int, recipe: Recipe = RECIPE) -> dict[str, Form]:
    """A step and all that it is compared to, for batches of so many images and so many pairs."""
    bench = Bench(GPU, "resnet50", side=224, batch=batch, recipe=recipe)
    forms: dict[str, Form] = {
        "step": functools.partial(bench.step, recipe),
        "again": functools.partial(bench.step, recipe),
        "without BN": functools.partial(bench.step, recipe.replace(lambda_bn=0.0)),
        "plain": functools.partial(bench.step, recipe, plain=True),
        "floor": in_a_graph(bench.floor()),
        "plain floor": bench.floor(),
        "pipeline": bench.pipeline,
    }
    return {name: functools.partial(in_a_row, form) for name, form in forms.items()}


def in_a_row(form: Form) -> None:
    """Several calls, none of which waits for the GPU."""
    for _ in range(IN_A_ROW):
        form()


def in_a_graph(form: Form) -> Form:
    """The same work as one CUDA graph: the GPU never waits for the computer."""
    beside = torch.cuda.Stream()
    with torch.cuda.stream(beside):
        for _ in range(4):
            form()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        form()
    return graph.replay


def step_lines(seconds: Mapping[str, list[float]]) -> list[Line]:
    """The ratios, with their bounds."""
    bounds = {"": "", "BN": f"≤ {BOUNDS['BN']:.2f}", "floor": f"≥ {FLOOR:.2f}",
              "pipeline": f"≤ {BOUNDS['pipeline']:.2f}"}  # fmt: skip
    return [
        Line(what, quotient(seconds, one, other), bounds[bound], each_ms(seconds, one, other))
        for what, one, other, bound in COMPARED
    ]


def each_ms(seconds: Mapping[str, list[float]], *names: str) -> str:
    """Median milliseconds of one call of each form."""
    return milliseconds({name: [s / IN_A_ROW for s in seconds[name]] for name in names}, *names)


def peak(form: Form) -> float:
    """Gigabytes that a form holds at most, all else that is there included."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    form()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def by_batch(batches: tuple[int, ...], rounds: int) -> tuple[str, str]:
    """The ratios at the middle batch size, and a line of throughput and memory for each size."""
    head = ("batch", "steps per second", "images per second", "floor / step", "with BN / without", "GB, step",
            "GB, floor")  # fmt: skip
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    ratios = ""
    for batch in batches:
        forms = forms_of(batch)
        seconds = alternate(forms, rounds, GPU, time.perf_counter, warm=3)
        per_second = IN_A_ROW / statistics.median(seconds["step"])
        floor, bn = quotient(seconds, "floor", "step"), quotient(seconds, "step", "without BN")
        cells = [f"{batch} + {batch}", f"{per_second:.2f}", f"{2 * batch * per_second:.0f}", told(floor)]
        cells += [told(bn), f"{peak(forms['step']):.1f}", f"{peak(forms['floor']):.1f}"]
        rows.append("| " + " | ".join(cells) + " |")
        if batch == 64:
            ratios = table(step_lines(seconds))
            print(ratios, flush=True)
        del forms
        torch.cuda.empty_cache()
        print(rows[-1], flush=True)
    return ratios, "\n".join(rows)


def told(spread: Spread) -> str:
    """A ratio with its middle half."""
    return f"{spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})"


def whole_steps(stored: str, count: int) -> Callable[[], None]:
    """Steps of `adapt` itself, ResNet-50, with images on the GPU or in the computer's memory."""
    recipe, where = RECIPE.replace(batch_size=64, pair_views=0), torch.device(stored)
    target = noise_images(64 * 4096 // 64, 256, where, ("depth",))
    pairs = noise_images(2048, 256, where, ("rgb", "depth"))
    source = source_network("resnet50", 32, 0, GPU)
    execution = best_execution()
    events = adapt(source, target, pairs, recipe, normalisation=NORMALISATION["depth"], execution=execution)

    def some() -> None:
        for _ in range(count):
            while not isinstance(next(events), Step):
                pass

    return some


def streaming(rounds: int) -> list[Line]:
    """`adapt` with its images in the computer's memory, against images on the GPU."""
    forms = {place: whole_steps(place, 4) for place in ("cuda", "cpu")}
    seconds = alternate(forms, rounds, GPU, time.perf_counter, warm=2)
    what = "`adapt`, images in the computer's memory, against images on the GPU"
    return [Line(what, quotient(seconds, "cpu", "cuda"), "", milliseconds(seconds, "cpu", "cuda") + " for 4")]


def small_run() -> str:
    """Seconds of the default adaptation of one shipped sensor, all 15 epochs, with the GPU."""
    from socketlab import load_source, rooms

    source = load_source("rgb_kinect_v1", device="cuda")
    pairs = rooms.ti_pairs("kinect_v1", "near").to("cuda")
    target = rooms.load("target_adapt", "kinect_v1", ("depth",)).to("cuda")
    taken = []
    for _ in range(4):
        begin = time.perf_counter()
        for _ in adapt(source, target, pairs, Recipe.socket(), every=100, execution=best_execution()):
            pass
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return (
        f"{statistics.median(taken[1:]):.1f} s (the first, with what a new process sets up, {taken[0]:.1f} s)"
    )


def machine() -> str:
    """The machine in words."""
    words = [torch.cuda.get_device_name(), f"Python {platform.python_version()}"]
    return ", ".join([*words, f"torch {torch.__version__}", f"cuDNN {torch.backends.cudnn.version()}"])


PAGE = """# Speed on a GPU

Made by `python benchmarks/gpu.py` on one {machine}. Ratios are medians over alternating rounds of five
calls in a row, the middle half beside them, as in [speed.md](speed.md).

## A step of ResNet-50

All terms at work, L_BN too; 64 target images and 64 task-irrelevant pairs of 224 × 224 pixels, bfloat16,
channels last. The **floor** is the forward and backward pass of the trunk on these two batches, nothing else,
as one CUDA graph, so that it is the GPU's own time. Weights are brought to 16 bits in both.

{ratios}

## Along the batch

{batches}

Memory is the most that was allocated during one call, with networks, images and optimiser of the measurement
there all the time.

## Around the step

{around}

The default adaptation of one shipped sensor (the small network, 225 steps of 32 images of 56 × 56 pixels):
{small}.
"""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument("--out", type=Path, default=DOCS / "speed_gpu.md")
    parser.add_argument(
        "--step-alone", action="store_true", help="print the ratios at 64 images, write nothing"
    )
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("There is no GPU that torch can use: benchmarks/speed.py measures on the processor.")
    torch.backends.cudnn.benchmark = True
    if chosen.step_alone:
        print(by_batch((64,), chosen.rounds)[0])
        return
    ratios, batches = by_batch(tuple(chosen.batches), chosen.rounds)
    around = table(streaming(8))
    page = PAGE.format(machine=machine(), ratios=ratios, batches=batches, around=around, small=small_run())
    with contextlib.suppress(OSError):
        print(page)
    write_whole(chosen.out, page.encode())


if __name__ == "__main__":
    main()
