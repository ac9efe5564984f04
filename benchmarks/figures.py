"""The pictures of README, data card and docs: ``python benchmarks/figures.py`` (two minutes).

Everything is drawn from the shipped data and from ``data/results``; the adaptation of the film and the
runs that show the weight of L_BN are made here, with seed 0.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import defaultdict
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from socketlab import Recipe, adapt, features, load_source, rooms
from socketlab.figures import figures, style
from socketlab.figures.film import Film, Snapshot
from socketlab.files import data_folder, write_whole
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS
from socketlab.method.adaptation import Epoch, Step

DOCS = Path(__file__).resolve().parent.parent / "docs"


def first_of_each(split: str, kinds: tuple[str, ...], sensor: str) -> PairedImages:
    """One scene of each kind, in every modality."""
    images = rooms.load(split, sensor, ("rgb", "nir", "depth"))
    return images.take([images.kinds.index(kind) for kind in kinds])


def classes_picture() -> bytes:
    """Every class of the task in colour, near-infrared and depth."""
    return style.png(figures.triptych(first_of_each("source_test", rooms.CLASSES, "kinect_v2"), range(8)))


def kinds_picture(split: str) -> bytes:
    """Every task-irrelevant kind in colour and depth."""
    kinds = tuple(dict.fromkeys(rooms.load(split, "kinect_v2", ("nir",)).kinds))
    some = first_of_each(split, kinds, "kinect_v2")
    return style.png(figures.triptych(some, range(len(kinds)), ("rgb", "depth"), tile=110))


def sensors_picture() -> bytes:
    """The same four rooms through the four sensors."""
    rows = {}
    for name in SENSORS:
        some = first_of_each("source_test", rooms.CLASSES[2:6], name)
        brief = name.replace("_", " ")
        rows[brief] = ("rgb", some.images["rgb"])
        rows[f"{brief} "] = ("depth", some.images["depth"])
    return style.png(figures.gallery(rows, [kind.replace("_", " ") for kind in rooms.CLASSES[2:6]], tile=110))


def accuracies() -> dict[str, list[float]]:
    """Method → held-out accuracy of every run in the table, all sensors."""
    names = {("socket", "near"): "SOCKET, near pairs", ("socket", "far"): "SOCKET, far pairs"}
    found: dict[str, list[float]] = defaultdict(list)
    with open(data_folder() / "results" / "methods_runs.csv", newline="") as file:
        for row in csv.DictReader(file):
            name = names.get((row["method"], row["pairs"]), row["method"])
            found[name].append(float(row["held_out"]))
    order = ["source-only", "adabn", "shot", "SOCKET, far pairs", "SOCKET, near pairs", "oracle"]
    return {name: found[name] for name in order}


def bars_picture() -> bytes:
    """Held-out depth accuracy of every method over sensors and seeds."""
    styles = {name: replace(style.METHODS["socket"], title=name) for name in accuracies() if "," in name}
    ax = figures.accuracy_bars(
        accuracies(),
        title="An RGB network reads depth: four sensors, five seeds",
        styles=style.METHODS | styles,
        chance=1 / len(rooms.CLASSES),
    )
    return style.png(ax)


def labels_picture() -> bytes:
    """Accuracy over labelled images of each class, and what SOCKET reaches without one."""

    def over_sensors(table: str) -> list[dict[str, str]]:
        with open(data_folder() / "results" / f"{table}.csv", newline="") as file:
            return [row for row in csv.DictReader(file) if row["sensor"] == "all"]

    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in over_sensors("labels"):
        if row["labels"] == "0":  # SOCKET without labels is a level
            continue
        counts, shares = found[row["start"].replace("socket", "SOCKET")]
        counts.append(float(row["labels"]))
        shares.append(float(row["held_out"]) / 100)
    levels = {
        f"SOCKET, {row['count']} {row['pairs']} pairs": float(row["held_out"]) / 100
        for row in over_sensors("lengths")
        if row["recipe"] == "10 + 5 epochs"
    }
    about = {"title": "What labels are worth: four depth cameras", "xlabel": "labelled images of each class"}
    ax = figures.curves(found, ylabel="held-out accuracy", levels=levels, **about)
    ax.set_xscale("log")
    ax.set_xlim(0.9, 70)
    ticks = next(iter(found.values()))[0]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    return style.png(ax)


def film_picture(sensor: str = "kinect_v1") -> bytes:
    """Features of every epoch of an adaptation on one map, as a GIF that moves."""
    source = load_source(f"rgb_{sensor}")
    target = rooms.load("target_adapt", sensor, ("depth",))
    held_out = rooms.load("target_test", sensor, ("depth",))
    pairs = rooms.ti_pairs(sensor, "near")
    shown, seen = pairs.take(range(120)), held_out.take(range(len(held_out) // 2))
    fixed, snapshots = features.predict(source, shown.only("rgb"))[1].numpy(), []
    for event in adapt(source, target, pairs, Recipe.socket(), seed=0):
        if isinstance(event, Epoch):
            adapted = event.state.adapted
            halves = {"depth": shown.only("depth"), "target": seen}
            own = {name: features.predict(adapted, images)[1].numpy() for name, images in halves.items()}
            title = f"epoch {event.epoch} of {event.epochs}" if event.epoch else "before"
            counts = features.confusion(adapted, held_out).numpy()
            snapshots.append(Snapshot(title, {"rgb": fixed, **own}, counts))
    sets = {
        "rgb": ("rgb", "RGB of pairs", None),
        "depth": ("depth", "depth of pairs", None),
        "target": ("depth", "depth, held out", seen.labels.numpy()),
    }
    return gif(Film.of_features(snapshots, sets, rooms.CLASSES, ("rgb", "depth")))


def moving(film: Film, places: list[float]) -> Film:
    """A film at these places of another; a place between two frames is on the way from one to the next."""
    frames = []
    for place in places:
        here, later = film.frames[int(place)], film.frames[min(int(place) + 1, len(film.frames) - 1)]
        way = np.float32(place - int(place))
        ways = {name: way * (later[name].points - cloud.points) for name, cloud in here.items()}
        frames.append({n: replace(cloud, points=cloud.points + ways[n]) for n, cloud in here.items()})
    nearest = [round(place) for place in places]
    titles, tables = ([of[k] for k in nearest] for of in (film.titles, film.confusion))
    return replace(film, frames=frames, titles=titles, confusion=tables)


def gif(film: Film) -> bytes:
    """All epochs, with places between the first ones; the first and the last stand still for a while."""
    last = len(film.frames) - 1
    places = [*np.arange(0, 2, 0.2), *np.arange(2, 5, 0.5), *np.arange(5, last + 1)]
    film = moving(film, [place for place in places if place <= last])
    pngs = [style.png(film.draw(number), dpi=90) for number in range(len(film.frames))]
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in pngs]
    palette = pictures[-1].quantize(255, Image.Quantize.MAXCOVERAGE)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    waits = [1500, *[120] * (len(frames) - 2), 3000]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=waits, loop=0)
    return file.getvalue()


def shares_picture(sensor: str = "kinect_v1", shown: int = 30) -> bytes:
    """The weight that L_BN has in the published recipe and in ours, over the first steps."""
    source = load_source(f"rgb_{sensor}")
    target = rooms.load("target_adapt", sensor, ("depth",))
    pairs = rooms.ti_pairs(sensor, "near")
    ax = style.dress(
        style.new_figure(900, 460).add_axes((0.09, 0.15, 0.67, 0.72)),
        title="A weight that switches itself off",
        xlabel="step",
        ylabel=style.typeset("weight of $L_{BN}$, before $\\lambda_d$"),
        grid="both",
    )
    drawn = {}
    for share, line in (("raw", style.METHODS["paper"]), ("normalised", style.METHODS["socket"])):
        recipe = Recipe.paper().replace(bn_share=share)
        events = adapt(source, target, pairs, recipe, seed=0)
        shares = [float(e.bn_shares) for e in islice((e for e in events if isinstance(e, Step)), shown)]
        name = {"raw": "published: trainable", "normalised": "here: normalised"}[share]
        ax.plot(range(1, shown + 1), shares, color=line.colour, linestyle=line.line, linewidth=2.5)
        ax.annotate(name, (shown, shares[-1]), xytext=(8, 0), textcoords="offset points", va="center",
                    color=style.INK, fontsize=style.TEXT)  # fmt: skip
        drawn[name] = shares
    ax.set(xlim=(1, shown), ylim=(-0.03, 1.05))
    words = "; ".join(
        f"{name}: {values[0]:.2f} at step 1, {values[-1]:.4f} at step {shown}"
        for name, values in drawn.items()
    )
    style.describe(ax, f"Weight of L_BN by step. {words}.")
    print(words)
    return style.png(ax)


PICTURES = {
    "labels.png": labels_picture,
    "classes.png": classes_picture,
    "near.png": lambda: kinds_picture("ti_near"),
    "far.png": lambda: kinds_picture("ti_far"),
    "sensors.png": sensors_picture,
    "accuracies.png": bars_picture,
    "film.gif": film_picture,
    "bn_share.png": shares_picture,
}


def main() -> None:
    """Draw all pictures, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(PICTURES)}")
    for name in parser.parse_args().names or PICTURES:
        write_whole(DOCS / name, PICTURES[name]())
        print(DOCS.name + "/" + name)


if __name__ == "__main__":
    main()
