"""Ho et al.'s networks from pesser's files: same output as the published one, every tensor used."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from published_networks import (
    DDPM,
    counted_state,
    ddpm_output,
    ddpm_shapes,
    elements,
    random_state,
)

from lit_purify.checkpoints import ddpm_format, load_denoiser
from lit_purify.types import InputError

SMALL = [
    DDPM(widths=(32, 64, 64), attention=(1, 2), layers=1),
    DDPM(widths=(32, 32, 64), attention=(0, 1), layers=2),
    DDPM(widths=(32, 64), attention=(), layers=3),
    DDPM(widths=(64,), attention=(0,), layers=1, channels=1),
]


def saved(state: dict[str, torch.Tensor], folder: Path) -> str:
    path = folder / "model.ckpt"
    torch.save(state, path)
    return str(path)


def noisy(n: int, channels: int, side: int) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("net", SMALL)
def test_it_gives_what_the_published_network_gives(net: DDPM, tmp_path: Path) -> None:
    state = random_state(ddpm_shapes(net))
    denoiser = load_denoiser(saved(state, tmp_path))
    x, t = noisy(3, net.channels, 16), torch.tensor([1, 37, 1000])
    want = ddpm_output(state, net, x, t)
    assert want.std() > 0.3  # a comparison of nothing with nothing would show nothing
    torch.testing.assert_close(denoiser(x, t), want, rtol=0, atol=1e-5)
    assert not torch.allclose(want, ddpm_output(state, net, x, t.flip(0)), atol=1e-2)
    assert denoiser.image_shape is None
    assert denoiser(x[..., :8, :8], 5).shape == (3, net.channels, 8, 8)


def test_the_network_of_the_paper(tmp_path: Path) -> None:
    """35.7 M parameters, at its size, stored in halves and doubles as well as floats."""
    shapes = ddpm_shapes(DDPM())
    assert len(shapes) == 328
    assert elements(shapes) == 35_746_307
    state = random_state(shapes)
    denoiser = load_denoiser(saved(state, tmp_path))
    x, t = noisy(2, 3, 32), torch.tensor([50, 100])
    want = ddpm_output(state, DDPM(), x, t)
    torch.testing.assert_close(denoiser(x, t), want, rtol=0, atol=1e-5)
    assert denoiser.image_shape == (3, 32, 32)
    assert denoiser.num_train_steps == 1000
    assert denoiser.source == "model"
    assert denoiser.file == tmp_path / "model.ckpt"
    assert not denoiser.training
    found = denoiser.network.state_dict()
    assert len(found) == 328
    assert sum(x.numel() for x in found.values()) == 35_746_307
    assert {x.dtype for x in found.values()} == {torch.float32}
    assert not any(p.requires_grad for p in denoiser.parameters())


@pytest.mark.parametrize("net", [DDPM(), *SMALL])
def test_every_tensor_has_one_place(net: DDPM) -> None:
    shapes = ddpm_shapes(net)
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    sources = ddpm_format.read(tensors, Path("x.ckpt")).sources
    assert Counter(source.name for source in sources.values()) == Counter(list(shapes))
    assert {source.name: source.shape for source in sources.values()} == shapes


def test_every_value_has_one_place(tmp_path: Path) -> None:
    state = counted_state(ddpm_shapes(SMALL[0]))
    found = load_denoiser(saved(state, tmp_path)).network.state_dict().values()
    values = torch.cat([x.flatten() for x in found]).sort().values
    assert torch.equal(values, torch.arange(len(values), dtype=torch.float32))
    assert len(values) == sum(x.numel() for x in state.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype: torch.dtype, tmp_path: Path) -> None:
    state = random_state(ddpm_shapes(SMALL[2]))
    stored = {name: x.to(dtype) for name, x in state.items()}
    x = noisy(1, 3, 8)
    rounded = {name: x.float() for name, x in stored.items()}
    want = ddpm_output(rounded, SMALL[2], x, torch.tensor([9]))
    got = load_denoiser(saved(stored, tmp_path))(x, 9)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_names_of_data_parallel_training(tmp_path: Path) -> None:
    state = random_state(ddpm_shapes(SMALL[2]))
    plain = load_denoiser(saved(state, tmp_path)).network.state_dict()
    wrapped = {f"module.{name}": x for name, x in state.items()}
    loaded = load_denoiser(saved(wrapped, tmp_path)).network.state_dict()
    assert all(torch.equal(loaded[name], plain[name]) for name in plain)
    del wrapped["module.up.0.block.0.norm1.bias"]
    with pytest.raises(InputError, match=r"module\.up\.0\.block\.0\.norm1\.bias is missing"):
        load_denoiser(saved(wrapped, tmp_path))


def test_images_of_another_size(tmp_path: Path) -> None:
    path = saved(random_state(ddpm_shapes(SMALL[0])), tmp_path)
    denoiser = load_denoiser(path, image_size=16)
    assert denoiser.image_shape == (3, 16, 16)
    with pytest.raises(InputError, match="made for images of shape"):
        denoiser(noisy(1, 3, 8), 1)
    with pytest.raises(InputError, match="image_size is 10; expected a multiple of 4"):
        load_denoiser(path, image_size=10)


class TestWrongFiles:
    NET = DDPM(widths=(32, 64), attention=(1,), layers=1)

    @pytest.fixture
    def state(self) -> dict[str, torch.Tensor]:
        return random_state(ddpm_shapes(self.NET))

    def refused(self, state: dict[str, torch.Tensor], folder: Path) -> str:
        with pytest.raises(InputError) as caught:
            load_denoiser(saved(state, folder))
        assert "model.ckpt" in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_any_tensor_missing(self, state, tmp_path: Path) -> None:
        for name in list(state)[::4]:
            rest = {key: x for key, x in state.items() if key != name}
            assert f"{name} is missing" in self.refused(rest, tmp_path)

    def test_a_tensor_too_many(self, state, tmp_path: Path) -> None:
        state["up.7.block.0.norm1.bias"] = torch.zeros(1)
        assert "up.7.block.0.norm1.bias is unknown" in self.refused(state, tmp_path)

    def test_a_misshapen_tensor(self, state, tmp_path: Path) -> None:
        state["mid.attn_1.q.weight"] = torch.zeros(64, 64)
        message = "mid.attn_1.q.weight has shape (64, 64) instead of (64, 64, 1, 1)"
        assert message in self.refused(state, tmp_path)

    def test_a_tensor_that_says_the_architecture_misshapen(self, state, tmp_path: Path) -> None:
        state["down.1.block.0.conv1.weight"] = torch.zeros(3)
        assert "down.1.block.0.conv1.weight has shape (3,)" in self.refused(state, tmp_path)

    def test_integers(self, state, tmp_path: Path) -> None:
        state["norm_out.bias"] = state["norm_out.bias"].int()
        assert "norm_out.bias is of type torch.int32 instead" in self.refused(state, tmp_path)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, state, value: float, tmp_path: Path) -> None:
        state["temb.dense.1.weight"][3, 4] = value
        assert "temb.dense.1.weight is not finite" in self.refused(state, tmp_path)

    def test_tensors_without_values(self, state, tmp_path: Path) -> None:
        state["norm_out.bias"] = torch.empty(32, device="meta")
        state["norm_out.weight"] = torch.ones(32).to_sparse()
        message = self.refused(state, tmp_path)
        assert "norm_out.bias holds no plain values" in message
        assert "norm_out.weight holds no plain values" in message

    def test_widths_that_32_groups_do_not_divide(self, tmp_path: Path) -> None:
        state = random_state(ddpm_shapes(self.NET))
        state["down.0.block.0.conv1.weight"] = torch.zeros(30, 32, 3, 3)
        assert "multiples of norm_num_groups" in self.refused(state, tmp_path)

    def test_many_faults_are_counted(self, state, tmp_path: Path) -> None:
        few = {name: x for name, x in state.items() if not name.startswith("mid.")}
        gone = len(state) - len(few)
        assert f"(and {gone - 3} more)" in self.refused(few, tmp_path)
