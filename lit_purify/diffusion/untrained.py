"""Networks with random weights that a seed decides, or with none, and the sizes they can have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from lit_purify.diffusion.denoiser import UNetDenoiser
from lit_purify.types import UNTRAINED, InputError


def untrained(
    name: str,
    seed: int | None,
    network: Callable[[], nn.Module],
    *,
    image_shape: tuple[int, int, int],
    kind: type[UNetDenoiser] = UNetDenoiser,
) -> UNetDenoiser:
    """A denoiser around a new network, which its source calls untrained.

    Args:
        name: of the architecture.
        seed: of the random weights; ``None`` leaves the network on the meta device.
        network: makes it.
        image_shape: (C, H, W) that it is made for.
        kind: class of the denoiser around it.

    Raises:
        InputError: a seed that cannot be.
    """
    if seed is not None and not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; expected an integer 0 .. {2**32 - 1}, or null")
    # Without memory first: the library would fill the weights from the global random state.
    with torch.device("meta"):
        made = network()
    size = millions(made)
    source = f"{name} U-Net, {size:.1f} M parameters, without weights"
    if seed is not None:
        _fill(made.to_empty(device="cpu"), seed)
        source = f"{UNTRAINED} {name} U-Net, {size:.1f} M parameters, random weights of seed {seed}"
    denoiser = kind(made, image_shape=image_shape)
    denoiser.source = source
    return denoiser


def millions(network: nn.Module) -> float:
    """Parameters of a network, in millions."""
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def _fill(network: nn.Module, seed: int) -> None:
    """Weights and biases uniform within 1 / sqrt(fan-in), normalisations 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.GroupNorm):
            nn.init.ones_(own["weight"])
            nn.init.zeros_(own["bias"])
        elif own:
            bound = 1 / math.sqrt(own["weight"][0].numel())
            for parameter in own.values():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)


def check_sizes(
    widths: Sequence[int],
    *,
    image_size: int,
    norm_num_groups: int = 1,
    patch_size: int = 1,
    **sizes: int,
) -> None:
    """Raise unless levels of such widths can be made, and images of this size halved for them."""
    sizes |= {
        "image_size": image_size,
        "norm_num_groups": norm_num_groups,
        "patch_size": patch_size,
    }
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} is {size}; expected 1 or more")
    if not widths or any(width < 1 or width % norm_num_groups for width in widths):
        raise InputError(
            "the widths of the levels (block_out_channels, or model_channels * channel_mult) are "
            f"{list(widths)}; expected one or more multiples of norm_num_groups = {norm_num_groups}"
        )
    unit = patch_size * 2 ** (len(widths) - 1)
    if image_size % unit:
        raise InputError(
            f"image_size is {image_size}; expected a multiple of {unit}, which {len(widths)} "
            f"levels on blocks of {patch_size} x {patch_size} pixels ask for"
        )


def chosen_levels(name: str, choice: Sequence[int], levels: Sequence[int]) -> list[bool]:
    """Which levels are among those chosen for attention, raising for a choice that is no level."""
    wrong = sorted(set(choice) - set(levels))
    if wrong:
        known = ", ".join(map(str, levels))
        raise InputError(f"{name} holds {wrong[0]}; expected some of the levels {known}")
    return [level in choice for level in levels]
