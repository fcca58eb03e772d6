"""Images held in memory as a dataset of :class:`~lit_purify.types.Batch` samples."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lit_purify.data.dataset import ImageDataset, in_unit_range
from lit_purify.types import Batch, InputError

UNKNOWN_LABEL = -1
"""Label of an image whose class is not known."""

_PIXELS = ("uint8", "float16", "float32", "float64")
"""Types of pixels. numpy's longdouble is a float too, but torch has no such type."""


class ImageArrays(ImageDataset):
    """Images, each with its label; their dataset indices count from 0.

    Args:
        images: array of shape (N, H, W, C) or tensor of shape (N, C, H, W), with C = 3
            (RGB) or 1 (grey); uint8, or finite floats in [0, 1].
        labels: class indices, array or tensor of shape (N,), any integer type; ``None`` labels
            every image :data:`UNKNOWN_LABEL`.
        num_classes: the labels must lie in 0 .. ``num_classes`` - 1; ``None`` does not ask.
        image_shape: (C, H, W) that the images must have; ``None`` does not ask.

    Raises:
        InputError: type, shape, range or length are not as above.

    Example:
        >>> sample = ImageArrays(np.full((2, 4, 4, 3), 255, np.uint8), np.array([7, 1]))[1]
        >>> sample["image"].shape, sample["image"].max().item(), sample["label"].item()
        (torch.Size([3, 4, 4]), 1.0, 1)
    """

    def __init__(
        self,
        images: np.ndarray | Tensor,
        labels: np.ndarray | Tensor | None,
        *,
        num_classes: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        self.images = _pixels(images)
        n = len(self.images)
        if image_shape is not None and self.image_shape != tuple(image_shape):
            raise InputError(
                f"the images are {_size(self.image_shape)} (width x height); expected "
                f"{_size(image_shape)}; convert them, or take a data module (or its image_shape) "
                "for such images"
            )
        if labels is None:
            self.labels = torch.full((n,), UNKNOWN_LABEL)
        else:
            self.labels = _classes(labels, n, num_classes)
        self.indices = torch.arange(n)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def select(self, positions: Sequence[int]) -> ImageArrays:
        """The images at these positions, in this order, under their dataset indices."""
        chosen = copy.copy(self)
        rows = torch.tensor(positions)
        chosen.images, chosen.labels = self.images[rows], self.labels[rows]
        chosen.indices = self.indices[rows]
        return chosen

    def to(self, device: torch.device) -> ImageArrays:
        """The same images in the memory of a device, which then makes the batches."""
        moved = copy.copy(self)
        moved.images, moved.labels = self.images.to(device), self.labels.to(device)
        moved.indices = self.indices.to(device)
        return moved

    def batch(self, items: list[int]) -> Batch:
        # Not blocking: a device goes on computing while the next batch is asked for.
        rows = torch.tensor(items).to(self.images.device, non_blocking=True)
        image = in_unit_range(self.images[rows].contiguous())
        return Batch(image=image, label=self.labels[rows], index=self.indices[rows])

    def pixels(self, item: int) -> Tensor:
        return self.images[item]

    def content(self) -> Iterator[bytes]:
        """The pixels alone: the same images have one hash, whatever file they are from."""
        yield self.images.contiguous().numpy().tobytes()


def _size(shape: Sequence[int]) -> str:
    """(C, H, W) in words."""
    channels, height, width = shape
    return f"{width} x {height} pixels, {'grey' if channels == 1 else 'RGB'}"


def _pixels(images: np.ndarray | Tensor) -> Tensor:
    """Checked images (N, C, H, W), which share the memory of what was given where torch can."""
    if isinstance(images, Tensor):
        axis, layout, kind = 1, "(N, C, H, W), channels first", str(images.dtype)[len("torch.") :]
    else:
        axis, layout, kind = 3, "(N, H, W, C), channels last", images.dtype.name
    if images.ndim != 4 or images.shape[axis] not in (1, 3):
        raise InputError(
            f"the images have shape {tuple(images.shape)}; expected {layout}, C = 3 for RGB and 1 "
            "for grey; move the channel axis, or add that of grey images: images[..., None]"
        )
    if 0 in images.shape:
        raise InputError(
            f"the images are empty, of shape {tuple(images.shape)}; expected at least one; give "
            "one or more"
        )
    if kind not in _PIXELS:
        raise InputError(
            f"the images are of type {images.dtype}; expected uint8, or floats in [0, 1]; convert "
            "them to one of these"
        )
    if isinstance(images, Tensor):
        pixels = images.detach().cpu()
    else:
        images = np.ascontiguousarray(images, images.dtype.newbyteorder("="))
        pixels = torch.from_numpy(images if images.flags.writeable else images.copy())
    if pixels.dtype != torch.uint8:
        _check_range(pixels)
    return pixels.movedim(axis, 1)


def _check_range(pixels: Tensor) -> None:
    # A NaN or an infinity shows in the extremes too: no further pass over the pixels.
    low, high = (float(extreme) for extreme in pixels.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(
            "the images hold NaN or infinity; expected finite floats in [0, 1]; correct them"
        )
    if low < 0 or high > 1:
        raise InputError(
            f"the float images range over [{low:.17g}, {high:.17g}]; expected [0, 1]; divide "
            "0 .. 255 values by 255, map [-1, 1] values with (x + 1) / 2, or clip what rounding "
            "has left outside to 0 and 1"
        )


def _classes(labels: np.ndarray | Tensor, num_images: int, num_classes: int | None) -> Tensor:
    """Checked labels, shape (N,), int64."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    if labels.shape != (num_images,):
        raise InputError(
            f"the labels have shape {labels.shape} beside {num_images} images; expected "
            f"({num_images},), one class index per image; give as many"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"the labels are of type {labels.dtype}; expected integers; take the argmax of one-hot "
            "labels, or convert with labels.astype('int64')"
        )
    low, high = int(labels.min()), int(labels.max())
    if num_classes is not None and (low < 0 or high >= num_classes):
        raise InputError(
            f"the labels range over {low} .. {high}; expected 0 .. {num_classes - 1} for "
            f"{num_classes} classes; correct them, or take the data module of that data set"
        )
    return torch.from_numpy(labels.astype(np.int64))
