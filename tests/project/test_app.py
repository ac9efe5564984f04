"""The panels served by Voilà: this computer only, behind a token, with a kernel that works."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import ipywidgets
import nbformat
import pytest
from command_line import call

from socketlab import app
from socketlab.errors import LabError


@pytest.mark.parametrize("name", list(app.PANELS))
def test_every_panel_can_be_imported(name: str) -> None:
    panels = import_module(f"socketlab.panels.{name}")
    assert issubclass(getattr(panels, f"{name.capitalize()}Panel"), ipywidgets.Widget)


def test_a_panel_that_is_not_there_is_named() -> None:
    said = "panel 'sound' is unknown: choose one of adaptation, "
    with pytest.raises(LabError, match=said), app.prepared("sound"):
        pass


@pytest.mark.parametrize("name", list(app.PANELS))
def test_the_notebook_shows_the_panel_alone(name: str, tmp_path: Path) -> None:
    notebook = nbformat.reads(app.notebook_of(name, tmp_path), as_version=4)
    nbformat.validate(notebook)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code"]
    compile(notebook.cells[1].source, name, "exec")
    assert notebook.cells[1].source.splitlines()[-1] == (
        f"{name.capitalize()}Panel().add_class('socketlab-hall')"
    )


def test_without_voila_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = app.importlib.util.find_spec
    monkeypatch.setattr(
        app.importlib.util, "find_spec", lambda name: None if name == "voila" else found(name)
    )
    with pytest.raises(LabError, match=r"Voilà is not installed: run .*\[app\]"), app.prepared("adaptation"):
        pass


def test_voila_knows_its_options_and_listens_here_only(tmp_path: Path) -> None:
    """Voilà passes over an option that it does not know."""
    from voila.app import Voila
    from voila.configuration import VoilaConfiguration

    words = app.command(tmp_path / "a.ipynb", 8000, browser=False)
    owners = {"Voila": Voila, "VoilaConfiguration": VoilaConfiguration}
    for owner, name in re.findall(r"--(\w+)\.(\w+)=", " ".join(words)):
        assert name in owners[owner].class_trait_names(config=True)
    assert "--Voila.ip=127.0.0.1" in words
    assert "--Voila.auto_token=True" in words
    assert not any("token=" in word.lower() for word in words if "auto_token" not in word)


def test_what_was_prepared_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_TOKEN", "known")
    with app.prepared("adaptation") as (path, environment):
        assert path.is_file()
        template = path.parent / "voila" / "templates" / "socketlab"
        assert json.loads((template / "conf.json").read_text()) == {"base_template": "lab"}
        assert environment["JUPYTER_PATH"].startswith(str(path.parent))
        assert "JUPYTER_TOKEN" not in environment, "the token is made anew"
    assert not path.parent.exists()


SLEEPER = """
import sys
from socketlab import app, cli
code = "import os, time, pathlib; pathlib.Path('server').write_text(str(os.getpid())); time.sleep(60)"
app.command = lambda path, port, browser: print(path, flush=True) or [sys.executable, "-c", code]
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_request_to_end_ends_the_server_and_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    monkeypatch.chdir(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, "app"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    notebook = Path(process.stdout.readline().strip())
    while not (tmp_path / "server").exists() or not (tmp_path / "server").read_text():
        time.sleep(0.05)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == "socketlab: stopped.\n"
    assert not notebook.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "server").read_text()), 0)


@pytest.mark.parametrize("port", ["-1", "0", "65536", "99999", "many"])
def test_a_port_that_cannot_be_is_refused(port: str) -> None:
    result = call("app", "--port", port)
    assert result.exit_code == 2 and "--port" in result.stderr and "Traceback" not in result.stderr


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the adaptation panel, with its token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.chdir(tmp_path)
    with app.prepared("adaptation") as (path, environment):
        server = subprocess.Popen(
            app.command(path, port, browser=False),
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said: list[str] = []
        listener = threading.Thread(target=lambda: said.extend(server.stdout or ()), daemon=True)
        listener.start()
        try:
            yield address(server, said)
        finally:
            server.terminate()
            server.wait(20)
            listener.join(5)


def address(server: subprocess.Popen[str], said: list[str], seconds: float = 120) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\w{20,}", " ".join(said)):
            return found[0]
        time.sleep(0.1)
    raise AssertionError("Voilà did not start:\n" + "".join(said))


@pytest.mark.slow
def test_the_panel_works_in_a_browser_and_asks_nobody(served: str, page: Any, artefacts: Path) -> None:
    asked: list[str] = []
    faults: list[str] = []
    here = served.split("?")[0]
    ours = (here, here.replace("http", "ws", 1), "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(ours) else asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    with urllib.request.urlopen(here) as answer:
        assert "/login" in answer.geturl(), "without the token there is no panel"
    page.goto(served, timeout=180_000)
    page.wait_for_selector(".socketlab-panel", timeout=180_000)
    page.wait_for_selector(".socketlab-experiment select", timeout=60_000)
    readout = page.locator(".socketlab-align-epochs .widget-readout")
    before = readout.inner_text()
    menu = page.locator(".socketlab-experiment select")
    menu.select_option(label=next(x for x in menu.locator("option").all_inner_texts() if "SHOT" in x))
    page.wait_for_function(
        "before => document.querySelector('.socketlab-align-epochs .widget-readout').innerText != before",
        arg=before,
        timeout=60_000,
    )
    page.screenshot(path=artefacts / "app.png")
    assert asked == []
    assert faults == []
