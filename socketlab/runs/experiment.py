"""The paper's experiments as files of settings: ``socketlab experiment sunrgbd-single``.

A preset is a TOML file, one of those in ``socketlab/experiments`` or your own; its keys are explained there.
An experiment trains a source network per domain, adapts each as the rows say, over seeds, and writes

==================  =======================================================================================
``networks/``       source networks and oracles, trained once
``runs.csv``        a line per finished run
``table.csv``       mean and deviation over the runs of each row, over all domains and for each
``table.md``        the same in words
``unfinished/``     the run that is under way; whoever calls again goes on from its last epoch
==================  =======================================================================================

The last epoch counts; no epoch, weight or seed is chosen by a target label.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from socketlab.errors import LabError
from socketlab.figures.report import gap_closed
from socketlab.files import write_whole
from socketlab.images import packs
from socketlab.images.encodings import DEPTH_ENCODINGS
from socketlab.images.paired_images import CROP, PairedImages
from socketlab.method import evaluate
from socketlab.method.adaptation import Epoch
from socketlab.method.recipe import METHODS, Recipe
from socketlab.networks.checkpoints import Source, load_source, save_source
from socketlab.runs import expectations, splits
from socketlab.runs import folder as run_folder
from socketlab.runs.results import TITLES as METHOD_TITLES
from socketlab.runs.results import score
from socketlab.runs.settings import Material, Settings, gather
from socketlab.runs.train_source import SourceRecipe, Trained, train
from socketlab.speed import distributed

FOLDER = Path(__file__).parent / "experiments"
STILL = ("source-only", "batch", "adabn")
"""Methods without any chance in them: one run says all."""
TITLES = METHOD_TITLES | {"source-only": "source only"}
ORACLE = "oracle (trained with target labels)"
FIELDS = [
    "origin", "method", "source", "target", "seed", "held_out", "transductive", "class_mean", "chosen_by",
    "seconds", "environment",
]  # fmt: skip
MEASURED = ("held_out", "transductive", "class_mean")

Shown = Callable[[Iterable[Any], Callable[[Any], str]], Iterator[Any]]
"""Passes events on and shows how far they have come; the function says what an epoch is worth saying."""


@dataclass(frozen=True)
class Row:
    """A row of the table: what it is called, the method, and its whole recipe."""

    title: str
    method: str
    recipe: Recipe


@dataclass(frozen=True)
class Preset:
    """All that decides an experiment but the images.

    Parameters
    ----------
    title : one line.
    pack : name of the pack's folder.
    source, target : modalities.
    together : whether all source networks adapt as one; else each by itself.
    same_domain : whether a network adapts to the domain that it was trained on alone.
    network : how source networks, and oracles, are trained.
    rows : of the table.
    oracle : whether networks are trained with target labels, to compare with.
    depth_encoding, size : as in `runs.Settings`.
    """

    title: str
    pack: str
    source: str
    target: str
    together: bool
    same_domain: bool
    network: SourceRecipe
    rows: tuple[Row, ...]
    oracle: bool = True
    depth_encoding: str = "metric"
    size: int | None = None


@dataclass(frozen=True)
class Job:
    """One run: a row of the table, domains of its sources, domain of its target, seed."""

    row: Row
    sources: tuple[str, ...]
    target: str
    seed: int

    @property
    def words(self) -> str:
        """Sources and target as the table names them."""
        return f"{self.row.title}, {' + '.join(self.sources)} → {self.target}, seed {self.seed}"


# ------------------------------------------------------------------------ presets in files


def names() -> list[str]:
    """The presets that come with the library."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load(name: str | Path) -> Preset:
    """A preset by name, or from the TOML file at a path.

    Raises
    ------
    LabError : no such preset; a key that is unknown, missing or of an impossible value.
    """
    path = Path(name) if str(name).endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise LabError(f"There is no experiment {str(name)!r}: choose {', '.join(names())}, or a TOML file.")
    try:
        about = tomllib.loads(path.read_text(encoding="utf-8"))
        return _preset(about)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path.name} is not TOML: {error}.") from error
    except KeyError as error:
        raise LabError(f"{path.name} lacks {error.args[0]}: say it as the other experiments do.") from error
    except TypeError as error:
        raise LabError(f"{path.name} holds a value that cannot be: {error}.") from error
    except LabError as error:
        raise LabError(f"{path.name}: {error}") from error


_KEYS: dict[str, type] = {
    "title": str, "pack": str, "source": str, "target": str, "sources": str, "oracle": bool,
    "depth_encoding": str, "size": int, "network": dict, "recipe": dict, "row": list,
}  # fmt: skip
_NAMES = {str: "a text", bool: "true or false", int: "a whole number", dict: "a table", list: "a list"}


def _preset(about: dict[str, Any]) -> Preset:
    _require_known(about, tuple(_KEYS), "experiment")
    for name, value in about.items():
        if type(value) is not _KEYS[name]:
            raise LabError(f"{name} = {value!r} cannot be: it must be {_NAMES[_KEYS[name]]}")
    if not about["row"]:
        raise LabError("there is no row: give one at least, [[row]] with a method")
    ways = {"each": (False, False), "all": (True, False), "own": (False, True)}
    if about["sources"] not in ways:
        raise LabError(f"sources {about['sources']!r} is unknown: choose one of {', '.join(ways)}")
    if about.get("depth_encoding", "metric") not in DEPTH_ENCODINGS:
        raise LabError(f"depth_encoding is unknown: choose one of {', '.join(DEPTH_ENCODINGS)}")
    together, same_domain = ways[about["sources"]]
    rows = tuple(_row(one, about.get("recipe", {})) for one in about["row"])
    return Preset(
        about["title"], about["pack"], about["source"], about["target"], together, same_domain,
        _network(about["network"]), rows, about.get("oracle", True), about.get("depth_encoding", "metric"),
        about.get("size"),
    )  # fmt: skip


def _network(about: dict[str, Any]) -> SourceRecipe:
    _require_known(about, [field.name for field in dataclasses.fields(SourceRecipe)], "network")
    weights = {"imagenet": "DEFAULT", "none": None}.get(about.get("weights", "none"), about.get("weights"))
    return SourceRecipe(**{**about, "weights": weights})


def _row(about: dict[str, Any], common: dict[str, Any]) -> Row:
    _require_known(about, ("title", "method", "recipe"), "row")
    if about["method"] not in METHODS:
        raise LabError(f"method {about['method']!r} is unknown: choose one of {', '.join(METHODS)}")
    recipe = Recipe.for_method(about["method"]).replace(**{**common, **about.get("recipe", {})})
    return Row(about.get("title", TITLES[about["method"]]), about["method"], recipe)


def _require_known(about: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    strange = [name for name in about if name not in known]
    if strange:
        raise LabError(f"{what} has no {', '.join(strange)}: choose among {', '.join(known)}")


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


# ------------------------------------------------------------------------ what is to be done


def jobs(preset: Preset, pack: packs.Pack, seeds: int) -> list[Job]:
    """All runs: row by row, so that the first rows of the table are done first."""
    sources = splits.domains_with(pack, preset.source)
    targets = splits.domains_with(pack, preset.target)
    groups = [tuple(sources)] if preset.together else [(one,) for one in sources]
    return [
        Job(row, group, target, seed)
        for row in preset.rows
        for seed in range(1 if row.method in STILL else seeds)
        for group in groups
        for target in targets
        if not preset.same_domain or group == (target,)
    ]


def plan(preset: Preset, data: Path, out: Path, seeds: int) -> str:
    """What an experiment would do, and what that is expected to cost, in words; no image is opened."""
    pack = _pack(preset, data)
    todo = jobs(preset, pack, seeds)
    domains = sorted({domain for job in todo for domain in job.sources})
    done = _finished(out)
    there = [done[origin] for job in todo if (origin := _origin(preset, pack, job)) in done]
    network = preset.network
    lines = [preset.title, f"  pack      {pack.folder}: {', '.join(domains)}"]
    weights = "random weights" if network.weights is None else f"weights {network.weights}"
    lines.append(f"  networks  {len(domains)} × {network.backbone}, {weights}, {network.epochs} epochs")
    if preset.oracle:
        lines.append(f"  oracles   {len({job.target for job in todo})}, trained in the same way")
    for row in preset.rows:
        mine = sum(job.row == row for job in todo)
        lines.append(f"  {mine:>4} runs {row.title}: {row.recipe.total_epochs} epochs")
    lines += _costs(preset, pack, todo)
    lines.append(f"  {len(there)} of {len(todo)} runs are done in {out}" + _measured(there, len(todo)))
    return "\n".join(lines)


def _costs(preset: Preset, pack: packs.Pack, todo: Sequence[Job]) -> list[str]:
    """Bytes and operations that can be counted, and what they come to at an assumed speed."""
    size, network = preset.size or pack.size, preset.network
    trunk = expectations.trunk_cost(network.backbone, network.width, round(CROP * size))
    counts = {d: (_scenes(pack, "train", d), _scenes(pack, "test", d)) for d in pack.domains}
    taught = [domain for job in todo for domain in job.sources]
    taught = [*dict.fromkeys(taught), *(dict.fromkeys(job.target for job in todo) if preset.oracle else ())]
    training = sum(expectations.of_network(network, trunk, *counts[domain]) for domain in taught)
    running = sum(
        expectations.of_run(job.row.recipe, trunk, *counts[job.target], len(job.sources)) for job in todo
    )
    images = (max(map(sum, counts.values())) + 2 * _scenes(pack, "pairs")) * 3 * size**2
    sources = max((len(job.sources) for job in todo), default=1)
    memory = expectations.least_memory((row.recipe for row in preset.rows), trunk, sources, images)
    stored = sum(one["bytes"] for part in pack.manifest["splits"].values() for one in part["arrays"].values())
    hours = expectations.duration((training + running) / expectations.ASSUMED)
    return [
        f"  images    {stored / 1e9:.2g} GB in the pack, {size} pixels wide",
        f"  time      {training / 1e15:.3g} PFLOP to train the networks, {running / 1e15:.3g} for the runs: "
        f"{hours} where a GPU sustains {expectations.ASSUMED / 1e12:.0f} TFLOP/s (counted, not measured)",
        f"  memory    {memory / 1e9:.2g} GB of a GPU at least, in 16 bits (counted, not measured)",
    ]


def _scenes(pack: packs.Pack, split: str, domain: str | None = None) -> int:
    """How many scenes a split has, of one domain or of all."""
    part = pack.manifest["splits"].get(split)
    if part is None:
        return 0
    start, stop = (0, part["scenes"]) if domain is None else part["domains"].get(domain, (0, 0))
    return int(stop - start)


def _measured(there: Sequence[Mapping[str, Any]], count: int) -> str:
    """What the longest of the runs that are done says of the others."""
    seconds = [float(line["seconds"]) for line in there if line["seconds"]]
    if not seconds or len(there) == count:
        return ""
    left = expectations.duration(max(seconds) * (count - len(there)))
    return f"; the longest took {max(seconds):.0f} s: {left} for the others, should they take as long"


def _pack(preset: Preset, data: Path) -> packs.Pack:
    """The pack below ``data``; ``data`` may be the pack itself."""
    if (data / packs.MANIFEST).is_file():
        return packs.open_pack(data)
    if not (data / preset.pack).is_dir():
        raise LabError(
            f"There is no pack {data / preset.pack}: make it with `socketlab import {preset.pack} PATH --out "
            f"{data / preset.pack}`, or name its folder with --data."
        )
    return packs.open_pack(data / preset.pack)


# ------------------------------------------------------------------------ doing it


def carry_out(
    preset: Preset,
    data: Path,
    out: Path,
    *,
    seeds: int = 3,
    device: str = "cpu",
    say: Callable[[str], None] = print,
    shown: Shown = lambda events, say: iter(events),
) -> Path:
    """Train, adapt and measure what is not yet done; returns the table.

    Several processes that have joined (`ranks`) share the work of every network and run; the first writes.

    Parameters
    ----------
    data : folder of packs, or the pack.
    out : folder of the results; what is finished there is kept.
    seeds : how many, from 0.
    say, shown : told what is being done, and how far it has come.

    Raises
    ------
    LabError : no pack, or one without the modalities, domains or pairs that the preset asks for.
    """
    pack = _pack(preset, data)
    todo = jobs(preset, pack, seeds)
    if not todo:
        raise LabError(f"{pack.folder.name} has no domain in both {preset.source} and {preset.target}.")
    nets = {d: _network_of(preset, pack, out, preset.source, d, device, say, shown)
            for d in dict.fromkeys(domain for job in todo for domain in job.sources)}  # fmt: skip
    best = {}
    if preset.oracle:
        targets = dict.fromkeys(job.target for job in todo)
        best = {d: _network_of(preset, pack, out, preset.target, d, device, say, shown) for d in targets}
    done = distributed.on_rank_zero(
        lambda: _finished(out)
    )  # all of it stays: other presets' runs, and other seeds'
    wanted = {_origin(preset, pack, job): job for job in todo}
    oracles: dict[str, dict[str, Any]] = {}
    for domain, path in best.items():
        oracles |= distributed.on_rank_zero(partial(_oracle_line, preset, pack, domain, path, device))
    done |= oracles
    for number, (origin, job) in enumerate(wanted.items(), 1):
        if origin in done:
            continue
        say(f"run {number} of {len(wanted)}: {job.words}")
        done[origin] = _carried_out(preset, pack, job, nets, out, origin, device, shown)
        distributed.on_rank_zero(lambda: _write(out / "runs.csv", done.values(), FIELDS))
    distributed.on_rank_zero(lambda: _write(out / "runs.csv", done.values(), FIELDS))
    lines = [done[origin] for origin in (*oracles, *wanted)]
    return distributed.on_rank_zero(lambda: _write_tables(preset, lines, out))


def _settings(preset: Preset, pack: packs.Pack, job: Job, nets: dict[str, Path], device: str) -> Settings:
    return Settings(
        method=job.row.method, source=",".join(str(nets[domain]) for domain in job.sources), seed=job.seed,
        device=device, recipe=job.row.recipe, pack=str(pack.folder), domain=job.target, target=preset.target,
        depth_encoding=preset.depth_encoding, size=preset.size,
    )  # fmt: skip


def _network_of(
    preset: Preset, pack: packs.Pack, out: Path, modality: str, domain: str, device: str,
    say: Callable[[str], None], shown: Shown,
) -> Path:  # fmt: skip
    """The file of a network that was trained on one modality and domain; trained when it is not there."""
    path = out / "networks" / splits.network_name(pack, modality, domain)
    origin = _network_origin(preset, pack, modality, domain)
    if distributed.on_rank_zero(lambda: path.is_file() and load_source(path).card.get("origin") == origin):
        return path
    say(f"training on {modality} of {domain}")
    encoding = preset.depth_encoding if modality == "depth" else "metric"
    lesson = splits.lesson(pack, preset.network, modality, domain, size=preset.size, depth_encoding=encoding)
    images, held_out = splits.placed(device, lesson.images, lesson.held_out)
    events = train(images, lesson.recipe, seed=0, normalisation=lesson.normalisation, device=device)
    trained: Source | None = None
    for event in shown(events, lambda event: f"epoch {event.epoch} of {event.epochs}"):
        if isinstance(event, Trained):
            trained = event.source
    assert trained is not None
    accuracy = distributed.on_rank_zero(
        lambda: _kept(trained, held_out, lesson.card | {"origin": origin}, path)
    )
    say(f"{100 * accuracy:.1f} % of {len(held_out)} held-out images right")
    return path


def _kept(trained: Source, held_out: PairedImages, card: dict[str, object], path: Path) -> float:
    """Write a network with its card, after measuring it; returns its accuracy."""
    accuracy = evaluate.accuracy(trained, held_out)
    trained.card |= card | {"held_out_accuracy": round(accuracy, 4)}
    save_source(trained, path)
    return accuracy


def _carried_out(
    preset: Preset, pack: packs.Pack, job: Job, nets: dict[str, Path], out: Path, origin: str, device: str,
    shown: Shown,
) -> dict[str, Any]:  # fmt: skip
    """A line of ``runs.csv``; the run folder goes when it is finished."""
    settings = _settings(preset, pack, job, nets, device)
    material = gather(settings)
    folder = out / "unfinished" / origin
    run, goes_on = distributed.on_rank_zero(lambda: _begun(folder, settings, material))
    state = run_folder.resume(run, material) if goes_on else None
    how = "last epoch"
    try:
        for event in shown(run_folder.record(run, material, state), lambda event: f"epoch {event.epoch}"):
            if isinstance(event, Epoch):
                state = event.state
    except LabError as error:
        if "stopped being a number" not in str(error):
            raise
        how = "diverged"

    def measured() -> dict[str, Any]:
        end = run_folder.resume(run, material) if how == "diverged" else state
        assert end is not None
        found = score(job.row.title, end.adapted, material, adapts=True)
        seconds = sum(float(row["seconds"]) for row in run.rows)
        line = _line(job.row.title, " + ".join(job.sources), job.target, job.seed, found, how)
        return {"origin": origin, **line, "seconds": f"{seconds:.1f}", "environment": _environment(device)}

    line = distributed.on_rank_zero(measured)
    distributed.on_rank_zero(lambda: shutil.rmtree(folder, ignore_errors=True))
    return line


def _begun(folder: Path, settings: Settings, material: Material) -> tuple[run_folder.Run, bool]:
    """A run that was begun before with the same settings, and can be gone on with; else a new one."""
    if (folder / run_folder.CONFIG).is_file():
        try:
            run = run_folder.read(folder)
            if run.settings == settings:
                run_folder.resume(run, material)
                return run, True
        except LabError:
            pass  # damaged, or of other files: begin again
    shutil.rmtree(folder, ignore_errors=True)
    return run_folder.create(folder, settings, material), False


def _oracle_line(
    preset: Preset, pack: packs.Pack, domain: str, path: Path, device: str
) -> dict[str, dict[str, Any]]:
    """What the network that was trained with the target's labels makes of its held-out scenes."""
    oracle = load_source(path, device)
    learn, held_out = splits.placed(device, *splits.scenes(pack, preset.target, domain, preset.size))
    material = Material(oracle, learn, held_out, None, None)
    found = score(ORACLE, oracle, material, adapts=True)
    origin = str(oracle.card["origin"])
    line = _line(ORACLE, "", domain, 0, found, "last epoch, target labels")
    return {origin: {"origin": origin, **line, "seconds": "", "environment": _environment(device)}}


def _line(method: str, source: str, target: str, seed: int, found: Any, how: str) -> dict[str, Any]:
    transductive = "" if found.adapted_to is None else f"{found.adapted_to:.4f}"
    return {
        "method": method, "source": source, "target": target, "seed": seed,
        "held_out": f"{found.held_out:.4f}", "transductive": transductive,
        "class_mean": f"{found.class_mean:.4f}", "chosen_by": how,
    }  # fmt: skip


def _environment(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return f"torch {torch.__version__.split('+')[0]}, {name}"


def _network_origin(preset: Preset, pack: packs.Pack, modality: str, domain: str) -> str:
    about: dict[str, Any] = {"recipe": dataclasses.asdict(preset.network), "size": preset.size}
    about |= {"modality": modality, "domain": domain, "pack": splits.digest(pack)}
    if modality == "depth":
        about["depth_encoding"] = preset.depth_encoding
    return _digits(about)


def _origin(preset: Preset, pack: packs.Pack, job: Job) -> str:
    """Sixteen digits that name a run: recipe, seed, target, images, and how its networks came about."""
    about: dict[str, Any] = {"method": job.row.method, "recipe": dataclasses.asdict(job.row.recipe)}
    about |= {"title": job.row.title, "target": [preset.target, job.target], "seed": job.seed}
    about |= {"size": preset.size, "depth_encoding": preset.depth_encoding}
    about["sources"] = [_network_origin(preset, pack, preset.source, one) for one in job.sources]
    return _digits(about)


def _digits(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


# ------------------------------------------------------------------------ tables


def _finished(out: Path) -> dict[str, dict[str, Any]]:
    """Origin → line of an earlier call."""
    if not (out / "runs.csv").is_file():
        return {}
    try:
        with open(out / "runs.csv", newline="", encoding="utf-8") as file:
            lines = [dict(line) for line in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabError(f"{out / 'runs.csv'} cannot be read ({error}): choose another --out.") from error
    if any(set(line) != set(FIELDS) for line in lines):
        raise LabError(
            f"{out / 'runs.csv'} holds other things than runs of an experiment: choose another --out."
        )
    return {line["origin"]: line for line in lines}


def summary(lines: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> list[dict[str, Any]]:
    """A line per row of the table: over all domains, under "all", then for each source and target.

    Means and sample deviations in per cent, over domains and seeds together.
    """
    found = []
    for method in titles:
        mine = [line for line in lines if line["method"] == method]
        groups = {("all", "all"): mine}
        for line in mine:
            groups.setdefault((line["source"], line["target"]), []).append(line)
        for (source, target), group in groups.items():
            if group:
                found.append({"method": method, "source": source, "target": target} | _figures(group))
    return sorted(found, key=lambda line: line["target"] != "all")


def _figures(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {"runs": len(lines)}
    for name in MEASURED:
        values = [100 * float(line[name]) for line in lines if line[name] != ""]
        figures[name] = f"{mean(values):.2f}" if values else ""
        figures[f"{name}_std"] = f"{stdev(values):.2f}" if len(values) > 1 else ""
    ways = Counter(str(line["chosen_by"]) for line in lines)
    told = [f"{n} diverged" if way == "diverged" else way for way, n in sorted(ways.items(), reverse=True)]
    return figures | {"chosen_by": ", ".join(told)}


def _write_tables(preset: Preset, lines: Sequence[Mapping[str, Any]], out: Path) -> Path:
    titles = [ORACLE] * preset.oracle + [row.title for row in preset.rows]
    found = summary(lines, titles)
    _write(out / "table.csv", found, list(found[0]))
    write_whole(out / "table.md", page(preset, found, lines).encode())
    return out / "table.md"


def page(preset: Preset, found: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> str:
    """The tables in Markdown: over all domains, then held-out accuracies of each source and target."""
    whole = [line for line in found if line["target"] == "all"]
    level = {line["method"]: float(line["held_out"]) for line in whole}
    start, best = level.get(TITLES["source-only"]), level.get(ORACLE)
    rows = []
    for line in whole:
        closed = None
        if start is not None and best is not None:
            closed = gap_closed(start, float(line["held_out"]), best)
        told = "" if closed is None else f"{100 * closed:.0f} %"
        rows.append(
            [line["method"], line["runs"], *(_cell(line, m) for m in MEASURED), told, line["chosen_by"]]
        )
    head = ["method", "runs", "held out, %", "adapted to, %", "class mean, %", "gap closed", "chosen by"]
    places = dict.fromkeys(
        (ln["source"], ln["target"]) for ln in found if ln["target"] != "all" and ln["source"]
    )
    methods = [line["method"] for line in whole if line["method"] != ORACLE]
    by_place = {(line["method"], line["source"], line["target"]): line for line in found}
    cells = [
        [f"{source} → {target}"]
        + [
            _cell(by_place[m, source, target], "held_out") if (m, source, target) in by_place else ""
            for m in methods
        ]
        for source, target in places
    ]
    seen = sorted({str(line["environment"]) for line in lines})
    about = (
        f"{preset.source} → {preset.target}, {preset.network.backbone}; ± is a standard deviation over "
        "domains and seeds together. Held-out images are seen by no method; *adapted to* is transductive. "
        "The last epoch counts: nothing is chosen by a target label."
    )
    parts = [f"# {preset.title}", about, grid(head, rows)]
    parts += ["Held-out accuracy by source and target, per cent:", grid(["", *methods], cells)]
    parts.append(f"Measured with {'; '.join(seen)}.")
    return "\n\n".join(parts) + "\n"


def _cell(line: Mapping[str, Any], name: str) -> str:
    if line[name] == "":
        return "–"
    spread = f" ± {float(line[f'{name}_std']):.1f}" if line[f"{name}_std"] else ""
    return f"{float(line[name]):.1f}{spread}"


def grid(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    first, *rest = ("| " + " | ".join(str(cell) for cell in line) + " |" for line in [head, *rows])
    return "\n".join([first, "|---" * len(head) + "|", *rest])


def _write(path: Path, lines: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> None:
    """Lines as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(path, text.getvalue().encode())
