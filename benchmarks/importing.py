"""How fast a data set becomes a pack, and a pack becomes batches: ``python benchmarks/importing.py``.

The set is made here, in the form of SUN RGB-D: pictures of 640 × 480, JPEG and PNG of 16 bits. The plain loop
is what one would write with Pillow: open, resize, keep. All forms take turns, in a new random order each
round, on files that are in the machine's cache; ratios are medians over the rounds. Writes
``docs/importing.md``; ``--quick`` is small and writes nothing.
"""

from __future__ import annotations

import argparse
import platform
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from joblib import cpu_count as cores
from PIL import Image

from socketlab.files import write_whole
from socketlab.images.encodings import Normalisation
from socketlab.images.importers import survey, write_pack
from socketlab.images.packs import Pack, open_pack
from socketlab.images.paired_images import random_views

PAGE = Path(__file__).resolve().parent.parent / "docs" / "importing.md"
SIZE, CROP, BATCH = 256, 224, 32
DIFFERENT = 16
"""Pictures that are drawn; the set repeats them under other names."""
NORMALISATION = Normalisation("depth", (0.35,) * 3, (0.2,) * 3)
Times = dict[str, list[float]]


def make_set(root: Path, scenes: int) -> Path:
    """Four sensors, two kinds of room that all have seen and one that they have not."""
    noise = np.random.default_rng(0)
    for number in range(min(scenes, DIFFERENT)):
        coarse = noise.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC))
        grain = noise.normal(0, 6, smooth.shape)
        colours = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
        metres = (800 + 20 * smooth[..., 0].astype(np.int64) + noise.integers(0, 30, (480, 640))).astype(
            np.uint16
        )
        metres[noise.random((480, 640)) < 0.1] = 0
        folder = root / "drawn" / str(number)
        folder.mkdir(parents=True)
        colours.save(folder / "rgb.jpg", quality=92)
        Image.fromarray((metres << 3) | (metres >> 13)).save(folder / "depth.png")
    places = ("kv1/b3dodata", "kv2/kinect2data", "realsense/lg", "xtion/xtion_align_data")
    for number in range(scenes):
        place = places[number % len(places)]
        kind = "storage" if number % 16 == 0 else ("office", "bedroom")[number // 4 % 2]
        folder = root / "SUNRGBD" / place / f"frame_{number:06}"
        (folder / "image").mkdir(parents=True)
        (folder / "depth").mkdir()
        drawn = root / "drawn" / str(number % DIFFERENT)
        shutil.copy(drawn / "rgb.jpg", folder / "image" / f"{number:06}.jpg")
        shutil.copy(drawn / "depth.png", folder / "depth" / f"{number:06}.png")
        (folder / "scene.txt").write_text(kind)
    return root / "SUNRGBD"


def plain_loop(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Open, resize and keep every picture, one after the other: name → colours and depth."""
    kept = {}
    for folder in sorted(path.parent for path in root.rglob("scene.txt")):
        (colours,), (depth,) = (folder / "image").iterdir(), (folder / "depth").iterdir()
        with Image.open(colours) as image:
            rgb = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        with Image.open(depth) as image:
            raw = np.asarray(image).astype(np.uint16)
        metres = Image.fromarray((raw >> 3) | (raw << 13)).resize((SIZE, SIZE), Image.Resampling.NEAREST)
        kept[folder.relative_to(root).as_posix()] = rgb, np.asarray(metres)
    return kept


def in_turns(forms: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Seconds of every form, ``rounds`` times each."""
    seconds: Times = {name: [] for name in forms}
    for _ in range(rounds):
        for name in random.sample(list(forms), len(forms)):
            start = time.perf_counter()
            forms[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def quotient(seconds: Times, above: str, below: str) -> str:
    """Median over the rounds of one form's time over another's, and the middle half."""
    quotients = sorted(a / b for a, b in zip(seconds[above], seconds[below], strict=True))
    middle = quotients[len(quotients) // 4], quotients[-1 - len(quotients) // 4]
    return f"{statistics.median(quotients):.2f} ({middle[0]:.2f}–{middle[1]:.2f})"


def importing(root: Path, work: Path, rounds: int, scenes: int) -> tuple[list[str], Pack]:
    """Rows of the table of imports, and a pack."""
    counts = sorted({1, 2, 4, 8, 16, cores()} & set(range(1, cores() + 1)))

    def pack(processes: int) -> None:
        shutil.rmtree(work / "pack", ignore_errors=True)
        write_pack(survey("sunrgbd", root), work / "pack", size=SIZE, fit="stretch", processes=processes)

    forms: dict[str, Callable[[], object]] = {"plain loop": lambda: plain_loop(root)}
    forms |= {f"{n} processes": lambda n=n: pack(n) for n in counts}  # type: ignore[misc]
    seconds = in_turns(forms, rounds)
    rows = ["| form | images per second | times the plain loop |", "| --- | ---: | ---: |"]
    for name, taken in seconds.items():
        rate = 2 * scenes / statistics.median(taken)
        rows.append(f"| {name} | {rate:.0f} | {quotient(seconds, 'plain loop', name)} |")
    return rows, open_pack(work / "pack")


def feeding(pack: Pack, rounds: int) -> list[str]:
    """Rows of the table of batches: what a pack gives, and what a step takes."""
    import torchvision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = pack.load("train", modalities=("depth",))
    generator = torch.Generator().manual_seed(0)
    network = torchvision.models.resnet18(weights=None).to(device)
    still = torch.zeros(BATCH, 3, CROP, CROP, device=device)

    def batch() -> torch.Tensor:
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        views = random_views(images, rows, generator, CROP)["depth"]
        encoded = NORMALISATION.encode(views.to(device))
        if device == "cuda":
            torch.cuda.synchronize()
        return encoded

    def step() -> None:
        network(still).square().mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    seconds = in_turns({"batch": batch, "step": step, "open": lambda: open_pack(pack.folder)}, rounds)
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    rate = {name: f"{BATCH / median[name]:.0f} images per second" for name in ("batch", "step")}
    return [
        f"| batches of {BATCH} from the pack, {CROP} of {SIZE} pixels, encoded | {rate['batch']} |",
        f"| forward and backward of a ResNet-18 on them ({device}) | {rate['step']} |",
        f"| share of a step that the batch takes | {quotient(seconds, 'batch', 'step')} |",
        f"| opening the pack | {1000 * median['open']:.1f} ms |",
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small set, two rounds, nothing written")
    parser.add_argument("--scenes", type=int, default=1024, help="of the set, two images each")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    scenes, rounds = (64, 2) if chosen.quick else (chosen.scenes, chosen.rounds)
    with tempfile.TemporaryDirectory() as folder:
        root = make_set(Path(folder), scenes)
        plain_loop(root)  # brings the files into the cache
        imports, pack = importing(root, Path(folder), rounds, scenes)
        batches = feeding(pack, max(3, rounds))
    about = (
        f"`python benchmarks/importing.py`: {scenes} scenes of 640 × 480 as JPEG and 16-bit PNG, packed at "
        f"{SIZE} × {SIZE}; {rounds} rounds; {cores()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}, Pillow {Image.__version__}, torch {torch.__version__}."
    )
    page = "\n".join(
        ["# Importing", "", about, "", *imports, "", "| reading | |", "| --- | ---: |", *batches, ""]
    )
    print(page)
    if not chosen.quick:
        write_whole(PAGE, page.encode())


if __name__ == "__main__":
    main()
