"""The published networks, computed again from tensors under their original names.

Written from the papers and from the facts of the formats: plain functions of a state_dict, with no
module and nothing of the package. ``*_output`` compute what a network gives, and say on the way
which tensors its file holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

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
    """OpenAI's network; the defaults are the unconditional one at 256x256.

    An attention has heads of width ``head``, or so many ``heads`` where there are any. With
    ``convolutions`` these change the resolution, as in improved diffusion.
    """

    width: int = 256
    factors: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    attention: tuple[int, ...] = (3, 4, 5)
    layers: int = 2
    head: int = 64
    heads: int = 0
    new_order: bool = False
    channels: int = 3
    outputs: int = 6
    convolutions: bool = False


@dataclass(frozen=True)
class ScoreSDE:
    """Song et al.'s DDPM++ without filters; the defaults are the deep one for CIFAR-10."""

    widths: tuple[int, ...] = (128, 256, 256, 256)
    attention: tuple[int, ...] = (1,)
    layers: int = 8
    channels: int = 3


Net = DDPM | Guided | ScoreSDE


def random_state(shapes: Shapes, *, seed: int = 0) -> dict[str, Tensor]:
    """Gaussian weights that keep the size of what goes through, without the global RNG."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            state[name] = values / math.sqrt(math.prod(shape[1:]))
        else:  # the factors of a normalisation lie around 1, the rest around 0
            state[name] = 0.2 * values + float(name.endswith(".weight"))
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


class Described(dict[str, Tensor]):
    """Tensors without values, which come to be as a network asks for them."""


def _layer(s: State, name: str, *shape: int) -> tuple[Tensor, Tensor]:
    """Weight and bias, one for each of the first of the weight's dimensions."""
    if isinstance(s, Described):
        s[f"{name}.weight"] = torch.empty(shape, device="meta")
        s[f"{name}.bias"] = torch.empty(shape[:1], device="meta")
    assert s[f"{name}.weight"].shape == shape
    return s[f"{name}.weight"], s[f"{name}.bias"]


def _norm(s: State, name: str, x: Tensor, eps: float) -> Tensor:
    return F.group_norm(x, GROUPS, *_layer(s, name, x.shape[1]), eps)


def _linear(s: State, name: str, x: Tensor, n_out: int) -> Tensor:
    return F.linear(x, *_layer(s, name, n_out, x.shape[1]))


def _conv(s: State, name: str, x: Tensor, n_out: int, side: int = 3) -> Tensor:
    return F.conv2d(x, *_layer(s, name, n_out, x.shape[1], side, side), padding=side // 2)


def _conv1d(s: State, name: str, x: Tensor, n_out: int) -> Tensor:
    return F.conv1d(x, *_layer(s, name, n_out, x.shape[1], 1))


def _twice_as_large(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


# --- Ho et al. 2020, names of pesser's conversion ------------------------------------------------


def ddpm_output(s: State, net: DDPM, x: Tensor, t: Tensor) -> Tensor:
    """The predicted noise at the steps t = 1 .. 1000, of which the network is told t - 1."""
    half, steps = net.widths[0] // 2, 4 * net.widths[0]
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / (half - 1))
    angles = (t - 1).float()[:, None] * frequencies
    step = torch.cat([angles.sin(), angles.cos()], 1)
    step = _linear(s, "temb.dense.1", F.silu(_linear(s, "temb.dense.0", step, steps)), steps)
    step = F.silu(step)

    def block(name: str, x: Tensor, n_out: int) -> Tensor:
        h = _conv(s, f"{name}.conv1", F.silu(_norm(s, f"{name}.norm1", x, 1e-6)), n_out)
        h = h + _linear(s, f"{name}.temb_proj", step, n_out)[:, :, None, None]
        h = _conv(s, f"{name}.conv2", F.silu(_norm(s, f"{name}.norm2", h, 1e-6)), n_out)
        changes = x.shape[1] != n_out
        return h + (_conv(s, f"{name}.nin_shortcut", x, n_out, 1) if changes else x)

    def attention(name: str, x: Tensor) -> Tensor:
        h, width = _norm(s, f"{name}.norm", x, 1e-6), x.shape[1]
        q, k, v = (_conv(s, f"{name}.{part}", h, width, 1).flatten(2) for part in "qkv")
        weights = torch.einsum("bci,bcj->bij", q, k) / math.sqrt(width)
        h = torch.einsum("bij,bcj->bci", weights.softmax(2), v).view_as(x)
        return x + _conv(s, f"{name}.proj_out", h, width, 1)

    h = _conv(s, "conv_in", x, net.widths[0])
    skips, last = [h], len(net.widths) - 1
    for i, width in enumerate(net.widths):
        for j in range(net.layers):
            h = block(f"down.{i}.block.{j}", h, width)
            if i in net.attention:
                h = attention(f"down.{i}.attn.{j}", h)
            skips.append(h)
        if i != last:
            h = F.pad(h, (0, 1, 0, 1))  # right and below only
            layer = _layer(s, f"down.{i}.downsample.conv", width, width, 3, 3)
            h = F.conv2d(h, *layer, stride=2)
            skips.append(h)
    h = block("mid.block_1", h, net.widths[-1])
    h = attention("mid.attn_1", h)
    h = block("mid.block_2", h, net.widths[-1])
    for i in reversed(range(len(net.widths))):
        for j in range(net.layers + 1):
            h = block(f"up.{i}.block.{j}", torch.cat([h, skips.pop()], 1), net.widths[i])
            if i in net.attention:
                h = attention(f"up.{i}.attn.{j}", h)
        if i:
            h = _conv(s, f"up.{i}.upsample.conv", _twice_as_large(h), net.widths[i])
    assert not skips
    return _conv(s, "conv_out", F.silu(_norm(s, "norm_out", h, 1e-6)), net.channels)


# --- Dhariwal & Nichol 2021, names of OpenAI's files ----------------------------------------------


def guided_output(s: State, net: Guided, x: Tensor, t: Tensor) -> Tensor:
    """The predicted noise, and the values of the variance, at the steps t = 1 .. 1000."""
    half, steps = net.width // 2, 4 * net.width
    widths = [factor * net.width for factor in net.factors]
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / half)
    angles = (t - 1).float()[:, None] * frequencies
    step = torch.cat([angles.cos(), angles.sin()], 1)
    step = _linear(s, "time_embed.2", F.silu(_linear(s, "time_embed.0", step, steps)), steps)
    step = F.silu(step)

    def block(name: str, x: Tensor, n_out: int, change: str = "") -> Tensor:
        h = F.silu(_norm(s, f"{name}.in_layers.0", x, 1e-5))
        if change == "down":
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        if change == "up":
            x, h = _twice_as_large(x), _twice_as_large(h)
        h = _conv(s, f"{name}.in_layers.2", h, n_out)
        both = _linear(s, f"{name}.emb_layers.1", step, 2 * n_out)
        scale, shift = both[:, :, None, None].chunk(2, 1)
        h = _norm(s, f"{name}.out_layers.0", h, 1e-5) * (1 + scale) + shift
        h = _conv(s, f"{name}.out_layers.3", F.silu(h), n_out)
        changes = x.shape[1] != n_out
        return h + (_conv(s, f"{name}.skip_connection", x, n_out, 1) if changes else x)

    def attention(name: str, x: Tensor) -> Tensor:
        h, width = _norm(s, f"{name}.norm", x, 1e-5).flatten(2), x.shape[1]
        qkv = _conv1d(s, f"{name}.qkv", h, 3 * width)
        n = width // net.heads if net.heads else net.head
        if net.new_order:  # all queries, all keys, all values, each head after head
            parts = zip(*(part.split(n, 1) for part in qkv.split(width, 1)), strict=True)
        else:  # a head's queries, keys and values side by side
            parts = (rows.split(n, 1) for rows in qkv.split(3 * n, 1))
        heads = []
        for q, k, v in parts:
            weights = (q.transpose(1, 2) @ k / math.sqrt(n)).softmax(2)
            heads.append(v @ weights.transpose(1, 2))
        return x + _conv1d(s, f"{name}.proj_out", torch.cat(heads, 1), width).view_as(x)

    h = _conv(s, "input_blocks.0.0", x, net.width)
    skips, k = [h], 0
    for level, width in enumerate(widths):
        for _ in range(net.layers):
            k += 1
            h = block(f"input_blocks.{k}.0", h, width)
            if level in net.attention:
                h = attention(f"input_blocks.{k}.1", h)
            skips.append(h)
        if level + 1 < len(widths):
            k += 1
            if net.convolutions:
                layer = _layer(s, f"input_blocks.{k}.0.op", width, width, 3, 3)
                h = F.conv2d(h, *layer, stride=2, padding=1)
            else:
                h = block(f"input_blocks.{k}.0", h, width, "down")
            skips.append(h)
    h = block("middle_block.0", h, widths[-1])
    h = attention("middle_block.1", h)
    h = block("middle_block.2", h, widths[-1])
    k = 0
    for level, width in reversed([*enumerate(widths)]):
        for j in range(net.layers + 1):
            h = block(f"output_blocks.{k}.0", torch.cat([h, skips.pop()], 1), width)
            if level in net.attention:
                h = attention(f"output_blocks.{k}.1", h)
            if level and j == net.layers:
                name = f"output_blocks.{k}.{1 + (level in net.attention)}"
                if net.convolutions:
                    h = _conv(s, f"{name}.conv", _twice_as_large(h), width)
                else:
                    h = block(name, h, width, "up")
            k += 1
    assert not skips
    return _conv(s, "out.2", F.silu(_norm(s, "out.0", h, 1e-5)), net.outputs)


# --- Song et al. 2021, names of Score-SDE's PyTorch code ------------------------------------------


def score_sde_output(s: State, net: ScoreSDE, x: Tensor, t: Tensor) -> Tensor:
    """The predicted noise at the steps t = 1 .. 1000, of which the network is told t - 1."""
    half, steps = net.widths[0] // 2, 4 * net.widths[0]
    places = (f"all_modules.{place}" for place in count())
    powers = torch.arange(half, device=t.device, dtype=x.dtype) / (half - 1)
    angles = (t - 1).to(x.dtype)[:, None] / 10000**powers
    step = torch.cat([angles.sin(), angles.cos()], 1)
    step = _linear(s, next(places), step, steps)
    step = F.silu(_linear(s, next(places), F.silu(step), steps))

    def norm(name: str, x: Tensor) -> Tensor:
        width = x.shape[1]
        return F.group_norm(x, min(width // 4, 32), *_layer(s, name, width), eps=1e-6)

    def block(x: Tensor, n_out: int, change: str = "") -> Tensor:
        name = next(places)
        h = F.silu(norm(f"{name}.GroupNorm_0", x))
        if change == "down":
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        if change == "up":
            x, h = _twice_as_large(x), _twice_as_large(h)
        h = _conv(s, f"{name}.Conv_0", h, n_out)
        h = h + _linear(s, f"{name}.Dense_0", step, n_out)[:, :, None, None]
        h = _conv(s, f"{name}.Conv_1", F.silu(norm(f"{name}.GroupNorm_1", h)), n_out)
        if change or x.shape[1] != n_out:
            x = _conv(s, f"{name}.Conv_2", x, n_out, 1)
        return (x + h) / 2**0.5

    def within(name: str, x: Tensor) -> Tensor:
        width = x.shape[1]
        if isinstance(s, Described):
            s[f"{name}.W"] = torch.empty(width, width, device="meta")
            s[f"{name}.b"] = torch.empty(width, device="meta")
        return torch.einsum("bchw,cd->bdhw", x, s[f"{name}.W"]) + s[f"{name}.b"][:, None, None]

    def attention(x: Tensor) -> Tensor:
        name = next(places)
        h = norm(f"{name}.GroupNorm_0", x)
        q, k, v = (within(f"{name}.NIN_{i}", h).flatten(2) for i in range(3))
        weights = torch.einsum("bci,bcj->bij", q, k) / x.shape[1] ** 0.5
        h = torch.einsum("bij,bcj->bci", weights.softmax(2), v).view_as(x)
        return (x + within(f"{name}.NIN_3", h)) / 2**0.5

    h = _conv(s, next(places), x, net.widths[0])
    skips, last = [h], len(net.widths) - 1
    for level, width in enumerate(net.widths):
        for _ in range(net.layers):
            h = block(h, width)
            h = attention(h) if level in net.attention else h
            skips.append(h)
        if level != last:
            h = block(h, width, "down")
            skips.append(h)
    h = block(attention(block(h, net.widths[-1])), net.widths[-1])
    for level, width in reversed([*enumerate(net.widths)]):
        for _ in range(net.layers + 1):
            h = block(torch.cat([h, skips.pop()], 1), width)
        h = attention(h) if level in net.attention else h
        h = block(h, width, "up") if level else h
    assert not skips
    h = F.silu(norm(next(places), h))
    return _conv(s, next(places), h, net.channels)


# --- any of them ----------------------------------------------------------------------------------


def output(s: State, net: Net, x: Tensor, t: Tensor) -> Tensor:
    """What a network gives at the steps t = 1 .. 1000."""
    if isinstance(net, DDPM):
        return ddpm_output(s, net, x, t)
    return (
        guided_output(s, net, x, t) if isinstance(net, Guided) else score_sde_output(s, net, x, t)
    )


def shapes_of(net: Net) -> Shapes:
    """Every tensor of a network's file."""
    described = Described()
    x = torch.empty(1, net.channels, 64, 64, device="meta")
    output(described, net, x, torch.empty(1, device="meta"))
    return {name: tuple(tensor.shape) for name, tensor in described.items()}


def elements(shapes: Mapping[str, Sequence[int]]) -> int:
    """Number of values in all tensors."""
    return sum(math.prod(shape) for shape in shapes.values())
