"""Success at any iteration, judged from outside the attack."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_purify.diffusion.noise import rows_of
from lit_purify.functional import correct


class Watch:
    """Observes a defence under attack and remembers what it was asked.

    Args:
        labels: true classes of the batch under attack, shape (B,).
        indices: its dataset indices, shape (B,), each once.
        admits: (images, their rows in the batch) -> whether they count, shape (B,), bool: an image
            outside the ball of the attack fools nobody. ``None`` counts all.
        progress: called with the number of queries answered so far.
        keep_losses: keep the losses, which attacks of many thousand calls have no use for.

    Attributes:
        fooled: whether a query for the sample was ever misclassified, shape (B,), bool.
        queries: randomness configurations that were asked for so far.
        nonfinite_gradient: whether a gradient of the sample was infinite or not a number in some
            pixel, shape (B,), bool.
        losses: with ``keep_losses`` the cross-entropy of every call, each of shape (B,): the mean
            over the images of a sample, nan where the call was not about it.
    """

    def __init__(
        self,
        labels: Tensor,
        indices: Tensor,
        *,
        admits: Callable[[Tensor, Tensor], Tensor] | None = None,
        progress: Callable[[int], None] | None = None,
        keep_losses: bool = False,
    ) -> None:
        self.labels = labels
        self.indices = indices
        self.admits = admits
        self.progress = progress
        self.keep_losses = keep_losses
        self.queries = 0
        self.losses: list[Tensor] = []
        self.fooled = torch.zeros_like(labels, dtype=torch.bool)
        self.nonfinite_gradient = torch.zeros_like(self.fooled)
        self._zeros = torch.zeros_like(labels)
        self._pixels = torch.zeros_like(labels)

    def __call__(self, images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
        """An :data:`~lit_purify.defence.Observer`."""
        logits = logits.detach()
        rows = rows_of(indices, self.indices)
        wrong = ~correct(logits, self.labels[rows])
        if self.admits is not None:
            wrong &= self.admits(images.detach(), rows)
        self.fooled |= self._counted(rows, wrong)
        if self.keep_losses:
            losses = F.cross_entropy(logits.float(), self.labels[rows], reduction="none")
            times = self._summed(rows, torch.ones_like(rows))
            self.losses.append(self._summed(rows, losses) / times)
        if images.requires_grad:
            images.register_hook(partial(self._see_gradient, rows))  # type: ignore[no-untyped-call]
        self.queries += draws
        if self.progress is not None:
            self.progress(self.queries)

    @property
    def zero_gradient(self) -> Tensor:
        """Share of the pixels of a sample in which its gradients were exactly zero.

        Shape (B,), float64, in [0, 1]; nan where the attack asked for no gradient.
        """
        return self._zeros.double() / self._pixels

    def _see_gradient(self, rows: Tensor, gradient: Tensor) -> None:
        """Count in a gradient with respect to the images, those of ``rows`` in the batch."""
        flat = gradient.flatten(1)
        # Whole numbers: their sum is the same in any order.
        self._zeros += self._summed(rows, (flat == 0).sum(1))
        self._pixels += self._summed(rows, torch.full_like(rows, flat.shape[1]))
        self.nonfinite_gradient |= self._counted(rows, ~flat.isfinite().all(1))

    def _summed(self, rows: Tensor, values: Tensor) -> Tensor:
        """Sum over the images of each sample, shape (B,), of values of theirs."""
        # Added up, not picked by a mask, whose count a GPU would have to be waited for.
        return values.new_zeros(len(self.labels)).index_add(0, rows, values)

    def _counted(self, rows: Tensor, found: Tensor) -> Tensor:
        """Whether something was found in an image of a sample, shape (B,), bool."""
        return self._summed(rows, found.int()) > 0

    def loss_by_query(self, num_queries: int) -> Tensor:
        """:attr:`losses` as (B, num_queries), nan behind the last call."""
        table = torch.full((len(self.labels), num_queries), torch.nan, device=self.fooled.device)
        for position, losses in enumerate(self.losses[:num_queries]):
            table[:, position] = losses
        return table
