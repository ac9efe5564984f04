"""The paper's experiments, ``socketlab experiment sunrgbd-single``: networks first, then all runs.

An experiment is a TOML file: one of those in ``experiments`` beside this file, or your own. Its folder has
``networks/``, oracles among them, ``runs.csv`` with a line per finished run, ``table.csv`` and ``table.md``
with means and deviations, and ``unfinished/``, from whose last epochs the next call continues. The last epoch
counts; no epoch, weight or seed is chosen by a target label.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from socketlab.errors import LabError, require_choice
from socketlab.figures.report import gap_closed
from socketlab.files import csv_text, exclusive, from_json, read_csv, reason, write_whole
from socketlab.images import packs
from socketlab.images.encodings import DEPTH_ENCODINGS
from socketlab.method.adaptation import State
from socketlab.method.recipe import METHODS, Recipe
from socketlab.networks.checkpoints import Source, load_source, save_source
from socketlab.runs import results, run_folder, splits
from socketlab.runs.settings import Material, Settings, gather
from socketlab.runs.splits import Progress
from socketlab.runs.train_source import SourceRecipe
from socketlab.speed.pool import Pool

FOLDER = Path(__file__).parent / "experiments"
TITLES = results.TITLES | {"source-only": "source only"}
DETERMINISTIC = ("source-only", "batch", "adabn")  # nothing is drawn at random: one seed is enough
ORACLE = "oracle (trained with target labels)"
MEASURED = ["held_out", "transductive", "class_mean"]
FIELDS = ["origin", "method", "source", "target", "seed", *MEASURED, "chosen_by", "seconds", "environment"]


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
    rows: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        require_choice("sources", self.sources, ("each", "all", "own"))
        require_choice("depth_encoding", self.depth_encoding, DEPTH_ENCODINGS)


def load(name: str | Path) -> Preset:
    """A preset by name, or from the TOML file at a path; a `LabError` for one that cannot be."""
    path = Path(name) if str(name).endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise LabError(f"There is no experiment {str(name)!r}: choose {known}, or a TOML file.")
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


def silent(events: Iterable[Any], describe: Callable[[Any], str]) -> Iterable[Any]:
    """Yields the events."""
    return events


@dataclass(frozen=True)
class Job:
    """One run: a row of the table, domains of its sources, domain of its target, seed."""

    row: Row
    sources: tuple[str, ...]
    target: str
    seed: int

    def __str__(self) -> str:
        return f"{self.row.title}, {' + '.join(self.sources)} → {self.target}, seed {self.seed}"


def jobs(preset: Preset, pack: packs.Pack, seeds: int) -> list[Job]:
    """All runs: row by row, so that the first rows of the table are done first."""
    sources = splits.domains_with(pack, preset.source)
    targets = splits.domains_with(pack, preset.target)
    groups = [tuple(sources)] if preset.sources == "all" else [(one,) for one in sources]
    return [
        Job(row, group, target, seed)
        for row in preset.rows
        for seed in range(1 if row.method in DETERMINISTIC else seeds)
        for group in groups
        for target in targets
        if preset.sources != "own" or group == (target,)
    ]


def plan(preset: Preset, data: Path, out: Path, seeds: int) -> str:
    """What an experiment would do, as text; no image is opened."""
    pack = find_pack(preset, data)
    todo, finished, network = jobs(preset, pack, seeds), _finished(out), preset.network
    done = sum(_origin(preset, pack, job) in finished for job in todo)
    domains = sorted({domain for job in todo for domain in job.sources})
    weights = "random weights" if network.weights is None else f"weights {network.weights}"
    lines = [preset.title, f"  pack      {pack.folder}: {', '.join(domains)}, {pack.size} pixels wide"]
    lines.append(f"  networks  {len(domains)} × {network.backbone}, {weights}, {network.epochs} epochs")
    if preset.oracle:
        lines.append(f"  oracles   {len({job.target for job in todo})}, trained in the same way")
    for row in preset.rows:
        mine = sum(job.row == row for job in todo)
        lines.append(f"  {mine:>4} runs {row.title}: {row.recipe.total_epochs} epochs")
    return "\n".join([*lines, f"  {done} of {len(todo)} runs are done in {out}"])


def find_pack(preset: Preset, data: Path) -> packs.Pack:
    """The pack below ``data``; ``data`` may be the pack itself."""
    folder = data if (data / packs.MANIFEST).is_file() else data / preset.pack
    if not folder.is_dir():
        way_out = f"`socketlab import {preset.pack} PATH --out {folder}`, or name its folder with --data"
        raise LabError(f"There is no pack {folder}: make it with {way_out}.")
    return packs.open_pack(folder)


def carry_out(
    preset: Preset, data: Path, out: Path, *, seeds: int = 3, device: str = "cpu",
    workers: int | None = None, log: Callable[[str], None] = print, progress: Progress = silent,
) -> Path:  # fmt: skip
    """Train, adapt and measure what is not yet done; returns the table.

    The arguments are the options of ``socketlab experiment``. ``log`` is called with a line for each network
    and run; ``progress`` shows how far a training is, where one process does all. A `LabError` for no pack,
    or one without the modalities, domains or pairs that the preset needs.
    """
    pack = find_pack(preset, data)
    todo = {_origin(preset, pack, job): job for job in jobs(preset, pack, seeds)}
    if not todo:
        raise LabError(f"{pack.folder.name} has no domain in both {preset.source} and {preset.target}.")
    targets = dict.fromkeys(job.target for job in todo.values()) if preset.oracle else {}
    networks = dict.fromkeys((preset.source, domain) for job in todo.values() for domain in job.sources)
    networks |= dict.fromkeys((preset.target, domain) for domain in targets)
    pool = Pool(device, workers)
    work = _Work(preset, pack, out, device, progress if pool.workers == 1 else silent)
    with exclusive(out):
        for text in pool.run(work.train, [one for one in networks if not work.has_network(*one)]):
            log(text)
        done = _finished(out)  # all of it stays: other presets' runs, and other seeds'
        oracles = {line["origin"]: line for line in map(work.oracle_line, targets)}
        done |= oracles
        missing = [(origin, job) for origin, job in todo.items() if origin not in done]
        for number, line in enumerate(pool.run(work.measure, missing), 1):
            done[line["origin"]] = line
            write_whole(out / "runs.csv", csv_text(done.values(), FIELDS).encode())
            found = f"{100 * float(line['held_out']):.1f} %, {line['seconds']} s"
            log(f"run {number} of {len(missing)}: {todo[line['origin']]}: {found}")
        write_whole(out / "runs.csv", csv_text(done.values(), FIELDS).encode())
        lines = [done[origin] for origin in (*oracles, *todo)]
        titles = [ORACLE] * preset.oracle + [row.title for row in preset.rows]
        table = summary(lines, list(dict.fromkeys(titles)))
        write_whole(out / "table.csv", csv_text(table.to_dict("records")).encode())
        write_whole(out / "table.md", page(preset, table, lines).encode())
        return out / "table.md"


@dataclass(frozen=True)
class _Work:
    """An experiment's tasks, each of which a process of the pool can do by itself."""

    preset: Preset
    pack: packs.Pack
    out: Path
    device: str
    progress: Progress

    def network(self, modality: str, domain: str) -> Path:
        """The file of the network that is trained on a modality and domain."""
        return self.out / "networks" / splits.network_name(self.pack, modality, domain)

    def has_network(self, modality: str, domain: str) -> bool:
        """Whether that network has been trained already, on these images and in this way."""
        path = self.network(modality, domain)
        origin = _network_origin(self.preset, self.pack, modality, domain)
        return path.is_file() and load_source(path).card.get("origin") == origin

    def train(self, modality: str, domain: str) -> str:
        """Train a network; return a line about it."""
        preset, pack = self.preset, self.pack
        encoding = preset.depth_encoding if modality == "depth" else "metric"
        task = splits.pack_training_task(pack, preset.network, modality, domain, encoding)
        network = splits.train_on(task, self.progress, seed=0, device=self.device)
        network.card["origin"] = _network_origin(preset, pack, modality, domain)
        save_source(network, self.network(modality, domain))
        share, images = network.card["held_out_accuracy"], network.card["held_out_images"]
        return f"network for {modality} of {domain}: {100 * share:.1f} % of {images} held-out images right"

    def measure(self, origin: str, job: Job) -> dict[str, Any]:
        """A line of ``runs.csv``; the run's folder is removed when it is finished."""
        preset, folder, how = self.preset, self.out / "unfinished" / origin, "last epoch"
        networks = [str(self.network(preset.source, domain)) for domain in job.sources]
        settings = Settings(
            method=job.row.method, source=",".join(networks), seed=job.seed, device=self.device,
            recipe=job.row.recipe, pack=str(self.pack.folder), domain=job.target, target=preset.target,
            depth_encoding=preset.depth_encoding,
        )  # fmt: skip
        material = gather(settings)
        run, state = _begun(folder, settings, material)
        try:
            events = run_folder.record(run, material, state)
            for event in self.progress(events, lambda event: f"epoch {event.epoch}"):
                state = getattr(event, "state", state)
        except LabError as error:
            if "stopped being a number" not in str(error):
                raise
            how, state = "diverged", run_folder.resume(run, material)
        assert state is not None
        about = {"origin": origin, "source": " + ".join(job.sources), "target": job.target, "seed": job.seed}
        about |= {"chosen_by": how, "seconds": f"{sum(run.curve('seconds')[1]):.1f}"}
        line = self._line(job.row.title, state.adapted, material, about)
        shutil.rmtree(folder, ignore_errors=True)
        return line

    def oracle_line(self, domain: str) -> dict[str, Any]:
        """The line of the network that was trained with the target's labels."""
        target = self.preset.target
        oracle = load_source(self.network(target, domain), self.device)
        material = Material([oracle], *splits.scenes(self.pack, target, domain), None, None)
        about = {"origin": str(oracle.card["origin"]), "source": "", "target": domain, "seed": 0}
        about |= {"chosen_by": "last epoch, target labels", "seconds": ""}
        return self._line(ORACLE, oracle, material, about)

    def _line(self, title: str, network: Source, material: Material, about: dict[str, Any]) -> dict[str, Any]:
        found = results.score(title, network, material, adapts=True)
        measured = zip(MEASURED, (found.held_out, found.adapted_to, found.class_mean), strict=True)
        about |= {name: "" if value is None else f"{value:.4f}" for name, value in measured}
        device = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        environment = f"torch {torch.__version__.split('+')[0]}, {device}"
        return {"method": title, **about, "environment": environment}


def _begun(folder: Path, settings: Settings, material: Material) -> tuple[run_folder.Run, State | None]:
    """An interrupted run with the same settings and its state; else a new one."""
    with contextlib.suppress(LabError):  # missing, damaged, or of other files: begin again
        run = run_folder.read(folder)
        if run.settings == settings:
            return run, run_folder.resume(run, material)
    shutil.rmtree(folder, ignore_errors=True)
    return run_folder.create(folder, settings, material), None


def _network_origin(preset: Preset, pack: packs.Pack, modality: str, domain: str) -> str:
    about = [dataclasses.asdict(preset.network), modality, domain, splits.digest(pack)]
    return _digits([*about, preset.depth_encoding] if modality == "depth" else about)


def _origin(preset: Preset, pack: packs.Pack, job: Job) -> str:
    """Sixteen digits that name a run: recipe, seed, target, images, and how its networks were trained."""
    networks = [_network_origin(preset, pack, preset.source, one) for one in job.sources]
    return _digits([dataclasses.asdict(job), preset.target, preset.depth_encoding, networks])


def _digits(about: list[Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _finished(out: Path) -> dict[str, dict[str, Any]]:
    """Origin → line of an earlier call."""
    if not (out / "runs.csv").exists():
        return {}
    lines = read_csv(out / "runs.csv")
    try:
        for line in lines:
            _ = [float(line[name] or 0) for name in (*MEASURED, "seconds")], [line[name] for name in FIELDS]
    except (KeyError, ValueError):
        raise LabError(f"{out}/runs.csv is no table of an experiment's runs: choose another --out.") from None
    return {line["origin"]: dict(line) for line in lines}


def summary(lines: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> pd.DataFrame:
    """A line per row of the table: over all domains, under "all", then for each source and target.

    Means and sample deviations in per cent, over domains and seeds together; "" where there is none.
    """
    runs = pd.DataFrame(lines)
    runs[MEASURED] = 100 * runs[MEASURED].apply(pd.to_numeric, errors="coerce")
    runs["method"] = pd.Categorical(runs["method"], titles, ordered=True)
    parts = []
    for part in (runs.assign(source="all", target="all"), runs):
        groups = part.groupby(["method", "source", "target"], observed=True)
        columns = {"runs": groups.size()}
        for name in MEASURED:
            columns |= {name: groups[name].mean().map(_text), f"{name}_std": groups[name].std().map(_text)}
        columns["chosen_by"] = groups["chosen_by"].agg(_ways)
        parts.append(pd.DataFrame(columns).reset_index())
    return pd.concat(parts, ignore_index=True).astype({"method": str})


def _text(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f}"


def _ways(chosen: Iterable[str]) -> str:
    ways = sorted(Counter(map(str, chosen)).items(), reverse=True)
    return ", ".join(f"{count} diverged" if way == "diverged" else way for way, count in ways)


def page(preset: Preset, table: pd.DataFrame, lines: Sequence[Mapping[str, Any]]) -> str:
    """The tables in Markdown: over all domains, then held-out accuracies of each source and target."""
    whole = table[table.target == "all"].to_dict("records")
    level = {line["method"]: float(line["held_out"]) for line in whole}
    start, best = (level.get(title, math.nan) for title in (TITLES["source-only"], ORACLE))
    rows = []
    for line in whole:
        closed = gap_closed(start, level[line["method"]], best)
        share = "" if closed is None else f"{100 * closed:.0f} %"
        measured = [_cell(line, name) for name in MEASURED]
        rows.append([line["method"], line["runs"], *measured, share, line["chosen_by"]])
    head = ["method", "runs", "held out, %", "adapted to, %", "class mean, %", "gap closed", "chosen by"]
    places: dict[str, dict[str, str]] = {}
    methods = [method for method in level if method != ORACLE]
    for line in table[(table.target != "all") & (table.source != "")].to_dict("records"):
        place = places.setdefault(f"{line['source']} → {line['target']}", {})
        place[line["method"]] = _cell(line, "held_out")
    cells = [[place, *(found.get(method, "") for method in methods)] for place, found in places.items()]
    about = (
        f"{preset.source} → {preset.target}, {preset.network.backbone}; ± is a standard deviation over "
        "domains and seeds together. Held-out images are seen by no method; *adapted to* is transductive. "
        "The last epoch counts: nothing is chosen by a target label."
    )
    parts = [f"# {preset.title}", about, _markdown(head, rows)]
    parts += ["Held-out accuracy by source and target, per cent:", _markdown(["", *methods], cells)]
    parts.append(f"Measured with {'; '.join(sorted({str(line['environment']) for line in lines}))}.")
    return "\n\n".join(parts) + "\n"


def _cell(line: Mapping[Any, Any], name: str) -> str:
    if line[name] == "":
        return "–"
    spread = f" ± {float(line[f'{name}_std']):.1f}" if line[f"{name}_std"] else ""
    return f"{float(line[name]):.1f}{spread}"


def _markdown(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    first, *rest = ("| " + " | ".join(str(cell) for cell in line) + " |" for line in [head, *rows])
    return "\n".join([first, "|---" * len(head) + "|", *rest])
