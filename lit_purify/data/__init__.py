"""Data modules: labelled images in [0, 1] that carry their dataset indices."""

from lit_purify.data.array_module import ArrayDataModule
from lit_purify.data.base import ImageDataModule
from lit_purify.data.cifar10 import CIFAR10DataModule
from lit_purify.data.image_folder import ImageFolderDataModule
from lit_purify.data.imagenet import ImageNetDataModule

__all__ = [
    "ArrayDataModule",
    "CIFAR10DataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageNetDataModule",
]
