"""The paper's three kinds of purification (Table 1)."""

from __future__ import annotations

from typing import Literal

from lit_purify.diffusion.diffusion_purifier import ForwardProcess
from lit_purify.diffusion.samplers import DDIMSampler, DDPMSampler, Sampler

PresetName = Literal["ddpm", "reverse", "ddim"]


PRESETS: dict[PresetName, tuple[ForwardProcess, Sampler]] = {
    "ddpm": ("stepwise", DDPMSampler()),
    "reverse": ("none", DDPMSampler()),
    "ddim": ("stepwise", DDIMSampler()),
}
"""A forward process and the rule of the reverse steps.

**DDPM**: noise, then denoise. **Reverse**: denoise only. **DDIM**: noise, denoise without."""
