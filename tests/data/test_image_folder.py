"""ImageFolderDataModule: names, order, and the sources it refuses."""

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


def _batches(source: Path | str, **arguments: Any) -> tuple[ImageFolderDataModule, list]:
    data = ImageFolderDataModule(source=str(source), **{"image_shape": (3, 8, 6)} | arguments)
    data.setup("predict")
    return data, list(data.predict_dataloader())


def test_folder_is_read_by_name(tmp_path):
    for name, value in {"b.png": 2, "a.PNG": 1, "c.webp": 3}.items():
        Image.new("RGB", (6, 8), (value,) * 3).save(tmp_path / name, lossless=True)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._a.png").write_bytes(b"a desktop's litter")
    (tmp_path / "d.png").mkdir()
    data, batches = _batches(tmp_path, batch_size=2)
    assert data.names == ["a", "b", "c"]
    assert [b["index"].tolist() for b in batches] == [[0, 1], [2]]
    assert torch.cat([b["label"] for b in batches]).tolist() == [-1, -1, -1]
    pixels = torch.cat([b["image"][:, 0, 0, 0] for b in batches]) * 255
    assert pixels.round().tolist() == [1, 2, 3]


def test_pixels_stay_and_a_damaged_file_is_named_unless_left_out(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"damaged")
    data, (batch,) = _batches(tmp_path, limit=1)
    assert data.names == ["a"]
    restored = (batch["image"][0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(restored, RGB)
    with pytest.raises(InputError, match=r"b\.png"):
        _batches(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["below/a.png"], "no images"),
        (["a.png", "a.webp"], r"a\.png and a\.webp"),
        ([], "neither"),
    ],
)
def test_refused_folders(tmp_path, names, message):
    for name in names:
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RGB).save(path)
    with pytest.raises(InputError, match=message):
        _batches(tmp_path / "here")


def test_refused_shape_and_stage():
    with pytest.raises(InputError, match="image_shape"):
        ImageFolderDataModule(source="embedded", image_shape=(2, 32, 32))
    with pytest.raises(InputError, match="no test images"):
        ImageFolderDataModule(source="embedded").setup("test")


def test_npz_with_and_without_labels(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.stack([RGB] * 3))
    data, (batch,) = _batches(path, limit=2)
    assert data.names == ["image_00000", "image_00001"]
    assert batch["label"].tolist() == [-1, -1]
    np.savez(path, images=np.stack([RGB] * 3), labels=np.array([7, 8, 12]))
    assert _batches(path)[1][0]["label"].tolist() == [7, 8, 12]
    with pytest.raises(InputError, match="6 x 8 pixels"):
        _batches(path, image_shape=(3, 32, 32))


def test_embedded_images():
    data, (batch,) = _batches("embedded", limit=13, image_shape=(3, 32, 32))
    assert data.names[12] == "image_00012"
    assert batch["label"].tolist() == sources.embedded()[1][:13].tolist()
