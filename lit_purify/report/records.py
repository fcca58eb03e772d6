"""The records of a run: one row for every (dataset index, protocol, seed).

``records/`` in a run folder holds ``header.json`` and, while the run is going on or interrupted,
the journals of its processes (:mod:`lit_purify.report.journal`). At the end they are merged into
``rows.jsonl``, one row a line, sorted, and ``tensors.safetensors``, whose tensors are in the order
of its ``index``. These two do not depend on how many processes or sittings the run took.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lit_purify.report.files import write_whole
from lit_purify.report.journal import Entry, Row, is_row, read_journal
from lit_purify.types import InputError

ROWS = "rows.jsonl"
TENSORS = "tensors.safetensors"


def records_folder(run_folder: Path) -> Path:
    """Where a run keeps its records."""
    return run_folder / "records"


def journal_path(folder: Path, rank: int) -> Path:
    """The journal of a process."""
    return folder / f"rank_{rank}.jsonl"


def journals(folder: Path) -> list[Path]:
    """The journals of a run, as far as they are not merged."""
    return sorted(folder.glob("rank_*.jsonl"))


def read_rows(folder: Path, run: str) -> list[Row]:
    """Every row recorded so far, sorted by index, seed and protocol.

    Args:
        folder: the records of the run.
        run: the run its journals must belong to.

    Raises:
        InputError: a file is damaged or foreign, or two rows of one sample differ.
    """
    rows: dict[tuple[int, int, str], Row] = {}
    for row, path in _all_rows(folder, run):
        key = (row["index"], row["seed"], row["protocol"])
        if rows.setdefault(key, row) != row:
            index, seed, protocol = key
            raise InputError(
                f"{path} has a second row for index {index}, protocol {protocol}, seed {seed}, "
                "and it differs from the first; delete the line that is wrong"
            )
    return [rows[key] for key in sorted(rows)]


def merge(folder: Path, run: str) -> list[Row]:
    """Make ``rows.jsonl`` and ``tensors.safetensors`` of the journals; returns the rows.

    It can be interrupted anywhere and called again: the journals go last.
    """
    rows = read_rows(folder, run)
    pieces = list(_pieces(folder, run))
    tensors = _merged(pieces)
    if tensors:
        write_whole(folder / TENSORS, save(tensors))
    lines = [json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n" for row in rows]
    write_whole(folder / ROWS, "".join(lines).encode())
    for journal in journals(folder):
        journal.unlink()
    # Pieces of batches, also those never recorded, and what killed processes left.
    for pattern in ("[0-9]*.safetensors", ".*.tmp", ".rank_[1-9]*.lock"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    return rows


def read_tensors(folder: Path, run: str, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Tensors recorded so far, (N, ...) each, in the order of the ``index`` that comes with them.

    Args:
        folder: the ``records/`` folder of a run.
        run: its identity, from the header.
        names: which of them, as far as they are there; ``None`` for all.
    """
    return _merged(list(_pieces(folder, run, names)))


def _all_rows(folder: Path, run: str) -> Iterator[tuple[Row, Path]]:
    path = folder / ROWS
    if path.exists():
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not is_row(row):
                raise InputError(f"line {number} of {path} is damaged; restore the file")
            yield row, path
    for entry, journal in _entries(folder, run):
        for row in entry["rows"]:
            yield row, journal


def _entries(folder: Path, run: str) -> Iterator[tuple[Entry, Path]]:
    for journal in journals(folder):
        for entry in read_journal(journal, run):
            yield entry, journal


def _pieces(
    folder: Path, run: str, names: Collection[str] | None = None
) -> Iterator[Mapping[str, Tensor]]:
    if (folder / TENSORS).exists():
        yield _load(folder / TENSORS, names, "restore the file")
    for entry, journal in _entries(folder, run):
        if name := entry.get("tensors"):
            cure = f"restore it, or delete the line of {journal} that names it"
            yield _load(folder / name, names, cure)


def _load(path: Path, names: Collection[str] | None, cure: str) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            wanted = [n for n in file.keys() if names is None or n in names or n == "index"]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in wanted}
    except (SafetensorError, FileNotFoundError) as error:
        raise InputError(f"{path} is missing or damaged ({error}); {cure}") from None


def _merged(pieces: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Pieces put together, each sample once, in the order of the index."""
    if not pieces:
        return {}
    index = torch.cat([piece["index"] for piece in pieces]).tolist()
    position = {sample: place for place, sample in reversed(list(enumerate(index)))}
    order = [position[sample] for sample in sorted(position)]
    return {name: torch.cat([piece[name] for piece in pieces])[order] for name in sorted(pieces[0])}
