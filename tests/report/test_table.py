import io
from typing import Any

from lit_purify.report.labels import OTHER, SECTIONS, sections
from rich.console import Console

from lit_purify.functional import wilson_interval
from lit_purify.report import summary_table


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
