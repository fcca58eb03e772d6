"""What a chain of noising and denoising will do, known before any of it is computed."""

from __future__ import annotations

import math
from typing import Literal

from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.purifier import Purifier
from lit_purify.diffusion.reverse_step import ReverseStep, reverse_steps
from lit_purify.diffusion.samplers import Sampler
from lit_purify.diffusion.schedule import Schedule
from lit_purify.types import Process

ForwardProcess = Literal["stepwise", "one_shot", "none"]


class PlannedPurifier(Purifier):
    """A purifier whose states, draws and evaluations follow from the steps that it visits.

    Attributes:
        denoiser: noise predictor.
        schedule: its noise schedule.
        sampler: rule of the reverse steps.
        forward_process: how a round noises.
        timesteps: the steps that a round visits, ascending.
    """

    denoiser: Denoiser
    schedule: Schedule
    sampler: Sampler
    forward_process: ForwardProcess
    timesteps: list[int]

    @property
    def depths(self) -> list[tuple[Process, int]]:
        found: list[tuple[Process, int]] = [("forward", 0)]
        for visited in self.round_steps:
            found += [("forward", t) for t in self._noised(visited)]
            found += [("reverse", step.t_prev) for step in self._down(visited)]
        return found

    @property
    def round_steps(self) -> list[list[int]]:
        """The steps that every round of noising and denoising visits, ascending; here one round."""
        return [self.timesteps]

    @property
    def total_steps(self) -> int:
        """Reverse steps of a purification."""
        return sum(map(len, self.round_steps))

    @property
    def draws(self) -> list[tuple[Process, int]]:
        """Process and step of every Gaussian draw, in the order they are asked for."""
        return [draw for visited in self.round_steps for draw in self._draws(visited)]

    @property
    def num_draws(self) -> int:
        """Gaussian draws of a purification."""
        return len(self.draws)

    @property
    def passes_per_step(self) -> int:
        """Evaluations of the denoiser that a reverse step takes, at most."""
        return max(self._evaluations)

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser that a purification takes."""
        return sum(self._evaluations)

    def _down(self, visited: list[int]) -> list[ReverseStep]:
        """The reverse steps of a round."""
        return reverse_steps(visited, self.schedule)

    @property
    def _evaluations(self) -> list[int]:
        """Evaluations of the denoiser that each reverse step takes."""
        steps = (step for visited in self.round_steps for step in self._down(visited))
        return [len(self.sampler.evaluated(step)) for step in steps]

    def _check_steps(self, visited: list[int]) -> None:
        """Raise :class:`InputError` unless the denoiser knows what a round asks it at."""
        asked = {t for step in self._down(visited) for t in self.sampler.evaluated(step)}
        whole = {around(t) for t in asked for around in (math.floor, math.ceil)}
        self.denoiser.check_steps(sorted(whole))

    def _noised(self, visited: list[int]) -> list[int]:
        """The steps t that the forward process of a round stops at."""
        if self.forward_process == "none":
            return []
        return visited if self.forward_process == "stepwise" else visited[-1:]

    def _draws(self, visited: list[int]) -> list[tuple[Process, int]]:
        """Process and step of every Gaussian draw of a round, in the order they are asked for."""
        up: list[tuple[Process, int]] = [("forward", t) for t in self._noised(visited)]
        steps = self._down(visited)
        return [*up, *(("reverse", u) for step in steps for u in self.sampler.drawn(step))]
