"""A defence whose smallest adversarial perturbation is known in every norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_purify.attacks import Target
from lit_purify.diffusion import FixedNoise, NoiseConfiguration, NoiseSource

DUAL = {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}
"""p -> q with 1/p + 1/q = 1."""


class LinearDefence:
    r"""A linear classifier behind an affine purifier, :math:`s = w \cdot (A x + b) - c`.

    The first class has the logit s, the second -s, further ones never win. The boundary s = 0 is
    at the distance :math:`|s| / \|A^T w\|_q` from x.

    Args:
        num_classes: K.
        steepness: factor of the two logits.
    """

    shape = (1, 8, 8)

    def __init__(self, num_classes: int = 4, steepness: float = 5.0) -> None:
        generator = torch.Generator().manual_seed(0)
        d = math.prod(self.shape)
        self.num_classes = num_classes
        self.steepness = steepness
        self.matrix = 0.8 * torch.eye(d) + 0.03 * torch.randn(d, d, generator=generator)
        self.offset = 0.1 * torch.rand(d, generator=generator)
        self.slope = torch.randn(d, generator=generator)
        self.threshold = self.slope @ (self.matrix @ torch.full((d,), 0.5) + self.offset)
        self.normal = self.matrix.T @ self.slope

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return (images.flatten(1) @ self.matrix.T + self.offset).view_as(images)

    def classify(self, images: Tensor) -> Tensor:
        s = self.steepness * (images.flatten(1) @ self.slope - self.threshold)
        never = [torch.full_like(s, -100.0 - k) for k in range(self.num_classes - 2)]
        return torch.stack([s, -s, *never], 1)

    def target(self, noise: NoiseSource | None = None) -> Target:
        return Target(self.classify, self.purify, noise or FixedNoise(0))

    def score(self, images: Tensor) -> Tensor:
        """s of clean images, by the closed form, float64, shape (B,)."""
        constant = self.slope.double() @ self.offset.double() - self.threshold.double()
        return images.double().flatten(1) @ self.normal.double() + constant

    def optimum(self, images: Tensor, p: float) -> Tensor:
        """Norms of the smallest perturbations that reach the boundary, shape (B,)."""
        return self.score(images).abs() / self.normal.double().norm(DUAL[p])

    def samples(
        self, distances: tuple[float, ...] = (0.21, 0.25, 0.31, 0.41)
    ) -> tuple[Tensor, ...]:
        """Images at these l2 distances from the boundary, by turns on either side of it.

        They stay away from the walls of [0, 1], which then play no part.

        Returns:
            Images, their classes, and dataset indices.
        """
        n = len(distances)
        generator = torch.Generator().manual_seed(1)
        images = 0.35 + 0.3 * torch.rand(n, *self.shape, generator=generator)
        sides = torch.tensor([1.0, -1.0]).repeat(n)[:n]
        missing = torch.tensor(distances) * sides * self.normal.norm() - self.score(images).float()
        images += (missing / self.normal.norm() ** 2)[:, None, None, None] * self.normal.view(
            self.shape
        )
        return images, (sides < 0).long(), torch.arange(10, 10 + n)
