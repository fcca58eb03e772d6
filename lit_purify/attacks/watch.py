"""Success at any iteration, judged from outside the attack."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_purify.attacks.base import Target
from lit_purify.diffusion.noise import rows_of
from lit_purify.functional import correct


class WatchedTarget(Target):
    """A target that remembers which samples were fooled by any image it was asked about.

    Args:
        target: the defence.
        labels: true classes of the batch under attack, shape (B,).
        indices: its dataset indices, shape (B,), each once.
        on_query: called with the number of queries answered so far, for progress.

    Attributes:
        fooled: whether a query for the sample was ever misclassified, shape (B,), bool.
    """

    def __init__(
        self,
        target: Target,
        labels: Tensor,
        indices: Tensor,
        *,
        on_query: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(target.predict, deterministic=target.deterministic)
        self.labels = labels
        self.indices = indices
        self.on_query = on_query
        self.queries = 0
        self.fooled = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        logits = super().__call__(images, indices)
        rows = rows_of(indices, self.indices)
        self.fooled[rows] |= ~correct(logits.detach(), self.labels[rows])
        self.queries += 1
        if self.on_query is not None:
            self.on_query(self.queries)
        return logits
