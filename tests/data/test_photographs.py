"""Photographs: read when asked for, and named by their content."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets.folder import default_loader

from lit_purify.data import photographs
from lit_purify.data.photographs import Photographs
from lit_purify.types import InputError

RES = "Res256Crop224"


def _files(folder: Path, n: int = 3) -> list[Path]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{k}.JPEG" for k in range(n)]
    for path in paths:
        size = rng.integers(200, 400, 2)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return paths


def _cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def test_samples_are_torchvisions(tmp_path):
    files = _files(tmp_path)
    data = Photographs(list(zip(files, [7, 999, 0], strict=True)), [5, 3, 9], preprocessing=RES)
    oracle = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    )
    assert len(data) == 3
    for k, path in enumerate(files):
        sample = data[k]
        assert torch.equal(sample["image"], oracle(default_loader(str(path))))
        assert (sample["label"].item(), sample["index"].item()) == ([7, 999, 0][k], [5, 3, 9][k])
        assert sample["label"].dtype == sample["index"].dtype == torch.int64
    assert (data.labels.tolist(), data.indices.tolist()) == ([7, 999, 0], [5, 3, 9])


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    data = Photographs([(tmp_path / "gone.JPEG", 0)], [0], preprocessing=RES)
    assert (len(data), data.indices.tolist()) == (1, [0])
    with pytest.raises(InputError, match=r"gone\.JPEG"):
        data[0]


def test_hash_names_content_order_labels_indices_and_preprocessing(tmp_path):
    files = _files(tmp_path / "a")
    moved = _files(tmp_path / "b")
    changed = _files(tmp_path / "c")
    changed[2].write_bytes(changed[2].read_bytes() + b"\0")

    def digest(files=files, labels=(0, 1, 2), indices=(0, 1, 2), preprocessing=RES) -> str:
        samples = list(zip(files, labels, strict=True))
        return Photographs(samples, indices, preprocessing=preprocessing).sha256()

    assert digest(moved) == digest()
    others = {
        digest(changed),
        digest(files[::-1]),
        digest(labels=(0, 1, 3)),
        digest(indices=(0, 1, 3)),
        digest(preprocessing="Crop288"),
        digest(files[:2], (0, 1), (0, 1)),
    }
    assert len(others | {digest()}) == 7


def test_damage_shows_before_the_run(tmp_path):
    files = _files(tmp_path)
    data = Photographs([(file, 0) for file in files], range(3), preprocessing=RES)
    data.check()
    _cut(files[1], -500)
    with pytest.raises(InputError, match=r"1\.JPEG: .*truncated"):
        data.check()


def test_of_many_files_the_headers_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "DECODED", 2)
    files = _files(tmp_path)
    data = Photographs([(file, 0) for file in files], range(3), preprocessing=RES)
    _cut(files[1], -500)
    data.check()
    with pytest.raises(InputError, match=r"1\.JPEG: .*truncated"):
        data[1]
    _cut(files[2], 10)
    with pytest.raises(InputError, match=r"2\.JPEG"):
        data.check()
