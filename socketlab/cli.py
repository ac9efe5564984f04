"""The command line: ``socketlab doctor``, ``adapt``, ``train-source``, ``compare``, ``import`` and more.

Whatever the reader can put right is one sentence and exit code 2; Ctrl-C is exit code 130. Heavy modules are
loaded by the command that needs them, so that ``socketlab --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from socketlab.errors import LabError

if TYPE_CHECKING:
    from socketlab.figures.report import Score
    from socketlab.method.adaptation import Epoch, State
    from socketlab.method.recipe import Recipe
    from socketlab.networks.checkpoints import Source
    from socketlab.runs.folder import Run
    from socketlab.runs.settings import Material
    from socketlab.runs.splits import Lesson
    from socketlab.runs.train_source import SourceRecipe


class _Plain(TyperGroup):
    """Commands whose errors are sentences, and which stop when asked to."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LabError as error:
            if os.environ.get("RANK", "0") == "0":  # processes that torchrun started side by side say it once
                typer.echo(f"socketlab: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("socketlab: stopped.", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Plain,
    help="Teach a network that knows colour pictures to read depth, without its old data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the command ``socketlab``."""
    app(prog_name="socketlab")


@app.command()
def doctor() -> None:
    """Check this installation, one line per requirement; made to be pasted into a bug report."""
    from socketlab.runs import doctor as examination

    text = examination.report()
    typer.echo(text)
    if any(line.startswith("[--]") for line in text.splitlines()):
        raise typer.Exit(1)


SensorOption = Annotated[str, typer.Option(help="kinect_v1, kinect_v2, realsense or xtion")]
SeedOption = Annotated[int, typer.Option(help="of everything that is drawn")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda")]
PackOption = Annotated[str | None, typer.Option(help="folder of an imported set, in place of the rooms")]
DomainOption = Annotated[str | None, typer.Option(help="of the pack: which of its sensors")]
SizeOption = Annotated[int | None, typer.Option(help="side of the pack's images; as stored unless told")]
EncodingOption = Annotated[
    str, typer.Option(help="of depth: metric, inverse, relative, normals, colours or hha")
]
ViewOption = Annotated[
    float | None, typer.Option(help="degrees that a stored picture is wide; the camera's own unless told")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="another value for a field of the recipe; repeatable"),
]


@app.command()
def adapt(
    ctx: typer.Context,
    sensor: SensorOption = "kinect_v1",
    method: Annotated[
        str, typer.Option(help="socket, paper, shot, shot-im, aad, tent, adabn, batch or source-only")
    ] = "socket",
    pairs: Annotated[str, typer.Option(help="rooms that the pairs show: near, far or both")] = "near",
    pair_count: Annotated[int | None, typer.Option(help="how many pairs; all unless told")] = None,
    strength: Annotated[float, typer.Option(help="of the sensor's errors: 0 ideal, 1 as published")] = 1.0,
    source: Annotated[
        str | None,
        typer.Option(
            help="source network, several with commas, or all; a folder with source_F.pt, _B and _C; "
            "the sensor's own unless told"
        ),
    ] = None,
    pack: PackOption = None,
    domain: DomainOption = None,
    target: Annotated[
        str | None, typer.Option(help="modality to adapt to; depth where there is depth")
    ] = None,
    depth_encoding: EncodingOption = "metric",
    field_of_view: ViewOption = None,
    size: SizeOption = None,
    oracle: Annotated[str | None, typer.Option(help="network trained with the target's labels")] = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="folder to write to")] = None,
    name: Annotated[str | None, typer.Option(help="begins the name in runs/, instead of the time")] = None,
    device: DeviceOption = "auto",
    resume: Annotated[Path | None, typer.Option(help="run folder to go on with")] = None,
) -> None:
    """Adapt a source network to another modality, and write a run folder with a report.

    Several processes work at it together: torchrun --nproc-per-node 2 -m socketlab adapt ...
    """
    from socketlab.runs import folder as run_folder
    from socketlab.runs.settings import Settings, gather, resolved
    from socketlab.speed import distributed

    if pack is not None:
        _refuse_rooms_options(ctx, ("sensor", "pairs", "strength"))
    if resume is not None:
        run = run_folder.read(resume)
        _refuse_contradictions(ctx, run)
        distributed.join(run.settings.device)
        with run_folder.locked(resume):
            run = run_folder.read(resume)
            material = gather(run.settings)
            _adapt_and_report(run, material, run_folder.resume(run, material))
        return
    settings = resolved(
        Settings(
            sensor, method, pairs, pair_count, strength, source, seed, _device(device),
            _recipe(method, overrides or []), pack, domain, target, depth_encoding, field_of_view, size,
            oracle,
        )
    )  # fmt: skip
    distributed.join(settings.device)
    folder = distributed.on_rank_zero(lambda: out or run_folder.default_folder(settings, name))
    distributed.on_rank_zero(lambda: run_folder.check_free(folder))
    material = gather(settings)
    if pack is not None and distributed.rank() == 0:
        typer.echo(material.headline, err=True)
    with run_folder.locked(folder):
        run = distributed.on_rank_zero(lambda: run_folder.create(folder, settings, material))
        _adapt_and_report(run, material, None)


def _adapt_and_report(run: Run, material: Material, state: State | None) -> None:
    """Adapt to the end, print the scores, then draw; on Ctrl-C, print how to continue."""
    from socketlab.method.adaptation import Epoch
    from socketlab.runs import folder as run_folder
    from socketlab.runs import results
    from socketlab.speed import distributed

    if distributed.rank() > 0:
        for _ in run_folder.record(run, material, state):
            pass
        distributed.leave()
        return
    try:
        for event in _shown(run_folder.record(run, material, state), lambda event: _epoch_line(event, run)):
            if isinstance(event, Epoch):
                state = event.state
        distributed.leave()
        assert state is not None
        found = results.measure(run, material, state)
        _print_scores(found.scores, found.has_oracle, found.held_out_images)
        typer.echo("drawing the pictures and writing the report …", err=True)
        found = results.illustrate(run, material, state.adapted, found)
    except KeyboardInterrupt:
        typer.echo(f"stopped; continue with: socketlab adapt --resume {run.folder}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"report: {run.folder / run_folder.REPORT}")


def _epoch_line(event: Epoch, run: Run) -> str:
    from socketlab.runs.folder import HELD_OUT

    accuracy = 100 * float(run.rows[event.epoch][HELD_OUT])
    return (
        f"epoch {event.epoch} of {event.epochs}: {accuracy:.1f} % held-out target accuracy "
        "(unseen by the method)"
    )


def _shown(events: Iterable[Any], say: Callable[[Any], str]) -> Iterator[Any]:
    """Pass events on: steps move a bar with the time left; what is said of an epoch is printed above it."""
    from tqdm import tqdm

    from socketlab.method.adaptation import Step
    from socketlab.speed import distributed

    if distributed.rank() > 0:  # one of several processes speaks for all
        yield from events
        return
    bar: tqdm[Any] | None = None
    try:
        for event in events:
            if isinstance(event, Step):
                if bar is None:
                    hidden = not sys.stderr.isatty()
                    bar = tqdm(total=event.steps, initial=event.step - 1, unit="step", disable=hidden)
                bar.update(1)
            else:
                tqdm.write(say(event), file=sys.stderr)
            yield event
    finally:
        if bar is not None:
            bar.close()


def _print_scores(scores: Iterable[Score], has_oracle: bool, images: int) -> None:
    from socketlab.figures.report import gap_closed

    scores = list(scores)
    typer.echo(f"accuracy on {images} held-out target images, last epoch; labels used for measuring alone:")
    for score in scores:
        typer.echo(f"  {score.name:<12} {100 * score.held_out:5.1f} %")
    if has_oracle:
        closed = gap_closed(scores[0].held_out, scores[1].held_out, scores[-1].held_out)
        if closed is not None:
            typer.echo(f"  {100 * closed:.0f} % of the way from source to oracle")


def _device(name: str) -> str:
    """Return the device to use, ``auto`` being CUDA where it works; a `LabError` when it is not there."""
    import torch

    works = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda"):
        raise LabError(f"There is no device {name!r}: choose auto, cpu or cuda.")
    if name == "cuda" and not works:
        raise LabError("There is no CUDA device here: leave --device out, or say --device cpu.")
    return name if name != "auto" else "cuda" if works else "cpu"


def _recipe(method: str, overrides: Iterable[str]) -> Recipe:
    """Return the method's recipe with the overrides of ``--set``."""
    from socketlab.method.recipe import Recipe

    return Recipe.for_method(method).replace(**dict(_assignments(overrides)))


def _assignments(
    overrides: Iterable[str], flag: str = "--set", example: str = "lambda_ti=1"
) -> Iterator[tuple[str, Any]]:
    """Split ``name=value``; the value is a number or true/false where it reads as one, text otherwise."""
    for override in overrides:
        name, equals, text = override.partition("=")
        if not (name and equals and text):
            raise LabError(f"{flag} {override} is not of the form name=value, as in {flag} {example}.")
        try:
            value = json.loads(text.lower())
        except ValueError:
            value = text
        yield name.strip(), value


def _refuse_contradictions(ctx: typer.Context, run: Run) -> None:
    """Raise when an option given beside ``--resume`` says otherwise than the run's own configuration."""
    settings = run.settings
    for option in ("out", "name"):
        if _given(ctx, option):
            raise LabError(f"--{option} cannot go with --resume: the run stays in its folder {run.folder}.")
    asked = {n: ctx.params[n] for n in _SETTINGS if _given(ctx, n)}
    if asked.get("device") == "auto":
        del asked["device"]
    for option, value in asked.items():
        began = getattr(settings, option)
        if value != began:
            flag = f"--{option.replace('_', '-')}"
            raise LabError(
                f"{run.folder} began with {flag} {began}, not {value}: leave {flag} out, or start a new run."
            )
    for option, value in _assignments(ctx.params["overrides"] or []):
        if settings.recipe.replace(**{option: value}) != settings.recipe:
            began = getattr(settings.recipe, option)
            raise LabError(
                f"{run.folder} began with {option} = {began}, not {value}: leave it out, or start a new run."
            )


_SETTINGS = (
    "sensor", "method", "pairs", "pair_count", "strength", "source", "seed", "device", "pack", "domain",
    "target", "depth_encoding", "field_of_view", "size", "oracle",
)  # fmt: skip


def _refuse_rooms_options(ctx: typer.Context, names: Iterable[str]) -> None:
    """Raise when an option of the shipped rooms is given beside ``--pack``."""
    for name in names:
        if _given(ctx, name):
            raise LabError(f"--{name} is about the shipped rooms: leave it out with --pack.")


def _given(ctx: typer.Context, option: str) -> bool:
    """Say whether an option was typed, rather than left at its default."""
    origin = ctx.get_parameter_source(option)
    return origin is not None and origin.name == "COMMANDLINE"


@app.command("train-source")
def train_source(
    ctx: typer.Context,
    sensor: SensorOption = "kinect_v1",
    modality: Annotated[
        str, typer.Option(help="rgb, nir, swir or depth; of the target it is the oracle")
    ] = "rgb",
    out: Annotated[Path | None, typer.Option(help="checkpoint to write")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the images, unless the recipe's")] = None,
    pack: PackOption = None,
    domain: DomainOption = None,
    backbone: Annotated[
        str, typer.Option(help="small, or resnet18, resnet50, vgg16_bn and others")
    ] = "small",
    weights: Annotated[
        str | None,
        typer.Option(help="of a backbone: imagenet, none, or the path of a file; imagenet unless told"),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="learning rate of bottleneck and head")] = None,
    trunk_rate: Annotated[float | None, typer.Option(help="learning rate of the trunk")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images per step")] = None,
    size: SizeOption = None,
    depth_encoding: EncodingOption = "metric",
    field_of_view: ViewOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train a network with labels: a source network or, in the target's modality, the oracle.

    Several processes work at it together: torchrun --nproc-per-node 2 -m socketlab train-source ...
    """
    from socketlab.images.packs import open_pack
    from socketlab.method import evaluate
    from socketlab.networks.checkpoints import save_source
    from socketlab.runs import train_source as source
    from socketlab.runs.splits import lesson, network_name, placed
    from socketlab.speed import distributed

    if epochs is not None and epochs < 1:
        raise LabError(f"--epochs {epochs} trains nothing: choose 1 or more.")
    changes = {"epochs": epochs, "rate": rate, "trunk_rate": trunk_rate, "batch_size": batch_size}
    recipe = _source_recipe(backbone, weights, changes)
    on = _device(device)
    distributed.join(on)
    if pack is None:
        task = _rooms_lesson(ctx, sensor, modality, recipe)
        name = f"{_SHIPPED_NAMES.get(modality, modality)}_{sensor}.safetensors"
    else:
        _refuse_rooms_options(ctx, ("sensor",))
        opened = open_pack(pack)
        task = lesson(
            opened, recipe, modality, domain, size=size, depth_encoding=depth_encoding,
            field_of_view=field_of_view,
        )  # fmt: skip
        name = network_name(opened, modality, str(task.card["domain"]))
    out = out or Path(name)
    distributed.on_rank_zero(lambda: _require_new(out))
    images, held_out = placed(on, task.images, task.held_out)
    events = source.train(images, task.recipe, seed=seed, normalisation=task.normalisation, device=on)
    for event in _shown(events, lambda event: f"epoch {event.epoch} of {event.epochs}"):
        last = event
    first = distributed.rank() == 0
    distributed.leave()
    if not first:
        return
    half = pack is None and backbone == "small"
    if half:
        last.source.network.half().float()  # what is stored in 16 bits is what is measured
    accuracy = evaluate.accuracy(last.source, held_out)
    last.source.card |= task.card
    last.source.card |= {"held_out_accuracy": round(accuracy, 4), "held_out_images": len(held_out)}
    save_source(last.source, out, half=half)
    typer.echo(f"{100 * accuracy:.1f} % of {len(held_out)} held-out images right: {out}")


def _require_new(file: Path) -> None:
    """Raise when a file that hours of work are to end in is there, or cannot be written."""
    if file.exists():
        raise LabError(f"{file} exists already: choose another file with --out.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{file.parent} cannot be made ({error.strerror}): choose another --out.") from None
    if not os.access(file.parent, os.W_OK):
        raise LabError(f"{file.parent} cannot be written to: choose another file with --out.")


_SHIPPED_NAMES = {"depth": "oracle_depth"}


def _source_recipe(backbone: str, weights: str | None, changes: dict[str, Any]) -> SourceRecipe:
    """How a network is trained: as published from ImageNet's weights, more quickly from random ones."""
    from dataclasses import replace

    from socketlab.runs.train_source import SourceRecipe

    word = weights or ("none" if backbone == "small" else "imagenet")
    found = {"imagenet": "DEFAULT", "none": None}.get(word.lower(), word)
    recipe = SourceRecipe() if found is None else SourceRecipe.pretrained(backbone, found)
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(recipe, backbone=backbone, weights=found, **given)


def _rooms_lesson(ctx: typer.Context, sensor: str, modality: str, recipe: SourceRecipe) -> Lesson:
    """The shipped rooms as one sensor sees them: other scenes for a source network than for the oracle."""
    from socketlab.images import pocketrooms
    from socketlab.runs.settings import rooms_digest
    from socketlab.runs.splits import Lesson

    for name in ("domain", "size", "depth_encoding", "field_of_view"):
        if _given(ctx, name):
            raise LabError(
                f"--{name.replace('_', '-')} is about an imported set: name its folder with --pack."
            )
    splits = ("target_adapt", "target_test") if modality == "depth" else ("source_train", "source_test")
    images, held_out = (pocketrooms.load(split, sensor, (modality,)) for split in splits)
    card: dict[str, object] = {"modality": modality, "sensor": sensor}
    card |= {"trained_on": splits[0], "tested_on": splits[1]}
    return Lesson(images, held_out, recipe, None, card | {"data_digest": rooms_digest()})


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="sunrgbd-single, sunrgbd-multi, diml, rgbnir, or a TOML file")],
    data: Annotated[Path, typer.Option(help="folder of the packs, or the pack itself")] = Path("packs"),
    out: Annotated[Path | None, typer.Option(help="folder of the results; runs/NAME unless told")] = None,
    seeds: Annotated[int, typer.Option(help="runs of whatever has chance in it", min=1)] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="an epoch of everything, with a narrow network")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Repeat an experiment of the paper on an imported set; what is finished is kept.

    Several processes work at it together: torchrun --nproc-per-node 2 -m socketlab experiment ...
    """
    from socketlab.runs import experiment as presets
    from socketlab.speed import distributed

    preset = presets.load(name)
    out = out or Path("runs") / (Path(name).stem + ("-quick" if quick else ""))
    if quick:
        preset = presets.shortened(preset)
    if dry_run:
        typer.echo(presets.plan(preset, data, out, seeds))
        return
    on = _device(device)
    distributed.join(on)
    first = distributed.rank() == 0
    table = presets.carry_out(
        preset, data, out, seeds=seeds, device=on, shown=_shown,
        say=lambda text: typer.echo(text, err=True) if first else None,
    )  # fmt: skip
    distributed.leave()
    if not first:
        return
    typer.echo(table.read_text(encoding="utf-8"))
    typer.echo(f"table: {table}")


@app.command()
def compare(
    ctx: typer.Context,
    model_a: Annotated[
        str | None,
        typer.Argument(help="shipped network, checkpoint, or run folder; the sensor's RGB network"),
    ] = None,
    model_b: Annotated[str | None, typer.Argument(help="the other one; the same again unless told")] = None,
    sensor: SensorOption = "kinect_v1",
    split: Annotated[
        str | None, typer.Option(help="the images that both read; target_test, of a pack test")
    ] = None,
    modality_a: Annotated[str | None, typer.Option(help="that A reads; its own unless told")] = None,
    modality_b: Annotated[
        str | None, typer.Option(help="that B reads; depth if B is A, else its own")
    ] = None,
    strength: Annotated[float, typer.Option(help="of the sensor's errors: 0 ideal, 1 as published")] = 1.0,
    pack: Annotated[Path | None, typer.Option(help="an imported set, in place of the shipped rooms")] = None,
    domain: Annotated[str | None, typer.Option(help="of the pack")] = None,
    layers: Annotated[str | None, typer.Option(help="names with * and ?, several with commas")] = None,
    rounds: Annotated[int, typer.Option(help="random halves behind each interval", min=2)] = 100,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("runs/compare"),
    umap: Annotated[bool, typer.Option(help="the map by UMAP, else by principal components")] = True,
    device: DeviceOption = "auto",
) -> None:
    """Measure how far apart two networks, or one network on two modalities, are; write a report."""
    from socketlab.figures.comparison_report import headline, write
    from socketlab.images import pocketrooms
    from socketlab.images.packs import open_pack
    from socketlab.measures.comparison import compare as compared

    on = _device(device)
    a = _network(model_a or f"rgb_{sensor}", on)
    b = a if model_b is None else _network(model_b, on)
    ways = modality_a or a.modality, modality_b or ("depth" if b is a else b.modality)
    read = tuple(dict.fromkeys(ways))
    if pack is not None:
        images = open_pack(pack).load(split or "test", domain, read).to(on)
    else:
        images = pocketrooms.load(split or "target_test", sensor, read, strength, device=on)
    titles = [
        f"{modality} by {name}" for modality, name in zip(ways, (model_a, model_b or model_a), strict=True)
    ]
    titles = [title.removesuffix(" by None") for title in titles]
    if titles[0] == titles[1]:
        titles = [f"{titles[0]}, A", f"{titles[1]}, B"]
    found = compared(
        a, b, images.only(ways[0]), images.only(ways[1]), layers=layers.split(",") if layers else None,
        titles=(titles[0], titles[1]), rounds=rounds, seed=seed,
    )  # fmt: skip
    report = write(found, out, rerun=_typed(ctx), umap=umap)
    typer.echo(headline(found))
    typer.echo(f"report: {report}")


def _typed(ctx: typer.Context) -> str:
    """The command as it was typed, seed and all."""
    words = ["socketlab", str(ctx.info_name)]
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if name == "seed" or _given(ctx, name):
            flags = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
            value = ctx.params[name]
            words += [parameter.secondary_opts[0]] if value is False else [*flags, str(value)]
    return shlex.join(word for word in words if word != "True")


def _network(name: str, device: str) -> Source:
    """A network by name or path; of a run folder, the adapted one."""
    from socketlab.networks.checkpoints import load_source
    from socketlab.runs.folder import CHECKPOINT

    path = Path(name)
    return load_source(path / CHECKPOINT if path.is_dir() else name, device)


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(help="sunrgbd, diml, rgbnir, eurosat, lists or folders")],
    path: Annotated[Path | None, typer.Argument(help="folder of the set, or the lists' folder")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the pack; packs/KIND unless told")] = None,
    size: Annotated[int | None, typer.Option(help="side to store, in pixels; the set's own choice")] = None,
    fit: Annotated[str, typer.Option(help="centre, letterbox or stretch")] = "centre",
    on_bad: Annotated[str, typer.Option(help="stop at what cannot be used, or skip and count it")] = "stop",
    task: Annotated[str | None, typer.Option(help="classes of the task, with commas")] = None,
    processes: Annotated[int | None, typer.Option(help="at work at once; as many as cores")] = None,
    thorough: Annotated[bool, typer.Option(help="decode every file before anything is written")] = False,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="of this kind of set: depth=depth_bfx (sunrgbd), unpaired=true (folders); repeatable",
        ),
    ] = None,
    download: Annotated[bool, typer.Option(help="fetch the set first, where it can be had directly")] = False,
) -> None:
    """Check a real data set, pair it by name, and write it as a compact pack."""
    from socketlab.images.importers import import_folder, require_options

    more = dict(_assignments(options or [], "--option", "unpaired=true"))
    require_options(kind, more)
    if path is None and not download:
        raise LabError("Say where the set lies, or --download to fetch it.")
    if path is not None and download:
        raise LabError(f"--download fetches the set: leave {path} out, or --download.")
    classes = [name.strip() for name in task.split(",") if name.strip()] if task else None
    try:
        import_folder(
            kind, path or _downloaded(kind), out, size=size, fit=fit, on_bad=on_bad, processes=processes,
            say=typer.echo, hidden=not sys.stderr.isatty(), task=classes, thorough=thorough, **more,
        )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("stopped; what is done is kept: the same command goes on from there", err=True)
        raise typer.Exit(130) from None


def _downloaded(kind: str) -> Path:
    """The folder of a set that is fetched, or was before; says from where, on which terms, how far it is."""
    from tqdm import tqdm

    from socketlab.images.downloads import DOWNLOADS, fetch

    if kind in DOWNLOADS:
        typer.echo(f"{DOWNLOADS[kind].url}: {DOWNLOADS[kind].terms}")
    with tqdm(desc="fetching", unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:

        def move(there: int, of: int) -> None:
            bar.total = of or None
            bar.update(there - bar.n)

        folder = fetch(kind, progress=move)
    typer.echo(f"the set lies in {folder}")
    return folder


@app.command("app")
def app_(
    name: Annotated[str, typer.Argument(help="adaptation, gap, statistics or pairs")] = "adaptation",
    port: Annotated[int, typer.Option(help="of this computer")] = 8866,
    browser: Annotated[bool, typer.Option(help="open the page at once")] = True,
) -> None:
    """Show one panel on a page of its own, for a lecture; Ctrl-C ends it."""
    from socketlab import app as panels

    raise typer.Exit(panels.serve(name, port, browser))


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Write the report of a finished run again."""
    from socketlab.runs import folder as run_folder
    from socketlab.runs.results import write_report

    typer.echo(f"report: {write_report(run_folder.read(folder))}")


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="path of a checkpoint, or the name of a shipped one")],
) -> None:
    """Print what a checkpoint says of itself."""
    from socketlab.networks.checkpoints import load_source

    source = load_source(file)
    about = {
        "classes": ", ".join(source.classes),
        "modality": source.modality,
        "mean": source.normalisation.mean,
        "std": source.normalisation.std,
        "parameters": sum(tensor.numel() for tensor in source.network.parameters()),
    }
    if source.normalisation.depth_encoding != "metric":
        about["depth encoding"] = source.normalisation.depth_encoding
    for name, value in (about | source.card).items():
        typer.echo(f"{name:<20} {_text(value)}")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
