"""``--config``: which file a name stands for."""

import pytest

from lit_purify.cli import main
from lit_purify.cli.shipped import CONFIGS, find_config
from lit_purify.types import InputError


@pytest.mark.parametrize("name", ["attack/pgd_eot", "attack/pgd_eot.yaml"])
@pytest.mark.parametrize("folder", ["", "configs/"])
def test_a_name_finds_what_comes_with_the_package(name, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(folder + name) == str(CONFIGS / "attack" / "pgd_eot.yaml")


@pytest.mark.parametrize("name", ["attack/pgd_eot.yaml", "configs/cifar_fixed.yaml", "cifar_fixed"])
def test_a_file_of_that_path_wins(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert find_config(name) == name


def test_a_folder_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find_config("demo") == str(CONFIGS / "demo.yaml")


@pytest.mark.parametrize("text", ["{data: {}}", "data: {}", "data:\n  x: 1"])
def test_yaml_in_place_of_a_file_stays(text):
    assert find_config(text) == text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cifar_fixd", "did you mean cifar_fixed"),
        ("pgd_eot", "did you mean attack/pgd_eot"),
        ("nowhere", "attack/pgd_eot, .*attack/uniform"),
        ("x" * 999, "attack/pgd"),
    ],
)
def test_another_name_is_refused_with_what_there_is(name, meant):
    with pytest.raises(InputError, match=meant):
        find_config(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("measure: {magnitud: {}}", ["measure.magnitud", "magnitude"]),
        ("mesure: {compression: {}}", ["mesure", "measure"]),
        ("trainer: {callbaks: {}}", ["trainer.callbaks", "callbacks"]),
        ("attack: {init_args: {stpes: {}}}", ["attack.init_args.stpes", "steps"]),
        ("model: {init_args: {purifier: {init_args: {t_stra: {}}}}}", ["t_stra", "t_star"]),
        ("measure: {jacobian: {init_args: {mod: {x: {}}}}}", ["measure.jacobian.init_args.mod"]),
    ],
)
def test_a_misspelt_key_that_holds_nothing_is_refused(text, words, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(text)
    few = ["--data.limit", "1", "--attack.steps", "1", f"--trainer.default_root_dir={tmp_path}"]
    files = ["--config", "cifar_fixed", "--config", str(tmp_path / "mine.yaml")]
    assert main(["test", *files, *few]) == 2
    printed = capsys.readouterr().err
    for word in words:
        assert word in printed


CALLBACKS = "trainer: {callbacks%s: [lightning.pytorch.callbacks.%s]}\n"


@pytest.mark.parametrize(
    ("files", "lost"),
    [
        (["attack/foolbox_deepfool", "cifar_fixed"], "attack: lit_purify.attacks.Foolbox"),
        (
            ["cifar_fixed", "protocol/all", "protocol/fixed"],
            "protocols: base, blind, transfer, fresh",
        ),
        (["cifar_fixed", "purifier/ddim", "purifier/ddpm"], "lit_purify.diffusion.DDIMSampler"),
        (["cifar_fixed", "attack/pgd_eot", "attack/bpda"], "attack: lit_purify.attacks.PGDEOT"),
        (
            ["cifar_fixed", "one", "two"],
            "trainer.callbacks: lightning",
        ),
        (["whole", "two"], "trainer.callbacks: lightning"),
        (["cifar_fixed", "attack/foolbox_deepfool"], None),
        (["cifar_fixed", "attack/pgd_eot", "protocol/all", "measure/jacobian"], None),
        (["measure/jacobian", "cifar_fixed"], None),
        (["cifar_fixed", "one", "more"], None),
        (["limit", "cifar_fixed"], None),  # an ordinary value
    ],
)
def test_what_a_later_file_drops_is_said(files, lost, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = {
        "one": CALLBACKS % ("", "ModelSummary"),
        "two": CALLBACKS % ("", "DeviceStatsMonitor"),
        "more": CALLBACKS % ("+", "DeviceStatsMonitor"),
        "whole": (CONFIGS / "cifar_fixed.yaml").read_text() + CALLBACKS % ("", "ModelSummary"),
        "limit": "attack: {init_args: {steps: 3}}\n",
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit):
        main(["test", *(f"--config={file}" for file in files), "--print_config"])
    warnings = [li for li in capsys.readouterr().err.splitlines() if li.startswith("warning: ")]
    assert len(warnings) == (lost is not None)
    assert all(lost in line for line in warnings)


def test_an_overlay_of_no_class_is_told_to_stand_behind(capsys):
    assert main(["test", "--config", "protocol/all", "--config", "cifar_fixed"]) == 2
    assert "stands behind" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "name", "keyword"),
    [("--model.help", "PurifiedClassifier", "test_draws"), ("--attack.help", "PGD", "eps")],
)
def test_the_help_of_a_class_needs_none(option, name, keyword, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["test", option, name])
    assert ended.value.code == 0
    assert keyword in capsys.readouterr().out


@pytest.mark.parametrize("words", ["sweep paper/table_1", "search --space search/small"])
def test_a_plan_of_many_runs_is_no_configuration(words, capsys):
    assert main(["test", "--config", words.split()[-1]]) == 2
    assert words in capsys.readouterr().err
