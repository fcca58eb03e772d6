"""Any number of processes evaluates each sample once, and finds what one process finds."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tiny
import torch
from processes import PATIENCE, Fork, finish, forks, free_port
from safetensors.torch import load_file
from torch import Tensor

from lit_purify.records.summary import read_summary

IMAGES = 16
RELATIVE = 1e-5
"""Everything here is computed in float64; images are rounded to float32 between the parts, which a
compression rate, a ratio of differences of 8/255, shows in its sixth digit."""

pytestmark = pytest.mark.slow


class Result(NamedTuple):
    """What a run on several processes left behind, and what its first process printed."""

    folder: Path
    rows: bytes
    tensors: dict[str, Tensor]
    summary: dict
    printed: str

    @property
    def table(self) -> dict[tuple, dict]:
        """The rows by index, protocol and seed."""
        rows = [json.loads(line) for line in self.rows.splitlines()]
        table = {(row["index"], row["protocol"], row["seed"]): row for row in rows}
        assert len(table) == len(rows)
        return table


def read(folder: Path, printed: str) -> Result:
    records = folder / "records"
    return Result(
        folder,
        (records / "rows.jsonl").read_bytes(),
        load_file(records / "tensors.safetensors"),
        read_summary(folder / "summary.json"),
        printed,
    )


def evaluate(args: list[str], logs: Path, count: int) -> Result:
    """A finished run of a command line on so many processes."""
    running = forks(args, logs, count)
    assert finish(running) == [0] * count, [run.printed for run in running]
    assert_silent(running[1:])
    return read(Path(running[0].printed.splitlines()[-1]), running[0].printed)


def assert_silent(others: list[Fork]) -> None:
    """One process speaks; of the others Lightning says that they are there."""
    for run in others:
        for line in run.printed.splitlines():
            assert line.startswith("Initializing distributed: "), run.printed


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    return tiny.denoiser_file(tmp_path_factory.mktemp("denoiser"))


@pytest.fixture(scope="module")
def runs(denoiser, tmp_path_factory):
    """One evaluation on 1, 2 and 3 processes in batches of 1 and 8, with its noise recorded."""
    root = tmp_path_factory.mktemp("runs")
    noise = "--trainer.callbacks+=tiny.NoiseRecorder"
    return {
        (count, batch_size): evaluate(
            tiny.quick_test(
                denoiser,
                root / f"{count}_{batch_size}",
                *("--data.batch_size", str(batch_size), noise),
            ),
            root / f"{count}_{batch_size}",
            count,
        )
        for count in (1, 2, 3)
        for batch_size in (1, 8)
    }


ALL = [(count, batch_size) for count in (1, 2, 3) for batch_size in (1, 8)]


class TestAnyNumberOfProcesses:
    @pytest.mark.parametrize("count", [2, 3])
    def test_batches_of_one_give_the_same_bytes(self, count, runs):
        one, several = runs[1, 1], runs[count, 1]
        assert several.rows == one.rows
        name = "records/tensors.safetensors"
        assert (several.folder / name).read_bytes() == (one.folder / name).read_bytes()

    @pytest.mark.parametrize(("count", "batch_size"), ALL)
    def test_every_sample_has_its_rows(self, count, batch_size, runs):
        protocols = ("attack", "base", "fixed", "purified", "transfer", "uniform")
        expected = [(index, name, 0) for index in range(IMAGES) for name in protocols]
        assert list(runs[count, batch_size].table) == expected

    @pytest.mark.parametrize(("count", "batch_size"), ALL)
    def test_rows_agree(self, count, batch_size, runs):
        found, expected = runs[count, batch_size].table, runs[1, 1].table
        for key, row in expected.items():
            assert tiny.same_row(found[key], row, rel=RELATIVE), key

    @pytest.mark.parametrize(("count", "batch_size"), ALL)
    def test_tensors_agree(self, count, batch_size, runs):
        found, expected = runs[count, batch_size].tensors, runs[1, 1].tensors
        assert found.keys() == expected.keys()
        assert found["index"].tolist() == list(range(IMAGES))
        assert torch.equal(found["noise/xi"], expected["noise/xi"])
        assert expected["noise/xi"].std() == pytest.approx(1, abs=0.01)  # it is the noise
        for name in ("base/adversarial", "fixed/adversarial"):
            # float64 gradients keep their signs, so the attacks take the same steps
            assert torch.equal(found[name], expected[name])

    @pytest.mark.parametrize(("count", "batch_size"), ALL)
    def test_summaries_agree(self, count, batch_size, runs):
        found, expected = runs[count, batch_size].summary, runs[1, 1].summary
        assert found["status"] == "finished"
        assert found["settings"]["processes"] == count
        assert found["metrics"].keys() == expected["metrics"].keys()
        for name, figure in expected["metrics"].items():
            assert found["metrics"][name].keys() == figure.keys()
            for statistic, value in figure.items():
                same = value if value is None else pytest.approx(value, rel=RELATIVE)
                assert found["metrics"][name][statistic] == same, (name, statistic)

    @pytest.mark.parametrize(("count", "batch_size"), ALL)
    def test_progress_counts_the_images_of_all(self, count, batch_size, runs):
        lines = [line for line in runs[count, batch_size].printed.splitlines() if "elapsed" in line]
        counts = [line.split()[1].split("/") for line in lines]
        seen = [int(number) for number, _ in counts]
        assert {total for _, total in counts} == {str(IMAGES)}
        assert seen == sorted(seen)
        assert seen[-1] <= IMAGES
        if count == 1:
            assert seen == list(range(batch_size, IMAGES + 1, batch_size))


class TestShares:
    def test_a_slow_process_takes_fewer_samples(self, denoiser, runs, tmp_path):
        slow = ["--data.batch_size", "1", "--trainer.callbacks+=tiny.SlowRank"]
        slow += ["--trainer.callbacks.rank", "0", "--trainer.callbacks.seconds", "2"]
        result = evaluate(tiny.quick_test(denoiser, tmp_path, *slow), tmp_path, 2)
        ranks = [row["rank"] for key, row in result.table.items() if key[1] == "process"]
        assert len(ranks) == IMAGES
        share = Counter(ranks)
        assert 1 <= share[0] < IMAGES / 4, share
        others = [line for line in result.rows.splitlines() if b'"process"' not in line]
        assert others == runs[1, 1].rows.splitlines()
        # The slow first process was the last to finish: it shows the images of both.
        lines = [line for line in result.printed.splitlines() if "elapsed" in line]
        assert len(lines) == share[0]
        assert lines[-1].startswith(f"images {IMAGES}/{IMAGES} ")

    def test_fewer_samples_than_processes(self, denoiser, runs, tmp_path):
        few = ["--data.batch_size", "1", "--data.limit", "2"]
        result = evaluate(tiny.quick_test(denoiser, tmp_path, *few), tmp_path, 3)
        expected = [row for key, row in runs[1, 1].table.items() if key[0] < 2]
        assert list(result.table.values()) == expected
        assert result.tensors["index"].tolist() == [0, 1]
        assert result.summary["metrics"]["base/clean_accuracy"]["n"] == 2


class TestPredict:
    def purified(self, denoiser, root, limit, count):
        args = tiny.command("predict", "predict.yaml", root, "--data.limit", str(limit))
        args += ["--data.batch_size", "2", "--model.purifier.denoiser.path", str(denoiser)]
        running = forks(args, root, count)
        assert finish(running) == [0] * count, [run.printed for run in running]
        assert_silent(running[1:])
        lines = running[0].printed.splitlines()
        folder = Path(lines[-1])
        assert sum(line.startswith("purified ") for line in lines) == 1
        assert f"purified {limit} images" in lines[-2]
        assert list(folder.glob("*.npz")) == [folder / "purified.npz"]
        names = sorted(path.name for path in (folder / "purified").glob("*.png"))
        with np.load(folder / "purified.npz") as file:
            return dict(file), names

    @pytest.mark.parametrize("limit", [1, 5], ids=["a process without images", "5 images"])
    def test_each_image_once(self, limit, denoiser, tmp_path):
        roots = [tmp_path / "one", tmp_path / "two"]
        for root in roots:
            root.mkdir()
        expected, names = self.purified(denoiser, roots[0], limit, 1)
        found, found_names = self.purified(denoiser, roots[1], limit, 2)
        assert found_names == names
        assert len(set(names)) == len(names) >= limit
        assert found["index"].tolist() == expected["index"].tolist() == list(range(limit))
        assert found["name"].tolist() == expected["name"].tolist()
        assert found["images"].shape == expected["images"].shape == (limit, 32, 32, 3)
        assert found["images"] == pytest.approx(expected["images"], abs=1e-5)


class TestLaunchers:
    """How the processes come about makes no difference."""

    def launch(self, *commands):
        """Run commands side by side; returns what each printed to standard output."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parent)
        running = [
            subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for command in commands
        ]
        try:
            printed = [process.communicate(timeout=PATIENCE) for process in running]
        finally:
            for process in running:
                process.kill()
        assert [process.returncode for process in running] == [0] * len(running), printed
        return [out for out, _ in printed]

    def assert_same(self, printed, runs):
        result = read(Path(printed.splitlines()[-1]), printed)
        assert result.rows == runs[1, 1].rows
        assert result.summary["settings"]["processes"] == 2

    @pytest.fixture
    def arguments(self, denoiser, tmp_path):
        more = ["--data.batch_size", "1", "--trainer.callbacks+=tiny.NoiseRecorder"]
        more += ["--trainer.strategy", "ddp"]
        return ["-m", "lit_purify", *tiny.quick_test(denoiser, tmp_path, *more)]

    def test_lightning(self, arguments, runs):
        (printed,) = self.launch([*arguments, "--trainer.devices", "2"])
        self.assert_same(printed, runs)

    def test_torchrun(self, arguments, runs):
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
        torchrun += ["--master-port", str(free_port())]
        (printed,) = self.launch([*torchrun, *arguments, "--trainer.devices", "2"])
        self.assert_same(printed, runs)

    def test_torchrun_on_two_nodes(self, arguments, runs):
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "1", "--nnodes", "2"]
        torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
        arguments += ["--trainer.devices", "1", "--trainer.num_nodes", "2"]
        printed, silence = self.launch(
            *([*torchrun, "--node-rank", str(node), *arguments] for node in (0, 1))
        )
        self.assert_same(printed, runs)
        assert silence == ""
