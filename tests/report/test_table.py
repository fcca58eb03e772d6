import io
from typing import Any

import pytest
from rich.console import Console

from lit_purify.functional import wilson_interval
from lit_purify.metrics import ACCURACY, NOTED, OTHER
from lit_purify.report import finding, summary_table


def share(successes: int, n: int = 200) -> dict[str, float]:
    low, high = wilson_interval(successes, n)
    return {"value": successes / n, "low": low, "high": high, "n": n}


def summary(status: str = "finished", **metrics: Any) -> dict[str, Any]:
    named = {f"{name}/robust_accuracy": entry for name, entry in metrics.items()}
    return {"status": status, "versions": {}, "settings": {}, "metrics": named}


def shown(section: str, label: str, unit: str = "") -> dict[str, str]:
    return {"section": section, "label": label, "unit": unit}


def printed(content: dict[str, Any]) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(summary_table(content))
    return console.export_text()


def test_sections_labels_and_units_are_those_registered() -> None:
    content = summary(fixed=share(12))
    content["metrics"] |= {
        "light/mean": {"value": 0.15, "low": 0.1496, "high": 0.1504, "n": 10},
        "fixed/attack_flag": share(0),
        "base/attack_flag": share(3),
        "my/[red]number": {"value": 768},
        "light/none": {"value": None, "low": 0.0, "high": 1.0, "n": 0},
        "base/clean_accuracy": share(188),
    }
    content["labels"] = {
        "fixed/robust_accuracy": shown(ACCURACY, "[b]Attacked[/b]", "%"),
        "base/clean_accuracy": shown(ACCURACY, "Clean", "%"),
        "light/mean": shown("Light", "Brightness", "nit"),
        "light/none": shown("Light", "Darkness"),
        "fixed/attack_flag": shown(NOTED, "Flag of none", "%"),
        "base/attack_flag": shown(NOTED, "Flag of some", "%"),
    }
    lines = [line.strip(" │") for line in printed(content).splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line.split("│")] for line in lines]
    assert [row for row in cells if len(row) > 1] == [
        ["[b]Attacked[/b]", "6.0 %", "3.5 to 10.2", "200"],
        ["Clean", "94.0 %", "89.8 to 96.5", "200"],
        ["Brightness", "0.150 nit", "0.150 to 0.150", "10"],
        ["Darkness", "-", "-", "0"],
        ["Flag of some", "1.5 %", "0.5 to 4.3", "200"],
        ["my/[red]number", "768", "-", "-"],
    ]
    # A section is where its first metric was registered; what the attack noted of none is left out.
    assert [row[0] for row in cells if len(row) == 1] == [ACCURACY, "Light", NOTED, OTHER]


def test_a_status_is_told_unless_finished() -> None:
    assert "Status" not in printed(summary())
    assert "interrupted" in printed(summary("interrupted"))


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
