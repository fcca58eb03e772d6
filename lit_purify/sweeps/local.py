"""The runs of a sweep on this machine, one after another or several at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from lit_purify.sweeps.process import Busy, Launcher, RunProcess, is_finished, launch
from lit_purify.sweeps.states import Sweep

_POLL = 0.2
_PATIENCE = 5.0
"""Seconds until a run is looked at again that another process works on."""


def run_here(
    sweep: Sweep,
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
    watch: Callable[[], None] = lambda: None,
    launcher: Launcher = launch,
) -> None:
    """Run what is not finished. A run that fails does not stop the others.

    Args:
        sweep: the sweep; what becomes of its runs is written into it.
        jobs: how many work at once. They share the cores out among them.
        devices: GPUs, of which each run gets one: numbers as in ``CUDA_VISIBLE_DEVICES``. Not fewer
            than ``jobs``; none leaves all of them to every run.
        watch: called again and again.
        launcher: how a run is started.

    Raises:
        KeyboardInterrupt: of whoever interrupts it; the runs have stopped.
    """
    slots = list(devices)[:jobs] if devices else [""] * jobs
    working: list[tuple[RunProcess, str]] = []
    queue = [run for run in sweep.runs if sweep.phases[run.name] != "finished"]
    due = {run.name: 0.0 for run in queue}
    try:
        while queue or working:
            for run in list(queue):
                if not slots or time.monotonic() < due[run.name]:
                    continue
                if is_finished(run, sweep.root):  # by another sweep
                    queue.remove(run)
                    sweep.now(run, "finished")
                    continue
                try:
                    process = RunProcess(run, sweep.root, _environment(jobs, slots[0]), launcher)
                except Busy:
                    due[run.name] = time.monotonic() + _PATIENCE
                    sweep.now(run, "elsewhere")
                    continue
                queue.remove(run)
                working.append((process, slots.pop(0)))
                sweep.now(run, "running")
            for process, slot in list(working):
                if (status := process.poll()) is not None:
                    working.remove((process, slot))
                    slots.append(slot)
                    sweep.ended(process.run, status, process.error)
            watch()
            time.sleep(_POLL)
    finally:
        _stop([process for process, _ in working])


def _stop(processes: Sequence[RunProcess]) -> None:
    """Stop processes and wait for their end; a second interruption ends them at once."""
    for process in processes:
        process.stop()
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
            process.wait()


def _environment(jobs: int, device: str) -> dict[str, str]:
    found = {"CUDA_VISIBLE_DEVICES": device} if device else {}
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        found["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    return found
