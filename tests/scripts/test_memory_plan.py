"""The printed plan: its search, its arithmetic, and that it says what memory_plan says."""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_purify.diffusion import DDIMSampler, DiffusionPurifier, small_unet
from lit_purify.diffusion.memory import MemoryPlan, Operations, memory_plan

FILE = Path(__file__).parents[2] / "scripts" / "memory_plan.py"


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


def test_it_prints_the_plan(capsys, monkeypatch):
    def denoiser():
        return small_unet(block_out_channels=(32,), patch_size=1).to("meta")

    def classifier():
        with torch.device("meta"):
            return nn.Conv2d(3, 10, 3)

    small = replace(
        script.SETTINGS["guided_diffusion_256"],
        denoiser=denoiser,
        classifier=classifier,
        image_shape=(3, 28, 28),
        resize_to=32,
        sampler=DDIMSampler(),
        t_star=12,
    )
    monkeypatch.setitem(script.SETTINGS, "guided_diffusion_256", small)
    arguments = ["--num_steps", "4", "--batch_sizes", "2", "--gib", "1.2", "--reserve", "0.25"]
    assert script.main([*arguments, "--precisions", "32-true", "--tflops", "1"]) == 0
    printed = capsys.readouterr().out
    purifier = DiffusionPurifier(
        denoiser(), t_star=12, num_steps=4, resize_to=32, sampler=DDIMSampler()
    )

    def peak(rows):
        return memory_plan(purifier, (3, 28, 28), rows, classifier=classifier()).peak

    (row,) = re.findall(r"^\| 2 \|.*$", printed, re.MULTILINE)
    assert row.split(" | ")[-2:] == [f"{peak(2) / 2**30:.2f}", "yes |"]
    usable = (1.2 - 1) * 2**30 / 1.25
    largest = int(re.search(r"Largest batch that fits \(ESTIMATE\): (\d+)", printed)[1])
    assert peak(largest) <= usable < peak(largest + 1)
    assert "an assumption" in printed
    assert "t* = 12 in 4 steps" in printed


def test_as_many_speeds_as_precisions(capsys):
    with pytest.raises(SystemExit):
        script.main(["--tflops", "1"])
    assert "--tflops needs 2 numbers" in capsys.readouterr().err
