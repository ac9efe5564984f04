"""The command line, called within the tests' own process."""

from typing import Any

from typer.testing import CliRunner

from socketlab import cli


def call(*words: object) -> Any:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def refused(result: Any, *said: str) -> None:
    """Exit code 2, nothing but one paragraph on stderr that holds these words, no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("socketlab: ") and result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    for words in said:
        assert words in result.stderr
