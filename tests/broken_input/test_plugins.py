"""Classes of a user's own that are wrong, and what other libraries raise."""

import pytest

from lit_purify.cli import main

RAISING = "--model.purifier={class_path: plugins.Raising, init_args: {what: %s, late: %s}}"
PLUGINS = {
    "no number of classes": ("--model.classifier=plugins.NoNumber", "num_classes = 10"),
    "logits in a dict": ("--model.classifier=plugins.DictOfLogits", "return that tensor"),
    "logits in a pair": ("--model.classifier=plugins.PairOfLogits", "(1, 10)"),
    "one number per image": ("--model.classifier=plugins.OneNumber", "(1, 10)"),
    "no annotation": ("--model.classifier=plugins.unannotated", "`-> Classifier`"),
    "no annotation, purifier": (
        "--model.purifier={class_path: plugins.unannotated_purifier}",
        "unannotated_purifier does not say",
    ),
    "images in 0..255": ("--data=plugins.Bytes", "divide 0 .. 255 values by 255"),
    "constructor raises": (RAISING % ("value", "false"), "error: ValueError: sigma must be"),
    "constructor raises, no words": (RAISING % ("key", "false"), "plugins.py"),
    "module missing": (RAISING % ("missing module", "false"), "pip install timmm"),
    "requirement missing": (RAISING % ("requirement", "false"), "pip install 'wandb>=0.12'"),
    "module missing, late": (RAISING % ("missing module", "true"), "pip install timmm"),
    "memory": (RAISING % ("memory", "true"), "--data.batch_size"),
    "memory, in the allocator": (
        "--model.purifier={class_path: plugins.Greedy}",
        "--model.purifier.memory_budget_gib",
    ),
    "memory of the GPU": (RAISING % ("GPU memory", "true"), "memory of the GPU"),
    "no compiler": (RAISING % ("compiler", "true"), "install g++"),
    "no compiler for the GPU": (RAISING % ("triton", "true"), "--model.compile"),
    "disk of another path": (RAISING % ("disk", "true"), "a.bin; make room, or name another"),
    "logger of a package that is missing": (
        "--trainer.logger=lightning.pytorch.loggers.CometLogger",
        "pip install 'comet",
    ),
    "callback that cannot be written": (
        "--trainer.callbacks=[lightning.pytorch.callbacks.Timer]",
        "config.yaml",
    ),
    "strategy that spawns": ("--trainer.strategy=ddp_spawn --trainer.devices=2", "ddp,"),
    "strategy that forks": ("--trainer.strategy=ddp_fork --trainer.devices=2", "ddp,"),
}


@pytest.mark.parametrize("what", PLUGINS)
def test_it_is_refused(what, refuse):
    options, word = PLUGINS[what]
    refuse("test", options, word)


@pytest.mark.parametrize("job", [{"SLURM_JOB_NAME": "train"}, {"SLURM_PROCID": "0"}], ids=str)
def test_a_slurm_job_that_runs_one_process(job, refuse, monkeypatch):
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", **job}.items():
        monkeypatch.setenv(name, value)
    refuse("test", "--trainer.devices=1", "SLURM_NTASKS")


def test_a_defect_of_this_package_in_a_constructor_keeps_its_traceback(workplace, monkeypatch):
    monkeypatch.setattr("lit_purify.attacks.base.ratio", None)
    with pytest.raises(TypeError, match="NoneType"):
        main(workplace.arguments("test"))
