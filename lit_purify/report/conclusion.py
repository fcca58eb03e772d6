"""The main result of a run in one or two sentences, worked out from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lit_purify.report.numbers import percent


class _Share(NamedTuple):
    """An accuracy with its interval, in [0, 1]."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{percent(self.value)} %"

    def above(self, other: _Share) -> bool:
        """Whether this one is larger and the intervals do not overlap."""
        return self.low > other.high

    def minus(self, other: _Share) -> str:
        """The difference of the two percentages as printed, so that a reader's sum agrees."""
        return f"{float(percent(self.value)) - float(percent(other.value)):.1f} points"


def conclusion(summary: Mapping[str, Any]) -> str | None:
    """What the run says about robustness and randomness, for a person who has not read the paper.

    A difference is only claimed where the 95 % intervals do not overlap; otherwise the sentence
    says that they do.

    Args:
        summary: as in ``summary.json``; its ``metrics`` may be any subset.

    Returns:
        One or two sentences, or None where the numbers allow none.

    Example:
        >>> fresh = {"value": 0.52, "low": 0.45, "high": 0.59, "n": 200}
        >>> fixed = {"value": 0.06, "low": 0.03, "high": 0.10, "n": 200}
        >>> print(conclusion({"metrics": {"fresh/robust_accuracy": fresh,
        ...                               "fixed/robust_accuracy": fixed}}))
        With fresh noise the purified classifier keeps 52.0 % under attack; once the attacker \
knows the noise only 6.0 % remain: 46.0 points of the robustness were randomness.
    """
    metrics: Mapping[str, Mapping[str, Any]] = summary["metrics"]
    base, fixed, fresh, transfer = (
        _share(metrics, f"{name}/robust_accuracy")
        for name in ("base", "fixed", "fresh", "transfer")
    )
    if metrics.get("purified/without_noise", {}).get("value") == 1 and (fixed or fresh):
        first = f"Under attack the purified classifier keeps {fixed or fresh}; it uses no noise."
        fixed = fixed or fresh
    elif fixed is not None:
        if fresh is not None:
            first = _randomness(fresh, fixed)
        elif transfer is not None:
            first = _transfer(transfer, fixed)
        else:
            first = (
                f"Against an attacker who knows the noise the purified classifier keeps {fixed}."
            )
    elif fresh is not None and "fixed/robust_accuracy_any_iteration" not in metrics:
        return (
            f"With fresh noise the purified classifier keeps {fresh} under attack; how much of that"
            " is randomness was not measured (no attack on fixed noise)."
        )
    if fixed is not None:
        return first if base is None else f"{first} {_gain(fixed, base)}"
    clean = _share(metrics, "base/clean_accuracy")
    if base is not None and clean is not None:
        return (
            f"The classifier alone is right on {clean} of the clean images and on {base} of the"
            " attacked ones."
        )
    return None


def _randomness(fresh: _Share, fixed: _Share) -> str:
    if fresh.above(fixed):
        return (
            f"With fresh noise the purified classifier keeps {fresh} under attack; once the"
            f" attacker knows the noise only {fixed} remain: {fresh.minus(fixed)} of the robustness"
            " were randomness."
        )
    if fixed.above(fresh):
        return (
            f"The purified classifier keeps {fixed} when the attacker knows the noise but only"
            f" {fresh} with fresh noise: no robustness came from randomness here, and the attack on"
            " the fixed noise was the weaker one."
        )
    return (
        f"Under attack the purified classifier keeps {fresh} with fresh noise and {fixed} when the"
        f" attacker knows the noise: the 95 % intervals overlap, so {min(fresh.n, fixed.n)} samples"
        " do not show that randomness mattered."
    )


def _transfer(transfer: _Share, fixed: _Share) -> str:
    start = (
        f"When the attacker knows the noise the purified classifier keeps {fixed}; under another"
        f" noise the same attacked images leave {transfer}"
    )
    if transfer.above(fixed):
        return f"{start}: {transfer.minus(fixed)} hang on knowing the noise."
    if fixed.above(transfer):
        return f"{start}: not knowing the noise made the attack no weaker."
    return (
        f"{start}: the 95 % intervals overlap, so {min(transfer.n, fixed.n)} samples do not show"
        " that knowing the noise mattered."
    )


def _gain(fixed: _Share, base: _Share) -> str:
    alone = f"The classifier alone keeps {base}"
    if fixed.above(base):
        return f"{alone}, so purification itself is worth {fixed.minus(base)}."
    if base.above(fixed):
        return f"{alone}, so under this attack purification does harm."
    return f"{alone}, too close to tell whether purification itself adds any robustness."


def _share(metrics: Mapping[str, Mapping[str, Any]], name: str) -> _Share | None:
    """An accuracy; ``None`` where it is unknown."""
    entry = metrics.get(name, {})
    numbers = [entry.get(key) for key in ("value", "low", "high", "n")]
    return None if None in numbers or not entry["n"] else _Share(*numbers)  # type: ignore[arg-type]
