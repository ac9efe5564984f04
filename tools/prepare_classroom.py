"""A classroom without a network: is everything on this computer, and how to carry it to another one.

``python -m tools.prepare_classroom`` (or ``make classroom``) prints one line per requirement: those of the
doctor, then what a lesson does, tried once. Trying also compiles UMAP, so that no class waits for it. With
``--zip`` it writes the kit into one file for a memory stick.
"""

import argparse
import contextlib
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from socketlab.errors import LabError
from socketlab.runs import doctor
from socketlab.runs.doctor import Check

ROOT = Path(__file__).resolve().parent.parent
SERVER_SECONDS = 120
"""How long JupyterLab may take to answer; some five seconds are usual."""

FAT32_MOST = 4 * 2**30 - 1
PACKED = {".png", ".jpg", ".safetensors", ".whl", ".gz", ".zip"}
"""Files that are small already: put into the zip as they are."""

LEFT_OUT = {"build", "dist", "runs", "packs", "test-results", "__pycache__", "node_modules"}
KEPT = {".gitignore", ".gitattributes", ".ci", ".binder"}
BUILD_TOOLS = ("hatchling>=1.27", "editables>=0.5")

README = """socketlab, for a room without a network.

Copy the folder `socketlab` from this archive to the computer. On Linux and macOS, in that folder:

    {settings}make lab
    make classroom

On Windows:

    py -m venv .venv && .venv\\Scripts\\python -m pip install {options}-e ".[lab]"
    .venv\\Scripts\\python -m tools.prepare_classroom

The first installs the kit (and, with make, opens it); the second checks the room. {about}
"""
WITH_WHEELS = {
    "settings": "PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels ",
    "options": "--no-index --find-links wheels ",
    "about": "The packages lie in\n`wheels`, for {here}: another system or Python needs other ones.",
}
WITHOUT_WHEELS = {
    "settings": "",
    "options": "",
    "about": "The packages are not in\nthis archive: the first command fetches them from the network.",
}


# ------------------------------------------------------------------------ checks


def examine() -> Iterator[Check]:
    """What the doctor asks, then what a lesson does, one `Check` after the other; never raises."""
    yield from doctor.examine()
    trials: dict[str, Callable[[], Check]] = {
        "notebooks": check_notebooks,
        "adaptation": check_adaptation,
        "UMAP": check_umap,
        "server": check_server,
    }
    for name, trial in trials.items():
        try:
            yield trial()
        except Exception as error:
            yield Check(name, False, f"did not work ({type(error).__name__}: {' '.join(str(error).split())})")


def check_notebooks(folder: Path = ROOT / "notebooks") -> Check:
    """The notebooks are there, can be read, and have their pictures, for reading without a kernel."""
    import nbformat

    paths = sorted(folder.glob("*.ipynb"))
    bare = []
    for path in paths:
        cells = nbformat.read(path, as_version=4).cells
        if not any("image/png" in o.get("data", {}) for cell in cells for o in cell.get("outputs", ())):
            bare.append(path.name)
    if not paths:
        return Check("notebooks", False, f"none in {folder} → work in a clone of the repository")
    if bare:
        return Check("notebooks", False, f"without pictures: {', '.join(bare)} → run `make notebooks`")
    return Check("notebooks", True, f"{len(paths)}, with their pictures")


def check_adaptation() -> Check:
    """Two steps of an adaptation on shipped images."""
    from socketlab.images import pocketrooms
    from socketlab.method.adaptation import Step, adapt
    from socketlab.method.recipe import Recipe
    from socketlab.networks.checkpoints import load_source

    begun = time.perf_counter()
    target = pocketrooms.load("target_adapt", "kinect_v1", ("depth",)).take(range(64))
    pairs = pocketrooms.ti_pairs("kinect_v1", "near", 64)
    recipe = Recipe.socket().replace(align_epochs=1, epochs=0, batch_size=32)
    events = list(adapt(load_source("rgb_kinect_v1"), target, pairs, recipe))
    steps = sum(isinstance(event, Step) for event in events)
    return Check("adaptation", steps == 2, f"{steps} steps in {time.perf_counter() - begun:.1f} s")


def check_umap() -> Check:
    """A map of sixty points, which compiles UMAP."""
    import torch

    from socketlab.figures import maps

    begun = time.perf_counter()
    points = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    found = maps.joint_map({"points": points})["points"]
    return Check("UMAP", found.shape == (60, 2), f"compiled; a map took {time.perf_counter() - begun:.1f} s")


def check_server(seconds: float = SERVER_SECONDS) -> Check:
    """JupyterLab starts, and answers on this computer."""
    begun = time.perf_counter()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JUPYTER_RUNTIME_DIR": folder, "JUPYTER_TOKEN": token}
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
            *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"),
        ]
        quiet = subprocess.DEVNULL
        server = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, cwd=folder)
        try:
            while server.poll() is None and time.perf_counter() - begun < seconds:
                if _answers(f"http://127.0.0.1:{port}/lab?token={token}"):
                    took = time.perf_counter() - begun
                    return Check("server", True, f"JupyterLab answers on 127.0.0.1 after {took:.1f} s")
                time.sleep(0.2)
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            if server.poll() is None:
                server.kill()
                server.wait()
    return Check("server", False, "JupyterLab does not answer on 127.0.0.1 → look at what `make lab` says")


def _answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a school's proxy is not asked
    try:
        with opener.open(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


# ------------------------------------------------------------------------ the zip


def repository_files(root: Path = ROOT) -> list[Path]:
    """The files of the kit, without environments, caches and what lessons left; relative to ``root``."""
    if (root / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(root), "ls-files", "-z"]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        if done.returncode == 0:
            named = [Path(name) for name in done.stdout.split("\0") if name]
            return [name for name in named if (root / name).is_file()]
    return sorted(path for path in _walked(root) if path.suffix != ".unfinished")


def _walked(root: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if _belongs(name)]
        for name in filter(_belongs, names):
            yield (Path(folder) / name).relative_to(root)


def _belongs(name: str) -> bool:
    hidden = name.startswith(".") and name not in KEPT
    return not hidden and name not in LEFT_OUT and not name.endswith((".egg-info", ".pyc"))


def write_zip(path: Path, wheels: bool = False, root: Path = ROOT) -> Path:
    """Write the kit, and the packages that it needs if asked, into one file; whole or not at all.

    Parameters
    ----------
    path : the zip to write; it must not be there yet.
    wheels : also the packages, which `pip` downloads now; needs the network and some 3 GB on Linux.

    Raises
    ------
    LabError : the file is there, the disk is too small, the network cannot be reached.
    """
    path = Path(path)
    if path.exists():
        raise LabError(f"{path} is there already: choose another name, or delete it.")
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    with tempfile.TemporaryDirectory(prefix="socketlab-wheels-") as folder:
        if wheels:
            download_wheels(Path(folder))
        inside = {f"socketlab/{name.as_posix()}": root / name for name in repository_files(root)}
        inside |= {f"socketlab/wheels/{file.name}": file for file in sorted(Path(folder).iterdir())}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_room(path.parent, inside)
            _zip(unfinished, inside, readme(wheels))
            os.replace(unfinished, path)
        except OSError as error:
            raise LabError(
                f"{path} cannot be written ({error.strerror or error}): choose a folder with room in it."
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def _check_room(folder: Path, inside: dict[str, Path]) -> None:
    needed, free = sum(file.stat().st_size for file in inside.values()), shutil.disk_usage(folder).free
    if free < needed:
        raise LabError(
            f"{free / 1e9:.1f} GB are free in {folder} and up to {needed / 1e9:.1f} GB are needed: "
            "free space, or choose another folder."
        )


def _zip(path: Path, inside: dict[str, Path], words: str) -> None:
    """Write, flush and read again."""
    with open(path, "xb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("README.txt", words)
            for name, source in inside.items():
                how = zipfile.ZIP_STORED if source.suffix in PACKED else zipfile.ZIP_DEFLATED
                archive.write(source, name, how)
        file.flush()
        os.fsync(file.fileno())
    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise OSError(f"{broken} reads otherwise than it was written")


def readme(wheels: bool) -> str:
    """What the archive says of itself: the commands on the other side."""
    import platform

    words = WITH_WHEELS if wheels else WITHOUT_WHEELS
    here = f"{platform.system()} {platform.machine()} and Python {platform.python_version()}"
    return README.format(**{name: text.format(here=here) for name, text in words.items()})


def download_wheels(folder: Path) -> None:
    """Let pip download what the lab needs, as ready packages for this system; `LabError` when it cannot."""
    from packaging.requirements import Requirement

    needs = [Requirement(line) for line in importlib.metadata.requires("socketlab") or []]
    needs = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": "lab"})]
    lines = [f"{need.name}{need.specifier}" for need in needs]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    done = subprocess.run([*command, *lines, *BUILD_TOOLS], capture_output=True, text=True)
    if done.returncode:
        said = [line[7:] for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        why = said[-1].rstrip(".") if said else "pip failed"
        raise LabError(
            f"The packages cannot be downloaded ({why}): --wheels needs the network; connect this computer, "
            "or leave --wheels out."
        )


def size_in_words(path: Path) -> str:
    """How large the zip is, and whether any stick can hold it."""
    size = path.stat().st_size
    words = f"{path}: {size / 1e6:.0f} MB"
    return (
        words if size <= FAT32_MOST else f"{words}; more than a stick in the format FAT32 can hold: use exFAT"
    )


# ------------------------------------------------------------------------ the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Check this computer; write the zip where that is asked for and all is in place."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.prepare_classroom", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--zip", type=Path, metavar="FILE", help="also write the kit into this file")
    parser.add_argument("--wheels", action="store_true", help="with the packages, which are downloaded now")
    chosen = parser.parse_args(arguments)
    if chosen.wheels and chosen.zip is None:
        parser.error("--wheels goes with --zip: name the archive.")
    ready = True
    for check in examine():
        print(check, flush=True)
        ready &= check.ok
    if not ready:
        end = "; no zip was written." if chosen.zip else "."
        print(f"Put right the lines with [--] first{end}", file=sys.stderr)
        return 1
    try:
        if chosen.zip is not None:
            print(size_in_words(write_zip(chosen.zip, chosen.wheels)))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
