"""Small data sets on the disk, in the formats in which the real ones are published."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from oracles import fill
from PIL import Image
from scipy.io import savemat
from torch import nn
from torchvision import datasets

from lit_purify.classifiers import Classifier, from_module
from lit_purify.diffusion import Denoiser, small_unet

Arrays = tuple[np.ndarray, np.ndarray]
CIFAR100_NAMES = [f"class {k}" for k in range(100)]


def random_arrays(n: int, shape: tuple[int, int, int], classes: int, seed: int) -> Arrays:
    """Images (n, H, W, C), uint8, and labels, of which the first is 0."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), np.uint8), (np.arange(n) * 3) % classes


def cifar100(root: Path, patch: pytest.MonkeyPatch) -> tuple[Arrays, Arrays]:
    """CIFAR-100 with 5 test and 6 training images, without its hashes."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    parts = random_arrays(5, (32, 32, 3), 100, 0), random_arrays(6, (32, 32, 3), 100, 1)
    for name, (images, labels) in zip(("test", "train"), parts, strict=True):
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        content = pickle.dumps({"data": rows, "fine_labels": labels.tolist()})
        (folder / name).write_bytes(content)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": CIFAR100_NAMES}))
    patch.setattr(datasets.CIFAR100, "test_list", [["test", None]])
    patch.setattr(datasets.CIFAR100, "train_list", [["train", None]])
    patch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": None})
    return parts


def svhn(root: Path, patch: pytest.MonkeyPatch) -> tuple[Arrays, Arrays]:
    """SVHN with 5 test and 6 training images, in whose files the digit 0 is a 10."""
    root.mkdir(parents=True, exist_ok=True)
    parts = random_arrays(5, (32, 32, 3), 10, 0), random_arrays(6, (32, 32, 3), 10, 1)
    for name, (images, labels) in zip(("test", "train"), parts, strict=True):
        digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(root / f"{name}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": digits})
    files = {name: ["", f"{name}_32x32.mat", None] for name in ("test", "train")}
    patch.setattr(datasets.SVHN, "split_list", files)
    return parts


def mnist(root: Path, name: str = "MNIST") -> tuple[Arrays, Arrays]:
    """MNIST, or a set in its format, with 5 test and 6 training images."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    parts = random_arrays(5, (28, 28, 1), 10, 0), random_arrays(6, (28, 28, 1), 10, 1)
    for prefix, (images, labels) in zip(("t10k", "train"), parts, strict=True):
        head = struct.pack(">4I", 0x803, len(images), 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">2I", 0x801, len(labels))
        content = head + labels.astype(np.uint8).tobytes()
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(content)
    return parts


def tiny_imagenet(root: Path) -> Path:
    """Three classes; the image at place k has the grey value k, also those for training."""
    (root / "val" / "images").mkdir(parents=True)
    wnids = ("n03", "n01", "n02")
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (root / "words.txt").write_text("n01\ttench, Tinca tinca\nn02\then\nn03\tpeacock\nn09\tx\n")
    lines = []
    for k, wnid in enumerate(("n02", "n03", "n01", "n03")):
        _grey(root / "val" / "images" / f"val_{k}.JPEG", k)
        lines.append(f"val_{k}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    for place, wnid in enumerate(sorted(wnids)):
        for k in range(2):
            _grey(root / "train" / wnid / "images" / f"{wnid}_{k}.JPEG", 3 * k + place)
    return root


ATTRIBUTES = {"00003": (1, -1), "00001": (-1, -1), "00002": (1, 1), "00009": (-1, 1)}
"""Smiling and Male, in the order of the list; the last one is no image that is there."""


def celeba_hq(root: Path) -> Path:
    """The folder of three faces; image number k has the grey value k. No list is there."""
    for name in list(ATTRIBUTES)[:-1]:
        _grey(root / "images" / f"{name}.png", int(name), size=(80, 80))
    return root / "images"


def attribute_list(kind: str) -> str:
    """The list in one of the forms in which it is distributed."""
    rows = [(f"{name}.jpg", *values) for name, values in ATTRIBUTES.items()]
    if kind == "csv":
        return "".join(f"{','.join(map(str, row))}\n" for row in [("", "Smiling", "Male"), *rows])
    lines = "".join(f"{name}  {a:2d} {b:2d}\n" for name, a, b in rows)
    return f"{len(rows)}\nSmiling Male \n{lines}"


def _grey(path: Path, value: int, size: tuple[int, int] = (64, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def grey_denoiser() -> Denoiser:
    """An untrained U-Net for 1x28x28 with known weights."""
    return fill(
        small_unet(channels=1, image_size=28, block_out_channels=(8, 16), norm_num_groups=4),
        seed=2,
        std=0.1,
    )


def grey_classifier() -> Classifier:
    """A linear classifier of 1x28x28 with known weights, 10 classes without names."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return from_module(fill(network, seed=1, std=0.2), 10, (1, 28, 28))
