"""The networks of diffusers' layers: the shipped denoiser's, and published ones.

The published architectures are built with known random weights, for trying out what they cost; the
weights themselves come from files, see :mod:`lit_purify.checkpoints`. Only :func:`small_unet`, the
one that is trained here, draws its weights from the global random state, as training expects.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from lit_purify.diffusion.denoiser import UNetDenoiser
from lit_purify.diffusion.untrained import check_sizes, chosen_levels, millions, untrained
from lit_purify.types import UNTRAINED, InputError

if TYPE_CHECKING:
    from diffusers import UNet2DModel


def small_unet(
    *,
    channels: int = 3,
    image_size: int = 32,
    patch_size: int = 2,
    block_out_channels: tuple[int, ...] = (64, 128, 128),
    layers_per_block: int = 1,
    norm_num_groups: int = 32,
) -> UNetDenoiser:
    """The untrained network of the shipped denoiser: a U-Net without attention on pixel blocks.

    The last layers of the network and of every residual block begin at zero, as those of Ho et al.
    (2020): it predicts zero at first, every block passes on what it is given, and gradients stay
    small however wide the levels are.

    Args:
        channels: image channels C.
        image_size: height and width of the images.
        patch_size: side of the pixel blocks folded into channels.
        block_out_channels: width of each resolution level.
        layers_per_block: residual blocks per level.
        norm_num_groups: groups of the group normalisation.

    Raises:
        InputError: sizes of which no network can be made.

    Example:
        >>> import torch
        >>> denoiser = small_unet(block_out_channels=(8, 16), norm_num_groups=4)
        >>> denoiser(torch.zeros(2, 3, 32, 32), 10).shape
        torch.Size([2, 3, 32, 32])
    """
    check_sizes(
        block_out_channels,
        channels=channels,
        image_size=image_size,
        patch_size=patch_size,
        layers_per_block=layers_per_block,
        norm_num_groups=norm_num_groups,
    )
    levels = len(block_out_channels)
    folded = channels * patch_size**2
    network = _unet(
        sample_size=image_size // patch_size,
        in_channels=folded,
        out_channels=folded,
        block_out_channels=block_out_channels,
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        norm_num_groups=norm_num_groups,
        add_attention=False,
        resnet_time_scale_shift="scale_shift",
    )
    _silence_last_layers(network)
    denoiser = UNetDenoiser(
        network, patch_size=patch_size, image_shape=(channels, image_size, image_size)
    )
    denoiser.source = f"{UNTRAINED} small U-Net, {millions(network):.1f} M parameters"
    return denoiser


def ddpm_unet(
    *,
    channels: int = 3,
    image_size: int = 32,
    block_out_channels: tuple[int, ...] = (128, 256, 256, 256),
    attention_levels: tuple[int, ...] = (1,),
    layers_per_block: int = 2,
    norm_num_groups: int = 32,
    seed: int | None = 0,
) -> UNetDenoiser:
    """The U-Net of "Denoising Diffusion Probabilistic Models" (Ho et al. 2020), untrained.

    The defaults are its CIFAR-10 network of 35.7 M parameters: attention with a single head at
    16x16 and at the bottom.

    Args:
        channels: image channels C.
        image_size: height and width of the images.
        block_out_channels: width of each resolution level, the finest first.
        attention_levels: levels with attention after every residual block; 0 is the finest.
        layers_per_block: residual blocks per level.
        norm_num_groups: groups of the group normalisation.
        seed: of the random weights; ``None`` gives a network without any, on the meta device,
            that takes no memory and cannot be evaluated.

    Raises:
        InputError: sizes of which no network can be made.

    Example:
        >>> import torch
        >>> denoiser = ddpm_unet(block_out_channels=(8, 16), norm_num_groups=4)
        >>> denoiser(torch.zeros(2, 3, 32, 32), 10).shape
        torch.Size([2, 3, 32, 32])
        >>> ddpm_unet(seed=None).source
        'DDPM U-Net, 35.7 M parameters, without weights'
    """
    check_sizes(
        block_out_channels,
        channels=channels,
        image_size=image_size,
        layers_per_block=layers_per_block,
        norm_num_groups=norm_num_groups,
    )
    levels = range(len(block_out_channels))
    attention = chosen_levels("attention_levels", attention_levels, levels)
    network = partial(
        _unet,
        sample_size=image_size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=block_out_channels,
        layers_per_block=layers_per_block,
        down_block_types=["AttnDownBlock2D" if has else "DownBlock2D" for has in attention],
        up_block_types=["AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)],
        attention_head_dim=None,  # a single head
        norm_num_groups=norm_num_groups,
        norm_eps=1e-6,
        downsample_padding=0,  # a row and a column of zeros at the far ends only
        flip_sin_to_cos=False,  # sines first,
        freq_shift=1,  # and frequencies that end at 1/10000
    )
    return untrained("DDPM", seed, network, image_shape=(channels, image_size, image_size))


def guided_diffusion_unet(
    *,
    channels: int = 3,
    image_size: int = 256,
    model_channels: int = 256,
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4),
    num_res_blocks: int = 2,
    attention_resolutions: tuple[int, ...] = (32, 16, 8),
    num_head_channels: int | None = None,
    num_heads: int | None = None,
    learn_sigma: bool = True,
    resblock_updown: bool = True,
    norm_num_groups: int = 32,
    seed: int | None = 0,
) -> UNetDenoiser:
    """The U-Net of guided diffusion (Dhariwal & Nichol 2021), unconditional and untrained.

    The defaults are OpenAI's ImageNet network at 256x256, of 552.8 M parameters. Resolutions change
    inside residual blocks, and the step scales and shifts the normalised features. Without
    ``resblock_updown`` it is the network of improved diffusion (Nichol & Dhariwal 2021).

    Args:
        channels: image channels C.
        image_size: height and width of the images.
        model_channels: width of the finest level.
        channel_mult: width of each resolution level in units of ``model_channels``, the finest
            first; it begins with 1.
        num_res_blocks: residual blocks per level.
        attention_resolutions: sides in pixels of the levels with attention; those of
            ``image_size`` 64 and three levels are 64, 32 and 16. The bottom always has one.
        num_head_channels: width of an attention head; ``None`` is 64, unless ``num_heads`` says.
        num_heads: instead of that, the number of heads, the same at every level.
        learn_sigma: give 2 C channels: the noise, then the values of ``learned_range``.
        resblock_updown: change resolution in residual blocks, instead of in a convolution of
            stride 2 and, on the way up, one behind a nearest-neighbour interpolation.
        norm_num_groups: groups of the group normalisation.
        seed: as in :func:`ddpm_unet`; the defaults take 2.2 GB of memory.

    Raises:
        InputError: sizes of which no network can be made.

    Example:
        >>> import torch
        >>> denoiser = guided_diffusion_unet(
        ...     image_size=16, model_channels=8, channel_mult=(1, 2), attention_resolutions=(8,),
        ...     num_head_channels=4, norm_num_groups=4,
        ... )
        >>> denoiser(torch.zeros(2, 3, 16, 16), 10).shape
        torch.Size([2, 6, 16, 16])
    """
    if not channel_mult or channel_mult[0] != 1:
        raise InputError(
            f"channel_mult is {list(channel_mult)}; expected a list that begins with 1, the finest "
            "level's width in units of model_channels"
        )
    widths = tuple(model_channels * factor for factor in channel_mult)
    name, heads = _one_of(num_head_channels=num_head_channels, num_heads=num_heads)
    check_sizes(
        widths,
        channels=channels,
        image_size=image_size,
        model_channels=model_channels,
        num_res_blocks=num_res_blocks,
        **{name: heads},
        norm_num_groups=norm_num_groups,
    )
    sides = [image_size // 2**level for level in range(len(widths))]
    attention = chosen_levels("attention_resolutions", attention_resolutions, sides)
    attended = {width for width, has in zip(widths, attention, strict=True) if has} | {widths[-1]}
    for width in sorted(attended):
        if width % heads:
            raise InputError(
                f"{name} is {heads}; expected a divisor of the width of every level with "
                f"attention, and one has {width}"
            )
    kind, down, up = "conv", "DownBlock2D", "UpBlock2D"
    if resblock_updown:
        kind, down, up = "resnet", "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
    network = partial(
        _unet,
        sample_size=image_size,
        in_channels=channels,
        out_channels=2 * channels if learn_sigma else channels,
        block_out_channels=widths,
        layers_per_block=num_res_blocks,
        down_block_types=["AttnDownBlock2D" if has else down for has in attention],
        up_block_types=["AttnUpBlock2D" if has else up for has in reversed(attention)],
        downsample_type=kind,
        upsample_type=kind,
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=None if num_heads else heads,  # none: one head, until it is divided
        norm_num_groups=norm_num_groups,
        attn_norm_num_groups=norm_num_groups,
        norm_eps=1e-5,
        flip_sin_to_cos=True,  # cosines first,
        freq_shift=0,  # and frequencies that end before 1/10000
    )
    shape = (channels, image_size, image_size)
    denoiser = untrained("guided-diffusion", seed, network, image_shape=shape)
    if num_heads:
        _divide_heads(denoiser.network, num_heads)
    return denoiser


def _one_of(*, num_head_channels: int | None, num_heads: int | None) -> tuple[str, int]:
    """What an attention is divided by, and its name."""
    if num_heads is None:
        return "num_head_channels", 64 if num_head_channels is None else num_head_channels
    if num_head_channels is None:
        return "num_heads", num_heads
    raise InputError(
        f"num_heads is {num_heads} and num_head_channels {num_head_channels}; expected one of "
        "them: drop the other"
    )


def _divide_heads(network: nn.Module, num_heads: int) -> None:
    """Give every attention so many heads; diffusers knows one width of a head for all levels."""
    from diffusers.models.attention_processor import Attention

    for module in network.modules():
        if isinstance(module, Attention):
            module.heads = module.sliceable_head_dim = num_heads
            module.scale = (module.inner_dim // num_heads) ** -0.5


def _unet(**config: Any) -> UNet2DModel:
    from diffusers import UNet2DModel  # takes seconds

    return UNet2DModel(**config)


def _silence_last_layers(network: UNet2DModel) -> None:
    """Set the last convolution of the network and of every residual block to zero."""
    from diffusers.models.resnet import ResnetBlock2D

    blocks = [module for module in network.modules() if isinstance(module, ResnetBlock2D)]
    for last in (network.conv_out, *(block.conv2 for block in blocks)):
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
