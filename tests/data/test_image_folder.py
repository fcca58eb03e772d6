"""ImageFolderDataModule: names, order, and the files it refuses."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lit_purify.data import sources
from lit_purify.data.image_folder import ImageFolderDataModule
from lit_purify.types import InputError

RGB = (np.arange(8 * 6 * 3).reshape(8, 6, 3) % 256).astype(np.uint8)
GREY = RGB[..., 0]


def _batches(source: Path | str, **arguments: Any) -> tuple[ImageFolderDataModule, list]:
    arguments = {"image_shape": (3, 8, 6)} | arguments
    data = ImageFolderDataModule(source=str(source), **arguments)
    data.setup("predict")
    return data, list(data.predict_dataloader())


def _bytes(picture: Image.Image, suffix: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, suffix, **options)
    return buffer.getvalue()


def _png16(channels: int, size: tuple[int, int] = (8, 6)) -> bytes:
    """A 16-bit RGB or RGBA PNG, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    height, width = size
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + b"\xff\x7f" * width * channels for _ in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_folder_is_read_by_name(tmp_path: Path) -> None:
    for name, value in {"b.png": 2, "a.PNG": 1, "c.webp": 3}.items():
        (tmp_path / name).write_bytes(
            _bytes(Image.new("RGB", (6, 8), (value,) * 3), Path(name).suffix[1:], lossless=True)
        )
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._a.png").write_bytes(b"a desktop's litter")
    (tmp_path / "d.png").mkdir()
    data, batches = _batches(tmp_path, batch_size=2)
    assert data.names == ["a", "b", "c"]
    assert [b["index"].tolist() for b in batches] == [[0, 1], [2]]
    assert torch.cat([b["label"] for b in batches]).tolist() == [-1, -1, -1]
    pixels = torch.cat([b["image"][:, 0, 0, 0] for b in batches]) * 255
    assert pixels.round().tolist() == [1, 2, 3]


def test_limit_reads_only_the_first_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_bytes(Image.fromarray(RGB)))
    (tmp_path / "b.png").write_bytes(b"damaged")
    data, batches = _batches(tmp_path, limit=1)
    assert data.names == ["a"]
    assert len(batches) == 1


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(GREY), np.stack([GREY] * 3, -1)),
        (Image.fromarray(np.dstack([RGB, np.full((8, 6), 255, np.uint8)])), RGB),
        (Image.fromarray(GREY > 9), np.stack([(GREY > 9) * np.uint8(255)] * 3, -1)),
        (Image.fromarray(GREY).convert("LA"), np.stack([GREY] * 3, -1)),
    ],
    ids=["rgb", "grey", "opaque-rgba", "bilevel", "opaque-grey-alpha"],
)
def test_lossless_conversions(tmp_path: Path, picture: Image.Image, expected: np.ndarray) -> None:
    picture.save(tmp_path / "a.png")
    _, (batch,) = _batches(tmp_path)
    restored = (batch["image"][0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(restored, expected)


def test_palette_is_looked_up(tmp_path: Path) -> None:
    picture = Image.new("P", (6, 8), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.save(tmp_path / "a.png")
    _, (batch,) = _batches(tmp_path)
    assert (batch["image"][0, :, 3, 3] * 255).round().tolist() == [10, 20, 30]


def _frames(suffix: str) -> bytes:
    frames = [Image.new("RGB", (6, 8), (value, 0, 0)) for value in (0, 200)]
    return _bytes(frames[0], suffix, save_all=True, append_images=frames[1:])


def _transparent_palette() -> bytes:
    picture = Image.new("P", (6, 8), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    return _bytes(picture, transparency=1)


REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "size": ("bad.png", lambda: _bytes(Image.new("RGB", (8, 6))), "8 x 6 pixels.*expected 6 x 8"),
    "huge": ("bad.png", lambda: _png16(3)[:16] + b"\0\1\0\0" * 2 + _png16(3)[24:], "bad.png"),
    "empty": ("bad.png", lambda: b"", "cannot be read"),
    "text": ("bad.jpg", lambda: b"<html></html>", "cannot be read"),
    "cut": ("bad.png", lambda: _bytes(Image.fromarray(RGB))[:-30], "cannot be read"),
    "cut-jpeg": ("bad.jpg", lambda: _bytes(Image.fromarray(RGB), "JPEG")[:-60], "cannot be read"),
    "gif": ("bad.png", lambda: _bytes(Image.fromarray(RGB), "GIF"), "cannot be read"),
    "cmyk": ("bad.jpg", lambda: _bytes(Image.new("CMYK", (6, 8)), "JPEG"), "colour mode CMYK"),
    "grey-16": ("bad.png", lambda: _bytes(Image.new("I;16", (6, 8))), "8 bits"),
    "rgb-16": ("bad.png", lambda: _png16(3), "8 bits"),
    "rgba-16": ("bad.png", lambda: _png16(4), "8 bits"),
    "animated-png": ("bad.png", lambda: _frames("PNG"), "animated"),
    "animated-webp": ("bad.webp", lambda: _frames("WEBP"), "animated"),
    "rgba": ("bad.png", lambda: _bytes(Image.new("RGBA", (6, 8), (1, 2, 3, 9))), "transparent"),
    "palette": ("bad.png", _transparent_palette, "transparent"),
}


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_files_are_named(
    tmp_path: Path, name: str, content: Callable[[], bytes], message: str
) -> None:
    (tmp_path / "a.png").write_bytes(_bytes(Image.fromarray(RGB)))
    (tmp_path / name).write_bytes(content())
    with pytest.raises(InputError, match=message) as caught:
        _batches(tmp_path)
    assert name in str(caught.value)


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.png").write_bytes(_bytes(Image.fromarray(RGB)))
    with pytest.raises(InputError, match="holds no images"):
        _batches(tmp_path)


def test_equal_stems_are_refused(tmp_path: Path) -> None:
    for suffix in ("png", "webp"):
        Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match=r"a\.png and a\.webp"):
        _batches(tmp_path)


def test_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a folder nor"):
        _batches(tmp_path / "nowhere")


def test_wrong_image_shape_argument_is_refused() -> None:
    with pytest.raises(InputError, match="image_shape"):
        ImageFolderDataModule(source="embedded", image_shape=(1, 32, 32))


def test_npz_with_and_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.stack([RGB] * 3))
    data, (batch,) = _batches(path, limit=2)
    assert data.names == ["image_00000", "image_00001"]
    assert batch["label"].tolist() == [-1, -1]
    np.savez(path, images=np.stack([RGB] * 3), labels=np.array([7, 8, 12]))
    assert _batches(path)[1][0]["label"].tolist() == [7, 8, 12]
    with pytest.raises(InputError, match="6 x 8 pixels"):
        _batches(path, image_shape=(3, 32, 32))


def test_embedded_images() -> None:
    data, (batch,) = _batches("embedded", limit=13, image_shape=(3, 32, 32))
    assert data.names[12] == "image_00012"
    assert batch["label"].tolist() == sources.embedded()[1][:13].tolist()
