"""From what a sensor stores to what a network reads: three float channels of zero mean and unit variance.

Depth is read as ``metric`` (distance along the optical axis, three times over), ``inverse`` (one over it),
``relative`` (distance in deviations from the picture's own mean), ``normals`` (a unit vector per pixel, in
the camera's axes), ``colours`` (the picture's own range, red near, blue far), or ``hha`` (inverse depth,
height above the lowest place, angle between surface and gravity).
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from socketlab.errors import LabError, require_choice
from socketlab.files import from_json
from socketlab.images.paired_images import CROP, centre_view

MODALITIES = ("rgb", "nir", "swir", "thermal", "depth")
DEPTH_ENCODINGS = ("metric", "inverse", "relative", "normals", "colours", "hha")
DEPTH_UNIT_MM = 8000.0
"""Depth is divided by this before normalisation: 1.0 is 8 m. Nothing is clipped."""
NEAREST_M = 0.1
"""Inverse depth grows no further below this: no depth camera measures so near."""
MOST_AT_ONCE = 2**26
"""Numbers that `measure` looks at in one go; of geometric encodings, a sixteenth."""


def focal_of(field_of_view: float) -> tuple[float, float]:
    """Focal lengths, in sides of a view (`CROP` of a picture), of pictures so many degrees wide and high."""
    if not 1 <= field_of_view <= 170:
        raise LabError(f"a field of view of {field_of_view:g}° is out of range: choose 1 to 170 degrees")
    focal = 0.5 / math.tan(math.radians(field_of_view) / 2) / CROP
    return focal, focal


FOCAL = focal_of(57.0)
"""Of a Kinect v1: the default where nothing is known of a camera."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of one modality, per channel; they belong to a checkpoint.

    A network trained on RGB needs *its* numbers, one for depth others: to use one pair for both, as the
    published code does, shifts every input. White is 1 (rgb, nir), 8 m is 1 (metric depth).
    """

    modality: str  # one of MODALITIES
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    depth_encoding: str = "metric"  # one of DEPTH_ENCODINGS; for depth alone
    focal: tuple[float, float] = FOCAL  # across and down, in sides of a view; for normals and hha

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) stored images → (B, 3, H, W) float32; where nothing is known it is 0, the mean."""
        values, valid = _channels(images, self.modality, self.depth_encoding, self.focal)
        mean, std = _per_channel(self.mean, values.device), _per_channel(self.std, values.device)
        encoded = (values - mean).div_(std)  # in place: no second picture is made
        return encoded if valid is None else encoded.mul_(valid)

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON; those of depth encodings only where they count."""
        about = asdict(self)
        if self.modality != "depth" or self.depth_encoding == "metric":
            del about["depth_encoding"], about["focal"]
        return about

    @classmethod
    def from_dict(cls, about: Any) -> Normalisation:
        """What `as_dict` gave, after JSON; a ValueError for anything else."""
        return from_json(cls, about)


def measure(
    images: Tensor, modality: str, depth_encoding: str = "metric", focal: tuple[float, float] = FOCAL
) -> Normalisation:
    """Mean and standard deviation per channel of (N, C, H, W) images, read slice by slice; of valid depth.

    A LabError for an unknown modality or encoding, another shape, or depth that is missing everywhere.
    """
    plain = modality != "depth" or depth_encoding == "metric"
    most = MOST_AT_ONCE if plain else MOST_AT_ONCE // 16
    count, sums, squares = 0, np.zeros(3), np.zeros(3)
    for part in images.split(max(1, most // max(1, images[:1].numel()))):
        values, valid = _channels(part if plain else centre_view(part), modality, depth_encoding, focal)
        if valid is not None:
            values = values * valid
        count += values[:, 0].numel() if valid is None else int(valid.sum())
        sums += values.sum((0, 2, 3), dtype=torch.float64).cpu().numpy()
        squares += values.square().sum((0, 2, 3), dtype=torch.float64).cpu().numpy()
    if not count:
        raise LabError("there is no valid depth in these images: every pixel is 0 (missing)")
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return Normalisation(modality, tuple(mean.tolist()), tuple(std.tolist()), depth_encoding, tuple(focal))  # type: ignore[arg-type]


@functools.cache
def _per_channel(numbers: tuple[float, float, float], device: torch.device) -> Tensor:
    """(3, 1, 1) float32, cached on the device, and of use in training even where a test is the first call."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=torch.float32, device=device)[:, None, None]


def _channels(
    images: Tensor, modality: str, depth_encoding: str, focal: tuple[float, float]
) -> tuple[Tensor, Tensor | None]:
    """One or three float channels before normalisation and, for depth, where they are known: (B, 1, H, W)."""
    require_choice("depth_encoding", depth_encoding, DEPTH_ENCODINGS)
    require_choice("modality", modality, MODALITIES)
    channels = 3 if modality == "rgb" else 1
    if images.ndim != 4 or images.shape[1] != channels:
        raise LabError(f"{modality} images must be (N, {channels}, H, W), not {tuple(images.shape)}")
    values = images.to(torch.float32)
    if modality != "depth":
        return values / 255.0, None
    valid, metres = values > 0, values / 1000
    if depth_encoding == "metric":
        return values / DEPTH_UNIT_MM, valid
    alone = {"inverse": inverse_depth, "relative": relative_depth, "colours": colour_map}
    if depth_encoding in alone:
        return alone[depth_encoding](metres), valid
    normals = surface_normals(metres, focal)
    known = normals.square().sum(1, keepdim=True) > 0.5  # a unit vector, not 0
    return (normals if depth_encoding == "normals" else hha(metres, focal, normals)), known


def inverse_depth(depth: Tensor) -> Tensor:
    """1 / z, per metre: (B, 1, H, W) metres → the same shape, in (0, 10]; 0 where there is no depth."""
    return torch.where(depth > 0, 1 / depth.clamp(min=NEAREST_M), 0.0)


def relative_depth(depth: Tensor) -> Tensor:
    """(z − mean) / deviation (1 mm at least) of each picture, over what was measured; 0 where missing."""
    seen = (depth > 0).to(depth.dtype)
    count = seen.sum((1, 2, 3), keepdim=True).clamp(min=1)
    mean = (depth * seen).sum((1, 2, 3), keepdim=True) / count
    difference = (depth - mean) * seen
    deviation = (difference.square().sum((1, 2, 3), keepdim=True) / count).sqrt()
    return difference / deviation.clamp(min=1e-3)


def colour_map(depth: Tensor) -> Tensor:
    """Each picture's own range in colours, (B, 1, H, W) metres → (B, 3, H, W) (Eitel et al., IROS 2015)."""
    seen = depth > 0
    near = depth.masked_fill(~seen, torch.inf).amin((1, 2, 3), keepdim=True)
    far = depth.amax((1, 2, 3), keepdim=True)
    nearness = ((far - depth) / (far - near).clamp(min=1e-3)).clamp(0, 1)
    centres = depth.new_tensor([3.0, 2.0, 1.0])[:, None, None]
    return torch.where(seen, (1.5 - (4 * nearness - centres).abs()).clamp(0, 1), 0.0)


def surface_normals(depth: Tensor, focal: tuple[float, float] = FOCAL) -> Tensor:
    r"""Which way the surface at each pixel faces: (B, 1, H, W) metres → (B, 3, H, W) unit vectors.

    On a plane :math:`n^T p = d`, inverse depth is an affine function of the pixel,

    .. math:: 1/z = (n_x u / f_x + n_y v / f_y + n_z) / d,

    with u, v from the optical axis, so that its value and its two slopes give the normal. They are fitted by
    least squares to the window around each pixel (a 28th of the picture to each side), which is exact on a
    plane however many of its pixels are missing. Axes are x to the right, y down, z away from the camera: a
    wall seen head-on has (0, 0, −1). 0 where depth is missing, or known along one line only.
    """
    side = min(depth.shape[-2:])
    seen, inverse = (depth > 0).to(depth.dtype), inverse_depth(depth)
    radius = max(1, side // 28)
    m, mu, mv, muu, muv, mvv = _moments(seen, radius, second=True)
    d, du, dv = _moments(inverse, radius, second=False)
    count = m.clamp(min=1)
    uu, uv, vv = muu - mu * mu / count, muv - mu * mv / count, mvv - mv * mv / count
    ud, vd = du - mu * d / count, dv - mv * d / count
    determinant = uu * vv - uv * uv
    known = (depth > 0) & (determinant > 0.1)  # three pixels in a corner have 1/3, a line has 0
    determinant = torch.where(known, determinant, 1.0)
    across, down = (vv * ud - uv * vd) / determinant, (uu * vd - uv * ud) / determinant
    here = (d - across * mu - down * mv) / count
    x, y = focal[0] * side * across, focal[1] * side * down
    u, v = _rays(depth, focal)
    normals = -torch.cat([x, y, here - u * x - v * y], dim=1)
    length = normals.norm(dim=1, keepdim=True)
    return torch.where(known & (length > 0), normals / length.clamp(min=1e-12), 0.0)


def hha(depth: Tensor, focal: tuple[float, float], normals: Tensor) -> Tensor:
    """Inverse depth (1/m), height above the picture's lowest place (m), angle of the surface to up (rad).

    (B, 1, H, W) metres and their `surface_normals` → (B, 3, H, W); 0 where there is no depth. A floor has the
    angle 0, a wall π/2, a ceiling π. Source: Gupta et al., ECCV 2014, for the three channels.
    """
    above = estimated_up(normals)[:, :, None, None]
    seen, height = depth > 0, (points(depth, focal) * above).sum(1, keepdim=True)
    lowest = height.masked_fill(~seen, torch.inf).amin((1, 2, 3), keepdim=True)
    angle = (normals * above).sum(1, keepdim=True).clamp(-1, 1).acos()
    return torch.where(seen, torch.cat([inverse_depth(depth), height - lowest, angle], dim=1), 0.0)


def points(depth: Tensor, focal: tuple[float, float] = FOCAL) -> Tensor:
    """Where each pixel lies in space: (B, 1, H, W) metres → (B, 3, H, W), x right, y down, z away."""
    u, v = _rays(depth, focal)
    return torch.cat([depth * u, depth * v, depth], dim=1)


def _rays(depth: Tensor, focal: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Of each pixel x / z, across (W,), and y / z, down (H, 1)."""
    height, width = depth.shape[-2:]
    u = torch.arange(width, dtype=depth.dtype, device=depth.device) - (width - 1) / 2
    v = torch.arange(height, dtype=depth.dtype, device=depth.device) - (height - 1) / 2
    side = min(height, width)
    return u / (focal[0] * side), v[:, None] / (focal[1] * side)


def estimated_up(normals: Tensor) -> Tensor:
    r"""The direction against gravity, of each picture: (B, 3, H, W) normals → (B, 3) unit vectors.

    From the camera's own up, ten rounds: surfaces that face along the estimate (floor, ceiling) should face
    along it exactly, those across (walls) exactly across,

    .. math:: \min_g \sum_{across} (n^T g)^2 + \sum_{along} (1 - (n^T g)^2),

    which the smallest eigenvector solves. One hundredth of the weight stays on the camera's up.

    Source: Gupta, Arbeláez and Malik, CVPR 2013, section 3, for the rounds of 45° and 15°.
    """
    every = max(1, min(normals.shape[-2:]) // 56)  # a few thousand pixels tell as much as all
    flat = normals[..., ::every, ::every].flatten(2).double()  # (B, 3, P)
    known = flat.square().sum(1, keepdim=True) > 0.5
    level = flat.new_tensor([0.0, -1.0, 0.0])
    prior = 0.01 * flat.shape[2] * torch.outer(level, level)
    up = level.expand(len(flat), 3)
    for degrees in (45,) * 5 + (15,) * 5:
        cosine = torch.einsum("bi,bip->bp", up, flat).abs()[:, None]
        along = known & (cosine > math.cos(math.radians(degrees)))
        across = known & (cosine < math.sin(math.radians(degrees)))
        sign = across.to(flat.dtype) - along.to(flat.dtype)
        matrix = torch.einsum("bip,bjp->bij", flat * sign, flat) - prior
        found = torch.linalg.eigh(matrix)[1][:, :, 0]
        up = torch.where((found @ level)[:, None] < 0, -found, found)
    return up.to(normals.dtype)


def _moments(x: Tensor, radius: int, second: bool) -> list[Tensor]:
    """Σ x, Σ u x, Σ v x and, when asked for, Σ u² x, Σ uv x, Σ v² x over the window around each pixel.

    u and v count from the pixel, to the right and down; beyond the edge x is 0. In plain sums: a convolution
    on a GPU may round to ten bits, which slopes do not survive.
    """

    def weighted(values: Tensor, power: int, dim: int) -> Tensor:
        """Σ_k k^power values[· + k] along one axis."""
        edges = (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius)
        padded, total = torch.nn.functional.pad(values, edges), torch.zeros_like(values)
        for k in range(-radius, radius + 1):
            if k or not power:
                total = total.add(padded.narrow(dim, k + radius, values.shape[dim]), alpha=float(k**power))
        return total

    flat, tilted = weighted(x, 0, 3), weighted(x, 1, 3)
    found = [weighted(flat, 0, 2), weighted(tilted, 0, 2), weighted(flat, 1, 2)]
    if second:
        found += [weighted(weighted(x, 2, 3), 0, 2), weighted(tilted, 1, 2), weighted(flat, 2, 2)]
    return found
