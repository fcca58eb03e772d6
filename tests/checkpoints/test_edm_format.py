"""EDM's networks from their state_dict: names, shapes, output, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from edm_network import SMALL, denoised, state_of, table
from published_networks import counted_state
from torch import Tensor

from lit_purify.checkpoints import edm_format, load_denoiser
from lit_purify.diffusion import LinearSchedule, UNetDenoiser


def load(state: dict[str, Tensor], folder: Path) -> UNetDenoiser:
    torch.save(state, folder / "edm.pt")
    return load_denoiser(str(folder / "edm.pt"))


@pytest.mark.parametrize(("classes", "told"), [(0, None), (10, None), (10, [3, 0, 9])])
@pytest.mark.parametrize("attention", [(), (16, 8)])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_it_gives_the_noise_of_the_published_network(
    classes: int,
    told: list[int] | None,
    attention: tuple[int, ...],
    dtype: torch.dtype,
    atol: float,
    tmp_path: Path,
) -> None:
    state = state_of(classes=classes, attention=attention)
    denoiser = load(state, tmp_path).to(dtype)
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    t = torch.tensor([1, 100, 900])
    alpha_bar = LinearSchedule().alpha_bar[t]
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    of_edm = x.double() / alpha_bar.sqrt().view(-1, 1, 1, 1)
    exact = {name: value.double() for name, value in state.items()}
    given = [] if told is None else [torch.tensor(told)]
    want = (of_edm - denoised(exact, of_edm, sigma, *given)) / sigma.view(-1, 1, 1, 1)
    assert want.std() > 0.3
    torch.testing.assert_close(denoiser(x, t, *given), want.to(dtype), rtol=0, atol=atol)
    for row, step in enumerate(t.tolist()):
        alone = denoiser(x[row : row + 1], step, *(label[row : row + 1] for label in given))
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


def test_a_class_conditional_network_is_said_to_be_one(tmp_path: Path) -> None:
    plain, conditional = load(state_of(), tmp_path), load(state_of(classes=10), tmp_path)
    assert (plain.source, plain.num_classes) == ("edm", 0)
    assert conditional.num_classes == 10
    assert "10 classes" in conditional.source


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
