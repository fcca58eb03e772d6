"""Purifiers around or instead of a diffusion: averages over noises, plain filters."""

from lit_purify.purifiers.averaged import AveragedPurifier
from lit_purify.purifiers.filters import BitDepth, Blur, TotalVariation
from lit_purify.purifiers.jpeg import JPEG

__all__ = ["JPEG", "AveragedPurifier", "BitDepth", "Blur", "TotalVariation"]
