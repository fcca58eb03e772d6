"""Attacks on one defence beside each other."""

import csv
import io
import json

import pytest

from lit_purify.records import versions, write_summary
from lit_purify.records.runs import FinishedRun
from lit_purify.report.attacks import attacks_console, attacks_csv, compared_attacks
from lit_purify.report.comparison import ATTACKS, report
from lit_purify.report.terminal import print_whole
from lit_purify.statistics import paired_interval

SETTINGS = {
    **{"sampler": "DDPMSampler", "t_star": 50, "num_steps": 5, "seed": 0, "test_draws": 1},
    **{"images": 4, "data_sha256": "a", "eps": 2 / 255, "norm": "Linf"},
}
FIXED, ANY = "fixed/robust_accuracy", "fixed/robust_accuracy_any_iteration"


def share(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 4}


def run(tmp_path, name, right, *, metric=FIXED, more=None, **settings):
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
    assert table.defence == "DDPM, t* = 50 in 5 steps, eps 2/255, 4 images"
    assert (table.protocol, table.metric) == ("fixed", FIXED)
    first, other = table.rows
    assert (first.run, first.attack, first.difference, first.pairs) == ("PGD", "PGD", None, 0)
    assert first.accuracy.value == 0.75
    assert other.difference == (-0.25, *paired_interval([0, -1, 0, 0]))
    assert other.pairs == 4


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
    assert table.rows[1].difference.value == pytest.approx(-0.25)


def test_success_at_any_iteration_has_a_table_where_it_is_another(tmp_path):
    runs = [run(tmp_path, name, [1, 0, 0, 0], more={ANY: share(0.2)}) for name in ("A", "B")]
    assert [table.metric for table in compared_attacks(runs)] == [FIXED, ANY]
    same = []
    for name in ("C", "D"):
        same.append(run(tmp_path, name, [1, 0, 0, 0], more={ANY: share(0.25)}))
        rows = ({"index": k, FIXED: k == 0, ANY: k == 0} for k in range(4))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (same[-1].folder / "records" / "rows.jsonl").write_text(text)
    assert [table.metric for table in compared_attacks(same)] == [FIXED]


def test_differences_are_to_the_first_that_has_rows_over_the_images_of_both(tmp_path):
    bare = run(tmp_path, "bare", [1, 1, 1, 1])
    (bare.folder / "records" / "rows.jsonl").unlink()
    runs = [bare, run(tmp_path, "A", [1, 1, 0, 0]), run(tmp_path, "B", [0, 1])]
    (table,) = compared_attacks(runs)
    assert [row.pairs for row in table.rows] == [0, 0, 2]
    assert [row.difference and row.difference.value for row in table.rows] == [None, None, -0.5]


@pytest.mark.parametrize(
    "settings",
    [
        {"t_star": 100},
        {"num_steps": 10},
        {"eps": 8 / 255},
        {"norm": "L2"},
        {"threat_model": "feature_l2 of x"},
        {"norm": None, "rungs": {"pgd": {"norm": "L2"}}},
        {"data_sha256": "b"},
        {"images": 5},
        {"seed": 1},
        {"precision": "bf16-mixed"},
        {"tf32": True},
        {"denoiser_label": "predicted"},
        {"models": {"classifier": {"sha256": "c"}}},
        {"models": {"denoiser": {"sha256": "c"}}},
        {"purifier_options": {"averaged": 2}},
    ],
)
def test_other_defences_and_budgets_are_not_compared(tmp_path, settings):
    usual = {
        **{"precision": "32-true", "tf32": False, "denoiser_label": "none given"},
        **{"purifier_options": {}},
        "models": {"classifier": {"sha256": "a"}, "denoiser": {"sha256": "a"}},
    }
    runs = [run(tmp_path, "A", [1, 0, 0, 0], **usual)]
    runs.append(run(tmp_path, "B", [1, 0, 0, 0], **(usual | settings)))
    assert compared_attacks(runs) == []


def test_the_classifier_alone_has_no_purifier_and_no_draws(tmp_path):
    base = {"metric": "base/robust_accuracy"}
    runs = [run(tmp_path, "A", [1, 0, 0, 0], **base)]
    runs.append(run(tmp_path, "B", [1, 0, 0, 0], t_star=100, test_draws=10, **base))
    (table,) = compared_attacks(runs)
    assert table.defence == "Classifier alone, eps 2/255, 4 images"


def test_draws_of_the_test_matter_where_they_judge(tmp_path):
    for metric, tables in ((FIXED, 1), ("fresh/robust_accuracy", 0)):
        runs = [
            run(tmp_path / metric, str(n), [1, 0, 0, 0], metric=metric, test_draws=n)
            for n in (1, 10)
        ]
        assert len(compared_attacks(runs)) == tables


def test_one_attack_is_no_comparison(tmp_path):
    """An old run does not say what was the only way then."""
    runs = [run(tmp_path, name, [1, 0, 0, 0], attack="PGD") for name in ("a", "b")]
    runs.append(run(tmp_path, "c", [1, 0, 0, 0], attack="PGD", norm=None, loss="cross_entropy"))
    assert compared_attacks(runs) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "margin"}, "PGD (loss margin)"),
        ({"draws": 5}, "PGD (draws 5)"),
        ({"early_stop": True}, "PGD (early stop True)"),
        ({"attack_precision": "bf16"}, "PGD (attack precision bf16)"),
        ({"surrogate": {"sampler": "DDIMSampler"}}, "PGD (surrogate DDIMSampler)"),
        ({"kernels": [3]}, "PGD (kernels [3])"),
    ],
)
def test_what_tells_attacks_of_one_class_apart(tmp_path, settings, words):
    runs = [run(tmp_path, "a", [1, 0, 0, 0], attack="PGD")]
    runs.append(run(tmp_path, "b", [1, 0, 0, 0], attack="PGD", **settings))
    (table,) = compared_attacks(runs)
    assert table.rows[1].attack == words
    assert table.rows[0].attack != words


def test_tables_of_one_name_are_numbered(tmp_path):
    runs = [
        run(tmp_path, f"{name}{seed}", [1, 0, 0, 0], attack=name, seed=seed)
        for seed in (0, 1)
        for name in ("A", "B")
    ]
    first, second = compared_attacks(runs)
    assert first.defence == second.defence.replace("(2)", "(1)")
    assert first.defence.endswith("(1)")
    assert [row.run for row in second.rows] == ["A1", "B1"]


def test_what_a_summary_does_not_say_is_left_out_of_the_title(tmp_path):
    nothing = {"eps": None, "t_star": None, "images": None, "sampler": None, "purifier": "Mine"}
    runs = [run(tmp_path, name, [1, 0, 0, 0], **nothing) for name in ("A", "B")]
    (table,) = compared_attacks(runs)
    assert table.defence == "Mine"


def test_shown_and_written(tmp_path, capsys):
    rungs = {"pgd": {"steps": 3}, "square": {"queries": 9}}
    runs = [
        run(tmp_path, "first", [1, 1, 0, 1], attack="PGD"),
        run(tmp_path, "ladder", [1, 0, 0, 1], attack="Ladder", rungs=rungs),
    ]
    tables = compared_attacks(runs)
    print_whole(*attacks_console(tables))
    printed = capsys.readouterr().out
    for words in ("t* = 50", "Ladder: pgd", "75.0", "-25.0", "-69.9 to +36.2"):
        assert words in printed
    first, ladder = csv.DictReader(io.StringIO(attacks_csv(tables)))
    assert (first["run"], first["value"], first["difference_value"]) == ("first", "0.75", "")
    assert (ladder["attack"], ladder["difference_value"]) == ("Ladder: pgd, square", "-0.25")
    assert (ladder["metric"], ladder["pairs"]) == (FIXED, "4")


def test_a_report_writes_them_and_takes_old_ones_away(tmp_path, capsys):
    folders = []
    for name in ("A", "B"):
        made = run(tmp_path, name, [1, 0, 0, 0], more={"uniform/compression_rate": share(0.3)})
        summary = {"status": "finished", "versions": versions(), "settings": made.settings}
        write_summary(made.folder / "summary.json", summary | {"metrics": made.metrics})
        folders.append(made.folder)
    written = report(folders, tmp_path / "out") / ATTACKS
    assert {row["run"] for row in csv.DictReader(written.open())} == {"A", "B"}
    assert "minus the" in capsys.readouterr().out
    report(folders[:1], tmp_path / "out")
    assert not written.exists()
