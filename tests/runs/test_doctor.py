"""Every line of the doctor, well and ill."""

import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from socketlab import files
from socketlab.runs import doctor
from tools.manifest import write_manifest

WELL = {"torch": "2.15.0", "torchvision": "0.29.2"}
TORCH = """
from types import SimpleNamespace as Names
__version__ = "2.15.0"
cuda = Names(is_available=lambda: {cuda}, get_device_name=lambda index: "NVIDIA Test")
backends = Names(mps=Names(is_available=lambda: False))
"""


@pytest.fixture
def quick(monkeypatch):
    """PyTorch is well, and nothing is started to see it."""
    monkeypatch.setattr(doctor, "try_torch", lambda: WELL)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put packages of a given source text before the installed ones, for Python processes yet to start."""

    def put(**packages: str) -> None:
        for name, text in packages.items():
            (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def of(check, *about) -> doctor.Check:
    """What the doctor makes of a check."""
    return doctor.attempt(check.__name__.removeprefix("check_"), lambda: check(*about))


def raising(error: Exception):
    def fail(*_args, **_kwargs):
        raise error

    return fail


# PyTorch


def test_torch_that_loads(install):
    install(torch="print('welcome')" + TORCH.format(cuda=False), torchvision="__version__ = '0.29.2'")
    found = doctor.try_torch()
    assert found == WELL
    assert str(of(doctor.check_torch, found)) == "[ok] torch: torch 2.15.0, torchvision 0.29.2"
    assert "gpu" not in found


def test_gpu_is_named(install):
    install(torch=TORCH.format(cuda=True), torchvision="__version__ = '0.29.2'")
    assert doctor.try_torch()["gpu"] == "NVIDIA Test"


def test_torch_and_torchvision_of_different_builds(install):
    install(
        torch=TORCH.format(cuda=False),
        torchvision="raise RuntimeError('operator torchvision::nms does not exist')",
    )
    check = of(doctor.check_torch, doctor.try_torch())
    assert not check.ok
    assert "operator torchvision::nms does not exist" in check.message
    assert "do not load" in check.message and "a pair of one release and build" in check.message
    assert "https://pytorch.org/get-started/locally/" in check.message
    assert "\n" not in check.message


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_torch_is_missing(install, name):
    packages = {"torch": TORCH.format(cuda=False), "torchvision": "__version__ = '0.29.2'"}
    install(**packages | {name: f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')"})
    check = of(doctor.check_torch, doctor.try_torch())
    assert not check.ok
    assert f"(ModuleNotFoundError: No module named '{name}')" in check.message


def test_torch_takes_the_process_down(install):
    install(torch="import os; os._exit(132)")
    check = of(doctor.check_torch, doctor.try_torch())
    assert not check.ok
    assert "exit code 132" in check.message


def test_torch_never_comes_back(install, monkeypatch):
    install(torch="import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "TORCH_SECONDS", 0.5)
    check = of(doctor.check_torch, doctor.try_torch())
    assert not check.ok
    assert "still loading after 0.5 s" in check.message


def test_python_cannot_be_started(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "cannot be started" in doctor.try_torch()["error"]


# packages


def test_packages_are_those_of_pyproject():
    check = of(doctor.check_packages)
    assert check.ok, check.message


def test_package_is_missing_or_too_old(monkeypatch):
    wanted = ["numpy>=99", "pillow>=1", "no-such-package"]
    extra = ['jupyterlab>=98; extra == "lab"', 'mitsuba>=97; extra == "render"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted + extra)
    check = of(doctor.check_packages)
    assert not check.ok
    expected = r"numpy \S+ is not >=99, no-such-package is missing, jupyterlab \S+ is not >=98 → "
    assert re.match(expected, check.message)
    assert "mitsuba" not in check.message


def test_socketlab_itself_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.metadata.requires", raising(PackageNotFoundError("socketlab")))
    check = of(doctor.check_packages)
    assert not check.ok
    assert "make lab" in check.message


# the kernel


def give_kernel(folder: Path, command: str, monkeypatch) -> None:
    """Make a kernel python3 that Jupyter finds before any other."""
    (folder / "kernels" / "python3").mkdir(parents=True)
    spec = {"argv": [command, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "P"}
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps({**spec, "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))


def test_kernel_of_this_python():
    assert of(doctor.check_kernel).ok


@pytest.mark.parametrize("command", ["python", "python3", sys.executable])
def test_kernel_by_name_or_path(tmp_path, monkeypatch, command):
    give_kernel(tmp_path, command, monkeypatch)
    assert of(doctor.check_kernel).ok


def test_kernel_of_another_python(tmp_path, monkeypatch):
    give_kernel(tmp_path, "/opt/other/bin/python", monkeypatch)
    check = of(doctor.check_kernel)
    assert not check.ok
    assert "/opt/other/bin/python" in check.message
    assert "make lab" in check.message


# computer and disk


def test_little_memory(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**30))
    check = of(doctor.check_computer)
    assert not check.ok
    assert "1.0 GB of memory free" in check.message
    assert "a notebook may need 2.0 GB" in check.message


def test_enough_memory(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3 * 2**30))
    assert re.match(r"\d+ cores?, 3\.0 GB of memory free, \d", of(doctor.check_computer).message)


@pytest.mark.parametrize(("free", "ok"), [(2**29, False), (2**31, True)])
def test_room_on_the_disk(monkeypatch, free, ok):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    assert of(doctor.check_computer).ok is ok


# data


@pytest.fixture
def data(tmp_path, monkeypatch):
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number]))
    write_manifest(tmp_path)
    monkeypatch.setenv("SOCKETLAB_DATA", str(tmp_path))
    return tmp_path


def test_data_unchanged(data):
    assert of(doctor.check_data) == doctor.Check("data", True, "5 files as in the manifest")


def test_data_missing_and_altered(data):
    (data / "0.jpg").write_bytes(b"other")
    for number in range(1, 5):
        (data / f"{number}.jpg").unlink()
    assert of(doctor.check_data) == doctor.Check(
        "data",
        False,
        "missing: 1.jpg, 2.jpg, 3.jpg and 1 more; altered: 0.jpg → "
        "`git checkout -- data` brings the originals back",
    )


def test_no_manifest(data):
    (data / files.MANIFEST).unlink()
    check = of(doctor.check_data)
    assert not check.ok
    assert "manifest.json is missing" in check.message


def test_no_data_folder(data, monkeypatch):
    monkeypatch.setenv("SOCKETLAB_DATA", str(data / "nowhere"))
    check = of(doctor.check_data)
    assert not check.ok
    assert "does not exist" in check.message


# the whole


def test_one_line_for_each_requirement(quick, data):
    lines = doctor.report().splitlines()
    names = ["PyTorch", "packages", "kernel", "GPU", "computer", "data"]
    assert [re.match(r"\[(?:ok|--)\] (\w+): ", line)[1] for line in lines[2:]] == names
    assert re.match(r"socketlab \d+\.\d+\.\d+ · Python 3\.\d+\.\d+ · \S", lines[0])
    assert "torch " in lines[1]
    assert "umap-learn " in lines[1]


def test_nothing_raises(quick, monkeypatch):
    """Whatever goes wrong in a check becomes its line."""
    checks = [name for name in vars(doctor) if name.startswith("check_")]
    for name in checks:
        monkeypatch.setattr(doctor, name, raising(RuntimeError("out\nof order")))
    found = doctor.examine()
    assert len(found) == len(checks) + 1  # the GPU has no check of its own
    assert [check.name for check in found if check.ok] == ["GPU"]
    assert {check.message for check in found if not check.ok} == {
        "could not be examined (RuntimeError: out of order)"
    }


def test_all_but_torch_is_quick(quick, data):
    """PyTorch itself takes some three seconds to load; the rest must not add to the wait."""
    doctor.examine()
    start = time.process_time()
    doctor.examine()
    assert time.process_time() - start < 1


def test_nothing_heavy_is_imported():
    """PyTorch is tried elsewhere, and of UMAP, which takes long to load, only the version is read."""
    code = (
        "import sys; from socketlab.runs import doctor; doctor.try_torch = dict; doctor.report(); "
        "print(*sorted({'torch', 'umap', 'numba', 'matplotlib', 'ipywidgets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_report_does_not_name_the_home_folder(quick, tmp_path, monkeypatch):
    home = tmp_path / "people" / "ada"
    (home / "socketlab").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(home / "socketlab")
    text = doctor.report()
    assert f"free in ~{os.sep}socketlab" in text
    assert "ada" not in text


def test_a_home_folder_at_the_root_changes_no_path(quick, monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert f"free in {Path.cwd()}" in doctor.report()
