"""What was tried for speed: ``python benchmarks/tried.py``, a few minutes on two cores.

Four source networks side by side as one network of grouped convolutions, against one after the other;
torch.compile of a step on this processor, compile time counted; the target's batch and the pairs in one pass;
and pooling in place of a mean, which was kept.
Writes ``docs/tried.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from speed import machine
from torch import Tensor, nn

from socketlab.files import write_whole
from socketlab.networks.networks import pooled, small_network

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tried.md"
SOURCES, BATCH, SIDE = 4, 32, 56
ADAPTATION = 225
"""Steps of a default adaptation: ten epochs of alignment and five of all terms."""
COMPILED = """
import time, torch
from socketlab.networks.networks import small_network
torch.manual_seed(0)
network = small_network(8).train()
images = torch.randn({batch}, 3, {side}, {side}).contiguous(memory_format=torch.channels_last)
def step(forward):
    with torch.autocast("cpu", torch.bfloat16, enabled={half}):
        loss = forward(images).float().square().mean()
    loss.backward()
def median(forward, rounds):
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter(); step(forward); taken.append(time.perf_counter() - begin)
    return sorted(taken)[rounds // 2]
plain = median(network, 15)
begin = time.perf_counter(); compiled = torch.compile(network); step(compiled)
first = time.perf_counter() - begin
print(first, median(compiled, 15), plain)
"""


def main() -> None:
    """Measure all of it and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    lines = ["| precision | four after each other, ms | grouped, ms | ratio |", "|---|---|---|---|"]
    for half in (False, True):
        apart, together = grouped(half, rounds)
        lines.append(f"| {named(half)} | {1e3 * apart:.0f} | {1e3 * together:.0f} | {together / apart:.2f} |")
    table = "\n".join(lines)
    lines = [
        "| precision | plain, ms | compiled, ms | compiling, s | pays after, passes |",
        "|---|---|---|---|---|",
    ]
    for half in (False, True):
        first, quick, plain = compiled(half)
        gain = plain - quick
        pays = f"{first / gain:,.0f}" if gain > 0 else "never"
        lines.append(f"| {named(half)} | {1e3 * plain:.0f} | {1e3 * quick:.0f} | {first:.0f} | {pays} |")
    parts = {"grouped": table, "compiled": "\n".join(lines)}
    lines = ["| precision | mean, ms | pooling, ms | ratio |", "|---|---|---|---|"]
    for half in (False, True):
        plain, pool = averaged(half, rounds)
        lines.append(f"| {named(half)} | {1e3 * plain:.0f} | {1e3 * pool:.0f} | {pool / plain:.2f} |")
    parts["pooled"] = "\n".join(lines)
    lines = ["| precision | two passes of 32, ms | one of 64, ms | ratio |", "|---|---|---|---|"]
    for half in (False, True):
        apart, together = merged(half, rounds)
        lines.append(f"| {named(half)} | {1e3 * apart:.0f} | {1e3 * together:.0f} | {together / apart:.2f} |")
    text = PAGE_TEXT.format(machine=machine(), steps=ADAPTATION, merged="\n".join(lines), **parts)
    write_whole(PAGE, text.encode())
    print(text)


def named(half: bool) -> str:
    """The precision in a word."""
    return "bfloat16" if half else "float32"


def grouped(half: bool, rounds: int) -> tuple[float, float]:
    """Median seconds of forward and backward of the residual blocks' convolutions: apart, and grouped."""
    images = torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    apart = [trunk(1) for _ in range(SOURCES)]
    together = trunk(SOURCES)
    forms: list[Callable[[], Tensor]] = [
        lambda: sum((one(images).float().square().mean() for one in apart), torch.zeros(())),
        lambda: together(images.repeat(1, SOURCES, 1, 1)).float().square().mean(),
    ]

    def learn(form: Callable[[], Tensor]) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = form()
        loss.backward()

    return in_turns(learn, forms, rounds)


def in_turns(work: Callable[[Any], None], forms: Sequence[Any], rounds: int) -> tuple[float, float]:
    """Median seconds of the same work on each of two forms."""
    taken: list[list[float]] = [[], []]
    for _ in range(rounds):
        for form, seconds in zip(forms, taken, strict=True):
            begin = time.perf_counter()
            work(form)
            seconds.append(time.perf_counter() - begin)
    return statistics.median(taken[0]), statistics.median(taken[1])


def merged(half: bool, rounds: int) -> tuple[float, float]:
    """Median seconds of forward and backward of the shipped trunk on two batches: apart, and as one.

    As one, batch norm takes both together, so the ratio is the best that a pass which keeps them apart
    could reach.
    """
    network = small_network(8).train().trunk
    images = torch.randn(2 * BATCH, 3, SIDE, SIDE)

    def learn(size: int) -> None:
        network.zero_grad(set_to_none=True)
        for batch in images.split(size):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                out = network(batch)
            out.backward(torch.ones_like(out))

    return in_turns(learn, (BATCH, 2 * BATCH), rounds)


def averaged(half: bool, rounds: int) -> tuple[float, float]:
    """Median seconds of forward and backward of the shipped trunk, its last map averaged in two ways."""
    network = small_network(8).train().trunk
    images = torch.randn(BATCH, 3, SIDE, SIDE)
    forms: list[Callable[[Tensor], Tensor]] = [lambda spatial: spatial.mean(dim=(2, 3)), pooled]

    def learn(form: Callable[[Tensor], Tensor]) -> None:
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = form(network.last_map(images))
        out.backward(torch.ones_like(out))

    return in_turns(learn, forms, rounds)


def trunk(groups: int, width: int = 32) -> nn.Module:
    """The shipped trunk without its shortcuts, for so many sources side by side."""
    layers: list[nn.Module] = []
    widths = [3, width, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
    strides = [2, 1, 1, 2, 1, 2, 1, 2, 1]
    for inputs, outputs, stride in zip(widths, widths[1:], strides, strict=False):
        kernel = 5 if inputs == 3 else 3
        convolution = nn.Conv2d(
            groups * inputs, groups * outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        layers += [convolution, nn.BatchNorm2d(groups * outputs), nn.ReLU()]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def compiled(half: bool) -> tuple[float, float, float]:
    """Seconds of the first, compiling step, of a compiled step, and of a plain one; in a new process."""
    code = COMPILED.format(batch=BATCH, side=SIDE, half=half)
    anew = os.environ | {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}  # else an earlier run has compiled it
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=anew)
    first, quick, plain = map(float, done.stdout.split())
    return first, quick, plain


PAGE_TEXT = """# Tried for speed

Made by `python benchmarks/tried.py` in one run on {machine}

## Several sources side by side

The trunks of four source networks on one batch of 32 images, forward and backward: one after the other, as
`adapt` does it, and as one trunk with four groups in every convolution.

{grouped}

A ratio above 1 says that grouping loses. What it gained in one precision it lost in the other when this was
decided: the sources stay apart, and their code simple.

## torch.compile on the processor

Forward and backward of the shipped network. A default adaptation has {steps} steps, each with one or two such
passes; where the last column is above {steps}, compiling does not pay within it.

{compiled}

Nothing is compiled on a processor.

## The target's batch and the pairs in one pass

Forward and backward of the shipped trunk on two batches of 32 images, one after the other as `adapt` does it,
and as one batch of 64.

{merged}

A ratio below 1 is what one pass could gain at most: batch norm would have to take the halves apart in every
layer, which is not counted here. It differs by several hundredths from run to run: other runs by hand gave
up to 1.02 in 16 bits and 1.06 in 32. In 16 bits there may be something to gain; with the halves apart it has
not been built, nor tried on a GPU, which small batches leave idle. `pair_statistics="shared"` normalises both
halves together, and is another method ([Longer](results.md#longer)).

## Pooling in place of a mean: kept

Forward and backward of the shipped trunk, whose last map is averaged over places by `mean`, or by
`avg_pool2d`.
The gradient of a mean is one number for all places, in no memory format of its own. On this processor that
makes no difference. It is kept for the sake of GPUs, where a profile of ResNet-50's backward pass after a
mean showed every layer copying the gradient into channels last.

{pooled}
"""


if __name__ == "__main__":
    main()
