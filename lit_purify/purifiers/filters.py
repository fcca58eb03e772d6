r"""Purifiers without a network: what a diffusion has to be better than.

They draw no noise. A filter that rounds has no derivative; its backward pass takes the rounding for
the identity, which settings and reports say (``purifier_gradient``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.purifier import Purifier
from lit_purify.types import InputError, is_whole

STRAIGHT_THROUGH = "straight-through: rounding taken for the identity"


def rounded(values: Tensor) -> Tensor:
    """The nearest whole numbers, with the gradient of the identity."""
    return values + (values.round() - values).detach()


class Blur(Purifier):
    """Convolves with a Gaussian, cut off at three standard deviations; borders are reflected.

    Args:
        sigma: standard deviation in pixels.
    """

    def __init__(self, *, sigma: float = 0.7) -> None:
        super().__init__()
        if not 0 < sigma < math.inf:
            raise InputError(f"sigma of Blur must be positive, got {sigma}; 0.7 pixels is mild")
        self.sigma = sigma
        self.radius = math.ceil(3 * sigma)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        if min(shape[1:]) <= self.radius:
            raise InputError(
                f"sigma {self.sigma} blurs over {self.radius} pixels to each side, and the images "
                f"are of shape {shape}; take a smaller sigma"
            )

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        places = torch.arange(-self.radius, self.radius + 1, device=images.device)
        weights = torch.exp(-((places.to(images) / self.sigma) ** 2) / 2)
        channels = images.shape[1]
        line = (weights / weights.sum()).repeat(channels, 1, 1, 1)
        padded = F.pad(images, (self.radius,) * 4, mode="reflect")
        rows = F.conv2d(padded, line, groups=channels)
        return F.conv2d(rows, line.mT, groups=channels)


class BitDepth(Purifier):
    """Rounds pixels to 2**bits levels (Xu et al., Feature Squeezing, 2018).

    Args:
        bits: of each colour, 1 to 8.
    """

    approximate_gradient = STRAIGHT_THROUGH

    def __init__(self, *, bits: int = 4) -> None:
        super().__init__()
        if not (is_whole(bits) and 1 <= bits <= 8):
            raise InputError(f"bits of BitDepth must be a whole number of 1 .. 8, got {bits!r}")
        self.bits = bits

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        levels = 2**self.bits - 1
        return rounded(images * levels) / levels


class TotalVariation(Purifier):
    r"""Denoises by total variation, each colour by itself (Rudin, Osher & Fatemi, 1992).

    .. math:: \min_u \tfrac12 \|u - x\|_2^2 + \lambda \sum_i |(\nabla u)_i|_2

    by a fixed number of the steps of Chambolle's projection (2004), each differentiated exactly:

    .. math:: p \leftarrow \frac{p + \tau \nabla(\operatorname{div} p - x / \lambda)}
       {1 + \tau |\nabla(\operatorname{div} p - x / \lambda)|}, \qquad
       u = x - \lambda \operatorname{div} p.

    Args:
        weight: lambda, in units of the pixels.
        iterations: steps, of size tau = 1/4.
    """

    def __init__(self, *, weight: float = 0.05, iterations: int = 30) -> None:
        super().__init__()
        if not 0 < weight < math.inf:
            raise InputError(f"weight of TotalVariation must be positive, got {weight}")
        if not (is_whole(iterations) and iterations >= 1):
            raise InputError(
                f"iterations of TotalVariation must be a whole number, at least 1, got "
                f"{iterations!r}; 30 suffice for small weights"
            )
        self.weight = weight
        self.iterations = iterations

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        dual = images.new_zeros((2, *images.shape))
        for _ in range(self.iterations):
            slope = _gradient(_divergence(dual) - images / self.weight)
            # Its derivative where there is no slope is 0.
            size = torch.linalg.vector_norm(slope, dim=0)
            dual = (dual + slope / 4) / (1 + size / 4)
        return images - self.weight * _divergence(dual)


def _gradient(images: Tensor) -> Tensor:
    """Forward differences down and to the right, 0 at the far border: (2, B, C, H, W)."""
    down = F.pad(images[..., 1:, :] - images[..., :-1, :], (0, 0, 0, 1))
    right = F.pad(images[..., :, 1:] - images[..., :, :-1], (0, 1, 0, 0))
    return torch.stack([down, right])


def _divergence(dual: Tensor) -> Tensor:
    """Minus the adjoint of :func:`_gradient`."""
    down, right = dual[0, ..., :-1, :], dual[1, ..., :, :-1]
    return (
        F.pad(down, (0, 0, 0, 1))
        - F.pad(down, (0, 0, 1, 0))
        + F.pad(right, (0, 1, 0, 0))
        - F.pad(right, (1, 0, 0, 0))
    )
