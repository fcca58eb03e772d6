"""Sweeps through submitit: here by its executor of local processes, as there is no SLURM."""

import os
import sys
from pathlib import Path

import pytest
import tiny
from run_files import RunFiles

from lit_purify.cli import main
from lit_purify.sweeps import slurm
from lit_purify.sweeps.plan import SweepRun, expand
from lit_purify.sweeps.process import is_finished
from lit_purify.sweeps.slurm import Resources, Task, run_on_slurm
from lit_purify.sweeps.states import Sweep
from lit_purify.types import InputError

pytest.importorskip("submitit")
RUN = SweepRun("a", {}, ())


@pytest.mark.slow
def test_an_array_of_jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(tiny.__file__).parent), *sys.path]))
    small = ["--trainer.accelerator=cpu", "--model.purifier=tiny.IdentityPurifier"]
    small += ["--model.classifier=tiny.classifier", "--measure.images=null"]
    plan = {"configs": ["cifar_fixed"], "options": {"protocols": []}}
    plan["include"] = [{"limit": 2, "name": "good"}, {"limit": -1, "name": "bad"}]
    runs = expand(plan, small)
    sweep = Sweep(runs, tmp_path / "root")
    seen = []
    run_on_slurm(
        sweep,
        Resources(minutes=10, gpus=0, cpus=1),
        jobs=2,
        watch=lambda: seen.append(dict(sweep.phases)),
        cluster="local",
    )
    assert sweep.phases == {"good": "finished", "bad": "failed"}
    assert "limit" in sweep.errors["bad"]
    assert {"good": "running", "bad": "running"} in seen
    assert RunFiles(tiny.run_folder(tmp_path / "root" / "good")).summary["status"] == "finished"
    assert is_finished(runs[0], tmp_path / "root")
    assert Task()(runs[0], tmp_path / "root") == (0, "")  # queued once more


class Stub:
    """A run at work that writes down what is asked of it."""

    asked: tuple[str, ...] = ()

    def __init__(self, run, root):
        self.error = "told"

    def stop(self):
        self.asked += ("stop",)

    def wait(self):
        self.asked += ("wait",)
        return 143


def test_the_end_of_its_time_puts_a_job_back(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "RunProcess", Stub)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    task = Task()
    assert task(RUN, tmp_path) == (143, "told")
    assert "SLURM_NTASKS" not in os.environ
    again = task.checkpoint(RUN, tmp_path)
    assert task._process.asked[-2:] == ("stop", "wait")
    assert isinstance(again.function, Task)
    assert again.args == (RUN, tmp_path)
    assert Task().checkpoint(RUN, tmp_path).args == again.args  # before it had begun


def test_without_slurm_it_is_refused(tmp_path, capsys):
    arguments = ["sweep", "sweep/depth", "--root", str(tmp_path / "root"), "--slurm"]
    assert main(arguments) == 2
    assert "there is no SLURM here" in capsys.readouterr().err


def test_without_submitit_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="submitit"):
        run_on_slurm(Sweep([RUN], tmp_path), Resources())
