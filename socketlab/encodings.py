"""From what a sensor stores to what a network reads: three float channels of zero mean and unit variance."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from .errors import LabError

MODALITIES = ("rgb", "nir", "depth")
DEPTH_UNIT_MM = 8000.0
"""Depth is divided by this before normalisation: 1.0 is 8 m. Nothing is clipped."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of one modality, per channel; they belong to a checkpoint.

    A network trained on RGB is told with *its* numbers what grey is. A network for depth has others. Mixing
    them up shifts every input (fault 7 of the published code).

    Parameters
    ----------
    modality : "rgb", "nir" or "depth".
    mean, std : three numbers each, on the scale where white is 1 (rgb, nir) or 8 m is 1 (depth).
    """

    modality: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) stored images → (B, 3, H, W) float32; missing depth (0) becomes 0, the mean.

        Raises
        ------
        LabError
            When the images have neither one channel (nir, depth) nor three (rgb).
        """
        values, valid = _on_unit_scale(images, self.modality)
        mean = values.new_tensor(self.mean)[:, None, None]
        std = values.new_tensor(self.std)[:, None, None]
        encoded = (values - mean) / std
        return encoded if valid is None else encoded * valid

    def as_dict(self) -> dict[str, object]:
        """The three fields, ready for JSON."""
        return asdict(self)


def measure(images: Tensor, modality: str) -> Normalisation:
    """Mean and standard deviation per channel of (N, C, H, W) images; of depth, where there is any.

    Needs no label: an adapted network measures the normalisation of its target on the target's own images.
    """
    values, valid = _on_unit_scale(images, modality)
    if valid is None:
        mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3), correction=0)
    else:
        if not valid.any():
            raise LabError("there is no valid depth in these images: every pixel is 0 (missing)")
        seen = values[valid]
        mean, std = seen.mean().expand(1), seen.std(correction=0).expand(1)
    three = [float(v) for v in mean.expand(3)], [max(float(v), 1e-6) for v in std.expand(3)]
    return Normalisation(modality, tuple(three[0]), tuple(three[1]))  # type: ignore[arg-type]


def _on_unit_scale(images: Tensor, modality: str) -> tuple[Tensor, Tensor | None]:
    """Float images (white or 8 m is 1) and, for depth, where there is a measurement at all."""
    if modality not in MODALITIES:
        raise LabError(f"unknown modality {modality!r}: choose one of {', '.join(MODALITIES)}")
    channels = 3 if modality == "rgb" else 1
    if images.ndim != 4 or images.shape[1] != channels:
        raise LabError(f"{modality} images must be (N, {channels}, H, W), not {tuple(images.shape)}")
    values = images.to(torch.float32)
    if modality == "depth":
        return values / DEPTH_UNIT_MM, values > 0
    return values / 255.0, None
