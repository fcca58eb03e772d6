"""The command line: what it says to wrong input, its exit status, and that a run repeats."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny

from lit_purify.cli import main
from lit_purify.report.summary import read_summary


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Wrong files by name."""
    folder = tmp_path_factory.mktemp("files")
    labels = np.arange(4)
    rng = np.random.default_rng(0)
    np.savez(folder / "range.npz", images=rng.random((4, 32, 32, 3)) * 2, labels=labels)
    np.savez(folder / "grey.npz", images=np.zeros((4, 32, 32, 1), np.uint8), labels=labels)
    np.savez(folder / "size.npz", images=np.zeros((4, 28, 28, 3), np.uint8), labels=labels)
    sound = tiny.denoiser_file(folder)
    (folder / "corrupt.safetensors").write_bytes(sound.read_bytes()[:5000])
    (folder / "typo.yaml").write_text("trainer:\n  max_stepz: 3\n")
    (folder / "deep_typo.yaml").write_text(
        "model:\n  init_args:\n    purifier:\n      init_args:\n        t_stra: 3\n"
    )
    (folder / "syntax.yaml").write_text("model: [\n")
    (folder / "empty").mkdir()
    return folder


def assert_refused(args, folder, capsys, *words):
    """Exit status 2 and a single line that holds the words; nothing that looks finished."""
    status = main(args)
    printed = capsys.readouterr()
    assert status == 2
    lines = [line for line in printed.err.splitlines() if line.strip()]
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in printed.out + printed.err
    for summary in folder.rglob("summary.json"):
        assert json.loads(summary.read_text())["status"] != "finished"
    assert not list(folder.rglob("images_*.png"))
    assert not list(folder.rglob("purified*"))


WRONG = {
    "weights missing": (
        ["--model.purifier.denoiser.path", "{files}/none.safetensors"],
        ["no weights file", "none.safetensors"],
    ),
    "weights corrupt": (
        ["--model.purifier.denoiser.path", "{files}/corrupt.safetensors"],
        ["cannot be read", "corrupt.safetensors", "Download it again"],
    ),
    "images outside [0, 1]": (
        ["--data.source", "{files}/range.npz"],
        ["expected [0, 1]", "by 255"],
    ),
    "grey images": (["--data.source", "{files}/grey.npz"], ["(4, 32, 32, 1)", "expected (N, H, W"]),
    "images of another size": (["--data.source", "{files}/size.npz"], ["28 x 28", "32 x 32"]),
    "no such data": (["--data.source", "{files}/none.npz"], ["no file", "none.npz"]),
    "t_star beyond the schedule": (
        ["--model.purifier.t_star", "1001"],
        ["t_star must lie between 1 and 1000", "got 1001"],
    ),
    "t_star 0": (["--model.purifier.t_star", "0"], ["t_star must lie between 1 and 1000"]),
    "t_star no number": (["--model.purifier.t_star", "deep"], ["t_star", "int", "deep"]),
    "more steps than t_star": (
        ["--model.purifier.num_steps", "21"],
        ["num_steps must lie between 1 and t_star = 20", "got 21"],
    ),
    "unknown key": (["--config", "{files}/typo.yaml"], ["max_stepz"]),
    "unknown deep key": (["--config", "{files}/deep_typo.yaml"], ["t_stra"]),
    "not YAML": (["--config", "{files}/syntax.yaml"], ["pars"]),
    "no such config": (["--config", "{files}/none.yaml"], ["none.yaml", "not exist"]),
    "unknown option": (["--data.batchsize", "3"], ["batchsize"]),
    "inference mode": (["--trainer.inference_mode", "true"], ["inference_mode", "set it to false"]),
    "precision that hides a compression": (
        ["--trainer.precision", "bf16-mixed"],
        ["compression rate", "use 32-true"],
    ),
    "precision of the weights": (
        ["--trainer.precision", "bf16-true", "--trainer.callbacks", "[]"],
        ["bf16-true", "32-true"],
    ),
    "unknown protocol": (["--model.protocols", "[base,fxed]"], ["protocols", "transfer", "fxed"]),
    "negative seed": (["--model.seed", "-1"], ["at least 0, got -1"]),
    "eps by zero": (["--attack.eps", "8/0"], ["fraction such as 8/255", "8/0"]),
    "eps in grey levels": (["--attack.eps", "8"], ["eps must lie in [0, 1]", "write 8/255"]),
    "eps negative": (["--attack.eps=-1/255"], ["eps must lie in [0, 1]"]),
    "eps no number": (["--attack.eps", "big"], ["fraction such as 8/255", "big"]),
    "step size no number": (["--attack.rel_stepsize", "big"], ["fraction", "big"]),
    "attack of no steps": (["--attack.steps", "0"], ["at least 1 step"]),
    "unknown attack": (["--attack", "PDG"], ["PDG"]),
    "limit 0": (["--data.limit", "0"], ["limit is 0", "1 or more"]),
    "batch size 0": (["--data.batch_size", "0"], ["batch_size is 0"]),
    "a measurement twice": (
        ["--trainer.callbacks+=lit_purify.callbacks.CompressionRate"],
        ["measured twice"],
    ),
}


class TestWrongInput:
    @pytest.mark.parametrize("case", WRONG)
    def test_a_test_run_is_refused(self, case, files, tmp_path, capsys):
        more, words = WRONG[case]
        more = [word.format(files=files) for word in more]
        args = tiny.command("test", "cifar_fixed.yaml", tmp_path, *more)
        assert_refused(args, tmp_path, capsys, *words)

    @pytest.mark.parametrize("source", ["empty", "none.npz", "nowhere"])
    def test_predict_is_refused(self, source, files, tmp_path, capsys):
        args = tiny.command(
            "predict", "predict.yaml", tmp_path, "--data.source", str(files / source)
        )
        assert_refused(args, tmp_path, capsys, source)

    @pytest.mark.parametrize("focus", ["[[150,1.5]]", "[[2000,0.5]]"])
    def test_fit_is_refused(self, focus, tmp_path, capsys):
        args = ["fit", "--config", str(tiny.CONFIGS / "train_cifar_small.yaml")]
        assert main([*args, "--model.focus", focus, "--seed_everything", "false"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert "focus" in line

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            ([], ["subcommand", "test", "predict", "fit"]),
            (["evaluate"], ["evaluate", "test", "predict", "fit"]),
            (["test"], ["required", "model", "data"]),
            (["predict"], ["required", "model", "data"]),
            (["fit"], ["required", "model", "data"]),
            (["test", "--model", "lit_purify.PurifiedClassifier"], ["required", "purifier"]),
        ],
    )
    def test_without_a_configuration(self, args, words, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert_refused(args, tmp_path, capsys, *words)

    def test_a_defect_keeps_its_traceback(self, tmp_path, monkeypatch):
        def broken(*args, **kwargs):
            raise ZeroDivisionError

        monkeypatch.setattr("lit_purify.attacks.pgd.input_gradient", broken)
        with pytest.raises(ZeroDivisionError):
            main(tiny.command("test", "cifar_fixed.yaml", tmp_path))


class TestRuns:
    def test_the_resolved_configuration_repeats_the_run(self, tmp_path):
        more = ["--data.batch_size", "2", "--model.seed", "3", "--attack.eps", "4/255"]
        more += ["--trainer.callbacks", "[{class_path: lit_purify.callbacks.CompressionRate}]"]
        assert main(tiny.command("test", "cifar_fixed.yaml", tmp_path, *more)) == 0
        first = tiny.run_folder(tmp_path)
        assert main(["test", "--config", str(first / "config.yaml")]) == 0
        one, two = (
            read_summary(tiny.run_folder(tmp_path, version) / "summary.json") for version in (0, 1)
        )
        assert two == one

    def test_what_changes_often_is_an_argument(self, tmp_path, capsys):
        more = ["--model.protocols", "[fixed,fresh]", "--attack.early_stop", "true"]
        more += ["--model.purifier.forward_process", "one_shot", "--data.indices", "[5,2]"]
        more += ["--trainer.callbacks", "[]"]
        assert main(tiny.command("test", "cifar_fixed.yaml", tmp_path, *more)) == 0
        summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
        assert summary["settings"]["forward_process"] == "one_shot"
        assert summary["settings"]["early_stop"] is True
        assert summary["metrics"]["purified/clean_accuracy"]["n"] == 2
        assert "fixed/robust_accuracy" not in summary["metrics"]
        assert "fixed/robust_accuracy_any_iteration" in summary["metrics"]
        assert "no attack on fixed noise" not in capsys.readouterr().out  # there was one


def test_null_reaches_an_argument_two_classes_deep(tmp_path):
    args = tiny.command("test", "cifar_fixed.yaml", tmp_path, "--trainer.callbacks", "[]")
    more = ("--model.purifier.num_steps", "null", "--model.purifier.t_star", "4")
    assert main([*args, *more]) == 0
    settings = read_summary(tiny.run_folder(tmp_path) / "summary.json")["settings"]
    assert settings["num_steps"] == settings["t_star"] == 4


class TestProcess:
    def run(self, args, folder):
        return subprocess.run(
            [sys.executable, "-m", "lit_purify", *args],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def test_a_run(self, tmp_path):
        more = ["--trainer.callbacks", "[]", "--model.protocols", "[base]"]
        done = self.run(tiny.command("test", "cifar_fixed.yaml", tmp_path, *more), tmp_path)
        assert done.returncode == 0, done.stderr
        folder = done.stdout.splitlines()[-1]
        assert folder == str(tiny.run_folder(tmp_path))
        assert read_summary(f"{folder}/summary.json")["status"] == "finished"
        assert [line for line in done.stderr.splitlines() if not line.startswith("images ")] == []

    def test_wrong_input(self, tmp_path):
        more = ["--model.purifier.t_star", "5000"]
        done = self.run(tiny.command("test", "cifar_fixed.yaml", tmp_path, *more), tmp_path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: t_star must lie between 1 and 1000")
        assert "Traceback" not in done.stdout
