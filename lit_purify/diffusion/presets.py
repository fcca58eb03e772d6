"""The paper's three kinds of purification (Table 1)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from lit_purify.diffusion.planned_purifier import ForwardProcess
from lit_purify.diffusion.samplers import DDIMSampler, DDPMSampler, Sampler

PresetName = Literal["ddpm", "reverse", "ddim"]


class Preset(NamedTuple):
    """A forward process and the rule of the reverse steps."""

    forward_process: ForwardProcess
    sampler: Sampler


PRESETS: dict[PresetName, Preset] = {
    "ddpm": Preset("stepwise", DDPMSampler()),
    "reverse": Preset("none", DDPMSampler()),
    "ddim": Preset("stepwise", DDIMSampler()),
}
"""**DDPM**: noise, then denoise. **Reverse**: denoise only. **DDIM**: noise, denoise without.

Where the clean image is clipped, guided-diffusion's DDIM derives the noise again from the clipped
one; the paper's keeps the network's own, and so does this one.
"""
