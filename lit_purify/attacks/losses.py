r"""What an attack raises: losses of the logits z and the true class y, or a target class t.

- ``cross_entropy``: :math:`-\log p_y`; targeted :math:`\log p_t`.
- ``margin`` (Carlini & Wagner, 2017): :math:`\max_{i \ne y} z_i - z_y`; targeted
  :math:`z_t - z_y`.
- ``dlr`` (Croce & Hein, 2020, eqs. 6 and 7): the margin over :math:`z_{\pi_1} - z_{\pi_3}`;
  targeted over :math:`z_{\pi_1} - \frac12 (z_{\pi_3} + z_{\pi_4})`.

:math:`\pi` orders the logits from the largest down. The difference of logits ratio (DLR) does not
change with the scale and the offset of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_purify.functional import margin
from lit_purify.types import InputError

LossName = Literal["cross_entropy", "margin", "dlr"]

_TINY = 1e-12
"""Keeps the DLR of logits that are all the same from being a division by zero."""


@dataclass(frozen=True)
class Goal:
    """A loss, and the class that every sample is to be taken for.

    Args:
        loss: its name.
        targets: shape (B,); ``None`` for any wrong class.

    Example:
        >>> logits, labels = torch.tensor([[3.0, 1.0, -1.0]]), torch.tensor([0])
        >>> Goal("margin")(logits, labels), Goal("dlr")(logits, labels)
        (tensor([-2.]), tensor([-0.5000]))
    """

    loss: LossName
    targets: Tensor | None = None

    def of(self, rows: Tensor) -> Goal:
        """The goal for some rows of the batch."""
        return self if self.targets is None else replace(self, targets=self.targets[rows])

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Losses, shape (N,).

        Args:
            logits: shape (N, K), of the batch or of several copies of it one after the other.
            labels: true classes, shape (N,).

        Raises:
            InputError: too few classes for the DLR.
        """
        if self.targets is None:
            if self.loss == "cross_entropy":
                return F.cross_entropy(logits, labels, reduction="none")
            raised = -margin(_wide(logits), labels)
        else:
            targets = self.targets.repeat(len(labels) // max(1, len(self.targets)))
            if self.loss == "cross_entropy":
                return -F.cross_entropy(logits, targets, reduction="none")
            raised = (_of(targets, _wide(logits)) - _of(labels, _wide(logits))).squeeze(1)
        return raised if self.loss == "margin" else raised / (self._spread(_wide(logits)) + _TINY)

    def _spread(self, logits: Tensor) -> Tensor:
        """Denominator of the DLR, shape (N,)."""
        needed = 3 if self.targets is None else 4
        if logits.shape[1] < needed:
            raise InputError(
                f"the dlr loss compares {needed} logits, and the defence has {logits.shape[1]} "
                "classes; take the loss margin"
            )
        largest = logits.topk(needed, 1).values
        return largest[:, 0] - largest[:, 2:].mean(1)


def _wide(logits: Tensor) -> Tensor:
    """Differences of logits in half precision would have few digits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _of(classes: Tensor, logits: Tensor) -> Tensor:
    return logits.gather(1, classes.unsqueeze(1))
