"""What a sample becomes does not depend on the company it is in."""

from typing import Any

import pytest
import torch
from oracles import random_unet, some_images
from torch import Tensor

from lit_purify.diffusion import PRESETS, DiffusionPurifier, FixedNoise

IMAGES = some_images(64, (3, 16, 16)).float()
INDICES = torch.arange(1000, 1064)


@pytest.fixture(scope="module", params=["ddpm", "reverse", "ddim"])
def purify(request: pytest.FixtureRequest) -> Any:
    forward, sampler = PRESETS[request.param]
    purifier = DiffusionPurifier(
        random_unet(), t_star=100, num_steps=3, forward_process=forward, sampler=sampler
    )

    def call(images: Tensor, indices: Tensor) -> Tensor:
        with torch.no_grad():
            return purifier.purify(images, FixedNoise(0), indices)

    return call


@pytest.fixture(scope="module")
def whole(purify: Any) -> Tensor:
    return purify(IMAGES, INDICES)


@pytest.mark.parametrize("size", [1, 7])
def test_batch_size(purify: Any, whole: Tensor, size: int) -> None:
    some = slice(21, 35)
    parts = zip(IMAGES[some].split(size), INDICES[some].split(size), strict=True)
    got = torch.cat([purify(images, indices) for images, indices in parts])
    torch.testing.assert_close(got, whole[some], rtol=0, atol=1e-5)


def test_order(purify: Any, whole: Tensor) -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    got = purify(IMAGES[order], INDICES[order])
    torch.testing.assert_close(got, whole[order], rtol=0, atol=1e-5)


def test_the_index_and_not_the_position_keys_the_noise() -> None:
    purifier = DiffusionPurifier(random_unet(), t_star=100, num_steps=2)
    same = IMAGES[:1].expand(3, -1, -1, -1)
    got = purifier.purify(same, FixedNoise(0), torch.tensor([8, 9, 8]))
    torch.testing.assert_close(got[0], got[2], rtol=0, atol=1e-5)
    assert (got[0] - got[1]).abs().max() > 0.1
