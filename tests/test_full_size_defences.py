"""Every overlay of a defence runs for one image with the network that its header names, full-size.

The weights are random and the chains are short, which the runs say of themselves.
"""

import pytest
import tiny

from lit_purify.cli import main
from lit_purify.records.summary import read_summary

SCORE_SDE = ["--model.purifier.denoiser=lit_purify.diffusion.score_sde_unet"]
DDPM = ["--model.purifier.denoiser=lit_purify.diffusion.ddpm_unet"]
IMPROVED = [
    "--model.purifier.denoiser=lit_purify.diffusion.guided_diffusion_unet",
    *(
        f"--model.purifier.denoiser.{argument}"
        for argument in (
            *("image_size=32", "model_channels=128", "channel_mult=[1,2,2,2]"),
            *("num_res_blocks=3", "attention_resolutions=[16,8]", "num_heads=4"),
            "resblock_updown=false",
        )
    ),
]
ATTACKED = ["--model.protocols=[fixed]", "--attack.steps=1", *tiny.UNMEASURED]
CERTIFIED = [
    f"--measure.certified.{argument}"
    for argument in ("n0=1", "n=4", "alpha=0.1", "radii=[0.1]", "rows_per_pass=8")
]
CASES = {
    "adbm": (SCORE_SDE, "106.6 M", 2, ATTACKED),
    "diffpure_ode": (SCORE_SDE, "106.6 M", 2, ATTACKED),
    "diffpure_sde": (SCORE_SDE, "106.6 M", 2, ATTACKED),
    "lee_kim": (SCORE_SDE, "106.6 M", 8, ATTACKED),
    "gdmp": (DDPM, "35.7 M", 8, ATTACKED),
    "denoised_smoothing": (IMPROVED, "52.5 M", 1, CERTIFIED),
    "densepure": (IMPROVED, "52.5 M", 2, [*CERTIFIED, "--measure.certified.reversals=2"]),
}
"""Overlay -> its network, the network's size, reverse steps of the chain, how it is tested."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_runs_with_the_network_it_names(name, tmp_path):
    network, size, steps, tested = CASES[name]
    rounds = {"lee_kim": 8, "gdmp": 4}.get(name, 1)
    words = [
        *("test", "--config=cifar_fixed", f"--config=defence/{name}", "--data.limit=1"),
        *(*network, f"--model.purifier.num_steps={steps // rounds}", *tested),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"),
    ]
    assert main(words) == 0
    summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
    assert summary["settings"]["num_steps"] == steps
    assert any(f"{size} parameters, random weights" in flag for flag in summary["flags"])
    if tested is ATTACKED:
        assert summary["metrics"]["fixed/robust_accuracy"]["n"] == 1
        assert summary["metrics"]["fixed/zero_gradient"]["value"] == 0
    else:
        assert summary["metrics"]["certified/accuracy_at_0.1"]["n"] == 1


def test_no_overlay_is_missing():
    assert {path.stem for path in (tiny.CONFIGS / "defence").glob("*.yaml")} == set(CASES)
