r"""Noise schedules, their respacing, and the noising of an image (eq. 1).

Steps are counted as in the equations: :math:`t = 1 \dots T`, and :math:`\bar\alpha_0 = 1` is the
clean image. With :math:`\beta_t` the variance added at step ``t``,
:math:`\alpha_t = 1 - \beta_t` and :math:`\bar\alpha_t = \prod_{u \le t} \alpha_u`.

A chain that visits only some of the steps, :math:`0 = \tau_0 < \tau_1 < \dots < \tau_n = t^*`, is
a diffusion of its own with :math:`\alpha'_i = \bar\alpha_{\tau_i} / \bar\alpha_{\tau_{i-1}}`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lit_purify.types import InputError, is_whole


@dataclass(frozen=True)
class Schedule(ABC):
    r"""The variances :math:`\beta_t` that a network was trained with.

    A schedule of your own gives :attr:`betas`; as text it should say all that decides them.

    Args:
        num_train_steps: length T of the training schedule.

    Raises:
        InputError: a schedule that is not one.
    """

    num_train_steps: int = 1000

    def __post_init__(self) -> None:
        if self.num_train_steps < 1:
            raise InputError(f"num_train_steps is {self.num_train_steps}; expected 1 or more")

    @property
    @abstractmethod
    def betas(self) -> Tensor:
        r""":math:`\beta_t` for t = 1 .. T, shape (T,), float64, each in (0, 1)."""

    @cached_property
    def alpha_bar(self) -> Tensor:
        r""":math:`\bar\alpha_t` for t = 0 .. T, shape (T + 1,), float64; the first is 1."""
        betas = torch.as_tensor(self.betas, dtype=torch.float64)
        return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])

    @cached_property
    def alpha_bars(self) -> list[float]:
        """Those as plain numbers."""
        return self.alpha_bar.tolist()

    @cached_property
    def tau(self) -> npt.NDArray[np.float64]:
        r"""The time :math:`-\ln \bar\alpha_t` of t = 0 .. T, shape (T + 1,)."""
        found: npt.NDArray[np.float64] = -self.alpha_bar.log().numpy()
        return found

    @property
    def sigmas(self) -> Tensor:
        r"""Noise over signal, :math:`\sqrt{(1 - \bar\alpha_t) / \bar\alpha_t}`, shape (T + 1,)."""
        return ((1 - self.alpha_bar) / self.alpha_bar).sqrt()

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
        if not (is_whole(t_star) and 1 <= t_star <= self.num_train_steps):
            raise InputError(
                f"t_star must be a whole number between 1 and {self.num_train_steps}, the length "
                f"of the noise schedule, got {t_star}"
            )
        if num_steps is None:
            return list(range(1, t_star + 1))
        if not (is_whole(num_steps) and 1 <= num_steps <= t_star):
            raise InputError(
                f"num_steps must be a whole number between 1 and t_star = {t_star}, got "
                f"{num_steps}; leave it out to take every step"
            )
        return [round(t_star * (k + 1) / num_steps) for k in range(num_steps)]

    def step_at(self, tau: float) -> float:
        r"""The t at which :math:`-\ln \bar\alpha_t` is ``tau``; between whole steps it is linear.

        Example:
            >>> schedule = LinearSchedule()
            >>> schedule.step_at((schedule.tau[40] + schedule.tau[41]) / 2)
            40.5
        """
        return float(np.interp(tau, self.tau, np.arange(len(self.tau))))

    def sigma(self, t: int) -> float:
        r"""Standard deviation of the noise in :math:`x_t / \sqrt{\bar\alpha_t}`, [-1, 1] scale.

        .. math:: \sigma_t = \sqrt{(1 - \bar\alpha_t) / \bar\alpha_t}

        In the [0, 1] scale of images it is half of that.
        """
        return self.sigmas[t].item()

    def step_of(self, sigma: float) -> int:
        """The step t whose :meth:`sigma` is nearest to the one given, [-1, 1] scale.

        Raises:
            InputError: it lies outside those of the schedule.

        Example:
            >>> LinearSchedule().step_of(0.5), round(LinearSchedule().sigma(145), 4)
            (145, 0.4994)
        """
        first, last = self.sigma(1), self.sigma(self.num_train_steps)
        if not first <= sigma <= last:
            raise InputError(
                f"the noise of standard deviation {sigma:g} ([-1, 1] scale; {sigma / 2:g} for "
                f"pixels in [0, 1]) is none of the schedule's ({self}); expected {first:.7g} to "
                f"{last:.7g}, which is {first / 2:.7g} to {last / 2:.7g} for pixels"
            )
        return 1 + int((self.sigmas[1:] - sigma).abs().argmin())

    def settings(self) -> dict[str, object]:
        """What a report must say about this schedule."""
        return {"schedule": str(self)}


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """Variances growing linearly from ``beta_start`` to ``beta_end`` (Ho et al. 2020).

    Args:
        num_train_steps: length T of the training schedule.
        beta_start: variance of the first step.
        beta_end: variance of the last step.

    Example:
        >>> schedule = LinearSchedule()
        >>> round(schedule.alpha_bar[100].item(), 4)
        0.897
        >>> print(schedule)
        linear, 1000 steps, beta 0.0001 to 0.02
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise InputError(
                f"beta_start is {self.beta_start} and beta_end {self.beta_end}; expected "
                "0 < beta_start <= beta_end < 1"
            )

    @property
    def betas(self) -> Tensor:
        return torch.linspace(
            self.beta_start, self.beta_end, self.num_train_steps, dtype=torch.float64
        )

    def __str__(self) -> str:
        return f"linear, {self.num_train_steps} steps, beta {self.beta_start} to {self.beta_end}"


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    r"""The schedule of improved diffusion (Nichol & Dhariwal 2021, eq. 17),

    .. math:: \bar\alpha_t = \frac{f(t)}{f(0)}, \qquad
       f(t) = \cos^2\left(\frac{t / T + 0.008}{1.008} \cdot \frac{\pi}{2}\right),

    but for the last steps, whose variances are cut off at 0.999.

    Args:
        num_train_steps: length T of the training schedule.

    Example:
        >>> print(CosineSchedule())
        squared cosine, 4000 steps
    """

    num_train_steps: int = 4000

    @property
    def betas(self) -> Tensor:
        share = torch.linspace(0, 1, self.num_train_steps + 1, dtype=torch.float64)
        f = torch.cos((share + 0.008) / 1.008 * math.pi / 2).square()
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)

    def __str__(self) -> str:
        return f"squared cosine, {self.num_train_steps} steps"


@dataclass(frozen=True)
class KarrasSchedule(Schedule):
    r"""EDM's noise levels (Karras et al. 2022, eq. 5), counted from the lowest,

    .. math:: \sigma_t = \left(\sigma_{min}^{1/\rho} + \frac{t - 1}{T - 1}
       \left(\sigma_{max}^{1/\rho} - \sigma_{min}^{1/\rho}\right)\right)^\rho,
       \qquad \bar\alpha_t = \frac{1}{1 + \sigma_t^2}.

    Args:
        num_train_steps: number T of noise levels, 2 or more.
        sigma_min: noise level of the first step.
        sigma_max: noise level of the last step.
        rho: how much closer low noise levels lie than high ones.

    Example:
        >>> schedule = KarrasSchedule(18)
        >>> [round(sigma, 3) for sigma in schedule.sigmas[[1, 2, 18]].tolist()]
        [0.002, 0.008, 80.0]
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_train_steps < 2:
            raise InputError(f"num_train_steps is {self.num_train_steps}; expected 2 or more")
        if not (0 < self.sigma_min < self.sigma_max < math.inf and 0 < self.rho < math.inf):
            raise InputError(
                f"sigma_min is {self.sigma_min}, sigma_max {self.sigma_max} and rho {self.rho}; "
                "expected 0 < sigma_min < sigma_max and rho above 0"
            )

    @property
    def betas(self) -> Tensor:
        low, high = (sigma ** (1 / self.rho) for sigma in (self.sigma_min, self.sigma_max))
        variances = torch.linspace(low, high, self.num_train_steps, dtype=torch.float64) ** (
            2 * self.rho
        )
        before = torch.cat([variances.new_zeros(1), variances[:-1]])
        return (variances - before) / (1 + variances)

    def __str__(self) -> str:
        return (
            f"Karras, {self.num_train_steps} steps, sigma {self.sigma_min} to {self.sigma_max}, "
            f"rho {self.rho}"
        )


def checked_schedule(schedule: Schedule) -> Schedule:
    r"""The same schedule, where images can be noised and denoised by it.

    Raises:
        InputError: it is no :class:`Schedule`, or its :math:`\bar\alpha_t` does not fall from 1 to
            above 0 in T steps, as it does for every :math:`\beta_t` in (0, 1).
    """
    if not isinstance(schedule, Schedule):
        raise InputError(
            f"the noise schedule is {schedule!r}; expected a lit_purify.diffusion.Schedule, such "
            "as LinearSchedule()"
        )
    alpha_bar, steps = schedule.alpha_bar, schedule.num_train_steps
    if alpha_bar.shape != (steps + 1,):
        raise InputError(
            f"the noise schedule ({schedule}) has {len(alpha_bar) - 1} variances for "
            f"{steps} steps; expected one for each step: mend its betas"
        )
    sound = (alpha_bar[1:] < alpha_bar[:-1]) & (alpha_bar[1:] > 0)  # neither holds for nan
    if not sound.all() or alpha_bar[0] != 1:
        t = int(sound.int().argmin()) + 1
        raise InputError(
            f"the noise schedule ({schedule}) takes alpha_bar from {alpha_bar[t - 1].item():g} to "
            f"{alpha_bar[t].item():g} in step {t}; expected it to fall in every step, from 1 to "
            "above 0: give a beta in (0, 1) for each"
        )
    return schedule


def diffuse(x: Tensor, noise: Tensor, alpha: float | Tensor) -> Tensor:
    r"""A draw from :math:`q(x_t | x_s)` (eq. 1), :math:`\sqrt{\alpha'} x_s + \sqrt{1 - \alpha'} z`.

    Args:
        x: the state x_s, shape (B, C, H, W), [-1, 1] scale; x_0 for s = 0.
        noise: z, standard normal, of the same shape.
        alpha: :math:`\alpha' = \bar\alpha_t / \bar\alpha_s`, which is :math:`\bar\alpha_t` for
            s = 0; a number, or one per image, shape (B,).
    """
    root: Callable[[Any], Any] = math.sqrt
    if isinstance(alpha, Tensor):
        root, alpha = torch.sqrt, alpha.view(-1, 1, 1, 1)
    return root(alpha) * x + root(1 - alpha) * noise
