"""The classifier alone under budgets below the attack's (Fig. 3c), as a run measured it."""

from __future__ import annotations

from lit_purify.records.runs import FinishedRun
from lit_purify.types import Estimate

_CURVE = "base_curve/robust_accuracy_"


def classifier_curve(run: FinishedRun) -> list[tuple[float, Estimate]]:
    """Budget in [0, 1] and robust accuracy, by rising budget; none where a run has no curve."""
    eps = run.settings.get("base_curve_eps")
    if eps is None:
        return []
    found = {
        float(name.removeprefix(_CURVE)): run.estimate(name)
        for name in run.metrics
        if name.startswith(_CURVE)
    }
    return sorted((eps * rate, share) for rate, share in found.items() if share is not None)
