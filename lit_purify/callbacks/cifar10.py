"""Whether a run measures the images that the paper measured."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lit_purify.data import CIFAR10DataModule


def measures_cifar10(trainer: Trainer) -> bool:
    """Whether the test set is CIFAR-10's, and not images of one's own in its format."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return isinstance(data, CIFAR10DataModule) and data.source in ("embedded", "torchvision")
