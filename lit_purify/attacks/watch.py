"""What an attack meets, iteration by iteration, seen from outside of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_purify.diffusion.noise import rows_of
from lit_purify.functional import correct, l2_norm
from lit_purify.types import AttackTrace


class Watch:
    """Observes a defence under attack and remembers what it was asked.

    Args:
        labels: true classes of the batch under attack, shape (B,).
        indices: its dataset indices, shape (B,), each once.
        admits: (images, their rows in the batch) -> whether they count, shape (B,), bool: an image
            outside the ball of the attack fools nobody. ``None`` counts all.
        progress: called with the number of queries answered so far.
        iterations: of the attack, to keep a trace of: the randomness configurations that each asks
            for in turn; none keeps no trace.

    Attributes:
        fooled: whether a query for the sample was ever misclassified, shape (B,), bool.
        queries: randomness configurations that were asked for so far.
        nonfinite_gradient: whether a gradient of the sample was infinite or not a number in some
            pixel, shape (B,), bool.
    """

    def __init__(
        self,
        labels: Tensor,
        indices: Tensor,
        *,
        admits: Callable[[Tensor, Tensor], Tensor] | None = None,
        progress: Callable[[int], None] | None = None,
        iterations: Sequence[int] = (),
    ) -> None:
        self.labels = labels
        self.indices = indices
        self.admits = admits
        self.progress = progress
        self.iterations = len(iterations)
        self._ends = list(accumulate(iterations))
        self.queries = 0
        self.fooled = torch.zeros_like(labels, dtype=torch.bool)
        self.nonfinite_gradient = torch.zeros_like(self.fooled)
        self._zeros = torch.zeros_like(labels)
        self._pixels = torch.zeros_like(labels)
        shape = (len(iterations), len(labels))
        # Sums over the images of a sample: how many, how many wrong, losses; gradients, norms.
        self._asked = labels.new_zeros(*shape, 3, dtype=torch.float64)
        self._followed = labels.new_zeros(*shape, 2, dtype=torch.float64)

    def __call__(self, images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
        """An :data:`~lit_purify.defence.Observer`."""
        logits = logits.detach()
        rows = rows_of(indices, self.indices)
        wrong = ~correct(logits, self.labels[rows])
        if self.admits is not None:
            wrong &= self.admits(images.detach(), rows)
        self.fooled |= self._counted(rows, wrong)
        iteration = bisect_right(self._ends, self.queries)
        if iteration < self.iterations:
            losses = F.cross_entropy(logits.float(), self.labels[rows], reduction="none")
            found = torch.stack([torch.ones_like(losses), wrong, losses], 1).double()
            self._asked[iteration] += self._summed(rows, found)
        if images.requires_grad:
            see = partial(self._see_gradient, rows, iteration)
            images.register_hook(see)  # type: ignore[no-untyped-call]
        self.queries += draws
        if self.progress is not None:
            self.progress(self.queries)

    @property
    def zero_gradient(self) -> Tensor:
        """Share of the pixels of a sample in which its gradients were exactly zero.

        Shape (B,), float64, in [0, 1]; nan where the attack asked for no gradient.
        """
        return self._zeros.double() / self._pixels

    def trace(self) -> AttackTrace:
        """What was kept of every iteration.

        A sample that an iteration did not ask about stands there if nothing before had fooled it.
        """
        asked, wrong, loss = self._asked.permute(2, 1, 0)
        gradients, norm = self._followed.permute(2, 1, 0)
        standing = (wrong > 0).cumsum(1) == 0
        correct = torch.where(asked > 0, 1 - wrong / asked, standing)
        return AttackTrace(correct, (loss / asked).float(), (norm / gradients).float())

    def _see_gradient(self, rows: Tensor, iteration: int, gradient: Tensor) -> None:
        """Count in a gradient with respect to the images, those of ``rows`` in the batch."""
        flat = gradient.flatten(1)
        # Whole numbers: their sum is the same in any order.
        self._zeros += self._summed(rows, (flat == 0).sum(1))
        self._pixels += self._summed(rows, torch.full_like(rows, flat.shape[1]))
        self.nonfinite_gradient |= self._counted(rows, ~flat.isfinite().all(1))
        if iteration < self.iterations:
            norms = l2_norm(gradient)
            found = torch.stack([torch.ones_like(norms), norms], 1)
            self._followed[iteration] += self._summed(rows, found)

    def _summed(self, rows: Tensor, values: Tensor) -> Tensor:
        """Sum over the images of each sample, shape (B, ...), of values of theirs."""
        # Added up, not picked by a mask, whose count a GPU would have to be waited for.
        zeros = values.new_zeros(len(self.labels), *values.shape[1:])
        return zeros.index_add(0, rows, values)

    def _counted(self, rows: Tensor, found: Tensor) -> Tensor:
        """Whether something was found in an image of a sample, shape (B,), bool."""
        return self._summed(rows, found.int()) > 0
