"""Materials of PocketRooms: what a surface looks like to a colour camera and in the near infrared.

Every visible colour, of every room kind and every piece of furniture, comes from the one distribution in
`Draw.colour`: a bathtub may be dark green and an office wall pink, so colour never names the room.
What the *kind* of a material decides is only its near-infrared reflectance (`NIR_RULES`).
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

Colour = tuple[float, float, float]
T = TypeVar("T")

# Near-infrared reflectance (about 850 nm): kind -> (lowest, highest, share kept of the visible luminance).
# reflectance = share * luminance + (1 - share) * a uniform draw between lowest and highest.
NIR_RULES: dict[str, tuple[float, float, float]] = {
    "wall": (0.45, 0.75, 0.7),  # pigments on plaster: close to what the eye sees, darks a little lifted
    "paint": (0.45, 0.75, 0.7),  # the same on furniture
    "floor": (0.30, 0.70, 0.6),  # boards, tiles, linoleum: mixed
    "wood": (0.50, 0.75, 0.4),  # wood and its stains brighten: lignin and most dyes stop absorbing
    "cloth": (0.50, 0.85, 0.1),  # dyed textiles are bright whatever their colour
    "foliage": (0.50, 0.70, 0.0),  # leaves reflect half of the near infrared, dark as they look
    "plastic": (0.04, 0.15, 0.4),  # soot-filled plastics stay dark
    "ceramic": (0.60, 0.80, 0.8),  # glaze: as it looks
    "metal": (0.45, 0.65, 0.7),  # flat over both bands; lacquer as paint
    "paper": (0.65, 0.85, 0.3),  # cellulose is bright, most inks fade
    "glass": (0.03, 0.08, 0.2),  # screens and panes: dark
}


# Greatest saturation, darkest and brightest value of a colour (hue, saturation, value): one range for all
# kinds of room. Walls and floors are mostly light, furniture mostly darker, as in real rooms.
SHELL_TONES = {"wall": (0.35, 0.78, 0.97), "floor": (0.45, 0.60, 0.92)}
TONES = (0.75, 0.2, 0.75)


@dataclass(frozen=True)
class Pattern:
    """A second colour laid over a material: "checker", "stripes" or "mottled" (a small random picture)."""

    form: str
    colour: Colour
    nir: float
    repeats: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class Material:
    """A diffuse surface: linear RGB reflectance, near-infrared reflectance, both in [0, 1].

    `glow` and `nir_glow` are emitted radiances (lamps, window panes), 0 for everything else.
    """

    kind: str
    colour: Colour
    nir: float
    pattern: Pattern | None = None
    glow: Colour = (0.0, 0.0, 0.0)
    nir_glow: float = 0.0


class Draw:
    """Random numbers and random materials for one scene, all from one generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        return float(self.generator.uniform(low, high))

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.generator.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def one_of(self, things: Sequence[T]) -> T:
        return things[int(self.generator.integers(len(things)))]

    def shuffled(self, things: Sequence[T]) -> list[T]:
        return [things[i] for i in self.generator.permutation(len(things))]

    def colour(self, kind: str) -> Colour:
        """Linear RGB reflectance of any hue: pale for the room's shell, deeper for what stands in it."""
        most, low, high = SHELL_TONES.get(kind, TONES)
        saturation = float(self.generator.beta(1.1, 2.6)) * most
        rgb = colorsys.hsv_to_rgb(self.between(0, 1), saturation, self.between(low, high))
        return tuple(0.02 + 0.9 * c**2.0 for c in rgb)  # type: ignore[return-value]

    def material(self, kind: str) -> Material:
        colour = self.colour(kind)
        return Material(kind, colour, self.nir(kind, colour))

    def nir(self, kind: str, colour: Colour) -> float:
        low, high, share = NIR_RULES[kind]
        return share * luminance(colour) + (1 - share) * self.between(low, high)

    def patterned(self, kind: str, probability: float = 0.5, repeats: tuple[int, int] = (2, 8)) -> Material:
        """A material that carries, with the given probability, a pattern in a second colour."""
        material = self.material(kind)
        if not self.chance(probability):
            return material
        other = self.colour(kind)
        blend = self.between(0.2, 0.9) * (0.4 if kind in SHELL_TONES else 0.7)
        second: Colour = tuple(
            blend * o + (1 - blend) * c  # type: ignore[assignment]
            for o, c in zip(other, material.colour, strict=True)
        )
        count = self.whole(*repeats)
        return replace(
            material,
            pattern=Pattern(
                self.one_of(("checker", "stripes", "mottled")),
                second,
                self.nir(kind, second),
                (count, max(1, round(count * self.between(0.5, 1.5)))),
                self.whole(0, 2**31 - 1),
            ),
        )

    def wood(self) -> Material:
        return self.patterned("wood", 0.2)

    def cloth(self) -> Material:
        return self.patterned("cloth", 0.5)

    def paint(self) -> Material:
        return self.material("paint")

    def metal(self) -> Material:
        return self.material("metal")

    def ceramic(self) -> Material:
        return self.material("ceramic")

    def plastic(self) -> Material:
        return self.material("plastic")

    def paper(self) -> Material:
        return self.patterned("paper", 0.3)

    def foliage(self) -> Material:
        return self.material("foliage")

    def hard(self) -> Material:
        """Whatever a cabinet or a frame may be made of."""
        return self.one_of((self.wood, self.paint, self.metal, self.plastic))()

    def screen(self) -> Material:
        return self.patterned("glass", 0.6, (2, 5))

    def lamp_light(self, strength: float) -> Material:
        """A glowing surface from warm to cold white."""
        warmth = self.between(0.0, 1.0)
        glow = (strength, strength * (1 - 0.25 * warmth), strength * (1 - 0.5 * warmth))
        return Material("glass", (0.8, 0.8, 0.8), 0.8, glow=glow, nir_glow=strength * self.between(0.6, 1.2))


def luminance(colour: Colour) -> float:
    """Relative luminance of a linear RGB colour (ITU-R BT.709 weights)."""
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
