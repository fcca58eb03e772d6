"""CIFAR-10: the embedded test images, torchvision's full set, or arrays of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from lit_purify.data import sources
from lit_purify.data.arrays import ImageArrays
from lit_purify.data.base import ImageDataModule
from lit_purify.data.sampler import Batches, ResumableLoader, TrainingSampler, as_batch
from lit_purify.types import Auto, Batch, InputError


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 images in [0, 1] for training and evaluation.

    ``index`` in a batch is the position in the full source, also where only some images are taken.

    Args:
        source: test images: ``embedded`` (the first 1000, shipped), ``torchvision`` (all 10,000)
            or the path of an ``.npz`` file with the keys ``images`` (N, 32, 32, 3) and ``labels``.
        train_source: training images: ``torchvision`` or the path of an ``.npz`` file.
        root: folder of the torchvision download.
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

    num_classes = 10
    image_shape = (3, 32, 32)

    def __init__(
        self,
        *,
        source: str = "embedded",
        train_source: str = "torchvision",
        root: str = "data",
        batch_size: int | Auto = 64,
        limit: int | None = None,
        indices: list[int] | None = None,
        num_holdout: int = 2000,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            source=source,
            batch_size=batch_size,
            limit=limit,
            num_workers=num_workers,
            indices=indices,
        )
        _check_source("source", source, ("embedded", "torchvision"))
        _check_source("train_source", train_source, ("torchvision",))
        if not 0 <= seed < 2**63:
            raise InputError(f"seed must lie between 0 and 2**63 - 1, got {seed}")
        if num_holdout < 0:
            raise InputError(f"num_holdout is {num_holdout}; expected 0 or more images")
        self.train_source = train_source
        self.root = root
        self.num_holdout = num_holdout
        self.seed = seed

    def prepare_data(self) -> None:
        """Download once, in one process; the others find the files there."""
        function = None if self.trainer is None else self.trainer.state.fn
        fitting = function in ("fit", "validate")
        if (self.train_source if fitting else self.source) == "torchvision":
            sources.torchvision_cifar10(self.root, train=fitting)

    def setup(self, stage: str) -> None:
        """Load the images of a stage: ``fit``, ``validate`` or ``test``."""
        if stage in ("fit", "validate"):
            self._setup_training()
        if stage == "test":
            self.test_set = self.take(*self._load(self.source, train=False))

    def _setup_training(self) -> None:
        dataset = self.checked(*self._load(self.train_source, train=True))
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

    def _load(self, source: str, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
        if source == "embedded":
            return sources.embedded()
        if source == "torchvision":
            return sources.torchvision_cifar10(self.root, train=train)
        return sources.npz(source)

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


def _check_source(name: str, source: str, known: tuple[str, ...]) -> None:
    if source not in known and Path(source).suffix != ".npz":
        names = " or ".join(repr(word) for word in known)
        raise InputError(
            f"{name} is {source!r}; expected {names}, or the path of an .npz file with the keys "
            "'images' and 'labels'"
        )
