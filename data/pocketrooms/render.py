"""Render PocketRooms: colour, near infrared and depth of every scene, packed into contact sheets.

    python data/pocketrooms/render.py --out data/pocketrooms [--scale 0.2] [--processes 2] [--seed 2022]

Needs Mitsuba 3 (extra "render"). Every scene has its own seed, made from (seed, split, kind, number), so the
data do not depend on the number of processes or on the order. Each finished scene is kept in a work folder
beside the output: start the command again after an interruption and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from layout import VIEW_DEGREES, Solid
from materials import Material
from scenes import CLASSES, FAR, NEAR, Scene, build, scene_seed

SIZE = 80  # pixels, both ways: a multiple of 8, so that no JPEG block spans two tiles
TILES_PER_ROW = 24
RGB_SAMPLES, NIR_SAMPLES, BOUNCES = 25, 9, 4
JPEG_QUALITY = 92
SEED = 2022
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)  # ITU-R BT.709

# split -> (kinds, role, scenes of each kind at --scale 1)
SPLITS: dict[str, tuple[tuple[str, ...], str, int]] = {
    "source_train": (CLASSES, "task", 180),
    "source_test": (CLASSES, "task", 25),
    "target_adapt": (CLASSES, "task", 60),
    "target_test": (CLASSES, "task", 40),
    "ti_near": (NEAR, "near", 50),
    "ti_far": (FAR, "far", 50),
}


class Job(NamedTuple):
    split: str
    kind: str
    role: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.kind}-{self.number:03d}"


def jobs_of(scale: float, seed: int) -> list[Job]:
    """All scenes, split by split; inside a split the kinds take turns."""
    return [
        Job(split, kind, role, number, seed)
        for split, (kinds, role, count) in SPLITS.items()
        for number in range(max(1, round(count * scale)))
        for kind in kinds
    ]


# ---- one scene -----------------------------------------------------------------------------------------


def reflectance(material: Material, band: str) -> dict[str, Any]:
    """Mitsuba's description of a diffuse surface in the band "rgb" or "nir"."""
    pattern = material.pattern
    first = list(material.colour) if band == "rgb" else [material.nir] * 3
    if pattern is None:
        return {"type": "diffuse", "reflectance": {"type": "rgb", "value": first}}
    second = list(pattern.colour) if band == "rgb" else [pattern.nir] * 3
    return {
        "type": "diffuse",
        "reflectance": _texture(pattern.form, pattern.repeats, pattern.seed, first, second),
    }


def _texture(
    form: str,
    repeats: tuple[int, int],
    seed: int,
    first: list[float],
    second: list[float],
) -> dict[str, Any]:
    """A checkerboard, stripes (a checkerboard with one row), or a small random picture."""
    import mitsuba as mi

    if form == "mottled":
        weights = np.random.default_rng(seed).random((repeats[1] + 1, repeats[0] + 1, 1), dtype=np.float32)
        pixels = weights * np.float32(first) + (1 - weights) * np.float32(second)
        return {"type": "bitmap", "bitmap": mi.Bitmap(pixels.astype(np.float32)), "raw": True}
    rows = repeats[1] / 2 if form == "checker" else 0.49
    return {
        "type": "checkerboard",
        "color0": {"type": "rgb", "value": first},
        "color1": {"type": "rgb", "value": second},
        "to_uv": mi.ScalarTransform4f().scale([repeats[0] / 2, rows, 1]),
    }


def shape_of(solid: Solid, band: str) -> dict[str, Any]:
    """Mitsuba's description of one solid."""
    import mitsuba as mi

    frame, material = solid.frame, solid.material
    shape: dict[str, Any]
    if solid.shape == "cube":
        shape = {"type": "cube", "to_world": mi.ScalarTransform4f(frame)}
    elif solid.shape in ("panel", "lid"):
        kind = "rectangle" if solid.shape == "panel" else "disk"
        shape = {"type": kind, "to_world": mi.ScalarTransform4f(frame)}
    elif solid.shape == "sphere":
        shape = {
            "type": "sphere",
            "center": frame[:3, 3].tolist(),
            "radius": float(np.linalg.norm(frame[:3, 0])),
        }
    else:
        shape = {
            "type": "cylinder",
            "p0": (frame[:3, 3] - frame[:3, 2]).tolist(),
            "p1": (frame[:3, 3] + frame[:3, 2]).tolist(),
            "radius": float(np.linalg.norm(frame[:3, 0])),
        }
    shape["bsdf"] = {"type": "twosided", "inner": reflectance(material, band)}
    if max(material.glow) > 0:
        glow = list(material.glow) if band == "rgb" else [material.nir_glow] * 3
        shape["emitter"] = {"type": "area", "radiance": {"type": "rgb", "value": glow}}
    return shape


def mitsuba_scene(scene: Scene, band: str, samples: int) -> Any:
    import mitsuba as mi

    camera = scene.camera
    up = [0.0, np.sin(np.radians(camera.roll)), np.cos(np.radians(camera.roll))]
    side = np.cross([0, 0, 1], camera.target - camera.position)
    side /= np.linalg.norm(side)
    up = (np.array([0, 0, up[2]]) + up[1] * side).tolist()
    description: dict[str, Any] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": BOUNCES},
        "sensor": {
            "type": "perspective",
            "fov": VIEW_DEGREES,
            "near_clip": 0.01,
            "far_clip": 100.0,
            "to_world": mi.ScalarTransform4f().look_at(
                origin=camera.position.tolist(), target=camera.target.tolist(), up=up
            ),
            "sampler": {"type": "multijitter", "sample_count": samples},
            "film": {
                "type": "hdrfilm",
                "width": SIZE,
                "height": SIZE,
                "rfilter": {"type": "box"},
                "pixel_format": "rgb",
                "component_format": "float32",
            },
        },
    }
    for i, solid in enumerate(scene.solids):
        description[f"solid{i}"] = shape_of(solid, band)
    # Loading in parallel, or merging shapes, leaves their order (and so the noise of a picture) to chance.
    return mi.load_dict(description, parallel=False, optimize=False)


def depth_of(world: Any, scene: Scene) -> NDArray[np.uint16]:
    """(SIZE, SIZE) distance along the optical axis at the pixel centres, in millimetres."""
    sensor = world.sensors()[0]
    axis = scene.camera.target - scene.camera.position
    axis = axis / np.linalg.norm(axis)
    depth = np.zeros((SIZE, SIZE))
    for row in range(SIZE):
        for column in range(SIZE):
            ray, _ = sensor.sample_ray(0.0, 0.5, [(column + 0.5) / SIZE, (row + 0.5) / SIZE], [0.5, 0.5])
            hit = world.ray_intersect(ray)
            if hit.is_valid():
                depth[row, column] = float(np.dot(np.array(hit.p) - scene.camera.position, axis))
    return np.round(depth * 1000).astype(np.uint16)


def without_fireflies(radiance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dim single pixels that are much brighter than all but two of their neighbours (rare light paths)."""
    light = radiance @ LUMINANCE
    padded = np.pad(light, 1, mode="edge")
    around = np.stack(
        [
            padded[1 + y : 1 + y + SIZE, 1 + x : 1 + x + SIZE]
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
            if (y, x) != (0, 0)
        ]
    )
    limit = 1.25 * np.sort(around, axis=0)[-3]
    return radiance * np.minimum(1.0, limit / np.maximum(light, 1e-9))[..., None]


def develop(radiance: NDArray[np.float32], grey: float) -> NDArray[np.uint8]:
    """Expose for a median luminance of `grey`, or less where a tenth would burn out; sRGB, 8 bits."""
    light = radiance @ LUMINANCE
    gain = min(grey / max(float(np.median(light)), 1e-6), 0.9 / max(float(np.percentile(light, 90)), 1e-6))
    linear = np.clip(radiance * gain, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def render_scene(scene: Scene, seed: int) -> dict[str, NDArray[Any]]:
    """The three pictures of a scene: rgb (80, 80, 3) uint8, nir (80, 80) uint8, depth (80, 80) uint16 mm."""
    import mitsuba as mi

    world = mitsuba_scene(scene, "rgb", RGB_SAMPLES)
    rgb = without_fireflies(np.array(mi.render(world, seed=seed), dtype=np.float32))
    depth = depth_of(world, scene)
    infrared = mi.render(mitsuba_scene(scene, "nir", NIR_SAMPLES), seed=seed + 1)
    nir = without_fireflies(np.array(infrared, dtype=np.float32))
    return {"rgb": develop(rgb, scene.exposure), "nir": develop(nir, scene.exposure)[..., 0], "depth": depth}


# ---- many scenes ---------------------------------------------------------------------------------------


def start_worker() -> None:
    """One rendering thread in each process."""
    import drjit as dr
    import mitsuba as mi

    mi.set_variant("scalar_rgb")
    mi.set_log_level(mi.LogLevel.Error)
    dr.set_thread_count(0)


def render_seed(job: Job) -> int:
    """The seed of the light paths of one scene."""
    return int(scene_seed(job.seed, job.split, job.kind, job.number).generate_state(1)[0] // 2)


def finish(task: tuple[Job, str]) -> str:
    """Render one scene into the work folder, whole or not at all."""
    job, work = task
    sequence = scene_seed(job.seed, job.split, job.kind, job.number)
    pictures = render_scene(build(job.kind, sequence), render_seed(job))
    path = scene_file(Path(work), job)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as stream:
        np.savez_compressed(stream, **pictures)
    os.replace(part, path)
    return job.name


def scene_file(work: Path, job: Job) -> Path:
    return work / f"{job.seed}-{job.name}.npz"


def render_all(jobs: list[Job], work: Path, processes: int) -> None:
    work.mkdir(parents=True, exist_ok=True)
    jobs = sorted(jobs, key=lambda job: job.number / SPLITS[job.split][2])  # stopped early: some of each
    todo = [(job, str(work)) for job in jobs if not scene_file(work, job).exists()]
    print(f"{len(jobs)} scenes, {len(jobs) - len(todo)} already rendered")
    start = time.monotonic()
    with get_context("spawn").Pool(processes, start_worker) as pool:
        for done, name in enumerate(pool.imap_unordered(finish, todo), start=1):
            spent = time.monotonic() - start
            left = spent / done * (len(todo) - done)
            if done % 20 == 0 or done == len(todo):
                print(
                    f"{done}/{len(todo)}  {spent / done * processes:.2f} s a scene and process  "
                    f"{left / 60:.1f} min left  {name}",
                    flush=True,
                )


# ---- packing -------------------------------------------------------------------------------------------


def sheet(tiles: list[NDArray[Any]]) -> NDArray[Any]:
    """Tiles laid out row by row, TILES_PER_ROW to a row; the rest stays black."""
    rows = -(-len(tiles) // TILES_PER_ROW)
    page = np.zeros((rows * SIZE, TILES_PER_ROW * SIZE, *tiles[0].shape[2:]), tiles[0].dtype)
    for i, tile in enumerate(tiles):
        y, x = i // TILES_PER_ROW * SIZE, i % TILES_PER_ROW * SIZE
        page[y : y + SIZE, x : x + SIZE] = tile
    return page


def pack(jobs: list[Job], work: Path, out: Path) -> None:
    """Contact sheets and index.csv from the rendered scenes."""
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        pictures = [np.load(scene_file(work, job)) for job in jobs if job.split == split]
        for name, mode, options in (
            ("rgb.jpg", "rgb", {"quality": JPEG_QUALITY, "subsampling": 0, "optimize": True}),
            ("nir.jpg", "nir", {"quality": JPEG_QUALITY, "optimize": True}),
            ("depth.png", "depth", {"optimize": True}),
        ):
            part = out / f"part.{split}.{name}"
            Image.fromarray(sheet([p[mode] for p in pictures])).save(part, **options)
            os.replace(part, out / f"{split}.{name}")
    with (out / "index.csv.part").open("w", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["split", "tile", "name", "kind", "role", "seed"])
        for split in SPLITS:
            for tile, job in enumerate(j for j in jobs if j.split == split):
                rows.writerow([split, tile, job.name, job.kind, job.role, render_seed(job)])
    os.replace(out / "index.csv.part", out / "index.csv")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--out", type=Path, required=True, help="folder for the sheets and index.csv")
    options.add_argument("--scale", type=float, default=1.0, help="share of the full number of scenes")
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options.add_argument("--seed", type=int, default=SEED)
    options.add_argument("--keep", action="store_true", help="keep the work folder")
    chosen = options.parse_args()
    work = chosen.out.with_name(chosen.out.name + ".work")
    jobs = jobs_of(chosen.scale, chosen.seed)
    render_all(jobs, work, chosen.processes)
    pack(jobs, work, chosen.out)
    size = sum(p.stat().st_size for p in chosen.out.glob("*.*g")) / 2**20
    print(f"{chosen.out}: {len(jobs)} scenes, pictures {size:.1f} MB")
    if not chosen.keep:
        for job in jobs:
            scene_file(work, job).unlink()
        if not any(work.iterdir()):
            work.rmdir()


if __name__ == "__main__":
    main()
