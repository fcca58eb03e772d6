"""Which runs a folder stands for."""

import json

import pytest

from lit_purify.records.discovery import run_folders


@pytest.fixture
def made(tmp_path):
    def make(path, status="finished"):
        folder = tmp_path / path
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"status": status}))

    return make


def found(folder):
    return [str(run.relative_to(folder)) for run in run_folders(folder)]


def test_a_run_is_itself(made, tmp_path):
    made("run")
    made("run/copy")
    assert found(tmp_path / "run") == ["."]


def test_all_runs_of_one_folder(made, tmp_path):
    for number in (10, 9, 1):
        made(f"version_{number}", "interrupted")
    assert found(tmp_path) == ["version_1", "version_9", "version_10"]


def test_the_newest_finished_of_each_experiment(made, tmp_path):
    for number, status in enumerate(("finished", "finished", "interrupted")):
        made(f"t100/lightning_logs/version_{number}", status)
    made("t20/lightning_logs/version_3", "failed")
    made("t20/lightning_logs/version_11", "failed")
    made("exported/deep/t300")
    (tmp_path / "t400" / "lightning_logs").mkdir(parents=True)
    assert found(tmp_path) == [
        "exported/deep/t300",
        "t20/lightning_logs/version_11",
        "t100/lightning_logs/version_1",
    ]


def test_a_damaged_summary_is_not_finished(made, tmp_path):
    made("a/lightning_logs/version_0")
    made("a/lightning_logs/version_1")
    (tmp_path / "a/lightning_logs/version_1/summary.json").write_text("{")
    assert found(tmp_path) == ["a/lightning_logs/version_0"]


def test_nothing_is_the_folder_itself(tmp_path):
    assert found(tmp_path) == ["."]
    assert found(tmp_path / "absent") == ["."]
