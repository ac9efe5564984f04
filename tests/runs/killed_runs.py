"""A run that is killed before each of its file operations in turn, and then resumed or begun again.

``python killed_runs.py FOLDER FIRST STRIDE`` works in FOLDER, kills before the operations FIRST, FIRST +
STRIDE, …, and prints what went wrong, then the number of operations. The process has one thread and has
computed nothing before it forks, so that every child starts from the same state.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tiny_runs import epochs_without_seconds

from socketlab import cli
from socketlab.runs import results
from socketlab.runs.run_folder import CHECKPOINT, CONFIG, EPOCHS, RESULTS, STATE

CHANGES = {"align_epochs": 1, "epochs": 1, "batch_size": 12, "trunk_lr": 0.001, "bottleneck_lr": 0.001}
SETTINGS = [
    "--device",
    "cpu",
    "--choose",
    "information",
    *(w for name, value in CHANGES.items() for w in ("--set", f"{name}={value}")),
]
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
KILLED = 9


class Operations:
    """Counts what is done to files below a folder; ends the process before a given operation."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        self.folder, self.kill_at, self.count = str(folder.resolve()), kill_at, 0
        self.fsync = os.fsync
        os.fsync = self.synchronise
        sys.addaudithook(self.look)

    def look(self, event: str, about: tuple) -> None:
        if event in OPERATIONS and isinstance(about[0], str | os.PathLike):
            reads = event == "open" and not about[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not reads and os.path.abspath(about[0]).startswith(self.folder):
                self.next(lambda: None)

    def synchronise(self, file: int) -> None:
        self.next(lambda: os.ftruncate(file, os.fstat(file).st_size // 2))  # half of it had been written
        self.fsync(file)

    def next(self, at_the_end: Callable[[], None]) -> None:
        self.count += 1
        if self.count == self.kill_at:
            at_the_end()
            os._exit(KILLED)


def call(out: Path, words: list[str], kill_at: int = 0) -> int:
    """Exit code of a command in a process of its own, which writes the number of its operations."""
    child = os.fork()
    if child == 0:
        printed = os.open(out.parent / "printed.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        operations = Operations(out, kill_at)
        try:
            cli.app(words, standalone_mode=False)
        except SystemExit as error:
            os._exit(int(error.code or 0))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(70)
        (out.parent / f"{out.name}.count").write_text(str(operations.count))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(out: Path) -> dict[str, bytes]:
    """Everything in a run folder that must come out the same; of other files, that they are there."""
    kept = (CHECKPOINT, RESULTS, STATE)
    found = {p.name: p.read_bytes() if p.name in kept or p.suffix == ".png" else b"" for p in out.iterdir()}
    return found | {EPOCHS: epochs_without_seconds(out)}


def main(folder: Path, first: int, stride: int) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])  # imports what every child would import again
    results.plots.confusion_matrix = lambda *about: "drawn"  # the files are what counts, not what they show
    for draw in ("_mistakes", "_map", "_curves"):
        setattr(results, draw, lambda *about: ("drawn", "a caption"))
    results.style.png, results.style.alt_text = (
        lambda drawing, dpi: b"\x89PNG\r\n\x1a\n",
        lambda drawing: "a picture",
    )
    whole, out = folder / "whole", folder / "run"
    assert call(whole, ["adapt", *SETTINGS, "--out", "whole"]) == 0
    expected, count = contents(whole), int((folder / "whole.count").read_text())
    for kill_at in range(first, count + 1, stride):
        code = call(out, ["adapt", *SETTINGS, "--out", "run"], kill_at)
        begun = (out / CONFIG).exists()
        words = ["adapt", "--resume", "run"] if begun else ["adapt", *SETTINGS, "--out", "run"]
        again = call(out, words)
        if code not in (KILLED, 0) or again != 0:
            print(f"operation {kill_at}: ended with {code}, then {' '.join(words[-2:])} with {again}")
        elif contents(out) != expected:
            other = [n for n, data in contents(out).items() if data != expected.get(n)]
            print(
                f"operation {kill_at}: other contents of {other}, without {expected.keys() - contents(out)}"
            )
        shutil.rmtree(out, ignore_errors=True)
    print(f"operations: {count}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
