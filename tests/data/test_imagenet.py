"""ImageNetDataModule: which images, in which order, under which index."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lit_purify.data import ImageNetDataModule
from lit_purify.data.imagenet_files import foolbox_samples
from lit_purify.types import InputError

CLASSES = ("n15075141", "n01440764", "n01514859")


def _data(**arguments: Any) -> ImageNetDataModule:
    data = ImageNetDataModule(**arguments)
    data.setup("test")
    return data


def _batches(**arguments: Any) -> list[Any]:
    return list(_data(**arguments).test_dataloader())


def _folder(folder: Path, n: int = 7) -> Path:
    """Image number k, of class k mod 3, has the grey value k; its size is 300 x 260."""
    for k in range(n):
        path = folder / CLASSES[k % 3] / f"ILSVRC2012_val_{k + 1:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (300, 260), k).save(path)
    return folder


def _greys(batches: list[Any]) -> list[int]:
    images = torch.cat([batch["image"] for batch in batches]) * 255
    assert torch.equal(images, images[:, :1, :1, :1].expand_as(images))
    return images[:, 0, 0, 0].round().int().tolist()


def _joined(batches: list[Any], key: str) -> list[int]:
    return torch.cat([batch[key] for batch in batches]).tolist()


def _npz(path: Path, images: np.ndarray, labels: Any = 0) -> str:
    np.savez(path, images=images, labels=np.broadcast_to(labels, len(images)))
    return str(path)


def _black(n: int = 2, size: int = 224) -> np.ndarray:
    return np.zeros((n, size, size, 3), np.uint8)


def test_default_is_the_20_foolbox_photographs():
    batches = _batches()
    samples = foolbox_samples()
    assert [len(batch["index"]) for batch in batches] == [10, 10]
    assert _joined(batches, "index") == list(range(20))
    assert _joined(batches, "label") == [label for _, label in samples]
    images = torch.cat([batch["image"] for batch in batches])
    assert (images.shape, images.dtype) == ((20, 3, 224, 224), torch.float32)


ORDERS = {
    "validation": ([0, 1, 2, 3, 4, 5, 6], [999, 0, 8, 999, 0, 8, 999]),  # mixes the classes
    "folder": ([1, 4, 2, 5, 0, 3, 6], [0, 0, 8, 8, 999, 999, 999]),
}


@pytest.mark.parametrize("order", ORDERS)
def test_order(tmp_path, order):
    batches = _batches(source=str(_folder(tmp_path)), order=order, batch_size=3)
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert (_greys(batches), _joined(batches, "label")) == ORDERS[order]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_indices_and_limit(tmp_path, num_workers):
    few = {"indices": [6, 0, 4, 2], "limit": 3, "batch_size": 2, "num_workers": num_workers}
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    batches = _batches(source=str(_folder(tmp_path)), **few)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert [batch["index"].tolist() for batch in batches] == [[6, 0], [4]]
    assert _greys(batches) == [6, 0, 4]
    assert _joined(batches, "label") == [999, 999, 0]


def test_limit_is_the_papers_200_and_can_be_lifted(tmp_path):
    source = _npz(tmp_path / "a.npz", _black(201))
    assert len(_data(source=source).test_set) == 200
    assert len(_data(source=source, limit=None).test_set) == 201


def test_files_that_are_not_evaluated_are_not_read(tmp_path):
    folder = _folder(tmp_path)
    (folder / CLASSES[1] / "ILSVRC2012_val_00000005.JPEG").write_text("damaged")
    assert _greys(_batches(source=str(folder), limit=4)) == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"val_00000005\.JPEG"):
        _data(source=str(folder))


def test_npz_is_taken_as_it_is(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    (batch,) = _batches(source=_npz(tmp_path / "a.npz", images, [999, 0, 5]), indices=[2, 0])
    assert batch["index"].tolist() == [2, 0]
    assert batch["label"].tolist() == [5, 999]
    expected = torch.from_numpy(images[[2, 0]]).permute(0, 3, 1, 2) / 255
    assert torch.equal(batch["image"], expected)


def test_another_preprocessing_gives_another_size(tmp_path):
    data = _data(source=str(_folder(tmp_path, 1)), preprocessing="Crop288")
    assert data.image_shape == (3, 288, 288)
    image = data.test_set[0]["image"]
    assert image.shape == data.image_shape
    assert image.sum() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": [5, 20]}, r"\[20\].*0 \.\. 19"),
        ({"order": "random"}, "'random'"),
        ({"preprocessing": "none"}, "'none'"),
        ({"source": "folbox"}, "'folbox'"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        _data(**arguments)


@pytest.mark.parametrize(
    ("images", "label", "message"),
    [
        (_black(size=256), 0, r"256 x 256 pixels.*expected 224 x 224"),
        (_black(), 1000, r"0 \.\. 999"),
    ],
    ids=["size", "label"],
)
def test_refused_arrays(tmp_path, images, label, message):
    with pytest.raises(InputError, match=message):
        _data(source=_npz(tmp_path / "a.npz", images, label), limit=1)


def test_settings_name_the_images(tmp_path):
    data = _data(source=str(_folder(tmp_path)), limit=5, batch_size=2)
    settings = data.settings()
    assert settings == {
        "data": str(tmp_path),
        "data_order": "validation",
        "data_preprocessing": "Res256Crop224",
        "data_source_images": 7,
        "data_sha256": data.test_set.sha256(),
        "images": 5,
        "batch_size": 2,
    }
    again = _data(source=str(tmp_path), limit=5, batch_size=4, num_workers=1).settings()
    assert again == settings | {"batch_size": 4}
    other = _data(source=str(tmp_path), limit=5, batch_size=2, order="folder").settings()
    assert other["data_order"] == "folder"
    assert other["data_sha256"] != settings["data_sha256"]
    # What has no order or no preprocessing of ours says so.
    foolbox = _data().settings()
    assert (foolbox["data_order"], foolbox["data_preprocessing"]) == (None, "Res256Crop224")
    arrays = _data(source=_npz(tmp_path / "a.npz", _black())).settings()
    assert (arrays["data_order"], arrays["data_preprocessing"]) == (None, None)
