"""The sweeps that come with the package: the paper's tables and figures, and the studies."""

import re
import shlex

import pytest
import tiny
import yaml
from run_files import RunFiles

from lit_purify.cli import main
from lit_purify.cli.shipped import find_config
from lit_purify.cli.sweep import read_plan, split
from lit_purify.sweeps.plan import expand

FILES = sorted(
    path.relative_to(tiny.CONFIGS).with_suffix("").as_posix()
    for folder in ("paper", "sweep")
    for path in (tiny.CONFIGS / folder).glob("*.yaml")
)
PAPER = {
    *(f"table_{n}" for n in (1, 2, 3, 4, 5, 6, 7, "s2", "s3", "s4", "s5", "s6")),
    *(f"figure_{n}" for n in ("1c", "2", "3a", "3b", "3c", "s1", "s2", "s3", "s4")),
}
_parsed = set()


def header(name):
    """The comment at the top of a file, without its line breaks."""
    text = (tiny.CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    lines = [line.removeprefix("#") for line in text.splitlines() if line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ")


def commands(name):
    """The commands in the header of a file: the runs of each."""
    found = re.findall(r"python -m lit_purify sweep (.*)", header(name))
    for line in found:
        (file,), more = split(shlex.split(line))
        assert file == name
        yield expand(read_plan(name), more)


def test_every_table_and_figure_has_a_file():
    found = {name.removeprefix("paper/") for name in FILES if name.startswith("paper/")}
    assert found == PAPER | {"table_4_imagenet"}


@pytest.mark.parametrize("name", FILES)
def test_its_commands_are_understood(name, capsys):
    """The first run of every command and the last one, as the parser reads them."""
    assert "ESTIMATE" in header(name)
    assert list(commands(name))
    for runs in commands(name):
        assert all(
            find_config(word.removeprefix("--config="))
            for run in runs
            for word in run.options
            if word.startswith("--config=")
        )
        for run in (runs[0], runs[-1]):
            if run.options in _parsed:
                continue
            _parsed.add(run.options)
            with pytest.raises(SystemExit) as stop:
                main(["test", *run.options, "--print_config"])
            assert stop.value.code == 0, run.options
            assert "class_path" in capsys.readouterr().out


def test_the_embedded_study_is_that_of_its_command(tmp_path, capsys):
    """Word for word what a run of it is started with by hand, which can be gone on with."""
    by_hand = [
        *("test", "--config=cifar_fixed", "--config=purifier/ddpm"),
        *("--model.purifier.t_star=100", "--model.purifier.num_steps=10"),
        *("--model.protocols=[fixed]", "--attack.eps=2/255", "--attack.early_stop=true"),
        *("--data.limit=200", f"--trainer.default_root_dir={tmp_path / 'ddpm_t100_e2'}"),
    ]
    runs = {run.name: run for run in expand(read_plan("sweep/embedded"))}
    printed = []
    for words in (by_hand, runs["ddpm_t100_e2"].command(tmp_path)[:-1]):
        with pytest.raises(SystemExit):
            main([*words, "--print_config"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


QUICK = {
    ("paper/table_1", "reverse"): (),
    ("paper/table_2", "pgd_eot_s0"): ("--attack.draws=2",),
    ("paper/figure_2", "run"): ("--measure.variance.inputs=2", "--measure.variance.draws=2"),
}


@pytest.mark.parametrize(("name", "run"), QUICK)
def test_it_runs(name, run, tmp_path):
    small = [
        "--trainer.accelerator=cpu",
        "--model.purifier.denoiser=lit_purify.checkpoints.load_denoiser",
        f"--model.purifier.denoiser.path={tiny.denoiser_file(tmp_path)}",
        *("--model.purifier.t_star=20", "--model.purifier.num_steps=2", "--data.limit=2"),
        *("--attack.steps=1", *QUICK[name, run]),
    ]
    (found,) = (each for each in expand(read_plan(name), small) if each.name == run)
    assert main(found.command(tmp_path)) == 0
    summary = RunFiles(tiny.run_folder(tmp_path / run)).summary
    assert summary["status"] == "finished"
    assert summary["settings"]["images"] == 2
    if name == "paper/table_1":
        assert summary["settings"]["distance_surface"] == "fresh"
        assert summary["settings"]["quality_surface"] == "fresh"
        assert {"distance/l2_end", "quality/ssim_after"} <= summary["metrics"].keys()


def test_the_plan_in_the_docs():
    docs = (tiny.CONFIGS.parent / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (plan,) = re.findall(r"```yaml\n(.*?)```", docs, re.DOTALL)
    names = [run.name for run in expand(yaml.safe_load(plan))]
    assert len(names) == 2 * 3 * 2 - 2 + 2
    assert {"ddpm_t50_e2", "ddim_t100_e8", "eot"} < set(names)
    for line in re.findall(r"python -m lit_purify sweep (.*?)(?:  +#.*)?$", docs, re.MULTILINE):
        file = shlex.split(line)[0]
        assert file == "my_study.yaml" or read_plan(file)
