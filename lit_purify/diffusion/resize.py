"""Images at another size: a classifier of 224 pixels behind a diffusion model of 256."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lit_purify.types import InputError


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


def check_size(resize_to: int | None, made_for: tuple[int, int, int] | None) -> None:
    """Raise unless a network made for images (C, H, W) can be given squares of this side.

    Args:
        resize_to: the side in pixels; ``None`` leaves images as they are.
        made_for: what the network is made for; ``None`` where any size goes.

    Raises:
        InputError: it is less than 1, or another side than the network's.
    """
    if resize_to is None:
        return
    if resize_to < 1:
        raise InputError(
            f"resize_to is {resize_to}; expected a side in pixels, 1 or more, or null to purify "
            "images at their own size"
        )
    if made_for is not None and made_for[1:] != (resize_to, resize_to):
        raise InputError(
            f"resize_to is {resize_to}, but the denoiser is made for {made_for[1]} x {made_for[2]} "
            "pixels; give that side, or choose another denoiser"
        )
