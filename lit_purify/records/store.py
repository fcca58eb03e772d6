"""Where the records of a run are kept: in memory, or in the folder ``records/`` of a run.

The folder holds ``header.json`` and, while the run goes on or is interrupted, one file per batch,
written whole or not at all: its numbers as columns beside its tensors, and the dataset indices of
its samples. What is done is what is there. A measurement that takes long may also keep what it has
of a batch so far, in a file that goes when the batch is recorded.

At the end the files are merged into ``tensors.safetensors``, all columns in the order of the index,
and ``rows.jsonl``, the numbers as one JSON object per image, for people. These two do not depend on
how many processes or sessions the run took.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lit_purify.records.files import write_whole
from lit_purify.records.header import FORMAT, VERSION, check_format
from lit_purify.records.rows import ROWS
from lit_purify.records.table import INDEX, Column, SampleTable, concatenate
from lit_purify.types import InputError

TENSORS = "tensors.safetensors"
_WHERE = "where/"
_BATCHES = "batch_*.safetensors"
_PARTS = "part_*.safetensors"
_LOCKS = ".rank_*.lock"


def records_folder(run_folder: Path) -> Path:
    """Where a run keeps its records."""
    return run_folder / "records"


class MemoryStore:
    """The records of one process, for a run that leaves no files.

    Args:
        tensors: names of the tensors to keep; the numbers are all kept.
    """

    def __init__(self, tensors: Container[str] = ()) -> None:
        self._tensors = tensors
        self._tables: list[SampleTable] = []

    def append(self, table: SampleTable) -> None:
        """Keep a batch."""
        kept = {
            name: column
            for name, column in table.columns.items()
            if column.values.ndim == 1 or name in self._tensors
        }
        self._tables.append(SampleTable(kept))

    def keep(self, index: int, tensors: dict[str, Tensor]) -> None:
        """A process that leaves no files has nothing to go on with."""

    def kept(self, index: int) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def collect(self) -> SampleTable:
        """What this process has kept."""
        return concatenate(self._tables)


class RunStore:
    """The records of a run, open for one process to write.

    Args:
        folder: the ``records/`` folder of the run; made where it is missing.
        run: identifies the configuration; files of another one are refused.
        rank: of this process. The first one, 0, finds out whether others are still at work.

    Raises:
        InputError: a process of the run is still at work in the folder.
    """

    def __init__(self, folder: Path, run: str, rank: int = 0) -> None:
        self.folder = folder
        self.run = run
        self.rank = rank
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / f".rank_{rank}.lock")
        for path in folder.glob(_LOCKS) if rank == 0 else ():
            if path.name != Path(self._lock.lock_file).name:
                _acquire(FileLock(path)).release()
        _acquire(self._lock)

    def done(self) -> frozenset[int]:
        """Dataset indices of the samples that are recorded.

        Raises:
            InputError: a file is damaged or of another run.
        """
        return frozenset(
            int(index) for path in self._files() for index in _read(path, self.run, INDEX)[INDEX]
        )

    def append(self, table: SampleTable) -> None:
        """Record a batch; on return it is on the disk.

        Raises:
            InputError: its first sample is that of an earlier batch.
        """
        first = int(table[INDEX][0])
        path = self.folder / f"batch_{first:08d}.safetensors"
        if path.exists():
            raise InputError(
                f"index {first} is recorded in {path} already; give every image an index of its own"
            )
        write_whole(path, self._bytes(table))
        self._part(first).unlink(missing_ok=True)

    def keep(self, index: int, tensors: dict[str, Tensor]) -> None:
        """Keep what there is of a batch so far, in the place of what was kept of it before.

        Args:
            index: dataset index of its first sample.
            tensors: by name, of any shape.
        """
        write_whole(self._part(index), save(tensors, self._metadata))

    def kept(self, index: int) -> dict[str, Tensor]:
        """What was kept last of the batch with this first sample; empty where nothing was.

        Raises:
            InputError: the file is damaged or of another run.
        """
        path = self._part(index)
        return _read(path, self.run) if path.exists() else {}

    @property
    def empty(self) -> bool:
        """Whether nothing is recorded yet."""
        return not any(self._files()) and not any(self.folder.glob(_PARTS))

    def read(self) -> SampleTable:
        """Everything recorded so far, by all processes.

        Raises:
            InputError: a file is damaged or of another run, or two of them contradict each other.
        """
        tables = [_table(_read(path, self.run)) for path in self._files()]
        try:
            return concatenate(tables)
        except InputError as error:
            raise InputError(
                f"the records in {self.folder} cannot be put together: {error}"
            ) from error

    def merge(self) -> SampleTable:
        """Make ``tensors.safetensors`` and ``rows.jsonl`` of the batches; returns all records.

        It can be interrupted anywhere and called again: the batches go last.
        """
        table = self.read()
        if len(table):
            write_whole(self.folder / TENSORS, self._bytes(table))
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in table.rows()]
        write_whole(self.folder / ROWS, "".join(lines).encode())
        # Files of batches, and what killed processes left.
        for pattern in (_BATCHES, _PARTS, ".*.tmp", ".rank_[1-9]*.lock"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        return table

    def collect(self) -> SampleTable:
        """:meth:`merge` on the first process, which every one must have come to; else nothing."""
        return self.merge() if self.rank == 0 else SampleTable({})

    def close(self) -> None:
        """Let other processes write."""
        with suppress(OSError):  # under the lock, or another process could hold a nameless one
            Path(self._lock.lock_file).unlink()
        self._lock.release()

    def _part(self, index: int) -> Path:
        return self.folder / f"part_{index:08d}.safetensors"

    def _files(self) -> Iterator[Path]:
        """The merged file, then those of batches."""
        if (self.folder / TENSORS).exists():
            yield self.folder / TENSORS
        yield from sorted(self.folder.glob(_BATCHES))

    def _bytes(self, table: SampleTable) -> bytes:
        tensors = {}
        for name, (values, where) in table.columns.items():
            tensors[name] = values.contiguous().clone()  # which may be shared
            if where is not None:
                tensors[_WHERE + name] = where.contiguous().clone()
        return save(tensors, self._metadata)

    @property
    def _metadata(self) -> dict[str, str]:
        # One entry: several would stand in any order, and equal records be other bytes.
        header = json.dumps({"format": FORMAT, "version": VERSION, "run": self.run})
        return {"header": header}


Store = MemoryStore | RunStore
"""Where the records of a test go."""


def read_merged(folder: Path, run: str) -> SampleTable:
    """The records of a finished run; an empty table where nothing was evaluated."""
    path = folder / TENSORS
    return _table(_read(path, run)) if path.exists() else SampleTable({})


def _acquire(lock: FileLock) -> FileLock:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(
            f"{Path(lock.lock_file).parent} is being written by another process, so this run is "
            "still going on; wait for it, or stop it first"
        ) from None
    return lock


def _read(path: Path, run: str, *names: str) -> dict[str, Tensor]:
    """Tensors of a file, all or some."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("header", "{}"))
            tensors = {name: file.get_tensor(name) for name in names or file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        cure = "restore it" if path.name == TENSORS else "delete it"
        raise InputError(
            f"{path} is damaged ({error}); {cure}, and a resumed run evaluates what is missing"
        ) from None
    check_format(header, path)
    if header.get("run") != run:
        raise InputError(
            f"{path} belongs to a run of another configuration; move it out of the folder"
        )
    return tensors


def _table(tensors: dict[str, Tensor]) -> SampleTable:
    names = [name for name in tensors if not name.startswith(_WHERE)]
    names.sort(key=lambda name: "/" in name)  # index and label, then what was found
    return SampleTable({name: Column(tensors[name], tensors.get(_WHERE + name)) for name in names})
