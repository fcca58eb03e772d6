"""Memory and time of an attack through a purification on one GPU, planned without it, as Markdown.

    python scripts/memory_plan.py [--network guided_diffusion_256] [--gib 80] [--batch_sizes 1 4 8]
    python scripts/memory_plan.py --network ddpm_cifar10 --batch_sizes 64 128 256

The bytes are those of the tensors, followed through one step without data
(`lit_purify.diffusion.memory`). Whether a batch fits, and all time, is an ESTIMATE: `RESERVE`,
`CONTEXT_GIB` and `ASSUMED_TFLOPS` are assumptions that the script takes over and does not check.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import nn
from torchvision.models import resnet50

from lit_purify.classifiers.robustbench_import import import_robustbench
from lit_purify.diffusion import (
    DDPMSampler,
    DiffusionPurifier,
    UNetDenoiser,
    ddpm_unet,
    guided_diffusion_unet,
)
from lit_purify.diffusion.memory import MemoryPlan, count_operations, memory_plan
from lit_purify.types import InputError

CONFIGS = Path(__file__).parent.parent / "configs"
GIB = 2**30
CONTEXT_GIB = 1.0
"""Assumed of a GPU's context and the libraries loaded into it."""
RESERVE = 0.1
"""Assumed for workspaces and gaps between tensors, in units of the peak."""
ATTACK_STEPS = 40
ASSUMED_TFLOPS = {"32-true": 12.0, "bf16-mixed": 100.0}
"""What an A100 is assumed to reach in each precision, of its data sheet's 19.5 and 312."""
MOST_IMAGES = 4096
"""The largest batch that is looked for."""


class Setting(NamedTuple):
    """One of the paper's evaluations.

    Attributes:
        configs: base and overlay, from which the purifier's arguments are read.
        denoiser: makes the network, without weights.
        classifier: makes the network behind it.
        image_shape: (C, H, W) of the images under attack.
        images: of the paper's evaluation.
        batch_sizes: shown unless others are asked for.
    """

    configs: tuple[str, str]
    denoiser: Callable[[], UNetDenoiser]
    classifier: Callable[[], nn.Module]
    image_shape: tuple[int, int, int]
    images: int
    batch_sizes: tuple[int, ...]

    def purifier(self, **changes: object) -> DiffusionPurifier:
        """The purifier of the configs around a network without weights."""
        arguments: dict[str, Any] = {}
        for name in self.configs:
            config = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
            arguments |= config["model"]["init_args"]["purifier"]["init_args"]
        sampler = DDPMSampler(**arguments["sampler"]["init_args"])
        return DiffusionPurifier(
            **{**arguments, "denoiser": self.denoiser(), "sampler": sampler, **changes}
        )


def wide_resnet() -> nn.Module:
    """The classifier of the paper's CIFAR-10, WRN-28-10."""
    zoo: Any = import_robustbench("robustbench.model_zoo.architectures.wide_resnet")
    return zoo.WideResNet(depth=28, widen_factor=10)


SETTINGS = {
    "guided_diffusion_256": Setting(
        configs=("imagenet_fixed.yaml", "models/imagenet_official.yaml"),
        denoiser=lambda: guided_diffusion_unet(seed=None),
        classifier=resnet50,
        image_shape=(3, 224, 224),
        images=200,
        batch_sizes=(1, 2, 4, 8, 12, 16),
    ),
    "ddpm_cifar10": Setting(
        configs=("cifar_fixed.yaml", "models/cifar_official.yaml"),
        denoiser=lambda: ddpm_unet(seed=None),
        classifier=wide_resnet,
        image_shape=(3, 32, 32),
        images=1000,
        batch_sizes=(16, 64, 128, 256, 512),
    ),
}


def memory_table(plans: Sequence[MemoryPlan], budget: float) -> str:
    """Plans as Markdown, in GiB; what fits stays within so many bytes."""
    lines = [
        "| batch | weights | noise | states | attack's images | one step | its activations | kept "
        "activations | classifier | peak | fits (ESTIMATE) |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for plan in plans:
        parts = [plan.weights, plan.noise, plan.states, plan.images, plan.step]
        parts += [plan.activations, plan.kept, plan.classifier, plan.peak]
        numbers = " | ".join(f"{part / GIB:.2f}" for part in parts)
        fits = "yes" if plan.peak <= budget else "no"
        lines.append(f"| {plan.batch_size} | {numbers} | {fits} |")
    return "\n".join(lines)


def time_table(forward: int, backward: int, *, chain: int, images: int) -> str:
    """Operations of one image, and hours at an assumed speed per precision, as Markdown.

    Args:
        forward: operations of one call of the denoiser.
        backward: of its gradient with respect to the image.
        chain: steps of the chain; the exact gradient computes each twice.
        images: of the whole evaluation.
    """
    gradient = chain * (2 * forward + backward)
    attack = ATTACK_STEPS * gradient
    counts = {
        "one call": forward,
        "its gradient with respect to the image": backward,
        f"one purification, {chain} calls": chain * forward,
        "one exact gradient, every step computed twice": gradient,
        f"one attack, {ATTACK_STEPS} gradients": attack,
    }
    lines = ["| of the denoiser, for one image | 10^12 operations |", "|---|--:|"]
    lines += [f"| {what} | {number / 1e12:.4g} |" for what, number in counts.items()]
    lines += [
        "",
        f"| ESTIMATE | assumed 10^12 operations a second | one attack, 1 image | {images} images |",
        "|---|--:|--:|--:|",
    ]
    for precision, speed in ASSUMED_TFLOPS.items():
        seconds = attack / (speed * 1e12)
        hours = images * seconds / 3600
        lines.append(f"| {precision} | {speed:g} | {seconds:.0f} s | {hours:.1f} h |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=SETTINGS, default="guided_diffusion_256")
    parser.add_argument("--gib", type=float, default=80.0, help="memory of the GPU")
    parser.add_argument("--batch_sizes", type=int, nargs="+", help="images in one pass")
    own = parser.add_argument_group("the purifier's own, from its configs by default")
    own.add_argument("--t_star", type=int, default=argparse.SUPPRESS)
    own.add_argument("--num_steps", type=int, default=argparse.SUPPRESS)
    own.add_argument("--memory_budget_gib", type=float, default=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    given = vars(args)
    network, gib, batch_sizes = (given.pop(name) for name in ("network", "gib", "batch_sizes"))
    setting = SETTINGS[network]
    try:
        if not 0 < gib < math.inf or min(batch_sizes or [1]) < 1:
            raise InputError("--gib and --batch_sizes must be finite and above 0")
        purifier = setting.purifier(**given)
        with torch.device("meta"):
            classifier = setting.classifier()
    except InputError as error:  # also an impossible depth, chain or budget, or no RobustBench
        parser.error(str(error))
    denoiser = purifier.denoiser
    chain = len(purifier.timesteps)
    budget = (gib - CONTEXT_GIB) / (1 + RESERVE) * GIB
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    print(
        f"{network}: {parameters:,} parameters, t* = {purifier.t_star} in {chain} steps, "
        f"{purifier.forward_process} noise, attacked at {setting.image_shape[1]} pixels\n\n"
        f"One GPU of {gib:g} GiB. A batch is said to fit if its peak, {RESERVE:.0%} more "
        f"for workspaces and gaps, and {CONTEXT_GIB:g} GiB for the context do: an assumption."
    )
    for precision in ASSUMED_TFLOPS:
        plan = functools.partial(
            memory_plan, purifier, classifier, setting.image_shape, mixed=precision != "32-true"
        )
        plans = [plan(rows) for rows in batch_sizes or setting.batch_sizes]
        largest = bisect_right(
            range(1, MOST_IMAGES + 1), budget, key=lambda rows, plan=plan: plan(rows).peak
        )
        print(f"\n{precision}, GiB:\n\n{memory_table(plans, budget)}")
        print(f"\nLargest batch that fits (ESTIMATE): {largest}")
    state = purifier.to_chain(torch.empty(1, *setting.image_shape))
    forward, backward = count_operations(denoiser, state.shape[1:], purifier.t_star)
    print(f"\n{time_table(forward, backward, chain=chain, images=setting.images)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
