"""Small networks of the published architectures, for images of 8 x 8 pixels."""

from collections.abc import Callable
from typing import Any

import pytest

from lit_purify.diffusion import (
    UNetDenoiser,
    ddpm_unet,
    edm_unet,
    guided_diffusion_unet,
    score_sde_unet,
)

Factory = Callable[..., UNetDenoiser]


def small_ddpm(**changes: Any) -> UNetDenoiser:
    """Ho et al.'s: two levels, attention at 4 x 4."""
    arguments = {"image_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4}
    return ddpm_unet(**{**arguments, **changes})


def small_guided(**changes: Any) -> UNetDenoiser:
    """Guided diffusion's: two levels, attention at 4 x 4, a learned variance."""
    arguments = {
        "image_size": 8,
        "model_channels": 8,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "attention_resolutions": (4,),
        "num_head_channels": 4,
        "norm_num_groups": 4,
    }
    return guided_diffusion_unet(**{**arguments, **changes})


def small_score_sde(**changes: Any) -> UNetDenoiser:
    """Score-SDE's: two levels, attention at 4 x 4."""
    arguments = {"image_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1}
    return score_sde_unet(**{**arguments, **changes})


def small_edm(**changes: Any) -> UNetDenoiser:
    """EDM's: two levels, attention at 4 x 4."""
    arguments = {"image_size": 8, "model_channels": 8, "block_out_channels": (8, 16)}
    return edm_unet(**{**arguments, "layers_per_block": 1, **changes})


PUBLISHED = pytest.mark.parametrize(
    "factory", [small_ddpm, small_guided, small_score_sde, small_edm]
)
