"""The tab HParams of TensorBoard: what decides a run, beside its main metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import summary

from lit_purify.records.runs import FinishedRun

_COLUMNS: dict[str, str | float] = {
    "purifier": "",
    "t_star": 0,
    "num_steps": 0,
    "attack": "",
    "eps (1/255)": 0,
    "steps": 0,
    "draws": 0,
    "protocols": "",
    "seed": 0,
    "images": 0,
    "precision": "",
    "denoiser": "",
    "classifier": "",
}
"""Column -> a value of its type. TensorBoard takes the columns of all runs from one of them."""
_METRICS = (
    *("base/clean_accuracy", "purified/clean_accuracy"),
    *(f"{surface}/robust_accuracy" for surface in ("base", "fixed", "transfer", "fresh")),
    *(f"{surface}/robust_accuracy_any_iteration" for surface in ("base", "fixed")),
    *("uniform/compression_rate", "attack/compression_rate"),
)


def hparams(settings: Mapping[str, Any]) -> tuple[Summary, Summary, Summary]:
    """What the tab reads of a run: the columns, this run's values, and that it is finished.

    Args:
        settings: those of ``summary.json``.
    """
    run = FinishedRun(Path(), settings, {}, "")
    models = settings.get("models", {})
    eps = run.setting("eps")
    values = {
        **{name: run.setting(name) for name in _COLUMNS},
        "purifier": run.method,
        "eps (1/255)": None if eps is None else round(255 * eps, 4),
        "protocols": ", ".join(settings.get("protocols", ())),
        **{role: models[role]["source"] for role in ("denoiser", "classifier") if role in models},
    }
    columns, _, end = _summaries(dict(_COLUMNS), _METRICS)
    _, start, _ = _summaries({name: values[name] for name in _COLUMNS})
    return columns, start, end


def _summaries(
    values: dict[str, Any], metrics: Iterable[str] = ()
) -> tuple[Summary, Summary, Summary]:
    found: tuple[Summary, Summary, Summary] = summary.hparams(  # type: ignore[no-untyped-call]
        values, dict.fromkeys(metrics, 0.0)
    )
    return found
