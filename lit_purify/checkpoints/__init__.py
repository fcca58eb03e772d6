"""File formats of weights."""

from lit_purify.checkpoints.denoisers import (
    embedded_denoiser,
    load_denoiser,
    official_denoiser,
)
from lit_purify.checkpoints.own_format import model_card, save_denoiser

__all__ = [
    "embedded_denoiser",
    "load_denoiser",
    "model_card",
    "official_denoiser",
    "save_denoiser",
]
