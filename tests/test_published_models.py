"""The configurations of the published models run, on small networks in the published formats.

``configs/imagenet_fixed.yaml`` runs as it is, but for the number of images and iterations.
"""

import dataclasses
import re
from pathlib import Path

import pytest
import tiny
import torch
from edm_network import state_of
from published_networks import DDPM, Guided, ScoreSDE, random_state, shapes_of
from run_files import RunFiles
from safetensors.torch import save_file
from torchvision.models import resnet50

from lit_purify.checkpoints.denoisers import PARAMETERS, TRAINED, load_denoiser
from lit_purify.classifiers.robustbench_import import import_robustbench
from lit_purify.cli import main
from lit_purify.diffusion import ddpm_unet
from lit_purify.records.summary import read_summary
from lit_purify.weights import CACHE, MIRROR, WEIGHTS
from lit_purify.weights.content import sha256

SMALL_DDPM = DDPM(widths=(32, 64), attention=(1,), layers=1)
SMALL_GUIDED = Guided(width=64, factors=(1, 1), attention=(1,), layers=1)
SMALL_IMPROVED = Guided(
    width=32, factors=(1, 2), attention=(1,), layers=1, heads=4, convolutions=True
)
SMALL_SCORE_SDE = ScoreSDE(widths=(16, 32), attention=(1,), layers=1)
QUICK = ("--attack.steps", "1", "--data.limit", "1", *tiny.UNMEASURED)


def network(make):
    """The weights of a network, drawn without the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {name: x.contiguous() for name, x in make().state_dict().items()}


def training(state):
    """A checkpoint as Score-SDE writes it, with these averaged weights."""
    model = {f"module.{name}": x for name, x in state.items()}
    return {"model": model, "ema": {"shadow_params": list(state.values())}, "step": 1}


def wide_resnet():
    zoo = import_robustbench("robustbench.model_zoo.architectures.wide_resnet")
    return zoo.WideResNet(depth=28, widen_factor=10)


STATES = {
    "ddpm_cifar10": lambda: random_state(shapes_of(SMALL_DDPM)),
    # The one file that only the full-size network fits, as no configuration lies beside it.
    "google_ddpm_cifar10_32": lambda: network(lambda: ddpm_unet().network),
    "guided_diffusion_256_uncond": lambda: random_state(shapes_of(SMALL_GUIDED)),
    "score_sde_cifar10": lambda: training(random_state(shapes_of(SMALL_SCORE_SDE))),
    "improved_diffusion_cifar10": lambda: random_state(shapes_of(SMALL_IMPROVED)),
    "ddpm_celebahq_256": lambda: random_state(shapes_of(SMALL_DDPM)),
    "edm_cifar10_uncond_vp": lambda: state_of(sides=(32, 16), attention=(16,)),
    "robustbench_cifar10_standard": lambda: network(wide_resnet),
    "resnet50_imagenet": lambda: network(resnet50),
}
"""What stands for the published files."""


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Puts a file where a published one would be, with its own size and hash known."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    made = []

    def put(name):
        path = WEIGHTS[name].path
        path.parent.mkdir(parents=True, exist_ok=True)
        (save_file if path.suffix == ".safetensors" else torch.save)(STATES[name](), path)
        made.append(path)
        digest = f"sha256:{sha256(path)}"
        entry = dataclasses.replace(WEIGHTS[name], size=path.stat().st_size, hash=digest)
        monkeypatch.setitem(WEIGHTS, name, entry)
        if name in PARAMETERS:
            network = load_denoiser(str(path), **TRAINED.get(name, {})).network
            size = sum(x.numel() for x in network.parameters())
            monkeypatch.setitem(PARAMETERS, name, size)

    yield put
    for path in made:  # pytest keeps its folders, and these are large
        path.unlink()


def run(folder, base, overlay, *more):
    """Settings of a run of a configuration, without and with an overlay."""
    args = ["test", "--config", str(tiny.CONFIGS / base)]
    if overlay:
        args += ["--config", str(tiny.CONFIGS / "models" / overlay)]
    place = ("--trainer.default_root_dir", str(folder), "--trainer.accelerator", "cpu")
    assert main([*args, *QUICK, *place, *more]) == 0
    summary = RunFiles(tiny.run_folder(folder)).summary
    assert summary["status"] == "finished"
    assert summary["metrics"]["purified/clean_accuracy"]["n"] == 1
    return summary["settings"]


SHORT = ("--model.purifier.num_steps", "1", "--model.protocols", "[fixed]")
OVERLAYS = {
    "cifar_official.yaml": ("ddpm_cifar10", "robustbench_cifar10_standard"),
    "cifar_google.yaml": ("google_ddpm_cifar10_32", "robustbench_cifar10_standard"),
    "cifar_score_sde.yaml": ("score_sde_cifar10", "robustbench_cifar10_standard"),
    "cifar_improved_diffusion.yaml": (
        "improved_diffusion_cifar10",
        "robustbench_cifar10_standard",
    ),
    "cifar_edm.yaml": ("edm_cifar10_uncond_vp", "robustbench_cifar10_standard"),
    "imagenet_official.yaml": ("guided_diffusion_256_uncond", "resnet50_imagenet"),
    "celebahq_official.yaml": ("ddpm_celebahq_256",),
    "cifar_untrained.yaml": (),
}
"""The published files that each overlay names: its denoiser's and its classifier's."""
VARIANCES = {
    "cifar_improved_diffusion.yaml": "learned_range",
    "imagenet_official.yaml": "learned_range",
    "celebahq_official.yaml": "fixed_small",
}
"""Where it is not the one of Ho et al. on CIFAR-10."""


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_of_published_models_runs(overlay, publish, tmp_path):
    first = (tiny.CONFIGS / "models" / overlay).read_text(encoding="utf-8").split("\n", 1)[0]
    base = re.match(r"# Overlay on (\S+\.yaml)", first)[1]
    smaller = ("--model.purifier.resize_to", "32") if base.startswith("imagenet") else ()
    for name in OVERLAYS[overlay]:
        publish(name)
    settings = run(tmp_path, base, overlay, *SHORT, *smaller)
    models = settings["models"]
    for role, name in zip(("denoiser", "classifier"), OVERLAYS[overlay], strict=False):
        assert f"sha256:{models[role]['sha256']}" == WEIGHTS[name].hash
    assert ("untrained" in models["denoiser"]["source"]) == (not OVERLAYS[overlay])
    variance = VARIANCES.get(overlay, "fixed_large")
    assert settings["sampler_options"] == {"clip": True, "variance": variance}


def test_every_overlay_of_models_is_run():
    assert set(OVERLAYS) == {path.name for path in (tiny.CONFIGS / "models").glob("*.yaml")}


@pytest.mark.slow
def test_imagenet_runs_with_real_images_and_a_real_classifier(tmp_path):
    settings = run(tmp_path, "imagenet_fixed.yaml", None)
    assert settings["data"] == "foolbox"
    assert "untrained" in settings["models"]["denoiser"]["source"]
    assert "EfficientNet" in settings["models"]["classifier"]["source"]


def test_the_denoiser_of_an_overlay_takes_all_steps():
    for overlay in OVERLAYS:
        text = (tiny.CONFIGS / "models" / overlay).read_text(encoding="utf-8")
        assert "num_steps: null" in text


def test_a_published_file_that_is_missing_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(MIRROR, str(tmp_path / "nothing here"))
    configs = (tiny.CONFIGS / "cifar_fixed.yaml", tiny.CONFIGS / "models" / "cifar_official.yaml")
    args = [f"--config={config}" for config in configs]
    assert main(["test", *args, f"--trainer.default_root_dir={tmp_path / 'runs'}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "ddpm_cifar10" in line
    assert str(Path("cache") / "ddpm_cifar10_ema.ckpt") in line
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "cache").exists()


def test_a_classifier_of_another_data_set_is_one_line(tmp_path, capsys):
    args = ["test", "--config", str(tiny.CONFIGS / "imagenet_fixed.yaml")]
    args += ["--model.classifier", "lit_purify.classifiers.embedded_resnet18"]
    assert main([*args, "--trainer.default_root_dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "the data have 1000 classes" in line
    assert not list(tmp_path.rglob("*.*"))


def test_a_label_that_nobody_knows_is_predicted_by_one_line(tmp_path):
    """And the schedule of a network is told in two."""
    file = tmp_path / "edm.pt"
    torch.save(state_of(sides=(32, 16), attention=(16,), classes=10), file)
    words = [
        *("test", "--config=cifar_fixed", "--config=measure/masking", "--data.limit=2"),
        *("--model.classifier=tiny.classifier", "--model.protocols=[fixed]", "--attack.steps=1"),
        *("--measure.masking.samples=0", "--model.purifier.t_star=20", *tiny.UNMEASURED),
        "--model.purifier.denoiser=lit_purify.checkpoints.load_denoiser",
        f"--model.purifier.denoiser.path={file}",
        "--model.purifier.denoiser.schedule=lit_purify.diffusion.LinearSchedule",
        "--model.purifier.denoiser.schedule.beta_start=1e-6",
        *("--model.purifier.num_steps=2", "--model.purifier.label=predicted"),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"),
    ]
    assert main(words) == 0
    summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
    assert "predicted" in summary["settings"]["denoiser_label"]
    assert "1e-06" in summary["settings"]["schedule"]
    assert summary["metrics"]["fixed/robust_accuracy"]["n"] == 2
    assert summary["metrics"]["masking/wrong_gradient"]["value"] == 0
