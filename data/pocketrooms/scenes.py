"""Rooms of PocketRooms: for every kind of room, one short function that lays out its furniture.

Size of the room, camera, light, windows, wall and floor colours and clutter are drawn by `build` in the same
way for all kinds; only the furniture and its layout tell what a room is. Pure Python and numpy.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import furniture as f
import numpy as np
from layout import Camera, Piece, Placed, Room, Solid
from materials import Draw

CLASSES = ("bedroom", "bathroom", "kitchen", "office", "living_room", "dining_room", "conference_room", "nursery")
NEAR = ("hospital_ward", "hotel_suite", "studio_flat", "waiting_room", "cafeteria", "computer_lab", "laundry",
        "public_washroom", "dormitory", "day_care")
FAR = ("library_stacks", "storage", "stairwell", "gym", "corridor", "workshop", "garage", "server_room",
       "locker_room", "greenhouse")


class DoesNotFit(Exception):
    """A piece without which the room would not be of its kind found no place: draw another room."""


@dataclass(frozen=True)
class Scene:
    """Everything the renderer needs: solids (some of them glow), camera, and the grey the picture is exposed to."""

    kind: str
    solids: tuple[Solid, ...]
    camera: Camera
    exposure: float
    room: Room


def seen(r: Room, spot: Placed | None) -> bool:
    """Whether a piece was placed, and in the camera's view."""
    return spot is not None and r.sees(spot.box)


def must(spot: Placed | None) -> Placed:
    if spot is None:
        raise DoesNotFit
    return spot


# ---- rooms of the task ---------------------------------------------------------------------------------


def bedroom(r: Room, d: Draw) -> None:
    sleep = must(r.by_wall(f.bed(d)))
    side = sleep.piece.size[0] / 2 + 0.28
    for x in (-side, side):
        if d.chance(0.7):
            dress(r, d, r.beside(sleep, f.nightstand(d), x, 0.0), 1)
    must(r.by_wall(d.one_of((f.wardrobe, f.cabinet))(d)))
    for piece, chance in ((f.cabinet, 0.5), (f.armchair, 0.25), (f.desk, 0.2), (f.chair, 0.2), (f.bench, 0.15)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def bathroom(r: Room, d: Draw) -> None:
    must(r.by_wall(d.one_of((f.bathtub, f.bathtub, f.shower))(d)))
    basin = must(r.by_wall(f.washbasin(d)))
    r.beside(basin, Piece().add(f.mirror(d), z=1.15), 0, 0)
    seat = r.by_wall(f.toilet(d))
    if seat is None:
        raise DoesNotFit
    for piece, chance in ((f.washing_machine, 0.25), (f.cabinet, 0.35), (f.shelf, 0.2), (f.shower, 0.2)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)
    for piece, chance in ((f.basket, 0.5), (f.stool, 0.35)):
        if d.chance(chance):
            r.anywhere(piece(d))


def counter(r: Room, d: Draw, shortest: int = 3) -> int:
    """A kitchen run along a wall: base units, some wall units, a hood. Returns how many units are in view."""
    wall, unit, number = r.facing_wall(), d.between(0.55, 0.65), d.whole(shortest, 5)
    number = min(number, int(r.wall_length(wall) / unit))
    what = d.shuffled((["sink", "stove"] + ["plain"] * 5)[:max(2, number)])
    start = d.between(0, max(0.0, r.wall_length(wall) - number * unit))
    look, upper, high = d.whole(0, 2**31), d.chance(0.75), d.between(0.5, 0.75)
    count = 0
    for i, name in enumerate(what[:number]):
        here = start + i * unit
        spot = r.in_row(f.base_unit(d, Draw(np.random.default_rng(look)), unit, name), wall, here)
        count += seen(r, spot)
        dress(r, d, spot, 1)
        above = f.hood(d) if name == "stove" else f.wall_unit(Draw(np.random.default_rng(look)), unit, high)
        if spot and upper and (name == "stove" or d.chance(0.8)):
            r.in_row(above, wall, here + (unit - above.size[0]) / 2, lift=1.45)
    return count


def kitchen(r: Room, d: Draw) -> None:
    if counter(r, d) < 2:
        raise DoesNotFit
    r.by_wall(f.fridge(d))
    if d.chance(0.3):
        counter(r, d, 2)
    if d.chance(0.45):
        spot = r.in_middle(f.table(d, d.between(0.7, 1.1), d.between(0.6, 0.75)), 0.2)
        if spot:
            r.chairs_around(spot, lambda: d.one_of((f.chair, f.stool))(d), 0.7)
        dress(r, d, spot, 3)
    elif d.chance(0.4):
        dress(r, d, r.in_middle(f.island(d), 0.15), 3)
    for piece, chance in ((f.shelf, 0.2), (f.cabinet, 0.25), (f.washing_machine, 0.15)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def office(r: Room, d: Draw) -> None:
    count = 0
    for _ in range(d.whole(1, 3)):
        work = r.by_wall(f.workplace(d)) if d.chance(0.75) else r.in_middle(f.workplace(d), 0.2)
        if work:
            count += 1
            seat = f.office_chair(d) if d.chance(0.8) else f.chair(d)
            deep = work.piece.size[1]
            r.beside(work, seat, d.between(-0.15, 0.15), deep + d.between(0.5, 0.75), 180 + d.between(-30, 30))
            dress(r, d, work, 2)
    if not count:
        raise DoesNotFit
    must(r.by_wall(d.one_of((f.shelf, f.cabinet, f.shelf))(d), seen=False))
    for piece, chance in ((f.shelf, 0.4), (f.cabinet, 0.4), (f.sofa, 0.15), (f.chair, 0.3), (f.wardrobe, 0.2)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)
    if d.chance(0.25):
        r.by_wall(f.whiteboard(d), lift=0.95)


def living_room(r: Room, d: Draw) -> None:
    couch = must(r.by_wall(f.sofa(d), off=d.one_of((0.0, 0.0, d.between(0.2, 0.8)))))
    low = r.beside(couch, f.coffee_table(d), d.between(-0.2, 0.2), couch.piece.size[1] + d.between(0.3, 0.5))
    dress(r, d, low, 3)
    if d.chance(0.75):
        r.by_wall(f.tv_board(d), wall=(round(couch.angle / 90) + 2) % 4 if d.chance(0.6) else None, seen=d.chance(0.6))
    for piece, chance in ((f.armchair, 0.5), (f.armchair, 0.35), (f.sofa, 0.2)):
        if d.chance(chance):
            r.by_wall(piece(d), off=d.between(0.0, 0.5), seen=d.chance(0.6))
    for piece, chance in ((f.shelf, 0.45), (f.cabinet, 0.35), (f.desk, 0.12), (f.chair, 0.2)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)
    r.anywhere(f.floor_lamp(d)) if d.chance(0.5) else None


def dining_room(r: Room, d: Draw) -> None:
    if d.chance(0.3):
        spot = must(r.in_middle(f.round_table(d, d.between(0.45, 0.65)), 0.15))
    else:
        spot = must(r.in_middle(f.table(d, d.between(1.1, 1.8), d.between(0.75, 0.95)), 0.15))
    style = d.generator.integers(2**31)
    if r.chairs_around(spot, lambda: f.chair(Draw(np.random.default_rng(style))), 0.9) < 3:
        raise DoesNotFit
    for _ in range(d.whole(2, 5)):
        r.on_top(spot, f.crockery(d))
    dress(r, d, spot, 1)
    hang_lamp(r, d, spot) if d.chance(0.6) else None
    dress(r, d, r.by_wall(f.cabinet(d)), 3)
    for piece, chance in ((f.cabinet, 0.35), (f.shelf, 0.25), (f.chair, 0.3), (f.armchair, 0.15), (f.wardrobe, 0.1)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def hang_lamp(r: Room, d: Draw, spot: Placed) -> None:
    """A lamp hanging over a placed table."""
    x, y = spot.box.mean(axis=0)[:2]
    drop = r.height - d.between(1.45, 1.7)
    lamp = f.disc(Piece(), d.hard(), 0, 0, 0, d.between(0.15, 0.28), d.between(0.12, 0.25))
    r.place(lamp.box(d.metal(), (-0.008, 0.008), (-0.008, 0.008), (0.1, drop)), x, y, 0, lift=r.height - drop - 0.001)


def conference_room(r: Room, d: Draw) -> None:
    wide = d.between(1.8, min(3.2, max(r.width, r.depth) - 1.6)) if max(r.width, r.depth) > 3.5 else 1.8
    angle = 0.0 if r.width > r.depth else 90.0
    spot = must(r.in_middle(f.table(d, wide, d.between(0.9, 1.2)), 0.1, angle))
    style, kind = d.generator.integers(2**31), f.office_chair if d.chance(0.75) else f.chair
    if r.chairs_around(spot, lambda: kind(Draw(np.random.default_rng(style))), 0.92) < 4:
        raise DoesNotFit
    for _ in range(d.whole(2, 6)):
        r.on_top(spot, d.one_of((f.laptop, f.papers, f.papers, f.books))(d))
    board = d.one_of((f.whiteboard, f.whiteboard, f.wall_screen))
    r.by_wall(board(d), wall=r.facing_wall(), lift=d.between(0.95, 1.1)) or r.by_wall(board(d), lift=1.0, seen=False)
    for piece, chance in ((f.cabinet, 0.35), (f.shelf, 0.15), (f.chair, 0.3), (f.wardrobe, 0.1)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def nursery(r: Room, d: Draw) -> None:
    must(r.by_wall(f.cot(d)))
    for _ in range(2 if d.chance(0.15) else 1):
        r.by_wall(f.changing_table(d)) if d.chance(0.7) else r.by_wall(f.cabinet(d))
    for piece, chance in ((lambda: f.shelf(d, d.between(0.6, 0.9)), 0.75), (lambda: f.wardrobe(d), 0.3),
                          (lambda: f.armchair(d), 0.25), (lambda: f.chair(d), 0.15)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(), seen=False), 2)
    if d.chance(0.35):
        small_table(r, d)
    for piece, chance in ((f.toys, 0.9), (f.toys, 0.5), (f.toy_tent, 0.3), (f.rocking_horse, 0.35)):
        if d.chance(chance):
            r.anywhere(piece(d), seen=True)


def small_table(r: Room, d: Draw) -> None:
    spot = r.in_middle(f.table(d, d.between(0.6, 0.9), d.between(0.5, 0.6), d.between(0.42, 0.52)), 0.3)
    if spot:
        r.chairs_around(spot, lambda: f.chair(d, 0.65), 0.7)
        dress(r, d, spot, 2)


# ---- near rooms: they share furniture with the task ----------------------------------------------------


def hospital_ward(r: Room, d: Draw) -> None:
    wall, step, make = r.facing_wall(), d.between(1.35, 1.7), d.generator.integers(2**31)
    start, count = d.between(0.1, 0.4), 0
    while start + 1.0 < r.wall_length(wall):
        spot = r.in_row(f.hospital_bed(Draw(np.random.default_rng(make))), wall, start)
        if spot:
            count += seen(r, spot)
            dress(r, d, r.beside(spot, f.nightstand(d), 0.78, 0.0), 2)
            if d.chance(0.4):
                r.beside(spot, f.drip_stand(d), -0.62, 0.3)
        start += step
    if not count:
        raise DoesNotFit
    for piece, chance in ((f.washbasin, 0.4), (f.chair, 0.5), (f.cabinet, 0.4), (f.wardrobe, 0.2), (f.cot, 0.15)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def hotel_suite(r: Room, d: Draw) -> None:
    must(r.by_wall(f.bed(d)))
    must(r.by_wall(d.one_of((f.sofa, f.armchair, f.tv_board))(d)))
    low = r.in_middle(f.coffee_table(d), 0.3)
    dress(r, d, low, 2)
    for piece, chance in ((f.workplace, 0.4), (f.armchair, 0.5), (f.tv_board, 0.4), (f.wardrobe, 0.4),
                          (f.nightstand, 0.7), (f.chair, 0.4), (f.bathtub, 0.15)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=d.chance(0.5)), 2)


def studio_flat(r: Room, d: Draw) -> None:
    if counter(r, d, 2) < 1:
        raise DoesNotFit
    must(r.by_wall(d.one_of((f.bed, f.sofa, f.sofa))(d)))
    if d.chance(0.6):
        spot = r.in_middle(f.table(d, d.between(0.7, 1.3), d.between(0.6, 0.8)), 0.3)
        if spot:
            r.chairs_around(spot, lambda: f.chair(d), 0.7)
        dress(r, d, spot, 3)
    for piece, chance in ((f.fridge, 0.5), (f.workplace, 0.3), (f.armchair, 0.3), (f.shelf, 0.4), (f.wardrobe, 0.3),
                          (f.tv_board, 0.3), (f.cot, 0.1), (f.washbasin, 0.1)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=d.chance(0.5)), 2)


def waiting_room(r: Room, d: Draw) -> None:
    make, rows = d.generator.integers(2**31), 0
    for _ in range(d.whole(2, 4)):
        row = f.seat_row(Draw(np.random.default_rng(make)), d.whole(2, 5))
        rows += r.by_wall(row, seen=rows == 0) is not None
    if not rows:
        raise DoesNotFit
    dress(r, d, r.in_middle(f.coffee_table(d), 0.3), 3)
    for piece, chance in ((f.vending_machine, 0.4), (f.cabinet, 0.3), (f.sofa, 0.35), (f.armchair, 0.3),
                          (f.workplace, 0.3), (f.washbasin, 0.1)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)
    r.by_wall(f.wall_screen(d), lift=1.4) if d.chance(0.5) else None
    r.anywhere(f.toys(d)) if d.chance(0.3) else None


def cafeteria(r: Room, d: Draw) -> None:
    make, count = d.generator.integers(2**31), 0
    if d.chance(0.55):
        counter(r, d, 2)
    for _ in range(d.whole(2, 5)):
        top = d.between(0.65, 0.8)
        piece = f.table(d, d.one_of((top, 1.3)), top) if d.chance(0.7) else f.round_table(d, top / 2)
        spot = r.in_middle(piece, 0.42)
        if spot:
            count += 1
            r.chairs_around(spot, lambda: f.chair(Draw(np.random.default_rng(make))), 0.8)
            r.on_top(spot, f.crockery(d))
    if not count:
        raise DoesNotFit
    for piece, chance in ((f.vending_machine, 0.4), (f.fridge, 0.3), (f.cabinet, 0.4), (f.sofa, 0.15)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def computer_lab(r: Room, d: Draw) -> None:
    make, count = d.generator.integers(2**31), 0
    wall = r.facing_wall()
    for off in (0.0, 1.5, 3.0):
        start = d.between(0.0, 0.3)
        while start + 0.95 < r.wall_length(wall):
            work = f.workplace(Draw(np.random.default_rng(make)))
            spot = r.in_row(work, wall, start, off)
            if spot:
                count += seen(r, spot)
                r.beside(spot, f.office_chair(d), 0, work.size[1] + 0.45, 180 + d.between(-25, 25))
            start += float(work.size[0])
    if count < 2:
        raise DoesNotFit
    r.by_wall(f.whiteboard(d), lift=1.0, seen=False) if d.chance(0.6) else None
    for piece, chance in ((f.shelf, 0.3), (f.cabinet, 0.4), (f.sofa, 0.1)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def laundry(r: Room, d: Draw) -> None:
    wall, start, count = r.facing_wall(), d.between(0.0, 0.6), 0
    make = d.generator.integers(2**31)
    for _ in range(d.whole(2, 6)):
        count += seen(r, r.in_row(f.washing_machine(Draw(np.random.default_rng(make))), wall, start))
        start += 0.61
    if count < 2:
        raise DoesNotFit
    for piece, chance in ((f.washbasin, 0.5), (f.shelf, 0.4), (f.bench, 0.4), (f.cabinet, 0.4), (f.bathtub, 0.15),
                          (f.washing_machine, 0.4), (f.changing_table, 0.15)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=d.chance(0.5)), 2)
    counter(r, d, 2) if d.chance(0.3) else None
    for piece, chance in ((f.ironing_board, 0.4), (f.basket, 0.8), (f.basket, 0.5)):
        if d.chance(chance):
            r.anywhere(piece(d))


def public_washroom(r: Room, d: Draw) -> None:
    wall, start, count = r.facing_wall(), d.between(0.1, 0.4), 0
    make = d.generator.integers(2**31)
    for _ in range(d.whole(2, 4)):
        basin = f.washbasin(Draw(np.random.default_rng(make)))
        spot = r.in_row(basin, wall, start)
        if spot:
            count += seen(r, spot)
            r.beside(spot, Piece().add(f.mirror(d), z=1.15), 0, 0)
        start += float(basin.size[0]) + 0.15
    if count < 2:
        raise DoesNotFit
    other, start = (wall + d.one_of((1, 3))) % 4, d.between(0.1, 0.4)
    for _ in range(d.whole(2, 4)):
        r.in_row(f.cubicle_wall(d), other, start)
        r.in_row(f.toilet(d), other, start + 0.28)
        start += 0.95
    for piece, chance in ((f.shower, 0.35), (f.bench, 0.2), (f.changing_table, 0.2), (f.cabinet, 0.2)):
        if d.chance(chance):
            r.by_wall(piece(d), seen=False)


def dormitory(r: Room, d: Draw) -> None:
    wall, start, count = r.facing_wall(), d.between(0.0, 0.4), 0
    make, kind = d.generator.integers(2**31), d.one_of((f.bunk_bed, lambda d: f.bed(d, 0.9)))
    for _ in range(d.whole(2, 3)):
        count += seen(r, r.in_row(kind(Draw(np.random.default_rng(make))), wall, start))
        start += d.between(1.3, 1.7)
    if not count:
        raise DoesNotFit
    for piece, chance in ((f.lockers, 0.6), (f.workplace, 0.5), (f.workplace, 0.3), (f.chair, 0.4),
                          (f.shelf, 0.3), (f.wardrobe, 0.4), (f.washbasin, 0.15)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(d), seen=d.chance(0.5)), 2)


def day_care(r: Room, d: Draw) -> None:
    count = sum(r.by_wall(f.cot(d)) is not None for _ in range(d.whole(0, 2)))
    for _ in range(d.whole(1, 3)):
        small_table(r, d)
        count += 1
    if not count:
        raise DoesNotFit
    for piece, chance in ((lambda: f.shelf(d, d.between(0.6, 0.9)), 0.8), (lambda: f.shelf(d, 0.8), 0.4),
                          (lambda: f.changing_table(d), 0.4), (lambda: f.sofa(d), 0.25), (lambda: f.washbasin(d), 0.25),
                          (lambda: f.whiteboard(d), 0.0), (lambda: f.bed(d, 0.9), 0.15)):
        if d.chance(chance):
            dress(r, d, r.by_wall(piece(), seen=d.chance(0.5)), 2)
    for piece, chance in ((f.toys, 0.9), (f.toys, 0.7), (f.toy_tent, 0.3), (f.rocking_horse, 0.3)):
        if d.chance(chance):
            r.anywhere(piece(d), seen=d.chance(0.7))


# ---- far rooms: they share little ----------------------------------------------------------------------


def library_stacks(r: Room, d: Draw) -> None:
    wall, wide, count = r.facing_wall(), d.between(1.4, 2.4), 0
    along, step = d.between(0.5, 0.8), d.between(1.3, 1.6)
    while along < r.wall_length(wall):
        stack = f.book_stack(d, wide)
        turned = Piece().add(stack, 0, wide / 2 + 0.02, 0, 90)
        count += r.in_row(turned, wall, along) is not None
        along += step
    count += r.by_wall(f.shelf(d, 2.0, d.between(1.2, 2.0)), seen=False) is not None
    count += r.by_wall(f.shelf(d, 2.0, d.between(1.2, 2.0))) is not None
    if count < 2:
        raise DoesNotFit
    r.anywhere(f.stool(d)) if d.chance(0.4) else None


def storage(r: Room, d: Draw) -> None:
    count = sum(r.by_wall(f.metal_rack(d), seen=d.chance(0.7)) is not None for _ in range(d.whole(2, 4)))
    if not count:
        raise DoesNotFit
    for _ in range(d.whole(2, 6)):
        r.anywhere(f.carton_pile(d))


def stairwell(r: Room, d: Draw) -> None:
    wall = r.facing_wall()
    must(r.by_wall(f.stairs(d, d.between(0.9, 1.3), r.height), wall=wall))
    if d.chance(0.5):
        r.by_wall(f.stairs(d, d.between(0.8, 1.1), r.height), seen=False)
    r.by_wall(f.door(d), seen=False)


def gym(r: Room, d: Draw) -> None:
    count = 0
    for piece in [f.treadmill] * d.whole(1, 3) + [f.weight_bench] * d.whole(1, 2) + [f.dumbbell_rack] * d.whole(0, 2):
        count += r.by_wall(piece(d), off=d.between(0.1, 0.5)) is not None
    if count < 2:
        raise DoesNotFit
    for _ in range(d.whole(0, 2)):
        r.anywhere(f.mat(d))
    if d.chance(0.5):
        r.anywhere(Piece().ball(d.plastic(), 0, 0, 0.3, 0.3))


def corridor(r: Room, d: Draw) -> None:
    """Two blocks with doors leave a passage along the line of sight."""
    wall = r.facing_wall()
    wide, length = r.wall_length(wall), r.wall_length(wall + 1)
    here = r.camera.position[0] if wall % 2 == 0 else r.camera.position[1]
    half, count = d.between(0.65, 0.95), 0
    for low, high in ((0.0, here - half), (here + half, wide)):
        if high - low < 0.25:
            continue
        block = Piece().box(d.paint(), (low, high), (0, length * d.between(0.75, 1.0)), (0, r.height - 0.001))
        edge = (high - 0.01, high + 0.03) if low == 0.0 else (low - 0.03, low + 0.01)
        for share in (0.15, 0.5):
            block.box(d.hard(), edge, (length * share, length * share + 0.85), (0, 2.05))
        count += r.place(_turned_block(block, wall, r), 0.0, 0.0, 0.0) is not None
    if not count:
        raise DoesNotFit
    r.by_wall(f.door(d), wall=wall) or r.by_wall(f.picture(d), wall=wall, lift=1.2)


def _turned_block(block: Piece, wall: int, r: Room) -> Piece:
    """The corridor's block, drawn along wall 0, moved so that it runs away from another wall."""
    swap = np.eye(4)
    if wall == 2:
        swap[1, 1], swap[1, 3] = -1.0, r.depth
    else:
        swap[:2, :2] = [[0, 1], [1, 0]]
        if wall == 1:
            swap[0, 1], swap[0, 3] = -1.0, r.width
    return Piece([Solid(s.shape, swap @ s.frame, s.material) for s in block.solids])


def workshop(r: Room, d: Draw) -> None:
    must(r.by_wall(f.work_bench(d)))
    for piece, chance in ((f.work_bench, 0.6), (f.drill_press, 0.8), (f.metal_rack, 0.6), (f.drill_press, 0.4),
                          (f.lockers, 0.2)):
        if d.chance(chance):
            r.by_wall(piece(d), seen=d.chance(0.6))
    for piece, chance in ((f.carton_pile, 0.5), (f.stool, 0.4)):
        if d.chance(chance):
            r.anywhere(piece(d))


def garage(r: Room, d: Draw) -> None:
    must(r.in_middle(f.car(d), 0.2))
    for piece, chance in ((f.metal_rack, 0.7), (f.work_bench, 0.4), (f.metal_rack, 0.4)):
        if d.chance(chance):
            r.by_wall(piece(d), seen=False)
    for _ in range(d.whole(0, 3)):
        r.anywhere(f.carton_pile(d))


def server_room(r: Room, d: Draw) -> None:
    wall, count = r.facing_wall(), 0
    for k, off in ((wall, 0.0), ((wall + 1) % 4, 0.0), ((wall + 3) % 4, 0.0), (wall, 1.9)):
        start = d.between(0.0, 0.8)
        while start + 0.6 < r.wall_length(k):
            if d.chance(0.85):
                count += r.in_row(f.server_rack(d), k, start, off) is not None
            start += 0.61
    if count < 3:
        raise DoesNotFit


def locker_room(r: Room, d: Draw) -> None:
    make, count = d.generator.integers(2**31), 0
    for _ in range(d.whole(3, 6)):
        count += r.by_wall(f.lockers(Draw(np.random.default_rng(make))), seen=d.chance(0.6)) is not None
    if count < 2:
        raise DoesNotFit
    for _ in range(d.whole(1, 3)):
        r.in_middle(f.bench(d), 0.3)
    r.anywhere(f.bag(d))


def greenhouse(r: Room, d: Draw) -> None:
    count = sum(r.by_wall(f.plant_bench(d), seen=d.chance(0.7)) is not None for _ in range(d.whole(2, 4)))
    if d.chance(0.6):
        count += r.in_middle(f.plant_bench(d), 0.2) is not None
    if count < 2:
        raise DoesNotFit
    for _ in range(d.whole(2, 6)):
        r.anywhere(f.plant(d))


ROOMS: dict[str, Callable[[Room, Draw], None]] = {
    function.__name__: function for function in (
        bedroom, bathroom, kitchen, office, living_room, dining_room, conference_room, nursery,
        hospital_ward, hotel_suite, studio_flat, waiting_room, cafeteria, computer_lab, laundry,
        public_washroom, dormitory, day_care,
        library_stacks, storage, stairwell, gym, corridor, workshop, garage, server_room, locker_room, greenhouse)}


# ---- what all rooms share ------------------------------------------------------------------------------


def dress(r: Room, d: Draw, spot: Placed | None, most: int) -> None:
    """Put a few small things, the same for every kind of room, on a placed piece."""
    if spot is None:
        return
    for _ in range(d.whole(0, most)):
        r.on_top(spot, d.one_of((f.books, f.box, f.vase, f.table_lamp, f.papers, f.crockery, f.laptop))(d))


def clutter(r: Room, d: Draw) -> None:
    """Things found in every kind of room: on the walls, on the floor, and one or two guests."""
    for _ in range(d.whole(0, 3)):
        piece, low = d.one_of((f.picture, f.picture, f.mirror, f.wall_shelf))(d), d.between(1.1, 1.6)
        r.by_wall(piece, lift=low, seen=d.chance(0.6))
    if d.chance(0.4):
        r.by_wall(f.radiator(d), seen=False)
    guests = (f.chair, f.cabinet, f.shelf, f.plant, f.stool, f.coffee_table, f.armchair, f.wardrobe, f.bench)
    for _ in range(d.whole(0, 1)):
        r.by_wall(Piece().add(d.one_of(guests)(d), 0, 0.02), seen=False)
    for _ in range(d.whole(0, 4)):
        r.anywhere(d.one_of((f.box, f.bag, f.plant, f.bin_, f.books, f.basket, f.floor_lamp))(d))
    for spot in list(r.placed):
        if d.chance(0.15):
            dress(r, d, spot, 2)
    if d.chance(0.45):
        lay_rug(r, d)


def lay_rug(r: Room, d: Draw) -> None:
    """A rug lies under the furniture, so it is not tested against it."""
    rug = f.rug(d)
    wide, deep = rug.size[:2]
    if wide < r.width and deep < r.depth:
        x, y = d.between(wide / 2, r.width - wide / 2), d.between(deep / 2, r.depth - deep / 2)
        r.solids += Piece().add(rug, x, y).solids


def shell(r: Room, d: Draw) -> None:
    """Floor, ceiling and walls as thin slabs outside the room, and a skirting board."""
    w, deep, h, thick = r.width, r.depth, r.height, 0.1
    wall, floor, ceiling, skirting = d.patterned("paint", 0.25, (4, 14)), d.patterned("floor", 0.6, (4, 14)), d.paint(), d.hard()
    feature = d.patterned("paint", 0.5, (4, 14)) if d.chance(0.3) else wall
    piece = Piece().box(floor, (-thick, w + thick), (-thick, deep + thick), (-thick, 0))
    piece.box(ceiling, (-thick, w + thick), (-thick, deep + thick), (h, h + thick))
    sides = [((-thick, w + thick), (-thick, 0)), ((w, w + thick), (0, deep)),
             ((-thick, w + thick), (deep, deep + thick)), ((-thick, 0), (0, deep))]
    special = d.whole(0, 3)
    for k, (x, y) in enumerate(sides):
        piece.box(feature if k == special else wall, x, y, (0, h))
    if d.chance(0.6):
        for x, y in (((0, w), (0, 0.012)), ((0, w), (deep - 0.012, deep)), ((0, 0.012), (0, deep)), ((w - 0.012, w), (0, deep))):
            piece.box(skirting, x, y, (0, 0.08))
    r.solids += piece.solids


def light(r: Room, d: Draw) -> None:
    """One to three ceiling lamps and up to two windows, with random strength and tint."""
    windows = d.whole(0, 2)
    for _ in range(windows):
        wide, high = d.between(0.7, 1.6), d.between(0.8, 1.3)
        low = d.between(0.85, min(1.1, r.height - high - 0.15))
        spot = r.by_wall(f.window(d, d.between(2.0, 12.0), wide, high), lift=low, seen=False)
        if spot and d.chance(0.5):
            for x in (-wide / 2 - 0.2, wide / 2 + 0.2):
                r.beside(spot, Piece().add(f.curtain(d, 0.38, low + high), z=0.03), x, 0.0)
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
    x, y = (d.between(0.3, 0.6) if c == 0 else s - d.between(0.3, 0.6) for c, s in zip(corner, (width, depth), strict=True))
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
        size, layout = (np.random.SeedSequence(seed.entropy, spawn_key=key)
                        for key in ((0, attempt // 10), (1, attempt)))
        try:
            return _build(kind, Draw(np.random.default_rng(size)), Draw(np.random.default_rng(layout)))
        except DoesNotFit:
            continue
    raise RuntimeError(f"No {kind} fits in 100 rooms: make its furniture smaller in scenes.py.")


def _build(kind: str, size: Draw, d: Draw) -> Scene:
    width, depth, height = size.between(2.8, 4.8), size.between(2.8, 4.8), size.between(2.35, 2.9)
    room = Room(d, width, depth, height, look(d, width, depth))
    shell(room, d)
    ROOMS[kind](room, d)
    light(room, d)
    if d.chance(0.6):
        room.by_wall(f.door(d), seen=False)
    clutter(room, d)
    return Scene(kind, tuple(room.solids), room.camera, d.between(0.13, 0.28), room)


def scene_seed(seed: int, split: str, kind: str, number: int) -> np.random.SeedSequence:
    """The seed of one scene; it depends on nothing but these four."""
    return np.random.SeedSequence((seed, zlib.crc32(split.encode()), zlib.crc32(kind.encode()), number))
