"""Projected gradient descent (Madry et al., 2017) in the l_inf ball."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from lit_purify.attacks.base import Attack
from lit_purify.attacks.gradient import input_gradient
from lit_purify.attacks.judge import Judge
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise
from lit_purify.functional import correct
from lit_purify.precision import Precision, arithmetic
from lit_purify.types import InputError, is_whole, ratio


class PGD(Attack):
    r"""Iterates :math:`x \leftarrow \Pi(x + s \, \mathrm{sign} \nabla_x L(x))`.

    The gradient is that of the whole chain. Forty steps of the default size travel 4/3 eps, the
    diameter of the ball is 2 eps: from a random start a pixel in three cannot reach the far side.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        steps: iterations.
        rel_stepsize: step size s in units of eps; 0.01 / 0.3 as in the paper's Table S1.
        random_start: start from a uniform draw in the ball, keyed by sample, instead of the image.
        early_stop: a sample that is fooled leaves the batch and keeps the iterate that fooled it.
            The success at any iteration is unchanged, the success after the last one is no longer
            known. Only used on deterministic defences, where a success stays a success.
        precision: what the networks compute in while they are searched: ``tf32``, ``bf16``, or
            ``float32`` for the precision of the caller. Images stay float32, and so does what
            counts: a query that looks like a success in low precision is one if float32 confirms
            it. One that only float32 would have seen is missed, so that successes before the last
            iteration can be undercounted, never overcounted.
    """

    straight_through = False
    """Whether the gradient takes the purifier for the identity."""

    draws = 1
    """Randomness configurations that a gradient is averaged over, where there are several."""

    rows_per_pass: int | None = None
    """Most images in one pass of several draws."""

    def __init__(
        self,
        *,
        eps: float | str = "8/255",
        steps: int = 40,
        rel_stepsize: float | str = 0.01 / 0.3,
        random_start: bool = True,
        early_stop: bool = False,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(eps=eps)
        if not (is_whole(steps) and steps >= 1):
            raise InputError(
                f"steps of {type(self).__name__} must be a whole number, at least 1, got {steps!r}"
            )
        self.steps = steps
        self.rel_stepsize = ratio(rel_stepsize)
        if not 0 < self.rel_stepsize < math.inf:
            raise InputError(f"rel_stepsize must be positive, got {rel_stepsize}; 1/30 is usual")
        if precision not in get_args(Precision):
            raise InputError(
                f"precision is {precision!r}; expected one of {', '.join(get_args(Precision))}"
            )
        self.random_start = random_start
        self.early_stop = early_stop
        self.precision = precision

    def num_queries(self, defence: Defence) -> int:
        return self.steps * self._num_draws(defence)

    def num_iterations(self, defence: Defence) -> int:
        return self.steps

    @property
    def stops_early(self) -> bool:
        return self.early_stop

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        if self.precision == "float32":
            return self._search(defence, images, labels, indices, seed)
        judge = Judge(defence, labels, indices)
        with arithmetic(self.precision, images.device):
            return self._search(judge.searched, images, labels, indices, seed, judge)

    def _search(
        self,
        defence: Defence,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        seed: int,
        judge: Judge | None = None,
    ) -> Tensor:
        x = images.clone()
        if self.random_start:
            start = FixedNoise(seed).uniform(indices, like=images)
            x = self.project(images + self.eps * start, images)
        active = torch.arange(len(images), device=images.device)
        for _ in range(self.steps):
            gradient, logits = self.gradient(defence, x[active], labels[active], indices[active])
            if self.early_stop and defence.deterministic:
                right = correct(logits, labels[active])
                standing = right if judge is None else ~judge.fooled[active]
                active, gradient = active[standing], gradient[standing]
                if len(active) == 0:
                    break
            # A gradient that is not a number has the sign 0: the pixel stays where it is.
            step = self.eps * self.rel_stepsize * gradient.sign()
            x[active] = self.project(x[active] + step, images[active])
        return x

    def gradient(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the attack follows: gradient of the cross-entropy (B, C, H, W), and the logits."""
        return input_gradient(
            defence,
            images,
            labels,
            indices,
            draws=self._num_draws(defence),
            rows_per_pass=self.rows_per_pass,
            straight_through=self.straight_through,
        )

    def settings(self) -> dict[str, object]:
        gradient = "purifier taken for the identity" if self.straight_through else "exact"
        said = super().settings()
        precision = said.pop("precision")  # a name that reports give to the run's own
        return {**said, "gradient": gradient, "attack_precision": precision}

    def _num_draws(self, defence: Defence) -> int:
        return 1 if defence.deterministic else self.draws
