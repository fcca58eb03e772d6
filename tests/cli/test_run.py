"""Runs from the command line: what is refused, what measures, and that a run repeats.

Broken input is in ``tests/broken_input``.
"""

import subprocess
import sys
import tomllib

import pytest
import tiny
import yaml

from lit_purify.cli import COMMANDS, main
from lit_purify.cli.arguments import with_attack_class
from lit_purify.cli.measure import MEASUREMENTS
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError


class TestWithoutAConfiguration:
    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["evaluate"], ["evaluate", *COMMANDS]),
            (["test"], ["required", "model", "data", "--config cifar_fixed"]),
            (["predict"], ["required", "model", "data", "--config predict"]),
            (["predict", "--data.source", "mine"], ["--config predict"]),
            (["fit"], ["required", "model", "data", "--config train_cifar_small"]),
            (["test", "--model", "lit_purify.PurifiedClassifier"], ["required", "purifier"]),
            (["--seed_everything", "1", "report", "run"], []),
        ],
    )
    def test_it_is_refused(self, args, words, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert main(args) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        for word in words:
            assert word in line
        assert not list(tmp_path.iterdir())

    def test_ctrl_c_while_a_command_is_loaded_is_no_traceback(self, monkeypatch):
        def interrupted(name):
            raise KeyboardInterrupt

        monkeypatch.setattr("lit_purify.cli.import_module", interrupted)
        assert main(["report", "run"]) == 130

    def test_no_command_is_answered_by_the_help(self, capsys):
        assert main([]) == 2
        told = capsys.readouterr().err
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        assert stop.value.code == 0
        assert capsys.readouterr().out.split() == told.split()
        for name, (_, description) in COMMANDS.items():
            assert name in told
            assert description in " ".join(told.split())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--attack", "pgd"], ["--attack=lit_purify.attacks.PGD"]),
        (["--attack=pgd_eot", "--x", "1"], ["--attack=lit_purify.attacks.PGDEOT", "--x", "1"]),
        (["--attack", "AutoAttack"], ["--attack=lit_purify.attacks.AutoAttack"]),
        *(([option], [option]) for option in ("--attack", "--attack=null", "--attack.eps=1")),
        *(([f"--attack={path}"],) * 2 for path in ("tiny.Own", "a.yaml", "{class_path: a.B}")),
    ],
)
def test_an_attack_may_be_called_by_its_class(given, expected):
    assert with_attack_class(["test", *given]) == ["test", *expected]


def test_an_unknown_attack_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="PGDEOT"):
        with_attack_class(["test", "--attack", "nonsense"])


def test_a_defect_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("lit_purify.attacks.pgd.input_gradient", broken)
    with pytest.raises(ZeroDivisionError):
        main(tiny.command("test", "cifar_fixed.yaml", tmp_path))


class TestMeasure:
    def resolved(self, capsys, *more):
        """The section of the resolved configuration, what is off left out."""
        with pytest.raises(SystemExit):
            main(["test", "--config", "cifar_fixed", *more, "--print_config"])
        section = yaml.safe_load(capsys.readouterr().out)["measure"]
        assert list(section) == list(MEASUREMENTS)
        return {name: part["init_args"] for name, part in section.items() if part is not None}

    def test_overlays_add_up_and_arguments_change_them_by_name(self, capsys):
        more = ["--config", "measure/jacobian", "--config", "measure/variance"]
        found = self.resolved(capsys, *more, "--measure.jacobian.top_k", "8")
        assert list(found) == ["compression", "images", "variance", "jacobian"]
        assert found["jacobian"]["top_k"] == 8
        assert found["jacobian"]["mode"] == "matrix_free"
        assert found["variance"]["inputs"] == 8

    def test_null_switches_one_off_and_an_argument_switches_one_on(self, capsys):
        more = ["--measure.compression", "null", "--measure.agreement.eot", "null"]
        assert self.resolved(capsys, *more) == {"images": {"count": 8}, "agreement": {"eot": None}}

    def test_every_measurement_has_its_overlay(self):
        overlays = {path.stem for path in (tiny.CONFIGS / "measure").iterdir()}
        of_others = {"all", "black_box"}  # several, and one with more
        assert overlays == {*MEASUREMENTS, *of_others} - {"images"}  # that draws, and is always on


class TestRuns:
    def test_the_resolved_configuration_repeats_the_run(self, tmp_path):
        more = ["--data.batch_size", "2", "--model.seed", "3", "--attack.eps", "4/255"]
        more += ["--measure.images", "null", "--trainer.callbacks", "[tiny.NoiseRecorder]"]
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
        more += tiny.UNMEASURED
        assert main(tiny.command("test", "cifar_fixed.yaml", tmp_path, *more)) == 0
        summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
        assert summary["settings"]["forward_process"] == "one_shot"
        assert summary["settings"]["early_stop"] is True
        assert summary["metrics"]["purified/clean_accuracy"]["n"] == 2
        assert "fixed/robust_accuracy" not in summary["metrics"]
        assert "fixed/robust_accuracy_any_iteration" in summary["metrics"]
        assert "no attack on fixed noise" not in capsys.readouterr().out  # there was one


@pytest.mark.parametrize("text", ["[/x]", "see [bold]docs[/bold] [red"])
def test_a_users_words_are_no_markup(text, tmp_path, capsys):
    more = [*tiny.UNMEASURED, "--model.protocols=[base]", f"--next_step={text!r}"]
    assert main(tiny.command("test", "cifar_fixed.yaml", tmp_path, *more)) == 0
    assert text in capsys.readouterr().out
    assert read_summary(tiny.run_folder(tmp_path) / "summary.json")["status"] == "finished"


def test_null_reaches_an_argument_two_classes_deep(tmp_path):
    args = tiny.command("test", "cifar_fixed.yaml", tmp_path, *tiny.UNMEASURED)
    more = ("--model.purifier.num_steps", "null", "--model.purifier.t_star", "4")
    assert main([*args, *more]) == 0
    settings = read_summary(tiny.run_folder(tmp_path) / "summary.json")["settings"]
    assert settings["num_steps"] == settings["t_star"] == 4


def test_both_commands_find_a_module_of_the_working_folder(tmp_path):
    """The console script stands in a folder of its own, which Python puts first on its path."""
    project = tomllib.loads((tiny.CONFIGS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, function = project["project"]["scripts"]["lit-purify"].partition(":")
    script = tmp_path / "bin" / "lit-purify"
    script.parent.mkdir()
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    (tmp_path / "mine.py").write_text("raise SystemExit(77)\n")
    args = ["test", "--config", "cifar_fixed", "--model.classifier", "mine.classifier"]
    for command in (["-m", "lit_purify"], [str(script)]):
        done = subprocess.run([sys.executable, *command, *args], cwd=tmp_path, timeout=120)
        assert done.returncode == 77


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
        more = [*tiny.UNMEASURED, "--model.protocols", "[base]"]
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
        assert line.startswith("error: t_star must be")
        assert "5000" in line
        assert "Traceback" not in done.stdout
