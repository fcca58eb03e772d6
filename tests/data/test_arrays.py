"""ImageArrays: what it gives and what it refuses."""

import numpy as np
import pytest
import torch

from lit_purify.data.arrays import ImageArrays
from lit_purify.types import InputError

ONES = np.ones((2, 4, 4, 3), np.uint8)
LABELS = np.array([0, 9], np.uint8)


def test_uint8_image_is_channels_first_in_unit_range() -> None:
    images = np.zeros((1, 2, 3, 3), np.uint8)
    images[0, 1, 2, 0] = 51
    sample = ImageArrays(images, np.array([4]))[0]
    assert sample["image"].shape == (3, 2, 3)
    assert sample["image"].dtype == torch.float32
    assert sample["image"][0, 1, 2].item() == pytest.approx(0.2, abs=1e-7)
    assert sample["image"].sum() == sample["image"][0, 1, 2]


def test_float_images_keep_their_values() -> None:
    image = np.linspace(0, 1, 48).reshape(1, 4, 4, 3)
    sample = ImageArrays(image, np.array([1]))[0]
    assert sample["image"].dtype == torch.float32
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), image[0].astype(np.float32))


def test_read_only_and_big_endian_arrays_are_accepted() -> None:
    images = np.full((1, 2, 2, 3), 0.25, ">f4")
    images.flags.writeable = False
    assert ImageArrays(images, None)[0]["image"].unique().tolist() == [0.25]


def test_index_and_label_are_int64() -> None:
    sample = ImageArrays(ONES, LABELS, [17, 3], num_classes=10)[0]
    assert sample["index"].dtype == sample["label"].dtype == torch.int64
    assert (sample["index"].item(), sample["label"].item()) == (17, 0)


def test_unknown_labels_are_minus_one() -> None:
    assert ImageArrays(ONES, None)[1]["label"].item() == -1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.ones((2, 3, 4, 4), np.uint8), r"shape \(2, 3, 4, 4\)"),
        (np.ones((2, 4, 4), np.uint8), r"shape \(2, 4, 4\)"),
        (np.ones((2, 4, 4, 1), np.uint8), r"shape \(2, 4, 4, 1\)"),
        (np.ones((0, 4, 4, 3), np.uint8), "empty"),
        (np.ones((2, 4, 4, 3), np.int64), "type int64"),
        (np.ones((2, 4, 4, 3), bool), "type bool"),
        (np.full((2, 4, 4, 3), None), "type object"),
        (np.full((2, 4, 4, 3), 255.0), r"\[255, 255\].*Divide"),
        (np.full((2, 4, 4, 3), -1.0), r"\[-1, -1\]"),
        (np.full((2, 4, 4, 3), np.nan), "NaN"),
        (np.full((2, 4, 4, 3), np.inf), "NaN or infinity"),
    ],
)
def test_refused_images(images: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageArrays(images, LABELS)


def test_one_nan_among_many_is_found() -> None:
    images = np.full((2, 4, 4, 3), 0.5)
    images[1, 2, 3, 1] = np.nan
    with pytest.raises(InputError, match="NaN"):
        ImageArrays(images, LABELS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0]), r"shape \(1,\) beside 2 images"),
        (np.eye(10)[:2], r"shape \(2, 10\)"),
        (np.array([0.0, 1.0]), "type float64"),
        (np.array([0, 10]), r"0 \.\. 10; expected 0 \.\. 9"),
        (np.array([-1, 3]), r"-1 \.\. 3"),
    ],
)
def test_refused_labels(labels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageArrays(ONES, labels, num_classes=10)


def test_refused_indices() -> None:
    with pytest.raises(InputError, match="1 dataset indices"):
        ImageArrays(ONES, LABELS, [5])
