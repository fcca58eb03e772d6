"""What in the pixels of a batch looks like a mistake in their scale."""

from __future__ import annotations

from torch import Tensor

DARK = 16 / 255
"""Below it lies every pixel of images with 1 to 4 bits, and of images that were divided twice."""

ROUNDING = 1e-6
"""How far outside [0, 1] arithmetic in float32 may put a value."""


def suspicious_range(images: Tensor) -> str | None:
    """What is odd about the values of images that are said to be in [0, 1].

    Args:
        images: shape (B, C, H, W), B at least 1; all are looked at together, so that a single dark
            photograph among others does not count.

    Returns:
        A sentence for a report, or ``None`` where the values look like those of pictures.

    Example:
        >>> import torch
        >>> suspicious_range(torch.linspace(0, 1, 48).view(1, 3, 4, 4))
        >>> print(suspicious_range(torch.ones(1, 3, 4, 4) / 255))
        The images are nearly black, their brightest value is 0.0039: images of 0 and 1 stored in \
8 bits, or divided by 255 twice? Expected 0 .. 255 in 8 bits, or floats in [0, 1].
    """
    low, high = (extreme.item() for extreme in images.detach().float().aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # so too where one is not a number
        return (
            f"The images range over [{low:.9g}, {high:.9g}]: standardised, in [-1, 1] or in 0 .. "
            "255? Expected [0, 1]."
        )
    if high < DARK:
        return (
            f"The images are nearly black, their brightest value is {high:.2g}: images of 0 and 1 "
            "stored in 8 bits, or divided by 255 twice? Expected 0 .. 255 in 8 bits, or floats in "
            "[0, 1]."
        )
    if high - low < DARK:
        return (
            f"The pixels are nearly the same, between {low:.4g} and {high:.4g}: is there a picture "
            "in these images?"
        )
    if not ((images != images.min()) & (images != images.max())).any():
        return (
            f"The images hold two values only, {low:.4g} and {high:.4g}: masks, or pictures that "
            "were rounded to 0 and 1?"
        )
    return None
