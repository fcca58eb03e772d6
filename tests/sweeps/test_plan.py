"""Which runs a plan has, under which names and with which arguments."""

from pathlib import Path

import pytest
import tiny
import yaml

from lit_purify.sweeps.plan import OVERLAYS, expand
from lit_purify.types import InputError


def shipped(name):
    return yaml.safe_load((tiny.CONFIGS / f"{name}.yaml").read_text())


def test_every_combination_once_the_last_axis_fastest():
    axes = {"preset": ["ddpm", "ddim"], "t_star": [50, 100], "eps": ["1/255", 0.5]}
    runs = expand({"axes": axes})
    assert len(runs) == 8
    assert [run.name for run in runs[:3]] == ["ddpm_t50_e1", "ddpm_t50_e0.5", "ddpm_t100_e1"]
    assert runs[-1].values == {"preset": "ddim", "t_star": 100, "eps": 0.5}


def test_the_arguments_of_the_embedded_study():
    runs = {run.name: run for run in expand(shipped("sweep/embedded"))}
    assert len(runs) == 3 * 7 * 4
    command = runs["ddpm_t100_e2"].command(Path("/study"))
    assert command[:3] == ["test", "--config=cifar_fixed", "--config=purifier/ddpm"]
    assert command[-2:] == ["--trainer.default_root_dir=/study/ddpm_t100_e2", "--resume=here"]
    assert set(command[3:-2]) == {
        "--model.purifier.t_star=100",
        "--model.purifier.num_steps=10",
        '--model.protocols=["fixed"]',
        "--attack.eps=2/255",
        "--attack.early_stop=true",
        "--data.limit=200",
    }


def test_a_chain_has_no_more_steps_than_its_depth():
    plan = {"options": {"num_steps": 20}, "axes": {"t_star": [10, 100]}}
    steps = [run.options[0] for run in expand(plan)]
    assert steps == [f"--model.purifier.num_steps={n}" for n in (10, 20)]
    whole = {"options": {"num_steps": None}, "axes": {"t_star": [10]}}
    assert expand(whole)[0].options[0] == "--model.purifier.num_steps=null"


def test_what_is_left_out_and_what_stands_beside():
    plan = {
        "axes": {"preset": ["ddpm", "reverse"], "t_star": [50, 300]},
        "except": [{"preset": "reverse", "t_star": 300}],
        "include": [{"preset": "ddim", "t_star": 100}, {"name": "eot", "attack": "pgd_eot"}],
    }
    names = [run.name for run in expand(plan)]
    assert names == ["ddpm_t50", "ddpm_t300", "reverse_t50", "ddim_t100", "eot"]


def test_defences_are_an_axis():
    runs = expand({"options": {"num_steps": 3}, "axes": {"defence": ["lee_kim", "gdmp"]}})
    assert [run.name for run in runs] == ["lee_kim", "gdmp"]
    assert runs[1].options == ("--config=defence/gdmp", "--model.purifier.num_steps=3")


def test_runs_without_an_axis():
    (run,) = expand({"configs": ["cifar_fixed"]})
    assert run == ("run", {}, ("--config=cifar_fixed",))
    assert [run.name for run in expand({"include": [{"seed": 1}, {"seed": 2}]})] == ["s1", "s2"]


def test_what_wins():
    plan = {"configs": ["a"], "options": {"seed": 1, "limit": 5}, "axes": {"preset": ["ddim"]}}
    plan["include"] = [{"seed": 7}]
    runs = expand(plan, ["--data.limit=2", "--config=models/b"])
    overlaid = ("--config=a", "--config=models/b", "--config=purifier/ddim")
    assert runs[0].options == (*overlaid, "--model.seed=1", "--data.limit=5", "--data.limit=2")
    assert runs[1].options[2:] == ("--model.seed=7", "--data.limit=5", "--data.limit=2")


def test_names_of_other_values():
    axes = {"attack.early_stop": [True], "protocols": [["fixed", "fresh"]], "limit": [8]}
    (run,) = expand({"axes": axes})
    assert run.name == "early_stop_true_fixed-fresh_limit8"
    assert run.options[1] == '--model.protocols=["fixed", "fresh"]'


@pytest.mark.parametrize("folder", sorted(set(OVERLAYS.values())))
def test_overlays_are_where_they_are_looked_for(folder):
    assert list((tiny.CONFIGS / folder).glob("*.yaml"))


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"axis": {}}, "did you mean axes"),
        ({"axes": [1]}, "mapping"),
        ({"options": [1]}, "mapping"),
        ({"configs": "cifar_fixed"}, "list"),
        ({"axes": {"seed": 3}}, "expected a list"),
        ({"axes": {"seed": []}}, "expected a list"),
        ({"axes": {"tstar": [1]}}, "did you mean t_star"),
        ({"options": {"stepps": 1}}, "stepps"),
        ({"include": ["ddpm"]}, "no run"),
        ({"include": [{"sed": 1}]}, "did you mean seed"),
        ({"axes": {"seed": [1]}, "except": [{"eps": 1}]}, "no axis"),
        ({"axes": {"seed": [1, 1]}}, "named s1"),
        ({"include": [{"name": "a/b"}]}, "no folder"),
        ({"include": [{"name": ".."}]}, "no folder"),
        ({"axes": {"seed": [1]}, "except": [{"seed": 1}]}, "no run"),
        (3, "no plan"),
    ],
)
def test_what_is_no_plan(plan, words):
    with pytest.raises(InputError, match=words):
        expand(plan)
