"""Embedded images, .npz files, torchvision."""

import hashlib
import re
from importlib.resources import files
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from lit_purify.data import sources
from lit_purify.types import InputError


def test_embedded_images_are_the_official_ones():
    images, labels = sources.embedded()
    assert images.shape == (1000, 32, 32, 3)
    assert images.dtype == labels.dtype == np.uint8
    assert labels.shape == (1000,)
    assert labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    # Official CIFAR-10 test batch, as rows, columns, channels.
    first = "af12e1241a1e7a0c9ba326825279bef5fe961ceb5f95212a99f9b1f22711f913"
    thousand = "da362006b99671213d1a5d856cab2bedf64d40bad4501630ee60f4ceb2d3ec7f"
    assert hashlib.sha256(images[0].tobytes()).hexdigest() == first
    assert hashlib.sha256(images.tobytes()).hexdigest() == thousand


def test_embedded_images_agree_with_foolbox():
    pytest.importorskip("foolbox")
    images, labels = sources.embedded()
    samples = [p for p in (files("foolbox") / "data").iterdir() if p.name.startswith("cifar10_")]
    assert len(samples) == 20
    for sample in samples:
        position, label = map(int, re.findall(r"_(\d+)", sample.name))
        with sample.open("rb") as file, Image.open(file) as picture:
            assert np.array_equal(np.asarray(picture), images[position])
        assert labels[position] == label


def test_missing_asset_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    with pytest.raises(InputError, match="reinstall"):
        sources.embedded()


def _truncated(path: Path) -> None:
    np.savez(path, images=np.zeros((9, 4, 4, 3), np.uint8), labels=np.zeros(9, int))
    path.write_bytes(path.read_bytes()[:200])


def _flipped(path: Path) -> None:
    np.savez_compressed(path, images=np.arange(4800, dtype=np.uint8).reshape(100, 4, 4, 3))
    content = bytearray(path.read_bytes())
    content[150] ^= 255
    path.write_bytes(bytes(content))


def _single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: None, "no file"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
        (lambda p: p.write_bytes(b"<html>not found</html>"), "cannot be read"),
        (_truncated, "cannot be read"),
        (_flipped, "cannot be read"),
        (_single_array, "cannot be read"),
        (lambda p: np.savez(p, x=np.zeros(3)), r"holds \['x'\]"),
        (lambda p: np.savez(p), "holds nothing"),
        (lambda p: np.savez(p, images=np.zeros((1, 4, 4, 3), np.uint8)), "labels"),
        (lambda p: np.savez(p, images=np.array([None, {}])), "object arrays"),
    ],
)
def test_refused_npz(tmp_path, write, message):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        sources.npz(path)
    assert "a.npz" in str(caught.value)


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("corrupted"), OSError("x")])
def test_failed_download_says_what_to_do(monkeypatch, error):
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fail)
    with pytest.raises(InputError, match="cifar-10-batches-py"):
        sources.torchvision("CIFAR10", "somewhere", train=False, download=True)


def test_torchvision_arrays(monkeypatch):
    class Stub:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            assert (root, train, download) == ("somewhere", True, True)
            self.data = np.zeros((2, 32, 32, 3), np.uint8)
            self.targets = [3, 4]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Stub)
    images, labels = sources.torchvision("CIFAR10", Path("somewhere"), train=True, download=True)
    assert images.shape == (2, 32, 32, 3)
    assert labels.dtype == np.int64
