"""A sequence of large tensors that is computed once and gone through several times."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from lit_purify.records.files import naming


class Replay:
    """Tensors of one shape that wait on the disk, and not in memory, for the second round.

    The first round computes them and writes them down as they come; later rounds read them back,
    to the bit. The file has no name where the system allows it, and is gone when the block is
    left, also where the process was killed. It lies in the system's folder for temporary files,
    which the environment variable ``TMPDIR`` names; its size is that of all the tensors.

    Args:
        compute: gives the tensors, in order; called once.
        device: where the later rounds want them.

    Raises:
        OSError: no room for them.
        RuntimeError: a later round begins before the first is complete.

    Example:
        >>> with Replay(lambda: iter([torch.zeros(2), torch.ones(2)]), torch.device("cpu")) as both:
        ...     print([t.tolist() for t in both], [t.tolist() for t in both])
        [[0.0, 0.0], [1.0, 1.0]] [[0.0, 0.0], [1.0, 1.0]]
    """

    def __init__(self, compute: Callable[[], Iterator[Tensor]], device: torch.device) -> None:
        self._compute = compute
        self._device = device
        self._file: BinaryIO | None = None
        self._like = np.empty(0)
        self._count = 0
        self._complete = False

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[Tensor]:
        if self._file is None:
            self._file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
            return self._record(self._file)
        if not self._complete:
            raise RuntimeError("a later round begins before the first one is complete")
        return self._read(self._file)

    def _record(self, file: BinaryIO) -> Iterator[Tensor]:
        for tensor in self._compute():
            self._like = tensor.detach().cpu().contiguous().numpy()
            with naming(tempfile.gettempdir()):
                file.write(self._like.data)
                file.flush()
            self._count += 1
            yield tensor
        self._complete = True

    def _read(self, file: BinaryIO) -> Iterator[Tensor]:
        file.seek(0)
        for _ in range(self._count):
            values = np.empty_like(self._like)
            file.readinto(values.data)  # type: ignore[attr-defined]
            yield torch.from_numpy(values).to(self._device)
