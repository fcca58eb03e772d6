"""One call to purify images from Python."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_purify.checkpoints import embedded_denoiser
from lit_purify.diffusion import PRESETS, Denoiser, DiffusionPurifier, FixedNoise
from lit_purify.diffusion.presets import PresetName
from lit_purify.types import InputError


def purify(
    images: Tensor,
    *,
    t_star: int = 100,
    num_steps: int | None = 20,
    preset: PresetName = "ddpm",
    denoiser: Denoiser | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """Purify images with a diffusion model.

    Args:
        images: shape (B, 3, 32, 32) for the shipped denoiser, in [0, 1]. Differentiable.
        t_star: diffusion depth t* in units of the 1000-step schedule.
        num_steps: steps the chain takes across t*; ``None`` takes every one, as in the paper.
        preset: ``ddpm``, ``reverse`` or ``ddim``, the paper's three kinds of purification.
        denoiser: noise predictor; ``None`` takes the small CIFAR-10 one that ships.
        seed: base seed of the noise: the same seed, image index and settings give the same result.
        indices: dataset index of each image, which keys its noise; ``None`` counts from 0.

    Returns:
        Purified images, same shape, in [0, 1] (the presets clip the predicted clean image).

    Raises:
        InputError: images outside [0, 1] or of a shape the denoiser was not made for.

    Example:
        >>> import torch
        >>> import lit_purify
        >>> lit_purify.purify(torch.full((2, 3, 32, 32), 0.5), num_steps=2).shape
        torch.Size([2, 3, 32, 32])
    """
    if preset not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    if not (images.is_floating_point() and ((images >= 0) & (images <= 1)).all()):
        raise InputError(
            "purify needs finite floating-point images in [0, 1], got "
            f"{images.dtype} from {images.min()} to {images.max()}; divide 8-bit images by 255"
        )
    forward_process, sampler = PRESETS[preset]
    purifier = DiffusionPurifier(
        embedded_denoiser() if denoiser is None else denoiser,
        t_star=t_star,
        num_steps=num_steps,
        forward_process=forward_process,
        sampler=sampler,
    ).to(images)
    rows = range(len(images)) if indices is None else indices
    return purifier.purify(images, FixedNoise(seed), torch.as_tensor(rows))
