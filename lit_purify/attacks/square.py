"""Square (Andriushchenko et al., 2020): random search with squares."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from lit_purify.attacks.black_box import BlackBox
from lit_purify.attacks.squares import L2, Linf, share_at
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise
from lit_purify.types import InputError

Norm = Literal["Linf", "L2"]


class Square(BlackBox):
    """Changes a square at a time, and keeps what lowers the margin.

    The margin is the logit of the true class less the largest other. The first query is about the
    image itself, the second about stripes (l_inf) or tiles (l2), the others about squares, which
    shrink by the published schedule. Every choice is keyed by sample and iteration.

    On a random defence a candidate is kept if its mean margin over ``draws`` new randomness
    configurations is the lower one. That of the image kept so far is taken under the same
    configurations, each time anew: what was lucky once is not held for better. So an iteration
    takes 2 ``draws`` queries.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        norm: of the ball, ``Linf`` or ``L2``.
        queries: of a sample, at most.
        draws: randomness configurations that a margin is averaged over, on a random defence.
        first_share: share of the pixels in the first squares; 0.8 in AutoAttack.
        early_stop: on a deterministic defence a sample is done with when an image fools it. Without
            it the margin is lowered on and on, which serves transfer. Either way the image that is
            returned is one that fools if any did, so that its success is known.
        rows_per_pass: as for :class:`~lit_purify.attacks.black_box.BlackBox`.

    Raises:
        InputError: fewer queries than one iteration takes, or another argument out of its range.
    """

    def __init__(
        self,
        *,
        eps: float | str = "8/255",
        norm: Norm = "Linf",
        queries: int = 5000,
        draws: int = 10,
        first_share: float = 0.8,
        early_stop: bool = True,
        rows_per_pass: int = 128,
    ) -> None:
        if norm not in get_args(Norm):
            raise InputError(f"norm of Square must be Linf or L2, got {norm!r}")
        self.p = math.inf if norm == "Linf" else 2.0
        super().__init__(
            eps=eps, queries=queries, early_stop=early_stop, rows_per_pass=rows_per_pass
        )
        self.norm = norm
        self.draws = self._whole("draws", draws)
        self._whole("queries", queries, least=2 * draws)
        if not 0 < first_share <= 1:
            raise InputError(f"first_share of Square must lie in (0, 1], got {first_share}")
        self.first_share = first_share

    def num_queries(self, defence: Defence) -> int:
        if defence.deterministic:
            return self.queries
        return self._num_iterations(defence) * self.draws

    def _num_iterations(self, defence: Defence) -> int:
        return self.queries - 1 if defence.deterministic else self.queries // (2 * self.draws)

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        best, noise = images.clone(), FixedNoise(seed)
        active = torch.arange(len(images), device=images.device)
        if defence.deterministic:
            answers = self._ask(defence, images[None], labels, indices)
            lowest, fooled = answers.margins[0], answers.wrong[0]
        iterations = self._num_iterations(defence)
        for k in range(iterations):
            share = share_at(k, iterations, self.first_share) if k else None
            if self._stops(defence):
                active = active[~fooled[active]]
            if len(active) == 0:
                break
            incumbent, own = best[active], noise.derived("square", k)
            candidate = self._candidate(incumbent, images[active], indices[active], own, share)
            if defence.deterministic:
                answers = self._ask(defence, candidate[None], labels[active], indices[active])
                new, old = answers.margins[0], lowest[active]
                better = (new < old) | (answers.wrong[0] & ~fooled[active])
                fooled[active] |= answers.wrong[0]
                lowest[active] = new.where(better, old)
            else:
                both = torch.cat([candidate, incumbent]).expand(self.draws, *[-1] * 4)
                answers = self._ask(
                    defence, both, labels[active].repeat(2), indices[active].repeat(2)
                )
                new, old = answers.margins.mean(0).chunk(2)
                better = new < old
            best[active] = torch.where(better.view(-1, 1, 1, 1), candidate, incumbent)
        return best

    def _candidate(
        self, found: Tensor, clean: Tensor, indices: Tensor, noise: FixedNoise, share: float | None
    ) -> Tensor:
        """What to try next: squares of a share of the pixels, ``None`` for what comes first."""
        proposals = Linf() if self.norm == "Linf" else L2()
        shape = clean.shape[1:]
        count = proposals.num_start(shape) if share is None else proposals.num_move(shape)
        uniform = noise.uniform(indices, like=clean.new_empty(0, count))
        if share is None:
            proposal = proposals.start(clean, uniform, self.eps)
        else:
            proposal = proposals.move(found, clean, uniform, self.eps, share)
        return self.project(proposal, clean)
