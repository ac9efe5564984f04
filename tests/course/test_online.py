"""Badges: what they open is there, and Binder installs what everybody else does."""

import os
import re
import shutil
import stat
import tomllib
from pathlib import Path

import pytest
import yaml

from socketlab.errors import LabError
from tools import online

ROOT = online.PAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_what_the_badges_open_is_there() -> None:
    made = online.badges("ada/lab-1.0")
    assert "https://mybinder.org/v2/gh/ada/lab-1.0/HEAD?urlpath=lab/tree/" in made
    assert "https://colab.research.google.com/github/ada/lab-1.0/blob/HEAD/" in made
    opened = re.findall(r"(?:lab/tree|blob/HEAD)/([^)\s]+)", made)
    assert len(opened) == 2
    for path in opened + re.findall(r"!\[[^]]+\]\(([^)]+)\)", made):
        assert (ROOT / path).is_file(), path


def test_badges_in_readme_are_the_ones_made_here() -> None:
    text = online.PAGE.read_text(encoding="utf-8")
    assert online.MARK.search(text)
    if found := re.search(r"mybinder\.org/v2/gh/([\w.-]+/[\w.-]+)/HEAD", text):
        assert online.filled(text, found[1]) == text


def test_the_command_fills_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "README.md"
    shutil.copy(online.PAGE, page)
    monkeypatch.setattr(online, "PAGE", page)
    for _ in range(2):
        assert online.main(["ada/lab"]) == 0
        text = page.read_text(encoding="utf-8")
        assert text.count("mybinder.org/v2/gh/ada/lab/") == 1
        assert text.startswith(online.MARK.split(text)[0])


@pytest.mark.parametrize("names", [[], ["lab"], ["ada/lab/more"], ["a b/c"], ["x/y", "z/w"]])
def test_what_is_no_repository_is_refused(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "README.md"
    page.write_text("<!-- online -->\n<!-- /online -->")
    monkeypatch.setattr(online, "PAGE", page)
    assert online.main(names) == 1
    assert "OWNER/NAME" in capsys.readouterr().err
    assert page.read_text() == "<!-- online -->\n<!-- /online -->"


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(LabError, match="no place for badges"):
        online.filled("# socketlab\n", "ada/lab")


def test_the_cell_for_colab_finds_the_data() -> None:
    cell = online.COLAB.format(name="ada/lab")
    (folder,) = set(re.findall(r"/content/\w+", cell))
    assert f"SOCKETLAB_DATA={folder}/data" in cell
    assert f"pip install -q {folder}\n" in cell
    assert (ROOT / "data" / "manifest.json").is_file()


def test_binder_has_a_python_in_range_and_the_same_channels() -> None:
    ours = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text(encoding="utf-8"))
    everybody = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert ours["channels"] == everybody["channels"]
    python, pip = ours["dependencies"]
    assert pip == "pip"
    version = re.fullmatch(r"python=3\.(\d+)", python)
    assert version, "Binder takes one version, not a range"
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert int(low) <= int(version[1]) < int(high)


def test_binder_installs_what_environment_yml_does() -> None:
    script = ROOT / ".binder" / "postBuild"
    assert os.stat(script).st_mode & stat.S_IXUSR
    everybody = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    ((line,),) = [entry["pip"] for entry in everybody["dependencies"] if isinstance(entry, dict)]
    assert line.replace("-e .", "-e '.") + "'" in script.read_text(encoding="utf-8")
