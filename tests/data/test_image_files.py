"""Photographs of every kind become the RGB pixels that torchvision's ImageFolder gives."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader

from lit_purify.data.image_files import check_photograph_header, read_photograph
from lit_purify.types import InputError

_RNG = np.random.default_rng(0)
RGB = Image.fromarray(_RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8))
GREY = RGB.convert("L")
CMYK = Image.fromarray(_RNG.integers(0, 256, (40, 30, 4), dtype=np.uint8), "CMYK")


def _bytes(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _rotated() -> bytes:
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned by 90 degrees
    return _bytes(RGB, "JPEG", exif=orientation)


TAKEN: dict[str, Callable[[], bytes]] = {
    "rgb": lambda: _bytes(RGB, "JPEG"),
    "progressive": lambda: _bytes(RGB, "JPEG", progressive=True),
    "grey": lambda: _bytes(GREY, "JPEG"),
    "cmyk": lambda: _bytes(CMYK, "JPEG"),
    "png": lambda: _bytes(RGB, "PNG"),
    "palette": lambda: _bytes(RGB.quantize(16), "PNG"),
    "opaque-alpha": lambda: _bytes(RGB.convert("RGBA"), "PNG"),
    "webp": lambda: _bytes(RGB, "WEBP"),
    "two-pictures": lambda: _bytes(RGB, "MPO", save_all=True, append_images=[GREY.convert("RGB")]),
    "rotated": _rotated,
}


@pytest.mark.parametrize("content", TAKEN.values(), ids=TAKEN.keys())
def test_pixels_are_those_of_image_folder(tmp_path: Path, content: Callable[[], bytes]) -> None:
    path = tmp_path / "a.JPEG"  # what a file is, its content says
    path.write_bytes(content())
    found = read_photograph(path)
    assert (found.mode, found.size) == ("RGB", (30, 40))
    assert np.array_equal(np.asarray(found), np.asarray(default_loader(str(path))))
    check_photograph_header(path)


def test_cmyk_is_converted_by_the_plain_formula(tmp_path: Path) -> None:
    path = tmp_path / "a.JPEG"
    path.write_bytes(_bytes(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100))
    assert np.asarray(read_photograph(path))[4, 4] == pytest.approx([0, 255, 255], abs=3)


HALF = RGB.convert("RGBA")
HALF.putpixel((3, 4), (1, 2, 3, 128))
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "cannot be read"),
    "text": (lambda: b"<html></html>", "cannot be read"),
    "cut": (lambda: _bytes(RGB, "JPEG")[:-200], "cannot be read"),
    "gif": (lambda: _bytes(RGB, "GIF"), "cannot be read"),
    "16-bit": (lambda: _bytes(Image.new("I;16", (6, 8)), "PNG"), "8 bits"),
    "transparent": (lambda: _bytes(HALF, "PNG"), "transparent"),
    "animated": (
        lambda: _bytes(RGB, "WEBP", save_all=True, append_images=[GREY.convert("RGB")]),
        "animated",
    ),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_files_are_named(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    path = tmp_path / "bad.JPEG"
    path.write_bytes(content())
    with pytest.raises(InputError, match=message) as caught:
        read_photograph(path)
    assert "bad.JPEG" in str(caught.value)


@pytest.mark.parametrize("kind", ["empty", "text", "gif", "16-bit", "animated"])
def test_what_a_header_shows(tmp_path: Path, kind: str) -> None:
    content, message = REFUSED[kind]
    path = tmp_path / "bad.JPEG"
    path.write_bytes(content())
    with pytest.raises(InputError, match=message):
        check_photograph_header(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.JPEG: cannot be read"):
        read_photograph(tmp_path / "gone.JPEG")


def test_a_picture_beyond_all_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.JPEG"
    path.write_bytes(_bytes(RGB, "JPEG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # of 1200; an error beyond twice as many
    with pytest.raises(InputError, match=r"a\.JPEG: the image is far larger than a photograph"):
        read_photograph(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # here Pillow only warns
    assert read_photograph(path).size == (30, 40)
