"""One panel on a page of its own, for a lecture: ``socketlab app [NAME]`` (needs the extra ``app``, Voilà).

The server listens on this computer only and asks for its token, which is in the address that it prints and
opens. Every page that is opened gets a kernel of its own. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from socketlab.errors import LabError


@dataclass(frozen=True)
class Shown:
    """Where a panel comes from, and what it is called."""

    module: str
    panel: str
    title: str


PANELS = {
    "adaptation": Shown("socketlab.panels.adaptation", "AdaptationPanel", "Full adaptation, live"),
    "gap": Shown("socketlab.panels.gap", "GapPanel", "The modality gap"),
    "statistics": Shown("socketlab.panels.statistics", "StatisticsPanel", "What the layers remember"),
    "pairs": Shown("socketlab.panels.pairs", "PairsPanel", "Paired alignment"),
}
"""Name on the command line → the panel."""

PORT = 8866
TEMPLATE = """{%- extends 'voila/templates/lab/index.html.j2' -%}
{%- block notebook_css -%}
{{ super() | replace("https://cdn.jsdelivr.net", "data:text/css,") }}
{%- endblock notebook_css -%}
"""
"""Voilà's own page but for one style that it would fetch from the network; its icons are on the disk too."""


def find(name: str) -> Shown:
    """A panel by name; `LabError` for another name."""
    if name not in PANELS:
        raise LabError(f"There is no panel {name!r}: choose among {', '.join(PANELS)}.")
    return PANELS[name]


def notebook_of(shown: Shown, folder: Path) -> str:
    """A notebook with a title and the panel alone; its kernel works in ``folder``."""
    code = (
        f"import os\n\nos.chdir({str(folder)!r})\nfrom {shown.module} import {shown.panel}\n\n"
        f"{shown.panel}().add_class('socketlab-hall')"
    )
    cells = [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {shown.title}"},
        {"cell_type": "code", "id": "panel", "metadata": {}, "source": code, "outputs": [],
         "execution_count": None},
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    about = {"metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps({"cells": cells, **about})


def command(notebook: Path, port: int = PORT, browser: bool = True) -> list[str]:
    """How Voilà is started: this computer only, a token that is made anew each time, errors shown."""
    return [
        *(sys.executable, "-m", "voila", str(notebook)),
        *("--Voila.ip=127.0.0.1", f"--port={port}", "--Voila.auto_token=True"),
        *("--template=socketlab", "--theme=light"),
        *("--VoilaConfiguration.show_tracebacks=True", f"--Voila.open_browser={browser}"),
    ]


@contextmanager
def prepared(name: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """The notebook of a panel, in a folder that vanishes afterwards, and the environment to serve it in.

    Raises
    ------
    LabError : no such panel, or Voilà is not installed.
    """
    shown = find(name)
    if importlib.util.find_spec("voila") is None:
        raise LabError("Voilà is not installed: run `python -m pip install -e '.[app]'` in the clone.")
    with tempfile.TemporaryDirectory(prefix="socketlab-app-") as folder:
        path = Path(folder) / f"{name}.ipynb"
        path.write_text(notebook_of(shown, Path.cwd()), encoding="utf-8")
        template = Path(folder) / "voila" / "templates" / "socketlab"
        template.mkdir(parents=True)
        (template / "conf.json").write_text('{"base_template": "lab"}')
        (template / "index.html.j2").write_text(TEMPLATE)
        environment = {k: v for k, v in os.environ.items() if k != "JUPYTER_TOKEN"}
        environment["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        yield path, environment


def serve(name: str = "adaptation", port: int = PORT, browser: bool = True) -> int:
    """Serve a panel until Ctrl-C, SIGTERM or SIGHUP; returns the exit code of the server."""
    for sent in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, sent) and threading.current_thread() is threading.main_thread():
            signal.signal(getattr(signal, sent), _interrupt)
    with prepared(name) as (path, environment):
        server = subprocess.Popen(command(path, port, browser), env=environment)
        try:
            return server.wait()
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _interrupt(*about: object) -> None:
    raise KeyboardInterrupt
