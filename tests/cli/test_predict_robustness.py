"""``predict-robustness`` of a user's own purifier, and what it makes of its options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
from run_files import files_of

from lit_purify.cli import main
from lit_purify.cli.predict_robustness import arguments_of_test

BUDGETS = ["1/255", "2/255"]


def predict(folder: Path, *more: str, eps: Sequence[str] = BUDGETS) -> int:
    """A small prediction for a purifier that one line names."""
    return main(
        [
            *("predict-robustness", "--config", "cifar_fixed"),
            *("--model.purifier", "tiny.ScalingPurifier", "--model.purifier.factor", "0.5"),
            *("--data.limit", "2", "--attack.steps", "2", "--trainer.accelerator", "cpu"),
            *("--trainer.default_root_dir", str(folder), "--eps", *eps, *more),
        ]
    )


def test_it_attacks_nothing_and_says_what_it_predicts(tmp_path, capsys):
    path = tmp_path / "found" / "predictions.json"
    assert predict(tmp_path, "--gradients", "3", "--json", str(path)) == 0
    printed = capsys.readouterr().out
    run, found = files_of(printed), json.loads(path.read_text())
    assert found["run"] == str(run.folder)
    assert found["budgets"] == BUDGETS
    assert list(found["predictors"]) == ["first_order", "classifier_curve", "paper_law"]
    for predictor, row in found["predictors"].items():
        names = [f"prediction/{predictor}_at_{eps.replace('/', '_')}" for eps in BUDGETS]
        assert row["predicted"] == [run.summary["metrics"][name] for name in names]
        assert row["label"] in printed
    assert found["predictors"]["first_order"]["cost"] == "3 gradients"
    assert "no bound" in printed
    assert run.summary["settings"]["protocols"] == []
    assert not [name for name in run.summary["metrics"] if "robust_accuracy" in name]
    # It is a run like any other: what is recorded is not computed again.
    assert predict(tmp_path, "--gradients", "3", "--resume", "auto") == 0
    again = capsys.readouterr().out
    assert "resumed: 2 of 2 images" in again
    assert files_of(again).folder == run.folder
    assert main(["predict-robustness", "--resume", str(run.folder)]) == 0
    assert files_of(capsys.readouterr().out).folder == run.folder


def test_its_options_are_those_of_the_measurement():
    found, path = arguments_of_test(
        ["--config", "mine.yaml", "--runs", "a", "b", "--eps", "1/255", "--data.limit", "3"]
    )
    assert path is None
    assert found == [
        *("test", "--config", "measure/prediction", "--config", "mine.yaml", "--data.limit", "3"),
        '--measure.prediction.eps=["1/255"]',
        '--measure.prediction.runs=["a", "b"]',
        "--model.protocols=[]",
    ]
    found, path = arguments_of_test(
        ["--json", "x", "--model.protocols", "[fixed]", "--gradients=1"]
    )
    assert path == Path("x")
    assert found[-3:] == ["--model.protocols", "[fixed]", "--measure.prediction.gradients=1"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "--config cifar_fixed"),
        (["--config", "cifar_fixed", "--eps"], "eps"),
        (["--config", "cifar_fixed", "--eps", "small"], "small"),
        (["--config", "cifar_fixed", "--eps", "9"], "[0, 1]"),
        (["--config", "cifar_fixed", "--gradients", "few"], "gradients"),
        (["--config", "cifar_fixed", "--runs", "nowhere"], "nowhere"),
    ],
)
def test_wrong_options_are_refused_in_a_line(args, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["predict-robustness", *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not list(tmp_path.iterdir())


def test_predictions_that_cannot_be_written_leave_the_run(tmp_path, capsys):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "predictions.json"
    assert predict(tmp_path, "--gradients", "0", "--json", str(path), eps=["1/255"]) == 2
    assert "--json" in capsys.readouterr().err.splitlines()[-1]
    assert tiny.run_folder(tmp_path).is_dir()


def test_its_help_names_its_options(capsys):
    assert main(["predict-robustness", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(option in told for option in ("--eps", "--gradients", "--runs", "--json"))
