"""The overlays that start several processes, each as its own launcher starts them."""

import pytest
import tiny
from processes import free_port, launch
from run_files import RunFiles

DDP, SLURM = tiny.LAUNCHED


def slurm_task(task, port):
    """The environment that srun gives to one of two tasks on one node."""
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "lit_purify",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(task),
        "SLURM_LOCALID": str(task),
        "MASTER_PORT": str(port),
    }


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [DDP, SLURM])
def test_two_processes_make_one_run(overlay, tmp_path):
    options = ("--trainer.devices", "2", "--data.batch_size", "auto")
    # Of a machine that is busy with something else nothing may be left for a budget.
    options += ("--model.purifier.memory_budget_gib", "0")
    args = tiny.command("test", "cifar_fixed.yaml", tmp_path, *options)
    args[3:3] = ["--config", str(tiny.CONFIGS / overlay)]
    environments = [{}]
    if overlay == SLURM:
        args += ["--trainer.num_nodes", "1"]
        port = free_port()
        environments = [slurm_task(task, port) for task in (0, 1)]
    words = ["-m", "lit_purify", *args, *tiny.UNMEASURED]
    launch(tmp_path, words, environments=environments)
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
    summary = RunFiles(tiny.run_folder(tmp_path)).summary
    assert summary["status"] == "finished"
    assert summary["settings"]["processes"] == 2
    assert summary["settings"]["batch_size"] == 2  # of three images
    assert summary["metrics"]["purified/clean_accuracy"]["n"] == 3
