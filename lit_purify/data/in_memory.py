"""A data set whose test and training images fit into memory."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch.utils.data import DataLoader

from lit_purify.data.arrays import ImageArrays
from lit_purify.data.base import ImageDataModule
from lit_purify.data.sampler import Batches, ResumableLoader, TrainingSampler, as_batch
from lit_purify.types import Auto, Batch, InputError


class InMemoryDataModule(ImageDataModule, ABC):
    """Images in [0, 1] for training and evaluation, held in memory.

    ``index`` in a batch is the position in the full source, also where only some images are taken.

    Args:
        source: test images.
        train_source: training images; ``None`` for none.
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

    test_set: ImageArrays

    def __init__(
        self,
        *,
        source: str,
        train_source: str | None,
        batch_size: int | Auto,
        limit: int | None,
        indices: list[int] | None,
        num_holdout: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__(
            source=source,
            batch_size=batch_size,
            limit=limit,
            num_workers=num_workers,
            indices=indices,
        )
        if not 0 <= seed < 2**63:
            raise InputError(f"seed must lie between 0 and 2**63 - 1, got {seed}")
        if num_holdout < 0:
            raise InputError(f"num_holdout is {num_holdout}; expected 0 or more images")
        self.train_source = train_source
        self.num_holdout = num_holdout
        self.seed = seed

    @abstractmethod
    def load(self, source: str, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """The images (N, H, W, C) of a source in their canonical order, and their labels (N,).

        Args:
            source: ``source`` or ``train_source``.
            train: whether they are trained on.

        Raises:
            InputError: they cannot be read.
        """

    def setup(self, stage: str) -> None:
        """Load the images of a stage: ``fit``, ``validate`` or ``test``."""
        if stage in ("fit", "validate"):
            self._setup_training()
        if stage == "test":
            self.test_set = self.take(*self.load(self.source, train=False))

    def _setup_training(self) -> None:
        if self.train_source is None:
            raise InputError("train_source is null; expected training images; name their source")
        dataset = self.checked(*self.load(self.train_source, train=True))
        split = len(dataset) - self.num_holdout
        if split < self.batch_size:
            raise InputError(
                f"{len(dataset)} training images less num_holdout {self.num_holdout} do not fill "
                f"one batch of {self.batch_size}; lower num_holdout or batch_size"
            )
        self.train_set = self._placed(dataset.select(range(split)))
        self.val_set = self._placed(dataset.select(range(split, len(dataset))))

    def _placed(self, images: ImageArrays) -> ImageArrays:
        """The images on the GPU that trains where they take no more than a quarter of its memory.

        Processes that load in its stead (``num_workers``) read the main memory.
        """
        device = None if self.trainer is None else self.trainer.strategy.root_device
        if device is None or device.type != "cuda" or self.num_workers:
            return images
        free, _ = torch.cuda.mem_get_info(device)
        return images.to(device) if images.images.nbytes <= free / 4 else images

    def train_dataloader(self) -> DataLoader[Batch]:
        return ResumableLoader(
            Batches(self.train_set),
            batch_size=self.batch_size,
            collate_fn=as_batch,
            sampler=TrainingSampler(
                self.train_set, batch_size=self.batch_size, seed=self.seed, trainer=self.trainer
            ),
            drop_last=True,
            num_workers=self.num_workers,
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(
            Batches(self.val_set),
            batch_size=self.batch_size,
            collate_fn=as_batch,
            num_workers=self.num_workers,
            generator=torch.Generator(),
        )
