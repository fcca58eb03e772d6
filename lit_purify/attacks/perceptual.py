"""Steps of the gradient in a ball of what a network sees of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lit_purify.attacks.feature_ball import FeatureBall
from lit_purify.defence import Defence
from lit_purify.functional import lp_distance

REACH = 0.1
"""Root mean square change of a pixel by the first step, before it is shortened to the ball."""


class Perceptual(FeatureBall):
    """Raises the loss by steps of the gradient within a distance of features.

    The ball and the direction are those of :class:`FeatureBall`, after the Lagrangian attack of
    Laidlaw et al. (2021). The steps are no signs: rounding of the networks, which depends on the
    batch, reaches the last digits of the images.

    Args:
        eps: radius of the ball in units of the features, a number or a fraction.
        features: the network, as for :class:`FeatureBall`.
        steps: iterations.
        rel_stepsize: length of a step in units of the perturbation so far; it falls to 0 linearly.
        draws: randomness configurations that a gradient is averaged over, where there are several.
        rows_per_pass: as for :class:`FeatureBall`.
    """

    def __init__(
        self,
        *,
        eps: float | str,
        features: nn.Module,
        steps: int = 40,
        rel_stepsize: float | str = 0.3,
        draws: int = 15,
        rows_per_pass: int = 128,
    ) -> None:
        super().__init__(
            eps=eps, features=features, steps=steps, draws=draws, rows_per_pass=rows_per_pass
        )
        self.rel_stepsize = self._positive("rel_stepsize", rel_stepsize)

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        x, seen = images.clone(), self._seen(images)
        for k in range(self.steps):
            direction = self._rise(defence, x, labels, indices, seen)
            length = lp_distance(x, images) * self.rel_stepsize * (1 - k / self.steps)
            if k == 0:
                length = torch.full_like(length, REACH * math.sqrt(images[:1].numel()))
            x = self.project(x + length.view(-1, 1, 1, 1) * direction, images)
        return x
