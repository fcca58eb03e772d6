"""A table of the runs while they work; a line for every change where the output is a file."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lit_purify.report.numbers import percent
from lit_purify.sweeps.states import Phase, Sweep

_ORDER: tuple[Phase, ...] = ("running", "failed", "elsewhere", "queued", "waiting", "finished")
"""What a terminal that is too low for all of them shows first."""
_STYLE = {"running": "bold", "failed": "red", "finished": "green"}
_PERIOD = 1.0


class Display:
    """Shows a sweep: called again and again, it looks once a second.

    Args:
        sweep: what is shown.
        jobs: how many runs work at once.
    """

    def __init__(self, sweep: Sweep, jobs: int = 1) -> None:
        self.sweep = sweep
        self.jobs = jobs
        console = Console(stderr=True)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._said: dict[str, Phase] = {}
        self._next = 0.0

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        self.show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.show()
        if self._live is not None:
            self._live.stop()

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _PERIOD
            self.show()

    def show(self) -> None:
        """Look, and show what there is."""
        self.sweep.refresh()
        if self._live is not None:
            self._live.update(Group(_table(self.sweep), self._totals()), refresh=True)
            return
        for name, phase in self.sweep.phases.items():
            if self._said.get(name, "waiting") != phase:
                print(f"{name}: {_words(self.sweep, name)}; {self._totals()}", file=sys.stderr)
            self._said[name] = phase
        sys.stderr.flush()

    def _totals(self) -> str:
        phases = Counter(self.sweep.phases.values())
        words = [f"{phases['finished']} of {len(self.sweep.runs)} runs finished"]
        words += [f"{phases['failed']} failed"] if phases["failed"] else []
        seconds = self.sweep.seconds_left(self.jobs)
        if seconds is not None and set(phases) - {"finished", "failed"}:
            words.append(f"about {_clock(seconds)} left")
        return ", ".join(words)


def _words(sweep: Sweep, name: str) -> str:
    """What has become of a run, in a line."""
    words = [str(sweep.phases[name]), *filter(None, _numbers(sweep, name))]
    return ", ".join(words) + (f": {sweep.errors[name]}" if name in sweep.errors else "")


def _numbers(sweep: Sweep, name: str) -> tuple[str, str]:
    """Images that a run has done, and the accuracy on them."""
    progress = sweep.progress[name]
    images = "" if progress.samples is None else f"{progress.done}/{progress.samples} images"
    if progress.accuracy is None:
        return images, ""
    word, share = progress.accuracy
    return images, f"{word} {percent(share)} %"


def _table(sweep: Sweep) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("accuracy so far", justify="right", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True)
    for name, phase in sorted(sweep.phases.items(), key=lambda item: _ORDER.index(item[1])):
        style = _STYLE.get(phase, "")
        cells = (name, phase, *_numbers(sweep, name), sweep.errors.get(name, ""))
        table.add_row(*(Text(cell, style) for cell in cells))
    return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
