"""Projected gradient descent (Madry et al., 2017) in an l_p ball, and its kin."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal, get_args

import torch
from torch import Tensor

from lit_purify.attacks.base import Attack
from lit_purify.attacks.geometry import EXPONENTS, Norm, random_perturbation, steepest_step
from lit_purify.attacks.gradient import input_gradient
from lit_purify.attacks.judge import Judge
from lit_purify.attacks.losses import Goal, LossName
from lit_purify.attacks.schedule import SCHEDULES, ScheduleName
from lit_purify.attacks.selection import JudgedBy, Selection
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise
from lit_purify.precision import Precision, arithmetic
from lit_purify.types import InputError, is_whole

Keep = Literal["last", "best"]
Targets = int | Literal["all"] | None


class PGD(Attack):
    r"""Iterates :math:`x \leftarrow \Pi(x + s \, u)` with u the steepest step of the loss L:
    :math:`\mathrm{sign} \nabla_x L(x)` in l_inf.

    The gradient is that of the whole chain. Forty steps of the default size travel 4/3 eps, the
    diameter of the ball is 2 eps: from a random start a pixel in three cannot reach the far side.

    APGD (Croce & Hein, 2020) is ``steps: 100, rel_stepsize: 2, schedule: apgd, momentum: 0.25,
    keep: best``.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        steps: iterations of every attempt.
        rel_stepsize: step size s in units of eps; 0.01 / 0.3 as in the paper's Table S1.
        random_start: start from a random perturbation, keyed by sample, instead of the image:
            uniform in the ball of l_inf, on the sphere of l2 and l1.
        early_stop: a sample that is fooled leaves the batch and keeps the iterate that fooled it.
            The success at any iteration is unchanged, the success after the last one is no longer
            known. Only used on deterministic defences, where a success stays a success.
        precision: what the networks compute in while they are searched: ``tf32``, ``bf16``, or
            ``float32`` for the precision of the caller. Images stay float32, and so does what
            counts: a query that looks like a success in low precision is one if float32 confirms
            it. One that only float32 would have seen is missed, so that successes before the last
            iteration can be undercounted, never overcounted.
        norm: of the ball: ``Linf``, ``L2`` or ``L1``. A step in L1 moves a hundredth of the pixels.
        loss: what is raised, see :mod:`lit_purify.attacks.losses`: ``cross_entropy``, ``margin`` or
            ``dlr``.
        targets: attempts at so many wrong classes, those that are likeliest for the clean image, or
            at ``all``; ``None`` makes one at no class in particular.
        restarts: attempts, each from a random start of its own; with ``targets`` so many for every
            class. On a deterministic defence a sample that is fooled needs no further attempt.
        schedule: of the step size: ``constant``; ``cosine``, down to 0; ``apgd``, halved for every
            sample by itself where its loss has stopped rising, which goes on from its best image.
        momentum: share of a step that repeats the one before; 0.25 in APGD.
        keep: the image returned: that of the ``last`` iteration, or the ``best`` of all that were
            asked about, the last one too: one that fools the defence before one that does not,
            then that of the highest loss. Several attempts need it.
        evaluations: on a random defence every image is scored over so many randomness
            configurations, the same for all, which no gradient and no test uses, and the best is
            kept by them (N-evaluation); 0 scores by the configurations of the gradient.
        judged_by: what of these answers counts as fooled: the ``mean`` share of wrong ones, a wrong
            one among them (``worst``), or a wrong vote (``majority``).

    Attributes:
        finding_names: with ``evaluations``, ``standing_in_selection``: share of its evaluations in
            which the returned image is right; 1 or 0 for the worst one and for the majority.
    """

    straight_through = False
    """Whether the gradient takes the purifier for the identity."""

    rows_per_pass: int | None = None
    """Most images in one pass of several draws."""

    def __init__(
        self,
        *,
        eps: float | str = "8/255",
        steps: int = 40,
        rel_stepsize: float | str = 0.01 / 0.3,
        random_start: bool = True,
        early_stop: bool = False,
        precision: Precision = "float32",
        norm: Norm = "Linf",
        loss: LossName = "cross_entropy",
        targets: Targets = None,
        restarts: int = 1,
        schedule: ScheduleName = "constant",
        momentum: float = 0.0,
        keep: Keep = "last",
        evaluations: int = 0,
        judged_by: JudgedBy = "mean",
    ) -> None:
        for name, value, kind in (
            ("precision", precision, Precision),
            ("norm", norm, Norm),
            ("loss", loss, LossName),
            ("schedule", schedule, ScheduleName),
            ("keep", keep, Keep),
            ("judged_by", judged_by, JudgedBy),
        ):
            if value not in get_args(kind):
                raise InputError(
                    f"{name} is {value!r}; expected one of {', '.join(get_args(kind))}"
                )
        self.p = EXPONENTS[norm]
        super().__init__(eps=eps)
        self.steps = self._whole("steps", steps)
        self.restarts = self._whole("restarts", restarts)
        self.evaluations = self._whole("evaluations", evaluations, 0)
        self.rel_stepsize = self._positive("rel_stepsize", rel_stepsize)
        if targets not in (None, "all") and not (is_whole(targets) and int(targets) >= 1):
            raise InputError(
                f"targets is {targets!r}; expected how many wrong classes to try, such as 9, all, "
                "or null for none in particular"
            )
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must be in [0, 1), got {momentum}; 0.25 in APGD")
        if keep == "last" and (restarts > 1 or targets is not None or evaluations):
            raise InputError(
                "restarts, targets and evaluations choose among images, and keep is last; set "
                "keep to best"
            )
        if restarts > 1 and not random_start:
            raise InputError(
                f"{restarts} restarts from the image itself would be one attempt; set random_start "
                "to true, or restarts to 1"
            )
        if judged_by != "mean" and not evaluations:
            raise InputError(
                f"judged_by is {judged_by}, which needs several answers to an image, and "
                "evaluations is 0; set evaluations, such as 10"
            )
        self.random_start = random_start
        self.early_stop = early_stop
        self.precision = precision
        self.norm = norm
        self.loss = loss
        self.targets = targets
        self.schedule = schedule
        self.momentum = momentum
        self.keep = keep
        self.judged_by = judged_by
        if evaluations:
            self.finding_names = ("standing_in_selection",)

    def num_queries(self, defence: Defence) -> int | None:
        return sum(self.queries_per_iteration(defence)) or None

    def num_iterations(self, defence: Defence) -> int | None:
        return len(self.queries_per_iteration(defence)) or None

    def queries_per_iteration(self, defence: Defence) -> list[int]:
        """Of every image that is asked about: with ``targets`` the clean one first, then in every
        attempt one for each step, and with ``keep: best`` the one after the last."""
        targets = self.targets or 1
        if targets == "all":
            classes = getattr(defence.classifier, "num_classes", None)
            if not isinstance(classes, int):
                return []
            targets = classes - 1
        draws = self._num_draws(defence)
        selecting = 0 if defence.deterministic else self.evaluations
        asked = selecting or draws
        attempt = [draws + selecting] * self.steps + [asked] * (self.keep == "best")
        return [asked] * (self.targets is not None) + attempt * self.restarts * targets

    @property
    def stops_early(self) -> bool:
        return self.early_stop

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        if self.precision == "float32":
            return self._search(defence, images, labels, indices, seed)
        judge = Judge(defence, labels, indices)
        with arithmetic(self.precision, images.device):
            return self._search(judge.searched, images, labels, indices, seed, judge)

    def _search(
        self,
        defence: Defence,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        seed: int,
        judge: Judge | None = None,
    ) -> Tensor:
        """Attempt after attempt: every restart, and in it every target."""
        selection = Selection(
            defence,
            images,
            labels,
            indices,
            loss=self.loss,
            draws=self._num_draws(defence),
            evaluations=self.evaluations,
            judged_by=self.judged_by,
            rows_per_pass=self.rows_per_pass,
            judge=judge,
        )
        goals = self._goals(selection, images, labels)
        last = images
        for restart, goal in product(range(self.restarts), goals):
            rows = torch.arange(len(images), device=images.device)
            if defence.deterministic:
                rows = rows[selection.standing > 0]
            if not len(rows) and len(images):
                break
            start = self._start(images, indices, seed, restart)
            last = self._climb(selection, goal, start, rows, (defence, images, labels, indices))
        if self.evaluations:
            self.findings = {"standing_in_selection": selection.standing}
        return last if self.keep == "last" else selection.images

    def _start(self, images: Tensor, indices: Tensor, seed: int, restart: int) -> Tensor:
        """Where the attempts of a restart begin."""
        if not self.random_start:
            return images.clone()
        noise = FixedNoise(seed)
        if restart:
            noise = noise.derived("restart", restart)
        shift = random_perturbation(noise, indices, images, self.p)
        return self.project(images + self.eps * shift, images)

    def _goals(self, selection: Selection, images: Tensor, labels: Tensor) -> Sequence[Goal]:
        """The goals of the attempts from one start, by the answers to the clean images."""
        if self.targets is None:
            return [Goal(self.loss)]
        rows = torch.arange(len(images), device=images.device)
        answers = selection.ask(images, rows)
        selection.offer(images, rows, answers)
        others = answers.shape[2] - 1
        wanted = others if self.targets == "all" else self.targets
        if wanted > others:
            raise InputError(
                f"targets is {wanted}, and the defence has {others} wrong classes; give at most "
                f"{others}, or all"
            )
        likely = answers.double().softmax(2).nan_to_num().mean(0)
        likely = likely.scatter(1, labels.unsqueeze(1), -1.0)
        ranked = likely.argsort(dim=1, descending=True, stable=True)
        return [Goal(self.loss, targets) for targets in ranked[:, :wanted].T]

    def _climb(
        self,
        selection: Selection,
        goal: Goal,
        x: Tensor,
        active: Tensor,
        batch: tuple[Defence, Tensor, Tensor, Tensor],
    ) -> Tensor:
        """One attempt: the last iterate of every sample.

        Args:
            selection: is offered what is asked about, where it is to keep the best.
            goal: of the whole batch.
            x: where to start, shape (B, C, H, W); it is changed in place.
            active: rows of the samples that are attacked, shape (A,).
            batch: defence, clean images, labels and indices.
        """
        defence, images, labels, indices = batch
        schedule = SCHEDULES[self.schedule](self.steps, x)
        before = x.clone() if self.momentum else x  # which nobody asks for
        for k in range(self.steps):
            here = x[active]
            gradient, logits = self.gradient(
                defence, here, labels[active], indices[active], goal=goal.of(active)
            )
            answers = selection.answers(here, active, logits)
            losses = selection.losses(goal.of(active), active, answers).mean(0)
            if self.keep == "best":
                selection.offer(here, active, answers)
            if self.early_stop and defence.deterministic:
                standing = selection.fooled(active, answers) == 0
                active, here, gradient = active[standing], here[standing], gradient[standing]
                losses = losses[standing]
                if len(active) == 0:
                    return x
            size = schedule.sizes(k, active, losses, here, gradient)
            step = self.eps * self.rel_stepsize * size * steepest_step(gradient, here, self.p)
            moved = self.project(here + step, images[active])
            if self.momentum and k:
                ahead, again = moved - here, here - before[active]
                mixed = (1 - self.momentum) * ahead + self.momentum * again
                moved = self.project(here + mixed, images[active])
            before[active], x[active] = here, moved
        if self.keep == "best":
            selection.offer(x[active], active, selection.ask(x[active], active))
        return x

    def gradient(
        self,
        defence: Defence,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        *,
        goal: Goal | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the attack follows: gradient of a goal's loss (B, C, H, W), and the logits.

        Without a goal it is the attack's loss, towards no class in particular.
        """
        return input_gradient(
            defence,
            images,
            labels,
            indices,
            loss=goal or Goal(self.loss),
            draws=self._num_draws(defence),
            rows_per_pass=self.rows_per_pass,
            straight_through=self.straight_through,
        )

    def settings(self) -> dict[str, object]:
        gradient = "purifier taken for the identity" if self.straight_through else "exact"
        said = super().settings()
        # Names that the settings of a run give to its own and to the purifier's.
        taken = ("precision", "schedule", "evaluations")
        own = {f"attack_{name}": said.pop(name) for name in taken}
        return {**said, "gradient": gradient, **own, "targets": self.targets or "none"}
