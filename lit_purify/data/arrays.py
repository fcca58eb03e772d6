"""Images held in memory as a dataset of :class:`~lit_purify.types.Batch` samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_purify.types import Batch


class ImageArrays(Dataset[Batch]):
    """Labelled images, each carrying the dataset index that keys its noise.

    Args:
        images: uint8 array of shape (N, H, W, C), or floats in [0, 1] of the same shape.
        labels: class indices, shape (N,).
        indices: dataset index of every image; ``None`` counts from 0.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, indices: Sequence[int] | None = None
    ) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        self.indices = torch.as_tensor(
            np.arange(len(images)) if indices is None else np.asarray(indices), dtype=torch.int64
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> Batch:
        return Batch(
            image=_to_unit(self.images[item]), label=self.labels[item], index=self.indices[item]
        )


def _to_unit(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()
