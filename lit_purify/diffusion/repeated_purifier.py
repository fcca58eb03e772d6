"""Purification in several rounds of noising and denoising, at one depth or several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import cast

from lit_purify.diffusion.class_labels import Label
from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.diffusion_purifier import DiffusionPurifier
from lit_purify.diffusion.planned_purifier import ForwardProcess
from lit_purify.diffusion.samplers import Sampler
from lit_purify.types import Auto, InputError


class RepeatedPurifier(DiffusionPurifier):
    r"""Purifies an image again and again, as in Lee & Kim (2023), attacked as one chain.

    Round k noises what round k - 1 left to its own depth and denoises it. Its noise is keyed by
    (base seed, dataset index, k): the first round has that of a :class:`DiffusionPurifier`, so that
    one round is that purifier; the others' are derived from it. States between the rounds are
    neither clipped nor brought to another size.

    Trajectory, gradient and memory go through all rounds: the gradient is exact, and the budget is
    spent on the last steps of all.

    Args:
        denoiser: as for :class:`DiffusionPurifier`.
        rounds: depth t* of every round, in their order; ``[30, 30, 30, 30, 50, 50, 125, 125]`` for
            Lee & Kim's CIFAR-10.
        num_steps: steps that every round takes across its depth, one number for all rounds or one
            for each; ``None`` takes every step.
        forward_process: as for :class:`DiffusionPurifier`, like all that follow.
        sampler: rule of the reverse steps.
        clip_output: clip the result of the last round to [0, 1].
        memory_budget_gib: memory for keeping network activations of all rounds.
        resize_to: side in pixels of the images in the chain.
        label: what a class-conditional denoiser is told, in all rounds.

    Raises:
        InputError: no rounds, another number of steps than of rounds, or what
            :class:`DiffusionPurifier` refuses.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        rounds: Sequence[int],
        num_steps: int | Sequence[int] | None = None,
        forward_process: ForwardProcess = "stepwise",
        sampler: Sampler | None = None,
        clip_output: bool = False,
        memory_budget_gib: float | Auto = 2.0,
        resize_to: int | None = None,
        label: Label = "none",
    ) -> None:
        steps = list(num_steps) if isinstance(num_steps, Sequence) else [num_steps] * len(rounds)
        if not rounds or len(steps) != len(rounds):
            raise InputError(
                f"rounds is {list(rounds)} and num_steps {num_steps}; expected a depth t* for one "
                "round or more, and as many steps or one number for all, such as [30, 30, 50]"
            )
        deepest = max(range(len(rounds)), key=rounds.__getitem__)
        super().__init__(
            denoiser,
            t_star=rounds[deepest],
            num_steps=steps[deepest],
            forward_process=forward_process,
            sampler=sampler,
            clip_output=clip_output,
            memory_budget_gib=memory_budget_gib,
            resize_to=resize_to,
            label=label,
        )
        self._round_steps = [
            self.schedule.timesteps(t_star, count)
            for t_star, count in zip(rounds, steps, strict=True)
        ]
        for visited in self._round_steps:
            self._check_steps(visited)

    @property
    def round_steps(self) -> list[list[int]]:
        return self._round_steps

    def settings(self) -> dict[str, object]:
        """As of :class:`DiffusionPurifier`: ``t_star`` is the deepest, ``num_steps`` of all."""
        said = super().settings()
        options = cast("dict[str, object]", said["purifier_options"])
        return {**said, "purifier_options": {**options, "rounds": _in_words(self.round_steps)}}


def _in_words(rounds: Sequence[Sequence[int]]) -> str:
    """Rounds as Lee & Kim write them, such as ``30 x 4, 50 in 5 steps x 2``."""
    words = []
    for (t_star, steps), alike in groupby((visited[-1], len(visited)) for visited in rounds):
        respaced = "" if steps == t_star else f" in {steps} steps"
        count = len(list(alike))
        words.append(f"{t_star}{respaced}" + (f" x {count}" if count > 1 else ""))
    return ", ".join(words)
