"""A sweep of two points with tiny models, and its repetition."""

import json
from pathlib import Path

import tiny
from run_files import RunFiles
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
    law = json.loads((root / "report" / "law.json").read_text())
    runs = [RunFiles(Path(run)) for run in law["runs"]]
    points = [root / f"{preset}_t10_n2" for preset in ("ddpm", "reverse")]
    assert [run.folder for run in runs] == [tiny.run_folder(point) for point in points]
    return law, [run.summary for run in runs]


def test_every_point_is_measured_once(tmp_path, capsys):
    root, denoiser = tmp_path / "sweep", tiny.denoiser_file(tmp_path)
    first = sweep(root, denoiser)
    capsys.readouterr()
    assert sweep(root, denoiser) == first
    assert capsys.readouterr().out.count("resumed: 4 of 4 images are recorded") == 2
    assert not list(root.glob("*/lightning_logs/version_1"))


def test_attacked(tmp_path):
    root = tmp_path / "sweep"
    _, summaries = sweep(root, tiny.denoiser_file(tmp_path), "--protocols", "fixed")
    for summary in summaries:
        for name in ("fixed/robust_accuracy", "magnitude/l2"):
            assert summary["metrics"][name]["n"] == 4
    assert (root / "report" / "magnitude.png").is_file()
