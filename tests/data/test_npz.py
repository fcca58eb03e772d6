"""NPZDataModule: images of any size and number of channels and classes."""

from pathlib import Path

import layouts
import numpy as np
import pytest

from lit_purify.data import NPZDataModule
from lit_purify.types import InputError


def _file(path: Path, shape: tuple[int, int, int], n: int = 4, classes: int = 37) -> str:
    images, labels = layouts.random_arrays(n, shape, classes, 0)
    np.savez(path, images=images, labels=labels)
    return str(path)


@pytest.mark.parametrize("shape", [(5, 7, 1), (9, 4, 3)])
def test_size_and_channels_are_the_files(tmp_path, shape):
    source = _file(tmp_path / "a.npz", shape)
    data = NPZDataModule(source=source, train_source=source, num_holdout=1, batch_size=2)
    data.setup("test")
    height, width, channels = shape
    assert data.image_shape == (channels, height, width)
    assert next(iter(data.test_dataloader()))["image"].shape == (2, *data.image_shape)
    assert data.settings()["data"] == source
    data.setup("fit")
    assert len(data.train_set) == 3


def test_refused(tmp_path):
    source = _file(tmp_path / "a.npz", (5, 7, 1))
    with pytest.raises(InputError, match=r"0 \.\. 4"):
        NPZDataModule(source=source, num_classes=5).setup("test")
    with pytest.raises(InputError, match="train_source"):
        NPZDataModule(source=source).setup("fit")
    other = _file(tmp_path / "b.npz", (5, 7, 3))
    data = NPZDataModule(source=source, train_source=other, num_holdout=0, batch_size=2)
    data.setup("test")
    with pytest.raises(InputError, match=r"RGB.*grey"):
        data.setup("fit")
