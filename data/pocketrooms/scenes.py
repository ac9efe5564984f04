"""Scenes of PocketRooms: a room of some kind with its light, clutter and camera.

Size of the room, camera, light, windows, wall and floor colours and clutter are drawn here in one way for
all kinds; only the furniture (`rooms_layout`) tells what a room is. Pure Python and numpy.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import fittings as things
import furniture as f
import numpy as np
from layout import Camera, Piece, Room, Solid
from materials import Draw
from rooms_layout import ROOMS, DoesNotFit, dress

CLASSES = (
    "bedroom",
    "bathroom",
    "kitchen",
    "office",
    "living_room",
    "dining_room",
    "conference_room",
    "nursery",
)
NEAR = (
    "hospital_ward",
    "hotel_suite",
    "studio_flat",
    "waiting_room",
    "cafeteria",
    "computer_lab",
    "laundry",
    "public_washroom",
    "dormitory",
    "day_care",
)
FAR = (
    "library_stacks",
    "storage",
    "stairwell",
    "gym",
    "corridor",
    "workshop",
    "garage",
    "server_room",
    "locker_room",
    "greenhouse",
)


@dataclass(frozen=True)
class Scene:
    """All that the renderer needs: solids (some of them glow), camera, and the grey to expose for."""

    kind: str
    solids: tuple[Solid, ...]
    camera: Camera
    exposure: float
    room: Room


# ---- what all rooms share ------------------------------------------------------------------------------


def clutter(r: Room, d: Draw) -> None:
    """Things found in every kind of room: on the walls, on the floor, and one or two guests."""
    for _ in range(d.whole(0, 2)):
        piece, low = (
            d.one_of((things.picture, things.picture, f.mirror, things.wall_shelf))(d),
            d.between(1.1, 1.6),
        )
        r.by_wall(piece, lift=low, seen=d.chance(0.6))
    if d.chance(0.3):
        r.by_wall(things.radiator(d), seen=False)
    guests = (
        f.chair,
        f.cabinet,
        f.shelf,
        things.plant,
        f.stool,
        f.coffee_table,
        f.armchair,
        f.wardrobe,
        f.bench,
    )
    if d.chance(0.3):
        r.by_wall(Piece().add(d.one_of(guests)(d), 0, 0.02), seen=False)
    for _ in range(d.whole(0, 2)):
        r.anywhere(
            d.one_of(
                (
                    things.box,
                    things.bag,
                    things.plant,
                    things.bin_,
                    things.books,
                    things.basket,
                    things.floor_lamp,
                )
            )(d)
        )
    for spot in list(r.placed):
        if d.chance(0.15):
            dress(r, d, spot, 2)
    if d.chance(0.35):
        lay_rug(r, d)


def lay_rug(r: Room, d: Draw) -> None:
    """A rug lies under the furniture, so it is not tested against it."""
    rug = things.rug(d)
    wide, deep = rug.size[:2]
    if wide < r.width and deep < r.depth:
        x, y = d.between(wide / 2, r.width - wide / 2), d.between(deep / 2, r.depth - deep / 2)
        r.solids += Piece().add(rug, x, y).solids


def shell(r: Room, d: Draw) -> None:
    """Floor, ceiling and walls as thin slabs outside the room, and a skirting board."""
    w, deep, h, thick = r.width, r.depth, r.height, 0.1
    wall, floor, ceiling, skirting = (
        d.patterned("wall", 0.25, (4, 14)),
        d.patterned("floor", 0.6, (4, 14)),
        d.material("wall"),
        d.hard(),
    )
    feature = d.patterned("wall", 0.5, (4, 14)) if d.chance(0.3) else wall
    piece = Piece().box(floor, (-thick, w + thick), (-thick, deep + thick), (-thick, 0))
    piece.box(ceiling, (-thick, w + thick), (-thick, deep + thick), (h, h + thick))
    sides = [
        ((-thick, w + thick), (-thick, 0)),
        ((w, w + thick), (0, deep)),
        ((-thick, w + thick), (deep, deep + thick)),
        ((-thick, 0), (0, deep)),
    ]
    special = d.whole(0, 3)
    for k, (x, y) in enumerate(sides):
        piece.box(feature if k == special else wall, x, y, (0, h))
    if d.chance(0.6):
        for x, y in (
            ((0, w), (0, 0.012)),
            ((0, w), (deep - 0.012, deep)),
            ((0, 0.012), (0, deep)),
            ((w - 0.012, w), (0, deep)),
        ):
            piece.box(skirting, x, y, (0, 0.08))
    r.solids += piece.solids


def light(r: Room, d: Draw) -> None:
    """One to three ceiling lamps and up to two windows, with random strength and tint."""
    windows = d.whole(0, 2)
    for _ in range(windows):
        wide, high = d.between(0.7, 1.6), d.between(0.8, 1.3)
        low = d.between(0.85, min(1.1, r.height - high - 0.15))
        spot = r.by_wall(things.window(d, d.between(2.0, 12.0), wide, high), lift=low, seen=False)
        if spot and d.chance(0.5):
            for x in (-wide / 2 - 0.2, wide / 2 + 0.2):
                r.beside(spot, Piece().add(things.curtain(d, 0.38, low + high), z=0.03), x, 0.0)
    strength, lamps = d.between(6.0, 30.0) if windows else 20.0, d.whole(1, 2)
    if not sum(ceiling_lamp(r, d, strength) for _ in range(lamps)):
        raise DoesNotFit


def ceiling_lamp(r: Room, d: Draw, strength: float) -> bool:
    """A square lamp under the ceiling that shines downward."""
    half, x, y = d.between(0.12, 0.35), d.between(0.2, 0.8) * r.width, d.between(0.2, 0.8) * r.depth
    lamp = Piece().box(d.hard(), (-half - 0.02, half + 0.02), (-half - 0.02, half + 0.02), (-0.032, -0.002))
    lamp.panel(d.lamp_light(strength / half), (0, 0, -0.036), (half, 0, 0), (0, -half, 0))
    return r.place(lamp, x, y, 0.0, lift=r.height) is not None


def look(d: Draw, width: float, depth: float) -> Camera:
    """A camera near a wall or a corner that looks over the middle of the room."""
    corner = (d.one_of((0, 1)), d.one_of((0, 1)))
    x, y = (
        d.between(0.3, 0.6) if c == 0 else s - d.between(0.3, 0.6)
        for c, s in zip(corner, (width, depth), strict=True)
    )
    if d.chance(0.5):
        x, y = (d.between(0.25, 0.75) * width, y) if d.chance(0.5) else (x, d.between(0.25, 0.75) * depth)
    target = (width * d.between(0.38, 0.62), depth * d.between(0.38, 0.62), d.between(0.45, 1.05))
    return Camera(np.array([x, y, d.between(1.2, 1.8)]), np.array(target), d.between(-3, 3))


def build(kind: str, seed: np.random.SeedSequence) -> Scene:
    """One room of a kind; the same seed gives the same room.

    When the furniture does not fit, the layout is drawn again; the room's size is kept for ten tries, so that
    kinds with large furniture do not get larger rooms.
    """
    for attempt in range(100):
        size, layout = (
            np.random.SeedSequence(seed.entropy, spawn_key=key) for key in ((0, attempt // 10), (1, attempt))
        )
        try:
            return _build(kind, Draw(np.random.default_rng(size)), Draw(np.random.default_rng(layout)))
        except DoesNotFit:
            continue
    raise RuntimeError(f"No {kind} fits in 100 rooms: make its furniture smaller in scenes.py.")


def _build(kind: str, size: Draw, d: Draw) -> Scene:
    width, depth, height = size.between(2.6, 3.9), size.between(2.6, 3.9), size.between(2.35, 2.9)
    room = Room(d, width, depth, height, look(d, width, depth))
    shell(room, d)
    ROOMS[kind](room, d)
    light(room, d)
    if d.chance(0.6):
        room.by_wall(things.door(d), seen=False)
    clutter(room, d)
    return Scene(kind, tuple(room.solids), room.camera, d.between(0.13, 0.28), room)


def scene_seed(seed: int, split: str, kind: str, number: int) -> np.random.SeedSequence:
    """The seed of one scene; it depends on nothing but these four."""
    return np.random.SeedSequence((seed, zlib.crc32(split.encode()), zlib.crc32(kind.encode()), number))
