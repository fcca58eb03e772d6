"""From a picture of any size to the pixels that an ImageNet classifier sees.

The names and the results are RobustBench's: torchvision's ``Resize`` and ``CenterCrop`` on a Pillow
image, whose resampling always averages over the area that a pixel covers (antialiasing).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from lit_purify.types import InputError


class Preprocessing(NamedTuple):
    """What makes every picture the same size.

    Attributes:
        size: pixels of a side of the result, which is square.
        transform: from an RGB picture to the result; black where a picture is smaller than what is
            cut out of it.
    """

    size: int
    transform: Callable[[Image.Image], Image.Image]


_NAME = re.compile(
    r"(?P<bicubic>Bicubic)?Res(?P<side>[1-9]\d{0,3})Crop(?P<size>[1-9]\d{0,3})"
    r"|Res(?P<stretched>[1-9]\d{0,3})|Crop(?P<cut>[1-9]\d{0,3})"
)


def preprocessing_named(name: str) -> Preprocessing:
    """The preprocessing of a name: ``Res256Crop224``, ``BicubicRes256Crop224``, and so on.

    Args:
        name: ``Res<a>Crop<b>`` resizes the shorter side to a and cuts out b x b, with ``Bicubic``
            before it by bicubic interpolation instead of bilinear; ``Res<a>`` stretches to a x a;
            ``Crop<b>`` cuts out only.

    Raises:
        InputError: it is no such name, or cuts out more than it resizes to.

    Example:
        >>> preprocessing_named("Res256Crop224").transform(Image.new("RGB", (500, 375))).size
        (224, 224)
    """
    # Late: images that are arrays already need no torchvision.
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    found = _NAME.fullmatch(name)
    if found is None or (found["side"] and int(found["side"]) < int(found["size"])):
        raise InputError(
            f"preprocessing is {name!r}; expected a name of RobustBench's such as Res256Crop224, "
            "BicubicRes256Crop224, Res224 or Crop288; the classifier's entry there says which"
        )
    if found["stretched"]:
        size = int(found["stretched"])
        return Preprocessing(size, Resize((size, size)))
    if found["cut"]:
        return Preprocessing(int(found["cut"]), CenterCrop(int(found["cut"])))
    size = int(found["size"])
    mode = InterpolationMode.BICUBIC if found["bicubic"] else InterpolationMode.BILINEAR
    return Preprocessing(size, Compose([Resize(int(found["side"]), mode), CenterCrop(size)]))
