"""OpenAI's networks from their files: same output as the published one, every tensor used."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from published_networks import (
    Guided,
    counted_state,
    elements,
    guided_output,
    guided_shapes,
    random_state,
)

from lit_purify.checkpoints import guided_diffusion_format, load_denoiser
from lit_purify.types import InputError

SMALL = [
    Guided(width=32, factors=(1, 2), attention=(1,), layers=1, head=16),
    Guided(width=32, factors=(1, 1, 2), attention=(1, 2), layers=2, head=8),
    Guided(width=32, factors=(1, 2, 3), attention=(0, 1), layers=1, head=16, outputs=3),
    Guided(width=32, factors=(1, 3), attention=(), layers=3, head=32),
    Guided(width=64, factors=(1,), attention=(0,), layers=2, head=64),
]


def saved(state: dict[str, torch.Tensor], folder: Path) -> str:
    path = folder / "guided.pt"
    torch.save(state, path)
    return str(path)


def noisy(n: int, side: int) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("net", SMALL)
def test_it_gives_what_the_published_network_gives(net: Guided, tmp_path: Path) -> None:
    state = random_state(guided_shapes(net))
    denoiser = load_denoiser(saved(state, tmp_path), num_head_channels=net.head)
    x, t = noisy(3, 16), torch.tensor([1, 37, 1000])
    want = guided_output(state, net, x, t)
    assert want.shape == (3, net.outputs, 16, 16)
    assert want.std() > 0.3  # a comparison of nothing with nothing would show nothing
    torch.testing.assert_close(denoiser(x, t), want, rtol=0, atol=1e-5)
    assert not torch.allclose(want, guided_output(state, net, x, t.flip(0)), atol=1e-2)
    assert denoiser.image_shape is None
    assert denoiser.file == tmp_path / "guided.pt"
    assert denoiser.source == "guided"
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())


def test_the_width_of_a_head_decides_the_order_of_rows(tmp_path: Path) -> None:
    net = SMALL[0]
    path = saved(random_state(guided_shapes(net)), tmp_path)
    x = noisy(1, 16)
    outputs = [load_denoiser(path, num_head_channels=head)(x, 9) for head in (16, 32, 64)]
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-3)
    assert not torch.allclose(outputs[1], outputs[2], atol=1e-3)
    for head in (0, 48):
        with pytest.raises(InputError, match=f"num_head_channels is {head}; expected the width"):
            load_denoiser(path, num_head_channels=head)


def test_the_network_of_the_paper() -> None:
    """All 566 tensors and 552.8 M parameters, without their memory."""
    shapes = guided_shapes(Guided())
    assert len(shapes) == 566
    assert elements(shapes) == 552_814_086
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    reading = guided_diffusion_format.read(tensors, Path("x.pt"))
    assert reading.denoiser.image_shape == (3, 256, 256)
    found = reading.denoiser.network.state_dict()
    assert all(x.is_meta for x in found.values())
    assert sum(x.numel() for x in found.values()) == 552_814_086
    assert set(found) == set(reading.sources)


@pytest.mark.parametrize("net", [Guided(), *SMALL])
def test_every_tensor_has_one_place(net: Guided) -> None:
    """One place, but three for the queries, keys and values that are stored in one."""
    shapes = guided_shapes(net)
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    read = guided_diffusion_format.read(tensors, Path("x.pt"), num_head_channels=net.head)
    uses = Counter(source.name for source in read.sources.values())
    assert uses == {name: 3 if ".qkv." in name else 1 for name in shapes}
    assert {source.name: source.shape for source in read.sources.values()} == shapes


@pytest.mark.parametrize("net", SMALL[:2])
def test_every_value_has_one_place(net: Guided, tmp_path: Path) -> None:
    state = counted_state(guided_shapes(net))
    denoiser = load_denoiser(saved(state, tmp_path), num_head_channels=net.head)
    values = torch.cat([x.flatten() for x in denoiser.network.state_dict().values()]).sort().values
    assert torch.equal(values, torch.arange(len(values), dtype=torch.float32))
    assert len(values) == sum(x.numel() for x in state.values())


def test_half_precision_file(tmp_path: Path) -> None:
    net = SMALL[0]
    stored = {name: x.half() for name, x in random_state(guided_shapes(net)).items()}
    denoiser = load_denoiser(saved(stored, tmp_path), num_head_channels=net.head, image_size=16)
    x = noisy(1, 16)
    rounded = {name: value.float() for name, value in stored.items()}
    want = guided_output(rounded, net, x, torch.tensor([9]))
    torch.testing.assert_close(denoiser(x, 9), want, rtol=0, atol=1e-5)
    assert denoiser.image_shape == (3, 16, 16)


class TestRefused:
    NET = SMALL[0]

    @pytest.fixture
    def state(self) -> dict[str, torch.Tensor]:
        return random_state(guided_shapes(self.NET))

    def refused(self, state: dict[str, torch.Tensor], folder: Path) -> str:
        with pytest.raises(InputError) as caught:
            load_denoiser(saved(state, folder), num_head_channels=self.NET.head)
        assert "guided.pt" in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_class_conditional(self, state, tmp_path: Path) -> None:
        state["label_emb.weight"] = torch.zeros(1000, 128)
        assert "class-conditional" in self.refused(state, tmp_path)

    def test_super_resolution(self, state, tmp_path: Path) -> None:
        state["input_blocks.0.0.weight"] = torch.zeros(32, 6, 3, 3)
        assert "6 input channels" in self.refused(state, tmp_path)

    def test_resolutions_changed_by_convolutions(self, state, tmp_path: Path) -> None:
        state["input_blocks.2.0.op.weight"] = torch.zeros(32, 32, 3, 3)
        assert "resblock_updown" in self.refused(state, tmp_path)

    def test_levels_of_different_depth(self, state, tmp_path: Path) -> None:
        state["input_blocks.9.0.in_layers.0.weight"] = torch.zeros(32)
        assert "5 input blocks" in self.refused(state, tmp_path)

    def test_a_fractional_width(self, state, tmp_path: Path) -> None:
        state["input_blocks.3.0.out_layers.3.weight"] = torch.zeros(48, 48, 3, 3)
        assert "no multiples of its model_channels 32" in self.refused(state, tmp_path)

    def test_no_width_at_all(self, state, tmp_path: Path) -> None:
        state["time_embed.0.weight"] = torch.zeros(128, 0)
        assert "no multiples of its model_channels 0" in self.refused(state, tmp_path)

    def test_any_tensor_missing(self, state, tmp_path: Path) -> None:
        for name in list(state)[::4]:
            rest = {key: x for key, x in state.items() if key != name}
            assert f"{name} is missing" in self.refused(rest, tmp_path)

    def test_a_tensor_too_many(self, state, tmp_path: Path) -> None:
        state["out.3.weight"] = torch.zeros(1)
        assert "out.3.weight is unknown" in self.refused(state, tmp_path)

    def test_a_misshapen_tensor(self, state, tmp_path: Path) -> None:
        state["middle_block.1.qkv.weight"] = torch.zeros(192, 64)
        message = "middle_block.1.qkv.weight has shape (192, 64) instead of (192, 64, 1)"
        assert message in self.refused(state, tmp_path)

    def test_not_finite(self, state, tmp_path: Path) -> None:
        state["out.2.bias"][2] = float("nan")
        assert "out.2.bias is not finite" in self.refused(state, tmp_path)
