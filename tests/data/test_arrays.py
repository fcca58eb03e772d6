"""ImageArrays: what it gives and what it refuses. Tensors are in test_array_module."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from lit_purify.data.arrays import ImageArrays
from lit_purify.types import InputError

ONES = np.ones((2, 4, 4, 3), np.uint8)
LABELS = np.array([0, 9], np.uint8)
HALVES = np.full((2, 4, 4, 3), 0.5)
ONE_NAN = np.where(np.arange(96).reshape(HALVES.shape) == 77, np.nan, HALVES)


def test_uint8_image_is_channels_first_in_unit_range():
    images = np.zeros((1, 2, 3, 3), np.uint8)
    images[0, 1, 2, 0] = 51
    sample = ImageArrays(images, np.array([4]))[0]
    assert sample["image"].shape == (3, 2, 3)
    assert sample["image"].dtype == torch.float32
    assert sample["image"][0, 1, 2].item() == pytest.approx(0.2, abs=1e-7)
    assert sample["image"].sum() == sample["image"][0, 1, 2]


def test_float_images_keep_their_values():
    image = np.linspace(0, 1, 48).reshape(1, 4, 4, 3)
    sample = ImageArrays(image, np.array([1]))[0]
    assert sample["image"].dtype == torch.float32
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), image[0].astype(np.float32))


def test_read_only_and_big_endian_arrays_are_accepted():
    images = np.full((1, 2, 2, 3), 0.25, ">f4")
    images.flags.writeable = False
    assert ImageArrays(images, None)[0]["image"].unique().tolist() == [0.25]


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_a_batch_is_its_samples_to_the_bit(kind):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 4, 6, 3), np.uint8)
    images = pixels if kind is np.uint8 else (pixels / 255).astype(kind)
    dataset = ImageArrays(images, np.arange(5)).select([4, 2, 0, 3])
    found, expected = dataset.batch([3, 0, 3]), default_collate([dataset[i] for i in (3, 0, 3)])
    assert set(found) == set(expected) == {"image", "label", "index"}
    for name, value in found.items():
        assert torch.equal(value, expected[name])
        assert value.dtype == expected[name].dtype
        assert value.stride() == expected[name].stride()


def test_images_move_to_a_device():
    moved = ImageArrays(ONES, LABELS).to(torch.device("meta"))
    batch = moved.batch([1, 0, 1])
    assert {value.device.type for value in batch.values()} == {"meta"}
    assert batch["image"].shape == (3, 3, 4, 4)
    assert batch["image"].dtype == torch.float32


def test_grey_images_keep_their_channel():
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    dataset = ImageArrays(images, LABELS, image_shape=(1, 4, 4))
    assert torch.equal(dataset.batch([1])["image"], torch.arange(16.0, 32).view(1, 1, 4, 4) / 255)
    with pytest.raises(InputError, match=r"4 x 4 pixels, grey.*expected 4 x 4 pixels, RGB"):
        ImageArrays(images, LABELS, image_shape=(3, 4, 4))


def test_unknown_labels_are_minus_one():
    assert ImageArrays(ONES, None)[1]["label"].item() == -1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.ones((2, 3, 4, 4), np.uint8), r"\(2, 3, 4, 4\)"),
        (np.ones((2, 4, 4), np.uint8), r"\(2, 4, 4\)"),
        (np.ones((2, 4, 4, 4), np.uint8), r"\(2, 4, 4, 4\)"),
        (ONES[:0], "empty"),
        (ONES.astype(np.int64), "int64"),
        (ONES.astype(bool), "bool"),
        (ONES.astype(np.longdouble), "float"),
        (ONES.astype(object), "object"),
        (HALVES * 510, r"\[255, 255\].*divide"),
        (HALVES * -2, r"\[-1, -1\]"),
        (HALVES.astype(np.float32) * (2 + 2**-21), r"1\.0000002.*rounding"),
        (HALVES * (2 + 2**-50), r"1\.0000000000000004.*rounding"),
        (HALVES * np.inf, "infinity"),
        (ONE_NAN, "NaN"),
    ],
)
def test_refused_images(images, message):
    with pytest.raises(InputError, match=message):
        ImageArrays(images, LABELS)


def test_refused_size():
    assert len(ImageArrays(ONES, LABELS, image_shape=(3, 4, 4))) == 2
    with pytest.raises(InputError, match=r"4 x 4 pixels.*5 x 4"):
        ImageArrays(ONES, LABELS, image_shape=(3, 4, 5))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0]), r"\(1,\) beside 2 images"),
        (np.eye(10)[:2], r"\(2, 10\)"),
        (np.array([0.0, 1.0]), "float64"),
        (np.array([0, 10]), r"0 \.\. 10; expected 0 \.\. 9"),
        (np.array([-1, 3]), r"-1 \.\. 3"),
    ],
)
def test_refused_labels(labels, message):
    with pytest.raises(InputError, match=message):
        ImageArrays(ONES, labels, num_classes=10)
