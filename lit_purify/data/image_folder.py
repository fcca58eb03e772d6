"""Images of the user's own, to be purified: a folder, an ``.npz`` file or the shipped ones."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from lit_purify.data import sources
from lit_purify.data.arrays import ImageArrays
from lit_purify.data.base import ImageDataModule
from lit_purify.data.image_files import SUFFIXES, read_rgb
from lit_purify.types import Batch, InputError


class ImageFolderDataModule(ImageDataModule):
    """Images in [0, 1] for ``predict``.

    ``index`` in a batch is the position in the source, ``names[index]`` the image's name, and
    ``label`` is -1 where the source holds none.

    Args:
        source: a folder of PNG, JPEG or WebP files (taken in the order of their names, subfolders
            left out), an ``.npz`` file with ``images`` (N, H, W, 3) and maybe ``labels``, or
            ``embedded`` for the shipped CIFAR-10 test images.
        batch_size: images a batch, for each process.
        limit: take the first ``limit`` images only, or all where there are fewer.
        image_shape: (3, H, W) that every image must have.
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
        batch_size: int = 64,
        limit: int | None = None,
        image_shape: tuple[int, int, int] = (3, 32, 32),
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, limit=limit, num_workers=num_workers)
        if image_shape[0] != 3 or min(image_shape) < 1:
            raise InputError(f"image_shape is {image_shape}; expected (3, height, width).")
        self.source = source
        self.image_shape = image_shape
        self.names: list[str] = []

    def setup(self, stage: str) -> None:
        """Read every image that will be used, so that a bad file shows before the run starts."""
        path = Path(self.source)
        if self.source == "embedded":
            self._take(*sources.embedded())
        elif path.is_dir():
            self._take_folder(path)
        elif path.suffix == ".npz":
            self._take(*sources.npz_optional_labels(path))
        else:
            raise InputError(
                f"source is {self.source!r}, which is neither a folder nor an .npz file; expected "
                "a folder of PNG, JPEG or WebP files, an .npz file with 'images', or 'embedded'."
            )

    def _take(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        dataset = ImageArrays(images, labels)
        _, height, width = self.image_shape
        if images.shape[1:3] != (height, width):
            raise InputError(
                f"The images of {self.source!r} are {images.shape[2]} x {images.shape[1]} pixels "
                f"(width x height); expected {width} x {height}. Resize them, or set image_shape."
            )
        if self.limit is not None and self.limit < len(dataset):
            labels = None if labels is None else labels[: self.limit]
            dataset = ImageArrays(images[: self.limit], labels)
        self.predict_set = dataset
        self.names = [f"image_{i:05d}" for i in range(len(dataset))]

    def _take_folder(self, folder: Path) -> None:
        files = _image_files(folder)[: self.limit]
        _, height, width = self.image_shape
        self.predict_set = ImageArrays(
            np.stack([read_rgb(file, height, width) for file in files]), None
        )
        self.names = [file.stem for file in files]

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_loader(self.predict_set)


def _image_files(folder: Path) -> list[Path]:
    """The images of a folder by name; hidden files are left out."""
    files = sorted(
        (
            path
            for path in folder.iterdir()
            if path.is_file() and path.suffix.lower() in SUFFIXES and path.name[0] != "."
        ),
        key=lambda path: path.name,
    )
    if not files:
        raise InputError(
            f"The folder {str(folder)!r} holds no images; expected files that end in "
            f"{', '.join(SUFFIXES)} directly in it. Check the path."
        )
    by_stem = defaultdict(list)
    for path in files:
        by_stem[path.stem].append(path.name)
    for same in by_stem.values():
        if len(same) > 1:
            raise InputError(
                f"The folder {str(folder)!r} holds {' and '.join(same)}, which would get the same "
                "output name; rename all but one."
            )
    return files
