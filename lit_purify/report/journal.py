"""An append-only file of evaluated batches that survives the death of its process.

A journal has one JSON object a line: first what it is, then one line a batch. A batch is recorded
by one write, so that after a crash it is there whole or, at the end of the file, torn; a torn line
was never acknowledged and is dropped. Tensors go into a safetensors file beside the journal,
complete before the line that names it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors.torch import save
from torch import Tensor

from lit_purify.report.files import naming, write_whole
from lit_purify.types import InputError

FORMAT = "lit_purify records"
VERSION = 1

Row = dict[str, Any]
"""One row of the records: ``index``, ``protocol``, ``seed``, ``label`` and columns of figures."""

Entry = dict[str, Any]
"""What a journal holds of a batch: ``rows`` and the name of its ``tensors``, or ``None``."""


class Journal:
    """The journal of one process; a context in which no other process can write to it.

    Args:
        path: the file; its folder must exist. What it holds already is kept.
        run: identifies the configuration; a journal of another one is refused.

    Raises:
        InputError: another process has it open, or it is another run's.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise InputError(
                f"{path} is being written by another process, so this run is still going on; "
                "wait for it, or stop it first"
            ) from None
        try:
            read_journal(path, run)
            self._cut_torn_line()
            self._file = path.open("ab", buffering=0)
            if self._file.tell() == 0:
                self._write({"format": FORMAT, "version": VERSION, "run": run})
        except BaseException:
            self._unlock()
            raise

    def append(self, rows: Sequence[Row], tensors: Mapping[str, Tensor]) -> None:
        """Record a batch; on return it is on the disk.

        Args:
            rows: what its samples add to the records.
            tensors: (B, ...) each, in the order of the ``index`` that is among them; may be empty.
        """
        name = None
        if tensors:
            # A sample's first record is its only one, so no earlier file has this name.
            name = f"{rows[0]['index']:08d}.safetensors"
            write_whole(
                self.path.with_name(name),
                save({key: value.contiguous().cpu() for key, value in tensors.items()}),
            )
        self._write({"tensors": name, "rows": list(rows)})

    def close(self) -> None:
        """Let other processes write."""
        self._file.close()
        self._unlock()

    def _unlock(self) -> None:
        with suppress(OSError):  # under the lock, or another process could hold a nameless one
            Path(self._lock.lock_file).unlink()
        self._lock.release()

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        with naming(self.path):
            try:
                written = self._file.write(line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError:
                with suppress(OSError):  # a torn line that stays is dropped at the next opening
                    self._file.truncate(start)
                raise

    def _cut_torn_line(self) -> None:
        if self.path.exists():
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(self.path, whole)


def read_journal(path: Path, run: str) -> list[Entry]:
    """The batches of a journal; an empty or missing one has none.

    Args:
        path: the file.
        run: the run it must belong to.

    Raises:
        InputError: a line is damaged, or the journal is of another run or of another version.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # the last one is empty, or torn
    entries = [_parse(line, path, number) for number, line in enumerate(lines, 1)]
    if entries:
        header, *entries = entries
        check_format(header, path)
        if header.get("run") != run:
            raise InputError(
                f"{path} belongs to a run of another configuration; move it out of the folder"
            )
        for number, entry in enumerate(entries, 2):
            if not _is_entry(entry):
                raise _damaged(path, number)
    return entries


def check_format(header: Mapping[str, Any], path: Path) -> None:
    """Raise :class:`InputError` unless a file is of this format and version."""
    if header.get("format") != FORMAT:
        raise InputError(f"{path} is not a file of {FORMAT}; move it out of the folder")
    if header.get("version") != VERSION:
        raise InputError(
            f"{path} has version {header.get('version')!r} of the records; this lit_purify reads "
            f"version {VERSION}; use the lit_purify that wrote it"
        )


def _parse(line: bytes, path: Path, number: int) -> Any:
    try:
        entry = json.loads(line)
    except ValueError:
        raise _damaged(path, number) from None
    if not isinstance(entry, dict):
        raise _damaged(path, number)
    return entry


def _is_entry(entry: Entry) -> bool:
    rows, tensors = entry.get("rows"), entry.get("tensors")
    whole = isinstance(rows, list) and all(is_row(row) for row in rows)
    return whole and (tensors is None or isinstance(tensors, str))


def is_row(row: object) -> bool:
    """Whether an object has what names a row: index, protocol, seed."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("index"), int)
        and isinstance(row.get("protocol"), str)
        and isinstance(row.get("seed"), int)
    )


def _damaged(path: Path, number: int) -> InputError:
    cure = "move the file out of the folder" if number == 1 else "delete that line"
    return InputError(
        f"line {number} of {path} is damaged; {cure}, and a resumed run evaluates its samples again"
    )
