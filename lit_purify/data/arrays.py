"""Images held in memory as a dataset of :class:`~lit_purify.types.Batch` samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_purify.data.dataset import ImageDataset
from lit_purify.types import Batch, InputError

UNKNOWN_LABEL = -1
"""Label of an image whose class is not known."""


class ImageArrays(ImageDataset):
    """Images, each with its label and the dataset index that keys its noise.

    Args:
        images: uint8 array of shape (N, H, W, 3), or finite floats in [0, 1] of the same shape.
        labels: class indices, shape (N,), any integer type; ``None`` labels every image
            :data:`UNKNOWN_LABEL`.
        indices: dataset index of every image; ``None`` counts from 0.
        num_classes: the labels must lie in 0 .. ``num_classes`` - 1; ``None`` does not ask.
        image_shape: (3, H, W) that the images must have; ``None`` does not ask.

    Raises:
        InputError: type, shape, range or length are not as above.

    Example:
        >>> sample = ImageArrays(np.full((2, 4, 4, 3), 255, np.uint8), np.array([7, 1]))[1]
        >>> sample["image"].shape, sample["image"].max().item(), sample["label"].item()
        (torch.Size([3, 4, 4]), 1.0, 1)
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        indices: Sequence[int] | None = None,
        *,
        num_classes: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        check_images(images)
        n = len(images)
        if labels is None:
            labels = np.full(n, UNKNOWN_LABEL)
        else:
            check_labels(labels, n, num_classes)
        if indices is not None and len(indices) != n:
            raise InputError(
                f"{n} images came with {len(indices)} dataset indices; give one index an image."
            )
        if image_shape is not None:
            check_size(images, image_shape)
        self.images = _tensor(images).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.indices = torch.as_tensor(
            np.arange(n) if indices is None else np.asarray(indices), dtype=torch.int64
        )

    def sha256(self) -> str:
        """Hash of the images, labels and indices: the same images, whatever file they are from."""
        digest = hashlib.sha256()
        for part in (self.images, self.labels, self.indices):
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> Batch:
        return Batch(
            image=to_unit(self.images[item]), label=self.labels[item], index=self.indices[item]
        )


def check_images(images: np.ndarray) -> None:
    """Raise :class:`InputError` unless ``images`` is a non-empty image array of this package."""
    if images.ndim != 4 or images.shape[3] != 3:
        raise InputError(
            f"The images have shape {images.shape}; expected (N, H, W, 3), channels last and RGB. "
            "Move the channel axis to the end, or repeat a single grey channel three times."
        )
    if 0 in images.shape:
        raise InputError(f"The image array is empty, shape {images.shape}; give at least 1 image.")
    if images.dtype == np.uint8:
        return
    # numpy's longdouble is a float too, but torch has no such type.
    if not np.issubdtype(images.dtype, np.floating) or images.dtype.itemsize > 8:
        raise InputError(
            f"The images are of type {images.dtype}; expected uint8, or floats in [0, 1]. "
            "Convert them, for example with images.astype('uint8')."
        )
    low, high = images.min(), images.max()
    # A NaN or an infinity shows in the extremes too: no third pass over the array.
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("The images hold NaN or infinity; expected finite floats in [0, 1].")
    if low < 0 or high > 1:
        raise InputError(
            f"The float images range over [{low:g}, {high:g}]; expected [0, 1]. "
            "Divide 0 .. 255 values by 255, or map [-1, 1] values with (x + 1) / 2."
        )


def check_size(images: np.ndarray, image_shape: tuple[int, int, int]) -> None:
    """Raise :class:`InputError` unless images (N, H, W, 3) have the shape (3, H, W) asked for."""
    _, height, width = image_shape
    if images.shape[1:3] != (height, width):
        raise InputError(
            f"The images are {images.shape[2]} x {images.shape[1]} pixels (width x height); "
            f"expected {width} x {height}. Resize them, or use a data module for that size."
        )


def check_labels(labels: np.ndarray, num_images: int, num_classes: int | None) -> None:
    """Raise :class:`InputError` unless ``labels`` holds one class index an image."""
    if labels.shape != (num_images,):
        raise InputError(
            f"The labels have shape {labels.shape} beside {num_images} images; "
            f"expected ({num_images},), one class index an image."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"The labels are of type {labels.dtype}; expected integers. "
            "Take the argmax of one-hot labels, or convert with labels.astype('int64')."
        )
    if num_classes is None:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"The labels range over {low} .. {high}; expected 0 .. {num_classes - 1} for "
            f"{num_classes} classes."
        )


def _tensor(images: np.ndarray) -> Tensor:
    """The array as a tensor, copied only where torch cannot share it."""
    images = np.ascontiguousarray(images, images.dtype.newbyteorder("="))
    return torch.from_numpy(images if images.flags.writeable else images.copy())


def to_unit(image: Tensor) -> Tensor:
    """The image as float32; uint8 values are divided by 255, others are in [0, 1] already."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()
