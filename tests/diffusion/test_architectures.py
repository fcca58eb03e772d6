"""The published architectures: their sizes, their random weights, and every kind of derivative.

That they compute what was published is shown with the files of their weights, in
``tests/checkpoints``.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import fill, some_images
from torch import Tensor
from unets import PUBLISHED, Factory, small_ddpm, small_guided

from lit_purify.diffusion import ddpm_unet, guided_diffusion_unet, score_sde_unet, small_unet
from lit_purify.functional.jacobian import pull_back, push_forward
from lit_purify.types import InputError


class TestSizes:
    @pytest.mark.parametrize(
        ("factory", "parameters", "name", "side"),
        [
            (ddpm_unet, 35_746_307, "DDPM", 32),
            (guided_diffusion_unet, 552_814_086, "guided-diffusion", 256),
            (score_sde_unet, 106_632_579, "Score-SDE DDPM++", 32),
        ],
    )
    def test_of_the_published_networks(
        self, factory: Factory, parameters: int, name: str, side: int
    ) -> None:
        network = factory(seed=None)
        assert sum(p.numel() for p in network.parameters()) == parameters
        assert all(x.is_meta for x in network.state_dict().values())
        assert network.image_shape == (3, side, side)
        assert (
            network.source == f"{name} U-Net, {parameters / 1e6:.1f} M parameters, without weights"
        )

    def test_other_images(self) -> None:
        assert ddpm_unet(seed=None, channels=1, image_size=64).image_shape == (1, 64, 64)

    @pytest.mark.parametrize(("learns", "outputs"), [(True, 6), (False, 3)])
    def test_learned_variance_doubles_the_outputs(self, learns: bool, outputs: int) -> None:
        network = small_guided(learn_sigma=learns)
        assert network(torch.zeros(2, 3, 8, 8), 5).shape == (2, outputs, 8, 8)

    @pytest.mark.parametrize(
        ("factory", "arguments", "message"),
        [
            (ddpm_unet, {"image_size": 0}, "image_size"),
            (ddpm_unet, {"image_size": 20}, "multiple of 8"),
            (ddpm_unet, {"block_out_channels": ()}, "block_out_channels"),
            (ddpm_unet, {"block_out_channels": (128, 100)}, "norm_num_groups = 32"),
            (ddpm_unet, {"block_out_channels": (-32,)}, "norm_num_groups = 32"),
            (ddpm_unet, {"attention_levels": (1, 4)}, "attention_levels"),
            (ddpm_unet, {"attention_levels": (-1,)}, "attention_levels"),
            (ddpm_unet, {"layers_per_block": 0}, "layers_per_block"),
            (ddpm_unet, {"seed": -1}, "seed"),
            (ddpm_unet, {"seed": 2**32}, "seed"),
            (guided_diffusion_unet, {"image_size": 200}, "multiple of 32"),
            (guided_diffusion_unet, {"channel_mult": ()}, "begins with 1"),
            (guided_diffusion_unet, {"channel_mult": (2, 4)}, "begins with 1"),
            (guided_diffusion_unet, {"model_channels": 40}, "norm_num_groups = 32"),
            (guided_diffusion_unet, {"attention_resolutions": (32, 12)}, "256, 128, 64, 32, 16, 8"),
            (guided_diffusion_unet, {"num_head_channels": 96}, "has 512"),
            (guided_diffusion_unet, {"num_head_channels": 0}, "num_head_channels"),
            (score_sde_unet, {"image_size": 20}, "multiple of 8"),
            (score_sde_unet, {"block_out_channels": ()}, "block_out_channels"),
            (score_sde_unet, {"block_out_channels": (30, 60)}, "multiples of 4"),
            (score_sde_unet, {"block_out_channels": (100, 100)}, "multiples of 4"),
            (score_sde_unet, {"attention_levels": (4,)}, "attention_levels"),
            (score_sde_unet, {"layers_per_block": 0}, "layers_per_block"),
            (score_sde_unet, {"seed": 2**32}, "seed"),
        ],
    )
    def test_impossible_ones(
        self, factory: Factory, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            factory(**{"seed": None, **arguments})


class TestRandomWeights:
    @PUBLISHED
    def test_the_seed_decides_them_and_the_global_state_has_no_part(self, factory: Factory) -> None:
        before = torch.get_rng_state()
        first = factory().state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        with torch.random.fork_rng():
            torch.manual_seed(99)
            again, other = factory(seed=0).state_dict(), factory(seed=1).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["network.conv_in.weight"], other["network.conv_in.weight"])

    def test_they_lie_within_the_inverse_root_of_the_inputs(self) -> None:
        state = ddpm_unet().network.state_dict()
        for name, fan_in in {
            "conv_in": 3 * 9,
            "down_blocks.1.resnets.0.conv1": 128 * 9,
            "mid_block.attentions.0.to_q": 256,
            "time_embedding.linear_2": 512,
        }.items():
            bound = 1 / math.sqrt(fan_in)
            weight = state[f"{name}.weight"]
            assert 0.98 * bound < weight.abs().max() <= bound
            assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
            assert 0 < state[f"{name}.bias"].abs().max() <= bound
        norms = {name: x for name, x in state.items() if "norm" in name}
        assert all((x == float(name.endswith("weight"))).all() for name, x in norms.items())
        # Two in each of 8 + 2 + 12 residual blocks, one in each of 6 attentions, one at the end.
        assert len(norms) == 2 * (2 * 22 + 6 + 1)

    @PUBLISHED
    def test_a_report_cannot_mistake_them(self, factory: Factory) -> None:
        assert "untrained" in factory().source
        assert "random weights of seed 7" in factory(seed=7).source

    def test_nor_the_shipped_architecture_before_it_is_trained(self) -> None:
        source = small_unet(block_out_channels=(8, 16), norm_num_groups=4).source
        assert source.startswith("untrained small U-Net")

    def test_they_can_be_trained(self) -> None:
        network = small_ddpm()
        network(torch.ones(1, 3, 8, 8), 5).sum().backward()
        assert all(p.grad is not None for p in network.parameters())


class TestDerivatives:
    """Attention has fused kernels that know one backward pass only."""

    @staticmethod
    def parts(factory: Factory) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor]:
        network = fill(factory().double(), seed=4, std=0.3).requires_grad_(False)
        x, v, u = (some_images(2, seed=seed) - 0.5 for seed in (0, 1, 2))
        return lambda x: network(x, 9)[:, :3], x, v, u

    @PUBLISHED
    def test_forward_mode(self, factory: Factory) -> None:
        """<u, J v> = <J^T u, v>, asked for in any way; finite differences agree."""
        function, x, v, u = self.parts(factory)
        want = (pull_back(function, x, u) * v).sum()
        pushed = [
            push_forward(function, x, v),
            push_forward(function, x, v, differentiation="reverse"),
            torch.func.jvp(function, (x,), (v,))[1],
        ]
        for tangent in pushed:
            torch.testing.assert_close((u * tangent).sum(), want, rtol=1e-10, atol=0)
        h = 1e-5
        slope = (function(x + h * v) - function(x - h * v)) / (2 * h)
        torch.testing.assert_close(pushed[0], slope, rtol=1e-5, atol=1e-6)

    @PUBLISHED
    def test_bfloat16(self, factory: Factory) -> None:
        network = factory()
        x = some_images(2).float()
        with torch.no_grad():
            want = network(x, 9)
            low = network.to(torch.bfloat16)(x.bfloat16(), 9)
        assert low.dtype == torch.bfloat16
        assert (low.float() - want).norm() < 0.03 * want.norm()
        x16 = x.bfloat16().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x16, 9).float().sum(), x16)
        assert gradient.isfinite().all()


def test_the_small_unet_begins_as_nothing():
    """It predicts zero, and its residual blocks hand on what they are given."""
    denoiser = small_unet(block_out_channels=(8, 16), norm_num_groups=4)
    generator = torch.Generator().manual_seed(0)
    x, features, time = (
        torch.randn(shape, generator=generator)
        for shape in ((2, 3, 32, 32), (2, 16, 4, 4), (2, 32))
    )
    assert denoiser(x, 500).count_nonzero() == 0
    block = denoiser.network.mid_block.resnets[0]
    assert torch.equal(block(features, time), features)
    silent = [name for name, p in denoiser.network.named_parameters() if not p.any()]
    layers = {name.rsplit(".", 1)[0].rsplit(".", 1)[-1] for name in silent if "weight" in name}
    assert layers == {"conv2", "conv_out"}
