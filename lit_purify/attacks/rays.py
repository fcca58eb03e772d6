"""RayS (Chen & Gu, 2020): the nearest corner of an l_inf ball that decisions alone can find."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_purify.attacks.black_box import BlackBox
from lit_purify.defence import Defence
from lit_purify.types import InputError


class RayS(BlackBox):
    r"""Searches for the direction of signs along which the class changes the soonest.

    .. math:: \min_{d \in \{-1, 1\}^n} r(d), \qquad
       r(d) = \min \{ r : x + r d \text{, kept in } [0, 1], \text{ is misclassified} \}

    Blocks of d are flipped, first the whole, then halves, quarters, and so on to single pixels,
    which are gone through again and again. A flip is kept if it misleads the defence at the best
    radius so far (one query); its own radius is then found by bisection. Nothing is drawn.

    Its answer to a sample is the image at the best radius inside the ball, and where there is none
    the one at eps along the best direction.

    On a random defence a decision is that of the majority of ``draws`` randomness configurations,
    the first of its noise, the same for every decision: under new ones the radius would sink as
    often as a decision is lucky. An image at the very radius fools half of the configurations, so
    the answer is the one at eps.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        queries: of a sample, at most.
        draws: randomness configurations of a decision, on a random defence; each is a query.
        tolerance: of a radius, in units of eps.
        early_stop: on a deterministic defence a sample is done with as soon as an image inside the
            ball fools it. Without it the smallest perturbation is searched for.
        rows_per_pass: as for :class:`~lit_purify.attacks.black_box.BlackBox`.

    Raises:
        InputError: fewer queries than one decision takes, or another argument out of its range.
    """

    def __init__(
        self,
        *,
        eps: float | str = "8/255",
        queries: int = 10_000,
        draws: int = 10,
        tolerance: float = 1e-3,
        early_stop: bool = True,
        rows_per_pass: int = 128,
    ) -> None:
        super().__init__(
            eps=eps, queries=queries, early_stop=early_stop, rows_per_pass=rows_per_pass
        )
        self.draws = self._whole("draws", draws)
        self._whole("queries", queries, least=draws)
        if not 0 < tolerance < 1:
            raise InputError(f"tolerance of RayS must lie between 0 and 1, got {tolerance}")
        self.tolerance = tolerance

    def num_queries(self, defence: Defence) -> int:
        draws = self._num_draws(defence)
        return self.queries // draws * draws

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        rays = _Rays(images, self.tolerance * self.eps, self.eps if self._stops(defence) else 0.0)
        for _ in range(self.num_queries(defence) // self._num_draws(defence)):
            rows = rays.unfinished.nonzero().squeeze(1)
            if len(rows) == 0:
                break
            asked = rays.images()[rows].expand(self._num_draws(defence), *rows.shape, -1, -1, -1)
            first = defence if defence.deterministic else defence.rewound(indices)
            wrong = self._ask(first, asked, labels[rows], indices[rows]).wrong
            fooled = torch.zeros_like(rays.unfinished)
            fooled[rows] = wrong.double().mean(0) > 0.5
            rays.decide(fooled)
        radius = rays.best.clamp(max=self.eps)
        if not defence.deterministic:
            radius = radius.where(rays.best == 0, self.eps)
        return rays.at(radius, rays.direction)


class _Rays:
    """The search of every sample, each at a place of its own: a query of all is one step of all.

    Args:
        images: clean images, shape (B, C, H, W); the first query is about them.
        tolerance: of a radius.
        enough: a radius that is not improved on.

    Attributes:
        best: smallest radius known to fool, shape (B,), float64; 1, which is a corner of [0, 1],
            where none is known.
        direction: along which it does, shape (B, C, H, W), of 1 and -1.
    """

    def __init__(self, images: Tensor, tolerance: float, enough: float) -> None:
        count, device = len(images), images.device
        self.clean, self.tolerance, self.enough = images, tolerance, enough
        self.direction = -torch.ones_like(images)
        self.best = torch.ones(count, dtype=torch.float64, device=device)
        self._started = False
        self._level, self._block = torch.zeros(2, count, dtype=torch.int64, device=device)
        # A flip that was accepted has its radius between this one and the best.
        self._low = torch.zeros_like(self.best)
        self._bisecting = torch.zeros(count, dtype=torch.bool, device=device)

    @property
    def unfinished(self) -> Tensor:
        """Samples with something left to ask, shape (B,), bool."""
        return self.best > self.enough

    def images(self) -> Tensor:
        """What is asked about now."""
        return self.at(self._radius(), self._trial())

    def at(self, radius: Tensor, direction: Tensor) -> Tensor:
        """Images at a radius (B,) along a direction, kept in [0, 1]."""
        steps = radius.to(direction).view(-1, 1, 1, 1) * direction
        return (self.clean + steps).clamp(0, 1)

    def decide(self, fooled: Tensor) -> None:
        """Take the answer to :meth:`images`; of samples that were not asked about it is no."""
        radius, trial = self._radius(), self._trial()
        self.best = radius.where(fooled, self.best)
        if not self._started:
            self._started = True
            return
        self.direction = torch.where(fooled.view(-1, 1, 1, 1), trial, self.direction)
        self._low = radius.where(self._bisecting & ~fooled, self._low)
        refused = ~self._bisecting & ~fooled
        self._bisecting |= fooled
        exact = (self.best - self._low <= self.tolerance) | (self.best <= self.enough)
        self._next(refused | (self._bisecting & exact))

    def _next(self, done: Tensor) -> None:
        """Go on to the next block, and after the last one of a size to the next size."""
        self._bisecting &= ~done
        self._low[done] = 0.0
        self._block += done
        over = self._block * self._size() >= self._pixels
        self._block[over] = 0
        deepest = math.ceil(math.log2(max(2, self._pixels)))
        self._level = (self._level + over).clamp(max=deepest)

    def _radius(self) -> Tensor:
        if not self._started:
            return torch.zeros_like(self.best)
        return ((self._low + self.best) / 2).where(self._bisecting, self.best)

    def _trial(self) -> Tensor:
        """The direction, with the block flipped that is on trial."""
        places = torch.arange(self._pixels, device=self.clean.device)
        flipped = places // self._size()[:, None] == self._block[:, None]
        flipped &= ~self._bisecting[:, None]
        return torch.where(flipped.view_as(self.clean), -self.direction, self.direction)

    def _size(self) -> Tensor:
        """Pixels of a block, shape (B,)."""
        return (self._pixels / 2.0**self._level).ceil().long()

    @property
    def _pixels(self) -> int:
        return self.clean[0].numel()
