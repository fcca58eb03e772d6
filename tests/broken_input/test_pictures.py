"""Image folders."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from refusals import Make, dangling, nothing, unreadable, write


def _picture(name: str, mode: str, size: tuple[int, int] = (32, 32), **options: Any) -> Make:
    def make(folder: Path) -> None:
        fill = options.pop("fill", 0)
        Image.new(mode, size, fill).save(folder / name, **options)

    return make


def _file(name: str, make: Make) -> Make:
    return lambda folder: make(folder / name)


def _frames(name: str, kind: str, suffix: str = "") -> Make:
    def make(folder: Path) -> None:
        frames = [Image.new("RGB", (32, 32), (value, 0, 0)) for value in (0, 200)]
        frames[0].save(folder / name, kind, save_all=True, append_images=frames[1:])

    return make


def _cut(name: str, keep: float) -> Make:
    def make(folder: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])

    return make


def _png(width: int, height: int, bits: int, rows: bytes) -> bytes:
    """A PNG with a header of one's own; Pillow writes neither 16-bit colour nor huge ones."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _twins(folder: Path) -> None:
    for name in ("a.png", "a.webp"):
        Image.new("RGB", (32, 32)).save(folder / name)


PICTURES: dict[str, tuple[Make, str]] = {
    "CMYK": (_picture("a.jpg", "CMYK"), "CMYK"),
    "16-bit grey": (_picture("a.png", "I;16"), "8 bits"),
    "16-bit colour": (
        _file("a.png", write(_png(32, 32, 16, (b"\0" + b"\x7f" * 192) * 32))),
        "8 bits",
    ),
    "animated WebP": (_frames("a.webp", "WEBP"), "animated"),
    "animated PNG": (_frames("a.png", "PNG"), "animated"),
    "animated GIF renamed": (_frames("a.png", "GIF"), "complete"),
    "cut off PNG": (_cut("a.png", 0.7), "cannot be read"),
    "cut off JPEG": (_cut("a.jpg", 0.7), "cannot be read"),
    "cut off WebP": (_cut("a.webp", 0.7), "cannot be read"),
    "cut off in the header": (_cut("a.png", 0.005), "cannot be read"),
    "zero bytes": (_file("a.png", write(b"")), "cannot be read"),
    "text renamed": (_file("a.png", write("not a picture\n")), "cannot be read"),
    "web page renamed": (_file("a.jpg", write("<!DOCTYPE html><html></html>")), "cannot be read"),
    "decompression bomb": (
        _file("a.png", write(_png(60_000, 60_000, 8, b"\0" * 99))),
        "far larger",
    ),
    "large, not a bomb": (_file("a.png", write(_png(9_000, 9_000, 8, b"\0"))), "9000 x 9000"),
    "no pixels": (_file("a.png", write(_png(0, 0, 8, b""))), "a.png"),
    "wrong size": (_picture("a.png", "RGB", (28, 32)), "28 x 32"),
    "transparency": (_picture("a.png", "RGBA", fill=(1, 2, 3, 9)), "transparent"),
    "same stem twice": (_twins, "a.webp"),
    "zero files": (nothing, "no images"),
    "only other files": (_file("notes.txt", write("x")), "no images"),
    "a folder named as a picture": (lambda f: (f / "a.png").mkdir(), "no images"),
    "dangling link": (_file("a.png", dangling), "no images"),
    "unreadable": (_file("a.png", unreadable), "a.png"),
    "one broken among sound ones": (
        lambda f: [_picture("a.png", "RGB")(f), _picture("c.png", "RGB")(f), _cut("b.png", 0.7)(f)],
        "b.png",
    ),
}


@pytest.mark.parametrize("what", PICTURES)
def test_it_is_refused(what, refuse):
    make, word = PICTURES[what]
    refuse("predict", "--data.source={input}", word, make)
