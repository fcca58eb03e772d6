"""Any number of processes evaluates each sample once, and finds what one process finds."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tiny
import torch
from processes import PATIENCE, Fork, finish, forks, free_port, start
from run_files import RunFiles

IMAGES = 16
RELATIVE = 1e-5
"""Everything here is computed in float64; images are rounded to float32 between the parts, which a
compression rate, a ratio of differences of 8/255, shows in its sixth digit."""

pytestmark = pytest.mark.slow


class Result(NamedTuple):
    """What a run on several processes left behind, and what its first process printed."""

    files: RunFiles
    printed: str


def result(printed: str) -> Result:
    return Result(RunFiles(Path(printed.splitlines()[-1])), printed)


def evaluate(args: list[str], logs: Path, count: int) -> Result:
    """A finished run of a command line on so many processes."""
    running = forks(args, logs, count)
    assert finish(running) == [0] * count, [run.printed for run in running]
    assert_silent(running[1:])
    return result(running[0].printed)


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


every_run = pytest.mark.parametrize(
    "chosen", [(count, batch_size) for count in (1, 2, 3) for batch_size in (1, 8)]
)


class TestAnyNumberOfProcesses:
    @pytest.mark.parametrize("count", [2, 3])
    def test_batches_of_one_give_the_same_bytes(self, count, runs):
        assert runs[count, 1].files.merged == runs[1, 1].files.merged

    @every_run
    def test_every_sample_once_and_with_the_same_numbers(self, chosen, runs):
        found, expected = runs[chosen].files.rows, runs[1, 1].files.rows
        assert [row["index"] for row in found] == list(range(IMAGES))
        for row, same in zip(found, expected, strict=True):
            assert tiny.same_row(row, same, rel=RELATIVE), row["index"]

    @every_run
    def test_the_same_sample_meets_the_same_noise_and_attack(self, chosen, runs):
        found, expected = runs[chosen].files.tensors, runs[1, 1].files.tensors
        assert found.keys() == expected.keys()
        assert expected["noise/xi"].std() == pytest.approx(1, abs=0.01)  # it is the noise
        # float64 gradients keep their signs, so the attacks take the same steps
        for name in ("index", "noise/xi", "base/adversarial", "fixed/adversarial"):
            assert torch.equal(found[name], expected[name]), name

    @every_run
    def test_summaries_agree(self, chosen, runs):
        found, expected = runs[chosen].files.summary, runs[1, 1].files.summary
        assert found["status"] == "finished"
        assert found["settings"]["processes"] == chosen[0]
        assert found["metrics"].keys() == expected["metrics"].keys()
        for name, figure in expected["metrics"].items():
            assert tiny.same_row(found["metrics"][name], figure, rel=RELATIVE), name

    @every_run
    def test_progress_counts_the_images_of_all(self, chosen, runs):
        count, batch_size = chosen
        lines = [line for line in runs[chosen].printed.splitlines() if "elapsed" in line]
        counts = [line.split()[1].split("/") for line in lines]
        seen = [int(number) for number, _ in counts]
        assert {total for _, total in counts} == {str(IMAGES)}
        assert seen == sorted(seen)
        assert seen[-1] <= IMAGES
        if count == 1:
            assert seen == list(range(batch_size, IMAGES + 1, batch_size))

    def test_fewer_samples_than_processes(self, denoiser, runs, tmp_path):
        few = ["--data.batch_size", "1", "--data.limit", "2"]
        files = evaluate(tiny.quick_test(denoiser, tmp_path, *few), tmp_path, 3).files
        assert files.rows == runs[1, 1].files.rows[:2]
        assert files.tensors["index"].tolist() == [0, 1]
        assert files.summary["metrics"]["base/clean_accuracy"]["n"] == 2


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

    def launch(self, root, *commands):
        """Run commands side by side; returns what each printed to standard output."""
        roots = [root / str(number) for number in range(len(commands))]
        running = [start(*arguments) for arguments in zip(commands, roots, strict=True)]
        try:
            statuses = [process.wait(PATIENCE) for process in running]
        finally:
            for process in running:
                process.kill()
        assert statuses == [0] * len(running), [(root / "err").read_text() for root in roots]
        return [(root / "out").read_text() for root in roots]

    def assert_same(self, printed, runs):
        files = result(printed).files
        assert files.merged == runs[1, 1].files.merged
        assert files.summary["settings"]["processes"] == 2

    @pytest.fixture
    def arguments(self, denoiser, tmp_path):
        more = ["--data.batch_size", "1", "--trainer.callbacks+=tiny.NoiseRecorder"]
        more += ["--trainer.strategy", "ddp"]
        return ["-m", "lit_purify", *tiny.quick_test(denoiser, tmp_path, *more)]

    def test_lightning(self, arguments, runs, tmp_path):
        (printed,) = self.launch(tmp_path, [*arguments, "--trainer.devices", "2"])
        self.assert_same(printed, runs)

    def test_torchrun(self, arguments, runs, tmp_path):
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
        torchrun += ["--master-port", str(free_port())]
        (printed,) = self.launch(tmp_path, [*torchrun, *arguments, "--trainer.devices", "2"])
        self.assert_same(printed, runs)

    def test_torchrun_on_two_nodes(self, arguments, runs, tmp_path):
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "1", "--nnodes", "2"]
        torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
        arguments += ["--trainer.devices", "1", "--trainer.num_nodes", "2"]
        printed, silence = self.launch(
            tmp_path, *([*torchrun, "--node-rank", str(node), *arguments] for node in (0, 1))
        )
        self.assert_same(printed, runs)
        assert silence == ""
