"""The printed plan: its arithmetic, and that it says what memory_plan says of the configs."""

import re
from dataclasses import replace

import pytest
import torch
from script_files import load_script
from torch import nn

from lit_purify.diffusion import DiffusionPurifier, small_unet
from lit_purify.diffusion.memory import MemoryPlan, memory_plan

script = load_script("memory_plan")


def test_peak_is_the_larger_of_the_two_ways():
    """The last kept step is differentiated with the others beside it, or the classifier is."""
    zero = dict.fromkeys(("batch_size", "images", "noise", "states", "classifier"), 0)
    parts = MemoryPlan(weights=100, step=5, activations=4, steps_kept=3, **zero)
    assert (parts.kept, parts.peak) == (12, 100 + 5 + 2 * 4)
    assert replace(parts, classifier=2).peak == 100 + 12 + 2
    assert replace(parts, steps_kept=0).peak == 100 + 5


def test_time_is_operations_over_speed(monkeypatch):
    """3 steps of 2e12 up, twice, and 4e12 down are 24e12; 5 gradients at 12e12 a second 10 s."""
    monkeypatch.setattr(script, "ATTACK_STEPS", 5)
    monkeypatch.setattr(script, "ASSUMED_TFLOPS", {"32-true": 12.0, "bf16-mixed": 120.0})
    table = script.time_table(2 * 10**12, 4 * 10**12, chain=3, images=720)
    assert "| one exact gradient, every step computed twice | 24 |" in table
    assert "| one attack, 5 gradients | 120 |" in table
    assert "| 32-true | 12 | 10 s | 2.0 h |" in table
    assert "| bf16-mixed | 120 | 1 s | 0.2 h |" in table
    assert "ESTIMATE" in table


def denoiser():
    """A small network that says it learns its variance, as the largest does."""
    network = small_unet(block_out_channels=(32,), patch_size=1).to("meta")
    network.image_shape = None
    network.register_forward_hook(lambda _, inputs, output: torch.cat([output, output], 1))
    return network


def classifier():
    with torch.device("meta"):
        return nn.Conv2d(3, 10, 3)


@pytest.fixture(params=["guided_diffusion_256", "ddpm_cifar10"])
def network(request, monkeypatch):
    """The name of a setting whose networks are small; what else differs between them stays."""
    small = script.SETTINGS[request.param]._replace(denoiser=denoiser, classifier=classifier)
    monkeypatch.setitem(script.SETTINGS, request.param, small)
    return request.param


def test_it_prints_the_plan_of_the_configs(capsys, monkeypatch, network):
    """On ImageNet noise is drawn once on the way up, on CIFAR-10 at every step."""
    monkeypatch.setattr(script, "RESERVE", 0.25)
    monkeypatch.setattr(script, "MOST_IMAGES", 8)
    imagenet = network == "guided_diffusion_256"
    forward, side, t_star = ("one_shot", 224, 150) if imagenet else ("stepwise", 32, 100)
    gib = 6 if imagenet else 3
    arguments = ["--network", network, "--batch_sizes", "2", "--gib", str(gib)]
    assert script.main(arguments) == 0
    printed = capsys.readouterr().out
    purifier = DiffusionPurifier(
        denoiser(),
        t_star=t_star,
        forward_process=forward,
        resize_to=256 if imagenet else None,
        sampler=script.DDPMSampler(variance="learned_range" if imagenet else "fixed_large"),
    )

    def planned(rows):
        return memory_plan(purifier, classifier(), (3, side, side), rows)

    row = re.search(r"^\| 2 \|.*$", printed, re.MULTILINE)[0]
    assert row.split(" | ")[-2:] == [f"{planned(2).peak / 2**30:.2f}", "yes |"]
    usable = (gib - 1) * 2**30 / 1.25
    largest = int(re.search(r"Largest batch that fits \(ESTIMATE\): (\d+)", printed)[1])
    assert planned(largest).peak <= usable < planned(largest + 1).peak
    inside = 256 if imagenet else 32
    draws = t_star - 1 + (1 if imagenet else t_star)
    assert planned(2).noise == draws * 2 * (3 * inside * inside) * 4
    assert "an assumption" in printed
    assert f"t* = {t_star} in {t_star} steps, {forward} noise" in printed
    assert f"| {200 if imagenet else 1000} images |" in printed


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
        ("--gib nan", "--gib"),
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
