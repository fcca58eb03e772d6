"""Small defences that the tests attack; of one the smallest perturbations are known."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from oracles import TinyDenoiser, fill
from torch import Tensor, nn

from lit_purify.attacks import Attack
from lit_purify.defence import Defence
from lit_purify.diffusion import (
    DiffusionPurifier,
    FixedNoise,
    NoiseConfiguration,
    NoiseSource,
    Purifier,
)

DUAL = {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}
"""p -> q with 1/p + 1/q = 1."""


class Rule(Purifier):
    """A purifier from a function of images, noise and indices."""

    def __init__(self, rule: Callable[[Tensor, NoiseConfiguration, Tensor], Tensor]) -> None:
        super().__init__()
        self.rule = rule

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return self.rule(images, noise, indices)


def convnet() -> nn.Module:
    """Four classes of 3 x 8 x 8 images, in float32."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(128, 4)
    )
    return fill(network, seed=1, std=0.3).requires_grad_(False).eval()


def chain(
    noise: NoiseSource,
    classifier: Callable[[Tensor], Tensor] | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    passes: list[tuple[int, int]] | None = None,
    **options: Any,
) -> Defence:
    """A classifier, by default :func:`convnet`, behind a diffusion.

    In float64 rounding, which depends on the batch size, never turns the sign of a gradient: what
    a sample meets can be compared bit by bit. The attacks themselves stay in float32.

    Args:
        noise: where it takes its randomness from.
        classifier: images of the given dtype to logits.
        dtype: of the purifier and of what it returns.
        passes: takes (images, randomness configurations) of every pass.
        options: of the DiffusionPurifier.
    """
    purifier = DiffusionPurifier(
        TinyDenoiser().to(dtype), **{"t_star": 60, "num_steps": 3, **options}
    )

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        if passes is not None:
            passes.append((len(images), len(getattr(noise, "configurations", [noise]))))
        return purifier.purify(images.to(dtype), noise, indices)

    return Defence(convnet().to(dtype) if classifier is None else classifier, Rule(purify), noise)


def constant(images: Tensor) -> Tensor:
    """Class 0 of four for ever, with a gradient that is 0."""
    return 0 * images.flatten(1).sum(1, keepdim=True) + torch.tensor([2.0, 1.0, 0.0, -1.0])


def half_broken(classify: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same logits, and a gradient of nan in the upper half of the image."""

    def classifier(images: Tensor) -> Tensor:
        upper = images[:, :, : images.shape[2] // 2]
        return classify(images) + (upper - upper).sqrt().flatten(1).sum(1, keepdim=True)

    return classifier


def attack_whole_and_alone(
    attack: Attack,
    defence: Callable[[], Defence],
    batch: tuple[Tensor, ...],
    parts: list[list[int]],
) -> Tensor:
    """Attack a batch, check that parts of it get the same, and return what was found."""
    whole = attack(defence(), *batch, seed=1)
    findings = attack.findings
    for rows in parts:
        part = attack(defence(), *(column[rows] for column in batch), seed=1)
        assert torch.equal(part, whole[rows])
        for name, found in attack.findings.items():
            assert torch.equal(found, findings[name][rows])
    return whole


class LinearDefence:
    r"""A linear classifier behind an affine purifier, :math:`s = w \cdot (A x + b) - c`.

    The first class has the logit s, the second -s, further ones never win. The boundary s = 0 is
    at the distance :math:`|s| / \|A^T w\|_q` from x.

    Args:
        num_classes: K.
        matrix: A, (64, 64); by default near the identity.
    """

    shape = (1, 8, 8)
    steepness = 5.0
    """Factor of the two logits."""

    def __init__(self, num_classes: int = 4, matrix: Tensor | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        d = math.prod(self.shape)
        near = 0.8 * torch.eye(d) + 0.03 * torch.randn(d, d, generator=generator)
        self.num_classes = num_classes
        self.matrix = near if matrix is None else matrix
        self.offset = 0.1 * torch.rand(d, generator=generator)
        self.slope = torch.randn(d, generator=generator)
        self.threshold = self.slope @ (self.matrix @ torch.full((d,), 0.5) + self.offset)
        self.normal = self.matrix.T @ self.slope

    def purify(self, images: Tensor) -> Tensor:
        return (images.flatten(1).to(self.matrix) @ self.matrix.T + self.offset).view_as(images)

    def classify(self, images: Tensor) -> Tensor:
        s = self.steepness * (images.flatten(1) @ self.slope - self.threshold)
        never = [torch.full_like(s, -100.0 - k) for k in range(self.num_classes - 2)]
        return torch.stack([s, -s, *never], 1)

    def double(self) -> LinearDefence:
        """The same in float64, where rounding does not tell the size of a batch."""
        precise = copy.copy(self)
        for name in ("matrix", "offset", "slope", "threshold", "normal"):
            setattr(precise, name, getattr(self, name).double())
        return precise

    def defence(self, noise: NoiseSource | None = None, level: float = 0.0) -> Defence:
        """Under fixed noise by default; ``level`` times xi is added to what is purified."""

        def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
            xi = noise.normal(indices, "forward", 1, like=images) if level else 0
            return self.purify(images) + level * xi

        return Defence(self.classify, Rule(purify), noise or FixedNoise(0))

    def score(self, images: Tensor) -> Tensor:
        """s of clean images, by the closed form, float64, shape (B,)."""
        constant = self.slope.double() @ self.offset.double() - self.threshold.double()
        return images.double().flatten(1) @ self.normal.double() + constant

    def towards(self, labels: Tensor) -> Tensor:
        """Sign of the best perturbation in l_inf, shape (B, 1, 8, 8), each entry 1 or -1."""
        return (2 * labels - 1).view(-1, 1, 1, 1) * self.normal.sign().view(self.shape)

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
