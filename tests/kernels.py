"""What tests make kernels refuse: the network, and training where nothing is to be trained."""

import os
from pathlib import Path

import nbformat
import pytest

NO_NETWORK = '''
"""Refuse every connection that leaves this computer."""
import socket

_connect = socket.socket.connect

def connect(self, address):
    internet = self.family in (socket.AF_INET, socket.AF_INET6)
    if internet and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"a test forbids the connection to {address}")
    return _connect(self, address)

socket.socket.connect = connect
'''
NO_TRAINING = '''
"""Refuse every step of an optimiser."""
from torch.optim.optimizer import register_optimizer_step_pre_hook

def refuse(*_):
    raise RuntimeError("something is trained at the tier replay")

register_optimizer_step_pre_hook(refuse)
'''


def begin_every_kernel_with(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python begin with this source in all processes that the test starts."""
    (folder / "sitecustomize.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


def code(*sources: str) -> nbformat.NotebookNode:
    """A notebook of these cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
