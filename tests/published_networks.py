"""The two published networks, computed again from tensors under their original names.

Written from the papers and from the facts of the formats: plain functions of a state_dict, with no
module and nothing of the package. ``*_shapes`` list every tensor of a file, ``*_output`` compute
what the network gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Shapes = dict[str, tuple[int, ...]]
State = Mapping[str, Tensor]
GROUPS = 32


@dataclass(frozen=True)
class DDPM:
    """Ho et al.'s network; the defaults are the one for CIFAR-10."""

    widths: tuple[int, ...] = (128, 256, 256, 256)
    attention: tuple[int, ...] = (1,)
    layers: int = 2
    channels: int = 3


@dataclass(frozen=True)
class Guided:
    """OpenAI's network; the defaults are the unconditional one at 256x256."""

    width: int = 256
    factors: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    attention: tuple[int, ...] = (3, 4, 5)
    layers: int = 2
    head: int = 64
    outputs: int = 6


def random_state(shapes: Shapes, *, seed: int = 0) -> dict[str, Tensor]:
    """Gaussian weights that keep the size of what goes through, without the global RNG."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            state[name] = values / math.sqrt(math.prod(shape[1:]))
        else:  # the factors of a normalisation lie around 1, the rest around 0
            state[name] = 0.2 * values + float("norm" in name or _is_guided_norm(name))
    return state


def counted_state(shapes: Shapes) -> dict[str, Tensor]:
    """0, 1, 2, ... over all elements of all tensors, exact in float32 below 2**24."""
    state, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        state[name] = torch.arange(start, start + size, dtype=torch.float32).view(shape)
        start += size
    assert start < 2**24
    return state


def _is_guided_norm(name: str) -> bool:
    return name.endswith((".in_layers.0.weight", ".out_layers.0.weight")) or name == "out.0.weight"


def _both(shapes: Shapes, name: str, *weight: int) -> None:
    shapes[f"{name}.weight"] = weight
    shapes[f"{name}.bias"] = weight[:1]


def _norm(s: State, name: str, x: Tensor, eps: float) -> Tensor:
    return F.group_norm(x, GROUPS, s[f"{name}.weight"], s[f"{name}.bias"], eps)


def _linear(s: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, s[f"{name}.weight"], s[f"{name}.bias"])


def _conv(s: State, name: str, x: Tensor) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, s[f"{name}.bias"], padding=weight.shape[-1] // 2)


def _twice_as_large(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


# --- Ho et al. 2020, names of pesser's conversion ------------------------------------------------


def ddpm_shapes(net: DDPM) -> Shapes:
    shapes: Shapes = {}
    first, steps = net.widths[0], 4 * net.widths[0]

    def block(name: str, n_in: int, n_out: int) -> None:
        _both(shapes, f"{name}.norm1", n_in)
        _both(shapes, f"{name}.conv1", n_out, n_in, 3, 3)
        _both(shapes, f"{name}.temb_proj", n_out, steps)
        _both(shapes, f"{name}.norm2", n_out)
        _both(shapes, f"{name}.conv2", n_out, n_out, 3, 3)
        if n_in != n_out:
            _both(shapes, f"{name}.nin_shortcut", n_out, n_in, 1, 1)

    def attention(name: str, width: int) -> None:
        _both(shapes, f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            _both(shapes, f"{name}.{part}", width, width, 1, 1)

    _both(shapes, "temb.dense.0", steps, first)
    _both(shapes, "temb.dense.1", steps, steps)
    _both(shapes, "conv_in", first, net.channels, 3, 3)
    width, skips, last = first, [first], len(net.widths) - 1
    for i, target in enumerate(net.widths):
        for j in range(net.layers):
            block(f"down.{i}.block.{j}", width, target)
            if i in net.attention:
                attention(f"down.{i}.attn.{j}", target)
            width = target
            skips.append(width)
        if i != last:
            _both(shapes, f"down.{i}.downsample.conv", width, width, 3, 3)
            skips.append(width)
    block("mid.block_1", width, width)
    attention("mid.attn_1", width)
    block("mid.block_2", width, width)
    for i in reversed(range(len(net.widths))):
        for j in range(net.layers + 1):
            block(f"up.{i}.block.{j}", width + skips.pop(), net.widths[i])
            width = net.widths[i]
            if i in net.attention:
                attention(f"up.{i}.attn.{j}", width)
        if i:
            _both(shapes, f"up.{i}.upsample.conv", width, width, 3, 3)
    _both(shapes, "norm_out", width)
    _both(shapes, "conv_out", net.channels, width, 3, 3)
    return shapes


def ddpm_output(s: State, net: DDPM, x: Tensor, t: Tensor) -> Tensor:
    """The predicted noise at the steps t = 1 .. 1000, of which the network is told t - 1."""
    half = net.widths[0] // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
    angles = (t - 1).float()[:, None] * frequencies
    step = torch.cat([angles.sin(), angles.cos()], 1)
    step = _linear(s, "temb.dense.1", F.silu(_linear(s, "temb.dense.0", step)))
    step = F.silu(step)

    def block(name: str, x: Tensor) -> Tensor:
        h = _conv(s, f"{name}.conv1", F.silu(_norm(s, f"{name}.norm1", x, 1e-6)))
        h = h + _linear(s, f"{name}.temb_proj", step)[:, :, None, None]
        h = _conv(s, f"{name}.conv2", F.silu(_norm(s, f"{name}.norm2", h, 1e-6)))
        changes = f"{name}.nin_shortcut.weight" in s
        return h + (_conv(s, f"{name}.nin_shortcut", x) if changes else x)

    def attention(name: str, x: Tensor) -> Tensor:
        h = _norm(s, f"{name}.norm", x, 1e-6)
        q, k, v = (_conv(s, f"{name}.{part}", h).flatten(2) for part in "qkv")
        weights = torch.einsum("bci,bcj->bij", q, k) / math.sqrt(x.shape[1])
        h = torch.einsum("bij,bcj->bci", weights.softmax(2), v).view_as(x)
        return x + _conv(s, f"{name}.proj_out", h)

    h = _conv(s, "conv_in", x)
    skips, last = [h], len(net.widths) - 1
    for i in range(len(net.widths)):
        for j in range(net.layers):
            h = block(f"down.{i}.block.{j}", h)
            if i in net.attention:
                h = attention(f"down.{i}.attn.{j}", h)
            skips.append(h)
        if i != last:
            name = f"down.{i}.downsample.conv"
            h = F.pad(h, (0, 1, 0, 1))  # right and below only
            h = F.conv2d(h, s[f"{name}.weight"], s[f"{name}.bias"], stride=2)
            skips.append(h)
    h = block("mid.block_1", h)
    h = attention("mid.attn_1", h)
    h = block("mid.block_2", h)
    for i in reversed(range(len(net.widths))):
        for j in range(net.layers + 1):
            h = block(f"up.{i}.block.{j}", torch.cat([h, skips.pop()], 1))
            if i in net.attention:
                h = attention(f"up.{i}.attn.{j}", h)
        if i:
            h = _conv(s, f"up.{i}.upsample.conv", _twice_as_large(h))
    assert not skips
    return _conv(s, "conv_out", F.silu(_norm(s, "norm_out", h, 1e-6)))


# --- Dhariwal & Nichol 2021, names of OpenAI's files ----------------------------------------------


def guided_shapes(net: Guided) -> Shapes:
    shapes: Shapes = {}
    steps = 4 * net.width

    def block(name: str, n_in: int, n_out: int) -> None:
        _both(shapes, f"{name}.in_layers.0", n_in)
        _both(shapes, f"{name}.in_layers.2", n_out, n_in, 3, 3)
        _both(shapes, f"{name}.emb_layers.1", 2 * n_out, steps)
        _both(shapes, f"{name}.out_layers.0", n_out)
        _both(shapes, f"{name}.out_layers.3", n_out, n_out, 3, 3)
        if n_in != n_out:
            _both(shapes, f"{name}.skip_connection", n_out, n_in, 1, 1)

    def attention(name: str, width: int) -> None:
        _both(shapes, f"{name}.norm", width)
        _both(shapes, f"{name}.qkv", 3 * width, width, 1)
        _both(shapes, f"{name}.proj_out", width, width, 1)

    _both(shapes, "time_embed.0", steps, net.width)
    _both(shapes, "time_embed.2", steps, steps)
    _both(shapes, "input_blocks.0.0", net.width, 3, 3, 3)
    width, skips, k = net.width, [net.width], 0
    for level, factor in enumerate(net.factors):
        for _ in range(net.layers):
            k += 1
            block(f"input_blocks.{k}.0", width, factor * net.width)
            width = factor * net.width
            if level in net.attention:
                attention(f"input_blocks.{k}.1", width)
            skips.append(width)
        if level + 1 < len(net.factors):
            k += 1
            block(f"input_blocks.{k}.0", width, width)  # halves the side
            skips.append(width)
    block("middle_block.0", width, width)
    attention("middle_block.1", width)
    block("middle_block.2", width, width)
    k = 0
    for level in reversed(range(len(net.factors))):
        for j in range(net.layers + 1):
            block(f"output_blocks.{k}.0", width + skips.pop(), net.factors[level] * net.width)
            width = net.factors[level] * net.width
            if level in net.attention:
                attention(f"output_blocks.{k}.1", width)
            if level and j == net.layers:
                block(f"output_blocks.{k}.{1 + (level in net.attention)}", width, width)
            k += 1
    _both(shapes, "out.0", width)
    _both(shapes, "out.2", net.outputs, width, 3, 3)
    return shapes


def guided_output(s: State, net: Guided, x: Tensor, t: Tensor) -> Tensor:
    """The predicted noise, and the values of the variance, at the steps t = 1 .. 1000."""
    half = net.width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
    angles = (t - 1).float()[:, None] * frequencies
    step = torch.cat([angles.cos(), angles.sin()], 1)
    step = F.silu(_linear(s, "time_embed.2", F.silu(_linear(s, "time_embed.0", step))))

    def block(name: str, x: Tensor, change: str = "") -> Tensor:
        h = F.silu(_norm(s, f"{name}.in_layers.0", x, 1e-5))
        if change == "down":
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        if change == "up":
            x, h = _twice_as_large(x), _twice_as_large(h)
        h = _conv(s, f"{name}.in_layers.2", h)
        scale, shift = _linear(s, f"{name}.emb_layers.1", step)[:, :, None, None].chunk(2, 1)
        h = _norm(s, f"{name}.out_layers.0", h, 1e-5) * (1 + scale) + shift
        h = _conv(s, f"{name}.out_layers.3", F.silu(h))
        changes = f"{name}.skip_connection.weight" in s
        return h + (_conv(s, f"{name}.skip_connection", x) if changes else x)

    def attention(name: str, x: Tensor) -> Tensor:
        h = _norm(s, f"{name}.norm", x, 1e-5).flatten(2)
        qkv = F.conv1d(h, s[f"{name}.qkv.weight"], s[f"{name}.qkv.bias"])
        heads = []
        for rows in qkv.split(3 * net.head, 1):  # a head's queries, keys and values side by side
            q, k, v = rows.split(net.head, 1)
            weights = (q.transpose(1, 2) @ k / math.sqrt(net.head)).softmax(2)
            heads.append(v @ weights.transpose(1, 2))
        h = F.conv1d(torch.cat(heads, 1), s[f"{name}.proj_out.weight"], s[f"{name}.proj_out.bias"])
        return x + h.view_as(x)

    h = _conv(s, "input_blocks.0.0", x)
    skips, k = [h], 0
    for level in range(len(net.factors)):
        for _ in range(net.layers):
            k += 1
            h = block(f"input_blocks.{k}.0", h)
            if level in net.attention:
                h = attention(f"input_blocks.{k}.1", h)
            skips.append(h)
        if level + 1 < len(net.factors):
            k += 1
            h = block(f"input_blocks.{k}.0", h, "down")
            skips.append(h)
    h = block("middle_block.0", h)
    h = attention("middle_block.1", h)
    h = block("middle_block.2", h)
    k = 0
    for level in reversed(range(len(net.factors))):
        for j in range(net.layers + 1):
            h = block(f"output_blocks.{k}.0", torch.cat([h, skips.pop()], 1))
            if level in net.attention:
                h = attention(f"output_blocks.{k}.1", h)
            if level and j == net.layers:
                h = block(f"output_blocks.{k}.{1 + (level in net.attention)}", h, "up")
            k += 1
    assert not skips
    return _conv(s, "out.2", F.silu(_norm(s, "out.0", h, 1e-5)))


# --- either ---------------------------------------------------------------------------------------


def shapes_of(net: DDPM | Guided) -> Shapes:
    """Every tensor of a network's file."""
    return ddpm_shapes(net) if isinstance(net, DDPM) else guided_shapes(net)


def output(s: State, net: DDPM | Guided, x: Tensor, t: Tensor) -> Tensor:
    """What a network gives at the steps t = 1 .. 1000."""
    return ddpm_output(s, net, x, t) if isinstance(net, DDPM) else guided_output(s, net, x, t)


def elements(shapes: Mapping[str, Sequence[int]]) -> int:
    """Number of values in all tensors."""
    return sum(math.prod(shape) for shape in shapes.values())
