"""Data modules: labelled images in [0, 1] that carry their dataset indices."""

from lit_purify.data.array_module import ArrayDataModule
from lit_purify.data.base import ImageDataModule
from lit_purify.data.celeba_hq import CelebAHQDataModule
from lit_purify.data.cifar10 import CIFAR10DataModule
from lit_purify.data.image_folder import ImageFolderDataModule
from lit_purify.data.imagenet import ImageNetDataModule
from lit_purify.data.in_memory import InMemoryDataModule
from lit_purify.data.npz import NPZDataModule
from lit_purify.data.tiny_imagenet import TinyImageNetDataModule
from lit_purify.data.torchvision_sets import (
    CIFAR100DataModule,
    FashionMNISTDataModule,
    MNISTDataModule,
    SVHNDataModule,
)

__all__ = [
    "ArrayDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "CelebAHQDataModule",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "InMemoryDataModule",
    "MNISTDataModule",
    "NPZDataModule",
    "SVHNDataModule",
    "TinyImageNetDataModule",
]
