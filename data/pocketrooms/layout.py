"""Solids, pieces of furniture, and a room in which pieces are placed without running into each other.

Units are metres and degrees, z points up. A piece has its own frame: x across, y = 0 at its back, the front
toward +y, the floor at z = 0. A room spans [0, width] x [0, depth] x [0, height]; wall k has its inside
normal turned by 90 * k degrees from +y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from materials import Draw, Material
from numpy.typing import NDArray

Array = NDArray[np.float64]
Span = tuple[float, float]
VIEW_DEGREES = 70.6  # field of view of the stored pictures, both ways


@dataclass(frozen=True)
class Solid:
    """A simple shape of unit size, moved, turned and stretched by a 4 x 4 `frame`.

    "cube" [-1, 1]^3; "cylinder" of radius 1, z from -1 to 1, open; "sphere" of radius 1; "panel", the square
    [-1, 1]^2 at z = 0, which glows, if at all, toward +z only; "lid", the unit disc at z = 0.
    """

    shape: str
    frame: Array
    material: Material

    def bounds(self) -> Array:
        """(2, 3) lowest and highest corner of an axis-parallel box that holds the solid."""
        axes = np.abs(self.frame[:3, :3])
        if self.shape == "sphere":
            reach = axes.max(axis=1)
        elif self.shape == "cylinder":
            reach = np.hypot(axes[:, 0], axes[:, 1]) + axes[:, 2]
        elif self.shape == "lid":
            reach = np.hypot(axes[:, 0], axes[:, 1])
        elif self.shape == "panel":
            reach = axes[:, 0] + axes[:, 1]
        else:
            reach = axes.sum(axis=1)
        return np.stack([self.frame[:3, 3] - reach, self.frame[:3, 3] + reach])


@dataclass
class Piece:
    """Some solids that stand together; `tops` are level surfaces on which things may be put (x, y, z)."""

    solids: list[Solid] = field(default_factory=list)
    tops: list[tuple[Span, Span, float]] = field(default_factory=list)

    def box(self, material: Material, x: Span, y: Span, z: Span, tilt: float = 0.0) -> Piece:
        """A box; `tilt` turns it about its own x axis (degrees, positive leans the top backwards)."""
        frame = _moved((x[0] + x[1]) / 2, (y[0] + y[1]) / 2, (z[0] + z[1]) / 2)
        if tilt:
            c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
            frame[1:3, 1:3] = [[c, -s], [s, c]]
        frame[:3, :3] *= np.maximum([x[1] - x[0], y[1] - y[0], z[1] - z[0]], 0.004) / 2
        self.solids.append(Solid("cube", frame, material))
        return self

    def rod(
        self,
        material: Material,
        start: tuple[float, float, float],
        end: tuple[float, float, float],
        radius: float,
    ) -> Piece:
        """A round bar from one point to another."""
        a, b = np.asarray(start, float), np.asarray(end, float)
        axis = (b - a) / 2
        along = axis / np.linalg.norm(axis)
        side = np.cross(along, [1.0, 0, 0] if abs(along[0]) < 0.9 else [0, 1.0, 0])
        side /= np.linalg.norm(side)
        frame = np.eye(4)
        frame[:3, 0], frame[:3, 1] = side * radius, np.cross(along, side) * radius
        frame[:3, 2], frame[:3, 3] = axis, (a + b) / 2
        self.solids.append(Solid("cylinder", frame, material))
        return self

    def panel(
        self,
        material: Material,
        centre: tuple[float, float, float],
        across: tuple[float, float, float],
        up: tuple[float, float, float],
    ) -> Piece:
        """A flat sheet with the half-axes `across` and `up`; it faces along across x up."""
        frame = _moved(*centre)
        frame[:3, 0], frame[:3, 1] = across, up
        normal = np.cross(across, up)
        frame[:3, 2] = normal / np.linalg.norm(normal)
        self.solids.append(Solid("panel", frame, material))
        return self

    def lid(
        self,
        material: Material,
        centre: tuple[float, float, float],
        radius: float,
        normal: tuple[float, float, float] = (0, 0, 1),
    ) -> Piece:
        """A flat round sheet, such as the end of a cylinder."""
        ahead = np.asarray(normal, float)
        side = np.cross(ahead, [1.0, 0, 0] if abs(ahead[0]) < 0.9 else [0, 1.0, 0])
        frame = _moved(*centre)
        frame[:3, 0], frame[:3, 1], frame[:3, 2] = side * radius, np.cross(ahead, side) * radius, ahead
        self.solids.append(Solid("lid", frame, material))
        return self

    def ball(self, material: Material, x: float, y: float, z: float, radius: float) -> Piece:
        frame = _moved(x, y, z)
        frame[:3, :3] *= radius
        self.solids.append(Solid("sphere", frame, material))
        return self

    def legs(self, material: Material, x: Span, y: Span, height: float, thick: float) -> Piece:
        """Four legs at the corners of a rectangle."""
        for a in ((x[0], x[0] + thick), (x[1] - thick, x[1])):
            for b in ((y[0], y[0] + thick), (y[1] - thick, y[1])):
                self.box(material, a, b, (0, height))
        return self

    def top(self, x: Span, y: Span, z: float) -> Piece:
        self.tops.append((x, y, z))
        return self

    def add(self, other: Piece, x: float = 0.0, y: float = 0.0, z: float = 0.0, angle: float = 0.0) -> Piece:
        """Take over another piece's solids, turned and shifted."""
        frame = turned(x, y, z, angle)
        self.solids += [Solid(s.shape, frame @ s.frame, s.material) for s in other.solids]
        return self

    def bounds(self) -> Array:
        corners = np.stack([s.bounds() for s in self.solids])
        return np.stack([corners[:, 0].min(axis=0), corners[:, 1].max(axis=0)])

    @property
    def size(self) -> Array:
        low, high = self.bounds()
        return high - low


def _moved(x: float, y: float, z: float) -> Array:
    frame = np.eye(4)
    frame[:3, 3] = x, y, z
    return frame


def turned(x: float, y: float, z: float, angle: float) -> Array:
    """The 4 x 4 motion that turns by `angle` degrees about the vertical and then shifts."""
    frame = _moved(x, y, z)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    frame[:2, :2] = [[c, -s], [s, c]]
    return frame


@dataclass(frozen=True, eq=False)
class Placed:
    """Where a piece stands: its motion, and the axis-parallel box (2, 3) that it takes up."""

    piece: Piece
    frame: Array
    angle: float
    box: Array


@dataclass(frozen=True)
class Camera:
    position: Array
    target: Array
    roll: float

    @property
    def heading(self) -> Array:
        """Unit vector (2,) of the horizontal viewing direction."""
        flat = (self.target - self.position)[:2]
        return flat / np.linalg.norm(flat)


class Room:
    """A box-shaped room with a camera in it, filled piece by piece."""

    def __init__(self, draw: Draw, width: float, depth: float, height: float, camera: Camera) -> None:
        self.draw, self.width, self.depth, self.height, self.camera = draw, width, depth, height, camera
        self.solids: list[Solid] = []
        self.placed: list[Placed] = []
        here, ahead = camera.position[:2], camera.position[:2] + 0.65 * camera.heading
        self.kept_free = [_column(here, 0.32, 0.0, height), _column(ahead, 0.4, 0.6, height)]

    def place(
        self,
        piece: Piece,
        x: float,
        y: float,
        angle: float,
        lift: float = 0.0,
        gap: float = 0.02,
        seen: bool = False,
    ) -> Placed | None:
        """Stand the piece's origin at (x, y, lift), if it is inside the room and touches nothing."""
        frame = turned(x, y, lift, angle)
        solids = [Solid(s.shape, frame @ s.frame, s.material) for s in piece.solids]
        box = Piece(solids).bounds()
        if not self.holds(box):
            return None
        if seen and not self.sees(box):
            return None
        if any(_overlap(box, other, gap) for other in [*self.kept_free, *(p.box for p in self.placed)]):
            return None
        spot = Placed(piece, frame, angle, box)
        self.placed.append(spot)
        self.solids += solids
        return spot

    def holds(self, box: Array) -> bool:
        """Whether a box lies inside the room."""
        size = np.array([self.width, self.depth, self.height])
        return bool((box[0] > -1e-6).all() and (box[1] < size + 1e-6).all())

    def sees(self, box: Array) -> bool:
        """Whether the box's middle lies well inside the camera's horizontal field of view."""
        toward = box.mean(axis=0)[:2] - self.camera.position[:2]
        distance = np.linalg.norm(toward)
        cosine = float(toward @ self.camera.heading) / max(float(distance), 1e-9)
        return bool(distance > 0.9 and cosine > np.cos(np.radians(VIEW_DEGREES / 2 - 5)))

    def by_wall(
        self,
        piece: Piece,
        wall: int | None = None,
        lift: float = 0.0,
        tries: int = 24,
        seen: bool = True,
        off: float = 0.0,
    ) -> Placed | None:
        """Stand the piece with its back to a wall (any wall if none is named), `off` metres away from it."""
        half = piece.size[0] / 2
        for _ in range(tries):
            k = self.draw.whole(0, 3) if wall is None else wall
            length = self.width if k % 2 == 0 else self.depth
            if length < 2 * half:
                continue
            spot = self.place(
                piece,
                *self._wall_point(k, self.draw.between(half, length - half), off),
                90.0 * k,
                lift,
                seen=seen,
            )
            if spot:
                return spot
        return None

    def in_row(
        self,
        piece: Piece,
        wall: int,
        start: float,
        off: float = 0.0,
        lift: float = 0.0,
    ) -> Placed | None:
        """Stand the piece against a wall with its left edge `start` metres along the wall."""
        low, _ = piece.bounds()
        return self.place(piece, *self._wall_point(wall, start - low[0], off), 90.0 * wall, lift, gap=-1e-4)

    def _wall_point(self, wall: int, along: float, off: float) -> tuple[float, float]:
        if wall == 0:
            return along, off
        if wall == 1:
            return self.width - off, along
        if wall == 2:
            return self.width - along, self.depth - off
        return off, self.depth - along

    def wall_length(self, wall: int) -> float:
        return self.width if wall % 2 == 0 else self.depth

    def facing_wall(self) -> int:
        """One of the walls that the camera looks at, more often the one it looks at squarely."""
        weights = []
        for k in range(4):
            normal = turned(0, 0, 0, 90.0 * k)[:2, 1]
            weights.append(max(0.0, float(-normal @ self.camera.heading) - 0.2))
        chosen = self.draw.generator.choice(4, p=np.array(weights) / sum(weights))
        return int(chosen)

    def in_middle(
        self,
        piece: Piece,
        spread: float = 0.25,
        angle: float | None = None,
        tries: int = 24,
        seen: bool = True,
    ) -> Placed | None:
        """Stand the piece's middle near the middle of the room; `spread` is a share of the room's size."""
        middle = piece.bounds().mean(axis=0)
        for _ in range(tries):
            a = self.draw.whole(0, 3) * 90.0 if angle is None else angle
            x = self.width * (0.5 + self.draw.between(-spread, spread))
            y = self.depth * (0.5 + self.draw.between(-spread, spread))
            offset = turned(0, 0, 0, a)[:2, :2] @ middle[:2]
            spot = self.place(piece, x - offset[0], y - offset[1], a, seen=seen)
            if spot:
                return spot
        return None

    def anywhere(self, piece: Piece, tries: int = 10, seen: bool = False) -> Placed | None:
        """Stand the piece at a free spot, turned freely."""
        for _ in range(tries):
            spot = self.place(
                piece,
                self.draw.between(0, self.width),
                self.draw.between(0, self.depth),
                self.draw.between(0, 360),
                seen=seen,
            )
            if spot:
                return spot
        return None

    def beside(self, spot: Placed, piece: Piece, x: float, y: float, angle: float = 0.0) -> Placed | None:
        """Stand a piece at (x, y) in the frame of one already placed, turned by `angle` against it."""
        point = spot.frame @ np.array([x, y, 0.0, 1.0])
        return self.place(piece, point[0], point[1], spot.angle + angle, gap=-0.02)

    def on_top(self, spot: Placed, piece: Piece, tries: int = 6) -> bool:
        """Put something small on one of the level surfaces of a placed piece."""
        if not spot.piece.tops:
            return False
        low, high = piece.bounds()
        half = np.maximum(-low, high)[:2].max()
        for _ in range(tries):
            xs, ys, z = self.draw.one_of(spot.piece.tops)
            if xs[1] - xs[0] < 2 * half or ys[1] - ys[0] < 2 * half:
                continue
            x, y = (
                self.draw.between(xs[0] + half, xs[1] - half),
                self.draw.between(ys[0] + half, ys[1] - half),
            )
            frame = spot.frame @ turned(x, y, z, self.draw.whole(0, 3) * 90.0 + self.draw.between(-8, 8))
            solids = [Solid(s.shape, frame @ s.frame, s.material) for s in piece.solids]
            box = Piece(solids).bounds()
            others = [*self.kept_free, *(p.box for p in self.placed if p is not spot)]
            if self.holds(box) and not any(_overlap(box, other, 0.0) for other in others):
                self.placed.append(Placed(piece, frame, spot.angle, box))
                self.solids += solids
                return True
        return False

    def chairs_around(self, table: Placed, chair: Callable[[], Piece], keep: float = 0.9) -> int:
        """Chairs on the four sides of a table, facing it; each is there with probability `keep`."""
        low, high = table.piece.bounds()
        seat = chair()
        wide, deep = seat.size[0] + self.draw.between(0.06, 0.2), float(seat.bounds()[1, 1])
        tuck = self.draw.between(0.0, 0.25)
        count = 0
        for side, length, across in (
            (0, high[0] - low[0], 0),
            (180, high[0] - low[0], 0),
            (90, high[1] - low[1], 1),
            (270, high[1] - low[1], 1),
        ):
            number = max(1, int((length - 0.1) / wide)) if length > 0.5 else 0
            for i in range(number):
                if not self.draw.chance(keep):
                    continue
                along = (i - (number - 1) / 2) * wide
                reach = deep + (high[1] - low[1] if across == 0 else high[0] - low[0]) / 2 - tuck
                local = turned(0, 0, 0, side) @ np.array([along, -reach, 0, 1.0])
                x, y = local[0] + (low[0] + high[0]) / 2, local[1] + (low[1] + high[1]) / 2
                count += self._pull_up(table, seat, x, y, side)
        return count

    def _pull_up(self, table: Placed, seat: Piece, x: float, y: float, side: float) -> bool:
        """A chair partly under a table: the two boxes may overlap, nothing else may."""
        self.placed.remove(table)
        spot = self.beside(table, seat, x, y, side + self.draw.between(-7, 7))
        self.placed.append(table)
        return spot is not None


def _column(centre: Array, half: float, low: float, high: float) -> Array:
    return np.array([[centre[0] - half, centre[1] - half, low], [centre[0] + half, centre[1] + half, high]])


def _overlap(a: Array, b: Array, gap: float) -> bool:
    margin = np.array([gap, gap, 0.0])
    return bool((a[0] - margin < b[1] - 1e-6).all() and (b[0] - margin < a[1] - 1e-6).all())
