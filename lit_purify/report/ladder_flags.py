"""What a ladder of attacks says of itself: masked gradients, and rungs that were not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lit_purify.report.numbers import percent

NOT_RUN = "attack_not_run_"
"""How the names of metrics begin that count the samples a rung was not run on."""


def ladder_flags(metrics: Mapping[str, Mapping[str, Any]], budget: object) -> Iterator[str]:
    """The sentences of :func:`~lit_purify.report.flags.flags` on a ladder, if one was climbed.

    Args:
        metrics: as in ``summary.json``.
        budget: of the ladder, image-steps per image.
    """
    left_out: dict[str, list[str]] = {}
    for name, entry in metrics.items():
        surface, _, column = name.partition("/")
        # Now and then an image at the edge of what fools falls to whatever is tried next.
        if column == "attack_broken_without_gradients" and (entry.get("low") or 0.0) > 0.01:
            yield (
                f"On {surface} an attack without gradients broke {percent(entry['value'])} % of "
                "the samples after those with gradients had failed, so the gradients mislead; try "
                "BPDA or a longer attack."
            )
        elif column.startswith(NOT_RUN) and entry.get("value"):
            left_out.setdefault(surface, []).append(column.removeprefix(NOT_RUN))
    for surface, rungs in left_out.items():
        share = metrics[f"{surface}/{NOT_RUN}{rungs[-1]}"]["value"]  # what one leaves out all do
        yield (
            f"On {surface} the budget of {budget} image-steps per image was spent on "
            f"{percent(share)} % of the samples while they stood, and {', '.join(rungs)} did not "
            "run on all of them: the robust accuracy may be too high; raise attack.budget, null "
            "for none."
        )
