r"""DiffHammer (Wang et al., NeurIPS 2024): follow the draws that are vulnerable together.

PGD-EOT climbs the mean loss of all purifications. Where some of them cannot be fooled together with
the others, their gradients only disturb: the gradient dilemma. DiffHammer takes the purifications
:math:`\phi_1 \dots \phi_N` of N randomness configurations for a mixture of those that share a
vulnerability and those that do not, and finds the shared direction r by expectation-maximisation.
With the losses :math:`\ell_i = L[\phi_i(x)]` and their gradients :math:`g_i`,

.. math::
   \text{E:} \quad & w_i = \sigma\big(\lambda \, [\ell_i + \epsilon \, \langle u(r), g_i \rangle]
   \big), \qquad u(r) = \mathrm{sign}(r), \\
   \text{M:} \quad & r = \textstyle\sum_i w_i g_i \, / \sum_i w_i,

where the bracket is the loss that a step of the size of the l_inf ball along r leads to, to first
order. The search begins with the gradient that raises the losses of the draws the most,

.. math:: r_0 = g_j, \qquad
   j = \arg\max_j \textstyle\sum_i \mathrm{ELU}(\ell_i + \epsilon \, \langle u(g_j), g_i \rangle).

What differs from the published code: the gradients are those of the whole chain for every draw,
where it pulls the direction found at the purified images back through one chain (gradient
grafting); and an E-step sees the r of the M-step before it, and a step of the size of the ball.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_purify.attacks.base import Attack
from lit_purify.attacks.gradient import check_differentiable, passes
from lit_purify.attacks.losses import Goal, LossName
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise
from lit_purify.functional import correct, margin
from lit_purify.types import InputError


def shared_direction(
    losses: Tensor, gradients: Tensor, *, eps: float, em_steps: int = 3, sharpness: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Direction of the draws that are vulnerable together, by expectation-maximisation.

    Args:
        losses: of N draws, shape (N, B), finite, larger where an attack is nearer.
        gradients: of the losses, shape (N, B, ...).
        eps: length of the step in l_inf that the draws are asked about.
        em_steps: rounds of E- and M-step; with 0 the gradient that the search begins with.
        sharpness: lambda; with 0 the direction is the mean over the draws.

    Returns:
        Direction (B, ...) and the shares of the draws in it, (N, B), summing to 1 over the draws.

    Example:
        >>> losses = torch.tensor([[1.0], [1.0], [-9.0]])  # the third cannot be fooled
        >>> gradients = torch.tensor([[[1.0, 0.0]], [[1.0, 0.2]], [[-9.0, 0.0]]])
        >>> shared_direction(losses, gradients, eps=0.1)[0].sign()
        tensor([[1., 1.]])
    """
    # In float64, so that rounding, which depends on the batch, does not turn signs.
    g, losses = gradients.flatten(2).double(), losses.double()

    def promised(direction: Tensor) -> Tensor:
        """The losses after a step along a direction (B, D), to first order, shape (N, B)."""
        return losses + eps * (direction.sign() * g).sum(2)

    gains = torch.stack([F.elu(promised(one)).sum(0) for one in g])
    chosen = gains.argmax(0)
    shares = F.one_hot(chosen, len(g)).T.to(g)
    direction = g[chosen, torch.arange(g.shape[1], device=g.device)]
    for _ in range(em_steps):
        # Normalised before the exponential: weights that are all tiny still have shares.
        shares = F.logsigmoid(sharpness * promised(direction)).softmax(0)
        direction = (shares.unsqueeze(2) * g).sum(0)
    return direction.view(gradients.shape[1:]).to(gradients), shares


class _Draws(NamedTuple):
    """What N draws say of a batch: how many are fooled, the mean margin, losses, gradients."""

    fooled: Tensor
    margin: Tensor
    losses: Tensor
    gradients: Tensor


class DiffHammer(Attack):
    r"""Climbs the direction of the draws that are vulnerable together; see the module.

    The same draws score the iterate that they are taken at, which was found with others: of all
    iterates of all restarts the one that fools the most draws is kept, of several the one with the
    largest mean margin against the true class (N-evaluation). No draw of the attack is met in the
    test, which reports the mean over its draws, the worst of them and their majority. The search
    goes on where all draws of an iterate are fooled, as of a few draws luck fools all soon enough.

    On a deterministic defence there is one draw, and it is PGD with restarts until one fools it.

    Args:
        eps: radius of the l_inf ball, a number or a fraction such as ``"8/255"``.
        steps: iterations of every restart, one gradient per draw each. A restart ends with one
            more pass of all draws, which scores its last iterate.
        rel_stepsize: step size in units of eps.
        draws: randomness configurations N of an iteration; 10 in the publication.
        losses: what each restart climbs: ``cross_entropy``, ``margin`` (Carlini & Wagner) or
            ``dlr``, which needs three classes. Each begins at a random point of the ball.
        em_steps: rounds of expectation and maximisation in every iteration.
        sharpness: :math:`\lambda` of the E-step, per unit of the loss. With 0 all draws weigh the
            same.
        averaging: :math:`\alpha` of stochastic expectation-maximisation: the k-th direction, from
            0, enters the one that is followed with the weight :math:`(k + 1)^{-\alpha}`, those
            before it with the rest. With 0 they are forgotten.
        rows_per_pass: most images that go through the networks at once, draws counted. It changes
            time and memory, not the result.
    """

    def __init__(
        self,
        *,
        eps: float | str = "8/255",
        steps: int = 40,
        rel_stepsize: float | str = 0.01 / 0.3,
        draws: int = 10,
        losses: Sequence[LossName] = ("cross_entropy", "margin", "dlr"),
        em_steps: int = 3,
        sharpness: float = 1.0,
        averaging: float = 0.5,
        rows_per_pass: int = 128,
    ) -> None:
        super().__init__(eps=eps)
        if not losses or (unknown := set(losses) - set(get_args(LossName))):
            raise InputError(
                f"losses of DiffHammer are {', '.join(sorted(unknown)) if losses else 'none'}; "
                f"expected one for every restart, of {', '.join(get_args(LossName))}"
            )
        if not (0 <= sharpness < math.inf and 0 <= averaging <= 1):
            raise InputError(
                f"sharpness is {sharpness} and averaging {averaging}; expected a finite sharpness "
                "of at least 0 and averaging in [0, 1], such as 1 and 0.5"
            )
        self.steps = self._whole("steps", steps)
        self.rel_stepsize = self._positive("rel_stepsize", rel_stepsize)
        self.draws = self._whole("draws", draws)
        self.losses = list(losses)
        self.em_steps = self._whole("em_steps", em_steps, 0)
        self.sharpness = sharpness
        self.averaging = averaging
        self.rows_per_pass = self._whole("rows_per_pass", rows_per_pass)

    def num_queries(self, defence: Defence) -> int:
        return self.num_iterations(defence) * self._num_draws(defence)

    def num_iterations(self, defence: Defence) -> int:
        return len(self.losses) * (self.steps + 1)

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        best = images.clone()
        enough = 1 if defence.deterministic else math.inf
        fooled = torch.full((len(images),), -1, device=images.device)
        margins = torch.full((len(images),), -math.inf, device=images.device)
        for restart, loss in enumerate(self.losses):
            noise = FixedNoise(seed)
            noise = noise.derived("restart", restart) if restart else noise
            start = images + self.eps * noise.uniform(indices, like=images)
            x, path = self.project(start, images), torch.zeros_like(images)
            for k in range(self.steps + 1):
                rows = (fooled < enough).nonzero()[:, 0]
                if len(rows) == 0:
                    return best
                last = k == self.steps
                found = self._ask(
                    defence, x[rows], labels[rows], indices[rows], loss, gradients=not last
                )
                better = (found.fooled > fooled[rows]) | (
                    (found.fooled == fooled[rows]) & (found.margin > margins[rows])
                )
                won = rows[better]
                best[won] = x[won]
                fooled[won], margins[won] = found.fooled[better], found.margin[better]
                if not last:
                    path[rows] += self._weight(k) * (self._direction(found) - path[rows])
                    step = self.eps * self.rel_stepsize * path[rows].sign()
                    x[rows] = self.project(x[rows] + step, images[rows])
        return best

    def _weight(self, k: int) -> float:
        return (k + 1) ** -self.averaging

    def _direction(self, found: _Draws) -> Tensor:
        options: Any = {"em_steps": self.em_steps, "sharpness": self.sharpness}
        return shared_direction(found.losses, found.gradients, eps=self.eps, **options)[0]

    def _ask(
        self,
        defence: Defence,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        loss: LossName,
        *,
        gradients: bool,
    ) -> _Draws:
        """The answers of the next draws; those without gradients have none."""
        draws = self._num_draws(defence)
        raised = Goal(loss)
        answers, slopes, losses = [], [], []
        for n in passes(draws, len(images), self.rows_per_pass):
            with torch.set_grad_enabled(gradients):
                x = images.detach().repeat(n, 1, 1, 1).requires_grad_(gradients)
                logits = defence(x, indices, draws=n)
                value = raised(logits, labels.repeat(n))
                if gradients:
                    check_differentiable(logits)
                    (slope,) = torch.autograd.grad(value.sum(), x)
                    # A draw whose gradient is not a number in some pixel says nothing there.
                    slopes.append(slope.nan_to_num(0).view(n, *images.shape))
            answers.append(logits.detach())
            losses.append(value.detach().double().nan_to_num().view(n, len(images)))
        logits, truth = torch.cat(answers), labels.repeat(draws)
        wrong = ~correct(logits, truth)
        return _Draws(
            wrong.view(draws, -1).sum(0),
            -margin(logits, truth).double().view(draws, -1).mean(0).to(images),
            torch.cat(losses),
            torch.cat(slopes) if gradients else images.new_empty(0),
        )

    def settings(self) -> dict[str, object]:
        # A deterministic defence is left at the first image that fools it.
        return {**super().settings(), "gradient": "exact", "early_stop": True}
