"""Images that a Python user has at hand, without a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lit_purify.data.base import ImageDataModule
from lit_purify.types import Auto


class ArrayDataModule(ImageDataModule):
    """Labelled images of any size for evaluation, from tensors or arrays.

    ``index`` in a batch is the position among the images, also where only some are taken.

    Args:
        images: tensor of shape (N, C, H, W) or array of shape (N, H, W, C), with C = 3
            (RGB) or 1 (grey); uint8, or finite floats in [0, 1].
        labels: class indices, tensor or array of shape (N,), any integer type.
        num_classes: the labels must lie in 0 .. ``num_classes`` - 1, and the classifier must know
            as many classes; ``None`` does not ask.
        batch_size: images per batch, for each process; ``auto`` chooses by the memory.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer; applied
            to ``indices`` where both are given.
        indices: positions of the images to evaluate on, in this order.
        num_workers: loading processes; 0 loads in the main one.

    Raises:
        InputError: an argument is not as above.

    Example:
        >>> import torch
        >>> data = ArrayDataModule(images=torch.rand(5, 3, 8, 8), labels=torch.arange(5), limit=2)
        >>> data.setup("test")
        >>> [batch["index"].tolist() for batch in data.test_dataloader()]
        [[0, 1]]
    """

    def __init__(
        self,
        *,
        images: np.ndarray | Tensor,
        labels: np.ndarray | Tensor,
        num_classes: int | None = None,
        batch_size: int | Auto = 64,
        limit: int | None = None,
        indices: Sequence[int] | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            source="arrays",
            batch_size=batch_size,
            limit=limit,
            num_workers=num_workers,
            indices=indices,
        )
        self.num_classes = num_classes
        self.test_set = self.take(images, labels)
        self.image_shape = self.test_set.image_shape
