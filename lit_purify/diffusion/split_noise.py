"""Other noise on the way down than on the way up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lit_purify.diffusion.noise import NoiseConfiguration


@dataclass(frozen=True)
class SplitNoise(NoiseConfiguration):
    """The forward process of one configuration and the reverse process of another.

    Args:
        forward: noises the image.
        reverse: denoises it.

    Example:
        >>> import torch
        >>> from lit_purify.diffusion import FixedNoise
        >>> noise, x = SplitNoise(FixedNoise(0), FixedNoise(1)), torch.zeros(1, 3, 4, 4)
        >>> draw = noise.normal(torch.tensor([5]), "reverse", 1, like=x)
        >>> bool((draw == FixedNoise(1).normal(torch.tensor([5]), "reverse", 1, like=x)).all())
        True
    """

    forward: NoiseConfiguration
    reverse: NoiseConfiguration

    def derived(self, purpose: str, k: int) -> SplitNoise:
        return SplitNoise(self.forward.derived(purpose, k), self.reverse.derived(purpose, k))

    def _draw(self, indices: Tensor, slot: int, law: Callable[..., Tensor], like: Tensor) -> Tensor:
        return (self.reverse if slot % 2 else self.forward)._draw(indices, slot, law, like)
