"""One step of a reverse process, as a sampler sees it: where it leads, and the chain around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lit_purify.diffusion.schedule import Schedule


class ReverseStep(NamedTuple):
    """A step of a chain from t down to ``t_prev``.

    Attributes:
        t: the step of the schedule that it starts from, 1 .. T.
        t_prev: the one it leads to; 0 at the end of the chain.
        before: the t of the step before it, ``None`` at the first.
        num_steps: steps of the chain.
        schedule: the noise schedule.
    """

    t: int
    t_prev: int
    before: int | None
    num_steps: int
    schedule: Schedule

    @property
    def alpha_bar(self) -> float:
        """Cumulative alpha of t."""
        return self.schedule.alpha_bars[self.t]

    @property
    def alpha_bar_prev(self) -> float:
        """Cumulative alpha of ``t_prev``; 1 at the end of the chain."""
        return self.schedule.alpha_bars[self.t_prev]


def reverse_steps(visited: Sequence[int], schedule: Schedule) -> list[ReverseStep]:
    """The steps of a chain in their order, the last one to 0.

    Args:
        visited: the t that it stops at, ascending.
        schedule: the noise schedule.

    Example:
        >>> from lit_purify.diffusion import LinearSchedule
        >>> [step[:3] for step in reverse_steps([20, 40, 60], LinearSchedule())]
        [(60, 40, None), (40, 20, 60), (20, 0, 40)]
    """
    down = [*reversed(visited), 0]
    return [
        ReverseStep(t, t_prev, before, len(visited), schedule)
        for before, t, t_prev in zip([None, *down], down, down[1:], strict=False)
    ]
