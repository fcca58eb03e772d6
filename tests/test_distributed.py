"""Two processes give the summary of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from lit_purify.cli import main

CONFIG = Path(__file__).parent.parent / "configs" / "cifar_fixed.yaml"


@pytest.mark.slow
def test_two_processes_give_the_summary_of_one(tmp_path):
    alone, together = tmp_path / "one", tmp_path / "two"
    alone.mkdir()
    together.mkdir()
    assert main(tiny.command("test", str(CONFIG), alone)) == 0
    subprocess.run(
        [
            *(sys.executable, "-m", "lit_purify"),
            *tiny.command("test", str(CONFIG), together),
            *("--trainer.devices", "2", "--trainer.strategy", "ddp"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=True,
    )
    one, two = (
        json.loads((tiny.run_folder(folder) / "summary.json").read_text(encoding="utf-8"))
        for folder in (alone, together)
    )
    assert two["status"] == "finished"
    assert two["settings"]["processes"] == 2
    assert two["metrics"].keys() == one["metrics"].keys()
    for name, expected in one["metrics"].items():
        found = two["metrics"][name]
        for statistic, value in expected.items():  # None: unknown, as a deviation of no samples
            same = value if value is None else pytest.approx(value, rel=1e-4)
            assert found[statistic] == same, (name, statistic)
