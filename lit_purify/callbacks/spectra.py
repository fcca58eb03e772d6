"""The singular values of one Jacobian: of its matrix, or from products with it alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_purify.functional import (
    JacobianOperator,
    density_above,
    density_below,
    frobenius_norm,
    lanczos,
    largest_singular,
    share_above,
    share_below,
    singular_values,
    spectral_density,
)

SMALL = 0.25
"""The paper counts the singular values below this one, and those above 1."""
NUMBERS = ("share_below_0.25", "share_above_1", "largest", "frobenius")
"""What every spectrum tells of an image."""
BOUNDED = ("share_below_0.25", "share_above_1", "frobenius")
"""What comes with an interval where there is no matrix."""

Product = Callable[[Tensor], Tensor]
Draw = Callable[[str, int], Tensor]
"""(purpose, number) -> U(-1, 1) draws that belong to the image, float64 on the CPU, (1, n)."""


@dataclass(frozen=True)
class Spectrum(ABC):
    """How the singular values of an image's Jacobian are found.

    Args:
        top_k: how many of the largest ones get their vectors.
    """

    top_k: int

    @abstractmethod
    def of(self, operator: JacobianOperator, draw: Draw) -> dict[str, float | Tensor]:
        """What is found of one image, by the names of :meth:`shapes`.

        Args:
            operator: the Jacobian at the image.
            draw: the randomness of the image.
        """

    def shapes(self, image: torch.Size) -> dict[str, tuple[int, ...]]:
        """Shapes of what is found of an image (C, H, W), () of a number."""
        vectors = (self.top_k, *image)
        return {
            **dict.fromkeys(NUMBERS, ()),
            "singular_values": (self.top_k,),
            "left_vectors": vectors,
            "right_vectors": vectors,
        }

    def settings(self) -> dict[str, object]:
        """What a report must say of it."""
        return {}

    def _largest(
        self, push: Product, pull: Product, draw: Draw, image: torch.Size
    ) -> dict[str, float | Tensor]:
        found = largest_singular(push, pull, draw("jacobian/start", 0).flatten(), self.top_k)
        return {
            "singular_values": found.values,
            "left_vectors": found.left.view(-1, *image),
            "right_vectors": found.right.view(-1, *image),
            "largest": found.values[0],
        }


@dataclass(frozen=True)
class Dense(Spectrum):
    """Computes the whole matrix and decomposes it."""

    def of(self, operator: JacobianOperator, draw: Draw) -> dict[str, float | Tensor]:
        # Decomposed on the CPU: the same routine everywhere, and float64 on every machine.
        matrix = operator.dense().detach().to("cpu", torch.float64)
        values = singular_values(matrix)
        return {
            **self._largest(
                lambda v: v @ matrix.T, lambda u: u @ matrix, draw, operator.image.shape
            ),
            "share_below_0.25": share_below(values, SMALL),
            "share_above_1": share_above(values, 1),
            "largest": values[0],
            "frobenius": values.norm(),
            "singular_values": values,
        }

    def shapes(self, image: torch.Size) -> dict[str, tuple[int, ...]]:
        return {**super().shapes(image), "singular_values": (image.numel(),)}


@dataclass(frozen=True)
class MatrixFree(Spectrum):
    """Computes products only: the largest values by iteration, the rest by Lanczos quadrature.

    Args:
        probes: random probes of the quadrature, 2 or more.
        lanczos_steps: steps of the quadrature.
    """

    probes: int
    lanczos_steps: int

    def of(self, operator: JacobianOperator, draw: Draw) -> dict[str, float | Tensor]:
        found = self._largest(operator.push, operator.pull, draw, operator.image.shape)
        signs = torch.cat([draw("jacobian/probe", k).sign() for k in range(self.probes)])
        probes = torch.where(signs == 0, 1, signs)
        rule = lanczos(operator.push, operator.pull, probes, self.lanczos_steps)
        estimates = (density_below(rule, SMALL), density_above(rule, 1), frobenius_norm(rule))
        numbers = {
            f"{name}{end}": getattr(estimate, part)
            for name, estimate in zip(BOUNDED, estimates, strict=True)
            for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
        }
        values, shares = spectral_density(rule)
        return {**found, **numbers, "density_values": values, "density_shares": shares}

    def shapes(self, image: torch.Size) -> dict[str, tuple[int, ...]]:
        size = (self.probes, min(self.lanczos_steps, image.numel()))
        return {
            **super().shapes(image),
            "density_values": size,
            "density_shares": size,
            **{f"{name}_{end}": () for name in BOUNDED for end in ("low", "high")},
        }

    def settings(self) -> dict[str, object]:
        return {"jacobian_probes": self.probes, "jacobian_lanczos_steps": self.lanczos_steps}
