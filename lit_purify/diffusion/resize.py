"""Images at another size: a classifier of 224 pixels behind a diffusion model of 256."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation between pixel centres, without smoothing before shrinking.

    It is linear and its weights sum to one, so it does the same on any scale, keeps a constant
    image and stays inside the range of the pixels. Images that have the size come back untouched.

    With ``torch.use_deterministic_algorithms`` PyTorch takes it apart into deterministic operations
    on a GPU; its own kernel adds up the gradient there in any order. A CPU always has one order.

    Args:
        images: shape (B, C, H, W).
        size: height and width of the result.

    Returns:
        Shape (B, C, *size), differentiable in ``images``.

    Example:
        >>> import torch
        >>> resize(torch.tensor([[[[0.0, 1.0]]]]), (1, 4)).flatten()
        tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """
    if images.shape[-2:] == size:
        return images
    # Contiguous: PyTorch has another routine for channels_last, with other roundings, and which of
    # the two a state asks for may depend on the size of its batch.
    return F.interpolate(images.contiguous(), size=size, mode="bilinear", align_corners=False)
