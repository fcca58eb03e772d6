"""SPSA (Uesato et al., 2018): a gradient from differences of answers."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from lit_purify.attacks.black_box import BlackBox
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise
from lit_purify.types import InputError

Update = Literal["adam", "sign"]

BETAS, TINY = (0.9, 0.999), 1e-8
"""Of Adam (Kingma & Ba, 2015)."""


class SPSA(BlackBox):
    r"""Descends the margin m along simultaneous differences in the l_inf ball.

    .. math:: \hat g = \frac1n \sum_{j=1}^n \frac{m(x + \delta v_j) - m(x - \delta v_j)}{2 \delta}
       v_j, \qquad v_j \in \{-1, 1\}^d

    with directions of independent fair signs, keyed by sample, step and j. On a random defence
    every direction meets a randomness configuration of its own, the same at both of its ends: the
    mean over the directions is one over the draws. The ends stay in [0, 1], not in the ball.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        queries: of a sample, at most; they decide the number of steps.
        directions: n; every step asks twice as many queries. Published results have thousands.
        probe: delta, in units of the pixels; as published.
        rel_stepsize: step size in units of eps; 0.01 at 8/255 as published.
        update: ``adam``, as published, or ``sign`` for steps along the sign of the gradient.
        early_stop: on a deterministic defence a sample leaves the batch at the first iterate that
            fools it, which takes one more query a step. The success after the last step is then no
            longer known.
        rows_per_pass: as for :class:`~lit_purify.attacks.black_box.BlackBox`.

    Raises:
        InputError: fewer queries than a step takes, or another argument out of its range.
    """

    def __init__(
        self,
        *,
        eps: float | str = "8/255",
        queries: int = 10_000,
        directions: int = 64,
        probe: float = 0.01,
        rel_stepsize: float | str = 0.01 * 255 / 8,
        update: Update = "adam",
        early_stop: bool = True,
        rows_per_pass: int = 128,
    ) -> None:
        super().__init__(
            eps=eps, queries=queries, early_stop=early_stop, rows_per_pass=rows_per_pass
        )
        self.directions = self._whole("directions", directions)
        self._whole("queries", queries, least=2 * directions + early_stop)
        self.probe = self._positive("probe", probe)
        self.rel_stepsize = self._positive("rel_stepsize", rel_stepsize)
        if update not in get_args(Update):
            raise InputError(f"update is {update!r}; expected one of {', '.join(get_args(Update))}")
        self.update = update

    @property
    def stops_early(self) -> bool:
        return self.early_stop

    def num_queries(self, defence: Defence) -> int:
        return self._num_steps(defence) * (self.directions + self._stops(defence))

    def _num_steps(self, defence: Defence) -> int:
        return self.queries // (2 * self.directions + self._stops(defence))

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        x = images.clone()
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        active = torch.arange(len(images), device=images.device)
        noise = FixedNoise(seed)
        for step in range(self._num_steps(defence)):
            if self._stops(defence):
                answers = self._ask(defence, x[active][None], labels[active], indices[active])
                active = active[~answers.wrong[0]]
            if len(active) == 0:
                break
            directions = noise.derived("spsa", step)
            gradient = self._gradient(
                defence, x[active], labels[active], indices[active], directions
            )
            if self.update == "adam":
                first, second = BETAS
                mean[active] = first * mean[active] + (1 - first) * gradient
                square[active] = second * square[active] + (1 - second) * gradient**2
                root = (square[active] / (1 - second ** (step + 1))).sqrt()
                move = mean[active] / (1 - first ** (step + 1)) / (root + TINY)
            else:
                move = gradient.sign()
            moved = x[active] - self.eps * self.rel_stepsize * move
            x[active] = self.project(moved, images[active])
        return x

    def _gradient(
        self, defence: Defence, x: Tensor, labels: Tensor, indices: Tensor, noise: FixedNoise
    ) -> Tensor:
        """The estimate, shape (B, C, H, W). An answer that is not finite adds nothing to it."""
        total = torch.zeros_like(x)
        per_pass = max(1, self.rows_per_pass // (2 * len(x)))
        for start in range(0, self.directions, per_pass):
            numbers = range(start, min(start + per_pass, self.directions))
            draws = [noise.derived("direction", j).uniform(indices, like=x) for j in numbers]
            uniform = torch.stack(draws)
            directions = torch.where(uniform < 0, -1.0, 1.0)
            steps = self.probe * directions
            ends = torch.cat([x + steps, x - steps], 1).clamp(0, 1)
            margins = self._ask(defence, ends, labels.repeat(2), indices.repeat(2)).margins
            ahead, behind = margins.chunk(2, 1)
            slopes = ((ahead - behind) / (2 * self.probe)).nan_to_num(0, 0, 0).to(x)
            for slope, direction in zip(slopes, directions, strict=True):  # in a fixed order
                total += slope.view(-1, 1, 1, 1) * direction
        return total / self.directions
