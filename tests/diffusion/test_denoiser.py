"""Networks behind the denoiser contract."""

import pytest
import torch
from oracles import random_unet
from torch.nn import functional as F

from lit_purify.diffusion import UNetDenoiser


def test_step_t_is_time_index_t_minus_1() -> None:
    denoiser = random_unet()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    folded = F.pixel_unshuffle(x, 2)
    want = F.pixel_shuffle(denoiser.network(folded, 9).sample, 2)
    torch.testing.assert_close(denoiser(x, 10), want, rtol=0, atol=1e-6)
    per_sample = denoiser(x, torch.tensor([10, 1]))
    torch.testing.assert_close(per_sample[:1], want[:1], rtol=0, atol=1e-6)
    first = F.pixel_shuffle(denoiser.network(folded[1:], 0).sample, 2)
    torch.testing.assert_close(per_sample[1:], first, rtol=0, atol=1e-6)
    assert not torch.allclose(denoiser(x, 10), denoiser(x, 500))


@pytest.mark.parametrize("patch_size", [1, 2])
def test_patches_only_fold(patch_size: int) -> None:
    class Identity(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> object:
            self.shape, self.t = x.shape, t
            return type("Output", (), {"sample": x})

    network = Identity()
    denoiser = UNetDenoiser(network, patch_size=patch_size)  # type: ignore[arg-type]
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denoiser(x, 7), x)
    assert network.shape == (2, 3 * patch_size**2, 8 // patch_size, 8 // patch_size)
    assert network.t.tolist() == [6, 6]
