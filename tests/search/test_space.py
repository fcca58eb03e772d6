"""What a file of a search stands for."""

import pytest
import tiny

from lit_purify.cli import strict_yaml
from lit_purify.search.space import Space
from lit_purify.types import InputError

PRESETS = {"preset": {"axes": {"preset": ["ddpm", "ddim"], "t_star": [50]}}}


def space(**sections):
    return Space.of({"groups": {"presets": PRESETS}, **sections})


def test_plans_become_runs_by_names_of_their_own():
    blur = {"blur": {"configs": ["purifier/blur"], "axes": {"model.purifier.sigma": [0.5]}}}
    found = space(groups={"presets": PRESETS, "filters": blur}).candidates(
        ["cifar_fixed", "measure/compression"], ["--data.batch_size=8"]
    )
    assert [run.name for run in found["presets"]] == ["preset_ddpm_t50", "preset_ddim_t50"]
    (run,) = found["filters"]
    assert run.name == "blur_sigma_0.5"
    assert run.options == (
        *("--config=cifar_fixed", "--config=measure/compression", "--config=purifier/blur"),
        *("--model.purifier.sigma=0.5", "--data.batch_size=8"),
    )


def test_names_are_unlike_across_groups():
    with pytest.raises(InputError, match="preset_ddpm_t50"):
        space(groups={"presets": PRESETS, "more": PRESETS}).candidates(["cifar_fixed"], [])


def test_the_attack_stands_behind_what_a_run_has():
    searched = space(attack={"configs": ["attack/pgd"], "options": {"attack.steps": 200}})
    run = searched.candidates(["cifar_fixed"], [])["presets"][0]
    options = searched.attacked(run, ["--attack.eps=0.01"]).options
    assert options[: len(run.options)] == run.options
    assert options[len(run.options) :] == (
        *("--config=attack/pgd", "--attack.steps=200", "--attack.eps=0.01"),
    )


@pytest.mark.parametrize("name", ["default", "small"])
def test_the_spaces_that_come_along(name):
    text = (tiny.CONFIGS / "search" / f"{name}.yaml").read_text(encoding="utf-8")
    found = Space.of(strict_yaml.load(text)).candidates(["cifar_fixed"], [])
    names = [run.name for runs in found.values() for run in runs]
    assert len(names) == len(set(names)) >= 15
    if name == "default":
        assert f"{len(names)} purifiers" in text


@pytest.mark.parametrize(
    ("sections", "word"),
    [
        ({"images": [48, 16]}, "images"),
        ({"images": []}, "images"),
        ({"keep": 1}, "keep"),
        ({"finalists": 0}, "finalists"),
        ({"min_clean": 1.5}, "min_clean"),
        ({"groups": {"chains": PRESETS}}, "presets"),
        ({"groups": {"presets": {}}}, "plans"),
        ({"image": [16]}, "images"),
        ({"images": [0, 16]}, "images"),
        ({"min_clean": "high"}, "min_clean"),
        ({"groups": {"presets": {"preset": 3}}}, "no plan"),
        ({"groups": {"presets": {"preset": {"configs": 3}}}}, "configs"),
        ({"attack": 3}, "no plan"),
        ({"attack": {"axes": {"eps": ["2/255"]}}}, "axes"),
        ({"attack": {"options": {"stepps": 1}}}, "stepps"),
    ],
)
def test_what_is_no_space(sections, word):
    with pytest.raises(InputError, match=word):
        space(**sections)
    with pytest.raises(InputError, match="mapping"):
        Space.of([16])
