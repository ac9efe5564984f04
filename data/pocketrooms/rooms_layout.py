"""For every kind of room, one short function that lays out its furniture.

Furniture is shared between kinds; a room is told by its composition and layout. Sizes, counts and places
are random, and every function draws materials from the same `Draw`.
"""

from __future__ import annotations

from collections.abc import Callable

import equipment
import fittings as things
import furniture as f
import numpy as np
from layout import Piece, Placed, Room, Solid
from materials import Draw


class DoesNotFit(Exception):
    """A piece without which the room would not be of its kind found no place: draw another room."""


EXTRAS = 0.5  # how often a piece that a room could do without is there, as a share of the chances below


def seen(r: Room, spot: Placed | None) -> bool:
    """Whether a piece was placed, and in the camera's view."""
    return spot is not None and r.sees(spot.box)


def must(spot: Placed | None) -> Placed:
    if spot is None:
        raise DoesNotFit
    return spot


def dress(r: Room, d: Draw, spot: Placed | None, most: int) -> None:
    """Put a few small things, the same for every kind of room, on a placed piece."""
    if spot is None:
        return
    for _ in range(d.whole(0, most)):
        r.on_top(
            spot,
            d.one_of(
                (
                    things.books,
                    things.box,
                    things.vase,
                    things.table_lamp,
                    things.papers,
                    things.crockery,
                    things.laptop,
                )
            )(d),
        )


# ---- rooms of the task ---------------------------------------------------------------------------------


def bedroom(r: Room, d: Draw) -> None:
    sleep = must(r.by_wall(f.bed(d)))
    side = sleep.piece.size[0] / 2 + 0.28
    for x in (-side, side):
        if d.chance(0.7):
            dress(r, d, r.beside(sleep, f.nightstand(d), x, 0.0), 1)
    must(r.by_wall(d.one_of((f.wardrobe, f.cabinet))(d)))
    for piece, chance in (
        (f.cabinet, 0.5),
        (f.armchair, 0.25),
        (f.desk, 0.2),
        (f.chair, 0.2),
        (f.bench, 0.15),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def bathroom(r: Room, d: Draw) -> None:
    must(r.by_wall(d.one_of((f.bathtub, f.bathtub, f.shower))(d)))
    basin = must(r.by_wall(f.washbasin(d)))
    r.beside(basin, Piece().add(f.mirror(d), z=1.15), 0, 0)
    seat = r.by_wall(f.toilet(d))
    if seat is None:
        raise DoesNotFit
    for piece, chance in ((f.washing_machine, 0.25), (f.cabinet, 0.35), (f.shelf, 0.2), (f.shower, 0.2)):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)
    for piece, chance in ((things.basket, 0.5), (f.stool, 0.35)):
        if d.chance(EXTRAS * chance):
            r.anywhere(piece(d))


def counter(r: Room, d: Draw, shortest: int = 3) -> int:
    """A kitchen run along a wall: base units, some wall units, a hood. Returns how many units are in view."""
    wall, unit, number = r.facing_wall(), d.between(0.55, 0.65), d.whole(shortest, 5)
    number = min(number, int(r.wall_length(wall) / unit))
    what = d.shuffled((["sink", "stove"] + ["plain"] * 5)[: max(2, number)])
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
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def office(r: Room, d: Draw) -> None:
    count = 0
    for _ in range(d.whole(1, 3)):
        work = r.by_wall(f.workplace(d)) if d.chance(0.75) else r.in_middle(f.workplace(d), 0.2)
        if work:
            count += 1
            seat = f.office_chair(d) if d.chance(0.8) else f.chair(d)
            deep = work.piece.size[1]
            r.beside(
                work, seat, d.between(-0.15, 0.15), deep + d.between(0.5, 0.75), 180 + d.between(-30, 30)
            )
            dress(r, d, work, 2)
    if not count:
        raise DoesNotFit
    must(r.by_wall(d.one_of((f.shelf, f.cabinet, f.shelf))(d), seen=False))
    for piece, chance in (
        (f.shelf, 0.4),
        (f.cabinet, 0.4),
        (f.sofa, 0.15),
        (f.chair, 0.3),
        (f.wardrobe, 0.2),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)
    if d.chance(0.25):
        r.by_wall(things.whiteboard(d), lift=0.95)


def living_room(r: Room, d: Draw) -> None:
    couch = must(r.by_wall(f.sofa(d), off=d.one_of((0.0, 0.0, d.between(0.2, 0.8)))))
    low = r.beside(couch, f.coffee_table(d), d.between(-0.2, 0.2), couch.piece.size[1] + d.between(0.3, 0.5))
    dress(r, d, low, 3)
    if d.chance(0.75):
        r.by_wall(
            f.tv_board(d),
            wall=(round(couch.angle / 90) + 2) % 4 if d.chance(0.6) else None,
            seen=d.chance(0.6),
        )
    for piece, chance in ((f.armchair, 0.5), (f.armchair, 0.35), (f.sofa, 0.2)):
        if d.chance(EXTRAS * chance):
            r.by_wall(piece(d), off=d.between(0.0, 0.5), seen=d.chance(0.6))
    for piece, chance in ((f.shelf, 0.45), (f.cabinet, 0.35), (f.desk, 0.12), (f.chair, 0.2)):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)
    r.anywhere(things.floor_lamp(d)) if d.chance(0.5) else None


def dining_room(r: Room, d: Draw) -> None:
    if d.chance(0.3):
        spot = must(r.in_middle(f.round_table(d, d.between(0.45, 0.65)), 0.15))
    else:
        spot = must(r.in_middle(f.table(d, d.between(1.1, 1.8), d.between(0.75, 0.95)), 0.15))
    style = d.generator.integers(2**31)
    if r.chairs_around(spot, lambda: f.chair(Draw(np.random.default_rng(style))), 0.9) < 3:
        raise DoesNotFit
    for _ in range(d.whole(2, 5)):
        r.on_top(spot, things.crockery(d))
    dress(r, d, spot, 1)
    hang_lamp(r, d, spot) if d.chance(0.6) else None
    dress(r, d, r.by_wall(f.cabinet(d)), 3)
    for piece, chance in (
        (f.cabinet, 0.35),
        (f.shelf, 0.25),
        (f.chair, 0.3),
        (f.armchair, 0.15),
        (f.wardrobe, 0.1),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def hang_lamp(r: Room, d: Draw, spot: Placed) -> None:
    """A lamp hanging over a placed table."""
    x, y = spot.box.mean(axis=0)[:2]
    drop = r.height - d.between(1.45, 1.7)
    lamp = things.disc(Piece(), d.hard(), 0, 0, 0, d.between(0.15, 0.28), d.between(0.12, 0.25))
    r.place(
        lamp.box(d.metal(), (-0.008, 0.008), (-0.008, 0.008), (0.1, drop)),
        x,
        y,
        0,
        lift=r.height - drop - 0.001,
    )


def conference_room(r: Room, d: Draw) -> None:
    wide = d.between(1.8, min(3.2, max(r.width, r.depth) - 1.6)) if max(r.width, r.depth) > 3.5 else 1.8
    angle = 0.0 if r.width > r.depth else 90.0
    spot = must(r.in_middle(f.table(d, wide, d.between(0.9, 1.2)), 0.1, angle))
    style, kind = d.generator.integers(2**31), f.office_chair if d.chance(0.75) else f.chair
    if r.chairs_around(spot, lambda: kind(Draw(np.random.default_rng(style))), 0.92) < 4:
        raise DoesNotFit
    for _ in range(d.whole(2, 6)):
        r.on_top(spot, d.one_of((things.laptop, things.papers, things.papers, things.books))(d))
    board = d.one_of((things.whiteboard, things.whiteboard, things.wall_screen))
    r.by_wall(board(d), wall=r.facing_wall(), lift=d.between(0.95, 1.1)) or r.by_wall(
        board(d), lift=1.0, seen=False
    )
    for piece, chance in ((f.cabinet, 0.35), (f.shelf, 0.15), (f.chair, 0.3), (f.wardrobe, 0.1)):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def nursery(r: Room, d: Draw) -> None:
    must(r.by_wall(f.cot(d)))
    for _ in range(2 if d.chance(0.15) else 1):
        r.by_wall(f.changing_table(d)) if d.chance(0.7) else r.by_wall(f.cabinet(d))
    for piece, chance in (
        (lambda: f.shelf(d, d.between(0.6, 0.9)), 0.75),
        (lambda: f.wardrobe(d), 0.3),
        (lambda: f.armchair(d), 0.25),
        (lambda: f.chair(d), 0.15),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(), seen=False), 2)
    if d.chance(0.35):
        small_table(r, d)
    for piece, chance in (
        (things.toys, 0.9),
        (things.toys, 0.5),
        (things.toy_tent, 0.3),
        (things.rocking_horse, 0.35),
    ):
        if d.chance(EXTRAS * chance):
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
                r.beside(spot, things.drip_stand(d), -0.62, 0.3)
        start += step
    if not count:
        raise DoesNotFit
    for piece, chance in (
        (f.washbasin, 0.4),
        (f.chair, 0.5),
        (f.cabinet, 0.4),
        (f.wardrobe, 0.2),
        (f.cot, 0.15),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def hotel_suite(r: Room, d: Draw) -> None:
    must(r.by_wall(f.bed(d)))
    must(r.by_wall(d.one_of((f.sofa, f.armchair, f.tv_board))(d)))
    low = r.in_middle(f.coffee_table(d), 0.3)
    dress(r, d, low, 2)
    for piece, chance in (
        (f.workplace, 0.4),
        (f.armchair, 0.5),
        (f.tv_board, 0.4),
        (f.wardrobe, 0.4),
        (f.nightstand, 0.7),
        (f.chair, 0.4),
        (f.bathtub, 0.15),
    ):
        if d.chance(EXTRAS * chance):
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
    for piece, chance in (
        (f.fridge, 0.5),
        (f.workplace, 0.3),
        (f.armchair, 0.3),
        (f.shelf, 0.4),
        (f.wardrobe, 0.3),
        (f.tv_board, 0.3),
        (f.cot, 0.1),
        (f.washbasin, 0.1),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=d.chance(0.5)), 2)


def waiting_room(r: Room, d: Draw) -> None:
    make, rows = d.generator.integers(2**31), 0
    for _ in range(d.whole(2, 4)):
        row = f.seat_row(Draw(np.random.default_rng(make)), d.whole(2, 5))
        rows += r.by_wall(row, seen=rows == 0) is not None
    if not rows:
        raise DoesNotFit
    dress(r, d, r.in_middle(f.coffee_table(d), 0.3), 3)
    for piece, chance in (
        (f.vending_machine, 0.4),
        (f.cabinet, 0.3),
        (f.sofa, 0.35),
        (f.armchair, 0.3),
        (f.workplace, 0.3),
        (f.washbasin, 0.1),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)
    r.by_wall(things.wall_screen(d), lift=1.4) if d.chance(0.5) else None
    r.anywhere(things.toys(d)) if d.chance(0.3) else None


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
            r.on_top(spot, things.crockery(d))
    if not count:
        raise DoesNotFit
    for piece, chance in ((f.vending_machine, 0.4), (f.fridge, 0.3), (f.cabinet, 0.4), (f.sofa, 0.15)):
        if d.chance(EXTRAS * chance):
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
    r.by_wall(things.whiteboard(d), lift=1.0, seen=False) if d.chance(0.6) else None
    for piece, chance in ((f.shelf, 0.3), (f.cabinet, 0.4), (f.sofa, 0.1)):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=False), 2)


def laundry(r: Room, d: Draw) -> None:
    wall, start, count = r.facing_wall(), d.between(0.0, 0.6), 0
    make = d.generator.integers(2**31)
    for _ in range(d.whole(2, 6)):
        count += seen(r, r.in_row(f.washing_machine(Draw(np.random.default_rng(make))), wall, start))
        start += 0.61
    if count < 2:
        raise DoesNotFit
    for piece, chance in (
        (f.washbasin, 0.5),
        (f.shelf, 0.4),
        (f.bench, 0.4),
        (f.cabinet, 0.4),
        (f.bathtub, 0.15),
        (f.washing_machine, 0.4),
        (f.changing_table, 0.15),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=d.chance(0.5)), 2)
    counter(r, d, 2) if d.chance(0.3) else None
    for piece, chance in ((f.ironing_board, 0.4), (things.basket, 0.8), (things.basket, 0.5)):
        if d.chance(EXTRAS * chance):
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
        r.in_row(equipment.cubicle_wall(d), other, start)
        r.in_row(f.toilet(d), other, start + 0.28)
        start += 0.95
    for piece, chance in ((f.shower, 0.35), (f.bench, 0.2), (f.changing_table, 0.2), (f.cabinet, 0.2)):
        if d.chance(EXTRAS * chance):
            r.by_wall(piece(d), seen=False)


def dormitory(r: Room, d: Draw) -> None:
    wall, start, count = r.facing_wall(), d.between(0.0, 0.4), 0
    make, kind = d.generator.integers(2**31), d.one_of((f.bunk_bed, lambda d: f.bed(d, 0.9)))
    for _ in range(d.whole(2, 3)):
        count += seen(r, r.in_row(kind(Draw(np.random.default_rng(make))), wall, start))
        start += d.between(1.3, 1.7)
    if not count:
        raise DoesNotFit
    for piece, chance in (
        (f.lockers, 0.6),
        (f.workplace, 0.5),
        (f.workplace, 0.3),
        (f.chair, 0.4),
        (f.shelf, 0.3),
        (f.wardrobe, 0.4),
        (f.washbasin, 0.15),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(d), seen=d.chance(0.5)), 2)


def day_care(r: Room, d: Draw) -> None:
    count = sum(r.by_wall(f.cot(d)) is not None for _ in range(d.whole(0, 2)))
    for _ in range(d.whole(1, 3)):
        small_table(r, d)
        count += 1
    if not count:
        raise DoesNotFit
    for piece, chance in (
        (lambda: f.shelf(d, d.between(0.6, 0.9)), 0.8),
        (lambda: f.shelf(d, 0.8), 0.4),
        (lambda: f.changing_table(d), 0.4),
        (lambda: f.sofa(d), 0.25),
        (lambda: f.washbasin(d), 0.25),
        (lambda: things.whiteboard(d), 0.0),
        (lambda: f.bed(d, 0.9), 0.15),
    ):
        if d.chance(EXTRAS * chance):
            dress(r, d, r.by_wall(piece(), seen=d.chance(0.5)), 2)
    for piece, chance in (
        (things.toys, 0.9),
        (things.toys, 0.7),
        (things.toy_tent, 0.3),
        (things.rocking_horse, 0.3),
    ):
        if d.chance(EXTRAS * chance):
            r.anywhere(piece(d), seen=d.chance(0.7))


# ---- far rooms: they share little ----------------------------------------------------------------------


def library_stacks(r: Room, d: Draw) -> None:
    wall, wide, count = r.facing_wall(), d.between(1.4, 2.4), 0
    along, step = d.between(0.5, 0.8), d.between(1.3, 1.6)
    while along < r.wall_length(wall):
        stack = equipment.book_stack(d, wide)
        turned = Piece().add(stack, 0, wide / 2 + 0.02, 0, 90)
        count += r.in_row(turned, wall, along) is not None
        along += step
    count += r.by_wall(f.shelf(d, 2.0, d.between(1.2, 2.0)), seen=False) is not None
    count += r.by_wall(f.shelf(d, 2.0, d.between(1.2, 2.0))) is not None
    if count < 2:
        raise DoesNotFit
    r.anywhere(f.stool(d)) if d.chance(0.4) else None


def storage(r: Room, d: Draw) -> None:
    count = sum(
        r.by_wall(equipment.metal_rack(d), seen=d.chance(0.7)) is not None for _ in range(d.whole(2, 4))
    )
    if not count:
        raise DoesNotFit
    for _ in range(d.whole(2, 6)):
        r.anywhere(equipment.carton_pile(d))


def stairwell(r: Room, d: Draw) -> None:
    wall = r.facing_wall()
    must(r.by_wall(equipment.stairs(d, d.between(0.9, 1.3), r.height), wall=wall))
    if d.chance(0.5):
        r.by_wall(equipment.stairs(d, d.between(0.8, 1.1), r.height), seen=False)
    r.by_wall(things.door(d), seen=False)


def gym(r: Room, d: Draw) -> None:
    count = 0
    for piece in (
        [equipment.treadmill] * d.whole(1, 3)
        + [equipment.weight_bench] * d.whole(1, 2)
        + [equipment.dumbbell_rack] * d.whole(0, 2)
    ):
        count += r.by_wall(piece(d), off=d.between(0.1, 0.5)) is not None
    if count < 2:
        raise DoesNotFit
    for _ in range(d.whole(0, 2)):
        r.anywhere(equipment.mat(d))
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
    r.by_wall(things.door(d), wall=wall) or r.by_wall(things.picture(d), wall=wall, lift=1.2)


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
    must(r.by_wall(equipment.work_bench(d)))
    for piece, chance in (
        (equipment.work_bench, 0.6),
        (equipment.drill_press, 0.8),
        (equipment.metal_rack, 0.6),
        (equipment.drill_press, 0.4),
        (f.lockers, 0.2),
    ):
        if d.chance(EXTRAS * chance):
            r.by_wall(piece(d), seen=d.chance(0.6))
    for piece, chance in ((equipment.carton_pile, 0.5), (f.stool, 0.4)):
        if d.chance(EXTRAS * chance):
            r.anywhere(piece(d))


def garage(r: Room, d: Draw) -> None:
    must(r.in_middle(equipment.car(d), 0.2))
    for piece, chance in (
        (equipment.metal_rack, 0.7),
        (equipment.work_bench, 0.4),
        (equipment.metal_rack, 0.4),
    ):
        if d.chance(EXTRAS * chance):
            r.by_wall(piece(d), seen=False)
    for _ in range(d.whole(0, 3)):
        r.anywhere(equipment.carton_pile(d))


def server_room(r: Room, d: Draw) -> None:
    wall, count = r.facing_wall(), 0
    for k, off in ((wall, 0.0), ((wall + 1) % 4, 0.0), ((wall + 3) % 4, 0.0), (wall, 1.9)):
        start = d.between(0.0, 0.8)
        while start + 0.6 < r.wall_length(k):
            if d.chance(0.85):
                count += r.in_row(equipment.server_rack(d), k, start, off) is not None
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
    r.anywhere(things.bag(d))


def greenhouse(r: Room, d: Draw) -> None:
    count = sum(
        r.by_wall(equipment.plant_bench(d), seen=d.chance(0.7)) is not None for _ in range(d.whole(2, 4))
    )
    if d.chance(0.6):
        count += r.in_middle(equipment.plant_bench(d), 0.2) is not None
    if count < 2:
        raise DoesNotFit
    for _ in range(d.whole(2, 6)):
        r.anywhere(things.plant(d))


ROOMS: dict[str, Callable[[Room, Draw], None]] = {
    function.__name__: function
    for function in (
        bedroom,
        bathroom,
        kitchen,
        office,
        living_room,
        dining_room,
        conference_room,
        nursery,
        hospital_ward,
        hotel_suite,
        studio_flat,
        waiting_room,
        cafeteria,
        computer_lab,
        laundry,
        public_washroom,
        dormitory,
        day_care,
        library_stacks,
        storage,
        stairwell,
        gym,
        corridor,
        workshop,
        garage,
        server_room,
        locker_room,
        greenhouse,
    )
}
