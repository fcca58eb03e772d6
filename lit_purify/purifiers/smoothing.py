"""Purifiers of randomized smoothing: Gaussian noise, and its removal in one step."""

from __future__ import annotations

import math

from torch import Tensor

from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.diffusion_purifier import DiffusionPurifier
from lit_purify.diffusion.noise import NoiseConfiguration
from lit_purify.diffusion.purifier import Purifier
from lit_purify.diffusion.samplers import Sampler
from lit_purify.types import InputError


class GaussianNoise(Purifier):
    """Adds noise and removes none, for classifiers that were trained with it (Cohen et al., 2019).

    Args:
        sigma: standard deviation of the noise of a pixel, [0, 1] scale.
    """

    def __init__(self, *, sigma: float = 0.25) -> None:
        super().__init__()
        self.sigma = self.smoothing_sigma = _checked(sigma)

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return images + self.sigma * noise.normal(indices, "forward", 1, like=images)


def denoised_smoothing(
    denoiser: Denoiser,
    *,
    sigma: float = 0.25,
    num_steps: int = 1,
    sampler: Sampler | None = None,
    clip_output: bool = False,
) -> DiffusionPurifier:
    r"""Noise of a given size in one draw, and its removal by a diffusion model.

    In one step it is Carlini et al.'s denoised smoothing (2023): :math:`x + \sigma z` times
    :math:`\sqrt{\bar\alpha_{t^*}}` is a state of the diffusion, and the purified image is the
    network's prediction of the clean one,

    .. math:: \hat x_0 = \frac{x_{t^*} - \sqrt{1 - \bar\alpha_{t^*}} \, \epsilon_\theta}
       {\sqrt{\bar\alpha_{t^*}}}, \qquad
       2 \sigma = \sqrt{(1 - \bar\alpha_{t^*}) / \bar\alpha_{t^*}}.

    In several steps that draw noise it is what DensePure (Xiao et al., 2023) votes on.

    t* is the step whose noise is nearest to sigma; the noise that is drawn, and certified with, is
    that of the step: 0.2497 for 0.25 in the linear schedule, whose t* is 145.

    Args:
        denoiser: noise predictor.
        sigma: standard deviation of the noise of a pixel, [0, 1] scale.
        num_steps: steps of the reverse process.
        sampler: their rule; ``None`` is DDPM. In one step DDPM and DDIM are the same.
        clip_output: clip the result to [0, 1].

    Raises:
        InputError: sigma is none of the denoiser's schedule.
    """
    return DiffusionPurifier(
        denoiser,
        t_star=denoiser.schedule.step_of(2 * _checked(sigma)),
        num_steps=num_steps,
        forward_process="one_shot",
        sampler=sampler,
        clip_output=clip_output,
    )


def _checked(sigma: float) -> float:
    if not 0 < sigma < math.inf:
        raise InputError(f"sigma of the noise must be positive, got {sigma}; 0.25 is usual")
    return sigma
