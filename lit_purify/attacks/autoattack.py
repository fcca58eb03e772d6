"""AutoAttack (Croce & Hein, 2020), with its warnings as findings of each sample."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lit_purify.attacks.external import ExternalAttack, ExternalModel, Fooled
from lit_purify.attacks.geometry import EXPONENTS, Norm
from lit_purify.attacks.mean_over_draws import MeanOverDraws, Selection
from lit_purify.defence import Defence
from lit_purify.types import InputError

if TYPE_CHECKING:  # imported by the attack that needs it
    import pyautoattack

Version = Literal["auto", "standard", "plus", "rand", "rand_upstream"]
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

_RAND: list[Part] = ["apgd-ce", "apgd-dlr", "square"]
"""Parts of the version ``rand``: those of the paper, of which the library has the first two."""


class AutoAttack(ExternalAttack):
    """The ensemble of parameter-free attacks: APGD, targeted APGD, targeted FAB, Square.

    `standard` needs a defence that answers the same question always the same way; the parts run one
    after another until one succeeds. `rand` is for the others; ``auto`` chooses. Asking one for the
    other's defence is refused.

    The library's own `rand` counts an image as fooled after a single unlucky draw, of 4,000 or so,
    and as standing by a single lucky one (its issues 56, 104 and 105). Here APGD with two losses
    and Square, as published, follow and accept what the mean over ``draws`` says
    (:class:`~lit_purify.attacks.mean_over_draws.MeanOverDraws`), without stopping at an image that
    fools. Of what they find and the clean image the one is returned that is right in the fewest of
    ``draws`` further draws, which the search has not met, and which no test meets again
    (:class:`~lit_purify.attacks.mean_over_draws.Selection`). An image that is wrong in all of them
    ends the search. `rand_upstream` is the library's `rand` as it is, by which most published
    figures were found.

    With fewer than ten classes the targeted parts try all the wrong ones instead of nine (five for
    APGD in l_1), which ``flag_few_classes`` says.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``; ``None`` takes 8/255 in
            ``Linf``, and has no meaning in the other norms.
        norm: of the ball: ``Linf``, ``L2`` or ``L1``.
        version: ``auto``, ``standard``, ``plus`` (six parts, five restarts), ``rand`` or
            ``rand_upstream``.
        attacks: parts to run instead of a version's, with ``version`` ``auto``: any of ``apgd-ce``,
            ``apgd-dlr``, ``apgd-t``, ``fab``, ``fab-t``, ``square``, with the library's defaults
            for custom ensembles. On a random defence they go by the mean, too.
        square_queries: queries that Square may make for an image; ``None`` takes the published
            5000, and 1000 of ``draws`` passes each on a random defence.
        early_stop: return the first image inside the ball that fools a deterministic defence. A
            part counts as successful at any of its iterations anyway, so what changes is the time,
            and which of the images that fool is returned.
        draws: randomness configurations of a random defence that are averaged over, 20 in the
            paper.

    Attributes:
        finding_names: the library's warnings, ``flag_randomized``, ``flag_probabilities`` (instead
            of logits), ``flag_zero_gradient``, ``flag_dynamic`` (the defence takes gradients in its
            forward pass), ``flag_square`` (Square succeeded where the parts before it had not),
            ``flag_few_classes``; with ``rand_upstream`` ``counted_fooled``, by which the robust
            accuracy that the library reports falls; and those of
            :class:`~lit_purify.attacks.external.ExternalAttack`.

    Raises:
        InputError: no radius outside l_inf, an unknown name, both a version and a choice of
            attacks, or no queries or draws.
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
        square_queries: int | None = None,
        early_stop: bool = True,
        draws: int = 20,
    ) -> None:
        if norm not in EXPONENTS:
            raise InputError(f"AutoAttack's norm must be Linf, L2 or L1, got {norm!r}")
        if eps is None and norm != "Linf":
            raise InputError(
                f"AutoAttack in {norm} needs a radius, and eps is not given; 8/255 is one of Linf "
                f"only; give eps, such as {_USUAL[norm]}"
            )
        self.p = EXPONENTS[norm]
        super().__init__(eps="8/255" if eps is None else eps, early_stop=early_stop)
        if version not in get_args(Version):
            raise InputError(
                f"AutoAttack's version must be {', '.join(get_args(Version))}, got {version!r}"
            )
        parts = get_args(Part)
        if attacks is not None and (version != "auto" or not attacks or set(attacks) - set(parts)):
            raise InputError(
                f"attacks must be some of {', '.join(parts)}, with version left at auto; got "
                f"{list(attacks)} with version {version}"
            )
        if square_queries is not None:
            self._whole("square_queries", square_queries)
        self.norm = norm
        self.version = version if attacks is None else "custom"
        self.attacks = None if attacks is None else list(attacks)
        self.square_queries = square_queries
        self.draws = self._whole("draws", draws)
        if version == "rand_upstream":
            self.finding_names = ("counted_fooled", *self.finding_names)

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        others = ("rand", "rand_upstream") if defence.deterministic else ("standard", "plus")
        if self.version in others:
            kind = "deterministic" if defence.deterministic else "random"
            raise InputError(
                f"AutoAttack's version {self.version} is not made for this defence, which is "
                f"{kind}; ask for {_fitting(defence)}, or auto, which chooses"
            )
        return super().perturb(defence, images, labels, indices, seed)

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        from pyautoattack import checks

        # The check for dynamics counts calls over the life of the process.
        checks.funcs.update(dict.fromkeys(checks.funcs, 0))
        yield

    def search(self, network: ExternalModel, image: Tensor, label: Tensor, seed: int) -> Tensor:
        log = _Log(network)
        attack = self._ensemble(network, image, seed)
        attack.logger = attack.apgd.logger = attack.apgd_targeted.logger = log.logger
        try:
            if self._by_mean(network.defence):
                return self._strongest(attack, network, image, label)
            found: Tensor
            found, answers = attack.run_standard_evaluation(image, label, batch_size=1)
        except Fooled:
            if log.parts[-1:] == ["square"] and len(log.parts) > 1:
                network.note("flag_square")  # it did not live to say so
            raise
        if self.version == "rand_upstream" and answers != label:
            network.note("counted_fooled")
        return found

    @property
    def rows_per_pass(self) -> int:
        """Most images of a sample in one pass: its draws."""
        return self.draws

    def _by_mean(self, defence: Defence) -> bool:
        return not defence.deterministic and self.version != "rand_upstream"

    def _strongest(
        self,
        attack: pyautoattack.AutoAttack,
        network: ExternalModel,
        image: Tensor,
        label: Tensor,
    ) -> Tensor:
        """What the parts find that is right in the fewest draws of a random defence."""
        from pyautoattack import checks

        checks.check_range_output(network, image, logger=attack.logger)
        checks.check_dynamic(network, image, logger=attack.logger)
        kept = Selection(network, label, self.draws)
        kept.offer(image)
        for part in attack.attacks_to_run:
            stood = kept.share >= 0.5
            if kept.share == 0:
                break
            found = _run_part(attack, part, image, label).detach()
            if not found.isfinite().all():  # would pass for an image that fools
                network.note("not_finite")
                continue
            # Scored is what would be returned.
            kept.offer(self.project(found, image))
            if part == "square" and part != attack.attacks_to_run[0] and stood and kept.share < 0.5:
                network.note("flag_square")
        return kept.image

    def settings(self) -> dict[str, object]:
        names = ("norm", "eps", "version", "attacks", "square_queries", "early_stop", "draws")
        return {"attack": type(self).__name__, **{name: getattr(self, name) for name in names}}

    def _ensemble(
        self, network: ExternalModel, image: Tensor, seed: int
    ) -> pyautoattack.AutoAttack:
        import pyautoattack

        with torch.no_grad():
            num_classes = network(image).shape[1]
        version = _fitting(network.defence) if self.version == "auto" else self.version
        by_mean = self._by_mean(network.defence)
        attack = pyautoattack.AutoAttack(
            MeanOverDraws(network, self.draws) if by_mean else network,
            attacks=self.attacks,
            device=image.device,
            eps=self.eps,
            norm=self.norm,
            seed=seed,
            version="rand" if version == "rand_upstream" else version,
        )
        attack.apgd.eot_iter = self.draws if version == "rand_upstream" else 1
        if version == "rand":
            attack.attacks_to_run = _RAND
        attack.square.n_queries = self.square_queries or (1000 if by_mean else 5000)
        parts = attack.attacks_to_run
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
                    network.note("flag_few_classes")
        return attack


def _fitting(defence: Defence) -> Version:
    """The version that is made for this kind of defence."""
    return "standard" if defence.deterministic else "rand"


def _run_part(attack: pyautoattack.AutoAttack, part: Part, image: Tensor, label: Tensor) -> Tensor:
    """What a part finds on a random defence, without an end at the first image that fools."""
    found: Tensor
    if part in ("apgd-ce", "apgd-dlr"):
        attack.apgd.loss = part.removeprefix("apgd-")
        found = attack.apgd.perturb(image, label, best_loss=True)
    elif part == "square":
        by_margin = attack.square.margin_and_loss

        def never_fooled(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            margins = by_margin(images, labels)[1]
            return torch.ones_like(margins), margins

        attack.square.margin_and_loss = never_fooled
        attack.square.init_hyperparam(image)
        found = attack.square.attack_single_run(image, label)[1]
    elif part == "apgd-t":
        found = attack.apgd_targeted.perturb(image, label)
    else:
        attack.fab.targeted = part == "fab-t"
        attack.fab.n_restarts = 1
        found = attack.fab.perturb(image, label)
    return found


class _Log(logging.Handler):
    """Reads the library's log, and notes what its warnings say.

    Attributes:
        logger: for the library.
        parts: attacks started so far.
    """

    def __init__(self, network: ExternalModel) -> None:
        super().__init__()
        self.network = network
        self.parts: list[str] = []
        self.logger = logging.Logger("autoattack", logging.DEBUG)  # known to nobody else
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            flags = {name for name, words in FLAGS.items() if words in text}
            self.network.findings |= flags
            if not flags:
                warnings.warn(f"AutoAttack: {text}", stacklevel=2)
        elif text.startswith("running "):
            self.parts.append(text.removeprefix("running "))
