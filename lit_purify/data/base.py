"""What the data modules share: how evaluated images are batched, shared out and resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lit_purify.data.arrays import ImageArrays
from lit_purify.data.dataset import ImageDataset
from lit_purify.data.peers import peers_of
from lit_purify.data.plan import plan_batches
from lit_purify.data.sampler import Batches, SharedBatchSampler
from lit_purify.types import Auto, Batch, InputError, is_whole


class ImageDataModule(LightningDataModule):
    """Serves images for evaluation, each once over all processes.

    Args:
        source: where the images come from, as a report says it.
        batch_size: images per batch, for each process; ``auto`` for as many as the memory takes in
            a test or a prediction, see :class:`~lit_purify.callbacks.MemoryUse`.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer.
        num_workers: loading processes; 0 loads in the main one.
        indices: positions in the source of the images to evaluate on, in this order; ``None``
            takes all. ``limit`` then applies to them.

    Attributes:
        test_set: the images of a test, set by ``setup``.
        details: what else a report must say about the source, set by ``setup``.
        auto_batch_size: whether every run chooses ``batch_size`` anew.
        done: dataset indices that a test leaves out because their records exist.
        num_classes: how many classes the labels may name; ``None`` where that is not said.
        class_names: names of the classes in the order of the labels; empty where not known.
        image_shape: (C, H, W) of every image; ``None`` where that is not said.
        dataset: what a report calls the data set, where ``source`` does not tell; may be empty.

    Raises:
        InputError: an argument is not as above.
    """

    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    dataset: str = ""
    test_set: ImageDataset

    def __init__(
        self,
        *,
        source: str,
        batch_size: int | Auto,
        limit: int | None,
        num_workers: int,
        indices: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if batch_size != "auto" and not (is_whole(batch_size) and 1 <= batch_size < 2**31):
            raise InputError(
                f"batch_size is {batch_size!r}; expected 1 or more images per batch, or auto"
            )
        if not (is_whole(num_workers) and num_workers >= 0):
            raise InputError(f"num_workers is {num_workers}; expected 0 (no extra process) or more")
        if limit is not None and not (is_whole(limit) and limit >= 1):
            raise InputError(
                f"limit is {limit}; expected 1 or more images, or null to take every image"
            )
        if indices is not None:
            _check_indices(indices)
        self.source = source
        self.auto_batch_size = batch_size == "auto"
        self._batch_size = None if batch_size == "auto" else batch_size
        self.limit = limit
        self.num_workers = num_workers
        self.indices = indices
        self.details: dict[str, object] = {}
        self.done: frozenset[int] = frozenset()

    def settings(self) -> dict[str, object]:
        """What a report must say about the images of a test."""
        return {
            **({"dataset": self.dataset} if self.dataset else {}),
            "data": self.source,
            **self.details,
            "data_sha256": self.test_set.sha256(),
            "images": len(self.test_set),
            "batch_size": self.batch_size,
        }

    @property
    def batch_size(self) -> int:
        """Images per batch, for each process.

        Raises:
            InputError: it is ``auto``, and nothing was chosen.
        """
        if self._batch_size is None:
            raise InputError(
                "batch_size is auto, which only a test or a prediction chooses, by the callback "
                "lit_purify.callbacks.MemoryUse before all others; give a number, or add it"
            )
        return self._batch_size

    @batch_size.setter
    def batch_size(self, chosen: int) -> None:
        self._batch_size = chosen

    def positions(self, n: int) -> list[int]:
        """Which of the ``n`` images of the source are evaluated, by ``indices`` and ``limit``.

        Raises:
            InputError: ``indices`` holds a position beyond the source.
        """
        positions = list(range(n)) if self.indices is None else list(self.indices)
        outside = [i for i in positions if i >= n]
        if outside:
            raise InputError(
                f"indices holds {outside[:5]}, but the source {self.source!r} has {n} images; "
                f"expected 0 .. {n - 1}; drop them, or choose a larger source"
            )
        return positions[: self.limit]

    def checked(
        self, images: np.ndarray | Tensor, labels: np.ndarray | Tensor | None
    ) -> ImageArrays:
        """The images of a source, which must have this module's classes and shape.

        Raises:
            InputError: an array is not as :class:`ImageArrays` wants it.
        """
        return ImageArrays(
            images, labels, num_classes=self.num_classes, image_shape=self.image_shape
        )

    def take(self, images: np.ndarray | Tensor, labels: np.ndarray | Tensor | None) -> ImageArrays:
        """Those of the source's images that are evaluated; all of them are :meth:`checked`.

        Raises:
            InputError: as above, or ``indices`` go beyond the source.
        """
        whole = self.checked(images, labels)
        return whole.select(self.positions(len(whole)))

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_loader(self.test_set)

    def evaluation_loader(self, dataset: ImageDataset) -> DataLoader[Batch]:
        """The batches of this process; a collective, so every process must call it.

        Raises:
            InputError: a dataset index is not its image's alone.
        """
        indices = dataset.indices.tolist()
        check_unique(indices, f"the dataset {type(dataset).__name__}")
        peers = peers_of(self.trainer)
        batches = plan_batches(indices, self.batch_size, done=self.done, processes=peers.processes)
        return DataLoader(
            Batches(dataset),
            batch_size=None,
            sampler=SharedBatchSampler(batches, peers),
            num_workers=self.num_workers,
            # Without its own generator a DataLoader takes a number from the global one.
            generator=torch.Generator(),
        )


def evaluated_images(trainer: Trainer) -> ImageDataset | None:
    """The images of a test in their order; ``None`` of data that name none."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return getattr(data, "test_set", None) if isinstance(data, ImageDataModule) else None


def _check_indices(indices: Sequence[int]) -> None:
    """Raise :class:`InputError` unless ``indices`` are positions, each once."""
    if not indices:
        raise InputError("indices is empty; give at least one position, or null for every image")
    negative = [i for i in indices if i < 0]
    if negative:
        raise InputError(
            f"indices holds {negative[:5]}; expected positions in the source, from 0 upwards"
        )
    check_unique(indices, "indices")


def check_unique(indices: Sequence[int], owner: str) -> None:
    """Raise :class:`InputError` where an index stands for more than one image.

    Args:
        indices: dataset indices.
        owner: who has them, for the message.
    """
    if len(set(indices)) == len(indices):
        return
    repeated = [i for i, times in Counter(indices).items() if times > 1]
    raise InputError(
        f"{owner} holds {repeated[:5]} more than once; expected each index once, because it keys "
        "the noise and the records of an image; number the images 0, 1, 2, ..."
    )
