"""The printed plan: its search, its arithmetic, and that it says what memory_plan says."""

import functools
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lit_purify.diffusion import DDIMSampler, DDPMSampler, DiffusionPurifier, small_unet
from lit_purify.diffusion.memory import MemoryPlan, Operations, memory_plan

ROOT = Path(__file__).parents[2]
FILE = ROOT / "scripts" / "memory_plan.py"


def _load():
    spec = importlib.util.spec_from_file_location("memory_plan_script", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


script = _load()


def plan(rows):
    """100 bytes of weights and 7 for each image."""
    zero = dict.fromkeys(
        ("steps_kept", "images", "noise", "states", "activations", "classifier"), 0
    )
    return MemoryPlan(batch_size=rows, weights=100, step=7 * rows, **zero)


@pytest.mark.parametrize(
    ("budget", "want"), [(106, 0), (107, 1), (113, 1), (114, 2), (135, 5), (799, 99), (800, 100)]
)
def test_the_largest_batch(budget, want):
    assert script.largest_batch(plan, budget) == want


def test_peak_is_the_larger_of_the_two_ways():
    """The last kept step is differentiated with the others beside it, or the classifier is."""
    parts = replace(plan(1), step=5, activations=4, steps_kept=3, classifier=0)
    assert (parts.kept, parts.peak) == (12, 100 + 5 + 2 * 4)
    assert replace(parts, classifier=2).peak == 100 + 12 + 2
    assert replace(parts, steps_kept=0).peak == 100 + 5


def test_time_is_operations_over_speed(monkeypatch):
    """3 steps of 2e12 up, twice, and 4e12 down are 24e12; 5 gradients at 12e12 a second 10 s."""
    monkeypatch.setattr(script, "ATTACK_STEPS", 5)
    operations = Operations(forward=2 * 10**12, backward=4 * 10**12)
    table = script.time_table(operations, chain=3, images=720, tflops=(12.0, 120.0))
    assert "| one exact gradient, every step computed twice | 24 |" in table
    assert "| one attack, 5 gradients | 120 |" in table
    assert "| 32-true | 12 | 10 s | 2.0 h |" in table
    assert "| bf16-mixed | 120 | 1 s | 0.2 h |" in table
    assert "ESTIMATE" in table


def denoiser():
    return small_unet(block_out_channels=(32,), patch_size=1).to("meta")


def classifier():
    with torch.device("meta"):
        return nn.Conv2d(3, 10, 3)


@pytest.fixture(params=["guided_diffusion_256", "ddpm_cifar10"])
def network(request, monkeypatch):
    """The name of a setting whose networks are small; what else differs between them stays."""
    small = replace(
        script.SETTINGS[request.param],
        denoiser=denoiser,
        classifier=classifier,
        image_shape=(3, 28, 28),
        resize_to=32,
        sampler=DDPMSampler(),  # small_unet predicts no variance
        t_star=12,
        images=5,
    )
    monkeypatch.setitem(script.SETTINGS, request.param, small)
    return request.param


def test_it_prints_the_plan(capsys, monkeypatch, network):
    """Of 4 steps one_shot keeps 1 draw, stepwise 4, and DDIM draws none on the way down."""
    monkeypatch.setattr(script, "RESERVE", 0.25)
    monkeypatch.setitem(
        script.SETTINGS, network, replace(script.SETTINGS[network], sampler=DDIMSampler())
    )
    arguments = ["--network", network, "--num_steps", "4", "--batch_sizes", "2", "--gib", "1.2"]
    assert script.main([*arguments, "--tflops", "1", "2"]) == 0
    printed = capsys.readouterr().out
    forward = {"guided_diffusion_256": "one_shot", "ddpm_cifar10": "stepwise"}[network]
    purifier = DiffusionPurifier(
        denoiser(),
        t_star=12,
        num_steps=4,
        forward_process=forward,
        resize_to=32,
        sampler=DDIMSampler(),
    )

    @functools.cache
    def planned(rows):
        return memory_plan(purifier, (3, 28, 28), rows, classifier=classifier())

    row = re.search(r"^\| 2 \|.*$", printed, re.MULTILINE)[0]
    assert row.split(" | ")[-2:] == [f"{planned(2).peak / 2**30:.2f}", "yes |"]
    usable = (1.2 - 1) * 2**30 / 1.25
    largest = int(re.search(r"Largest batch that fits \(ESTIMATE\): (\d+)", printed)[1])
    assert planned(largest).peak <= usable < planned(largest + 1).peak
    draws = {"one_shot": 1, "stepwise": 4}[forward]
    assert planned(2).noise == draws * 2 * (3 * 32 * 32) * 4
    assert "an assumption" in printed
    assert f"t* = 12 in 4 steps, {forward} noise" in printed
    assert "| 5 images |" in printed


@pytest.mark.parametrize(
    ("network", "base", "overlay"),
    [
        ("guided_diffusion_256", "imagenet_fixed.yaml", "imagenet_official.yaml"),
        ("ddpm_cifar10", "cifar_fixed.yaml", "cifar_official.yaml"),
    ],
)
def test_a_setting_is_what_the_configs_run(network, base, overlay):
    configs = ROOT / "configs"
    run = {}
    for path in (configs / base, configs / "models" / overlay):
        model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["init_args"]
        run |= model["purifier"]["init_args"]
    setting = script.SETTINGS[network]
    assert run["num_steps"] is None
    assert setting.t_star == run["t_star"]
    assert setting.forward_process == run["forward_process"]
    assert setting.resize_to == run.get("resize_to")
    assert setting.sampler.variance == run["sampler"]["init_args"]["variance"]


def test_the_overlay_of_imagenet_names_its_forward_process():
    text = (ROOT / "configs" / "models" / "imagenet_official.yaml").read_text(encoding="utf-8")
    purifier = yaml.safe_load(text)["model"]["init_args"]["purifier"]["init_args"]
    assert purifier["forward_process"] == "one_shot"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--t_star 0", "t_star"),
        ("--t_star 5000", "t_star"),
        ("--num_steps 2000", "num_steps"),
        ("--num_steps 0", "num_steps"),
        ("--batch_sizes 4 0", "--batch_sizes"),
        ("--memory_budget_gib -1", "memory_budget_gib"),
        ("--memory_budget_gib nan", "memory_budget_gib"),
        ("--gib inf", "--gib"),
        ("--tflops 0 100", "--tflops"),
        ("--tflops 1", "--tflops"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(capsys, network, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        script.main(["--network", network, *arguments.split()])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    _, error = printed.err.split(": error: ")
    assert said in error
    assert error.count("\n") == 1
