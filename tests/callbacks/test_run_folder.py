"""Which folder a new run gets, and when it goes again."""

import multiprocessing
from pathlib import Path

import pytest
import tiny

from lit_purify.callbacks.run_folder import new_run, remove_unused, run_folder, run_logger
from lit_purify.types import InputError


def _new_runs(root: Path) -> list[str]:
    return [str(new_run(root)) for _ in range(10)]


class TestNewRun:
    def test_they_are_numbered(self, tmp_path):
        root = tmp_path / "a" / "b"
        for number in range(3):
            assert new_run(root) == root / "lightning_logs" / f"version_{number}"

    def test_after_the_last_one(self, tmp_path):
        logs = tmp_path / "lightning_logs"
        for name in ("version_9", "version_10", "version_x", "other_99", "version_"):
            (logs / name).mkdir(parents=True)
        (logs / "version_11").touch()  # a file takes a number too
        assert new_run(tmp_path) == logs / "version_12"

    @pytest.mark.skipif(
        "fork" not in multiprocessing.get_all_start_methods(), reason="a process by fork"
    )
    def test_processes_get_different_ones(self, tmp_path):
        with multiprocessing.get_context("fork").Pool(8) as pool:
            runs = [name for own in pool.map(_new_runs, [tmp_path] * 8, 1) for name in own]
        assert {Path(name).name for name in runs} == {f"version_{k}" for k in range(80)}


class TestRemoveUnused:
    @pytest.mark.parametrize(
        ("files", "removed"),
        [
            ([], True),
            (["events.out.tfevents.1.host", "config.yaml", "hparams.yaml"], True),
            (["events.out.tfevents.1.host", "records/header.json"], False),
            (["checkpoints/last.ckpt"], False),
            (["notes.txt"], False),
        ],
    )
    def test_what_holds_a_result_stays(self, files, removed, tmp_path):
        folder = new_run(tmp_path)
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        remove_unused(folder)
        assert folder.exists() == (not removed)
        assert all((folder / name).exists() == (not removed) for name in files)


@pytest.mark.parametrize("root", ["s3://bucket/runs", "gs://bucket", "file:///tmp/runs"])
@pytest.mark.parametrize("folder_of", [run_folder, run_logger])
def test_a_url_is_refused(root, folder_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="URL"):
        folder_of(tiny.trainer(root))
    assert not list(tmp_path.iterdir())
