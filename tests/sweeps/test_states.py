"""How far runs have come, how long the rest takes, and how both are shown."""

import os

import pytest
import torch
from filelock import FileLock
from rich.console import Console

from lit_purify.records import Column, RunStore, SampleTable, write_summary
from lit_purify.records.header import new_header, write_header
from lit_purify.sweeps import states
from lit_purify.sweeps.display import Display, _table
from lit_purify.sweeps.local import _environment
from lit_purify.sweeps.plan import SweepRun
from lit_purify.sweeps.process import Busy, RunProcess, is_finished
from lit_purify.sweeps.progress import Progress, at_work, newest, read_progress
from lit_purify.sweeps.states import Sweep

RUNS = [SweepRun(name, {}, ()) for name in "abc"]


def begin(root, *, version=0, samples=6):
    """A run that has begun: its folder and its header."""
    folder = root / "lightning_logs" / f"version_{version}"
    header = new_header({"config": None, "settings": {}}, samples)
    write_header(folder / "records", header)
    return folder, header


def batch(first, *correct):
    index = torch.arange(first, first + len(correct))
    return SampleTable(
        {"index": Column(index), "fixed/robust_accuracy": Column(torch.tensor(correct))}
    )


def finish(folder, header, busy=30.0):
    header |= {"status": "finished", "sessions": [{"busy_seconds": [busy, 1.0]}]}
    write_header(folder / "records", header)
    metrics = {"fixed/robust_accuracy": {"value": 0.25}}
    summary = {"status": "finished", "versions": {}, "settings": {}, "metrics": metrics}
    write_summary(folder / "summary.json", summary)


class TestProgress:
    def test_before_a_run_and_in_it(self, tmp_path):
        assert read_progress(tmp_path) == Progress()
        folder, header = begin(tmp_path)
        assert read_progress(tmp_path) == Progress(folder, "running", 0, 6)
        store = RunStore(folder / "records", header["run"])
        store.append(batch(0, True, False))
        store.append(batch(2, False, False))
        found = read_progress(tmp_path)
        assert found[1:] == ("running", 4, 6, ("fixed", 0.25), 0.0)
        store.merge()
        assert read_progress(tmp_path).done == 4
        store.close()

    def test_finished(self, tmp_path):
        folder, header = begin(tmp_path)
        finish(folder, header)
        assert read_progress(tmp_path)[1:] == ("finished", 6, 6, ("fixed", 0.25), 30.0)
        (folder / "summary.json").unlink()  # it comes last
        assert not read_progress(tmp_path).finished

    def test_the_newest_counts_and_damage_is_no_end(self, tmp_path):
        for version in (2, 10):
            folder, _ = begin(tmp_path, version=version)
        (tmp_path / "lightning_logs" / "version_x").mkdir()
        assert newest(tmp_path) == folder
        (folder / "records" / "header.json").write_text("{")
        assert read_progress(tmp_path) == Progress(folder)

    def test_who_works_on_it(self, tmp_path):
        folder, header = begin(tmp_path)
        assert not at_work(None)
        assert not at_work(folder)
        store = RunStore(folder / "records", header["run"])
        assert at_work(folder)
        store.close()
        assert not at_work(folder)


class TestTimeLeft:
    def test_at_the_pace_of_finished_runs(self, tmp_path):
        finish(*begin(tmp_path / "a"))
        sweep = Sweep(RUNS, tmp_path)
        sweep.now(RUNS[0], "finished")
        assert sweep.seconds_left() == pytest.approx(60)  # two more of as many images
        assert sweep.seconds_left(jobs=2) == pytest.approx(30)

    def test_at_its_own_pace(self, tmp_path, monkeypatch):
        folder, header = begin(tmp_path / "a")
        clock = iter([100.0, 110.0])
        monkeypatch.setattr(states.time, "monotonic", lambda: next(clock))
        sweep = Sweep(RUNS[:2], tmp_path)
        RunStore(folder / "records", header["run"]).append(batch(0, True, True))
        sweep.now(RUNS[0], "running")
        assert sweep.seconds_left() == pytest.approx((4 + 6) * 10 / 2)

    def test_nobody_knows(self, tmp_path):
        assert Sweep(RUNS, tmp_path).seconds_left() is None


def test_a_failure_is_an_end_without_a_result(tmp_path):
    sweep = Sweep(RUNS, tmp_path)
    sweep.ended(RUNS[0], 2, "no such file")
    sweep.ended(RUNS[1], 0, "nothing there")
    finish(*begin(tmp_path / "c"))
    sweep.ended(RUNS[2], 0, "")
    assert sweep.phases == {"a": "failed", "b": "failed", "c": "finished"}
    assert sweep.errors == {"a": "no such file", "b": "nothing there"}
    assert sweep.finished_folders() == [tmp_path / "c" / "lightning_logs" / "version_0"]


def test_the_table_and_the_lines(tmp_path, capsys):
    finish(*begin(tmp_path / "a"))
    sweep = Sweep(RUNS, tmp_path)
    with Display(sweep):
        sweep.now(RUNS[0], "finished")
        sweep.ended(RUNS[1], 2, "no such file")
        sweep.now(RUNS[2], "running")
    lines = capsys.readouterr().err.splitlines()
    totals = "1 of 3 runs finished, 1 failed, about 0:00:30 left"
    assert lines == [
        f"a: finished, 6/6 images, fixed 25.0 %; {totals}",
        f"b: failed: no such file; {totals}",
        f"c: running; {totals}",
    ]
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(_table(sweep))
    rows = [line.split() for line in console.export_text().splitlines()[3:6]]
    assert [row[:2] for row in rows] == [["c", "running"], ["b", "failed"], ["a", "finished"]]
    assert rows[2][2:] == ["6/6", "images", "fixed", "25.0", "%"]


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert _environment(1, "") == {}
    assert _environment(3, "1") == {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert _environment(3, "") == {}


class Ended:
    """A process that has ended with a status."""

    def __init__(self, status):
        self.status = status

    def poll(self):
        return self.status

    wait = poll


def test_a_result_keeps_the_command_that_it_is_by(tmp_path):
    changed = SweepRun("a", {}, ("--model.seed=1",))

    def ended(run, status):
        return RunProcess(run, tmp_path, launcher=lambda *_: Ended(status)).wait()

    assert ended(RUNS[0], 1) == 1
    finish(*begin(tmp_path / "a"))
    assert is_finished(RUNS[0], tmp_path)
    assert ended(changed, 2) == 2  # refused: its settings are others
    assert is_finished(RUNS[0], tmp_path)
    assert not is_finished(changed, tmp_path)
    assert ended(changed, 0) == 0  # the same run, written otherwise
    assert is_finished(changed, tmp_path)


def test_a_run_that_another_has_is_busy(tmp_path):
    (tmp_path / "a").mkdir()
    with FileLock(tmp_path / "a" / ".sweep.lock"), pytest.raises(Busy):
        RunProcess(RUNS[0], tmp_path)
    folder, header = begin(tmp_path / "a")
    store = RunStore(folder / "records", header["run"])
    with pytest.raises(Busy):
        RunProcess(RUNS[0], tmp_path)
    store.close()
    assert not (tmp_path / "a" / "log.txt").exists()
