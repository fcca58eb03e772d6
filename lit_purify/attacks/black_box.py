"""What attacks have in common that ask for answers and follow no gradient."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_purify.attacks.base import Attack
from lit_purify.defence import Defence
from lit_purify.functional import correct, margin


class Answers(NamedTuple):
    """What a defence says of images, under each of N randomness configurations.

    Attributes:
        margins: logit of the true class less the largest other, shape (N, M), float64; -inf where a
            logit is not finite, which counts as wrong.
        wrong: whether the image is misclassified, shape (N, M), bool.
    """

    margins: Tensor
    wrong: Tensor


class BlackBox(Attack):
    """Base of the attacks that see answers only: what masks a gradient does not stop them.

    A query is one image under one randomness configuration. What the attack asks comes from the
    stream of its own, never from the one that judges what it finds.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        queries: of a sample, at most.
        early_stop: on a deterministic defence a sample that is fooled is asked about no longer.
        rows_per_pass: most images in one pass, draws counted; at least one draw of the whole batch
            is taken. It changes time and memory, not the result.
    """

    def __init__(
        self, *, eps: float | str, queries: int, early_stop: bool, rows_per_pass: int
    ) -> None:
        super().__init__(eps=eps)
        self.queries = self._whole("queries", queries)
        self.early_stop = early_stop
        self.rows_per_pass = self._whole("rows_per_pass", rows_per_pass)

    def num_iterations(self, defence: Defence) -> None:
        """None: they are thousands, and differ in what they ask."""

    def _stops(self, defence: Defence) -> bool:
        return self.early_stop and defence.deterministic

    def _ask(self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor) -> Answers:
        """One query for every image and draw.

        Args:
            defence: bound to these samples, or to more.
            images: shape (N, M, C, H, W), the first M for the first of N randomness configurations.
            labels: true classes, shape (M,).
            indices: dataset indices, shape (M,); images of one sample share its draw.
        """
        per_pass = max(1, self.rows_per_pass // max(1, len(labels)))
        found = [
            defence(part.flatten(0, 1), indices, draws=len(part)).detach().double()
            for part in torch.split(images, per_pass)
        ]
        logits, labels = torch.cat(found), labels.repeat(len(images))
        finite = logits.isfinite().all(1)
        margins = margin(logits, labels).where(finite, -torch.inf)
        wrong = ~correct(logits, labels)
        return Answers(margins.view(images.shape[:2]), wrong.view(images.shape[:2]))
