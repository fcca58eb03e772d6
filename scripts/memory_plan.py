"""Memory and time of an attack through a purification on one GPU, planned without it, as Markdown.

    python scripts/memory_plan.py [--network guided_diffusion_256] [--gib 80] [--batch_sizes 1 4 8]
    python scripts/memory_plan.py --network ddpm_cifar10 --batch_sizes 64 128 256

The bytes are those of the tensors, followed through one step without data
(`lit_purify.diffusion.memory`). Whether a batch fits, and all time, is an ESTIMATE: `RESERVE`,
`CONTEXT_GIB` and `--tflops` are assumptions that the script takes over and does not check.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from lit_purify.diffusion import (
    DDPMSampler,
    DiffusionPurifier,
    UNetDenoiser,
    ddpm_unet,
    guided_diffusion_unet,
)
from lit_purify.diffusion.diffusion_purifier import ForwardProcess
from lit_purify.diffusion.memory import (
    MemoryPlan,
    Operations,
    Precision,
    count_operations,
    memory_plan,
)
from lit_purify.types import InputError

GIB = 2**30
CONTEXT_GIB = 1.0
"""Assumed of a GPU's context and the libraries loaded into it."""
RESERVE = 0.1
"""Assumed for workspaces and gaps between tensors, in units of the peak."""
ATTACK_STEPS = 40
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ASSUMED_TFLOPS = (12.0, 100.0)
"""What an A100 is assumed to reach in each precision, of its data sheet's 19.5 and 312."""


@dataclass(frozen=True)
class Setting:
    """One of the paper's evaluations.

    Attributes:
        denoiser: makes the network, without weights.
        classifier: makes the network behind it, without weights.
        image_shape: (C, H, W) of the images under attack.
        resize_to: side inside the purifier.
        sampler: of the published network.
        forward_process: of the evaluation's config; it decides how many draws are kept.
        t_star: depth of the paper.
        images: of the paper's evaluation.
        batch_sizes: shown unless others are asked for.
    """

    denoiser: Callable[[], UNetDenoiser]
    classifier: Callable[[], nn.Module]
    image_shape: tuple[int, int, int]
    resize_to: int | None
    sampler: DDPMSampler
    forward_process: ForwardProcess
    t_star: int
    images: int
    batch_sizes: tuple[int, ...]


def resnet50() -> nn.Module:
    """The classifier of the paper's ImageNet."""
    from torchvision.models import resnet50

    with torch.device("meta"):
        return resnet50()


def wide_resnet() -> nn.Module:
    """The classifier of the paper's CIFAR-10, WRN-28-10."""
    from lit_purify.classifiers.robustbench_import import import_robustbench

    zoo: Any = import_robustbench("robustbench.model_zoo.architectures.wide_resnet")
    with torch.device("meta"):
        return zoo.WideResNet(depth=28, widen_factor=10)


SETTINGS = {
    "guided_diffusion_256": Setting(
        denoiser=lambda: guided_diffusion_unet(seed=None),
        classifier=resnet50,
        image_shape=(3, 224, 224),
        resize_to=256,
        sampler=DDPMSampler(variance="learned_range"),
        forward_process="one_shot",
        t_star=150,
        images=200,
        batch_sizes=(1, 2, 4, 8, 12, 16),
    ),
    "ddpm_cifar10": Setting(
        denoiser=lambda: ddpm_unet(seed=None),
        classifier=wide_resnet,
        image_shape=(3, 32, 32),
        resize_to=None,
        sampler=DDPMSampler(variance="fixed_large"),
        forward_process="stepwise",
        t_star=100,
        images=1000,
        batch_sizes=(16, 64, 128, 256, 512),
    ),
}


def largest_batch(plan: Callable[[int], MemoryPlan], budget: int) -> int:
    """Most images whose plan stays within so many bytes; 0 if not even one does.

    Doubled until it is too much, then halved in between.
    """
    fits, too_many = 0, 1
    while plan(too_many).peak <= budget:
        fits, too_many = too_many, 2 * too_many
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if plan(middle).peak <= budget else (fits, middle)
    return fits


def memory_table(plans: Sequence[MemoryPlan], budget: int) -> str:
    """Plans as Markdown, in GiB."""
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


def time_table(operations: Operations, *, chain: int, images: int, tflops: Sequence[float]) -> str:
    """Operations of one image, and hours at an assumed speed per precision, as Markdown."""
    gradient = operations.gradient(chain)
    attack = ATTACK_STEPS * gradient
    counts = {
        "one call": operations.forward,
        "its gradient with respect to the image": operations.backward,
        f"one purification, {chain} calls": chain * operations.forward,
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
    for precision, speed in zip(PRECISIONS, tflops, strict=True):
        seconds = attack / (speed * 1e12)
        hours = images * seconds / 3600
        lines.append(f"| {precision} | {speed:g} | {seconds:.0f} s | {hours:.1f} h |")
    return "\n".join(lines)


def above_zero(kind: type[int] | type[float]) -> Callable[[str], float]:
    """A reader of arguments that are finite and above 0."""

    def read(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"expected a finite number above 0, got {text}")
        return value

    return read


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=SETTINGS, default="guided_diffusion_256")
    parser.add_argument("--gib", type=above_zero(float), default=80.0, help="memory of the GPU")
    parser.add_argument("--batch_sizes", type=above_zero(int), nargs="+", help="images in one pass")
    parser.add_argument("--t_star", type=int, help="depth; the paper's by default")
    parser.add_argument("--num_steps", type=int, help="of the chain; every one by default")
    parser.add_argument("--memory_budget_gib", type=float, default=2.0, help="of the purifier")
    parser.add_argument(
        "--tflops",
        type=above_zero(float),
        nargs=len(PRECISIONS),
        default=ASSUMED_TFLOPS,
        metavar=PRECISIONS,
        help="assumed speed in each precision",
    )
    args = parser.parse_args(argv)
    setting = SETTINGS[args.network]
    denoiser = setting.denoiser()
    try:
        purifier = DiffusionPurifier(
            denoiser,
            t_star=setting.t_star if args.t_star is None else args.t_star,
            num_steps=args.num_steps,
            forward_process=setting.forward_process,
            sampler=setting.sampler,
            memory_budget_gib=args.memory_budget_gib,
            resize_to=setting.resize_to,
        )
        classifier = setting.classifier()
    except InputError as error:  # an impossible depth, chain or budget, or no RobustBench
        parser.error(str(error))
    chain = len(purifier.timesteps)
    budget = int((args.gib - CONTEXT_GIB) / (1 + RESERVE) * GIB)
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    print(
        f"{args.network}: {parameters:,} parameters, t* = {purifier.t_star} in {chain} steps, "
        f"{setting.forward_process} noise, attacked at {setting.image_shape[1]} pixels\n\n"
        f"One GPU of {args.gib:g} GiB. A batch is said to fit if its peak, {RESERVE:.0%} more "
        f"for workspaces and gaps, and {CONTEXT_GIB:g} GiB for the context do: an assumption."
    )

    @functools.cache
    def plan(precision: Precision, rows: int) -> MemoryPlan:
        return memory_plan(
            purifier, setting.image_shape, rows, classifier=classifier, precision=precision
        )

    for precision in PRECISIONS:
        of_batch = functools.partial(plan, precision)
        plans = [of_batch(rows) for rows in args.batch_sizes or setting.batch_sizes]
        print(f"\n{precision}, GiB:\n\n{memory_table(plans, budget)}")
        print(f"\nLargest batch that fits (ESTIMATE): {largest_batch(of_batch, budget)}")
    state = purifier.to_chain(torch.empty(1, *setting.image_shape))
    operations = count_operations(denoiser, state.shape[1:], purifier.t_star)
    table = time_table(operations, chain=chain, images=setting.images, tflops=args.tflops)
    print(f"\n{table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
