"""What the data modules share: how evaluated images are batched, shared out and resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lit_purify.data.arrays import ImageArrays
from lit_purify.data.dataset import ImageDataset
from lit_purify.data.sampler import evaluation_loader
from lit_purify.types import Batch, InputError


class ImageDataModule(LightningDataModule):
    """Serves images for evaluation, each once over all processes.

    Args:
        batch_size: images a batch, for each process.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer.
        num_workers: loading processes; 0 loads in the main one.
        indices: positions in the source of the images to evaluate on, in this order; ``None``
            takes all. ``limit`` then applies to them.

    Attributes:
        test_set: the images of a test, set by ``setup``.
        done: dataset indices that a test leaves out because their records exist.
        num_classes: how many classes the labels may name; ``None`` where that is not said.
        image_shape: (3, H, W) of every image; ``None`` where that is not said.
    """

    num_classes: int | None = None
    image_shape: tuple[int, int, int] | None = None
    test_set: ImageDataset

    def __init__(
        self,
        *,
        batch_size: int,
        limit: int | None,
        num_workers: int,
        indices: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= batch_size < 2**31:
            raise InputError(f"batch_size is {batch_size}; expected 1 or more images a batch.")
        if num_workers < 0:
            raise InputError(
                f"num_workers is {num_workers}; expected 0 (no extra process) or more."
            )
        if limit is not None and limit < 1:
            raise InputError(
                f"limit is {limit}; expected 1 or more images, or null to take every image."
            )
        if indices is not None:
            check_indices(indices)
        self.batch_size = batch_size
        self.limit = limit
        self.num_workers = num_workers
        self.indices = indices
        self.done: frozenset[int] = frozenset()

    def positions(self, n: int, source: str) -> list[int]:
        """Which of the ``n`` images of a source are evaluated, by ``indices`` and ``limit``.

        Raises:
            InputError: ``indices`` holds a position beyond the source.
        """
        positions = list(range(n)) if self.indices is None else list(self.indices)
        outside = [i for i in positions if i >= n]
        if outside:
            raise InputError(
                f"indices holds {outside[:5]}, but the source {source!r} has {n} images; "
                f"expected 0 .. {n - 1}. Drop them, or choose a larger source."
            )
        return positions[: self.limit]

    def take(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        source: str,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
    ) -> ImageArrays:
        """The images of a source that are evaluated, arguments as of :class:`ImageArrays`.

        Raises:
            InputError: an array is not as it should be, or ``indices`` go beyond the source.
        """
        positions = self.positions(len(images), source)
        # The whole source is checked before anything is taken from it.
        ImageArrays(images, labels, num_classes=num_classes, image_shape=image_shape)
        return ImageArrays(images[positions], labels[positions], positions)

    def evaluation_loader(self, dataset: ImageDataset) -> DataLoader[Batch]:
        """The batches of this process; a collective, so every process must call it."""
        return evaluation_loader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            trainer=self.trainer,
            done=self.done,
        )


def check_indices(indices: Sequence[int]) -> None:
    """Raise :class:`InputError` unless ``indices`` are positions, each once."""
    if not indices:
        raise InputError("indices is empty; give at least one position, or null for every image.")
    negative = [i for i in indices if i < 0]
    if negative:
        raise InputError(
            f"indices holds {negative[:5]}; expected positions in the source, from 0 upwards."
        )
    repeated = [i for i, times in Counter(indices).items() if times > 1]
    if repeated:
        raise InputError(
            f"indices holds {repeated[:5]} more than once; expected each position once, because "
            "the index keys the noise and the records of a sample."
        )
