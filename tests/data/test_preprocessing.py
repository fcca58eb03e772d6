"""Preprocessing of photographs by name: closed forms, and what RobustBench means by the names."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from lit_purify.data.preprocessing import preprocessing_named
from lit_purify.types import InputError

BICUBIC = InterpolationMode.BICUBIC
TORCHVISION: dict[str, Callable] = {
    "Res256Crop224": Compose([Resize(256), CenterCrop(224)]),
    "BicubicRes256Crop224": Compose([Resize(256, interpolation=BICUBIC), CenterCrop(224)]),
    "BicubicRes248Crop224": Compose([Resize(248, interpolation=BICUBIC), CenterCrop(224)]),
    "Res224Crop224": Compose([Resize(224), CenterCrop(224)]),
    "Res224": Resize([224, 224]),
    "Crop288": CenterCrop(288),
}


def _pixels(name: str, picture: Image.Image) -> np.ndarray:
    return np.asarray(preprocessing_named(name).transform(picture))


def _noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "size", [(500, 375), (287, 289), (256, 256), (224, 224), (31, 33)], ids=str
)
@pytest.mark.parametrize("name", TORCHVISION)
def test_names_mean_what_robustbench_means(name, size):
    picture = _noise(*size)
    found = _pixels(name, picture)
    side = preprocessing_named(name).size
    assert (found.shape, found.dtype) == ((side, side, 3), np.uint8)
    assert np.array_equal(found, np.asarray(TORCHVISION[name](picture)))


def test_a_small_picture_gets_a_black_margin():
    found = _pixels("Crop288", Image.new("RGB", (286, 100), (255, 255, 255)))
    assert found.shape == (288, 288, 3)
    assert (found[94:194, 1:287] == 255).all()
    assert found.sum() == 255 * 3 * 286 * 100


@pytest.mark.parametrize(
    "name", ["", "res256", "Res0", "Res256Crop", "Crop-1", "Res99999", "A224", "Res224Crop256"]
)
def test_unknown_name_is_refused(name):
    with pytest.raises(InputError, match=f"'{name}'"):
        preprocessing_named(name)
