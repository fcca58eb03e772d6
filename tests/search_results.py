"""Results of runs that nobody has made."""

import json

from lit_purify.records.runs import FinishedRun
from lit_purify.search.halving import Found
from lit_purify.search.verdict import Attacked
from lit_purify.sweeps.plan import SweepRun

ROBUST = "fixed/robust_accuracy_any_iteration"


def result(folder, *, clean, rate=0.3, robust=(), steps=10, draws=1):
    """A run with these shares of images that were right, or lists of which were."""
    rows = [{"index": i} for i in range(len(robust))]
    metrics = {"uniform/compression_rate": {"value": rate}}
    for name, values in (("purified/clean_accuracy", clean), (ROBUST, robust)):
        if isinstance(values, float):
            metrics[name] = {"value": values, "low": 0.0, "high": 1.0}
        elif values:
            metrics[name] = {"value": sum(values) / len(values), "low": 0.0, "high": 1.0}
            for row, value in zip(rows, values, strict=True):
                row[name] = value
    (folder / "records").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "records" / "rows.jsonl").write_text(lines)
    settings = {"num_steps": steps, "purifier_options": {"averaged_draws": draws}}
    return FinishedRun(folder, settings, metrics, "")


def finalist(folder, name, group, *, flags=(), **figures):
    run = result(folder / name, **figures)
    return Attacked(Found(group, SweepRun(name, {}, ()), run), run, list(flags))
