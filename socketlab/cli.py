"""The command line: ``socketlab doctor``, ``adapt``, ``train-source``, ``compare``, ``import`` and more.

Whatever the reader can put right is one sentence and exit code 2; Ctrl-C is exit code 130. Heavy modules are
loaded by the command that needs them, so that ``socketlab --help`` answers at once.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer import Argument, Option

from socketlab import terminal
from socketlab.errors import LabError

if TYPE_CHECKING:
    from socketlab.method.adaptation import State
    from socketlab.networks.checkpoints import Source
    from socketlab.runs.run_folder import Run
    from socketlab.runs.settings import Material


app = typer.Typer(
    cls=terminal.OneSentence,
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
    raise typer.Exit(int("\n[--]" in text))


SENSOR = Option("kinect_v1", help="kinect_v1, kinect_v2, realsense or xtion")
STRENGTH = Option(1.0, help="of the sensor's errors: 0 ideal, 1 as published", min=0, max=3)
PACK = Option(None, help="folder of an imported set, in place of the rooms")
DOMAIN = Option(None, help="of the pack: which of its sensors")
ENCODING = Option("metric", help="of depth: metric, inverse, relative, normals, colours or hha")
VIEW = Option(None, help="degrees that a stored picture is wide; default: the camera's", min=1, max=179)
SEED = Option(0, help="random seed", min=0, max=2**31 - 1)
DEVICE = Option("auto", help="auto, cpu or cuda")


@app.command()
def adapt(
    ctx: typer.Context,
    sensor: str = SENSOR,
    method: str = Option(
        "socket", help="socket, paper, shot, shot-im, aad, tent, adabn, batch or source-only"
    ),
    pairs: str = Option("near", help="rooms that the pairs show: near, far or both"),
    pair_count: int | None = Option(None, help="number of pairs; default: all"),
    strength: float = STRENGTH,
    source: str | None = Option(None, help="network, several with commas, or all; default: the sensor's"),
    pack: str | None = PACK,
    domain: str | None = DOMAIN,
    target: str | None = Option(None, help="modality to adapt to; depth where there is depth"),
    depth_encoding: str = Option(
        "metric", help="of depth: metric, inverse, relative, normals, colours, hha; auto: by held-out pairs"
    ),
    field_of_view: float | None = VIEW,
    oracle: str | None = Option(None, help="network trained with the target's labels"),
    choose: str = Option("last", help="epoch that counts: last, or by a rule without labels, as information"),
    thorough: bool = Option(False, "--thorough", help="SOCKET's longer recipe: 3 + 27 epochs"),
    overrides: list[str] | None = Option(
        None, "--set", metavar="NAME=VALUE", help="another value for a field of the recipe; repeatable"
    ),
    seed: int = SEED,
    out: Path | None = Option(None, help="folder to write to"),
    device: str = DEVICE,
    resume: Path | None = Option(None, help="run folder to continue"),
) -> None:
    """Adapt a source network to another modality, and write a run folder with a report.

    Several processes can share the work: torchrun --nproc-per-node 2 -m socketlab adapt ...
    """
    from socketlab.runs import run_folder
    from socketlab.runs.settings import Settings, default_recipe, device_named, gather, lengthened, resolved
    from socketlab.speed import distributed

    if resume is not None:
        if more := [one.opts[0] for one in terminal.given(ctx) if one.name != "resume"]:
            raise LabError(f"--resume continues a run with its own settings: leave {', '.join(more)} out.")
        distributed.join(run_folder.read(resume).settings.device)
        with run_folder.locked(resume):
            run = run_folder.read(resume)
            material = gather(run.settings)
            _adapt_and_report(run, material, run_folder.resume(run, material))
        return
    terminal.refuse_options(ctx, pack)
    about = {field: ctx.params[field] for field in Settings.__dataclass_fields__ if field in ctx.params}
    settings = Settings(**about | {"device": device_named(device)})
    recipe = default_recipe(method, settings.source_names, thorough)
    changes = dict(terminal.assignments(overrides or []))
    settings = resolved(replace(settings, recipe=recipe.replace(**changes)))
    distributed.join(settings.device)
    folder = distributed.on_rank_zero(lambda: run_folder.free_folder(out, settings))
    material = gather(settings)
    if material.normalisation is not None:  # by the encoding that was chosen, where that was "auto"
        settings = replace(settings, depth_encoding=material.normalisation.depth_encoding)
    if not {"align_epochs", "epochs"} & set(changes):
        settings = replace(settings, recipe=lengthened(settings.recipe, len(material.target)))
    if pack is not None and distributed.rank() == 0:
        typer.echo(material.headline, err=True)
        typer.echo(f"{settings.recipe.align_epochs} + {settings.recipe.epochs} epochs", err=True)
    with run_folder.locked(folder):
        run = distributed.on_rank_zero(lambda: run_folder.create(folder, settings, material))
        _adapt_and_report(run, material, None)


def _adapt_and_report(run: Run, material: Material, state: State | None) -> None:
    """Adapt to the end, print the scores, then draw; on Ctrl-C, print how to continue."""
    from socketlab.figures.report import gap_closed
    from socketlab.runs import results, run_folder
    from socketlab.speed import distributed

    def epoch(event: Any) -> str:
        accuracy = f"{100 * float(run.rows[event.epoch][run_folder.HELD_OUT]):.1f} % held-out target accuracy"
        return f"epoch {event.epoch} of {event.epochs}: {accuracy} (unseen by the method)"

    first = distributed.rank() == 0
    try:
        for event in terminal.progress(run_folder.record(run, material, state), epoch):
            state = getattr(event, "state", state)
        distributed.leave()
        if not first:
            return
        assert state is not None
        found = results.measure(run, material, state)
        images = f"{found.held_out_images} held-out target images"
        typer.echo(f"accuracy on {images}, {run.which}; labels used for measuring alone:")
        for score in found.scores:
            typer.echo(f"  {score.name:<12} {100 * score.held_out:5.1f} %")
        way = gap_closed(*(score.held_out for score in found.scores)) if found.has_oracle else None
        if way is not None:
            typer.echo(f"  {100 * way:.0f} % of the way from source to oracle")
        typer.echo("drawing the pictures and writing the report …", err=True)
        found = results.illustrate(run, material, run_folder.chosen(run, state), found)
    except KeyboardInterrupt:
        if first:
            typer.echo(f"stopped; continue with: socketlab adapt --resume {run.folder}", err=True)
        raise typer.Exit(130) from None
    for note in found.notes:
        if "could not be drawn" in note:
            typer.echo(note, err=True)
    typer.echo(f"report: {run.folder / run_folder.REPORT}")


@app.command("train-source")
def train_source(
    ctx: typer.Context,
    sensor: str = SENSOR,
    modality: str = Option("rgb", help="rgb, nir, swir or depth; of the target it is the oracle"),
    out: Path | None = Option(None, help="checkpoint to write"),
    epochs: int | None = Option(None, help="passes over the images; default: the recipe's"),
    pack: str | None = PACK,
    domain: str | None = DOMAIN,
    backbone: str = Option("small", help="small, efficientnet_lite0, resnet18, resnet50 and others"),
    weights: str | None = Option(None, help="of a backbone: imagenet, none, or a file; default: imagenet"),
    rate: float | None = Option(None, help="learning rate of bottleneck and head"),
    trunk_rate: float | None = Option(None, help="learning rate of the trunk"),
    batch_size: int | None = Option(None, help="images per step"),
    depth_encoding: str = ENCODING,
    field_of_view: float | None = VIEW,
    seed: int = SEED,
    device: str = DEVICE,
) -> None:
    """Train a network with labels: a source network or, in the target's modality, the oracle.

    Several processes can share the work: torchrun --nproc-per-node 2 -m socketlab train-source ...
    """
    from socketlab.images.packs import open_pack
    from socketlab.networks.checkpoints import save_source
    from socketlab.runs import splits
    from socketlab.runs.settings import device_named
    from socketlab.runs.train_source import source_recipe
    from socketlab.speed import distributed

    changes = {"epochs": epochs, "rate": rate, "trunk_rate": trunk_rate, "batch_size": batch_size}
    recipe = source_recipe(backbone, weights, changes)
    on = device_named(device)
    terminal.refuse_options(ctx, pack, "domain", "depth_encoding", "field_of_view")
    distributed.join(on)
    if pack is None:
        task = splits.rooms_training_task(sensor, modality, recipe)
        name = f"{'oracle_depth' if modality == 'depth' else modality}_{sensor}.safetensors"
    else:
        opened = open_pack(pack)
        task = splits.pack_training_task(opened, recipe, modality, domain, depth_encoding, field_of_view)
        name = splits.network_name(opened, modality, str(task.card["domain"]))
    out = out or Path(name)
    distributed.on_rank_zero(lambda: terminal.require_new(out))
    half, first = pack is None and backbone == "small", distributed.rank() == 0
    source = splits.train_on(task, terminal.progress, seed=seed, device=on, half=half)
    distributed.leave()
    if first:
        save_source(source, out, half=half)
        accuracy, images = source.card["held_out_accuracy"], source.card["held_out_images"]
        typer.echo(f"{100 * accuracy:.1f} % of {images} held-out images right: {out}")


@app.command()
def experiment(
    name: str = Argument(help="sunrgbd-single, sunrgbd-multi, diml, rgbnir, or a TOML file"),
    data: Path = Option(Path("packs"), help="folder of the packs, or the pack itself"),
    out: Path | None = Option(None, help="folder of the results; default: runs/NAME"),
    seeds: int = Option(3, help="number of seeds for stochastic methods", min=1),
    workers: int | None = Option(None, help="processes; default: one per GPU, or per two cores", min=1),
    dry_run: bool = Option(False, "--dry-run", help="print what would be done"),
    quick: bool = Option(False, "--quick", help="an epoch of everything, with a narrow network"),
    device: str = DEVICE,
) -> None:
    """Repeat an experiment of the paper on an imported set; what is finished is kept."""
    from socketlab.runs.experiment import carry_out, load, plan, shortened
    from socketlab.runs.settings import device_named

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LabError("experiment starts its own processes: call it without torchrun.")
    preset = shortened(load(name)) if quick else load(name)
    out = out or Path("runs") / (Path(name).stem + ("-quick" if quick else ""))
    if dry_run:
        typer.echo(plan(preset, data, out, seeds))
        return
    on = device_named(device)
    table = carry_out(
        preset, data, out, seeds=seeds, device=on, workers=workers, progress=terminal.progress,
        log=lambda text: typer.echo(text, err=True),
    )  # fmt: skip
    typer.echo(table.read_text(encoding="utf-8"))
    typer.echo(f"table: {table}")


@app.command()
def compare(
    ctx: typer.Context,
    model_a: str | None = Argument(None, help="shipped network, checkpoint or run; default: the RGB network"),
    model_b: str | None = Argument(None, help="the other one; default: the same again"),
    sensor: str = SENSOR,
    split: str | None = Option(None, help="images that both read; default: held-out ones of the target"),
    modality_a: str | None = Option(None, help="that A reads; default: its own"),
    modality_b: str | None = Option(None, help="that B reads; default: its own, or the target's if B is A"),
    strength: float = STRENGTH,
    pack: str | None = PACK,
    domain: str | None = DOMAIN,
    layers: str | None = Option(None, help="names with * and ?, several with commas"),
    rounds: int = Option(100, help="random halves behind each interval", min=2),
    seed: int = SEED,
    out: Path = Option(Path("runs/compare"), help="folder of the report"),
    umap: bool = Option(True, help="the map by UMAP, else by principal components"),
    device: str = DEVICE,
) -> None:
    """Measure how far apart two networks, or one network on two modalities, are; write a report."""
    from socketlab.figures.comparison_report import headline, write
    from socketlab.images import pocketrooms
    from socketlab.images.packs import open_pack
    from socketlab.measures.comparison import compare as compared
    from socketlab.networks.checkpoints import load_source
    from socketlab.runs import splits
    from socketlab.runs.run_folder import CHECKPOINT
    from socketlab.runs.settings import device_named

    terminal.refuse_options(ctx, pack)
    on, opened = device_named(device), None if pack is None else open_pack(pack)

    def network(name: str) -> Source:
        return load_source(Path(name) / CHECKPOINT if os.path.isdir(name) else name, on)

    named = terminal.names_in(layers, "--layers")
    model_a = model_a or (f"rgb_{sensor}" if opened is None else splits.default_network(opened))
    a = network(model_a)
    b = a if model_b is None else network(model_b)
    target = "depth" if opened is None else splits.target_modality(opened, modality_b)
    ways = modality_a or a.modality, modality_b or (target if b is a else b.modality)
    models = model_a, model_b or model_a
    about = {"networks": " and ".join(dict.fromkeys(models))}
    if opened is None:
        split = split or "target_test"
        images = pocketrooms.load(split, sensor, tuple(dict.fromkeys(ways)), strength).to(on)
        about |= {"sensor": f"{sensor}, strength {strength:g}", "split": split}
        about["rooms"] = f"PocketRooms (sha256 {splits.rooms_digest()[:12]}…)"
    else:
        images = splits.compared_scenes(opened, ways, split, domain).to(on)
        about["set"] = f"{opened.folder.resolve().name} (sha256 {splits.digest(opened)[:12]}…)"
        about |= {"domain": domain or "default", "split": split or "default"}
    titles = f"{ways[0]} by {models[0]}", f"{ways[1]} by {models[1]}"
    if titles[0] == titles[1]:
        titles = f"{titles[0]}, A", f"{titles[1]}, B"
    found = compared(
        a, b, images.only(ways[0]), images.only(ways[1]), layers=named, titles=titles, rounds=rounds,
        seed=seed,
    )  # fmt: skip
    report = write(found, out, rerun=shlex.join(["socketlab", *sys.argv[1:]]), umap=umap, about=about)
    typer.echo(headline(found))
    typer.echo(f"report: {report}")


@app.command("import")
def import_(
    kind: str = Argument(help="sunrgbd, diml, rgbnir, lists or folders"),
    path: Path = Argument(help="folder of the set, or the lists' folder (addresses: docs/real_data.md)"),
    out: Path | None = Option(None, help="folder of the pack (default: packs/KIND)"),
    size: int = Option(256, help="image side in pixels"),
    fit: str = Option("centre", help="centre, letterbox or stretch"),
    on_bad: str = Option("auto", help="unusable scenes: auto (skip and count, unless most), skip or stop"),
    task: str | None = Option(None, help="classes of the task, with commas"),
    processes: int | None = Option(None, help="number of processes (default: one per core)"),
    options: list[str] | None = Option(
        None,
        "--option",
        metavar="NAME=VALUE",
        help="of this kind of set: depth_unit=5000, levels=0:1023, place=REGEX, unpaired=true, "
        "base=FOLDER, depth=depth_bfx and others (docs/real_data.md); repeatable",
    ),
) -> None:
    """Check a real data set, pair it by name, and write it as a compact pack."""
    from socketlab.images.importers import import_folder, require_options

    more = dict(terminal.assignments(options or [], "--option", "unpaired=true"))
    require_options(kind, more)
    import_folder(
        kind, path, out, size=size, fit=fit, on_bad=on_bad, processes=processes, say=typer.echo,
        task=terminal.names_in(task or None, "--task"), **more,
    )  # fmt: skip


@app.command("app")
def app_(
    name: str = Argument("adaptation", help="adaptation, gap, statistics or pairs"),
    port: int = Option(8866, help="of this computer", min=1, max=65535),
    browser: bool = Option(True, help="open the page at once"),
) -> None:
    """Show one panel on a page of its own, for a lecture; Ctrl-C ends it."""
    from socketlab import app as panels

    raise typer.Exit(panels.serve(name, port, browser))


@app.command()
def report(
    folder: Path = Argument(help="a run folder"),
    oracle: str | None = Option(None, help="network trained with the target's labels, to compare with"),
) -> None:
    """Measure a finished run and write its report again."""
    from socketlab.runs import results, run_folder

    run_folder.read(folder)  # before its lock would make the folder
    with run_folder.locked(folder):
        results.again(run_folder.read(folder), oracle)
    typer.echo(f"report: {folder / run_folder.REPORT}")
