"""What the commands share: errors as sentences, progress, and the reading of options."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from socketlab.errors import LabError
from socketlab.files import reason, sweep


class OneSentence(TyperGroup):
    """Commands whose errors are sentences, and which stop when interrupted."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; its error is one sentence and exit code 2."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (LabError, OSError) as error:
            text = str(error)
            if isinstance(error, OSError):
                name, cause = error.filename or "A file", error.strerror or error
                text = f"{name}: {cause}: check the name and its permissions."
            if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started, the first
                one_line = text.replace("\n", "\\n")
                typer.echo(f"socketlab: {one_line}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("socketlab: stopped.", err=True)
            raise typer.Exit(130) from None


def progress(events: Iterable[Any], describe: Callable[[Any], str]) -> Iterator[Any]:
    """Yield events: steps move a bar with the time left; an epoch's description is printed above it."""
    from tqdm import tqdm

    from socketlab.method.adaptation import Step
    from socketlab.speed import distributed

    first = distributed.rank() == 0  # of several processes, which prints for all
    with tqdm(unit="step", disable=not (first and sys.stderr.isatty())) as bar:
        for event in events:
            if isinstance(event, Step):
                bar.total = event.steps
                bar.update(event.step - bar.n)
            elif first:
                tqdm.write(describe(event), file=sys.stderr)
            yield event


def assignments(
    overrides: Iterable[str], flag: str = "--set", example: str = "lambda_ti=1"
) -> Iterator[tuple[str, Any]]:
    """Split ``name=value``; the value is a number or true/false where it reads as one, text otherwise."""
    for override in overrides:
        name, _, text = override.partition("=")
        if not (name and text):
            raise LabError(f"{flag} {override} is not of the form name=value, as in {flag} {example}.")
        try:
            value = json.loads(text.lower())
        except (ValueError, RecursionError):
            value = text
        yield name.strip(), value


def given(ctx: typer.Context) -> list[Any]:
    """The options and arguments that were typed, rather than left at their defaults."""
    sources = {one: ctx.get_parameter_source(str(one.name)) for one in ctx.command.params}
    return [one for one, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def refuse_options(ctx: typer.Context, pack: str | None, *of_packs: str) -> None:
    """Raise when an option of the shipped rooms is given with a pack, or one of a pack without."""
    refused, about = of_packs, "an imported set: name its folder with --pack"
    if pack is not None:
        refused, about = ("sensor", "pairs", "strength"), "the shipped rooms: leave it out with --pack"
    for one in given(ctx):
        if one.name in refused:
            raise LabError(f"{one.opts[0]} is about {about}.")


def names_in(text: str | None, flag: str) -> list[str] | None:
    """The names in a list with commas; None where the option is left out."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise LabError(f"{flag} {text!r} holds no name: give one, or several with commas.")
    return names or None


def require_new(file: Path) -> None:
    """Raise when a file that hours of work are to end in exists, or cannot be written."""
    if os.path.lexists(file):
        raise LabError(f"{file} exists already: choose another file with --out.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_name(f".{file.name}.{'0' * 32}.unfinished").touch()
    except (OSError, ValueError) as error:
        raise LabError(f"{file} cannot be written ({reason(error)}): choose another --out.") from None
    sweep(file.parent, file.name)
