r"""EDM's networks (Karras et al. 2022) as noise predictors.

EDM adds noise without scaling the image: its state of noise level :math:`\sigma` is
:math:`x_t / \sqrt{\bar\alpha_t}`, with :math:`\sigma_t = \sqrt{(1 - \bar\alpha_t) / \bar\alpha_t}`.
Around the network F lies a preconditioning (eq. 7, table 1) that gives the denoised image,

.. math:: D(x; \sigma) = c_{skip} x + c_{out} F(c_{in} x; \tfrac14 \ln \sigma), \qquad
   c_{in} = \frac{1}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad c_{skip} = \sigma_d^2 c_{in}^2, \quad
   c_{out} = \sigma \sigma_d c_{in},

where :math:`\sigma_d = 0.5` is the standard deviation of the data. The noise in the state follows,
without a difference of nearly equal numbers:

.. math:: \epsilon = \frac{x - D(x; \sigma)}{\sigma} = \sigma c_{in}^2 x - \sigma_d c_{in} F.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from lit_purify.diffusion.denoiser import UNetDenoiser
from lit_purify.diffusion.schedule import Schedule
from lit_purify.diffusion.score_sde import ScoreSDEUNet
from lit_purify.diffusion.untrained import check_sizes, chosen_levels, untrained
from lit_purify.types import InputError

SIGMA_DATA = 0.5
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""The noise levels between which the published networks are used."""
ROUNDING = 1e-6
"""How far beyond them a step may lie, in units of its noise level."""


class EDMDenoiser(UNetDenoiser):
    r"""A network of EDM's as a :class:`~lit_purify.diffusion.Denoiser`.

    It was trained on all noise levels at once, so any schedule is one of its own: every step t is
    told the network by its noise level, exactly. Between whole steps :math:`\ln \bar\alpha_t` is
    linear, as :class:`~lit_purify.diffusion.AdaptiveFlowPurifier` takes it.

    Args:
        network: called with the scaled state (B, C, H, W) and ln(sigma) / 4, shape (B,); it has
            ``in_channels`` and ``block_out_channels`` in a mapping ``config``.
        image_shape: (C, H, W) the network was trained on; ``None`` accepts any.
        schedule: by which images are noised and denoised; ``None`` is the linear one of 1000 steps.

    Raises:
        InputError: a schedule by which no image can be noised.
    """

    _alpha_bar_bits: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        image_shape: tuple[int, int, int] | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(network, image_shape=image_shape, schedule=schedule)

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of the chain."""
        return self._schedule

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        self._schedule = schedule
        with torch.device("cpu"):  # a network may be made without memory, this table not
            alpha_bar = schedule.alpha_bar
        # As integers, so that it follows the weights to a device, but not to float32 or less.
        self.register_buffer("_alpha_bar_bits", alpha_bar.view(torch.int64), persistent=False)

    def check_steps(self, steps: Sequence[int]) -> None:
        sigmas = self.schedule.sigmas.tolist()
        low, high = (1 - ROUNDING) * SIGMA_MIN, (1 + ROUNDING) * SIGMA_MAX
        known = [t for t, sigma in enumerate(sigmas) if low <= sigma <= high]
        if wrong := [t for t in steps if t not in known]:
            advice = "give the denoiser another schedule"
            if known:
                advice = f"choose steps between {known[0]} and {known[-1]}"
            raise InputError(
                f"step {wrong[0]} of the noise schedule ({self.schedule}) has sigma = "
                f"{sigmas[wrong[0]]:.4g}; expected {SIGMA_MIN} to {SIGMA_MAX:g}, the noise levels "
                f"of EDM's networks: {advice}"
            )

    def forward(self, x_t: Tensor, t: int | Tensor, classes: Tensor | None = None) -> Tensor:
        self.check_shape(tuple(x_t.shape[1:]))
        alpha_bar = self._alpha_bar(torch.as_tensor(t, device=x_t.device).view(-1, 1, 1, 1))
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
        c_in = (sigma.square() + SIGMA_DATA**2).rsqrt()
        of_input, of_state, of_output = (
            factor.to(x_t.dtype)
            for factor in (
                c_in / alpha_bar.sqrt(),
                sigma * c_in.square() / alpha_bar.sqrt(),
                SIGMA_DATA * c_in,
            )
        )
        given = () if classes is None else (classes,)
        levels = (sigma.log() / 4).flatten().expand(len(x_t))
        output = self.evaluate(of_input * x_t, levels, *given)
        return of_state * x_t - of_output * output

    def _alpha_bar(self, t: Tensor) -> Tensor:
        """Cumulative alphas of steps, float64, same shape; between two their logarithm is linear.

        At least one dimension: by a number a tensor on a GPU would be waited for.
        """
        known = self._alpha_bar_bits.to(t.device).view(torch.float64)
        if not t.is_floating_point():
            return known[t]
        below = t.floor().long().clamp(max=len(known) - 2)
        return known[below] * (known[below + 1] / known[below]) ** (t - below)


class EDMUNet(ScoreSDEUNet):
    """The network itself: DDPM++, with what EDM adds to the embedded noise level.

    At a test no image was augmented, which adds nothing. A class k of K is told as EDM does, by
    sqrt(K) at the place k of a vector; without one it is a vector of zeros, as in EDM's code where
    no label is given, of which the bias remains.

    Args:
        channels, widths, attention, blocks, first_width: as for
            :class:`~lit_purify.diffusion.score_sde.ScoreSDEUNet`.
        num_classes: labels of a class-conditional network, else 0.
        num_augmentations: parameters of the training's augmentations, 0 without.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        attention: Sequence[bool],
        blocks: int,
        *,
        first_width: int,
        num_classes: int = 0,
        num_augmentations: int = 0,
    ) -> None:
        super().__init__(channels, widths, attention, blocks, first_width=first_width)
        self.classes = nn.Linear(num_classes, first_width) if num_classes else None
        has = num_augmentations > 0
        self.augmentations = nn.Linear(num_augmentations, first_width, bias=False) if has else None

    def embed(self, labels: Tensor, classes: Tensor | None = None) -> Tensor:
        embedded = super().embed(labels)
        if self.classes is None:
            if classes is not None:
                raise InputError("the network is unconditional, got classes; leave them out")
            return embedded
        if classes is None:
            return embedded + self.classes.bias
        told = one_hot(classes, self.classes.in_features).to(embedded)
        return embedded + self.classes(told * math.sqrt(self.classes.in_features))


def edm_unet(
    *,
    channels: int = 3,
    image_size: int = 32,
    model_channels: int = 128,
    block_out_channels: tuple[int, ...] = (256, 256, 256),
    attention_levels: tuple[int, ...] = (1,),
    layers_per_block: int = 4,
    num_classes: int = 0,
    num_augmentations: int = 9,
    seed: int | None = 0,
) -> UNetDenoiser:
    """EDM's DDPM++ network (Karras et al. 2022, "VP"), untrained.

    The defaults are its unconditional CIFAR-10 network of 55.7 M parameters.

    Args:
        channels: image channels C.
        image_size: height and width of the images.
        model_channels: width of the first convolution.
        block_out_channels: width of each resolution level, the finest first.
        attention_levels: levels with attention, 0 is the finest; as for
            :func:`~lit_purify.diffusion.score_sde_unet`.
        layers_per_block: residual blocks per level, besides the one that changes the resolution.
        num_classes: labels of a class-conditional network (10 for CIFAR-10); 0 for an
            unconditional one.
        num_augmentations: parameters of its training's augmentations, 0 without; not used here.
        seed: as in :func:`~lit_purify.diffusion.ddpm_unet`; the defaults take 0.2 GB of memory.

    Raises:
        InputError: sizes of which no network can be made.

    Example:
        >>> denoiser = edm_unet(
        ...     model_channels=8, block_out_channels=(8, 16), layers_per_block=1
        ... )
        >>> denoiser(torch.zeros(2, 3, 32, 32), 10).shape
        torch.Size([2, 3, 32, 32])
    """
    check_sizes(
        block_out_channels,
        channels=channels,
        image_size=image_size,
        model_channels=model_channels,
        layers_per_block=layers_per_block,
    )
    for name, number in {
        "num_classes": num_classes,
        "num_augmentations": num_augmentations,
    }.items():
        if number < 0:
            raise InputError(f"{name} is {number}; expected 0 or more")
    levels = range(len(block_out_channels))
    network = partial(
        EDMUNet,
        channels,
        block_out_channels,
        chosen_levels("attention_levels", attention_levels, levels),
        layers_per_block,
        first_width=model_channels,
        num_classes=num_classes,
        num_augmentations=num_augmentations,
    )
    shape = (channels, image_size, image_size)
    denoiser = untrained("EDM DDPM++", seed, network, image_shape=shape, kind=EDMDenoiser)
    denoiser.num_classes = num_classes
    return denoiser
