"""Uniform noise, the perturbation that knows nothing."""

from __future__ import annotations

from torch import Tensor

from lit_purify.attacks.base import Attack
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise


class Uniform(Attack):
    """A draw from U(-eps, eps) in every pixel, keyed by sample; it asks the defence nothing.

    Args:
        eps: half-width, a number or a fraction such as ``"8/255"``.
    """

    def num_queries(self, defence: Defence) -> int:
        return 0

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        return images + self.eps * FixedNoise(seed).uniform(indices, like=images)
