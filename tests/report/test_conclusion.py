"""The sentence says what the numbers allow, and no more."""

from typing import Any

import pytest

from lit_purify.functional import wilson_interval
from lit_purify.report import conclusion


def share(successes: int, n: int = 200) -> dict[str, float]:
    low, high = wilson_interval(successes, n)
    return {"value": successes / n, "low": low, "high": high, "n": n}


def summary(**metrics: Any) -> dict[str, Any]:
    return {"metrics": {f"{name}/robust_accuracy": entry for name, entry in metrics.items()}}


@pytest.mark.parametrize(
    ("metrics", "parts"),
    [
        (
            {"fresh": share(104), "fixed": share(12)},
            ["keeps 52 %", "only 6 % remain", "46 points of the robustness were randomness"],
        ),
        (
            {"fresh": share(12), "fixed": share(104)},
            [
                "keeps 52 % when the attacker knows",
                "only 6 % with fresh",
                "no robustness came from",
            ],
        ),
        (
            {"fresh": share(30), "fixed": share(28)},
            ["15 %", "14 %", "intervals overlap", "200 samples do not show"],
        ),
        (
            {"fresh": share(700, 1000), "fixed": share(237, 1000), "base": share(0, 1000)},
            ["70.0 %", "23.7 %", "46.3 points", "alone keeps 0.0 %", "worth 23.7 points"],
        ),
        ({"fixed": share(12), "base": share(11)}, ["keeps 6 %", "too close to tell"]),
        ({"fixed": share(2), "base": share(50)}, ["does harm"]),
        ({"fixed": share(12), "transfer": share(80)}, ["34 points hang on knowing"]),
        ({"fixed": share(80), "transfer": share(12)}, ["no weaker"]),
        ({"fixed": share(12), "transfer": share(13)}, ["intervals overlap"]),
        ({"fresh": share(104)}, ["keeps 52 %", "was not measured"]),
    ],
)
def test_it_follows_the_numbers(metrics: dict[str, Any], parts: list[str]) -> None:
    text = conclusion(summary(**metrics))
    assert text is not None
    for part in parts:
        assert part in text
    assert text.count(". ") <= 1


def test_the_printed_points_are_the_difference_of_the_printed_shares() -> None:
    # 51.5 - 6.5 is 45, but rounded to even the reader sees 52 and 6.
    text = conclusion(summary(fresh=share(103), fixed=share(13)))
    assert text is not None
    assert "52 %" in text
    assert "6 %" in text
    assert "46 points" in text


def test_base_alone_and_nothing() -> None:
    content = summary(base=share(0))
    assert conclusion(content) is None
    content["metrics"]["base/clean_accuracy"] = share(188)
    assert conclusion(content) == (
        "The classifier alone is right on 94 % of the clean images and on 0 % of the attacked ones."
    )
    empty = {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    assert conclusion(summary(fixed=empty, fresh=share(3))) == conclusion(summary(fresh=share(3)))
    assert conclusion(summary()) is None
