"""EDM's networks from their state_dict: names, shapes, output, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from published_networks import counted_state, random_state
from torch import Tensor
from torch.nn import functional as F

from lit_purify.checkpoints import edm_format, load_denoiser
from lit_purify.diffusion import LinearSchedule, UNetDenoiser

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


def denoised(s: dict[str, Tensor], x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) of a network of :data:`SMALL`'s form, written from the paper.

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


def load(state: dict[str, Tensor], folder: Path) -> UNetDenoiser:
    torch.save(state, folder / "edm.pt")
    return load_denoiser(str(folder / "edm.pt"))


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("attention", [(), (16, 8)])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_it_gives_the_noise_of_the_published_network(
    classes: int, attention: tuple[int, ...], dtype: torch.dtype, atol: float, tmp_path: Path
) -> None:
    state = state_of(classes=classes, attention=attention)
    denoiser = load(state, tmp_path).to(dtype)
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    t = torch.tensor([1, 100, 900])
    alpha_bar = LinearSchedule().alpha_bar[t]
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    of_edm = x.double() / alpha_bar.sqrt().view(-1, 1, 1, 1)
    exact = {name: value.double() for name, value in state.items()}
    want = (of_edm - denoised(exact, of_edm, sigma)) / sigma.view(-1, 1, 1, 1)
    assert want.std() > 0.3
    torch.testing.assert_close(denoiser(x, t), want.to(dtype), rtol=0, atol=atol)
    for row, step in enumerate(t.tolist()):
        alone = denoiser(x[row : row + 1], step)
        torch.testing.assert_close(alone, want[row : row + 1].to(dtype), rtol=0, atol=atol)


@pytest.mark.parametrize(("classes", "parameters"), [(0, 55_733_891), (10, 55_735_299)])
def test_the_published_networks(classes: int, parameters: int) -> None:
    """By an independent table of their tensors, without the memory of their weights."""
    shapes = table(classes=classes)
    filters = [name for name in shapes if name.endswith("resample_filter")]
    assert len(filters) == 8
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    tensors |= {name: torch.full((1, 1, 2, 2), 0.25) for name in filters}
    reading = edm_format.read(tensors, Path("edm.pt"))
    assert not set(filters) & set(tensors)
    sources = reading.sources().values()
    assert {source.name for source in sources} == set(tensors)
    assert all(source.shape == shapes[source.name] for source in sources)
    found = reading.denoiser.network.state_dict().values()
    assert sum(x.numel() for x in found) == parameters
    assert sum(math.prod(shapes[name]) for name in tensors) == parameters
    assert reading.denoiser.image_shape == (3, 32, 32)


def test_every_value_has_one_place(tmp_path: Path) -> None:
    shapes = table(**{**SMALL, "classes": 10})
    filters = {name: torch.full((1, 1, 2, 2), 0.25) for name in shapes if "filter" in name}
    state = counted_state({name: shape for name, shape in shapes.items() if name not in filters})
    found = load({**state, **filters}, tmp_path).network.state_dict().values()
    values = torch.cat([x.flatten() for x in found]).sort().values
    assert torch.equal(values, torch.arange(len(values), dtype=torch.float32))
    assert len(values) == sum(x.numel() for x in state.values())


def test_a_label_that_is_not_known_is_said(tmp_path: Path) -> None:
    assert load(state_of(), tmp_path).source == "edm"
    assert "no label" in load(state_of(classes=10), tmp_path).source


def test_other_sizes_and_networks(tmp_path: Path) -> None:
    state = state_of(channels=1, augmentations=0)
    denoiser = load({f"module.{name}": x for name, x in state.items()}, tmp_path)
    assert denoiser.image_shape == (1, 16, 16)
    larger = load_denoiser(str(tmp_path / "edm.pt"), image_size=32)
    assert larger(torch.zeros(1, 1, 32, 32), 10).shape == (1, 1, 32, 32)


CONV = "model.enc.16x16_conv.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({CONV: None}, f"{CONV} is missing"),
        ({"model.dec.8x8_in0.proj.bias": None}, "model.dec.8x8_in0.proj.bias is missing"),
        ({"model.extra": torch.ones(1)}, "model.extra is unknown"),
        ({"model.map_augment.weight": torch.ones(16)}, "map_augment.weight has shape (16,)"),
        ({"model.map_layer1.bias": torch.full((64,), math.nan)}, "map_layer1.bias is not finite"),
        ({"model.map_noise.freqs": torch.ones(8)}, "NCSN++"),
        ({"model.enc.8x8_aux_residual.weight": torch.ones(8)}, "NCSN++"),
        ({"model.out_conv.weight": torch.ones(8)}, "ADM"),
        ({"model.enc.8x8_down.skip.resample_filter": torch.ones(1, 1, 4, 4)}, "other filters"),
        ({"model.enc.8x8_down.skip.resample_filter": torch.ones(1, 1, 2, 2)}, "other filters"),
        ({"model.enc.5x5_block0.norm0.bias": torch.ones(8)}, "half the side"),
    ],
)
def test_files_that_do_not_fit(
    changes: dict[str, Tensor | None], message: str, tmp_path: Path, refusal: Any
) -> None:
    state = {**state_of(), **changes}
    torch.save({name: x for name, x in state.items() if x is not None}, tmp_path / "edm.pt")
    with refusal(tmp_path / "edm.pt", message):
        load_denoiser(str(tmp_path / "edm.pt"))
