"""What a report needs of finished runs, small enough for a repository."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from lit_purify.records.files import write_whole
from lit_purify.records.rows import PACKED, ROWS
from lit_purify.sweeps.states import Sweep
from lit_purify.types import InputError


def export(sweep: Sweep, target: Path) -> list[str]:
    """Copy summary, configuration and rows of every finished run, without its images.

    ``report`` and comparisons sample by sample read the copies as they read run folders. Equal runs
    give equal bytes.

    Args:
        sweep: the sweep.
        target: gets a folder for every run.

    Returns:
        The runs left out that are finished by another command than they have now.

    Raises:
        InputError: no run is finished by the command that it has now.
    """
    results = {name: p.folder for name, p in sweep.progress.items() if p.finished and p.folder}
    finished = {n: folder for n, folder in results.items() if sweep.phases[n] == "finished"}
    others = [name for name in results if name not in finished]
    if not finished:
        made = f" ({len(others)} by other commands; give the arguments that made them)"
        raise InputError(
            f"no run in {sweep.root} is finished{made if others else ''}; expected one or more to "
            "export"
        )
    for name, folder in finished.items():
        write_whole(target / name / "summary.json", (folder / "summary.json").read_bytes())
        config = (folder / "config.yaml").read_bytes()
        # Where it was made says nothing of the run, and may be nobody's business.
        config = re.sub(rb"(?m)^( *default_root_dir:).*$", rb"\1 .", config)
        write_whole(target / name / "config.yaml", config)
        rows = (folder / "records" / ROWS).read_bytes()
        write_whole(target / name / "records" / PACKED, gzip.compress(rows, mtime=0))
    return others
