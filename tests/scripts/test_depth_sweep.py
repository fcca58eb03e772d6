"""A sweep of two points with tiny models, and its repetition."""

import json
from pathlib import Path

import tiny
from script_files import load_script

script = load_script("depth_sweep")


def sweep(root, denoiser, *more):
    options = {
        "--trainer.accelerator": "cpu",
        "--model.purifier.denoiser": "tiny.float64_denoiser",
        "--model.purifier.denoiser.path": str(denoiser),
        "--model.classifier": "tiny.classifier",
        "--attack.steps": "2",
    }
    arguments = ["--presets", "ddpm", "reverse", "--t_star", "10", "--num_steps", "2"]
    arguments += ["--limit", "4", "--root", str(root), *more, "--"]
    assert script.main([*arguments, *(word for option in options.items() for word in option)]) == 0
    return json.loads((root / "report" / "law.json").read_text())


def test_every_point_is_measured_once(tmp_path, capsys):
    root, denoiser = tmp_path / "sweep", tiny.denoiser_file(tmp_path)
    law = sweep(root, denoiser)
    points = [root / f"{preset}_t10_n2" for preset in ("ddpm", "reverse")]
    folders = [point / "lightning_logs" / "version_0" for point in points]
    assert law["runs"] == [str(folder) for folder in folders]
    summaries = [(folder / "summary.json").read_text() for folder in folders]
    capsys.readouterr()

    again = sweep(root, denoiser)
    assert again == law
    assert [(folder / "summary.json").read_text() for folder in folders] == summaries
    assert capsys.readouterr().out.count("resumed: 4 of 4 images are recorded") == 2
    assert not list(root.glob("*/lightning_logs/version_1"))


def test_attacked(tmp_path):
    law = sweep(tmp_path / "sweep", tiny.denoiser_file(tmp_path), "--protocols", "fixed")
    for run in law["runs"]:
        metrics = json.loads((Path(run) / "summary.json").read_text())["metrics"]
        assert metrics["fixed/robust_accuracy"]["n"] == metrics["magnitude/l2"]["n"] == 4
    assert (tmp_path / "sweep" / "report" / "magnitude.png").is_file()
