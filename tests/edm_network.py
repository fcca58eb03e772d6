"""EDM's DDPM++ network, computed again from tensors under their original names.

Written from the papers and from the facts of the format, with nothing of the package.
"""

import math
from typing import Any

import torch
from published_networks import random_state
from torch import Tensor
from torch.nn import functional as F

Shapes = dict[str, tuple[int, ...]]
SMALL = {"sides": (16, 8), "first": 16, "width": 32, "blocks": 1, "attention": (8,)}


def table(
    *,
    sides: tuple[int, ...] = (32, 16, 8),
    first: int = 128,
    width: int = 256,
    blocks: int = 4,
    attention: tuple[int, ...] = (16,),
    classes: int = 0,
    augmentations: int = 9,
    channels: int = 3,
) -> Shapes:
    """Every tensor of a file; the defaults are the unconditional CIFAR-10 network's."""
    shapes: Shapes = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"model.{name}.weight"] = shape
        if bias:
            shapes[f"model.{name}.bias"] = shape[:1]

    def block(name: str, n_in: int, n_out: int, *, change: bool = False, has: bool = False) -> None:
        layer(f"{name}.norm0", n_in)
        layer(f"{name}.conv0", n_out, n_in, 3, 3)
        layer(f"{name}.affine", n_out, 4 * first)
        layer(f"{name}.norm1", n_out)
        layer(f"{name}.conv1", n_out, n_out, 3, 3)
        if change or n_in != n_out:
            layer(f"{name}.skip", n_out, n_in, 1, 1)
        if change:
            for resampled in ("conv0", "skip"):
                shapes[f"model.{name}.{resampled}.resample_filter"] = (1, 1, 2, 2)
        if has:
            layer(f"{name}.norm2", n_out)
            layer(f"{name}.qkv", 3 * n_out, n_out, 1, 1)
            layer(f"{name}.proj", n_out, n_out, 1, 1)

    if classes:
        layer("map_label", first, classes)
    if augmentations:
        layer("map_augment", first, augmentations, bias=False)
    layer("map_layer0", 4 * first, first)
    layer("map_layer1", 4 * first, 4 * first)
    skips = [first]
    layer(f"enc.{sides[0]}x{sides[0]}_conv", first, channels, 3, 3)
    for side in sides:
        if side != sides[0]:
            block(f"enc.{side}x{side}_down", width, width, change=True)
            skips.append(width)
        for i in range(blocks):
            block(f"enc.{side}x{side}_block{i}", skips[-1], width, has=side in attention)
            skips.append(width)
    for side in reversed(sides):
        name = f"dec.{side}x{side}"
        if side == sides[-1]:
            block(f"{name}_in0", width, width, has=True)
            block(f"{name}_in1", width, width)
        else:
            block(f"{name}_up", width, width, change=True)
        for i in range(blocks + 1):
            has = side in attention and i == blocks
            block(f"{name}_block{i}", width + skips.pop(), width, has=has)
    layer(f"dec.{sides[0]}x{sides[0]}_aux_norm", width)
    layer(f"dec.{sides[0]}x{sides[0]}_aux_conv", channels, width, 3, 3)
    assert not skips
    return shapes


def state_of(**network: Any) -> dict[str, Tensor]:
    state = random_state(table(**{**SMALL, **network}))
    filters = (name for name in state if name.endswith("resample_filter"))
    return state | dict.fromkeys(filters, torch.full((1, 1, 2, 2), 0.25))


def denoised(
    s: dict[str, Tensor], x: Tensor, sigma: Tensor, classes: Tensor | None = None
) -> Tensor:
    """D(x; sigma) of a network of :data:`SMALL`'s form, told these classes, from the paper.

    Karras et al. 2022: eq. 7 and table 1; the network as in Song et al. 2021, app. H.
    """
    sigma = sigma.view(-1, 1, 1, 1)
    c_skip = 0.25 / (sigma**2 + 0.25)
    c_out = sigma / 2 / (sigma**2 + 0.25) ** 0.5
    c_noise = sigma.log().flatten() / 4

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ s[f"model.{name}.weight"].T + s[f"model.{name}.bias"]

    def conv(name: str, x: Tensor) -> Tensor:
        weight = s[f"model.{name}.weight"]
        return F.conv2d(x, weight, s[f"model.{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(name: str, x: Tensor) -> Tensor:
        groups = x.unflatten(1, (min(32, x.shape[1] // 4), -1))
        mean, variance = (
            moment(groups, dim=(2, 3, 4), keepdim=True)
            for moment in (torch.mean, lambda *a, **k: torch.var(*a, correction=0, **k))
        )
        scaled = ((groups - mean) / (variance + 1e-6).sqrt()).flatten(1, 2)
        factor, shift = (s[f"model.{name}.{kind}"][:, None, None] for kind in ("weight", "bias"))
        return scaled * factor + shift

    first = s["model.map_layer0.weight"].shape[1]
    frequencies = 10000 ** (-torch.arange(first // 2).to(x) / (first // 2 - 1))
    angles = c_noise.to(x)[:, None] * frequencies
    level = torch.cat([angles.sin(), angles.cos()], 1)
    if "model.map_label.bias" in s:
        level = level + s["model.map_label.bias"]
    if classes is not None:
        columns = s["model.map_label.weight"].T
        level = level + math.sqrt(len(columns)) * columns[classes]
    level = F.silu(linear("map_layer1", F.silu(linear("map_layer0", level))))

    def down(x: Tensor) -> Tensor:
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

    def up(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def block(name: str, x: Tensor, resample: Any = lambda x: x) -> Tensor:
        h = conv(f"{name}.conv0", resample(F.silu(norm(f"{name}.norm0", x))))
        h = h + linear(f"{name}.affine", level)[:, :, None, None]
        h = conv(f"{name}.conv1", F.silu(norm(f"{name}.norm1", h)))
        x = resample(x)
        x = conv(f"{name}.skip", x) if f"model.{name}.skip.weight" in s else x
        x = (x + h) / math.sqrt(2)
        if f"model.{name}.qkv.weight" not in s:
            return x
        q, k, v = (
            conv(f"{name}.qkv", norm(f"{name}.norm2", x))[:, part::3].flatten(2)
            for part in range(3)
        )
        weights = (q.transpose(1, 2) @ k / math.sqrt(q.shape[1])).softmax(2)
        mixed = (v @ weights.transpose(1, 2)).view_as(x)
        return (x + conv(f"{name}.proj", mixed)) / math.sqrt(2)

    h = conv("enc.16x16_conv", x / (sigma**2 + 0.25).sqrt())
    skips = [h]
    skips.append(h := block("enc.16x16_block0", h))
    skips.append(h := block("enc.8x8_down", h, down))
    h = block("enc.8x8_block0", h)
    skips.append(h)
    h = block("dec.8x8_in1", block("dec.8x8_in0", h))
    for i in range(2):
        h = block(f"dec.8x8_block{i}", torch.cat([h, skips.pop()], 1))
    h = block("dec.16x16_up", h, up)
    for i in range(2):
        h = block(f"dec.16x16_block{i}", torch.cat([h, skips.pop()], 1))
    assert not skips
    return c_skip * x + c_out * conv("dec.16x16_aux_conv", F.silu(norm("dec.16x16_aux_norm", h)))
