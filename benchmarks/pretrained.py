"""A trunk with ImageNet's weights, on rooms and on a real set: ``python benchmarks/pretrained.py``.

For PocketRooms (Kinect v1, near pairs) and, with ``--pack``, an imported set of views of 112 pixels: trains
EfficientNet-Lite0 on colour and on the target's labels, as ``socketlab train-source`` does; adapts it as
``socketlab adapt`` does, by several methods; and asks what L_BN is worth, with target batches normalised by
themselves and by the source's statistics. Writes ``data/results/pretrained.csv``, a line per run, and
puts the tables into ``docs/results.md``. Finished runs are kept; the last epoch counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
from experiments import data_digest
from results import write_rows
from tables import read
from tqdm import tqdm

BACKBONE = "efficientnet_lite0"
RATES = {"published rates": {}, "the kit's rates": {"trunk_lr": 0.05, "bottleneck_lr": 0.05}}
OWN, SOURCES = "batches", "source"
STATISTICS: dict[str, dict[str, Any]] = {
    OWN: {},
    SOURCES: {"bn_mode": "running", "test_statistics": "running"},
}
"""By what a target batch is normalised, in training and in the test."""
WEIGHTS = (0.0, 0.1, 0.5, 3.0)
FIELDS = [
    "set", "method", "rates", "statistics", "lambda_bn", "seed", "held_out", "note", "seconds", "data"
]  # fmt: skip
Run = dict[str, Any]


def main() -> None:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pack", help="an imported set, for example of `benchmarks/real.py --size 128`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--networks", type=Path, default=Path("packs/pretrained"), help="where networks lie")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no run begins")
    chosen = parser.parse_args()
    from socketlab.files import data_folder

    folder, end = data_folder() / "results", time.time() + chosen.limit
    table = folder / "pretrained.csv"
    done = list(read(table)) if table.exists() else []
    known = {tuple(line[name] for name in FIELDS[:6]) for line in done}
    places: dict[str, Any] = {"rooms": None} | ({Path(chosen.pack).name: chosen.pack} if chosen.pack else {})
    plan = [run for run in runs(places, chosen.seeds) if tuple(run[name] for name in FIELDS[:6]) not in known]
    for run in tqdm(plan, unit="run"):
        if time.time() > end:
            break
        begun = time.perf_counter()
        where = places[run["set"]]
        found = carry_out(run, where, chosen.networks, chosen.device)
        done.append(run | found | {"seconds": f"{time.perf_counter() - begun:.0f}", "data": digest_of(where)})
        write_rows(table, done, FIELDS)
    pages.fill(folder)


def runs(places: dict[str, Any], seeds: int) -> Iterator[Run]:
    """Every run in words, the most telling first."""
    published, own = RATES
    kinds = [("source-only", "", OWN, 0.0), ("adabn", "", OWN, 0.0), ("oracle", "", OWN, 0.0)]
    kinds += [("socket", published, statistics, weight) for statistics in STATISTICS for weight in WEIGHTS]
    kinds += [("socket", own, OWN, 0.0), ("shot", published, OWN, 0.0), ("shot", own, OWN, 0.0)]
    kinds += [("choice", "", OWN, 0.0)]
    for seed in range(seeds):
        for method, rates, statistics, weight in kinds:
            for place in places:
                about = {"set": place, "method": method, "rates": rates, "statistics": statistics}
                yield about | {"lambda_bn": str(weight), "seed": str(seed)}


def digest_of(place: str | None) -> str:
    """What names the images: of the rooms or the pack."""
    from socketlab.images import packs
    from socketlab.runs import splits

    return data_digest() if place is None else splits.digest(packs.open_pack(place))[:12]


def carry_out(run: Run, place: str | None, networks: Path, device: str) -> Run:
    """One run, in the manner of the command line; the network is trained where there is none yet."""
    from socketlab import Epoch, adapt, features
    from socketlab.errors import LabError
    from socketlab.measures.model_selection import held_out_ranks
    from socketlab.runs.settings import Settings, default_recipe, gather, lengthened, resolved
    from socketlab.speed import best_execution

    seed, method = int(run["seed"]), run["method"]
    file = network_of(run["set"], place, "rgb", seed, networks, device)
    name = {"oracle": "source-only", "choice": "socket"}.get(method, method)
    changes = RATES.get(run["rates"], {}) | STATISTICS[run["statistics"]]
    if name == "socket":
        changes |= {"lambda_bn": float(run["lambda_bn"])}
    recipe = default_recipe(name, (file,)).replace(**changes)
    oracle = network_of(run["set"], place, "depth", seed, networks, device) if method == "oracle" else None
    settings = Settings(
        method=name, recipe=recipe, seed=seed, device=device, source=file, pack=place, oracle=oracle
    )
    material = gather(resolved(settings))
    if method == "choice":
        ways = {words: (recipe.replace(**rates), material.normalisation) for words, rates in RATES.items()}
        ranks, _ = held_out_ranks(material.source, material.target, material.pairs, ways, seed)
        return {"note": " · ".join(f"{words} {rank:.3f}" for words, rank in ranks.items())}
    if method == "oracle":
        return {"held_out": f"{features.accuracy(material.oracle, material.held_out):.4f}"}
    recipe = lengthened(recipe, len(material.target))
    events = adapt(
        material.sources, material.target, material.pairs, recipe, seed=seed, every=10**6,
        normalisation=material.normalisation, execution=best_execution(),
    )  # fmt: skip
    try:
        adapted = [event for event in events if isinstance(event, Epoch)][-1].state.adapted
    except LabError as error:  # its loss or its features stopped being numbers
        return {"held_out": "diverged", "note": str(error).split(":")[0]}
    return {"held_out": f"{features.accuracy(adapted, material.held_out):.4f}"}


def network_of(place: str, pack: str | None, modality: str, seed: int, networks: Path, device: str) -> str:
    """File of a network of the set, trained where there is none, as ``socketlab train-source`` trains it."""
    from socketlab import save_source
    from socketlab.images import packs
    from socketlab.runs import splits
    from socketlab.runs.train_source import source_recipe

    file = networks / f"{BACKBONE}_{modality}_{place}_{seed}.safetensors"
    if file.exists():
        return str(file)
    recipe = source_recipe(BACKBONE, None, {})
    if pack is None:
        task = splits.rooms_training_task("kinect_v1", modality, recipe)
    else:
        opened = packs.open_pack(pack)
        domain = splits.target_domain(opened, modality) if modality != "rgb" else splits.source_domain(opened)
        task = splits.pack_training_task(opened, recipe, modality, domain)
    trained = splits.train_on(task, lambda events, _: events, seed=seed, device=device)
    networks.mkdir(parents=True, exist_ok=True)
    save_source(trained, file)
    print(file, trained.card["held_out_accuracy"], file=sys.stderr)
    return str(file)


if __name__ == "__main__":
    main()
