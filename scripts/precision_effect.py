"""What TF32, bfloat16 and torch.compile do to the figures of the shipped models, as Markdown.

    python scripts/precision_effect.py [--root lightning_logs/precision] [--eps 2/255 8/255]
    python scripts/precision_effect.py --modes "bf16 search" --steps 10 --no-early_stop

Every row is one run: purified clean accuracy and the fixed protocol under PGD, by default with
early stop; an image is robust if no iterate of the attack fooled the chain. The runs lie in folders
of their own under ``--root``: what is recorded there is not measured again, also of an interrupted
one.

A CPU has no TF32. Here it is emulated: the operands of every convolution and matrix product,
forward and backward, are rounded to TF32's 10 mantissa bits and multiplied in float32, which holds
the product of two such numbers exactly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from lit_purify.api import evaluate
from lit_purify.attacks import PGD
from lit_purify.callbacks import Measurement
from lit_purify.checkpoints import embedded_denoiser
from lit_purify.classifiers import embedded_resnet18
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import DiffusionPurifier
from lit_purify.functional import wilson_interval
from lit_purify.modules import Outcomes, PurifiedClassifier
from lit_purify.types import Batch

MODES = ("float32", "TF32 (emulated)", "bf16-mixed", "bf16 search", "compile")
SHIFT = 23 - 10
"""Mantissa bits that float32 has and TF32 has not."""

aten = torch.ops.aten
OPERANDS = {
    aten.convolution: (0, 1),
    aten.convolution_backward: (0, 1, 2),
    aten.mm: (0, 1),
    aten.bmm: (0, 1),
    aten.addmm: (1, 2),
    aten.baddbmm: (1, 2),
}
"""Where the factors stand among the arguments; what is added (a bias) stays float32."""
COMPOSED = ("conv", "linear", "matmul", "einsum", "_scaled_dot_product", "_flash_att", "addbmm")
"""How the names of other operations that multiply begin; they must have come apart before."""


def round_to_tf32(x: Tensor) -> Tensor:
    """The nearest float32 numbers with 10 explicit mantissa bits, ties to even.

    Args:
        x: any shape, float32. Exponents keep the range of float32, as in TF32.
    """
    bits = x.view(torch.int32)
    # Half a unit, less one where the last bit that stays is 0: a tie then ends on an even number.
    rounded = (
        ((bits >> SHIFT) & 1).add_((1 << (SHIFT - 1)) - 1).add_(bits).bitwise_and_(-1 << SHIFT)
    )
    return torch.where(x.isnan(), x, rounded.view(torch.float32))


@contextmanager
def emulated_tf32() -> Iterator[None]:
    """Inside, factors of float32 products are rounded to TF32, forward, backward and recomputed.

    Raises:
        NotImplementedError: an operation that multiplies and is not known here.
    """
    # Attention comes apart into the products it is made of.
    with sdpa_kernel(SDPBackend.MATH), _RoundedFactors():
        yield


class _RoundedFactors(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        operands = OPERANDS.get(func.overloadpacket, ())
        if not operands and func.overloadpacket.__name__.startswith(COMPOSED):
            raise NotImplementedError(f"TF32 is not emulated in {func}; add it to OPERANDS")
        args = tuple(
            round_to_tf32(value) if place in operands and value.dtype == torch.float32 else value
            for place, value in enumerate(args)
        )
        return func(*args, **(kwargs or {}))


class CleanLogits(Measurement):
    """Records what the chain says of every clean image."""

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        """There is no metric of logits."""

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        module.record("purified/clean_logits", outputs["fixed/clean"].logits.float())


def defence(**options: Any) -> PurifiedClassifier:
    """The shipped models in the setting of ``configs/cifar_fixed.yaml``, protocol ``fixed``."""
    purifier = DiffusionPurifier(embedded_denoiser(), t_star=100, num_steps=10)
    return PurifiedClassifier(purifier, embedded_resnet18(), protocols=("fixed",), **options)


def measure(
    mode: str, eps: str, root: Path, *, limit: int, batch_size: int, steps: int, early_stop: bool
) -> dict[str, Any]:
    """One row: the run of a mode, and its adversarial images tested again in float32."""
    emulation = emulated_tf32() if mode == "TF32 (emulated)" else nullcontext()
    stop = "early" if early_stop else "last"
    name = f"{mode}_{eps.replace('/', '-')}_{limit}_{batch_size}_{steps}_{stop}"
    folder = root / name.replace(" ", "_")
    begun = sorted(folder.glob("lightning_logs/*/records/header.json"))
    with emulation:
        table = evaluate(
            defence(compile=mode == "compile"),
            CIFAR10DataModule(limit=limit, batch_size=batch_size),
            attack=PGD(
                eps=eps,
                steps=steps,
                early_stop=early_stop,
                precision="bf16" if mode == "bf16 search" else "float32",
            ),
            measurements=[CleanLogits()],
            root=folder,
            resume=begun[-1].parents[1] if begun else None,
            trainer={
                "accelerator": "cpu",
                "precision": "bf16-mixed" if mode == "bf16-mixed" else "32-true",
            },
        ).table
    plain = defence()
    batches = zip(
        table["fixed/adversarial"].split(batch_size), table["index"].split(batch_size), strict=True
    )
    with torch.no_grad():
        again = [plain(images, plain.noise, index).argmax(1) for images, index in batches]
    return {
        "mode": mode,
        "clean": table["purified/clean_accuracy"],
        "robust": table["fixed/robust_accuracy_any_iteration"],
        "robust_in_float32": torch.cat(again) == table["label"],
        "logits": table["purified/clean_logits"],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of one eps as Markdown; every one is compared with the first, which is float32."""
    reference = rows[0]
    lines = [
        "| arithmetic | purified, clean | purified, attacked (`fixed`) | its images in float32 | "
        "outcomes that differ: clean, attacked | largest change of a clean logit |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        clean, robust = (int((row[key] != reference[key]).sum()) for key in ("clean", "robust"))
        change = (row["logits"] - reference["logits"]).abs().max()
        compared = "| |" if row is reference else f"| {clean}, {robust} | {change:.1e} |"
        lines.append(
            f"| {row['mode']} | {percent(row['clean'])} | {percent(row['robust'])} | "
            f"{percent(row['robust_in_float32'])} {compared}"
        )
    return "\n".join(lines)


def percent(outcomes: Tensor) -> str:
    """A share with its 95 % Wilson interval."""
    successes, n = int(outcomes.sum()), len(outcomes)
    low, high = wilson_interval(successes, n)
    return f"{100 * successes / n:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("lightning_logs/precision"))
    parser.add_argument("--eps", nargs="+", default=["2/255", "8/255"], help="fractions")
    parser.add_argument("--modes", nargs="+", choices=MODES[1:], default=list(MODES[1:]))
    parser.add_argument("--limit", type=int, default=100, help="images")
    parser.add_argument("--steps", type=int, default=40, help="of the attack")
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--early_stop", action=argparse.BooleanOptionalAction, default=True)
    options = vars(parser.parse_args(args))
    root, sizes, modes = options.pop("root"), options.pop("eps"), options.pop("modes")
    for eps in sizes:
        rows = [measure(mode, eps, root, **options) for mode in (MODES[0], *modes)]
        print(f"\neps {eps}, the first {len(rows[0]['clean'])} images:\n\n{table(rows)}")


if __name__ == "__main__":
    main(sys.argv[1:])
