"""Preparing a room: every trial can fail and says so, and the zip is whole or not there."""

import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from socketlab import files
from socketlab.errors import LabError
from socketlab.figures import maps
from socketlab.runs import doctor
from socketlab.runs.doctor import Check
from tools import prepare_classroom

FINE = [Check("Python", True, "3.12.1"), Check("data", True, "51 files as in the manifest")]


def raising(error: BaseException):
    def fail(*arguments: object, **named: object) -> None:
        raise error

    return fail


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor without patients, and trials that are over at once."""
    monkeypatch.setattr(doctor, "examine", lambda: list(FINE))
    for name in ("notebooks", "adaptation", "umap", "server"):
        done = Check(name, True, "as it should be")
        monkeypatch.setattr(prepare_classroom, f"check_{name}", lambda done=done: done)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A small repository without git, with what lessons and tools leave behind."""
    root = tmp_path / "kit"
    for name in (
        "README.md", ".gitignore", ".ci/run", "notebooks/00.ipynb", "data/a.png", "socketlab/x.py",
        ".venv/bin/python", ".git-not/config", "build/site/index.html", "runs/mine/report.html",
        "socketlab/__pycache__/x.pyc", "a.unfinished", "socketlab.egg-info/PKG-INFO",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


# checks


def test_one_line_for_each_requirement_and_each_trial(quick: None) -> None:
    assert [check.name for check in prepare_classroom.examine()] == [
        "Python", "data", "notebooks", "adaptation", "umap", "server",
    ]  # fmt: skip


def test_nothing_raises(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("notebooks", "adaptation", "umap", "server"):
        monkeypatch.setattr(prepare_classroom, f"check_{name}", raising(RuntimeError("out\nof order")))
    trials = list(prepare_classroom.examine())[len(FINE) :]
    assert len(trials) == 4
    assert {(check.ok, check.message) for check in trials} == {
        (False, "did not work (RuntimeError: out of order)")
    }


def test_notebooks_with_and_without_pictures(tmp_path: Path) -> None:
    assert prepare_classroom.check_notebooks().ok
    assert "none in" in prepare_classroom.check_notebooks(tmp_path).message
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), tmp_path / "00_bare.ipynb"
    )
    bare = prepare_classroom.check_notebooks(tmp_path)
    assert not bare.ok
    assert "without pictures: 00_bare.ipynb" in bare.message


@pytest.mark.slow
def test_an_adaptation_takes_two_steps() -> None:
    check = prepare_classroom.check_adaptation()
    assert check.ok
    assert check.message.startswith("2 steps in ")


def test_altered_data_are_noticed_by_the_trial_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "digest", lambda path: "0" * 64)
    with pytest.raises(LabError, match="was altered"):
        prepare_classroom.check_adaptation()


def test_umap_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def joint_map(sets):
        asked.append(sets["points"].shape)
        return {"points": sets["points"][:, :2]}

    monkeypatch.setattr(maps, "joint_map", joint_map)
    assert prepare_classroom.check_umap().ok
    assert asked == [(60, 8)]
    monkeypatch.setattr(maps, "joint_map", lambda sets: {"points": sets["points"][:5]})
    assert not prepare_classroom.check_umap().ok


@pytest.mark.slow
def test_the_server_answers() -> None:
    check = prepare_classroom.check_server()
    assert check.ok, check.message
    assert "answers on 127.0.0.1" in check.message


def test_a_server_that_stops_or_stays_silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = tmp_path / "python"
    for words in ("exit 1", "exec sleep 60"):
        silent.write_text(f"#!/bin/sh\n{words}\n")
        silent.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(silent))
        check = prepare_classroom.check_server(seconds=0.5)
        assert not check.ok
        assert "does not answer on 127.0.0.1 → look at what `make lab` says" in check.message


# the zip


def test_what_goes_into_the_zip(kit: Path, tmp_path: Path) -> None:
    path = prepare_classroom.write_zip(tmp_path / "out" / "kit.zip", root=kit)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == [
            "README.txt",
            "socketlab/.ci/run",
            "socketlab/.gitignore",
            "socketlab/README.md",
            "socketlab/data/a.png",
            "socketlab/notebooks/00.ipynb",
            "socketlab/socketlab/x.py",
        ]
        assert archive.read("socketlab/data/a.png") == b"data/a.png"
        words = archive.read("README.txt").decode()
    assert "\n    make lab\n    make classroom\n" in words
    assert "fetches them from the network" in words
    assert [p.name for p in path.parent.iterdir()] == ["kit.zip"]


@pytest.mark.skipif(not (prepare_classroom.ROOT / ".git").exists(), reason="not a git clone")
def test_of_a_clone_what_git_knows_goes_into_the_zip() -> None:
    names = {path.as_posix() for path in prepare_classroom.repository_files()}
    assert {
        "Makefile",
        "data/manifest.json",
        "notebooks/00_start_here.ipynb",
        "tools/prepare_classroom.py",
    } <= names
    assert not any(name.startswith((".venv", ".git/", "build/", "runs/")) for name in names)


def test_every_file_of_the_manifest_goes_into_the_zip() -> None:
    names = {path.as_posix() for path in prepare_classroom.repository_files()}
    assert {f"data/{name}" for name in files.read_manifest(files.data_folder())} <= names


def test_wheels_go_in_and_the_words_name_them(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        prepare_classroom, "download_wheels", lambda folder: (folder / "torch-9.whl").write_bytes(b"w")
    )
    with zipfile.ZipFile(prepare_classroom.write_zip(tmp_path / "kit.zip", wheels=True, root=kit)) as archive:
        assert archive.read("socketlab/wheels/torch-9.whl") == b"w"
        words = archive.read("README.txt").decode()
    assert "PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels make lab" in words
    assert r'.venv\Scripts\python -m pip install --no-index --find-links wheels -e ".[lab]"' in words
    assert "{" not in words


def test_an_older_file_is_not_overwritten(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "kit.zip").write_text("mine")
    with pytest.raises(LabError, match="is there already"):
        prepare_classroom.write_zip(tmp_path / "kit.zip", root=kit)
    assert (tmp_path / "kit.zip").read_text() == "mine"


def test_a_full_stick_leaves_nothing(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "stick"
    monkeypatch.setattr(prepare_classroom.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(LabError, match=r"0\.0 GB are free"):
        prepare_classroom.write_zip(out / "kit.zip", root=kit)
    monkeypatch.undo()
    monkeypatch.setattr(prepare_classroom.os, "fsync", raising(OSError(28, "No space left on device")))
    with pytest.raises(LabError, match="No space left on device"):
        prepare_classroom.write_zip(out / "kit.zip", root=kit)
    assert list(out.iterdir()) == []


def test_a_zip_that_reads_otherwise_is_not_kept(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda archive: "README.txt")
    with pytest.raises(LabError, match=r"README\.txt reads otherwise"):
        prepare_classroom.write_zip(tmp_path / "out" / "kit.zip", root=kit)
    assert list((tmp_path / "out").iterdir()) == []


def test_pip_is_asked_for_what_the_lab_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(command, **named):
        asked.extend(command)
        return SimpleNamespace(returncode=0, stderr="")

    wanted = ["numpy>=2", 'jupyterlab>=4; extra == "lab"', 'mitsuba>=3; extra == "render"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    monkeypatch.setattr(subprocess, "run", run)
    prepare_classroom.download_wheels(tmp_path)
    assert asked[1:4] == ["-m", "pip", "download"]
    assert asked[-4:] == ["numpy>=2", "jupyterlab>=4", *prepare_classroom.BUILD_TOOLS]
    assert str(tmp_path) in asked


def test_without_a_network_one_sentence_says_so(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "WARNING: Retrying\nERROR: No matching distribution found for torch>=2.11\n"
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=1, stderr=said, stdout="")
    )
    with pytest.raises(LabError) as caught:
        prepare_classroom.write_zip(tmp_path / "out" / "kit.zip", wheels=True, root=kit)
    message = str(caught.value)
    assert "No matching distribution found for torch>=2.11" in message
    assert "--wheels needs the network" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_build_tools_are_those_of_the_project() -> None:
    text = (prepare_classroom.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires = ["{prepare_classroom.BUILD_TOOLS[0]}"]' in text


def test_a_zip_too_large_for_many_sticks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kit.zip"
    path.write_bytes(bytes(2000))
    assert "FAT32" not in prepare_classroom.size_in_words(path)
    monkeypatch.setattr(prepare_classroom, "FAT32_MOST", 1999)
    assert "FAT32" in prepare_classroom.size_in_words(path)


# the command


def test_the_command_prints_a_line_for_each_check(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_classroom.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[ok] Python: 3.12.1"
    assert len(lines) == 6


def test_a_room_that_is_not_ready_gets_no_zip(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare_classroom, "check_umap", lambda: Check("UMAP", False, "did not work"))
    assert prepare_classroom.main(["--zip", str(tmp_path / "kit.zip")]) == 1
    printed = capsys.readouterr()
    assert "[--] UMAP: did not work" in printed.out
    assert "no zip was written" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_wheels_go_with_a_zip_only(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        prepare_classroom.main(["--wheels"])
    assert stopped.value.code == 2
    assert "--wheels goes with --zip" in capsys.readouterr().err


def test_the_command_writes_the_zip(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def write_zip(path: Path, wheels: bool) -> Path:
        asked.append(wheels)
        path.write_bytes(bytes(2_000_000))
        return path

    monkeypatch.setattr(prepare_classroom, "write_zip", write_zip)
    assert prepare_classroom.main(["--zip", str(tmp_path / "kit.zip")]) == 0
    assert "kit.zip: 2 MB" in capsys.readouterr().out
    assert asked == [False]
