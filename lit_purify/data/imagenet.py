"""ImageNet: the photographs in the foolbox wheel, the validation set, or arrays of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from lit_purify.data import sources
from lit_purify.data.dataset import ImageDataset
from lit_purify.data.imagenet_files import NUM_CLASSES, Order, folder_files, foolbox_samples
from lit_purify.data.photographs_module import PhotographsDataModule
from lit_purify.types import Auto, InputError

FOOLBOX = "foolbox"


class ImageNetDataModule(PhotographsDataModule):
    """ImageNet images in [0, 1] for evaluation, labels 0 .. 999.

    ``index`` in a batch is the position in the full source, in the chosen order, also where only
    some images are taken. Files are read when their turn comes, and up to 1000 of them also before
    the run, so that a damaged one shows in time.

    Args:
        source: ``foolbox`` (20 photographs of ImageNet classes, which come with that package); a
            folder with all images of the validation set or some, laid out as
            ``val/n01440764/ILSVRC2012_val_00000293.JPEG`` (``val``, or what holds it); or the path
            of an ``.npz`` file with the keys ``images`` (N, 224, 224, 3), taken as they are, and
            ``labels``.
        order: of a folder. ``validation`` is ILSVRC2012's own numbering, in which the classes are
            mixed: the first 200 are the paper's 200 where the folder holds the whole set.
            ``folder`` goes class by class: the first 200 are 50 images of each of 4 classes.
        preprocessing: what makes photographs the classifier's size, by RobustBench's names:
            ``Res256Crop224`` (shorter side to 256, bilinear; centre of 224 x 224),
            ``BicubicRes256Crop224``, ``Res224``, ``Crop288`` and the like.
        batch_size: images per batch, for each process; ``auto`` chooses by the memory.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer; applied
            to ``indices`` where both are given.
        indices: positions in the source of the images to evaluate on, in this order.
        num_workers: loading processes; 0 loads in the main one.

    Attributes:
        image_shape: (3, H, W) of every image.

    Raises:
        InputError: an argument, the source or one of its files is not as above.
    """

    num_classes = NUM_CLASSES

    def __init__(
        self,
        *,
        source: str = FOOLBOX,
        order: Order = "validation",
        preprocessing: str = "Res256Crop224",
        batch_size: int | Auto = 10,
        limit: int | None = 200,
        indices: list[int] | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            source=source,
            preprocessing=preprocessing,
            batch_size=batch_size,
            limit=limit,
            indices=indices,
            num_workers=num_workers,
        )
        if order not in get_args(Order):
            raise InputError(f"order is {order!r}; expected {' or '.join(get_args(Order))}")
        self.order: Order = order

    def setup(self, stage: str) -> None:
        """Find the images of a ``test``, and look whether they can be read."""
        if stage == "test":
            is_array = Path(self.source).suffix == ".npz"
            self.test_set = self._arrays() if is_array else self._files()

    def _arrays(self) -> ImageDataset:
        images, labels = sources.npz(self.source)
        self._describe(len(images), order=None, preprocessing=None)
        return self.take(images, labels)

    def _files(self) -> ImageDataset:
        if self.source == FOOLBOX:
            order, samples = None, foolbox_samples()
        else:
            order, samples = self.order, folder_files(self.source, self.order)
        self._describe(len(samples), order=order, preprocessing=self.preprocessing)
        return self.photographs(samples)

    def _describe(self, images: int, *, order: str | None, preprocessing: str | None) -> None:
        """What a report must say about the source; ``None`` where nothing was done."""
        self.details = {
            "data_order": order,
            "data_preprocessing": preprocessing,
            "data_source_images": images,
        }
