"""ImageNetDataModule: which images, in which order, under which index."""

from collections.abc import Callable
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


def test_default_is_the_20_foolbox_photographs() -> None:
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
def test_order(tmp_path: Path, order: str) -> None:
    batches = _batches(source=str(_folder(tmp_path)), order=order, batch_size=3)
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert (_greys(batches), _joined(batches, "label")) == ORDERS[order]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_indices_and_limit(tmp_path: Path, num_workers: int) -> None:
    batches = _batches(
        source=str(_folder(tmp_path)),
        indices=[6, 0, 4, 2],
        limit=3,
        batch_size=2,
        num_workers=num_workers,
    )
    assert [batch["index"].tolist() for batch in batches] == [[6, 0], [4]]
    assert _greys(batches) == [6, 0, 4]
    assert _joined(batches, "label") == [999, 999, 0]


def test_limit_is_the_papers_200_and_can_be_lifted(tmp_path: Path) -> None:
    source = tmp_path / "a.npz"
    np.savez(source, images=np.zeros((201, 224, 224, 3), np.uint8), labels=np.arange(201))
    assert len(_data(source=str(source)).test_set) == 200
    assert len(_data(source=str(source), limit=None).test_set) == 201


def test_files_that_are_not_evaluated_are_not_read(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / CLASSES[1] / "ILSVRC2012_val_00000005.JPEG").write_text("damaged")
    assert _greys(_batches(source=str(folder), limit=4)) == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"val_00000005\.JPEG"):
        _data(source=str(folder))


def test_npz_is_taken_as_it_is(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([999, 0, 5]))
    (batch,) = _batches(source=str(tmp_path / "a.npz"), indices=[2, 0])
    assert batch["index"].tolist() == [2, 0]
    assert batch["label"].tolist() == [5, 999]
    expected = torch.from_numpy(images[[2, 0]]).permute(0, 3, 1, 2) / 255
    assert torch.equal(batch["image"], expected)


def test_another_preprocessing_gives_another_size(tmp_path: Path) -> None:
    data = _data(source=str(_folder(tmp_path, 1)), preprocessing="Crop288")
    assert data.image_shape == (3, 288, 288)
    image = data.test_set[0]["image"]
    assert image.shape == data.image_shape
    assert image.sum() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 0}, "limit"),
        ({"indices": [5, 20]}, r"\[20\].*0 \.\. 19"),
        ({"order": "random"}, "'random'"),
        ({"preprocessing": "none"}, "'none'"),
        ({"source": "folbox"}, "'folbox'"),
    ],
)
def test_refused_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _data(**arguments)


def _npz(size: int, label: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.savez(path, images=np.zeros((2, size, size, 3), np.uint8), labels=np.full(2, label))

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_npz(256, 0), r"256 x 256 pixels.*expected 224 x 224"),
        (_npz(224, 1000), r"0 \.\. 999"),
        (lambda path: None, "no file"),
    ],
    ids=["size", "label", "missing"],
)
def test_refused_arrays(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "a.npz")
    with pytest.raises(InputError, match=message):
        _data(source=str(tmp_path / "a.npz"), limit=1)


def test_settings_name_the_images(tmp_path: Path) -> None:
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
    _npz(224, 0)(tmp_path / "a.npz")
    arrays = _data(source=str(tmp_path / "a.npz")).settings()
    assert (arrays["data_order"], arrays["data_preprocessing"]) == (None, None)


def test_loading_leaves_the_global_generators_alone() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    _batches(limit=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
