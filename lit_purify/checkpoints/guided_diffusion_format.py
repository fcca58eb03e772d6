"""OpenAI's networks of guided and of improved diffusion: a bare state_dict.

Blocks are numbered through: ``input_blocks.0`` is a convolution, then come the residual blocks of
each level and the one that halves the resolution (in improved diffusion a convolution);
``output_blocks`` go back up. Widths, levels and attention are read from names and shapes. No shape
tells how an attention is divided into heads, nor the order of the ``qkv`` convolution's rows: in
the legacy one a head's queries, keys and values follow one another, head by head; in the new one
come the queries of all heads, then the keys, then the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from lit_purify.checkpoints.layout import Reading, Source, build, count, shape_in
from lit_purify.diffusion.architectures import guided_diffusion_unet
from lit_purify.types import InputError

PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
    "group_norm": "norm",
    "to_q": "qkv",
    "to_k": "qkv",
    "to_v": "qkv",
    "to_out.0": "proj_out",
    "conv": "conv",
}
"""Layers of residual and attention blocks, and of a convolution that changes the resolution:
diffusers' name, and the file's, which is ``op`` on the way down for the last."""

ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
"""The layers outside any block."""

SIDES: dict[tuple[int, tuple[int, ...], int, tuple[int, ...], bool], int] = {
    (256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), True): 256,  # guided diffusion, ImageNet
    (128, (1, 2, 2, 2), 3, (1, 2), False): 32,  # improved diffusion, CIFAR-10
    (128, (1, 2, 3, 4), 3, (2, 3), False): 64,  # improved diffusion, ImageNet
}
"""Image sizes of the published networks by model_channels, channel_mult, num_res_blocks, levels
with attention, and resblock_updown."""

_CONVOLUTIONS = re.compile(r"input_blocks\.\d+\.0\.op\.")


def recognises(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are of this format."""
    return "input_blocks.0.0.weight" in tensors or "time_embed.0.weight" in tensors


def read(
    tensors: Mapping[str, Tensor],
    file: Path,
    *,
    num_head_channels: int | None = None,
    num_heads: int | None = None,
    use_new_attention_order: bool = False,
    rescale_timesteps: bool = False,
) -> Reading:
    """The network that names and shapes describe, and where its parameters come from.

    Args:
        tensors: of the file.
        file: for messages.
        num_head_channels: width of an attention head; ``None`` is 64, unless ``num_heads`` says.
        num_heads: instead of that, the number of heads, the same at every level.
        use_new_attention_order: whether the rows of all heads' queries come first.
        rescale_timesteps: whether steps are counted in thousandths of the schedule.

    Raises:
        InputError: they describe none, or one of a kind that this package does not run.
    """
    channels = shape_in(tensors, "input_blocks.0.0.weight", 4, file)[1]
    _refuse_other_kinds(tensors, file, channels)
    blocks, levels = _structure(tensors, file)
    widths = [
        shape_in(
            tensors, f"input_blocks.{level * (blocks + 1) + 1}.0.out_layers.3.weight", 4, file
        )[0]
        for level in range(levels)
    ]
    attention = [
        any(name.startswith(f"input_blocks.{level * (blocks + 1) + 1}.1.") for name in tensors)
        for level in range(levels)
    ]
    model_channels = shape_in(tensors, "time_embed.0.weight", 2, file)[1]
    if model_channels < 1 or any(width % model_channels for width in widths):
        raise InputError(
            f"{file} has levels of widths {widths}, which are no multiples of its model_channels "
            f"{model_channels}; give the checkpoint of a network with an integer channel_mult"
        )
    factors = tuple(width // model_channels for width in widths)
    attended = tuple(level for level in range(levels) if attention[level])
    resblock_updown = not any(map(_CONVOLUTIONS.match, tensors))
    published = SIDES.get((model_channels, factors, blocks, attended, resblock_updown))
    side = published or 2 ** (levels - 1)  # any size would do: the shapes know levels only
    denoiser = build(
        file,
        guided_diffusion_unet,
        channels=channels,
        image_size=side,
        model_channels=model_channels,
        channel_mult=factors,
        num_res_blocks=blocks,
        attention_resolutions=tuple(side // 2**level for level in attended),
        num_head_channels=num_head_channels,
        num_heads=num_heads,
        learn_sigma=shape_in(tensors, "out.2.weight", 4, file)[0] == 2 * channels,
        resblock_updown=resblock_updown,
        seed=None,
    )
    denoiser.rescale_timesteps = rescale_timesteps
    if published is None:
        denoiser.image_shape = None
    source = partial(_source, blocks=blocks, attention=attention)
    if use_new_attention_order:
        return Reading(denoiser, partial(source, heads_of=lambda _: 1))
    return Reading(denoiser, partial(source, heads_of=partial(_heads, denoiser.network)))


def _refuse_other_kinds(tensors: Mapping[str, Tensor], file: Path, channels: int) -> None:
    kind = None
    if "label_emb.weight" in tensors:
        kind = "is class-conditional (it holds label_emb.weight)"
    elif channels not in (1, 3):
        kind = f"takes {channels} input channels, as super-resolution networks do"
    elif _adds_the_step(tensors):
        kind = "adds the step to the features (it was trained without use_scale_shift_norm)"
    if kind:
        raise InputError(
            f"{file} is a guided-diffusion network that {kind}; expected an unconditional one for "
            "images of 1 or 3 channels with use_scale_shift_norm, such as "
            "256x256_diffusion_uncond.pt"
        )


def _adds_the_step(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a residual block takes one value per channel from the step, not scale and shift."""
    step, features = "input_blocks.1.0.emb_layers.1.bias", "input_blocks.1.0.out_layers.3.bias"
    found = step in tensors and features in tensors
    return found and tensors[step].shape == tensors[features].shape


def _structure(tensors: Mapping[str, Tensor], file: Path) -> tuple[int, int]:
    """Residual blocks a level, and levels.

    The number of input blocks is (blocks + 1) * levels. Only a level's last output block holds a
    second residual block, or a convolution, the one that doubles the resolution.
    """
    pattern = re.compile(r"output_blocks\.(\d+)\.[12]\.(in_layers|emb_layers|out_layers|conv)\.")
    lasts = [int(found[1]) for found in map(pattern.match, tensors) if found]
    total = count(tensors, r"input_blocks\.(\d+)\.")
    blocks = min(lasts) if lasts else total - 1
    if blocks < 1 or total % (blocks + 1):
        raise InputError(
            f"{file} has {total} input blocks and its first upsampling in output block {blocks}; "
            "expected a guided-diffusion network with the same number of residual blocks at every "
            "level, and something that changes the resolution between them"
        )
    return blocks, total // (blocks + 1)


def _source(
    name: str,
    shape: tuple[int, ...],
    *,
    blocks: int,
    attention: list[bool],
    heads_of: Callable[[str], int],
) -> Source:
    layer, kind = name.rsplit(".", 1)
    if layer in ENDS:
        return Source(f"{ENDS[layer]}.{kind}", shape)
    found = re.fullmatch(r"(\w+)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)", layer)
    assert found is not None, name
    side, number, group, index = found[1], int(found[2] or 0), found[3], int(found[4])
    place = "op" if (side, found[5]) == ("down", "conv") else PARTS[found[5]]
    stored = f"{_block(side, number, group, index, blocks, attention)}.{place}.{kind}"
    if found[5] in ("to_q", "to_k", "to_v"):
        part = ("to_q", "to_k", "to_v").index(found[5])
        rest = (*shape[1:], 1) if kind == "weight" else ()
        heads = heads_of(layer.rsplit(".", 1)[0])
        return Source(stored, (3 * shape[0], *rest), partial(_rows, part=part, heads=heads))
    if found[5] == "to_out.0" and kind == "weight":
        return Source(stored, (*shape, 1))
    return Source(stored, shape)


def _block(
    side: str, number: int, group: str, index: int, blocks: int, attention: list[bool]
) -> str:
    """Where a residual or attention block of diffusers is in the file."""
    if side == "mid":
        return f"middle_block.{1 if group == 'attentions' else 2 * index}"
    first = number * (blocks + 1)
    if side == "down":
        # After the first convolution: the level's blocks, then the one that halves the side.
        index = blocks if group == "downsamplers" else index
        return f"input_blocks.{1 + first + index}.{int(group == 'attentions')}"
    if group == "upsamplers":  # beside the level's last residual block and its attention
        return f"output_blocks.{first + blocks}.{2 if attention[-1 - number] else 1}"
    return f"output_blocks.{first + index}.{int(group == 'attentions')}"


def _heads(network: nn.Module, attention: str) -> int:
    """Number of heads of an attention, by its name in the network."""
    return cast(int, network.get_submodule(attention).heads)


def _rows(qkv: Tensor, *, part: int, heads: int) -> Tensor:
    """The queries', keys' or values' rows, head after head.

    The new order is the legacy one of a single head: there are no heads to take apart.
    """
    return qkv.reshape(heads, 3, -1, *qkv.shape[1:])[:, part]
