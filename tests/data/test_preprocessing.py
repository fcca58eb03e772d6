"""Preprocessing of photographs: closed forms, and torchvision bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from lit_purify.data.preprocessing import Preprocessing, preprocessing_named
from lit_purify.types import InputError

TORCHVISION: dict[str, Callable] = {
    "Res256Crop224": transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)]),
    "BicubicRes256Crop224": transforms.Compose(
        [
            transforms.Resize(256, interpolation=InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
        ]
    ),
    "BicubicRes248Crop224": transforms.Compose(
        [
            transforms.Resize(248, interpolation=InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
        ]
    ),
    "Res224Crop224": transforms.Compose([transforms.Resize(224), transforms.CenterCrop(224)]),
    "Res224": transforms.Resize([224, 224]),
    "Crop288": transforms.CenterCrop(288),
}
"""What RobustBench means by these names."""

SIZES = [
    (500, 375),
    (375, 500),
    (256, 256),
    (224, 224),
    (257, 256),
    (300, 257),
    (287, 289),
    (200, 401),
    (513, 100),
    (31, 33),
    (1023, 683),
]
"""Width and height, odd and even, larger and smaller than what is cut out."""


def _noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", TORCHVISION)
def test_pixels_are_torchvisions(name: str, size: tuple[int, int]) -> None:
    picture = _noise(*size)
    found = preprocessing_named(name)(picture)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(TORCHVISION[name](picture)))


def test_resized_sizes_are_torchvisions() -> None:
    resize, found = transforms.Resize(16), Preprocessing(16, shorter_side=16)
    for shorter in range(1, 40, 3):
        for longer in range(shorter, 120, 7):
            for size in ((shorter, longer), (longer, shorter)):
                assert found._resized(*size) == resize(Image.new("L", size)).size


def test_a_picture_of_256_pixels_is_cut_and_not_resized() -> None:
    picture = _noise(256, 256)
    found = preprocessing_named("Res256Crop224")(picture)
    assert np.array_equal(found, np.asarray(picture)[16:240, 16:240])


def test_a_picture_of_the_final_size_is_stretched_to_itself() -> None:
    picture = _noise(224, 224)
    assert np.array_equal(preprocessing_named("Res224")(picture), np.asarray(picture))


def test_a_small_picture_gets_a_black_margin() -> None:
    found = preprocessing_named("Crop288")(Image.new("RGB", (286, 100), (255, 255, 255)))
    assert found.shape == (288, 288, 3)
    assert (found[94:194, 1:287] == 255).all()
    assert found.sum() == 255 * 3 * 286 * 100


@pytest.mark.parametrize("name", TORCHVISION)
def test_one_colour_stays_that_colour(name: str) -> None:
    found = preprocessing_named(name)(Image.new("RGB", (640, 481), (3, 100, 255)))
    assert (found == np.array([3, 100, 255], np.uint8)).all()


@pytest.mark.parametrize("name", ["", "res256", "Res0", "Res256Crop", "Crop-1", "Res99999", "A224"])
def test_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"expected a name of RobustBench's such as Res256Crop"):
        preprocessing_named(name)


def test_more_cannot_be_cut_out_than_there_is() -> None:
    with pytest.raises(InputError, match="Res224Crop256"):
        preprocessing_named("Res224Crop256")
