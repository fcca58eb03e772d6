"""Data sets that torchvision reads and downloads: CIFAR-100, SVHN, MNIST, Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lit_purify.data import sources
from lit_purify.data.in_memory import InMemoryDataModule
from lit_purify.types import Auto, InputError

DIGITS = tuple("0123456789")
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class TorchvisionDataModule(InMemoryDataModule):
    """A data set of torchvision's for training and evaluation, in its canonical order.

    ``index`` in a batch is the position in the full source, also where only some images are taken.

    Args:
        source: test images: ``torchvision``, or the path of an ``.npz`` file with the keys
            ``images`` (N, H, W, C), of the data set's size, and ``labels``.
        train_source: training images, likewise.
        root: folder that holds torchvision's files, or that they are downloaded into.
        download: let torchvision download what is not there. It verifies what it downloads.
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
        loader: name of the class in ``torchvision.datasets``; of a subclass.
        named_sources: what ``source`` may be beside a path; of a subclass.

    Raises:
        InputError: an argument or the source is not as above, or the files are not there.
    """

    loader: str
    named_sources: tuple[str, ...] = ("torchvision",)

    def __init__(
        self,
        *,
        source: str = "torchvision",
        train_source: str = "torchvision",
        root: str = "data",
        download: bool = False,
        batch_size: int | Auto = 64,
        limit: int | None = None,
        indices: list[int] | None = None,
        num_holdout: int = 2000,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            source=source,
            train_source=train_source,
            batch_size=batch_size,
            limit=limit,
            indices=indices,
            num_holdout=num_holdout,
            num_workers=num_workers,
            seed=seed,
        )
        _check_source("source", source, self.named_sources)
        _check_source("train_source", train_source, ("torchvision",))
        self.root = root
        self.download = download
        if source not in self.named_sources:  # a file is anybody's, whose classes have other names
            self.class_names, self.dataset = (), ""

    def prepare_data(self) -> None:
        """Download once, in one process; the others find the files there."""
        function = None if self.trainer is None else self.trainer.state.fn
        fitting = function in ("fit", "validate")
        if (self.train_source if fitting else self.source) == "torchvision":
            self.load("torchvision", train=fitting)

    def load(self, source: str, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
        if source == "torchvision":
            return sources.torchvision(self.loader, self.root, train=train, download=self.download)
        return sources.npz(source)


def _check_source(name: str, source: str, known: tuple[str, ...]) -> None:
    if source not in known and Path(source).suffix != ".npz":
        names = " or ".join(repr(word) for word in known)
        raise InputError(
            f"{name} is {source!r}; expected {names}, or the path of an .npz file with the keys "
            "'images' and 'labels'"
        )


class CIFAR100DataModule(TorchvisionDataModule):
    """CIFAR-100: RGB images of 32 x 32 pixels, 100 fine classes.

    10,000 test and 50,000 training images. Arguments as :class:`TorchvisionDataModule`.
    """

    loader = "CIFAR100"
    dataset = "CIFAR-100"
    num_classes = 100
    image_shape = (3, 32, 32)
    class_names = tuple(_CIFAR100.split())


class SVHNDataModule(TorchvisionDataModule):
    """Street View House Numbers: RGB images of 32 x 32 pixels, the digit in the middle.

    26,032 test and 73,257 training images; the digit 0 has the label 0. Arguments as
    :class:`TorchvisionDataModule`.
    """

    loader = "SVHN"
    dataset = "SVHN"
    num_classes = 10
    image_shape = (3, 32, 32)
    class_names = DIGITS


class MNISTDataModule(TorchvisionDataModule):
    """MNIST: grey images of 28 x 28 pixels, handwritten digits.

    10,000 test and 60,000 training images. Arguments as :class:`TorchvisionDataModule`.
    """

    loader = "MNIST"
    dataset = "MNIST"
    num_classes = 10
    image_shape = (1, 28, 28)
    class_names = DIGITS


class FashionMNISTDataModule(TorchvisionDataModule):
    """Fashion-MNIST: grey images of 28 x 28 pixels, clothes.

    10,000 test and 60,000 training images. Arguments as :class:`TorchvisionDataModule`.
    """

    loader = "FashionMNIST"
    dataset = "Fashion-MNIST"
    num_classes = 10
    image_shape = (1, 28, 28)
    class_names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
