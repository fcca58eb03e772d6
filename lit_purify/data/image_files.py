"""From image files to pixels, RGB or grey, without silent loss."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from lit_purify.types import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""File names that count as images, in any case."""

Labelled = list[tuple[Path, int]]
"""Image files, each with its class index."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_LOSSLESS_MODES = ("RGB", "L", "P", "1")
_GREY_MODES = ("L", "LA", "1")
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, struct.error, zlib.error)


def visible(folder: Path) -> list[Path]:
    """What a folder holds, by name; hidden things are left out.

    Raises:
        InputError: it cannot be read.
    """
    try:
        paths = [path for path in folder.iterdir() if path.name[0] != "."]
    except OSError as error:
        raise InputError(
            f"the folder {str(folder)!r} cannot be read ({error.strerror}); check who may read it"
        ) from error
    return sorted(paths, key=lambda path: path.name)


def is_picture(path: Path) -> bool:
    """Whether a file's name is that of an image."""
    return path.suffix.lower() in SUFFIXES


def pictures(folder: Path) -> dict[str, Path]:
    """The images directly in a folder, in the order of their names, by their stems.

    Raises:
        InputError: it holds none, or two of one stem.
    """
    found: dict[str, Path] = {}
    for path in visible(folder):
        if is_picture(path) and path.is_file() and found.setdefault(path.stem, path) != path:
            raise InputError(
                f"the folder {str(folder)!r} holds {found[path.stem].name} and {path.name}; "
                "expected no two images of one name up to the suffix; rename all but one"
            )
    if not found:
        raise InputError(
            f"the folder {str(folder)!r} holds no images; expected files that end in "
            f"{', '.join(SUFFIXES)} directly in it; check the path"
        )
    return found


def read_pixels(path: Path, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Read an 8-bit image of one size, pixels as stored (no colour or orientation correction).

    As RGB, greyscale, palette and fully opaque RGBA images lose nothing. Anything whose conversion
    would lose something is refused, such as colours where grey is expected.

    Args:
        path: a PNG, JPEG or WebP file.
        image_shape: expected (C, H, W); C = 3 reads RGB, 1 reads grey.

    Returns:
        uint8 array of shape (H, W, C).

    Raises:
        InputError: the file is damaged, has another size, more than one frame, 16 bits per channel,
            transparent pixels, or another colour space.
    """
    channels, height, width = image_shape
    with _opened(path, photograph=False) as picture:
        if picture.size != (width, height):
            raise InputError(
                f"{path}: the image is {picture.width} x {picture.height} pixels (width x height); "
                f"expected {width} x {height}; resize it, or set image_shape"
            )
        if channels == 1:
            return np.asarray(_to_grey(picture, path))[..., None]
        return np.asarray(_to_rgb(picture, path, _LOSSLESS_MODES))


def read_photograph(path: Path) -> Image.Image:
    """Read an 8-bit image of any size as torchvision's ``ImageFolder`` does.

    Beside RGB the validation set of ImageNet holds greyscale and CMYK files. All become RGB by
    Pillow's ``convert``, for CMYK a plain formula without a colour profile: classifiers were
    trained on these pixels. What ``ImageFolder`` converts at a loss (more than 8 bits,
    transparency) is refused here. Of several pictures in one JPEG file (MPO: a camera's preview, a
    second eye) the first counts.

    Args:
        path: a PNG, JPEG or WebP file, whatever its name ends in.

    Returns:
        A picture of mode RGB, decoded.

    Raises:
        InputError: the file is damaged, animated, has 16 bits per channel, transparent pixels, or
            another colour space.
    """
    with _opened(path) as picture:
        return _to_rgb(picture, path, (*_LOSSLESS_MODES, "CMYK"))


def check_photograph_header(path: Path) -> None:
    """As :func:`read_photograph`, from the first bytes alone: damage further on is not found."""
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path, *, photograph: bool = True) -> Iterator[Image.Image]:
    """A picture whose header is sound; what goes wrong while it is open names its file."""
    try:
        with warnings.catch_warnings():
            # A huge picture is refused, or resized: that it is huge is no news.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as picture:
                _check_header(picture, path, single=not photograph or picture.format != "MPO")
                yield picture
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path}: the image is far larger than a photograph ({error}); resize it"
        ) from error
    except _DAMAGE as error:
        raise InputError(
            f"{path}: cannot be read ({error or type(error).__name__}); expected a complete PNG, "
            "JPEG or WebP file; export it again, or remove it"
        ) from error


def _check_header(picture: Image.Image, path: Path, *, single: bool) -> None:
    if single and getattr(picture, "n_frames", 1) > 1:
        raise InputError(
            f"{path}: the image is animated; expected a single picture; export one frame"
        )
    if picture.mode.startswith(("I", "F")) or _png_bit_depth(picture, path) == 16:
        raise InputError(
            f"{path}: the image has more than 8 bits per channel; expected 8, as the conversion "
            "would lose some; convert it to 8 bits first"
        )


def _png_bit_depth(picture: Image.Image, path: Path) -> int:
    """Bits per channel in the PNG header: Pillow reads 16-bit RGB as 8-bit without a word."""
    if picture.format != "PNG":
        return 8
    with path.open("rb") as file:
        return file.read(25)[24]


def _to_grey(picture: Image.Image, path: Path) -> Image.Image:
    if picture.mode not in _GREY_MODES:
        raise InputError(
            f"{path}: the image has colour mode {picture.mode}; expected greyscale; convert it, or "
            "set image_shape to three channels"
        )
    # Of three equal channels Pillow's weighted mean is each of them.
    return _to_rgb(picture, path, _LOSSLESS_MODES).convert("L")


def _to_rgb(picture: Image.Image, path: Path, modes: tuple[str, ...]) -> Image.Image:
    picture.load()
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA"):
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema() != (255, 255):
            raise InputError(
                f"{path}: the image has transparent pixels, whose colour is not defined; expected "
                "an opaque image; flatten it onto a background"
            )
        return picture.convert("RGB")
    if picture.mode in modes:
        return picture.convert("RGB")
    raise InputError(
        f"{path}: the image has colour mode {picture.mode}; expected RGB, greyscale or palette; "
        "convert it to RGB"
    )
