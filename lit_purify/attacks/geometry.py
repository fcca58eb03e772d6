"""The balls that an attack searches: where it starts in them, and which way it goes."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.functional import steepest

Norm = Literal["Linf", "L2", "L1"]

EXPONENTS: dict[Norm, float] = {"Linf": math.inf, "L2": 2.0, "L1": 1.0}
"""Name of a norm -> p."""

_SPARSE = 0.01
"""Share of the pixels that a step in l1 moves."""


def random_perturbation(
    noise: NoiseConfiguration, indices: Tensor, like: Tensor, p: float
) -> Tensor:
    """A random perturbation of the unit ball, keyed by sample.

    Uniform in the ball of l_inf. In l2 and l1 uniform on the sphere, where nearly all of the ball
    lies: standard normal and Laplace draws, made from the uniform ones, at length 1.

    Args:
        noise: where the draws come from, in its slot t = 0.
        indices: dataset indices, shape (B,).
        like: images, shape (B, C, H, W).
        p: ``math.inf``, 2 or 1.
    """
    uniform = noise.uniform(indices, like=like)
    if p == math.inf:
        return uniform
    inside = uniform * (1 - 2**-24)  # -1, which may be drawn, has no finite image
    drawn = inside.erfinv() if p == 2 else -inside.sign() * torch.log1p(-inside.abs())
    return drawn / _per_image(torch.linalg.vector_norm(drawn.flatten(1), p, 1), drawn)


def steepest_step(gradient: Tensor, images: Tensor, p: float) -> Tensor:
    """The step of length 1 along which a loss rises the fastest, to first order.

    In l1 it is sparse (SLIDE: Tramèr & Boneh, 2019): the hundredth of the pixels with the largest
    gradient move by the same amount, those left out that are at their end of [0, 1] already.

    Args:
        gradient: shape (B, C, H, W). A pixel where it is not a number does not move.
        images: where it was taken, same shape.
        p: ``math.inf``, 2 or 1.

    Returns:
        Same shape; zero where the gradient is.
    """
    if p == math.inf:
        return gradient.sign()
    gradient = gradient.nan_to_num()  # an infinite one becomes the largest number
    if p == 2:
        return steepest(gradient, 2)
    stuck = torch.where(gradient > 0, images >= 1, images <= 0)
    slopes = gradient.masked_fill(stuck, 0).flatten(1)
    largest = slopes.abs().topk(math.ceil(_SPARSE * slopes.shape[1]), 1).indices
    signs = torch.zeros_like(slopes).scatter(1, largest, slopes.gather(1, largest).sign())
    moved = signs.abs().sum(1).clamp(min=1)
    return signs.view_as(gradient) / _per_image(moved, gradient)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """Values (B,) in a shape that multiplies images."""
    return values.view(-1, *[1] * (images.ndim - 1))
