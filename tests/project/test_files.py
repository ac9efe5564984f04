"""Whole files or none, and data files that are what the manifest says."""

import builtins
import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from socketlab import files
from socketlab.errors import LabError
from tools.manifest import write_manifest


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A small data folder, listed, and chosen by the environment."""
    folder = tmp_path / "data"
    (folder / "rooms" / "__pycache__").mkdir(parents=True)
    (folder / "rooms" / "b.jpg").write_bytes(b"picture")
    (folder / "a.csv").write_bytes(b"x,y\n")
    (folder / "rooms" / ".hidden").write_bytes(b"no")
    (folder / "rooms" / "__pycache__" / "c.pyc").write_bytes(b"no")
    monkeypatch.setenv("SOCKETLAB_DATA", str(folder))
    write_manifest(folder)
    return folder


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


class FullDisk:
    """A file that takes half of the bytes and then finds the disk full."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        no_space()


def test_write_whole_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder" / "x.bin"
    files.write_whole(path, b"one")
    files.write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["x.bin"]


def test_write_whole_obeys_the_umask(tmp_path):
    """A temporary file readable by its owner only would lock a class out of a shared folder."""
    (tmp_path / "plain").write_bytes(b"")
    files.write_whole(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, where):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old and whole")
    if where == "write":
        opened = builtins.open
        monkeypatch.setattr(builtins, "open", lambda *a, **k: FullDisk(opened(*a, **k)))
    else:
        monkeypatch.setattr(os, where, no_space)
    with pytest.raises(LabError, match=r"disk is full.*model\.safetensors.*free space"):
        files.write_whole(path, b"new" * 1000)
    monkeypatch.undo()
    assert path.read_bytes() == b"old and whole"
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_interrupted_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "x", b"data")
    assert os.listdir(tmp_path) == []


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LabError, match="cannot be written"):
        files.write_whole(tmp_path / "file" / "x", b"data")
    with pytest.raises(LabError, match="cannot be written"):
        files.write_whole(tmp_path, b"data")


def test_digest_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert files.digest(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(LabError, match="nowhere"):
        files.digest(tmp_path / "nowhere")


def test_manifest_lists_every_data_file_in_order(data):
    text = (data / "manifest.json").read_text()
    assert list(json.loads(text)) == ["a.csv", "rooms/b.jpg"]
    assert json.loads(text)["a.csv"] == hashlib.sha256(b"x,y\n").hexdigest()
    write_manifest(data)
    assert (data / "manifest.json").read_text() == text
    with pytest.raises(LabError, match="not a folder"):
        write_manifest(data / "a.csv")


def test_verified_finds_the_file(data):
    assert files.verified("rooms/b.jpg") == data / "rooms" / "b.jpg"


def test_verified_notices_a_change_after_a_good_answer(data):
    path = files.verified("rooms/b.jpg")
    before = path.stat()
    path.write_bytes(b"pictuRe")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(LabError, match=r"data/rooms/b\.jpg was altered.*git checkout -- data/rooms/b\.jpg"):
        files.verified("rooms/b.jpg")


def test_verified_names_missing_and_unlisted_files(data):
    (data / "a.csv").unlink()
    with pytest.raises(LabError, match=r"data/a\.csv is missing.*git checkout -- data/a\.csv"):
        files.verified("a.csv")
    (data / "new.csv").write_bytes(b"")
    for name in ("new.csv", "../data/a.csv"):
        with pytest.raises(LabError, match=r"not listed.*python -m tools\.manifest"):
            files.verified(name)


@pytest.mark.parametrize("content", [None, b"{ broken", b"[]", b"\xff\xfe"])
def test_bad_manifest_is_one_sentence(data, content):
    (data / "manifest.json").unlink()
    if content is not None:
        (data / "manifest.json").write_bytes(content)
    with pytest.raises(LabError, match=r"manifest\.json .*git checkout -- data/manifest\.json"):
        files.verified("a.csv")


def test_data_folder(data, monkeypatch):
    assert files.data_folder() == data
    monkeypatch.setenv("SOCKETLAB_DATA", str(data / "nowhere"))
    with pytest.raises(LabError, match="SOCKETLAB_DATA"):
        files.data_folder()
    monkeypatch.delenv("SOCKETLAB_DATA")
    beside = Path(files.__file__).resolve().parent.parent / "data"
    if beside.is_dir():
        assert files.data_folder() == beside


def test_running_the_module_rewrites_the_manifest(data):
    (data / "new.csv").write_bytes(b"")
    subprocess.run([sys.executable, "-m", "tools.manifest"], check=True, cwd=Path(files.__file__).parents[1])
    assert files.verified("new.csv") == data / "new.csv"
