"""Fixtures for tests in a real browser: JupyterLab on loopback, and the distribution's own Chromium."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST = ("test_notebooks_run", "test_results", "test_notebooks_in_browser")


# A busy machine is no reason to fail: how long an example takes is not what these tests are about.
hypothesis.settings.register_profile("socketlab", deadline=None)
hypothesis.settings.load_profile("socketlab")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than about twenty seconds")
    config.addinivalue_line("markers", "exhaustive: minutes of the same, as every bad value")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest begin: files are shared among processes in this order."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    """Where screenshots go: the folder named by SOCKETLAB_ARTEFACTS, else the test's own."""
    folder = Path(os.environ.get("SOCKETLAB_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path; without one the test is skipped, but fails where CI is set."""
    if CHROMIUM is None:
        message = (
            "no Chromium here: install the distribution's package `chromium`, or set CHROMIUM to its path"
        )
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return CHROMIUM


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any], chromium: str) -> dict[str, Any]:
    """Start the distribution's Chromium; no host but loopback has an address."""
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    only_here = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    return {**browser_type_launch_args, "executable_path": chromium, "args": [*switches, only_here]}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any]) -> dict[str, Any]:
    """A tall window, so that a whole panel is on the screen."""
    return {**browser_context_args, "viewport": {"width": 1400, "height": 1900}}


@pytest.fixture(scope="session")
def lab_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that JupyterLab serves; tests put their notebooks here."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="session")
def lab_url(chromium: str, lab_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab on a free port of 127.0.0.1, with settings of its own and the token `test`."""
    folder = tmp_path_factory.mktemp("lab")
    quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    whole = {"windowingMode": "none"}  # cells beyond the window are part of the page too
    for name, settings in (("apputils-extension/notification", quiet), ("notebook-extension/tracker", whole)):
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(settings))
    homes = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    environment = os.environ | {name: str(folder / place) for name, place in homes.items()}
    paths = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=test"),
        *(f"--ServerApp.root_dir={lab_folder}", "--LabApp.extension_manager=readonly"),
        "--LabApp.expose_app_in_browser=True",
    ]
    log = folder / "server.log"
    with open(log, "w") as said:
        server = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            _await_port(server, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


def _await_port(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(480):
        if server.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.25)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


_OPEN = (
    "window.jupyterapp && window.jupyterapp.shell.currentWidget "
    "&& window.jupyterapp.shell.currentWidget.sessionContext"
)
_RUN_ALL = """async () => {
    const app = window.jupyterapp; await app.restored;
    const notebook = app.shell.currentWidget;
    await notebook.context.ready; await notebook.sessionContext.ready; await notebook.revealed;
    app.shell.collapseLeft();
    await app.commands.execute('notebook:run-all-cells');
}"""
_ERRORS = """() => {
    const shown = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"], .socketlab-error';
    const broken = document.body.innerText.includes('javascript error') ? ['a widget cannot be shown'] : [];
    return broken.concat([...document.querySelectorAll(shown)].map(e => e.textContent));
}"""


@pytest.fixture
def open_notebook(page: Any, lab_url: str) -> Iterator[Callable[[str], Any]]:
    """`open_notebook(name)` opens it in JupyterLab, runs all cells, returns the page.

    Afterwards there must have been no request to another host, no error of the page, and no error shown.
    """
    elsewhere: list[str] = []
    faults: list[str] = []
    here = (lab_url, lab_url.replace("http", "ws", 1), "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(here) else elsewhere.append(r.url))
    page.on("pageerror", lambda error: faults.append(str(error)))

    def open_and_run(name: str) -> Any:
        page.goto(f"{lab_url}/lab/tree/{name}?token=test&reset", timeout=180_000)
        page.wait_for_function(_OPEN, timeout=180_000)
        page.evaluate(_RUN_ALL)
        assert page.evaluate(_ERRORS) == []
        return page

    yield open_and_run
    assert page.evaluate(_ERRORS) == []
    assert elsewhere == []
    assert faults == []


# runs of tiny data


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in the shape of PocketRooms, of patterned noise."""
    from tiny_runs import make_tiny_data

    return make_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture
def quick(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny data, and a map by PCA: UMAP compiles for many seconds and has tests of its own."""
    _hurry(tiny_data, monkeypatch)


def _hurry(tiny_data: Path, patch: pytest.MonkeyPatch) -> None:
    from socketlab.figures import maps

    patch.setenv("SOCKETLAB_DATA", str(tiny_data))
    patch.setattr(maps, "joint_map", lambda sets, seed=0: maps.pca_map(sets))


@pytest.fixture(scope="session")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run that tests read but do not change."""
    from tiny_runs import TINY, full_run

    from socketlab.runs.settings import Settings

    with pytest.MonkeyPatch.context() as patch:
        _hurry(tiny_data, patch)
        return full_run(tmp_path_factory.mktemp("runs") / "first", Settings(recipe=TINY))
