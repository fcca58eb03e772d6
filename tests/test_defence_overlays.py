"""The overlays of repeated and guided purification run, as published but for the steps."""

import pytest
import tiny

from lit_purify.cli import main
from lit_purify.records.summary import read_summary

GUIDED = {"rounds": "36 in 2 steps x 4", "guidance": 28687.5}
CASES = [
    (
        *("lee_kim", [], "RepeatedPurifier"),
        {"rounds": "30 in 2 steps x 4, 50 in 2 steps x 2, 125 in 2 steps x 2"},
    ),
    ("gdmp", [], "GuidedPurifier", {**GUIDED, "distance": "mse"}),
    ("gdmp", ["--model.purifier.distance=ssim"], "GuidedPurifier", {**GUIDED, "distance": "ssim"}),
]


@pytest.mark.parametrize(("name", "more", "purifier", "options"), CASES)
def test_it_runs(name, more, purifier, options, tmp_path):
    words = [
        *("test", "--config=cifar_fixed", f"--config=defence/{name}", "--config=measure/masking"),
        *("--model.classifier=tiny.classifier", "--model.protocols=[fixed]", "--data.limit=2"),
        *("--attack.steps=1", "--measure.masking.samples=0", "--model.purifier.num_steps=2"),
        "--model.purifier.denoiser=lit_purify.checkpoints.load_denoiser",
        f"--model.purifier.denoiser.path={tiny.denoiser_file(tmp_path)}",
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}", *more),
    ]
    assert main(words) == 0
    summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
    settings, metrics = summary["settings"], summary["metrics"]
    assert (settings["purifier"], settings["purifier_options"]) == (purifier, options)
    assert metrics["fixed/robust_accuracy"]["n"] == 2
    assert metrics["masking/wrong_gradient"]["value"] == 0
