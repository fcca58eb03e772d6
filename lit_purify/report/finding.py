"""The main result of a run in one or two sentences, worked out from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Share:
    """An accuracy with its interval, in [0, 1]."""

    value: float
    low: float
    high: float
    n: int

    def above(self, other: _Share) -> bool:
        """Whether this one is larger and the intervals do not overlap."""
        return self.low > other.high

    def apart(self, other: _Share) -> bool:
        return self.above(other) or other.above(self)


def finding(summary: Mapping[str, Any]) -> str | None:
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
        >>> print(finding({"metrics": {"fresh/robust_accuracy": fresh,
        ...                            "fixed/robust_accuracy": fixed}}))
        With fresh noise the purified classifier keeps 52 % under attack; once the attacker knows \
the noise only 6 % remain: 46 points of the robustness were randomness.
    """
    metrics: Mapping[str, Mapping[str, Any]] = summary["metrics"]
    base = _share(metrics, "base/robust_accuracy")
    fixed = _share(metrics, "fixed/robust_accuracy")
    fresh = _share(metrics, "fresh/robust_accuracy")
    transfer = _share(metrics, "transfer/robust_accuracy")
    digits = _digits(base, fixed, fresh, transfer)
    if fixed is not None:
        if fresh is not None:
            first = _randomness(fresh, fixed, digits)
        elif transfer is not None:
            first = _transfer(transfer, fixed, digits)
        else:
            known = f"the purified classifier keeps {_percent(fixed, digits)}"
            first = f"Against an attacker who knows the noise {known}."
        return first if base is None else f"{first} {_gain(fixed, base, digits)}"
    if fresh is not None and "fixed/robust_accuracy_any_iteration" not in metrics:
        first = f"With fresh noise the purified classifier keeps {_percent(fresh, digits)} under"
        missing = "how much of that is randomness was not measured (no attack on fixed noise)"
        return f"{first} attack; {missing}."
    clean = _share(metrics, "base/clean_accuracy")
    if base is not None and clean is not None:
        digits = _digits(base, clean)
        return (
            f"The classifier alone is right on {_percent(clean, digits)} of the clean images and on"
            f" {_percent(base, digits)} of the attacked ones."
        )
    return None


def _randomness(fresh: _Share, fixed: _Share, digits: int) -> str:
    if fresh.above(fixed):
        return (
            f"With fresh noise the purified classifier keeps {_percent(fresh, digits)} under"
            f" attack; once the attacker knows the noise only {_percent(fixed, digits)} remain:"
            f" {_points(fresh, fixed, digits)} of the robustness were randomness."
        )
    if fixed.above(fresh):
        return (
            f"The purified classifier keeps {_percent(fixed, digits)} when the attacker knows the"
            f" noise but only {_percent(fresh, digits)} with fresh noise: no robustness came from"
            " randomness here, and the attack on the fixed noise was the weaker one."
        )
    return (
        f"Under attack the purified classifier keeps {_percent(fresh, digits)} with fresh noise and"
        f" {_percent(fixed, digits)} when the attacker knows the noise: the 95 % intervals overlap,"
        f" so {_samples(fresh, fixed)} do not show that randomness mattered."
    )


def _transfer(transfer: _Share, fixed: _Share, digits: int) -> str:
    start = (
        f"When the attacker knows the noise the purified classifier keeps {_percent(fixed, digits)}"
        f"; under another noise the same attacked images leave {_percent(transfer, digits)}"
    )
    if transfer.above(fixed):
        return f"{start}: {_points(transfer, fixed, digits)} hang on knowing the noise."
    if fixed.above(transfer):
        return f"{start}: not knowing the noise made the attack no weaker."
    return (
        f"{start}: the 95 % intervals overlap, so {_samples(transfer, fixed)} do not show that"
        " knowing the noise mattered."
    )


def _gain(fixed: _Share, base: _Share, digits: int) -> str:
    alone = f"The classifier alone keeps {_percent(base, digits)}"
    if fixed.above(base):
        return f"{alone}, so purification itself is worth {_points(fixed, base, digits)}."
    if base.above(fixed):
        return f"{alone}, so against a known noise purification does harm."
    return f"{alone}, too close to tell whether purification itself adds any robustness."


def _share(metrics: Mapping[str, Mapping[str, Any]], name: str) -> _Share | None:
    entry = metrics.get(name, {})
    numbers = [entry.get(key) for key in ("value", "low", "high", "n")]
    if any(number is None for number in numbers):
        return None
    value, low, high, n = numbers
    return _Share(float(value), float(low), float(high), int(n)) if n else None  # type: ignore[arg-type]


def _digits(*shares: _Share | None) -> int:
    """Decimals of the percentages: one where a thousand samples carry it."""
    return int(min((share.n for share in shares if share is not None), default=0) >= 1000)


def _rounded(share: _Share, digits: int) -> float:
    return round(100 * share.value, digits)


def _percent(share: _Share, digits: int) -> str:
    return f"{_rounded(share, digits):.{digits}f} %"


def _points(larger: _Share, smaller: _Share, digits: int) -> str:
    """The difference of the two percentages as printed, so that a reader's sum agrees."""
    difference = _rounded(larger, digits) - _rounded(smaller, digits)
    return f"{difference:.{digits}f} points"


def _samples(a: _Share, b: _Share) -> str:
    return f"{min(a.n, b.n)} samples"
