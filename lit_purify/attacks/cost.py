"""What an attack costs, in a unit that neither batches nor machines change."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_purify.defence import Defence
from lit_purify.diffusion.noise import rows_of


class Cost:
    r"""Observes a defence and counts, sample by sample, in image-steps.

    An image-step is one step of the purification of one image, with its gradient. A backward pass
    takes about as long as two forward passes, so that a pass without a gradient is a third of it:

    .. math:: \text{image-steps} = S \, \frac{\text{passes} + 2 \, \text{gradients}}{3}

    with S steps of a purification (1 where there is no chain, as of the classifier alone). Nothing
    is counted that depends on how the chain is computed, such as steps that the backward pass
    computes again; a gradient that takes the purifier for the identity is counted as an exact one.

    Args:
        defence: what is asked.
        indices: dataset indices of the samples, shape (B,), each once.

    Attributes:
        passes: images that were asked about, shape (B,), int64.
        gradients: those whose gradient was taken, likewise.
    """

    def __init__(self, defence: Defence, indices: Tensor) -> None:
        self.indices = indices
        self.steps = 1 if defence.purifier is None else defence.purifier.total_steps
        self.passes = torch.zeros_like(indices)
        self.gradients = torch.zeros_like(indices)

    def __call__(self, images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
        """An :data:`~lit_purify.defence.Observer`."""
        asked = rows_of(indices, self.indices)
        ones = torch.ones_like(asked)

        def followed(gradient: Tensor) -> None:
            self.gradients.index_add_(0, asked, ones)

        self.passes.index_add_(0, asked, ones)
        if images.requires_grad and torch.is_grad_enabled():
            images.register_hook(followed)  # type: ignore[no-untyped-call]

    @property
    def image_steps(self) -> Tensor:
        """What was spent on each sample so far, shape (B,), float64."""
        return self.steps * (self.passes + 2 * self.gradients).double() / 3
