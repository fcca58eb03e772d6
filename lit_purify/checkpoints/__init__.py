"""File formats of weights."""

from lit_purify.checkpoints.denoisers import (
    embedded_denoiser,
    load_denoiser,
    model_card,
    save_denoiser,
)

__all__ = ["embedded_denoiser", "load_denoiser", "model_card", "save_denoiser"]
