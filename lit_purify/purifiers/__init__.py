"""Purifiers around or instead of a diffusion: averages over noises, filters, smoothing."""

from lit_purify.purifiers.averaged import AveragedPurifier
from lit_purify.purifiers.filters import BitDepth, Blur, TotalVariation
from lit_purify.purifiers.jpeg import JPEG
from lit_purify.purifiers.smoothed_classifier import SmoothedClassifier
from lit_purify.purifiers.smoothing import GaussianNoise, denoised_smoothing

__all__ = [
    "JPEG",
    "AveragedPurifier",
    "BitDepth",
    "Blur",
    "GaussianNoise",
    "SmoothedClassifier",
    "TotalVariation",
    "denoised_smoothing",
]
