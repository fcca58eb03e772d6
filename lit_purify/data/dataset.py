"""What a data module evaluates on, wherever the pixels are."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

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
    def pixels(self, item: int) -> Tensor:
        """One image, shape (C, H, W): uint8, or floats in [0, 1]."""

    @abstractmethod
    def content(self) -> Iterator[bytes]:
        """Bytes that name the images and their order, in as many parts as is convenient."""

    def sha256(self) -> str:
        """Hash that names the images, their labels, their indices and their order."""
        digest = hashlib.sha256()
        for part in self.content():
            digest.update(part)
        for numbers in (self.labels, self.indices):
            digest.update(numbers.numpy().tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> Batch:
        """One sample: an image (C, H, W) in [0, 1], and its label and index, both of shape ()."""
        image = in_unit_range(self.pixels(item))
        return Batch(image=image, label=self.labels[item], index=self.indices[item])

    def batch(self, items: list[int]) -> Batch:
        """Several samples: images (B, C, H, W) in [0, 1], labels and indices of shape (B,)."""
        return default_collate([self[item] for item in items])


def in_unit_range(pixels: Tensor) -> Tensor:
    """Pixels, uint8 or floats in [0, 1], as float32 in [0, 1]."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
