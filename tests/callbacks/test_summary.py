"""The run folder: ``summary.json`` in every state a run can be in, figures, the last line."""

import contextlib
import hashlib
import io
import json
import signal
from pathlib import Path

import pytest
import tiny
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_purify.classifiers import embedded_resnet18
from lit_purify.cli import main
from lit_purify.records import read_summary
from lit_purify.types import NOTED


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(run folder, root folder, stdout, stderr) of one run of three images in two batches."""
    folder = tmp_path_factory.mktemp("run")
    out, err = io.StringIO(), io.StringIO()
    args = tiny.command(
        "test",
        "cifar_fixed.yaml",
        folder,
        *("--data.batch_size", "2"),
        *("--model.seed", "7"),
        "--trainer.callbacks+=tiny.StatusSpy",
    )
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(args) == 0
    return tiny.run_folder(folder), folder, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def summary(run):
    return read_summary(run[0] / "summary.json")


def broken_run(folder: Path, **purifier) -> list[str]:
    """Arguments of a run whose purifier fails on the third of three samples."""
    config = {
        "model": {
            "class_path": "lit_purify.PurifiedClassifier",
            "init_args": {
                "purifier": {"class_path": "tiny.FailingPurifier", "init_args": purifier},
                "classifier": {"class_path": "lit_purify.classifiers.embedded_resnet18"},
            },
        },
        "data": {
            "class_path": "lit_purify.data.CIFAR10DataModule",
            "init_args": {"limit": 3, "batch_size": 2},
        },
        "attack": {"class_path": "lit_purify.attacks.PGD", "init_args": {"steps": 1}},
        "trainer": {"accelerator": "cpu", "default_root_dir": str(folder)},
    }
    path = folder / "broken.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return ["test", "--config", str(path)]


class TestFinished:
    def test_the_schema(self, summary):
        keys = {"status", "versions", "settings", "metrics", "preflight", "flags", "labels"}
        keys |= {"class_names"}
        assert set(summary) == keys
        assert summary["flags"] == []
        assert summary["status"] == "finished"
        assert {"python", "torch", "lightning", "lit-purify"} <= set(summary["versions"])
        assert set(summary["metrics"]) == set(summary["labels"])
        for name, metric in summary["metrics"].items():
            assert {"value", "low", "high", "n"} <= set(metric)
            assert set(summary["labels"][name]) == {"section", "label", "unit"}
            if "accuracy" in name:
                assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1
                assert metric["n"] == 3
        broken = {name for name in summary["metrics"] if "nonfinite" in name or "zero_" in name}
        assert {summary["metrics"][name]["value"] for name in broken} == {0}
        assert set(summary["metrics"]) - broken == {
            "base/clean_accuracy",
            "purified/clean_accuracy",
            "base/robust_accuracy",
            "base/robust_accuracy_any_iteration",
            "fixed/robust_accuracy",
            "fixed/robust_accuracy_any_iteration",
            "transfer/robust_accuracy",
            "uniform/compression_rate",
            "attack/compression_rate",
            "attack/compression_rate_robust",
            "attack/compression_rate_nonrobust",
        }

    def test_the_settings_decide_the_numbers(self, summary):
        expected = {
            "t_star": 20,
            "num_steps": 2,
            "evaluations": 2,  # of the denoiser
            "sampler": "DDPMSampler",
            "forward_process": "stepwise",
            "attack": "PGD",
            "eps": 8 / 255,
            "steps": 2,
            "early_stop": False,
            "seed": 7,
            "protocols": ["base", "fixed", "transfer"],
            "device": "cpu",
            "precision": "32-true",
            "processes": 1,
        }
        assert summary["settings"] == summary["settings"] | expected

    def test_models_are_named_by_the_hash_of_their_files(self, run, summary):
        files = {
            "denoiser": run[1] / "tiny.safetensors",
            "classifier": embedded_resnet18().file,
        }
        models = summary["settings"]["models"]
        assert {role: model["sha256"] for role, model in models.items()} == {
            role: hashlib.sha256(file.read_bytes()).hexdigest() for role, file in files.items()
        }

    def test_it_said_running_until_the_end(self, run):
        assert (run[0] / "seen.txt").read_text().split() == ["running", "running"]

    def test_settings_are_printed_before_the_work_and_the_folder_last(self, run):
        printed = run[2]
        assert printed.index("t_star") < printed.index("Measurement")
        assert printed.index("tiny (sha256 ") < printed.index("Measurement")
        assert printed.rstrip("\n").split("\n")[-1] == str(run[0])

    def test_the_resolved_configuration_lies_beside_it(self, run):
        assert "num_steps: 2" in (run[0] / "config.yaml").read_text()

    def test_progress_is_a_line_a_batch_where_there_is_no_terminal(self, run):
        lines = [line for line in run[3].splitlines() if line.startswith("images ")]
        assert [line.split()[1] for line in lines] == ["2/3", "3/3"]
        assert all("elapsed" in line and "left about" in line for line in lines)
        assert lines[-1].endswith("left about 0:00")


class TestImages:
    PROTOCOLS = ("base", "fixed", "transfer")

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_grid_is_a_readable_png(self, run, protocol):
        with Image.open(run[0] / f"images_{protocol}.png") as picture:
            picture.load()
            assert picture.format == "PNG"
            extrema = picture.convert("L").getextrema()
        assert extrema[0] < 64 < 192 < extrema[1]  # neither blank nor black

    def test_grids_and_metrics_are_in_tensorboard(self, run, summary):
        events = EventAccumulator(str(run[0]))
        events.Reload()
        tags = events.Tags()
        grids = {f"images/{protocol}" for protocol in self.PROTOCOLS}
        assert set(tags["images"]) == {"attack_curves", *grids}
        for name, entry in summary["metrics"].items():
            noted = summary["labels"][name]["section"] == NOTED
            if entry["value"] or (entry["value"] == 0 and not noted):
                event = events.Scalars(name)[-1]
                assert (event.step, event.value) == pytest.approx((3, entry["value"]), rel=1e-6)
        assert set(tags["histograms"]) == {
            "per_image/uniform/compression_rate",
            "per_image/attack/compression_rate",
            *(
                f"per_image/attack/compression_rate_{part}"
                for part in ("robust", "nonrobust")
                if summary["metrics"][f"attack/compression_rate_{part}"]["n"]
            ),
        }
        (event,) = events.Histograms("per_image/uniform/compression_rate")
        mean = summary["metrics"]["uniform/compression_rate"]["value"]
        assert event.histogram_value.num == 3
        assert event.histogram_value.sum == pytest.approx(3 * mean)

    def test_progress_can_be_turned_off(self, tmp_path, capsys):
        args = broken_run(tmp_path, at=99)  # an index outside: it does not fail
        assert main([*args, "--trainer.enable_progress_bar", "false"]) == 0
        assert "images " not in capsys.readouterr().err


def test_a_measurement_without_a_single_finite_value_ends_well(tmp_path):
    """No perturbation has no compression rate; TensorBoard refuses an empty histogram."""
    assert main(tiny.command("test", "cifar_fixed.yaml", tmp_path, "--attack.eps", "0")) == 0
    metrics = read_summary(tiny.run_folder(tmp_path) / "summary.json")["metrics"]
    assert metrics["attack/compression_rate"]["missing"] == 3


class TestUnfinished:
    def test_a_failed_run_says_so(self, tmp_path, capsys):
        with pytest.raises(RuntimeError, match="this purifier fails"):
            main(broken_run(tmp_path, at=2))
        summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
        assert summary["status"] == "failed"
        assert summary["metrics"] == {}
        assert summary["settings"]["purifier"] == "FailingPurifier"
        assert str(tiny.run_folder(tmp_path)) not in capsys.readouterr().out.splitlines()

    def test_an_interrupted_run_says_so(self, tmp_path):
        handler = signal.getsignal(signal.SIGINT)
        try:
            assert main(broken_run(tmp_path, at=2, interrupt=True)) == 128 + signal.SIGINT
        finally:
            signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
        summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
        assert summary["status"] == "interrupted"
        assert summary["metrics"] == {}
