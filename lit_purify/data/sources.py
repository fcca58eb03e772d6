"""Where image arrays come from: the shipped images, torchvision, or an ``.npz`` file.

Every function returns uint8 (or float) images of shape (N, H, W, 3) and integer labels of shape
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


def torchvision_cifar10(root: str | Path, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 through torchvision, downloaded into ``root`` where it is not there yet.

    Args:
        root: folder that holds, or will hold, ``cifar-10-batches-py``.
        train: the 50,000 training images; otherwise the 10,000 test images.

    Returns:
        Images, uint8, (N, 32, 32, 3), and labels, int64, (N,), in the official order.

    Raises:
        InputError: the files are neither there nor can be downloaded.
    """
    # Late: the shipped images and .npz files need no torchvision.
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(str(root), train=train, download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise InputError(
            f"CIFAR-10 is not in {str(root)!r} and could not be downloaded ({error}); download "
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz on a machine with network "
            f"access and unpack it there, so that {str(Path(root) / 'cifar-10-batches-py')!r} "
            "exists; or give another source: the path of an .npz file with the keys 'images' and "
            "'labels', or, for evaluation, 'embedded'"
        ) from error
    return dataset.data, np.asarray(dataset.targets, dtype=np.int64)


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
