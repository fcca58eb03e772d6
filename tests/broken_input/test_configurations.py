"""Configuration files."""

import copy
import math
import random
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from refusals import Make, Workplace, nothing, the_error_line, unreadable, write

from lit_purify.cli import main

CONFIGURATIONS: dict[str, tuple[Make, str]] = {
    "no file": (nothing, "not exist"),
    "a folder": (Path.mkdir, "not a file"),
    "broken YAML": (write("model: [\n"), "pars"),
    "tabs": (write("model:\n\tseed: 1\n"), "pars"),
    "NUL bytes": (write(b"\0" * 9), "pars"),
    "code in YAML": (
        lambda p: p.write_text(
            f"model: !!python/object/apply:os.mkdir [{p.parent / 'executed'}]\n"
        ),
        "python/object/apply",
    ),
    "only comments": (write("# nothing\n"), "config"),
    "a word": (write("hello\n"), "config"),
    "two documents": (write("data: {}\n---\ndata: {}\n"), "document"),
    "unknown key": (write("trainer:\n  max_stepz: 3\n"), "max_stepz"),
    "unknown section": (write("modle:\n  seed: 3\n"), "modle"),
    "unknown deep key": (
        write("model: {init_args: {purifier: {init_args: {t_stra: 3}}}}\n"),
        "t_stra",
    ),
    "a number as key": (write("1: 2\n"), "1"),
    "model is a list": (write("model: [1, 2]\n"), "model"),
    "model is a word": (write("model: hello\n"), "hello"),
    "model null": (write("model: null\n"), "model"),
    "data null": (write("data: null\n"), "data"),
    "unknown class": (write("model: {class_path: lit_purify.Nope}\n"), "lit_purify.Nope"),
    "unknown module": (write("model: {class_path: nowhere.Nope}\n"), "nowhere"),
    "class of another kind": (
        write("model: {class_path: lit_purify.attacks.PGD}\n"),
        "lit_purify.attacks.PGD",
    ),
    "function of the system": (
        write("model: {init_args: {classifier: {class_path: os.getcwd}}}\n"),
        "os.getcwd",
    ),
    "number where text is expected": (write("data: {init_args: {source: 3.5}}\n"), "source"),
    "mapping where a number is expected": (write("data: {init_args: {limit: {a: 1}}}\n"), "limit"),
    "bytes": (write(bytes(range(256))), "c.yaml is not YAML"),
    "UTF-16": (write("data: {}\n".encode("utf-16")), "not YAML"),
    "a picture": (write(b"\x89PNG\r\n\x1a\n\0"), "not YAML"),
    "unreadable": (unreadable, "c.yaml"),
    "empty": (write(""), "c.yaml holds nothing"),
    "a list": (write("- model\n"), "sequence"),
    "a key twice": (write("data:\n  init_args:\n    limit: 1\n    limit: 2\n"), "line 4"),
    "a part inside itself": (write("model: &a\n  init_args: *a\n"), "contains itself"),
    "trainer null": (write("trainer: null\n"), "is None"),
    "trainer is a list": (write("trainer: [1]\n"), "is [1]"),
    "measure null": (write("measure: null\n"), "measure is None"),
    "measure is a list": (write("measure: [jacobian]\n"), "measure is"),
    "attack null": (write("attack: null\n"), "is null"),
    "protocols null": (write("model: {init_args: {protocols: null}}\n"), "protocols"),
    "model of another kind": (
        write("model: {class_path: lightning.pytorch.demos.boring_classes.BoringModel}\n"),
        "PurifiedClassifier",
    ),
}


@pytest.mark.parametrize("what", CONFIGURATIONS)
def test_it_is_refused(what, refuse):
    make, word = CONFIGURATIONS[what]
    refuse("test", "--config={input}", word, make, "c.yaml")


# null joins these with the pending cases: the parser lets it pass everywhere.
ODD = [None, "", "abc", -1, 0, 1e308, math.nan, [], {}, "x" * 5000, {"a": [{"b": None}]}, [[1]]]
MUTATIONS = 100


def _leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the leaves of a configuration are, and its sections."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += _leaves(value, (*path, key))
    return found


def _configuration(workplace: Workplace) -> dict[str, Any]:
    """The paper's evaluation with small models and data."""
    config = yaml.safe_load((tiny.CONFIGS / "cifar_fixed.yaml").read_text(encoding="utf-8"))
    model, purifier = config["model"]["init_args"], config["model"]["init_args"]["purifier"]
    purifier["init_args"]["denoiser"] = {
        "class_path": "lit_purify.checkpoints.load_denoiser",
        "init_args": {"path": str(workplace.sound / "tiny.safetensors")},
    }
    purifier["init_args"] |= {"t_star": 20, "num_steps": 2}
    model["classifier"] = {"class_path": "tiny.classifier"}
    config["attack"]["init_args"] |= {"steps": 1}
    config["data"]["init_args"] |= {"source": str(workplace.sound / "sound.npz"), "limit": 1}
    del config["measure"]["images"]
    return config


@pytest.mark.parametrize("seed", range(MUTATIONS))
def test_an_odd_value_anywhere_is_used_or_refused(seed, workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = _configuration(workplace)
    rng = random.Random(seed)
    *path, key = rng.choice(_leaves(config))
    place = config
    for step in path:
        place = place[step]
    place[key] = copy.deepcopy(rng.choice(ODD))
    file = tmp_path / "odd.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    args = ["test", "--config", str(file), "--trainer.accelerator", "cpu"]
    status = main([*args, "--trainer.default_root_dir", str(tmp_path)])
    printed = capsys.readouterr().err
    assert status in (0, 2)
    if status == 2:
        the_error_line(printed)
    assert "Traceback" not in printed
