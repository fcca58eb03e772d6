"""Image files as a dataset: read when they are asked for, so that any number fits in memory."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lit_purify.data.dataset import ImageDataset
from lit_purify.data.image_files import Labelled, check_photograph_header, read_photograph
from lit_purify.data.preprocessing import preprocessing_named

DECODED = 1000
"""Up to this number of files, all are decoded before a run starts, which takes seconds."""


class Photographs(ImageDataset):
    """Image files, each with its label and the dataset index that keys its noise.

    Args:
        samples: PNG, JPEG or WebP files of any size, each with its class index; N of them.
        indices: dataset indices, N of them.
        preprocessing: name of what makes every picture the same size.

    Raises:
        InputError: there is no preprocessing of that name.
    """

    def __init__(self, samples: Labelled, indices: Sequence[int], *, preprocessing: str) -> None:
        self.files = [file for file, _ in samples]
        self.labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
        self.indices = torch.tensor(indices, dtype=torch.int64)
        self.preprocessing = preprocessing
        self._preprocess = preprocessing_named(preprocessing).transform

    def check(self) -> None:
        """Look for files that cannot be used: whole up to :data:`DECODED` files, beyond by headers.

        Damage behind a header ends the run when its turn comes; a resumed run then goes on.

        Raises:
            InputError: a file is damaged, or of another kind; the message names it.
        """
        check = read_photograph if len(self) <= DECODED else check_photograph_header
        for file in self.files:
            check(file)

    @functools.cached_property
    def _file_hashes(self) -> list[bytes]:
        hashes = []
        for path in self.files:
            with path.open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").digest())
        return hashes

    def content(self) -> Iterator[bytes]:
        """The preprocessing, and of every file the hash."""
        yield self.preprocessing.encode()
        yield from self._file_hashes

    def pixels(self, item: int) -> Tensor:
        picture = self._preprocess(read_photograph(self.files[item]))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
