"""CIFAR-10: the embedded test images, torchvision's full set, or arrays of the user's own."""

from __future__ import annotations

import numpy as np

from lit_purify.classifiers.embedded import CLASS_NAMES
from lit_purify.data import sources
from lit_purify.data.torchvision_sets import TorchvisionDataModule
from lit_purify.types import Auto


class CIFAR10DataModule(TorchvisionDataModule):
    """CIFAR-10 images in [0, 1] for training and evaluation.

    ``index`` in a batch is the position in the full source, also where only some images are taken.

    Args:
        source: test images: ``embedded`` (the first 1000, shipped), ``torchvision`` (all 10,000)
            or the path of an ``.npz`` file with the keys ``images`` (N, 32, 32, 3) and ``labels``.
        train_source: training images: ``torchvision`` or the path of an ``.npz`` file.
        root: folder of torchvision's files.
        download: let torchvision download what is not there. It verifies what it downloads.
        batch_size: images per batch, for each process; ``auto`` chooses by the memory.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer; applied
            to ``indices`` where both are given. Training is not limited.
        indices: positions in the source of the images to evaluate on, in this order.
        num_holdout: the last images of the training set are kept from training and serve as the
            validation set.
        num_workers: loading processes; 0 loads in the main one, and trains from the memory of the
            GPU where the images fit.
        seed: base seed of the training order; independent of the global RNG.

    Raises:
        InputError: an argument or the source is not as above.
    """

    loader = "CIFAR10"
    named_sources = ("embedded", "torchvision")
    num_classes = 10
    image_shape = (3, 32, 32)
    class_names = CLASS_NAMES

    def __init__(
        self,
        *,
        source: str = "embedded",
        train_source: str = "torchvision",
        root: str = "data",
        download: bool = True,
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
            root=root,
            download=download,
            batch_size=batch_size,
            limit=limit,
            indices=indices,
            num_holdout=num_holdout,
            num_workers=num_workers,
            seed=seed,
        )

    def load(self, source: str, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
        return sources.embedded() if source == "embedded" else super().load(source, train=train)
