"""Networks that collapse: from some step on they answer the same whatever they are asked.

Of noise with variance 1, a constant answer leaves a squared error of at least 1. No denoiser that
learns stays there for long, and one that has collapsed does not come back.
"""

from __future__ import annotations

from torch import Tensor

WINDOW = 100
"""Batches over which the loss is averaged: on a GPU, each look at it waits for the device."""

CONSTANT = 0.98
"""Averaged loss from which a network counts as collapsed."""


class CollapseWatch:
    """Watches the loss of a training, window by window.

    Attributes:
        losses: how many batches of the present window have been seen.
    """

    def __init__(self) -> None:
        self.losses = 0
        self._sum: Tensor | float = 0.0

    def add(self, loss: Tensor) -> None:
        """Take in the loss of a batch, a scalar on any device."""
        self._sum = self._sum + loss.detach()
        self.losses += 1

    def loss(self) -> float | None:
        """The averaged loss where a window is full, which begins the next one; else ``None``."""
        if self.losses < WINDOW:
            return None
        mean = float(self._sum) / self.losses
        self.losses, self._sum = 0, 0.0
        return mean

    def state_dict(self) -> dict[str, float]:
        return {"losses": self.losses, "sum": float(self._sum)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.losses, self._sum = int(state["losses"]), state["sum"]


def collapsed(loss: float) -> bool:
    """Whether an averaged loss is that of a constant answer, or not a number.

    Example:
        >>> [collapsed(loss) for loss in (0.3, 0.95, 1.0, float("nan"))]
        [False, False, True, True]
    """
    return not loss < CONSTANT
