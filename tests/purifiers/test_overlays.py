"""Every overlay of a purifier that is no preset replaces the diffusion of the base."""

from pathlib import Path

import pytest
import tiny

from lit_purify.cli import main
from lit_purify.diffusion import PRESETS
from lit_purify.records.summary import read_summary

NAMES = sorted({path.stem for path in (tiny.CONFIGS / "purifier").glob("*.yaml")} - set(PRESETS))


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, tmp_path):
    overlay = tiny.CONFIGS / "purifier" / f"{name}.yaml"
    words = [
        *("test", "--config=cifar_fixed", f"--config={overlay}", "--config=measure/compression"),
        *("--model.classifier=tiny.classifier", "--model.protocols=[]", "--data.limit=2"),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"),
    ]
    if name == "averaged":
        inner = "--model.purifier.purifier"
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
    else:
        assert settings["purifier"].lower() == Path(name).stem.replace("_", "")
        assert "denoiser" not in settings["models"]
