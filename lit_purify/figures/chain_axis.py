"""The x axis of a purification: forward noising to t*, then reverse denoising."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes

from lit_purify.figures.style import MUTED, leave_room

HALVES = ("forward: noise is added", "reverse: noise is removed")


def way_travelled(steps: Sequence[int]) -> tuple[list[float], int]:
    """Where states stand on an axis of the way travelled in t, so that up and down lie in a row.

    Args:
        steps: the t of each state: up to t* and down again, such as 0, 1, ..., 100, 99, ..., 0. A
            reverse-only trajectory begins at t*.

    Returns:
        A place for every state, and which state is the turn. States that have all the same t (of a
        purifier without steps) are put side by side.

    Example:
        >>> way_travelled([0, 50, 100, 0])
        ([0.0, 50.0, 100.0, 200.0], 2)
    """
    places = [0.0]
    for before, after in pairwise(steps):
        places.append(places[-1] + abs(after - before))
    if places[-1] == 0:
        return [float(number) for number in range(len(steps))], 0
    return places, max(range(len(steps)), key=steps.__getitem__)


def ways(steps: Sequence[int]) -> list[tuple[int, int]]:
    """First and last state of every way up or down, one after another.

    Example:
        >>> ways([0, 50, 100, 50, 0]), ways([0, 10, 0, 20, 0])
        ([(0, 2), (2, 4)], [(0, 1), (1, 2), (2, 3), (3, 4)])
    """
    between = range(1, len(steps) - 1)
    up = [after > before for before, after in pairwise(steps)]
    turns = [0, *(number for number in between if up[number - 1] != up[number]), len(steps) - 1]
    return list(pairwise(turns))


def step_ticks(
    places: Sequence[float], steps: Sequence[int], *, parts: int
) -> tuple[list[float], list[str]]:
    """Ticks that divide each way up or down into so many parts: their places, and labels with t.

    Example:
        >>> places, _ = way_travelled([0, 100, 0])
        >>> step_ticks(places, [0, 100, 0], parts=2)
        ([0.0, 50.0, 100.0, 150.0, 200.0], ['0', '50', '100', '50', '0'])
    """
    found: dict[float, str] = {}
    for first, last in ways(steps):
        for part in range(parts + 1):
            share = part / parts
            place = places[first] + share * (places[last] - places[first])
            found[place] = f"{steps[first] + share * (steps[last] - steps[first]):g}"
    return list(found), list(found.values())


def finish_chain_axis(axes: Axes, steps: Sequence[int], *, parts: int) -> None:
    """Ticks, limits and name of the x axis, and over the curves the names of the two halves.

    The reverse process is shaded. A purifier of several rounds has no names and ticks at its turns
    alone. A purifier without steps has an input and an output.

    Args:
        axes: with the curves at the places of :func:`way_travelled`, on the final scale.
        steps: the t of each state.
        parts: ticks divide each half into so many.
    """
    places, _ = way_travelled(steps)
    axes.set_xlim(places[0], places[-1])
    leave_room(axes, 0.15)
    across = axes.get_xaxis_transform()
    once = len(ways(steps)) <= 2
    for first, last in ways(steps):
        up = steps[first] < steps[last]
        if not up:
            axes.axvspan(places[first], places[last], color="0.94", zorder=0)
        if once:
            middle = (places[first] + places[last]) / 2, 0.98
            name = HALVES[0] if up else HALVES[1]
            axes.text(*middle, name, transform=across, ha="center", va="top", color=MUTED)
    if max(steps) > min(steps):
        axes.set_xticks(*step_ticks(places, steps, parts=parts if once else 1))
        axes.set_xlabel("diffusion step t" if once else "diffusion step t (noise is removed: grey)")
    else:
        axes.set_xticks([places[0], places[-1]], ["input", "output"])
        axes.set_xlabel("state of the purification")
