"""What a data module evaluates on, wherever the pixels are."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.utils.data import Dataset

from lit_purify.types import Batch


class ImageDataset(Dataset[Batch], ABC):
    """Images in an order, each with its label and the dataset index that keys its noise.

    Attributes:
        labels: class indices, shape (N,), int64.
        indices: dataset indices, shape (N,), int64.
    """

    labels: Tensor
    indices: Tensor

    @abstractmethod
    def sha256(self) -> str:
        """Hash that names the images, their labels, their indices and their order."""

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def __getitem__(self, item: int) -> Batch:
        """One sample: an image (3, H, W) in [0, 1], and its label and index, both of shape ()."""
