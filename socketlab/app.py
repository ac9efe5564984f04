"""One panel on a page of its own, for a lecture: ``socketlab app [NAME]`` (needs the extra ``app``, Voilà).

The server listens on this computer only and asks for its token, which is in the address that it prints and
opens. Every page that is opened gets a kernel of its own. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from socketlab.errors import LabError, require_choice

PANELS = {
    "adaptation": "Full adaptation, live",
    "gap": "The modality gap",
    "statistics": "What the layers remember",
    "pairs": "Paired alignment",
}
"""Name on the command line, which is the panel's module too → title of the page."""

TEMPLATE = """{%- extends 'voila/templates/lab/index.html.j2' -%}
{%- block notebook_css -%}
{{ super() | replace("https://cdn.jsdelivr.net", "data:text/css,") }}
{%- endblock notebook_css -%}
"""
"""Voilà's own page but for one style that it would fetch from the network; its icons are on the disk too."""


def notebook_of(name: str, folder: Path) -> str:
    """A notebook with a title and the panel alone; its kernel works in ``folder``."""
    from nbformat import v4, writes

    panel = f"{name.capitalize()}Panel"
    code = (
        f"import os\n\nos.chdir({str(folder)!r})\nfrom socketlab.panels.{name} import {panel}\n\n"
        f"{panel}().add_class('socketlab-hall')"
    )
    cells = [v4.new_markdown_cell(f"# {PANELS[name]}"), v4.new_code_cell(code)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return str(writes(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})))


def command(notebook: Path, port: int, browser: bool = True) -> list[str]:
    """How Voilà is started: this computer only, a token that is made anew each time, errors shown."""
    return [
        *(sys.executable, "-m", "voila", str(notebook)),
        *("--Voila.ip=127.0.0.1", f"--port={port}", "--Voila.auto_token=True"),
        *("--template=socketlab", "--theme=light"),
        *("--VoilaConfiguration.show_tracebacks=True", f"--Voila.open_browser={browser}"),
    ]


@contextmanager
def prepared(name: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """The notebook of a panel, in a folder that vanishes afterwards, and the environment to serve it in."""
    require_choice("panel", name, PANELS)
    if importlib.util.find_spec("voila") is None:
        raise LabError("Voilà is not installed: run `python -m pip install -e '.[app]'` in the clone.")
    with tempfile.TemporaryDirectory(prefix="socketlab-app-") as folder:
        path = Path(folder) / f"{name}.ipynb"
        path.write_text(notebook_of(name, Path.cwd()), encoding="utf-8")
        template = Path(folder) / "voila" / "templates" / "socketlab"
        template.mkdir(parents=True)
        (template / "conf.json").write_text('{"base_template": "lab"}')
        (template / "index.html.j2").write_text(TEMPLATE)
        environment = {k: v for k, v in os.environ.items() if k != "JUPYTER_TOKEN"}
        environment["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        yield path, environment


def serve(name: str, port: int, browser: bool = True) -> int:
    """Serve a panel until Ctrl-C, SIGTERM or SIGHUP; returns the exit code of the server."""
    for sent in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, sent) and threading.current_thread() is threading.main_thread():
            signal.signal(getattr(signal, sent), signal.default_int_handler)
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
