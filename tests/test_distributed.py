"""Any number of processes evaluates each sample once, and finds what one process finds."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from processes import finish, forks, free_port, launch
from run_files import files_of

IMAGES = 16
RELATIVE = 1e-5
"""Everything here is computed in float64; images are rounded to float32 between the parts, which a
compression rate, a ratio of differences of 8/255, shows in its sixth digit."""

pytestmark = pytest.mark.slow


def run(args: list[str], logs: Path, count: int) -> str:
    """Run a command line on so many processes to a good end; what the first has printed.

    Of the others Lightning says that they are there, and nothing else.
    """
    first, *others = running = forks(args, logs, count)
    assert finish(running) == [0] * count, [each.printed for each in running]
    for other in others:
        for line in other.printed.splitlines():
            assert line.startswith("Initializing distributed: "), other.printed
    return first.printed


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    return tiny.denoiser_file(tmp_path_factory.mktemp("denoiser"))


RUNS = [(count, batch_size) for count in (1, 2, 3) for batch_size in (1, 8)]


@pytest.fixture(scope="module")
def printed(denoiser, tmp_path_factory):
    """One evaluation on 1, 2 and 3 processes in batches of 1 and 8, with its noise recorded."""
    root = tmp_path_factory.mktemp("runs")
    found = {}
    for count, batch_size in RUNS:
        folder = root / f"{count}_{batch_size}"
        more = ["--data.batch_size", str(batch_size), "--trainer.callbacks+=tiny.NoiseRecorder"]
        found[count, batch_size] = run(tiny.quick_test(denoiser, folder, *more), folder, count)
    return found


@pytest.fixture(scope="module")
def runs(printed):
    return {chosen: files_of(text) for chosen, text in printed.items()}


every_run = pytest.mark.parametrize("chosen", RUNS)


class TestAnyNumberOfProcesses:
    @pytest.mark.parametrize("count", [2, 3])
    def test_batches_of_one_give_the_same_bytes(self, count, runs):
        assert runs[count, 1].merged == runs[1, 1].merged
        assert runs[count, 1].curves == runs[1, 1].curves

    @every_run
    def test_every_sample_once_and_with_the_same_numbers(self, chosen, runs):
        found, expected = runs[chosen].rows, runs[1, 1].rows
        assert [row["index"] for row in found] == list(range(IMAGES))
        for row, same in zip(found, expected, strict=True):
            assert tiny.same_row(row, same, rel=RELATIVE), row["index"]

    @every_run
    def test_the_same_sample_meets_the_same_noise_and_attack(self, chosen, runs):
        found, expected = runs[chosen].tensors, runs[1, 1].tensors
        assert found.keys() == expected.keys()
        assert expected["noise/xi"].std() == pytest.approx(1, abs=0.01)  # it is the noise
        # float64 gradients keep their signs, so the attacks take the same steps
        for name in ("index", "noise/xi", "base/adversarial", "fixed/adversarial"):
            assert torch.equal(found[name], expected[name]), name

    @every_run
    def test_summaries_agree(self, chosen, runs):
        found, expected = runs[chosen].summary, runs[1, 1].summary
        assert found["status"] == "finished"
        assert found["settings"]["processes"] == chosen[0]
        assert found["metrics"].keys() == expected["metrics"].keys()
        for name, figure in expected["metrics"].items():
            assert tiny.same_row(found["metrics"][name], figure, rel=RELATIVE), name

    @every_run
    def test_progress_counts_the_images_of_all(self, chosen, printed):
        count, batch_size = chosen
        lines = [line for line in printed[chosen].splitlines() if "elapsed" in line]
        counts = [line.split()[1].split("/") for line in lines]
        seen = [int(number) for number, _ in counts]
        assert {total for _, total in counts} == {str(IMAGES)}
        assert seen == sorted(seen)
        assert seen[-1] <= IMAGES
        if count == 1:
            assert seen == list(range(batch_size, IMAGES + 1, batch_size))

    def test_fewer_samples_than_processes(self, denoiser, runs, tmp_path):
        few = ["--data.batch_size", "1", "--data.limit", "2"]
        files = files_of(run(tiny.quick_test(denoiser, tmp_path, *few), tmp_path, 3))
        assert files.rows == runs[1, 1].rows[:2]
        assert files.tensors["index"].tolist() == [0, 1]
        assert files.summary["metrics"]["base/clean_accuracy"]["n"] == 2


class TestPredict:
    def purified(self, denoiser, root, limit, count):
        root.mkdir()
        args = tiny.command("predict", "predict.yaml", root, "--data.limit", str(limit))
        args += ["--data.batch_size", "2", "--model.purifier.denoiser.path", str(denoiser)]
        lines = run(args, root, count).splitlines()
        folder = Path(lines[-1])
        assert sum(line.startswith("purified ") for line in lines) == 1
        assert f"purified {limit} images" in lines[-2]
        assert list(folder.glob("*.npz")) == [folder / "purified.npz"]
        names = sorted(path.name for path in (folder / "purified").glob("*.png"))
        with np.load(folder / "purified.npz") as file:
            return dict(file), names

    @pytest.mark.parametrize("limit", [1, 5], ids=["a process without images", "5 images"])
    def test_each_image_once(self, limit, denoiser, tmp_path):
        expected, names = self.purified(denoiser, tmp_path / "one", limit, 1)
        found, found_names = self.purified(denoiser, tmp_path / "two", limit, 2)
        assert found_names == names
        assert len(set(names)) == len(names) >= limit
        assert found["index"].tolist() == expected["index"].tolist() == list(range(limit))
        assert found["name"].tolist() == expected["name"].tolist()
        assert found["images"].shape == expected["images"].shape == (limit, 32, 32, 3)
        assert found["images"] == pytest.approx(expected["images"], abs=1e-5)


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node")


@pytest.mark.parametrize("launcher", ["lightning", "torchrun", "torchrun on two nodes"])
def test_how_the_processes_come_about_makes_no_difference(launcher, denoiser, runs, tmp_path):
    more = ["--data.batch_size", "1", "--trainer.callbacks+=tiny.NoiseRecorder"]
    more += ["--trainer.strategy", "ddp"]
    program = ["-m", "lit_purify", *tiny.quick_test(denoiser, tmp_path, *more)]
    port = ("--master-port", str(free_port()))
    if launcher == "lightning":
        commands = [[*program, "--trainer.devices", "2"]]
    elif launcher == "torchrun":
        commands = [[*TORCHRUN, "2", *port, *program, "--trainer.devices", "2"]]
    else:
        nodes = (*TORCHRUN, "1", *port, "--nnodes", "2", "--master-addr", "127.0.0.1")
        program += ["--trainer.devices", "1", "--trainer.num_nodes", "2"]
        commands = [[*nodes, "--node-rank", str(node), *program] for node in (0, 1)]
    printed, *others = launch(tmp_path, *commands)
    assert files_of(printed).merged == runs[1, 1].merged
    assert files_of(printed).summary["settings"]["processes"] == 2
    assert not any(others)
