"""What a report needs of finished runs, small enough for a repository."""

from __future__ import annotations

import gzip
from pathlib import Path

from lit_purify.records.files import write_whole
from lit_purify.records.rows import PACKED, ROWS
from lit_purify.sweeps.states import Sweep
from lit_purify.types import InputError


def export(sweep: Sweep, target: Path) -> Path:
    """Copy summary, configuration and rows of every finished run, without its images.

    ``report`` and comparisons sample by sample read the copies as they read run folders. Equal runs
    give equal bytes.

    Args:
        sweep: the sweep.
        target: gets a folder for every run.

    Returns:
        The folder written to.

    Raises:
        InputError: no run is finished.
    """
    finished = {name: p.folder for name, p in sweep.progress.items() if p.finished and p.folder}
    if not finished:
        raise InputError(f"no run in {sweep.root} is finished; expected one or more to export")
    for name, folder in finished.items():
        for file in ("summary.json", "config.yaml"):
            write_whole(target / name / file, (folder / file).read_bytes())
        rows = (folder / "records" / ROWS).read_bytes()
        write_whole(target / name / "records" / PACKED, gzip.compress(rows, mtime=0))
    return target
