"""Furniture from simple solids: one short function a piece, with random sizes, forms and materials.

Metres; back at y = 0, front toward +y, floor at z = 0 (see `layout.Piece`).
"""

from __future__ import annotations

from math import cos, pi, sin

from layout import Piece
from materials import Draw, Material

# ---- seats ---------------------------------------------------------------------------------------------


def chair(d: Draw, scale: float = 1.0) -> Piece:
    wide, deep, seat = (scale * d.between(0.38, 0.5), scale * d.between(0.4, 0.5), scale * d.between(0.42, 0.48))
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
    piece.box(foot, (-0.27, 0.27), (0.27, 0.33), (0.03, 0.09)).box(foot, (-0.03, 0.03), (0.03, 0.57), (0.03, 0.09))
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


def disc(piece: Piece, material: Material, x: float, y: float, z: float, radius: float, thick: float) -> Piece:
    """A round plate or drum with closed ends."""
    piece.rod(material, (x, y, z), (x, y, z + thick), radius)
    return piece.lid(material, (x, y, z + thick), radius).lid(material, (x, y, z), radius)


def sofa(d: Draw, wide: float | None = None) -> Piece:
    wide = wide or d.between(1.4, 2.2)
    deep, seat, back, arm = d.between(0.75, 0.95), d.between(0.36, 0.45), d.between(0.7, 0.9), d.between(0.1, 0.22)
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
            piece.box(d.cloth(), (left + 0.1, left + min(step, 0.5)), (0.22, 0.34), (seat, seat + 0.34), tilt=12)
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
        piece.box(metal, (x, x + 0.06), (0.05, 0.48), (0, 0.04)).box(metal, (x, x + 0.06), (0.22, 0.3), (0, 0.32))
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
        _fronts(piece, d, (side, side + 0.38), (0.05, deep - 0.05), (0.02, 0.6), 1, d.whole(2, 3))
    return piece


def workplace(d: Draw) -> Piece:
    """A desk with a screen, a keyboard and papers."""
    piece = desk(d)
    (xs, ys, z), = piece.tops
    place = d.between(xs[0] + 0.35, xs[1] - 0.35)
    for shift in ((-0.28, 0.28) if xs[1] - xs[0] > 1.35 and d.chance(0.4) else (0.0,)):
        piece.add(monitor(d) if d.chance(0.8) else laptop(d), place * (0.3 if shift else 1) + shift, 0.06, z)
    piece.box(d.plastic(), (place * 0.5 - 0.2, place * 0.5 + 0.2), (ys[1] - 0.25, ys[1] - 0.1), (z, z + 0.02))
    return piece


def island(d: Draw) -> Piece:
    wide, deep = d.between(0.9, 1.4), d.between(0.55, 0.75)
    piece = Piece()
    _fronts(piece, d, (-wide / 2, wide / 2), (0.03, deep - 0.03), (0.08, 0.86), d.whole(2, 3), 1)
    x = (-wide / 2 - 0.03, wide / 2 + 0.03)
    return piece.box(d.hard(), x, (0, deep), (0.86, 0.9)).top(x, (0, deep), 0.9)


# ---- cupboards and shelves -----------------------------------------------------------------------------


def _fronts(piece: Piece, d: Draw, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float],
            columns: int, rows: int) -> Piece:
    """A closed body whose front shows doors or drawers with handles."""
    body, front, handle = d.hard(), d.hard(), d.metal()
    piece.box(body, x, y, z)
    wide, high = (x[1] - x[0]) / columns, (z[1] - z[0]) / rows
    for i in range(columns):
        for j in range(rows):
            left, low = x[0] + i * wide, z[0] + j * high
            piece.box(front, (left + 0.012, left + wide - 0.012), (y[1] - 0.005, y[1] + 0.018),
                      (low + 0.012, low + high - 0.012))
            if high > wide:
                piece.box(handle, (left + wide - 0.07, left + wide - 0.045), (y[1] + 0.018, y[1] + 0.04),
                          (low + 0.42 * high, low + 0.6 * high))
            else:
                piece.box(handle, (left + 0.4 * wide, left + 0.6 * wide), (y[1] + 0.018, y[1] + 0.04),
                          (low + 0.6 * high, low + 0.6 * high + 0.025))
    return piece


def wardrobe(d: Draw) -> Piece:
    wide, deep, high = d.between(0.8, 1.8), d.between(0.5, 0.62), d.between(1.7, 2.15)
    return _fronts(Piece(), d, (-wide / 2, wide / 2), (0, deep), (0.0, high), max(2, round(wide / 0.5)), 1)


def cabinet(d: Draw) -> Piece:
    """A low cupboard, chest of drawers or sideboard."""
    wide, deep, high = d.between(0.5, 1.5), d.between(0.35, 0.5), d.between(0.6, 1.1)
    x = (-wide / 2, wide / 2)
    piece = _fronts(Piece(), d, x, (0, deep), (0.05, high), max(1, round(wide / 0.5)), d.whole(1, 4))
    return piece.top(x, (0, deep), high)


def nightstand(d: Draw) -> Piece:
    wide, high = d.between(0.35, 0.5), d.between(0.4, 0.6)
    piece = _fronts(Piece(), d, (-wide / 2, wide / 2), (0, 0.38), (0.04, high), 1, d.whole(1, 2))
    return piece.top((-wide / 2, wide / 2), (0, 0.38), high)


def shelf(d: Draw, high: float = 0.0, wide: float = 0.0) -> Piece:
    """An open shelf with books and boxes in it."""
    wide, deep, high = wide or d.between(0.6, 1.3), d.between(0.25, 0.38), high or d.between(1.1, 2.1)
    wood, x = d.hard(), (-wide / 2, wide / 2)
    piece = Piece().box(wood, (x[0], x[0] + 0.025), (0, deep), (0, high)).box(
        wood, (x[1] - 0.025, x[1]), (0, deep), (0, high)).box(wood, x, (0, 0.015), (0, high))
    number = max(2, round(high / 0.36))
    for i in range(number + 1):
        z = 0.05 + i * (high - 0.08) / number
        piece.box(wood, x, (0, deep), (z, z + 0.025))
        if i < number:
            _fill(piece, d, x, deep, z + 0.025, (high - 0.08) / number - 0.06)
    return piece.top(x, (0, deep), high)


def _fill(piece: Piece, d: Draw, x: tuple[float, float], deep: float, z: float, room: float) -> None:
    """Blocks of books or boxes on one board."""
    left = x[0] + 0.04
    while left < x[1] - 0.15:
        wide = min(d.between(0.1, 0.35), x[1] - 0.04 - left)
        if d.chance(0.75):
            piece.box(d.paper(), (left, left + wide), (0.02, deep * d.between(0.6, 0.95)),
                      (z, z + room * d.between(0.4, 0.95)))
        left += wide + 0.02


def tv_board(d: Draw) -> Piece:
    wide, deep, high = d.between(1.1, 1.8), d.between(0.35, 0.45), d.between(0.35, 0.55)
    x = (-wide / 2, wide / 2)
    piece = _fronts(Piece(), d, x, (0, deep), (0.04, high), d.whole(2, 4), 1)
    size = d.between(0.8, min(1.3, wide))
    piece.box(d.plastic(), (-0.15, 0.15), (0.12, 0.28), (high, high + 0.04))
    piece.box(d.screen(), (-size / 2, size / 2), (0.17, 0.22), (high + 0.04, high + 0.04 + 0.56 * size))
    return piece


def lockers(d: Draw) -> Piece:
    number, high = d.whole(3, 6), d.between(1.6, 2.0)
    wide = number * 0.32
    return _fronts(Piece(), d, (-wide / 2, wide / 2), (0, 0.45), (0.05, high), number, d.whole(1, 2))


# ---- beds ----------------------------------------------------------------------------------------------


def bed(d: Draw, wide: float = 0.0) -> Piece:
    wide, long, high = wide or d.between(0.9, 1.8), d.between(1.9, 2.1), d.between(0.4, 0.6)
    x, frame, sheet, blanket = (-wide / 2, wide / 2), d.hard(), d.cloth(), d.cloth()
    piece = Piece().box(frame, x, (0, 0.05), (0, d.between(0.75, 1.2))).box(frame, x, (0, long), (0.12, high - 0.18))
    piece.legs(frame, x, (0, long), 0.12, 0.06)
    piece.box(sheet, (x[0] + 0.02, x[1] - 0.02), (0.05, long - 0.02), (high - 0.18, high))
    start = d.between(0.45, 0.9)
    piece.box(blanket, (x[0] - 0.01, x[1] + 0.01), (start, long + 0.01), (high - 0.2, high + d.between(0.03, 0.08)))
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
    piece.box(metal, x, (0, 0.04), (high - 0.2, high + 0.4)).box(metal, x, (long - 0.04, long), (high - 0.2, high + 0.25))
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
    wide, long, high, base = d.between(1.05, 1.35), d.between(0.6, 0.75), d.between(0.85, 1.0), d.between(0.3, 0.5)
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
    piece = _fronts(Piece(), d, x, (0, deep), (0.05, high - 0.12), 1, 3)
    for side in (x[0], x[1] - 0.03):
        piece.box(wood, (side, side + 0.03), (0, deep), (high - 0.12, high + 0.08))
    piece.box(wood, x, (0, 0.03), (high - 0.12, high + 0.1))
    piece.box(pad, (x[0] + 0.04, x[1] - 0.04), (0.05, deep), (high - 0.12, high - 0.04))
    for side in (x[0] + 0.04, x[1] - 0.14):
        piece.box(pad, (side, side + 0.1), (0.05, deep), (high - 0.06, high + 0.03))
    return piece


# ---- kitchen, bath, laundry ----------------------------------------------------------------------------


def base_unit(d: Draw, look: Draw, wide: float, what: str) -> Piece:
    """One unit of a kitchen counter: "plain", "sink" or "stove". `look` repeats its draws from unit to unit."""
    x, deep = (-wide / 2, wide / 2), 0.6
    piece = _fronts(Piece(), look, x, (0, deep - 0.03), (0.1, 0.86), 1, 3 if what == "plain" and d.chance(0.4) else 1)
    piece.box(look.hard(), x, (0, deep), (0.86, 0.9))
    if what == "sink":
        basin = d.one_of((d.metal, d.ceramic))()
        piece.box(basin, (-0.2, 0.2), (0.12, 0.5), (0.9, 0.92)).box(d.metal(), (-0.15, 0.15), (0.17, 0.45), (0.91, 0.925))
        piece.box(basin, (-0.02, 0.02), (0.05, 0.09), (0.9, 1.2)).box(basin, (-0.02, 0.02), (0.05, 0.25), (1.16, 1.2))
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
    return _fronts(Piece(), d, (-wide / 2, wide / 2), (0, 0.33), (0, high), 1, 1)


def hood(d: Draw) -> Piece:
    metal = d.hard()
    piece = Piece().box(metal, (-0.3, 0.3), (0, 0.45), (0, 0.08)).box(metal, (-0.2, 0.2), (0, 0.32), (0.08, 0.16))
    return piece.box(metal, (-0.11, 0.11), (0, 0.24), (0.16, 0.6))


def fridge(d: Draw) -> Piece:
    wide, high = d.between(0.58, 0.72), d.between(1.4, 1.95)
    body, handle, x = d.hard(), d.metal(), (-wide / 2, wide / 2)
    split = high * d.one_of((0.35, 0.65))
    piece = Piece().box(body, x, (0, 0.6), (0.03, high))
    for low, top in ((0.05, split - 0.01), (split + 0.01, high - 0.01)):
        piece.box(body, (x[0] + 0.005, x[1] - 0.005), (0.61, 0.66), (low, top))
        piece.box(handle, (x[0] + 0.05, x[0] + 0.08), (0.66, 0.7), (low + 0.3 * (top - low), low + 0.7 * (top - low)))
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
        _fronts(piece, d, (x[0] + 0.03, x[1] - 0.03), (0, 0.38), (0.15, 0.7), 2, 1)
    piece.box(glaze, x, (0, 0.45), (0.7, 0.76))
    for a, b in (((x[0], x[0] + 0.05), (0, 0.45)), ((x[1] - 0.05, x[1]), (0, 0.45)), (x, (0, 0.1)), (x, (0.4, 0.45))):
        piece.box(glaze, a, b, (0.76, 0.86))
    return piece.box(metal, (-0.015, 0.015), (0.04, 0.07), (0.86, 1.0)).box(metal, (-0.015, 0.015), (0.04, 0.18), (0.98, 1.0))


def bathtub(d: Draw) -> Piece:
    long, wide, high, glaze = d.between(1.4, 1.8), d.between(0.7, 0.85), d.between(0.5, 0.62), d.ceramic()
    x, skirt, metal = (-long / 2, long / 2), d.one_of((d.ceramic, d.paint))(), d.metal()
    piece = Piece().box(glaze, x, (0, wide), (0, 0.15)).box(skirt, x, (wide - 0.04, wide + 0.01), (0, high - 0.03))
    for a, b in (((x[0], x[0] + 0.1), (0, wide)), ((x[1] - 0.1, x[1]), (0, wide)), (x, (0, 0.08)), (x, (wide - 0.09, wide))):
        piece.box(glaze, a, b, (0.1, high))
    side = d.one_of((-1, 1)) * (long / 2 - 0.15)
    piece.box(metal, (side - 0.02, side + 0.02), (wide / 2 - 0.02, wide / 2 + 0.02), (high - 0.2, high + 0.15))
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
        piece.box(d.cloth(), (x[0], x[0] + size * d.between(0.3, 0.6)), (size - 0.05, size - 0.03), (0.2, high - 0.05))
    piece.box(metal, (-0.015, 0.015), (0.02, 0.05), (0.9, high - 0.05))
    return disc(piece, metal, 0, 0.18, high - 0.12, 0.1, 0.03)


def mirror(d: Draw) -> Piece:
    wide, high = d.between(0.4, 0.9), d.between(0.5, 0.9)
    return picture(d, wide, high)


def washing_machine(d: Draw) -> Piece:
    body, ring, high = d.one_of((d.metal, d.paint))(), d.metal(), d.between(0.82, 0.9)
    piece = Piece().box(body, (-0.3, 0.3), (0, 0.58), (0, high)).box(d.plastic(), (-0.28, 0.28), (0.57, 0.6), (high - 0.13, high - 0.02))
    piece.rod(ring, (0, 0.57, 0.42), (0, 0.62, 0.42), 0.2).lid(ring, (0, 0.62, 0.42), 0.2, (0, 1, 0))
    piece.lid(d.screen(), (0, 0.625, 0.42), 0.14, (0, 1, 0))
    return piece.top((-0.3, 0.3), (0, 0.55), high)


def ironing_board(d: Draw) -> Piece:
    metal = d.metal()
    piece = Piece().box(d.cloth(), (-0.6, 0.6), (0.1, 0.45), (0.85, 0.9))
    for y in (0.2, 0.35):
        piece.rod(metal, (-0.4, y, 0.02), (0.35, y, 0.86), 0.015).rod(metal, (0.4, y, 0.02), (-0.35, y, 0.86), 0.015)
    return piece


def vending_machine(d: Draw) -> Piece:
    body, wide, high = d.hard(), d.between(0.8, 1.0), d.between(1.75, 1.95)
    x = (-wide / 2, wide / 2)
    piece = Piece().box(body, x, (0, 0.75), (0, high)).box(d.screen(), (x[0] + 0.06, x[1] - 0.25), (0.73, 0.765), (0.6, high - 0.1))
    return piece.box(d.screen(), (x[0] + 0.1, x[1] - 0.3), (0.73, 0.765), (0.2, 0.4)).box(
        d.plastic(), (x[1] - 0.2, x[1] - 0.06), (0.73, 0.77), (0.9, 1.4))


# ---- on walls ------------------------------------------------------------------------------------------


def picture(d: Draw, wide: float = 0.0, high: float = 0.0) -> Piece:
    wide, high = wide or d.between(0.3, 0.9), high or d.between(0.3, 0.8)
    piece = Piece().box(d.hard(), (-wide / 2, wide / 2), (0, 0.03), (0, high))
    return piece.box(d.patterned("paper", 0.8, (2, 5)), (-wide / 2 + 0.04, wide / 2 - 0.04), (0.01, 0.036), (0.04, high - 0.04))


def whiteboard(d: Draw) -> Piece:
    wide, high, frame = d.between(1.2, 2.2), d.between(0.9, 1.2), d.metal()
    piece = Piece().box(frame, (-wide / 2, wide / 2), (0, 0.025), (0, high))
    piece.box(d.patterned("metal", 0.3), (-wide / 2 + 0.03, wide / 2 - 0.03), (0.01, 0.03), (0.03, high - 0.03))
    return piece.box(frame, (-wide / 4, wide / 4), (0, 0.1), (-0.02, 0.01))


def wall_screen(d: Draw) -> Piece:
    wide = d.between(0.9, 1.6)
    return Piece().box(d.plastic(), (-wide / 2, wide / 2), (0, 0.06), (0, 0.58 * wide)).box(
        d.screen(), (-wide / 2 + 0.03, wide / 2 - 0.03), (0.05, 0.07), (0.03, 0.58 * wide - 0.03))


def window(d: Draw, glow: float, wide: float, high: float) -> Piece:
    """A frame with bright panes; the wall behind is left whole, so the panes have a depth."""
    frame, pane = d.hard(), d.lamp_light(glow)
    x = (-wide / 2, wide / 2)
    piece = Piece().panel(pane, (0, 0.015, high / 2), (-wide / 2 + 0.01, 0, 0), (0, 0, high / 2 - 0.01))
    for a in (x[0], -0.02, x[1] - 0.04):
        piece.box(frame, (a, a + 0.04), (0, 0.06), (0, high))
    for z in (0.0, high - 0.04):
        piece.box(frame, x, (0, 0.06), (z, z + 0.04))
    return piece.box(frame, (x[0] - 0.05, x[1] + 0.05), (0, 0.12), (-0.03, 0))


def curtain(d: Draw, wide: float, high: float) -> Piece:
    """Hanging cloth in folds."""
    cloth, piece = d.cloth(), Piece()
    number = max(2, round(wide / 0.09))
    for i in range(number):
        left = -wide / 2 + i * wide / number
        front = 0.07 + 0.05 * (i % 2)
        piece.box(cloth, (left, left + wide / number), (front - 0.03, front), (0, high))
    return piece


def door(d: Draw) -> Piece:
    frame, leaf, wide, high = d.hard(), d.hard(), d.between(0.75, 0.95), d.between(1.95, 2.1)
    piece = Piece().box(frame, (-wide / 2 - 0.07, wide / 2 + 0.07), (0, 0.03), (0, high + 0.07))
    piece.box(leaf, (-wide / 2, wide / 2), (0.01, 0.05), (0.005, high))
    return piece.box(d.metal(), (wide / 2 - 0.16, wide / 2 - 0.04), (0.05, 0.1), (0.98, 1.01))


def radiator(d: Draw) -> Piece:
    wide, high, metal, piece = d.between(0.6, 1.2), d.between(0.4, 0.6), d.metal(), Piece()
    number = round(wide / 0.1)
    for i in range(number):
        left = -wide / 2 + i * wide / number
        piece.box(metal, (left + 0.01, left + 0.08), (0.03, 0.11), (0.1, 0.1 + high))
    return piece.box(metal, (-wide / 2, wide / 2), (0.0, 0.09), (0.15, 0.2))


def wall_shelf(d: Draw) -> Piece:
    wide = d.between(0.5, 1.1)
    piece = Piece().box(d.hard(), (-wide / 2, wide / 2), (0, 0.24), (0, 0.03))
    _fill(piece, d, (-wide / 2, wide / 2), 0.24, 0.03, 0.26)
    return piece


# ---- small things shared by all rooms ------------------------------------------------------------------


def monitor(d: Draw) -> Piece:
    wide = d.between(0.45, 0.62)
    piece = Piece().box(d.plastic(), (-0.1, 0.1), (0.05, 0.2), (0, 0.02)).box(d.plastic(), (-0.02, 0.02), (0.08, 0.11), (0.02, 0.2))
    return piece.box(d.plastic(), (-wide / 2, wide / 2), (0.11, 0.14), (0.1, 0.1 + wide * 0.6)).box(
        d.screen(), (-wide / 2 + 0.015, wide / 2 - 0.015), (0.13, 0.145), (0.115, 0.085 + wide * 0.6))


def laptop(d: Draw) -> Piece:
    shell = d.one_of((d.metal, d.plastic))()
    return Piece().box(shell, (-0.16, 0.16), (0.06, 0.28), (0, 0.02)).box(
        d.screen(), (-0.16, 0.16), (0.02, 0.035), (0.02, 0.23), tilt=8)


def box(d: Draw) -> Piece:
    a, b, c = d.between(0.1, 0.5), d.between(0.1, 0.4), d.between(0.1, 0.45)
    return Piece().box(d.one_of((d.paper, d.hard))(), (-a / 2, a / 2), (-b / 2, b / 2), (0, c))


def books(d: Draw) -> Piece:
    piece, z = Piece(), 0.0
    for _ in range(d.whole(1, 5)):
        thick, half = d.between(0.015, 0.05), d.between(0.08, 0.14)
        piece.box(d.paper(), (-half, half), (-half * 0.75, half * 0.75), (z, z + thick))
        z += thick
    return piece


def bag(d: Draw) -> Piece:
    wide, high, cloth = d.between(0.25, 0.45), d.between(0.25, 0.45), d.cloth()
    piece = Piece().box(cloth, (-wide / 2, wide / 2), (-0.1, 0.1), (0, high))
    return piece.box(cloth, (-0.09, -0.06), (-0.01, 0.01), (high, high + 0.1)).box(
        cloth, (0.06, 0.09), (-0.01, 0.01), (high, high + 0.1)).box(cloth, (-0.09, 0.09), (-0.01, 0.01), (high + 0.08, high + 0.1))


def vase(d: Draw) -> Piece:
    radius, high, piece = d.between(0.04, 0.09), d.between(0.12, 0.3), Piece()
    disc(piece, d.ceramic(), 0, 0, 0, radius, high)
    if d.chance(0.5):
        leaf = d.foliage()
        for _ in range(4):
            piece.ball(leaf, d.between(-0.06, 0.06), d.between(-0.06, 0.06), high + d.between(0.05, 0.2), d.between(0.04, 0.07))
    return piece


def crockery(d: Draw) -> Piece:
    """A plate with a cup."""
    glaze, piece = d.ceramic(), Piece()
    disc(piece, glaze, 0, 0, 0, d.between(0.1, 0.14), 0.02)
    if d.chance(0.7):
        disc(piece, d.one_of((d.ceramic, d.plastic))(), 0.17, 0.08, 0, 0.04, 0.1)
    return piece


def papers(d: Draw) -> Piece:
    return Piece().box(d.paper(), (-0.15, 0.15), (-0.11, 0.11), (0, d.between(0.006, 0.03)))


def table_lamp(d: Draw) -> Piece:
    shade, piece, high = d.cloth(), Piece(), d.between(0.3, 0.5)
    disc(piece, d.hard(), 0, 0, 0, 0.08, 0.02)
    piece.box(d.metal(), (-0.01, 0.01), (-0.01, 0.01), (0.02, high))
    return disc(piece, shade, 0, 0, high - 0.12, d.between(0.09, 0.15), 0.18)


def floor_lamp(d: Draw) -> Piece:
    shade, piece, high = d.cloth(), Piece(), d.between(1.4, 1.75)
    disc(piece, d.hard(), 0, 0, 0, 0.15, 0.03)
    piece.rod(d.metal(), (0, 0, 0.03), (0, 0, high), 0.015)
    return disc(piece, shade, 0, 0, high - 0.15, d.between(0.14, 0.22), 0.26)


def plant(d: Draw) -> Piece:
    pot, leaf, piece = d.ceramic(), d.foliage(), Piece()
    radius, high = d.between(0.1, 0.2), d.between(0.2, 0.4)
    disc(piece, pot, 0, 0, 0, radius, high)
    tall = d.between(0.2, 0.9)
    piece.rod(d.wood(), (0, 0, high), (0, 0, high + tall * 0.8), 0.015)
    for _ in range(d.whole(7, 14)):
        spread = d.between(0.0, radius * 1.6)
        turn = d.between(0, 2 * pi)
        piece.ball(leaf, spread * cos(turn), spread * sin(turn), high + tall * d.between(0.3, 1.0), d.between(0.05, 0.12))
    return piece


def bin_(d: Draw) -> Piece:
    return disc(Piece(), d.hard(), 0, 0, 0, d.between(0.12, 0.18), d.between(0.25, 0.45))


def rug(d: Draw) -> Piece:
    wide, deep = d.between(0.8, 2.2), d.between(0.6, 1.6)
    return Piece().box(d.patterned("cloth", 0.8), (-wide / 2, wide / 2), (-deep / 2, deep / 2), (0.001, 0.012))


def toys(d: Draw) -> Piece:
    """Building blocks and balls on the floor."""
    piece = Piece()
    for _ in range(d.whole(3, 7)):
        x, y, half = d.between(-0.3, 0.3), d.between(-0.3, 0.3), d.between(0.04, 0.08)
        if d.chance(0.35):
            piece.ball(d.plastic(), x, y, half * 1.3, half * 1.3)
        else:
            for level in range(d.whole(1, 3)):
                piece.box(d.one_of((d.plastic, d.wood))(), (x - half, x + half), (y - half, y + half),
                          (2 * half * level, 2 * half * (level + 1)))
    return piece


def toy_tent(d: Draw) -> Piece:
    half, high, cloth, pole, piece = d.between(0.4, 0.5), d.between(1.0, 1.35), d.cloth(), d.wood(), Piece()
    for x in (-half, half):
        for y in (0.05, 2 * half - 0.05):
            piece.rod(pole, (x, y, 0), (-x * 0.12, half + (half - y) * 0.12, high), 0.018)
    lean = 23.0
    piece.box(cloth, (-half * 0.75, half * 0.75), (half * 0.42, half * 0.46), (0.02, high * 0.85), tilt=-lean)
    piece.box(cloth, (-half * 0.75, -half * 0.2), (half * 1.54, half * 1.58), (0.02, high * 0.85), tilt=lean)
    return piece.box(cloth, (half * 0.2, half * 0.75), (half * 1.54, half * 1.58), (0.02, high * 0.85), tilt=lean)


def rocking_horse(d: Draw) -> Piece:
    wood, piece = d.wood(), Piece()
    for x in (-0.14, 0.1):
        piece.box(wood, (x, x + 0.04), (0, 0.8), (0.0, 0.06))
    piece.legs(wood, (-0.13, 0.13), (0.2, 0.62), 0.36, 0.05)
    return piece.box(d.cloth(), (-0.11, 0.11), (0.15, 0.65), (0.34, 0.54)).box(wood, (-0.06, 0.06), (0.58, 0.74), (0.45, 0.82), tilt=-18)


def basket(d: Draw) -> Piece:
    wide, high = d.between(0.3, 0.5), d.between(0.3, 0.6)
    piece = Piece().box(d.one_of((d.wood, d.plastic, d.cloth))(), (-wide / 2, wide / 2), (-wide / 2.5, wide / 2.5), (0, high))
    return piece.box(d.cloth(), (-wide / 2.6, wide / 2.6), (-wide / 3.2, wide / 3.2), (high - 0.02, high + d.between(0.03, 0.12)))


def drip_stand(d: Draw) -> Piece:
    metal, piece = d.metal(), Piece()
    piece.rod(metal, (0, 0, 0.05), (0, 0, 1.8), 0.015).box(metal, (-0.2, 0.2), (-0.02, 0.02), (0.02, 0.06))
    piece.box(metal, (-0.02, 0.02), (-0.2, 0.2), (0.02, 0.06)).box(metal, (-0.12, 0.12), (-0.01, 0.01), (1.77, 1.8))
    return piece.box(d.plastic(), (0.05, 0.16), (-0.03, 0.03), (1.5, 1.75))


# ---- far rooms -----------------------------------------------------------------------------------------


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
                    piece.box(d.paper(), (left, left + size), (0.03, deep * d.between(0.7, 1.0)), (z + 0.03, z + 0.03 + d.between(0.15, 0.4)))
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
    step_high, step_deep, tread, metal = d.between(0.16, 0.19), d.between(0.24, 0.3), d.one_of((d.wood, d.paint))(), d.metal()
    number, piece = int((high - 0.2) / step_high), Piece()
    number = min(number, 11)
    for i in range(number):
        piece.box(tread, (-wide / 2, wide / 2), (i * step_deep, (i + 1) * step_deep), (0, (number - i) * step_high))
    for i in range(0, number, 2):
        y, z = (i + 0.5) * step_deep, (number - i) * step_high
        if z + 0.9 < high:
            piece.rod(metal, (wide / 2 - 0.04, y, z), (wide / 2 - 0.04, y, z + 0.85), 0.015)
    return piece


def treadmill(d: Draw) -> Piece:
    metal, belt = d.metal(), d.plastic()
    piece = Piece().box(belt, (-0.35, 0.35), (0.0, 1.6), (0.05, 0.2))
    for x in (-0.35, 0.31):
        piece.rod(metal, (x + 0.02, 0.2, 0.2), (x + 0.02, 0.1, 1.3), 0.03).rod(metal, (x + 0.02, 0.15, 1.0), (x + 0.02, 0.7, 0.95), 0.02)
    return piece.box(d.screen(), (-0.3, 0.3), (0.03, 0.2), (1.2, 1.5))


def weight_bench(d: Draw) -> Piece:
    metal, piece = d.metal(), Piece()
    piece.box(d.plastic(), (-0.15, 0.15), (0.2, 1.4), (0.42, 0.5)).box(metal, (-0.04, 0.04), (0.25, 1.35), (0.05, 0.42))
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
    (xs, _, z), = piece.tops
    piece.box(metal, (xs[1] - 0.3, xs[1] - 0.15), (deep - 0.15, deep + 0.05), (z, z + 0.2))
    piece.box(d.wood(), xs, (0, 0.03), (z, z + 0.7))
    for i in range(d.whole(4, 8)):
        x = xs[0] + 0.1 + i * (wide - 0.3) / 8
        piece.box(d.metal(), (x, x + d.between(0.03, 0.09)), (0.03, 0.06), (z + d.between(0.2, 0.35), z + d.between(0.45, 0.65)))
    return piece


def drill_press(d: Draw) -> Piece:
    metal, piece = d.metal(), Piece()
    piece.box(metal, (-0.25, 0.25), (0, 0.55), (0, 0.1)).rod(metal, (0, 0.12, 0.1), (0, 0.12, 1.6), 0.05)
    piece.box(metal, (-0.2, 0.2), (0.1, 0.55), (0.8, 0.86)).rod(d.metal(), (0, 0.4, 1.0), (0, 0.4, 1.3), 0.03)
    return piece.box(d.metal(), (-0.15, 0.15), (0.0, 0.6), (1.3, 1.65))


def car(d: Draw) -> Piece:
    paint, tyre, glass, wide, long = d.metal(), d.plastic(), d.screen(), d.between(1.5, 1.7), d.between(2.6, 3.4)
    x, piece = (-wide / 2, wide / 2), Piece()
    piece.box(paint, x, (0.0, long), (0.25, 0.75)).box(glass, (x[0] + 0.1, x[1] - 0.1), (long * 0.22, long * 0.72), (0.75, 1.25))
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
            piece.box(d.one_of((d.metal, d.screen, d.plastic))(), (-0.25, 0.25), (0.72, 0.77), (z, z + unit - 0.012))
        z += unit
    return piece


def plant_bench(d: Draw) -> Piece:
    """A trestle with rows of potted plants."""
    wide, deep = d.between(1.2, 2.0), d.between(0.5, 0.7)
    piece = table(d, wide, deep, d.between(0.6, 0.8))
    (xs, ys, z), = piece.tops
    number = int(wide / 0.3)
    for i in range(number):
        for y in (deep * 0.28, deep * 0.72):
            x, leaf = xs[0] + (i + 0.5) * wide / number, d.foliage()
            piece.box(d.ceramic(), (x - 0.08, x + 0.08), (y - 0.08, y + 0.08), (z, z + 0.15))
            tall = d.between(0.1, 0.45)
            for _ in range(4):
                piece.ball(leaf, x + d.between(-0.08, 0.08), y + d.between(-0.06, 0.06), z + 0.15 + tall * d.between(0.2, 1), d.between(0.05, 0.09))
    return piece


def cubicle_wall(d: Draw) -> Piece:
    """A partition that stands out from the wall."""
    deep, high = d.between(1.1, 1.4), d.between(1.7, 1.95)
    return Piece().box(d.hard(), (-0.02, 0.02), (0, deep), (0.12, high)).box(d.metal(), (-0.02, 0.02), (deep - 0.06, deep), (0, high))


def partition(d: Draw, wide: float, high: float) -> Piece:
    return Piece().box(d.paint(), (-wide / 2, wide / 2), (0, 0.1), (0, high))
