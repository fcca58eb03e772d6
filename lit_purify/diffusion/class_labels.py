"""What a class-conditional denoiser is told of the class of an image whose label nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.types import InputError

Label = Literal["none", "predicted"]


class ClassLabels:
    """The class that a chain tells its denoiser, one for each image.

    ``none`` tells it none. ``predicted`` is what the classifier of the defence sees in the image
    that comes in, held fixed through the chain. A prediction is piecewise constant in the image,
    so that the gradient, in which it counts as a constant, is exact wherever there is one; where
    the prediction changes, the purified image jumps.

    Args:
        label: ``none`` or ``predicted``.
        denoiser: of the chain.

    Attributes:
        classifier: what predicts, images to logits (B, K); ``None`` until a defence has it.

    Raises:
        InputError: another choice, or one to be told to a denoiser that takes no label.
    """

    def __init__(self, label: Label, denoiser: Denoiser) -> None:
        if label not in ("none", "predicted"):
            raise InputError(f"label must be none or predicted, got {label!r}")
        if label == "predicted" and not denoiser.num_classes:
            raise InputError(
                f"label is predicted, and the denoiser ({denoiser.source}) takes no class; "
                "expected a class-conditional one such as edm_cifar10_cond_vp: drop label"
            )
        self.label = label
        self.num_classes = denoiser.num_classes
        self.classifier: Callable[[Tensor], Tensor] | None = None

    def use(self, classifier: Callable[[Tensor], Tensor]) -> None:
        """Predict by this classifier.

        Raises:
            InputError: it predicts by another one already.
        """
        if self.label == "none":
            return
        if self.classifier not in (None, classifier):
            raise InputError(
                "the purifier predicts labels by the classifier of another defence; make a "
                "purifier for each defence"
            )
        self.classifier = classifier

    def of(self, images: Tensor) -> Tensor | None:
        """Classes of images (B, C, H, W), in [0, 1]: shape (B,), int64, or ``None`` for none.

        Raises:
            InputError: there is no classifier, or it knows other classes than the denoiser.
        """
        if self.label == "none":
            return None
        if self.classifier is None:
            raise InputError(
                "label is predicted, and the purifier has no classifier to predict it; make "
                "lit_purify.Defence(classifier, purifier)"
            )
        logits = self.classifier(images.detach())
        if logits.shape[1] != self.num_classes:
            raise InputError(
                f"label is predicted, and the classifier knows {logits.shape[1]} classes; expected "
                f"the {self.num_classes} of the denoiser: choose a classifier of its data set"
            )
        return logits.argmax(1)

    def settings(self) -> dict[str, object]:
        """What a report must say; nothing of a denoiser that takes no label."""
        if not self.num_classes:
            return {}
        words = {
            "none": "none given",
            "predicted": "predicted by the classifier from the image that comes in, held fixed",
        }
        return {"denoiser_label": words[self.label]}
