"""Sweeps of tiny runs: killed, repeated, two at once, changed, exported."""

import csv
import gzip
import random
import shlex
import signal
import time

import pytest
import tiny
import yaml
from forked_sweep import ForkedSweep
from processes import wait_until
from run_files import RunFiles

from lit_purify.cli import main
from lit_purify.records.rows import read_numbers
from lit_purify.records.runs import read_runs

NAMES = ("ddpm", "reverse")
IMAGES, BATCH = 6, 2


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A function that writes the file of a sweep of two tiny runs."""
    folder = tmp_path_factory.mktemp("plan")
    denoiser = tiny.denoiser_file(folder)

    def plan(name="plan", **changes):
        options = {
            "trainer.accelerator": "cpu",
            "model.purifier.denoiser": "tiny.float64_denoiser",
            "model.purifier.denoiser.path": str(denoiser),
            "model.classifier": "tiny.classifier",
            "measure.images": None,
            **{"t_star": 20, "num_steps": 2, "protocols": ["fixed"], "attack.steps": 2},
            **{"limit": IMAGES, "data.batch_size": BATCH},
        }
        content = {
            "configs": ["cifar_fixed"],
            "options": options | changes.pop("options", {}),
            "axes": {"preset": list(NAMES)},
        }
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content | changes))
        return str(file)

    return plan


def sweep(root, file, *more):
    """A sweep that comes to its end: its status and what it printed."""
    found = ForkedSweep([file, "--root", str(root), *more], root.with_name(f"{root.name}_log"))
    before = len(found.printed)
    return found.finish(), found.printed[before:]


def files(root, name, version=0):
    return RunFiles(tiny.run_folder(root / name, version))


def recorded(root):
    """How many batches a sweep has recorded so far."""
    found = [files(root, name) for name in NAMES]
    whole = [(run.records / "rows.jsonl").exists() for run in found]
    return sum(
        IMAGES // BATCH if done else len(run.batches)
        for run, done in zip(found, whole, strict=True)
    )


def table(root):
    """The report's table, without the folders."""
    with (root / "report" / "runs.csv").open(newline="") as file:
        return [{key: row[key] for key in row if key != "run"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(plan, tmp_path_factory):
    """The folder of a sweep that nothing stopped, what it printed and the table of its report."""
    root = tmp_path_factory.mktemp("sweeps") / "finished"
    status, printed = sweep(root, plan())
    assert status == 0, printed
    return root, printed, table(root)  # tests add runs and so change the report


def test_every_run_and_a_report(finished):
    root, printed, _ = finished
    assert printed.splitlines()[-1] == str(root / "report")
    for name in NAMES:
        assert f"{name}: finished, {IMAGES}/{IMAGES} images, fixed" in printed
        assert files(root, name).summary["status"] == "finished"
    assert "2 of 2 runs finished" in printed
    assert [row["forward_process"] for row in table(root)] == ["stepwise", "none"]


def test_what_is_finished_stays(finished, plan):
    root, *_ = finished
    log = (root / "ddpm" / "log.txt").read_text()
    status, printed = sweep(root, plan())
    assert status == 0
    assert "running" not in printed
    assert (root / "ddpm" / "log.txt").read_text() == log
    assert len(files(root, "ddpm").header["sessions"]) == 1


def test_a_changed_plan_is_refused_run_by_run_and_new_runs_are_made(finished, plan):
    root, *_ = finished
    seeds = {"axes": {}, "include": [{"preset": "ddpm", "attack.steps": 3, "name": "ddpm"}]}
    seeds["include"] += [{"preset": "ddim"}]
    status, printed = sweep(root, plan("changed", **seeds))
    assert status == 1
    (line,) = (line for line in printed.splitlines() if line.startswith("failed: ddpm:"))
    assert "steps was 2 and now is 3" in line
    assert "ddim: finished" in printed
    assert not tiny.run_folder(root / "ddpm", 1).exists()


def test_one_that_fails_is_named_and_the_others_go_on(plan, tmp_path):
    root = tmp_path / "root"
    include = [{"name": "wrong", "attack.steps": -1}, {"name": "right", "limit": 2}]
    status, printed = sweep(root, plan("failing", axes={}, include=include))
    assert status == 1
    assert "right: finished" in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("failed: "))
    assert line.startswith("failed: wrong: ")
    assert "steps" in line
    assert "error: " in (root / "wrong" / "log.txt").read_text()


def test_two_sweeps_share_the_runs(plan, tmp_path):
    root = tmp_path / "root"
    both = [ForkedSweep([plan(), "--root", str(root)], tmp_path / str(n)) for n in range(2)]
    assert [each.finish() for each in both] == [0, 0]
    for name in NAMES:
        assert len(list((root / name / "lightning_logs").iterdir())) == 1
        assert len(files(root, name).header["sessions"]) == 1


def test_several_at_once(plan, tmp_path):
    status, printed = sweep(tmp_path / "root", plan(), "--jobs", "2")
    assert status == 0
    lines = printed.splitlines()
    assert lines.index(next(line for line in lines if "finished," in line)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("how", ["all", "sweep", "TERM", "INT"])
def test_one_that_was_stopped_ends_the_same(how, finished, plan, tmp_path):
    chance = random.Random(f"{how} {time.time_ns()}")
    root, place = tmp_path / "root", (chance.randrange(1, 6), chance.uniform(0, 0.3))
    running = ForkedSweep([plan(), "--root", str(root)], tmp_path / "first")
    wait_until(lambda: recorded(root) >= place[0] or running.wait(0) is not None)
    time.sleep(place[1])
    if how in ("all", "sweep"):
        running.kill()
        if how == "all":
            running.kill_runs()
    elif running.wait(0) is None:
        number = getattr(signal, f"SIG{how}")
        running.signal(number)
        assert running.finish() in (0, 128 + number), (place, running.printed)
    status, printed = sweep(root, plan())
    assert status == 0, (place, printed)
    for name in NAMES:
        assert files(root, name).merged == files(finished[0], name).merged, place
    by_name = {row["forward_process"]: row for row in finished[2]}
    assert [by_name[row["forward_process"]] for row in table(root)] == table(root)


def test_the_export_is_small_and_read_like_runs(finished, plan, tmp_path, capsys):
    root, *_ = finished
    for target in ("one", "two"):
        arguments = [plan(), "--root", str(root), "--export", str(tmp_path / target)]
        assert main(["sweep", *arguments]) == 0
        assert capsys.readouterr().out == f"{tmp_path / target}\n"
    one, two = (RunFiles(tmp_path / target).everything for target in ("one", "two"))
    assert one == two
    assert len(one) == 3 * len(NAMES)
    assert sum(map(len, one.values())) < 30_000 * len(NAMES)
    assert not any(str(root).encode() in content for content in one.values())
    runs, left_out = read_runs(tmp_path / "one" / name for name in NAMES)
    assert not left_out
    assert [run.method for run in runs] == ["DDPM", "Reverse"]
    rows = gzip.decompress(one["ddpm/records/rows.jsonl.gz"])
    assert rows == files(root, "ddpm").merged["rows.jsonl"]
    accuracy = "purified/clean_accuracy"
    numbers = read_numbers(tmp_path / "one" / "ddpm", accuracy)
    assert list(numbers) == list(range(IMAGES))
    assert numbers == read_numbers(files(root, "ddpm").folder, accuracy)


def test_an_export_leaves_out_what_ran_by_another_command(finished, plan, tmp_path, capsys):
    root, *_ = finished
    arguments = ["--root", str(root), "--export", str(tmp_path / "out")]
    include = [{"preset": "ddpm"}, {"preset": "reverse", "seed": 1, "name": "reverse"}]
    assert main(["sweep", plan("stale", axes={}, include=include), *arguments]) == 0
    assert "left out: reverse:" in capsys.readouterr().err
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == ["ddpm"]


def test_an_export_of_nothing_by_its_command_is_refused(finished, plan, tmp_path, capsys):
    root, *_ = finished
    arguments = ["--root", str(root), "--export", str(tmp_path / "out"), "--model.seed=1"]
    assert main(["sweep", plan(), *arguments]) == 2
    assert "2 by other commands" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_export_of_nothing_is_refused(plan, tmp_path, capsys):
    arguments = [plan(), "--root", str(tmp_path / "none"), "--export", str(tmp_path / "out")]
    assert main(["sweep", *arguments]) == 2
    assert "no run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_list_is_what_one_would_type(plan, tmp_path, capsys):
    arguments = [plan(), "--root", str(tmp_path / "root"), "--data.limit", "3"]
    assert main(["sweep", *arguments, "--list"]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [words[:4] for words in lines] == [["python", "-m", "lit_purify", "test"]] * 2
    assert all("--data.limit=3" in words and "--resume=here" in words for words in lines)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.yaml"], "nowhere.yaml does not exist"),
        (["embedded"], "did you mean sweep/embedded"),
        (["sweep/depth", "--jobs", "0"], "--jobs is 0"),
        (["sweep/depth", "--devices", ","], "--devices is"),
        (["sweep/depth", "--data.limit"], "--data.limit has no value"),
        (["sweep/depth", "--data.limit", "--list"], "--data.limit has no value"),
        (["cifar_fixed"], "no section 'model'"),
    ],
)
def test_what_is_refused(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "nothing"),
        (b"[]", "sequence"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"axes: !!python/object:os.system {}", "not YAML"),
    ],
    ids=["empty", "list", "binary", "tag"],
)
def test_files_that_hold_no_plan(content, words, tmp_path, capsys):
    (tmp_path / "plan.yaml").write_bytes(content)
    assert main(["sweep", str(tmp_path / "plan.yaml"), "--list"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
