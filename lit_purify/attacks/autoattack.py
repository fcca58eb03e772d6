"""AutoAttack (Croce & Hein, 2020), with its warnings as findings of each sample."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lit_purify.attacks.external import ExternalAttack, ExternalModel, Fooled
from lit_purify.defence import Defence
from lit_purify.types import InputError

if TYPE_CHECKING:  # imported by the attack that needs it
    import pyautoattack

Norm = Literal["Linf", "L2", "L1"]
Version = Literal["auto", "standard", "plus", "rand"]
Part = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]

FLAGS = {
    "flag_randomized": "randomized defense",
    "flag_probabilities": "probability distribution",
    "flag_zero_gradient": "zero gradient",
    "flag_dynamic": "dynamic defense",
    "flag_square": "Square Attack has decreased",
}
"""Finding -> what the library's warning says."""

_LEAST_CLASSES = {"apgd-t": 4, "apgd-dlr": 3}
"""The DLR losses divide by a difference to the third, or to the third and fourth, largest logit."""

_USUAL = {"L2": 0.5, "L1": 12}
"""Radii in use on CIFAR-10."""

_EOT_DRAWS = 20
"""What the version ``rand`` averages a gradient over."""


class AutoAttack(ExternalAttack):
    """The ensemble of parameter-free attacks: APGD, targeted APGD, targeted FAB, Square.

    `standard` needs a defence that answers the same question always the same way, `rand` (APGD on
    the mean gradient of 20 draws, with two losses) is for the others; ``auto`` chooses. Asking one
    for the other's defence is refused. The parts run one after another until one succeeds.

    With fewer than ten classes the targeted parts try all the wrong ones instead of nine (five for
    APGD in l_1), which ``flag_few_classes`` says.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``; ``None`` takes 8/255 in
            ``Linf``, and has no meaning in the other norms.
        norm: of the ball: ``Linf``, ``L2`` or ``L1``.
        version: ``auto``, ``standard``, ``plus`` (six parts, five restarts) or ``rand``.
        attacks: parts to run instead of a version's, with ``version`` ``auto``: any of ``apgd-ce``,
            ``apgd-dlr``, ``apgd-t``, ``fab``, ``fab-t``, ``square``, with the library's defaults
            for custom ensembles. On a random defence APGD then averages over 20 draws, too.
        square_queries: queries that Square may make for an image; the versions have 5000.
        early_stop: return the first image inside the ball that fools a deterministic defence. A
            part counts as successful at any of its iterations anyway, so what changes is the time,
            and which of the images that fool is returned.

    Attributes:
        finding_names: the library's warnings, ``flag_randomized``, ``flag_probabilities`` (instead
            of logits), ``flag_zero_gradient``, ``flag_dynamic`` (the defence takes gradients in its
            forward pass), ``flag_square`` (Square succeeded where the parts before it had not),
            ``flag_few_classes``; and those of
            :class:`~lit_purify.attacks.external.ExternalAttack`.

    Raises:
        InputError: no radius outside l_inf, an unknown name, both a version and a choice of
            attacks, or no queries.
    """

    library = "autoattack"
    finding_names = (*FLAGS, "flag_few_classes", *ExternalAttack.finding_names)

    def __init__(
        self,
        *,
        eps: float | str | None = None,
        norm: Norm = "Linf",
        version: Version = "auto",
        attacks: Sequence[Part] | None = None,
        square_queries: int = 5000,
        early_stop: bool = True,
    ) -> None:
        norms = {"Linf": math.inf, "L2": 2.0, "L1": 1.0}
        if norm not in norms:
            raise InputError(f"AutoAttack's norm must be Linf, L2 or L1, got {norm!r}")
        if eps is None and norm != "Linf":
            raise InputError(
                f"AutoAttack in {norm} needs a radius, and eps is not given; 8/255 is one of Linf "
                f"only; give eps, such as {_USUAL[norm]}"
            )
        self.p = norms[norm]
        super().__init__(eps="8/255" if eps is None else eps, early_stop=early_stop)
        if version not in get_args(Version):
            raise InputError(
                f"AutoAttack's version must be auto, standard, plus or rand, got {version!r}"
            )
        parts = get_args(Part)
        if attacks is not None and (version != "auto" or not attacks or set(attacks) - set(parts)):
            raise InputError(
                f"attacks must be some of {', '.join(parts)}, with version left at auto; got "
                f"{list(attacks)} with version {version}"
            )
        if square_queries < 1:
            raise InputError(f"square_queries must be at least 1, got {square_queries}")
        self.norm = norm
        self.version = version if attacks is None else "custom"
        self.attacks = None if attacks is None else list(attacks)
        self.square_queries = square_queries

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        if self.version in (("rand",) if defence.deterministic else ("standard", "plus")):
            kind = "deterministic" if defence.deterministic else "random"
            raise InputError(
                f"AutoAttack's version {self.version} is not made for this defence, which is "
                f"{kind}; ask for {_fitting(defence)}, or auto, which chooses"
            )
        return super().perturb(defence, images, labels, indices, seed)

    def search(self, network: ExternalModel, image: Tensor, label: Tensor, seed: int) -> Tensor:
        attack = self._ensemble(network, image, seed)
        log = _Log()
        logger = logging.Logger(self.library, logging.DEBUG)  # known to nobody else
        logger.addHandler(log)
        attack.logger = attack.apgd.logger = attack.apgd_targeted.logger = logger
        try:
            with _untraced():
                found: Tensor = attack.run_standard_evaluation(image, label, batch_size=1)[0]
        except Fooled:
            if log.parts[-1:] == ["square"] and len(log.parts) > 1:
                network.findings.add("flag_square")  # it did not live to say so
            raise
        finally:
            network.findings |= log.flags
        return found

    def settings(self) -> dict[str, object]:
        names = ("norm", "eps", "version", "attacks", "square_queries", "early_stop")
        return {"attack": type(self).__name__, **{name: getattr(self, name) for name in names}}

    def _ensemble(
        self, network: ExternalModel, image: Tensor, seed: int
    ) -> pyautoattack.AutoAttack:
        import pyautoattack

        with torch.no_grad():
            num_classes = network(image).shape[1]
        attack = pyautoattack.AutoAttack(
            network,
            attacks=self.attacks,
            device=image.device,
            eps=self.eps,
            norm=self.norm,
            seed=seed,
            version=_fitting(network.defence) if self.version == "auto" else self.version,
        )
        parts = attack.attacks_to_run
        attack.square.n_queries = self.square_queries
        if not network.defence.deterministic:
            attack.apgd.eot_iter = attack.apgd_targeted.eot_iter = _EOT_DRAWS
        needed = max(_LEAST_CLASSES.get(part, 2) for part in parts)
        if num_classes < needed:
            raise InputError(
                f"AutoAttack's {', '.join(parts)} need at least {needed} classes (their DLR loss "
                f"compares that many logits), and the defence has {num_classes}; choose attacks "
                "[apgd-ce, fab, square]"
            )
        if "square" in parts and self.norm != "Linf" and min(image.shape[-2:]) < 5:
            raise InputError(
                f"Square in {self.norm} needs images of at least 5 x 5 pixels, got "
                f"{image.shape[-2]} x {image.shape[-1]}; choose attacks without it"
            )
        for part, targeted in {"apgd-t": attack.apgd_targeted, "fab-t": attack.fab}.items():
            if targeted.n_target_classes > num_classes - 1:
                targeted.n_target_classes = num_classes - 1
                if part in parts:
                    network.findings.add("flag_few_classes")
        return attack


def _fitting(defence: Defence) -> Version:
    """The version that is made for this kind of defence."""
    return "standard" if defence.deterministic else "rand"


class _Log(logging.Handler):
    """Reads the library's log.

    Attributes:
        flags: findings that its warnings stand for.
        parts: attacks started so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flags: set[str] = set()
        self.parts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            flags = {name for name, words in FLAGS.items() if words in text}
            self.flags |= flags
            if not flags:
                warnings.warn(f"AutoAttack: {text}", stacklevel=2)
        elif text.startswith("running "):
            self.parts.append(text.removeprefix("running "))


@contextmanager
def _untraced() -> Iterator[None]:
    """Give a debugger or a coverage tool its tracer back, which the check for dynamics takes.

    That check counts calls over the life of the process: it starts from 0 for every sample here.
    """
    from pyautoattack import checks

    tracer = sys.gettrace()
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    try:
        yield
    finally:
        sys.settrace(tracer)
