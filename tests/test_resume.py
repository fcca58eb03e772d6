"""A run that was killed anywhere and resumed has the records of an uninterrupted one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import processes
import pytest
import tiny
from processes import Fork, finish, forks, wait_until

from lit_purify.report.summary import read_summary

TRIALS, EARLY = 20, 8
IMAGES, BATCH = 16, 2


class Finished(NamedTuple):
    """What must not depend on interruptions, and how long it took."""

    rows: bytes
    tensors: bytes
    metrics: dict
    seconds: float


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    return tiny.denoiser_file(tmp_path_factory.mktemp("denoiser"))


@pytest.fixture(scope="module")
def uninterrupted(denoiser, tmp_path_factory):
    """A run of :func:`tiny.quick_test` without a stop."""
    root = tmp_path_factory.mktemp("uninterrupted")
    Fork(["test", "--help"], root / "help.log").finish()  # the time of the imports is no run's
    run = Fork(tiny.quick_test(denoiser, root), root / "log")
    assert run.finish() == 0, run.printed
    return read(folder(run), run)


@pytest.fixture(scope="module")
def few(denoiser, tmp_path_factory):
    """A run of two batches, which resumes itself: its arguments and what it finds."""
    root = tmp_path_factory.mktemp("few")
    args = tiny.quick_test(denoiser, root, "--data.limit", "4", "--resume", "auto")
    run = Fork(args, root / "log")
    assert run.finish() == 0, run.printed
    return args, read(folder(run))


def folder(run: Fork) -> Path:
    """The run folder: the last line of a finished run."""
    return Path(run.printed.splitlines()[-1])


def read(run_folder: Path, run: Fork | None = None) -> Finished:
    seconds = 0.0 if run is None else run.seconds
    records = run_folder / "records"
    return Finished(
        (records / "rows.jsonl").read_bytes(),
        (records / "tensors.safetensors").read_bytes(),
        read_summary(run_folder / "summary.json")["metrics"],
        seconds,
    )


def header(run_folder: Path) -> dict:
    return json.loads((run_folder / "records" / "header.json").read_text())


def batches(run_folder: Path) -> int:
    """How many batches the journals of a run hold."""
    journals = (run_folder / "records").glob("rank_*.jsonl")
    return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in journals)


def has(run: Fork, root: Path, done: int) -> bool:
    """Whether a run has written so many batches, or has ended."""
    return batches(tiny.run_folder(root)) >= done or run.wait(0) is not None


def stage(root: Path) -> str:
    """How far a killed run came."""
    run_folder = tiny.run_folder(root)
    if not run_folder.exists():
        return "no folder"
    if not (run_folder / "records" / "header.json").exists():
        return "no records"
    if header(run_folder)["status"] == "finished":
        return "merged"
    if (run_folder / "records" / "rows.jsonl").exists():
        return "merging"
    done = batches(run_folder)
    return "before the first batch" if done == 0 else f"{done} batches"


def assert_equal(run: Fork, expected: Finished) -> None:
    """A run ended well, and as if it had never been stopped; nothing is left behind."""
    assert run.finish() == 0, run.printed
    found = read(folder(run))
    assert found.rows == expected.rows
    assert found.tensors == expected.tensors
    assert found.metrics == expected.metrics
    assert header(folder(run))["status"] == "finished"
    assert read_summary(folder(run) / "summary.json")["status"] == "finished"
    assert (folder(run) / "config.yaml").exists()
    kept = sorted(path.name for path in (folder(run) / "records").iterdir())
    assert kept == ["header.json", "rows.jsonl", "tensors.safetensors"]


@pytest.mark.slow
def test_killed_at_twenty_random_moments(denoiser, uninterrupted, tmp_path):
    rng = random.Random(0)
    life = uninterrupted.seconds
    stages = Counter()
    for trial in range(TRIALS):
        attempt = 0
        while True:
            root = tmp_path / f"{trial}_{attempt}"
            args = tiny.quick_test(denoiser, root, "--resume", "auto")
            run = Fork(args, root / "killed.log")
            if trial < EARLY:  # at any time: a machine under load is then still starting up
                stopped = run.wait(rng.random() * life) is None
            else:  # at any time once so many batches are on the disk
                done = (trial - EARLY) * (IMAGES // BATCH) // (TRIALS - EARLY)
                wait_until(lambda run=run, done=done, root=root: has(run, root, done))
                stopped = run.wait(rng.random() * life / (IMAGES // BATCH)) is None
            if stopped:
                break
            life = run.seconds  # the machine is faster than when the life was measured
            attempt += 1
        run.kill()
        stages[stage(root)] += 1
        resumed = Fork(args, root / "resumed.log")
        assert_equal(resumed, uninterrupted)
    print(dict(stages))
    between = [name for name in stages if name.endswith("batches")]
    assert sum(stages[name] for name in between) >= 5, stages
    assert len(between) >= 3, stages


@pytest.mark.slow
def test_killed_at_every_file_operation_of_the_merge(few, tmp_path):
    more, expected = few
    evaluated = tmp_path / "evaluated"
    run = Fork(
        [*more, "--trainer.default_root_dir", str(evaluated)],
        tmp_path / "evaluated.log",
        before=partial(processes.kill_in_merge, 0),
    )
    assert run.finish() == -signal.SIGKILL
    assert stage(evaluated) == "2 batches"

    stages = Counter()
    for number in range(100):
        root = tmp_path / str(number)
        shutil.copytree(evaluated, root)
        args = [*more, "--trainer.default_root_dir", str(root)]
        run = Fork(args, root / "killed.log", before=partial(processes.kill_in_merge, number))
        if run.finish() == 0:
            break  # it has fewer operations
        stages[stage(root)] += 1
        assert_equal(Fork(args, root / "resumed.log"), expected)
    print(dict(stages))
    assert stages["2 batches"] >= 4  # both files in the making
    assert stages["merging"] >= 4  # journal and tensors going


@pytest.mark.slow
def test_killed_twice(denoiser, uninterrupted, tmp_path):
    args = tiny.quick_test(denoiser, tmp_path, "--resume", "auto")
    for sitting, done in enumerate((2, 5)):
        run = Fork(args, tmp_path / f"{sitting}.log")
        wait_until(lambda done=done: batches(tiny.run_folder(tmp_path)) >= done)
        run.kill()
    last = Fork(args, tmp_path / "last.log")
    assert_equal(last, uninterrupted)
    assert folder(last) == tiny.run_folder(tmp_path)
    assert len(header(folder(last))["sittings"]) == 3


@pytest.mark.slow
def test_killed_with_loading_processes(denoiser, uninterrupted, tmp_path):
    """They hold what their process had open until they notice that it is gone."""
    workers = ("--data.num_workers", "1", "--resume", "auto")
    args = tiny.quick_test(denoiser, tmp_path, *workers)
    run = Fork(args, tmp_path / "killed.log")
    wait_until(lambda: batches(tiny.run_folder(tmp_path)) >= 2)
    run.kill()
    assert_equal(Fork(args, tmp_path / "resumed.log"), uninterrupted)


def test_a_second_process_is_refused(denoiser, uninterrupted, tmp_path):
    args = tiny.quick_test(denoiser, tmp_path, "--resume", "auto")
    run = Fork(args, tmp_path / "first.log")
    wait_until(lambda: batches(tiny.run_folder(tmp_path)) >= 1)
    run.signal(signal.SIGSTOP)
    second = Fork(args, tmp_path / "second.log")
    assert second.finish() == 2
    assert "is being written by another process" in second.printed
    run.signal(signal.SIGCONT)
    assert_equal(run, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("event", ["open", "os.rename"])
@pytest.mark.parametrize("name", ["config.yaml", "header.json", "summary.json"])
def test_killed_while_the_run_folder_is_made(name, event, few, tmp_path):
    more, expected = few
    args = [*more, "--trainer.default_root_dir", str(tmp_path)]
    stop = partial(processes.kill_before, event, name)
    run = Fork(args, tmp_path / "killed.log", before=stop)
    assert run.finish() == -signal.SIGKILL
    assert_equal(Fork(args, tmp_path / "resumed.log"), expected)


def test_a_torn_line_is_evaluated_again(denoiser, uninterrupted, tmp_path):
    args = tiny.quick_test(denoiser, tmp_path, "--resume", "auto")
    run = Fork(args, tmp_path / "killed.log")
    wait_until(lambda: batches(tiny.run_folder(tmp_path)) >= 2)
    run.kill()
    journal = tiny.run_folder(tmp_path) / "records" / "rank_0.jsonl"
    os.truncate(journal, journal.stat().st_size - 20)
    assert_equal(Fork(args, tmp_path / "resumed.log"), uninterrupted)


class TestSeveralProcesses:
    """Batches of one sample, which are the same on any number of processes."""

    ONE = ("--data.batch_size", "1")

    @pytest.fixture(scope="class")
    def expected(self, denoiser, tmp_path_factory):
        root = tmp_path_factory.mktemp("one_by_one")
        run = Fork(tiny.quick_test(denoiser, root, *self.ONE), root / "log")
        assert run.finish() == 0, run.printed
        return read(folder(run))

    def start(self, denoiser, root):
        """Two processes, each with a batch done."""
        running = forks(tiny.quick_test(denoiser, root, *self.ONE), root / "killed", 2)
        records = tiny.run_folder(root) / "records"
        wait_until(
            lambda: all(
                (path := records / f"rank_{rank}.jsonl").exists()
                and path.read_bytes().count(b"\n") >= 2
                for rank in (0, 1)
            )
        )
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
        assert 2 <= batches(tiny.run_folder(tmp_path)) < IMAGES
        self.resume(denoiser, tmp_path, count, expected)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
    )
    def test_a_signal_to_all(self, number, status, denoiser, expected, tmp_path):
        running = self.start(denoiser, tmp_path)
        for run in running:
            run.signal(number)
        assert finish(running, 30) == [status, status], running[0].printed
        assert header(tiny.run_folder(tmp_path))["status"] == "interrupted"
        for run in running:
            assert "Traceback" not in run.printed
        self.resume(denoiser, tmp_path, 2, expected)

    @pytest.mark.slow
    def test_an_orphan_still_at_work(self, denoiser, tmp_path):
        """A resumed run neither waits for it nor fails without a reason."""
        args = tiny.quick_test(denoiser, tmp_path, *self.ONE, "--resume", "auto")
        args += ["--trainer.callbacks+=tiny.SlowRank", "--trainer.callbacks.rank", "1"]
        args += ["--trainer.callbacks.seconds", "8"]
        running = forks(args, tmp_path / "killed", 2)
        wait_until(lambda: batches(tiny.run_folder(tmp_path)) >= 2)
        running[0].kill()
        again = forks(args, tmp_path / "again", 2)
        assert finish(again, 30) == [2, 2], [run.printed for run in again]
        assert "is being written by another process" in again[0].printed
        assert "Traceback" not in again[0].printed
        assert finish(running, 30)[1] not in (0, None)  # it ends by itself

    @pytest.mark.slow
    @pytest.mark.parametrize("victim", ["SIGKILL first", "SIGTERM first", "SIGTERM second"])
    def test_processes_that_lightning_started(self, victim, denoiser, expected, tmp_path):
        args = tiny.quick_test(denoiser, tmp_path, *self.ONE, "--resume", "auto")
        args += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
        with start(args, tmp_path) as first:
            wait_until(lambda: batches(tiny.run_folder(tmp_path)) >= 2)
            (second,) = children(first.pid)
            if victim == "SIGKILL first":
                first.kill()
            elif victim == "SIGTERM second":
                os.kill(second, signal.SIGTERM)
            else:
                first.send_signal(signal.SIGTERM)
            status = first.wait(timeout=30)
            assert status == {"SIGTERM first": 143}.get(victim, -signal.SIGKILL)
            wait_until(lambda: not alive(second), 30)
        assert batches(tiny.run_folder(tmp_path)) < IMAGES
        self.resume(denoiser, tmp_path, 2, expected)


class TestInterruption:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
    )
    def test_a_signal_is_an_ordinary_end(self, number, status, denoiser, uninterrupted, tmp_path):
        args = tiny.quick_test(denoiser, tmp_path)
        run_folder = tiny.run_folder(tmp_path)
        with start(args, tmp_path) as process:
            wait_until(lambda: batches(run_folder) >= 2)
            process.send_signal(number)
            assert process.wait(timeout=30) == status
        printed = (tmp_path / "log").read_text()
        assert "Traceback" not in printed
        assert "Error" not in printed
        assert f"--resume {run_folder}" in printed.splitlines()[-1]
        assert header(run_folder)["status"] == "interrupted"
        assert read_summary(run_folder / "summary.json")["status"] == "interrupted"
        done = batches(run_folder)
        assert 2 <= done < IMAGES // BATCH

        resumed = Fork(["test", "--resume", str(run_folder)], tmp_path / "resumed.log")
        assert_equal(resumed, uninterrupted)
        assert folder(resumed) == run_folder
        assert f"resumed: {done * BATCH} of {IMAGES} images are recorded" in resumed.printed


class TestAnotherConfiguration:
    @pytest.fixture(scope="class")
    def stopped(self, denoiser, tmp_path_factory):
        """A run that was killed after some batches."""
        root = tmp_path_factory.mktemp("stopped")
        run = Fork(tiny.quick_test(denoiser, root), root / "log")
        wait_until(lambda: batches(tiny.run_folder(root)) >= 3)
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
        run_folder = tiny.run_folder(root)
        before = contents(run_folder)
        run = Fork(["test", "--resume", str(run_folder), *change], root / "refused.log")
        assert run.finish() == 2, run.printed
        (line,) = [line for line in run.printed.splitlines() if line.startswith("error: ")]
        for word in words:
            assert word in line
        assert contents(run_folder) == before

    def test_starts_anew_under_auto(self, denoiser, root):
        before = contents(tiny.run_folder(root))
        args = tiny.quick_test(denoiser, root, "--model.seed", "5", "--data.limit", "2")
        run = Fork([*args, "--resume", "auto"], root / "new.log")
        assert run.finish() == 0, run.printed
        assert folder(run) == tiny.run_folder(root, 1)
        assert contents(tiny.run_folder(root)) == before

    def test_without_resume_a_new_run_starts(self, denoiser, root):
        before = contents(tiny.run_folder(root))
        run = Fork(tiny.quick_test(denoiser, root), root / "new.log")
        assert run.finish() == 0, run.printed
        assert folder(run) == tiny.run_folder(root, 1)
        assert contents(tiny.run_folder(root)) == before

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("batch_size", "count"), [("3", 1), ("2", 2)], ids=["batch size", "devices"]
    )
    def test_other_hardware_is_no_other_configuration(
        self, batch_size, count, root, uninterrupted, denoiser
    ):
        run_folder = tiny.run_folder(root)
        args = ["test", "--resume", str(run_folder), "--data.batch_size", batch_size]
        resumed = forks(args, root / "resumed", count)
        assert finish(resumed) == [0] * count, resumed[0].printed
        assert folder(resumed[0]) == run_folder
        expected = [json.loads(line) for line in uninterrupted.rows.splitlines()]
        found = [json.loads(line) for line in read(run_folder).rows.splitlines()]
        assert len(found) == len(expected)
        for row, same in zip(found, expected, strict=True):
            # Everything is computed in float64; images are rounded to float32.
            assert tiny.same_row(row, same, rel=1e-5), (row, same)
        first, second = header(run_folder)["sittings"]
        assert (first["batch_size"], first["processes"]) == (BATCH, 1)
        assert (second["batch_size"], second["processes"]) == (int(batch_size), count)


@pytest.mark.slow
def test_a_finished_run_evaluates_nothing(few, tmp_path):
    more, expected = few
    args = [*more, "--trainer.default_root_dir", str(tmp_path)]
    first = Fork(args, tmp_path / "first.log")
    assert_equal(first, expected)
    given = ["test", "--resume", str(folder(first))]
    for name, command in {"auto": args, "given": given}.items():
        again = Fork(command, tmp_path / f"{name}.log")
        assert_equal(again, expected)
        assert folder(again) == folder(first)
        assert "resumed: 4 of 4 images are recorded" in again.printed
        assert "images 4/4" not in again.printed
        assert "Classifier alone, clean images" in again.printed


def start(args: list[str], root: Path) -> subprocess.Popen:
    """``python -m lit_purify`` as the first of a process group; prints to ``root/log``."""
    with (root / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lit_purify", *args],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
            stdout=log,
            stderr=log,
            start_new_session=True,
            # Tests that a shell runs in the background would hand their deafness to Ctrl-C down.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [map(int, line.split()) for line in listed.splitlines()]
    return [child for child, parent in pairs if parent == pid]


def alive(pid: int) -> bool:
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(listed) and not listed.startswith("Z")


def contents(run_folder: Path) -> dict[str, bytes]:
    """Every file of a run but those of TensorBoard, which adds one for every sitting."""
    return {
        str(path.relative_to(run_folder)): path.read_bytes()
        for path in sorted(run_folder.rglob("*"))
        if path.is_file() and "tfevents" not in path.name and path.suffix != ".lock"
    }
