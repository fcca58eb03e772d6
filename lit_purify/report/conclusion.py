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
        summary: as in ``summary.json``; its ``metrics`` may be any subset. Where its ``preflight``
            says that the purifier draws no noise, nothing is said about randomness.

    Returns:
        One or two sentences, or None where the numbers allow none.

    Example:
        >>> fresh = {"value": 0.52, "low": 0.45, "high": 0.59, "n": 200}
        >>> fixed = {"value": 0.06, "low": 0.03, "high": 0.10, "n": 200}
        >>> print(conclusion({"metrics": {"fresh/robust_accuracy": fresh,
        ...                               "fixed/robust_accuracy": fixed}}))
        With fresh noise the purified classifier is right on 52.0 % of the attacked images; once \
the attacker knows the noise, on only 6.0 %: 46.0 points of the robustness were randomness.
    """
    said = _said(summary)
    purified = any(f"{name}/robust_accuracy" in summary["metrics"] for name in ("fixed", "fresh"))
    if said and purified and summary.get("settings", {}).get("surrogate"):
        said += " The attacks on it followed a surrogate, so that it may be less robust than that."
    return said


def _said(summary: Mapping[str, Any]) -> str | None:
    metrics: Mapping[str, Mapping[str, Any]] = summary["metrics"]
    base, fixed, fresh, transfer = (
        _share(metrics, f"{name}/robust_accuracy")
        for name in ("base", "fixed", "fresh", "transfer")
    )
    if summary.get("preflight", {}).get("draws_noise") is False and (fixed or fresh):
        fixed = fixed or fresh
        first = (
            f"The purified classifier, which uses no noise, is right on {fixed} of the attacked"
            " images."
        )
    elif fixed is not None:
        if fresh is not None:
            first = _randomness(fresh, fixed)
        elif transfer is not None:
            first = _transfer(transfer, fixed)
        else:
            first = (
                f"When the attacker knows the noise the purified classifier is right on {fixed} of"
                " the attacked images."
            )
    elif fresh is not None and "fixed/robust_accuracy_any_iteration" not in metrics:
        return (
            f"With fresh noise the purified classifier is right on {fresh} of the attacked images;"
            " how much of that is randomness was not measured (no attack on fixed noise)."
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
            f"With fresh noise the purified classifier is right on {fresh} of the attacked images;"
            f" once the attacker knows the noise, on only {fixed}: {fresh.minus(fixed)} of the"
            " robustness were randomness."
        )
    if fixed.above(fresh):
        return (
            f"When the attacker knows the noise the purified classifier is right on {fixed} of the"
            f" attacked images, but with fresh noise on only {fresh}: no robustness came from"
            " randomness here, and the attack on the fixed noise was the weaker one."
        )
    return (
        f"The purified classifier is right on {fresh} of the attacked images with fresh noise, and"
        f" on {fixed} when the attacker knows the noise: the 95 % intervals overlap, so"
        f" {min(fresh.n, fixed.n)} samples do not show that randomness mattered."
    )


def _transfer(transfer: _Share, fixed: _Share) -> str:
    start = (
        f"When the attacker knows the noise the purified classifier is right on {fixed} of the"
        f" attacked images; under another noise it is right on {transfer} of the same images"
    )
    if transfer.above(fixed):
        return f"{start}: knowing the noise is worth {transfer.minus(fixed)} to the attacker."
    if fixed.above(transfer):
        return f"{start}: not knowing the noise made the attack no weaker."
    return (
        f"{start}: the 95 % intervals overlap, so {min(transfer.n, fixed.n)} samples do not show"
        " that knowing the noise mattered."
    )


def _gain(fixed: _Share, base: _Share) -> str:
    alone = f"The classifier alone, attacked, is right on {base}"
    if fixed.above(base):
        return f"{alone}: purification itself is worth {fixed.minus(base)}."
    if base.above(fixed):
        return f"{alone}: under this attack purification does harm."
    return f"{alone}: too close to tell whether purification itself adds any robustness."


def _share(metrics: Mapping[str, Mapping[str, Any]], name: str) -> _Share | None:
    """An accuracy; ``None`` where it is unknown."""
    entry = metrics.get(name, {})
    numbers = [entry.get(key) for key in ("value", "low", "high", "n")]
    return None if None in numbers or not entry["n"] else _Share(*numbers)  # type: ignore[arg-type]
