"""A denoiser of another noise schedule, from its file to the summary of a run."""

from pathlib import Path

import pytest
import tiny
import yaml

from lit_purify.cli import main
from lit_purify.records.summary import read_summary

COSINE = "lit_purify.diffusion.CosineSchedule"


def run(folder: Path, schedule: object, t_star: int) -> int:
    denoiser = {"class_path": "lit_purify.checkpoints.load_denoiser"}
    denoiser["init_args"] = {"path": str(tiny.denoiser_file(folder)), "schedule": schedule}
    overlay = folder / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"model": {"purifier": {"denoiser": denoiser}}}))
    more = ["--config", str(overlay), "--model.purifier.t_star", str(t_star), *tiny.UNMEASURED]
    return main(tiny.command("test", "cifar_fixed.yaml", folder, *more))


def test_the_schedule_is_the_denoisers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 4000 steps by default, more than the linear one has; any depth within it."""
    assert run(tmp_path, {"class_path": COSINE}, 4000) == 0
    settings = read_summary(tiny.run_folder(tmp_path) / "summary.json")["settings"]
    assert settings["schedule"] == "squared cosine, 4000 steps"
    assert (settings["t_star"], settings["num_steps"]) == (4000, 2)
    assert "squared cosine, 4000 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("steps", "t_star", "message"),
    [(4000, 4001, "between 1 and 4000"), (500, 501, "between 1 and 500"), (0, 1, "1 or more")],
)
def test_a_depth_outside_of_it_is_refused(
    steps: int, t_star: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = {"class_path": COSINE, "init_args": {"num_train_steps": steps}}
    assert run(tmp_path, schedule, t_star) == 2
    assert message in capsys.readouterr().err
