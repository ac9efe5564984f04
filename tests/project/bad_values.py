"""Hundreds of bad values for the command line, the environment and the Python functions.

Every case must end in a right result or in one sentence: exit code 0 or 2 without a traceback on the command
line, a result or a `LabError` in Python, and within `SECONDS`. Cases are generated from tables, each a valid
call with one value replaced; `PYTHONPATH=.:tests python tests/project/bad_values.py` runs all and prints the
table of docs/robustness.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command_line import call
from tiny_runs import TINY, make_tiny_data

from socketlab import app, features, load_source, rooms
from socketlab.errors import LabError
from socketlab.figures import maps
from socketlab.images.paired_images import PairedImages
from socketlab.measures.comparison import compare
from socketlab.method.adaptation import adapt
from socketlab.method.recipe import METHODS, Recipe, knobs
from socketlab.networks.checkpoints import save_source
from socketlab.runs import train_source
from socketlab.runs.settings import Settings, gather
from socketlab.runs.train_source import SourceRecipe

SECONDS = 120

# ------------------------------------------------------------------------ values

NUMBERS = (
    "-1",
    "0",
    "1",
    "1.5",
    "1e999",
    "nan",
    "-inf",
    "ten",
    "",
    " 7",
    "0x10",
    "9" * 400,
    "true",
    "[[[[",
    "1,5",
)
TEXTS = (
    "", " ", "\n", "a\nb", "..", "../..", "Küche", "寝室", "$\\frac$", "=1+1", "x" * 300, "x" * 5000, "-rf",
    "%s{}",
    "a,b", ",", "*", "none", "None", "null", "<b>", "'\"",
)  # fmt: skip
PATHS = (
    "", ".", "..", "/", "nowhere", "nowhere/deeper", "~nosuchuser/x", "file.txt", "file.txt/x", "folder",
    "empty.safetensors", "nested.safetensors", "/dev/null", "/dev/zero", "/proc/self/mem", "a\nb",
    "寝室.safetensors",
    "x" * 300, "-", "locked/x", "link", "loop",
)  # fmt: skip
ASSIGNMENTS = (
    "", "=", "a=", "=1", "lambda_ti", "lambda_ti=", "lambda_ti=nan", "lambda_ti=-1", "lambda_ti=1e9",
    "lambda_ti=[1]",
    "lambda_ti={}", "lambda_ti=null", "lambda_ti=true", "epochs=1.5", "epochs=ten", "epochs=" + "9" * 400,
    "epochs=" + "[" * 20_000, "unknown=1", "batch_size=1", "precision=float8", "schedule=", "__class__=1",
    "seed=1",
)  # fmt: skip
WORDS = {"number": NUMBERS, "text": TEXTS, "path": PATHS, "assignment": ASSIGNMENTS}

COMMANDS: dict[str, tuple[list[str], dict[str, str]]] = {
    "adapt": (
        ["--method", "adabn", "--device", "cpu"],
        {
            "--sensor": "text", "--method": "text", "--pairs": "text", "--pair-count": "number",
            "--strength": "number",
            "--source": "path", "--pack": "path", "--domain": "text", "--target": "text",
            "--depth-encoding": "text",
            "--field-of-view": "number", "--oracle": "path", "--set": "assignment",
            "--seed": "number", "--out": "path", "--device": "text", "--resume": "path",
        },
    ),
    "train-source": (
        ["--epochs", "1", "--batch-size", "8", "--device", "cpu"],
        {
            "--sensor": "text", "--modality": "text", "--out": "path", "--epochs": "number", "--pack": "path",
            "--domain": "text", "--backbone": "text", "--weights": "path", "--rate": "number",
            "--trunk-rate": "number", "--batch-size": "number",
            "--depth-encoding": "text",
            "--field-of-view": "number", "--seed": "number", "--device": "text",
        },
    ),
    "compare": (
        ["--rounds", "2", "--no-umap", "--device", "cpu", "--layers", "bottleneck"],
        {
            "": "path", "--sensor": "text", "--split": "text", "--modality-a": "text", "--modality-b": "text",
            "--strength": "number", "--pack": "path", "--domain": "text", "--layers": "text",
            "--rounds": "number",
            "--seed": "number", "--out": "path", "--device": "text",
        },
    ),
    "experiment": (
        ["rgbnir", "--dry-run"],
        {"--data": "path", "--out": "path", "--seeds": "number", "--workers": "number", "": "path"},
    ),
    "import": (
        ["folders", "folder", "--processes", "1"],
        {
            "--out": "path", "--size": "number", "--fit": "text", "--on-bad": "text", "--task": "text",
            "--processes": "number", "--option": "assignment", "": "path",
        },
    ),
    "report": ([], {"": "path", "--oracle": "path"}),
    "app": ([], {"": "text", "--port": "number"}),
}  # fmt: skip
THINGS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a text": lambda: "a",
    "-1": lambda: -1,
    "0": lambda: 0,
    "1.5": lambda: 1.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "10**30": lambda: 10**30,
    "True": lambda: True,
    "a list": lambda: [],
    "a dict": lambda: {},
    "an object": object,
    "an array": lambda: np.zeros(3),
    "an empty tensor": lambda: torch.zeros(0),
    "a tensor of NaN": lambda: torch.full((4, 8), float("nan")),
    "a module": lambda: torch.nn.Linear(2, 2),
    "a path": lambda: Path("nowhere"),
}


@dataclass(frozen=True)
class Case:
    """One call: its group, how it reads, and what it does; returns the exit code where it is a command."""

    group: str
    words: str
    run: Callable[[], Any]


# ------------------------------------------------------------------------ cases


def command_cases() -> Iterator[Case]:
    for command, (valid, options) in COMMANDS.items():
        for option, kind in options.items():
            for value in WORDS[kind]:
                kept = [] if command in ("experiment", "import") and not option else valid
                words = [command, *kept, *([option] if option else []), value]
                yield Case(f"socketlab {command}", _short(words), lambda words=words: _command(words))


def environment_cases() -> Iterator[Case]:
    for value in PATHS:
        words = f"SOCKETLAB_DATA={value[:40]!r} socketlab compare"
        yield Case("environment", words, lambda value=value: _with("SOCKETLAB_DATA", value))


def function_cases() -> Iterator[Case]:
    for name, (function, valid, replaced) in _functions().items():
        for parameter in replaced:
            for thing, make in THINGS.items():
                yield Case(
                    f"{name}()",
                    f"{name}({parameter}={thing})",
                    lambda function=function, valid=valid, parameter=parameter, make=make: function(
                        **{**valid(), parameter: make()}
                    ),
                )


def _functions() -> dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]], tuple[str, ...]]]:
    """Name → the function, valid arguments, and those that are replaced in turn."""

    def source() -> Any:
        return load_source("rgb_kinect_v1")

    def adaptation() -> dict[str, Any]:
        images = rooms.load("target_adapt", "kinect_v1", ("depth",))
        pairs = rooms.ti_pairs("kinect_v1", "near", 16)
        return {"source": source(), "target": images, "pairs": pairs, "recipe": TINY, "seed": 0, "every": 1}

    def comparison() -> dict[str, Any]:
        views = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        network = source()
        return {
            "model_a": network, "model_b": network, "data_a": views, "data_b": views,
            "layers": ["bottleneck"], "rounds": 2, "seed": 0,
        }  # fmt: skip

    def paired() -> dict[str, Any]:
        images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        return {"images": {"rgb": images}, "names": tuple("abcd"), "kinds": ("x",) * 4, "classes": ("x",)}

    def measured() -> dict[str, Any]:
        return {"source": load_source("oracle_depth_kinect_v1"), "images": gather(Settings()).held_out}

    def drained(**about: Any) -> Any:
        for event in adapt(**about):
            if getattr(event, "step", 0):
                return event
        return None

    return {
        "adapt": (drained, adaptation, ("source", "target", "pairs", "recipe", "seed", "every")),
        "compare": (compare, comparison, ("model_a", "model_b", "data_a", "layers", "rounds", "seed")),
        "load_source": (load_source, lambda: {"name": "rgb_kinect_v1"}, ("name",)),
        "save_source": (save_source, lambda: {"source": source(), "path": "x.safetensors"}, ("path",)),
        "PairedImages": (PairedImages, paired, ("images", "names", "kinds", "classes")),
        "PairedImages.take": (
            lambda rows: PairedImages(**paired()).take(rows), lambda: {"rows": [0]}, ("rows",),
        ),
        "rooms.load": (
            rooms.load,
            lambda: {"split": "target_test", "sensor": "kinect_v1", "modalities": ("depth", ),
            "strength": 1.0},
            ("split", "sensor", "modalities", "strength"),
        ),
        "features.accuracy": (features.accuracy, measured, ("source", "images")),
        "features.predict": (features.predict, lambda: {**measured(), "batch": 4}, ("source", "images",
        "batch")),
        "Settings": (Settings, dict, tuple(Settings.__dataclass_fields__)),
        "SourceRecipe": (SourceRecipe, dict, tuple(SourceRecipe.__dataclass_fields__)),
        "Recipe": (Recipe, dict, tuple(knobs())),
        "Recipe.for_method": (Recipe.for_method, lambda: {"method": METHODS[0]}, ("method",)),
    }  # fmt: skip


def cases() -> list[Case]:
    """All of them, in a fixed order."""
    return [*command_cases(), *environment_cases(), *function_cases()]


def _short(words: list[str]) -> str:
    return " ".join(word if len(word) < 40 else word[:37] + "…" for word in words).replace("\n", "\\n")


def _command(words: list[str]) -> int:
    result = call(*words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 2 and not _is_a_sentence(result.stderr):
        raise AssertionError(f"no sentence: {result.stderr!r}")
    return result.exit_code


def _is_a_sentence(text: str) -> bool:
    """A line of ours after whatever was printed before it, or typer's box with the option's name."""
    ours = text.splitlines()[-1:] and text.splitlines()[-1].startswith("socketlab: ")
    return "Traceback" not in text and bool(ours or "Usage: " in text)


def _with(variable: str, value: str) -> int:
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        return _command(["compare", *COMMANDS["compare"][0]])
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before


# ------------------------------------------------------------------------ running them


def _prepare_alone(name: str, port: int, browser: bool) -> int:
    with app.prepared(name):
        return 0


@contextlib.contextmanager
def prepared(data: Path) -> Iterator[None]:
    """Tiny data, narrow networks, a map by principal components, no server; afterwards all is undone."""
    before = maps.joint_map, app.serve, train_source.source_recipe, os.environ.get("SOCKETLAB_DATA")
    recipe = train_source.source_recipe
    maps.joint_map = lambda sets, seed=0: maps.pca_map(sets)
    app.serve = _prepare_alone
    train_source.source_recipe = lambda *about: replace(recipe(*about), width=8)
    os.environ["SOCKETLAB_DATA"] = str(data)
    try:
        yield
    finally:
        maps.joint_map, app.serve, train_source.source_recipe, old = before
        os.environ.pop("SOCKETLAB_DATA")
        if old is not None:
            os.environ["SOCKETLAB_DATA"] = old


@contextlib.contextmanager
def working_folder() -> Iterator[None]:
    """An empty folder with a few things that are not what a command expects."""
    back = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("file.txt").write_text("text")
        Path("folder").mkdir()
        Path("folder/more.txt").write_text("text")
        Path("empty.safetensors").write_bytes(b"")
        Path("nested.safetensors").write_bytes(_nested())
        Path("locked").mkdir(mode=0o555)
        Path("link").symlink_to("nowhere")
        Path("loop").symlink_to("loop")
        try:
            yield
        finally:
            os.chdir(back)
            os.chmod(Path(folder) / "locked", 0o755)


def _nested() -> bytes:
    header = b'{"__metadata__": {"socketlab": "' + b"[" * 50_000 + b'"}}'
    return len(header).to_bytes(8, "little") + header


def fault(case: Case) -> str | None:
    """What is wrong with the end of a case; None for a result or a sentence."""

    def too_long(*about: object) -> None:
        raise TimeoutError(f"not at an end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with working_folder(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = case.run()
        return f"exit code {code}" if isinstance(code, int) and code not in (0, 2) else None
    except LabError:
        return None
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="groups whose name holds this")
    only = parser.parse_args().only
    tried: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder, prepared(make_tiny_data(Path(folder) / "data")):
        for case in cases():
            if only in case.group:
                wrong = fault(case)
                group = tried.setdefault(case.group, [0, 0])
                group[0] += 1
                group[1] += wrong is not None
                if wrong:
                    print(f"{case.words}: {wrong}", file=sys.stderr, flush=True)
    print("| group | tried | a traceback, a hang or no sentence |\n|---|---|---|")
    for name, (count, wrong) in tried.items():
        print(f"| `{name}` | {count} | {wrong} |")
    print(f"| all | {sum(c for c, _ in tried.values())} | {sum(w for _, w in tried.values())} |")


if __name__ == "__main__":
    main()
