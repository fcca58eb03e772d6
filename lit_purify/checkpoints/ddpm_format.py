"""The PyTorch conversion of Ho et al.'s networks by pesser: a bare state_dict.

Its names follow the paper's TensorFlow code: ``down.i.block.j``, ``mid.block_1``, ``up.i.attn.j``,
where i is the resolution level, 0 the finest, on the way up too. Projections of the attention are
1x1 convolutions. Widths, levels and attention are read from names and shapes; everything else is
the format's convention, see :func:`~lit_purify.diffusion.architectures.ddpm_unet`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from lit_purify.checkpoints.layout import Reading, Source, build, count, shape_in
from lit_purify.diffusion.architectures import ddpm_unet

NAMES = (
    (r"^time_embedding\.linear_1\.", "temb.dense.0."),
    (r"^time_embedding\.linear_2\.", "temb.dense.1."),
    (r"^conv_norm_out\.", "norm_out."),
    (r"^(down|up)_blocks\.(\d+)\.resnets\.", r"\1.\2.block."),
    (r"^(down|up)_blocks\.(\d+)\.attentions\.", r"\1.\2.attn."),
    (r"^(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r"\1.\2.\3sample."),
    (r"^mid_block\.resnets\.0\.", "mid.block_1."),
    (r"^mid_block\.resnets\.1\.", "mid.block_2."),
    (r"^mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"\.time_emb_proj\.", ".temb_proj."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
)
"""From a parameter of diffusers' ``UNet2DModel`` to the file, but for the order of ``up``."""

SIDES: dict[tuple[tuple[int, ...], tuple[int, ...], int], int] = {
    ((128, 256, 256, 256), (1,), 2): 32,  # CIFAR-10
    ((128, 128, 256, 256, 512, 512), (4,), 2): 256,  # CelebA-HQ, LSUN
}
"""Image sizes of the published networks by widths, levels with attention, and blocks a level."""


def recognises(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are of this format."""
    return "temb.dense.0.weight" in tensors or any(
        name.startswith("down.0.block.") for name in tensors
    )


def read(tensors: Mapping[str, Tensor], file: Path) -> Reading:
    """The network that names and shapes describe, and where its parameters come from.

    Raises:
        InputError: they describe none.
    """
    levels = count(tensors, r"down\.(\d+)\.")
    shapes = [
        shape_in(tensors, f"down.{level}.block.0.conv1.weight", 4, file) for level in range(levels)
    ]
    widths = tuple(shape[0] for shape in shapes)
    attention = tuple(
        level
        for level in range(levels)
        if any(name.startswith(f"down.{level}.attn.") for name in tensors)
    )
    blocks = count(tensors, r"down\.0\.block\.(\d+)\.")
    side = SIDES.get((widths, attention, blocks))
    denoiser = build(
        file,
        ddpm_unet,
        channels=shape_in(tensors, "conv_in.weight", 4, file)[1],
        image_size=side or 2 ** max(levels - 1, 0),
        block_out_channels=widths,
        attention_levels=attention,
        layers_per_block=blocks,
        seed=None,
    )
    if side is None:
        denoiser.image_shape = None
    return Reading(denoiser, partial(_source, levels=levels))


def _source(name: str, shape: tuple[int, ...], *, levels: int) -> Source:
    stored = name
    for pattern, replacement in NAMES:
        stored = re.sub(pattern, replacement, stored)
    stored = re.sub(r"^up\.(\d+)", lambda found: f"up.{levels - 1 - int(found[1])}", stored)
    if re.search(r"\.attentions\.\d+\.to_\w+(\.0)?\.weight$", name):
        return Source(stored, (*shape, 1, 1))
    return Source(stored, shape)
