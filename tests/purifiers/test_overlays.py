"""Every overlay of a purifier that is no preset replaces the diffusion of the base, or its rule."""

from pathlib import Path

import pytest
import tiny

from lit_purify.cli import main
from lit_purify.diffusion import PRESETS
from lit_purify.records.summary import read_summary

NAMES = sorted({path.stem for path in (tiny.CONFIGS / "purifier").glob("*.yaml")} - set(PRESETS))

SAMPLERS = {
    "dpm_solver": "DPMSolverSampler",
    "edm": "EDMSampler",
    "ode": "ProbabilityFlowSampler",
    "vpsde": "VPSDESampler",
}
DIFFUSIONS = {"averaged": "--model.purifier.purifier"} | dict.fromkeys(SAMPLERS, "--model.purifier")


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, tmp_path):
    overlay = tiny.CONFIGS / "purifier" / f"{name}.yaml"
    words = [
        *("test", "--config=cifar_fixed", f"--config={overlay}", "--config=measure/compression"),
        *("--model.classifier=tiny.classifier", "--model.protocols=[]", "--data.limit=2"),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"),
    ]
    if inner := DIFFUSIONS.get(name):
        words += [
            f"{inner}.denoiser=lit_purify.checkpoints.load_denoiser",
            f"{inner}.denoiser.path={tiny.denoiser_file(tmp_path)}",
            f"{inner}.num_steps=2",
        ]
    assert main(words) == 0
    summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
    settings = summary["settings"]
    assert summary["metrics"]["uniform/compression_rate"]["n"] == 2
    if name == "averaged":
        assert settings["purifier_options"] == {"averaged": "images", "averaged_draws": 4}
        assert settings["num_steps"] == 2
    elif name in SAMPLERS:
        assert settings["sampler"] == SAMPLERS[name]
        assert settings["num_steps"] == 2
    else:
        assert settings["purifier"].lower() == Path(name).stem.replace("_", "")
        assert "denoiser" not in settings["models"]


def test_a_solver_of_its_own_steps_runs_too(tmp_path):
    words = [
        *("test", "--config=cifar_fixed", "--config=measure/compression", "--data.limit=2"),
        *("--model.classifier=tiny.classifier", "--model.protocols=[fixed]", "--attack.steps=2"),
        "--model.purifier=lit_purify.diffusion.AdaptiveFlowPurifier",
        *("--model.purifier.t_star=20", "--model.purifier.method=adaptive_heun"),
        "--model.purifier.denoiser=lit_purify.checkpoints.load_denoiser",
        f"--model.purifier.denoiser.path={tiny.denoiser_file(tmp_path)}",
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"),
        "--data.batch_size=auto",
    ]
    assert main(words) == 0
    settings = read_summary(tiny.run_folder(tmp_path) / "summary.json")["settings"]
    assert settings["purifier"] == "AdaptiveFlowPurifier"
    assert "constants" in settings["purifier_gradient"]
