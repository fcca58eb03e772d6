"""The runs of a sweep as an array of SLURM jobs, through submitit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lit_purify.sweeps.plan import SweepRun
from lit_purify.sweeps.process import Busy, RunProcess, is_finished
from lit_purify.sweeps.states import Sweep
from lit_purify.types import InputError

_POLL = 5.0


class Resources(NamedTuple):
    """What a job gets.

    Attributes:
        partition: ``None`` is the cluster's own.
        minutes: until the job stops and goes back into the queue.
        gpus, cpus: of one run.
    """

    partition: str | None = None
    minutes: int = 24 * 60
    gpus: int = 1
    cpus: int = 4


class Task:
    """A run as a job: submitit calls it, and :meth:`checkpoint` before the job's time is over."""

    def __init__(self) -> None:
        self._process: RunProcess | None = None

    def __call__(self, run: SweepRun, root: Path) -> tuple[int, str]:
        """The exit status of the run, and what it said last."""
        if is_finished(run, root):  # queued twice
            return 0, ""
        # Its processes are its own: to Lightning the job has one task for them all.
        os.environ.pop("SLURM_NTASKS", None)
        try:
            self._process = RunProcess(run, root)
        except Busy:
            return 1, "another process works on it; start the sweep again when that has ended"
        return self._process.wait(), self._process.error

    def checkpoint(self, run: SweepRun, root: Path) -> Any:
        """Stop the run; the job that goes on with it."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.stop()
            self._process.wait()
        return DelayedSubmission(Task(), run, root)


def run_on_slurm(
    sweep: Sweep,
    resources: Resources,
    *,
    jobs: int = 1,
    watch: Callable[[], None] = lambda: None,
    cluster: str | None = "slurm",
) -> None:
    """Submit what is not finished, and watch it.

    Args:
        sweep: the sweep; what becomes of its runs is written into it.
        resources: of each job.
        jobs: how many work at once.
        watch: called again and again.
        cluster: an executor of submitit; ``local`` starts processes here, for a trial.

    Raises:
        InputError: submitit is not installed, or there is no SLURM here.
        KeyboardInterrupt: of whoever interrupts it; the jobs go on.
    """
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise InputError(
            "--slurm needs submitit, which is not installed; pip install 'lit-purify[slurm]'"
        ) from error
    pending = [run for run in sweep.runs if sweep.phases[run.name] != "finished"]
    try:
        executor = AutoExecutor(folder=sweep.root / "slurm", cluster=cluster)
    except RuntimeError as error:
        raise InputError(f"there is no SLURM here ({error}); leave out --slurm") from error
    executor.update_parameters(
        name=f"lit_purify_{sweep.root.name}",
        timeout_min=resources.minutes,
        gpus_per_node=resources.gpus,
        cpus_per_task=resources.cpus,
        slurm_array_parallelism=jobs,
        slurm_partition=resources.partition,
    )
    submitted = executor.map_array(Task(), pending, [sweep.root.resolve()] * len(pending))
    for run in pending:
        sweep.now(run, "queued")
    working = list(zip(pending, submitted, strict=True))
    while working:
        for run, job in list(working):
            if job.done():
                working.remove((run, job))
                stopped = job.exception()
                status, told = job.result() if stopped is None else (1, str(stopped))
                sweep.ended(run, status, told)
            elif job.state == "RUNNING" and sweep.phases[run.name] == "queued":
                sweep.now(run, "running")
        watch()
        time.sleep(min(_POLL, 0.2 if cluster != "slurm" else _POLL))
