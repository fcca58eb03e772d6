"""JPEG as a purifier (Dziugaite et al., 2016; Das et al., 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.purifier import Purifier
from lit_purify.purifiers.filters import STRAIGHT_THROUGH, rounded
from lit_purify.types import InputError, is_whole

_SIDE = 8
# Annex K of the standard (ITU-T T.81), tables K.1 and K.2.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
# JFIF: red, green, blue to luminance and two differences of colour.
_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


class JPEG(Purifier):
    """Compresses images as JPEG and reads them again, colours at full resolution (4:4:4).

    What a file would hold is computed without writing one: pixels, coefficients of the cosine
    transform and the result are rounded as there, and each rounding is taken for the identity by
    the backward pass.

    Args:
        quality: 1 to 100, as libjpeg counts.
    """

    approximate_gradient = STRAIGHT_THROUGH

    def __init__(self, *, quality: int = 75) -> None:
        super().__init__()
        if not (is_whole(quality) and 1 <= quality <= 100):
            raise InputError(
                f"quality of JPEG must be a whole number of 1 .. 100, got {quality!r}; 75 is usual"
            )
        self.quality = quality

    def check_shape(self, shape: tuple[int, ...]) -> None:
        if shape[0] != 3:
            raise InputError(f"JPEG compresses images of 3 colours, got the shape {shape}")

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        margin = (0, -width % _SIDE, 0, -height % _SIDE)
        pixels = rounded(255 * F.pad(images, margin, mode="replicate"))
        colours = images.new_tensor(_TO_YCBCR)
        centre = images.new_tensor([128.0, 0.0, 0.0]).view(3, 1, 1)
        components = rounded(torch.einsum("ij,bjhw->bihw", colours, pixels)) - centre
        tall, wide = components.shape[-2] // _SIDE, components.shape[-1] // _SIDE
        blocks = components.reshape(-1, 3, tall, _SIDE, wide, _SIDE)
        cosines = _cosines().to(images)
        steps = _steps(self.quality).to(images).view(3, 1, _SIDE, 1, _SIDE)
        coefficients = torch.einsum("ui,bchiwj,vj->bchuwv", cosines, blocks, cosines)
        kept = rounded(coefficients / steps) * steps
        restored = torch.einsum("ui,bchuwv,vj->bchiwj", cosines, kept, cosines)
        components = rounded(restored.reshape(components.shape)) + centre
        pixels = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(colours), components)
        return rounded(pixels[..., :height, :width].clamp(0, 255)) / 255


def _cosines() -> Tensor:
    """The orthonormal cosine transform of eight values, (8, 8)."""
    k = torch.arange(_SIDE, dtype=torch.float64)
    cosines = torch.cos(math.pi / _SIDE * (k + 0.5) * k[:, None]) * math.sqrt(2 / _SIDE)
    cosines[0] /= math.sqrt(2)
    return cosines


def _steps(quality: int) -> Tensor:
    """Width of the rounding of every coefficient, (3, 8, 8), as libjpeg scales the tables."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = torch.tensor([_LUMINANCE, _CHROMINANCE, _CHROMINANCE]).view(3, _SIDE, _SIDE)
    return ((tables * scale + 50) // 100).clamp(1, 255)
