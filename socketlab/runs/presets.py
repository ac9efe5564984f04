"""Experiments as files of settings: TOML, one of those in ``experiments`` beside this file or your own."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socketlab.errors import LabError, require_choice
from socketlab.files import from_json, reason
from socketlab.images.encodings import DEPTH_ENCODINGS
from socketlab.method.recipe import METHODS, Recipe
from socketlab.runs import results
from socketlab.runs.train_source import SourceRecipe

FOLDER = Path(__file__).parent / "experiments"
TITLES = results.TITLES | {"source-only": "source only"}


@dataclass(frozen=True)
class Row:
    """A row of the table: its title, the method, and its whole recipe."""

    title: str
    method: str
    recipe: Recipe


@dataclass(frozen=True)
class Preset:
    """All that decides an experiment but the images; the files that ship explain each key."""

    title: str
    pack: str
    source: str
    target: str
    sources: str
    network: SourceRecipe
    oracle: bool = True
    depth_encoding: str = "metric"
    size: int | None = None
    rows: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        require_choice("sources", self.sources, ("each", "all", "own"))
        require_choice("depth_encoding", self.depth_encoding, DEPTH_ENCODINGS)


def names() -> list[str]:
    """The presets that come with the library."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load(name: str | Path) -> Preset:
    """A preset by name, or from the TOML file at a path; a `LabError` for one that cannot be."""
    path = Path(name) if str(name).endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise LabError(f"There is no experiment {str(name)!r}: choose {', '.join(names())}, or a TOML file.")
    try:
        return _preset(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path.name} is not TOML: {error}.") from error
    except (OSError, ValueError, RecursionError, LabError) as error:
        raise LabError(f"{path.name} is no experiment: {reason(error).rstrip('.')}.") from error


def _preset(about: dict[str, Any]) -> Preset:
    table, rows = dict[str, Any], []
    common = from_json(table, about.pop("recipe", {}), "recipe")
    for row in from_json(list[dict[str, Any]], about.pop("row", []), "row"):
        method = row.get("method")
        require_choice("method", method, METHODS)
        changes = common | from_json(table, row.get("recipe", {}), "recipe")
        recipe = Recipe.for_method(method).replace(**changes)
        rows.append({"title": TITLES[method], **row, "recipe": dataclasses.asdict(recipe)})
    if not rows:
        raise LabError("there is no row: give one at least, [[row]] with a method")
    network = about.get("network")
    if isinstance(network, dict) and network.get("weights") in ("imagenet", "none"):
        network["weights"] = "DEFAULT" if network["weights"] == "imagenet" else None
    preset: Preset = from_json(Preset, about | {"rows": rows}, "the experiment")
    return preset


def shortened(preset: Preset) -> Preset:
    """The same with a narrow network and an epoch of everything: for tests, and to see that all is there."""
    rows = []
    for row in preset.rows:
        recipe = row.recipe.replace(batch_size=8, trunk_lr=1e-3, bottleneck_lr=1e-3)
        if recipe.total_epochs:
            recipe = recipe.replace(align_epochs=min(1, recipe.align_epochs), epochs=1)
        rows.append(dataclasses.replace(row, recipe=recipe))
    network = SourceRecipe(epochs=1, batch_size=8, width=8)
    return dataclasses.replace(preset, network=network, rows=tuple(rows))
