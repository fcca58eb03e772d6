"""The overlays that start several processes, each as its own launcher starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from lit_purify.records.summary import read_summary

DDP, SLURM = tiny.LAUNCHED


def command(overlay: str, folder: Path) -> list[str]:
    args = tiny.command("test", "cifar_fixed.yaml", folder, "--trainer.devices", "2")
    args[3:3] = ["--config", str(tiny.CONFIGS / overlay)]
    return [sys.executable, "-m", "lit_purify", *args, *tiny.UNMEASURED]


@pytest.mark.slow
def test_ddp(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(DDP, tmp_path), env=environment, timeout=120, check=True)
    check(tmp_path)


@pytest.mark.slow
def test_slurm(tmp_path):
    """Two tasks in the environment that srun gives them on one node."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    step = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "lit_purify",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NODEID": "0",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    args = [*command(SLURM, tmp_path), "--trainer.num_nodes", "1"]
    tasks = [
        subprocess.Popen(
            args, env=os.environ | step | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)}
        )
        for task in (0, 1)
    ]
    try:
        assert [task.wait(120) for task in tasks] == [0, 0]
    finally:
        for task in tasks:
            task.kill()
    check(tmp_path)


def check(root: Path) -> None:
    """One folder, and every image in it once."""
    assert [path.name for path in (root / "lightning_logs").iterdir()] == ["version_0"]
    summary = read_summary(tiny.run_folder(root) / "summary.json")
    assert summary["status"] == "finished"
    assert summary["settings"]["processes"] == 2
    assert summary["metrics"]["purified/clean_accuracy"]["n"] == 3
