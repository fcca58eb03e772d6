"""Images of the user's own, to be purified: a folder, an ``.npz`` file or the shipped ones."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from lit_purify.data import sources
from lit_purify.data.arrays import ImageArrays
from lit_purify.data.base import ImageDataModule
from lit_purify.data.image_files import pictures, read_pixels
from lit_purify.types import Auto, Batch, InputError


class ImageFolderDataModule(ImageDataModule):
    """Images in [0, 1] for ``predict``.

    ``index`` in a batch is the position in the source, ``names[index]`` the image's name, and
    ``label`` is -1 where the source holds none.

    Args:
        source: a folder of PNG, JPEG or WebP files (taken in the order of their names, subfolders
            left out), an ``.npz`` file with ``images`` (N, H, W, C) and maybe ``labels``, or
            ``embedded`` for the shipped CIFAR-10 test images.
        batch_size: images per batch, for each process; ``auto`` chooses by the memory.
        limit: take the first ``limit`` images only, or all where there are fewer.
        image_shape: (C, H, W) that every image must have, C = 3 (RGB) or 1 (grey).
        num_workers: loading processes; 0 loads in the main one.

    Attributes:
        names: file stems without their suffix, or ``image_00012`` for arrays; set by ``setup``.

    Raises:
        InputError: an argument, the source or one of its files is not as above.
    """

    image_shape: tuple[int, int, int]

    def __init__(
        self,
        *,
        source: str,
        batch_size: int | Auto = 64,
        limit: int | None = None,
        image_shape: tuple[int, int, int] = (3, 32, 32),
        num_workers: int = 0,
    ) -> None:
        super().__init__(source=source, batch_size=batch_size, limit=limit, num_workers=num_workers)
        if image_shape[0] not in (1, 3) or min(image_shape) < 1:
            raise InputError(f"image_shape is {image_shape}; expected (3 or 1, height, width)")
        self.image_shape = image_shape
        self.names: list[str] = []

    def setup(self, stage: str) -> None:
        """Read every image that will be used, so that a bad file shows before the run starts."""
        if stage != "predict":
            raise InputError(
                "ImageFolderDataModule holds no test images, only images to predict; give test and "
                "fit one such as lit_purify.data.CIFAR10DataModule"
            )
        path = Path(self.source)
        if path.is_dir() and self.source != "embedded":
            files = dict(itertools.islice(pictures(path).items(), self.limit))
            self.predict_set = ImageArrays(
                np.stack([read_pixels(file, self.image_shape) for file in files.values()]), None
            )
            self.names = list(files)
        else:
            self.predict_set = self.take(*self._arrays(path))
            self.names = [f"image_{i:05d}" for i in range(len(self.predict_set))]

    def _arrays(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        if self.source == "embedded":
            return sources.embedded()
        if path.suffix == ".npz":
            return sources.npz_optional_labels(path)
        raise InputError(
            f"source is {self.source!r}, which is neither a folder nor an .npz file; expected "
            "a folder of PNG, JPEG or WebP files, an .npz file with 'images', or 'embedded'"
        )

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_loader(self.predict_set)
