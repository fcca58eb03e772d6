"""CIFAR-10: the embedded test images, torchvision's full set, or arrays of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Subset

from lit_purify.data.arrays import ImageArrays
from lit_purify.types import Batch

NUM_CLASSES = 10


class CIFAR10DataModule(LightningDataModule):
    """CIFAR-10 images in [0, 1] for training and evaluation.

    Args:
        train_source: where training images come from, see below.
        batch_size: images a batch.
        num_holdout: the last images of the training set are kept from training and serve as the
            validation set.
    """

    def __init__(
        self,
        *,
        train_source: str = "torchvision",
        batch_size: int = 64,
        num_holdout: int = 2000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train_source = train_source
        self.batch_size = batch_size
        self.num_holdout = num_holdout

    def setup(self, stage: str) -> None:
        if stage == "fit":
            with np.load(self.train_source) as archive:
                dataset = ImageArrays(archive["images"], archive["labels"])
            split = len(dataset) - self.num_holdout
            self.train_set = Subset(dataset, range(split))
            self.val_set = Subset(dataset, range(split, len(dataset)))

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.train_set, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.val_set, self.batch_size, shuffle=False, drop_last=False)
