import io
from typing import Any

import pytest
from lit_purify.report.labels import OTHER, SECTIONS, sections
from rich.console import Console

from lit_purify.functional import wilson_interval
from lit_purify.report import finding, summary_table


def share(successes: int, n: int = 200) -> dict[str, float]:
    low, high = wilson_interval(successes, n)
    return {"value": successes / n, "low": low, "high": high, "n": n}


def summary(status: str = "finished", **metrics: Any) -> dict[str, Any]:
    named = {f"{name}/robust_accuracy": entry for name, entry in metrics.items()}
    return {"status": status, "versions": {}, "settings": {}, "metrics": named}


def printed(content: dict[str, Any]) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(summary_table(content))
    return console.export_text()


def test_rows_are_in_human_words_and_percent() -> None:
    text = printed(summary(base=share(0), fixed=share(12), fresh=share(104)))
    row = next(line for line in text.splitlines() if "attacker knows the noise" in line)
    assert "6.0 %" in row
    assert "3.5 to 10.2" in row
    assert "200" in row
    assert "robust_accuracy" not in text
    assert "Status" not in text


def test_rates_unknown_names_and_missing_values() -> None:
    content = summary("interrupted")
    content["metrics"] = {
        "uniform/compression_rate": {"value": 0.15, "low": 0.1496, "high": 0.1504, "n": 10},
        "attack/compression_rate": {"value": None, "low": None, "high": None, "n": 0},
        "base/clean_accuracy": {"value": None, "low": 0.0, "high": 1.0, "n": 0},
        "my/[red]number": {"value": 768},
    }
    text = printed(content)
    assert "0.150 to 0.150" in text
    assert "768 " in text
    assert "my/[red]number" in text
    assert "0.0 to 100.0" not in text
    assert "interrupted" in text


def test_an_empty_summary_is_a_table() -> None:
    assert "Measurement" in printed(summary())


def test_labels_are_whole_when_their_head_is_absent() -> None:
    found = sections(["attack/compression_rate_robust", "transfer/robust_accuracy"])
    assert [label for rows in found.values() for label in rows.values()] == [
        "Purified, attacked: tested under other noise (transfer)",
        "Attack perturbations, where the attack failed",
    ]


def test_every_known_metric_has_a_section() -> None:
    names = [name.replace("*", "1") for rows in SECTIONS.values() for name in rows]
    assert len(names) == len(set(names))
    assert OTHER not in sections(names)


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
def test_the_finding_follows_the_numbers(metrics: dict[str, Any], parts: list[str]) -> None:
    text = finding(summary(**metrics))
    assert text is not None
    for part in parts:
        assert part in text
    assert text.count(". ") <= 1


def test_the_printed_points_are_the_difference_of_the_printed_shares() -> None:
    # 51.5 - 6.5 is 45, but rounded to even the reader sees 52 and 6.
    text = finding(summary(fresh=share(103), fixed=share(13)))
    assert text is not None
    assert "52 %" in text
    assert "6 %" in text
    assert "46 points" in text


def test_base_alone_and_nothing() -> None:
    content = summary(base=share(0))
    assert finding(content) is None
    content["metrics"]["base/clean_accuracy"] = share(188)
    assert finding(content) == (
        "The classifier alone is right on 94 % of the clean images and on 0 % of the attacked ones."
    )
    empty = {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    assert finding(summary(fixed=empty, fresh=share(3))) == finding(summary(fresh=share(3)))
    assert finding(summary()) is None
