"""Runs of a second: a tiny data folder, a short recipe, and any settings that a run may have."""

import csv
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from socketlab import rooms
from socketlab.images import encodings
from socketlab.measures.model_selection import RULES
from socketlab.method.recipe import METHODS, Recipe, knobs
from socketlab.networks.checkpoints import Source, save_source
from socketlab.networks.networks import small_network
from socketlab.runs import run_folder
from socketlab.runs.results import Results, finish
from socketlab.runs.settings import MIXES, Settings, gather
from tools.manifest import write_manifest

TINY = Recipe(align_epochs=1, epochs=2, batch_size=8, trunk_lr=0.001, bottleneck_lr=0.001)
"""Slow enough for networks that were never trained: their statistics are far from those of any image."""
SCENES = 24


def make_tiny_data(folder: Path) -> Path:
    """A data folder in the shape of PocketRooms, but of patterned noise, with networks that know nothing."""
    generator = np.random.default_rng(0)
    place = folder / "pocketrooms"
    place.mkdir(parents=True)
    rows = []
    for split in rooms.SPLITS:
        kinds = ("ward", "studio") if split.startswith("ti_") else rooms.CLASSES
        rows += [[split, i, f"{split}-{i}", kinds[i % len(kinds)], "task", i] for i in range(SCENES)]
        grain = generator.normal(size=(80, 80 * SCENES))
        Image.fromarray((2500 + 400 * grain).astype(np.uint16)).save(place / f"{split}.depth.png")
        light = np.clip(150 + 40 * grain, 0, 255).astype(np.uint8)
        Image.fromarray(light).save(place / f"{split}.nir.jpg")
        Image.fromarray(np.stack([light, light // 2, 255 - light], axis=2)).save(place / f"{split}.rgb.jpg")
    with open(place / "index.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["split", "tile", "name", "kind", "role", "seed"], *rows])
    for seed, (name, modality) in enumerate(
        {"rgb_kinect_v1": "rgb", "oracle_depth_kinect_v1": "depth"}.items()
    ):
        network = small_network(len(rooms.CLASSES), 8, seed).eval()
        grey = encodings.Normalisation(modality, (0.4,) * 3, (0.2,) * 3)
        card = {"held_out_accuracy": 0.125}
        save_source(Source(network, rooms.CLASSES, grey, card), folder / "models" / f"{name}.safetensors")
    write_manifest(folder)
    return folder


def full_run(folder: Path, settings: Settings) -> tuple[run_folder.Run, Results]:
    """Make a run from beginning to end."""
    material = gather(settings)
    run = run_folder.create(folder, settings, material)
    state = None
    for event in run_folder.record(run, material):
        state = getattr(event, "state", state)
    return run, finish(run, material, state)


def epochs_without_seconds(folder: Path) -> bytes:
    lines = (folder / run_folder.EPOCHS).read_bytes().splitlines()
    assert lines[0].endswith(b",seconds")
    return b"\n".join(line.rpartition(b",")[0] for line in lines)


@st.composite
def settings_of_any_kind(draw):
    method = draw(st.sampled_from(METHODS))
    changes = {}
    for name, about in knobs().items():
        default = getattr(Recipe(), name)
        if about.choices:
            value = st.sampled_from(about.choices)
        elif isinstance(default, bool):
            value = st.booleans()
        elif isinstance(default, int):
            value = st.integers(int(about.low), int(about.high))
        else:
            value = st.floats(about.low, about.high)
        if draw(st.booleans()):
            changes[name] = draw(value)
    return Settings(
        sensor=draw(st.sampled_from(("kinect_v1", "kinect_v2", "realsense", "xtion"))),
        method=method,
        pairs=draw(st.sampled_from(MIXES)),
        pair_count=draw(st.none() | st.integers(2, 999)),
        strength=draw(st.floats(0, 3)),
        source=draw(st.none() | st.sampled_from(("rgb_xtion", "my networks/one.safetensors"))),
        target=draw(st.none() | st.sampled_from(("depth", "nir"))),
        depth_encoding=draw(st.sampled_from(encodings.DEPTH_ENCODINGS)),
        field_of_view=draw(st.none() | st.floats(10, 120)),
        oracle=draw(st.none() | st.just("the best.safetensors")),
        choose=draw(st.sampled_from(("last", *RULES))),
        seed=draw(st.integers(0, 2**31 - 1)),
        recipe=Recipe.for_method(method).replace(**changes),
    )
