"""Score-SDE's PyTorch networks (Song et al. 2021): a training's checkpoint, or a bare state_dict.

All layers stand in one list, ``all_modules``: two linear ones for the label, the first convolution,
residual blocks and attentions in the order of their use, the last normalisation and convolution.
Projections of an attention (``NIN_*``) are stored with the inputs first. ``sigmas``, a buffer that
networks of this kind do not read, may lie beside them.

A checkpoint such as ``checkpoint_8.pth`` holds ``model``, the weights of the last step, and
``ema.shadow_params``, the averaged ones that the published results are of: a list without names in
the order of the parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard, cast

from torch import Tensor

from lit_purify.checkpoints.layout import Reading, Source, build, shape_in
from lit_purify.diffusion.score_sde import ScoreSDEUNet, score_sde_unet
from lit_purify.types import InputError

LAYERS = {
    "norm1": "GroupNorm_0",
    "conv1": "Conv_0",
    "label": "Dense_0",
    "norm2": "GroupNorm_1",
    "conv2": "Conv_1",
    "shortcut": "Conv_2",
    "norm": "GroupNorm_0",
    "query": "NIN_0",
    "key": "NIN_1",
    "value": "NIN_2",
    "out": "NIN_3",
}
"""Layers of residual blocks and attentions: the network's name, and the file's."""

FIRST, LAST = ("label_in", "label_out", "conv_in"), ("norm_out", "conv_out")
"""The layers before the first residual block, and behind the last."""

UNREAD = "sigmas"
"""A buffer that is not read."""

CIFAR10 = {"block_out_channels": (128, 256, 256, 256), "attention_levels": (1,)}
"""The published networks whose image size is known by their shapes: 32."""


def is_checkpoint(content: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether what a file holds is the checkpoint of a training."""
    return isinstance(content, Mapping) and {"model", "ema"} <= content.keys()


def averaged_weights(checkpoint: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint under the names of ``model``.

    Raises:
        InputError: they are not there, or not as many and of the same shapes as ``model``'s.
    """
    model, ema = checkpoint["model"], checkpoint["ema"]
    averaged = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(averaged, (list, tuple)):
        raise InputError(
            f"{file} holds model and ema, and no weights in them; expected a state_dict in model "
            "and a list of tensors in ema.shadow_params, as Score-SDE's training writes them"
        )
    names = [name for name in model if str(name).rsplit(".", 1)[-1] != UNREAD]
    if [_shape(model[name]) for name in names] != [_shape(x) for x in averaged]:
        raise InputError(
            f"{file} has {len(averaged)} averaged weights in ema.shadow_params and {len(names)} in "
            "model; expected as many, of the same shapes in the same order: download it again"
        )
    return dict(zip(names, averaged, strict=True))


def recognises(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are of this format."""
    return any(name.startswith("all_modules.") for name in tensors)


def read(tensors: dict[str, Tensor], file: Path) -> Reading:
    """The network that names and shapes describe, and where its parameters come from.

    Args:
        tensors: of the file; ``sigmas`` is taken out of them.
        file: for messages.

    Raises:
        InputError: they describe none.
    """
    tensors.pop(UNREAD, None)
    levels, blocks, firsts = _structure(tensors, file)
    architecture = {
        "block_out_channels": tuple(
            shape_in(tensors, f"all_modules.{first}.Conv_0.weight", 4, file)[0] for first in firsts
        ),
        "attention_levels": tuple(
            level
            for level, first in enumerate(firsts)
            if f"all_modules.{first + 1}.NIN_0.W" in tensors
        ),
    }
    denoiser = build(
        file,
        score_sde_unet,
        channels=shape_in(tensors, "all_modules.2.weight", 4, file)[1],
        image_size=32 if architecture == CIFAR10 else 2 ** (levels - 1),
        layers_per_block=blocks,
        seed=None,
        **architecture,
    )
    if architecture != CIFAR10:
        denoiser.image_shape = None
    inner = (name for name, _ in cast(ScoreSDEUNet, denoiser.network).named_blocks())
    places = {name: f"all_modules.{i}" for i, name in enumerate((*FIRST, *inner, *LAST))}
    return Reading(denoiser, partial(_source, places=places))


def _structure(tensors: Mapping[str, Tensor], file: Path) -> tuple[int, int, list[int]]:
    """Levels, residual blocks a level, and the places of the first residual block of each.

    Of L levels with n blocks each there are L n on the way down, L (n + 1) on the way up, two
    between, and L - 1 that halve and that double the resolution. Only these have a shortcut that
    leaves the width as it is.
    """
    found = (re.fullmatch(r"all_modules\.(\d+)\.Conv_0\.weight", name) for name in tensors)
    residual = sorted(int(place[1]) for place in found if place)
    resampling = 0
    for place in residual:
        width, width_in, *_ = shape_in(tensors, f"all_modules.{place}.Conv_0.weight", 4, file)
        has_shortcut = f"all_modules.{place}.Conv_2.weight" in tensors
        resampling += has_shortcut and width == width_in
    levels = 1 + resampling // 2
    blocks, rest = divmod(len(residual) - 3 * levels, 2 * levels)
    if rest or blocks < 1:
        raise InputError(
            f"{file} has {len(residual)} residual blocks, of which {resampling} change the "
            "resolution; expected the same number at every level, as in DDPM++ without filters"
        )
    return levels, blocks, residual[: levels * (blocks + 1) : blocks + 1]


def _shape(value: object) -> object:
    return value.shape if isinstance(value, Tensor) else type(value)


def _source(name: str, shape: tuple[int, ...], *, places: Mapping[str, str]) -> Source:
    layer, kind = name.rsplit(".", 1)
    if layer in places:
        return Source(f"{places[layer]}.{kind}", shape)
    block, layer = layer.rsplit(".", 1)
    stored = f"{places[block]}.{LAYERS[layer]}"
    if not LAYERS[layer].startswith("NIN"):
        return Source(f"{stored}.{kind}", shape)
    if kind == "bias":
        return Source(f"{stored}.b", shape)
    return Source(f"{stored}.W", shape[::-1], Tensor.t)
