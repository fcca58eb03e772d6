"""The contract of every attack: (defence, images, labels, indices) -> adversarial images."""

from __future__ import annotations

import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from lit_purify.arguments import RecordsArguments
from lit_purify.defence import Defence
from lit_purify.functional import lp_distance, project
from lit_purify.precision import Precision
from lit_purify.types import NOTED, InputError, is_whole, ratio

SLACK = 1e-6
"""How far outside its ball, in units of the pixels, rounding may put an image."""


CUSTOMARY = (4 / 255, 8 / 255)
"""Radii of l_inf. An attack in another norm that takes another's place in a configuration inherits
them where it sets none of its own."""


class Finding(NamedTuple):
    """How reports show something that an attack finds out about each sample.

    Attributes:
        label: what it is, in plain words.
        section: title of the rows that it stands among.
        unit: ``%`` of what is true or false, whose share is shown; of numbers, whose mean is shown,
            other text.
    """

    label: str
    section: str = NOTED
    unit: str = "%"


class Attack(RecordsArguments, ABC):
    """Finds adversarial images in a ball. Whether they succeed is judged elsewhere.

    Args:
        eps: radius of the ball in the [0, 1] scale, a number or a fraction such as ``"8/255"``.

    Attributes:
        p: norm of the ball: ``math.inf``, 2 or 1.
        precision: what the networks compute in while they are searched; ``float32`` leaves that to
            the caller.
        draws: randomness configurations that an answer or a gradient is taken over, on a random
            defence.
        finding_names: what the attack finds out about each sample beside its image, such as
            warnings; the names are known before any batch.
        findings: of the last batch, for every one of ``finding_names``: shape (B,), bool, or a
            floating-point number that is nan for samples about which nothing was found out.
        seconds: that the parts of the attack on the last batch took, of attacks that have parts,
            and how many images each was given.
    """

    p: float = math.inf
    precision: Precision = "float32"
    draws: int = 1
    finding_names: tuple[str, ...] = ()

    def __init__(self, *, eps: float | str) -> None:
        self.findings: dict[str, Tensor] = {}
        self.seconds: dict[str, tuple[float, int]] = {}
        self.eps = self._checked_radius(ratio(eps))
        if self.p != math.inf and self.eps in CUSTOMARY:
            warnings.warn(
                f"{type(self).__name__} searches an l{self.p:g} ball of radius {eps}, which is "
                "customary in l_inf and very small here; did a configuration before this one set "
                "it? give eps, such as 0.5 in l2",
                stacklevel=3,
            )

    def __call__(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, *, seed: int = 0
    ) -> Tensor:
        """Attack a batch.

        Args:
            defence: bound to these samples, or to more.
            images: clean images in [0, 1], shape (B, C, H, W); the attack works in float32.
            labels: true classes, shape (B,).
            indices: dataset indices, shape (B,).
            seed: base seed of the attack's own randomness, keyed by sample.

        Returns:
            Adversarial images, detached, inside the ball and inside [0, 1].

        Raises:
            InputError: images outside [0, 1] or not finite; autocast in float16, where a third of
                an attack's gradient underflows to 0.
        """
        if not ((images >= 0) & (images <= 1)).all():
            raise InputError(
                "an attack needs finite images in [0, 1], got values from "
                f"{images.min():.4g} to {images.max():.4g}; divide 8-bit images by 255"
            )
        device = images.device.type
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        if autocast == torch.float16:
            raise InputError(
                "an attack runs under autocast in float16, where small gradients become 0; "
                "expected float32, or autocast in bfloat16; use torch.bfloat16"
            )
        clean = images.detach().float().contiguous()
        # Rows are chosen by masks of the images' device, of the indices too.
        labels, indices = labels.to(clean.device), indices.to(clean.device)
        found = self.perturb(defence, clean, labels, indices, seed)
        if not found.isfinite().all():
            raise RuntimeError(f"{type(self).__name__} returned images that are not finite")
        return self.project(found.detach().float(), clean)

    @abstractmethod
    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        """Search for adversarial images; the caller projects what comes back."""

    def project(self, perturbed: Tensor, clean: Tensor) -> Tensor:
        """The nearest images inside the eps-ball around ``clean`` and inside [0, 1]."""
        return project(perturbed, clean, self.eps, self.p)

    @property
    def threat_model(self) -> str:
        """What bounds the images, beside [0, 1], in words: the ball of a norm such as ``linf``."""
        return f"l{self.p:g}"

    def shown(self, finding: str) -> Finding:
        """How reports show one of ``finding_names``."""
        return Finding(finding.replace("_", " "))

    def with_eps(self, eps: float) -> Self:
        """The same attack in a ball of another radius.

        Raises:
            InputError: a radius that the attack could not have been made with.
        """
        scaled = copy.copy(self)
        scaled.eps = self._checked_radius(eps)
        return scaled

    def _checked_radius(self, eps: float) -> float:
        if self.p == math.inf and not 0 <= eps <= 1:
            raise InputError(
                f"eps must lie in [0, 1], the scale of the images, got {eps}; "
                "write 8/255 for eight grey levels"
            )
        if not 0 <= eps < math.inf:
            raise InputError(f"eps must be finite and at least 0, got {eps}")
        return eps

    def _whole(self, name: str, value: int, least: int = 1) -> int:
        """An argument that counts something."""
        if not (is_whole(value) and value >= least):
            raise InputError(
                f"{name} of {type(self).__name__} must be a whole number, at least {least}, got "
                f"{value!r}"
            )
        return value

    def _positive(self, name: str, value: float | str) -> float:
        """An argument that is a number or a fraction above 0."""
        found = ratio(value)
        if not 0 < found < math.inf:
            raise InputError(f"{name} of {type(self).__name__} must be positive, got {value}")
        return found

    def admits(self, perturbed: Tensor, clean: Tensor) -> Tensor:
        """Which images lie inside the ball and inside [0, 1], but for rounding: (B,), bool."""
        inside = lp_distance(perturbed, clean, self.p) <= self.eps + SLACK
        return inside & ((perturbed >= 0) & (perturbed <= 1)).flatten(1).all(1)

    def num_queries(self, defence: Defence) -> int | None:
        """Queries that an attack on a batch makes, for progress; ``None`` if unknown."""
        return None

    def num_iterations(self, defence: Defence) -> int | None:
        """Iterations of that attack; ``None`` if unknown."""
        return self.num_queries(defence)

    def queries_per_iteration(self, defence: Defence) -> Sequence[int]:
        """Queries of each iteration in turn; none if the iterations are unknown."""
        iterations = self.num_iterations(defence)
        if not iterations:
            return []
        return [(self.num_queries(defence) or iterations) // iterations] * iterations

    def _num_draws(self, defence: Defence) -> int:
        return 1 if defence.deterministic else self.draws

    @property
    def stops_early(self) -> bool:
        """Whether a sample fooled on a deterministic defence keeps the image that fooled it.

        Its success after the last iteration is then unknown, and is not reported.
        """
        return False

    def settings(self) -> dict[str, object]:
        """What a report must say about this attack: its arguments and public attributes."""
        hidden = ("p", "findings", "finding_names", "seconds")
        public = {k: v for k, v in vars(self).items() if k[0] != "_" and k not in hidden}
        return {"attack": type(self).__name__, **self._arguments, **public}
