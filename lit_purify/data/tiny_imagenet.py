"""Tiny-ImageNet: 200 classes of ImageNet at 64 x 64 pixels, as its archive is laid out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from lit_purify.data.image_files import Labelled, is_picture, read_pixels, visible
from lit_purify.data.in_memory import InMemoryDataModule
from lit_purify.types import Auto, InputError

ClassOrder = Literal["sorted", "listed"]

_LAYOUT = (
    "expected the unpacked archive tiny-imagenet-200.zip: wnids.txt, val/val_annotations.txt, "
    "val/images and, for fit, train/<wnid>/images"
)


class TinyImageNetDataModule(InMemoryDataModule):
    """Tiny-ImageNet for training and evaluation: the 10,000 images of ``val`` are the test images.

    ``index`` in a batch is the position in ``val_annotations.txt``, also where only some images are
    taken. Training images go round the classes, so that those held out are of every class.

    Args:
        source: folder that holds ``wnids.txt``, ``val`` and, for training, ``train``.
        class_order: how the classes are numbered. ``sorted`` goes by their WordNet ids, as
            torchvision's ``ImageFolder`` on folders named by them; ``listed`` goes by the lines of
            ``wnids.txt``. A classifier's training says which; the other one gives chance.
        batch_size: images per batch, for each process; ``auto`` chooses by the memory.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer; applied
            to ``indices`` where both are given. Training is not limited.
        indices: positions in the source of the images to evaluate on, in this order.
        num_holdout: the last images of the training set are kept from training and serve as the
            validation set.
        num_workers: loading processes; 0 loads in the main one, and trains from the memory of the
            GPU where the images fit.
        seed: base seed of the training order; independent of the global RNG.

    Attributes:
        num_classes: lines of ``wnids.txt``; set by ``setup``.
        class_names: the first name of each class in ``words.txt``, where that file is there; set by
            ``setup``.

    Raises:
        InputError: an argument, the folder or one of its files is not as above.
    """

    dataset = "Tiny-ImageNet"
    image_shape = (3, 64, 64)

    def __init__(
        self,
        *,
        source: str,
        class_order: ClassOrder = "sorted",
        batch_size: int | Auto = 64,
        limit: int | None = None,
        indices: list[int] | None = None,
        num_holdout: int = 2000,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            source=source,
            train_source=source,
            batch_size=batch_size,
            limit=limit,
            indices=indices,
            num_holdout=num_holdout,
            num_workers=num_workers,
            seed=seed,
        )
        if class_order not in get_args(ClassOrder):
            raise InputError(
                f"class_order is {class_order!r}; expected {' or '.join(get_args(ClassOrder))}"
            )
        self.class_order = class_order
        self.details = {"data_class_order": class_order}

    def load(self, source: str, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
        folder = Path(source)
        if not folder.is_dir():
            raise InputError(f"there is no folder {source!r}; {_LAYOUT}; type --data.source FOLDER")
        wnids = [line for line in _lines(folder / "wnids.txt") if line]
        _check_once(wnids, folder / "wnids.txt")
        if self.class_order == "sorted":
            wnids.sort()
        self.num_classes = len(wnids)
        if (folder / "words.txt").is_file():
            parts = (line.partition("\t") for line in _lines(folder / "words.txt"))
            words = {wnid: names for wnid, _, names in parts}
            self.class_names = tuple(words.get(wnid, wnid).split(",")[0] for wnid in wnids)
        samples = _training_files(folder, wnids) if train else _validation_files(folder, wnids)
        images = np.stack([read_pixels(path, self.image_shape) for path, _ in samples])
        return images, np.array([label for _, label in samples])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); {_LAYOUT}; unpack it again") from error


def _check_once(names: list[str], path: Path) -> None:
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(
            f"{path} names {', '.join(repeated[:3])} more than once; expected each once, as its "
            "place decides the label or the index; unpack it again"
        )


def _validation_files(folder: Path, wnids: list[str]) -> Labelled:
    """The files of ``val``, in the order of their annotations."""
    annotations = folder / "val" / "val_annotations.txt"
    samples = []
    for line in filter(None, _lines(annotations)):
        name, wnid = [*line.split("\t"), ""][:2]
        if wnid not in wnids:
            raise InputError(
                f"{annotations} has the line {line[:60]!r}; expected a file name, a tab and one of "
                f"the {len(wnids)} ids in wnids.txt; unpack it again"
            )
        samples.append((folder / "val" / "images" / name, wnids.index(wnid)))
    if not samples:
        raise InputError(f"{annotations} names no images; {_LAYOUT}; unpack it again")
    _check_once([path.name for path, _ in samples], annotations)
    return samples


def _training_files(folder: Path, wnids: list[str]) -> Labelled:
    """The files of ``train``: the first of every class, the second of every class, and so on."""
    found = []
    for label, wnid in enumerate(wnids):
        files = filter(is_picture, visible(folder / "train" / wnid / "images"))
        found += [(place, label, path) for place, path in enumerate(files)]
    if not found:
        raise InputError(f"{folder / 'train'} holds no images; {_LAYOUT}; unpack it again")
    return [(path, label) for _, label, path in sorted(found)]
