"""The frame: imports, dependencies, installation, licences."""

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import socketlab

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this system")


def names(requirements: list[str]) -> set[str]:
    """Names of distributions, normalised."""
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}


# the package


def test_import_is_quick_and_lean():
    """No wait is felt (in time of the processor, whatever else it is doing), and nothing heavy is loaded."""
    code = (
        "import sys, time; start = time.process_time(); import socketlab; print(time.process_time() - start, "
        "*{'torch', 'numpy', 'umap', 'matplotlib', 'ipywidgets'} & set(sys.modules))"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        time, *heavy = done.stdout.split()
        assert heavy == []
        seconds.append(float(time))
    assert min(seconds) < 0.3


@pytest.mark.parametrize("name", socketlab.__all__)
def test_exported_name_is_there(name):
    assert getattr(socketlab, name) is not None
    assert name in dir(socketlab)


def test_name_that_is_not_exported():
    with pytest.raises(AttributeError, match="no attribute 'transmogrify'"):
        _ = socketlab.transmogrify


def test_missing_dependency_is_named(monkeypatch):
    """What an exported module misses is said, not hidden behind a missing attribute."""

    def fail(name):
        raise ModuleNotFoundError("no torch", name="torch")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="no torch"):
        _ = socketlab.Recipe


# dependencies


@pytest.fixture(scope="module")
def providers():
    """Top-level name of a module → the distributions that bring it."""
    return packages_distributions()


MODULES_OF_EXTRAS = {"sections.py": "lab", "doctor.py": "lab", "app.py": "app"}
"""Modules that need what only an extra brings."""


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("socketlab", ()),
        ("tools", ("lab", "site")),
        ("tests", ("lab", "site", "app", "test")),
        ("benchmarks", ("lab", "test")),
    ],
)
def test_every_import_is_declared(folder, extras, providers):
    declared = names(PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]])
    undeclared = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module in imported(path) - own_modules(path):
            allowed = declared | names(EXTRAS.get(MODULES_OF_EXTRAS.get(path.name, ""), []))
            if not names(providers.get(module, [module])) & allowed:
                undeclared.setdefault(path.name, set()).add(module)
    assert undeclared == {}


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports from outside its package and the standard library."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names


def own_modules(path: Path) -> set[str]:
    """What belongs to the repository: its folders, the scripts of the data, and files side by side."""
    folders = [path.parent, ROOT / "data" / "pocketrooms"]
    if {ROOT / "tests", ROOT / "benchmarks"} & set(path.parents):  # tests run the scripts of benchmarks/
        folders += [ROOT / "tests", ROOT / "benchmarks"]
    beside = {other.stem for folder in folders for other in folder.glob("*.py")} | {"rivals"}
    return {"socketlab", "tools", "tests", "benchmarks", "data"} | beside


def test_python_range_is_the_same_everywhere():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = next(line for line in environment["dependencies"] if str(line).startswith("python "))
    assert python.removeprefix("python ") == PROJECT["requires-python"]
    first, last = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    versions = [f"3.{minor}" for minor in range(int(first), int(last))]
    classified = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert classified == versions
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "|".join(versions) + ")" in makefile
    assert "PYTHON := " + " ".join(f"python{version}" for version in reversed(versions)) in makefile


def test_environment_yml_installs_what_make_lab_does():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert [line.split()[0] for line in plain] == ["python", "pip"], "packages belong in pyproject.toml"
    assert pip == ["-e .[lab]"]
    assert "pip install -e '.[lab]'" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "lab" in EXTRAS


def test_every_dependency_has_a_floor_and_no_ceiling():
    lines = PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra]
    assert [line for line in lines if not re.fullmatch(r"[\w-]+>=[\d.]+", line)] == []


# make

FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) echo {version} ;;
  *"import venv"*) exit {no_venv} ;;
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip"*) echo "$*" >> pip.log ;;
  *) for word in "$@"; do echo "$word"; done > started.log ;;
esac
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone in a folder with spaces in its name, and Pythons that only note what they are asked to do."""
    folder = tmp_path / "a clone of mine"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    give_python(folder, monkeypatch)
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    return folder


def give_python(folder: Path, monkeypatch, version: str = "3.12", no_venv: int = 0) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (folder / "bin" / name).write_text(FAKE_PYTHON.format(version=version, no_venv=no_venv))
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)


def installed(folder: Path) -> list[str]:
    """What pip was asked to install, in order."""
    log = folder / "pip.log"
    return re.findall(r"install -e (\S+)", log.read_text()) if log.exists() else []


def age(path: Path, seconds: int) -> None:
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


@needs_make
def test_make_alone_explains(clone):
    shown = make(clone).stdout
    makefile = (clone / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    assert [target for target in targets if f"make {target} " not in shown] == ["help", "moved"]
    assert not (clone / ".venv").exists()


@needs_make
def test_make_lab_installs_once(clone):
    for _ in range(2):
        done = make(clone, "lab")
        assert done.returncode == 0, done.stderr
    assert installed(clone) == [".[lab]"]


@needs_make
def test_make_installs_again_when_the_dependencies_change(clone):
    make(clone, "lab")
    for name in ("pyproject.toml", ".venv/bin/python", ".venv/.lab"):
        age(clone / name, 100 if name != ".venv/.lab" else 50)
    make(clone, "lab")
    assert installed(clone) == [".[lab]"]
    (clone / "pyproject.toml").touch()
    make(clone, "lab")
    assert installed(clone) == [".[lab]"] * 2


@needs_make
def test_make_installs_again_in_a_folder_that_was_renamed(clone):
    make(clone, "lab")
    renamed = clone.rename(clone.with_name("another name"))
    make(renamed, "lab")
    make(renamed, "lab")
    assert installed(renamed) == [".[lab]"] * 2


@needs_make
def test_make_installs_again_after_a_failure(clone):
    make(clone, "venv")
    healthy = (clone / ".venv/bin/python").read_text()
    (clone / ".venv/bin/python").write_text("#!/bin/sh\nexit 1\n")
    assert make(clone, "lab").returncode != 0
    (clone / ".venv/bin/python").write_text(healthy)
    assert make(clone, "lab").returncode == 0
    assert installed(clone) == [".[lab]"]


@needs_make
def test_make_test_brings_its_tools(clone):
    assert make(clone, "test", "PYTEST_FLAGS=-x").returncode == 0
    assert make(clone, "lab").returncode == 0
    assert installed(clone) == [".[lab,site,app,test]"], "what is installed for the tests serves the lab too"


@needs_make
@pytest.mark.parametrize(
    ("version", "no_venv", "message"),
    [
        ("3.9", 0, "socketlab needs Python 3.11, 3.12 or 3.13 and found 3.9: install one of them"),
        ("3.14", 0, "socketlab needs Python 3.11, 3.12 or 3.13 and found 3.14: install one of them"),
        ("3.11", 1, "Python 3.11 is here but cannot make virtual environments"),
    ],
)
def test_make_without_a_python_that_will_do(clone, monkeypatch, version, no_venv, message):
    give_python(clone, monkeypatch, version, no_venv)
    done = make(clone, "lab")
    assert done.returncode != 0
    assert message in done.stderr
    assert ("apt install python3-venv" in done.stderr) is bool(no_venv)
    assert not (clone / ".venv").exists()


@needs_make
def test_make_without_any_python(clone):
    done = make(clone, "lab", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "found none" in done.stderr


@needs_make
def test_make_lab_serves_this_machine_only(clone):
    make(clone, "lab")
    words = (clone / "started.log").read_text().splitlines()
    assert words[:2] == ["-m", "jupyterlab"]
    assert "--ServerApp.ip=127.0.0.1" in words
    assert f"--ServerApp.root_dir={clone}" in words
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in words
    assert not any("token" in word or "password" in word for word in words), "JupyterLab's own token stays on"
    assert ("--allow-root" in words) is (os.getuid() == 0)
    assert ("--no-browser" in words) is (sys.platform == "linux")


@needs_make
def test_make_lab_opens_a_browser_where_there_is_one(clone, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    make(clone, "lab")
    assert "--no-browser" not in (clone / "started.log").read_text().splitlines()


@needs_make
def test_lab_flags_are_known_to_jupyterlab(clone):
    """JupyterLab passes over an option that it does not know, and would fetch its news again."""
    from jupyterlab import NeverCheckForUpdate
    from jupyterlab.labapp import LabApp

    make(clone, "lab")
    flags = re.findall(r"^--(\w+)\.(\w+)=(.*)$", (clone / "started.log").read_text(), re.MULTILINE)
    assert len(flags) == 6
    owners = {"ServerApp": LabApp.serverapp_class, "LabApp": LabApp}
    traits = {name: owner.class_traits(config=True) for name, owner in owners.items()}
    values = {name: traits[owner][name].from_string(value) for owner, name, value in flags}
    assert values["news_url"] is None
    assert values["check_for_updates_class"] == f"jupyterlab.{NeverCheckForUpdate.__name__}"
    assert values["extension_manager"] == "readonly"


def test_jupyterlab_is_told_to_be_silent_to_keep_panels_and_to_end_kernels():
    """The settings come with the package, are where JupyterLab reads them, and are ones that it knows."""
    from jupyterlab import commands

    ours = json.loads((ROOT / "socketlab" / "jupyterlab.json").read_text(encoding="utf-8"))
    extensions = Path(commands.get_app_dir()).parent / "labextensions"
    homes = [Path(commands.HERE, "schemas"), extensions / "@jupyter-widgets/jupyterlab-manager/schemas"]
    for plugin, settings in ours.items():
        owner, name = plugin.split(":")
        schema, *_ = (found for home in homes if (found := home / owner / f"{name}.json").is_file())
        assert settings.keys() <= json.loads(schema.read_text(encoding="utf-8"))["properties"].keys()
    silent, notebooks, widgets = ours.values()
    assert silent == {"fetchNews": "false", "checkForUpdates": False}
    assert notebooks == {"kernelShutdown": True} and widgets == {"saveState": True}
    installed = Path(commands.get_app_dir()) / "settings" / "overrides.d" / "socketlab.json"
    assert json.loads(installed.read_text(encoding="utf-8")) == ours, "install again: pip install -e ."


# files


def test_start_page_is_there():
    start = re.search(r"^START := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert (ROOT / start).is_file()


def test_ci_script_runs():
    assert (ROOT / ".ci" / "run").stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


def test_licences():
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    data = (ROOT / "LICENSE-data").read_text(encoding="utf-8")
    assert "https://creativecommons.org/licenses/by/4.0/" in data
    assert PROJECT["license"] == "MIT AND CC-BY-4.0"


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == socketlab.__version__
    (paper,) = citation["references"]
    assert paper["title"] == "Cross-Modal Knowledge Transfer Without Task-Relevant Source Data"
    assert [author["family-names"] for author in paper["authors"]] == [
        "Ahmed", "Lohit", "Peng", "Jones", "Roy-Chowdhury",
    ]  # fmt: skip


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git clone")
@pytest.mark.parametrize(
    ("path", "value"), [("data/pocketrooms/index.csv", "unset"), ("socketlab/method/adaptation.py", "auto")]
)
def test_data_keep_their_bytes_on_every_system(path, value):
    """Line ends that git rewrites on Windows would make every table look altered."""
    command = ["git", "-C", str(ROOT), "check-attr", "text", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(f": {value}")
