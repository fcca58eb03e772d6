"""Found in low precision, judged in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_purify.defence import Defence
from lit_purify.diffusion.noise import rows_of
from lit_purify.functional import correct
from lit_purify.precision import arithmetic


class Judge:
    """Observes a search in low precision, and lets float32 decide what fooled the defence.

    An image that low precision gets wrong is classified again in float32; what it gets right counts
    as right. So no success is claimed that float32 does not confirm, and one at an iteration before
    the last may be missed. Once a sample is fooled, nothing of it need be decided any more.

    On a defence that is not deterministic there is no success to confirm.

    Args:
        defence: what is under attack. Its observers are told the logits of float32 where they have
            been computed.
        labels: true classes of the batch under attack, shape (B,).
        indices: its dataset indices, shape (B,), each once.

    Attributes:
        searched: the same defence, for the search.
        fooled: whether an image of the sample was misclassified in float32, shape (B,), bool.
        confirmed: whether the last image asked about was the first of the sample to be so, (B,).
    """

    def __init__(self, defence: Defence, labels: Tensor, indices: Tensor) -> None:
        parts = (defence.classifier, defence.purifier, defence.noise, defence.indices)
        self.searched = Defence(*parts, (self,))
        self.labels = labels
        self.indices = indices
        self.fooled = torch.zeros_like(labels, dtype=torch.bool)
        self.confirmed = self.fooled.clone()
        self._plain = Defence(*parts)
        self._told = defence.observers

    def __call__(self, images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
        """An :data:`~lit_purify.defence.Observer`."""
        logits = logits.float()
        if self.searched.deterministic:
            logits = self._decided(images.detach(), logits, indices)
        for observer in self._told:
            observer(images, logits, indices, draws)

    def _decided(self, images: Tensor, logits: Tensor, indices: Tensor) -> Tensor:
        """The logits, those of float32 in the place of a success that is not confirmed yet."""
        rows = rows_of(indices, self.indices)
        self.confirmed = torch.zeros_like(self.fooled)
        doubted = ~correct(logits, self.labels[rows]) & ~self.fooled[rows]
        if not doubted.any():
            return logits
        rows = rows[doubted]
        with torch.no_grad(), arithmetic("float32", images.device):
            exact = self._plain(images[doubted], indices[doubted])
        self.confirmed[rows] = ~correct(exact, self.labels[rows])
        self.fooled |= self.confirmed
        decided = logits.detach().clone()
        decided[doubted] = exact.to(decided)
        return decided
