"""EDM's DDPM++ networks (Karras et al. 2022, "VP"): the ``state_dict`` of a preconditioned network.

Blocks are named by the side of their images, ``model.enc.32x32_block0``, and the middle of the
network, which the decoder begins with, ``model.dec.8x8_in0``. An attention is part of the residual
block before it; the rows of its ``qkv`` convolution take turns: a query's, a key's, a value's.
Layers that change the resolution hold the filter they do it with, which here is a mean of four.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor

from lit_purify.checkpoints.layout import Reading, Source, build, count, shape_in
from lit_purify.diffusion.edm import edm_unet
from lit_purify.diffusion.score_sde import ScoreSDEUNet
from lit_purify.types import InputError

ENDS = {
    "label_in": "map_layer0",
    "label_out": "map_layer1",
    "classes": "map_label",
    "augmentations": "map_augment",
    "conv_in": "enc.{side}x{side}_conv",
    "norm_out": "dec.{side}x{side}_aux_norm",
    "conv_out": "dec.{side}x{side}_aux_conv",
}
"""The layers outside any block: the network's name, and the file's."""

LAYERS = {
    "norm1": "norm0",
    "conv1": "conv0",
    "label": "affine",
    "norm2": "norm1",
    "conv2": "conv1",
    "shortcut": "skip",
    "attention.norm": "norm2",
    "attention.query": "qkv",
    "attention.key": "qkv",
    "attention.value": "qkv",
    "attention.out": "proj",
}
"""The layers of a block, likewise."""

TURNS = ("attention.query", "attention.key", "attention.value")
"""Whose rows the first, the second and the third of every three rows of ``qkv`` are."""

OTHER_KINDS = {
    r"model\.map_noise\.freqs": "its NCSN++ (VE) network",
    r"model\.enc\.\d+x\d+_aux_": "its NCSN++ (VE) network",
    r"model\.out_conv\.": "its ADM network",
}
"""Tensors of EDM's other networks."""


def recognises(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are of this format."""
    return "model.map_layer0.weight" in tensors or any(
        re.match(r"model\.enc\.\d+x\d+_", name) for name in tensors
    )


def read(tensors: dict[str, Tensor], file: Path) -> Reading:
    """The network that names and shapes describe, and where its parameters come from.

    Args:
        tensors: of the file; the filters, once compared, are taken out of them.
        file: for messages.

    Raises:
        InputError: they describe none, or one of EDM's other networks.
    """
    _take_filters(tensors, file)
    sides = _sides(tensors, file)
    blocks = count(tensors, rf"model\.enc\.{sides[0]}x{sides[0]}_block(\d+)\.")
    firsts = [f"model.enc.{side}x{side}_block0" for side in sides]
    conv_in = f"model.enc.{sides[0]}x{sides[0]}_conv.weight"
    width, channels, *_ = shape_in(tensors, conv_in, 4, file)
    classes, augmentations = (
        shape_in(tensors, name, 2, file)[1] if name in tensors else 0
        for name in ("model.map_label.weight", "model.map_augment.weight")
    )
    denoiser = build(
        file,
        edm_unet,
        channels=channels,
        image_size=sides[0],
        model_channels=width,
        block_out_channels=tuple(
            shape_in(tensors, f"{first}.conv0.weight", 4, file)[0] for first in firsts
        ),
        attention_levels=tuple(
            level for level, first in enumerate(firsts) if f"{first}.qkv.weight" in tensors
        ),
        layers_per_block=blocks,
        num_classes=classes,
        num_augmentations=augmentations,
        seed=None,
    )
    inner = (name for name, _ in cast(ScoreSDEUNet, denoiser.network).named_blocks())
    found = [name for name in inner if not name.endswith(".attention")]
    places = dict(zip(found, _blocks(sides, blocks), strict=True))
    note = f", class-conditional ({classes} classes)" if classes else ""
    return Reading(denoiser, partial(_source, places=places, side=sides[0]), note)


def _take_filters(tensors: dict[str, Tensor], file: Path) -> None:
    """Take the filters out: means of 2 x 2 pixels, which the network computes without them."""
    for name in [name for name in tensors if name.endswith(".resample_filter")]:
        values = tensors.pop(name)
        if values.shape != (1, 1, 2, 2) or not bool((values == 0.25).all()):
            raise InputError(
                f"{file} resamples by other filters ({name}, shape {tuple(values.shape)}) than "
                "means of 2 x 2 pixels; expected EDM's DDPM++ (VP) network: give its file"
            )


def _sides(tensors: Mapping[str, Tensor], file: Path) -> list[int]:
    """Sides in pixels of the levels, the finest first."""
    for pattern, kind in OTHER_KINDS.items():
        if any(re.match(pattern, name) for name in tensors):
            raise InputError(
                f"{file} holds EDM's weights for {kind}; expected its DDPM++ (VP) network, such as "
                "that of edm-cifar10-32x32-uncond-vp.pkl: give its file"
            )
    matches = (re.match(r"model\.enc\.(\d+)x\1_", name) for name in tensors)
    sides = sorted({int(found[1]) for found in matches if found}, reverse=True)
    if not sides or [sides[0] // 2**level for level in range(len(sides))] != sides:
        raise InputError(
            f"{file} has levels of {sides} pixels in model.enc; expected each to have half the "
            "side of the one before: save the network's whole state_dict again"
        )
    return sides


def _blocks(sides: list[int], blocks: int) -> list[str]:
    """The file's residual blocks in the order of their use."""
    names = []
    for side in sides:
        names += [f"enc.{side}x{side}_down"] if side != sides[0] else []
        names += [f"enc.{side}x{side}_block{i}" for i in range(blocks)]
    names += [f"dec.{sides[-1]}x{sides[-1]}_in{i}" for i in range(2)]
    for side in reversed(sides):
        names += [f"dec.{side}x{side}_up"] if side != sides[-1] else []
        names += [f"dec.{side}x{side}_block{i}" for i in range(blocks + 1)]
    return names


def _source(name: str, shape: tuple[int, ...], *, places: Mapping[str, str], side: int) -> Source:
    layer, kind = name.rsplit(".", 1)
    if layer in ENDS:
        return Source(f"model.{ENDS[layer].format(side=side)}.{kind}", shape)
    part, index, layer = layer.split(".", 2)
    stored = f"model.{places[f'{part}.{index}']}.{LAYERS[layer]}.{kind}"
    if layer.startswith("attention.") and kind == "weight" and len(shape) == 2:
        shape = (*shape, 1, 1)
    if layer in TURNS:
        return Source(stored, (3 * shape[0], *shape[1:]), partial(_rows, part=TURNS.index(layer)))
    return Source(stored, shape)


def _rows(qkv: Tensor, *, part: int) -> Tensor:
    """The queries', keys' or values' rows."""
    return qkv[part::3]
