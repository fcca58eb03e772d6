"""``search`` from end to end, on defences in which all is tiny."""

import json

import pytest
import tiny
import yaml

from lit_purify.cli import main

SPACE = """
images: [2, 4]
keep: 2
finalists: 1
groups:
  presets:
    preset: {options: {num_steps: 2}, axes: {preset: [ddpm, ddim], t_star: [20]}}
  filters:
    blur: {configs: [purifier/blur], axes: {model.purifier.sigma: [0.5]}}
attack:
  options: {eps: 8/255, attack.steps: 2, attack.early_stop: true}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The arguments of a finished search, and its folder."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "space.yaml").write_text(SPACE)
    words = [
        *("search", f"--space={folder / 'space.yaml'}", f"--root={folder / 'found'}"),
        "--trainer.accelerator=cpu",
    ]
    assert main(words) == 0
    return words, folder / "found"


def test_what_it_writes(searched):
    _, root = searched
    found = json.loads((root / "search.json").read_text())
    assert [each["images"] for each in found["rounds"]] == [2, 4]
    assert {each["group"] for each in found["attacked"]} == {"presets", "filters"}
    assert len(found["rounds"][1]["purifiers"]) == 2
    assert found["failed"] == {}
    overlay = yaml.safe_load((root / "overlay.yaml").read_text())
    assert overlay["model"]["init_args"]["purifier"]["class_path"].endswith("Blur")


def test_the_overlay_is_a_configuration(searched, tmp_path):
    _, root = searched
    words = [
        *("test", "--config=cifar_fixed", f"--config={root / 'overlay.yaml'}"),
        *("--model.classifier=tiny.classifier", "--model.protocols=[]", "--data.limit=2"),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"),
        *tiny.UNMEASURED,
    ]
    assert main(words) == 0


def test_started_again_it_goes_on_with_what_is_there(searched, capsys):
    words, root = searched
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert root / "clean_4" / "blur_sigma_0.5" / "log.txt" in before
    assert main(words) == 0
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert after == before
    assert str(root) in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["--jobs=0"], "jobs"),
        (["--space=nowhere"], "nowhere"),
        (["--rot=x"], "rot"),
        (["--budget=-3"], "budget"),
    ],
)
def test_wrong_arguments(words, word, capsys):
    assert main(["search", *words]) == 2
    assert word in capsys.readouterr().err


def test_it_lists_what_it_would_try(capsys):
    assert main(["search", "--space=search/small", "--list"]) == 0
    assert "preset_ddpm_t50" in capsys.readouterr().out.split()
