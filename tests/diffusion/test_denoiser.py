"""Networks behind the denoiser contract."""

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from oracles import random_unet
from torch.nn import functional as F

import lit_purify
from lit_purify.checkpoints import save_denoiser
from lit_purify.diffusion import CosineSchedule, LinearSchedule, UNetDenoiser, small_unet
from lit_purify.types import InputError


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
        config: ClassVar = {"block_out_channels": (1,)}

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> object:
            self.shape, self.t = x.shape, t
            return type("Output", (), {"sample": x})

    network = Identity()
    denoiser = UNetDenoiser(network, patch_size=patch_size)  # type: ignore[arg-type]
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denoiser(x, 7), x)
    assert network.shape == (2, 3 * patch_size**2, 8 // patch_size, 8 // patch_size)
    assert network.t.tolist() == [6, 6]


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 3, 32, 30)])
def test_sides_that_cannot_be_halved_are_refused(shape: tuple[int, ...]) -> None:
    network = small_unet(block_out_channels=(8, 16), norm_num_groups=4)
    network.image_shape = None
    assert network.unit == 4  # patches of 2, halved once
    assert network(torch.zeros(1, 3, 12, 20), 1).shape == (1, 3, 12, 20)
    with pytest.raises(InputError, match="multiples of 4"):
        network(torch.zeros(shape), 1)


def test_a_denoiser_has_its_schedule() -> None:
    network = random_unet()
    assert network.schedule == LinearSchedule()
    other = UNetDenoiser(network.network, schedule=CosineSchedule(400))
    assert other.schedule == CosineSchedule(400)
    assert other.num_train_steps == 400


def test_a_file_that_cannot_name_the_schedule_is_refused(tmp_path: Path) -> None:
    network = random_unet()
    network.schedule = CosineSchedule()
    with pytest.raises(InputError, match="schedule"):
        save_denoiser(tmp_path / "lost.safetensors", network, {})


def test_its_length_is_said_once() -> None:
    with pytest.raises(TypeError, match="schedule"):

        class Long(UNetDenoiser):
            num_train_steps = 4000  # type: ignore[assignment]


def test_the_room_does_without_diffusers() -> None:
    """Until a network is built: the import takes seconds. What is above the room is left out."""
    program = (
        "import sys, types\n"
        "package = types.ModuleType('lit_purify')\n"
        f"package.__path__ = [{str(Path(lit_purify.__file__).parent)!r}]\n"
        "sys.modules['lit_purify'] = package\n"
        "import lit_purify.diffusion\n"
        "sys.exit('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
