"""Run folders below a folder, such as the one that a sweep writes to."""

from __future__ import annotations

import json
import re
from pathlib import Path

SUMMARY = "summary.json"
LOGS = "lightning_logs"


def run_folders(folder: Path) -> list[Path]:
    """The runs that a folder stands for.

    A folder with a summary is a run itself, and one whose folders have summaries holds these. Of
    runs that lie deeper, those in one ``lightning_logs`` are trials of one experiment: the newest
    finished one is taken, or the newest where none is.

    Returns:
        In the order of their names, numbers in them by size; the folder itself where it holds none,
        so that what reads it says so.
    """
    if (folder / SUMMARY).exists():
        return [folder]
    if inside := sorted((path.parent for path in folder.glob(f"*/{SUMMARY}")), key=_by_number):
        return inside
    trials: dict[Path, list[Path]] = {}
    for run in sorted((path.parent for path in folder.rglob(SUMMARY)), key=_by_number):
        trials.setdefault(run.parent if run.parent.name == LOGS else run, []).append(run)
    return [_newest(runs) for runs in trials.values()] or [folder]


def _newest(runs: list[Path]) -> Path:
    return next((run for run in reversed(runs) if _is_finished(run)), runs[-1])


def _is_finished(run: Path) -> bool:
    try:
        summary = json.loads((run / SUMMARY).read_bytes())
        return bool(summary["status"] == "finished")
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _by_number(path: Path) -> list[tuple[int, str]]:
    """A key that sorts ``t20`` before ``t100``."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
