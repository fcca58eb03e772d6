import io
from typing import Any

from rich.console import Console

from lit_purify.functional import wilson_interval
from lit_purify.report import summary_table
from lit_purify.types import ACCURACY, NOTED, OTHER


def share(successes: int, n: int = 200) -> dict[str, float]:
    low, high = wilson_interval(successes, n)
    return {"value": successes / n, "low": low, "high": high, "n": n}


def shown(section: str, label: str, unit: str = "") -> dict[str, str]:
    return {"section": section, "label": label, "unit": unit}


def printed(content: dict[str, Any]) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(summary_table(content))
    return console.export_text()


def test_sections_labels_and_units_are_those_registered() -> None:
    metrics = {
        "fixed/robust_accuracy": share(12),
        "light/mean": {"value": 0.15, "low": 0.1496, "high": 0.1504, "n": 10},
        "fixed/attack_flag": share(0),
        "base/attack_flag": share(3),
        "my/[red]number": {"value": 768},
        "light/none": {"value": None, "low": 0.0, "high": 1.0, "n": 0},
        "base/clean_accuracy": share(188),
    }
    labels = {
        "fixed/robust_accuracy": shown(ACCURACY, "[b]Attacked[/b]", "%"),
        "base/clean_accuracy": shown(ACCURACY, "Clean", "%"),
        "light/mean": shown("Light", "Brightness", "nit"),
        "light/none": shown("Light", "Darkness"),
        "fixed/attack_flag": shown(NOTED, "Flag of none", "%"),
        "base/attack_flag": shown(NOTED, "Flag of some", "%"),
    }
    lines = [
        line.strip(" │")
        for line in printed({"metrics": metrics, "labels": labels}).splitlines()
        if "│" in line
    ]
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


def test_a_long_label_stays_indented() -> None:
    metrics = {"light/mean": {"value": 1.0}}
    labels = {"light/mean": shown("Light", "Brightness " * 20)}
    text = printed({"metrics": metrics, "labels": labels})
    rows = [line for line in text.splitlines() if "Brightness" in line]
    assert len(rows) > 1
    assert all(row.startswith("│   Brightness") for row in rows)
