"""Equipment of rooms that share little with the task: stacks, racks, stairs, machines, a car.

Metres; back at y = 0, front toward +y, floor at z = 0 (see `layout.Piece`).
"""

from __future__ import annotations

from furniture import shelf, table
from layout import Piece
from materials import Draw


def book_stack(d: Draw, wide: float) -> Piece:
    """A double-sided library stack."""
    high, one = d.between(1.7, 2.2), Piece()
    one.add(shelf(d, high, wide))
    return Piece().add(one, 0, 0.0, 0, 0).add(shelf(d, high, wide), 0, 0.0, 0, 180)


def metal_rack(d: Draw) -> Piece:
    """An open rack with cartons."""
    wide, deep, high, metal = d.between(1.0, 1.8), d.between(0.4, 0.6), d.between(1.6, 2.2), d.metal()
    x = (-wide / 2, wide / 2)
    piece = Piece().legs(metal, x, (0, deep), high, 0.04)
    number = d.whole(3, 4)
    for i in range(number):
        z = 0.1 + i * (high - 0.15) / (number - 1)
        piece.box(metal, x, (0, deep), (z, z + 0.03))
        if i < number - 1:
            left = x[0] + 0.05
            while left < x[1] - 0.25:
                size = d.between(0.2, 0.5)
                if d.chance(0.75) and left + size < x[1]:
                    piece.box(
                        d.paper(),
                        (left, left + size),
                        (0.03, deep * d.between(0.7, 1.0)),
                        (z + 0.03, z + 0.03 + d.between(0.15, 0.4)),
                    )
                left += size + 0.03
    return piece


def carton_pile(d: Draw) -> Piece:
    piece, z, half = Piece(), 0.0, d.between(0.25, 0.4)
    for _ in range(d.whole(1, 4)):
        high = d.between(0.2, 0.45)
        piece.box(d.paper(), (-half, half), (-half * 0.8, half * 0.8), (z, z + high))
        z, half = z + high, half * d.between(0.75, 1.0)
    return piece


def stairs(d: Draw, wide: float, high: float) -> Piece:
    """A straight flight up along a wall, with a railing."""
    step_high, step_deep, tread, metal = (
        d.between(0.16, 0.19),
        d.between(0.24, 0.3),
        d.one_of((d.wood, d.paint))(),
        d.metal(),
    )
    number, piece = int((high - 0.2) / step_high), Piece()
    number = min(number, 11)
    for i in range(number):
        piece.box(
            tread, (-wide / 2, wide / 2), (i * step_deep, (i + 1) * step_deep), (0, (number - i) * step_high)
        )
    for i in range(0, number, 2):
        y, z = (i + 0.5) * step_deep, (number - i) * step_high
        if z + 0.9 < high:
            piece.rod(metal, (wide / 2 - 0.04, y, z), (wide / 2 - 0.04, y, z + 0.85), 0.015)
    return piece


def treadmill(d: Draw) -> Piece:
    metal, belt = d.metal(), d.plastic()
    piece = Piece().box(belt, (-0.35, 0.35), (0.0, 1.6), (0.05, 0.2))
    for x in (-0.35, 0.31):
        piece.rod(metal, (x + 0.02, 0.2, 0.2), (x + 0.02, 0.1, 1.3), 0.03).rod(
            metal, (x + 0.02, 0.15, 1.0), (x + 0.02, 0.7, 0.95), 0.02
        )
    return piece.box(d.screen(), (-0.3, 0.3), (0.03, 0.2), (1.2, 1.5))


def weight_bench(d: Draw) -> Piece:
    metal, piece = d.metal(), Piece()
    piece.box(d.plastic(), (-0.15, 0.15), (0.2, 1.4), (0.42, 0.5)).box(
        metal, (-0.04, 0.04), (0.25, 1.35), (0.05, 0.42)
    )
    piece.box(metal, (-0.25, 0.25), (1.25, 1.32), (0, 0.06)).box(metal, (-0.5, 0.5), (0.25, 0.31), (0, 0.06))
    for x in (-0.45, 0.41):
        piece.box(metal, (x, x + 0.04), (0.25, 0.31), (0, 1.05))
    piece.rod(metal, (-0.8, 0.28, 1.07), (0.8, 0.28, 1.07), 0.015)
    for x in (-0.72, 0.66):
        plate = d.metal()
        piece.rod(plate, (x, 0.28, 1.07), (x + 0.06, 0.28, 1.07), 0.2)
        piece.lid(plate, (x, 0.28, 1.07), 0.2, (1, 0, 0)).lid(plate, (x + 0.06, 0.28, 1.07), 0.2, (1, 0, 0))
    return piece


def dumbbell_rack(d: Draw) -> Piece:
    metal, piece, wide = d.metal(), Piece(), d.between(1.0, 1.6)
    piece.legs(metal, (-wide / 2, wide / 2), (0, 0.4), 0.9, 0.05)
    for z in (0.4, 0.8):
        piece.box(metal, (-wide / 2, wide / 2), (0, 0.4), (z, z + 0.03))
        for i in range(5):
            x = -wide / 2 + (i + 0.5) * wide / 5
            for y in (0.08, 0.3):
                piece.ball(metal, x, y, z + 0.1, 0.07)
    return piece


def mat(d: Draw) -> Piece:
    return Piece().box(d.plastic(), (-0.35, 0.35), (-0.9, 0.9), (0, 0.05))


def work_bench(d: Draw) -> Piece:
    wide, deep = d.between(1.3, 2.0), d.between(0.6, 0.8)
    piece, metal = table(d, wide, deep, d.between(0.85, 0.95)), d.metal()
    ((xs, _, z),) = piece.tops
    piece.box(metal, (xs[1] - 0.3, xs[1] - 0.15), (deep - 0.15, deep + 0.05), (z, z + 0.2))
    piece.box(d.wood(), xs, (0, 0.03), (z, z + 0.7))
    for i in range(d.whole(4, 8)):
        x = xs[0] + 0.1 + i * (wide - 0.3) / 8
        piece.box(
            d.metal(),
            (x, x + d.between(0.03, 0.09)),
            (0.03, 0.06),
            (z + d.between(0.2, 0.35), z + d.between(0.45, 0.65)),
        )
    return piece


def drill_press(d: Draw) -> Piece:
    metal, piece = d.metal(), Piece()
    piece.box(metal, (-0.25, 0.25), (0, 0.55), (0, 0.1)).rod(metal, (0, 0.12, 0.1), (0, 0.12, 1.6), 0.05)
    piece.box(metal, (-0.2, 0.2), (0.1, 0.55), (0.8, 0.86)).rod(d.metal(), (0, 0.4, 1.0), (0, 0.4, 1.3), 0.03)
    return piece.box(d.metal(), (-0.15, 0.15), (0.0, 0.6), (1.3, 1.65))


def car(d: Draw) -> Piece:
    paint, tyre, glass, wide, long = (
        d.metal(),
        d.plastic(),
        d.screen(),
        d.between(1.5, 1.7),
        d.between(2.6, 3.4),
    )
    x, piece = (-wide / 2, wide / 2), Piece()
    piece.box(paint, x, (0.0, long), (0.25, 0.75)).box(
        glass, (x[0] + 0.1, x[1] - 0.1), (long * 0.22, long * 0.72), (0.75, 1.25)
    )
    piece.box(paint, (x[0] + 0.08, x[1] - 0.08), (long * 0.25, long * 0.68), (1.25, 1.35))
    for y in (long * 0.2, long * 0.8):
        for a, b in ((x[0] - 0.03, x[0] + 0.15), (x[1] - 0.15, x[1] + 0.03)):
            piece.rod(tyre, (a, y, 0.3), (b, y, 0.3), 0.3)
            piece.lid(tyre, (a, y, 0.3), 0.3, (1, 0, 0)).lid(tyre, (b, y, 0.3), 0.3, (1, 0, 0))
    for a in (x[0] + 0.1, x[1] - 0.35):
        piece.box(d.plastic(), (a, a + 0.25), (long - 0.02, long + 0.03), (0.5, 0.62))
    return piece


def server_rack(d: Draw) -> Piece:
    body, wide, high, piece = d.metal(), 0.6, d.between(1.8, 2.1), Piece()
    piece.box(body, (-wide / 2, wide / 2), (0, 0.75), (0, high))
    z = 0.1
    while z < high - 0.2:
        unit = d.one_of((0.05, 0.1, 0.2))
        if d.chance(0.8):
            piece.box(
                d.one_of((d.metal, d.screen, d.plastic))(), (-0.25, 0.25), (0.72, 0.77), (z, z + unit - 0.012)
            )
        z += unit
    return piece


def plant_bench(d: Draw) -> Piece:
    """A trestle with rows of potted plants."""
    wide, deep = d.between(1.2, 2.0), d.between(0.5, 0.7)
    piece = table(d, wide, deep, d.between(0.6, 0.8))
    ((xs, _, z),) = piece.tops
    number = int(wide / 0.3)
    for i in range(number):
        for y in (deep * 0.28, deep * 0.72):
            x, leaf = xs[0] + (i + 0.5) * wide / number, d.foliage()
            piece.box(d.ceramic(), (x - 0.08, x + 0.08), (y - 0.08, y + 0.08), (z, z + 0.15))
            tall = d.between(0.1, 0.45)
            for _ in range(4):
                piece.ball(
                    leaf,
                    x + d.between(-0.08, 0.08),
                    y + d.between(-0.06, 0.06),
                    z + 0.15 + tall * d.between(0.2, 1),
                    d.between(0.05, 0.09),
                )
    return piece


def cubicle_wall(d: Draw) -> Piece:
    """A partition that stands out from the wall."""
    deep, high = d.between(1.1, 1.4), d.between(1.7, 1.95)
    return (
        Piece()
        .box(d.hard(), (-0.02, 0.02), (0, deep), (0.12, high))
        .box(d.metal(), (-0.02, 0.02), (deep - 0.06, deep), (0, high))
    )


def partition(d: Draw, wide: float, high: float) -> Piece:
    return Piece().box(d.paint(), (-wide / 2, wide / 2), (0, 0.1), (0, high))
