"""What is run, and for which table: every experiment as a plain list of jobs.

A `Job` says all that decides a result: the networks, the target, the pairs, the recipe, the seed. Jobs that
begin with the same alignment share it (`alignment`), and a job that several tables ask for is run once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

from socketlab.method.recipe import Recipe

SENSORS = ("kinect_v1", "kinect_v2", "realsense", "xtion")
ONE = "kinect_v1"
"""The sensor of the sweeps."""
ALL = 500
"""Pairs of each sort, near and far."""
Words = tuple[tuple[str, str], ...]
"""The words of a row, as column and value."""
LENGTHS = {
    "10 + 5 epochs": Recipe.socket(),
    "10 + 5 epochs, shared statistics": Recipe.socket().replace(pair_statistics="shared"),
    "3 + 11 epochs": Recipe.socket().replace(align_epochs=3, epochs=11),
    "3 + 27 epochs, new crops": Recipe.thorough(),
    "3 + 27 epochs, new crops, shared statistics": Recipe.thorough().replace(pair_statistics="shared"),
}
"""Epochs of alignment and of all terms: the default, one with less alignment alone, and the thorough one;
two of them with pairs normalised together with the target's images as well."""
LONGEST = LENGTHS["3 + 27 epochs, new crops, shared statistics"]
READ_AS = {"kinect_v1": "normals", "kinect_v2": "normals", "realsense": "normals", "xtion": "inverse"}
"""How each camera's depth is read in the last row of "lengths": what held-out far pairs choose after
150 steps, as with `--depth-encoding auto` (`encoding_choice`)."""


@dataclass(frozen=True)
class Job:
    """One adaptation and all that decides it.

    Parameters
    ----------
    sources : shipped networks.
    modality, sensor, strength : of the target and of the pairs.
    mix : "near", "far", a share of near rooms, or "" without pairs.
    count, kinds : how many pairs, of how many kinds of room; None for all.
    recipe : complete.
    seed : of the adaptation, and of the choice of pairs.
    baseline : what is done in place of the recipe, or with it: see `other_methods`.
    untidy : how the target is not even: see `other_methods.untidy`; "" where nobody asks.
    encoding : how depth is read; "" for metric depth.
    """

    sources: tuple[str, ...] = ("rgb_kinect_v1",)
    modality: str = "depth"
    sensor: str = ONE
    strength: float = 1.0
    mix: str = ""
    count: int | None = None
    kinds: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    baseline: str = ""
    untidy: str = ""
    encoding: str = ""

    @property
    def origin(self) -> str:
        """Sixteen digits that name this job, the images and the networks that it reads."""
        text = json.dumps(self._decisive(), sort_keys=True) + data_digest()
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _decisive(self) -> dict[str, Any]:
        """All that decides the result: with one source, how several share and begin does not."""
        about = asdict(self)
        if len(self.sources) == 1:
            del about["recipe"]["source_gradient"], about["recipe"]["mixing_start"]
        # runs that were made before these were thought of keep their names
        if about["recipe"]["pair_statistics"] == Recipe().pair_statistics:
            del about["recipe"]["pair_statistics"]
        for name in ("baseline", "untidy", "encoding"):
            if not about[name]:
                del about[name]
        return about

    @property
    def alignment(self) -> str:
        """Names the first epochs, of alignment alone; "" where there are none."""
        if not self.recipe.align_epochs:
            return ""
        terms = {"lambda_bn": 0.0, "lambda_pl": 0.0, "lambda_im": 0.0, "bn_layers": "all", "bn_form": "kl"}
        later = terms | {"bn_average": 0.0}
        if len(self.sources) > 1:
            later["mixing_start"] = "even"
        decisive = self._decisive()
        about = decisive | {"recipe": decisive["recipe"] | later}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


@cache
def data_digest() -> str:
    """Twelve digits that name the images and networks that ship."""
    from socketlab.files import data_folder, read_manifest

    parts = ("pocketrooms/target_", "pocketrooms/ti_", "pocketrooms/index.csv", "models/")
    listed = sorted(item for item in read_manifest(data_folder()).items() if item[0].startswith(parts))
    return hashlib.sha256(str(listed).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Row:
    """One line of one table: its words, in columns, and the job of each of its runs.

    Parameters
    ----------
    table : the name of the CSV.
    about : column → value; rows of equal words are averaged.
    job : None for an oracle, a shipped network that was trained with the target's labels.
    oracle : its name.
    against : words of the row that this one is compared to, run by run, where there is one.
    """

    table: str
    about: Words
    job: Job | None
    oracle: str = ""
    against: Words = ()


def words(**about: object) -> Words:
    """Column → value as a `Row` keeps them."""
    return tuple((name, str(value)) for name, value in about.items())


STILL = ("source-only", "batch", "adabn")
"""Methods without any chance in them: one run says all."""


def same_sensor(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "methods": each sensor's own RGB network → its depth; first the rows that README shows."""
    socket = Recipe.socket()
    with_bn = socket.replace(lambda_bn=0.1)
    first = [(name, "", Recipe.for_method(name)) for name in (*STILL, "shot")]
    first += [("socket", mix, socket) for mix in ("near", "far")]
    first += [("socket with BN", mix, with_bn) for mix in ("near", "far")]
    for sensor in SENSORS:
        yield Row("methods", words(method="oracle", pairs="", sensor=sensor), None, f"oracle_depth_{sensor}")
    yield from _on_each_sensor("methods", first, seeds)


def ablations(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "ablations": other methods without pairs, each term removed, and the published recipe."""
    socket = Recipe.socket()
    kinds = [(name, "", Recipe.for_method(name)) for name in ("tent", "shot-im", "aad")] + [
        ("socket without PL", "near", socket.replace(lambda_pl=0.0)),
        ("socket without IM", "near", socket.replace(lambda_im=0.0)),
        ("alignment alone", "near", socket.replace(lambda_pl=0.0, lambda_im=0.0)),
        ("socket without maps", "near", socket.replace(ti_map=0.0)),
        ("paper", "near", Recipe.paper()),
    ]
    yield from _on_each_sensor("ablations", kinds, seeds)


def rates(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "rates": the methods without pairs at the rate of the others and at a tenth of it, one sensor."""
    kinds = [
        (method, f"{rate:g}", Recipe.for_method(method).replace(trunk_lr=rate, bottleneck_lr=rate))
        for method in ("shot-im", "shot", "aad")
        for rate in (0.05, 0.005)
    ]
    for seed in seeds:
        for method, rate, recipe in kinds:
            yield Row("rates", words(method=method, rate=rate), Job(recipe=recipe, seed=seed))


def _on_each_sensor(table: str, kinds: list[tuple[str, str, Recipe]], seeds: Iterable[int]) -> Iterator[Row]:
    for seed in seeds:
        for sensor in SENSORS:
            for method, mix, recipe in kinds:
                if method in STILL and seed:
                    continue
                job = Job((f"rgb_{sensor}",), "depth", sensor, mix=mix, recipe=recipe, seed=seed)
                yield Row(table, words(method=method, pairs=mix, sensor=sensor), job)


def slower_forms(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "forms": what the quicker form of the default run costs in accuracy, against the slower one."""
    socket = Recipe.socket()
    forms = {
        "32 bits, a new view of a pair every time": {"precision": "float32", "pair_views": 0},
        "16 bits where the processor has them, four views remembered": {},
    }
    slow = words(form=next(iter(forms)))
    for seed in seeds:
        for name, changes in forms.items():
            yield Row(
                "forms",
                words(form=name),
                Job(mix="near", recipe=socket.replace(**changes), seed=seed),
                against=slow,
            )


def faults(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "paper": the published recipe, and one departure of ours at a time, near pairs."""
    paper = Recipe.paper()
    mended = {
        "as published": {},
        "shares of L_BN normalised": {"bn_share": "normalised"},
        "L_BN as a divergence": {"bn_form": "kl", "lambda_bn": 0.1},
        "L_TI as a mean": {"ti_form": "mean", "lambda_ti": 3.0},
        "two rounds of pseudo-labels": {"pseudo_labels": "shot"},
        "statistics re-estimated": {"test_statistics": "reestimated"},
        "our rates": {"trunk_lr": 0.05, "bottleneck_lr": 0.05, "schedule": "one-cycle"},
        "our rates, no L_BN": {
            "trunk_lr": 0.05,
            "bottleneck_lr": 0.05,
            "schedule": "one-cycle",
            "lambda_bn": 0.0,
        },
    }
    for seed in seeds:
        for name, changes in mended.items():
            job = Job(mix="near", recipe=paper.replace(**changes), seed=seed)
            yield Row("paper", words(recipe=name), job, against=words(recipe="as published"))


def across_sensors(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "transfers": the RGB network of one sensor → the depth of another, near pairs of the target's."""
    for seed in seeds:
        for source in SENSORS:
            for target in SENSORS:
                for method, mix in (("source-only", ""), ("adabn", ""), ("socket", "near")):
                    if method in STILL and seed:
                        continue
                    job = Job(
                        (f"rgb_{source}",),
                        "depth",
                        target,
                        mix=mix,
                        recipe=Recipe.for_method(method),
                        seed=seed,
                    )
                    yield Row("transfers", words(source=source, sensor=target, method=method), job)


def many_sources(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "sources": all four RGB networks → each depth sensor."""
    networks = tuple(f"rgb_{sensor}" for sensor in SENSORS)
    for seed in seeds:
        for target in SENSORS:
            for method, title in (("source-only", "mean of networks"), ("adabn", "mean, AdaBN")):
                if not seed:
                    job = Job(networks, "depth", target, recipe=Recipe.for_method(method))
                    yield Row("sources", words(method=title, sensor=target), job)
            decision = Job(networks, "depth", target, recipe=Recipe.shot(), seed=seed)
            yield Row("sources", words(method="decision", sensor=target), decision)
            even = words(method="socket, shares begin even", sensor=target)
            for start, about in (("even", even), ("information", words(method="socket", sensor=target))):
                recipe = Recipe.socket().replace(mixing_start=start)
                job = Job(networks, "depth", target, mix="near", recipe=recipe, seed=seed)
                yield Row("sources", about, job, against=even)


def many_sources_in_near_infrared(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "sources_nir": the beginning of the shares on a modality that it was not thought up on."""
    networks, socket = tuple(f"rgb_{sensor}" for sensor in SENSORS), Recipe.socket()
    for seed in seeds:
        for target in SENSORS:
            own = Job((f"rgb_{target}",), "nir", target, mix="near", recipe=socket, seed=seed)
            yield Row("sources_nir", words(method="own network alone", sensor=target), own)
            even = words(method="socket, shares begin even", sensor=target)
            for start, about in (("even", even), ("information", words(method="socket", sensor=target))):
                recipe = socket.replace(mixing_start=start)
                job = Job(networks, "nir", target, mix="near", recipe=recipe, seed=seed)
                yield Row("sources_nir", about, job, against=even)


def near_infrared(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "nir": RGB → near-infrared and back; longer recipes against the default."""
    ways = [(f"rgb_{ONE}", "nir", "nir"), ("nir", "rgb", f"rgb_{ONE}")]
    kinds = [(m, "", Recipe.for_method(m)) for m in (*STILL, "shot")]
    kinds += [("socket", mix, Recipe.socket()) for mix in ("near", "far")]
    longer = {"socket, thorough": Recipe.thorough(), "socket, thorough, shared statistics": LONGEST}
    kinds += [(method, mix, recipe) for method, recipe in longer.items() for mix in ("near", "far")]
    for source, modality, oracle in ways:
        way = f"{source.split('_')[0]} → {modality}"
        yield Row("nir", words(way=way, method="oracle", pairs=""), None, oracle)
        for seed in seeds:
            for method, mix, recipe in kinds:
                if method in STILL and seed:
                    continue
                job = Job((source,), modality, mix=mix, recipe=recipe, seed=seed)
                plain = words(way=way, method="socket", pairs=mix) if method in longer else ()
                yield Row("nir", words(way=way, method=method, pairs=mix), job, against=plain)


def pairs(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "pairs": how many pairs, of how many kinds of room, near or far, through how good a sensor."""
    socket, shot = Recipe.socket(), Recipe.shot()
    for seed in seeds:
        for mix in ("near", "far"):
            for count in (0, 25, 50, 100, 250, ALL):
                recipe, used = (socket, mix) if count else (shot, "")
                job = Job(mix=used, count=None if count in (0, ALL) else count, recipe=recipe, seed=seed)
                yield Row("pairs", words(varied="pairs", pairs=mix, value=count), job)
        for kinds in (1, 3, 10):
            job = Job(mix="near", count=50, kinds=kinds, recipe=socket, seed=seed)
            yield Row("pairs", words(varied="kinds of 50 pairs", pairs="near", value=kinds), job)
        for share in (0.0, 0.25, 0.5, 1.0):
            job = Job(mix=str(share), count=400, recipe=socket, seed=seed)
            yield Row("pairs", words(varied="share of near rooms in 400", pairs="mixed", value=share), job)
        for strength in (0.0, 1.0, 3.0):
            for method, mix in (("adabn", ""), ("socket", "near")):
                if method in STILL and seed:
                    continue
                job = Job(strength=strength, mix=mix, recipe=Recipe.for_method(method), seed=seed)
                yield Row("pairs", words(varied="sensor strength", pairs=method, value=strength), job)


def bn_matching(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "bn": what matching batch-norm statistics is worth; each row against the same run without it."""
    shot, socket = Recipe.shot(), Recipe.socket()
    nothing = shot.replace(lambda_pl=0.0, lambda_im=0.0)
    # a network that does not normalise by its batches diverges at the rate of the others
    fixed = {"bn_mode": "running", "test_statistics": "running", "trunk_lr": 0.005, "bottleneck_lr": 0.005}
    at_once = {"align_epochs": 0, "epochs": 15}
    few = [{"lambda_bn": w} for w in (0.3, 3.0)]
    weights = [{"lambda_bn": w} for w in (0.1, 0.3, 1.0, 3.0)]
    layers = [{"lambda_bn": 0.3, "bn_layers": which} for which in ("first", "early", "late")]
    everything = [*weights, *layers, {"lambda_bn": 0.3, "bn_average": 0.9}]
    settings: list[tuple[str, dict[str, Any], Recipe, list[dict[str, Any]]]] = [
        ("alone", {}, nothing, few),
        ("alone, source's statistics", {}, nothing.replace(**fixed), few),
        ("shot", {}, shot, everything),
        ("shot, source's statistics", {}, shot.replace(**fixed), few),
        ("25 near pairs", {"mix": "near", "count": 25}, socket, few),
        ("25 near pairs, source's statistics", {"mix": "near", "count": 25}, socket.replace(**fixed), few),
        ("25 near pairs, at once", {"mix": "near", "count": 25}, socket.replace(**at_once), few[:1]),
        ("100 near pairs", {"mix": "near", "count": 100}, socket, few),
        ("all near pairs", {"mix": "near"}, socket, weights),
        ("25 far pairs", {"mix": "far", "count": 25}, socket, few),
        ("100 far pairs", {"mix": "far", "count": 100}, socket, few),
        ("all far pairs", {"mix": "far"}, socket, everything),
        ("all far pairs, at once", {"mix": "far"}, socket.replace(**at_once), few[:1]),
        ("shot, ideal camera", {"strength": 0.0}, shot, few[:1]),
        ("shot, noise trebled", {"strength": 3.0}, shot, few[:1]),
        ("all near pairs, ideal camera", {"mix": "near", "strength": 0.0}, socket, few[:1]),
        ("all near pairs, noise trebled", {"mix": "near", "strength": 3.0}, socket, few[:1]),
    ]
    for seed in seeds:
        for name, data, recipe, variants in settings:
            plain = words(setting=name, lambda_bn=0.0, layers="all", memory=0.0)
            for changes in [{"lambda_bn": 0.0}, *variants]:
                changed = recipe.replace(**changes)
                if not any(
                    (changed.lambda_bn, changed.lambda_ti, changed.lambda_im)
                ):  # nothing to learn from
                    changed = Recipe.for_method("source-only" if changed.bn_mode == "running" else "adabn")
                row = words(
                    setting=name,
                    lambda_bn=float(changes["lambda_bn"]),
                    layers=changes.get("bn_layers", "all"),
                    memory=changes.get("bn_average", 0.0),
                )
                yield Row("bn", row, Job(**data, recipe=changed, seed=seed), against=plain)


def watched(seeds: Iterable[int]) -> list[tuple[str, Job]]:
    """Table "selection": runs of which every epoch is judged, by rules without labels and by the labels."""
    kinds = {"shot": "", "aad": "", "socket": "far"}
    return [
        (method, Job(mix=mix, recipe=Recipe.for_method(method), seed=seed))
        for seed in seeds
        for method, mix in kinds.items()
    ]


def lengths(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "lengths": how long to align, and how long to learn with all terms; many and few pairs."""
    for seed in seeds:
        for sensor in SENSORS:
            for mix, count in (("near", None), ("far", None), ("near", 25)):
                plain = words(recipe=next(iter(LENGTHS)), pairs=mix, count=count or ALL, sensor=sensor)
                for name, recipe in LENGTHS.items():
                    job = Job(
                        (f"rgb_{sensor}",), "depth", sensor, mix=mix, count=count, recipe=recipe, seed=seed
                    )
                    about = words(recipe=name, pairs=mix, count=count or ALL, sensor=sensor)
                    yield Row("lengths", about, job, against=plain)
                    if mix == "far" and recipe is LONGEST:
                        about = words(recipe=f"{name}, encoding chosen", pairs=mix, count=ALL, sensor=sensor)
                        yield Row("lengths", about, replace(job, encoding=READ_AS[sensor]), against=plain)


def rivals(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "rivals": what else can be done with the same pairs, each against SOCKET."""
    from rivals.pair_losses import PAIR_LOSSES
    from rivals.translation import FEATURES

    socket = LENGTHS["3 + 11 epochs"]
    others = {name: weight for name, (_, weight) in PAIR_LOSSES.items()} | {"translator": FEATURES}
    attract = socket.replace(lambda_pl=0.0, lambda_im=0.0, lambda_aad=1.0)
    for seed in seeds:
        for sensor in SENSORS:
            for mix in ("near", "far"):
                plain = words(method="socket", pairs=mix, sensor=sensor)
                about = {"sensor": sensor, "mix": mix, "seed": seed, "sources": (f"rgb_{sensor}",)}
                yield Row("rivals", plain, Job(recipe=socket, **about), against=plain)
                for name, recipe in (
                    ("features alone", socket.replace(ti_map=0.0)),
                    ("pairs and AaD", attract),
                ):
                    row = words(method=name, pairs=mix, sensor=sensor)
                    yield Row("rivals", row, Job(recipe=recipe, **about), against=plain)
                for name, weight in others.items():
                    row = words(method=name, pairs=mix, sensor=sensor)
                    job = Job(recipe=socket, baseline=f"{name}:{weight:g}", **about)
                    yield Row("rivals", row, job, against=plain)


def labels(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "labels": what some labelled depth images of each class are worth, with SOCKET and without."""
    from other_methods import LABELS

    socket, none = LENGTHS["3 + 11 epochs"], Recipe.for_method("adabn")
    starts = {"from scratch": none, "fine-tuned": none, "socket, then labels": socket}
    for seed in seeds:
        for sensor in SENSORS:
            for start, recipe in starts.items():
                mix = "near" if recipe is socket else ""
                about = {"mix": mix, "recipe": recipe, "seed": seed if mix else 0}
                plain = words(start=start, labels=0, sensor=sensor)
                if mix or (start == "fine-tuned" and not seed):  # no label, no chance: one run of AdaBN
                    yield Row("labels", plain, Job((f"rgb_{sensor}",), "depth", sensor, **about))
                for count in LABELS:
                    about |= {"seed": seed, "baseline": f"{start}:{count}"}
                    job = Job((f"rgb_{sensor}",), "depth", sensor, **about)
                    row = words(start=start, labels=count, sensor=sensor)
                    yield Row("labels", row, job, against=plain if mix else ())


def untidy_targets(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "untidy": uneven classes, a class missing, strangers among the target's images."""
    socket = Recipe.socket()
    kinds = [
        ("adabn", "", Recipe.for_method("adabn")),
        ("shot", "", Recipe.shot()),
        ("socket", "near", socket),
    ]
    kinds += [
        ("socket without IM", "near", socket.replace(lambda_im=0.0)),
        ("socket, λ_IM = 0.3", "near", socket.replace(lambda_im=0.3)),
    ]
    for seed in seeds:
        for sensor in SENSORS:
            for how in ("even", "fewer", "uneven", "missing", "strangers"):
                plain = words(target=how, method="socket", sensor=sensor)
                for method, mix, recipe in kinds:
                    if how == "fewer" and "IM" in method:  # it tells what the number costs, no more
                        continue
                    job = Job(
                        (f"rgb_{sensor}",), "depth", sensor, mix=mix, recipe=recipe, seed=seed, untidy=how
                    )
                    row = words(target=how, method=method, sensor=sensor)
                    yield Row("untidy", row, job, against=plain)


def one_of_several(seeds: Iterable[int]) -> Iterator[Row]:
    """Table "distilled": four networks, and the one that they teach."""
    networks = tuple(f"rgb_{sensor}" for sensor in SENSORS)
    for seed in seeds:
        for sensor in SENSORS:
            mixture = words(network="four networks", sensor=sensor)
            for name, baseline in (("four networks", ""), ("one out of four", "distilled")):
                job = Job(
                    networks,
                    "depth",
                    sensor,
                    mix="near",
                    recipe=Recipe.socket(),
                    seed=seed,
                    baseline=baseline,
                )
                yield Row("distilled", words(network=name, sensor=sensor), job, against=mixture)


TABLES = (
    same_sensor,
    lengths,
    rivals,
    labels,
    untidy_targets,
    one_of_several,
    slower_forms,
    near_infrared,
    bn_matching,
    many_sources,
    many_sources_in_near_infrared,
    ablations,
    rates,
    pairs,
    faults,
    across_sensors,
)
"""In the order in which they are measured."""


def rows(seeds: Iterable[int]) -> list[Row]:
    """All lines of all tables."""
    return [row for table in TABLES for row in table(list(seeds))]
