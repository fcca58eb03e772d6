"""How far the run in a folder has come, read from what it leaves there while it works."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from lit_purify.records.discovery import LOGS, SUMMARY
from lit_purify.records.header import read_header
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError

SHOWN = {
    "fixed/robust_accuracy": "fixed",
    "fixed/robust_accuracy_any_iteration": "fixed",
    "fresh/robust_accuracy": "fresh",
    "transfer/robust_accuracy": "transfer",
    "blind/robust_accuracy": "blind",
    "base/robust_accuracy": "base",
    "purified/clean_accuracy": "clean",
}
"""Accuracies, of which the first one that a run has is shown, and what it is called."""


class Progress(NamedTuple):
    """How far a run has come.

    Attributes:
        folder: the run folder; ``None`` where there is none yet.
        status: what its records say; ``running`` also where it was killed.
        done: images that are recorded.
        samples: images in all; ``None`` if unknown.
        accuracy: of these images, with its name; ``None`` where there is none.
        seconds: how long the sessions that came to their end worked on batches.
    """

    folder: Path | None = None
    status: str = "new"
    done: int = 0
    samples: int | None = None
    accuracy: tuple[str, float] | None = None
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return self.status == "finished"


def read_progress(root: Path) -> Progress:
    """The progress of the newest run under a root folder."""
    folder = newest(root)
    if folder is None:
        return Progress()
    try:
        header = read_header(folder / "records")
    except InputError:  # damaged: the run itself says so
        header = None
    if header is None:
        return Progress(folder)
    status, samples = header["status"], header["samples"]
    busy = [session.get("busy_seconds") or [0.0] for session in header["sessions"]]
    seconds = sum(map(max, busy))
    if status == "finished":
        with suppress(OSError, ValueError, KeyError):
            summary = read_summary(folder / SUMMARY)
            if summary["status"] == "finished":  # it is written after the header
                accuracy = _of_metrics(summary["metrics"])
                return Progress(folder, status, samples or 0, samples, accuracy, seconds)
        status = "running"
    done, accuracy = _of_files(folder / "records")
    return Progress(folder, status, done, samples, accuracy, seconds)


def newest(root: Path) -> Path | None:
    """The newest run folder under a root folder."""
    numbered = {
        int(path.name.removeprefix("version_")): path
        for path in (root / LOGS).glob("version_*")
        if path.name.removeprefix("version_").isdecimal()
    }
    return numbered[max(numbered)] if numbered else None


def at_work(folder: Path | None) -> bool:
    """Whether a process writes the records of a run."""
    locks = [] if folder is None else list((folder / "records").glob(".rank_*.lock"))
    for path in locks:
        try:
            FileLock(path).acquire(blocking=False).lock.release()
        except Timeout:
            return True
        except OSError:  # it has just been removed
            continue
    return False


def _of_metrics(metrics: dict[str, Any]) -> tuple[str, float] | None:
    for name, word in SHOWN.items():
        if (value := metrics.get(name, {}).get("value")) is not None:
            return word, value
    return None


def _of_files(records: Path) -> tuple[int, tuple[str, float] | None]:
    """Images that are recorded, and the accuracy on them."""
    done, correct = 0, dict.fromkeys(SHOWN, 0.0)
    known = set(SHOWN)
    for path in [records / "tensors.safetensors", *records.glob("batch_*.safetensors")]:
        # It may be merged into another one meanwhile.
        with suppress(OSError, SafetensorError), safe_open(path, "np") as file:
            names = set(file.keys())
            known &= names
            done += len(file.get_tensor("index"))
            for name in known:
                correct[name] += float(file.get_tensor(name).sum())
    for name, word in SHOWN.items():
        if done and name in known and math.isfinite(correct[name]):
            return done, (word, correct[name] / done)
    return done, None
