"""What a run tells of a ladder: who broke what, at what cost, and what was not run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measured_run import MeasuredRun, measured_run
from tiny import Failing, same_row

from lit_purify.attacks import BPDA, PGD, Ladder, Uniform
from lit_purify.records.runs import read_runs
from lit_purify.report.page.facts import run_facts

BUDGET = 4
PROTOCOLS = ("base", "fixed", "fresh")
RUNGS = ("uniform", "bpda", "pgd")


def ladder() -> Ladder:
    return Ladder(
        eps="2/255",
        rungs={
            "uniform": Uniform(eps=1.0),
            "bpda": BPDA(steps=4, rel_stepsize=0.3),
            "pgd": PGD(steps=5, rel_stepsize=0.3),
        },
        budget=BUDGET,
        selection_draws=3,
    )


@pytest.fixture(scope="module")
def run(npz: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def run(folder: Any = None, *, at: int | None = None, **options: Any) -> MeasuredRun:
        folder = folder or tmp_path_factory.mktemp("run")
        return measured_run(
            folder, npz, Failing(at), protocols=PROTOCOLS, attack=ladder(), **options
        )

    return run


@pytest.fixture(scope="module")
def whole(run: Any) -> MeasuredRun:
    return run()


def column(whole: MeasuredRun, name: str) -> dict[int, float]:
    return {row["index"]: row[name] for row in whole.rows if name in row}


@pytest.mark.parametrize("surface", ["base", "fixed"])
def test_what_was_broken_is_what_does_not_stand(whole: MeasuredRun, surface: str) -> None:
    robust = column(whole, f"{surface}/robust_accuracy")
    unattacked = column(whole, f"{surface}/attack_wrong_unattacked")
    broken = {index for index, wrong in unattacked.items() if wrong}
    for name in RUNGS:
        found = column(whole, f"{surface}/attack_broken_by_{name}")
        assert broken.isdisjoint(found)
        metric = whole.metrics[f"{surface}/attack_broken_by_{name}"]
        assert metric["n"] == len(found)
        assert metric["value"] == (sum(found.values()) / len(found) if found else None)
        broken |= {index for index, fell in found.items() if fell}
    assert broken == {index for index, right in robust.items() if not right}
    assert 0 < len(broken) < 7
    label = whole.summary["labels"][f"{surface}/attack_broken_by_pgd"]
    assert label["section"] == "Ladder of attacks"


def test_the_cost_is_counted_and_timed(whole: MeasuredRun) -> None:
    for surface, clean in (("base", 1 / 3), ("fixed", 1 / 3), ("fresh", 3 / 3)):
        total = column(whole, f"{surface}/attack_image_steps")
        parts = [column(whole, f"{surface}/attack_image_steps_{name}") for name in RUNGS]
        for index, spent in total.items():
            known = sum(part.get(index, 0.0) for part in parts)
            assert spent == pytest.approx(clean + known)
        assert whole.metrics[f"{surface}/attack_image_steps"]["n"] == 7
    seconds = whole.header["sessions"][-1]["attack_seconds_per_image"]
    assert {"fixed/uniform", "fixed/bpda", "fresh/bpda"} <= seconds.keys()
    assert all(value > 0 for value in seconds.values())
    (finished,), _ = read_runs([whole.folder])
    told = run_facts(finished, "the run")
    assert "fixed/bpda 0." in told.sessions[-1]["attack_seconds_per_image"]
    labels = [row[0] for row in told.sections["Ladder of attacks"]]
    assert "Purified (fixed): broken by bpda" in labels


def test_what_was_not_run_is_said(whole: MeasuredRun) -> None:
    assert whole.settings["budget"] == BUDGET
    assert [*whole.settings["rungs"]] == [*RUNGS]
    not_run = column(whole, "fixed/attack_not_run_pgd")
    robust = column(whole, "fixed/robust_accuracy")
    # What two rungs left standing has cost more than the budget.
    assert not_run == robust
    assert 0 < sum(not_run.values()) < 7
    (flag,) = [flag for flag in whole.summary["flags"] if "On fixed the budget" in flag]
    assert "and pgd did not run" in flag


def test_neither_batches_nor_a_stop_change_it(run: Any, whole: MeasuredRun, tmp_path: Any) -> None:
    for options in ({"batch_size": 1}, {"batch_size": 7}):
        other = run(**options)
        for row, expected in zip(other.rows, whole.rows, strict=True):
            assert same_row(row, expected, rel=1e-6)
        for name in ("base/adversarial", "fixed/adversarial", "fresh/adversarial"):
            assert torch.equal(other.tensors[name], whole.tensors[name])
    with pytest.raises(RuntimeError, match="fails"):
        run(tmp_path, at=6)
    assert run(tmp_path, resume=True).merged == whole.merged
