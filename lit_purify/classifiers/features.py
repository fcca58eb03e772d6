"""What a network knows of an image before it decides: the features of a Fréchet distance."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from lit_purify.classifiers.base import Classifier
from lit_purify.types import InputError


class FeatureExtractor(Protocol):
    """Maps images to vectors.

    Attributes:
        dimension: number of features D.
        source: what the features are, in words, for the settings of a run.
    """

    dimension: int
    source: str

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, D) of images (B, C, H, W) in the [0, 1] scale."""


class ClassifierFeatures:
    """The input of a classifier's last layer, or its logits where that cannot be told.

    The last layer is the one linear layer with as many outputs as there are classes. A classifier
    that has none or several is asked for its logits; ``source`` says which it is.

    Args:
        classifier: the network; it is called as it is, uncompiled.

    Example:
        >>> from lit_purify.classifiers import from_module
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> features = ClassifierFeatures(from_module(net, 2))
        >>> features(torch.zeros(5, 3, 2, 2)).shape
        torch.Size([5, 4])
        >>> features.source
        'input of module.3 of the classifier'
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        heads = [
            (name, layer)
            for name, layer in classifier.named_modules()
            if isinstance(layer, nn.Linear) and layer.out_features == classifier.num_classes
        ]
        self._head: nn.Linear | None = None
        if len(heads) == 1:
            ((name, self._head),) = heads
            self.dimension = self._head.in_features
            self.source = f"input of {name} of the classifier"
        else:
            self.dimension = classifier.num_classes
            self.source = "logits of the classifier"

    def __call__(self, images: Tensor) -> Tensor:
        """Features of the images, differentiable.

        Args:
            images: shape (B, C, H, W), in the [0, 1] scale.

        Returns:
            Shape (B, D).

        Raises:
            InputError: the last layer was called more than once, or never, or not with one vector
                per image.
        """
        seen: list[Tensor] = []
        if self._head is None:
            return self._classifier(images)
        handle = self._head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            # Compiled code may have been made without the hook.
            with torch.compiler.set_stance("force_eager"):
                self._classifier(images)
        finally:
            handle.remove()
        if [tuple(features.shape) for features in seen] != [(len(images), self.dimension)]:
            raise InputError(
                f"the {self.source} is not one vector per image (it was "
                f"{[tuple(features.shape) for features in seen]}), so ImageQuality cannot use it; "
                "set its features to inception or null"
            )
        return seen[0]
