"""Attacks on one defence beside each other."""

import csv
import io
import json
import math

import pytest

from lit_purify.records.runs import FinishedRun
from lit_purify.report.attacks import attacks_console, attacks_csv, compared_attacks
from lit_purify.report.comparison import ATTACKS
from lit_purify.report.terminal import print_whole

SETTINGS = {"sampler": "DDPMSampler", "t_star": 50, "images": 4, "eps": 2 / 255, "seed": 0}


def share(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 4}


def run(tmp_path, name, right, *, metric="fixed/robust_accuracy", more=None, **settings):
    """A run whose rows have a column of outcomes, of images 3, 5, 7 and 9."""
    folder = tmp_path / name
    (folder / "records").mkdir(parents=True)
    rows = [{"index": 3 + 2 * k, metric: value} for k, value in enumerate(right)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "records" / "rows.jsonl").write_text(lines)
    metrics = {metric: share(sum(right) / len(right))} | (more or {})
    return FinishedRun(folder, {**SETTINGS, "attack": name, **settings}, metrics, "1")


def test_the_difference_is_that_of_the_same_images(tmp_path):
    """Its interval is of the differences, far narrower than those of the two accuracies."""
    runs = [
        run(tmp_path, "PGD", [True, True, False, True]),
        run(tmp_path, "Other", [True, False, False, True]),
    ]
    (table,) = compared_attacks(runs)
    assert (table.defence, table.protocol) == ("DDPM, t* = 50, eps 2/255, 4 images", "fixed")
    first, other = table.rows
    assert (first.run, first.attack, first.less) == ("PGD", "PGD", None)
    assert first.accuracy.value == 0.75
    assert other.less.value == pytest.approx(-0.25)
    half = 1.959964 * math.sqrt(3 * 0.25**2 + 0.75**2) / math.sqrt(3) / 2
    assert other.less.low == pytest.approx(-0.25 - half, abs=1e-6)
    assert other.less.high == pytest.approx(-0.25 + half, abs=1e-6)


def test_each_protocol_has_a_table_of_the_runs_that_have_it(tmp_path):
    cost = {"fresh/attack_image_steps": {"value": 12.5}, "base/robust_accuracy": share(0.5)}
    fresh = {"metric": "fresh/robust_accuracy"}
    runs = [
        run(tmp_path, "A", [1, 1, 0, 0]),
        run(tmp_path, "B", [0.5, 1.0, 0.5, 0.0], more=cost, **fresh),
        run(tmp_path, "C", [0.5, 0.5, 0.0, 0.0], **fresh),
    ]
    (table,) = compared_attacks(runs)
    assert table.protocol == "fresh"
    assert [row.run for row in table.rows] == ["B", "C"]
    assert [row.image_steps for row in table.rows] == [12.5, None]
    assert table.rows[1].less.value == pytest.approx(-0.25)


def test_success_at_any_iteration_where_more_runs_have_it(tmp_path):
    late = "fixed/robust_accuracy_any_iteration"
    runs = [
        run(tmp_path, "A", [1, 0, 0, 0], more={late: share(0.2)}),
        run(tmp_path, "B", [1, 0, 0, 0], metric=late),
    ]
    (table,) = compared_attacks(runs)
    assert table.metric == late
    assert [row.accuracy.value for row in table.rows] == [0.2, 0.25]
    assert table.rows[1].less is None  # of the first run no rows say so


@pytest.mark.parametrize(
    "settings",
    [
        {"t_star": 100},
        {"eps": 8 / 255},
        {"data_sha256": "b"},
        {"seed": 1},
        {"models": {"classifier": {"sha256": "c"}}},
        {"purifier_options": {"averaged": 2}},
    ],
)
def test_other_defences_and_budgets_are_not_compared(tmp_path, settings):
    runs = [run(tmp_path, "A", [1, 0, 0, 0]), run(tmp_path, "B", [1, 0, 0, 0], **settings)]
    assert compared_attacks(runs) == []


def test_one_attack_is_no_comparison(tmp_path):
    runs = [run(tmp_path, name, [1, 0, 0, 0], attack="PGD") for name in ("a", "b")]
    assert compared_attacks(runs) == []
    runs.append(run(tmp_path, "c", [1, 0, 0, 0], attack="PGD", loss="margin"))
    (table,) = compared_attacks(runs)
    assert len(table.rows) == 3


def test_shown_and_written(tmp_path, capsys):
    rungs = {"pgd": {"steps": 3}, "square": {"queries": 9}}
    runs = [
        run(tmp_path, "first", [1, 1, 0, 1], attack="PGD"),
        run(tmp_path, "ladder", [1, 0, 0, 1], attack="Ladder", rungs=rungs),
    ]
    tables = compared_attacks(runs)
    print_whole(*attacks_console(tables))
    printed = capsys.readouterr().out
    for words in ("t* = 50", "Ladder: pgd", "75.0", "-25.0", "-74.0 to +24.0"):
        assert words in printed
    first, ladder = csv.DictReader(io.StringIO(attacks_csv(tables)))
    assert (first["run"], first["value"], first["less_value"]) == ("first", "0.75", "")
    assert (ladder["attack"], ladder["less_value"]) == ("Ladder: pgd, square", "-0.25")
    assert ladder["metric"] == "fixed/robust_accuracy"
    assert ATTACKS.endswith(".csv")
