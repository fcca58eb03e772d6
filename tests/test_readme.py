"""What the README shows works as it stands there."""

import importlib
import re

import documentation
import pytest
import tiny
import torch
from run_files import files_of

import lit_purify
from lit_purify.cli import main

CODE = documentation.blocks("README.md", "python")
PARTS = {
    match[1]: code for code in CODE if (match := re.match(r"# (my_\w+)\.py\n", code)) is not None
}


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A working directory with the files of a user's own parts."""
    for name, code in PARTS.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_it_is_short():
    assert len(documentation.text("README.md").splitlines()) <= 150


def test_own_parts_through_evaluate(parts):
    purifier = importlib.import_module("my_purifier").Blur(sigma=0.5)
    classifier = importlib.import_module("my_classifier").small()
    denoiser = importlib.import_module("my_denoiser").Small(width=4)
    images, labels = tiny.images_and_labels(4)
    for found in (purifier, lit_purify.DiffusionPurifier(denoiser, t_star=20, num_steps=2)):
        defence = lit_purify.Defence(classifier, found)
        attack = lit_purify.PGD(steps=2)
        result = lit_purify.evaluate(defence, (images, labels), attack=attack, progress=False)
        assert result.metrics["fixed/robust_accuracy"]["n"] == 4
        assert result.settings["purifier"] == type(found).__name__
    assert result.settings["schedule"].startswith("linear")


@pytest.mark.parametrize(
    "options",
    [
        ["--model.purifier", "my_purifier.Blur", "--model.purifier.sigma", "0.5"],
        ["--model.classifier", "my_classifier.small"],
        [
            *("--model.purifier.denoiser", "my_denoiser.Small"),
            *("--model.purifier.t_star", "20", "--model.purifier.num_steps", "2"),
        ],
    ],
    ids=["purifier", "classifier", "denoiser"],
)
def test_own_parts_on_the_command_line(options, parts, capsys):
    few = ["--data.limit", "2", "--attack.steps", "1", "--trainer.accelerator", "cpu"]
    small = ["--model.purifier.num_steps", "2"] if "--model.classifier" in options else []
    assert main(["test", "--config", "cifar_fixed", *options, *small, *few]) == 0
    printed = capsys.readouterr().out
    summary = files_of(printed).summary
    assert summary["status"] == "finished"
    assert ("no noise" in printed) == ("my_purifier.Blur" in options)
    if "my_purifier.Blur" in options:
        assert summary["settings"]["purifier"] == "Blur"
        assert summary["settings"]["purifier_options"] == {"sigma": 0.5}


def test_the_call_from_python(tmp_path, monkeypatch, capsys):
    (code,) = [code for code in CODE if "lp.evaluate(" in code]
    monkeypatch.chdir(tmp_path)
    quicker = code.replace("num_steps=10", "num_steps=2").replace("limit=20", "limit=2")
    assert quicker.count("=2") == 2
    names: dict = {}
    exec(quicker.replace("steps=10", "steps=1"), names)
    assert "Purified, attacked" in capsys.readouterr().out
    assert set(names["result"].rows[0]) >= {"index", "label", "transfer/robust_accuracy"}
    (with_noise,) = [code for code in CODE if code.startswith("with lp.randomness")]
    names |= {"images": torch.rand(2, 3, 32, 32), "indices": torch.tensor([3, 8])}
    exec(with_noise, names)
    assert names["logits"].shape == (2, 10)
