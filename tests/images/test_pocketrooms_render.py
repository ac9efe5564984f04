"""The scenes behind PocketRooms without rendering, and one small picture where Mitsuba is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "data" / "pocketrooms"


@pytest.fixture(scope="module")
def scenes():
    """The scene builder, imported from the data folder."""
    sys.path.insert(0, str(FOLDER))
    import scenes

    yield scenes
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def rooms(scenes):
    """Two rooms of every kind."""
    return [
        scenes.build(kind, scenes.scene_seed(5, "test", kind, number))
        for kind in scenes.ROOMS
        for number in range(2)
    ]


def same(a, b) -> bool:
    return len(a.solids) == len(b.solids) and all(
        s.shape == t.shape and s.material == t.material and np.array_equal(s.frame, t.frame)
        for s, t in zip(a.solids, b.solids, strict=True)
    )


def test_the_kinds_are_disjoint_and_complete(scenes):
    kinds = [*scenes.CLASSES, *scenes.NEAR, *scenes.FAR]
    assert len(kinds) == len(set(kinds)) and set(kinds) == set(scenes.ROOMS)
    assert len(scenes.CLASSES) == 8 and len(scenes.NEAR) >= 8 and len(scenes.FAR) >= 8


def test_a_seed_gives_one_room(scenes):
    for kind in ("kitchen", "cafeteria", "gym"):
        seed = scenes.scene_seed(5, "source_train", kind, 3)
        first = scenes.build(kind, seed)
        assert same(first, scenes.build(kind, seed))
        assert not same(first, scenes.build(kind, scenes.scene_seed(5, "target_test", kind, 3)))


def test_no_two_scenes_of_the_data_share_a_seed(scenes):
    sys.modules.pop("render", None)
    import render

    jobs = render.jobs_of(1.0, render.SEED)
    states = {tuple(scenes.scene_seed(j.seed, j.split, j.kind, j.number).generate_state(4)) for j in jobs}
    assert len(states) == len(jobs) > 2500


def test_furniture_stays_inside_and_apart(rooms):
    """Boxes around placed pieces lie in the room and do not cut into each other, but for chairs at tables."""
    for scene in rooms:
        size = np.array([scene.room.width, scene.room.depth, scene.room.height])
        boxes = np.stack([spot.box for spot in scene.room.placed])
        assert (boxes[:, 0] > -1e-5).all() and (boxes[:, 1] < size + 1e-5).all(), scene.kind
        depth = np.minimum(boxes[:, None, 1], boxes[None, :, 1]) - np.maximum(
            boxes[:, None, 0], boxes[None, :, 0]
        )
        cut = (depth > 0.021).all(axis=-1) & ~np.eye(len(boxes), dtype=bool)
        shared = np.where(cut, depth.prod(axis=-1), 0.0).max()
        assert shared < 0.25, f"{scene.kind}: two pieces share {shared:.2f} m3"


def test_the_camera_stands_free_and_sees_furniture(rooms):
    for scene in rooms:
        eye = scene.camera.position
        inside = [(spot.box[0] < eye).all() and (eye < spot.box[1]).all() for spot in scene.room.placed]
        assert not any(inside), scene.kind
        assert 1.2 <= eye[2] <= 1.8
        assert scene.kind == "corridor" or any(scene.room.sees(spot.box) for spot in scene.room.placed), (
            scene.kind
        )


def test_every_room_is_lit(rooms):
    for scene in rooms:
        glowing = [s for s in scene.solids if max(s.material.glow) > 0]
        assert glowing and all(s.shape == "panel" and s.material.nir_glow > 0 for s in glowing)


def test_colour_does_not_name_the_room(rooms, scenes):
    """The mean colour of the task's rooms differs between classes by no more than chance allows."""
    means = {}
    for kind in scenes.CLASSES:
        more = [scenes.build(kind, scenes.scene_seed(6, "test", kind, n)) for n in range(8)]
        means[kind] = [np.mean([s.material.colour for s in scene.solids], axis=0) for scene in more]
    within = np.sqrt(np.mean([np.var(m, axis=0, ddof=1) for m in means.values()], axis=0) / 8)
    between = np.std([np.mean(m, axis=0) for m in means.values()], axis=0, ddof=1)
    assert (between < 2.2 * within).all()


def test_near_infrared_forgets_dyes_and_keeps_reflectances_physical(scenes):
    from materials import NIR_RULES, Draw

    draw = Draw(np.random.default_rng(0))
    for kind in NIR_RULES:
        values = np.array([draw.material(kind).nir for _ in range(200)])
        assert values.min() >= 0 and values.max() <= 1, kind
    dyed = [draw.material("cloth") for _ in range(400)]
    link = np.corrcoef([m.colour[1] for m in dyed], [m.nir for m in dyed])[0, 1]
    painted = [draw.material("paint") for _ in range(400)]
    kept = np.corrcoef([m.colour[1] for m in painted], [m.nir for m in painted])[0, 1]
    assert link < 0.5
    assert kept > 0.5


def test_one_small_picture(scenes):
    """A bathroom renders: bright enough, a depth everywhere, and the depth is that of the room."""
    pytest.importorskip(
        "mitsuba", reason="Mitsuba 3 is not installed: pip install 'socketlab[render]' to render."
    )
    import render

    render.start_worker()
    scene = scenes.build("bathroom", scenes.scene_seed(5, "test", "bathroom", 0))
    pictures = render.render_scene(scene, 1)
    assert pictures["rgb"].shape == (80, 80, 3) and 60 < np.median(pictures["rgb"]) < 200
    assert pictures["nir"].shape == (80, 80) and pictures["nir"].std() > 10
    assert pictures["depth"].min() > 300 and pictures["depth"].max() < 8000
