"""The purification chain: schedule, keyed noise, samplers, exact gradient."""

from lit_purify.diffusion.architectures import ddpm_unet, guided_diffusion_unet, small_unet
from lit_purify.diffusion.denoiser import Denoiser, UNetDenoiser
from lit_purify.diffusion.noise import (
    FixedNoise,
    FreshNoise,
    NoiseConfiguration,
    NoiseSource,
    StackedNoise,
    derive_seed,
    randomness,
    seed_hash,
)
from lit_purify.diffusion.presets import PRESETS, Preset
from lit_purify.diffusion.purifier import DiffusionPurifier, Purifier, State
from lit_purify.diffusion.samplers import DDIMSampler, DDPMSampler, Sampler
from lit_purify.diffusion.schedule import LinearSchedule

__all__ = [
    "PRESETS",
    "DDIMSampler",
    "DDPMSampler",
    "Denoiser",
    "DiffusionPurifier",
    "FixedNoise",
    "FreshNoise",
    "LinearSchedule",
    "NoiseConfiguration",
    "NoiseSource",
    "Preset",
    "Purifier",
    "Sampler",
    "StackedNoise",
    "State",
    "UNetDenoiser",
    "ddpm_unet",
    "derive_seed",
    "guided_diffusion_unet",
    "randomness",
    "seed_hash",
    "small_unet",
]
