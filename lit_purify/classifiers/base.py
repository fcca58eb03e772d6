"""Image classifiers behind one contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from lit_purify.arguments import NamesItself
from lit_purify.types import InputError


class Classifier(NamesItself, nn.Module, ABC):
    """Names the class of an image: g in the paper.

    ``classifier(images)`` takes images in [0, 1] of shape (B, C, H, W) and returns logits of shape
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

    def check_data(
        self,
        *,
        num_classes: int | None,
        image_shape: tuple[int, int, int] | None,
        class_names: Sequence[str] = (),
        labels: Tensor | None = None,
    ) -> None:
        """Raise :class:`InputError` if the network was made for other images or labels.

        Args:
            num_classes: how many classes the data have; ``None`` is taken to fit.
            image_shape: (C, H, W) of the images, likewise.
            class_names: names of the classes; empty is taken to fit. A name that the network knows
                too must be at the same place, and one at least must be.
            labels: class indices, shape (N,), which the network must know; ``None`` likewise.
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
        self._check_names(class_names, made_for)
        if labels is not None:
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise InputError(
                    f"the labels of the data range over {low} .. {high}, and {made_for} knows "
                    f"0 .. {self.num_classes - 1}; choose a classifier of that data set"
                )

    def _check_names(self, class_names: Sequence[str], made_for: str) -> None:
        """Names that both know stand at the same places; two data sets share none."""
        places: dict[str, list[int]] = {}
        for k, name in enumerate(self.class_names):
            places.setdefault(name.casefold(), []).append(k)
        names = [name.casefold() for name in class_names]
        wrong = [k for k, name in enumerate(names) if k not in places.get(name, [k])]
        if names and places and not places.keys() & set(names):
            wrong = [0]
        if wrong:
            k = wrong[0]
            place = places.get(names[k])
            raise InputError(
                f"class {k} of the data is {class_names[k]!r}, which {made_for} "
                f"{f'has as class {place[0]}' if place else 'does not know'}; expected the same "
                "classes in the same order; choose a classifier of that data set"
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
