"""Pictures of every kind become the RGB pixels that torchvision's ImageFolder gives, or none."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader

from lit_purify.data.image_files import check_photograph_header, read_photograph, read_pixels
from lit_purify.types import InputError

_RNG = np.random.default_rng(0)
RGB = Image.fromarray(_RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8))
GREY = RGB.convert("L")
CMYK = Image.fromarray(_RNG.integers(0, 256, (40, 30, 4), dtype=np.uint8), "CMYK")
TWO = {"save_all": True, "append_images": [GREY.convert("RGB")]}
Content = Callable[[], bytes]


def _bytes(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _file(folder: Path, content: Content) -> Path:
    path = folder / "a.JPEG"  # what a file is, its content says
    path.write_bytes(content())
    return path


def _png16(mode: str) -> bytes:
    """A 16-bit RGB or RGBA PNG, which Pillow cannot write: an 8-bit one of twice the width."""
    content = bytearray(_bytes(Image.new(mode, (60, 40))))
    content[16:20] = struct.pack(">I", 30)
    content[24] = 16
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def _rotated() -> bytes:
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned by 90 degrees
    return _bytes(RGB, "JPEG", exif=orientation)


LOSSLESS: dict[str, Content] = {
    "rgb": lambda: _bytes(RGB, "JPEG"),
    "progressive": lambda: _bytes(RGB, "JPEG", progressive=True),
    "rotated": _rotated,
    "grey": lambda: _bytes(GREY, "JPEG"),
    "png": lambda: _bytes(RGB),
    "palette": lambda: _bytes(RGB.quantize(16)),
    "bilevel": lambda: _bytes(GREY.convert("1")),
    "opaque-alpha": lambda: _bytes(RGB.convert("RGBA")),
    "opaque-grey-alpha": lambda: _bytes(GREY.convert("LA")),
    "webp": lambda: _bytes(RGB, "WEBP"),
}
PHOTOGRAPHS: dict[str, Content] = {
    "cmyk": lambda: _bytes(CMYK, "JPEG"),
    "two-pictures": lambda: _bytes(RGB, "MPO", **TWO),
}


@pytest.mark.parametrize("kind", [*LOSSLESS, *PHOTOGRAPHS])
def test_pixels_are_those_of_image_folder(tmp_path, kind):
    path = _file(tmp_path, (LOSSLESS | PHOTOGRAPHS)[kind])
    expected = np.asarray(default_loader(str(path)))
    found = read_photograph(path)
    assert (found.mode, found.size) == ("RGB", (30, 40))
    assert np.array_equal(np.asarray(found), expected)
    check_photograph_header(path)
    if kind in LOSSLESS:
        assert np.array_equal(read_pixels(path, (3, 40, 30)), expected)


def test_palette_is_looked_up(tmp_path):
    picture = Image.new("P", (6, 8), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    pixels = read_pixels(_file(tmp_path, lambda: _bytes(picture)), (3, 8, 6))
    assert (pixels == np.array([10, 20, 30])).all()
    with pytest.raises(InputError, match="transparent"):
        read_pixels(_file(tmp_path, lambda: _bytes(picture, transparency=1)), (3, 8, 6))


def test_cmyk_is_converted_by_the_plain_formula(tmp_path):
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    path = _file(tmp_path, lambda: _bytes(cyan, "JPEG", quality=100))
    assert np.asarray(read_photograph(path))[4, 4] == pytest.approx([0, 255, 255], abs=3)


HALF = RGB.convert("RGBA")
HALF.putpixel((3, 4), (1, 2, 3, 128))
REFUSED: dict[str, tuple[Content, str]] = {
    "empty": (lambda: b"", "cannot be read"),
    "text": (lambda: b"<html></html>", "cannot be read"),
    "gif": (lambda: _bytes(RGB, "GIF"), "cannot be read"),
    "grey-16": (lambda: _bytes(Image.new("I;16", (30, 40))), "8 bits"),
    "rgb-16": (lambda: _png16("RGB"), "8 bits"),
    "rgba-16": (lambda: _png16("RGBA"), "8 bits"),
    "animated-png": (lambda: _bytes(RGB, "PNG", **TWO), "animated"),
    "animated-webp": (lambda: _bytes(RGB, "WEBP", **TWO), "animated"),
    "header": (lambda: _png16("RGB")[:16] + b"\0\1\0\0" * 2 + _png16("RGB")[24:], "cannot be read"),
    # What follows does not show in the header.
    "cut-png": (lambda: _bytes(RGB)[:-30], "cannot be read"),
    "cut-jpeg": (lambda: _bytes(RGB, "JPEG")[:-200], "cannot be read"),
    "transparent": (lambda: _bytes(HALF), "transparent"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_files_are_named(tmp_path, kind):
    content, message = REFUSED[kind]
    path = _file(tmp_path, content)
    readers = [read_photograph, lambda path: read_pixels(path, (3, 40, 30))]
    if list(REFUSED).index(kind) < list(REFUSED).index("cut-png"):
        readers.append(check_photograph_header)
    for read in readers:
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert "a.JPEG" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: _bytes(RGB.resize((31, 40))), "31 x 40.*expected 30 x 40"),
        (PHOTOGRAPHS["cmyk"], "CMYK"),
        (PHOTOGRAPHS["two-pictures"], "animated"),
    ],
    ids=["size", "cmyk", "two-pictures"],
)
def test_what_only_a_photograph_may_be(tmp_path, content, message):
    path = _file(tmp_path, content)
    read_photograph(path)
    with pytest.raises(InputError, match=message):
        read_pixels(path, (3, 40, 30))


def test_a_picture_beyond_all_size_is_refused(tmp_path, monkeypatch):
    path = _file(tmp_path, LOSSLESS["rgb"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # of 1200; an error beyond twice as many
    with pytest.raises(InputError, match="larger"):
        read_photograph(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # here Pillow only warns
    assert read_photograph(path).size == (30, 40)


def test_grey_pixels_are_those_of_the_file(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    for mode in ("L", "LA"):
        picture = Image.fromarray(values).convert(mode)
        pixels = read_pixels(_file(tmp_path, lambda p=picture: _bytes(p)), (1, 8, 32))
        assert np.array_equal(pixels, values[..., None])
    bilevel = read_pixels(_file(tmp_path, lambda: _bytes(GREY.convert("1"))), (1, 40, 30))
    assert set(np.unique(bilevel)) == {0, 255}
    with pytest.raises(InputError, match="greyscale"):
        read_pixels(_file(tmp_path, lambda: _bytes(RGB)), (1, 40, 30))
