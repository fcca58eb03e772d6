"""The printed plan: its search, its arithmetic, and that it says what memory_plan says."""

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


def test_time_is_operations_over_speed():
    """3 steps of 2e12 up, twice, and 4e12 down are 24e12; 5 gradients at 12e12 a second 10 s."""
    operations = Operations(forward=2 * 10**12, backward=4 * 10**12)
    assert operations.gradient(3) == 24 * 10**12
    assert operations.gradient(3, kept=2) == 20 * 10**12
    assert operations.gradient(3, kept=9) == 18 * 10**12
    table = script.time_table(
        operations, chain=3, attack_steps=5, images=720, tflops={"32-true": 12.0}
    )
    assert "| one attack, 5 gradients | 120 |" in table
    assert "| 32-true | 12 | 10 s | 2.0 h |" in table
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


@pytest.mark.parametrize("network", ["guided_diffusion_256"], indirect=True)
def test_it_prints_the_plan(capsys, monkeypatch, network):
    monkeypatch.setitem(
        script.SETTINGS, network, replace(script.SETTINGS[network], sampler=DDIMSampler())
    )
    arguments = ["--num_steps", "4", "--batch_sizes", "2", "--gib", "1.2", "--reserve", "0.25"]
    assert script.main([*arguments, "--precisions", "32-true", "--tflops", "1"]) == 0
    printed = capsys.readouterr().out
    purifier = DiffusionPurifier(
        denoiser(),
        t_star=12,
        num_steps=4,
        forward_process="one_shot",
        resize_to=32,
        sampler=DDIMSampler(),
    )

    def peak(rows):
        return memory_plan(purifier, (3, 28, 28), rows, classifier=classifier()).peak

    (row,) = re.findall(r"^\| 2 \|.*$", printed, re.MULTILINE)
    assert row.split(" | ")[-2:] == [f"{peak(2) / 2**30:.2f}", "yes |"]
    usable = (1.2 - 1) * 2**30 / 1.25
    largest = int(re.search(r"Largest batch that fits \(ESTIMATE\): (\d+)", printed)[1])
    assert peak(largest) <= usable < peak(largest + 1)
    assert "an assumption" in printed
    assert "t* = 12 in 4 steps, one_shot noise" in printed


def test_the_draws_are_those_of_the_forward_process(capsys, monkeypatch, network):
    """Of 12 steps one_shot keeps 1 + 11 draws, stepwise 12 + 11; a draw is a state."""
    found = []
    monkeypatch.setattr(script, "memory_table", lambda plans, budget: found.extend(plans) or "")
    monkeypatch.setattr(script, "largest_batch", lambda plan, budget: 0)
    arguments = ["--network", network, "--batch_sizes", "3"]
    script.main([*arguments, "--precisions", "32-true", "--tflops", "1"])
    (plan,) = found
    draws = {"guided_diffusion_256": 12, "ddpm_cifar10": 23}[network]
    assert plan.noise == draws * 3 * (3 * 32 * 32) * 4
    assert "| 5 images |" in capsys.readouterr().out


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


def test_as_many_speeds_as_precisions(capsys):
    with pytest.raises(SystemExit):
        script.main(["--tflops", "1"])
    assert "--tflops needs 2 numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--t_star 0", "t_star must lie between 1 and 1000"),
        ("--t_star 5000", "t_star must lie between 1 and 1000"),
        ("--num_steps 2000", "num_steps must lie between 1 and t_star = 12, got 2000"),
        ("--num_steps 0", "num_steps must lie between 1 and t_star = 12, got 0"),
        ("--batch_sizes 4 0", "--batch_sizes: expected 1 or more, got 0"),
        ("--images 0", "--images: expected 1 or more, got 0"),
        ("--attack_steps 0", "--attack_steps: expected 1 or more, got 0"),
        ("--memory_budget_gib -1", "--memory_budget_gib: expected a finite number, 0 or more"),
        ("--memory_budget_gib nan", "--memory_budget_gib: expected a finite number, 0 or more"),
        ("--reserve -1", "--reserve: expected a finite number, 0 or more"),
        ("--gib inf", "--gib: expected a finite number above 0"),
        ("--tflops 0 100", "--tflops: expected a finite number above 0"),
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
