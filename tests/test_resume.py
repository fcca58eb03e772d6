"""A run that was killed anywhere and resumed has the records of an uninterrupted one."""

import itertools
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from functools import partial
from pathlib import Path

import processes
import pytest
import tiny
from processes import Fork, finish, forks, start, wait_until
from run_files import RunFiles, files_of

TRIALS, EARLY = 20, 8
IMAGES, BATCH = 16, 2
MAIN = ["-m", "lit_purify"]

both_signals = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    return tiny.denoiser_file(tmp_path_factory.mktemp("denoiser"))


@pytest.fixture(scope="module")
def uninterrupted(denoiser, tmp_path_factory):
    """What a run of :func:`tiny.quick_test` without a stop left."""
    root = tmp_path_factory.mktemp("uninterrupted")
    return finished(tiny.quick_test(denoiser, root), root)


@pytest.fixture(scope="module")
def few(denoiser, tmp_path_factory):
    """A run of two batches, which resumes itself: its arguments and what it left."""
    root = tmp_path_factory.mktemp("few")
    args = tiny.quick_test(denoiser, root, "--data.limit", "4", "--resume", "auto")
    return args, finished(args, root)


def finished(args: list[str], logs: Path) -> RunFiles:
    """What a command line leaves that nothing stops."""
    run = Fork(args, logs / "finished.log")
    assert run.finish() == 0, run.printed
    return files_of(run.printed)


def files_in(root: Path, version: int = 0) -> RunFiles:
    """What a run with this root directory has left so far."""
    return RunFiles(tiny.run_folder(root, version))


def wait_for_batches(root: Path, done: int, *runs: Fork) -> None:
    """Return when so many batches are recorded, or one of the runs has ended."""
    files = files_in(root)
    wait_until(lambda: len(files.batches) >= done or any(run.wait(0) is not None for run in runs))


def stage(root: Path) -> str:
    """How far a killed run came."""
    files = files_in(root)
    if not files.folder.exists():
        return "no folder"
    if not (files.records / "header.json").exists():
        return "no records"
    if files.header["status"] == "finished":
        return "merged"
    if (files.records / "rows.jsonl").exists():
        return "merging"
    done = len(files.batches)
    return "before the first batch" if done == 0 else f"{done} batches"


def assert_equal(run: Fork, expected: RunFiles) -> None:
    """A run ended well, and as if it had never been stopped; nothing is left behind."""
    assert run.finish() == 0, run.printed
    found = files_of(run.printed)
    assert found.merged == expected.merged
    assert found.curves == expected.curves
    assert found.summary["metrics"] == expected.summary["metrics"]
    assert found.header["status"] == found.summary["status"] == "finished"
    assert (found.folder / "config.yaml").exists()
    kept = {path.name for path in found.records.iterdir()}
    assert kept == {"header.json", *expected.merged}


@pytest.mark.slow
def test_killed_at_twenty_random_moments(denoiser, uninterrupted, tmp_path):
    rng = random.Random(0)
    stages = Counter()
    for trial in range(TRIALS):
        root = tmp_path / str(trial)
        args = tiny.quick_test(denoiser, root, "--resume", "auto")
        run = Fork(args, root / "killed.log")
        if trial < EARLY:  # at any time: a machine under load is then still starting up
            run.wait(3 * rng.random())
        else:  # at any time once so many batches are on the disk
            done = 1 + (trial - EARLY) * (IMAGES // BATCH - 1) // (TRIALS - EARLY)
            wait_for_batches(root, done, run)
            run.wait(rng.random() / 10)
        run.kill()
        stages[stage(root)] += 1
        assert_equal(Fork(args, root / "resumed.log"), uninterrupted)
    print(dict(stages))
    between = [name for name in stages if name.endswith("batches")]
    assert sum(stages[name] for name in between) >= 5, stages
    assert len(between) >= 3, stages


@pytest.mark.slow
def test_killed_before_every_change_of_a_file(few, tmp_path):
    more, expected = few
    stages = Counter()
    for number in itertools.count():
        root = tmp_path / str(number)
        args = [*more, "--trainer.default_root_dir", str(root)]
        run = Fork(args, root / "killed.log", before=partial(processes.kill_at, number))
        if run.finish() == 0:
            break  # it changes fewer
        assert run.wait() == -signal.SIGKILL
        stages[stage(root)] += 1
        assert_equal(Fork(args, root / "resumed.log"), expected)
    print(dict(stages))
    assert stages["no records"] >= 4  # of the configuration and of the header
    assert stages["before the first batch"] >= 4
    assert stages["1 batches"] >= 2
    assert stages["2 batches"] >= 4  # both files of the merge in the making
    assert stages["merging"] >= 4  # batches going
    assert stages["merged"] >= 2


@pytest.mark.slow
def test_killed_twice(denoiser, uninterrupted, tmp_path):
    args = tiny.quick_test(denoiser, tmp_path, "--resume", "auto")
    for session, done in enumerate((2, 5)):
        run = Fork(args, tmp_path / f"{session}.log")
        wait_for_batches(tmp_path, done)
        run.kill()
    last = Fork(args, tmp_path / "last.log")
    assert_equal(last, uninterrupted)
    assert files_of(last.printed) == files_in(tmp_path)
    assert len(files_of(last.printed).header["sessions"]) == 3


@pytest.mark.slow
def test_killed_with_loading_processes(denoiser, uninterrupted, tmp_path):
    """They hold what their process had open until they notice that it is gone."""
    workers = ("--data.num_workers", "1", "--resume", "auto")
    args = tiny.quick_test(denoiser, tmp_path, *workers)
    run = Fork(args, tmp_path / "killed.log")
    wait_for_batches(tmp_path, 2)
    run.kill()
    assert_equal(Fork(args, tmp_path / "resumed.log"), uninterrupted)


def test_a_second_process_is_refused(denoiser, uninterrupted, tmp_path):
    args = tiny.quick_test(denoiser, tmp_path, "--resume", "auto")
    run = Fork(args, tmp_path / "first.log")
    wait_for_batches(tmp_path, 1)
    run.signal(signal.SIGSTOP)
    second = Fork(args, tmp_path / "second.log")
    assert second.finish() == 2
    assert "is being written by another process" in second.printed
    run.signal(signal.SIGCONT)
    assert_equal(run, uninterrupted)


class TestSeveralProcesses:
    """Batches of one sample, which are the same on any number of processes."""

    ONE = ("--data.batch_size", "1")

    @pytest.fixture(scope="class")
    def expected(self, denoiser, tmp_path_factory):
        root = tmp_path_factory.mktemp("one_by_one")
        return finished(tiny.quick_test(denoiser, root, *self.ONE), root)

    def start(self, denoiser, root):
        """Two processes, each with a batch done."""
        running = forks(tiny.quick_test(denoiser, root, *self.ONE), root / "killed", 2)
        files = files_in(root)
        wait_until(lambda: {index % 2 for index in files.batches} == {0, 1})
        return running

    def resume(self, denoiser, root, count, expected):
        args = tiny.quick_test(denoiser, root, *self.ONE, "--resume", "auto")
        resumed = forks(args, root / "resumed", count)
        assert finish(resumed) == [0] * count, resumed[0].printed
        assert_equal(resumed[0], expected)
        assert "resumed: " in resumed[0].printed

    @pytest.mark.slow
    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("killed", [(0, 1), (0,)], ids=["both", "first"])
    def test_killed(self, killed, count, denoiser, expected, tmp_path):
        running = self.start(denoiser, tmp_path)
        for rank in killed:
            running[rank].kill()
        # A process that has lost the first one ends by itself.
        assert finish(running, 30)[1] not in (0, None)
        assert 2 <= len(files_in(tmp_path).batches) < IMAGES
        self.resume(denoiser, tmp_path, count, expected)

    @pytest.mark.slow
    @both_signals
    def test_a_signal_to_all(self, number, status, denoiser, expected, tmp_path):
        running = self.start(denoiser, tmp_path)
        for run in running:
            run.signal(number)
        assert finish(running, 30) == [status, status], running[0].printed
        assert files_in(tmp_path).header["status"] == "interrupted"
        for run in running:
            assert "Traceback" not in run.printed
        self.resume(denoiser, tmp_path, 2, expected)

    @pytest.mark.slow
    def test_an_orphan_still_at_work(self, denoiser, tmp_path):
        """A resumed run neither waits for it nor fails without a reason."""
        args = tiny.quick_test(denoiser, tmp_path, *self.ONE, "--resume", "auto")
        running = forks(args, tmp_path / "killed", 2)
        wait_for_batches(tmp_path, 2)
        running[1].signal(signal.SIGSTOP)
        running[0].kill()
        again = forks(args, tmp_path / "again", 2)
        assert finish(again, 30) == [2, 2], [run.printed for run in again]
        assert "another process" in again[0].printed
        assert "Traceback" not in again[0].printed
        running[1].signal(signal.SIGCONT)
        assert finish(running, 30)[1] not in (0, None)  # it ends by itself

    @pytest.mark.slow
    @pytest.mark.parametrize("victim", ["SIGKILL first", "SIGTERM first", "SIGTERM second"])
    def test_processes_that_lightning_started(self, victim, denoiser, expected, tmp_path):
        args = tiny.quick_test(denoiser, tmp_path, *self.ONE, "--resume", "auto")
        args += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
        with start(MAIN + args, tmp_path) as first:
            wait_for_batches(tmp_path, 2)
            (second,) = [pid for pid, parent in living().items() if parent == first.pid]
            if victim == "SIGKILL first":
                first.kill()
            elif victim == "SIGTERM second":
                os.kill(second, signal.SIGTERM)
            else:
                first.send_signal(signal.SIGTERM)
            status = first.wait(timeout=30)
            assert status == {"SIGTERM first": 143}.get(victim, -signal.SIGKILL)
            wait_until(lambda: second not in living(), 30)
        assert len(files_in(tmp_path).batches) < IMAGES
        self.resume(denoiser, tmp_path, 2, expected)


@pytest.mark.slow
@both_signals
def test_a_signal_is_an_ordinary_end(number, status, denoiser, uninterrupted, tmp_path):
    args = tiny.quick_test(denoiser, tmp_path)
    files = files_in(tmp_path)
    with start(MAIN + args, tmp_path) as process:
        wait_for_batches(tmp_path, 2)
        process.send_signal(number)
        assert process.wait(timeout=30) == status
    errors = (tmp_path / "err").read_text()
    assert "Traceback" not in errors
    assert "Error" not in errors
    assert f"--resume {files.folder}" in errors.splitlines()[-1]
    assert files.header["status"] == files.summary["status"] == "interrupted"
    done = len(files.batches)
    assert 2 <= done < IMAGES // BATCH

    resumed = Fork(["test", "--resume", str(files.folder)], tmp_path / "resumed.log")
    assert_equal(resumed, uninterrupted)
    assert files_of(resumed.printed) == files
    assert f"resumed: {done * BATCH} of {IMAGES} images are recorded" in resumed.printed


class TestAnotherConfiguration:
    @pytest.fixture(scope="class")
    def stopped(self, denoiser, tmp_path_factory):
        """A run that was killed after some batches."""
        root = tmp_path_factory.mktemp("stopped")
        run = Fork(tiny.quick_test(denoiser, root), root / "log")
        wait_for_batches(root, 3)
        run.kill()
        return root

    @pytest.fixture
    def root(self, stopped, tmp_path):
        shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
        return tmp_path

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (["--attack.eps", "4/255"], ["attack.init_args.eps was", "8/255", "4/255"]),
            (["--model.seed", "5"], ["model.init_args.seed was 0 and now is 5"]),
            (["--data.limit", "15"], ["data.init_args.limit was 16 and now is 15"]),
            (["--measure.compression", "null"], ["measure"]),
        ],
    )
    def test_is_refused(self, change, words, root):
        files = files_in(root)
        before = files.everything
        run = Fork(["test", "--resume", str(files.folder), *change], root / "refused.log")
        assert run.finish() == 2, run.printed
        (line,) = [line for line in run.printed.splitlines() if line.startswith("error: ")]
        for word in words:
            assert word in line
        assert files.everything == before

    @pytest.mark.parametrize(
        "more",
        [["--model.seed", "5", "--data.limit", "2", "--resume", "auto"], []],
        ids=["another under auto", "the same without resume"],
    )
    def test_a_new_run_starts(self, more, denoiser, root):
        before = files_in(root).everything
        assert finished(tiny.quick_test(denoiser, root, *more), root) == files_in(root, 1)
        assert files_in(root).everything == before

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("batch_size", "count"), [(3, 1), (2, 2)], ids=["batch size", "devices"]
    )
    def test_other_hardware_is_no_other_configuration(self, batch_size, count, root, uninterrupted):
        files = files_in(root)
        args = ["test", "--resume", str(files.folder), "--data.batch_size", str(batch_size)]
        resumed = forks(args, root / "resumed", count)
        assert finish(resumed) == [0] * count, resumed[0].printed
        assert files_of(resumed[0].printed) == files
        for row, same in zip(files.rows, uninterrupted.rows, strict=True):
            # Everything is computed in float64; images are rounded to float32.
            assert tiny.same_row(row, same, rel=1e-5), (row, same)
        first, second = files.header["sessions"]
        assert (first["batch_size"], first["processes"]) == (BATCH, 1)
        assert (second["batch_size"], second["processes"]) == (batch_size, count)


@pytest.mark.slow
def test_a_finished_run_evaluates_nothing(few, tmp_path):
    more, expected = few
    args = [*more, "--trainer.default_root_dir", str(tmp_path)]
    first = Fork(args, tmp_path / "first.log")
    assert_equal(first, expected)
    given = ["test", "--resume", str(files_of(first.printed).folder)]
    for name, command in {"auto": args, "given": given}.items():
        again = Fork(command, tmp_path / f"{name}.log")
        assert_equal(again, expected)
        assert files_of(again.printed) == files_of(first.printed)
        assert "resumed: 4 of 4 images are recorded" in again.printed
        assert "images 4/4" not in again.printed
        assert "Classifier alone, clean images" in again.printed


def living() -> dict[int, int]:
    """The parent of every process that has not ended."""
    ps = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    listed = subprocess.run(ps, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {int(pid): int(parent) for pid, parent, state, *_ in rows if state[0] != "Z"}
