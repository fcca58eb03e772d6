"""Networks that collapse: from some step on they answer the same whatever they are asked.

Of noise with variance 1, a constant answer leaves a squared error of at least 1. No denoiser that
learns stays there for long, and one that has collapsed does not come back.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

WINDOW = 100
"""Batches over which the loss is averaged: on a GPU, each look at it waits for the device."""

CONSTANT = 0.99
"""Averaged loss from which a network counts as constant."""


class CollapseWatch:
    """Watches the loss of a training, window by window.

    Attributes:
        learned: whether the network has been better than constant in a window.

    Example:
        >>> watch = CollapseWatch()
        >>> [watch.collapsed(loss, due=False) for loss in (1.0, 0.5, 1.0, math.nan)]
        [False, False, True, True]
    """

    def __init__(self) -> None:
        self.learned = False
        self._losses = 0
        self._sum: Tensor | float = 0.0

    def add(self, loss: Tensor) -> None:
        """Take in the loss of a batch, a scalar on any device."""
        self._sum = self._sum + loss.detach()
        self._losses += 1

    @property
    def full(self) -> bool:
        """Whether the window is."""
        return self._losses >= WINDOW

    def close(self) -> float:
        """The averaged loss of the window; the next one begins."""
        mean = float(self._sum) / self._losses
        self._losses, self._sum = 0, 0.0
        return mean

    def collapsed(self, loss: float, *, due: bool) -> bool:
        """Whether a window says that the network has collapsed.

        Args:
            loss: averaged over the window.
            due: whether the network should be better than constant by now. Before, it has
                collapsed only where it was so in an earlier window, or the loss is not finite.
        """
        if loss < CONSTANT:
            self.learned = True
            return False
        return self.learned or due or not math.isfinite(loss)

    def state_dict(self) -> dict[str, Any]:
        return {"learned": self.learned, "losses": self._losses, "sum": float(self._sum)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learned = state["learned"]
        self._losses, self._sum = state["losses"], state["sum"]
