"""The purification chain: schedules, keyed noise, samplers, exact gradient."""

from lit_purify.diffusion.adaptive_flow import AdaptiveFlowPurifier
from lit_purify.diffusion.architectures import ddpm_unet, guided_diffusion_unet, small_unet
from lit_purify.diffusion.binding import randomness
from lit_purify.diffusion.class_labels import ClassLabels
from lit_purify.diffusion.denoiser import Denoiser, UNetDenoiser
from lit_purify.diffusion.differential_equations import ProbabilityFlowSampler, VPSDESampler
from lit_purify.diffusion.diffusion_purifier import DiffusionPurifier
from lit_purify.diffusion.dpm_solver import DPMSolverSampler
from lit_purify.diffusion.edm import EDMDenoiser, edm_unet
from lit_purify.diffusion.edm_sampler import EDMSampler
from lit_purify.diffusion.guided_purifier import GuidedPurifier
from lit_purify.diffusion.noise import (
    FixedNoise,
    FreshNoise,
    NoiseConfiguration,
    NoiseSource,
    StackedNoise,
)
from lit_purify.diffusion.presets import PRESETS, Preset
from lit_purify.diffusion.purifier import Purifier, State
from lit_purify.diffusion.repeated_purifier import RepeatedPurifier
from lit_purify.diffusion.samplers import DDIMSampler, DDPMSampler, Sampler
from lit_purify.diffusion.schedule import CosineSchedule, KarrasSchedule, LinearSchedule, Schedule
from lit_purify.diffusion.score_sde import score_sde_unet
from lit_purify.diffusion.seeds import derive_seed, seed_hash
from lit_purify.diffusion.split_noise import SplitNoise

__all__ = [
    "PRESETS",
    "AdaptiveFlowPurifier",
    "ClassLabels",
    "CosineSchedule",
    "DDIMSampler",
    "DDPMSampler",
    "DPMSolverSampler",
    "Denoiser",
    "DiffusionPurifier",
    "EDMDenoiser",
    "EDMSampler",
    "FixedNoise",
    "FreshNoise",
    "GuidedPurifier",
    "KarrasSchedule",
    "LinearSchedule",
    "NoiseConfiguration",
    "NoiseSource",
    "Preset",
    "ProbabilityFlowSampler",
    "Purifier",
    "RepeatedPurifier",
    "Sampler",
    "Schedule",
    "SplitNoise",
    "StackedNoise",
    "State",
    "UNetDenoiser",
    "VPSDESampler",
    "ddpm_unet",
    "derive_seed",
    "edm_unet",
    "guided_diffusion_unet",
    "randomness",
    "score_sde_unet",
    "seed_hash",
    "small_unet",
]
