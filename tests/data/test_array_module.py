"""ArrayDataModule, and with it what every data module takes, refuses and says."""

from typing import Any

import numpy as np
import pytest
import torch

from lit_purify.data import ArrayDataModule, CIFAR10DataModule
from lit_purify.types import InputError

IMAGES = torch.rand(5, 3, 6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 0, 2, 2, 1])


def _data(**arguments: Any) -> ArrayDataModule:
    data = ArrayDataModule(**{"images": IMAGES, "labels": LABELS} | arguments)
    data.setup("test")
    return data


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_arrays_are_the_same_with_channels_last(dtype):
    images = (IMAGES * 255).to(dtype) if dtype == torch.uint8 else IMAGES.to(dtype)
    tensors = _data(images=images)
    arrays = _data(images=images.permute(0, 2, 3, 1).numpy(), labels=LABELS.numpy())
    assert tensors.image_shape == arrays.image_shape == (3, 6, 4)
    assert tensors.settings() == arrays.settings()
    assert tensors.test_set[1]["image"].dtype == torch.float32
    for one, two in zip(tensors.test_dataloader(), arrays.test_dataloader(), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"indices": [4, 0, 2]}, [4, 0, 2]),
        ({"indices": [4, 0, 2], "limit": 2}, [4, 0]),
        ({"limit": 3}, [0, 1, 2]),
        ({"limit": 50}, [0, 1, 2, 3, 4]),
        ({}, [0, 1, 2, 3, 4]),
    ],
)
def test_indices_keep_their_order_and_place(arguments, expected):
    (batch,) = _data(**arguments).test_dataloader()
    assert batch["index"].tolist() == expected
    assert torch.equal(batch["label"], LABELS[expected])
    assert torch.equal(batch["image"], IMAGES[expected])
    assert batch["index"].dtype == batch["label"].dtype == torch.int64


def test_settings_name_the_images():
    settings = _data(limit=2, batch_size=3).settings()
    assert settings == {
        "data": "arrays",
        "data_sha256": _data(images=IMAGES[:2], labels=LABELS[:2]).test_set.sha256(),
        "images": 2,
        "batch_size": 3,
    }
    others = [
        _data(),
        _data(indices=[1, 0]),
        _data(limit=2, images=IMAGES.flip(3)),
        _data(limit=2, labels=LABELS + 1),
    ]
    assert len({settings["data_sha256"], *(data.test_set.sha256() for data in others)}) == 5


def test_what_was_given_keeps_its_gradient_and_its_generator():
    images = IMAGES.clone().requires_grad_()
    before = torch.get_rng_state()
    (batch,) = _data(images=images).test_dataloader()
    assert images.requires_grad
    assert not batch["image"].requires_grad
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 0}, "limit"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"indices": []}, "empty"),
        ({"indices": [4, 2, 4]}, r"\[4\] more than once"),
        ({"indices": [1, -3]}, r"\[-3\]"),
        ({"indices": [0, 5]}, r"\[5\].*0 \.\. 4"),
        ({"images": IMAGES.permute(0, 2, 3, 1)}, "channels first"),
        ({"images": IMAGES.numpy()}, "channels last"),
        ({"images": IMAGES.bfloat16()}, "bfloat16"),
        ({"num_classes": 3}, r"0 \.\. 2"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        _data(**arguments)


def test_labels_of_a_known_number_of_classes():
    assert _data(num_classes=4).num_classes == 4
    assert _data().num_classes is None


def test_the_same_images_from_anywhere_have_one_hash():
    data = CIFAR10DataModule(limit=3)
    data.setup("test")
    images = np.stack([(data.test_set[k]["image"] * 255).round() for k in range(3)])
    given = _data(images=torch.from_numpy(images).byte(), labels=data.test_set.labels)
    assert given.test_set.sha256() == data.settings()["data_sha256"]


@pytest.mark.parametrize("indices", [[0, 1, 2, 1, 4], [7] * 5])
def test_an_index_of_two_images_is_refused_before_the_first_batch(indices: list[int]) -> None:
    """As a data module of one's own might give them: the noise and the records hang on it."""
    data = ArrayDataModule(images=IMAGES[:5], labels=torch.arange(5))
    data.test_set.indices = torch.tensor(indices)
    with pytest.raises(InputError, match="more than once"):
        data.test_dataloader()
