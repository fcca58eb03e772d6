"""Networks from pesser's and OpenAI's files: their published output, every tensor used."""

import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from published_networks import (
    DDPM,
    Guided,
    Net,
    ScoreSDE,
    counted_state,
    elements,
    output,
    random_state,
    shapes_of,
)

from lit_purify.checkpoints import (
    ddpm_format,
    guided_diffusion_format,
    load_denoiser,
    score_sde_format,
)
from lit_purify.checkpoints.layout import Reading
from lit_purify.diffusion import CosineSchedule, LinearSchedule, UNetDenoiser
from lit_purify.types import InputError

SMALL = [
    DDPM(widths=(32, 64, 64), attention=(1, 2), layers=1),
    DDPM(widths=(32, 32, 64), attention=(0, 1), layers=2),
    DDPM(widths=(32, 64), attention=(), layers=3),
    DDPM(widths=(64,), attention=(0,), layers=1, channels=1),
    Guided(width=32, factors=(1, 2), attention=(1,), layers=1, head=16),
    Guided(width=32, factors=(1, 1, 2), attention=(1, 2), layers=2, head=8),
    Guided(width=32, factors=(1, 2, 3), attention=(0, 1), layers=1, head=16, outputs=3),
    Guided(width=32, factors=(1, 3), attention=(), layers=3, head=32),
    Guided(width=64, factors=(1,), attention=(0,), layers=2, head=64),
    Guided(width=32, factors=(1, 2), attention=(0, 1), layers=1, heads=4),
    Guided(width=32, factors=(1, 1, 2), attention=(2,), layers=1, head=16, new_order=True),
    Guided(width=32, factors=(1, 3), attention=(0,), layers=2, heads=2, new_order=True),
    Guided(width=64, factors=(1,), attention=(0,), layers=1, head=32, channels=1, outputs=2),
    Guided(width=32, factors=(1, 2, 2), attention=(1,), layers=1, heads=4, convolutions=True),
    Guided(width=32, factors=(1, 2), attention=(), layers=2, heads=2, convolutions=True),
    ScoreSDE(widths=(32, 64, 64), attention=(1,), layers=2),
    ScoreSDE(widths=(16, 8), attention=(0, 1), layers=1, channels=1),
    ScoreSDE(widths=(32, 128, 128), attention=(), layers=1),
    ScoreSDE(widths=(64,), attention=(0,), layers=3),
]
GUIDED = SMALL[4]
SCORE_SDE = SMALL[15]
CELEBA_HQ = DDPM(widths=(128, 128, 256, 256, 512, 512), attention=(4,))
IMPROVED = Guided(
    width=128, factors=(1, 2, 2, 2), attention=(1, 2), layers=3, heads=4, convolutions=True
)


def options(net: Net) -> dict[str, Any]:
    if not isinstance(net, Guided):
        return {}
    heads = {"num_heads": net.heads} if net.heads else {"num_head_channels": net.head}
    return {**heads, "use_new_attention_order": net.new_order}


def load(state: dict[str, torch.Tensor], folder: Path, net: Net, **more: Any) -> UNetDenoiser:
    path = folder / "model.ckpt"
    torch.save(state, path)
    return load_denoiser(str(path), **options(net), **more)


def read(net: Net) -> Reading:
    """What the format makes of the names and shapes, without the memory of the weights."""
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes_of(net).items()}
    if isinstance(net, Guided):
        return guided_diffusion_format.read(tensors, Path("x.pt"), **options(net))
    if isinstance(net, ScoreSDE):
        return score_sde_format.read(tensors, Path("x.pth"))
    return ddpm_format.read(tensors, Path("x.ckpt"))


def noisy(n: int, side: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("net", SMALL)
def test_it_gives_what_the_published_network_gives(net: Net, tmp_path: Path) -> None:
    state = random_state(shapes_of(net))
    denoiser = load(state, tmp_path, net)
    x, t = noisy(3, 16, net.channels), torch.tensor([1, 37, 1000])
    want = output(state, net, x, t)
    assert want.std() > 0.3  # a comparison of nothing with nothing would show nothing
    torch.testing.assert_close(denoiser(x, t), want, rtol=0, atol=1e-5)
    assert not torch.allclose(want, output(state, net, x, t.flip(0)), atol=1e-2)
    assert denoiser.image_shape is None
    assert denoiser(x[..., :8, :8], 5).shape == (*want.shape[:2], 8, 8)


def test_the_cifar10_network_of_the_paper(tmp_path: Path) -> None:
    """35.7 M parameters, at its size."""
    shapes = shapes_of(DDPM())
    assert len(shapes) == 328
    assert elements(shapes) == 35_746_307
    state = random_state(shapes)
    denoiser = load(state, tmp_path, DDPM())
    x, t = noisy(2, 32), torch.tensor([50, 100])
    torch.testing.assert_close(denoiser(x, t), output(state, DDPM(), x, t), rtol=0, atol=1e-5)
    assert denoiser.image_shape == (3, 32, 32)
    assert denoiser.num_train_steps == 1000
    assert denoiser.source == "model"
    assert denoiser.file == tmp_path / "model.ckpt"
    assert not denoiser.training
    found = denoiser.network.state_dict()
    assert len(found) == 328
    assert elements({name: x.shape for name, x in found.items()}) == 35_746_307
    assert {x.dtype for x in found.values()} == {torch.float32}
    assert not any(p.requires_grad for p in denoiser.parameters())


@pytest.mark.parametrize(
    ("net", "tensors", "parameters", "side"),
    [
        (Guided(), 566, 552_814_086, 256),
        (CELEBA_HQ, 450, 113_673_219, 256),
        (IMPROVED, 446, 52_546_438, 32),
        (ScoreSDE(), 956, 106_632_579, 32),
    ],
)
def test_the_larger_published_networks(net: Net, tensors: int, parameters: int, side: int) -> None:
    """All of their tensors and parameters, without their memory."""
    shapes = shapes_of(net)
    assert len(shapes) == tensors
    assert elements(shapes) == parameters
    reading = read(net)
    assert reading.denoiser.image_shape == (3, side, side)
    found = reading.denoiser.network.state_dict()
    assert all(x.is_meta for x in found.values())
    assert elements({name: x.shape for name, x in found.items()}) == parameters
    assert set(found) == set(reading.sources())


def test_the_layout_of_improved_diffusion() -> None:
    """cifar10_uncond_50M_500K.pt: four levels of three blocks, attention at 16 x 16 and 8 x 8."""
    shapes = shapes_of(IMPROVED)
    blocks = {".".join(name.split(".")[:2]) for name in shapes if "_blocks." in name}
    assert blocks == {
        *(f"input_blocks.{k}" for k in range(16)),
        *(f"output_blocks.{k}" for k in range(16)),
    }
    attended = {name.removesuffix(".qkv.weight") for name in shapes if name.endswith("qkv.weight")}
    assert attended == {
        *(f"input_blocks.{k}.1" for k in (5, 6, 7, 9, 10, 11)),
        "middle_block.1",
        *(f"output_blocks.{k}.1" for k in (4, 5, 6, 7, 8, 9, 10, 11)),
    }
    assert [name for name in shapes if name.endswith((".op.weight", ".conv.weight"))] == [
        *(f"input_blocks.{k}.0.op.weight" for k in (4, 8, 12)),
        *("output_blocks.3.1.conv.weight", "output_blocks.7.2.conv.weight"),
        "output_blocks.11.2.conv.weight",
    ]
    assert shapes["out.2.weight"] == (6, 128, 3, 3)


def test_steps_in_thousandths_of_the_schedule(tmp_path: Path) -> None:
    """Improved diffusion tells its network 1000 (t - 1) / T."""
    net = SMALL[13]
    state = random_state(shapes_of(net))
    ways = {"schedule": CosineSchedule(4000), "rescale_timesteps": True}
    denoiser = load(state, tmp_path, net, **ways)
    assert denoiser.source == "model(num_heads=4, rescale_timesteps=True)"
    x, t = noisy(3, 8), torch.tensor([1, 38, 4000])
    want = output(state, net, x, 1 + (t - 1) / 4)
    torch.testing.assert_close(denoiser(x, t), want, rtol=0, atol=1e-5)
    without = load(state, tmp_path, net, schedule=CosineSchedule(4000))
    assert not torch.allclose(without(x, t), want, atol=1e-2)


@pytest.mark.parametrize("net", [DDPM(), CELEBA_HQ, Guided(), IMPROVED, ScoreSDE(), *SMALL])
def test_every_tensor_has_one_place(net: Net) -> None:
    """One place, but three for the queries, keys and values that are stored in one."""
    sources = read(net).sources().values()
    uses = Counter(source.name for source in sources)
    assert uses == {name: 3 if ".qkv." in name else 1 for name in shapes_of(net)}
    assert {source.name: source.shape for source in sources} == shapes_of(net)


@pytest.mark.parametrize("net", [SMALL[0], GUIDED, SMALL[5], SMALL[13], SMALL[15]])
def test_every_value_has_one_place(net: Net, tmp_path: Path) -> None:
    state = counted_state(shapes_of(net))
    found = load(state, tmp_path, net).network.state_dict().values()
    values = torch.cat([x.flatten() for x in found]).sort().values
    assert torch.equal(values, torch.arange(len(values), dtype=torch.float32))
    assert len(values) == sum(x.numel() for x in state.values())


@pytest.mark.parametrize("net", [SMALL[2], GUIDED, SMALL[17]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(net: Net, dtype: torch.dtype, tmp_path: Path) -> None:
    stored = {name: x.to(dtype) for name, x in random_state(shapes_of(net)).items()}
    x = noisy(1, 8)
    rounded = {name: value.float() for name, value in stored.items()}
    want = output(rounded, net, x, torch.tensor([9]))
    torch.testing.assert_close(load(stored, tmp_path, net)(x, 9), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_that_wrappers_give(prefix: str, tmp_path: Path) -> None:
    net = SMALL[2]
    state = random_state(shapes_of(net))
    plain = load(state, tmp_path, net).network.state_dict()
    wrapped = {f"{prefix}{name}": x for name, x in state.items()}
    loaded = load(wrapped, tmp_path, net).network.state_dict()
    assert all(torch.equal(loaded[name], plain[name]) for name in plain)
    lost = f"{prefix}up.0.block.0.norm1.bias"
    del wrapped[lost]
    with pytest.raises(InputError, match=f"{re.escape(lost)} is missing"):
        load(wrapped, tmp_path, net)
    with pytest.raises(InputError, match="no denoiser"):  # not all of the names
        load({**wrapped, "step": torch.zeros(1)}, tmp_path, net)


@pytest.mark.parametrize("net", [SMALL[2], GUIDED])
def test_no_file_tells_the_noise_schedule(net: Net, tmp_path: Path) -> None:
    state = random_state(shapes_of(net))
    assert load(state, tmp_path, net).schedule == LinearSchedule()
    assert load(state, tmp_path, net, schedule=CosineSchedule()).schedule == CosineSchedule(4000)
    with pytest.raises(InputError, match="schedule"):
        load(state, tmp_path, net, schedule="cosine")


@pytest.mark.parametrize("net", [SMALL[0], GUIDED])
def test_images_of_another_size(net: Net, tmp_path: Path) -> None:
    state = random_state(shapes_of(net))
    denoiser = load(state, tmp_path, net, image_size=16)
    assert denoiser.image_shape == (3, 16, 16)
    with pytest.raises(InputError, match="images of shape"):
        denoiser(noisy(1, 8), 1)
    with pytest.raises(InputError, match="image_size is 11"):
        load(state, tmp_path, net, image_size=11)


def test_no_file_tells_how_an_attention_is_made(tmp_path: Path) -> None:
    """Every one of these loads, and each is another network."""
    torch.save(random_state(shapes_of(GUIDED)), tmp_path / "guided.pt")
    path, x = str(tmp_path / "guided.pt"), noisy(1, 16)
    ways = [{"num_head_channels": width} for width in (16, 32)]
    ways += [{"num_heads": heads} for heads in (8, 16)]
    ways += [{**way, "use_new_attention_order": True} for way in ways]
    outputs = [load_denoiser(path, **way)(x, 9) for way in ways]
    for one, other in combinations(outputs, 2):
        assert not torch.allclose(one, other, atol=1e-3)
    published = load_denoiser(path)(x, 9)
    assert torch.equal(published, load_denoiser(path, num_head_channels=64)(x, 9))


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({"num_head_channels": 0}, "num_head_channels is 0"),
        ({"num_head_channels": 48}, "num_head_channels is 48"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"num_heads": 5}, "num_heads is 5"),
        ({"num_heads": 2, "num_head_channels": 32}, "drop the other"),
    ],
)
def test_heads_that_cannot_be(way: dict[str, int], message: str, tmp_path: Path) -> None:
    torch.save(random_state(shapes_of(GUIDED)), tmp_path / "guided.pt")
    with pytest.raises(InputError, match=rf"guided\.pt.*{message}"):
        load_denoiser(str(tmp_path / "guided.pt"), **way)


@pytest.mark.parametrize(
    "way", [{"num_head_channels": 16}, {"num_heads": 2}, {"use_new_attention_order": True}]
)
def test_heads_of_another_format_are_refused(way: dict[str, Any], tmp_path: Path) -> None:
    torch.save(random_state(shapes_of(SMALL[0])), tmp_path / "ddpm.pt")
    for path in (tmp_path / "ddpm.pt", tiny.denoiser_file(tmp_path)):
        with pytest.raises(InputError, match=f"{next(iter(way))} .*{path.name}.*guided"):
            load_denoiser(str(path), **way)
        load_denoiser(str(path), use_new_attention_order=False)


@pytest.mark.parametrize("net", [SMALL[9], SMALL[11]])
def test_divided_attention_can_be_differentiated(net: Net, tmp_path: Path) -> None:
    """Forward mode takes another path through it: finite differences agree."""
    denoiser = load(random_state(shapes_of(net)), tmp_path, net).double()
    x, v = noisy(1, 8).double(), noisy(2, 8)[1:].double()
    _, moved = torch.func.jvp(lambda x: denoiser(x, 9), (x,), (v,))
    slope = (denoiser(x + 1e-5 * v, 9) - denoiser(x - 1e-5 * v, 9)) / 2e-5
    torch.testing.assert_close(moved, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "name", "shape", "message"),
    [
        (SMALL[2], "down.1.block.0.conv1.weight", (3,), "conv1.weight has shape (3,)"),
        (SMALL[2], "down.0.block.0.conv1.weight", (30, 32, 3, 3), "norm_num_groups"),
        (GUIDED, "label_emb.weight", (1000, 128), "class-conditional"),
        (GUIDED, "input_blocks.0.0.weight", (32, 6, 3, 3), "6 input channels"),
        (GUIDED, "input_blocks.1.0.emb_layers.1.bias", (32,), "use_scale_shift_norm"),
        (
            GUIDED,
            "input_blocks.2.0.op.weight",
            (32, 32, 3, 3),
            "input_blocks.2.0.op.bias is missing",
        ),
        (GUIDED, "input_blocks.9.0.in_layers.0.weight", (32,), "5 input blocks"),
        (GUIDED, "input_blocks.3.0.out_layers.3.weight", (48, 48, 3, 3), "model_channels 32"),
        (GUIDED, "time_embed.0.weight", (128, 0), "model_channels 0"),
        (SCORE_SDE, "all_modules.99.Conv_0.weight", (64, 64, 3, 3), "22 residual blocks"),
        (SCORE_SDE, "all_modules.3.Conv_0.weight", (34, 32, 3, 3), "multiples of 4"),
        (SCORE_SDE, "all_modules.2.weight", (32,), "all_modules.2.weight has shape (32,)"),
    ],
)
def test_architectures_that_are_refused(
    net: Net, name: str, shape: tuple[int, ...], message: str, tmp_path: Path, refusal
) -> None:
    state = random_state(shapes_of(net)) | {name: torch.zeros(shape)}
    torch.save(state, tmp_path / "model.ckpt")
    with refusal(tmp_path / "model.ckpt", message):
        load_denoiser(str(tmp_path / "model.ckpt"), **options(net))
