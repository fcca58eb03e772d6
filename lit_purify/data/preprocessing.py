"""From a picture of any size to the pixels that an ImageNet classifier sees.

The names and the results are RobustBench's, bit for bit those of torchvision's ``Resize`` and
``CenterCrop`` on a Pillow image; Pillow's resampling always averages over the area that a pixel
covers (antialiasing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image

from lit_purify.types import InputError

PreprocessingName = Literal["Res256Crop224", "BicubicRes256Crop224", "Res224", "Crop288"]


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


PREPROCESSINGS: dict[PreprocessingName, Preprocessing] = {
    "Res256Crop224": Preprocessing(224, shorter_side=256),
    "BicubicRes256Crop224": Preprocessing(224, shorter_side=256, resample=Image.Resampling.BICUBIC),
    "Res224": Preprocessing(224, stretch=True),
    "Crop288": Preprocessing(288),
}


def preprocessing_named(name: str) -> Preprocessing:
    """The preprocessing of a name.

    Raises:
        InputError: there is none.

    Example:
        >>> preprocessing_named("Res256Crop224")(Image.new("RGB", (500, 375))).shape
        (224, 224, 3)
    """
    for known in get_args(PreprocessingName):
        if name == known:
            return PREPROCESSINGS[known]
    raise InputError(
        f"preprocessing is {name!r}; expected one of {', '.join(PREPROCESSINGS)}, the names of "
        "RobustBench; the classifier's entry there says which."
    )
