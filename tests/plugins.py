"""Classifiers, purifiers, data and factories of a user's own that are wrong, each in one way.

The tests name them in class paths.
"""

import errno
from typing import ClassVar

import tiny
import torch

from lit_purify.classifiers import Classifier
from lit_purify.data import ImageDataModule
from lit_purify.diffusion import Purifier


class Own(Classifier):
    """A sound one, from which the others differ."""

    num_classes = 10

    def forward(self, images):
        return images.flatten(1)[:, :10]


class NoNumber(Classifier):
    def forward(self, images):
        return images.flatten(1)[:, :10]


class DictOfLogits(Own):
    def forward(self, images):
        return {"logits": super().forward(images)}


class PairOfLogits(Own):
    def forward(self, images):
        return super().forward(images), images


class OneNumber(Own):
    def forward(self, images):
        return super().forward(images)[:, 0]


def unannotated():
    return Own()


def unannotated_purifier():
    return tiny.IdentityPurifier()


class Bytes(ImageDataModule):
    """Images in 0..255."""

    def __init__(self, *, batch_size: int = 2, limit: int | None = None):
        super().__init__(source="own", batch_size=batch_size, limit=limit, num_workers=0)

    def setup(self, stage):
        images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 32, 32) * 80
        self.test_set = self.take(images, torch.arange(4))


class Raising(Purifier):
    """Raises when it is made, or when it purifies.

    Args:
        what: name of the error.
        late: whether when it purifies.
    """

    ERRORS: ClassVar = {
        "value": ValueError("sigma must be positive"),
        "key": KeyError("weights"),
        "missing module": ModuleNotFoundError("No module named 'timmm'", name="timmm.models"),
        "requirement": ModuleNotFoundError("Requirement 'wandb>=0.12' not met. HINT: ..."),
        "memory": MemoryError(),
        "GPU memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        "compiler": RuntimeError("InvalidCxxCompiler: No working C++ compiler found"),
        "triton": RuntimeError("Cannot find a working triton installation."),
        "disk": OSError(errno.ENOSPC, "No space left on device", "/mnt/weights/a.bin"),
    }

    def __init__(self, *, what: str, late: bool = False) -> None:
        super().__init__()
        self.what = what
        if not late:
            raise self.ERRORS[what]

    def purify(self, images, noise, indices):
        raise self.ERRORS[self.what]


class Greedy(Purifier):
    """Asks for four petabytes."""

    def purify(self, images, noise, indices):
        return torch.empty(10**15)
