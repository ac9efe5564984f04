"""Furniture from simple solids: one short function a piece, with random sizes, forms and materials.

Metres; back at y = 0, front toward +y, floor at z = 0 (see `layout.Piece`).
"""

from __future__ import annotations

from fittings import disc, fill, fronts, laptop, monitor, picture
from layout import Piece
from materials import Draw

# ---- seats ---------------------------------------------------------------------------------------------


def chair(d: Draw, scale: float = 1.0) -> Piece:
    wide, deep, seat = (
        scale * d.between(0.38, 0.5),
        scale * d.between(0.4, 0.5),
        scale * d.between(0.42, 0.48),
    )
    frame, cover = d.hard(), d.one_of((d.wood, d.cloth, d.plastic))()
    x, back = (-wide / 2, wide / 2), scale * d.between(0.35, 0.55)
    piece = Piece().legs(frame, x, (0, deep), seat, 0.035)
    piece.box(cover, x, (0, deep), (seat, seat + 0.04)).top(x, (0.05, deep), seat + 0.04)
    if d.chance(0.5):
        return piece.box(cover, x, (0, 0.04), (seat, seat + back))
    for i in range(4):
        left = -wide / 2 + i * (wide - 0.04) / 3
        piece.box(frame, (left, left + 0.04), (0, 0.03), (seat, seat + back))
    return piece.box(frame, x, (0, 0.035), (seat + back - 0.07, seat + back))


def office_chair(d: Draw) -> Piece:
    cover, foot = d.one_of((d.cloth, d.plastic))(), d.hard()
    seat, back = d.between(0.42, 0.52), d.between(0.4, 0.65)
    piece = Piece().rod(foot, (0, 0.3, 0.08), (0, 0.3, seat), 0.03)
    piece.box(foot, (-0.27, 0.27), (0.27, 0.33), (0.03, 0.09)).box(
        foot, (-0.03, 0.03), (0.03, 0.57), (0.03, 0.09)
    )
    piece.box(cover, (-0.24, 0.24), (0.07, 0.55), (seat, seat + 0.08))
    piece.box(cover, (-0.22, 0.22), (0.02, 0.08), (seat + 0.15, seat + 0.15 + back))
    if d.chance(0.6):
        for x in (-0.28, 0.24):
            piece.box(foot, (x, x + 0.04), (0.12, 0.45), (seat + 0.2, seat + 0.24))
    return piece


def stool(d: Draw) -> Piece:
    radius, height, wood = d.between(0.15, 0.2), d.between(0.4, 0.7), d.hard()
    piece = Piece().legs(wood, (-radius * 0.8, radius * 0.8), (radius * 0.2, radius * 1.8), height, 0.03)
    return disc(piece, d.wood(), 0, radius, height, radius, 0.04)


def sofa(d: Draw, wide: float | None = None) -> Piece:
    wide = wide or d.between(1.4, 2.2)
    deep, seat, back, arm = (
        d.between(0.75, 0.95),
        d.between(0.36, 0.45),
        d.between(0.7, 0.9),
        d.between(0.1, 0.22),
    )
    cloth, cushion = d.cloth(), d.cloth()
    x = (-wide / 2, wide / 2)
    piece = Piece().box(cloth, x, (0, deep), (0.06, seat - 0.1)).box(cloth, x, (0, 0.22), (0.06, back))
    piece.legs(d.hard(), x, (0.02, deep), 0.06, 0.06)
    for left in (x[0], x[1] - arm):
        piece.box(cloth, (left, left + arm), (0, deep), (0.06, seat + 0.18))
    number = max(1, round((wide - 2 * arm) / 0.65))
    step = (wide - 2 * arm) / number
    for i in range(number):
        left = x[0] + arm + i * step
        piece.box(cushion, (left + 0.01, left + step - 0.01), (0.2, deep), (seat - 0.1, seat))
        if d.chance(0.5):
            piece.box(
                d.cloth(), (left + 0.1, left + min(step, 0.5)), (0.22, 0.34), (seat, seat + 0.34), tilt=12
            )
    return piece.top((x[0] + arm, x[1] - arm), (0.35, deep), seat)


def armchair(d: Draw) -> Piece:
    return sofa(d, d.between(0.75, 0.95))


def bench(d: Draw) -> Piece:
    wide, deep, high = d.between(0.9, 1.6), d.between(0.3, 0.4), d.between(0.4, 0.5)
    x = (-wide / 2, wide / 2)
    piece = Piece().legs(d.hard(), x, (0, deep), high, 0.06)
    return piece.box(d.wood(), x, (0, deep), (high, high + 0.05)).top(x, (0, deep), high + 0.05)


def seat_row(d: Draw, number: int) -> Piece:
    """Linked seats of a waiting room on one beam."""
    cover, metal, piece = d.one_of((d.plastic, d.cloth, d.metal))(), d.metal(), Piece()
    step = d.between(0.52, 0.62)
    wide = number * step
    piece.box(metal, (-wide / 2, wide / 2), (0.22, 0.3), (0.3, 0.36))
    for i in range(number):
        left = -wide / 2 + i * step
        piece.box(cover, (left + 0.03, left + step - 0.03), (0.06, 0.5), (0.38, 0.43))
        piece.box(cover, (left + 0.03, left + step - 0.03), (0.02, 0.07), (0.43, 0.85), tilt=-4)
    for x in (-wide / 2 + 0.1, wide / 2 - 0.16):
        piece.box(metal, (x, x + 0.06), (0.05, 0.48), (0, 0.04)).box(
            metal, (x, x + 0.06), (0.22, 0.3), (0, 0.32)
        )
    return piece.top((-wide / 2, wide / 2), (0.1, 0.5), 0.43)


# ---- tables --------------------------------------------------------------------------------------------


def table(d: Draw, wide: float, deep: float, high: float = 0.0) -> Piece:
    high = high or d.between(0.7, 0.78)
    x, y, plate, frame = (-wide / 2, wide / 2), (0.0, deep), d.one_of((d.wood, d.hard))(), d.hard()
    piece = Piece()
    if d.chance(0.65):
        piece.legs(frame, (x[0] + 0.03, x[1] - 0.03), (0.03, deep - 0.03), high - 0.04, d.between(0.04, 0.08))
    else:
        for side in (x[0] + 0.15 * wide, x[1] - 0.15 * wide - 0.06):
            piece.box(frame, (side, side + 0.06), (0.15 * deep, 0.85 * deep), (0, high - 0.04))
    return piece.box(plate, x, y, (high - 0.04, high)).top((x[0], x[1]), y, high)


def round_table(d: Draw, radius: float, high: float = 0.0) -> Piece:
    high = high or d.between(0.7, 0.78)
    plate, frame = d.one_of((d.wood, d.hard))(), d.hard()
    piece = Piece().rod(frame, (0, radius, 0.03), (0, radius, high - 0.03), 0.05)
    piece.box(frame, (-radius / 2, radius / 2), (radius / 2, radius * 1.5), (0, 0.03))
    disc(piece, plate, 0, radius, high - 0.04, radius, 0.04)
    return piece.top((-radius * 0.7, radius * 0.7), (radius * 0.3, radius * 1.7), high)


def coffee_table(d: Draw) -> Piece:
    high = d.between(0.32, 0.48)
    if d.chance(0.3):
        return round_table(d, d.between(0.3, 0.45), high)
    return table(d, d.between(0.6, 1.1), d.between(0.4, 0.65), high)


def desk(d: Draw) -> Piece:
    wide, deep = d.between(1.0, 1.6), d.between(0.55, 0.8)
    piece = table(d, wide, deep)
    if d.chance(0.6):
        side = d.one_of((-wide / 2 + 0.05, wide / 2 - 0.43))
        fronts(piece, d, (side, side + 0.38), (0.05, deep - 0.05), (0.02, 0.6), 1, d.whole(2, 3))
    return piece


def workplace(d: Draw) -> Piece:
    """A desk with a screen, a keyboard and papers."""
    piece = desk(d)
    ((xs, ys, z),) = piece.tops
    place = d.between(xs[0] + 0.35, xs[1] - 0.35)
    for shift in (-0.28, 0.28) if xs[1] - xs[0] > 1.35 and d.chance(0.4) else (0.0,):
        piece.add(monitor(d) if d.chance(0.8) else laptop(d), place * (0.3 if shift else 1) + shift, 0.06, z)
    piece.box(d.plastic(), (place * 0.5 - 0.2, place * 0.5 + 0.2), (ys[1] - 0.25, ys[1] - 0.1), (z, z + 0.02))
    return piece


def island(d: Draw) -> Piece:
    wide, deep = d.between(0.9, 1.4), d.between(0.55, 0.75)
    piece = Piece()
    fronts(piece, d, (-wide / 2, wide / 2), (0.03, deep - 0.03), (0.08, 0.86), d.whole(2, 3), 1)
    x = (-wide / 2 - 0.03, wide / 2 + 0.03)
    return piece.box(d.hard(), x, (0, deep), (0.86, 0.9)).top(x, (0, deep), 0.9)


# ---- cupboards and shelves -----------------------------------------------------------------------------


def wardrobe(d: Draw) -> Piece:
    wide, deep, high = d.between(0.8, 1.8), d.between(0.5, 0.62), d.between(1.7, 2.15)
    return fronts(Piece(), d, (-wide / 2, wide / 2), (0, deep), (0.0, high), max(2, round(wide / 0.5)), 1)


def cabinet(d: Draw) -> Piece:
    """A low cupboard, chest of drawers or sideboard."""
    wide, deep, high = d.between(0.5, 1.5), d.between(0.35, 0.5), d.between(0.6, 1.1)
    x = (-wide / 2, wide / 2)
    piece = fronts(Piece(), d, x, (0, deep), (0.05, high), max(1, round(wide / 0.5)), d.whole(1, 4))
    return piece.top(x, (0, deep), high)


def nightstand(d: Draw) -> Piece:
    wide, high = d.between(0.35, 0.5), d.between(0.4, 0.6)
    piece = fronts(Piece(), d, (-wide / 2, wide / 2), (0, 0.38), (0.04, high), 1, d.whole(1, 2))
    return piece.top((-wide / 2, wide / 2), (0, 0.38), high)


def shelf(d: Draw, high: float = 0.0, wide: float = 0.0) -> Piece:
    """An open shelf with books and boxes in it."""
    wide, deep, high = wide or d.between(0.6, 1.3), d.between(0.25, 0.38), high or d.between(1.1, 2.1)
    wood, x = d.hard(), (-wide / 2, wide / 2)
    piece = (
        Piece()
        .box(wood, (x[0], x[0] + 0.025), (0, deep), (0, high))
        .box(wood, (x[1] - 0.025, x[1]), (0, deep), (0, high))
        .box(wood, x, (0, 0.015), (0, high))
    )
    number = max(2, round(high / 0.36))
    for i in range(number + 1):
        z = 0.05 + i * (high - 0.08) / number
        piece.box(wood, x, (0, deep), (z, z + 0.025))
        if i < number:
            fill(piece, d, x, deep, z + 0.025, (high - 0.08) / number - 0.06)
    return piece.top(x, (0, deep), high)


def tv_board(d: Draw) -> Piece:
    wide, deep, high = d.between(1.1, 1.8), d.between(0.35, 0.45), d.between(0.35, 0.55)
    x = (-wide / 2, wide / 2)
    piece = fronts(Piece(), d, x, (0, deep), (0.04, high), d.whole(2, 4), 1)
    size = d.between(0.8, min(1.3, wide))
    piece.box(d.plastic(), (-0.15, 0.15), (0.12, 0.28), (high, high + 0.04))
    piece.box(d.screen(), (-size / 2, size / 2), (0.17, 0.22), (high + 0.04, high + 0.04 + 0.56 * size))
    return piece


def lockers(d: Draw) -> Piece:
    number, high = d.whole(3, 6), d.between(1.6, 2.0)
    wide = number * 0.32
    return fronts(Piece(), d, (-wide / 2, wide / 2), (0, 0.45), (0.05, high), number, d.whole(1, 2))


# ---- beds ----------------------------------------------------------------------------------------------


def bed(d: Draw, wide: float = 0.0) -> Piece:
    wide, long, high = wide or d.between(0.9, 1.8), d.between(1.9, 2.1), d.between(0.4, 0.6)
    x, frame, sheet, blanket = (-wide / 2, wide / 2), d.hard(), d.cloth(), d.cloth()
    piece = (
        Piece()
        .box(frame, x, (0, 0.05), (0, d.between(0.75, 1.2)))
        .box(frame, x, (0, long), (0.12, high - 0.18))
    )
    piece.legs(frame, x, (0, long), 0.12, 0.06)
    piece.box(sheet, (x[0] + 0.02, x[1] - 0.02), (0.05, long - 0.02), (high - 0.18, high))
    start = d.between(0.45, 0.9)
    piece.box(
        blanket, (x[0] - 0.01, x[1] + 0.01), (start, long + 0.01), (high - 0.2, high + d.between(0.03, 0.08))
    )
    pillow, number = d.cloth(), 2 if wide > 1.25 else 1
    step = wide / number
    for i in range(number):
        left = x[0] + i * step
        piece.box(pillow, (left + 0.08, left + step - 0.08), (0.1, 0.42), (high, high + 0.13))
    return piece.top(x, (start, long - 0.1), high + 0.08)


def bunk_bed(d: Draw) -> Piece:
    wide, long, frame = d.between(0.85, 1.0), 2.0, d.hard()
    piece = Piece().legs(frame, (-wide / 2, wide / 2), (0, long), 1.75, 0.06)
    for z in (0.35, 1.3):
        piece.box(frame, (-wide / 2, wide / 2), (0, long), (z, z + 0.1))
        piece.box(d.cloth(), (-wide / 2 + 0.03, wide / 2 - 0.03), (0.04, long - 0.04), (z + 0.1, z + 0.22))
        piece.box(d.cloth(), (-wide / 2 + 0.1, wide / 2 - 0.1), (0.1, 0.4), (z + 0.22, z + 0.32))
    piece.box(frame, (wide / 2 - 0.03, wide / 2), (0.5, long - 0.1), (1.6, 1.66))
    for z in (0.3, 0.6, 0.9, 1.2):
        piece.box(frame, (-wide / 2 + 0.05, -wide / 2 + 0.4), (long, long + 0.03), (z, z + 0.03))
    return piece


def hospital_bed(d: Draw) -> Piece:
    wide, long, high, metal = 0.9, 2.0, d.between(0.55, 0.75), d.metal()
    x = (-wide / 2, wide / 2)
    piece = Piece().legs(metal, x, (0.1, long - 0.1), high - 0.15, 0.05)
    piece.box(metal, x, (0, 0.04), (high - 0.2, high + 0.4)).box(
        metal, x, (long - 0.04, long), (high - 0.2, high + 0.25)
    )
    piece.box(metal, x, (0, long), (high - 0.2, high - 0.13))
    piece.box(d.cloth(), (x[0] + 0.02, x[1] - 0.02), (0.7, long - 0.05), (high - 0.13, high))
    piece.box(d.cloth(), (x[0] + 0.02, x[1] - 0.02), (0.06, 0.76), (high, high + 0.12), tilt=-24)
    piece.box(d.cloth(), (x[0] - 0.01, x[1] + 0.01), (1.0, long - 0.04), (high - 0.1, high + 0.04))
    for side in (x[0] - 0.03, x[1]):
        for z in (high + 0.12, high + 0.28):
            piece.box(metal, (side, side + 0.03), (0.6, 1.4), (z, z + 0.03))
        for y in (0.6, 1.0, 1.37):
            piece.box(metal, (side, side + 0.03), (y, y + 0.03), (high - 0.1, high + 0.3))
    return piece.top(x, (1.0, long - 0.1), high + 0.04)


def cot(d: Draw) -> Piece:
    """A child's bed with bars on all sides."""
    wide, long, high, base = (
        d.between(1.05, 1.35),
        d.between(0.6, 0.75),
        d.between(0.85, 1.0),
        d.between(0.3, 0.5),
    )
    frame, x = d.hard(), (-wide / 2, wide / 2)
    piece = Piece().legs(frame, x, (0, long), high, 0.045)
    piece.box(d.cloth(), (x[0] + 0.03, x[1] - 0.03), (0.03, long - 0.03), (base, base + 0.12))
    piece.box(d.cloth(), (x[0] + 0.05, x[0] + 0.3), (0.1, long - 0.1), (base + 0.12, base + 0.18))
    piece.box(d.cloth(), (x[0] + 0.4, x[1] - 0.03), (0.03, long - 0.03), (base + 0.1, base + 0.17))
    for z in (base - 0.04, high - 0.04):
        for y in ((0, 0.035), (long - 0.035, long)):
            piece.box(frame, x, y, (z, z + 0.04))
        for side in (x[0], x[1] - 0.035):
            piece.box(frame, (side, side + 0.035), (0, long), (z, z + 0.04))
    number = d.whole(8, 11)
    for i in range(1, number):
        left = x[0] + i * wide / number
        for y in (0.005, long - 0.03):
            piece.box(frame, (left - 0.012, left + 0.012), (y, y + 0.025), (base, high))
    for i in range(1, 5):
        y = i * long / 5
        for side in (x[0] + 0.005, x[1] - 0.03):
            piece.box(frame, (side, side + 0.025), (y - 0.012, y + 0.012), (base, high))
    return piece


def changing_table(d: Draw) -> Piece:
    wide, deep, high = d.between(0.75, 1.0), d.between(0.55, 0.7), d.between(0.85, 0.95)
    x, wood, pad = (-wide / 2, wide / 2), d.hard(), d.cloth()
    piece = fronts(Piece(), d, x, (0, deep), (0.05, high - 0.12), 1, 3)
    for side in (x[0], x[1] - 0.03):
        piece.box(wood, (side, side + 0.03), (0, deep), (high - 0.12, high + 0.08))
    piece.box(wood, x, (0, 0.03), (high - 0.12, high + 0.1))
    piece.box(pad, (x[0] + 0.04, x[1] - 0.04), (0.05, deep), (high - 0.12, high - 0.04))
    for side in (x[0] + 0.04, x[1] - 0.14):
        piece.box(pad, (side, side + 0.1), (0.05, deep), (high - 0.06, high + 0.03))
    return piece


# ---- kitchen, bath, laundry ----------------------------------------------------------------------------


def base_unit(d: Draw, look: Draw, wide: float, what: str) -> Piece:
    """One unit of a kitchen counter: "plain", "sink" or "stove"; `look` draws the same for every unit."""
    x, deep = (-wide / 2, wide / 2), 0.6
    piece = fronts(
        Piece(), look, x, (0, deep - 0.03), (0.1, 0.86), 1, 3 if what == "plain" and d.chance(0.4) else 1
    )
    piece.box(look.hard(), x, (0, deep), (0.86, 0.9))
    if what == "sink":
        basin = d.one_of((d.metal, d.ceramic))()
        piece.box(basin, (-0.2, 0.2), (0.12, 0.5), (0.9, 0.92)).box(
            d.metal(), (-0.15, 0.15), (0.17, 0.45), (0.91, 0.925)
        )
        piece.box(basin, (-0.02, 0.02), (0.05, 0.09), (0.9, 1.2)).box(
            basin, (-0.02, 0.02), (0.05, 0.25), (1.16, 1.2)
        )
    elif what == "stove":
        piece.box(d.screen(), (-0.24, 0.24), (deep - 0.03, deep), (0.25, 0.65))
        for cx in (-0.14, 0.14):
            for cy in (0.18, 0.43):
                disc(piece, d.metal(), cx, cy, 0.9, 0.085, 0.015)
        if d.chance(0.6):
            disc(piece, d.metal(), 0.14, 0.43, 0.915, 0.11, d.between(0.1, 0.2))
    else:
        piece.top(x, (0.05, deep), 0.9)
    return piece


def wall_unit(d: Draw, wide: float, high: float) -> Piece:
    return fronts(Piece(), d, (-wide / 2, wide / 2), (0, 0.33), (0, high), 1, 1)


def hood(d: Draw) -> Piece:
    metal = d.hard()
    piece = (
        Piece().box(metal, (-0.3, 0.3), (0, 0.45), (0, 0.08)).box(metal, (-0.2, 0.2), (0, 0.32), (0.08, 0.16))
    )
    return piece.box(metal, (-0.11, 0.11), (0, 0.24), (0.16, 0.6))


def fridge(d: Draw) -> Piece:
    wide, high = d.between(0.58, 0.72), d.between(1.4, 1.95)
    body, handle, x = d.hard(), d.metal(), (-wide / 2, wide / 2)
    split = high * d.one_of((0.35, 0.65))
    piece = Piece().box(body, x, (0, 0.6), (0.03, high))
    for low, top in ((0.05, split - 0.01), (split + 0.01, high - 0.01)):
        piece.box(body, (x[0] + 0.005, x[1] - 0.005), (0.61, 0.66), (low, top))
        piece.box(
            handle,
            (x[0] + 0.05, x[0] + 0.08),
            (0.66, 0.7),
            (low + 0.3 * (top - low), low + 0.7 * (top - low)),
        )
    return piece


def toilet(d: Draw) -> Piece:
    glaze, lid = d.ceramic(), d.plastic()
    piece = Piece().box(glaze, (-0.19, 0.19), (0, 0.18), (0.38, d.between(0.72, 0.85)))
    piece.rod(glaze, (0, 0.4, 0), (0, 0.4, 0.38), 0.14).box(glaze, (-0.11, 0.11), (0.05, 0.4), (0, 0.38))
    disc(piece, glaze, 0, 0.42, 0.28, 0.2, 0.12).box(glaze, (-0.18, 0.18), (0.14, 0.42), (0.3, 0.4))
    disc(piece, lid, 0, 0.42, 0.4, 0.2, 0.03)
    if d.chance(0.4):
        piece.box(lid, (-0.18, 0.18), (0.19, 0.22), (0.42, 0.8), tilt=5)
    return piece


def washbasin(d: Draw) -> Piece:
    wide, glaze = d.between(0.45, 0.7), d.ceramic()
    x, metal = (-wide / 2, wide / 2), d.metal()
    piece = Piece()
    if d.chance(0.5):
        piece.box(glaze, (-0.09, 0.09), (0.05, 0.25), (0, 0.7))
    else:
        fronts(piece, d, (x[0] + 0.03, x[1] - 0.03), (0, 0.38), (0.15, 0.7), 2, 1)
    piece.box(glaze, x, (0, 0.45), (0.7, 0.76))
    for a, b in (
        ((x[0], x[0] + 0.05), (0, 0.45)),
        ((x[1] - 0.05, x[1]), (0, 0.45)),
        (x, (0, 0.1)),
        (x, (0.4, 0.45)),
    ):
        piece.box(glaze, a, b, (0.76, 0.86))
    return piece.box(metal, (-0.015, 0.015), (0.04, 0.07), (0.86, 1.0)).box(
        metal, (-0.015, 0.015), (0.04, 0.18), (0.98, 1.0)
    )


def bathtub(d: Draw) -> Piece:
    long, wide, high, glaze = d.between(1.4, 1.8), d.between(0.7, 0.85), d.between(0.5, 0.62), d.ceramic()
    x, skirt, metal = (-long / 2, long / 2), d.one_of((d.ceramic, d.paint))(), d.metal()
    piece = (
        Piece()
        .box(glaze, x, (0, wide), (0, 0.15))
        .box(skirt, x, (wide - 0.04, wide + 0.01), (0, high - 0.03))
    )
    for a, b in (
        ((x[0], x[0] + 0.1), (0, wide)),
        ((x[1] - 0.1, x[1]), (0, wide)),
        (x, (0, 0.08)),
        (x, (wide - 0.09, wide)),
    ):
        piece.box(glaze, a, b, (0.1, high))
    side = d.one_of((-1, 1)) * (long / 2 - 0.15)
    piece.box(
        metal, (side - 0.02, side + 0.02), (wide / 2 - 0.02, wide / 2 + 0.02), (high - 0.2, high + 0.15)
    )
    if d.chance(0.35):
        piece.box(d.cloth(), (side - 0.25, side + 0.25), (wide - 0.03, wide), (0.3, 1.9))
        piece.box(metal, x, (wide - 0.03, wide), (1.9, 1.93))
    return piece


def shower(d: Draw) -> Piece:
    """A shower tray with a low wall and a frame; the glass is left out, as depth cameras see through it."""
    size, metal, tray = d.between(0.8, 1.0), d.metal(), d.ceramic()
    x, high = (-size / 2, size / 2), d.between(1.85, 2.1)
    piece = Piece().box(tray, x, (0, size), (0, 0.12))
    for a in ((x[0], x[0] + 0.03), (x[1] - 0.03, x[1])):
        piece.box(metal, a, (size - 0.03, size), (0.12, high)).box(metal, a, (0, size), (high - 0.03, high))
    piece.box(metal, x, (size - 0.03, size), (high - 0.03, high))
    if d.chance(0.6):
        piece.box(d.one_of((d.ceramic, d.paint))(), (x[0], x[0] + 0.03), (0, size), (0.12, high))
    if d.chance(0.5):
        piece.box(
            d.cloth(),
            (x[0], x[0] + size * d.between(0.3, 0.6)),
            (size - 0.05, size - 0.03),
            (0.2, high - 0.05),
        )
    piece.box(metal, (-0.015, 0.015), (0.02, 0.05), (0.9, high - 0.05))
    return disc(piece, metal, 0, 0.18, high - 0.12, 0.1, 0.03)


def mirror(d: Draw) -> Piece:
    wide, high = d.between(0.4, 0.9), d.between(0.5, 0.9)
    return picture(d, wide, high)


def washing_machine(d: Draw) -> Piece:
    body, ring, high = d.one_of((d.metal, d.paint))(), d.metal(), d.between(0.82, 0.9)
    piece = (
        Piece()
        .box(body, (-0.3, 0.3), (0, 0.58), (0, high))
        .box(d.plastic(), (-0.28, 0.28), (0.57, 0.6), (high - 0.13, high - 0.02))
    )
    piece.rod(ring, (0, 0.57, 0.42), (0, 0.62, 0.42), 0.2).lid(ring, (0, 0.62, 0.42), 0.2, (0, 1, 0))
    piece.lid(d.screen(), (0, 0.625, 0.42), 0.14, (0, 1, 0))
    return piece.top((-0.3, 0.3), (0, 0.55), high)


def ironing_board(d: Draw) -> Piece:
    metal = d.metal()
    piece = Piece().box(d.cloth(), (-0.6, 0.6), (0.1, 0.45), (0.85, 0.9))
    for y in (0.2, 0.35):
        piece.rod(metal, (-0.4, y, 0.02), (0.35, y, 0.86), 0.015).rod(
            metal, (0.4, y, 0.02), (-0.35, y, 0.86), 0.015
        )
    return piece


def vending_machine(d: Draw) -> Piece:
    body, wide, high = d.hard(), d.between(0.8, 1.0), d.between(1.75, 1.95)
    x = (-wide / 2, wide / 2)
    piece = (
        Piece()
        .box(body, x, (0, 0.75), (0, high))
        .box(d.screen(), (x[0] + 0.06, x[1] - 0.25), (0.73, 0.765), (0.6, high - 0.1))
    )
    return piece.box(d.screen(), (x[0] + 0.1, x[1] - 0.3), (0.73, 0.765), (0.2, 0.4)).box(
        d.plastic(), (x[1] - 0.2, x[1] - 0.06), (0.73, 0.77), (0.9, 1.4)
    )
