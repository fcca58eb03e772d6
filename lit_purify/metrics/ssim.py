"""Structural similarity of images (Wang et al. 2004), by torchmetrics."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lit_purify.functional.similarity import SMALLEST
from lit_purify.types import InputError


def structural_similarity(images: Tensor, reference: Tensor) -> Tensor:
    """SSIM of each image with its partner (Table 1).

    The window is Wang's Gaussian, 11x11 with sigma 1.5, the constants are 0.01 and 0.03 at a data
    range of 1, and the map is averaged over all pixels and channels, the border reflected.
    Computed in float64: the variances are differences of means of squares.

    Args:
        images: shape (B, C, H, W), in the [0, 1] scale; not clipped.
        reference: same shape, in [0, 1].

    Returns:
        Similarities, at most 1, which identical images have, shape (B,), float64.

    Raises:
        ValueError: the shapes differ.
        InputError: an image is smaller than 6x6.

    Example:
        >>> x = torch.linspace(0, 1, 192).view(1, 3, 8, 8)
        >>> structural_similarity(x, x)
        tensor([1.], dtype=torch.float64)
    """
    if images.shape != reference.shape:
        raise ValueError(
            f"expected two batches of one shape, got {(*images.shape,)} and {(*reference.shape,)}"
        )
    if min(images.shape[-2:]) < SMALLEST:
        raise InputError(
            f"SSIM needs images of {SMALLEST}x{SMALLEST} pixels or more, got "
            f"{images.shape[-2]}x{images.shape[-1]}; leave out ImageQuality, or take larger images"
        )
    if len(images) == 0:
        return images.new_zeros(0, dtype=torch.float64)
    found = structural_similarity_index_measure(
        images.double(), reference.double(), data_range=1.0, reduction="none"
    )
    assert isinstance(found, Tensor)
    return found
