"""Small types shared by every room of the package."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from torch import Tensor

Process = Literal["forward", "reverse"]
"""Which of the two halves of a purification a Gaussian draw belongs to (eq. 12)."""


class Batch(TypedDict):
    """What travels from the data module through the attack to the measurements.

    Attributes:
        image: clean images in [0, 1], shape (B, C, H, W).
        label: class indices, shape (B,), int64.
        index: dataset indices, shape (B,), int64. They key all noise, so they must name the
            sample and not its position in the batch.
        adversarial: attacked images in [0, 1], shape (B, C, H, W); added by an attack callback.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    adversarial: NotRequired[Tensor]


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, what was expected, what to do.

    The command line prints it as one line; anything else that is raised is a defect and keeps its
    traceback.
    """
