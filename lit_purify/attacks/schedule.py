"""How large the steps of an attack are, iteration by iteration and sample by sample."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["constant", "cosine", "apgd"]


class Schedule:
    """Steps of one size.

    Args:
        steps: iterations of the attack.
        images: the batch, shape (B, C, H, W).
    """

    def __init__(self, steps: int, images: Tensor) -> None:
        self.steps = steps

    def sizes(
        self, k: int, rows: Tensor, losses: Tensor, images: Tensor, gradient: Tensor
    ) -> Tensor | float:
        """Sizes of step k, in units of the first.

        Args:
            k: iteration, from 0.
            rows: of the batch, those that are still attacked, shape (A,).
            losses: of their images, which the attack raises, shape (A,).
            images: where the step starts, shape (A, C, H, W); what a schedule goes back to is
                written into it.
            gradient: same shape; likewise.

        Returns:
            A number, or a size for every sample, shape (A, 1, 1, 1).
        """
        return 1.0


class Cosine(Schedule):
    """Steps that shrink to 0 along half a cosine."""

    def sizes(
        self, k: int, rows: Tensor, losses: Tensor, images: Tensor, gradient: Tensor
    ) -> Tensor | float:
        return (1 + math.cos(math.pi * k / self.steps)) / 2


class Halving(Schedule):
    r"""Steps that are halved where they lead nowhere (APGD: Croce & Hein, 2020, Section 3.1).

    At the checkpoints :math:`w_j = \lceil p_j N \rceil` with :math:`p_0 = 0, p_1 = 0.22` and
    :math:`p_{j+1} = p_j + \max(p_j - p_{j-1} - 0.03, 0.06)` a sample goes back to its best image
    and halves its steps if, since the last checkpoint, its loss rose in fewer than 75 % of the
    steps, or if neither its best loss nor its step size have changed.
    """

    def __init__(self, steps: int, images: Tensor) -> None:
        super().__init__(steps, images)
        self.checkpoints = checkpoints(steps)
        self._since = 0
        self._size = images.new_ones(len(images), 1, 1, 1)
        self._images, self._gradients = images.clone(), torch.zeros_like(images)
        worst = images.new_full((len(images),), -math.inf, dtype=torch.float64)
        self._last, self._best, self._best_before = worst, worst.clone(), worst.clone()
        self._rises = torch.zeros_like(worst)
        self._halved = torch.zeros_like(worst, dtype=torch.bool)

    def sizes(
        self, k: int, rows: Tensor, losses: Tensor, images: Tensor, gradient: Tensor
    ) -> Tensor | float:
        losses = losses.double()
        better = losses > self._best[rows]
        best = rows[better]
        self._best[best] = losses[better]
        self._images[best], self._gradients[best] = images[better], gradient[better]
        if k > 0:
            self._rises[rows] += (losses > self._last[rows]).double()
        self._last[rows] = losses
        if k in self.checkpoints:
            halve = self._rises[rows] < 0.75 * (k - self._since)
            halve |= ~self._halved[rows] & (self._best[rows] == self._best_before[rows])
            self._size[rows[halve]] /= 2
            images[halve], gradient[halve] = self._images[rows[halve]], self._gradients[rows[halve]]
            self._last[rows[halve]] = self._best[rows[halve]]
            self._halved[rows] = halve
            self._best_before[rows], self._rises[rows] = self._best[rows], 0.0
            self._since = k
        return self._size[rows]


def checkpoints(steps: int) -> list[int]:
    """Iterations after which APGD may halve its steps.

    Example:
        >>> checkpoints(100)
        [22, 41, 57, 70, 80, 87, 93, 99]
    """
    before, place, found = 0.0, 0.22, []
    while place < 1:
        found.append(math.ceil(round(place * steps, 9)))
        before, place = place, place + max(place - before - 0.03, 0.06)
    return sorted(set(found) - {steps})


SCHEDULES: dict[ScheduleName, type[Schedule]] = {
    "constant": Schedule,
    "cosine": Cosine,
    "apgd": Halving,
}
