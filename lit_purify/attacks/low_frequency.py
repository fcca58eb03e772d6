"""Perturbations of low frequency inside the l_inf ball: a threat model of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_purify.attacks.base import SLACK
from lit_purify.attacks.eot import PGDEOT
from lit_purify.functional import low_pass, project_low_frequency, rms
from lit_purify.precision import Precision

OUTSIDE = 0.01
"""Root mean square of what may lie outside the frequencies, in units of eps."""


class LowFrequency(PGDEOT):
    r"""PGD among the perturbations whose DCT has frequencies below k alone.

    The threat model is :math:`\|x' - x\|_\infty \le \epsilon`, :math:`x' \in [0, 1]` and
    :math:`x' - x \in L_k`, the span of the k x k lowest functions of the discrete cosine transform
    of every channel (Guo et al., 2018; Sharma et al., 2019). It is part of the plain ball. A
    purifier that takes away what is fine leaves such perturbations. Each step adds the sign of the
    gradient's low frequencies and returns to the three sets by Dykstra's projections.

    The images that come back keep to it themselves, where published attacks cut off at 0 and 1
    what was of low frequency before. Where an image has both ends of the scale next to each other
    few perturbations are left, or none.

    The low-frequency attack of DiffBreak is another one:
    :class:`~lit_purify.attacks.LearnedFilters`.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        steps: iterations.
        rel_stepsize: step size in units of eps.
        random_start: start from the low frequencies of a uniform draw in the ball, keyed by sample.
        early_stop: as for :class:`~lit_purify.attacks.PGD`, on deterministic defences only.
        precision: as for :class:`~lit_purify.attacks.PGD`.
        frequencies: k, per axis. With as many as there are pixels it is
            :class:`~lit_purify.attacks.PGD`.
        draws: randomness configurations that a gradient is averaged over, where there are several.
        rows_per_pass: as for :class:`~lit_purify.attacks.PGDEOT`.
    """

    def __init__(
        self,
        *,
        eps: float | str = "8/255",
        steps: int = 40,
        rel_stepsize: float | str = 0.1,
        random_start: bool = True,
        early_stop: bool = False,
        precision: Precision = "float32",
        frequencies: int = 8,
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
            draws=draws,
            rows_per_pass=rows_per_pass,
        )
        self.frequencies = self._whole("frequencies", frequencies)

    def gradient(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """The low frequencies of the gradient, and the logits."""
        gradient, logits = super().gradient(*args, **options)
        # Dead pixels of a gradient that is not a number would spread to all others.
        return low_pass(gradient.nan_to_num(0), self.frequencies), logits

    def project(self, perturbed: Tensor, clean: Tensor) -> Tensor:
        """Images of the threat model near ``perturbed``."""
        delta = project_low_frequency(
            perturbed - clean,
            (-clean).clamp(min=-self.eps),
            (1 - clean).clamp(max=self.eps),
            self.frequencies,
            slack=OUTSIDE * self.eps,
        )
        return (clean + delta).clamp(0, 1)

    def admits(self, perturbed: Tensor, clean: Tensor) -> Tensor:
        """Which images are of the threat model, but for rounding and 1 % of eps: (B,), bool."""
        delta = perturbed - clean
        outside = rms(delta - low_pass(delta, self.frequencies))
        return super().admits(perturbed, clean) & (outside <= OUTSIDE * self.eps + SLACK)

    @property
    def threat_model(self) -> str:
        return f"l_inf, {self.frequencies} x {self.frequencies} lowest DCT frequencies"

    def settings(self) -> dict[str, object]:
        return {**super().settings(), "threat_model": self.threat_model}
