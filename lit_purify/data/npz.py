"""Images of any size, in colour or grey, and any number of classes, from ``.npz`` files."""

from __future__ import annotations

import numpy as np

from lit_purify.data import sources
from lit_purify.data.in_memory import InMemoryDataModule
from lit_purify.types import Auto


class NPZDataModule(InMemoryDataModule):
    """Labelled images of ``.npz`` files for training and evaluation.

    A file has the keys ``images``, (N, H, W, C) with C = 3 (RGB) or 1 (grey), uint8 or finite
    floats in [0, 1], and ``labels``, class indices of shape (N,). ``index`` in a batch is the
    position in the file, also where only some images are taken.

    Args:
        source: path of the file with the test images.
        train_source: path of the file with the training images, of the same size; ``None`` for
            none.
        num_classes: the labels must lie in 0 .. ``num_classes`` - 1, and the classifier must know
            as many classes; ``None`` asks only that the classifier knows the labels.
        batch_size: images per batch, for each process; ``auto`` chooses by the memory.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer; applied
            to ``indices`` where both are given. Training is not limited.
        indices: positions in the source of the images to evaluate on, in this order.
        num_holdout: the last images of the training set are kept from training and serve as the
            validation set.
        num_workers: loading processes; 0 loads in the main one, and trains from the memory of the
            GPU where the images fit.
        seed: base seed of the training order; independent of the global RNG.

    Attributes:
        image_shape: (C, H, W) of every image; set by ``setup``.

    Raises:
        InputError: an argument or a file is not as above.
    """

    def __init__(
        self,
        *,
        source: str,
        train_source: str | None = None,
        num_classes: int | None = None,
        batch_size: int | Auto = 64,
        limit: int | None = None,
        indices: list[int] | None = None,
        num_holdout: int = 2000,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            source=source,
            train_source=train_source,
            batch_size=batch_size,
            limit=limit,
            indices=indices,
            num_holdout=num_holdout,
            num_workers=num_workers,
            seed=seed,
        )
        self.num_classes = num_classes

    def setup(self, stage: str) -> None:
        """Load the images of a stage, which then are the size that is expected."""
        super().setup(stage)
        if stage in ("fit", "validate"):
            self.image_shape = self.train_set.image_shape
        elif stage == "test":
            self.image_shape = self.test_set.image_shape

    def load(self, source: str, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
        return sources.npz(source)
