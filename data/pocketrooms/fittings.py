"""Parts that furniture is made of, and what hangs, stands and lies about in every kind of room.

Metres; back at y = 0, front toward +y, floor at z = 0 (see `layout.Piece`).
"""

from __future__ import annotations

from math import cos, pi, sin

from layout import Piece
from materials import Draw, Material

# ---- parts ---------------------------------------------------------------------------------------------


def disc(
    piece: Piece, material: Material, x: float, y: float, z: float, radius: float, thick: float
) -> Piece:
    """A round plate or drum with closed ends."""
    piece.rod(material, (x, y, z), (x, y, z + thick), radius)
    return piece.lid(material, (x, y, z + thick), radius).lid(material, (x, y, z), radius)


def fronts(
    piece: Piece,
    d: Draw,
    x: tuple[float, float],
    y: tuple[float, float],
    z: tuple[float, float],
    columns: int,
    rows: int,
) -> Piece:
    """A closed body whose front shows doors or drawers with handles."""
    body, front, handle = d.hard(), d.hard(), d.metal()
    piece.box(body, x, y, z)
    wide, high = (x[1] - x[0]) / columns, (z[1] - z[0]) / rows
    for i in range(columns):
        for j in range(rows):
            left, low = x[0] + i * wide, z[0] + j * high
            piece.box(
                front,
                (left + 0.012, left + wide - 0.012),
                (y[1] - 0.005, y[1] + 0.018),
                (low + 0.012, low + high - 0.012),
            )
            if high > wide:
                piece.box(
                    handle,
                    (left + wide - 0.07, left + wide - 0.045),
                    (y[1] + 0.018, y[1] + 0.04),
                    (low + 0.42 * high, low + 0.6 * high),
                )
            else:
                piece.box(
                    handle,
                    (left + 0.4 * wide, left + 0.6 * wide),
                    (y[1] + 0.018, y[1] + 0.04),
                    (low + 0.6 * high, low + 0.6 * high + 0.025),
                )
    return piece


def fill(piece: Piece, d: Draw, x: tuple[float, float], deep: float, z: float, room: float) -> None:
    """Blocks of books or boxes on one board."""
    left = x[0] + 0.04
    while left < x[1] - 0.15:
        wide = min(d.between(0.1, 0.35), x[1] - 0.04 - left)
        if d.chance(0.75):
            piece.box(
                d.paper(),
                (left, left + wide),
                (0.02, deep * d.between(0.6, 0.95)),
                (z, z + room * d.between(0.4, 0.95)),
            )
        left += wide + 0.02


# ---- on walls ------------------------------------------------------------------------------------------


def picture(d: Draw, wide: float = 0.0, high: float = 0.0) -> Piece:
    wide, high = wide or d.between(0.3, 0.9), high or d.between(0.3, 0.8)
    piece = Piece().box(d.hard(), (-wide / 2, wide / 2), (0, 0.03), (0, high))
    return piece.box(
        d.patterned("paper", 0.8, (2, 5)),
        (-wide / 2 + 0.04, wide / 2 - 0.04),
        (0.01, 0.036),
        (0.04, high - 0.04),
    )


def whiteboard(d: Draw) -> Piece:
    wide, high, frame = d.between(1.2, 2.2), d.between(0.9, 1.2), d.metal()
    piece = Piece().box(frame, (-wide / 2, wide / 2), (0, 0.025), (0, high))
    piece.box(
        d.patterned("metal", 0.3), (-wide / 2 + 0.03, wide / 2 - 0.03), (0.01, 0.03), (0.03, high - 0.03)
    )
    return piece.box(frame, (-wide / 4, wide / 4), (0, 0.1), (-0.02, 0.01))


def wall_screen(d: Draw) -> Piece:
    wide = d.between(0.9, 1.6)
    return (
        Piece()
        .box(d.plastic(), (-wide / 2, wide / 2), (0, 0.06), (0, 0.58 * wide))
        .box(d.screen(), (-wide / 2 + 0.03, wide / 2 - 0.03), (0.05, 0.07), (0.03, 0.58 * wide - 0.03))
    )


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
    fill(piece, d, (-wide / 2, wide / 2), 0.24, 0.03, 0.26)
    return piece


# ---- small things shared by all rooms ------------------------------------------------------------------


def monitor(d: Draw) -> Piece:
    wide = d.between(0.45, 0.62)
    piece = (
        Piece()
        .box(d.plastic(), (-0.1, 0.1), (0.05, 0.2), (0, 0.02))
        .box(d.plastic(), (-0.02, 0.02), (0.08, 0.11), (0.02, 0.2))
    )
    return piece.box(d.plastic(), (-wide / 2, wide / 2), (0.11, 0.14), (0.1, 0.1 + wide * 0.6)).box(
        d.screen(), (-wide / 2 + 0.015, wide / 2 - 0.015), (0.13, 0.145), (0.115, 0.085 + wide * 0.6)
    )


def laptop(d: Draw) -> Piece:
    shell = d.one_of((d.metal, d.plastic))()
    return (
        Piece()
        .box(shell, (-0.16, 0.16), (0.06, 0.28), (0, 0.02))
        .box(d.screen(), (-0.16, 0.16), (0.02, 0.035), (0.02, 0.23), tilt=8)
    )


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
    return (
        piece.box(cloth, (-0.09, -0.06), (-0.01, 0.01), (high, high + 0.1))
        .box(cloth, (0.06, 0.09), (-0.01, 0.01), (high, high + 0.1))
        .box(cloth, (-0.09, 0.09), (-0.01, 0.01), (high + 0.08, high + 0.1))
    )


def vase(d: Draw) -> Piece:
    radius, high, piece = d.between(0.04, 0.09), d.between(0.12, 0.3), Piece()
    disc(piece, d.ceramic(), 0, 0, 0, radius, high)
    if d.chance(0.5):
        leaf = d.foliage()
        for _ in range(4):
            piece.ball(
                leaf,
                d.between(-0.06, 0.06),
                d.between(-0.06, 0.06),
                high + d.between(0.05, 0.2),
                d.between(0.04, 0.07),
            )
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
        piece.ball(
            leaf,
            spread * cos(turn),
            spread * sin(turn),
            high + tall * d.between(0.3, 1.0),
            d.between(0.05, 0.12),
        )
    return piece


def bin_(d: Draw) -> Piece:
    return disc(Piece(), d.hard(), 0, 0, 0, d.between(0.12, 0.18), d.between(0.25, 0.45))


def rug(d: Draw) -> Piece:
    wide, deep = d.between(0.8, 2.2), d.between(0.6, 1.6)
    return Piece().box(
        d.patterned("cloth", 0.8), (-wide / 2, wide / 2), (-deep / 2, deep / 2), (0.001, 0.012)
    )


def toys(d: Draw) -> Piece:
    """Building blocks and balls on the floor."""
    piece = Piece()
    for _ in range(d.whole(3, 7)):
        x, y, half = d.between(-0.3, 0.3), d.between(-0.3, 0.3), d.between(0.04, 0.08)
        if d.chance(0.35):
            piece.ball(d.plastic(), x, y, half * 1.3, half * 1.3)
        else:
            for level in range(d.whole(1, 3)):
                piece.box(
                    d.one_of((d.plastic, d.wood))(),
                    (x - half, x + half),
                    (y - half, y + half),
                    (2 * half * level, 2 * half * (level + 1)),
                )
    return piece


def toy_tent(d: Draw) -> Piece:
    half, high, cloth, pole, piece = d.between(0.4, 0.5), d.between(1.0, 1.35), d.cloth(), d.wood(), Piece()
    for x in (-half, half):
        for y in (0.05, 2 * half - 0.05):
            piece.rod(pole, (x, y, 0), (-x * 0.12, half + (half - y) * 0.12, high), 0.018)
    lean = 23.0
    piece.box(cloth, (-half * 0.75, half * 0.75), (half * 0.42, half * 0.46), (0.02, high * 0.85), tilt=-lean)
    piece.box(cloth, (-half * 0.75, -half * 0.2), (half * 1.54, half * 1.58), (0.02, high * 0.85), tilt=lean)
    return piece.box(
        cloth, (half * 0.2, half * 0.75), (half * 1.54, half * 1.58), (0.02, high * 0.85), tilt=lean
    )


def rocking_horse(d: Draw) -> Piece:
    wood, piece = d.wood(), Piece()
    for x in (-0.14, 0.1):
        piece.box(wood, (x, x + 0.04), (0, 0.8), (0.0, 0.06))
    piece.legs(wood, (-0.13, 0.13), (0.2, 0.62), 0.36, 0.05)
    return piece.box(d.cloth(), (-0.11, 0.11), (0.15, 0.65), (0.34, 0.54)).box(
        wood, (-0.06, 0.06), (0.58, 0.74), (0.45, 0.82), tilt=-18
    )


def basket(d: Draw) -> Piece:
    wide, high = d.between(0.3, 0.5), d.between(0.3, 0.6)
    piece = Piece().box(
        d.one_of((d.wood, d.plastic, d.cloth))(), (-wide / 2, wide / 2), (-wide / 2.5, wide / 2.5), (0, high)
    )
    return piece.box(
        d.cloth(),
        (-wide / 2.6, wide / 2.6),
        (-wide / 3.2, wide / 3.2),
        (high - 0.02, high + d.between(0.03, 0.12)),
    )


def drip_stand(d: Draw) -> Piece:
    metal, piece = d.metal(), Piece()
    piece.rod(metal, (0, 0, 0.05), (0, 0, 1.8), 0.015).box(metal, (-0.2, 0.2), (-0.02, 0.02), (0.02, 0.06))
    piece.box(metal, (-0.02, 0.02), (-0.2, 0.2), (0.02, 0.06)).box(
        metal, (-0.12, 0.12), (-0.01, 0.01), (1.77, 1.8)
    )
    return piece.box(d.plastic(), (0.05, 0.16), (-0.03, 0.03), (1.5, 1.75))
