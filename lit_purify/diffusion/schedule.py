r"""The noise schedule of Ho et al. and its respacing.

Steps are counted as in the equations: :math:`t = 1 \dots T`, and :math:`\bar\alpha_0 = 1` is the
clean image. With :math:`\beta_t` the variance added at step ``t``,
:math:`\alpha_t = 1 - \beta_t` and :math:`\bar\alpha_t = \prod_{u \le t} \alpha_u`.

A chain that visits only some of the steps, :math:`0 = \tau_0 < \tau_1 < \dots < \tau_n = t^*`, is
a diffusion of its own with :math:`\alpha'_i = \bar\alpha_{\tau_i} / \bar\alpha_{\tau_{i-1}}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lit_purify.types import InputError


@dataclass(frozen=True)
class LinearSchedule:
    """Variances growing linearly from ``beta_start`` to ``beta_end`` in ``num_train_steps`` steps.

    Args:
        num_train_steps: length T of the training schedule.
        beta_start: variance of the first step.
        beta_end: variance of the last step.

    Example:
        >>> schedule = LinearSchedule()
        >>> round(schedule.alpha_bar[100].item(), 4)
        0.897
    """

    num_train_steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        if self.num_train_steps < 1:
            raise ValueError(f"num_train_steps must be at least 1, got {self.num_train_steps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                "expected 0 < beta_start <= beta_end < 1, "
                f"got {self.beta_start} and {self.beta_end}"
            )

    @cached_property
    def alpha_bar(self) -> Tensor:
        r""":math:`\bar\alpha_t` for t = 0 .. T, shape (T + 1,), float64; the first is 1."""
        betas = torch.linspace(
            self.beta_start, self.beta_end, self.num_train_steps, dtype=torch.float64
        )
        return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])

    def timesteps(self, t_star: int, num_steps: int | None = None) -> list[int]:
        """The steps a chain to depth ``t_star`` visits, ascending, ending at ``t_star``.

        Args:
            t_star: diffusion depth in units of the training schedule, 1 .. T.
            num_steps: how many steps the chain takes; ``None`` takes every one, as in the paper.

        Raises:
            InputError: a depth outside the schedule, or more steps than the depth has.

        Example:
            >>> LinearSchedule().timesteps(100, 5)
            [20, 40, 60, 80, 100]
        """
        if not 1 <= t_star <= self.num_train_steps:
            raise InputError(
                f"t_star must lie between 1 and {self.num_train_steps}, the length of the noise "
                f"schedule, got {t_star}"
            )
        if num_steps is None:
            return list(range(1, t_star + 1))
        if not 1 <= num_steps <= t_star:
            raise InputError(
                f"num_steps must lie between 1 and t_star = {t_star}, got {num_steps}; "
                "leave it out to take every step"
            )
        return [round(t_star * (k + 1) / num_steps) for k in range(num_steps)]
