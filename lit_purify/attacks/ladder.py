"""Many attacks from cheap to dear, each on the images that those before it left standing."""

from __future__ import annotations

import copy
import time
from typing import Self

import torch
from torch import Tensor

from lit_purify.attacks.base import Attack, Finding
from lit_purify.attacks.cost import Cost
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import rows_of
from lit_purify.functional import correct
from lit_purify.types import LADDER, NOTED, InputError


class Ladder(Attack):
    """The worst case over several attacks of one ball, the rungs.

    The images themselves come first, then the rungs in their order. Each is given the samples that
    still stand and does on them what it would do alone: it has the same seed and meets the same
    noise, as if no other had been before it.

    On a deterministic defence a sample stands while it is classified correctly, and one answer
    inside the ball that is wrong breaks it: the image that a rung returns, or else the first of its
    queries that fools. So no rung alone leaves fewer samples standing, after its last iteration or
    at any.

    On a random one every candidate is tested under ``selection_draws`` draws of its own, which
    neither gradients nor the final test meet, and the one with the fewest right answers is kept. A
    sample is broken where most are wrong, and is handed on until all are, as a dearer attack may
    still lower the share. So no rung alone has a lower share of right answers under these draws.

    Args:
        rungs: the attacks by name, from cheap to dear. All search a ball of one norm, and that of
            radius ``eps``, whatever radius they were made with. ``None`` leaves one out.
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        budget: image-steps per image (:class:`~lit_purify.attacks.cost.Cost`): a rung is not begun
            on an image that so many have been spent on; one that is begun goes to its end. ``None``
            runs all.
        selection_draws: draws under which a candidate is tested on a random defence.

    Attributes:
        finding_names: ``wrong_unattacked``: broken before any attack; ``broken_by_<rung>``, of the
            samples that stood when the rung was given them, which n counts;
            ``broken_without_gradients``: broken by a rung that took no gradient after one that did
            had failed; ``image_steps``, in all, and ``image_steps_<rung>``, of those that it was
            given; with a budget ``not_run_<rung>``: not given to the rung for want of it; and those
            of the rungs, true where one found so.

    Raises:
        InputError: no rung, one that is a ladder, threat models that differ or are no ball of a
            norm, a name that is no identifier, or a budget or a number of draws below 1.
    """

    def __init__(
        self,
        *,
        rungs: dict[str, Attack | None],
        eps: float | str = "8/255",
        budget: int | None = None,
        selection_draws: int = 8,
    ) -> None:
        given = {name: rung for name, rung in rungs.items() if rung is not None}
        norms = {rung.p for rung in given.values()}
        balls = {rung.threat_model for rung in given.values()}
        if len(norms) != 1 or balls != {f"l{p:g}" for p in norms}:
            raise InputError(
                f"the rungs of a Ladder search {', '.join(sorted(balls)) or 'nothing'}; expected "
                "one or more attacks in the ball of one norm; name them by rungs, and run another "
                "ladder per norm"
            )
        for name, rung in given.items():
            if not name.isidentifier() or isinstance(rung, Ladder):
                raise InputError(
                    f"the rung {name!r} is a {type(rung).__name__}; expected an attack that is no "
                    "Ladder, under a name of letters, digits and underscores, such as apgd_dlr"
                )
        if budget is not None:
            self._whole("budget", budget)
        (self.p,) = norms
        super().__init__(eps=eps)
        self.rungs = {name: rung.with_eps(self.eps) for name, rung in given.items()}
        self.budget = budget
        self.selection_draws = self._whole("selection_draws", selection_draws)
        low = (rung.precision for rung in given.values() if rung.precision != "float32")
        self.precision = next(low, "float32")
        self._shown = self._own_findings()
        for rung in given.values():
            self._shown |= {name: rung.shown(name) for name in rung.finding_names}
        self.finding_names = tuple(self._shown)

    def shown(self, finding: str) -> Finding:
        return self._shown[finding]

    def with_eps(self, eps: float) -> Self:
        scaled = super().with_eps(eps)
        scaled.rungs = {name: rung.with_eps(eps) for name, rung in self.rungs.items()}
        return scaled

    def num_iterations(self, defence: Defence) -> None:
        return None

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        cost = Cost(defence, indices)
        defence = defence.observed(cost)
        best, right = images.clone(), self._share_right(defence, images, labels, indices)
        none = torch.zeros_like(right, dtype=torch.bool)
        always = ("not_run_", "broken_without_gradients")
        self.findings = {
            name: none.clone() if name.startswith(always) else torch.full_like(right, torch.nan)
            for name in self.finding_names
        }
        self.findings["wrong_unattacked"] = right < _MOST
        self.seconds = {}
        followed = none.clone()
        for name, rung in self.rungs.items():
            began, spent, gradients = time.monotonic(), cost.image_steps, cost.gradients.clone()
            given = right > 0
            if self.budget is not None:
                self.findings[f"not_run_{name}"] = given & (spent >= self.budget)
                given &= spent < self.budget
            if not given.any():
                continue
            stood = given & (right >= _MOST)
            rows = given.nonzero().flatten()
            batch = images[rows], labels[rows], indices[rows]
            for candidate, place in self._candidates(rung, defence, *batch, seed=seed):
                # What fools already need not be asked about again.
                place = place[right[rows[place]] > 0]
                chosen = rows[place]
                share = self._share_right(
                    defence, candidate[place], labels[chosen], indices[chosen]
                )
                lower = share < right[chosen]
                best[chosen[lower]] = candidate[place[lower]]
                right[chosen[lower]] = share[lower]
            broken = stood & (right < _MOST)
            took = cost.gradients > gradients
            self.findings["broken_without_gradients"] |= broken & followed & ~took
            self.findings[f"broken_by_{name}"][stood] = broken[stood].to(right)
            self.findings[f"image_steps_{name}"][rows] = (cost.image_steps - spent)[rows]
            for finding, found in rung.findings.items():
                known = self.findings[finding]
                known[rows] = torch.fmax(known[rows], found.to(known))
            followed |= took
            self.seconds[name] = (time.monotonic() - began, len(rows))
        self.findings["image_steps"] = cost.image_steps
        return best

    def settings(self) -> dict[str, object]:
        rungs = {
            name: {key: value for key, value in rung.settings().items() if key != "eps"}
            for name, rung in self.rungs.items()
        }
        return {
            "attack": type(self).__name__,
            "eps": self.eps,
            "rungs": rungs,
            "budget": "unlimited" if self.budget is None else self.budget,
            "selection_draws": self.selection_draws,
            "early_stop": True,  # a sample that is broken is not attacked any further
        }

    def _candidates(
        self,
        rung: Attack,
        defence: Defence,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        *,
        seed: int,
    ) -> list[tuple[Tensor, Tensor]]:
        """Images that a rung found, (B, C, H, W), and the rows for which it did, in turn."""
        first = _FirstFooling(self, images, labels, indices)
        searched = defence.rewound(indices).observed(first)  # every rung meets the first draws
        returned = rung(searched, images, labels, indices, seed=seed)
        candidates = [(returned, torch.arange(len(images), device=images.device))]
        if defence.deterministic:
            kept = self.project(first.images, images)
            candidates.append((kept, first.found.nonzero().flatten()))
        return candidates

    def _share_right(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor
    ) -> Tensor:
        """Share of the answers to each image that are right, shape (B,), float64."""
        if len(images) == 0:
            return images.new_zeros(0, dtype=torch.float64)
        source = copy.copy(defence.source)
        with torch.no_grad():
            if source is None or defence.deterministic:
                answers = [defence(images, indices)]
            else:
                noise = source.next_configuration()
                draws = (noise.derived("ladder", k) for k in range(self.selection_draws))
                answers = [defence.bind(draw, indices)(images) for draw in draws]
        return torch.stack([correct(logits, labels) for logits in answers]).double().mean(0)

    def _own_findings(self) -> dict[str, Finding]:
        found = {"wrong_unattacked": Finding("wrong without an attack", LADDER)}
        for name in self.rungs:
            found[f"broken_by_{name}"] = Finding(f"broken by {name}", LADDER)
        found["broken_without_gradients"] = Finding("broken without gradients alone")
        if self.budget is not None:
            for name in self.rungs:
                found[f"not_run_{name}"] = Finding(f"budget spent before {name}")
        found["image_steps"] = Finding("cost per image", LADDER, _UNIT)
        for name in self.rungs:
            found[f"image_steps_{name}"] = Finding(f"cost of {name}", NOTED, _UNIT)
        return found


_UNIT = "image-steps"
_MOST = 0.5
"""A sample is broken where a lower share of its answers is right."""


class _FirstFooling:
    """Observes a rung and keeps the first image inside the ball that was misclassified."""

    def __init__(self, attack: Attack, clean: Tensor, labels: Tensor, indices: Tensor) -> None:
        self.attack = attack
        self.clean = clean
        self.labels = labels
        self.indices = indices
        self.images = clean.clone()
        self.found = torch.zeros_like(labels, dtype=torch.bool)

    def __call__(self, images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
        """An :data:`~lit_purify.defence.Observer`."""
        rows, images = rows_of(indices, self.indices), images.detach()
        wrong = ~correct(logits.detach(), self.labels[rows]) & ~self.found[rows]
        wrong &= self.attack.admits(images, self.clean[rows])
        for row, image in zip(rows[wrong].tolist(), images[wrong], strict=True):
            if not self.found[row]:  # a library may ask about many images of a sample at once
                self.found[row] = True
                self.images[row] = image
