"""What the data modules share: how evaluated images are batched, shared out and resumed."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lit_purify.data.arrays import ImageArrays
from lit_purify.data.sampler import evaluation_loader
from lit_purify.types import Batch, InputError


class ImageDataModule(LightningDataModule):
    """Serves images for evaluation, each once over all processes.

    Args:
        batch_size: images a batch, for each process.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer.
        num_workers: loading processes; 0 loads in the main one.

    Attributes:
        test_set: the images of a test, set by ``setup``.
        done: dataset indices that a test leaves out because their records exist.
    """

    test_set: ImageArrays

    def __init__(self, *, batch_size: int, limit: int | None, num_workers: int) -> None:
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
        self.batch_size = batch_size
        self.limit = limit
        self.num_workers = num_workers
        self.done: frozenset[int] = frozenset()

    def evaluation_loader(self, dataset: ImageArrays) -> DataLoader[Batch]:
        """The batches of this process; a collective, so every process must call it."""
        return evaluation_loader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            trainer=self.trainer,
            done=self.done,
        )
