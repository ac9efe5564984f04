"""The command line: ``socketlab doctor``, ``adapt``, ``train-source``, ``compare``, ``import`` and more.

Whatever the reader can put right is one sentence and exit code 2; Ctrl-C is exit code 130. Heavy modules are
loaded by the command that needs them, so that ``socketlab --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from socketlab.errors import LabError
from socketlab.terminal import (
    OneSentence,
    assignments,
    device_named,
    given,
    names_in,
    progress,
    refuse_options,
    require_new,
    typed,
)  # fmt: skip

if TYPE_CHECKING:
    from socketlab.figures.report import Score
    from socketlab.method.adaptation import Epoch, State
    from socketlab.networks.checkpoints import Source
    from socketlab.runs.folder import Run
    from socketlab.runs.settings import Material


app = typer.Typer(
    cls=OneSentence,
    help="Teach a network that knows colour pictures to read depth, without its old data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the command ``socketlab``."""
    for stream in (sys.stdout, sys.stderr):  # a file or a pipe on Windows may lack letters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
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
SeedOption = Annotated[int, typer.Option(help="random seed", min=0, max=2**31 - 1)]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda")]
PackOption = Annotated[str | None, typer.Option(help="folder of an imported set, in place of the rooms")]
DomainOption = Annotated[str | None, typer.Option(help="of the pack: which of its sensors")]
SizeOption = Annotated[int | None, typer.Option(help="side of the pack's images; default: as stored")]
StrengthOption = Annotated[
    float, typer.Option(help="of the sensor's errors: 0 ideal, 1 as published", min=0, max=3)
]
EncodingOption = Annotated[
    str, typer.Option(help="of depth: metric, inverse, relative, normals, colours or hha")
]
ViewOption = Annotated[
    float | None,
    typer.Option(help="degrees that a stored picture is wide; default: the camera's", min=1, max=179),
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
    pair_count: Annotated[int | None, typer.Option(help="number of pairs; default: all")] = None,
    strength: StrengthOption = 1.0,
    source: Annotated[
        str | None,
        typer.Option(
            help="source network, several with commas, or all; a folder with source_F.pt, _B and _C; "
            "default: the sensor's own"
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
    resume: Annotated[Path | None, typer.Option(help="run folder to continue")] = None,
) -> None:
    """Adapt a source network to another modality, and write a run folder with a report.

    Several processes can share the work: torchrun --nproc-per-node 2 -m socketlab adapt ...
    """
    from socketlab.method.recipe import Recipe
    from socketlab.runs import folder as run_folder
    from socketlab.runs.settings import Settings, default_recipe, gather, resolved
    from socketlab.speed import distributed

    if pack is not None:
        refuse_options(ctx, ("sensor", "pairs", "strength"), "the shipped rooms", "leave it out with --pack")
    if resume is not None:
        run = run_folder.read(resume)
        _refuse_contradictions(ctx, run)
        distributed.join(run.settings.device)
        with run_folder.locked(resume):
            run = run_folder.read(resume)
            material = gather(run.settings)
            _adapt_and_report(run, material, run_folder.resume(run, material))
        return
    settings = Settings(
        sensor, method, pairs, pair_count, strength, source, seed, device_named(device), Recipe(), pack,
        domain, target, depth_encoding, field_of_view, size, oracle,
    )  # fmt: skip
    recipe = default_recipe(method, settings.source_names).replace(**dict(assignments(overrides or [])))
    settings = resolved(replace(settings, recipe=recipe))
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
        for event in progress(run_folder.record(run, material, state), lambda event: _epoch_line(event, run)):
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
    for note in found.notes:
        if "could not be drawn" in note:
            typer.echo(note, err=True)
    typer.echo(f"report: {run.folder / run_folder.REPORT}")


def _epoch_line(event: Epoch, run: Run) -> str:
    from socketlab.runs.folder import HELD_OUT

    accuracy = 100 * float(run.rows[event.epoch][HELD_OUT])
    return (
        f"epoch {event.epoch} of {event.epochs}: {accuracy:.1f} % held-out target accuracy "
        "(unseen by the method)"
    )


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


def _refuse_contradictions(ctx: typer.Context, run: Run) -> None:
    """Raise when an option given beside ``--resume`` differs from the run's own configuration."""
    from socketlab.runs.settings import Settings

    settings = run.settings
    for option in ("out", "name"):
        if given(ctx, option):
            raise LabError(f"--{option} cannot go with --resume: the run stays in its folder {run.folder}.")
    began = {name: getattr(settings, name) for name in Settings.__dataclass_fields__ if given(ctx, name)}
    if ctx.params["device"] == "auto":
        began.pop("device", None)
    pairs = [(f"--{n.replace('_', '-')}", old, ctx.params[n]) for n, old in began.items()]
    for option, value in assignments(ctx.params["overrides"] or []):
        if settings.recipe.replace(**{option: value}) != settings.recipe:
            pairs.append((f"{option} =", getattr(settings.recipe, option), value))
    for flag, old, new in pairs:
        if old != new:
            raise LabError(
                f"{run.folder} began with {flag} {old}, not {new}: leave it out, or start a new run."
            )


@app.command("train-source")
def train_source(
    ctx: typer.Context,
    sensor: SensorOption = "kinect_v1",
    modality: Annotated[
        str, typer.Option(help="rgb, nir, swir or depth; of the target it is the oracle")
    ] = "rgb",
    out: Annotated[Path | None, typer.Option(help="checkpoint to write")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the images; default: the recipe's")] = None,
    pack: PackOption = None,
    domain: DomainOption = None,
    backbone: Annotated[
        str, typer.Option(help="small, efficientnet_lite0, resnet18, resnet50, vgg16_bn and others")
    ] = "small",
    weights: Annotated[
        str | None,
        typer.Option(help="of a backbone: imagenet, none, or the path of a file; default: imagenet"),
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

    Several processes can share the work: torchrun --nproc-per-node 2 -m socketlab train-source ...
    """
    from socketlab.images.packs import open_pack
    from socketlab.method import evaluate
    from socketlab.networks.checkpoints import save_source
    from socketlab.runs import splits
    from socketlab.runs.train_source import Trained, source_recipe, train
    from socketlab.speed import best_execution, distributed

    changes = {"epochs": epochs, "rate": rate, "trunk_rate": trunk_rate, "batch_size": batch_size}
    recipe = source_recipe(backbone, weights, changes)
    on = device_named(device)
    distributed.join(on)
    if pack is None:
        names = ("domain", "size", "depth_encoding", "field_of_view")
        refuse_options(ctx, names, "an imported set", "name its folder with --pack")
        lesson = splits.rooms_lesson(sensor, modality, recipe)
        name = f"{'oracle_depth' if modality == 'depth' else modality}_{sensor}.safetensors"
    else:
        refuse_options(ctx, ("sensor",), "the shipped rooms", "leave it out with --pack")
        opened = open_pack(pack)
        lesson = splits.lesson(
            opened, recipe, modality, domain, size=size, depth_encoding=depth_encoding,
            field_of_view=field_of_view,
        )  # fmt: skip
        name = splits.network_name(opened, modality, str(lesson.card["domain"]))
    out = out or Path(name)
    distributed.on_rank_zero(lambda: require_new(out))
    images, held_out = splits.placed(on, lesson.images, lesson.held_out)
    events = train(
        images, lesson.recipe, seed=seed, normalisation=lesson.normalisation, device=on,
        execution=best_execution(),
    )  # fmt: skip
    last = None
    for event in progress(events, lambda event: f"epoch {event.epoch} of {event.epochs}"):
        last = event
    first = distributed.rank() == 0
    distributed.leave()
    if not first:
        return
    assert isinstance(last, Trained)
    half = pack is None and backbone == "small"
    if half:
        last.source.network.half().float()  # what is stored in 16 bits is what is measured
    accuracy = evaluate.accuracy(last.source, held_out)
    last.source.card |= lesson.card
    last.source.card |= {"held_out_accuracy": round(accuracy, 4), "held_out_images": len(held_out)}
    save_source(last.source, out, half=half)
    typer.echo(f"{100 * accuracy:.1f} % of {len(held_out)} held-out images right: {out}")


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="sunrgbd-single, sunrgbd-multi, diml, rgbnir, or a TOML file")],
    data: Annotated[Path, typer.Option(help="folder of the packs, or the pack itself")] = Path("packs"),
    out: Annotated[Path | None, typer.Option(help="folder of the results; default: runs/NAME")] = None,
    seeds: Annotated[int, typer.Option(help="number of seeds for stochastic methods", min=1)] = 3,
    workers: Annotated[
        int | None, typer.Option(help="processes; default: one for each GPU, or for each two cores", min=1)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be done")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="an epoch of everything, with a narrow network")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Repeat an experiment of the paper on an imported set; what is finished is kept."""
    from socketlab.runs import presets
    from socketlab.runs.experiment import carry_out, plan

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LabError("experiment starts its own processes: call it without torchrun.")
    preset = presets.load(name)
    out = out or Path("runs") / (Path(name).stem + ("-quick" if quick else ""))
    if quick:
        preset = presets.shortened(preset)
    if dry_run:
        typer.echo(plan(preset, data, out, seeds))
        return
    table = carry_out(
        preset, data, out, seeds=seeds, device=device_named(device), workers=workers, progress=progress,
        log=lambda text: typer.echo(text, err=True),
    )  # fmt: skip
    typer.echo(table.read_text(encoding="utf-8"))
    typer.echo(f"table: {table}")


@app.command()
def compare(
    ctx: typer.Context,
    model_a: Annotated[
        str | None,
        typer.Argument(help="shipped network, checkpoint, or run folder; default: the RGB network"),
    ] = None,
    model_b: Annotated[str | None, typer.Argument(help="the other one; default: the same again")] = None,
    sensor: SensorOption = "kinect_v1",
    split: Annotated[
        str | None, typer.Option(help="the images that both read; default: held-out images of the target")
    ] = None,
    modality_a: Annotated[str | None, typer.Option(help="that A reads; default: its own")] = None,
    modality_b: Annotated[
        str | None, typer.Option(help="that B reads; default: the target's if B is A, else its own")
    ] = None,
    strength: StrengthOption = 1.0,
    pack: PackOption = None,
    domain: DomainOption = None,
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
    from socketlab.runs import splits

    on, opened = device_named(device), None if pack is None else open_pack(pack)
    named = names_in(layers, "--layers")
    model_a = model_a or (f"rgb_{sensor}" if opened is None else splits.default_network(opened))
    a = _network(model_a, on)
    b = a if model_b is None else _network(model_b, on)
    target = "depth" if opened is None else splits.target_modality(opened, modality_b)
    ways = modality_a or a.modality, modality_b or (target if b is a else b.modality)
    if opened is None:
        read = tuple(dict.fromkeys(ways))
        images = pocketrooms.load(split or "target_test", sensor, read, strength, device=on)
    else:
        refuse_options(ctx, ("sensor", "strength"), "the shipped rooms", "leave it out with --pack")
        images = splits.compared_scenes(opened, ways, split, domain).to(on)
    titles = [f"{way} by {name}" for way, name in zip(ways, (model_a, model_b or model_a), strict=True)]
    if titles[0] == titles[1]:
        titles = [f"{titles[0]}, A", f"{titles[1]}, B"]
    found = compared(
        a, b, images.only(ways[0]), images.only(ways[1]), layers=named, titles=(titles[0], titles[1]),
        rounds=rounds, seed=seed,
    )  # fmt: skip
    about = {"networks": " and ".join(dict.fromkeys((model_a, model_b or model_a)))}
    if opened is None:
        about |= {"sensor": f"{sensor}, strength {strength:g}", "split": split or "target_test"}
        about["rooms"] = f"PocketRooms (sha256 {splits.rooms_digest()[:12]}…)"
    else:
        about["set"] = f"{opened.folder.resolve().name} (sha256 {splits.digest(opened)[:12]}…)"
        about |= {"domain": domain or "default", "split": split or "default"}
    report = write(found, out, rerun=typed(ctx), umap=umap, about=about)
    typer.echo(headline(found))
    typer.echo(f"report: {report}")


def _network(name: str, device: str) -> Source:
    """A network by name or path; of a run folder, the adapted one."""
    from socketlab.files import is_folder
    from socketlab.networks.checkpoints import load_source
    from socketlab.runs.folder import CHECKPOINT

    path = Path(name)
    return load_source(path / CHECKPOINT if is_folder(path) else name, device)


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(help="sunrgbd, diml, rgbnir, eurosat, lists or folders")],
    path: Annotated[Path | None, typer.Argument(help="folder of the set, or the lists' folder")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the pack (default: packs/KIND)")] = None,
    size: Annotated[
        int | None, typer.Option(help="image side in pixels (default depends on the data set)")
    ] = None,
    fit: Annotated[str, typer.Option(help="centre, letterbox or stretch")] = "centre",
    on_bad: Annotated[
        str,
        typer.Option(help="scenes that cannot be used: auto (skip and count, unless most), skip or stop"),
    ] = "auto",
    task: Annotated[str | None, typer.Option(help="classes of the task, with commas")] = None,
    processes: Annotated[int | None, typer.Option(help="number of processes (default: one per core)")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="of this kind of set: depth_unit=5000, levels=0:1023, place=REGEX, unpaired=true, "
            "base=FOLDER, depth=depth_bfx and others (docs/real_data.md); repeatable",
        ),
    ] = None,
) -> None:
    """Check a real data set, pair it by name, and write it as a compact pack."""
    from socketlab.images.importers import KINDS, import_folder, require_options

    more = dict(assignments(options or [], "--option", "unpaired=true"))
    require_options(kind, more)
    if path is None:
        source = KINDS[kind].source
        raise LabError(f"Name the folder of the set{f', which can be had from {source}' if source else ''}.")
    classes = [name.strip() for name in task.split(",") if name.strip()] if task else None
    import_folder(
        kind, path, out, size=size, fit=fit, on_bad=on_bad, processes=processes, say=typer.echo,
        hidden=not sys.stderr.isatty(), task=classes, **more,
    )  # fmt: skip


@app.command("app")
def app_(
    name: Annotated[str, typer.Argument(help="adaptation, gap, statistics or pairs")] = "adaptation",
    port: Annotated[int, typer.Option(help="of this computer", min=1, max=65535)] = 8866,
    browser: Annotated[bool, typer.Option(help="open the page at once")] = True,
) -> None:
    """Show one panel on a page of its own, for a lecture; Ctrl-C ends it."""
    from socketlab import app as panels

    raise typer.Exit(panels.serve(name, port, browser))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="a run folder")],
    oracle: Annotated[
        str | None, typer.Option(help="network trained with the target's labels, to compare with")
    ] = None,
) -> None:
    """Write the report of a finished run again."""
    from socketlab.runs import folder as run_folder
    from socketlab.runs import results

    with run_folder.locked(folder) if oracle else contextlib.nullcontext():
        run = run_folder.read(folder)
        if oracle:
            results.add_oracle(run, oracle)
        typer.echo(f"report: {results.write_report(run)}")


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
