"""Any PyTorch module as a :class:`~lit_purify.classifiers.base.Classifier`."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from lit_purify.arguments import plain_attributes
from lit_purify.classifiers.base import Classifier
from lit_purify.types import InputError, described, is_whole


class WrappedClassifier(Classifier):
    """A module with the attributes of the contract; made by :func:`from_module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        if self.image_shape is not None and tuple(images.shape[1:]) != self.image_shape:
            raise InputError(
                f"the classifier {self.source!r} got images of shape {tuple(images.shape)}; "
                f"expected (B, {', '.join(map(str, self.image_shape))}): use data of that size, or "
                "another classifier"
            )
        logits: Tensor = self.module(images)
        return logits


def from_module(
    module: nn.Module,
    num_classes: int,
    image_shape: tuple[int, int, int] | None = None,
    *,
    source: str | None = None,
    file: Path | None = None,
) -> Classifier:
    """Use a module that takes images in [0, 1] as a classifier.

    The module is used as it is, not copied: it is put into evaluation mode and its weights are
    frozen. Put a normalisation, if it needs one, into the module.

    Args:
        module: images (B, C, H, W) in [0, 1] -> logits (B, ``num_classes``).
        num_classes: number of classes K.
        image_shape: (C, H, W) that the module expects; ``None`` takes any.
        source: name in the settings of a run; ``None`` takes the module's class and its public
            attributes that are plain values, such as ``Scaled(temperature=2)``.
        file: weights file whose hash a run reports.

    Raises:
        InputError: no module, or fewer than 2 classes; when called, images or logits of another
            shape.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
        >>> from_module(net, 5, (3, 8, 8))(torch.full((2, 3, 8, 8), 0.5)).shape
        torch.Size([2, 5])
    """
    if not isinstance(module, nn.Module):
        found = module.__name__ if isinstance(module, type) else type(module).__name__
        raise InputError(
            f"the network is the {'class' if isinstance(module, type) else 'object'} {found}; "
            "expected a torch.nn.Module that is made, whose mode and weights can be seen"
        )
    if not (is_whole(num_classes) and num_classes >= 2):
        raise InputError(f"num_classes is {num_classes!r}; expected a whole number, 2 or more")
    wrapped = WrappedClassifier(module)
    wrapped.num_classes = num_classes
    if image_shape is not None:
        channels, height, width = image_shape  # a list as well
        wrapped.image_shape = (channels, height, width)
    wrapped.source = source or described(type(module).__name__, plain_attributes(module))
    wrapped.file = file
    return wrapped.requires_grad_(False).eval()
