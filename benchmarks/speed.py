"""What every part of a step costs: ``make bench`` (or ``python benchmarks/speed.py``), ten minutes.

Everything is a ratio measured in one run. Two forms of the same work take turns, in a new random order each
round; the ratio is the median over the rounds of their quotient, and the middle half of the quotients says
how far to trust it. A machine that is slow, or busy with other things, is so for both. The same step against
itself gives the noise of the run. Writes ``docs/speed.md`` and ``docs/speed.png``.

``--quick`` measures the bounded ratios alone, in processor time of one thread, writes nothing, and fails when
one of them breaks its bound by more than the margin.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
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
from socketlab.method.bnstats import reestimate_statistics, running_moments
from socketlab.method.evaluate import encoded_batches, predict
from socketlab.method.pair_features import Teacher
from socketlab.method.pseudolabels import shot_pseudo_labels
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
TARGET, PAIRS = 480, 500
"""Images of the shipped target and pairs of one sort, near or far."""

BOUNDS = {"BN": 1.03, "floor": 1.10, "pipeline": 0.05, "import": 0.3}
MARGINS = {"BN": 0.07, "floor": 0.10, "pipeline": 0.02, "import": 0.3}
"""What ``--quick`` allows on top, for the noise of a machine that does other things meanwhile.

In three such runs, one to four processes wanting two cores, the same step against itself came out at 0.98,
1.00 and 1.04, and BN matching at 1.01 to 1.04 in float32 and 1.02 to 1.07 in bfloat16.
"""

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
        """The input pipeline of a batch of pairs; their partners' features are remembered."""
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
        seen = steps.TargetBatch(self.target_images(), rows, self.source_statistics, self.labels)
        with steps.autocast(recipe, self.device):
            terms = steps.target_terms(state.networks, weights, weights, seen, recipe, run)
            terms |= steps.pair_terms(state.networks, weights, self.pair_images(), self.wanted, recipe, run)
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
    ("a step written out, as in the slopes below, against `adapt`'s", "written out", "step", ""),
)
"""What is compared: in words, one form, the other, the name of the bound."""


def draw(teacher: Teacher, number: int) -> Tensor:
    """The target halves of a batch of pairs, with the sources' features of the others."""
    return teacher.batch_of(number, "depth")[0]


def step_forms(recipe: Recipe, rounds: int) -> dict[str, Form]:
    """The default step on the CPU, from `adapt` itself, and what it is compared to."""
    cpu = torch.device("cpu")
    target = noise_images(32 * (rounds + 8), 64, cpu, ("depth",))
    pairs = noise_images(PAIRS, 64, cpu, ("rgb", "depth"))
    bench = Bench(cpu, recipe=recipe)
    teacher = Teacher([source_network("small", 32, 0, cpu)], pairs, recipe, 0)
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
        "written out": functools.partial(bench.step, recipe),
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


def epoch_lines(rounds: int, clock: Callable[[], float]) -> list[Line]:
    """What happens between steps, as shares of an epoch or of a whole default run."""
    cpu = torch.device("cpu")
    bench, recipe = Bench(cpu), Recipe.socket()
    network, per_epoch = bench.state.networks[0], TARGET // 32
    target = noise_images(TARGET, 64, cpu, ("depth",))
    pairs = noise_images(PAIRS, 64, cpu, ("rgb", "depth"))
    frozen = source_network("small", 32, 0, cpu)

    def refresh() -> None:
        logits, features = predict(bench.state.adapted, target)
        shot_pseudo_labels(features, logits)

    def settle() -> None:
        with steps.autocast(recipe, cpu):
            reestimate_statistics(network, encoded_batches(target, NORMALISATION["depth"], 128))

    def ask() -> None:
        draw(Teacher([frozen], pairs, recipe, 0), 1)

    def steps_of_an_epoch() -> None:
        for _ in range(per_epoch):
            bench.step(ALL_TERMS)

    forms = {"epoch": steps_of_an_epoch, "refresh": refresh, "settle": settle, "ask": ask}
    seconds = alternate(forms, rounds, cpu, clock, warm=1)
    views, epochs = recipe.pair_views, recipe.align_epochs / 2 + recipe.epochs  # half the work while aligning
    asked = quotient(seconds, "ask", "epoch")
    whole = Spread(*(views * value / epochs for value in (asked.median, asked.low, asked.high)))
    return [
        Line("refreshing the pseudo-labels of 480 images, against the 15 steps of an epoch",
             quotient(seconds, "refresh", "epoch"), "", milliseconds(seconds, "refresh", "epoch")),
        Line("re-estimating the statistics on 480 images, against the 15 steps of an epoch",
             quotient(seconds, "settle", "epoch"), "", milliseconds(seconds, "settle", "epoch")),
        Line(f"what the source says of {PAIRS} pairs in {views} views, against all steps of a default run",
             whole, "", f"{milliseconds(seconds, 'ask')} a view"),
    ]  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """One number that is changed: in words, its values, the default, and the power that is to be expected."""

    title: str
    values: tuple[int, ...]
    default: int
    power: int


AXES = {
    "batch": Axis("images per batch", (8, 16, 32, 64, 128), 32, 1),
    "side": Axis("side of an image, pixels", (28, 42, 56, 84, 112), 56, 2),
    "width": Axis("width of the network", (8, 16, 32, 48, 64), 32, 2),
    "sources": Axis("source networks", (1, 2, 3, 4), 1, 1),
}


def slopes(rounds: int, clock: Callable[[], float]) -> dict[str, dict[int, Spread]]:
    """Time of a step against the default's, along each axis; and of asking the source, along the pairs."""
    cpu = torch.device("cpu")
    found: dict[str, dict[int, Spread]] = {}
    for axis, about in AXES.items():
        benches = {value: Bench(cpu, **{axis: value}) for value in about.values}  # type: ignore[arg-type]
        forms = {str(v): functools.partial(b.step, ALL_TERMS) for v, b in benches.items()}
        seconds = alternate(forms, rounds, cpu, clock, warm=1)
        found[axis] = {value: quotient(seconds, str(value), str(about.default)) for value in about.values}
    recipe, frozen, counts = Recipe.socket(), source_network("small", 32, 0, cpu), (125, 250, 500, 1000)
    sets = {count: noise_images(count, 64, cpu, ("rgb", "depth")) for count in counts}

    def ask(count: int) -> None:
        draw(Teacher([frozen], sets[count], recipe, 0), 0)

    forms = {f"ask {count}": functools.partial(ask, count) for count in counts}
    for count in counts:
        teacher = Teacher([frozen], sets[count], recipe, 0)
        forms[f"draw {count}"] = functools.partial(draw, teacher, 0)
    forms["step"] = functools.partial(Bench(cpu).step, ALL_TERMS)
    seconds = alternate(forms, rounds, cpu, clock, warm=1)
    found["pairs, once per view"] = {count: quotient(seconds, f"ask {count}", "step") for count in counts}
    found["pairs, every step"] = {count: quotient(seconds, f"draw {count}", "step") for count in counts}
    return found


def exponent(points: Mapping[int, Spread]) -> float:
    """The power p in time ∝ value^p, by least squares on logarithms."""
    x, y = np.log(list(points)), np.log([point.median for point in points.values()])
    return float(np.polyfit(x, y, 1)[0])


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
WHOLE = (
    "import time; from socketlab import Recipe, adapt, load_source, rooms\n"
    "source = load_source('rgb_kinect_v1'); pairs = rooms.ti_pairs('kinect_v1', 'near')\n"
    "target = rooms.load('target_adapt', 'kinect_v1', ('depth',)); begin = time.perf_counter()\n"
    "for _ in adapt(source, target, pairs, Recipe.socket(), every=100): pass\n"
    "seconds = time.perf_counter() - begin\n"
    "import os, resource, sys\n"
    "most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)\n"
    "if os.path.exists('/proc/self/status'):  # ru_maxrss begins with what the parent process had\n"
    "    lines = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
    "    most = int(lines['VmHWM'].split()[0]) * 1024\n"
    "print([seconds, most / 1e9])"
)


def fresh(code: str) -> Any:
    """What a new Python prints last, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def imports(times: int = 5) -> tuple[Spread, Spread]:
    """Seconds that ``import socketlab`` takes in new processes: on the wall's clock, and the processor's."""
    found = [fresh(IMPORT) for _ in range(times)]
    assert not any(heavy for _, _, heavy in found), "importing socketlab loads torch"
    return Spread.of([wall for wall, _, _ in found]), Spread.of([cpu for _, cpu, _ in found])


def redraws(times: int = 60) -> Spread:
    """Seconds of a redraw of the growing curves of a run."""
    from socketlab.panels.adaptation import draw_losses
    from socketlab.panels.session import LiveFigure

    names, picture = ("TI", "BN", "PL", "IM"), LiveFigure()
    walk = np.random.default_rng(0).normal(size=(len(names), 225)).cumsum(axis=1)
    seconds = []
    for k in range(times):
        begin = time.perf_counter()
        losses = {name: walk[i, : 3 * k + 3].tolist() for i, name in enumerate(names)}
        picture.draw(lambda figure, losses=losses: draw_losses(figure, losses, []))
        seconds.append(time.perf_counter() - begin)
    return Spread.of(seconds)


def waits() -> list[tuple[str, str, str]]:
    """What a person waits for: what, how long, what is allowed."""
    wall, cpu = imports()
    fresh(SET_UP)
    torch_alone, set_up = fresh(SET_UP)  # files are in memory now
    first, *later = fresh(UMAP)
    warm = statistics.median(later)
    draw = redraws()
    seconds, gigabytes = fresh(WHOLE)
    return [
        ("`import socketlab`, torch not loaded",
         f"{wall.median:.3f} s ({cpu.median:.3f} s of the processor)", "< 0.3 s"),
        ("set-up cell of a notebook, warm",
         f"{set_up:.1f} s, of which `import torch` {torch_alone:.1f} s", "< 5 s"),
        ("UMAP of 2 × 400 features, the first in a process", f"{first:.1f} s", "hidden by `embed.warm_up`"),
        ("the same, warm", f"{warm:.2f} s", ""),
        ("redraw of four live curves",
         f"{1e3 * draw.median:.0f} ms ({1e3 * draw.low:.0f} to {1e3 * draw.high:.0f})", "≤ 200 ms"),
        ("default adaptation of one sensor", f"{seconds:.0f} s, {gigabytes:.2f} GB at most",
         "≤ 60 s, ≤ 1.5 GB"),
    ]  # fmt: skip


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


def slope_table(found: Mapping[str, dict[int, Spread]]) -> str:
    """Every axis in one line."""
    rows = ["| along | time of a step, against the default's | grows as |", "|---|---|---|"]
    for axis, points in found.items():
        title = AXES[axis].title if axis in AXES else axis
        told = ", ".join(f"{value}: {point.median:.2f}" for value, point in points.items())
        rows.append(f"| {title} | {told} | power {exponent(points):.2f} |")
    return "\n".join(rows)


def slope_picture(found: Mapping[str, dict[int, Spread]]) -> bytes:
    """One panel per axis, both scales logarithmic; dotted, what to expect from the number of operations."""
    from socketlab.figures import figures

    figure = figures.new_figure(1560, 460)
    for place, (axis, about) in enumerate(AXES.items()):
        ax = figure.add_axes((0.05 + 0.19 * place, 0.13, 0.155, 0.68))
        figures.dress(ax, about.title, "", "time of a step / default's" if place == 0 else "", grid="both")
        expected = [(value / about.default) ** about.power for value in about.values]
        ax.plot(about.values, expected, ":", color=figures.SOFT, linewidth=1.8)
        words = "in proportion" if about.power == 1 else "to the square"
        ax.text(0.04, 0.93, f"dotted: {words}", transform=ax.transAxes, color=figures.SOFT, size=12)
        draw_points(ax, found[axis], "#0b6bcb", "o")
        ax.set(xscale="log", yscale="log", ylim=(0.15, 8))
        ax.set_yticks((0.25, 0.5, 1, 2, 4), ("¼", "½", "1", "2", "4"))
        ax.set_xticks(about.values, [str(value) for value in about.values])
        ax.minorticks_off()
    ax = figure.add_axes((0.83, 0.13, 0.155, 0.68))
    figures.dress(ax, "pairs of images", "", "", grid="both")
    for name, colour, marker in (("every step", "#8c3d10", "s"), ("once per view", "#0b6bcb", "o")):
        points = found[f"pairs, {name}"]
        draw_points(ax, points, colour, marker)
        last = max(points)
        ax.annotate(name, (last, points[last].median), (0, 11), textcoords="offset points", ha="right",
                    color=colour, size=12)  # fmt: skip
    ax.set(xscale="log", yscale="log", ylim=(0.003, 20))
    ax.set_yticks((0.01, 0.1, 1, 10), ("0.01", "0.1", "1", "10"))
    ax.set_xticks(list(points), [str(value) for value in points])
    ax.minorticks_off()
    figure.text(0.005, 0.955, "What a step costs as one number changes", size=15, weight="bold")
    return figures.png(figure)


def draw_points(ax: Any, points: Mapping[int, Spread], colour: str, marker: str) -> None:
    """Medians, with their middle halves as bars."""
    y = [point.median for point in points.values()]
    bars = [[p.median - p.low for p in points.values()], [p.high - p.median for p in points.values()]]
    ax.errorbar(list(points), y, bars, color=colour, marker=marker, linewidth=2.2, markersize=7, capsize=3)


PAGE = """# Speed

What every part of a SOCKET step costs. All ratios are of one run of `make bench` (ten minutes on two cores):
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

## Between steps

{between}

## Along every axis

Time of a step as one number changes and the others stay; the power p in time ∝ value^p is fitted to all
points. What the frozen source network says of the pairs is computed once per view and remembered, so that
their number costs once, and a step only looks it up.

{slopes}

![Time of a step against batch, side of the image, width and sources; pairs against their number](speed.png)

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


def full(clock_name: str) -> None:
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
    parts["between"] = shown(table(epoch_lines(5, clock)))
    found = slopes(9, clock)
    parts["slopes"] = shown(slope_table(found))
    parts["waits"] = shown("\n".join(f"| {' | '.join(wait)} |" for wait in waits()))
    write_whole(DOCS / "speed.png", slope_picture(found))
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
    chosen = parser.parse_args()
    if chosen.quick:
        sys.exit("\n".join(quick()) or None)
    full(chosen.clock)


if __name__ == "__main__":
    main()
