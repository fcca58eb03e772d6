"""What becomes of images in a test: what its step hands to the measurements."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lit_purify.functional import correct


class Outcome(NamedTuple):
    """What became of one version of the images.

    Attributes:
        image: what the classifier saw, (B, C, H, W); purified unless the protocol is ``base``. Of
            a purifier that averages logits it is the mean of what the classifier saw.
        logits: shape (B, K).
        correct: whether the true class won, shape (B,), bool.
        nonfinite: whether a pixel or a logit is infinite or not a number, shape (B,), bool.
    """

    image: Tensor
    logits: Tensor
    correct: Tensor
    nonfinite: Tensor


Outcomes = dict[str, Outcome]
"""Keyed ``base/clean``, ``fixed/clean`` where the test purifies, ``<protocol>/adversarial``."""


def judged(image: Tensor, logits: Tensor, label: Tensor) -> Outcome:
    """The outcome of images of classes ``label``, shape (B,), for which the logits were given."""
    finite = image.isfinite().flatten(1).all(1) & logits.isfinite().all(1)
    return Outcome(image, logits, correct(logits, label), ~finite)
