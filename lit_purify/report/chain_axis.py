"""The x axis of a purification: forward noising to t*, then reverse denoising."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes


def way_travelled(steps: Sequence[int]) -> tuple[list[float], int]:
    """Where states stand on an axis of the way travelled in t, so that up and down lie in a row.

    Args:
        steps: the t of each state: up to t* and down again, such as 0, 1, ..., 100, 99, ..., 0.

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


def step_ticks(
    places: Sequence[float], steps: Sequence[int], turn: int, *, parts: int
) -> tuple[list[float], list[str]]:
    """Ticks that divide each half into so many parts: their places, and labels with t.

    Example:
        >>> places, turn = way_travelled([0, 100, 0])
        >>> step_ticks(places, [0, 100, 0], turn, parts=2)
        ([0.0, 50.0, 100.0, 150.0, 200.0], ['0', '50', '100', '50', '0'])
    """
    found: dict[float, str] = {}
    for first, last in ((0, turn), (turn, len(steps) - 1)):
        for part in range(parts + 1) if first < last else ():
            share = part / parts
            place = places[first] + share * (places[last] - places[first])
            found[place] = f"{steps[first] + share * (steps[last] - steps[first]):g}"
    return list(found), list(found.values())


def draw_halves(axes: Axes, start: float, turn: float, end: float, names: tuple[str, str]) -> None:
    """Shade the reverse process and name both halves at the top; one without extent has no name.

    Args:
        axes: where.
        start: place of the input.
        turn: place at which the reverse process begins.
        end: place of the output.
        names: of the forward and of the reverse process.
    """
    axes.axvspan(turn, end, color="0.94", zorder=0)
    for first, last, name in ((start, turn, names[0]), (turn, end, names[1])):
        if first < last:
            axes.text(
                (first + last) / 2,
                0.98,
                name,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize=8,
                color="0.35",
            )
