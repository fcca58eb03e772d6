"""The numbers of a finished run sample by sample, from its folder or from an exported copy."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from lit_purify.types import InputError

ROWS = "rows.jsonl"
PACKED = f"{ROWS}.gz"
"""What an export has in its place."""

_OF_SOMETHING_ELSE = (KeyError, TypeError, AttributeError)
"""What JSON raises that is not of rows."""


def read_numbers(folder: Path, name: str) -> dict[int, float]:
    """A column of a run by dataset index, without samples that have no finite number there.

    Args:
        folder: the run folder.
        name: of the column, such as ``fixed/robust_accuracy``; yes and no are 1 and 0.

    Raises:
        InputError: the records are missing or damaged.
    """
    records = folder / "records"
    packed = records / PACKED
    try:
        if packed.exists():
            lines = gzip.decompress(packed.read_bytes())
        else:
            lines = (records / ROWS).read_bytes()
        rows = [json.loads(line) for line in lines.splitlines()]
        return {row["index"]: float(row[name]) for row in rows if row.get(name) is not None}
    except (OSError, EOFError, ValueError, zlib.error, *_OF_SOMETHING_ELSE) as error:
        raise InputError(
            f"the rows in {records} cannot be read ({error}); expected {ROWS} of a finished run, "
            f"or {PACKED} of an exported one; restore it, or repeat the run"
        ) from error
