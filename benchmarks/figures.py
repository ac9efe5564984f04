"""The pictures of README, data card and docs: ``python benchmarks/figures.py`` (two minutes).

Everything is drawn from the shipped data and from ``data/results``; the adapted network of the map and the
runs that show the weight of L_BN are made here, with seed 0.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from itertools import islice
from pathlib import Path

from socketlab import Recipe, adapt, features, load_source, rooms
from socketlab.figures import figures, maps
from socketlab.files import data_folder, write_whole
from socketlab.images.paired_images import PairedImages
from socketlab.images.sensors import SENSORS
from socketlab.method.adaptation import Epoch, Step
from socketlab.networks.checkpoints import Source

DOCS = Path(__file__).resolve().parent.parent / "docs"


def first_of_each(split: str, kinds: tuple[str, ...], sensor: str) -> PairedImages:
    """One scene of each kind, in every modality."""
    images = rooms.load(split, sensor, ("rgb", "nir", "depth"))
    return images.take([images.kinds.index(kind) for kind in kinds])


def classes_picture() -> bytes:
    """Every class of the task in colour, near-infrared and depth."""
    return figures.png(figures.triptych(first_of_each("source_test", rooms.CLASSES, "kinect_v2"), range(8)))


def kinds_picture(split: str) -> bytes:
    """Every task-irrelevant kind in colour and depth."""
    kinds = tuple(dict.fromkeys(rooms.load(split, "kinect_v2", ("nir",)).kinds))
    some = first_of_each(split, kinds, "kinect_v2")
    return figures.png(figures.triptych(some, range(len(kinds)), ("rgb", "depth"), tile=110))


def sensors_picture() -> bytes:
    """The same four rooms through the four sensors."""
    rows = {}
    for name in SENSORS:
        some = first_of_each("source_test", rooms.CLASSES[2:6], name)
        brief = name.replace("_", " ")
        rows[brief] = ("rgb", some.images["rgb"])
        rows[f"{brief} "] = ("depth", some.images["depth"])
    return figures.png(
        figures.gallery(rows, [kind.replace("_", " ") for kind in rooms.CLASSES[2:6]], tile=110)
    )


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
    socket = figures.METHODS["socket"]
    styles = {name: socket.__class__(name, socket.colour, "o", "-") for name in accuracies() if "," in name}
    ax = figures.accuracy_bars(
        accuracies(),
        title="An RGB network reads depth: four sensors, five seeds",
        styles=figures.METHODS | styles,
        chance=1 / len(rooms.CLASSES),
    )
    return figures.png(ax)


def maps_picture(sensor: str = "kinect_v1") -> bytes:
    """Joint UMAP of paired features before and after an adaptation."""
    source = load_source(f"rgb_{sensor}")
    target = rooms.load("target_adapt", sensor, ("depth",))
    pairs = rooms.ti_pairs(sensor, "near")
    held_out = rooms.load("target_test", sensor, ("depth",))
    figure = figures.new_figure(1500, 720)
    first = last = None
    for event in adapt(source, target, pairs, Recipe.socket(), seed=0):
        if isinstance(event, Epoch) and event.epoch in (0, event.epochs):
            clouds = _clouds(source, event.state.adapted, pairs, held_out)
            share = features.accuracy(event.state.adapted, held_out)
            first, last = (clouds, share) if event.epoch == 0 else first, (clouds, share)
    for place, (name, (clouds, share)) in enumerate((("before", first), ("after SOCKET", last))):
        ax = figure.add_axes((0.01 + 0.41 * place, 0.03, 0.39, 0.86))
        title = f"{name}: {100 * share:.0f} % of held-out depth images right"
        figures.feature_map(clouds, rooms.CLASSES, ax, links=("pairs, RGB", "pairs, depth"), title=title)
        if place == 0 and ax.get_legend():
            ax.get_legend().remove()
    return figures.png(figure)


def shares_picture(sensor: str = "kinect_v1", shown: int = 30) -> bytes:
    """The weight that L_BN has in the published recipe and in ours, over the first steps."""
    source = load_source(f"rgb_{sensor}")
    target = rooms.load("target_adapt", sensor, ("depth",))
    pairs = rooms.ti_pairs(sensor, "near")
    ax = figures.dress(
        figures.new_figure(900, 460).add_axes((0.09, 0.15, 0.67, 0.72)),
        title="A weight that switches itself off",
        xlabel="step",
        ylabel="weight of $L_{BN}$, before $\\lambda_d$",
        grid="both",
    )
    drawn = {}
    for share, look in (("raw", figures.METHODS["paper"]), ("normalised", figures.METHODS["socket"])):
        recipe = Recipe.paper().replace(bn_share=share)
        events = adapt(source, target, pairs, recipe, seed=0)
        shares = [float(e.bn_shares) for e in islice((e for e in events if isinstance(e, Step)), shown)]
        name = {"raw": "published: trainable", "normalised": "here: normalised"}[share]
        ax.plot(range(1, shown + 1), shares, color=look.colour, linestyle=look.line, linewidth=2.5)
        ax.annotate(name, (shown, shares[-1]), xytext=(8, 0), textcoords="offset points", va="center",
                    color=figures.INK, fontsize=figures.TEXT)  # fmt: skip
        drawn[name] = shares
    ax.set(xlim=(1, shown), ylim=(-0.03, 1.05))
    told = "; ".join(
        f"{name}: {values[0]:.2f} at step 1, {values[-1]:.4f} at step {shown}"
        for name, values in drawn.items()
    )
    figures.describe(ax, f"Weight of L_BN by step. {told}.")
    print(told)
    return figures.png(ax)


def _clouds(
    source: Source, adapted: Source, pairs: PairedImages, held_out: PairedImages
) -> dict[str, figures.Cloud]:
    """Features of both halves of the pairs and of held-out target images, on one map."""
    sets = {
        "pairs, RGB": features.predict(source, pairs.only("rgb"))[1],
        "pairs, depth": features.predict(adapted, pairs.only("depth"))[1],
        "target, depth": features.predict(adapted, held_out)[1],
    }
    places = maps.joint_map({name: values.numpy() for name, values in sets.items()}, seed=0)
    labels = held_out.labels.numpy()
    return {
        "pairs, RGB": figures.Cloud(places["pairs, RGB"], "rgb", "pairs, RGB"),
        "pairs, depth": figures.Cloud(places["pairs, depth"], "depth", "pairs, depth"),
        "target, depth": figures.Cloud(places["target, depth"], "depth", "target, depth", labels),
    }


PICTURES = {
    "classes.png": classes_picture,
    "near.png": lambda: kinds_picture("ti_near"),
    "far.png": lambda: kinds_picture("ti_far"),
    "sensors.png": sensors_picture,
    "accuracies.png": bars_picture,
    "maps.png": maps_picture,
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
