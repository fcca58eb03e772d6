"""Image classifiers behind one contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor, nn

from lit_purify.arguments import NamesItself
from lit_purify.types import InputError


class Classifier(NamesItself, nn.Module, ABC):
    """Names the class of an image: g in the paper.

    ``classifier(images)`` takes images in [0, 1] of shape (B, 3, H, W) and returns logits of shape
    (B, K). Any normalisation happens inside.

    Attributes:
        num_classes: K.
        image_shape: (C, H, W) that the network is made for; ``None`` where any size goes.
        source: where the weights come from, in words, for the settings of a run; by default the
            class and the arguments it was made with.
        file: the weights file, whose hash a run reports; ``None`` where there is none.
        class_names: names of the classes, for figures; may be empty.
        preprocessing: how photographs are to be made its size, by RobustBench's names such as
            ``Res256Crop224``; ``None`` where that is not said.
    """

    num_classes: int
    image_shape: tuple[int, int, int] | None = None
    file: Path | None = None
    class_names: tuple[str, ...] = ()
    preprocessing: str | None = None

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where names are unknown."""
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def check_data(
        self, *, num_classes: int | None, image_shape: tuple[int, int, int] | None
    ) -> None:
        """Raise :class:`InputError` if the network was made for other images or labels.

        Args:
            num_classes: how many classes the data have; ``None`` is taken to fit.
            image_shape: (C, H, W) of the images, likewise.
        """
        made_for = f"the classifier ({self.source})"
        if num_classes not in (None, self.num_classes):
            raise InputError(
                f"the data have {num_classes} classes, and {made_for} knows {self.num_classes}; "
                "choose a classifier of that data set"
            )
        if None not in (image_shape, self.image_shape) and image_shape != self.image_shape:
            raise InputError(
                f"the images have shape {image_shape}, and {made_for} expects {self.image_shape}; "
                "choose a classifier or a preprocessing of that size"
            )

    def __call__(self, images: Tensor) -> Tensor:
        logits = super().__call__(images)
        expected = (len(images), self.num_classes)
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if found != expected:
            raise InputError(
                f"the classifier {self.source!r} returned {found}; expected a tensor of logits of "
                f"shape (B, num_classes) = {expected}: correct num_classes, or return that tensor "
                "alone"
            )
        return logits

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...
