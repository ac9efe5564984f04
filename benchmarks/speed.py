"""What a step and a whole run cost: ``make bench``, a quarter of an hour.

Two forms of the same work take turns, in a new random order each round; the ratio is the median over the
rounds of their quotient, and the middle half of the quotients stands beside it: a machine that is slow, or
busy, is so for both. The same step against itself gives the noise of the run. Writes ``docs/speed.md``.

``--earlier FOLDER`` runs the default adaptation of a checkout of another version beside this one's.
``--quick`` measures the bounded ratios alone, in processor time of one thread, writes nothing, and fails when
one of them breaks its bound by more than the margin.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from socketlab.files import write_whole
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages, cut_views, draw_views, on_device, random_views
from socketlab.method import steps
from socketlab.method.adaptation import State, Step, adapt
from socketlab.method.bnstats import running_moments
from socketlab.method.pair_features import PairFeatures
from socketlab.method.recipe import Recipe
from socketlab.method.steps import PLAIN, Execution
from socketlab.networks.checkpoints import Source
from socketlab.networks.networks import Network, Trunk, fast_bfloat16, mixing_weights, small_network
from socketlab.speed import best_execution

DOCS = Path(__file__).resolve().parent.parent / "docs"
CLASSES = tuple("abcdefgh")
ALL_TERMS = Recipe.socket().replace(align_epochs=0, lambda_bn=0.1)
"""The default recipe in the phase where every term is at work: a step has its target batch and its pairs."""
NORMALISATION = {
    "rgb": Normalisation("rgb", (0.5,) * 3, (0.25,) * 3),
    "depth": Normalisation("depth", (0.35,) * 3, (0.2,) * 3),
}
ROUNDS = 100
"""Of the comparisons of a step: its ratios lie a hundredth from their bounds, so forty were too few."""
PAIRS = 500
"""Pairs of one sort, near or far, as shipped."""

BOUNDS = {"BN": 1.10, "floor": 1.10, "pipeline": 0.05, "import": 0.3}
MARGINS = {"BN": 0.07, "floor": 0.10, "pipeline": 0.02, "import": 0.3}
"""What ``--quick`` allows on top, for the noise of a machine that does other things meanwhile."""

Form = Callable[[], object]


# ------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Spread:
    """A median and the middle half around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Median and quartiles of the values."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Line:
    """One line of a table: what was compared, the quotient, its bound, and the seconds behind it."""

    what: str
    ratio: Spread
    bound: str = ""
    note: str = ""


def alternate(
    forms: Mapping[str, Form], rounds: int, device: torch.device, clock: Callable[[], float], warm: int = 3
) -> dict[str, list[float]]:
    """Seconds of each form in each round, in a new order every time; the first rounds are not kept."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock()

    order, shuffle = list(forms), random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(warm + rounds):
        shuffle(order)
        for name in order:
            begin = now()
            forms[name]()
            seconds[name].append(now() - begin)
    return {name: taken[warm:] for name, taken in seconds.items()}


def quotient(seconds: Mapping[str, list[float]], one: str, other: str) -> Spread:
    """Time of one form over that of another, round by round."""
    return Spread.of([a / b for a, b in zip(seconds[one], seconds[other], strict=True)])


def milliseconds(seconds: Mapping[str, list[float]], *names: str) -> str:
    """Medians, for the last column."""
    return " : ".join(f"{1e3 * statistics.median(seconds[name]):.1f}" for name in names) + " ms"


# ------------------------------------------------------------------------ what is measured


class ResNetTrunk(nn.Sequential, Trunk):
    """torchvision's ResNet-50 up to its last map, as a trunk; random weights."""

    name, features = "resnet50", 2048

    def __init__(self) -> None:
        from torchvision.models import resnet50

        super().__init__(*list(resnet50().children())[:-2])

    def last_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 2048, H / 32, W / 32)."""
        return super().forward(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 2048)."""
        return self.with_map(x)[1]


def source_network(kind: str, width: int, seed: int, device: torch.device) -> Source:
    """A network with random weights: they do not matter to a clock."""
    network = small_network(len(CLASSES), width, seed)
    if kind == "resnet50":
        trunk: Any = ResNetTrunk()
        network = Network(trunk, trunk.features, len(CLASSES), width=256)
    network = network.to(device, memory_format=torch.channels_last).eval()
    return Source(network, CLASSES, NORMALISATION["rgb"])


def noise_images(count: int, side: int, device: torch.device, modalities: tuple[str, ...]) -> PairedImages:
    """Images of nothing, stored as the real ones are."""
    generator = torch.Generator().manual_seed(count)
    stored = {}
    if "rgb" in modalities:
        stored["rgb"] = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    if "depth" in modalities:
        depth = torch.randint(500, 6000, (count, 1, side, side), generator=generator, dtype=torch.int32)
        stored["depth"] = depth.to(torch.uint16)
    names = tuple(str(i) for i in range(count))
    return PairedImages(stored, names, ("unknown",) * count).to(device)


def stream(
    recipe: Recipe, target: PairedImages, pairs: PairedImages, execution: Execution | None = None
) -> Form:
    """A whole step of `adapt` at each call; the target is so large that no epoch ends meanwhile."""
    source = source_network("small", 32, 0, target.device)
    events = adapt(source, target, pairs, recipe, execution=execution or best_execution())

    def step() -> None:
        while not isinstance(next(events), Step):
            pass

    return step


class Bench:
    """All that a step needs, for any network, size and device: what `adapt` does, without its generator.

    Parameters
    ----------
    kind : "small" or "resnet50".
    side : of the square that the network sees; images are stored larger by 8/7.
    """

    def __init__(
        self,
        device: torch.device,
        kind: str = "small",
        width: int = 32,
        side: int = 56,
        batch: int = 32,
        sources: int = 1,
        recipe: Recipe = ALL_TERMS,
    ) -> None:
        self.side, self.batch, self.device, self.recipe = side, batch, device, recipe
        self.stored = side * 8 // 7
        networks = [source_network(kind, width, k, device) for k in range(sources)]
        self.state = State.start(networks, NORMALISATION["depth"], recipe, 0)
        self.source_statistics = [running_moments(network.trunk) for network in self.state.networks]
        self.target = noise_images(8 * batch, self.stored, device, ("depth",))
        self.pairs = noise_images(8 * batch, self.stored, device, ("depth",))
        self.generator = torch.Generator().manual_seed(0)
        self.rows = torch.arange(batch)
        self.labels = torch.arange(batch, device=device) % len(CLASSES)
        self.images = self.target_images()
        with torch.no_grad(), steps.autocast(recipe, device):
            self.wanted = [network.map_and_features(self.images) for network in self.state.networks]
        self.state.adapted.network.train()
        self.execution = best_execution()

    def target_images(self) -> Tensor:
        """The input pipeline of a target batch."""
        views = random_views(self.target, self.rows, self.generator, self.side)
        return NORMALISATION["depth"].encode(views["depth"])

    def pair_images(self) -> Tensor:
        """The input pipeline of a batch of pairs; their partners' features are cached."""
        views = draw_views(self.pairs, self.batch, self.generator, self.side)
        return NORMALISATION["depth"].encode(cut_views(self.pairs, self.rows, views, self.side)["depth"])

    def pipeline(self) -> None:
        """What stands between the stored images and the network, for both batches."""
        self.target_images(), self.pair_images()

    def step(self, recipe: Recipe, plain: bool = False) -> None:
        """One step with every term; on a GPU by CUDA graphs, unless it is to be ``plain``."""
        run = PLAIN if plain else self.execution
        state, optimiser = self.state, self.state.optimiser
        state.adapted.network.train()
        weights = mixing_weights(state.mixing)
        rows = on_device(self.rows, self.device)
        seen = steps.TargetBatch(rows, self.source_statistics, self.labels)
        with steps.autocast(recipe, self.device):
            target, pairs, matching = self.target_images(), self.pair_images(), recipe.lambda_bn > 0
            own = [steps.pass_images(one, target, run, matching) for one in state.networks]
            of_pairs = [steps.pass_images(one, pairs, run, frozen=True) for one in state.networks]
            terms = steps.target_terms(state.networks, own, weights, weights, seen, recipe)
            terms |= steps.pair_terms(state.networks, of_pairs, weights, self.wanted, recipe)
        loss = steps.total_loss(terms, recipe)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def floor(self) -> Form:
        """Forward and backward of the trunk on the target batch and on the pairs, nothing else."""
        trunks = [copy.deepcopy(network.trunk).train() for network in self.state.networks]
        batches = self.target_images(), self.pair_images()

        def passes() -> None:
            for trunk in trunks:
                trunk.zero_grad(set_to_none=True)
                for images in batches:
                    with steps.autocast(self.recipe, self.device):
                        out = trunk(images)
                    out.backward(torch.ones_like(out))

        return passes


# ------------------------------------------------------------------------ the tables


COMPARED = (
    ("the same step twice: the noise of this run", "again", "step", ""),
    ("BN matching: a SOCKET step with it, against without", "step", "without BN", "BN"),
    ("the same in its plain form, with statistics that a forward hook computes", "plain", "without BN", ""),
    ("a SOCKET step against its floor", "step", "floor", "floor"),
    ("input pipeline: share of a step", "pipeline", "step", "pipeline"),
)
"""What is compared: in words, one form, the other, the name of the bound."""


def draw(teacher: PairFeatures, number: int) -> Tensor:
    """The target halves of a batch of pairs, with the sources' features of the others."""
    return teacher.batch_of(number, "depth")[0]


def step_forms(recipe: Recipe, rounds: int) -> dict[str, Form]:
    """The default step on the CPU, from `adapt` itself, and what it is compared to."""
    cpu = torch.device("cpu")
    target = noise_images(32 * (rounds + 8), 64, cpu, ("depth",))
    pairs = noise_images(PAIRS, 64, cpu, ("rgb", "depth"))
    bench = Bench(cpu, recipe=recipe)
    teacher = PairFeatures([source_network("small", 32, 0, cpu)], pairs, recipe, 0)
    draw(teacher, 5)  # from here on cached
    rows, generator = torch.arange(32), torch.Generator().manual_seed(0)
    encode = NORMALISATION["depth"].encode

    def pipeline() -> None:
        encode(random_views(target, rows, generator)["depth"])
        encode(draw(teacher, 5))

    return {
        "step": stream(recipe, target, pairs),
        "again": stream(recipe, target, pairs),
        "without BN": stream(recipe.replace(lambda_bn=0.0), target, pairs),
        "plain": stream(recipe, target, pairs, PLAIN),
        "floor": bench.floor(),
        "pipeline": pipeline,
    }


def step_lines(
    forms: Mapping[str, Form], rounds: int, clock: Callable[[], float], bound: Callable[[str], str]
) -> list[Line]:
    """Every comparison of forms that are there."""
    seconds = alternate(forms, rounds, torch.device("cpu"), clock)
    return [
        Line(
            what,
            quotient(seconds, one, other),
            bound(name) if name else "",
            milliseconds(seconds, one, other),
        )
        for what, one, other, name in COMPARED
        if {one, other} <= seconds.keys()
    ]


# ------------------------------------------------------------------------ starting up, maps, panels

IMPORT = (
    "import json, sys, time; wall, cpu = time.perf_counter(), time.process_time(); import socketlab; "
    "print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, 'torch' in sys.modules]))"
)
SET_UP = (
    "import time; begin = time.perf_counter(); import torch; middle = time.perf_counter()\n"
    "from socketlab import Recipe, adapt, features, load_source, rooms; "
    "from socketlab.figures import maps as embed; from socketlab.figures import figures as plots\n"
    "source = load_source('rgb_kinect_v1')\n"
    "target = rooms.load('target_adapt', 'kinect_v1', ('depth',))\n"
    "held_out = rooms.load('target_test', 'kinect_v1', ('depth',))\n"
    "pairs = rooms.ti_pairs('kinect_v1', 'near')\n"
    "print([middle - begin, time.perf_counter() - begin])"
)
UMAP = (
    "import time; import numpy as np; from socketlab.figures import maps as embed\n"
    "noise = np.random.default_rng(0).normal(size=(2, 400, 128)); seconds = []\n"
    "for _ in range(4):\n"
    "    begin = time.perf_counter(); embed.joint_map(dict(zip('ab', noise)))\n"
    "    seconds.append(time.perf_counter() - begin)\n"
    "print(seconds)"
)
TRAINING = (
    "import sys, time; from socketlab import Recipe, adapt, load_source, rooms\n"
    "source = load_source('rgb_kinect_v1'); pairs = rooms.ti_pairs('kinect_v1', 'near')\n"
    "target = rooms.load('target_adapt', 'kinect_v1', ('depth',)); begin = time.perf_counter()\n"
    "recipe = Recipe.socket().replace(precision=sys.argv[1])\n"
    "for _ in adapt(source, target, pairs, recipe, every=100): pass\n"
    "print(time.perf_counter() - begin)"
)
COMMAND = (
    "import contextlib, io, json, resource, sys, tempfile, time; begin = time.perf_counter()\n"
    "from socketlab import cli\n"
    "words = ['adapt', '--out', tempfile.mkdtemp() + '/run', '--set', 'precision=' + sys.argv[1]]\n"
    "with contextlib.redirect_stdout(io.StringIO()): cli.app(words, standalone_mode=False)\n"
    "most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)\n"
    "print(json.dumps([time.perf_counter() - begin, most / 1e9]))"
)
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""A newer processor in the manner of an older one."""


def fresh(code: str, *words: str, **variables: str) -> Any:
    """What a new Python prints last, as JSON."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def imports(times: int = 5) -> tuple[Spread, Spread]:
    """Seconds that ``import socketlab`` takes in new processes: on the wall's clock, and the processor's."""
    found = [fresh(IMPORT) for _ in range(times)]
    assert not any(heavy for _, _, heavy in found), "importing socketlab loads torch"
    return Spread.of([wall for wall, _, _ in found]), Spread.of([cpu for _, cpu, _ in found])


def redraws(times: int = 60) -> Spread:
    """Seconds of a redraw of the growing curves of a run."""
    from socketlab.figures.figures import loss_terms
    from socketlab.panels.session import LiveFigure

    names, picture = ("TI", "BN", "PL", "IM"), LiveFigure()
    walk = np.random.default_rng(0).normal(size=(len(names), 225)).cumsum(axis=1)
    seconds = []
    for k in range(times):
        begin = time.perf_counter()
        steps = range(1, 3 * k + 4)
        losses = {name: (steps, walk[i, : len(steps)]) for i, name in enumerate(names)}
        picture.draw(partial(loss_terms, losses=losses, columns=2, xlabel="step", smooth=0.9))
        seconds.append(time.perf_counter() - begin)
    return Spread.of(seconds)


def waits() -> list[str]:
    """What a person waits for: what, how long, what is allowed."""
    wall, cpu = imports()
    fresh(SET_UP)
    torch_alone, set_up = fresh(SET_UP)  # files are in memory now
    first, *later = fresh(UMAP)
    draw = redraws()
    return [
        f"| `import socketlab`, torch not loaded | {wall.median:.3f} s ({cpu.median:.3f} s of the processor) "
        "| < 0.3 s |",
        f"| set-up cell of a notebook, warm | {set_up:.1f} s, of which `import torch` {torch_alone:.1f} s "
        "| < 5 s |",
        f"| UMAP of 2 × 400 features, the first in a process | {first:.1f} s | |",
        f"| the same, warm | {statistics.median(later):.2f} s | |",
        f"| redraw of four live curves | {milliseconds({'draw': [draw.median]}, 'draw')} | ≤ 200 ms |",
    ]


def whole_runs(earlier: Path | None, rounds: int = 3) -> list[str]:
    """The default adaptation and the whole command, by this processor and in the manner of an older one."""
    rows = []
    ways: list[tuple[str, str, dict[str, str]]] = [("AVX2 alone, float32", "float32", AVX2)]
    if fast_bfloat16(torch.device("cpu")):
        ways.insert(0, ("16-bit arithmetic, bfloat16", "bfloat16", {}))
    here = str(Path(__file__).resolve().parent.parent)
    for name, precision, variables in ways:
        folders = [here, *([str(earlier.resolve())] if earlier else [])]
        versions: dict[str, list[float]] = {folder: [] for folder in folders}
        for _ in range(rounds):
            for folder, seconds in versions.items():
                seconds.append(fresh(TRAINING, precision, PYTHONPATH=folder, **variables))
        now, *then = (Spread.of(seconds) for seconds in versions.values())
        before = (
            f"{then[0].median:.1f} s ({then[0].low:.1f} to {then[0].high:.1f})" if then else "not measured"
        )
        commands = [fresh(COMMAND, precision, **variables) for _ in range(rounds)]
        command, gigabytes = map(statistics.median, zip(*commands, strict=True))
        rows.append(
            f"| {name} | {now.median:.1f} s ({now.low:.1f} to {now.high:.1f}) | {before} "
            f"| {command:.0f} s, {gigabytes:.2f} GB | ≤ 75 s, ≤ 1.5 GB |"
        )
    return rows


# ------------------------------------------------------------------------ the page


def machine() -> str:
    """The machine in words, and whether it had other things to do."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        model = next((text.split(":")[1].strip() for text in file if text.startswith("model name")), model)
    cores, threads = os.cpu_count(), torch.get_num_threads()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    fast = "multiplies" if fast_bfloat16(torch.device("cpu")) else "does not multiply"
    words = [f"{cores} processor cores ({model}; it {fast} bfloat16 itself), {threads} threads, {gpu}"]
    words += [f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"]
    if hasattr(os, "getloadavg"):
        words += [f"{os.getloadavg()[0]:.1f} processes wanted to run when the measurement began"]
    return "; ".join(words)


def table(lines: list[Line]) -> str:
    """Ratios in Markdown."""
    rows = [
        f"| {line.what} | {line.ratio.median:.3f} | {line.ratio.low:.3f} to {line.ratio.high:.3f} "
        f"| {line.bound} | {line.note} |"
        for line in lines
    ]
    return "\n".join(["| what | ratio | middle half | bound | medians |", "|---|---|---|---|---|", *rows])


PAGE = """# Speed

What every part of a SOCKET step costs. All ratios are of one run of `make bench` (15 minutes on two cores):
two forms of the same work take turns in random order, the ratio is the median over the rounds of their
quotient, and the middle half of the quotients stands beside it. `benchmarks/speed.py` says in code what each
form is, and wrote this page.

**Measured on** {machine}. {clock}

## A step

SOCKET with every term at work, L_BN too: 32 target images and 32 task-irrelevant pairs of 56 × 56
pixels, a network of the shipped size. The **floor** is the forward and backward pass of the trunk on these
two batches, nothing else: no bottleneck, no head, no loss, no optimiser, images ready.

{steps}

On a GPU: [speed_gpu.md](speed_gpu.md).

## A whole run

The default adaptation, 10 epochs of alignment and 5 of all terms on 480 depth images, and the command
`socketlab adapt` with all that it reads, draws and writes. Most laptops multiply no 16-bit numbers; a newer
processor works like theirs with `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` and
`--set precision=float32`. Versions took turns; medians and the middle half of three runs each.

| processor | training | version 0.1 | the whole command | budget |
|---|---|---|---|---|
{whole}

## What one waits for

| what | how long | budget |
|---|---|---|
{waits}
"""

CLOCKS = {
    "wall": "Times are a wall clock's.",
    "cpu": "Other work ran beside it: times on the CPU are processor time, which does not count waiting for "
    "others, but does count the memory and caches that they take.",
}


def full(clock_name: str, earlier: Path | None) -> None:
    """Measure everything and write the page."""
    clock = time.process_time if clock_name == "cpu" else time.perf_counter
    parts = {"machine": machine(), "clock": CLOCKS[clock_name]}

    def bound(name: str) -> str:
        return f"≤ {BOUNDS[name]:.2f}"

    tables = []
    for precision in ("bfloat16", "float32") if fast_bfloat16(torch.device("cpu")) else ("float32",):
        forms = step_forms(ALL_TERMS.replace(precision=precision), ROUNDS)
        title = f"### Convolutions in {precision}"
        tables.append(shown(f"{title}\n\n{table(step_lines(forms, ROUNDS, clock, bound))}"))
    parts["steps"] = "\n\n".join(tables)
    parts["waits"] = shown("\n".join(waits()))
    parts["whole"] = shown("\n".join(whole_runs(earlier)))
    write_whole(DOCS / "speed.md", PAGE.format(**parts).encode())


def shown(text: str) -> str:
    """Print as it comes."""
    print(text + "\n", flush=True)
    return text


def quick() -> list[str]:
    """The bounded ratios in processor time of one thread; a sentence for each that is broken.

    All are of float32, which every processor has; that of BN matching is measured as people run it, too.
    """
    torch.set_num_threads(1)

    def bound(name: str) -> str:
        return f"≤ {BOUNDS[name]:.2f} + {MARGINS[name]:.2f}"

    lines = []
    for precision, rounds, names in (
        ("float32", 16, ("step", "again", "without BN", "floor", "pipeline")),
        ("auto", 24, ("step", "without BN")),
    ):
        forms = step_forms(ALL_TERMS.replace(precision=precision), rounds)
        lines += step_lines({name: forms[name] for name in names}, rounds, time.process_time, bound)
    _, cpu = imports(3)
    lines.append(Line("processor's seconds for `import socketlab`", cpu, bound("import")))
    shown(table(lines))
    return [
        f"{line.what}: {line.ratio.median:.3f}, allowed {line.bound}"
        for line in lines
        if line.bound and line.ratio.median > sum(float(part) for part in line.bound[2:].split(" + "))
    ]


def main() -> None:
    """Measure, print, write; with ``--quick`` end with an error where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the bounded ratios alone, less than a minute")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu on a machine in use")
    parser.add_argument("--earlier", type=Path, metavar="FOLDER", help="a checkout of another version")
    chosen = parser.parse_args()
    if chosen.quick:
        sys.exit("\n".join(quick()) or None)
    full(chosen.clock, chosen.earlier)


if __name__ == "__main__":
    main()
