"""Tiny-ImageNet's layout: the order of images and classes, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import pytest
import torch
from PIL import Image

from lit_purify.data import TinyImageNetDataModule
from lit_purify.types import InputError


def _data(folder: Path, stage: str = "test", **arguments: Any) -> TinyImageNetDataModule:
    data = TinyImageNetDataModule(source=str(folder), **{"batch_size": 2} | arguments)
    data.setup(stage)
    return data


ORDERS = {
    "sorted": ([1, 2, 0, 2], ("tench", "hen", "peacock")),
    "listed": ([2, 0, 1, 0], ("peacock", "tench", "hen")),
}


@pytest.mark.parametrize("order", ORDERS)
def test_order(tmp_path, order):
    data = _data(layouts.tiny_imagenet(tmp_path), class_order=order)
    labels, names = ORDERS[order]
    assert data.test_set.labels.tolist() == labels
    assert (data.num_classes, data.class_names) == (3, names)
    assert data.test_set.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert data.test_set[0]["image"].shape == data.image_shape == (3, 64, 64)
    settings = data.settings()
    assert (settings["dataset"], settings["data_class_order"]) == ("Tiny-ImageNet", order)


def test_training_goes_round_the_classes(tmp_path):
    data = _data(layouts.tiny_imagenet(tmp_path), "fit", num_holdout=3)
    assert data.train_set.labels.tolist() == data.val_set.labels.tolist() == [0, 1, 2]
    greys = torch.cat([data.train_set.images, data.val_set.images])[:, 0, 0, 0]
    assert greys.tolist() == list(range(6))


def _annotate(line: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "val" / "val_annotations.txt").write_text(line)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, r"--data\.source FOLDER"),
    "no ids": (lambda folder: (folder / "wnids.txt").unlink(), r"wnids\.txt cannot be read"),
    "ids in bytes": (lambda folder: (folder / "wnids.txt").write_bytes(b"\xff"), "cannot be read"),
    "no annotations": (lambda folder: shutil.rmtree(folder / "val"), "val_annotations"),
    "empty annotations": (_annotate(""), "names no images"),
    "unknown id": (_annotate("val_0.JPEG\tn77\t0\n"), "n77"),
    "no tab": (_annotate("val_0.JPEG n01\n"), "a tab"),
    "an id twice": (
        lambda folder: (folder / "wnids.txt").write_text("n01\nn02\nn03\nn01\n"),
        "n01 more than once",
    ),
    "an image twice": (_annotate("val_0.JPEG\tn01\nval_0.JPEG\tn02\n"), "more than once"),
    "missing image": (_annotate("val_8.JPEG\tn01\n"), r"val_8\.JPEG"),
    "other size": (
        lambda folder: Image.new("RGB", (32, 64)).save(folder / "val/images/val_0.JPEG"),
        "32 x 64",
    ),
}


@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_folders(tmp_path, damage, message):
    damage(layouts.tiny_imagenet(tmp_path / "here"))
    with pytest.raises(InputError, match=message) as caught:
        _data(tmp_path / "here")
    assert "here" in str(caught.value)


def test_refused_order_and_training(tmp_path):
    with pytest.raises(InputError, match="alphabetic"):
        TinyImageNetDataModule(source="x", class_order="alphabetic")
    folder = layouts.tiny_imagenet(tmp_path)
    for path in (folder / "train").rglob("*.JPEG"):
        path.unlink()
    with pytest.raises(InputError, match="holds no images"):
        _data(folder, "fit")
    shutil.rmtree(folder / "train")
    with pytest.raises(InputError, match="train"):
        _data(folder, "fit")
