"""What has become of the runs of a sweep, and how long the rest will take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lit_purify.sweeps.plan import SweepRun
from lit_purify.sweeps.process import is_finished
from lit_purify.sweeps.progress import read_progress

Phase = Literal["waiting", "queued", "running", "elsewhere", "finished", "failed"]
"""``elsewhere``: another sweep works on it; ``queued``: a scheduler has it."""


class Sweep:
    """The runs of a sweep and their states.

    Args:
        runs: the runs.
        root: folder of the sweep, which has a folder for each of them.

    Attributes:
        phases: by the names of the runs.
        errors: of those that failed, what they said.
        progress: how far each has come, as of the last :meth:`refresh`.
    """

    def __init__(self, runs: Sequence[SweepRun], root: Path) -> None:
        self.runs = list(runs)
        self.root = root
        self.phases: dict[str, Phase] = {
            run.name: "finished" if is_finished(run, root) else "waiting" for run in runs
        }
        self.errors: dict[str, str] = {}
        self.progress = {run.name: read_progress(root / run.name) for run in runs}
        self._done = sum(progress.done for progress in self.progress.values())
        self._started = time.monotonic()

    def now(self, run: SweepRun, phase: Phase, error: str = "") -> None:
        """Note what has become of a run."""
        self.phases[run.name] = phase
        self.progress[run.name] = read_progress(self.root / run.name)
        if error:
            self.errors[run.name] = error

    def ended(self, run: SweepRun, status: int, error: str) -> None:
        """Note the end of a run's process."""
        if status == 0 and read_progress(self.root / run.name).finished:
            self.now(run, "finished")
        else:
            self.now(run, "failed", error)

    def refresh(self) -> None:
        """Look how far the runs at work have come."""
        for name, phase in self.phases.items():
            if phase in ("queued", "running", "elsewhere"):
                self.progress[name] = read_progress(self.root / name)

    def finished_folders(self) -> list[Path]:
        """The run folders of what is finished."""
        return [
            folder
            for name, phase in self.phases.items()
            if phase == "finished" and (folder := self.progress[name].folder) is not None
        ]

    def seconds_left(self, jobs: int = 1) -> float | None:
        """An estimate: at the pace of this sweep so far, else at that of its finished runs.

        ``None`` while neither is known. A run that nobody has begun is taken for as long as the
        others.
        """
        sizes = [p.samples for p in self.progress.values() if p.samples]
        if not sizes:
            return None
        typical = statistics.median(sizes)
        going = [n for n, phase in self.phases.items() if phase not in ("finished", "failed")]
        left = sum((self.progress[n].samples or typical) - self.progress[n].done for n in going)
        done = sum(progress.done for progress in self.progress.values()) - self._done
        if done > 0:
            return left * (time.monotonic() - self._started) / done
        timed = [p for p in self.progress.values() if p.finished and p.seconds and p.done]
        if not timed:
            return None
        return left * sum(p.seconds for p in timed) / sum(p.done for p in timed) / jobs
