"""SOCKET on real images: ``python benchmarks/real.py LISTS --images FOLDER`` writes ``docs/real_results.md``.

LISTS is a folder of text lists (docs/real_data.md), FOLDER that in which their paths begin. Imports the set,
trains three source networks on colour and three oracles on the target's labels, then runs every method, and
SOCKET with every depth encoding, three seeds from each source network. The last epoch counts, and nothing is
chosen by a target label. Finished runs are kept in ``data/results/real_<name>.csv``; a later call goes on.

Test images are frames of videos, so neighbours are near-duplicates. Intervals resample blocks of each class's
video, not frames, and average over the runs.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from pages import TITLES
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "real_results.md"
SEEDS = (0, 1, 2)
NETWORKS = "source network", "oracle"
ORDER = ("source-only", "adabn", "tent", "shot", "aad", "paper", "socket", "oracle")
CHOSEN = "chosen by the pairs"
BLOCKS = 5
"""Parts in time of each class's test video."""


def main() -> None:
    """Import, train, adapt, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("lists", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "packs" / "real", help="the pack and the networks")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--name", default="", help="of the table (default: the name of the images' folder)")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no run begins")
    chosen = parser.parse_args()
    name = chosen.name or chosen.images.resolve().name
    if not (chosen.out / "manifest.json").exists():
        import_set(chosen)
    table = ROOT / "data" / "results" / f"real_{name}.csv"
    done = read(table)
    todo = [job for job in jobs(chosen.out) if key(job) not in {key(line) for line in done}]
    end = time.time() + chosen.limit
    context = get_context("spawn")
    with ProcessPoolExecutor(chosen.processes, context) as pool:
        for kind in ("network", "run"):
            pending = [
                pool.submit(carry_out, job, str(chosen.out), chosen.device, end)
                for job in todo
                if (job["method"] in NETWORKS) == (kind == "network")
            ]
            for future in tqdm(as_completed(pending), total=len(pending), desc=kind):
                if (line := future.result()) is not None:
                    done.append(line)
                    write(table, done)
    write_page(name, chosen, done)


def import_set(chosen: argparse.Namespace) -> None:
    """The command that a user types."""
    command = [sys.executable, "-m", "socketlab", "import", "lists", str(chosen.lists)]
    command += ["--option", f"base={chosen.images}", "--size", str(chosen.size), "--out", str(chosen.out)]
    subprocess.run(command, check=True)


def jobs(pack_folder: Path) -> list[dict[str, Any]]:
    """Every network and every run, a dictionary each."""
    from socketlab.images.encodings import DEPTH_ENCODINGS

    found = [job(kind, source=source) for kind in NETWORKS for source in SEEDS]
    found += [job(method, source=source) for method in ("choice", "source-only", "adabn") for source in SEEDS]
    for seed in SEEDS:
        found += [job("socket", how, source, seed) for how in DEPTH_ENCODINGS for source in SEEDS]
        found += [
            job(how, source=source, seed=seed) for how in ("shot", "aad", "tent", "paper") for source in SEEDS
        ]
    return found


def job(method: str, encoding: str = "metric", source: int = 0, seed: int = 0) -> dict[str, Any]:
    """One row of the CSV, before it is run."""
    return {"method": method, "encoding": encoding, "source": source, "seed": seed}


def key(line: dict[str, Any]) -> tuple[str, ...]:
    """What names a run."""
    return tuple(str(line[name]) for name in ("method", "encoding", "source", "seed"))


def carry_out(job: dict[str, Any], folder: str, device: str, end: float) -> dict[str, Any] | None:
    """Train a network, or adapt one; accuracy on the target's held-out images, image by image."""
    import torch

    if time.time() > end:
        return None
    torch.set_num_threads(1)
    begun = time.perf_counter()
    if job["method"] == "choice":
        found = choose(job, Path(folder), device)
    else:
        found = (train if job["method"] in NETWORKS else adapt)(job, Path(folder), device)
    return job | found | {"seconds": f"{time.perf_counter() - begun:.0f}"}


def train(job: dict[str, Any], folder: Path, device: str) -> dict[str, Any]:
    """A source network on the first domain's colour, or an oracle on the target's labels."""
    from socketlab import save_source
    from socketlab.images import packs
    from socketlab.runs import splits
    from socketlab.runs.train_source import train as fit

    pack = packs.open_pack(folder)
    target = splits.target_modality(pack)
    modality = target if job["method"] == "oracle" else "rgb"
    domain = splits.target_domain(pack, target) if job["method"] == "oracle" else splits.source_domain(pack)
    images, test = splits.scenes(pack, modality, domain)
    for event in fit(images.to(device), seed=job["source"]):
        last = event
    save_source(last.source, network_file(folder, job["method"], job["source"]))  # type: ignore[union-attr]
    return measured(last.source, test.to(device))  # type: ignore[union-attr]


def network_file(folder: Path, method: str, seed: int) -> Path:
    """Where a network that was trained here lies."""
    return folder / f"{method.replace(' ', '_')}_{seed}.safetensors"


def adapt(job: dict[str, Any], folder: Path, device: str) -> dict[str, Any]:
    """One adaptation."""
    from socketlab import Epoch, Recipe, load_source
    from socketlab import adapt as events
    from socketlab.images import encodings, packs
    from socketlab.runs import splits
    from socketlab.runs.settings import lengthened

    pack = packs.open_pack(folder)
    modality = splits.target_modality(pack)
    target, test = splits.scenes(pack, modality, splits.target_domain(pack, modality))
    recipe = lengthened(Recipe.for_method(job["method"]), len(target))
    source = load_source(network_file(folder, "source network", job["source"]))
    source.network.to(device)
    target = target.to(device)
    normalisation = encodings.measure(target.images[modality], modality, job["encoding"])
    pairs = None
    if recipe.lambda_ti > 0:
        pairs = splits.pairs(pack, (source.modality, modality)).to(device)
    for event in events(
        source, target, pairs, recipe, seed=job["seed"], every=10**6, normalisation=normalisation
    ):
        if isinstance(event, Epoch):
            state = event.state
    return measured(state.adapted, test.to(device))


def choose(job: dict[str, Any], folder: Path, device: str) -> dict[str, Any]:
    """The depth encoding that held-out pairs choose, without a label."""
    from socketlab import Recipe, load_source
    from socketlab.images import packs
    from socketlab.measures.model_selection import choose_encoding
    from socketlab.runs import splits

    pack = packs.open_pack(folder)
    target, _ = splits.scenes(pack, "depth", splits.target_domain(pack, "depth"))
    source = load_source(network_file(folder, "source network", job["source"]))
    source.network.to(device)
    pairs = splits.pairs(pack, (source.modality, "depth")).to(device)
    found = choose_encoding(source, target.to(device), pairs, Recipe.socket())
    return {"chosen": found.encoding, "ranks": " ".join(f"{n} {r:.3f}" for n, r in found.ranks.items())}


def measured(network: Any, test: Any) -> dict[str, Any]:
    """Accuracy, and right or wrong for every image, in the order of the names."""
    from socketlab import features

    predicted = features.predict(network, test)[0].argmax(dim=1).cpu()
    right = (predicted == test.labels.cpu()).numpy()
    order = sorted(range(len(test)), key=lambda i: (test.kinds[i], test.names[i]))
    digits = "".join("01"[int(right[i])] for i in order)
    return {
        "held_out": f"{right.mean():.4f}",
        "right": digits,
        "kinds": " ".join(test.kinds[i] for i in order),
    }


# ------------------------------------------------------------------------ the page


def interval(lines: list[dict[str, Any]], rounds: int = 2000) -> tuple[float, float, float]:
    """Mean accuracy over runs, with a 95 % interval over blocks of the videos, per cent."""
    right = np.array([[int(digit) for digit in line["right"]] for line in lines], float).mean(axis=0)  # (N,)
    blocks = blocks_of(lines[0]["kinds"].split())
    rng = np.random.default_rng(0)
    sums = np.array([(right[block].sum(), len(block)) for block in blocks])
    drawn = sums[rng.integers(len(blocks), size=(rounds, len(blocks)))].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], (2.5, 97.5))
    return 100 * right.mean(), 100 * low, 100 * high


def blocks_of(kinds: list[str]) -> list[np.ndarray[Any, Any]]:
    """Rows of each block in time: every class's images, in the order of their names, in `BLOCKS` parts."""
    rows = np.arange(len(kinds))
    return [
        part
        for kind in dict.fromkeys(kinds)
        for part in np.array_split(rows[[k == kind for k in kinds]], BLOCKS)
        if len(part)
    ]


def write_page(name: str, chosen: argparse.Namespace, done: list[dict[str, Any]]) -> None:
    """The tables between their marks in ``docs/real_results.md``; the prose around them stays."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    chosen_by = {line["source"]: line["chosen"] for line in done if line["method"] == "choice"}
    for line in done:
        if line["method"] == "socket" and line["encoding"] == chosen_by.get(line["source"]):
            groups.setdefault(("socket", CHOSEN), []).append(line)
        if line["method"] not in ("choice", "source network"):
            groups.setdefault((line["method"], line["encoding"]), []).append(line)
    low = interval(groups["source-only", "metric"])[0]
    top = interval(groups["oracle", "metric"])[0]
    titles = ["method", "depth as", "runs", "held-out accuracy, %", "95 % interval", "spread of runs", "way"]
    rows = [titles, ["---"] * len(titles)]
    for method, encoding in sorted(groups, key=lambda group: (ORDER.index(group[0]), group[1] == CHOSEN)):
        lines = groups[method, encoding]
        centre, below, above = interval(lines)
        spread = np.std([100 * float(line["held_out"]) for line in lines], ddof=1) if len(lines) > 1 else 0.0
        way = f"{(centre - low) / (top - low):.0%}"
        cells = [f"{centre:.1f}", f"{below:.1f} to {above:.1f}", f"{spread:.1f}", way]
        rows.append([TITLES[method], encoding, str(len(lines)), *cells])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    text = (
        PAGE.read_text(encoding="utf-8")
        if PAGE.exists()
        else f"<!-- table:{name} -->\n<!-- /table:{name} -->\n"
    )
    begin, end = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n" + table + f"\n{end}{after}", encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """Lines of an earlier call."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    """All lines, whole or not at all."""
    from socketlab.files import write_whole

    fields = [
        "method",
        "encoding",
        "source",
        "seed",
        "held_out",
        "chosen",
        "ranks",
        "seconds",
        "right",
        "kinds",
    ]
    text = [",".join(fields)]
    text += [",".join(str(line.get(name, "")) for name in fields) for line in sorted(lines, key=key)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, ("\n".join(text) + "\n").encode())


if __name__ == "__main__":
    main()
