"""Expectation over transformation (Athalye et al., 2018): the mean gradient of many noise draws."""

from __future__ import annotations

from lit_purify.attacks.geometry import Norm
from lit_purify.attacks.losses import LossName
from lit_purify.attacks.pgd import PGD, Keep, Targets
from lit_purify.attacks.schedule import ScheduleName
from lit_purify.attacks.selection import JudgedBy
from lit_purify.precision import Precision


class PGDEOT(PGD):
    r"""PGD along :math:`E_\xi \nabla_x L[g(f_\xi(x)), t]` (eq. 9).

    Every iteration takes the next ``draws`` randomness configurations of the fresh noise. On a
    deterministic defence (``base``, ``fixed``) all draws are the same, and it is PGD. So it is with
    a single draw.

    With ``keep: best, evaluations: K, judged_by: majority`` the defence under attack is the
    majority vote of K draws: the gradient is the mean over ``draws`` of them, and an image counts
    as fooled when the vote of its K evaluations is wrong.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        steps: iterations.
        rel_stepsize: step size in units of eps.
        random_start: start from a random perturbation, keyed by sample.
        early_stop: as for :class:`~lit_purify.attacks.PGD`, on deterministic defences only.
        precision: as for :class:`~lit_purify.attacks.PGD`.
        norm: as for :class:`~lit_purify.attacks.PGD`, and so the arguments that follow it.
        loss: what is raised.
        targets: wrong classes to try.
        restarts: attempts.
        schedule: of the step size.
        momentum: share of a step that repeats the one before.
        keep: the last image or the best.
        evaluations: configurations that an image is scored over.
        judged_by: what of these answers counts as fooled.
        draws: randomness configurations that a gradient is averaged over; 15 in the paper.
        rows_per_pass: most images that go through the networks at once, draws counted. It changes
            time and memory, not the result.
    """

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
        draws: int = 15,
        rows_per_pass: int = 128,
    ) -> None:
        super().__init__(
            eps=eps,
            steps=steps,
            rel_stepsize=rel_stepsize,
            random_start=random_start,
            early_stop=early_stop,
            precision=precision,
            norm=norm,
            loss=loss,
            targets=targets,
            restarts=restarts,
            schedule=schedule,
            momentum=momentum,
            keep=keep,
            evaluations=evaluations,
            judged_by=judged_by,
        )
        self.draws = self._whole("draws", draws)
        self.rows_per_pass = self._whole("rows_per_pass", rows_per_pass)
