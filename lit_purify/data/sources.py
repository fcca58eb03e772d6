"""Where image arrays come from: the shipped images, torchvision, or an ``.npz`` file.

Every function returns uint8 (or float) images of shape (N, H, W, C) and integer labels of shape
(N,), not yet checked beyond their names: :class:`~lit_purify.data.arrays.ImageArrays` does that.
"""

from __future__ import annotations

import importlib.resources
import io
from pathlib import Path

import numpy as np
from PIL import Image

from lit_purify.types import InputError

_WRITE = "numpy.savez(path, images=images, labels=labels)"


def embedded() -> tuple[np.ndarray, np.ndarray]:
    """The first 1000 CIFAR-10 test images in the official order, shipped lossless.

    Returns:
        Images, uint8, (1000, 32, 32, 3), and labels, uint8, (1000,).

    Raises:
        InputError: the files are missing from the installation, or Pillow cannot read WebP.
    """
    assets = importlib.resources.files("lit_purify") / "assets"
    try:
        encoded = (assets / "cifar10_test_first1000.webp").read_bytes()
        labels = np.load(
            io.BytesIO((assets / "cifar10_test_first1000_labels.npy").read_bytes()),
            allow_pickle=False,
        )
        with Image.open(io.BytesIO(encoded), formats=("WEBP",)) as picture:
            mosaic = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the shipped CIFAR-10 images cannot be read ({error}); reinstall lit_purify, and "
            "Pillow with WebP support: pip install --force-reinstall lit_purify pillow"
        ) from error
    # A mosaic of 100 tiles per row, filled row by row.
    tiles = mosaic.reshape(-1, 32, 100, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    return tiles, labels


FILES = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "SVHN": "{split}_32x32.mat",
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
}
"""Data sets of torchvision that can be read here -> where their files are under a root folder."""


def torchvision(
    name: str, root: str | Path, *, train: bool, download: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A data set of torchvision's.

    Args:
        name: one of :data:`FILES`.
        root: folder that holds, or will hold, its files.
        train: the training images; otherwise the test images.
        download: let torchvision download what is not there.

    Returns:
        Images, uint8, (N, H, W, C), and labels, int64, (N,), in the official order.

    Raises:
        InputError: the files are not there, cannot be downloaded, or are damaged.
    """
    # Late: the shipped images and .npz files need no torchvision.
    from torchvision import datasets

    split = "train" if train else "test"
    try:
        if name == "SVHN":
            dataset = datasets.SVHN(str(root), split=split, download=download)
            images, labels = dataset.data.transpose(0, 2, 3, 1), dataset.labels
        else:
            dataset = getattr(datasets, name)(str(root), train=train, download=download)
            images, labels = np.asarray(dataset.data), np.asarray(dataset.targets)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = str(error).partition(" You can use")[0] or type(error).__name__
        failed = "is not, or not whole, in" if not download else "could not be downloaded into"
        advice = "type --data.download true" if not download else "do that where there is network"
        raise InputError(
            f"{name} {failed} the folder {str(root)!r} ({reason}); expected "
            f"{str(Path(root) / FILES[name].format(split=split))!r}; {advice}, or copy it there; "
            "or give another source: the path of an .npz file with the keys 'images' and 'labels'"
        ) from error
    return images.reshape(*images.shape[:3], -1), labels.astype(np.int64)


def npz(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of an ``.npz`` file with the keys ``images`` and ``labels``.

    Raises:
        InputError: the file is missing, damaged, holds Python objects, or lacks a key.
    """
    images, labels = npz_optional_labels(path)
    if labels is None:
        raise InputError(
            f"{str(path)!r} holds no array 'labels'; expected the keys 'images' and 'labels'; "
            f"write it with {_WRITE}"
        )
    return images, labels


def npz_optional_labels(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """As :func:`npz`, with ``None`` for labels the file does not hold."""
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError(
                f"there is no file {str(path)!r}; expected an .npz file; check the path"
            )
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                raise ValueError("it is no zip archive")
        # Object arrays are pickles, and unpickling runs code: never allowed.
        with np.load(path, allow_pickle=False) as archive:
            if "images" not in archive:
                raise InputError(
                    f"{str(path)!r} holds {sorted(archive) or 'nothing'}; expected the keys "
                    f"'images' and 'labels'; write it with {_WRITE}"
                )
            images, labels = archive["images"], archive.get("labels")
        for array in (images, labels):
            if isinstance(array, bytes) or (array is not None and array.ndim == 0):
                raise ValueError("one of its entries is not an array")
        return images, labels
    except InputError:
        raise
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise InputError(
            f"{str(path)!r} cannot be read as an .npz file of plain arrays ({reason}), and object "
            f"arrays are refused; write it again with {_WRITE}"
        ) from error
