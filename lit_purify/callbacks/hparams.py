"""The tab HParams of TensorBoard: what decides a run, beside its main metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import summary

from lit_purify.records.runs import FinishedRun

_COLUMNS: dict[str, str | float] = {
    "attack": "",
    "depth t*": 0,
    "eps (1/255)": 0,
    "purifier": "",
    "seed": 0,
    "steps (attack)": 0,
    "steps (chain)": 0,
    "test images": 0,
    "test protocols": "",
    "weights of classifier": "",
    "weights of denoiser": "",
}
"""Column -> a value of its type. TensorBoard takes the columns of all runs from one of them, in
alphabetical order, and shows the first five until it is told otherwise."""
_METRICS = (
    *("purified/clean_accuracy", "base/robust_accuracy", "fixed/robust_accuracy"),
    *("fresh/robust_accuracy", "uniform/compression_rate", "attack/compression_rate"),
    *("base/clean_accuracy", "transfer/robust_accuracy", "blind/robust_accuracy"),
    *("base/robust_accuracy_any_iteration", "fixed/robust_accuracy_any_iteration"),
)
"""The first five are shown likewise."""


def hparams(settings: Mapping[str, Any]) -> tuple[Summary, Summary, Summary]:
    """What the tab reads of a run: the columns, this run's values, and that it is finished.

    Args:
        settings: those of ``summary.json``.
    """
    run = FinishedRun(Path(), settings, {}, "")
    attack, eps, draws = (run.setting(name) for name in ("attack", "eps", "draws"))
    words = [
        attack,
        f"{draws} draws" if draws else "",
        "surrogate" if run.setting("surrogate") else "",
    ]
    values = {
        "attack": ", ".join(filter(None, words)) if attack else attack,
        "depth t*": run.setting("t_star"),
        "eps (1/255)": None if eps is None else round(255 * eps, 4),
        "purifier": run.method,
        "seed": run.setting("seed"),
        "steps (attack)": run.setting("steps"),
        "steps (chain)": run.setting("num_steps"),
        "test images": run.setting("images"),
        "test protocols": ", ".join(settings.get("protocols", ())),
        **{f"weights of {role}": model["source"] for role, model in settings["models"].items()},
    }
    columns, _, end = _summaries(dict(_COLUMNS), _METRICS)
    _, start, _ = _summaries({name: values.get(name) for name in _COLUMNS})
    return columns, start, end


def _summaries(
    values: dict[str, Any], metrics: Iterable[str] = ()
) -> tuple[Summary, Summary, Summary]:
    found: tuple[Summary, Summary, Summary] = summary.hparams(  # type: ignore[no-untyped-call]
        values, dict.fromkeys(metrics, 0.0)
    )
    return found
