"""What the lab needs, and whether it is there: one line per requirement, fit to be pasted into a bug report.

Nothing here raises, and nothing slow is imported: PyTorch is tried in a process of its own, so that a broken
installation is seen from outside.
"""

import getpass
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

PYTHONS = ((3, 11), (3, 14))
"""The first version of Python that will do, and the first that will not."""

INSTALL = "run `make lab`, or `python -m pip install -e .[lab]` in the clone"
PYTORCH_PAGE = "https://pytorch.org/get-started/locally/"
TORCH_SECONDS = 60
"""How long PyTorch may take to load; a second or two is usual, more right after the installation."""

ENOUGH_MEMORY = 2 * 2**30
ENOUGH_DISK = 1 * 2**30
"""Bytes that a session may need: the budget of a notebook, and some run folders."""

NAMED_VERSIONS = ("numpy", "torch", "torchvision", "umap-learn", "ipywidgets", "jupyterlab", "ipykernel")

_TRY_TORCH = """
import json
found = {}
try:
    import torch
    found["torch"] = torch.__version__
    import torchvision
    found["torchvision"] = torchvision.__version__
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
    elif torch.backends.mps.is_available():
        found["gpu"] = "Apple GPU (MPS)"
except BaseException as error:
    found["error"] = f"{type(error).__name__}: {error}"
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
    """Look at everything that the lab needs; never raises."""
    torch = try_torch()
    checks: dict[str, Callable[[], Check]] = {
        "Python": check_python,
        "PyTorch": lambda: check_torch(torch),
        "packages": check_packages,
        "JupyterLab": check_lab,
        "kernel": check_kernel,
        "GPU": lambda: check_gpu(torch),
        "computer": check_computer,
        "disk": check_disk,
        "data": check_data,
    }
    return [_attempt(name, check) for name, check in checks.items()]


def report() -> str:
    """Return versions, platform and one line per requirement, without the reader's name or home folder."""
    versions = [f"{name} {version}" for name in NAMED_VERSIONS if (version := _version(name))]
    lines = [
        f"socketlab {socketlab.__version__} · Python {platform.python_version()} · {_platform()}",
        " · ".join(versions) or "none of the packages is installed",
        *map(str, examine()),
    ]
    return _anonymous("\n".join(lines))


def check_python() -> Check:
    """Python is in range."""
    version, (first, beyond) = sys.version_info[:2], PYTHONS
    if first <= version < beyond:
        return Check("Python", True, platform.python_version())
    ours = f"{first[0]}.{first[1]} to {beyond[0]}.{beyond[1] - 1}"
    message = f"{platform.python_version()} is outside {ours} → install one of these, then `make lab`"
    return Check("Python", False, message)


def try_torch() -> dict[str, str]:
    """Import torch and torchvision in a new Python process.

    Returns
    -------
    "torch", "torchvision" : versions; "gpu" : its name. A key is absent where there is nothing to say.
    "error" : what stopped the imports, as one line of text.
    """
    command = [sys.executable, "-c", _TRY_TORCH]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_SECONDS)
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return {"error": f"still loading after {TORCH_SECONDS} s"}
    except OSError as error:
        return {"error": f"Python cannot be started: {error}"}
    except (IndexError, ValueError):  # it ended without a word
        return {"error": f"Python stopped with exit code {done.returncode}"}


def check_torch(found: dict[str, str]) -> Check:
    """Torch and torchvision load, which they do only as a matching pair."""
    error = found.get("error")
    versions = ", ".join(f"{name} {found[name]}" for name in ("torch", "torchvision") if name in found)
    if error is None:
        return Check("PyTorch", True, versions)
    if match := re.search(r"No module named '(torch|torchvision)'", error):
        return Check("PyTorch", False, f"{match[1]} is not installed → {INSTALL}")
    pair = f"torch {_version('torch') or '?'} and torchvision {_version('torchvision') or '?'}"
    if "torchvision::nms" in error or ("torch" in found and not _is_pair()):
        return Check(
            "PyTorch",
            False,
            f"{pair} do not belong together (for example a CPU-only torch with a CUDA torchvision) → "
            f"install both in one command, for CPU-only wheels with the one shown on {PYTORCH_PAGE}",
        )
    if error.startswith("still loading"):
        return Check("PyTorch", False, f"{error} → wait until the disk is idle, then ask again")
    message = f"{pair} do not load ({_one_line(error)}) → install both again as shown on {PYTORCH_PAGE}"
    return Check("PyTorch", False, message)


def check_packages() -> Check:
    """Every package that pyproject.toml asks for, the lab's included, is installed and recent enough."""
    try:
        wanted = importlib.metadata.requires("socketlab") or []
    except importlib.metadata.PackageNotFoundError:
        return Check("packages", False, f"socketlab is not installed in this Python → {INSTALL}")
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in wanted]
    needed = [need for need in needed if need.marker is None or need.marker.evaluate({"extra": "lab"})]
    faults = []
    for need in needed:
        version = _version(need.name)
        if version is None:
            faults.append(f"{need.name} is missing")
        elif not need.specifier.contains(version, prereleases=True):
            faults.append(f"{need.name} {version} is not {need.specifier}")
    if faults:
        return Check("packages", False, f"{', '.join(faults)} → {INSTALL}")
    return Check("packages", True, f"all {len(needed)} installed, none too old")


def check_lab() -> Check:
    """JupyterLab and ipywidgets are installed side by side, so that sliders are drawn."""
    versions = {name: _version(name) for name in ("jupyterlab", "ipywidgets", "jupyterlab_widgets")}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check("JupyterLab", False, f"{' and '.join(missing)} not installed → {INSTALL}")
    return Check("JupyterLab", True, ", ".join(f"{name} {version}" for name, version in versions.items()))


def check_kernel() -> Check:
    """The kernel named python3, which the notebooks ask for, runs this Python."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return Check("kernel", False, f"jupyter_client is not installed → {INSTALL}")
    if _version("ipykernel") is None:
        return Check("kernel", False, f"ipykernel is not installed → {INSTALL}")
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Check("kernel", False, f"there is no kernel python3 → {INSTALL}")
    # Jupyter reads a bare name as the Python that runs it.
    bare = re.fullmatch(r"python(3(\.\d+)?)?(\.exe)?", command)
    if bare or os.path.dirname(os.path.abspath(command)) == os.path.dirname(os.path.abspath(sys.executable)):
        return Check("kernel", True, "notebooks run this Python")
    return Check(
        "kernel",
        False,
        f"notebooks run {command}, not {sys.executable} → start with `make lab`, or remove the other kernel: "
        "`jupyter kernelspec remove python3`",
    )


def check_gpu(found: dict[str, str]) -> Check:
    """A GPU is welcome and not needed."""
    if "gpu" in found:
        return Check("GPU", True, found["gpu"])
    return Check("GPU", True, "no GPU: everything runs on the CPU")


def check_computer() -> Check:
    """Cores, and enough free memory for a notebook."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    have = f"{cores} core{'s' if cores > 1 else ''}"
    free = _free_memory()
    have += f", {_gigabytes(free)} of memory free"
    if free < ENOUGH_MEMORY:
        return Check(
            "computer",
            False,
            f"{have}; a notebook may need {_gigabytes(ENOUGH_MEMORY)} → close other programs and kernels",
        )
    return Check("computer", True, have)


def check_disk() -> Check:
    """There is room for runs where the reader works."""
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free
    if free < ENOUGH_DISK:
        return Check(
            "disk",
            False,
            f"{_gigabytes(free)} free in {folder}; runs may need {_gigabytes(ENOUGH_DISK)} → delete files, "
            "or work in another folder",
        )
    return Check("disk", True, f"{_gigabytes(free)} free in {folder}")


def check_data() -> Check:
    """Every data file of the manifest is there and unchanged."""
    try:
        folder = files.data_folder()
        listed = files.read_manifest(folder)
    except LabError as error:
        return Check("data", False, f"{error}")
    missing = [name for name in listed if not (folder / name).is_file()]
    altered = [name for name in listed if name not in missing and files.digest(folder / name) != listed[name]]
    named = {"missing": missing, "altered": altered}
    faults = [f"{word}: {_some(names)}" for word, names in named.items() if names]
    if faults:
        return Check("data", False, f"{'; '.join(faults)} → `git checkout -- data` brings the originals back")
    return Check("data", True, f"{len(listed)} files as in the manifest")


def _attempt(name: str, check: Callable[[], Check]) -> Check:
    """Return what ``check`` returns, or a failed `Check` where it raises."""
    try:
        return check()
    except Exception as error:
        return Check(name, False, f"could not be examined ({type(error).__name__}: {_one_line(str(error))})")


def _version(name: str) -> str | None:
    """Return the version of an installed package from its metadata, without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_pair() -> bool:
    """Say whether torchvision was built for the torch that is installed, as its metadata has it."""
    from packaging.requirements import Requirement

    needs = [Requirement(line) for line in importlib.metadata.requires("torchvision") or []]
    torch = _version("torch")
    return torch is None or all(need.specifier.contains(torch) for need in needs if need.name == "torch")


def _free_memory() -> int:
    """Return the bytes of memory that a new program can have."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:  # a container may be allowed less than the machine has
        limit = Path("/sys/fs/cgroup/memory.max").read_text()
        used = Path("/sys/fs/cgroup/memory.current").read_text()
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):
        return free


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"


def _some(names: list[str], most: int = 3) -> str:
    """Name the first few and count the rest."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _one_line(text: str, most: int = 200) -> str:
    return " ".join(text.split())[:most]


def _platform() -> str:
    """Return system and processor; the name of the computer is not among them."""
    system, machine = platform.platform(), platform.machine()
    return system if machine in system else f"{system} {machine}"


def _anonymous(text: str) -> str:
    """Write ~ for the home folder, and … for the user's name wherever it is a folder."""
    homes = {str(Path.home()), os.path.realpath(Path.home())}
    for home in sorted(homes, key=len, reverse=True):
        if len(home) > len(Path(home).anchor):
            text = text.replace(home, "~")
    try:
        user = re.escape(getpass.getuser())
    except Exception:
        return text
    return re.sub(rf"(?<=[/\\]){user}(?![\w.-])", "…", text)


if __name__ == "__main__":
    print(report())
