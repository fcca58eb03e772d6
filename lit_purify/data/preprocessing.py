"""From a picture of any size to the pixels that an ImageNet classifier sees.

The names and the results are RobustBench's, bit for bit those of torchvision's ``Resize`` and
``CenterCrop`` on a Pillow image; Pillow's resampling always averages over the area that a pixel
covers (antialiasing).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lit_purify.types import InputError


@dataclass(frozen=True)
class Preprocessing:
    """Resize, then cut out the centre; black where the picture is smaller than that.

    Attributes:
        size: pixels of a side of the result, which is square.
        shorter_side: pixels of the shorter side after resizing, proportions kept; ``None`` keeps
            the size.
        stretch: resize to ``size`` x ``size`` instead, whatever the proportions.
        resample: how Pillow interpolates.
    """

    size: int
    shorter_side: int | None = None
    stretch: bool = False
    resample: Image.Resampling = Image.Resampling.BILINEAR

    def __call__(self, picture: Image.Image) -> np.ndarray:
        """Pixels of an RGB picture, uint8, shape (``size``, ``size``, 3)."""
        width, height = target = self._resized(*picture.size)
        if target != picture.size:
            picture = picture.resize(target, self.resample)
        left, top = _start(width, self.size), _start(height, self.size)
        # Pillow fills what lies outside of the picture with black.
        return np.array(picture.crop((left, top, left + self.size, top + self.size)))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.stretch:
            return self.size, self.size
        if self.shorter_side is None:
            return width, height
        # Rounded down, so that the shorter side is exact and the longer one torchvision's.
        shorter = min(width, height)
        return self.shorter_side * width // shorter, self.shorter_side * height // shorter


def _start(length: int, size: int) -> int:
    """Where the centre begins; a half goes to the even number, as Python rounds."""
    return round((length - size) / 2) if length >= size else -((size - length) // 2)


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
        >>> preprocessing_named("Res256Crop224")(Image.new("RGB", (500, 375))).shape
        (224, 224, 3)
    """
    found = _NAME.fullmatch(name)
    if found is None or (found["side"] and int(found["side"]) < int(found["size"])):
        raise InputError(
            f"preprocessing is {name!r}; expected a name of RobustBench's such as Res256Crop224, "
            "BicubicRes256Crop224, Res224 or Crop288; the classifier's entry there says which."
        )
    if found["stretched"]:
        return Preprocessing(int(found["stretched"]), stretch=True)
    if found["cut"]:
        return Preprocessing(int(found["cut"]))
    resample = Image.Resampling.BICUBIC if found["bicubic"] else Image.Resampling.BILINEAR
    return Preprocessing(int(found["size"]), shorter_side=int(found["side"]), resample=resample)
