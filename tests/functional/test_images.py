"""Values that are no picture's are told, and pictures are let pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_purify.data import CIFAR10DataModule, sources
from lit_purify.data.arrays import ImageArrays
from lit_purify.functional import suspicious_range

GENERATOR = torch.Generator().manual_seed(0)
PICTURES = torch.rand(4, 3, 8, 8, generator=GENERATOR)


def stored(pixels: np.ndarray) -> Tensor:
    """8-bit images as a data module hands them out."""
    dataset = ImageArrays(pixels, None)
    return torch.stack([dataset[k]["image"] for k in range(len(dataset))])


BITS = np.random.default_rng(0).integers(0, 2, (4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (stored(BITS), "black"),  # 0 and 1 in 8 bits
        (stored(15 * BITS), "black"),  # 4 bits
        (PICTURES / 255, "black"),  # divided twice
        (torch.zeros(2, 3, 8, 8), "black"),
        (stored(255 * BITS), "two values"),  # masks
        (PICTURES.round(), "two values"),
        (0.25 + 0.5 * PICTURES.round(), "two values"),
        (torch.full((2, 3, 8, 8), 0.5), "same"),
        (0.99 + 0.01 * PICTURES, "same"),
        (2 * PICTURES - 1, "range over"),
        (255 * PICTURES, "range over"),
        (PICTURES / PICTURES.max() + 2e-5, "1.00002"),
        (PICTURES.where(PICTURES < 0.9, torch.nan), "nan"),
        (PICTURES.where(PICTURES < 0.9, torch.inf), "inf"),
        (PICTURES.half() / 256, "black"),
    ],
)
def test_what_is_no_picture_is_told(images: Tensor, word: str) -> None:
    found = suspicious_range(images)
    assert found is not None
    assert word in found


@pytest.mark.parametrize(
    "images",
    [
        PICTURES,
        PICTURES[:1, :1],
        PICTURES / PICTURES.max() + 2e-7,
        PICTURES.half(),
        PICTURES.clamp(0.4, 0.6),
        torch.cat([PICTURES[:1], torch.zeros(7, 3, 8, 8)]),  # dark ones among others
        PICTURES.contiguous(memory_format=torch.channels_last),
        0.2 * PICTURES,  # a night
        torch.linspace(0, 1, 192).round(decimals=1).view(1, 3, 8, 8),  # few values
    ],
)
def test_pictures_are_let_pass(images: Tensor) -> None:
    assert suspicious_range(images) is None


def test_the_shipped_images_are_let_pass_one_by_one() -> None:
    images = stored(sources.embedded()[0])
    assert [k for k in range(len(images)) if suspicious_range(images[k : k + 1])] == []


def test_the_batches_of_a_data_module_are_what_it_judges() -> None:
    data = CIFAR10DataModule(limit=3)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert suspicious_range(batch["image"]) is None
