"""Camera models: what four depth cameras would make of a noise-free view, 80 x 80 pixels, 70.6 degrees wide.

A sensor looks at the centre of it, as wide as its own field of view, on 64 x 64 pixels, and errs in its way:
structured light (Kinect v1, Xtion) by steps of disparity, shadows of the projector and lost edges; time of
flight (Kinect v2) by edge pixels that mix near and far ("fly") and where too little light returns; active
stereo (RealSense R200) by an error that grows fast with z², rounded edges and patches of holes.

``strength`` multiplies every error: 0 is the perfect view, only cropped; 1 is as published; 3 is the most.
The numbers are in ``sensors.toml``, each with its source, or marked as a modelling choice. A generator of the
CPU serves tensors on any device, with the same numbers; one of the tensors' own device avoids a copy.
"""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from socketlab.errors import LabError, require_choice
from socketlab.files import from_json

VIEW_SIZE, VIEW_FOV = 80, 70.6  # the stored views: pixels and degrees, across and down
SIZE = 64  # pixels of a sensor's picture, across and down
STRONGEST = 3.0


@dataclass(frozen=True)
class Response:
    """How a camera renders light, all modelling choices for cheap cameras, none of them measured.

    Factors (1 = faithful) are raised to the power of the strength, the others (0 = faithful) multiplied.
    """

    white_balance: tuple[float, ...] = (1.0,)  # factor per channel, on linear light
    exposure: float = 1.0  # factor on linear light
    gamma: float = 1.0  # exponent on the coded value; above 1 darkens the middle
    saturation: float = 1.0  # factor on the distance from grey
    blur: float = 0.0  # standard deviation of lens and demosaicing blur, pixels of the 64-pixel picture
    shot: float = 0.0  # noise that grows with the root of the light: deviation at full scale
    read: float = 0.0  # noise that is always there: deviation, share of full scale
    speckle: float = 0.0  # noise proportional to the light, as laser light makes
    vignette: float = 0.0  # share of the light that is lost in the corners


@dataclass(frozen=True)
class Sensor:
    """A camera: geometry, depth errors at strength 1, and how it renders colour and near-infrared.

    An effect whose number is 0 is absent. A pixel of the picture is one sample of the camera's finer raw
    image (640 pixels across or so), so that the share of edge pixels that suffer is the width of the raw
    image's bad band over the width of a pixel here.
    """

    name: str
    title: str
    fov_deg: float  # horizontal; the picture is square, so it is used down as well
    near_mm: int
    far_mm: int
    # standard deviation of the depth of a white wall: floor + growth (z - start)², all in metres
    noise_floor: float
    noise_growth: float
    noise_start: float
    noise_grain: float = 0.0  # pixels over which neighbouring errors are alike
    noise_dark: float = 1.0  # the most that a dark surface multiplies the deviation by
    disparity_step: float = 0.0  # step of 1/z, per metre: depth comes in steps of (this) z²
    baseline_mm: float = 0.0  # from the camera to the projector or second camera on its right
    edge_loss: float = 0.0  # share of edge pixels without depth
    edge_mixing: float = 0.0  # share of edge pixels that lie between near and far
    edge_rounding: float = 0.0  # weight of the 3 x 3 mean in the disparity
    dark_return: float = 0.0  # returned light (white at one metre = 1) below which depth begins to fail
    patch_holes: float = 0.0  # share of the pixels without depth at 3.5 m, in patches; grows with z²
    rgb: Response = Response()
    nir: Response = Response()


_TABLES = tomllib.loads((Path(__file__).parent / "sensors.toml").read_text(encoding="utf-8"))
SENSORS: dict[str, Sensor] = {n: from_json(Sensor, {"name": n} | table) for n, table in _TABLES.items()}
"""Name → camera."""


def sensor_named(name: str | Sensor) -> Sensor:
    """The sensor of that name (a `Sensor` as it is); a LabError lists the known names."""
    if isinstance(name, Sensor):
        return name
    require_choice("sensor", name, list(SENSORS))
    return SENSORS[name]


def see_depth(
    depth: Tensor, nir: Tensor, sensor: str | Sensor, strength: float, generator: Generator
) -> Tensor:
    """The depth that the sensor would measure: (N, 1, 64, 64) uint16, millimetres, 0 = missing.

    What is missing at one strength is missing at every greater one, given the same seed.

    Parameters
    ----------
    depth : (N, 1, 80, 80) uint16, millimetres along the optical axis, 0 = missing, which stays missing.
    nir : (N, 1, 80, 80) uint8, the same views in near-infrared: dark surfaces return too little light.
    strength : 0 (perfect, only cropped) to 3; below 1 the range widens as well.
    """
    sensor = sensor_named(sensor)
    _check(strength, depth=(depth, torch.uint16, 1), nir=(nir, torch.uint8, 1))
    ideal = crop_nearest(depth.to(torch.int32), sensor.fov_deg)
    if strength == 0:
        return ideal.to(torch.uint16)
    # The coded value stands for reflectance, a choice: coding evens out the shade of the room's own lamps,
    # which the camera's own light does not share.
    light = crop_nearest(nir, sensor.fov_deg).to(torch.float32) / 255
    z = ideal.to(torch.float32) / 1000

    edges = crop_nearest(depth_edges(depth.to(torch.float32) / 1000), sensor.fov_deg)
    widening = min(1.0, strength)
    lost = (ideal == 0) | (z < sensor.near_mm / 1000 * widening) | (z > sensor.far_mm / 1000 / widening)
    if sensor.baseline_mm:
        lost |= shadow(z, sensor.fov_deg, strength * sensor.baseline_mm / 1000)
    if sensor.edge_loss:
        lost |= edges & _chance(torch.full_like(z, strength * sensor.edge_loss), generator)
    if sensor.dark_return:  # from where light / z² is at the threshold to all where it is black
        dark = (1 - light / z.clamp(min=0.001) ** 2 / sensor.dark_return).clamp(min=0)
        lost |= _chance(strength * dark, generator, grain=1.0)
    if sensor.patch_holes:
        lost |= _chance(strength * sensor.patch_holes * (z / 3.5) ** 2, generator, grain=3.0)

    if sensor.edge_mixing:
        z = flying_pixels(z, edges, strength * sensor.edge_mixing, generator)
    if sensor.edge_rounding:
        z = rounded_edges(z, min(1.0, strength * sensor.edge_rounding))
    z = z + strength * axial_noise(z, light, sensor, generator)
    z = quantise_disparity(z.clamp(min=0.001), strength * sensor.disparity_step)
    return (z * 1000).round().clamp(1, 65535).to(torch.int32).masked_fill(lost, 0).to(torch.uint16)


def see_light(views: Tensor, sensor: str | Sensor, strength: float, generator: Generator) -> Tensor:
    """The picture that the sensor would take of colours (3 channels) or of near-infrared light (1).

    (N, C, 80, 80) → (N, C, 64, 64) uint8. Light and noise act on linear values, tone and saturation on coded
    ones; see `Response`.
    """
    sensor = sensor_named(sensor)
    modality, channels = ("rgb", 3) if views.shape[1:2] == (3,) else ("nir", 1)
    _check(strength, **{modality: (views, torch.uint8, channels)})
    response: Response = getattr(sensor, modality)
    coded = crop_smooth(views.to(torch.float32) / 255, sensor.fov_deg, strength * response.blur)
    if strength > 0:
        gains = torch.tensor(response.white_balance).to(coded).view(-1, 1, 1) * response.exposure
        light = coded.clamp(min=0) ** 2.2 * gains**strength
        across = torch.linspace(-1, 1, SIZE)  # the corners lose the share of light of the vignette
        lost = min(1.0, strength * response.vignette) * (across[:, None] ** 2 + across**2) / 2
        light = light * (1 - lost).to(coded)
        variance = response.read**2 + response.shot**2 * light + (response.speckle * light) ** 2
        light = light + strength * variance.sqrt() * _grainy(light, 0.0, generator)
        coded = light.clamp(0, 1) ** (response.gamma**strength / 2.2)
        grey = coded.mean(dim=1, keepdim=True)
        coded = torch.lerp(grey, coded, response.saturation**strength)
    return (coded * 255).round().clamp(0, 255).to(torch.uint8)


def view_positions(fov_deg: float) -> Tensor:
    """Where a sensor's 64 pixel centres fall on the view's 80 pixels: (64,) float64."""
    share = math.tan(math.radians(fov_deg / 2)) / math.tan(math.radians(VIEW_FOV / 2))
    centres = (torch.arange(SIZE, dtype=torch.float64) + 0.5) * 2 / SIZE - 1
    return (centres * share + 1) * VIEW_SIZE / 2


def crop_nearest(images: Tensor, fov_deg: float) -> Tensor:
    """Crop (..., 80, 80) to the field of view and resample to (..., 64, 64), taking the nearest pixel."""
    nearest = view_positions(fov_deg).floor().clamp(0, VIEW_SIZE - 1).long().to(images.device)
    return images.index_select(-2, nearest).index_select(-1, nearest)


def crop_smooth(images: Tensor, fov_deg: float, blur: float = 0.0) -> Tensor:
    """Crop (..., 80, 80) float to the field of view and resample to (..., 64, 64), antialiased and blurred.

    As ``interpolate(antialias=True)``, then a Gaussian of ``blur`` pixels: one matrix, down and across.
    """
    positions = view_positions(fov_deg)
    reach = max(1.0, float(positions[1] - positions[0]))
    old = torch.arange(VIEW_SIZE, dtype=torch.float64) + 0.5
    weights = (1 - (positions[:, None] - old).abs() / reach).clamp(min=0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    if blur:
        gaussian = _gaussian(blur)
        weights = gaussian / gaussian.sum(dim=1, keepdim=True) @ weights
    weights = weights.to(images)
    return weights @ images @ weights.T


def axial_noise(z: Tensor, light: Tensor, sensor: Sensor, generator: Generator) -> Tensor:
    """Draw the depth error at strength 1, metres, before it is cut into steps.

    The published deviation, floor + growth (z - start)², was measured behind the steps, whose rounding adds
    step²/12 to the variance; that part is taken off here and comes back in `quantise_disparity`.
    Where little light returns the deviation grows as 1/√light, from half of white downwards [Lange].
    """
    deviation = sensor.noise_floor + sensor.noise_growth * (z - sensor.noise_start) ** 2
    if sensor.noise_dark > 1:
        deviation = deviation * (0.5 / light.clamp(min=1e-3)).sqrt().clamp(1, sensor.noise_dark)
    if sensor.disparity_step:
        rounding = sensor.disparity_step * z**2 / math.sqrt(12)
        deviation = (deviation**2 - rounding**2).clamp(min=0).sqrt()
    return deviation * _grainy(z, sensor.noise_grain, generator)


def quantise_disparity(z: Tensor, step: float) -> Tensor:
    """Round 1/z to multiples of ``step`` (per metre): depth comes in steps of step z². Step 0: unchanged."""
    if step < 1e-7:  # a thousandth of a millimetre at 3 m: beyond what a float32 can count
        return z
    return 1 / ((1 / z / step).round().clamp(min=1) * step)


def shadow(z: Tensor, fov_deg: float, baseline: float) -> Tensor:
    """What a projector (or second camera) ``baseline`` metres to the right of the camera cannot see.

    A point in column u shows in the projector's picture in column u - d, with disparity d = f baseline / z.
    It is hidden if something further right in the camera's picture lands further left in the projector's:
    so the shadow of a near thing lies on its left, d(near) - d(far) pixels wide. What is missing (0) in
    z (N, 1, 64, 64) metres casts no shadow. Returns (N, 1, 64, 64) bool.
    """
    focal = SIZE / 2 / math.tan(math.radians(fov_deg / 2))
    columns = torch.arange(z.shape[-1], device=z.device, dtype=z.dtype)
    landing = columns - focal * baseline / z.clamp(min=0.001)
    blocking = torch.where(z > 0, landing, torch.inf)
    leftmost = blocking.flip(-1).cummin(dim=-1).values.flip(-1)
    return (z > 0) & (leftmost < landing - 0.05)


def depth_edges(z: Tensor, jump: float = 0.1) -> Tensor:
    """Mark the pixels on both sides of a jump in depth of about 10 % or more: (..., H, W) metres to bool.

    The disparity 1/z of a plane, however slanted, is linear in the picture, so only a bend of it (a second
    difference, relative to itself) is an edge. Missing neighbours (0) make none.
    """
    inverse = torch.where(z > 0, 1 / z.clamp(min=0.001), 0)
    padded = pad(inverse, (1, 1, 1, 1), mode="replicate")

    def bend(before: Tensor, after: Tensor) -> Tensor:
        before, after = (torch.where(side > 0, side, inverse) for side in (before, after))
        return (before + after - 2 * inverse).abs()

    across = bend(padded[..., 1:-1, :-2], padded[..., 1:-1, 2:])
    down = bend(padded[..., :-2, 1:-1], padded[..., 2:, 1:-1])
    return (z > 0) & (torch.maximum(across, down) > jump * inverse)


def flying_pixels(z: Tensor, edges: Tensor, share: float, generator: Generator) -> Tensor:
    """Move a share of the edge pixels to between the nearest and the farthest of their 3 x 3 window."""
    nearest = -max_pool2d(torch.where(z > 0, -z, -torch.inf), 3, stride=1, padding=1)
    farthest = max_pool2d(z, 3, stride=1, padding=1)
    flying = edges & _chance(torch.full_like(z, share), generator)
    mixed = torch.lerp(nearest, farthest, _even(z, generator))
    return torch.where(flying & (z > 0), mixed, z)


def rounded_edges(z: Tensor, weight: float) -> Tensor:
    """Blend the disparity with its 3 x 3 mean (of what is not missing): planes stay, edges are rounded."""
    there = (z > 0).to(z)
    inverse = there / z.clamp(min=0.001)
    mean = avg_pool2d(inverse, 3, 1, padding=1) / avg_pool2d(there, 3, 1, padding=1).clamp(min=0.01)
    return torch.where(z > 0, 1 / torch.lerp(inverse, mean, weight).clamp(min=1e-6), 0)


def _chance(probability: Tensor, generator: Generator, grain: float = 0.0) -> Tensor:
    """Draw True with a probability at every pixel, in patches; where it grows, a seed only adds Trues."""
    if grain == 0:
        return _even(probability, generator) < probability
    draw: Tensor = torch.special.ndtr(_grainy(probability, grain, generator))
    return draw < probability


def _even(like: Tensor, generator: Generator) -> Tensor:
    """Draw numbers even in [0, 1), of the shape of ``like``."""
    return torch.rand(like.shape, generator=generator, device=generator.device).to(like)


def _grainy(like: Tensor, grain: float, generator: Generator) -> Tensor:
    """Draw normal noise of the shape of ``like``, variance 1 at every pixel, alike over ``grain`` pixels."""
    noise = torch.randn(like.shape, generator=generator, device=generator.device).to(like)
    if grain == 0:
        return noise
    weights = _gaussian(grain)
    weights = (weights / weights.square().sum(dim=1, keepdim=True).sqrt()).to(like)
    return weights @ noise @ weights.T


def _gaussian(width: float) -> Tensor:
    """exp(-(i - j)² / 2 width²), (64, 64) float64: a blur along one axis, rows not yet normalised."""
    places = torch.arange(SIZE, dtype=torch.float64)
    weights = (-((places[:, None] - places) ** 2) / (2 * width**2)).exp()
    return weights.masked_fill(weights < 1e-8, 0)  # denormal numbers make a product several times slower


def _check(strength: float, **views: tuple[Tensor, torch.dtype, int]) -> None:
    """A LabError for views of another type or shape, or a strength out of range."""
    for what, (images, dtype, channels) in views.items():
        if images.dtype != dtype or images.shape[1:] != (channels, VIEW_SIZE, VIEW_SIZE):
            wanted, given = f"{dtype} (N, {channels}, {VIEW_SIZE}, {VIEW_SIZE})", tuple(images.shape)
            raise LabError(f"The {what} views must be {wanted}, as stored, not {images.dtype} {given}.")
    if not 0 <= strength <= STRONGEST:
        raise LabError(f"The strength of a sensor is {strength}: choose a number from 0 to {STRONGEST:g}.")
