"""Accuracies among the samples that have another property, from the rows of a run."""

import json

import pytest

from lit_purify.records.runs import FinishedRun, of_purified
from lit_purify.statistics import wilson_interval

ROBUST, CLEAN = "fixed/robust_accuracy", "purified/clean_accuracy"


def run(folder, rows):
    (folder / "records").mkdir()
    lines = (json.dumps({"index": i, **row}) for i, row in enumerate(rows))
    (folder / "records" / "rows.jsonl").write_text("\n".join(lines))
    return FinishedRun(folder, {}, {}, "")


def test_the_share_is_of_the_samples_that_have_the_condition(tmp_path):
    both = [(True, True), (True, True), (False, True), (True, False), (None, True)]
    found = run(tmp_path, [{ROBUST: robust, CLEAN: clean} for robust, clean in both])
    share = found.estimate(of_purified(ROBUST))
    assert share.value == pytest.approx(2 / 3)  # the fourth is wrong, the fifth was not attacked
    assert (share.low, share.high) == wilson_interval(2, 3)


@pytest.mark.parametrize("rows", [[{ROBUST: True, CLEAN: False}], [{CLEAN: True}], []])
def test_without_such_samples_there_is_none(rows, tmp_path):
    assert run(tmp_path, rows).estimate(of_purified(ROBUST)) is None


def test_what_is_no_share_has_none(tmp_path):
    rows = [{"attack/compression_rate": 0.4, CLEAN: True}]
    assert run(tmp_path, rows).estimate(of_purified("attack/compression_rate")) is None


def test_a_summary_alone_has_none(tmp_path):
    assert FinishedRun(tmp_path, {}, {}, "").estimate(of_purified(ROBUST)) is None
